"""What a view keeps of a run in bounded memory, and what each viewer is told of it."""

import asyncio
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from runner.audience import Shielded
from runner.control import Control
from runner.live_state import LiveState
from runner.view_frames import LARGEST_PX, Painter, frame_message
from runner.view_state import MOST_EVENTS, ViewState
from runner.view_traces import (
    COLUMNS,
    MOST_AT_ONCE,
    MOST_MISSED,
    Kind,
    Traces,
    at_most,
    thinned,
    trace_message,
)
from session.messages import Event
from session.records import SESSION_SAMPLE_DTYPE, FrameHeader

# --- traces ------------------------------------------------------------------------------------


def some_rows(start, count):
    rows = np.zeros((count, COLUMNS))
    rows[:, 0] = np.arange(start, start + count)
    rows[:, 1] = np.sin(rows[:, 0] / 50)
    return rows


def test_of_four_rows_the_extremes_stay_in_their_order():
    rows = np.array(
        [[0, 1, 9, np.nan], [1, 5, 8, np.nan], [2, -3, 7, 4.0], [3, 2, 6, np.nan]], float
    )
    fewer = thinned(rows)
    assert fewer[:, 0].tolist() == [0, 2]
    assert fewer[:, 1].tolist() == [-3, 5]  # it rises from the first to the last
    assert fewer[:, 2].tolist() == [9, 6]  # it falls
    assert fewer[:, 3].tolist() == [4, 4]
    assert np.isnan(thinned(np.full((4, COLUMNS), np.nan))[:, 1]).all()


def test_a_spike_of_one_reading_is_seen_after_a_day():
    traces = Traces(1024)
    for start in range(0, 400_000, 100):
        rows = some_rows(start, 100)
        if start == 5_000:
            rows[17, 2] = 7e-11
        traces.add(rows)
    kept = traces.all()
    assert traces.total == 400_000
    assert 256 <= len(kept) <= 1024
    assert kept[:, 2].max() == 7e-11
    assert np.all(np.diff(kept[:, 0]) > 0)
    assert kept[0, 0] == 0
    assert kept[-1, 0] == 399_999
    # What is new is as it came.
    assert np.array_equal(kept[-100:], some_rows(399_900, 100))


def test_what_came_since_is_given_or_it_is_said_that_it_is_thinned():
    traces = Traces(64)
    traces.add(some_rows(0, 30))
    traces.add(some_rows(30, 30))
    assert np.array_equal(traces.since(50), some_rows(50, 10))
    assert len(traces.since(60)) == 0
    traces.add(some_rows(60, 10))
    assert np.array_equal(traces.since(60), some_rows(60, 10))
    assert traces.since(5) is None
    traces.add(some_rows(70, 1000))  # more at once than there is room for
    assert traces.since(1069) is None
    assert len(traces.all()) <= 64
    traces.add(some_rows(1070, 4))
    assert np.array_equal(traces.since(1070), some_rows(1070, 4))
    with pytest.raises(ValueError, match="8 times n"):
        Traces(20)


def test_rows_cross_as_columns():
    rows = some_rows(3, 2)
    message = trace_message(Kind.ALL, rows)
    assert message[0] == 2
    assert struct.unpack_from("<I", message, 4) == (2,)
    assert struct.unpack_from("<2d", message, 8) == (3.0, 4.0)
    assert struct.unpack_from("<2f", message, 24) == pytest.approx(rows[:, 1], rel=1e-6)
    assert len(message) == 8 + 2 * 8 + 4 * 2 * 4
    assert len(at_most(some_rows(0, 10_001), 400)) <= 400


# --- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_a_frame_becomes_a_picture_with_its_range(dtype):
    x = np.mgrid[:64, :96][1]
    picture = Painter().paint((x + 10).astype(dtype))
    image = np.asarray(Image.open(io.BytesIO(picture.jpeg)))
    assert image.shape == (64, 96)
    assert picture.binned == 1
    assert (picture.low, picture.high) == (pytest.approx(10, abs=1), pytest.approx(105, abs=1))
    assert image[:, 0].mean() < 10
    assert image[:, -1].mean() > 245


