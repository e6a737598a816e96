"""The simulated camera on the wire: the frame stream over TCP, its clock over UDP."""

import asyncio
import json
import struct
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from mocks.camera import camera_time_ns, is_dropped, new_scene
from mocks.film_faults import FaultyFilm
from mocks.pace import Pace
from mocks.world import World

NETWORK_DELAY_S = 0.2e-3  # each way, before jitter


class CameraServer:
    """Films while a client asks for it.

    Parameters
    ----------
    world
        What is in the field.
    pace
        How time passes.
    """

    def __init__(self, world: World, pace: Pace) -> None:
        self._world = world
        self._pace = pace
        self._settings = world.scenario.camera
        self._faults = world.scenario.faults
        self._film = FaultyFilm(self._faults, world.seed)
        self._scene = new_scene(world.scenario, world.seed)
        self._writer: asyncio.StreamWriter | None = None
        self._filming = False
        self._index = self._sent = 0
        self._first_start_ns = 0
        self.clock_port = 0
        # The camera counts its frame period on its own clock.
        rate = 1 + self._settings.clock_rate_ratio
        self._period_ns = round(1e9 / self._settings.frame_rate_Hz / rate)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it goes."""
        if self._writer is not None:
            return
        self._writer = writer
        settings = self._settings
        self._say(
            {
                "lamella_frames": 1,
                "model": "Lamella simulated counting camera",
                "height": settings.height,
                "width": settings.width,
                "dtype": "uint8",
                "frame_rate_Hz": settings.frame_rate_Hz,
                "pixel_size_m": settings.pixel_size_m,
                "clock_port": self.clock_port,
            }
        )
        try:
            while line := await reader.readline():
                self._obey(line.strip())
        finally:
            self._filming = False
            self._writer = None

    def _say(self, message: dict[str, object], pixels: bytes = b"") -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n" + pixels)

    def _obey(self, command: bytes) -> None:
        if command == b"START" and not self._filming:
            self._filming = True
            self._first_start_ns = self._world.now_ns
            self._index = self._sent = 0
            self._say({"type": "started"})
            self._expect_frame(0)
        elif command == b"STOP":
            self._filming = False
            self._say({"type": "end", "produced": self._index, "sent": self._sent})

    def _expect_frame(self, index: int) -> None:
        if self._world.exposures.line:
            self._pace.at(self._start_ns(index), self._begin_exposure)
        end_ns = self._start_ns(index) + self._exposure_ns()
        self._pace.at(end_ns, self._end_of_exposure)

    def _start_ns(self, index: int) -> int:
        return self._first_start_ns + index * self._period_ns

    def _exposure_ns(self) -> int:
        return round(self._period_ns * self._settings.exposure_ratio)

    async def _begin_exposure(self, start_ns: int) -> None:
        if self._filming:
            self._world.exposures.begin(start_ns)

    async def _end_of_exposure(self, end_ns: int) -> None:
        if not self._filming or self._writer is None:
            return
        index = self._index
        self._index += 1
        self._expect_frame(self._index)
        if is_dropped(self._settings, self._world.seed, index):
            return
        start_ns = self._start_ns(index)
        front_m = self._world.mean("front", start_ns, end_ns)
        drift_px = self._world.drift_px(start_ns, end_ns)
        beam = self._world.beam(start_ns, end_ns)
        self._scene.dose_e_m2 = self._world.dose_e_m2(start_ns)
        pixels = self._scene.frame(index, front_m, drift_px, beam)
        self._remember(index, start_ns, end_ns, front_m, drift_px, beam)
        t_s = (start_ns - self._world.start_ns) / 1e9
        sent = self._film.sent(index, t_s, pixels)
        if sent is None:
            return
        header = {
            "type": "frame",
            "index": index,
            "start_ns": self._clock_ns(start_ns),
            "exposure_ns": self._clock_ns(end_ns) - self._clock_ns(start_ns),
            "blanked": beam == 0,
            "bytes": sent.nbytes,
        }
        if (held_back_ns := self._faults.held_back_ns(t_s)) == 0:
            await self._send(header, sent)
        else:
            self._pace.at(end_ns + held_back_ns, lambda _: self._send(header, sent))

    async def _send(self, header: dict[str, object], pixels: NDArray[np.uint8]) -> None:
        if not self._filming or self._writer is None:
            return
        self._sent += 1
        self._say(header, np.ascontiguousarray(pixels).tobytes())
        # A slow client holds the simulated world, not its memory.
        with suppress(ConnectionError):
            await self._writer.drain()

    def _remember(
        self,
        index: int,
        start_ns: int,
        end_ns: int,
        front_m: float,
        drift_px: tuple[float, float],
        beam: float,
    ) -> None:
        middle_ns = start_ns + (end_ns - start_ns) // 2
        for track, found in self._scene.truth(front_m).items():
            self._world.record(f"tracks/{track}", t_ns=middle_ns, **found)
        self._world.record("drift/camera", t_ns=middle_ns, dx=drift_px[0], dy=drift_px[1])
        self._world.record(
            "frames/camera",
            t_start_ns=start_ns,
            exposure_ns=end_ns - start_ns,
            index=index,
            beam=beam,
        )

    # --- its clock -----------------------------------------------------------------------

    def _clock_ns(self, host_ns: int) -> int:
        return camera_time_ns(self._settings, self._world.start_ns, host_ns)

    async def answer_clock(self, question: bytes) -> bytes | None:
        """Return the answer to a clock exchange; None for what is not one."""
        if len(question) != struct.calcsize("<qq"):
            return None
        nonce, t0_ns = struct.unpack("<qq", question)
        rng = np.random.default_rng([self._world.seed, 7, abs(nonce)])
        there_s, back_s = NETWORK_DELAY_S * (1 + 0.3 * rng.exponential(size=2))
        await self._pace.take(round(there_s * 1e9))
        t1_ns = self._clock_ns(self._world.now_ns)
        await self._pace.take(20_000)
        t2_ns = self._clock_ns(self._world.now_ns)
        await self._pace.take(round(back_s * 1e9))
        return struct.pack("<qqqq", nonce, t0_ns, t1_ns, t2_ns)
