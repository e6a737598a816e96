"""Text with a unit becomes a number: strictly, or not at all.

One table of kinds and no unit arithmetic: what a field means is known, so ``0.5 C`` is a
C-rate in one field and refused in every other, and a decimal comma is never dropped.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from potentiostat.segments import Level, Reference


class QuantityError(ValueError):
    """A text is not the quantity that is asked for; the message says what would do."""


def _prefixed(unit: str, powers: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {prefix + unit: (1, power) for prefix, power in powers.items()}


_SMALL = {"a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "m": -3, "": 0}
_VOLTS = {"p": -12, "n": -9, "u": -6, "µ": -6, "m": -3, "": 0}
_TIMES = {"ns": (1, -9), "us": (1, -6), "µs": (1, -6), "ms": (1, -3), "s": (1, 0)}
_LENGTHS = {"pm": -12, "nm": -9, "um": -6, "µm": -6, "mm": -3}
_PER_AREA = tuple(f"{e}/{area}" for e in ("e", "e-") for area in ("angstrom^2", "Å^2", "Å²", "A^2"))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of quantity.

    Parameters
    ----------
    name
        As it is told to people.
    example
        A text that would do.
    units
        Unit to (factor, power of ten): ``number * factor * 10**power`` in SI.
    zeros
        Where units begin that do not begin at nothing, in SI: right for a value of its own,
        and wrong for a difference, which such a kind is never.
    least
        In SI: what lies below cannot be.
    """

    name: str
    example: str
    units: Mapping[str, tuple[int | Fraction, int]]
    zeros: Mapping[str, Decimal] = field(default_factory=dict)
    least: float = -math.inf


KINDS: Mapping[str, Kind] = {
    "current": Kind("a current", "5 pA", _prefixed("A", _SMALL)),
    "current_density": Kind(
        "a current density",
        "0.2 mA/cm^2",
        {
            unit + area: (1, power + 4)
            for unit, (_, power) in _prefixed("A", _SMALL).items()
            for area in ("/cm^2", "/cm²")
        },
    ),
    "c_rate": Kind("a C-rate", "0.05 C", {"C": (1, 0)}),
    "voltage": Kind("a voltage", "4.2 V", _prefixed("V", _VOLTS)),
    "scan_rate": Kind(
        "a scan rate",
        "20 mV/s",
        {
            **{f"{u}/s": scale for u, scale in _prefixed("V", _VOLTS).items()},
            **{f"{u}/h": (Fraction(1, 3600), p) for u, (_, p) in _prefixed("V", _VOLTS).items()},
        },
    ),
    "current_rate": Kind(
        "a rate of current",
        "0.1 pA/s",
        {f"{u}/s": scale for u, scale in _prefixed("A", _SMALL).items()},
    ),
    "time": Kind("a time", "10 min", {**_TIMES, "min": (60, 0), "h": (3600, 0)}),
    "length": Kind(
        "a length",
        "500 nm",
        {
            **{unit: (1, power) for unit, power in _LENGTHS.items()},
            "m": (1, 0),
            "Å": (1, -10),
            "angstrom": (1, -10),
        },
    ),
    "area": Kind(
        "an area",
        "0.5 um^2",
        {
            unit + square: (1, 2 * power)
            for unit, power in (*_LENGTHS.items(), ("m", 0))
            for square in ("^2", "²")
        },
    ),
    "speed": Kind(
        "a speed", "20 nm/s", {f"{unit}/s": (1, power) for unit, power in _LENGTHS.items()}
    ),
    "charge": Kind(
        "a charge",
        "5 nC",
        {
            **{u: s for u, s in _prefixed("C", _SMALL).items() if u != "C"},
            **{u: (3600, p) for u, (_, p) in _prefixed("Ah", _SMALL).items()},
        },
    ),
    "frame_rate": Kind("a frame rate", "20 Hz", {"Hz": (1, 0), "fps": (1, 0)}),
    "frequency": Kind(
        "a frequency", "10 mHz", {"uHz": (1, -6), "µHz": (1, -6), "mHz": (1, -3), "Hz": (1, 0)}
    ),
    "dose": Kind("a dose", "500 e/angstrom^2", dict.fromkeys(_PER_AREA, (1, 20))),
    "dose_rate": Kind(
        "a dose rate",
        "50 e/angstrom^2/s",
        {f"{unit}/s": (1, 20) for unit in _PER_AREA},
    ),
    "mass": Kind(
        "a mass",
        "5 pg",
        {f"{p}g": (1, power - 3) for p, power in _SMALL.items()},
    ),
    "fraction": Kind("a fraction", "80 %", {"%": (1, -2)}),
    "temperature": Kind(
        "a temperature",
        "298 K",
        {"K": (1, 0), "degC": (1, 0), "°C": (1, 0)},
        zeros=dict.fromkeys(("degC", "°C"), Decimal("273.15")),
        least=0.0,
    ),
}

