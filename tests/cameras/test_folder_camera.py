"""The folder camera with its threads and the operating system's own events."""

import asyncio
import math
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from cameras.drivers.folder import READ_AHEAD, FolderCamera
from cameras.errors import CameraError, CameraLost
from cameras.folder_reader import Patience
from cameras.landing import Seen, Sighting
from cameras.options import CameraOptions
from cameras.records import Frame, FrameFault, StampClock, StampKind
from cameras.watching import Sightings, Watch
from mocks.folder_writer import FolderWriter, Manner, encode, truth
from tests.cameras.folder_hand import SHAPE, assert_true, picture

# Nothing here waits for a time to pass, but for what it brings. Only events can be quick.
PATIENT = Patience(poll_s=3600, quiet_s=3600, open_end_s=3600, hold_s=0.01, patience_s=3600)
QUICK = Patience(
    poll_s=0.005, quiet_s=0.01, open_end_s=0.02, hold_s=0.01, patience_s=0.05, first_s=0.05
)


class Deaf(Watch):
    """A system that gives no events."""

    def start(self):
        raise OSError("no events here")


def camera_in(folder, pattern="", **options):
    options = {"frame_rate_Hz": 10.0, "patience": QUICK, **options}
    return FolderCamera(folder, pattern, now_ns=time.monotonic_ns, **options)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "test.png").write_bytes(picture(0))
    return folder


def land(folder, *names, manner=Manner.RENAMED):
    writer = FolderWriter(folder)
    for name in names:
        index = int("".join(c for c in name if c.isdigit()))
        for _ in writer.land(name, picture(index, name.split(".")[-1]), manner, [50]):
            pass


@asynccontextmanager
async def filming(camera):
    async with camera:
        await camera.start()
        yield camera


async def rest_of(camera):
    await camera.stop()
    return [each async for each in camera.frames()]


# --- learning what frames look like ------------------------------------------------------------


async def test_the_newest_file_tells_what_frames_look_like(folder):
    options = CameraOptions(
        path=str(folder), pattern="*.png", frame_rate_Hz=20.0, pixel_size_m=2e-10
    )
    camera = FolderCamera.from_options(options, now_ns=time.monotonic_ns)
    with pytest.raises(CameraLost, match="is not connected"):
        _ = camera.info
    async with camera:
        info = camera.info
    assert (info.height, info.width, info.dtype) == (*SHAPE, "uint8")
    assert (info.frame_rate_Hz, info.pixel_size_m) == (20.0, 2e-10)
    assert (info.stamp, info.clock) == (StampKind.ARRIVAL, StampClock.HOST)
    assert math.isnan(info.row_time_ns)
    assert info.model == f"files *.png in {folder}"


async def test_a_folder_that_is_not_there_is_lost_and_says_what_would_do(tmp_path):
    with pytest.raises(CameraLost, match=r"nowhere: cannot be looked into .*create it, or give"):
        async with camera_in(tmp_path / "nowhere"):
            pass


async def test_an_empty_folder_is_lost_and_says_what_would_do(tmp_path):
    (tmp_path / "half.png").write_bytes(picture(1)[:40])
    with pytest.raises(CameraLost, match=r"half\.png has no end mark; take one test image"):
        async with camera_in(tmp_path):
            pass
    (tmp_path / "half.png").unlink()
    with pytest.raises(CameraLost, match=r"no \*\.png that can be read .* s; take one"):
        async with camera_in(tmp_path, "*.png"):
            pass


async def test_a_first_file_may_come_while_the_camera_is_opened(tmp_path):
    (tmp_path / "no.tif").write_bytes(b"no image")
    (tmp_path / "broken.mib").write_bytes(encode("mib", [truth(1, *SHAPE)]))  # no reader
    entered = asyncio.Event()

    async def open_it():
        async with camera_in(tmp_path, patience=replace(QUICK, first_s=60)) as camera:
            entered.set()
            return camera.info

    opening = asyncio.create_task(open_it())
    await asyncio.sleep(0)
    assert not entered.is_set()
    await asyncio.to_thread(land, tmp_path, "f1.png")
    assert (await opening).height == SHAPE[0]


