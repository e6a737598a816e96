"""Pixels by their place in a file that HDF5 may no longer be able to read."""

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from session.codecs import Codec, find_codec
from session.journal import Entry


class Place(NamedTuple):
    """Where a frame lies, and what it takes to read it.

    Parameters
    ----------
    size
        In bytes, where it is compressed.
    """

    offset: int
    size: int = 0
    codec: Codec | None = None

    @classmethod
    def said(cls, entry: Entry) -> "Place":
        """Return what an entry of a journal says.

        Raises
        ------
        SessionRefused
            It is compressed in a way that is not installed.
        """
        said = entry.said
        codec = find_codec(str(said.get("compression", "none")))
        return cls(int(str(said["place"])), int(str(said.get("size", 0))), codec)


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
        self, place: Place, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> NDArray[np.generic] | None:
        """Return the frame at a place; None where the file does not reach so far.

        Raises
        ------
        SessionRefused
            It is compressed in a way that is not installed.
        """
        wanted = math.prod(shape) * dtype.itemsize
        size = wanted if place.codec is None else place.size
        if self._stream is None or place.offset < 0 or not 0 < size <= wanted:
            return None
        self._stream.seek(place.offset, os.SEEK_SET)
        content = self._stream.read(size)
        if len(content) == size and place.codec is not None:
            try:
                content = place.codec.expand(content, dtype, wanted)
            except ValueError:
                return None
        if len(content) != wanted:
            return None
        return np.frombuffer(content, dtype).reshape(shape)
