"""A simulated Merlin detector: commands on one TCP port, frames on another."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cameras.open_port import LOOPBACK, open_port
from mocks.camera import camera_time_ns, is_dropped, new_scene
from mocks.merlin_wire import framed, mib_header
from mocks.pace import LockstepPace, RealPace
from mocks.world import World

CLOCK_ZERO_NS = 1_767_225_600_000_000_000  # its clock's calendar begins with the world: 2026
CLOCK_STEP_NS = 10
OK, BUSY, UNKNOWN, OUT_OF_RANGE = range(4)
PIXELS_OF_DEPTH = {1: ("U08", ">u1"), 6: ("U08", ">u1"), 12: ("U16", ">u2"), 24: ("U32", ">u4")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What the detector, its PC and the network do wrong; frames are named by their counter.

    Parameters
    ----------
    stale
        Bytes that wait for the first client of the data port.
    lost, repeated, late
        Frames that are not sent, sent twice, or sent after the one that follows.
    other_shape, unreadable
        Frames of half the height, and frames whose header makes no sense.
    clock_steps_s
        By how much the clock is wrong from a frame on.
    garbage_before
        Frames with bytes in front that are no message.
    cut_in
        Frames in whose middle the connection ends.
    jitter_s
        Mean delay of a frame on its way, exponential.
    first_counter
        Where the counter begins.
    refuses
        Codes with which variables and commands are answered.
    """

    stale: bytes = b""
    lost: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()
    late: frozenset[int] = frozenset()
    other_shape: frozenset[int] = frozenset()
    unreadable: frozenset[int] = frozenset()
    clock_steps_s: Mapping[int, float] = field(default_factory=dict)
    garbage_before: frozenset[int] = frozenset()
    cut_in: frozenset[int] = frozenset()
    jitter_s: float = 0.0
    first_counter: int = 1
    refuses: Mapping[str, int] = field(default_factory=dict)


def _one_of(*known: int) -> Callable[[float], bool]:
    return lambda value: value in known


def _between(least: float, most: float) -> Callable[[float], bool]:
    return lambda value: least <= value <= most


VARIABLES: dict[str, Callable[[float], bool]] = {
    "CONTINUOUSRW": _one_of(0, 1),
    "ACQUISITIONTIME": _between(1e-3, 1e7),
    "ACQUISITIONPERIOD": _between(1e-3, 1e7),
    "COUNTERDEPTH": _one_of(*PIXELS_OF_DEPTH),
    "TRIGGERSTART": _one_of(*range(6)),
    "NUMFRAMESTOACQUIRE": _between(1, 999_999),
    "NUMFRAMESPERTRIGGER": _between(1, 999_999),
    "RUNHEADLESS": _one_of(0, 1),
    "FILEENABLE": _one_of(0, 1),
    "FILEFORMAT": _one_of(0, 2),
    "USETIMESTAMPING": _one_of(0, 1),
}
COMMANDS = ("STARTACQUISITION", "STOPACQUISITION", "SOFTTRIGGER")