@pytest.mark.parametrize("rate", [math.nan, 0.0])
async def test_an_exposure_must_be_known(folder, rate):
    with pytest.raises(CameraError, match="how long a frame is exposed is not known"):
        async with camera_in(folder, frame_rate_Hz=rate):
            pass


# --- frames ------------------------------------------------------------------------------------


async def test_files_are_frames_as_soon_as_the_system_tells_that_they_are_closed(folder):
    async with filming(camera_in(folder, patience=PATIENT)) as camera:
        await asyncio.to_thread(land, folder, "f1.tif", "f2.png")
        await asyncio.to_thread(land, folder, "f3.tif", manner=Manner.IN_PIECES)
        found = []
        async for each in camera.frames():
            found.append(each)
            if len(found) == 3:
                break
    assert [each.info.index for each in found] == [1, 2, 3]
    for each in found:
        assert_true(each)
        assert each.info.device_start_ns == each.info.arrival_ns <= time.monotonic_ns()
        assert each.info.exposure_ns == 100_000_000


async def test_without_events_looking_around_finds_all(folder):
    async with filming(camera_in(folder, exposure_s=0.02, make_watch=Deaf)) as camera:
        await asyncio.to_thread(land, folder, "f2.png", "f1.png")
        fault, *found = await rest_of(camera)
    assert isinstance(fault, FrameFault)
    assert [each.info.index for each in found] == [1, 2]
    assert found[0].info.exposure_ns == 20_000_000


async def test_many_more_files_than_are_read_ahead_all_come(folder):
    count = 4 * READ_AHEAD
    async with filming(camera_in(folder)) as camera:
        await asyncio.to_thread(land, folder, *(f"f{i:03}.png" for i in range(count)))
        stream = camera.frames()
        first = await anext(stream)
        while len(camera._items) < READ_AHEAD:  # as many as it has room for, and no more
            await asyncio.sleep(0.001)
        assert len(camera._items) == READ_AHEAD
        await camera.stop()
        found = [first, *[each async for each in stream]]
    assert [each.info.index for each in found] == list(range(count))
    for each in found:
        assert_true(each)


async def test_a_folder_in_the_folder_is_looked_into_when_asked(folder):
    async with filming(camera_in(folder, "**/*.png", patience=PATIENT)) as camera:
        await asyncio.to_thread((folder / "Second_01").mkdir)
        await asyncio.to_thread(land, folder, "Second_01/f7.png")
        # That the folder was made is told on one thread and listened to on another.
        await camera.stop()
        camera._reader._landing._quiet_ns = 0
        found = [each async for each in camera.frames()]
    assert [each.info.index for each in found] == [7]


class Buffers:
    def __init__(self, free=1000):
        self.given = []
        self.free = threading.Semaphore(free)

    def take(self):
        self.free.acquire()
        self.given.append(np.zeros(SHAPE, np.uint8))
        return self.given[-1]


async def test_pixels_are_put_into_buffers(folder):
    buffers = Buffers()
    async with filming(camera_in(folder)) as camera:
        await asyncio.to_thread(land, folder, "f1.png", "f2.png")
        (folder / "f3.png").write_bytes(picture(3, dtype="uint16"))
        await camera.stop()
        found = [each async for each in camera.frames(buffers)]
    frames = [each for each in found if isinstance(each, Frame)]
    assert len(buffers.given) == len(frames) == 2  # none for the fault
    for each, buffer in zip(frames, buffers.given, strict=True):
        assert each.pixels is buffer
        assert_true(each)


async def test_whoever_leaves_early_is_not_held(folder):
    async with filming(camera_in(folder)) as camera:
        await asyncio.to_thread(land, folder, *(f"f{i:03}.png" for i in range(3 * READ_AHEAD)))
        async for _ in camera.frames():
            break
    assert not camera._thread.is_alive()


