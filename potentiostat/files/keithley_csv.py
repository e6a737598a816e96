"""Keithley CSV: the reading buffer of a 2450 and its relatives, and KickStart's tables of it.

Only tables with a column ``Reading`` are recognised. Its unit, and that of the source value,
stand in brackets behind the name or in a column ``Unit`` to its right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np

from potentiostat.files.recording import Recording, RecordingError
from potentiostat.files.tables import (
    Floats,
    Found,
    Numbers,
    Rows,
    Split,
    checked,
    lines_of,
    local_start,
    read_rows,
    splitter,
)
from potentiostat.files.units import quantity_of, spell, to_si

MAX_PREAMBLE = 100
OVERFLOW = 9.9e37
DELIMITERS = (",", ";", "\t")
SOURCES = ("Value", "Source Value", "Source")
LOOKED_FOR = (
    "a row of names with Reading and its unit (in brackets, or in a column Unit right of it), "
    "Value, Source Value or Source with its unit, and Relative Time, or Date, Time and "
    "Fractional Seconds"
)
SIGN = "a positive current, out of the instrument's high terminal, is taken to charge the cell"
DATE_FORMATS = ("%m/%d/%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%m/%d/%Y %I:%M:%S %p")
# How the instruments write units in their buffers.
_WORDS = {"Amp DC": "A", "Amp": "A", "Volt DC": "V", "Volt": "V", "Coulomb": "C"}
_BRACKETS = re.compile(r"(.+?)\s*[(\[]([^()\[\]]+)[)\]]")


@dataclass(slots=True)
class _Layout:
    split: Split
    width: int
    line: int
    numbers: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    preamble: dict[str, str] = field(default_factory=dict)


def recognises(path: Path) -> bool:
    """Return whether a CSV file has the row of names of a Keithley reading buffer."""
    return _find(path) is not None


def read(path: Path) -> Recording:
    """Read an exported reading buffer.

    Raises
    ------
    RecordingError
        It is no such table, or lacks a part; the message says what was looked for.
    """
    layout = _find(path)
    if layout is None:
        raise RecordingError(f"{path}: is no Keithley buffer; {LOOKED_FOR} were looked for")
    lines = islice(lines_of(path), layout.line, None)
    rows = read_rows(lines, layout.split, layout.width, layout.numbers, Numbers(path), layout.texts)
    said = [SIGN, *rows.said]
    columns: dict[str, Floats] = {}
    for name in ("reading", "source"):
        if name not in layout.numbers:
            continue
        unit = _unit(path, name, layout, rows)
        quantity = quantity_of(unit)
        if quantity not in ("voltage", "current") or quantity in columns:
            raise RecordingError(
                f"{path}: its {name} is in {unit!r}; one of reading and source in volts and the "
                "other in amperes is expected"
            )
        values = _without_overflow(rows.numbers[name], name, said)
        columns[quantity] = values * to_si(quantity, unit)
    if "source" in layout.numbers:
        said.append("whether the source value was set or read back is not in the file")
    time_s, start = _times(path, layout, rows, said)
    return checked(
        path,
        Found(
            time_s=time_s,
            voltage_V=columns.get("voltage"),
            current_A=columns.get("current"),
            charge_C=None,
            model=f"Keithley {layout.preamble.get('model', 'instrument')}",
            serial=layout.preamble.get("serial number", ""),
            start_time=start,
            said=said,
        ),
    )


def _find(path: Path) -> _Layout | None:
    """Return where the columns are, or None where no line names them."""
    preamble: dict[str, str] = {}
    for line in islice(lines_of(path), MAX_PREAMBLE):
        for delimiter in DELIMITERS:
            split = splitter(delimiter)
            cells = [cell.strip() for cell in split(line.text)]
            if any(_parts(cell)[0] == "Reading" for cell in cells) and len(cells) > 1:
                return _layout(path, cells, _Layout(split, len(cells), line.number), preamble)
            if len(cells) == 2 and cells[0]:
                preamble.setdefault(cells[0].rstrip(":").casefold(), cells[1][:100])
    return None


def _layout(path: Path, cells: Sequence[str], layout: _Layout, preamble: dict[str, str]) -> _Layout:
    while layout.width and not cells[layout.width - 1]:
        layout.width -= 1
    layout.preamble = preamble
    names = [_parts(cell)[0] for cell in cells]
    wanted = {
        "reading": ("Reading",),
        "source": SOURCES,
        "relative": ("Relative Time",),
        "fraction": ("Fractional Seconds",),
    }
    for role, known in wanted.items():
        name = next((name for name in known if name in names), None)
        if name is None:
            continue
        if names.count(name) > 1:
            raise RecordingError(f"{path}: has the column {name!r} more than once; export one")
        layout.numbers[role] = names.index(name)
        layout.units[role] = _parts(cells[names.index(name)])[1]
    for role in ("reading", "source"):
        at = layout.numbers.get(role)
        if at is None or layout.units[role]:
            continue
        later = [i for i in range(at + 1, layout.width) if names[i] in ("Unit", "Units")]
        rival = layout.numbers.get("source" if role == "reading" else "reading", -1)
        if not later or at < rival < later[0]:
            raise RecordingError(f"{path}: its {cells[at]} has no unit; {LOOKED_FOR} are expected")
        layout.texts[role] = later[0]
    for role in ("Date", "Time"):
        if names.count(role) == 1:
            layout.texts[role] = names.index(role)
    return layout


def _parts(cell: str) -> tuple[str, str]:
    """Return a column's name and the unit behind it, which may be empty."""
    found = _BRACKETS.fullmatch(cell)
    return (found[1], found[2]) if found else (cell, "")


