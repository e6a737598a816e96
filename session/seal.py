"""Checksums of all that a finished session holds beside pixels, which have their own.

HDF5 in the format that survives a kill has no checksums: a bit that flips in a column or an
attribute is a wrong number without a word. So each group and dataset carries one attribute
of two CRC-32: of its values, and of its attributes. They tell damage, not forgery.

Room for them is made with the layout. HDF5 puts an attribute that has none at the end of the
file, and writes the object that refers to it before that: killed in between, as it is sealed,
the file would not open.
"""

import json
import zlib
from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from session.attributes import HELD, SEAL, read_attributes

# Under this ending a table is written first; no valid name has it.
NEW = "~new"
_ROWS_AT_ONCE = 2**18
_MOST_BYTES = 30_000
_NO_SUMS = np.zeros(2, np.uint32)


def seal(top: h5py.Group | h5py.Dataset) -> None:
    """Write the checksums of an object, and of all below a group."""
    for target in _all(top):
        seal_one(target)


def make_room(top: h5py.Group) -> None:
    """Give all objects of a new session what their checksums will stand in."""
    for target in _all(top):
        if isinstance(target, h5py.Group):
            target.attrs[HELD] = ""
        target.attrs[SEAL] = _NO_SUMS


def seal_one(target: h5py.Group | h5py.Dataset) -> None:
    """Write the checksums of one object; of a group also what it holds."""
    if isinstance(target, h5py.Group):
        # More than fit into an attribute are looked after one by one only.
        held = json.dumps(list(target))
        target.attrs.modify(HELD, held if len(held.encode()) < _MOST_BYTES else "[]")
    target.attrs.modify(SEAL, _sums(target))


def is_sealed(top: h5py.Group) -> bool:
    """Say whether anything in a group, or the group itself, carries checksums."""
    return any(SEAL in target.attrs and np.any(target.attrs[SEAL]) for target in _all(top))


def broken_seals(top: h5py.Group) -> Iterator[tuple[h5py.HLObject, str]]:
    """Yield the objects that are not as they were sealed, and what is not.

    Nothing is yielded of a group in which nothing was ever sealed.
    """
    if not is_sealed(top):
        return
    for target in _all(top):
        if SEAL not in target.attrs:
            yield target, "carries no checksum"
            continue
        if isinstance(target, h5py.Group):
            missing = [name for name in _held(target) if name not in target]
            if missing:
                yield target, f"lacks {', '.join(missing)[:200]}, which was there"
        told = np.asarray(target.attrs[SEAL])
        found = _sums(target)
        if told.shape != found.shape or told.dtype.kind not in "iu":
            yield target, "carries a damaged checksum"
        elif told[0] != found[0]:
            yield target, "is not what was stored: its checksum differs"
        elif told[1] != found[1]:
            yield target, "has other attributes than were stored: their checksum differs"


def _all(top: h5py.Group | h5py.Dataset) -> Iterator[h5py.Group | h5py.Dataset]:
    yield top
    if isinstance(top, h5py.Group):
        for name in top:
            yield from _all(top[name])


def _sums(target: h5py.Group | h5py.Dataset) -> NDArray[np.uint32]:
    values = _of_group(target) if isinstance(target, h5py.Group) else _of_dataset(target)
    attributes = repr(sorted(read_attributes(target).items()))
    return np.array([values, zlib.crc32(attributes.encode())], np.uint32)


def _of_group(group: h5py.Group) -> int:
    # Others may put in what they like; what is taken out is missed by its name.
    return zlib.crc32(f"{_name(group)} {json.dumps(_held(group))}".encode())


def _name(target: h5py.HLObject) -> str:
    """Return the own name of an object, so that two cannot be exchanged."""
    name: str = target.name.rpartition("/")[2]
    return name.removesuffix(NEW)


def _held(group: h5py.Group) -> list[str]:
    try:
        names = json.loads(group.attrs.get(HELD, "[]"))
    except (TypeError, ValueError, OSError, RuntimeError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _of_dataset(dataset: h5py.Dataset) -> int:
    text = h5py.check_string_dtype(dataset.dtype) is not None
    kind = "text" if text else dataset.dtype.str
    total = zlib.crc32(f"{_name(dataset)} {kind} {dataset.shape}".encode())
    if dataset.ndim == 3:  # frames, each with its own
        return total
    blocks = [()] if dataset.ndim == 0 else _blocks(len(dataset))
    for block in blocks:
        if text:
            found = np.asarray(dataset.asstr(errors="replace")[block], dtype=object)
            content = json.dumps(found.tolist()).encode()
        else:
            content = np.ascontiguousarray(dataset[block]).tobytes()
        total = zlib.crc32(content, total)
    return total


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, start + _ROWS_AT_ONCE)
