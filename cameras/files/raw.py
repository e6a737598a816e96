"""Pixels and headers that lie at known places of a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cameras.files.recording import FrameFileError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPixels:
    """Reads uncompressed frames, one at a time.

    Parameters
    ----------
    offsets
        Byte at which each frame's pixels begin, int64, shape (n,).
    stored
        Type of a pixel in the file, with its byte order.
    """

    path: Path
    offsets: NDArray[np.int64]
    height: int
    width: int
    stored: np.dtype[Any]

    def __call__(self, number: int, /) -> NDArray[np.generic]:
        """Return one frame in the machine's byte order.

        Raises
        ------
        FrameFileError
            The file ends within it.
        """
        count = self.height * self.width
        try:
            with self.path.open("rb") as file:
                file.seek(int(self.offsets[number]))
                content = file.read(count * self.stored.itemsize)
        except OSError as error:
            raise FrameFileError(f"{self.path}: cannot be read: {error}") from error
        if len(content) != count * self.stored.itemsize:
            raise FrameFileError(f"{frame_in(self.path, number)}: the file ends within it")
        pixels = np.frombuffer(content, self.stored).reshape(self.height, self.width)
        return pixels.astype(self.stored.newbyteorder("="))


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Records of one size, one after another up to the end of a file.

    Parameters
    ----------
    start, stride
        Where the first one begins, and how long each is.
    count, left_over
        Whole records, and bytes after the last of them.
    """

    path: Path
    start: int
    stride: int
    count: int
    left_over: int

    def fields(self, dtype: np.dtype[Any], at: int = 0) -> NDArray[Any]:
        """Return what lies ``at`` bytes into each record, shape (count,)."""
        if self.count == 0:
            return np.zeros(0, dtype)
        # Mapped, so that a movie of many GB costs the pages of its headers.
        whole = np.memmap(
            self.path,
            np.dtype(
                {"names": ["of"], "formats": [dtype], "offsets": [at], "itemsize": self.stride}
            ),
            mode="r",
            offset=self.start,
            shape=(self.count,),
        )
        return np.array(whole["of"])

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each record begins, int64, shape (count,)."""
        return self.start + self.stride * np.arange(self.count, dtype=np.int64)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was left at the end, as a sentence; nothing where nothing was."""
        if self.left_over == 0:
            return ()
        return (
            f"{self.path.name} ends within a frame: its {self.count} whole frames were read, "
            f"and {self.left_over} bytes were left over",
        )


def find_records(path: Path, start: int, stride: int) -> Records:
    """Return how many whole records a file holds.

    Raises
    ------
    FrameFileError
        Not even one.
    """
    size = size_of(path) - start
    if size < stride:
        raise FrameFileError(
            f"{path}: holds no whole frame: {max(size, 0)} bytes follow its header, and a "
            f"frame has {stride}"
        )
    return Records(
        path=path, start=start, stride=stride, count=size // stride, left_over=size % stride
    )


def size_of(path: Path) -> int:
    """Return the size of a file in bytes."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise FrameFileError(f"{path}: cannot be read: {error}") from error


def read_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, fewer where it is shorter."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise FrameFileError(f"{path}: cannot be read: {error}") from error


def frame_in(path: Path, number: int) -> str:
    """Return the name of a frame for messages."""
    return f"{path}: frame {number} (from 0)"
