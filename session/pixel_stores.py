"""The ways of pixels into the file: straight to the disk, through the page cache, compressed."""

import os
import threading
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from session.codecs import Codec
from session.direct import DirectFile, DirectRefused, aligned_copy, allocate, is_aligned
from session.placed_file import PlacedFile, filters_mask
from session.spare_cores import SpareCores, spare_cores

STRAIGHT = "straight to the disk"
_BLOCK_FRAMES = 64
_FEWEST_BLOCK_FRAMES = 4
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


class PixelStore(Protocol):
    """Stores frames by their number; the future is done once the system has one."""

    way: str

    def store(self, number: int, pixels: NDArray[np.generic]) -> "Future[Stored]":
        """Begin to store a frame, contiguous; it must stay as it is until it is there."""
        ...

    def close(self) -> None:
        """End the threads."""
        ...


def _more(room: int) -> int:
    """Return for how many frames to make room: a short session leaves no long block empty."""
    return min(_BLOCK_FRAMES, max(_FEWEST_BLOCK_FRAMES, room // 4))


def _cores() -> int:
    """Return how many processors this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 2


def _bytes(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    return pixels.reshape(-1).view(np.uint8)


class DirectStore:
    """Writes past the page cache, where HDF5 has made room before.

    Raises
    ------
    DirectRefused
        It is not possible; the text says why.
    """

    way = STRAIGHT

    def __init__(self, path: Path, data: h5py.Dataset) -> None:
        self._data = data
        self._room = 0
        self.places: deque[int] = deque()
        self._file = DirectFile(path, data.dtype.itemsize * int(np.prod(data.shape[1:])))
        try:
            self._grow()
            self._file.check(self.places)
        except DirectRefused:
            self._file.close()
            raise
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="recorder pixels")

    def store(self, number: int, pixels: NDArray[np.generic]) -> "Future[Stored]":
        """Begin to store a frame."""
        if number >= self._room:
            self._grow()
        if not is_aligned(pixels):
            pixels = aligned_copy(pixels)
        return self._pool.submit(self._write, self.places.popleft(), _bytes(pixels))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
        self._file.close()

    def _grow(self) -> None:
        more = _more(self._room)
        places = allocate(self._data, self._room, self._room + more)
        self._room += more
        self._file.reserve(places)
        self.places.extend(places)

    def _write(self, place: int, content: NDArray[np.uint8]) -> Stored:
        self._file.write(place, content)
        return Stored(place, len(content), zlib.crc32(content.data))


class CachedStore:
    """Has HDF5 write each frame at once, through the page cache.

    Parameters
    ----------
    why
        They do not go past it.
    """

    def __init__(self, data: h5py.Dataset, why: str) -> None:
        self.way = f"through the page cache: {why}"
        self._data = data
        self._room = data.shape[0]
        self._places = deque(allocate(data, 0, self._room) if self._room else [])

    def store(self, number: int, pixels: NDArray[np.generic]) -> "Future[Stored]":
        """Store a frame."""
        if number >= self._room:
            more = _more(self._room)
            self._places.extend(allocate(self._data, self._room, self._room + more))
            self._room += more
        self._data.id.write_direct_chunk((number, 0, 0), pixels)
        done: Future[Stored] = Future()
        checksum = zlib.crc32(_bytes(pixels).data)
        done.set_result(Stored(self._places.popleft(), pixels.nbytes, checksum))
        return done

    def close(self) -> None:
        """Do nothing."""


class PressedStore:
    """Compresses frames while a thread and a core are free; the others are stored as they are.

    So cores that do not keep up cost room on the disk and never a frame, and a disk that
    does not keep up gets all frames compressed.

    Parameters
    ----------
    placed
        The file, where frames go past the page cache; HDF5 writes them where it is None.
    spare
        Tells whether a core is free.
    """

    def __init__(
        self,
        data: h5py.Dataset,
        codec: Codec,
        placed: PlacedFile | None,
        spare: SpareCores | None = None,
    ) -> None:
        self._data = data
        self._codec = codec
        self._placed = placed
        self._raw_mask = filters_mask(data, raw=True)
        self._spare = spare or spare_cores()
        self._room = data.shape[0]
        self._frame_bytes = data.dtype.itemsize * int(np.prod(data.shape[1:]))
        self.way = f"compressed, {STRAIGHT if placed else 'through the page cache'}"
        self._pressers = max(1, min(_MOST_PRESSERS, _cores() // 2))
        self._press = ThreadPoolExecutor(self._pressers, thread_name_prefix="recorder press")
        self._write = ThreadPoolExecutor(_WRITERS, thread_name_prefix="recorder pixels")
        self._counting = threading.Lock()
        self._pressing = 0
        self.pressed = 0
        self.raw = 0
        self.stored_bytes = 0

    def store(self, number: int, pixels: NDArray[np.generic]) -> "Future[Stored]":
        """Begin to store a frame."""
        if number >= self._room:
            self._room += _more(self._room)
            self._data.resize(self._room, axis=0)
        done: Future[Stored] = Future()
        with self._counting:
            has_thread = self._pressing < _PRESSED_AT_ONCE * self._pressers
            is_free = has_thread and self._spare.are_there
            self._pressing += is_free
        if is_free:
            self._press.submit(self._compress, done, number, pixels)
        else:
            self._write.submit(self._put_raw, done, number, pixels)
        return done

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

    def _compress(self, done: "Future[Stored]", number: int, pixels: NDArray[np.generic]) -> None:
        try:
            with self._spare.used():
                pressed = np.frombuffer(self._codec.compress(pixels), np.uint8)
                checksum = zlib.crc32(_bytes(pixels).data)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the frame gets it
            done.set_exception(error)
            return
        finally:
            with self._counting:
                self._pressing -= 1
        if len(pressed) < pixels.nbytes:
            self._write.submit(self._put, done, number, pressed, checksum, raw=False)
        else:
            self._write.submit(self._put, done, number, _bytes(pixels), checksum, raw=True)

    def _put_raw(self, done: "Future[Stored]", number: int, pixels: NDArray[np.generic]) -> None:
        content = _bytes(pixels)
        self._put(done, number, content, zlib.crc32(content.data), raw=True)

    def _put(
        self,
        done: "Future[Stored]",
        number: int,
        content: NDArray[np.uint8],
        checksum: int,
        *,
        raw: bool,
    ) -> None:
        try:
            place = self._put_somewhere(number, content, raw=raw)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the frame gets it
            done.set_exception(error)
            return
        with self._counting:
            self.pressed += not raw
            self.raw += raw
            self.stored_bytes += len(content)
        done.set_result(Stored(place, len(content), checksum, raw=raw))

    def _put_somewhere(self, number: int, content: NDArray[np.uint8], *, raw: bool) -> int:
        data, mask = self._data, self._raw_mask if raw else 0
        if self._placed is None:
            data.id.write_direct_chunk((number, 0, 0), content, mask)
            place: int = data.id.get_chunk_info_by_coord((number, 0, 0)).byte_offset
            return place
        if not is_aligned(content):
            content = aligned_copy(content).view(np.uint8)
        place = self._placed.place(data, number, content, mask)
        self._placed.put(place, content)
        return place
