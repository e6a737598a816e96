"""What the recorder is told, as entries of a journal, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.journal import Entry, Journal
from session.provenance import Provenance
from session.records import (
    EVENT_DTYPE,
    EXCHANGE_DTYPE,
    FRAME_ROW_DTYPE,
    SESSION_SAMPLE_DTYPE,
    TEMPERATURE_DTYPE,
    AttributeValue,
    CameraHeader,
    InstrumentHeader,
    SessionHeader,
)
from session.schema import SCHEMA_NAME, SCHEMA_VERSION

__all__ = ["EVENT_DTYPE", "TABLES", "attributes_of", "begin", "dtypes_of", "header_of", "rows_of"]

TABLES = {
    "samples": SESSION_SAMPLE_DTYPE,
    "exchanges": EXCHANGE_DTYPE,
    "frame": FRAME_ROW_DTYPE,
    "temperature": TEMPERATURE_DTYPE,
}
LATER = ("temperature",)  # tables that an older journal does not know


def begin(journal: Journal, header: SessionHeader) -> None:
    """Write what a session begins with, and of what its rows are made."""
    journal.add(
        {
            "kind": "session",
            "schema": SCHEMA_NAME,
            "schema_version": SCHEMA_VERSION,
            "header": dataclasses.asdict(header),
            "rows": {name: dtype.descr for name, dtype in TABLES.items()},
        }
    )


def header_of(entry: Entry) -> SessionHeader:
    """Return what a session began with.

    Raises
    ------
    SessionRefused
        The entry does not hold it.
    """
    try:
        said = _plain(entry.said["header"])
        return SessionHeader(
            **said
            | {
                "instruments": tuple(InstrumentHeader(**i) for i in said["instruments"]),
                "cameras": tuple(CameraHeader(**camera) for camera in said["cameras"]),
                "provenance": Provenance(**said["provenance"]),
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SessionRefused(f"the journal's first entry is not ours ({error})") from error


def rows_of(entry: Entry, dtypes: Mapping[str, np.dtype[np.void]]) -> NDArray[np.void]:
    """Return the rows of an entry as the tables of today have them.

    A column that the journal does not have is 0 or NaN; one that the tables no longer
    have is left out.
    """
    wanted = TABLES[entry.kind]
    found = np.frombuffer(entry.rows, dtypes[entry.kind])
    if found.dtype == wanted:
        return found
    rows = np.zeros(len(found), wanted)
    for name in wanted.names or ():
        if found.dtype.names is not None and name in found.dtype.names:
            rows[name] = found[name]
        elif wanted[name].kind == "f":
            rows[name] = np.nan
    return rows


def dtypes_of(entry: Entry) -> dict[str, np.dtype[np.void]]:
    """Return of what the rows of a journal are made; its first entry tells.

    Raises
    ------
    SessionRefused
        The entry does not say so, or names anything but plain numbers.
    """
    try:
        told: Any = entry.said["rows"]
        names = [name for name in TABLES if name in told or name not in LATER]
        return {name: _dtype(told, name) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise SessionRefused(f"the journal does not say what its rows are ({error})") from error


def _dtype(rows: Any, name: str) -> np.dtype[np.void]:
    dtype = np.dtype([(str(column), str(kind)) for column, kind in rows[name]])
    if any(dtype[column].kind not in "iuf" for column in dtype.names or ()):
        raise TypeError(f"{name} holds {dtype}")
    return dtype


def attributes_of(entry: Entry) -> tuple[str, dict[str, AttributeValue]]:
    """Return the group and the attributes of an entry."""
    said = entry.said
    return str(said["path"]), _plain(said["attributes"])


def _plain(value: Any) -> Any:
    """Return JSON as attributes are: lists are tuples."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    return value