def _unit(path: Path, role: str, layout: _Layout, rows: Rows) -> str:
    unit = layout.units[role]
    if not unit:
        written = sorted(set(rows.texts[role]))
        if len(written) > 1:
            raise RecordingError(
                f"{path}: its {role} changes its unit ({', '.join(written)[:200]}); export each "
                "function on its own"
            )
        unit = written[0] if written else ""
    return spell(_WORDS.get(unit, unit))


def _without_overflow(values: Floats, name: str, said: list[str]) -> Floats:
    over = np.abs(values) >= OVERFLOW
    if np.any(over):
        said.append(f"{np.count_nonzero(over)} rows of the {name} are overflows: unknown")
    return np.where(over, np.nan, values)


def _times(path: Path, layout: _Layout, rows: Rows, said: list[str]) -> tuple[Floats, str]:
    dates, clocks = rows.texts.get("Date", []), rows.texts.get("Time", [])
    texts = (f"{date} {clock}" for date, clock in zip(dates, clocks, strict=False))
    said_dates = "dates are read month first, in the instrument's local time"
    dated = {"Date", "Time"} <= set(layout.texts)
    if "relative" in layout.numbers:
        unit = layout.units["relative"] or "s"
        if quantity_of(unit) != "time":
            raise RecordingError(f"{path}: its Relative Time is in {unit!r}; s is expected")
        start = local_start(next(texts, ""), DATE_FORMATS) if dated else ""
        said += [said_dates] if start else []
        return rows.numbers["relative"] * to_si("time", unit), start
    if not dated or "fraction" not in layout.numbers:
        raise RecordingError(f"{path}: has no times; {LOOKED_FOR} were looked for")
    stamps = [_stamp(path, text) for text in texts]
    if not stamps:
        return np.array([]), ""
    said.append(said_dates)
    whole_s = np.array([(stamp - stamps[0]).total_seconds() for stamp in stamps])
    fraction_s = rows.numbers["fraction"]
    if not 0 <= fraction_s[0] < 1:
        raise RecordingError(f"{path}: its Fractional Seconds are not between 0 and 1")
    began = stamps[0] + timedelta(seconds=float(fraction_s[0]))
    return whole_s + fraction_s - fraction_s[0], began.isoformat()


def _stamp(path: Path, text: str) -> datetime:
    start = local_start(text, DATE_FORMATS)
    if not start:
        raise RecordingError(
            f"{path}: {text[:40]!r} is no date and time; such as 06/14/2025 13:05:59 is expected"
        )
    return datetime.fromisoformat(start)
