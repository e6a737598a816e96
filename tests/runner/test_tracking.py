"""The tracking process: what it learns from, what it says, and that it holds up nobody."""

import asyncio
import math

import numpy as np
import pytest

from correlate.trackers.front import FrontTracker
from correlate.trackers.protocol import SceneSettings
from runner import tracking
from runner.live_tracking import LiveTracking
from runner.track_options import TrackSettings
from runner.tracking import FROZEN, LEARNING, Eye, Pictures
from session.records import FrameHeader
from tests.correlate.test_front import PIXEL_M, SETTINGS, movie

FRONT = TrackSettings(name="front", tracker="front")
FRAME_NS = 50_000_000


@pytest.fixture(scope="module")
def filmed():
    return movie(3, count=60)


def header(index, *, blanked=False):
    return FrameHeader(
        t_start_ns=index * FRAME_NS,
        exposure_ns=FRAME_NS,
        t_sigma_ns=1.0,
        index=index,
        device_start_ns=index * FRAME_NS,
        dropped_before=0,
        dose_per_m2=math.nan,
        blanked=blanked,
        arrival_ns=None,
    )


def test_a_front_is_learned_from_the_first_frames_and_then_followed(filmed):
    frames, true_m = filmed
    eye = Eye(FRONT, SETTINGS)
    found = [eye.look(i * FRAME_NS, pixels) for i, pixels in enumerate(frames)]
    assert not any(f.valid for f in found[:8])
    assert found[6].reason == LEARNING
    followed = found[8:]
    assert np.mean([f.valid for f in followed]) > 0.9
    good = [(f, t) for f, t in zip(followed, true_m[8:], strict=True) if f.valid]
    pulls = [(f.values["position"] - t) / f.values["position_sigma"] for f, t in good]
    assert np.sqrt(np.mean(np.square(pulls))) < 2.0  # it knows width and texture from 8 frames
    speed = (true_m[1] - true_m[0]) / (FRAME_NS / 1e9)
    last = good[-1][0].values
    assert last["velocity"] == pytest.approx(speed, abs=4 * last["velocity_sigma"])
    assert math.isfinite(last["drift_dx"] + last["x_interface_px"])


def test_the_area_is_swept_since_the_first_frame_that_was_followed(filmed):
    frames, _ = filmed
    together = FrontTracker(SETTINGS).begin(lambda: frames[:8]).track(lambda: frames[8:])
    following = FrontTracker(SETTINGS).begin(lambda: frames[:8])
    apart = [following.track(lambda p=p: [p]) for p in frames[8:]]
    for name, column in together.columns.items():
        one_by_one = np.concatenate([track.columns[name] for track in apart])
        np.testing.assert_allclose(one_by_one, column, err_msg=name)
    assert together.columns["area_swept"][-1] > 3 * together.columns["area_swept_sigma"][-1]


def test_first_frames_that_do_not_show_it_are_said_and_more_are_taken(filmed):
    frames, _ = filmed
    blank = np.full_like(frames[0], 7)
    eye = Eye(FRONT, SETTINGS)
    reasons = [eye.look(i * FRAME_NS, blank).reason for i in range(8)]
    assert reasons[-1] not in ("", LEARNING)
    found = [eye.look(i * FRAME_NS, pixels) for i, pixels in enumerate(frames + frames, start=8)]
    assert not any(f.valid for f in found[:8])  # 16 are asked for next
    assert any(f.valid for f in found)


def test_a_tracker_that_cannot_be_made_says_why_in_every_frame(filmed):
    eye = Eye(FRONT, SceneSettings(shape=(96, 300)))
    assert "needs the pixel size" in eye.look(0, filmed[0][0]).reason


def test_a_fault_of_a_tracker_is_a_reason_and_not_an_end(filmed, monkeypatch):
    def fails(_self, _frames):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(FrontTracker, "begin", fails)
    eye = Eye(FRONT, SETTINGS)
    reasons = [eye.look(i, filmed[0][0]).reason for i in range(9)]
    assert reasons[7] == "ZeroDivisionError: by nothing"


