"""Gamry ``.DTA``: labelled lines of text, then tables with a row of names and one of units."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from potentiostat.files.recording import Recording, RecordingError
from potentiostat.files.tables import (
    Found,
    Line,
    Numbers,
    checked,
    lines_of,
    local_start,
    read_rows,
    split_tabs,
)
from potentiostat.files.units import to_si

FIRST_LINE = "EXPLAIN"
NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("T",),
    "voltage": ("Vf", "Vm", "V"),
    "current": ("Im", "I"),
    "charge": ("Q",),
}
ANODIC = "1"
LOCAL_TIME = "the start is the recording computer's local time; its zone is not in the file"
_CURVE = re.compile(r"CURVE[0-9]*")
_SHORT_DATE = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")


def read(path: Path, *, curve: int = 0) -> Recording:
    """Read one curve of a Gamry file.

    Parameters
    ----------
    path
        The ``.DTA`` file.
    curve
        Which ``CURVE`` table, from 0, where there are several.

    Raises
    ------
    RecordingError
        It is no such file, or lacks a part; the message names it.
    """
    lines = _Pushed(lines_of(path))
    first = next(lines, None)
    if first is None or first.text.strip() != FIRST_LINE:
        raise RecordingError(f"{path}: is no .DTA file: its first line is not {FIRST_LINE}")
    labels: dict[str, list[str]] = {}
    others: list[str] = []
    found: Found | None = None
    curves = 0
    for line in lines:
        cells = split_tabs(line.text)
        if len(cells) < 2 or cells[1] != "TABLE":
            labels.setdefault(cells[0].strip(), cells[1:])
            continue
        if _CURVE.fullmatch(cells[0]) is None:
            others.append(cells[0])
            continue
        curves += 1
        if curves == curve + 1:
            found = _table(path, lines, cells[2] if len(cells) > 2 else "")
    if found is None:
        raise RecordingError(
            f"{path}: has {curves} CURVE tables, not number {curve + 1}"
            + (f"; there are also {', '.join(others)[:200]}" if others else "")
        )
    if curves > 1:
        found.said.append(f"curve {curve + 1} of {curves} was taken")
    return checked(path, _labelled(found, labels))


class _Pushed:
    """Lines, one of which may be given back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._back: Line | None = None

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        line, self._back = self._back, None
        return next(self._lines) if line is None else line

    def rows(self) -> Iterator[Line]:
        """Yield the lines of a table: those that begin with a tab."""
        for line in self:
            if not line.text.startswith("\t"):
                self._back = line
                return
            yield line


def _table(path: Path, lines: _Pushed, promised: str) -> Found:
    rows = lines.rows()
    names, units = (
        [cell.strip() for cell in split_tabs(line.text)] if line else []
        for line in (next(rows, None), next(rows, None))
    )
    if len(names) != len(units) or not names:
        raise RecordingError(f"{path}: its CURVE table lacks the row of names or that of units")
    chosen = _choose(path, names)
    places = {quantity: names.index(name) for quantity, name in chosen.items()}
    read_in = read_rows(rows, split_tabs, len(names), places, Numbers(path, comma_is_decimal=True))
    columns = {}
    for quantity, values in read_in.numbers.items():
        unit = units[places[quantity]].partition(" vs.")[0]
        try:
            columns[quantity] = values * to_si(quantity, unit)
        except ValueError as error:
            raise RecordingError(f"{path}: column {chosen[quantity]!r}: {error}") from error
    count = len(columns["time"])
    said = list(read_in.said)
    if promised.strip() != str(count):
        said.append(
            f"the header says {promised.strip()[:20] or 'no'} rows; {count} whole ones are there"
        )
    return Found(
        time_s=columns["time"],
        voltage_V=columns.get("voltage"),
        current_A=columns.get("current"),
        charge_C=columns.get("charge"),
        model="Gamry potentiostat",
        said=said,
    )


def _choose(path: Path, names: list[str]) -> dict[str, str]:
    chosen = {}
    for quantity, known in NAMES.items():
        there = [name for name in known if name in names]
        if there and names.count(there[0]) > 1:
            raise RecordingError(f"{path}: has the column {there[0]!r} more than once")
        if there:
            chosen[quantity] = there[0]
    if "time" not in chosen or not {"voltage", "current"} & set(chosen):
        raise RecordingError(
            f"{path}: lacks columns; T, Vf or Vm, and Im were looked for, and there are "
            f"{', '.join(filter(None, names))[:400] or 'none'}"
        )
    return chosen


def _labelled(found: Found, labels: Mapping[str, list[str]]) -> Found:
    """Add what the labelled lines say of instrument, technique, sign and start."""

    def value(key: str) -> str:
        cells = labels.get(key, [])
        return cells[1].strip() if len(cells) > 1 else ""

    if value("CONVENTION") == ANODIC:
        found.said.append(
            "the maker's anodic current is taken as the current that charges the cell"
        )
    else:
        found.said.append(
            f"the file's current convention is {value('CONVENTION') or 'not stated'}, not 1 "
            "(anodic): signs are kept as they are; check that charging is positive"
        )
    found.start_time = _start(value("DATE"), value("TIME"))
    if found.start_time:
        found.said.append(LOCAL_TIME)
    elif value("DATE"):
        found.said.append(f"the start is left out: {value('DATE')[:20]} may be read in two ways")
    if "EXPERIMENTABORTED" in labels:
        found.said.append("the experiment was aborted, the file says")
    tag = labels.get("TAG", [""])
    found.technique = tag[0].strip() if tag else ""
    found.model = f"Gamry {value('PSTATSECTION') or value('PSTAT') or 'potentiostat'}"
    found.serial = value("PSTATSERIALNO")
    found.details |= {
        "title": value("TITLE"),
        "started": f"{value('DATE')} {value('TIME')}".strip(),
        "software": value("FRAMEWORKVERSION"),
        "firmware": value("INSTRUMENTVERSION"),
    }
    return found


def _start(date: str, time: str) -> str:
    """Return the start; empty where day and month may be either."""
    short = _SHORT_DATE.fullmatch(date)
    formats = ["%d.%m.%Y", "%Y-%m-%d"]
    if short is not None:
        first, second = int(short[1]), int(short[2])
        if first <= 12 and second <= 12 and first != second:
            return ""
        formats = ["%m/%d/%Y", "%d/%m/%Y"]
    whole = time.replace(",", ".")
    return local_start(
        f"{date} {whole}",
        [f"{day} {clock}" for day in formats for clock in ("%H:%M:%S", "%H:%M:%S.%f")],
    )
