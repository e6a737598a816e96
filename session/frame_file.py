"""The frames of one camera in the file: pixels first, then the stamps that name them."""

import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from session.columns import GrowingTable
from session.direct import DirectFile, DirectRefused, aligned_copy, allocate, is_aligned
from session.errors import SessionRefused
from session.records import FRAME_ROW_DTYPE, FrameHeader
from session.schema import NO_STAMP

STRAIGHT = "straight to the disk"
_BLOCK_FRAMES = 64
_FEWEST_BLOCK_FRAMES = 4
# Two writes keep disk and checksums busy side by side; what waits for them is bounded.
_THREADS = 2
_AT_ONCE = 8


class FrameFile:
    """Appends the frames of one camera.

    Frames are written by threads where the system lets them go past the page cache,
    else by HDF5 at once. Either way they are counted, in order, once they are there.

    Parameters
    ----------
    path
        The file that ``group`` is in.
    group
        Of the camera.
    note
        Called with the row of each frame that is in the file, and where its pixels lie.
    """

    def __init__(
        self,
        path: Path,
        group: h5py.Group,
        note: Callable[[NDArray[np.void], int], None] = lambda _row, _place: None,
    ) -> None:
        self._note = note
        self._data = group["data"]
        self._shape = self._data.shape[1:]
        self._dtype: np.dtype[Any] = self._data.dtype
        self._room = 0
        self._begun = 0
        self._collected = 0
        self._places: deque[int] = deque()
        self._writing: deque[tuple[FrameHeader, int, Future[int]]] = deque()
        self.table = GrowingTable(group, FRAME_ROW_DTYPE)
        self.way = STRAIGHT
        self._direct: DirectFile | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="recorder pixels")
        try:
            self._direct = DirectFile(path, self._dtype.itemsize * int(np.prod(self._shape)))
            self._grow()
            self._direct.check(self._places)
        except DirectRefused as error:
            self.way = f"through the page cache: {error}"
            if self._direct is not None:
                self._direct.close()
                self._direct = None

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
        if self._begun >= self._room:
            self._grow()
        stored = np.ascontiguousarray(pixels, dtype=self._dtype)
        place = self._places.popleft()
        if self._direct is None:
            self._data.id.write_direct_chunk((self._begun, 0, 0), stored)
            self._add(header, place, zlib.crc32(stored.data))
        else:
            while len(self._writing) >= _AT_ONCE:
                self._settle_first()
            if not is_aligned(stored):
                stored = aligned_copy(stored)
            content = stored.reshape(-1).view(np.uint8)
            job = self._pool.submit(_write, self._direct, place, content)
            self._writing.append((header, place, job))
        self._begun += 1

    def collect(self, *, wait: bool) -> int:
        """Return how many frames got into the file since this was asked last.

        Raises
        ------
        OSError
            One could not be written; none after it will ever be counted.
        """
        while self._writing and (wait or self._writing[0][2].done()):
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
        self._pool.shutdown()
        self._writing.clear()
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def _settle_first(self) -> None:
        header, place, job = self._writing[0]
        checksum = job.result()  # a failed one stays: its row must not go to the next
        self._writing.popleft()
        self._add(header, place, checksum)

    def _grow(self) -> None:
        # A short session does not leave a long block empty.
        more = min(_BLOCK_FRAMES, max(_FEWEST_BLOCK_FRAMES, self._room // 4))
        places = allocate(self._data, self._room, self._room + more)
        self._room += more
        if self._direct is not None:
            self._direct.reserve(places)
        self._places.extend(places)

    def _add(self, header: FrameHeader, place: int, checksum: int) -> None:
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
            checksum,
            NO_STAMP if header.arrival_ns is None else header.arrival_ns,
        )
        row = np.array([values], dtype=FRAME_ROW_DTYPE)
        self.table.append(row)
        self._note(row, place)


def _write(file: DirectFile, offset: int, content: NDArray[np.uint8]) -> int:
    file.write(offset, content)
    return zlib.crc32(content.data)
