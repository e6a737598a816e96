"""The file as HDF5 sees it, where a frame gets a place and others write it there.

HDF5 gives a frame its place as it writes it, through the page cache and under a lock of all
of HDF5, and to ask it afterwards takes the longer, the more frames there are. Here it writes
to us, as h5py's driver of Python objects: what is a frame is not written but only noted where
it shall lie, and then is written, past the page cache where that goes, by whatever thread has
it.
"""

import os
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from h5py._objects import phil
from numpy.typing import NDArray

from session.errors import SessionExists, SessionRefused
from session.pages import PAGE_BYTES, address_of, aligned_copy, is_aligned
from session.positioned import PositionedFile
from session.space import free_bytes

STRAIGHT = "straight to the disk"
_RESERVED_BYTES = 64 * 2**20
_PLENTY_BYTES = 16 * _RESERVED_BYTES


class PlacedFile:
    """A new file for h5py's driver of Python objects.

    Once a write of HDF5 has failed, none that follows is done, as if the process had been
    killed at that moment: what has to be there before is, and nothing is named that is not
    there. HDF5 is not told, as it would tell nobody in some places and end the process in
    others; whoever writes has to `check`.

    Parameters
    ----------
    path
        The file to create.

    Raises
    ------
    SessionExists
        The file is there already.
    SessionRefused
        The folder cannot take it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._cached = PositionedFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise SessionExists(
                f"{path} exists already and is not overwritten; another name will do"
            ) from None
        except OSError as error:
            raise SessionRefused(
                f"{path} cannot be created ({error}); an existing folder where you may write"
                " will do"
            ) from error
        self._folder = path.parent
        self._direct, self._why_cached = _open_direct(path, self._cached)
        _lock(self._cached.descriptor)
        self._at = self._end = self._reserved = 0
        self._wanted = -1  # address of what gets a place instead of being written
        self._place = -1
        self._failed: OSError | None = None
        self._is_left = False

    def way(self, frame_bytes: int) -> str:
        """Say how frames of a size get to the disk, and why so."""
        why = self._why_cached
        if not why and frame_bytes < PAGE_BYTES:
            why = f"frames of {frame_bytes} bytes are smaller than a page"
        return f"through the page cache: {why}" if why else STRAIGHT

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
            # Not beside a frame that somebody writes there: where the file system cannot
            # allocate, the C library writes into each block.
            self._reserve(place + len(content))
        return place

    def put(self, place: int, content: NDArray[np.uint8]) -> None:
        """Write a frame, shape (n,), at its place; blocks, and may be called from any thread.

        Raises
        ------
        OSError
            The disk does not take it.
        """
        whole = 0
        if self._direct is not None and place % PAGE_BYTES == 0 and len(content) >= PAGE_BYTES:
            whole = len(content) // PAGE_BYTES * PAGE_BYTES
            if not is_aligned(content):
                content = aligned_copy(content).view(np.uint8)
            self._direct.write(content[:whole], place)
        # What does not fill a page goes through the page cache; no other frame shares it.
        self._cached.write(content[whole:], place + whole)

    def check(self) -> None:
        """Raise what HDF5 was not told.

        Raises
        ------
        OSError
            A write failed: what HDF5 wrote since is not in the file.
        """
        if self._failed is not None:
            raise OSError(self._failed.errno, self._failed.strerror)

    def leave(self) -> None:
        """Leave the file as it is, whatever HDF5 may still write."""
        self._is_left = True

    def _reserve(self, end: int) -> None:
        """Have the file system allocate ahead in one piece; it may, it need not."""
        reserve = getattr(os, "posix_fallocate", None)
        if end <= self._reserved or self._direct is None or reserve is None:
            return
        self._reserved = end + _RESERVED_BYTES
        # On a disk that is nearly full, each frame has to find its own place.
        with suppress(OSError):
            if free_bytes(self._folder) > _PLENTY_BYTES:
                reserve(self._cached.descriptor, end, _RESERVED_BYTES)

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
        try:
            content = self._cached.read(size, self._at)
        except OSError as error:
            self._failed = self._failed or error
            raise
        self._at += len(content)
        return content

    def readinto(self, buffer: memoryview) -> int:
        """Read what is at the place; beyond the end are zeros, as in HDF5's own drivers."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        buffer[len(content) :] = bytes(len(buffer) - len(content))
        return len(content)

    def write(self, content: memoryview) -> int:
        """Write at the place, or note the place of a frame."""
        size, pixels = len(content), np.frombuffer(content, np.uint8)
        if address_of(pixels) == self._wanted:
            self._place = self._at
        elif self._goes_on:
            try:
                self._cached.write(pixels, self._at)
            except OSError as error:
                self._failed = error
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def truncate(self, size: int) -> None:
        """Set the end; room that was allocated ahead stays."""
        self._end = size
        if self._goes_on:
            try:
                self._cached.extend(size)
            except OSError as error:
                self._failed = error

    def flush(self) -> None:
        """Do nothing: all is with the system."""

    @property
    def _goes_on(self) -> bool:
        return self._failed is None and not self._is_left

    def close(self) -> None:
        """Close the file; HDF5 has closed it before, or may no longer write."""
        self.leave()
        _unlock(self._cached.descriptor)
        self._cached.close()
        if self._direct is not None:
            self._direct.close()


def filters_mask(data: h5py.Dataset, *, raw: bool) -> int:
    """Return the mask with which a chunk is written: all filters passed over, or none."""
    return (1 << data.id.get_create_plist().get_nfilters()) - 1 if raw else 0


def _open_direct(path: Path, cached: PositionedFile) -> tuple[PositionedFile | None, str]:
    """Return a way into an empty file past the page cache, or why there is none."""
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return None, "this system has no O_DIRECT"
    try:
        direct = PositionedFile(path, os.O_WRONLY | flag)
    except OSError as error:
        return None, f"this file system has no O_DIRECT ({error.strerror})"
    try:
        direct.write(aligned_copy(np.zeros(PAGE_BYTES, np.uint8)).view(np.uint8), 0)
        os.ftruncate(cached.descriptor, 0)
    except OSError as error:
        direct.close()
        return None, f"a page could not be written ({error.strerror})"
    return direct, ""


def _lock(descriptor: int) -> None:
    """Keep other programs from writing, as HDF5's own drivers do; not on Windows."""
    with suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(descriptor: int) -> None:
    """Let go of the lock; closing does not where a process that was just forked has a copy."""
    with suppress(ImportError, OSError, ValueError):  # the last one: it was closed before
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_UN)
