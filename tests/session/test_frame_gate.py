"""When the disk is nearly full, frames are left out and counted, readings are not."""

import multiprocessing
import threading

import numpy as np
import pytest

from session import Session, recorder_process
from session.frame_gate import FrameGate
from session.journal import journal_path
from session.messages import Degraded, Finish, Finished, Frame, Released, Samples, Started
from session.ring import FrameRing
from session.space import KEPT_BYTES, Space
from session.validate import validate

FRAME = 96


class Disk:
    """A disk whose free space the test sets."""

    def __init__(self, total):
        self.total = self.free = total
        self.now_ns = 0

    def space(self, folder="x", frame_bytes=FRAME):
        return Space(
            folder,
            frame_bytes,
            monotonic_ns=lambda: self.now_ns,
            free=lambda _: self.free,
            total=lambda _: self.total,
        )


@pytest.mark.parametrize("total", [10**12, 10**6])
def test_room_is_kept_and_given_back_at_twice_of_it(total):
    disk = Disk(total)
    space = disk.space()
    kept = min(KEPT_BYTES, total // 10)
    assert space.floor_bytes == kept + 16 * FRAME
    assert not space.is_short
    disk.free = space.floor_bytes - 1
    assert not space.is_short  # not looked at yet
    disk.now_ns += 200_000_000
    assert space.is_short
    disk.free = 2 * space.floor_bytes - 1
    disk.now_ns += 200_000_000
    assert space.is_short
    disk.free += 1
    disk.now_ns += 200_000_000
    assert not space.is_short


class Filmed:
    """A recorder on a thread that is sent frames, and a reading with the first of them."""

    def __init__(self, path, make):
        self.make = make
        self.told = []
        self.ring = FrameRing.create(slots=30, height=6, width=8, dtype="uint16")
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        rings = {"camera": self.ring.spec}
        self.thread = threading.Thread(
            target=recorder_process.record, args=(theirs, path, make.header(), rings)
        )
        self.thread.start()
        assert self.pipe.recv() == Started()

    def film(self, indices):
        for index in indices:
            slot = self.ring.put(self.make.pixels(index))
            self.pipe.send(Frame("camera", slot, self.make.frame_header(index)))
        self.pipe.send(Samples(self.make.samples(4, indices[0])))
        released = 0
        while released < len(indices):  # also those that are left out give their slots back
            reply = self.pipe.recv()
            assert isinstance(reply, Released | Degraded)
            if isinstance(reply, Degraded):
                self.told.append(reply.text)
            else:
                released += reply.count

    def finish(self):
        self.pipe.send(Finish("done", "2025-03-01T10:00:01+00:00"))
        while isinstance(reply := self.pipe.recv(), Degraded):
            self.told.append(reply.text)
        assert reply == Finished()
        self.thread.join(5)
        self.ring.close()
        self.ring.unlink()


@pytest.mark.parametrize("comes_back", [True, False])
def test_frames_are_left_out_and_counted_and_readings_stay(tmp_path, make, monkeypatch, comes_back):
    disk, path = Disk(10**12), tmp_path / "s.h5"
    monkeypatch.setattr(recorder_process, "Space", disk.space)
    filmed = Filmed(path, make)
    filmed.film(range(5))
    disk.free, disk.now_ns = 1000, 10**9
    filmed.film(range(5, 8))
    if comes_back:
        disk.free, disk.now_ns = 10**12, 2 * 10**9
        filmed.film(range(8, 12))
    assert journal_path(path).exists()
    filmed.finish()
    assert not journal_path(path).exists()
    assert validate(path) == []
    stored = [*range(5), *range(8, 12)] if comes_back else list(range(5))
    with Session.open(path) as session:
        assert len(session.samples()) == (12 if comes_back else 8)
        table = session.frame_table("camera")
        np.testing.assert_array_equal(table["index"], stored)
        if comes_back:
            assert list(table["dropped_before"]) == [0] * 5 + [3] + [0] * 3
        for pixels, index in zip(session.frames("camera"), stored, strict=True):
            np.testing.assert_array_equal(pixels, make.pixels(index))
        full, end = session.events()
    assert "nearly full" in full.message
    assert filmed.told == [full.message, end.message]  # while the run goes on, too
    assert full.data["free_bytes"] == 1000
    assert "3 frames were not stored" in end.message
    assert end.data["frames"] == {"camera": 3}


def test_a_disk_with_room_says_nothing(make):
    gate = FrameGate(Disk(10**12).space())
    header = make.frame_header(3, dropped_before=2)
    assert gate.admit(None, "camera", header) == header
    gate.end(None)
