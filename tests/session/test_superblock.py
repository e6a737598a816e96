"""A kill between the steps of a flush leaves a file that opens."""

import struct

import h5py
import pytest

from session import Session
from session.columns import GrowingTable
from session.superblock import AnnouncedEnd
from session.validate import Severity, validate
from session.writer import SessionWriter


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_the_file_opens_as_it_is_within_a_flush(tmp_path, make, monkeypatch, step):
    path, copy = tmp_path / "s.h5", tmp_path / "copy.h5"
    commit = GrowingTable.commit
    steps = []

    def commit_and_copy(table):
        commit(table)
        steps.append(table)
        if len(steps) == step:
            # What the disk holds now is what a kill would leave.
            copy.write_bytes(path.read_bytes())

    with SessionWriter(path, make.header(), monotonic_ns=lambda: 0) as writer:
        for index in range(200):
            writer.append_frame("camera", make.frame_header(index), make.pixels(index))
        writer.append_samples(make.samples(5_000))
        monkeypatch.setattr(GrowingTable, "commit", commit_and_copy)
        writer.flush()
    assert {problem.severity for problem in validate(copy)} == {Severity.WARNING}
    with Session.open(copy) as session:
        assert len(session.frames("camera")) == 0


def test_the_gap_is_cut_when_the_file_is_closed(write_session):
    path = write_session()
    with path.open("rb") as stream:
        stream.seek(40)
        (end,) = struct.unpack("<Q", stream.read(8))
    assert path.stat().st_size == end


def test_a_file_with_another_first_block_is_left_alone(tmp_path):
    path = tmp_path / "other.h5"
    path.write_bytes(b"something else" * 10)
    end = AnnouncedEnd(path)
    end.move_ahead(1_000)
    end.close()
    assert path.read_bytes() == b"something else" * 10


def test_as_a_session_is_sealed_no_object_gets_parts_at_the_end_of_the_file(tmp_path, make):
    """HDF5 writes them after what refers to them: killed in between, the file would not open."""

    def parts(file):
        found = {"": h5py.h5o.get_info(file["entry"].id).hdr.nchunks}
        file["entry"].visititems(
            lambda name, each: found.update({name: h5py.h5o.get_info(each.id).hdr.nchunks})
        )
        return found

    path = tmp_path / "s.h5"
    with SessionWriter(path, make.header()) as writer:
        writer.append_samples(make.samples(3))
        writer.append_frame("camera", make.frame_header(0), make.pixels(0))
        writer.flush()
        copy = tmp_path / "copy.h5"
        copy.write_bytes(path.read_bytes())  # HDF5 opens no file twice in one process
        with h5py.File(copy) as file:
            before = parts(file)
        writer.finish("done", "")
    with h5py.File(path) as file:
        assert parts(file) == before