_NUMBER = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[ ]*(?P<unit>.*)",
    re.DOTALL,
)
_FRACTION = re.compile(r"(?P<sign>[+-]?)C/(?P<divisor>[0-9]+(?:\.[0-9]+)?)")
_LONGEST = 80
# In SI units. Products of several quantities are then numbers, too.
_LEAST, _MOST = 1e-30, 1e30


def parse(text: object, kind: str) -> float:
    """Read a quantity of a known kind.

    Parameters
    ----------
    text
        Such as ``"5 pA"``.
    kind
        A key of `KINDS`.

    Returns
    -------
    float
        In SI units, finite, rounded once.

    Raises
    ------
    QuantityError
        It is anything else; the message says what, and shows one text that would do.
    """
    return parse_any(text, (kind,))[0]


def parse_positive(text: object, kind: str) -> float:
    """Read one quantity that is more than nothing.

    Raises
    ------
    QuantityError
        It is none, or not more than nothing.
    """
    value = parse(text, kind)
    if value <= 0:
        raise QuantityError(
            f"{text!r} must be more than nothing; write for example {KINDS[kind].example}"
        )
    return value


def parse_any(text: object, kinds: Sequence[str]) -> tuple[float, str]:
    """Read a quantity that may be of several kinds; return it with its kind.

    Raises
    ------
    QuantityError
        It is of none of them.
    """
    wanted = [KINDS[name] for name in kinds]
    example = f"write for example {wanted[0].example}"
    if not isinstance(text, str):
        raise QuantityError(f"{text!r} has no unit; {example}")
    clean = unicodedata.normalize("NFC", text).replace("\u03bc", "µ").strip(" \t")
    shown = repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")
    if "c_rate" in kinds and (fraction := _FRACTION.fullmatch(clean)):
        return _c_rate(fraction, shown), "c_rate"
    if "," in clean:
        raise QuantityError(f"{shown} has a comma; write a decimal point, as in 4.3")
    match = _NUMBER.fullmatch(clean)
    if match is None:
        raise QuantityError(f"{shown} is not a number with a unit; {example}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise QuantityError(f"{shown} has no unit; {example}")
    for name, kind in zip(kinds, wanted, strict=True):
        if unit in kind.units:
            zero = kind.zeros.get(unit, _NOTHING)
            value = _scaled(number, kind.units[unit], shown, zero=zero)
            if value < kind.least:
                raise QuantityError(f"{shown} lies below what there can be of {kind.name}")
            return value, name
    raise QuantityError(f"{shown} {_why_not(unit, wanted)}")


_NOTHING = Decimal(0)


def _scaled(
    number: str, scale: tuple[int | Fraction, int], shown: str, *, zero: Decimal = _NOTHING
) -> float:
    """Put the power of ten and the unit's zero into the exact number, and round once."""
    factor, power = scale
    exact = Decimal(number)
    if exact and not -400 < exact.adjusted() < 400:
        raise QuantityError(f"{shown} is beyond any number that can be meant")
    if isinstance(factor, Fraction):
        value = float(Fraction(exact) * factor * Fraction(10) ** power)
    else:
        value = float((exact * factor).scaleb(power) + zero)
    if exact + zero and not _LEAST <= abs(value) <= _MOST:
        raise QuantityError(f"{shown} is beyond any number that can be meant")
    return value


def _c_rate(match: re.Match[str], shown: str) -> float:
    divisor = float(match["divisor"])
    if divisor == 0:
        raise QuantityError(f"{shown} divides by zero; write for example C/20")
    return (-1.0 if match["sign"] == "-" else 1.0) / divisor


def _why_not(unit: str, wanted: Sequence[Kind]) -> str:
    """Say what is wrong with a unit; a hint never guesses a magnitude."""
    names = " or ".join(kind.name for kind in wanted)
    for kind in wanted:
        for known in kind.units:
            if known.casefold() == unit.casefold():
                return f"has the unit {unit!r}; did you mean {known}?"
    if unit == "C" and KINDS["temperature"] in wanted:
        return "is in C, which is coulomb here, and no temperature; write for example 25 degC"
    for name, kind in KINDS.items():
        if unit in kind.units and kind not in wanted:
            if name == "c_rate":
                return (
                    f"reads as a C-rate; this field is {names}, "
                    f"write for example {wanted[0].example}"
                )
            return f"is {kind.name}; this field is {names}, write for example {wanted[0].example}"
    if _FRACTION.fullmatch(unit):
        return f"is not a number with a unit; write for example {wanted[0].example}"
    return f"has a unit that is not known here; write for example {wanted[0].example}"


_RELATIVE = re.compile(r"(?P<versus>OCV|control|measured)(?:\s*(?P<sign>[+-])\s*(?P<offset>.+))?")


def _relative(text: object) -> tuple[Reference, str] | None:
    """Return what a text counts from, and its signed offset ("" for none); None for neither."""
    match = _RELATIVE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    versus: Reference = match["versus"].lower()  # type: ignore[assignment]
    return versus, "" if match["offset"] is None else match["sign"] + match["offset"]


def parse_level(text: object) -> Level:
    """Read a voltage, or one that counts from another, such as ``"OCV + 20 mV"``.

    ``OCV`` is the rest voltage before the step, ``control`` the voltage that was held
    last, ``measured`` that of the last reading.

    Raises
    ------
    QuantityError
        It is neither.
    """
    relative = _relative(text)
    if relative is None:
        return Level(volts=parse(text, "voltage"))
    versus, offset = relative
    return Level(volts=parse(offset, "voltage") if offset else 0.0, versus=versus)


@dataclass(frozen=True, slots=True)
class CurrentLevel:
    """A current as it is written: a number of some kind, and what it counts from."""

    number: float
    kind: str
    versus: Reference = "zero"


def parse_current_level(text: object) -> CurrentLevel:
    """Read a current, current density or C-rate, or ``"control + 5 pA"``.

    Raises
    ------
    QuantityError
        It is none of them.
    """
    relative = _relative(text)
    if relative is None:
        return CurrentLevel(*parse_any(text, ("current", "current_density", "c_rate")))
    versus, offset = relative
    if versus == "ocv":
        raise QuantityError(f"{text!r}: a rest voltage is no current; write control or measured")
    return CurrentLevel(parse(offset, "current") if offset else 0.0, "current", versus)


def parse_fraction(text: object) -> float:
    """Read a fraction: ``0.8``, ``"0.8"`` or ``"80 %"``.

    Raises
    ------
    QuantityError
        It is none.
    """
    if isinstance(text, int | float) and not isinstance(text, bool) and math.isfinite(text):
        return float(text)
    bare = _NUMBER.fullmatch(text.strip()) if isinstance(text, str) else None
    if bare is not None and not bare["unit"]:
        return float(bare["number"])
    return parse(text, "fraction")


def parse_moment(text: object) -> str:
    """Read a date and a time of day, such as ``"2026-11-26 08:00"``; return it as ISO 8601.

    Raises
    ------
    QuantityError
        It is none.
    """
    told = f'{text!r} is no date with a time of day; write for example "2026-11-26 08:00"'
    if not isinstance(text, str) or ":" not in text:
        raise QuantityError(told)
    try:
        return datetime.fromisoformat(text.strip()).isoformat()
    except ValueError as error:
        raise QuantityError(told) from error
