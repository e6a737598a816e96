"""A session's tables and frames as xarray has them; pixels stay on disk until asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from session.errors import SessionRefused
from session.export_tables import TIME_NAME, export_table

if TYPE_CHECKING:
    from session.reader import Session

_NEEDS = "xarray is not installed; pip install 'lamella[export]' brings it"


def table_dataset(session: "Session", path: str) -> Any:
    """Return a table as a `xarray.Dataset` over ``time``, in s since the start.

    The stamps in ns stay beside it. Columns of more than one dimension are left out.

    Raises
    ------
    SessionRefused
        The session has no such table, or xarray is missing.
    """
    xarray = _xarray()
    table = export_table(session, path)
    columns = {c.name: c for c in table.columns}
    time = columns.pop(TIME_NAME, None)
    dimension = "row" if time is None else "time"
    variables = {
        name: (dimension, c.data, _described(c.unit, c.meaning)) for name, c in columns.items()
    }
    coords = {} if time is None else {"time": ("time", time.data, _described("s", time.meaning))}
    return xarray.Dataset(variables, coords, {"title": session.title, "path": path})


def frames_array(session: "Session", camera: str) -> Any:
    """Return a camera's frames as a lazy `xarray.DataArray` over time, y and x.

    Only what is selected is read; ``.chunk()`` makes a Dask array of it. The session
    must stay open.

    Raises
    ------
    SessionRefused
        The session has no such camera, or xarray is missing.
    """
    xarray = _xarray()
    indexing: Any = import_module("xarray.core.indexing")

    stack = session.frames(camera)

    base: Any = xarray.backends.BackendArray

    class OnDisk(base):  # type: ignore[misc] # known when run
        """What xarray asks for pixels."""

        shape, dtype = stack.shape, stack.dtype

        def __getitem__(self, key: Any) -> Any:
            return indexing.explicit_indexing_adapter(
                key, stack.shape, indexing.IndexingSupport.BASIC, stack.__getitem__
            )

    table = export_table(session, f"frames/{camera}")
    from_start = table.column(TIME_NAME)
    size = session.attributes(f"frames/{camera}").get("pixel_size", np.nan)
    known = isinstance(size, float) and size > 0
    step, unit = (size, "m") if known else (1.0, "px")
    _, height, width = stack.shape
    coords: dict[str, Any] = {
        "y": ("y", np.arange(height) * step, {"units": unit}),
        "x": ("x", np.arange(width) * step, {"units": unit}),
    }
    if from_start is not None:
        coords["time"] = ("time", from_start.data, _described("s", from_start.meaning))
    for column in table.columns:
        if column.name != TIME_NAME:
            described = _described(column.unit, column.meaning)
            coords[column.name] = ("time", column.data, described)
    variable = xarray.Variable(
        ("time", "y", "x"), indexing.LazilyIndexedArray(OnDisk()), {"units": "counts"}
    )
    return xarray.DataArray(variable, coords, name=camera)


def _xarray() -> Any:
    try:
        return import_module("xarray")  # optional, and half a second
    except ImportError:
        raise SessionRefused(_NEEDS) from None


def _described(unit: str, meaning: str) -> dict[str, str]:
    return {key: text for key, text in (("units", unit), ("long_name", meaning)) if text}
