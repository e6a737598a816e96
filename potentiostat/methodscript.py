"""PalmSens MethodSCRIPT as text: how numbers and scripts are written, and what comes back.

After the MethodSCRIPT manual 1.8 (dev.palmsens.com/methodscript/latest), the maker's
`MethodSCRIPT_Examples` and the script `battery_cycling.mscr` of its Python package.

* A number in a script is an integer and a prefix letter: ``3906m`` is 3.906 (chapter 4).
* A package is ``P`` and fields parted by semicolons. Each is a type of two letters, seven
  hexadecimal digits with an offset of 0x8000000 and a prefix letter, then what is known
  about it: ``,1`` and a digit of status, ``,2`` and two digits of range (chapter 5).
* An error of the text is ``e!XXXX: Line L, Col C``. One while the script runs is
  ``!XXXX: Line L``, and then `on_finished:` is not obeyed (10.1): the cell may be on.

Not yet confirmed: that a script's end is told by an empty line after an error too, and that
``i`` as a last letter marks a whole number in a package as it does in a script.
"""

import math
import re
from dataclasses import dataclass

from potentiostat.errors import ReplyError, UnsafeRequest

PREFIXES = {
    "a": 1e-18, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, " ": 1.0,
    "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "i": 1.0,
}  # fmt: skip
OFFSET = 0x8000000  # of a package's digits
LARGEST_DIGITS = 2**31  # of a number in a script

# Types of variables (appendix C).
TIME, WHOLE = "eb", "aa"
VOLTAGES = ("ab", "da")  # measured; applied
CURRENTS = ("ba", "db")
MEASURED_CURRENT = "ba"

OVERLOAD = 2  # bit of a variable's status

_SCRIPT_PREFIXES = [
    (letter.strip(), 10.0**n) for letter, n in zip("GMk munpfa", range(9, -21, -3), strict=True)
]
_VARIABLE = re.compile(r"([a-j][a-z])([0-9A-Fa-f]{7})(.)|([a-j][a-z]) *nan")
_ERROR = re.compile(r"(e?)!([0-9A-Fa-f]{4})(.*)")

# Appendix A of the manual, as far as these scripts can meet it.
_ERRORS = {
    0x0003: "it does not know the command",
    0x0006: "no script runs, or one does and the command must wait",
    0x000F: "the potential is beyond its reach",
    0x0010: "a variable is no number any more",
    0x0014: "the rest potential cannot be measured while the cell is on",
    0x001B: "this model cannot do it",
    0x0021: "this model has no such mode",
    0x0023: "not in this mode",
    0x0032: "overload of the cell, stopped to prevent damage",
    0x005A: "the times that are asked for cannot be kept",
    0x0080: "the counter electrode oscillates",
    0x4001: "it does not know a word of the script",
    0x4018: "the script ends too early",
    0x4027: "the cell should be on",
    0x4028: "the cell should be off",
    0x4039: "a number is written wrongly",
    0x420B: "a variable was not declared",
    0x7FFF: "it must be restarted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One value of a package.

    Parameters
    ----------
    value
        In SI units; NaN where the instrument says so.
    status
        Bits: 1 late, 2 overload, 4 underload, 8 near overload.
    range_index
        The maker's number of the range that was on; None where none is told.
    """

    value: float
    status: int = 0
    range_index: int | None = None


def write_number(value: float) -> str:
    """Return a number as a script has it: an integer and a prefix letter.

    The integer is below 2**31: six digits are kept at least, and all of a round number.

    Raises
    ------
    UnsafeRequest
        It is not finite, or not between 1e-18 and 2e18.
    """
    if value == 0:
        return "0"
    if not (math.isfinite(value) and 1e-18 <= abs(value) < 2e18):
        raise UnsafeRequest(f"{value} is no number for a script")
    best = ""
    for letter, factor in _SCRIPT_PREFIXES:
        digits = round(value / factor)
        if abs(digits) >= LARGEST_DIGITS:
            break
        if digits:
            best = f"{digits}{letter}"
            if math.isclose(digits * factor, value, rel_tol=1e-9, abs_tol=0.0):
                break
    return best


def read_package(line: str) -> dict[str, Variable]:
    """Read a package line into its variables by type.

    Raises
    ------
    ReplyError
        It is no package, or a field of it makes no sense.
    """
    if not line.startswith("P"):
        raise ReplyError(f"{line!r} is no package")
    found: dict[str, Variable] = {}
    for part in line[1:].split(";"):
        head, *notes = part.split(",")
        kind, value = _read_value(head, line)
        if kind in found:
            raise ReplyError(f"{line!r} has the type {kind} twice")
        status, range_index = _read_notes(notes, line)
        found[kind] = Variable(value=value, status=status, range_index=range_index)
    return found


def _read_value(text: str, line: str) -> tuple[str, float]:
    # The reader of lines takes blanks off their ends: no prefix may look like nothing.
    match = _VARIABLE.fullmatch(text if len(text) != 9 else f"{text} ")
    if match is None or (match[4] is None and match[3] not in PREFIXES):
        raise ReplyError(f"{line!r} has a field {text!r} that makes no sense")
    if match[4] is not None:
        return match[4], math.nan
    return match[1], (int(match[2], 16) - OFFSET) * PREFIXES[match[3]]


def _read_notes(notes: list[str], line: str) -> tuple[int, int | None]:
    status, range_index = 0, None
    try:
        for note in notes:
            if note[:1] == "1":
                status = int(note[1:], 16)
            elif note[:1] == "2":
                range_index = int(note[1:], 16)
    except ValueError:
        raise ReplyError(f"{line!r} has a note {notes!r} that makes no sense") from None
    return status, range_index


def explain_error(line: str) -> str | None:
    """Return what an error line says in words, or None for a line that is none."""
    match = _ERROR.fullmatch(line)
    if match is None:
        return None
    meaning = _ERRORS.get(int(match[2], 16), "see appendix A of the MethodSCRIPT manual")
    return f"{line} ({meaning})"