class MerlinServer:
    """Obeys commands, and films while an acquisition runs.

    Parameters
    ----------
    world
        What is in the field.
    pace
        How time passes.
    depth
        Counter depth that it has been left with.
    version
        Of its software.
    chips
        1, or 4 for a quad.
    """

    def __init__(
        self,
        world: World,
        pace: LockstepPace | RealPace,
        *,
        wrong: Misbehaviour | None = None,
        depth: int = 6,
        version: str = "1.6.1",
        chips: int = 1,
    ) -> None:
        self._world = world
        self._pace = pace
        self.wrong = wrong or Misbehaviour()
        self._settings = world.scenario.camera
        self._scene = new_scene(world.scenario, world.seed)
        self._chips = chips
        period_ms = 1000 / self._settings.frame_rate_Hz
        self.variables = {
            **dict.fromkeys(VARIABLES, "0"),
            "COUNTERDEPTH": str(depth),
            "ACQUISITIONTIME": f"{period_ms * self._settings.exposure_ratio:.9g}",
            "ACQUISITIONPERIOD": f"{period_ms:.9g}",
            "NUMFRAMESTOACQUIRE": "1",
            "NUMFRAMESPERTRIGGER": "1",
        }
        self._told = {
            "SOFTWAREVERSION": version,
            "IMAGEX": str(self._settings.width),
            "IMAGEY": str(self._settings.height),
            "DETECTORSTATUS": "0",
        }
        self.heard: list[str] = []  # every command, as it came
        self.control_port = self.data_port = 0
        self.connections = 0  # of the data port, ever
        self._writer: asyncio.StreamWriter | None = None
        self._armed = self._filming = False
        self._counter = self._run = 0
        self._first_start_ns = self._sent_ns = 0
        self._held: bytes | None = None
        self._cut: set[int] = set()

    # --- commands ------------------------------------------------------------------------

    async def serve_control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Obey one client until it goes."""
        with suppress(asyncio.IncompleteReadError, ValueError):
            while True:
                prefix = await reader.readexactly(15)
                body = await reader.readexactly(int(prefix[4:14]) - 1)
                writer.write(framed(self._reply(body.decode("ascii")).encode("ascii")))
                await writer.drain()

    def _reply(self, body: str) -> str:
        self.heard.append(body)
        method, name, value = (*body.split(",", 2), "", "")[:3]
        if (code := self.wrong.refuses.get(name)) is None:
            code = self._obey(method, name, value)
        if method == "GET":
            found = self.variables.get(name, self._told.get(name, "0"))
            return f"GET,{name},{found},{code}"
        return f"{method},{name},{code}"

    def _obey(self, method: str, name: str, value: str) -> int:
        if method == "GET":
            return OK if name in self.variables or name in self._told else UNKNOWN
        if method == "CMD":
            return self._command(name)
        if method != "SET" or name not in VARIABLES:
            return UNKNOWN
        if self._armed or self._filming:
            return BUSY
        try:
            fits = VARIABLES[name](float(value))
        except ValueError:
            fits = False
        if fits:
            self.variables[name] = value
        return OK if fits else OUT_OF_RANGE

    def _command(self, name: str) -> int:
        if name not in COMMANDS:
            return UNKNOWN
        if name == "STARTACQUISITION":
            if self._armed or self._filming:
                return BUSY
            self.arm()
        elif name == "SOFTTRIGGER" and self._armed and self.variables["TRIGGERSTART"] == "5":
            self.trigger()
        elif name == "STOPACQUISITION":
            self.stop()
        return OK

    # --- what the microscope may do, too ------------------------------------------------

    def arm(self) -> None:
        """Begin an acquisition: send its header, and wait for the trigger."""
        self._armed = True
        self._run += 1
        self._counter = self.wrong.first_counter - 1
        lines = {
            "Frames in Acquisition (Number)": self.variables["NUMFRAMESTOACQUIRE"],
            "Frames per Trigger (Number)": self.variables["NUMFRAMESPERTRIGGER"],
            "Readout System": "simulated",
            "Software Version": self._told["SOFTWAREVERSION"],
        }
        text = "HDR,\r\n" + "".join(f"{key}:\t{value}\r\n" for key, value in lines.items())
        self._send(framed(f"{text}End\t".encode("ascii").ljust(2044)))
        if self.variables["TRIGGERSTART"] == "0":
            self.trigger()

    def trigger(self) -> None:
        """Expose from now on."""
        self._armed, self._filming = False, True
        self._first_start_ns = self._world.now_ns
        self._expect_frame(self._run, 0)

    def stop(self) -> None:
        """End the acquisition; the present exposure is not finished."""
        self._armed = self._filming = False
        self._flush()

    # --- frames ---------------------------------------------------------------------------

    async def serve_data(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send frames to the newest client, until it goes."""
        self.connections += 1
        self._writer = writer
        if self.connections == 1 and self.wrong.stale:
            writer.write(self.wrong.stale)
        try:
            await reader.read()
        finally:
            if self._writer is writer:
                self._writer = None

    def _send(self, data: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    def _expect_frame(self, run: int, number: int) -> None:
        # The detector counts its period on its own clock.
        rate = 1 + self._settings.clock_rate_ratio
        period_ns = float(self.variables["ACQUISITIONPERIOD"]) * 1e6 / rate
        exposure_ns = min(float(self.variables["ACQUISITIONTIME"]) * 1e6 / rate, period_ns)
        start_ns = self._first_start_ns + round(number * period_ns)
        end_ns = start_ns + round(exposure_ns)

        async def end_of_exposure(t_ns: int) -> None:
            if not self._filming or self._run != run:
                return
            if number + 1 < int(self.variables["NUMFRAMESTOACQUIRE"]):
                self._expect_frame(run, number + 1)
            else:
                self._filming = False
            await self._expose(number, start_ns, t_ns)
            if not self._filming:
                self._flush()

        self._pace.at(end_ns, end_of_exposure)

    async def _expose(self, number: int, start_ns: int, end_ns: int) -> None:
        self._counter = counter = self._counter + 1
        lost = is_dropped(self._settings, self._world.seed, number) or counter in self.wrong.lost
        if lost or self._writer is None:
            return
        front_m = self._world.mean("front", start_ns, end_ns)
        drift_px = self._world.drift_px(start_ns, end_ns)
        self._scene.dose_e_m2 = self._world.dose_e_m2(start_ns)
        pixels = self._scene.frame(number, front_m, drift_px)
        frame = framed(self._frame_body(counter, start_ns, end_ns, pixels))
        whole = not {counter} & (self.wrong.other_shape | self.wrong.unreadable | self.wrong.cut_in)
        for _ in range(2 if counter in self.wrong.repeated and whole else 1):
            self._remember(counter, start_ns, end_ns, front_m, drift_px, stored=whole)
        if (wait_ns := self._delay_ns(number)) == 0:
            await self._pass_on(counter, frame)
        else:
            self._sent_ns = max(self._sent_ns, end_ns + wait_ns)

            async def arrive(t_ns: int) -> None:
                await self._pass_on(counter, frame)

            self._pace.at(self._sent_ns, arrive)

    def _delay_ns(self, number: int) -> int:
        if not self.wrong.jitter_s:
            return 0
        rng = np.random.default_rng([self._world.seed, 8, number])
        return round(rng.exponential(self.wrong.jitter_s) * 1e9)

    def _frame_body(
        self, counter: int, start_ns: int, end_ns: int, pixels: NDArray[np.uint8]
    ) -> bytes:
        depth = int(self.variables["COUNTERDEPTH"])
        code, dtype = PIXELS_OF_DEPTH[depth]
        if counter in self.wrong.other_shape:
            pixels = pixels[: len(pixels) // 2]
        header = mib_header(
            counter % 1_000_000,
            height=pixels.shape[0],
            width=pixels.shape[1],
            code=code,
            depth=depth,
            stamp_ns=self.stamp_ns(counter, start_ns),
            exposure_ns=end_ns - start_ns,
            chips=self._chips,
        )
        if counter in self.wrong.unreadable:
            header = header.replace(b"MQ1A", b"MQ1B").replace(b"2026-", b"????-")
        body: bytes = header + np.minimum(pixels, min(2**depth - 1, 255)).astype(dtype).tobytes()
        return body

    def stamp_ns(self, counter: int, host_ns: int) -> int:
        """Return what the detector's clock shows at a host time."""
        shown_ns = CLOCK_ZERO_NS + camera_time_ns(self._settings, self._world.start_ns, host_ns)
        steps_s = (step for at, step in self.wrong.clock_steps_s.items() if counter >= at)
        return (shown_ns + round(math.fsum(steps_s) * 1e9)) // CLOCK_STEP_NS * CLOCK_STEP_NS

    async def _pass_on(self, counter: int, frame: bytes) -> None:
        if counter in self.wrong.garbage_before and counter not in self._cut:
            self._cut.add(counter)
            self._send(b"?" * 1000)
        if counter in self.wrong.cut_in and counter not in self._cut:
            self._cut.add(counter)
            await self._cut_in_the_middle(frame)
            return
        if counter in self.wrong.late:
            self._held = frame
            return
        self._send(frame)
        self._flush()
        if counter in self.wrong.repeated:
            self._send(frame)
        # A slow client holds the simulated world, not its memory.
        if self._writer is not None:
            with suppress(ConnectionError):
                await self._writer.drain()

    def _flush(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._send(held)

    async def _cut_in_the_middle(self, frame: bytes) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.write(frame[: len(frame) // 2])
            writer.close()

    def _remember(
        self,
        counter: int,
        start_ns: int,
        end_ns: int,
        front_m: float,
        drift_px: tuple[float, float],
        *,
        stored: bool,
    ) -> None:
        if not stored:
            return
        middle_ns = start_ns + (end_ns - start_ns) // 2
        for track, found in self._scene.truth(front_m).items():
            self._world.record(f"tracks/{track}", t_ns=middle_ns, **found)
        self._world.record("drift/camera", t_ns=middle_ns, dx=drift_px[0], dy=drift_px[1])
        self._world.record(
            "frames/camera", t_start_ns=start_ns, exposure_ns=end_ns - start_ns, index=counter
        )


@asynccontextmanager
async def serve(
    merlin: MerlinServer,
    pace: LockstepPace | RealPace,
    *,
    host: str = LOOPBACK,
    ports: tuple[int, int] = (0, 0),
) -> AsyncIterator[MerlinServer]:
    """Serve a detector alone, with its world's time, while the context lasts.

    Parameters
    ----------
    ports
        For commands and for frames; 0 for a free one. ``control_port`` and ``data_port`` of
        the detector tell which they are.
    """
    passing = asyncio.create_task(pace.run(), name="mocks.pace")
    try:
        async with (
            open_port(merlin.serve_control, ports[0], host=host) as merlin.control_port,
            open_port(merlin.serve_data, ports[1], host=host) as merlin.data_port,
        ):
            yield merlin
    finally:
        passing.cancel()
        with suppress(asyncio.CancelledError):
            await passing
