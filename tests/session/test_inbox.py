"""Readings and events pass frames that wait for the disk; what ends a stretch does not."""

import multiprocessing
import threading

import numpy as np
import pytest

from session import Session, inbox, recorder_process
from session.inbox import Inbox
from session.journal import journal_path, read_journal
from session.messages import Event, Finish, Finished, Flush, Frame, Samples, Started
from session.ring import FrameRing
from session.writer import SessionWriter


@pytest.fixture
def pipe():
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    yield ours, theirs
    ours.close()
    theirs.close()


def sent_all(box, count):
    with box._changed:
        assert box._changed.wait_for(lambda: box._count == count, 5)


def note(number):
    return Event(number, "note", "test", "", "{}")


def test_others_pass_frames_and_a_flush_waits_for_those_before_it(pipe, make):
    frames = [Frame("camera", slot, make.frame_header(slot)) for slot in range(3)]
    sent = [frames[0], note(1), frames[1], Flush(), note(2), frames[2], note(3)]
    for message in sent:
        pipe[0].send(message)
    box = Inbox(pipe[1])
    sent_all(box, len(sent))
    given = [box.get(0) for _ in sent]
    assert given == [note(1), *frames[:2], Flush(), note(2), note(3), frames[2]]
    assert box.get(0) is None
    assert box.counters == {"written": 7, "dropped": 0, "high_water": 4}
    box.close()


def test_what_came_before_the_end_is_given_and_then_the_end(pipe):
    pipe[0].send(note(1))
    pipe[0].close()
    box = Inbox(pipe[1])
    assert box.get(5) == note(1)
    for _ in range(2):
        with pytest.raises(EOFError):
            box.get(5)
    box.close()


def test_memory_is_bounded_and_nothing_is_lost(pipe, monkeypatch):
    monkeypatch.setattr(inbox, "MOST_WAITING", 3)
    box = Inbox(pipe[1])
    for number in range(10):
        pipe[0].send(note(number))
    sent_all(box, 3)
    assert [box.get(5) for _ in range(10)] == [note(number) for number in range(10)]
    assert box.counters["high_water"] == 3
    for number in range(10):
        pipe[0].send(note(number))
    box.close()  # though it is full


def test_an_error_of_what_was_sent_is_told(pipe):
    pipe[0].send_bytes(b"no pickle")
    box = Inbox(pipe[1])
    with pytest.raises(Exception, match=r"pickle|invalid load key"):
        box.get(5)
    box.close()


def test_while_the_disk_takes_no_frame_readings_are_taken_and_reach_the_journal_first(
    tmp_path, make, monkeypatch
):
    path, may_write = tmp_path / "s.h5", threading.Event()
    blocked = threading.Event()
    begin = SessionWriter.begin_frame

    def wait(writer, *frame):
        blocked.set()
        may_write.wait()
        begin(writer, *frame)

    monkeypatch.setattr(SessionWriter, "begin_frame", wait)
    ring = FrameRing.create(slots=20, height=6, width=8, dtype="uint16")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    arguments = (theirs, path, make.header(), {"camera": ring.spec})
    thread = threading.Thread(target=recorder_process.record, args=arguments)
    thread.start()
    assert ours.recv() == Started()
    for index in range(2):
        slot = ring.put(make.pixels(index))
        ours.send(Frame("camera", slot, make.frame_header(index)))
    assert blocked.wait(5)
    for number in range(3000):  # far more than a pipe holds
        ours.send(Samples(make.samples(1, number)))
    may_write.set()
    ours.send(Finish("done", "2025-03-01T10:00:01+00:00"))
    while not isinstance(ours.recv(), Finished):
        pass
    thread.join(5)
    ring.close()
    ring.unlink()
    with Session.open(path) as session:
        assert len(session.samples()) == 3000
        np.testing.assert_array_equal(session.frame_table("camera")["index"], [0, 1])
        assert session.attributes("queues/recorder.inbox")["high_water"] > 1000
    ours.close()


def test_a_flush_writes_the_journal_before_it_waits_for_frames(tmp_path, make, monkeypatch):
    from session.frame_file import FrameFile
    from session.journal import Journal
    from session.journal_words import begin

    path = tmp_path / "s.h5"
    journal = Journal(path)
    begin(journal, make.header())
    writer = SessionWriter(path, make.header(), journal=journal)
    writer.append_samples(make.samples(4))
    found = []

    def look(_):
        found.append(sum(entry.kind == "samples" for entry in read_journal(journal.path).entries))

    monkeypatch.setattr(FrameFile, "settle", look)
    writer.flush()
    assert found == [1]
    monkeypatch.undo()
    writer.close()
    journal.close()
    assert journal_path(path).exists()
