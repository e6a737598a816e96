"""Pixels straight to the disk, past the page cache, into a file that HDF5 manages.

HDF5 says where each frame of a block shall lie (early allocation, one chunk a frame) and
writes nothing there. Copying a frame into the page cache takes more of a processor than
all else that is done with it.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from session.ring import PAGE_BYTES


class DirectRefused(Exception):
    """Frames cannot be written past the page cache; the text says why."""


def early_allocation() -> h5py.h5p.PropDCID:
    """Return how a dataset is made whose chunks have a place before they have content."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties


def allocate(data: h5py.Dataset, begin: int, end: int) -> list[int]:
    """Make room for frames ``begin`` to ``end`` and return where each lies in the file."""
    data.resize(end, axis=0)
    return [
        data.id.get_chunk_info_by_coord((frame, 0, 0)).byte_offset for frame in range(begin, end)
    ]


class DirectFile:
    """A way into a file beside HDF5's own, past the page cache.

    Parameters
    ----------
    path
        The file; its file system and system must know O_DIRECT.
    frame_bytes
        Size of a frame.

    Raises
    ------
    DirectRefused
        They do not, or the frames are too small.
    """

    def __init__(self, path: Path, frame_bytes: int) -> None:
        flag = getattr(os, "O_DIRECT", None)
        if flag is None:
            raise DirectRefused("this system has no O_DIRECT")
        if frame_bytes < PAGE_BYTES:
            raise DirectRefused(f"frames of {frame_bytes} bytes are smaller than a page")
        self._frame_bytes = frame_bytes
        try:
            self._direct = os.open(path, os.O_WRONLY | flag)
        except OSError as error:
            raise DirectRefused(f"this file system has no O_DIRECT ({error.strerror})") from error
        self._tails = os.open(path, os.O_WRONLY)

    def check(self, offsets: Sequence[int]) -> None:
        """Write a page where the first frame shall lie.

        Raises
        ------
        DirectRefused
            It is not possible.
        """
        if any(offset % PAGE_BYTES for offset in offsets):
            raise DirectRefused("HDF5 does not put frames at the beginning of a page")
        try:
            os.pwrite(self._direct, aligned_copy(np.zeros(PAGE_BYTES, np.uint8)).data, offsets[0])
        except OSError as error:
            raise DirectRefused(f"a page could not be written ({error.strerror})") from error

    def reserve(self, offsets: Sequence[int]) -> None:
        """Have the file system allocate what lies in one piece; it may, it need not."""
        reserve = getattr(os, "posix_fallocate", None)
        length = offsets[-1] + self._frame_bytes - offsets[0]
        if reserve is None or length > len(offsets) * (self._frame_bytes + 2 * PAGE_BYTES):
            return
        # On a disk that is nearly full, each frame has to find its own place.
        with suppress(OSError):
            reserve(self._direct, offsets[0], length)

    def write(self, offset: int, pixels: NDArray[np.uint8]) -> None:
        """Write the bytes of a frame, shape (n,), that begin at a page of memory.

        Blocks; may be called from several threads.
        """
        whole = len(pixels) // PAGE_BYTES * PAGE_BYTES
        write_all(self._direct, pixels[:whole], offset)
        # What does not fill a page goes through the page cache; no other frame shares it.
        write_all(self._tails, pixels[whole:], offset + whole)

    def close(self) -> None:
        """Close this way; the file stays open in HDF5."""
        descriptors, self._direct, self._tails = (self._direct, self._tails), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


def write_all(descriptor: int, pixels: NDArray[np.uint8], offset: int) -> None:
    """Write bytes, shape (n,), at an offset, in as many calls as it takes."""
    while len(pixels):
        written = os.pwrite(descriptor, pixels.data, offset)
        pixels, offset = pixels[written:], offset + written


def address_of(pixels: NDArray[np.generic]) -> int:
    """Return where in memory pixels begin."""
    address: int = pixels.__array_interface__["data"][0]
    return address


def is_aligned(pixels: NDArray[np.generic]) -> bool:
    """Tell whether pixels begin at a page of memory."""
    return address_of(pixels) % PAGE_BYTES == 0


def aligned_copy(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return a copy that begins at a page of memory."""
    room = np.empty(pixels.nbytes + PAGE_BYTES, np.uint8)
    begin = -address_of(room) % PAGE_BYTES
    copy = room[begin : begin + pixels.nbytes].view(pixels.dtype).reshape(pixels.shape)
    copy[...] = pixels
    return copy
