"""Edges of trigger lines from a CSV file, as a logic analyser or a detector's log has them."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sync.clockfit import granularity_ns
from sync.edges import edge_sigma_ns

UNITS_NS = {"time_ns": 1, "time_us": 10**3, "time_ms": 10**6, "time_s": 10**9}
COLUMNS = (*UNITS_NS, "line", "polarity")
SOURCES = ("potentiostat", "camera")
DELIMITERS = ",;\t"
POLARITIES = {
    **dict.fromkeys(("1", "+1", "+", "rising", "rise", "up", "high"), 1),
    **dict.fromkeys(("0", "-1", "-", "falling", "fall", "down", "low"), -1),
    **dict.fromkeys(("", "?"), 0),
}


class EdgeFileError(ValueError):
    """A file of edges is not what it should be; names it and the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFile:
    """The edges that one device has seen, in the order of the file.

    Parameters
    ----------
    source
        Whose clock the times are on, such as ``"potentiostat"``.
    line, polarity, device_ns
        Of each edge, shape (n,); polarity 1 for rising, -1 for falling, 0 unknown.
    sigma_ns
        Of an edge, by the step in which times are written.
    """

    path: Path
    source: str
    line: tuple[str, ...]
    polarity: NDArray[np.int32]
    device_ns: NDArray[np.int64]
    sigma_ns: float


def parse_columns(text: str) -> dict[str, str]:
    """Return which column means what, from such as ``time_s=Time [s],polarity=Level``.

    Raises
    ------
    EdgeFileError
        A name is none that means anything here.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, _, column = part.partition("=")
        if name.strip() not in COLUMNS or not column.strip():
            raise EdgeFileError(
                f"--edge-columns {part!r}: NAME=COLUMN is wanted, with one of {', '.join(COLUMNS)}"
            )
        found[name.strip()] = column.strip()
    return found


def named_edges(text: str, columns: Mapping[str, str]) -> EdgeFile:
    """Read the file of ``SOURCE=FILE``.

    Raises
    ------
    EdgeFileError
        The text names no source, or the file is not what it should be.
    """
    source, equals, path = text.partition("=")
    if not equals or source not in SOURCES:
        raise EdgeFileError(
            f"--edges {text!r}: say whose clock its times are on, as "
            f"{' or '.join(f'{name}=FILE' for name in SOURCES)}"
        )
    return read_edges(Path(path), source, columns)


def read_edges(path: Path, source: str, columns: Mapping[str, str] | None = None) -> EdgeFile:
    """Read a file of edges with one row for each, and a head that names its columns.

    Parameters
    ----------
    columns
        The file's own names of the columns; those that are not named here are looked for
        under the names of ``COLUMNS``.

    Raises
    ------
    EdgeFileError
        It cannot be read, a column is missing, or a row holds no edge.
    """
    rows = _rows(path)
    head = [name.strip() for name in rows[0]] if rows else []
    at: dict[str, int] = {}
    for name in COLUMNS:
        told = (columns or {}).get(name)
        if told is not None and told not in head:
            raise EdgeFileError(f"{path}: has no column {told!r}; there is {', '.join(head)}")
        if (told or name) in head:
            at[name] = head.index(told or name)
    times = [name for name in UNITS_NS if name in at]
    if len(times) != 1:
        raise EdgeFileError(
            f"{path}: one column of times is wanted, and {len(times)} were found in "
            f"{', '.join(head) or 'nothing'}; name it, such as --edge-columns "
            f'"time_s={head[0] if head else "Time"}"'
        )
    device_ns, polarity, line = [], [], []
    for number, row in enumerate(rows[1:], start=2):
        try:
            device_ns.append(_whole_ns(row[at[times[0]]], UNITS_NS[times[0]]))
            polarity.append(_polarity(row[at["polarity"]]) if "polarity" in at else 0)
            line.append(row[at["line"]].strip() if "line" in at else "")
        except (ValueError, IndexError) as error:
            why = "it is too short" if isinstance(error, IndexError) else error
            raise EdgeFileError(f"{path}: row {number} holds no edge: {why}") from error
    if not device_ns:
        raise EdgeFileError(f"{path}: holds no edge")
    stamps = np.array(device_ns, np.int64)
    return EdgeFile(
        path=path,
        source=source,
        line=tuple(line),
        polarity=np.array(polarity, np.int32),
        device_ns=stamps,
        sigma_ns=edge_sigma_ns(granularity_ns(stamps)),
    )


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeFileError(f"{path}: cannot be read: {error}") from error
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    try:
        return [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise EdgeFileError(f"{path}: is no table: {error}") from error


def _whole_ns(text: str, unit_ns: int) -> int:
    """Return integer nanoseconds: a float of seconds since 1970 would cost 0.2 us."""
    try:
        found = int((Decimal(text.strip()) * unit_ns).to_integral_value())
    except (InvalidOperation, OverflowError) as error:
        raise ValueError(f"{text!r} is no time") from error
    if abs(found) >= 2**62:
        raise ValueError(f"{text!r} is no time of this age")
    return found


def _polarity(text: str) -> int:
    known = POLARITIES.get(text.strip().lower())
    if known is None:
        raise ValueError(f"polarity {text!r} is neither rising nor falling")
    return known
