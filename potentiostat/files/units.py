"""Units of other makers' files to SI: here, and nowhere else in this folder."""

import re
from collections.abc import Mapping

_PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
_HOUR_S = 3600.0
SCALES: Mapping[str, Mapping[str, float]] = {
    "time": {
        "ns": 1e-9,
        "us": 1e-6,
        "ms": 1e-3,
        "s": 1.0,
        "sec": 1.0,
        "seconds": 1.0,
        "min": 60.0,
        "h": _HOUR_S,
    },
    "voltage": {prefix + "V": scale for prefix, scale in _PREFIXES.items()},
    "current": {prefix + "A": scale for prefix, scale in _PREFIXES.items()},
    "charge": {prefix + "C": scale for prefix, scale in _PREFIXES.items()}
    | {prefix + "Ah": scale * _HOUR_S for prefix, scale in _PREFIXES.items()},
}
_AMPERE_HOUR = re.compile(r"A[.\u00b7* ]h$")  # mA.h and mA·h are one unit


def spell(unit: str) -> str:
    """Return a unit in our spelling: ``µ`` as ``u``, ``mA.h`` as ``mAh``."""
    return _AMPERE_HOUR.sub("Ah", unit.strip().replace("\u00b5", "u").replace("\u03bc", "u"))


def quantity_of(unit: str) -> str | None:
    """Return what a unit measures: time, voltage, current, charge, or None."""
    return next((name for name, units in SCALES.items() if spell(unit) in units), None)


def to_si(quantity: str, unit: str) -> float:
    """Return the factor from a unit to s, V, A or C.

    Raises
    ------
    ValueError
        It is no unit of this quantity; the message lists those that are.
    """
    units = SCALES[quantity]
    if spell(unit) not in units:
        raise ValueError(f"{unit!r} is no unit of {quantity}; there are {', '.join(units)}")
    return units[spell(unit)]
