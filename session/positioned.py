"""A file that is read and written at given places, from any thread, on every system."""

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class PositionedFile:
    """A file without a place of its own.

    Parameters
    ----------
    path
        The file.
    flags
        As `os.open` has them.

    Raises
    ------
    OSError
        It cannot be opened so.
    """

    def __init__(self, path: Path, flags: int) -> None:
        # Without the second one, Windows changes ends of lines.
        self.descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        # Windows has no calls that take a place, and one thread must not move the other's.
        self._has_place = hasattr(os, "pread") and hasattr(os, "pwrite")
        self._moving = threading.Lock()

    def read(self, size: int, place: int) -> bytes:
        """Return the bytes at a place, fewer where the file ends before."""
        parts: list[bytes] = []
        while size > 0:
            part = self._read_some(size, place)
            if not part:
                break
            parts.append(part)
            size, place = size - len(part), place + len(part)
        return b"".join(parts)

    def write(self, content: NDArray[np.uint8], place: int) -> None:
        """Write bytes, shape (n,), at a place, in as many calls as it takes."""
        while len(content):
            written = self._write_some(content, place)
            content, place = content[written:], place + written

    def extend(self, size: int) -> None:
        """Make the file as long as this, if it is shorter."""
        if os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, size)

    def close(self) -> None:
        """Close the file."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _read_some(self, size: int, place: int) -> bytes:
        if self._has_place:
            return os.pread(self.descriptor, size, place)
        with self._moving:
            os.lseek(self.descriptor, place, os.SEEK_SET)
            return os.read(self.descriptor, size)

    def _write_some(self, content: NDArray[np.uint8], place: int) -> int:
        if self._has_place:
            return os.pwrite(self.descriptor, content.data, place)
        with self._moving:
            os.lseek(self.descriptor, place, os.SEEK_SET)
            return os.write(self.descriptor, content.data)
