"""What readers of other makers' files share: numbers, rows of text, and the checks.

Text is read line by line, so that a file of a gigabyte needs the memory of its numbers only.
"""

import csv
import math
import re
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from potentiostat.files.recording import Recording, RecordingError

MAX_BYTES = 1 << 30
MAX_LINE_BYTES = 1 << 20
CHARGE_TOLERANCE = 0.01
# Beyond it nanoseconds have no room in 64 bits; 285 years since any epoch will do.
LATEST_S = 9e9
# No instrument reads as much; sums of it would be beyond all numbers.
LARGEST = 1e30

Floats = NDArray[np.float64]
Split = Callable[[str], list[str]]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_COULD_BE_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_UNKNOWN = frozenset({"", "-", "--", "---", "nan", "n/a", "na", "null", "none", "xxx"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file; `ended` is False where the file stops before its line end."""

    number: int
    text: str
    ended: bool


def check_size(path: Path) -> None:
    """Refuse what is no ordinary file, and what would fill the memory."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path}: cannot be read: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise RecordingError(f"{path}: cannot be read: it is no ordinary file")
    if found.st_size > MAX_BYTES:
        raise RecordingError(f"{path}: is larger than {MAX_BYTES >> 20} MiB; export less of it")


def lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines of a text file: UTF-8, or else Latin-1.

    Raises
    ------
    RecordingError
        The file cannot be read, is too large, or is no text.
    """
    check_size(path)
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES or b"\0" in raw:
                    raise RecordingError(
                        f"{path}: line {number} is no text; a text file in UTF-8 or Latin-1 "
                        "is expected"
                    )
                yield Line(number, _decode(raw).rstrip("\r\n"), raw.endswith(b"\n"))
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def split_tabs(text: str) -> list[str]:
    """Split a line at its tabs."""
    return text.split("\t")


def splitter(delimiter: str) -> Split:
    """Return what splits a line of CSV; quotes are honoured within one line."""

    def split(text: str) -> list[str]:
        try:
            return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            return []

    return split


@dataclass(slots=True)
class Numbers:
    """Turns cells into numbers, and remembers which decimal mark the file uses.

    Parameters
    ----------
    path
        Named in errors.
    comma_is_decimal
        The maker never writes thousands separators, so ``1,234`` is not ambiguous.
    """

    path: Path
    comma_is_decimal: bool = False
    _comma: int = 0
    _point: int = 0
    _told: bool = False

    def read(self, cell: str, column: str, line: int) -> float:
        """Return the number in a cell; NaN where it says that it has none."""
        text = cell.strip()
        if text.casefold() in _UNKNOWN:
            return math.nan
        if _NUMBER.fullmatch(text) is None:
            raise RecordingError(
                f"{self.path}: line {line}: {text[:40]!r} in {column!r} is no number; plain "
                "numbers without thousands separators are expected"
            )
        if "," in text:
            self._comma = self._comma or line
            self._told = self._told or _COULD_BE_THOUSANDS.fullmatch(text) is None
        elif "." in text:
            self._point = self._point or line
        if self._comma and self._point:
            raise RecordingError(
                f"{self.path}: line {self._comma} has a decimal comma and line {self._point} a "
                "point; one of them is expected, and no thousands separators"
            )
        value = float(text.replace(",", "."))
        if math.isinf(value):
            raise RecordingError(f"{self.path}: line {line}: {text[:40]} is beyond all numbers")
        return value

    def finish(self) -> None:
        """Refuse commas that may be thousands separators throughout."""
        if self._comma and not self._told and not self.comma_is_decimal:
            raise RecordingError(
                f"{self.path}: line {self._comma}: its commas may be decimal marks or thousands "
                "separators; export it with decimal points"
            )


@dataclass(slots=True)
class Rows:
    """Columns of a table, and what was left out of it."""

    numbers: dict[str, Floats]
    texts: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def read_rows(
    lines: Iterable[Line],
    split: Split,
    width: int,
    numbers: Mapping[str, int],
    parse: Numbers,
    texts: Mapping[str, int] | None = None,
) -> Rows:
    """Read the rows of a table, and keep the columns that are asked for.

    A last row that is cut short is left out and said; one in the middle is an error.

    Parameters
    ----------
    lines, split
        The rows, without the header, and what splits one into cells.
    width
        Cells in a whole row.
    numbers, texts
        Name of a column to its place.
    parse
        Reads the numbers.
    """
    kept = {name: array("d") for name in numbers}
    words: dict[str, list[str]] = {name: [] for name in texts or {}}
    short: Line | None = None
    count = 0
    for line in lines:
        if not line.text.strip():
            continue
        if short is not None:
            raise RecordingError(
                f"{parse.path}: line {short.number} has {count} columns, and the header names "
                f"{width}; with decimal commas, semicolons or tabs are expected between columns"
            )
        cells = split(line.text)
        if not line.ended or len(cells) < width or any(cell.strip() for cell in cells[width:]):
            short, count = line, len(cells)
            continue
        for name, at in numbers.items():
            kept[name].append(parse.read(cells[at], name, line.number))
        for name, at in (texts or {}).items():
            words[name].append(cells[at].strip())
    parse.finish()
    said = []
    if short is not None:
        said.append(f"the last row (line {short.number}) is or may be cut short and was left out")
    arrays = {name: np.array(values, dtype=np.float64) for name, values in kept.items()}
    return Rows(arrays, words, said)


@dataclass(slots=True, kw_only=True)
class Found:
    """What a reader found in a file, in SI units; becomes a `Recording` once it is checked."""

    time_s: Floats
    voltage_V: Floats | None
    current_A: Floats | None
    charge_C: Floats | None
    model: str
    serial: str = ""
    technique: str = ""
    start_time: str = ""
    said: list[str] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)


def checked(path: Path, found: Found) -> Recording:
    """Check times and charge, and return the recording.

    Raises
    ------
    RecordingError
        There are fewer than two rows, or the times fall or are unknown.
    """
    time_s, said, details = found.time_s, list(found.said), dict(found.details)
    if len(time_s) < 2:
        raise RecordingError(f"{path}: has {len(time_s)} whole rows; two or more are expected")
    check_sizes(path, time_s, (found.voltage_V, found.current_A, found.charge_C))
    if not np.all(np.isfinite(time_s)) or np.any(np.diff(time_s) < 0):
        raise RecordingError(f"{path}: its times do not rise; one run per file is expected")
    keep = np.concatenate([[True], np.diff(time_s) > 0])
    if np.count_nonzero(keep) < 2:
        raise RecordingError(f"{path}: its times do not rise: all rows have the same one")
    if not np.all(keep):
        said.append(
            f"{np.count_nonzero(~keep)} rows repeat the time of the row before and were left out"
        )
    time_s = time_s[keep]
    columns: list[Floats | None] = []
    for name, values in (("voltage", found.voltage_V), ("current", found.current_A)):
        if values is None:
            said.append(f"no {name} in the file: it is unknown")
        columns.append(np.full(len(time_s), np.nan) if values is None else values[keep])
    voltage_V, current_A = columns
    charge_C = None if found.charge_C is None else found.charge_C[keep]
    if time_s[0] != 0:
        said.append(f"the first row is at {time_s[0]:.6g} s of the file's own time")
    if charge_C is not None and current_A is not None:
        _compare_charges(time_s, current_A, charge_C, said, details)
    return Recording(
        time_s=time_s,
        voltage_V=np.full(len(time_s), np.nan) if voltage_V is None else voltage_V,
        current_A=np.full(len(time_s), np.nan) if current_A is None else current_A,
        logged_charge_C=charge_C,
        model=found.model,
        serial=found.serial,
        technique=found.technique,
        start_time=found.start_time,
        assumptions=tuple(said),
        details=details,
    )


def check_sizes(path: Path, time_s: Floats, columns: Iterable[Floats | None]) -> None:
    """Refuse numbers that no clock and no instrument gives: the file is damaged.

    Raises
    ------
    RecordingError
        A time is beyond `LATEST_S`, or another number beyond `LARGEST`.
    """
    far = np.flatnonzero(np.abs(time_s) > LATEST_S)
    if far.size:
        raise RecordingError(
            f"{path}: row {far[0]} (from 0) is at {time_s[far[0]]:.6g} s; times within "
            f"{LATEST_S:.0e} s of 0 are expected"
        )
    for values in columns:
        large = np.flatnonzero(np.abs(values) > LARGEST) if values is not None else np.zeros(0, int)
        if values is not None and large.size:
            raise RecordingError(
                f"{path}: row {large[0]} (from 0) holds {values[large[0]]:.6g} V, A or C, which "
                "no instrument reads; the file is damaged"
            )


def _compare_charges(
    time_s: Floats, current_A: Floats, charge_C: Floats, said: list[str], details: dict[str, str]
) -> None:
    """Say how far trapezia of the current are from the charge that the file has itself."""
    good = np.isfinite(current_A) & np.isfinite(charge_C)
    if np.count_nonzero(good) < 2:
        return
    time_s, current_A, charge_C = time_s[good], current_A[good], charge_C[good]
    own_C = float(charge_C[-1] - charge_C[0])
    trapezia_C = _trapezia(time_s, current_A)
    size_C = max(_trapezia(time_s, np.abs(current_A)), abs(own_C))
    if size_C == 0:
        return
    off = abs(trapezia_C - own_C) / size_C
    told = f"{own_C:.6g} C in the file, {trapezia_C:.6g} C by trapezia, {off:.2%} apart"
    details["charge_check"] = told
    if off > CHARGE_TOLERANCE:
        same = abs(trapezia_C + own_C) <= CHARGE_TOLERANCE * size_C
        said.append(
            f"the file's own charge and its current disagree: {told}"
            + ("; one of them has the other sign" if same else "")
        )


def _trapezia(time_s: Floats, current_A: Floats) -> float:
    return float(np.sum(0.5 * (current_A[1:] + current_A[:-1]) * np.diff(time_s)))


def local_start(text: str, formats: Iterable[str]) -> str:
    """Return a start in ISO 8601 without a zone; empty where no format fits."""
    for known in formats:
        try:
            return datetime.strptime(text.strip(), known).isoformat()  # noqa: DTZ007
        except ValueError:
            continue
    return ""
