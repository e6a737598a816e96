"""Numbers of a report: JSON-ready, thinned to their extremes, in units that read well."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.format import plain_text, prefix_of, with_sigma

MAX_TRACE_POINTS = 6000
MANY = {2: 100.0, 3: 1000.0}  # so many times smaller than a unit may an area or a volume be
_SUPERSCRIPT = {1: "", 2: "²", 3: "³"}
_PREFIXED = ("m", "m/s", "V", "A", "C", "s", "Hz")
Floats = NDArray[np.float64]


def numbers(values: NDArray[np.generic] | Sequence[float], digits: int = 7) -> list[Any]:
    """Return numbers for JSON: unknown ones are null, digits beyond use are cut."""
    return [
        float(f"{v:.{digits}g}") if math.isfinite(v) else None
        for v in np.asarray(values, dtype=np.float64).tolist()
    ]


def number(value: object, digits: int = 7) -> float | None:
    """Return one number for JSON; null for what is none."""
    known = float(str(value)) if value is not None else math.nan
    return float(f"{known:.{digits}g}") if math.isfinite(known) else None


def seconds(t_ns: NDArray[np.generic], origin_ns: int) -> list[float]:
    """Return host times as seconds since an origin."""
    return [round(t / 1e9, 6) for t in (np.asarray(t_ns) - origin_ns).tolist()]


def reduce_trace(values: Sequence[Floats], points: int = MAX_TRACE_POINTS) -> NDArray[np.int_]:
    """Return rows that keep the extremes of every stretch of several traces."""
    n = len(values[0])
    if n <= points:
        return np.arange(n)
    edges = np.linspace(0, n, points // (2 * len(values)) + 1).astype(int)
    keep: set[int] = {0, n - 1}
    for a, b in pairwise(edges.tolist()):
        for value in values:
            part = np.nan_to_num(value[a:b], nan=0.0)
            keep |= {a + int(np.argmin(part)), a + int(np.argmax(part))}
    return np.array(sorted(keep))


def largest(*values: NDArray[np.generic]) -> float:
    """Return the largest size among all finite values; 0 where there is none."""
    sizes = [np.abs(np.asarray(v, np.float64)) for v in values]
    return max((float(np.max(s[np.isfinite(s)], initial=0.0)) for s in sizes), default=0.0)


def axis_unit(unit: str, size: float) -> tuple[float, str]:
    """Return what an axis divides SI values by, and the name of what comes out.

    Parameters
    ----------
    unit
        As a session has it: ``"m"``, ``"m^2"``, ``"1/m"``, ``"1"``, ...
    size
        Of the largest value.

    Examples
    --------
    >>> axis_unit("m^2", 3e-14)
    (1e-18, 'nm²')
    """
    base, _, power = unit.partition("^")
    if base == "m" and power in ("2", "3"):
        # Prefixes are powered, too: a step of one is up to a thousand million.
        each, prefix = prefix_of((MANY[int(power)] * size) ** (1 / int(power)))
        return each ** int(power), f"{prefix}m{_SUPERSCRIPT[int(power)]}"
    if unit == "1/m" and size > 0:
        each, prefix = prefix_of(1 / size)
        return 1 / each, f"1/{prefix}m"
    if unit in _PREFIXED:
        factor, prefix = prefix_of(size)
        return factor, f"{prefix}{unit}"
    return 1.0, "" if unit == "1" else unit


def value_text(value: float, sigma: float, unit: str) -> str:
    """Return a value with its sigma in the unit that a session gives it; see `with_sigma`."""
    if unit in _PREFIXED:
        return with_sigma(value, sigma, unit)
    if not math.isfinite(value):
        return "unknown"
    factor, name = axis_unit(unit, abs(value))
    text = plain_text(value / factor, sigma / factor)
    return f"{text} {name}".strip()
