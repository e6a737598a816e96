"""Numbers as people read them: SI prefixes, and a value with its uncertainty."""

import math

from potentiostat.segments import Level, Reference, Step

_PREFIXES = {
    -18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M",
    9: "G", 12: "T", 15: "P",
}  # fmt: skip


SMALLEST, LARGEST = 1e-3, 1e5  # that are written without prefix and without a power of ten


def prefix_of(size: float) -> tuple[float, str]:
    """Return the power of ten and the SI prefix in which a size reads well."""
    if size == 0 or not math.isfinite(size):
        return 1.0, ""
    power = 3 * math.floor(math.log10(size) / 3 + 1e-12)
    power = min(max(power, -18), 15)
    return 10.0**power, _PREFIXES[power]


def in_unit(value: float, unit: str, digits: int = 4) -> str:
    """Return ``value`` with an SI prefix, such as ``20.01 pA``; ``-`` where unknown."""
    if not math.isfinite(value):
        return "-"
    factor, prefix = prefix_of(abs(value))
    return f"{value / factor:.{digits}g} {prefix}{unit}"


def with_sigma(value: float, sigma: float, unit: str) -> str:
    """Return ``value ± sigma`` to two digits of the sigma, such as ``3.502 ± 0.021 nC``.

    An unknown value gives ``unknown``; an unknown sigma is said to be so.
    """
    if not math.isfinite(value):
        return "unknown"
    if not math.isfinite(sigma):
        return f"{in_unit(value, unit)} (uncertainty unknown)"
    factor, prefix = prefix_of(max(abs(value), sigma))
    scaled = sigma / factor
    places = 2 if scaled == 0 else max(0, 1 - math.floor(math.log10(scaled)))
    return f"{value / factor:.{places}f} ± {scaled:.{places}f} {prefix}{unit}"


def scientific(value: float, sigma: float) -> str:
    """Return ``value ± sigma`` with a power of ten, such as ``(1.996 ± 0.027)e-15``."""
    if not (math.isfinite(value) and math.isfinite(sigma)) or value == sigma == 0:
        return "unknown"
    power = math.floor(math.log10(max(abs(value), sigma)) + 1e-12)
    scaled = sigma / 10.0**power
    places = 2 if scaled == 0 else max(0, 1 - math.floor(math.log10(scaled)))
    return f"({value / 10.0**power:.{places}f} ± {scaled:.{places}f})e{power}"


def plain_text(value: float, sigma: float) -> str:
    """Return ``value ± sigma`` without a prefix, such as ``0.9933 ± 0.0047``."""
    size = max(abs(value), abs(sigma) if math.isfinite(sigma) else 0.0)
    if size and not SMALLEST <= size < LARGEST:
        return scientific(value, sigma)
    if not math.isfinite(sigma):
        return f"{value:.4g} (uncertainty unknown)"
    places = 2 if sigma == 0 else max(0, 1 - math.floor(math.log10(sigma)))
    return f"{value:.{places}f} ± {sigma:.{places}f}"


def level_text(level: Level) -> str:
    """Return a voltage as it is written in an experiment file."""
    return _relative_text(level.volts, "V", level.versus)


def _relative_text(value: float, unit: str, versus: Reference) -> str:
    if versus == "zero":
        return in_unit(value, unit)
    name = "OCV" if versus == "ocv" else versus
    if value == 0:
        return name
    return f"{name} {'+' if value > 0 else '-'} {in_unit(abs(value), unit)}"


def held_text(step: Step) -> str:
    """Return what a step holds first, and how many segments follow."""
    first = step.segments[0]
    if first.current_A is not None:
        text = _relative_text(first.current_A, "A", first.current_versus)
    elif first.voltage is None:
        text = "OCV"
    elif first.ramp is None:
        text = level_text(first.voltage)
    else:
        rate = in_unit(first.ramp.rate_V_s, "V/s")
        text = f"{level_text(first.voltage)} to {level_text(first.ramp.to)} at {rate}"
    more = len(step.segments) - 1
    return text if more == 0 else f"{text}, and {more} more"
