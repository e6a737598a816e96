"""Tables of columns in the file: made, grown by rows, replaced, read."""

from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.schema import NO_STAMP, unit_of
from session.spec import Column, Group

_CHUNK_ROWS = 2048
_CHUNK_ROWS_TEXT = 256
_PENDING_ROWS = 8192
_FEWEST_PENDING = 64


def storage_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype on disk for one of the table's dtype names."""
    return h5py.string_dtype() if name == "str" else np.dtype(name)


def _fill_value(dtype: np.dtype[Any]) -> int | float | None:
    if dtype.kind == "f":
        return float("nan")
    return NO_STAMP if dtype == np.dtype("<i8") else None


class GrowingTable:
    """Columns of one group that grow together; rows wait in memory until `commit`.

    Parameters
    ----------
    group
        Group with one resizable dataset for each column.
    dtype
        Structured dtype of the rows; its names are the columns.
    """

    def __init__(self, group: h5py.Group, dtype: np.dtype[np.void]) -> None:
        self._columns = {name: group[name] for name in dtype.names or ()}
        self._dtype = dtype
        self._pending = np.empty(_FEWEST_PENDING, dtype)  # the first rows of it
        self._pending_rows = 0
        self._stored = min(len(column) for column in self._columns.values())

    def __len__(self) -> int:
        return self._stored + self._pending_rows

    @property
    def is_waiting(self) -> bool:
        """True when rows wait in memory."""
        return self._pending_rows > 0

    @property
    def is_full(self) -> bool:
        """True when more rows wait than memory should hold."""
        return self._pending_rows >= _PENDING_ROWS

    def append(self, rows: NDArray[np.void]) -> None:
        """Take rows, shape (n,), of the table's dtype; they are copied."""
        if rows.dtype != self._dtype:
            raise TypeError(f"rows of {rows.dtype} given; rows of {self._dtype} would do")
        needed = self._pending_rows + len(rows)
        if needed > len(self._pending):
            self._pending = np.resize(self._pending, 2 * needed)
        self._pending[self._pending_rows : needed] = rows
        self._pending_rows = needed

    def commit(self) -> None:
        """Hand the waiting rows to HDF5, first column last.

        A reader takes the shortest column for the length of the table, so a row is
        there only when all of it is.
        """
        if not self._pending_rows:
            return
        rows = self._pending[: self._pending_rows]
        start, stop = self._stored, self._stored + len(rows)
        for name in reversed(list(self._columns)):
            column = self._columns[name]
            column.resize(stop, axis=0)
            column[start:stop] = rows[name]
        self._stored = stop
        self._pending_rows = 0


def create_columns(group: h5py.Group, spec: Group, columns: Iterable[Column] | None = None) -> None:
    """Make the empty, growing columns of a table, with units and axes."""
    for column in spec.rows if columns is None else columns:
        dtype = storage_dtype(column.dtype)
        dataset = group.create_dataset(
            column.name,
            shape=(0,),
            maxshape=(None,),
            dtype=dtype,
            chunks=(_CHUNK_ROWS_TEXT if column.dtype == "str" else _CHUNK_ROWS,),
            fillvalue=_fill_value(dtype),
        )
        describe_column(dataset, column.unit, column.meaning)
    link_axes(group, spec)


def describe_column(dataset: h5py.Dataset, unit: str, meaning: str) -> None:
    """Write the attributes that viewers show beside a column."""
    if unit:
        dataset.attrs["units"] = unit
    if meaning:
        dataset.attrs["long_name"] = f"{meaning} ({unit})" if unit else meaning


def mark_group(group: h5py.Group, spec: Group) -> None:
    """Write the class of a group and its default plot."""
    group.attrs["NX_class"] = spec.nx_class
    if spec.axes:
        group.attrs["axes"] = spec.axes[0] if len(spec.axes) == 1 else list(spec.axes)
        for dimension, axis in enumerate(spec.axes):
            group.attrs[f"{axis}_indices"] = dimension
    if spec.signal:
        group.attrs["signal"] = spec.signal


