"""A simulated DECTRIS detector: SIMPLON over HTTP, stream v2 over ZeroMQ.

It films the simulated world, and misbehaves as it is told. Alone it is served with
``python -m mocks.dectris --port 8080 --data-port 31001``.
"""

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import numpy as np
import zmq
from numpy.typing import NDArray

from cameras.open_port import LOOPBACK, open_port
from mocks.camera import camera_time_ns, is_dropped, new_scene
from mocks.dectris_rest import Parameter, Refusal, Simplon
from mocks.dectris_wire import array_item, image_message, message
from mocks.pace import Pace, RealPace
from mocks.scenario import load
from mocks.world import World

TICK_NS = 20  # of the detector's time base of 50 MHz
READOUT_NS = 100  # five ticks, as in the maker's test data
FIRST_DATE = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
MEMORY = 1000  # images that the detector keeps while nobody takes them
LOOK_S = 1e-3


class Fault(StrEnum):
    """What may be wrong with an image."""

    DROPPED = "dropped"
    GARBAGE = "garbage"
    SHAPE = "shape"
    PIXEL_TYPE = "pixel_type"
    COMPRESSION = "compression"
    RESET = "reset"  # the counter falls to 0, time goes on
    NEW_SERIES = "new_series"  # somebody armed anew, and no end was sent
    REPEATED = "repeated"  # is sent twice


@dataclass(slots=True, kw_only=True)
class Misbehaviour:
    """How the detector misbehaves; may be changed while it runs.

    Parameters
    ----------
    at
        What is wrong with which image, counted from 0 over all series.
    listeners
        Clients that share the stream; only one message in so many is sent to us.
    silent_end
        True when no end message is sent.
    trigger_returns
        True when the trigger command answers at once, and not when the series is over.
    """

    at: dict[int, Fault] = field(default_factory=dict)
    listeners: int = 1
    silent_end: bool = False
    trigger_returns: bool = False


