"""Pixels by their place in a file that HDF5 may no longer be able to read."""

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class PixelSource:
    """Reads frames from where the journal says that they lie.

    Parameters
    ----------
    path
        The session file, in whatever state; it is only read. It may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb") if path.is_file() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def frame(
        self, place: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> NDArray[np.generic] | None:
        """Return the frame at a place; None where the file does not reach so far."""
        wanted = math.prod(shape) * dtype.itemsize
        if self._stream is None or place < 0:
            return None
        self._stream.seek(place, os.SEEK_SET)
        content = self._stream.read(wanted)
        if len(content) < wanted:
            return None
        return np.frombuffer(content, dtype).reshape(shape)
