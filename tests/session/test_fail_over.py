"""Of the session file and its journal, either goes on where the other fails."""

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from session import Session, recorder_process
from session.journal import journal_path, read_journal
from session.messages import (
    Degraded,
    Failed,
    Finish,
    Finished,
    Flush,
    Flushed,
    Samples,
    Started,
)
from session.recorder import Recorder
from session.recorder_process import record
from session.recover import recover
from session.validate import validate
from session.writer import SessionWriter

HERE = Path(__file__).parent
ROUNDS, ROWS = 3, 4
FOR_GOOD = 10**9


def run_on_a_bad_disk(path, bad_round, bad_write, bad_count):
    """Return what the recorder said, line by line."""
    done = subprocess.run(
        [sys.executable, HERE / "bad_disk.py", path, *map(str, (bad_round, bad_write, bad_count))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("bad_write", "bad_count", "frames"), [(1, FOR_GOOD, 1), (30, 1, 2)])
def test_readings_go_to_the_journal_where_the_file_fails(tmp_path, bad_write, bad_count, frames):
    path = tmp_path / "s.h5"
    said = run_on_a_bad_disk(path, 1, bad_write, bad_count)
    (degraded,) = [line for line in said if line.startswith("Degraded writing")]
    assert "frames are not stored from now on" in degraded
    assert sum(line.startswith("Flushed") for line in said) == ROUNDS
    assert said[-1].startswith("Failed the run ended")
    assert f"lamella recover {path}" in said[-1]
    recovered = recover(path)
    assert recovered.missing == ()
    assert validate(recovered.path) == []
    with Session.open(recovered.path) as session:
        np.testing.assert_array_equal(session.sample_columns()["step"], range(ROUNDS * ROWS))
        assert [int(frame[0, 0]) for frame in session.frames("camera")] == list(range(frames))
        assert session.exit_reason == "charge limit"
        messages = [event.message for event in session.events()]
    assert any("failed" in message and "frames are not stored" in message for message in messages)
    assert f"{ROUNDS - frames} frames were not stored until the end" in messages


def test_a_disk_that_fails_at_the_begin_refuses_and_leaves_nothing(tmp_path):
    (said,) = run_on_a_bad_disk(tmp_path / "s.h5", -1, 60, FOR_GOOD)
    assert said.startswith("Failed")
    assert list(tmp_path.iterdir()) == []


class Told:
    """A recorder on a thread, without a camera, and our end of its pipe."""

    def __init__(self, path, make):
        self.make = make
        self.pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self.left = threading.Event()
        self.troubles = []
        self.thread = threading.Thread(
            target=record, args=(theirs, path, make.header(), {}), kwargs={"leave": self.left.set}
        )
        self.thread.start()
        self.hear(Started)

    def hear(self, *wanted):
        while self.pipe.poll(20):
            reply = self.pipe.recv()
            if isinstance(reply, Degraded):
                self.troubles.append(reply.text)
            if isinstance(reply, wanted):
                return reply
        raise AssertionError("the recorder is silent")

    def tell(self, number):
        self.pipe.send(Samples(self.make.samples(ROWS, ROWS * number)))
        self.pipe.send(Flush())
        return self.hear(Flushed, Failed)

    def finish(self):
        self.pipe.send(Finish("charge limit", "2025-03-01T10:00:01+00:00"))
        reply = self.hear(Finished, Failed)
        self.thread.join(5)
        assert not self.thread.is_alive()
        return reply


@pytest.fixture
def fail_journal(tmp_path, monkeypatch):
    """Return a function after which the journal of ``s.h5`` takes nothing."""
    write, bad = os.write, []

    def write_or_fail(descriptor, data):
        if bad and os.path.samestat(os.fstat(descriptor), bad[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(descriptor, data)

    monkeypatch.setattr("session.journal.os.write", write_or_fail)
    return lambda: bad.append(journal_path(tmp_path / "s.h5").stat())


def assert_all_is_there(path, make):
    assert validate(path) == []
    with Session.open(path) as session:
        voltage = session.sample_columns()["voltage"]
        np.testing.assert_array_equal(voltage, make.samples(ROUNDS * ROWS)["voltage"])
        assert any("failed" in event.message for event in session.events())


def test_all_goes_to_the_file_where_the_journal_fails(tmp_path, make, fail_journal):
    path = tmp_path / "s.h5"
    told = Told(path, make)
    assert told.tell(0) == Flushed()
    fail_journal()
    assert told.tell(1) == told.tell(2) == Flushed()
    assert told.finish() == Finished()
    (trouble,) = told.troubles
    assert "s.h5.journal failed" in trouble
    assert not journal_path(path).exists()
    assert_all_is_there(path, make)


def test_rows_that_only_the_file_has_are_recovered(tmp_path, make, fail_journal, monkeypatch):
    path = tmp_path / "s.h5"
    told = Told(path, make)
    assert told.tell(0) == Flushed()
    fail_journal()
    assert told.tell(1) == told.tell(2) == Flushed()
    image, journal = path.read_bytes(), journal_path(path).read_bytes()
    told.finish()
    path.write_bytes(image)  # as they lay on the disk before the end
    journal_path(path).write_bytes(journal)
    assert [entry.kind for entry in read_journal(journal_path(path)).entries][1:] == ["samples"]
    recovered = recover(path)
    assert f"{2 * ROWS} rows of samples taken from the file alone" in recovered.done
    assert recovered.missing == ()
    assert_all_is_there(recovered.path, make)


def test_where_both_fail_it_is_told_and_left_at_once(tmp_path, make, fail_journal, monkeypatch):
    path = tmp_path / "s.h5"
    told = Told(path, make)
    assert told.tell(0) == Flushed()
    fail_journal()
    monkeypatch.setattr(SessionWriter, "append_event", lambda *_: 1 / 0)
    monkeypatch.setattr(SessionWriter, "append_samples", fail_like_hdf5)
    reply = told.tell(1)
    assert isinstance(reply, Failed)
    assert "Input/output error" in reply.text
    told.thread.join(5)
    assert told.left.is_set()


async def test_whoever_runs_is_told_at_once(tmp_path, make, fail_journal):
    told = []
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header(), in_process=True, on_trouble=told.append) as recorder:
        fail_journal()
        await recorder.samples(make.samples(ROWS))
        await recorder.flush()
        assert "s.h5.journal failed" in told[0]
    assert len(told) == 1
    assert validate(path) == []


def fail_like_hdf5(*_):
    raise RuntimeError("file write failed")


@pytest.mark.parametrize("which", ["journal", "file"])
def test_a_sync_that_fails_counts_as_a_file_that_fails(tmp_path, make, monkeypatch, which):
    class BadSyncer(recorder_process.Syncer):
        def check(self):
            if (self.path.suffix == ".journal") == (which == "journal"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(recorder_process, "Syncer", BadSyncer)
    told = Told(tmp_path / "s.h5", make)
    for number in range(ROUNDS):
        assert told.tell(number) == Flushed()
    assert isinstance(told.finish(), Finished if which == "journal" else Failed)
    (trouble,) = told.troubles
    assert ("s.h5.journal failed" in trouble) == (which == "journal")
    assert_all_is_there(recover(tmp_path / "s.h5").path, make)


def test_room_for_the_journal_is_taken_before_it_is_needed(tmp_path, make):
    path = tmp_path / "s.h5"
    told = Told(path, make)
    told.tell(0)
    assert journal_path(path).stat().st_size > 2**20
    assert read_journal(journal_path(path)).torn_bytes == 0
    told.finish()


def test_a_finished_session_with_a_journal_is_told_from_one_that_lacks_something(tmp_path, make):
    path = tmp_path / "s.h5"
    told = Told(path, make)
    told.tell(0)
    journal = journal_path(path).read_bytes()
    told.finish()
    journal_path(path).write_bytes(journal)
    (problem,) = validate(path)
    assert "left beside a finished session" in problem.message
    found = recover(path)
    assert found.path == path
    assert "it can be deleted" in found.notes[0]
    with h5py.File(path, "r+") as file:
        for column in file["entry/samples"].values():
            column.resize(ROWS - 1, axis=0)
    assert "1 rows of samples taken from the journal" in recover(path).done


def test_a_file_that_cannot_be_closed_is_told_and_made_whole(tmp_path, make, monkeypatch):
    """All of it had been told to the journal before."""
    close = h5py.File.close

    def fail_once(file):
        monkeypatch.setattr(h5py.File, "close", close)
        raise RuntimeError("Can't decrement id ref count")

    told = Told(tmp_path / "s.h5", make)
    for number in range(ROUNDS):
        assert told.tell(number) == Flushed()
    monkeypatch.setattr(h5py.File, "close", fail_once)
    ended = told.finish()
    assert isinstance(ended, Failed)
    assert "the run ended, but writing" in ended.text
    (trouble,) = told.troubles
    assert "ref count" in trouble
    assert_all_is_there(recover(tmp_path / "s.h5").path, make)
