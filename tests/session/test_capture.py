"""All frames around an event, few otherwise; each one accounted for."""

import dataclasses
import itertools
import multiprocessing
import threading

import numpy as np
import pytest

from session import Session
from session.buffers import CameraRing
from session.capture import PreTrigger, frames_held
from session.errors import SessionRefused
from session.layout import check_header
from session.messages import Event, Finish, Finished, Frame, Released, Started
from session.recorder_process import record
from session.records import Capture
from session.ring import FrameRing, choose_slots
from session.validate import validate

MS = 1_000_000
CAPTURE = Capture(before_s=0.2, after_s=0.1, idle_rate_Hz=2.0, kinds=("step_started", "limit"))


def frame(make, index, *, period_ms=10, dropped_before=0):
    header = make.frame_header(
        index, t_start_ns=index * period_ms * MS, dropped_before=dropped_before
    )
    return Frame("camera", index, header)


def play(make, events, *, count=300, most_held=1000, dropped=()):
    """Return what is stored of frames every 10 ms, with events that are heard of when they are."""
    holder, stored, left = PreTrigger(CAPTURE, most_held), [], []

    def note(leaving):
        left.append(leaving.frame.header.index)
        if leaving.header is not None:
            stored.append(leaving.header)

    for index in range(count):
        if index in dropped:
            continue
        before = 1 if index - 1 in dropped else 0
        holder.take(frame(make, index, dropped_before=before))
        for leaving in holder.leaving():
            note(leaving)
        for heard, kind, t_ms in events:
            if heard == index:
                holder.heed(kind, t_ms * MS)
                for leaving in holder.leaving():
                    note(leaving)
    for leaving in holder.leaving(all_of_them=True):
        note(leaving)
    assert left == [index for index in range(count) if index not in dropped]  # in their order
    return stored, holder


def assert_accounted_for(stored):
    """Each step of the camera's counter is a frame that was lost or left out."""
    for before, after in itertools.pairwise(stored):
        assert after.index - before.index - 1 == after.dropped_before + after.left_out


def test_without_an_event_frames_are_stored_at_the_low_rate(make):
    stored, holder = play(make, [])
    assert [header.index for header in stored] == [0, 50, 100, 150, 200, 250]
    assert_accounted_for(stored)
    assert holder.counters == {
        "events": 0, "late": 0, "around": 0, "idle": 6, "left_out": 294, "early": 0,
    }  # fmt: skip


@pytest.mark.parametrize("late", [0, 3, 25, 40])
def test_all_frames_around_an_event_are_stored_though_it_is_heard_of_late(make, late):
    stored, holder = play(make, [(120 + late, "limit", 1200)])
    first = 100 if late <= 25 else 115
    found = [h.index for h in stored if 75 < h.index < 150 and h.index != 100]
    assert found == list(range(max(first, 101), 131))
    assert 100 in {h.index for h in stored}  # of the low rate, too
    assert holder.counters["late"] == (late > 25)
    assert_accounted_for(stored)


def test_events_that_overlap_are_one_stretch_and_other_events_none(make):
    stored, holder = play(
        make, [(60, "note", 600), (120, "limit", 1200), (125, "step_started", 1250)]
    )
    assert [h.index for h in stored if 100 <= h.index < 150] == list(range(100, 136))
    assert not [h for h in stored if 50 < h.index < 100]
    assert holder.counters["events"] == 2


def test_what_the_camera_lost_is_kept_apart_from_what_is_left_out(make):
    stored, _ = play(make, [(120, "limit", 1200)], dropped=(20, 33, 105))
    assert_accounted_for(stored)
    assert sum(header.dropped_before for header in stored) == 3
    assert next(h for h in stored if h.index == 106).dropped_before == 1
    assert next(h for h in stored if h.index == 50).left_out == 47


def test_a_camera_that_is_too_quick_never_holds_more_slots_and_it_is_counted(make):
    holder, most = PreTrigger(CAPTURE, 12), 0
    for index in range(100):
        holder.take(frame(make, index))
        list(holder.leaving())
        most = max(most, len(holder._held))
    assert most == 12
    assert holder.counters["early"] == 88
    assert holder.counters["left_out"] + holder.counters["idle"] == 88


