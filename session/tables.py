"""A table as it is read: columns, units, attributes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.attributes import read_attributes
from session.columns import check_rows, check_whole, count_rows, read_column, read_column_part
from session.displays import table_html
from session.errors import SessionRefused
from session.migrations import filled
from session.records import AttributeValue
from session.spec import Group

if TYPE_CHECKING:
    import pandas as pd

_GAP_ROWS = 2048


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

    def __repr__(self) -> str:
        return f"<Table {self.path}: {len(self)} rows of {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        return table_html(self)

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

    Raises
    ------
    SessionRefused
        A column is not of the schema's shape or type, or was not written as a whole.
    """
    check_rows(group, spec)
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


def read_some_rows(
    group: h5py.Group, path: str, rows: NDArray[np.bool_], names: Sequence[str]
) -> Table:
    """Read some rows of some columns, and of the file little more than those.

    Parameters
    ----------
    rows
        True for those wanted, shape (n,) with n whole rows in the table.
    names
        Columns, each with one value for each row.
    """
    blocks = list(_blocks_of(rows))

    def column(name: str) -> NDArray[Any]:
        dataset = group[name]
        check_whole(dataset, len(rows))
        parts = [read_column_part(dataset, block)[rows[block]] for block in blocks]
        return np.concatenate(parts) if parts else read_column_part(dataset, slice(0, 0))

    return Table(
        path=path,
        columns={name: column(name) for name in names},
        units={name: units for name in names if (units := unit_of_dataset(group[name]))},
        attributes=read_attributes(group),
    )


def _blocks_of(rows: NDArray[np.bool_]) -> Iterator[slice]:
    """Yield the stretches that hold wanted rows; small gaps between them are read along."""
    wanted = np.flatnonzero(rows)
    if not wanted.size:
        return
    breaks = np.flatnonzero(np.diff(wanted) > _GAP_ROWS)
    begins = wanted[np.concatenate([[0], breaks + 1])]
    ends = wanted[np.concatenate([breaks, [wanted.size - 1]])] + 1
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        yield slice(begin, end)


def unit_of_dataset(dataset: h5py.Dataset) -> str:
    """Return the ``units`` attribute; empty where there is none."""
    units = dataset.attrs.get("units", "")
    return units if isinstance(units, str) else str(read_attributes(dataset).get("units", ""))


def _in_schema_order(group: h5py.Group, spec: Group) -> list[str]:
    listed = [c.name for c in spec.columns if c.name in group]
    return listed + [name for name in group if name not in listed]


def read_rows(group: h5py.Group, spec: Group, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Read a table as rows of a structured dtype, shape (n,).

    Raises
    ------
    SessionRefused
        A column is missing, or not of the schema's shape or type.
    """
    check_rows(group, spec)
    rows = np.empty(count_rows(group, spec), dtype=dtype)
    added = filled(version_of(group), spec, len(rows), group)
    missing = [name for name in dtype.names or () if name not in group and name not in added]
    if missing:
        raise SessionRefused(f"{group.name} lacks the columns {', '.join(missing)}")
    for name in dtype.names or ():
        rows[name] = added[name] if name in added else read_column(group[name], len(rows))
    return rows
