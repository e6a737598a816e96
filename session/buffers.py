"""The ring of a camera as seen by its source and by asyncio code."""

import asyncio
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from session.capture import frames_held
from session.errors import SessionError, SessionRefused
from session.records import CameraHeader
from session.ring import FrameRing, choose_slots


class RingBuffers:
    """Slots of a ring as `cameras.protocol.FrameBuffers`: a source receives into them.

    A frame whose pixels fill such a slot is recorded without a copy. A slot that a
    source lets go of without a frame is free again.
    """

    def __init__(self, ring: FrameRing) -> None:
        self._ring = ring

    def take(self) -> NDArray[np.generic]:
        """Return a free slot, shape (height, width); block while there is none.

        Raises
        ------
        SessionError
            The recording has ended: nothing that came would be stored. `RecorderLost`
            when the recorder is gone.
        """
        return self._ring.lend(self._ring.slots.wait())


class CameraRing:
    """The filling end of a camera's ring, for the tasks of one event loop.

    Parameters
    ----------
    slots
        Frames that it holds; by default as `choose_slots` says.
    cameras
        How many cameras share the memory.
    """

    def __init__(self, header: CameraHeader, slots: int | None, cameras: int = 1) -> None:
        capture, rate_Hz = header.capture, header.frame_rate_Hz
        self._held = 0 if capture is None else frames_held(capture, rate_Hz)
        self.ring = FrameRing.create(
            slots=slots
            or choose_slots(
                header.frame_bytes, frame_rate_Hz=rate_Hz, held=self._held, cameras=cameras
            ),
            height=header.height,
            width=header.width,
            dtype=header.dtype,
        )
        # Frames go in the order in which they were given, also while one waits.
        self.turn = asyncio.Lock()
        self._name = header.name
        self._shape = (header.height, header.width)
        self._dtype = np.dtype(header.dtype)
        self._freed = asyncio.Event()
        self._waits = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ring.slots.on_free = self._wake

    @property
    def fill(self) -> float:
        """Share of the slots that wait for the disk; those held for an event do not."""
        slots = self.ring.slots
        return max(0, slots.in_use - self._held) / max(1, slots.count - self._held)

    def check(self, pixels: NDArray[np.generic]) -> None:
        """Refuse pixels of another shape or type than the camera's."""
        if pixels.shape != self._shape or pixels.dtype != self._dtype:
            raise SessionRefused(
                f"camera {self._name}: a frame of {pixels.dtype} {pixels.shape} given,"
                f" {self._dtype} {self._shape} expected"
            )

    def must_wait(self, pixels: NDArray[np.generic]) -> bool:
        """Tell whether a frame cannot be put at once."""
        return self.turn.locked() or (self.ring.is_full and self.ring.lent_slot(pixels) is None)

    async def put(self, pixels: NDArray[np.generic]) -> int:
        """Send a frame, copied unless it fills a slot that was lent; return its slot."""
        slot = self.ring.lent_slot(pixels)
        if slot is not None:
            self.ring.slots.send(slot)
            return slot
        return self.ring.put_into(await self._take(), pixels)

    async def _take(self) -> int:
        self._loop = asyncio.get_running_loop()
        slots = self.ring.slots
        while (slot := slots.take()) is None:
            self._freed.clear()
            self._waits = True  # before one more look, or a slot freed just now is missed
            try:
                if slots.none_free:
                    await self._freed.wait()
            finally:
                self._waits = False
        return slot

    def _wake(self) -> None:
        if self._waits and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._freed.set)

    def close(self, why: SessionError) -> None:
        """End all waits for a slot."""
        self.ring.slots.close(why)

    def drop(self) -> None:
        """Give the memory back."""
        self.ring.close()
        self.ring.unlink()
