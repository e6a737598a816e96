"""What every registered camera owes to those who use it, filming a simulated detector."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cameras.errors import CameraLost
from cameras.options import CameraOptions
from cameras.protocol import FrameSource
from cameras.records import Frame, StampClock
from cameras.registry import camera_class, camera_names
from mocks.bench import Bench
from mocks.dectris import DectrisServer
from mocks.folder_writer import FolderWriter, Manner, encode, truth
from mocks.merlin import MerlinServer, serve
from mocks.pace import RealPace
from mocks.scenario import load
from mocks.world import World
from runner.clock import real_now_ns

RATE_HZ, ENOUGH, PATIENCE_S = 50.0, 8, 20.0
HEIGHT, WIDTH = 48, 200


def world() -> tuple[World, RealPace]:
    scenario = load(
        "lco_lipon_li",
        height=HEIGHT,
        width=WIDTH,
        pixel_size_m=4e-9,
        frame_rate_Hz=RATE_HZ,
        dropped_ratio=0.0,
    )
    made = World(scenario, seed=2, start_ns=real_now_ns())
    return made, RealPace(made, real_now_ns, 1.0)


@asynccontextmanager
async def passing(pace: RealPace) -> AsyncIterator[None]:
    task = asyncio.create_task(pace.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def merlin(_folder: Path) -> AsyncIterator[CameraOptions]:
    made, pace = await asyncio.to_thread(world)
    async with serve(MerlinServer(made, pace, depth=12), pace) as server:
        yield CameraOptions(
            control_port=server.control_port, data_port=server.data_port, frame_rate_Hz=RATE_HZ
        )


@asynccontextmanager
async def dectris(_folder: Path) -> AsyncIterator[CameraOptions]:
    made, pace = await asyncio.to_thread(world)
    async with passing(pace), DectrisServer(made, pace) as server:
        yield CameraOptions(port=server.port, data_port=server.data_port, frame_rate_Hz=RATE_HZ)


@asynccontextmanager
async def stream(_folder: Path) -> AsyncIterator[CameraOptions]:
    made, pace = await asyncio.to_thread(world)
    bench = await asyncio.to_thread(Bench, made, pace)
    async with bench:
        yield CameraOptions(port=bench.camera_port, frame_rate_Hz=RATE_HZ)


@asynccontextmanager
async def folder(where: Path) -> AsyncIterator[CameraOptions]:
    writer = await asyncio.to_thread(FolderWriter, where)

    def land(index: int) -> None:
        picture = encode("png", [truth(index, HEIGHT, WIDTH, "uint8")])
        for _ in writer.land(f"{index:04d}.png", picture, Manner.RENAMED):
            pass

    async def film() -> None:
        for index in range(1, 10_000):
            await asyncio.to_thread(land, index)
            await asyncio.sleep(1 / RATE_HZ)

    await asyncio.to_thread(land, 0)  # by which it knows what frames look like
    task = asyncio.create_task(film())
    try:
        yield CameraOptions(path=str(where), pattern="*.png", frame_rate_Hz=RATE_HZ)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


BENCHES: dict[str, Callable[[Path], AbstractAsyncContextManager[CameraOptions]]] = {
    "dectris": dectris,
    "folder": folder,
    "merlin": merlin,
    "stream": stream,
}
cameras = pytest.mark.parametrize("name", camera_names())
pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def entered(name: str, where: Path) -> AsyncIterator[FrameSource]:
    assert name in BENCHES, f"give tests/contract a simulated detector for the camera {name!r}"
    async with asyncio.timeout(PATIENCE_S), BENCHES[name](where) as options:
        driver = await asyncio.to_thread(camera_class, name)
        camera = await asyncio.to_thread(driver.from_options, options, now_ns=real_now_ns)
        async with camera:
            yield camera


class Lent:
    """Memory as the recorder lends it; remembers what was taken."""

    def __init__(self, camera: FrameSource) -> None:
        self._shape, self._dtype = (camera.info.height, camera.info.width), camera.info.dtype
        self.lent: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        self.lent.append(np.empty(self._shape, self._dtype))
        return self.lent[-1]


async def film(camera: FrameSource, buffers: Lent | None = None) -> list[Frame]:
    """Film until there are enough frames, stop, and take what comes until it ends by itself."""
    await camera.start()
    found = []
    async for frame in camera.frames(buffers):
        assert isinstance(frame, Frame), frame
        found.append(frame)
        if len(found) == ENOUGH:
            await camera.stop()
    return found


@cameras
async def test_it_says_what_its_frames_are_before_the_first(name, tmp_path):
    async with entered(name, tmp_path) as camera:
        info = camera.info
        assert (info.height, info.width) == (HEIGHT, WIDTH)
        assert np.dtype(info.dtype).kind == "u"
        assert info.model
        assert math.isnan(info.frame_rate_Hz) or info.frame_rate_Hz > 0


@cameras
@pytest.mark.parametrize("lends", [False, True])
async def test_frames_come_in_order_whole_and_none_is_missing(name, lends, tmp_path):
    async with entered(name, tmp_path) as camera:
        buffers = Lent(camera) if lends else None
        frames, info = await film(camera, buffers), camera.info
    assert len(frames) >= ENOUGH
    for frame in frames:
        assert frame.pixels.shape == (info.height, info.width)
        assert frame.pixels.dtype == info.dtype
        assert frame.pixels.std() > 0
        assert frame.info.exposure_ns >= 0
    for one, next_one in pairwise(frames):
        assert next_one.info.index == one.info.index + 1 + next_one.info.dropped_before
        assert next_one.info.dropped_before == 0
        assert next_one.info.device_start_ns > one.info.device_start_ns
        assert not np.array_equal(one.pixels, next_one.pixels)


@cameras
async def test_a_frame_is_not_here_before_it_was_exposed(name, tmp_path):
    async with entered(name, tmp_path) as camera:
        begun_ns = real_now_ns()
        frames, info = await film(camera), camera.info
    arrived = [f.info.arrival_ns for f in frames if f.info.arrival_ns is not None]
    assert arrived == sorted(arrived)
    assert all(begun_ns <= t_ns <= real_now_ns() for t_ns in arrived)
    if info.clock is StampClock.HOST:
        assert all(f.info.device_start_ns <= f.info.arrival_ns for f in frames)


@cameras
async def test_left_while_it_films_it_leaves_nothing_running(name, tmp_path):
    before = asyncio.all_tasks()
    async with entered(name, tmp_path) as camera:
        await camera.start()
        async with aclosing(camera.frames()) as frames:
            await anext(frames)
    assert asyncio.all_tasks() <= before


@cameras
async def test_a_clock_that_it_has_is_asked_and_one_that_it_has_not_is_refused(name, tmp_path):
    async with entered(name, tmp_path) as camera:
        if not camera.has_clock:
            with pytest.raises(CameraLost):
                await camera.exchange_clock()
            return
        asked = await camera.exchange_clock()
    assert asked.t0_ns <= asked.t3_ns
    assert asked.t1_ns <= asked.t2_ns
