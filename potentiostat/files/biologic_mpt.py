"""BioLogic ``.mpt``: the text that EC-Lab and BT-Lab export, with tabs between columns."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from potentiostat.files.recording import Recording, RecordingError
from potentiostat.files.tables import (
    Floats,
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

FIRST_LINES = ("EC-Lab ASCII FILE", "BT-Lab ASCII FILE")
MAX_HEADER_LINES = 10_000
# Names of the maker's software, the best first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time",),
    "voltage": ("Ewe", "<Ewe>", "Ecell", "<Ecell>"),
    "current": ("I", "<I>"),
    "charge": ("(Q-Qo)",),
}
NEEDED = "time/s, Ewe/V, I/mA or <I>/mA, and (Q-Qo)/mA.h"
MARKS = ("Ns", "cycle number", "error")
SIGN = "the maker's positive (anodic) current is taken as the current that charges the cell"
LOCAL_TIME = "the start is the recording computer's local time; its zone is not in the file"
MEAN = "currents are means since the row before: trapezia of them are less exact"
START_FORMATS = (
    "%m/%d/%Y %H:%M:%S.%f",
    "%m/%d/%Y %H:%M:%S",
    "%m-%d-%Y %H:%M:%S.%f",
    "%m-%d-%Y %H:%M:%S",
)
_COUNT = re.compile(r"Nb header lines\s*:\s*([0-9]{1,6})\s*")
_DEVICE = re.compile(r"(.*?)\s*\(SN\s*([^)]*)\)")


def read(path: Path) -> Recording:
    """Read an EC-Lab text export.

    Raises
    ------
    RecordingError
        It is no such file, or lacks a part; the message names it.
    """
    lines = lines_of(path)
    header = _header(path, lines)
    names = [name.strip() for name in split_tabs(header[-1])]
    while names and not names[-1]:
        names.pop()
    chosen = choose(path, names)
    places = {name: names.index(name) for name in (*chosen.values(), *MARKS) if name in names}
    rows = read_rows(lines, split_tabs, len(names), places, Numbers(path, comma_is_decimal=True))
    start = local_start(_value(header, "Acquisition started on"), START_FORMATS)
    device = _DEVICE.match(_value(header, "Device"))
    columns = in_si(chosen, lambda name: rows.numbers[name])
    return checked(
        path,
        Found(
            time_s=columns["time"],
            voltage_V=columns.get("voltage"),
            current_A=columns.get("current"),
            charge_C=columns.get("charge"),
            model=f"BioLogic {device[1]}" if device else "BioLogic instrument",
            serial=device[2] if device else "",
            technique=next((text.strip() for text in header[2:-1] if text.strip()), ""),
            start_time=start,
            said=[*assumptions(chosen, has_start=bool(start)), *rows.said],
            details={
                "software": _software(header),
                "technique_started": _value(header, "Technique started on"),
                **marks({name: rows.numbers[name] for name in MARKS if name in places}),
            },
        ),
    )


def choose(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Return which column is the time, voltage, current and charge.

    Raises
    ------
    RecordingError
        There is no time, or neither voltage nor current, or a column is there twice.
    """
    chosen: dict[str, str] = {}
    for quantity, known in NAMES.items():
        fitting = [name for name in names if _fits(quantity, name)]
        if not fitting:
            continue
        fitting.sort(key=lambda name: known.index(name.rpartition("/")[0]))
        if fitting.count(fitting[0]) > 1:
            raise RecordingError(f"{path}: has {fitting[0]!r} more than once")
        chosen[quantity] = fitting[0]
    if "time" not in chosen or not {"voltage", "current"} & set(chosen):
        raise RecordingError(
            f"{path}: lacks columns; {NEEDED} were looked for, and there are "
            f"{', '.join(names)[:400] or 'none'}"
        )
    return chosen


def _fits(quantity: str, column: str) -> bool:
    name, _, unit = column.rpartition("/")
    try:
        to_si(quantity, unit)
    except ValueError:
        return False
    return name in NAMES[quantity]


def in_si(chosen: Mapping[str, str], column: Callable[[str], Floats]) -> dict[str, Floats]:
    """Return the chosen columns in SI units."""
    return {
        quantity: column(name) * to_si(quantity, name.rpartition("/")[2])
        for quantity, name in chosen.items()
    }


def assumptions(chosen: Mapping[str, str], *, has_start: bool) -> list[str]:
    """Return what readers of the maker's files take for granted."""
    said = [SIGN]
    if chosen.get("current", "").startswith("<"):
        said.append(MEAN)
    if chosen.get("voltage", "Ewe").startswith(("Ecell", "<Ecell")):
        said.append("the potential against the counter electrode is taken as the voltage")
    if has_start:
        said.append(LOCAL_TIME)
    return said


def marks(columns: Mapping[str, Floats]) -> dict[str, str]:
    """Return what the flags say: which sequences and cycles, and how many rows with errors."""
    said: dict[str, str] = {}
    for name, values in columns.items():
        known = values[np.isfinite(values)]
        if name == "error":
            said["error_rows"] = str(np.count_nonzero(known))
        elif len(known):
            said[name.replace(" ", "_")] = f"{known.min():g} to {known.max():g}"
    return said


def _header(path: Path, lines: Iterator[Line]) -> list[str]:
    """Return the header's lines; the last holds the names of the columns."""
    header = [line.text for line in _at_most(lines, 2)]
    count = _COUNT.fullmatch(header[1]) if len(header) == 2 else None
    if count is None or header[0].strip() not in FIRST_LINES:
        raise RecordingError(
            f"{path}: is no .mpt file: 'EC-Lab ASCII FILE' and 'Nb header lines : N' are "
            "expected; tick the header when you export it"
        )
    total = int(count[1])
    if not 3 <= total <= MAX_HEADER_LINES:
        raise RecordingError(f"{path}: cannot have {total} header lines")
    header += [line.text for line in _at_most(lines, total - 2)]
    if len(header) < total:
        raise RecordingError(f"{path}: ends within its header of {total} lines")
    return header


def _at_most(lines: Iterator[Line], count: int) -> Iterator[Line]:
    for _ in range(count):
        line = next(lines, None)
        if line is None:
            return
        yield line


def _value(header: Sequence[str], key: str) -> str:
    """Return what follows ``key :`` in the header; empty where it is not there."""
    for text in header:
        name, mark, value = text.partition(" : ")
        if mark and name.strip() == key:
            return value.strip()
    return ""


def _software(header: Sequence[str]) -> str:
    return next((text.strip() for text in header if text.strip().endswith("(software)")), "")
