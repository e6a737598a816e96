"""The way of pixels into the file: HDF5 gives a place, threads write there."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from session.checksum import pixel_checksum
from session.codecs import Codec
from session.placed_file import PlacedFile, filters_mask
from session.spare_cores import SpareCores, spare_cores

_BLOCK_FRAMES = 64
# Two writes keep disk and checksums busy side by side.
_WRITERS = 2
_MOST_PRESSERS = 4
_PRESSED_AT_ONCE = 2  # by a thread: one that waits for it, so that it never waits


class Stored(NamedTuple):
    """A frame in the file.

    Parameters
    ----------
    size
        Of what is there, in bytes.
    checksum
        CRC-32 of the pixel bytes.
    raw
        It is there as the camera gave it, whatever the filters of the dataset.
    """

    place: int
    size: int
    checksum: int
    raw: bool = True


class PixelStore:
    """Stores the frames of a dataset.

    With a codec, frames are compressed while a thread and a core are free; the others are
    stored as they are. So cores that do not keep up cost room on the disk and never a frame,
    and a disk that does not keep up gets all frames compressed.

    Parameters
    ----------
    data
        In the file that ``placed`` is.
    spare
        Tells whether a core is free.
    """

    def __init__(
        self,
        data: h5py.Dataset,
        placed: PlacedFile,
        codec: Codec | None = None,
        spare: SpareCores | None = None,
    ) -> None:
        self._data = data
        self._placed = placed
        self._codec = codec
        self._raw_mask = filters_mask(data, raw=True)
        self._spare = spare or spare_cores()
        self._room = data.shape[0]
        self._frame_bytes = data.dtype.itemsize * int(np.prod(data.shape[1:]))
        self.way = ("" if codec is None else "compressed, ") + placed.way(self._frame_bytes)
        self._pressers = max(1, min(_MOST_PRESSERS, _cores() // 2))
        self._press = ThreadPoolExecutor(self._pressers, thread_name_prefix="recorder press")
        self._write = ThreadPoolExecutor(_WRITERS, thread_name_prefix="recorder pixels")
        self._counting = threading.Lock()
        self._pressing = 0
        self.pressed = 0
        self.raw = 0
        self.stored_bytes = 0

    def store(self, number: int, pixels: NDArray[np.generic]) -> "Future[Stored]":
        """Begin to store a frame, contiguous; it must stay as it is until it is there.

        The future is done once the system has it.
        """
        if number >= self._room:  # which takes no room in the file
            self._room += _BLOCK_FRAMES
            self._data.resize(self._room, axis=0)
        if self._codec is not None and self._may_press():
            done: Future[Stored] = Future()
            self._press.submit(self._compress, done, self._codec, number, pixels)
            return done
        content = _bytes(pixels)
        # Here and not in a thread, so that frames lie in their order.
        place = self._placed.place(self._data, number, content, self._raw_mask)
        return self._write.submit(self._put_raw, place, content)

    def close(self) -> None:
        """End the threads."""
        self._press.shutdown()
        self._write.shutdown()

    def counters(self) -> dict[str, int]:
        """Return how many frames were compressed, and what all of them take."""
        with self._counting:
            return {
                "compressed": self.pressed,
                "uncompressed": self.raw,
                "stored_bytes": self.stored_bytes,
                "pixel_bytes": (self.pressed + self.raw) * self._frame_bytes,
            }

    def _may_press(self) -> bool:
        with self._counting:
            has_thread = self._pressing < _PRESSED_AT_ONCE * self._pressers
            is_free = has_thread and self._spare.are_there
            self._pressing += is_free
        return is_free

    def _compress(
        self, done: "Future[Stored]", codec: Codec, number: int, pixels: NDArray[np.generic]
    ) -> None:
        try:
            with self._spare.used():
                pressed = np.frombuffer(codec.compress(pixels), np.uint8)
                checksum = pixel_checksum(pixels)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the frame gets it
            done.set_exception(error)
            return
        finally:
            with self._counting:
                self._pressing -= 1
        raw = len(pressed) >= pixels.nbytes
        content = _bytes(pixels) if raw else pressed
        self._write.submit(self._put_pressed, done, number, content, checksum, raw)

    def _put_pressed(
        self,
        done: "Future[Stored]",
        number: int,
        content: NDArray[np.uint8],
        checksum: int,
        raw: bool,  # noqa: FBT001 - for a pool
    ) -> None:
        try:
            mask = self._raw_mask if raw else 0
            place = self._placed.place(self._data, number, content, mask)
            self._placed.put(place, content)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the frame gets it
            done.set_exception(error)
            return
        done.set_result(self._counted(Stored(place, len(content), checksum, raw)))

    def _put_raw(self, place: int, content: NDArray[np.uint8]) -> Stored:
        self._placed.put(place, content)
        return self._counted(Stored(place, len(content), pixel_checksum(content)))

    def _counted(self, stored: Stored) -> Stored:
        with self._counting:
            self.pressed += not stored.raw
            self.raw += stored.raw
            self.stored_bytes += stored.size
        return stored


def _cores() -> int:
    """Return how many processors this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 2


def _bytes(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    return pixels.reshape(-1).view(np.uint8)
