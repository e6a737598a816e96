"""What older versions of the schema did not have, and what stands for it when they are read.

Within a major version names are only added, so that an old file is read as it is: what it
lacks has one value, which says that nobody knew. Nothing is written into it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from session.schema import NO_STAMP, SCHEMA_VERSION
from session.spec import Group

Version = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step from a version to the next.

    Parameters
    ----------
    version
        The one that added it.
    meaning
        What it added, in words.
    columns
        By group of the schema and name of a column: its value in each row of an older file.
    """

    version: str
    meaning: str
    columns: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        version="1.1",
        meaning="rows that stand for several readings, arrival of frames, exchanges behind a fit,"
        " temperature, checksums of all, and `continues`; every row of an older file is one"
        " reading, and none was left out",
        columns={
            "samples": {"averaged": 1, "left_out": 0},
            "frames/<camera>": {"arrival_ns": NO_STAMP, "left_out": 0},
            "clocks/<clock>/fit": {"count": 0},
        },
    ),
)


def parse_version(text: str) -> Version | None:
    """Return a version as two numbers; None where it is none."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def is_newer(version: str) -> bool:
    """Tell whether a file is of a later version than this program knows."""
    of_file, ours = parse_version(version), parse_version(SCHEMA_VERSION)
    return of_file is not None and ours is not None and of_file > ours


def lacking(version: str, spec: Group) -> dict[str, int | float]:
    """Return the columns that a file of a version need not have, with their values."""
    found: dict[str, int | float] = {}
    of_file = parse_version(version)
    for migration in MIGRATIONS:
        added = parse_version(migration.version)
        if of_file is not None and added is not None and of_file < added:
            found |= migration.columns.get(spec.path, {})
    return found


def filled(version: str, spec: Group, rows: int, there: object) -> dict[str, NDArray[np.generic]]:
    """Return the columns that a file of a version lacks, shape (rows,), of today's types.

    Parameters
    ----------
    there
        Whatever tells with ``in`` which columns the file has.
    """
    types = {column.name: column.dtype for column in spec.columns}
    return {
        name: np.full(rows, value, types[name])
        for name, value in lacking(version, spec).items()
        if name not in there  # type: ignore[operator]
    }