def test_a_large_frame_is_binned_and_an_odd_edge_left_out():
    picture = Painter().paint(np.arange(2051 * 40, dtype=np.uint16).reshape(40, 2051))
    assert picture.binned == 3
    assert (picture.width, picture.height) == (683, 13)
    assert picture.width <= LARGEST_PX


def test_the_range_follows_slowly_and_nothing_breaks_it():
    painter = Painter()
    painter.paint(np.linspace(0, 100, 10_000).reshape(100, 100))
    flash = painter.paint(np.linspace(0, 1000, 10_000).reshape(100, 100))
    assert 300 < flash.high < 400
    dark = painter.paint(np.full((100, 100), np.nan, np.float32))
    assert dark.high == flash.high
    assert Painter().paint(np.zeros((10, 10), np.uint8)).high == 1.0
    assert Painter().paint(np.full((10, 10), np.inf, np.float32)).high == 1.0


# --- what viewers are told ---------------------------------------------------------------


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def view(clock):
    made = ViewState("a title", Control(), facts={"pixel_m": float("nan")}, now_s=clock)
    made.begin(LiveState(steps=3), 10**9)
    yield made
    made.close()


def readings(view, start, count):
    rows = np.zeros(count, SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = 10**9 + (start + np.arange(count)) * 10**6
    rows["voltage"] = 3.9
    view.readings(rows, None)


def told(view, viewer, clock):
    clock.now_s += 0.04
    view.tick()
    return list(view.due(viewer))


def rows_in(messages):
    blocks = [m for m in messages if isinstance(m, bytes) and m[0] != Kind.FRAME]
    return [(Kind(m[0]), struct.unpack_from("<I", m, 4)[0]) for m in blocks]


def test_all_who_keep_up_are_told_the_same_bytes(view, clock):
    readings(view, 0, 500)
    viewers = [view.enter(may_command=True) for _ in range(3)]
    first = [told(view, viewer, clock) for viewer in viewers]
    assert [rows_in(messages) for messages in first] == [[(Kind.ALL, 500)]] * 3
    for tick in range(5):
        readings(view, 500 + 20 * tick, 20)
        view.tick()
        blocks = [next(m for m in view.due(v) if isinstance(m, bytes)) for v in viewers]
        assert blocks[0] is blocks[1] is blocks[2]
        assert rows_in([blocks[0]]) == [(Kind.MORE, 20)]


def test_a_slow_viewer_is_told_what_it_missed_at_once_or_all_anew(view, clock):
    slow, quick = view.enter(may_command=True), view.enter(may_command=True)
    readings(view, 0, 100)
    assert rows_in(told(view, slow, clock)) == [(Kind.ALL, 100)]
    told(view, quick, clock)
    for tick in range(50):
        readings(view, 100 + 20 * tick, 20)
        assert rows_in(told(view, quick, clock)) == [(Kind.MORE, 20)]
    assert rows_in(told(view, slow, clock)) == [(Kind.MORE, 1000)]
    readings(view, 2000, 8_000)
    (kind, count), *none = rows_in(told(view, slow, clock))
    assert (kind, none) == (Kind.MORE, [])
    assert count <= MOST_MISSED
    told(view, quick, clock)
    for tick in range(100):
        readings(view, 12_000 + 1_000 * tick, 1_000)
        assert rows_in(told(view, quick, clock)) == [(Kind.MORE, 250)]  # no more than can be seen
    assert MOST_AT_ONCE >= 250
    ((kind, count),) = rows_in(told(view, slow, clock))
    assert kind is Kind.ALL
    assert count == len(view._traces.all())


def test_what_comes_while_a_viewer_is_told_is_told_once(view, clock):
    readings(view, 0, 100)
    view.tick()
    readings(view, 100, 10)
    viewer = view.enter(may_command=True)
    assert rows_in(view.due(viewer)) == [(Kind.ALL, 110)]
    assert rows_in(told(view, viewer, clock)) == []
    readings(view, 110, 5)
    assert rows_in(told(view, viewer, clock)) == [(Kind.MORE, 5)]


def test_events_are_told_once_each_and_only_so_many_are_kept(view, clock):
    viewer = view.enter(may_command=True)
    for number in range(MOST_EVENTS + 50):
        view.event(Event(10**9 + number, "note", "view", f"event {number}", "{}"))
    view.event(Event(10**9, "remote_track", "node", "front by node", "{}"))
    events = [json.loads(m) for m in told(view, viewer, clock) if '"event"' in str(m)]
    assert len(events) == MOST_EVENTS
    assert events[-1]["message"] == f"event {MOST_EVENTS + 49}"
    assert not [m for m in told(view, viewer, clock) if '"event"' in str(m)]
    clock.now_s += 1
    status = json.loads(told(view, viewer, clock)[0])
    assert status["remote"] == "front by node"
    assert status["clock_sigma_s"] is None  # what is unknown is no number


async def painted(view, clock, index, pixels=None):
    stamps = FrameHeader(
        t_start_ns=2 * 10**9, exposure_ns=10**7, t_sigma_ns=5e4, index=index, device_start_ns=0
    )
    clock.now_s += 1.0
    view.frame(stamps, np.zeros((20, 30), np.uint16) if pixels is None else pixels)
    while view._painting:
        await asyncio.sleep(0.001)


async def test_a_slow_viewer_sees_the_newest_frame_alone(view, clock):
    viewer = view.enter(may_command=False)
    for index in (4, 5, 6):
        await painted(view, clock, index)
    frames = [m for m in told(view, viewer, clock) if m[0] == Kind.FRAME]
    assert len(frames) == 1
    length = struct.unpack_from("<I", frames[0], 4)[0]
    about = json.loads(frames[0][8 : 8 + length])
    assert (about["index"], about["t_s"]) == (6, 1.0)
    assert about["dose_e_A2"] is None
    for index in (7, 8, 9):
        await painted(view, clock, index)
    told(view, viewer, clock)
    assert viewer.skipped_frames == 2
    assert view.counters["frames_skipped"] == 2


async def test_frames_that_come_too_soon_or_cannot_be_shown_are_left(view, clock):
    view.enter(may_command=True)
    await painted(view, clock, 1)
    clock.now_s += 0.04
    stamps = FrameHeader(t_start_ns=0, exposure_ns=1, t_sigma_ns=0.0, index=2, device_start_ns=0)
    view.frame(stamps, np.zeros((4, 4)))
    assert not view._painting
    await painted(view, clock, 3, np.zeros((4, 4, 4)))
    assert view.counters["frames"] == 1
    assert "a frame cannot be shown" in view._events[-1][1]
    view.close()
    view.frame(stamps, np.zeros((4, 4)))  # the view has ended, and the run has not


async def test_a_camera_that_is_as_quick_as_the_view_is_shown_in_full(view, clock):
    view.enter(may_command=True)
    for index in range(40):
        clock.now_s += (0.07, 0.13)[index % 2] - 1.0  # ten a second, unevenly
        await painted(view, clock, index)
    assert view.counters["frames"] >= 38


def test_an_audience_that_fails_is_shown_no_more_and_the_run_goes_on():
    class Broken:
        calls = 0

        def event(self, _event):
            self.calls += 1
            raise ZeroDivisionError("no")

        begin = readings = frame = event

    broken, said = Broken(), []
    audience = Shielded(broken, said.append)
    for _ in range(3):
        audience.event(Event(0, "note", "view", "hm", "{}"))
    assert broken.calls == 1
    assert said == ["warning: the view shows no more (ZeroDivisionError: no)"]
    audience.begin(LiveState(steps=0), 0)
    audience.readings(np.zeros(0), None)
    audience.frame(None, np.zeros((1, 1)))


def test_a_message_of_a_frame_is_its_text_and_its_picture():
    picture = Painter().paint(np.zeros((8, 8), np.uint8))
    message = frame_message(picture, {"index": 3})
    length = struct.unpack_from("<I", message, 4)[0]
    assert json.loads(message[8 : 8 + length])["index"] == 3
    assert message[8 + length :] == picture.jpeg
