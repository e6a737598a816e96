"""A table as it is read: columns, units, attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.attributes import read_attributes
from session.columns import count_rows, read_column
from session.errors import SessionRefused
from session.migrations import filled
from session.records import AttributeValue
from session.spec import Group

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns of one group.

    Parameters
    ----------
    path
        Where it was, below ``/entry``.
    columns
        One array for each column, by name. Shape (n,) each where the schema says so;
        free-form tables may hold any shape.
    units
        Unit of each column that has one.
    """

    path: str
    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str]
    attributes: Mapping[str, AttributeValue]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column.

        Raises
        ------
        KeyError
            There is no such column; the message names those that are there.
        """
        try:
            return self.columns[name]
        except KeyError:
            known = ", ".join(self.columns) or "none"
            raise KeyError(f"{self.path} has no column {name!r}; it has {known}") from (None)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return min((len(c) for c in self.columns.values() if c.ndim), default=0)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the columns as a `pandas.DataFrame`, units in ``attrs["units"]``.

        The frame is indexed by ``t_ns`` where the table has it.

        Raises
        ------
        SessionRefused
            The columns are not all of one length.
        """
        import pandas as pd  # noqa: PLC0415 - half a second that few calls need

        if {c.shape for c in self.columns.values()} - {(len(self),)}:
            raise SessionRefused(
                f"{self.path}: its columns differ in shape, so they make no frame; take"
                " them one by one"
            )
        frame = pd.DataFrame(dict(self.columns))
        if "t_ns" in self.columns:
            frame = frame.set_index("t_ns")
        frame.attrs["units"] = dict(self.units)
        return frame


def read_table(group: h5py.Group, spec: Group, path: str) -> Table:
    """Read all columns of a table that have one value for each row.

    A table without fixed columns is read as it is.
    """
    fixed = {c.name for c in spec.columns} - {c.name for c in spec.rows}
    count = count_rows(group, spec) if spec.rows else None
    names = [
        name
        for name in _in_schema_order(group, spec)
        if name not in fixed and isinstance(group[name], h5py.Dataset)
    ]
    columns = {name: read_column(group[name], count) for name in names}
    if count is not None:
        columns |= filled(version_of(group), spec, count, columns)
    return Table(
        path=path,
        columns=columns,
        units={name: units for name in names if (units := unit_of_dataset(group[name]))},
        attributes=read_attributes(group),
    )


def version_of(group: h5py.Group) -> str:
    """Return the version of the schema that a group's file was written with."""
    return str(group.file.attrs.get("schema_version", ""))


def unit_of_dataset(dataset: h5py.Dataset) -> str:
    """Return the ``units`` attribute; empty where there is none."""
    return str(read_attributes(dataset).get("units", ""))


def _in_schema_order(group: h5py.Group, spec: Group) -> list[str]:
    listed = [c.name for c in spec.columns if c.name in group]
    return listed + [name for name in group if name not in listed]


def read_rows(group: h5py.Group, spec: Group, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Read a table as rows of a structured dtype, shape (n,)."""
    rows = np.empty(count_rows(group, spec), dtype=dtype)
    added = filled(version_of(group), spec, len(rows), group)
    for name in dtype.names or ():
        rows[name] = added[name] if name in added else read_column(group[name], len(rows))
    return rows
