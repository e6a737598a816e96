"""Checks columns against the schema before they are written."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from session.errors import SessionRefused
from session.schema import is_name
from session.spec import Group

# Kinds that go into a kind without loss of meaning.
_FITTING_KINDS = {"i": "iu", "u": "iu", "f": "iuf"}


def check_columns(
    path: str, spec: Group, columns: Mapping[str, ArrayLike]
) -> dict[str, NDArray[Any]]:
    """Return columns as arrays of the schema's types.

    Raises
    ------
    SessionRefused
        Columns are missing, unknown, of different lengths or of another type.
    """
    listed = {column.name: column for column in spec.columns}
    missing = [c.name for c in spec.columns if c.required and c.name not in columns]
    if missing:
        raise SessionRefused(f"{path} lacks the columns {', '.join(missing)}")
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        if name not in listed and not (spec.free_columns and is_name(name)):
            raise SessionRefused(
                f"{path} has no column {name!r}; {', '.join(listed) or 'names'} of"
                " letters, digits, '_', '-' and '.' will do"
            )
        dtype = listed[name].dtype if name in listed else None
        arrays[name] = as_column(path, name, values, dtype)
    # A table with columns of its own has rows; one that is free altogether need not.
    shapes = {arrays[name].shape for name in (arrays if listed else ())}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        raise SessionRefused(f"{path}: columns of shapes {sorted(shapes)}; one shape (n,) will do")
    return arrays


def as_column(path: str, name: str, values: ArrayLike, dtype: str | None) -> NDArray[Any]:
    """Return values as an array of a type that can be stored.

    Parameters
    ----------
    dtype
        The schema's name of the type; None where any number or text will do.

    Raises
    ------
    SessionRefused
        The values are of another kind, or do not fit the type.
    """
    array = np.asarray(values)
    if array.dtype.kind == "b":
        array = array.astype("|u1")
    is_text = array.dtype.kind in "UO" and all(isinstance(v, str) for v in array.flat)
    if dtype is None and (is_text or array.dtype.kind in "iuf"):
        return array
    if dtype is not None and not array.size:
        return array.astype(dtype)
    if dtype is not None and array.dtype.kind in _FITTING_KINDS[np.dtype(dtype).kind]:
        stored = array.astype(dtype)
        if stored.dtype.kind == "f" or np.array_equal(stored, array):
            return stored
    raise SessionRefused(
        f"{path}/{name}: values of {array.dtype} given; {dtype or 'numbers or text'}"
        " that holds them all will do"
    )
