"""Frames that Dask reads: by path, in whatever thread, process or machine computes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.frames import FrameStack
from session.structure import open_checked

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class FrameSource:
    """The frames of one camera, told by path: plain data that can be sent anywhere.

    Parameters
    ----------
    path, name
        The file, and the dataset in it.
    shape, dtype
        What was there when it was asked for.
    """

    path: Path
    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        """Three."""
        return 3

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Open the file, read frames, and close it.

        Raises
        ------
        SessionRefused
            The file is gone, damaged, or holds other frames by now.
        """
        with self.opened() as stack:
            return stack[key]

    @contextmanager
    def opened(self) -> Iterator[FrameStack]:
        """Open the file, to read frames more than once.

        Raises
        ------
        SessionRefused
            The file is gone, damaged, or holds other frames by now.
        """
        with open_checked(self.path, only=self.name) as file:
            dataset = file.get(self.name)
            there: tuple[int, ...] = getattr(dataset, "shape", ())
            fits = there[1:] == self.shape[1:] and len(there) == 3 and there[0] >= self.shape[0]
            if dataset is None or not fits or dataset.dtype != self.dtype:
                raise SessionRefused(
                    f"{self.path}: {self.name} no longer holds {self.shape} {self.dtype}; open"
                    " the session again"
                )
            yield FrameStack(dataset, self.shape[0], self.path)


def dask_frames(
    path: Path,
    name: str,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    frames_in_block: int | None,
) -> Any:
    """Return frames as a `dask.array.Array`; see `FrameStack.dask`."""
    try:
        arrays: Any = import_module("dask.array")  # optional, and half a second
        tokenize: Any = import_module("dask.base").tokenize
    except ImportError:
        raise SessionRefused(
            "Dask is not installed; pip install 'lamella[cluster]' brings it"
        ) from None
    frame_bytes = max(1, shape[1] * shape[2] * dtype.itemsize)
    depth = frames_in_block or max(1, _BLOCK_BYTES // frame_bytes)
    path = path.resolve()
    found = path.stat()
    token = tokenize(str(path), found.st_mtime_ns, found.st_size, name, shape, str(dtype))
    source = FrameSource(path, name, shape, dtype)
    return arrays.from_array(
        source,
        chunks=(depth, shape[1], shape[2]),
        name=f"frames-{token}-{depth}",
        meta=np.empty((0, 0, 0), dtype),
        lock=False,
    )