async def test_frames_can_be_asked_for_again(folder):
    async with filming(camera_in(folder)) as camera:
        await asyncio.to_thread(land, folder, "f1.png", "f2.png")
        first = await anext(camera.frames())
        found = [first, *await rest_of(camera)]
        assert [each.info.index for each in found] == [1, 2]
        assert [each async for each in camera.frames()] == []


async def test_what_is_not_started_has_no_frames(folder):
    camera = camera_in(folder)
    async with camera:
        await camera.stop()
        with pytest.raises(CameraLost, match="is not started"):
            await anext(camera.frames())
        await camera.start()
        with pytest.raises(CameraError, match="is watched already"):
            await camera.start()
        with pytest.raises(CameraLost, match="no clock"):
            await camera.exchange_clock()


async def test_a_folder_that_is_gone_at_the_start_is_lost(folder):
    async with camera_in(folder) as camera:
        folder.rename(folder.with_name("away"))
        with pytest.raises(CameraLost, match="cannot be looked into"):
            await camera.start()


async def test_a_failure_of_the_reading_thread_is_told(folder, monkeypatch):
    async with filming(camera_in(folder)) as camera:

        def turn():
            raise RuntimeError("a mistake of ours")

        monkeypatch.setattr(camera._reader, "turn", turn)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            await anext(camera.frames())


def test_a_loop_that_is_closed_is_told_nothing(folder):
    camera = camera_in(folder)
    camera._tell()
    loop = asyncio.new_event_loop()
    camera._loop = loop
    loop.close()
    camera._tell()


# --- events ------------------------------------------------------------------------------------


def seen_in(*events):
    sightings = Sightings()
    for at_ns, (name, seen, *source) in enumerate(events):
        sightings.add(Sighting(name, at_ns, seen, *source))
    return [(each.name, each.at_ns, each.seen, each.source) for each in sightings.take()]


def test_many_events_of_a_file_are_kept_as_one():
    assert seen_in(("a", Seen.MADE), ("b", Seen.MADE), ("a", Seen.WRITTEN), ("a", Seen.CLOSED)) == [
        ("b", 1, Seen.MADE, ""),
        ("a", 3, Seen.CLOSED, ""),
    ]


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (Seen.CLOSED, Seen.WRITTEN, Seen.TOUCHED),
        (Seen.TOUCHED, Seen.WRITTEN, Seen.TOUCHED),
        (Seen.TOUCHED, Seen.CLOSED, Seen.CLOSED),
        (Seen.WRITTEN, Seen.MADE, Seen.WRITTEN),
        (Seen.MADE, Seen.MADE, Seen.MADE),
    ],
)
def test_two_events_say_what_both_say(first, second, both):
    assert seen_in(("a", first, "old"), ("a", second)) == [("a", 1, both, "old")]


def test_what_was_taken_does_not_come_again():
    sightings = Sightings()
    sightings.add(Sighting("a", 1, Seen.MADE))
    assert len(sightings.take()) == 1
    assert sightings.take() == []


def test_the_system_tells_of_each_step(tmp_path):
    heard, enough = [], threading.Event()

    def notice(sighting):
        heard.append((sighting.name, sighting.seen, sighting.source))
        if sighting.seen is Seen.CLOSED and sighting.source:
            enough.set()

    watch = Watch(tmp_path, deep=False, now_ns=time.monotonic_ns, notice=notice)
    watch.start()
    try:
        land(tmp_path, "f1.png")
        assert enough.wait(60)
    finally:
        watch.stop()
    assert heard[0] == ("f1.png.part", Seen.MADE, "")
    assert heard[-1] == ("f1.png", Seen.CLOSED, "f1.png.part")


def test_a_folder_that_cannot_be_watched_says_so(tmp_path):
    watch = Watch(tmp_path / "nowhere", deep=False, now_ns=time.monotonic_ns, notice=print)
    with pytest.raises(OSError, match="No such file"):
        watch.start()
    watch.stop()
