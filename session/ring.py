"""A ring of frames in shared memory: one process fills it, one empties it."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SLOTS = 64
_MEMORY_BYTES = 512 * 2**20
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RingCounters:
    """What a ring went through.

    Parameters
    ----------
    written
        Frames put in.
    waits
        Frames that had to wait for a free slot; none is ever lost here.
    high_water
        Most slots in use at one time.
    """

    slots: int
    written: int
    waits: int
    high_water: int


def choose_slots(frame_bytes: int, *, memory_bytes: int | None = None) -> int:
    """Return a number of slots: 64, or fewer where memory is short.

    Parameters
    ----------
    frame_bytes
        Size of a frame.
    memory_bytes
        Most to take; by default 512 MiB, or half of what shared memory has free.

    Raises
    ------
    MemoryError
        Not even four frames fit.
    """
    if memory_bytes is None:
        memory_bytes = min(_MEMORY_BYTES, _free_shared_memory() // 2)
    slots = min(_SLOTS, memory_bytes // frame_bytes)
    if slots < _FEWEST_SLOTS:
        raise MemoryError(
            f"shared memory has no room for {_FEWEST_SLOTS} frames of {frame_bytes}"
            f" bytes ({memory_bytes} bytes may be used); make {_SHARED_MEMORY_PATH}"
            " larger or the frames smaller"
        )
    return slots


def _free_shared_memory() -> int:
    # Touching more than there is would end the process with SIGBUS.
    if not _SHARED_MEMORY_PATH.is_dir():
        return 2 * _MEMORY_BYTES
    return shutil.disk_usage(_SHARED_MEMORY_PATH).free


class FrameRing:
    """Slots for frames of one size in shared memory.

    Slots are filled and released in turn, so a count of releases is all that has to
    come back. The indices travel through the pipe, which also orders the memory
    accesses of the two processes.
    """

    def __init__(self, memory: SharedMemory, spec: RingSpec) -> None:
        self.spec = spec
        self._memory = memory
        shape = (spec.slots, spec.height, spec.width)
        self._frames: NDArray[np.generic] | None = np.ndarray(
            shape, dtype=spec.dtype, buffer=memory.buf
        )
        self._written = 0
        self._released = 0
        self._high_water = 0
        self._waits = 0

    @classmethod
    def create(cls, *, slots: int, height: int, width: int, dtype: str) -> "FrameRing":
        """Make a ring and touch every page of it, so that no frame has to wait."""
        size = slots * height * width * np.dtype(dtype).itemsize
        memory = SharedMemory(create=True, size=size)
        spec = RingSpec(name=memory.name, slots=slots, height=height, width=width, dtype=dtype)
        ring = cls(memory, spec)
        ring.slot_pixels(slice(None)).fill(0)
        return ring

    @classmethod
    def attach(cls, spec: RingSpec) -> "FrameRing":
        """Open the ring that another process made."""
        return cls(SharedMemory(name=spec.name), spec)

    def slot_pixels(self, slot: int | slice) -> NDArray[np.generic]:
        """Return the pixels of a slot, shape (height, width): a view, not a copy.

        Let go of it before `close`.
        """
        if self._frames is None:
            raise ValueError(f"the ring {self.spec.name} is closed")
        return self._frames[slot]

    @property
    def is_full(self) -> bool:
        """True when each slot holds a frame that is not released."""
        return self._written - self._released >= self.spec.slots

    def put(self, pixels: NDArray[np.generic]) -> int:
        """Copy a frame into the next free slot and return the slot's index.

        Raises
        ------
        BufferError
            No slot is free.
        """
        if self.is_full:
            raise BufferError(f"all {self.spec.slots} slots of the ring are in use")
        slot = self._written % self.spec.slots
        self.slot_pixels(slot)[...] = pixels
        self._written += 1
        self._high_water = max(self._high_water, self._written - self._released)
        return slot

    def release(self, count: int) -> None:
        """Take back the oldest slots that are in use."""
        self._released += count

    def count_wait(self) -> None:
        """Note that a frame had to wait for a slot."""
        self._waits += 1

    @property
    def counters(self) -> RingCounters:
        """The counters of the filling side."""
        return RingCounters(
            slots=self.spec.slots,
            written=self._written,
            waits=self._waits,
            high_water=self._high_water,
        )

    def close(self) -> None:
        """Let go of the memory; the other process may still use it."""
        self._frames = None
        self._memory.close()

    def unlink(self) -> None:
        """Give the memory back to the system once both sides have closed."""
        if os.name != "nt":  # Windows does that by itself
            with suppress(FileNotFoundError):
                self._memory.unlink()
