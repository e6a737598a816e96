"""The rows of a crashed session: those of its journal, and those that only its file has."""

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from session import journal_words
from session.errors import HDF5_ERRORS, SessionRefused
from session.journal import Entry, JournalFound
from session.records import (
    EDGE_DTYPE,
    EVENT_DTYPE,
    EXCHANGE_DTYPE,
    FRAME_ROW_DTYPE,
    SESSION_SAMPLE_DTYPE,
    TEMPERATURE_DTYPE,
)
from session.recover_pixels import Place
from session.schema import NO_STAMP, find_group
from session.spec import Group
from session.tables import read_rows

_TEXT_TABLES = {"event": ("events", EVENT_DTYPE), "edge": ("edges", EDGE_DTYPE)}
_RAW_STAMPS = ("read_start_ns", "t0_ns", "device_start_ns", "device_ns", "t_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalTable:
    """One table of a journal.

    Parameters
    ----------
    name
        Where it is in the file, below ``/entry``.
    rows
        Shape (n,).
    places
        Where in the file the pixels of each frame lie, shape (n,); empty for other tables.
    unknown
        Columns that the journal does not have, since another version wrote it.
    """

    name: str
    rows: NDArray[np.void]
    places: tuple[Place, ...] = ()
    unknown: tuple[str, ...] = ()


def journal_tables(journal: JournalFound) -> Iterator[JournalTable]:
    """Yield each table of a journal that has rows."""
    dtypes = journal_words.dtypes_of(journal.entries[0])
    found: dict[str, list[NDArray[np.void]]] = {}
    places: dict[str, list[Place]] = {}
    unknown: dict[str, tuple[str, ...]] = {}
    texts: dict[str, list[tuple[object, ...]]] = {}
    for entry in journal.entries:
        if entry.kind in _TEXT_TABLES:
            texts.setdefault(entry.kind, []).append(tuple(entry.said["row"]))  # type: ignore[arg-type]
        elif entry.kind in journal_words.TABLES:
            name = table_of(entry)
            names = dtypes[entry.kind].names or ()
            unknown[name] = tuple(n for n in dtype_of(name).names or () if n not in names)
            found.setdefault(name, []).append(journal_words.rows_of(entry, dtypes))
            if entry.kind == "frame":
                places.setdefault(name, []).append(Place.said(entry))
    for name, rows in found.items():
        yield JournalTable(
            name=name,
            rows=np.concatenate(rows),
            places=tuple(places.get(name, ())),
            unknown=unknown[name],
        )
    for kind, texted in texts.items():
        name, dtype = _TEXT_TABLES[kind]
        yield JournalTable(name=name, rows=np.array(texted, dtype))


def table_of(entry: Entry) -> str:
    """Return the table that an entry's rows belong to."""
    if entry.kind == "frame":
        return f"frames/{entry.said['camera']}"
    if entry.kind == "exchanges":
        return f"clocks/{entry.said['clock']}/exchanges"
    return entry.kind


def file_tables(entry: h5py.Group) -> Iterator[tuple[str, h5py.Group, Group]]:
    """Yield the tables of a file to which the recorder appends."""
    names = ["samples", "events", "edges", "temperature"]
    names += [f"frames/{camera}" for camera in entry["frames"]]
    names += [f"clocks/{clock}/exchanges" for clock in entry["clocks"]]
    for name in names:
        spec = find_group(name)
        if spec is not None and name in entry:
            yield name, entry[name], spec


def dtype_of(name: str) -> np.dtype[np.void]:
    """Return of what the rows of a table are made."""
    plain = {
        "samples": SESSION_SAMPLE_DTYPE,
        "events": EVENT_DTYPE,
        "edges": EDGE_DTYPE,
        "temperature": TEMPERATURE_DTYPE,
    }
    return plain.get(name, FRAME_ROW_DTYPE if name.startswith("frames/") else EXCHANGE_DTYPE)


def file_rows(entry: h5py.Group, name: str) -> NDArray[np.void]:
    """Return the rows of a table that are whole, as far as the file can tell.

    Raises
    ------
    OSError, RuntimeError, KeyError, ValueError, TypeError, SessionRefused
        It is damaged there.
    """
    spec = find_group(name)
    if name not in entry or spec is None:
        return np.zeros(0, dtype_of(name))
    rows = read_rows(entry[name], spec, dtype_of(name))
    # Where a flush failed half-way, some columns have room for rows without the rows.
    whole = len(rows)
    for column in spec.rows:
        if column.dtype.endswith("i8") and column.required:
            absent = np.flatnonzero(rows[column.name] == NO_STAMP)
            whole = min(whole, int(absent[0]) if absent.size else whole)
    return rows[:whole]


def try_file_rows(entry: h5py.Group | None, name: str) -> NDArray[np.void] | None:
    """Return `file_rows`, or None where there is no file or it is damaged there."""
    if entry is None:
        return None
    try:
        return file_rows(entry, name)
    except (*HDF5_ERRORS, SessionRefused):
        return None


def differing(table: JournalTable, stored: NDArray[np.void]) -> NDArray[np.intp]:
    """Return which of the rows that journal and file have are not the same; NaN is like NaN."""
    count = min(len(table.rows), len(stored))
    unlike = np.zeros(count, bool)
    for name in table.rows.dtype.names or ():
        if name in table.unknown:
            continue
        a, b = table.rows[name][:count], stored[name][:count]
        same = a == b
        if stored.dtype[name].kind == "f":
            same |= np.isnan(a) & np.isnan(b)
        unlike |= ~same.astype(bool)
    return np.flatnonzero(unlike)


def completed(table: JournalTable, stored: NDArray[np.void]) -> NDArray[np.void]:
    """Return the journal's rows, with what only the file knows of them."""
    count = min(len(table.rows), len(stored))
    rows = table.rows.copy()
    for name in table.unknown:
        rows[name][:count] = stored[name][:count]
    return rows


def raw_stamps(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the stamps of a table that no fit of a clock rewrites."""
    name = next(name for name in _RAW_STAMPS if name in (rows.dtype.names or ()))
    return np.asarray(rows[name], np.int64)