async def watch(frames, *, waits, stamps=header, in_thread=True, **settings):
    told = []
    scene = settings.pop("scene", SETTINGS)
    live = LiveTracking(
        (FRONT,),
        scene,
        dtype=str(frames[0].dtype),
        frame_rate_Hz=20.0,
        waits=waits,
        in_thread=in_thread,
    )
    async with live, asyncio.TaskGroup() as group:
        telling = group.create_task(live.tell(told.append))
        for i, pixels in enumerate(frames):
            await live.see(stamps(i), pixels)
            if waits:
                await live.catch_up(i * FRAME_NS + FRAME_NS // 2)
                assert len(told) == i + 1
        while live.counters.tracked + live.counters.left_out < len(frames) and not live.lost:
            await asyncio.sleep(0.01)
            if not waits and not live._under_way:
                break
        telling.cancel()
    return live, told


async def test_virtual_time_waits_for_each_frame_and_none_is_left_out(filmed):
    frames, true_m = filmed
    live, told = await watch(frames[:30], waits=True, in_thread=False)
    assert [seen.index for seen in told] == list(range(30))
    assert live.counters.left_out == 0
    last = told[-1].tracks["front"]
    assert last.values["position"] == pytest.approx(
        true_m[29], abs=6 * last.values["position_sigma"]
    )
    assert abs(last.values["position"] - true_m[29]) < PIXEL_M


async def test_in_real_time_frames_that_find_no_slot_are_left_out_and_counted(filmed):
    live, told = await watch(filmed[0], waits=False)
    counters = live.counters
    assert counters.tracked == len(told)
    assert counters.tracked + counters.left_out == len(filmed[0])
    assert counters.left_out > 0
    assert counters.slowest_us > 0


async def test_frames_of_a_blanked_beam_are_not_looked_at(filmed):
    def stamps(i):
        return header(i, blanked=True)

    live, told = await watch(filmed[0][:4], waits=False, stamps=stamps)
    assert (told, live.counters.left_out) == ([], 0)


async def test_a_process_that_is_killed_is_noticed_and_holds_up_nobody(filmed):
    live = LiveTracking((FRONT,), SETTINGS, dtype="uint8", frame_rate_Hz=20.0, waits=True)
    async with live, asyncio.TaskGroup() as group:
        group.create_task(live.tell(lambda _seen: None))
        await live.see(header(0), filmed[0][0])
        live._process.kill()
        async with asyncio.timeout(30):
            while not live.lost:
                await asyncio.sleep(0.01)
            await live.see(header(1), filmed[0][1])
            await live.catch_up(10 * FRAME_NS)
    assert "tracking process is gone" in live.lost


async def test_when_nobody_is_told_any_more_no_frame_waits(filmed):
    live = LiveTracking(
        (FRONT,), SETTINGS, dtype="uint8", frame_rate_Hz=20.0, waits=True, in_thread=True
    )
    async with live, asyncio.timeout(30), asyncio.TaskGroup() as group:
        telling = group.create_task(live.tell(lambda _seen: None))
        await asyncio.sleep(0)  # it has begun to listen
        telling.cancel()
        for i in range(5):  # more than there are slots
            await live.see(header(i), filmed[0][i])
        await live.catch_up(100 * FRAME_NS)


async def test_virtual_time_does_not_wait_for_ever_for_a_camera_that_gives_no_frame(monkeypatch):
    monkeypatch.setattr("runner.live_tracking.PATIENCE_S", 0.05)
    live = LiveTracking(
        (FRONT,), SETTINGS, dtype="uint8", frame_rate_Hz=20.0, waits=True, in_thread=True
    )
    async with live, asyncio.timeout(10), asyncio.TaskGroup() as group:
        await live.catch_up(100 * FRAME_NS)
        monkeypatch.setattr("runner.live_tracking.PATIENCE_S", 1000.0)
        await live.catch_up(101 * FRAME_NS)  # not again for the same frame
        monkeypatch.setattr("runner.live_tracking.PATIENCE_S", 0.05)
        telling = group.create_task(live.tell(lambda _seen: None))
        frame = np.zeros(SETTINGS.shape, np.uint8)
        await live.see(header(101), frame)
        waited = asyncio.create_task(live.catch_up(110 * FRAME_NS))  # for the next one, it is
        await asyncio.sleep(0)
        assert not waited.done()
        await waited
        telling.cancel()


async def test_a_camera_that_does_not_say_its_rate_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("runner.live_tracking.PATIENCE_S", 1000.0)
    live = LiveTracking(
        (FRONT,), SETTINGS, dtype="uint8", frame_rate_Hz=math.nan, waits=True, in_thread=True
    )
    async with live, asyncio.timeout(10):
        await live.catch_up(100 * FRAME_NS)


def test_velocity_is_that_of_the_last_two_seconds():
    eye = Eye(FRONT, SETTINGS)
    for i in range(200):
        slope = 1e-9 if i < 120 else 5e-9
        told = eye._velocity(i * FRAME_NS, slope * max(i, 0) * 0.05, 1e-10)
    assert told["velocity"] == pytest.approx(5e-9, rel=1e-6)
    assert len(eye._rows) <= tracking.VELOCITY_WINDOW_S / 0.05 + 2


async def test_a_picture_that_comes_again_is_no_sight(filmed):
    frames = [*filmed[0][:12], *[filmed[0][11]] * 3, filmed[0][12]]
    _, told = await watch(frames, waits=True)
    front = [seen.tracks["front"] for seen in told]
    assert [f.reason for f in front[12:15]] == [FROZEN] * 3
    assert not any(f.valid for f in front[12:15])
    assert front[11].valid
    assert front[15].valid


def test_dark_pictures_are_all_alike_and_nothing_is_said_of_them():
    pictures = Pictures()
    dark = np.zeros((4, 4), np.uint8)
    assert [pictures.is_new(dark) for _ in range(3)] == [True] * 3
    assert pictures.is_new(dark + 1)
    assert not pictures.is_new(dark + 1)
