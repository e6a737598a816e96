"""The frames of one camera in the file: pixels first, then the stamps that name them."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.codecs import Codec
from session.columns import GrowingTable
from session.errors import SessionRefused
from session.pixel_store import PixelStore, Stored
from session.placed_file import PlacedFile
from session.records import FRAME_ROW_DTYPE, FrameHeader
from session.schema import NO_STAMP

if TYPE_CHECKING:
    from concurrent.futures import Future

# What waits for the disk is bounded.
_AT_ONCE = 8


class FrameFile:
    """Appends the frames of one camera.

    They are written by threads, and counted, in order, once they are there.

    Parameters
    ----------
    group
        Of the camera, in the file that ``placed`` is.
    note
        Called with the row of each frame that is in the file, and where its pixels lie.
    codec
        Compresses frames while a thread for it is free.
    """

    def __init__(
        self,
        group: h5py.Group,
        placed: PlacedFile,
        note: Callable[[NDArray[np.void], Stored], None] = lambda _row, _stored: None,
        *,
        codec: Codec | None = None,
    ) -> None:
        self._note = note
        self._data = group["data"]
        self._shape = self._data.shape[1:]
        self._dtype: np.dtype[Any] = self._data.dtype
        self._begun = 0
        self._collected = 0
        self._writing: deque[tuple[FrameHeader, Future[Stored]]] = deque()
        self.table = GrowingTable(group, FRAME_ROW_DTYPE)
        self.store = PixelStore(self._data, placed, codec)

    @property
    def way(self) -> str:
        """How pixels get to the disk."""
        return self.store.way

    @property
    def count(self) -> int:
        """Number of frames that are in the file."""
        return len(self.table)

    def begin(self, header: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """Begin to write a frame; its pixels must stay as they are until it is there."""
        if pixels.shape != self._shape or pixels.dtype != self._dtype:
            raise SessionRefused(
                f"{self._data.name}: a frame of {pixels.dtype} {pixels.shape} given,"
                f" {self._dtype} {self._shape} expected"
            )
        while len(self._writing) >= _AT_ONCE:
            self._settle_first()
        stored = np.ascontiguousarray(pixels, dtype=self._dtype)
        self._writing.append((header, self.store.store(self._begun, stored)))
        self._begun += 1

    def collect(self, *, wait: bool) -> int:
        """Return how many frames got into the file since this was asked last.

        Raises
        ------
        OSError
            One could not be written; none after it will ever be counted.
        """
        while self._writing and (wait or self._writing[0][1].done()):
            self._settle_first()
        new = self.count - self._collected
        self._collected = self.count
        return new

    def settle(self) -> None:
        """Wait until all frames that were begun are in the file."""
        while self._writing:
            self._settle_first()

    def flush_pixels(self) -> None:
        """Have HDF5 write where the pixels are, before the stamps that name them."""
        if self.table.is_waiting:
            self._data.flush()

    def trim(self) -> None:
        """Give up the room that no frame fills."""
        self._data.resize(self.count, axis=0)

    def abandon(self) -> None:
        """Count what got there of the frames on their way, then close."""
        with suppress(OSError):  # what comes after the first that failed is never counted
            self.settle()
        self.close()

    def close(self) -> None:
        """End the threads; frames that were not settled are not counted."""
        self.store.close()
        self._writing.clear()

    def _settle_first(self) -> None:
        header, job = self._writing[0]
        stored = job.result()  # a failed one stays: its row must not go to the next
        self._writing.popleft()
        self._add(header, stored)

    def _add(self, header: FrameHeader, stored: Stored) -> None:
        values = (
            header.t_start_ns,
            header.exposure_ns,
            header.t_sigma_ns,
            header.index,
            header.device_start_ns * 1e-9,
            header.device_start_ns,
            header.dropped_before,
            header.dose_per_m2,
            header.blanked,
            stored.checksum,
            NO_STAMP if header.arrival_ns is None else header.arrival_ns,
            header.left_out,
        )
        row = np.array([values], dtype=FRAME_ROW_DTYPE)
        self.table.append(row)
        self._note(row, stored)