class DectrisServer:
    """Films while it is armed and triggered; a context manager around its ports.

    Parameters
    ----------
    world
        What is in the field.
    pace
        How time passes.
    ports
        Of the REST interface and of the stream; 0 for a free one.
    channels
        Names of the thresholds; the first sees the scene, the others half of it.
    bits
        Of a pixel: 8, 16 or 32.
    """

    def __init__(
        self,
        world: World,
        pace: Pace,
        *,
        ports: tuple[int, int] = (0, 0),
        channels: Sequence[str] = ("threshold_1",),
        bits: int = 16,
    ) -> None:
        self._world = world
        self._pace = pace
        self._settings = world.scenario.camera
        self._scene = new_scene(world.scenario, world.seed)
        self._channels = tuple(channels)
        self.port, self.data_port = ports
        self.misbehaviour = Misbehaviour()
        self.simplon = Simplon(
            parameters=self._parameters(bits),
            commands={
                name: getattr(self, name)
                for name in ("arm", "trigger", "cancel", "disarm", "abort")
            },
            on_set=self._adjust,
        )
        self.series_id = 0
        self.produced = 0
        self.sent = 0
        self._image_id = 0
        self._series_start_ns = 0
        self._run = self._run_index = self._run_start_ns = 0
        self._over = asyncio.Event()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(MEMORY)
        self._context: zmq.Context[Any] | None = None
        self._push: Any = None
        self._listening = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Open both ports."""
        self._context = zmq.Context()
        self._push = self._context.socket(zmq.PUSH)
        self._push.setsockopt(zmq.LINGER, 0)
        self._push.bind(f"tcp://{LOOPBACK}:{self.data_port or '*'}")
        endpoint = self._push.getsockopt_string(zmq.LAST_ENDPOINT)
        self.data_port = int(endpoint.rpartition(":")[2])
        serve = open_port(self.simplon.serve, self.port)
        self.port = await self._listening.enter_async_context(serve)
        self._keep(asyncio.create_task(self._send_all(), name="mocks.dectris_stream"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close both ports."""
        await self._listening.aclose()
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task
        if self._context is not None:
            self._context.destroy(linger=0)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what it says of itself ----------------------------------------------------------------

    def _parameters(self, bits: int) -> dict[str, Parameter]:
        def fixed(value: Any) -> Parameter:
            return Parameter(value=value, writable=False)

        def one_of(*allowed: str) -> Parameter:
            return Parameter(value=allowed[0], allowed=list(allowed))

        def time_s(value: float) -> Parameter:
            return Parameter(value=value, lowest=1e-6, highest=3600.0)

        period_s = 1 / self._settings.frame_rate_Hz
        config = {
            "description": fixed("DECTRIS ARINA Si (simulated)"),
            "eiger_fw_version": fixed("release-2022.1.2"),
            "detector_readout_time": fixed(READOUT_NS / 1e9),
            "x_pixels_in_detector": fixed(self._settings.width),
            "y_pixels_in_detector": fixed(self._settings.height),
            "bit_depth_image": fixed(bits),
            "compression": one_of("bslz4", "lz4", "none"),
            "trigger_mode": one_of("exts", "ints", "exte"),
            "nimages": Parameter(value=1, lowest=1, highest=2_000_000_000),
            "ntrigger": Parameter(value=1, lowest=1, highest=2_000_000_000),
            "count_time": time_s(period_s * self._settings.exposure_ratio),
            "frame_time": time_s(period_s),
        }
        stream = {
            "mode": one_of("disabled", "enabled"),
            "format": one_of("legacy", "cbor"),
            "header_detail": one_of("basic", "all", "none"),
        }
        return {
            **{f"detector/config/{name}": each for name, each in config.items()},
            **{f"stream/config/{name}": each for name, each in stream.items()},
            "detector/status/state": fixed("idle"),
        }

    def _adjust(self, name: str) -> list[str]:
        """Let the frame time follow a count time that it cannot hold."""
        least_s = self._config("count_time") + READOUT_NS / 1e9
        if self._config("frame_time") < least_s * (1 - 1e-9):
            self.simplon.parameters["detector/config/frame_time"].value = least_s
            return [name.rpartition("/")[2], "frame_time"]
        return [name.rpartition("/")[2]]

    def _config(self, name: str) -> Any:
        return self.simplon.parameters[f"detector/config/{name}"].value

    @property
    def state(self) -> str:
        """What the detector is doing: idle, ready or acquire."""
        return str(self.simplon.parameters["detector/status/state"].value)

    @state.setter
    def state(self, value: str) -> None:
        self.simplon.parameters["detector/status/state"].value = value

    # --- commands ------------------------------------------------------------------------------

    async def arm(self) -> dict[str, Any]:
        """Begin a series: its start message goes out."""
        if self.state != "idle":
            raise Refusal(400, f"cannot arm in state {self.state}")
        self.state = "ready"
        await self._pace.take(0)  # bring the world to the present
        await self._begin_series()
        return {"sequence id": self.series_id}

    async def trigger(self) -> dict[str, Any]:
        """Expose; answers when the series is over."""
        if self.state != "ready":
            raise Refusal(400, f"cannot trigger in state {self.state}")
        self.state = "acquire"
        await self._pace.take(0)
        self._over.clear()
        self._run += 1
        self._run_start_ns, self._run_index = self._world.now_ns, 0
        self._expect_image()
        if not self.misbehaviour.trigger_returns:
            await self._over.wait()
        return {"sequence id": self.series_id}

    async def cancel(self) -> dict[str, Any]:
        """Begin no further exposure."""
        if self.state == "acquire":
            self.state = "ready"
            self._over.set()
        return {"sequence id": self.series_id}

    async def disarm(self) -> dict[str, Any]:
        """End the series: its end message goes out."""
        if self.state != "idle":
            self.state = "idle"
            self._over.set()
            if not self.misbehaviour.silent_end:
                await self._put(message("end", self.series_id))
        return {"sequence id": self.series_id}

    async def abort(self) -> dict[str, Any]:
        """End at once."""
        return await self.disarm()

    async def _begin_series(self) -> None:
        self.series_id += 1
        self._image_id = 0
        self._series_start_ns = self._world.now_ns
        await self._put(
            message(
                "start",
                self.series_id,
                channels=list(self._channels),
                count_time=self._config("count_time"),
                frame_time=self._config("frame_time"),
                number_of_images=self._config("nimages"),
                image_size_x=self._settings.width,
                image_size_y=self._settings.height,
                saturation_value=2 ** self._config("bit_depth_image") - 2,
            )
        )

    # --- exposures -----------------------------------------------------------------------------

    def _host_ns(self, seconds: float) -> int:
        """Return how long the host's clock takes for a time on the detector's."""
        return round(seconds * 1e9 / (1 + self._settings.clock_rate_ratio))

    def _start_ns(self) -> int:
        return self._run_start_ns + self._host_ns(self._run_index * self._config("frame_time"))

    def _expect_image(self) -> None:
        start_ns, run = self._start_ns(), self._run

        async def begin(t_ns: int) -> None:
            if self._runs(run):
                self._world.exposures.begin(t_ns)

        async def end(t_ns: int) -> None:
            if self._runs(run):
                await self._end_of_exposure(t_ns)

        if self._world.exposures.line:
            self._pace.at(start_ns, begin)
        self._pace.at(start_ns + self._host_ns(self._config("count_time")), end)

    def _runs(self, run: int) -> bool:
        """Tell whether an exposure of a run is still wanted."""
        return self.state == "acquire" and self._run == run

    async def _end_of_exposure(self, end_ns: int) -> None:
        start_ns = self._start_ns()
        self._run_index += 1
        self._expect_image()
        await self._give_image(start_ns, end_ns)
        if self._run_index >= self._config("nimages"):
            await self.disarm()

    async def _give_image(self, start_ns: int, end_ns: int) -> None:
        number = self.produced
        self.produced += 1
        fault = self.misbehaviour.at.get(number)
        if fault is Fault.NEW_SERIES:
            await self._begin_series()
            self._series_start_ns = start_ns
        if fault is Fault.RESET:
            self._image_id = 0
        image_id = self._image_id
        self._image_id += 1
        dropped = is_dropped(self._settings, self._world.seed, number)
        if dropped or fault is Fault.DROPPED or number % self.misbehaviour.listeners:
            return
        front_m = self._world.mean("front", start_ns, end_ns)
        drift_px = self._world.drift_px(start_ns, end_ns)
        self._scene.dose_e_m2 = self._world.dose_e_m2(start_ns)
        pixels = self._scene.frame(number, front_m, drift_px)
        if fault not in (Fault.GARBAGE, Fault.SHAPE, Fault.PIXEL_TYPE, Fault.COMPRESSION):
            self.sent += 1
            self._remember(number, start_ns, end_ns, front_m, drift_px)
        raw = self._message(image_id, start_ns, end_ns, pixels, fault)
        await self._put(raw)
        if fault is Fault.REPEATED:
            await self._put(raw)

    def _message(
        self,
        image_id: int,
        start_ns: int,
        end_ns: int,
        scene: NDArray[np.uint8],
        fault: Fault | None,
    ) -> bytes:
        if fault is Fault.GARBAGE:
            return b"\xff\x00 no CBOR at all"
        bits, compression = self._config("bit_depth_image"), self._config("compression")
        pixels = scene.astype(f"uint{bits}")
        if fault is Fault.SHAPE:
            pixels = pixels[: len(pixels) // 2]
        if fault is Fault.PIXEL_TYPE:
            pixels = pixels.astype("uint8" if bits == 32 else "uint32")
        if fault is Fault.COMPRESSION:
            compression = "bszstd"
        data = {
            name: array_item(pixels if name == self._channels[0] else pixels // 2, compression)
            for name in self._channels
        }
        return image_message(
            self.series_id,
            image_id,
            (self._ticks(start_ns), self._ticks(end_ns)),
            data,
            base_Hz=10**9 // TICK_NS,
            series_date=self._date(),
        )

    def _ticks(self, host_ns: int) -> int:
        """Return the detector's time since the start of the series."""
        settings, origin_ns = self._settings, self._world.start_ns
        now_ns = camera_time_ns(settings, origin_ns, host_ns)
        return (now_ns - camera_time_ns(settings, origin_ns, self._series_start_ns)) // TICK_NS

    def _date(self) -> datetime:
        """Return when the series started, on the control unit's own clock."""
        return FIRST_DATE + timedelta(
            milliseconds=(self._series_start_ns - self._world.start_ns) // 10**6
        )

    def _remember(
        self,
        index: int,
        start_ns: int,
        end_ns: int,
        front_m: float,
        drift_px: tuple[float, float],
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
        )

    # --- the stream ----------------------------------------------------------------------------

    async def _put(self, raw: bytes) -> None:
        # A full memory holds the simulated world.
        await self._outbox.put(raw)

    async def _send_all(self) -> None:
        while True:
            raw = await self._outbox.get()
            while True:
                try:
                    self._push.send(raw, zmq.NOBLOCK)
                    break
                except zmq.Again:  # nobody is there, or not fast enough
                    await asyncio.sleep(LOOK_S)

    async def film(self) -> None:
        """Arm and trigger as the microscope's software would; answers when it is over."""
        await self.arm()
        await self.trigger()


async def _serve_alone(ports: tuple[int, int], scenario: str, seed: int, rate_Hz: float) -> None:
    chosen = load(scenario) if math.isnan(rate_Hz) else load(scenario, frame_rate_Hz=rate_Hz)
    world = World(chosen, seed=seed, start_ns=time.monotonic_ns())
    pace = RealPace(world, time.monotonic_ns, 1.0)
    async with DectrisServer(world, pace, ports=ports) as server:
        sys.stdout.write(
            f'simulated camera: driver = "dectris", port = {server.port}, '
            f"data_port = {server.data_port}\nCtrl-C ends it\n"
        )
        sys.stdout.flush()
        await pace.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the detector on loopback until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m mocks.dectris", description=main.__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of the REST interface")
    parser.add_argument("--data-port", type=int, default=31001, help="of the stream")
    parser.add_argument("--scenario", default="lco_lipon_li")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frame-rate", type=float, default=math.nan, help="in Hz")
    asked = parser.parse_args(arguments)
    with suppress(KeyboardInterrupt):
        asyncio.run(
            _serve_alone(
                (asked.port, asked.data_port), asked.scenario, asked.seed, asked.frame_rate
            )
        )


if __name__ == "__main__":
    main()
