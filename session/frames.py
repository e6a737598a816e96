"""The frames of one camera, read from the file as they are asked for."""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

_Selection = int | np.integer[Any] | slice


class FrameStack:
    """Frames that look like an array of shape (n, height, width) and stay on disk.

    Parameters
    ----------
    dataset
        The pixels; frames beyond ``count`` were never written.
    count
        Number of frames that have stamps.
    """

    def __init__(self, dataset: h5py.Dataset, count: int) -> None:
        self._dataset = dataset
        self._count = count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, height, width."""
        return (self._count, *self._dataset.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        dtype: np.dtype[Any] = self._dataset.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Three."""
        return 3

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: _Selection | tuple[Any, ...]) -> NDArray[Any]:
        """Read frames, or a region of them.

        Parameters
        ----------
        key
            Index or slice of frames; in a tuple also of rows and columns, with
            positive steps.

        Returns
        -------
        ndarray
            Shape (height, width) for an index, (m, height, width) for a slice.
        """
        first, *region = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            frames = range(*first.indices(self._count))
            if not frames:
                rest = np.empty(self._dataset.shape[1:], self.dtype)[tuple(region)]
                return np.empty((0, *rest.shape), self.dtype)
            ordered = frames if frames.step > 0 else frames[::-1]
            selection = slice(ordered.start, ordered.stop, ordered.step)
            read = np.asarray(self._dataset[(selection, *region)])
            return read if frames.step > 0 else read[::-1]
        index = int(first) + (self._count if first < 0 else 0)
        if not 0 <= index < self._count:
            raise IndexError(f"frame {first} of {self._count}")
        return np.asarray(self._dataset[(index, *region)])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Read frame after frame."""
        for _, frames in self.chunks(16):
            yield from frames

    def chunks(self, count: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read the frames in groups.

        Parameters
        ----------
        count
            Frames in a group; the last one may hold fewer.

        Yields
        ------
        tuple
            Index of the first frame, and frames of shape (m, height, width).
        """
        for start in range(0, self._count, count):
            yield start, self[start : start + count]

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001 - NumPy's protocol
    ) -> NDArray[Any]:
        """Read all frames into memory."""
        if copy is False:
            raise ValueError("frames on disk cannot become an array without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)