def test_no_low_rate_is_none(make):
    holder = PreTrigger(dataclasses.replace(CAPTURE, idle_rate_Hz=0.0), 5)
    for index in range(30):
        holder.take(frame(make, index))
        assert all(leaving.header is None for leaving in holder.leaving())


def test_a_session_has_the_frames_and_says_what_is_left_out(tmp_path, make):
    path = tmp_path / "s.h5"
    camera = dataclasses.replace(make.header().cameras[0], frame_rate_Hz=100.0, capture=CAPTURE)
    header = make.header(cameras=(camera,))
    ring = FrameRing.create(slots=60, height=6, width=8, dtype="uint16")
    pipe, theirs = multiprocessing.get_context("spawn").Pipe()
    arguments = (theirs, path, header, {"camera": ring.spec})
    thread = threading.Thread(target=record, args=arguments)
    thread.start()
    assert pipe.recv() == Started()
    for index in range(150):
        while ring.is_full:
            released = pipe.recv()
            assert isinstance(released, Released)
            ring.release(released.count)
        slot = ring.put(make.pixels(index))
        pipe.send(dataclasses.replace(frame(make, index), slot=slot))
        if index == 90:
            pipe.send(Event(880 * MS, "limit", "guardian", "too much", "{}"))
    pipe.send(Finish("done", "2025-03-01T10:00:01+00:00"))
    while not isinstance(reply := pipe.recv(), Finished):
        ring.release(reply.count)
    thread.join(5)
    ring.close()
    ring.unlink()
    assert validate(path) == []
    with Session.open(path) as session:
        table = session.frame_table("camera")
        wanted = [0, 50, *range(68, 99), 100]
        np.testing.assert_array_equal(table["index"], wanted)
        assert list(table["left_out"]) == [0, 49, 17, *[0] * 30, 1]
        assert not table["dropped_before"].any()
        for pixels, index in zip(session.frames("camera"), wanted, strict=True):
            np.testing.assert_array_equal(pixels, make.pixels(index))
        counters = session.attributes("queues/capture.camera")
        assert (counters["events"], counters["around"], counters["left_out"]) == (1, 31, 116)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"height": 1024, "width": 1024, "frame_rate_Hz": 4000.0},
            "fewer seconds, a lower frame rate",
        ),
        ({"frame_rate_Hz": float("nan")}, "nan Hz is none"),
        ({"capture": dataclasses.replace(CAPTURE, after_s=-1.0)}, "names no times"),
    ],
)
def test_what_memory_cannot_hold_is_refused_before_anything_is_opened(make, changes, why):
    camera = dataclasses.replace(make.header().cameras[0], capture=CAPTURE)
    with pytest.raises(SessionRefused, match=why):
        check_header(make.header(cameras=(dataclasses.replace(camera, **changes),)))


def test_the_ring_has_room_for_frames_that_are_held_and_stays_bounded(monkeypatch):
    monkeypatch.setattr("session.ring._free_shared_memory", lambda: 2**33)
    held = frames_held(CAPTURE, 400.0)
    assert choose_slots(2**20, frame_rate_Hz=400.0, held=held) == held + 200
    assert choose_slots(2**20, frame_rate_Hz=400.0, held=700) == 768
    with pytest.raises(MemoryError, match="765 frames of 1048576 bytes are to be held"):
        choose_slots(2**20, frame_rate_Hz=400.0, held=765)


async def test_frames_that_are_held_do_not_count_as_waiting_for_the_disk(make, monkeypatch):
    monkeypatch.setattr("session.ring._free_shared_memory", lambda: 2**33)
    camera = dataclasses.replace(make.header().cameras[0], frame_rate_Hz=10.0, capture=CAPTURE)
    ring = CameraRing(camera, None)
    held = frames_held(CAPTURE, 10.0)
    for index in range(held):
        await ring.put(make.pixels(index))
    assert ring.fill == 0.0
    for index in range(16):
        await ring.put(make.pixels(index))
    assert ring.fill == 16 / 64
    ring.drop()
