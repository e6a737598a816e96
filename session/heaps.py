"""Refuses damaged heaps of text, at which HDF5 itself would never come to an end.

HDF5 keeps text of any length in collections of objects, each with its size before it (HDF5
File Format Specification, section III.E). It walks through a collection by these sizes, and
where damage has made one of them nothing, it stays there: no error, no way to stop it but
the end of the process. Collections are made with the layout of a session and whenever text
is added, so both ends of the file are looked through.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

_LOOKED_THROUGH = 4 * 2**20
_HEAD = struct.Struct("<4sB3sQ")  # signature, version, nothing, size of the collection
_OBJECT = struct.Struct("<HHIQ")  # index, references, nothing, size
_SIGNATURE = b"GCOL\x01\0\0\0"


def has_endless_heap(path: Path) -> bool:
    """Say whether HDF5 would not come to the end of one of a file's heaps."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        for begin in sorted({0, max(0, size - _LOOKED_THROUGH)}):
            file.seek(begin)
            # Not mapped: a page that is not there, on a full disk or where somebody makes the
            # file shorter meanwhile, would end the process and not be an error.
            content = file.read(_LOOKED_THROUGH)
            if any(_is_endless(content, at) for at in _found(content)):
                return True
    return False


def _found(content: bytes) -> Iterator[int]:
    at = content.find(_SIGNATURE)
    while at >= 0:
        yield at
        at = content.find(_SIGNATURE, at + 1)


def _is_endless(content: bytes, begin: int) -> bool:
    if begin + _HEAD.size > len(content):
        return False
    end = begin + _HEAD.unpack_from(content, begin)[3]
    at = begin + _HEAD.size
    # A rest that is too small for an object is passed over.
    while at + _OBJECT.size <= min(end, len(content)):
        index, _, _, size = _OBJECT.unpack_from(content, at)
        if index == 0 and size == 0:
            return True
        at += size if index == 0 else _OBJECT.size + -(-size // 8) * 8
    return False
