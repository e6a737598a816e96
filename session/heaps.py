"""Finds damaged text, at which HDF5 would never come to an end, or take all memory.

HDF5 keeps text of any length in collections of objects, each with its size before it (HDF5
File Format Specification, section III.E). It walks through a collection by these sizes, and
where damage has made one of them nothing, it stays there: no error, no way to stop it but
the end of the process. Collections are made with the layout of a session and whenever text
is added, so both ends of the file are looked through.

What is stored in a dataset of text is the length of each and where in a collection it lies
(section VI.B there). HDF5 takes memory of that length before it looks whether it is there.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

_LOOKED_THROUGH = 4 * 2**20
_HEAD = struct.Struct("<4sB3sQ")  # signature, version, nothing, size of the collection
_OBJECT = struct.Struct("<HHIQ")  # index, references, nothing, size
_SIGNATURE = b"GCOL\x01\0\0\0"
_TEXT = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])


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


def stated_text_bytes(file: BinaryIO, dataset: h5py.h5d.DatasetID) -> int:
    """Return how long all texts of a dataset are together, by what is stored of them.

    Parameters
    ----------
    file
        The bytes of the file that holds the dataset.
    dataset
        Of text of any length; where a filter stands before it, or it lies in the header of
        the object, 0 is returned: nobody writes it so.
    """
    made = dataset.get_create_plist()
    places: list[tuple[int, int]] = []
    if made.get_layout() == h5py.h5d.CONTIGUOUS and dataset.get_offset() is not None:
        places.append((dataset.get_offset(), dataset.get_storage_size()))
    elif made.get_layout() == h5py.h5d.CHUNKED and not made.get_nfilters():

        def note(chunk: h5py.h5d.StoreInfo) -> None:
            places.append((chunk.byte_offset, chunk.size))

        dataset.chunk_iter(note)
    total = 0
    for begin, size in places:
        file.seek(begin)
        content = file.read(size)
        texts = np.frombuffer(content, _TEXT, len(content) // _TEXT.itemsize)
        total += int(texts["length"].sum(dtype=np.int64))
    return total
