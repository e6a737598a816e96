"""A session is read while another process records it: whole rows up to the last flush."""

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from session import Session, structure
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.recorder import Recorder
from session.structure import is_recorded_now
from session.writer import SessionWriter

LOCKS = pytest.mark.skipif(sys.platform == "win32", reason="HDF5's lock is not used there")


def looked_at(session, make):
    """Read what is there, compare it with what was told, and return how much it is."""
    samples, frames = session.samples(), session.frames("camera")
    stamps = session.frame_table("camera")["t_start_ns"]
    expected = make.samples(len(samples))
    assert samples.index.tolist() == expected["t_ns"].tolist()
    for name in ("voltage", "current", "read_end_ns"):
        assert np.array_equal(samples[name], expected[name])
    for index in range(len(frames)):
        assert np.array_equal(frames[index], make.pixels(index))
    count = min(len(stamps), len(frames))
    assert [make.frame_header(i).t_start_ns for i in range(count)] == stamps[:count].tolist()
    return len(samples), len(frames)


async def test_a_notebook_reads_beside_the_recorder(tmp_path, make):
    path = tmp_path / "s.h5"
    seen = []
    async with Recorder(path, make.header()) as recorder:
        assert recorder.pid not in (None, os.getpid())
        told = 0

        async def tell():
            nonlocal told
            # More than the chunks of one index node, so that nodes are split meanwhile.
            while told < 300:
                await recorder.samples(make.samples(40, first=40 * told))
                await recorder.frame("camera", make.frame_header(told), make.pixels(told))
                told += 1

        def look():
            with Session.open(path) as session:
                while told < 300:
                    assert not session.is_finished
                    seen.append(looked_at(session, make))
                    session.refresh()

        async with asyncio.TaskGroup() as group:
            group.create_task(tell())
            group.create_task(asyncio.to_thread(look))
        await recorder.flush()
        with Session.open(path) as session:
            assert looked_at(session, make) == (12_000, 300)
            old = session.frames("camera")
            with Session.open(path) as other:  # a second one in this process
                assert len(other.samples()) == 12_000
            session.refresh()
            with pytest.raises(SessionRefused, match="closed or refreshed"):
                old[0]
    assert seen == sorted(seen)
    with Session.open(path) as session:
        assert session.is_finished
        assert looked_at(session, make) == (12_000, 300)


@LOCKS
async def test_what_is_recorded_is_not_changed_by_others(tmp_path, make):
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header()) as recorder:
        await recorder.flush()
        assert is_recorded_now(path)
        with pytest.raises(SessionRefused, match="no other program is writing"):
            SessionEditor.open(path)
    assert not is_recorded_now(path)


@LOCKS
@pytest.mark.parametrize("opened", [Session.open, SessionEditor.open])
def test_who_has_a_lock_for_a_moment_is_waited_for(tmp_path, make, monkeypatch, opened):
    import fcntl  # not on Windows

    path = tmp_path / "s.h5"
    with SessionWriter(path, make.header()) as writer:
        writer.finish("completed", "")
    with path.open("rb") as held:  # as a process that was just forked does
        fcntl.flock(held, fcntl.LOCK_EX)
        pauses = []

        def pause(time_s):
            pauses.append(time_s)
            if len(pauses) == 3:
                fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr(structure, "time", SimpleNamespace(sleep=pause))
        with opened(path):
            assert len(pauses) == 3


@LOCKS
def test_what_another_program_changes_is_not_read(write_session):
    path = write_session()
    # In another process: one process may open a file twice.
    changing = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", changing, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(SessionRefused, match="another program changes it"):
            Session.open(path)
        other.communicate(b"\n")
    with Session.open(path) as session, h5py.File(path, "r") as plain:
        assert len(session.samples()) == len(plain["entry/samples/t_ns"]) == 30
