"""Attributes in and out of the file, as plain Python values."""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from session.errors import HDF5_ERRORS, SessionRefused
from session.records import AttributeValue

# What `session.seal` writes: checksums, and the names in a group.
SEAL, HELD = "seal", "seal_holds"
# The default file format keeps an attribute in the object's header: 64 KiB at most.
_LIMIT_BYTES = 60_000


def write_attributes(target: h5py.HLObject, attributes: Mapping[str, AttributeValue]) -> None:
    """Write attributes on a group or dataset, replacing those of the same name.

    Raises
    ------
    SessionRefused
        A value is of another kind than the allowed ones, or too long.
    """
    for name, value in attributes.items():
        target.attrs[name] = _to_hdf5(f"{target.name}@{name}", value)


def check_attributes(path: str, attributes: Mapping[str, AttributeValue]) -> None:
    """Refuse attributes that `write_attributes` would refuse, without a file."""
    for name, value in attributes.items():
        _to_hdf5(f"{path}@{name}", value)


def _to_hdf5(where: str, value: object) -> object:
    if isinstance(value, str):
        if len(value.encode()) > _LIMIT_BYTES:
            raise SessionRefused(
                f"{where}: text of {len(value)} characters is too long for an"
                f" attribute; at most {_LIMIT_BYTES} bytes will do"
            )
        return value.replace("\0", "")
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return np.array([str(item) for item in array.ravel()], dtype=object)
    if array.dtype.kind not in "biuf" or array.nbytes > _LIMIT_BYTES:
        raise SessionRefused(
            f"{where}: a value of type {type(value).__name__} cannot be stored; text,"
            " true or false, a number, or a short sequence of one of them will do"
        )
    return array[()]


def read_attributes(target: h5py.HLObject) -> dict[str, AttributeValue]:
    """Return the attributes of a group or dataset that are plain values.

    References between objects (dimension scales) and checksums are left out.

    Raises
    ------
    SessionRefused
        One is damaged.
    """
    found: dict[str, AttributeValue] = {}
    try:
        for name in target.attrs:
            kind = target.attrs.get_id(name).dtype
            is_plain = kind.kind in "biufSU" or h5py.check_string_dtype(kind) is not None
            if is_plain and name not in (SEAL, HELD):
                found[name] = _from_hdf5(target.attrs[name])
    except HDF5_ERRORS as error:
        raise SessionRefused(
            f"{target.name} has a damaged attribute ({error}); another copy of the file will do"
        ) from error
    return found


def _from_hdf5(value: Any) -> AttributeValue:
    if isinstance(value, np.ndarray):
        return tuple(_from_hdf5(item) for item in value.ravel())  # type: ignore[return-value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, h5py.Empty):
        return ""
    plain: AttributeValue = value.item() if isinstance(value, np.generic) else value
    return plain
