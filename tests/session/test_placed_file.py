"""A disk that fails under what HDF5 writes: told at once, and nothing is written after that."""

import errno
import os

import h5py
import numpy as np
import pytest

from session import placed_file
from session.errors import SessionExists, SessionRefused
from session.journal import Journal, journal_path
from session.journal_words import begin
from session.placed_file import PlacedFile
from session.positioned import PositionedFile
from session.recover import recover
from session.writer import SessionWriter


class FailingFile(PositionedFile):
    """Its n-th write fails, once."""

    writes, bad = 0, -1

    def write(self, content, place):
        FailingFile.writes += 1
        if FailingFile.writes == FailingFile.bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().write(content, place)


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(placed_file, "PositionedFile", FailingFile)
    monkeypatch.setattr(FailingFile, "writes", 0)
    monkeypatch.setattr(FailingFile, "bad", -1)
    return FailingFile


def record(path, make):
    journal = Journal(path)
    header = make.header()
    begin(journal, header)
    writer = SessionWriter(path, header, journal=journal, monotonic_ns=lambda: 0)
    for number in range(3):
        writer.append_samples(make.samples(4, 4 * number))
        writer.append_frame("camera", make.frame_header(number), make.pixels(number))
        writer.append_event(1_000, "note", "test", f"event {number}")
        writer.flush()
    return writer, journal


def test_a_session_that_cannot_be_made_is_told_at_whichever_write(tmp_path, make, disk):
    SessionWriter(tmp_path / "good.h5", make.header()).close()
    count = disk.writes
    assert count > 100
    for bad in range(2, count - 60, 23):  # the first is a trial
        disk.writes, disk.bad = 0, bad
        with pytest.raises(OSError, match="Input/output error"):
            SessionWriter(tmp_path / f"{bad}.h5", make.header())


def test_after_a_write_that_failed_the_file_stays_as_it_was(tmp_path, make, disk):
    path = tmp_path / "s.h5"
    writer, journal = record(path, make)
    for number in range(3, 5):
        writer.append_samples(make.samples(4, 4 * number))
    disk.bad = disk.writes + 5
    with pytest.raises(OSError, match="Input/output error"):
        writer.flush()
    assert disk.writes == disk.bad
    left = path.read_bytes()
    for again in (writer.flush, writer.close, lambda: writer.finish("done", "")):
        with pytest.raises(OSError, match="Input/output error"):
            again()
    writer.abandon()
    writer._file.close()
    writer._placed.close()
    journal.close()
    assert path.read_bytes() == left
    assert journal_path(path).exists()
    found = recover(path)
    assert found.missing == ()
    with h5py.File(found.path, "r") as file:
        assert len(file["entry/samples/t_ns"]) == 20
        np.testing.assert_array_equal(file["entry/frames/camera/data"][2], make.pixels(2))


def test_a_file_that_fails_as_it_is_closed_is_told(tmp_path, make, disk):
    writer, journal = record(tmp_path / "s.h5", make)
    before = disk.writes
    writer.flush()
    in_a_flush = disk.writes - before
    disk.bad = disk.writes + in_a_flush + 1
    with pytest.raises(OSError, match="Input/output error"):
        writer.close()
    assert not writer._file  # HDF5 has closed it, and knows of nothing
    writer.abandon()
    journal.remove()


def test_what_is_there_is_not_touched_and_a_bad_folder_refused(tmp_path):
    path = tmp_path / "s.h5"
    path.write_bytes(b"of another")
    with pytest.raises(SessionExists, match="not overwritten"):
        PlacedFile(path)
    assert path.read_bytes() == b"of another"
    with pytest.raises(SessionRefused, match="an existing folder"):
        PlacedFile(tmp_path / "none" / "s.h5")


def test_beyond_its_end_a_file_reads_as_zeros(tmp_path):
    placed = PlacedFile(tmp_path / "s")
    placed.write(memoryview(b"abc"))
    placed.seek(1)
    found = bytearray(b"xxxxx")
    assert placed.readinto(memoryview(found)) == 2
    assert found == b"bc\0\0\0"
    placed.close()


@pytest.mark.skipif(os.name == "nt", reason="nothing is locked there")
def test_a_closed_session_opens_although_a_forked_process_has_a_copy_of_its_file(tmp_path, make):
    path = tmp_path / "s.h5"
    writer = SessionWriter(path, make.header())
    copy = os.dup(writer._placed._cached.descriptor)  # as between a fork and its exec
    try:
        writer.finish("done", "")
        with h5py.File(path, "r") as file:
            assert file["entry/exit_reason"][()] == b"done"
    finally:
        os.close(copy)
