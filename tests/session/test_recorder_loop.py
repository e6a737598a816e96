"""The recorder's loop, on a thread, told by hand."""

import multiprocessing
import sys
import threading

import numpy as np
import pytest

from session import Session, recorder_process
from session.messages import (
    Failed,
    Finish,
    Flush,
    Flushed,
    Frame,
    Released,
    Samples,
    Started,
)
from session.recorder_process import record
from session.ring import FrameRing
from session.validate import validate
from session.writer import SessionWriter


class Told:
    """A loop on a thread and our end of its pipe."""

    def __init__(self, path, header, ring=None):
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self.left = threading.Event()
        rings = {} if ring is None else {"camera": ring.spec}
        self.thread = threading.Thread(
            target=record,
            args=(theirs, path, header, rings),
            kwargs={"leave": self.left.set},
        )
        self.thread.start()

    def hear(self):
        return self.pipe.recv() if self.pipe.poll(5) else None

    def end(self):
        self.pipe.close()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def ring():
    made = FrameRing.create(slots=20, height=6, width=8, dtype="uint16")
    yield made
    made.close()
    made.unlink()


def test_the_end_of_the_pipe_closes_the_file_in_order(tmp_path, make, ring):
    told = Told(tmp_path / "s.h5", make.header(), ring)
    assert told.hear() == Started()
    told.pipe.send(Samples(make.samples(3)))
    for index in range(10):
        slot = ring.put(make.pixels(index))
        told.pipe.send(Frame("camera", slot, make.frame_header(index)))
    told.end()
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "runner lost"
        (event,) = session.events()
        assert event.data == {"samples": 3, "frames of camera": 10}
        assert event.t_ns == make.frame_header(9).t_start_ns
        for index, pixels in enumerate(session.frames("camera")):
            np.testing.assert_array_equal(pixels, make.pixels(index))
    assert validate(tmp_path / "s.h5") == []


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are no files there")
def test_half_a_message_is_the_end_too(tmp_path, make):
    told = Told(tmp_path / "s.h5", make.header())
    assert told.hear() == Started()
    # A length that promises more than follows, as after a kill in mid-send.
    with open(told.pipe.fileno(), "wb", buffering=0, closefd=False) as raw:
        raw.write(b"\x00\x00\x10\x00half")
    told.end()
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "runner lost"


def test_slots_are_released_while_frames_keep_coming(tmp_path, make, ring):
    told = Told(tmp_path / "s.h5", make.header(), ring)
    assert told.hear() == Started()
    for index in range(20):
        slot = ring.put(make.pixels(index))
        told.pipe.send(Frame("camera", slot, make.frame_header(index)))
    released = 0
    while released < 20:
        reply = told.hear()
        assert isinstance(reply, Released)
        assert reply.count < 8 + 8  # as many again may have been on their way
        released += reply.count
    told.end()


def test_an_idle_recorder_flushes(tmp_path, make, monkeypatch):
    flushed = threading.Semaphore(0)

    class Watched(SessionWriter):
        def flush(self):
            super().flush()
            flushed.release()

    monkeypatch.setattr(recorder_process, "SessionWriter", Watched)
    told = Told(tmp_path / "s.h5", make.header())
    assert told.hear() == Started()
    for _ in range(4):  # one as it is made, the others by the clock alone
        assert flushed.acquire(timeout=0.25 + 1.0)
    told.pipe.send(Finish("done", ""))
    told.end()


@pytest.mark.parametrize("message", ["nonsense", Samples(np.zeros(3))])
def test_a_message_that_is_wrong_spares_the_file(tmp_path, make, message):
    told = Told(tmp_path / "s.h5", make.header())
    assert told.hear() == Started()
    told.pipe.send(Samples(make.samples(2)))
    told.pipe.send(Flush())
    assert told.hear() == Flushed()
    told.pipe.send(message)
    assert isinstance(told.hear(), Failed)
    told.end()
    assert not told.left.is_set()
    with Session.open(tmp_path / "s.h5") as session:
        assert len(session.samples()) == 2
        assert session.exit_reason == "not finished"
