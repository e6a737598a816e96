"""The tracking process as the runner sees it: frames go there while they are recorded.

A tracker that is slower than the camera is not given all frames: those that find no free slot
are left out and counted, so that what it says is never older than two frames' work.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from correlate.trackers.protocol import SceneSettings
from runner.instrument_settings import CameraSettings
from runner.process import PipedProcess, ProcessLost
from runner.specimen import Cell
from runner.track_options import TrackSettings
from runner.tracking import Look, Seen, StopTracking, TrackingSettings, tracking_main
from session.records import FrameHeader
from session.ring import FrameRing

SLOTS = 2  # one that is looked at, and the next one
JOIN_S = 5.0
PATIENCE_S = 0.25  # real; for which virtual time waits for a frame that is due
LATE_FRAMES = 2.0  # periods by which the newest frame may be older than now


@dataclass(slots=True)
class TrackingCounters:
    """What became of the frames."""

    tracked: int = 0
    left_out: int = 0  # as tracking was slower than the camera
    slowest_us: int = 0  # work on one frame


def scene_of(camera: CameraSettings, cell: Cell, shape: tuple[int, int]) -> SceneSettings:
    """Return what an experiment says of the scene before it is looked at."""
    return SceneSettings(
        shape=shape,
        pixel_size_m=camera.pixel_size_m,
        film_thickness_m=cell.working_thickness_m,
        depth_m=cell.depth_m,
    )


class LiveTracking:
    """Has frames looked at in a process of its own, and tells what is seen in them.

    Parameters
    ----------
    dtype
        Of the pixels.
    frame_rate_Hz
        Nominal; NaN where unknown.
    waits
        In virtual time: no frame is left out, and time stands still until it was looked at.
    in_thread
        Look at them in a thread of this process instead.

    Attributes
    ----------
    lost
        Why nothing more is told; empty while it goes on.
    """

    def __init__(
        self,
        tracks: tuple[TrackSettings, ...],
        scene: SceneSettings,
        *,
        dtype: str,
        frame_rate_Hz: float,
        waits: bool = False,
        in_thread: bool = False,
    ) -> None:
        self._tracks, self._scene, self._dtype = tracks, scene, dtype
        # A camera that does not say its rate is not waited for.
        self._period_ns = 1e9 / frame_rate_Hz if frame_rate_Hz > 0 else math.inf
        self._waits = waits
        self._in_thread = in_thread
        self._ring: FrameRing | None = None
        self._process: PipedProcess | None = None
        self._changed = asyncio.Condition()
        self._newest_ns = -math.inf  # of the frames that came
        self._silent_after_ns = math.nan  # the frame after which one was waited for in vain
        self._under_way = 0
        self.counters = TrackingCounters()
        self.lost = ""

    async def __aenter__(self) -> Self:
        """Start the process.

        Raises
        ------
        MemoryError
            Shared memory has no room for two frames.
        """
        height, width = self._scene.shape
        self._ring = await asyncio.to_thread(
            FrameRing.create, slots=SLOTS, height=height, width=width, dtype=self._dtype
        )
        settings = TrackingSettings(tracks=self._tracks, scene=self._scene, ring=self._ring.spec)
        self._process = PipedProcess("tracking", tracking_main, settings, in_thread=self._in_thread)
        await self._process.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process; one that does not listen is ended all the same."""
        ring, process = self._ring, self._process
        if process is not None:
            with suppress(ProcessLost):  # it may have gone by itself
                process.send(StopTracking())
            await process.join(JOIN_S)
        if ring is not None:
            await asyncio.to_thread(ring.close)
            await asyncio.to_thread(ring.unlink)

    async def see(self, stamps: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """Have a frame looked at; one of the blanked beam shows nothing, and is not given on."""
        if self._ring is None or self._process is None:
            raise RuntimeError("the tracking process was not started")
        if self.lost or stamps.blanked:
            return
        if self._waits:
            await self._free_slot()
        if self._ring.is_full:
            self.counters.left_out += 1
            return
        t_ns = stamps.t_start_ns + stamps.exposure_ns // 2
        slot = self._ring.put(pixels)
        try:
            self._process.send(Look(slot, stamps.index, t_ns))
        except ProcessLost as error:
            self.lost = str(error)
            return
        self._under_way += 1
        self._newest_ns = max(self._newest_ns, t_ns)
        await self._note_change()

    async def tell(self, told: Callable[[Seen], None]) -> None:
        """Tell what is seen, frame by frame; returns when the process is gone."""
        if self._ring is None or self._process is None:
            raise RuntimeError("the tracking process was not started")
        try:
            while True:
                seen = await self._process.receive()
                if isinstance(seen, Seen):
                    self._ring.release(1)
                    self._under_way -= 1
                    self.counters.tracked += 1
                    self.counters.slowest_us = max(self.counters.slowest_us, seen.took_ns // 1000)
                    told(seen)
                    await self._note_change()
        except ProcessLost as error:
            self.lost = str(error)
        finally:
            # No slot is given back any more: nobody may wait for one.
            self.lost = self.lost or "nobody is told any more"
            await self._note_change()

    async def catch_up(self, now_ns: int) -> None:
        """In virtual time, wait until all frames that were exposed by now were looked at.

        For a frame that does not come, not for long: a camera that gives no more frames must be
        noticed in virtual time, too.
        """
        if not self._waits:
            return
        due_ns = now_ns - LATE_FRAMES * self._period_ns
        if self._newest_ns != self._silent_after_ns:
            try:
                async with asyncio.timeout(PATIENCE_S), self._changed:
                    await self._changed.wait_for(lambda: self.lost or self._newest_ns >= due_ns)
            except TimeoutError:
                self._silent_after_ns = self._newest_ns  # until a frame comes again
        async with self._changed:
            await self._changed.wait_for(lambda: self.lost or not self._under_way)

    async def _free_slot(self) -> None:
        ring = self._ring
        async with self._changed:
            await self._changed.wait_for(lambda: self.lost or ring is None or not ring.is_full)

    async def _note_change(self) -> None:
        async with self._changed:
            self._changed.notify_all()
