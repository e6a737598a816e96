"""A ring of frames in shared memory: one process fills it, one empties it."""

import math
import os
import shutil
import weakref
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from session.pages import PAGE_BYTES, address_of
from session.slots import RingCounters, Slots

_SLOTS = 64
_LONGEST_STALL_S = 0.5
_MEMORY_BYTES = 512 * 2**20
HOLDING_BYTES = 768 * 2**20  # so that the whole recorder stays below 1 GiB
_FEWEST_SLOTS = 4
_SHARED_MEMORY_PATH = Path("/dev/shm")  # noqa: S108 - asked for its free space only


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSpec:
    """How the other process finds the ring."""

    name: str
    slots: int
    height: int
    width: int
    dtype: str

    @property
    def slot_bytes(self) -> int:
        """Distance from slot to slot."""
        return _slot_bytes(self.height * self.width * np.dtype(self.dtype).itemsize)


def choose_slots(
    frame_bytes: int,
    *,
    frame_rate_Hz: float = math.nan,
    memory_bytes: int | None = None,
    held: int = 0,
    cameras: int = 1,
) -> int:
    """Return a number of slots: half a second of frames and at least 64, if memory permits.

    Parameters
    ----------
    frame_bytes
        Size of a frame.
    frame_rate_Hz
        Nominal rate; NaN where unknown.
    memory_bytes
        Most to take; by default 512 MiB, or half of what shared memory has free.
    held
        Frames that wait in the ring for something else than the disk, beside the others;
        with them it takes 768 MiB at most.
    cameras
        How many have a ring; they share the 768 MiB.

    Raises
    ------
    MemoryError
        Not even four frames fit beside those that are held.
    """
    most_bytes = min(HOLDING_BYTES // cameras, _free_shared_memory() // 2)
    if held:
        return held + _slots_beside(held, frame_bytes, frame_rate_Hz, most_bytes)
    if memory_bytes is None:
        memory_bytes = min(_MEMORY_BYTES, most_bytes)
    wanted = _SLOTS
    if math.isfinite(frame_rate_Hz):
        wanted = max(wanted, math.ceil(frame_rate_Hz * _LONGEST_STALL_S))
    slots = min(wanted, memory_bytes // _slot_bytes(frame_bytes))
    if slots < _FEWEST_SLOTS:
        raise MemoryError(
            f"shared memory has no room for {_FEWEST_SLOTS} frames of {frame_bytes}"
            f" bytes ({memory_bytes} bytes may be used); make {_SHARED_MEMORY_PATH}"
            " larger or the frames smaller"
        )
    return slots


def _slots_beside(held: int, frame_bytes: int, frame_rate_Hz: float, most_bytes: int) -> int:
    room_bytes = most_bytes - held * _slot_bytes(frame_bytes)
    try:
        return choose_slots(
            frame_bytes,
            frame_rate_Hz=frame_rate_Hz,
            memory_bytes=min(_MEMORY_BYTES, max(0, room_bytes)),
        )
    except MemoryError:
        raise MemoryError(
            f"{held} frames of {frame_bytes} bytes are to be held for an event, and at least"
            f" {_FEWEST_SLOTS} beside them; {most_bytes} bytes may be used: fewer seconds"
            " before an event, a lower frame rate or smaller frames will do"
        ) from None


def _slot_bytes(frame_bytes: int) -> int:
    """Return the room of a frame: whole pages, so that it can be written from there."""
    if frame_bytes < PAGE_BYTES:
        return frame_bytes
    return -(-frame_bytes // PAGE_BYTES) * PAGE_BYTES


def _free_shared_memory() -> int:
    # Touching more than there is would end the process with SIGBUS.
    if not _SHARED_MEMORY_PATH.is_dir():
        return 2 * _MEMORY_BYTES
    return shutil.disk_usage(_SHARED_MEMORY_PATH).free


class _Memory(SharedMemory):
    """Shared memory that stays mapped while somebody looks at a frame in it."""

    def close(self) -> None:
        with suppress(BufferError):
            super().close()


class FrameRing:
    """Slots for frames of one size in shared memory, each at the beginning of a page.

    The recorder gets and releases slots in one order, so a count of releases is all
    that has to come back. The indices travel through the pipe, which also orders the
    memory accesses of the two processes.
    """

    def __init__(self, memory: SharedMemory, spec: RingSpec) -> None:
        self.spec = spec
        self.slots = Slots(spec.slots)
        self._memory = memory
        dtype = np.dtype(spec.dtype)
        row_bytes = spec.width * dtype.itemsize
        self._frames: NDArray[np.generic] | None = np.ndarray(
            (spec.slots, spec.height, spec.width),
            dtype=dtype,
            buffer=memory.buf,
            strides=(spec.slot_bytes, row_bytes, dtype.itemsize),
        )
        self._address = address_of(self._frames)

    @classmethod
    def create(cls, *, slots: int, height: int, width: int, dtype: str) -> "FrameRing":
        """Make a ring and touch every page of it, so that no frame has to wait."""
        frame_bytes = height * width * np.dtype(dtype).itemsize
        memory = _Memory(create=True, size=slots * _slot_bytes(frame_bytes))
        spec = RingSpec(name=memory.name, slots=slots, height=height, width=width, dtype=dtype)
        ring = cls(memory, spec)
        ring.slot_pixels(slice(None)).fill(0)
        return ring

    @classmethod
    def attach(cls, spec: RingSpec) -> "FrameRing":
        """Open the ring that another process made."""
        return cls(_Memory(name=spec.name), spec)

    def slot_pixels(self, slot: int | slice) -> NDArray[np.generic]:
        """Return the pixels of a slot, shape (height, width): a view, not a copy.

        Let go of it before `close`.
        """
        if self._frames is None:
            raise self._closed()
        return self._frames[slot]

    @property
    def is_full(self) -> bool:
        """True when no slot is free."""
        return self.slots.none_free

    def put(self, pixels: NDArray[np.generic]) -> int:
        """Copy a frame into a free slot, send it and return its index.

        Raises
        ------
        BufferError
            No slot is free.
        """
        slot = self.slots.take()
        if slot is None:
            raise BufferError(f"all {self.spec.slots} slots of the ring are in use")
        return self.put_into(slot, pixels)

    def put_into(self, slot: int, pixels: NDArray[np.generic]) -> int:
        """Copy a frame into a slot that was taken, send it and return its index."""
        self.slot_pixels(slot)[...] = pixels
        self.slots.send(slot)
        return slot

    def lend(self, slot: int) -> NDArray[np.generic]:
        """Return the pixels of a slot that was taken, shape (height, width).

        The slot is held until no array sees it any more, and this memory, too.
        """
        memory, spec = self._memory.buf, self.spec
        if memory is None:
            raise self._closed()
        # An array that holds on to the memory; all that are made from it hold on to it.
        flat = np.frombuffer(memory, spec.dtype, spec.height * spec.width, slot * spec.slot_bytes)
        self.slots.lend(slot)
        weakref.finalize(flat, self.slots.let_go, slot).atexit = False
        return flat.reshape(spec.height, spec.width)

    def lent_slot(self, pixels: NDArray[np.generic]) -> int | None:
        """Return the slot that these pixels fill, if it was lent and not yet sent."""
        slot, within = divmod(address_of(pixels) - self._address, self.spec.slot_bytes)
        ours = not within and pixels.flags.c_contiguous and self.slots.is_lent(slot)
        return slot if ours else None

    def release(self, count: int) -> None:
        """Take back the slots that were sent first."""
        self.slots.release(count)

    def count_wait(self) -> None:
        """Note that a frame had to wait for a slot."""
        self.slots.count_wait()

    @property
    def counters(self) -> RingCounters:
        """The counters of the filling side."""
        return self.slots.counters

    def close(self) -> None:
        """Let go of the memory; the other process, and who was lent a slot, may use it."""
        self._frames = None
        self._memory.close()

    def unlink(self) -> None:
        """Give the memory back to the system once both sides have closed."""
        if os.name != "nt":  # Windows does that by itself
            with suppress(FileNotFoundError):
                self._memory.unlink()

    def _closed(self) -> ValueError:
        return ValueError(f"the ring {self.spec.name} is closed")