def link_axes(group: h5py.Group, spec: Group) -> None:
    """Make the first axis a dimension scale of all columns of its length."""
    if not spec.axes:
        return
    axis = group[spec.axes[0]]
    axis.make_scale(spec.axes[0])
    for name, dataset in group.items():
        if name != spec.axes[0] and dataset.shape[:1] == axis.shape:
            dataset.dims[0].attach_scale(axis)


def write_table(
    group: h5py.Group,
    spec: Group,
    columns: Mapping[str, NDArray[Any]],
    units: Mapping[str, str],
) -> None:
    """Fill an empty group with columns that are known as a whole."""
    meanings = {column.name: column.meaning for column in spec.columns}
    for name, values in columns.items():
        dataset = _create_whole(group, name, values)
        unit = units.get(name, unit_of(spec, name))
        describe_column(dataset, unit, meanings.get(name, ""))
    mark_group(group, spec)
    link_axes(group, spec)


def _create_whole(group: h5py.Group, name: str, values: NDArray[Any]) -> h5py.Dataset:
    if values.dtype.kind in "UO":
        return group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
    return group.create_dataset(name, data=values)


def count_rows(group: h5py.Group, spec: Group) -> int:
    """Return the number of whole rows of a table.

    Columns may differ by what a crash left between two flushes: the shortest counts,
    and rows whose first stamp was never written do not.
    """
    names = [column.name for column in spec.rows if column.name in group]
    if not names:
        return 0
    count: int = min(group[name].shape[0] for name in names)
    stamps = group[names[0]]
    if stamps.dtype != np.dtype("<i8"):
        return count
    while count:
        start = max(0, count - _CHUNK_ROWS)
        written = np.flatnonzero(stamps[start:count] != NO_STAMP)
        if written.size:
            return start + int(written[-1]) + 1
        count = start
    return 0


def check_rows(group: h5py.Group, spec: Group) -> None:
    """Refuse a table whose columns are not of the schema's shapes and types.

    Raises
    ------
    SessionRefused
        A number would be read as another one, or as none.
    """
    for column in spec.rows:
        if column.name not in group:
            continue
        dataset = group[column.name]
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
            raise SessionRefused(f"{group.name}/{column.name} is no column of one value a row")
        wanted = storage_dtype(column.dtype)
        # True and false, as others may have written them, mean the same as 1 and 0.
        is_flag = dataset.dtype == np.bool_ and wanted == np.uint8
        if dataset.dtype != wanted and not is_flag:
            raise SessionRefused(
                f"{group.name}/{column.name} is of {dataset.dtype}, and the schema has"
                f" {column.dtype}"
            )


def check_whole(dataset: h5py.Dataset, count: int) -> None:
    """Refuse a column of which a part was never written: HDF5 would fill it up.

    Raises
    ------
    SessionRefused
        Fewer chunks are there than the rows need.
    """
    if dataset.chunks is None or not count:
        return
    needed = -(-count // dataset.chunks[0])
    found = dataset.id.get_num_chunks()
    if found < needed:
        raise SessionRefused(
            f"{dataset.name}: {found} chunks are there of the {needed} that {count} rows need"
        )


def read_column(dataset: h5py.Dataset, count: int | None = None) -> NDArray[Any]:
    """Return a column as an array; strings as an array of `str`."""
    selection = () if count is None or dataset.ndim == 0 else slice(0, count)
    if dataset.ndim == 1:
        check_whole(dataset, dataset.shape[0] if count is None else count)
    return read_column_part(dataset, selection)


def read_column_part(dataset: h5py.Dataset, selection: slice | tuple[()]) -> NDArray[Any]:
    """Return some rows of a column as an array; strings as an array of `str`."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        decoded = dataset.asstr(errors="replace")[selection]
        return np.asarray(decoded, dtype=object)
    return np.asarray(dataset[selection])
