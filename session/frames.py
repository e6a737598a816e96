"""The frames of one camera, read from the file as they are asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.errors import HDF5_ERRORS, SessionRefused
from session.selection import Selection, select


class FrameStack:
    """Frames that look like an array of shape (n, height, width) and stay on disk.

    Parameters
    ----------
    dataset
        The pixels; frames beyond ``count`` were never written.
    count
        Number of frames that have stamps.
    path
        The file, which Dask opens anew wherever it reads.
    """

    def __init__(self, dataset: h5py.Dataset, count: int, path: Path) -> None:
        self._dataset = dataset
        self._count = count
        self._path = path
        self._name: str = dataset.name
        self._frame: tuple[int, int] = dataset.shape[1:]
        self._dtype: np.dtype[Any] = dataset.dtype
        # Then a chunk is the bytes of a frame: it can be read without a detour, and one that
        # is not there is an error and not a black frame.
        is_packed = dataset.id.get_create_plist().get_nfilters() > 0
        self._is_plain = dataset.chunks == (1, *self._frame) and not is_packed

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, height, width."""
        return (self._count, *self._frame)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """Three."""
        return 3

    @property
    def size(self) -> int:
        """Number of pixels of all frames."""
        return self._count * self._frame[0] * self._frame[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames in memory."""
        return self.size * self._dtype.itemsize

    def __repr__(self) -> str:
        return f"<FrameStack {self._name} {self.shape} {self._dtype}>"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read frames, or parts of them, as NumPy would index them.

        Only the frames that are asked for are read, and of those the smallest rectangle
        that holds the rows and columns, where these are slices or numbers.

        Parameters
        ----------
        key
            Numbers, slices with any step, masks, lists of numbers, None and ``...``.

        Raises
        ------
        IndexError
            NumPy would refuse the index.
        SessionRefused
            The session was closed, or the frames cannot be read.
        """
        wanted = select(key, self.shape)
        if not self._dataset:
            raise SessionRefused(
                f"{self._path}: was closed or refreshed since these frames were asked for; ask"
                " the open session for them again, or take .dask(), which opens the file itself"
            )
        try:
            found = self._read(wanted)
        except HDF5_ERRORS as error:
            raise SessionRefused(
                f"{self._path}: frames {min(wanted.frames)} to {max(wanted.frames)} of"
                f" {self._name} cannot be read ({error}); `lamella verify` says which are whole"
            ) from error
        part: NDArray[Any] = found[wanted.key]
        return part

    def _read(self, wanted: Selection) -> NDArray[Any]:
        rows, columns = wanted.rows, wanted.columns
        height = len(range(*rows.indices(self._frame[0])))
        width = len(range(*columns.indices(self._frame[1])))
        found = np.empty((len(wanted.frames), height, width), self._dtype)
        if not found.size:
            return found
        if self._is_plain and (height, width) == self._frame:
            for place, number in enumerate(wanted.frames):
                content = found[place].reshape(-1).view(np.uint8)
                self._dataset.id.read_direct_chunk((number, 0, 0), out=content)
            return found
        begin = 0
        for first, last in _runs(wanted.frames):
            end = begin + last - first + 1
            source = np.s_[first : last + 1, rows, columns]
            self._dataset.read_direct(found, source, np.s_[begin:end])
            begin = end
        return found

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Read frame after frame."""
        for number in range(self._count):
            yield self[number]

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

    def dask(self, frames_in_block: int | None = None) -> Any:
        """Return the frames as a Dask array, whole frames in each block.

        Blocks are read by path wherever they are computed, in threads, processes or on a
        cluster that sees the file under the same path. The session may be closed by then.

        Parameters
        ----------
        frames_in_block
            By default as many as 64 MiB hold, at least one.

        Raises
        ------
        SessionRefused
            Dask is not installed.
        """
        from session.frame_source import dask_frames  # noqa: PLC0415 - imports this module

        return dask_frames(self._path, self._name, self.shape, self._dtype, frames_in_block)

    def source(self) -> Any:
        """Return the frames as plain data that can be sent elsewhere, and open the file there.

        Returns
        -------
        FrameSource
            With the file's path as another process of this machine finds it.
        """
        from session.frame_source import FrameSource  # noqa: PLC0415 - imports this module

        return FrameSource(self._path.resolve(), self._name, self.shape, self._dtype)

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001 - NumPy's protocol
    ) -> NDArray[Any]:
        """Read all frames into memory."""
        if copy is False:
            raise ValueError("frames on disk cannot become an array without a copy")
        return self[:].astype(dtype or self.dtype, copy=False)


def _runs(numbers: Any) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of numbers that follow one another."""
    first = last = None
    for number in numbers:
        if last is None or first is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
