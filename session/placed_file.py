"""The file as HDF5 sees it, where a frame gets a place and others write it there.

HDF5 gives a compressed frame its place as it writes it, through the page cache and under a
lock of all of HDF5. Here it writes to us: what is a frame is not written but only noted
where it shall lie, and then goes past the page cache from whatever thread has it.
"""

import os
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from h5py._objects import phil
from numpy.typing import NDArray

from session.direct import DirectRefused, address_of, aligned_copy, write_all
from session.errors import SessionExists
from session.ring import PAGE_BYTES

_RESERVED_BYTES = 64 * 2**20


class PlacedFile:
    """A file for h5py's driver of Python objects.

    Parameters
    ----------
    path
        The file to create; its file system and system must know O_DIRECT.

    Raises
    ------
    DirectRefused
        They do not; there is no such file then.
    SessionExists
        The file is there already.
    """

    def __init__(self, path: Path) -> None:
        flag = getattr(os, "O_DIRECT", None)
        if flag is None:
            raise DirectRefused("this system has no O_DIRECT")
        try:
            self._cached = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            raise SessionExists(
                f"{path} exists already and is not overwritten; another name will do"
            ) from None
        self._direct = -1
        try:
            self._direct = os.open(path, os.O_WRONLY | flag)
            os.pwrite(self._direct, aligned_copy(np.zeros(PAGE_BYTES, np.uint8)).data, 0)
            os.truncate(self._cached, 0)
        except OSError as error:
            self.close()
            path.unlink()
            raise DirectRefused(
                f"this file system cannot write past the page cache ({error.strerror})"
            ) from error
        _lock(self._cached)
        self._at = self._end = self._reserved = 0
        self._wanted = -1  # address of what gets a place instead of being written
        self._place = -1

    def place(self, data: h5py.Dataset, number: int, content: NDArray[np.uint8], mask: int) -> int:
        """Have HDF5 give a frame a place, and return where in the file that is.

        Parameters
        ----------
        content
            What HDF5 shall believe to have written, shape (n,).
        mask
            Of the filters that it did not go through, as `filters_mask` has it.
        """
        with phil:  # h5py's own lock: no other call may come between
            self._wanted, self._place = address_of(content), -1
            try:
                data.id.write_direct_chunk((number, 0, 0), content, mask)
            finally:
                self._wanted = -1
            place = self._place
        if place < 0:
            raise RuntimeError(f"{data.name}: HDF5 has not written frame {number}")
        self._reserve(place + len(content))
        return place

    def put(self, place: int, content: NDArray[np.uint8]) -> None:
        """Write a frame, shape (n,), that begins at a page of memory; from any thread."""
        whole = len(content) // PAGE_BYTES * PAGE_BYTES if place % PAGE_BYTES == 0 else 0
        write_all(self._direct, content[:whole], place)
        write_all(self._cached, content[whole:], place + whole)

    def _reserve(self, end: int) -> None:
        """Have the file system allocate ahead in one piece; it may, it need not."""
        if end <= self._reserved:
            return
        self._reserved = end + _RESERVED_BYTES
        # On a disk that is nearly full, each frame has to find its own place.
        with suppress(OSError, AttributeError):
            os.posix_fallocate(self._cached, end, _RESERVED_BYTES)

    # --- what HDF5 calls ---

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; the end is where HDF5 thinks that it is."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = begin + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def read(self, size: int) -> bytes:
        """Return what is at the place."""
        content = os.pread(self._cached, size, self._at)
        self._at += len(content)
        return content

    def readinto(self, buffer: memoryview) -> int:
        """Read what is at the place."""
        done = os.preadv(self._cached, [buffer], self._at)
        self._at += done
        return done

    def write(self, content: memoryview) -> int:
        """Write at the place, or note the place of a frame."""
        size, pixels = len(content), np.frombuffer(content, np.uint8)
        if address_of(pixels) == self._wanted:
            self._place = self._at
        else:
            write_all(self._cached, pixels, self._at)
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def truncate(self, size: int) -> None:
        """Set the end; room that was allocated ahead stays."""
        self._end = size
        if os.fstat(self._cached).st_size < size:
            os.truncate(self._cached, size)

    def flush(self) -> None:
        """Do nothing: all is with the system."""

    def close(self) -> None:
        """Close the file."""
        for descriptor in (self._cached, self._direct):
            if descriptor >= 0:
                os.close(descriptor)
        self._cached = self._direct = -1


def filters_mask(data: h5py.Dataset, *, raw: bool) -> int:
    """Return the mask with which a chunk is written: all filters passed over, or none."""
    return (1 << data.id.get_create_plist().get_nfilters()) - 1 if raw else 0


def _lock(descriptor: int) -> None:
    """Keep other programs from writing, as HDF5's own drivers do."""
    import fcntl  # noqa: PLC0415 - where there is O_DIRECT, there is this

    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
