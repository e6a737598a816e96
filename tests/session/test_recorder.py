"""The recorder as asyncio code sees it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from session import Session
from session.errors import (
    RecorderLost,
    SessionError,
    SessionExists,
    SessionRefused,
)
from session.recorder import Recorder
from session.records import TEMPERATURE_DTYPE
from session.validate import validate

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
BOTH = pytest.mark.parametrize("in_process", [True, False], ids=["thread", "process"])


@BOTH
async def test_all_that_is_told_is_in_the_file(tmp_path, make, in_process):
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header(), in_process=in_process) as recorder:
        assert (recorder.pid is None) == in_process
        await recorder.samples(make.samples(4))
        for index in range(5):
            await recorder.frame("camera", make.frame_header(index), make.pixels(index))
        await recorder.event(2_000, "note", "operator", "µ", {"x": float("nan")})
        await recorder.exchanges("camera", make.exchanges(2))
        await recorder.exchanges("node", make.exchanges(1))
        await recorder.temperatures(np.zeros(2, TEMPERATURE_DTYPE))
        await recorder.queue_counters("view", {"written": 2, "dropped": 1})
        await recorder.attributes("instrument/potentiostat", {"serial": "42"})
        await recorder.finish("limit", "2025-01-01T01:00:00+00:00")
        assert recorder.ring_counters("camera").written == 5
    with Session.open(path) as session:
        assert len(session.samples()) == 4
        np.testing.assert_array_equal(session.frames("camera")[4], make.pixels(4))
        assert session.events()[0].data == {"x": None}
        assert len(session.clock_exchanges("node")) == 1
        assert len(session.table("temperature")) == 2
        assert session.attributes("queues/view")["dropped"] == 1
        ring = session.attributes("queues/recorder.camera")
        assert (ring["written"], ring["dropped"], ring["slots"]) == (5, 0, 64)
        assert session.attributes("instrument/potentiostat")["serial"] == "42"
        assert session.exit_reason == "limit"
        assert session.end_time == "2025-01-01T01:00:00+00:00"
    assert validate(path) == []


async def test_leaving_the_block_finishes(tmp_path, make):
    async with Recorder(tmp_path / "s.h5", make.header(), in_process=True) as recorder:
        await recorder.samples(make.samples(1))
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "done"
        assert session.end_time.startswith("20")


async def test_an_error_in_the_block_is_the_reason(tmp_path, make):
    with pytest.raises(ZeroDivisionError):
        async with Recorder(tmp_path / "s.h5", make.header(), in_process=True):
            raise ZeroDivisionError("by zero")
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "error: ZeroDivisionError: by zero"


async def test_a_cancelled_run_still_closes_its_file(tmp_path, make):
    entered = asyncio.Event()

    async def run():
        async with Recorder(tmp_path / "s.h5", make.header(), in_process=True):
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await entered.wait()
        task.cancel()
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason.startswith("error: CancelledError")


async def test_finish_that_is_cancelled_finishes_all_the_same(tmp_path, make):
    recorder = Recorder(tmp_path / "s.h5", make.header(), in_process=True)
    async with recorder, asyncio.TaskGroup() as group:
        task = group.create_task(recorder.finish("stop"))
        await asyncio.sleep(0)
        task.cancel()
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "stop"


@BOTH
async def test_an_existing_file_stays(tmp_path, make, in_process):
    path = tmp_path / "s.h5"
    path.write_bytes(b"precious")
    with pytest.raises(SessionExists, match="exists already"):
        async with Recorder(path, make.header(), in_process=in_process):
            pass
    assert path.read_bytes() == b"precious"


async def test_a_missing_folder_is_refused(tmp_path, make):
    with pytest.raises(SessionRefused, match="existing folder"):
        async with Recorder(tmp_path / "no" / "s.h5", make.header(), in_process=True):
            pass


async def test_a_bad_header_is_refused_before_anything_starts(tmp_path, make):
    with pytest.raises(SessionRefused, match="clock name"):
        async with Recorder(tmp_path / "s.h5", make.header(clocks=("a/b",))):
            pass
    assert not (tmp_path / "s.h5").exists()


async def test_bad_calls_are_refused_and_harm_nothing(tmp_path, make):
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header(), in_process=True) as recorder:
        with pytest.raises(SessionRefused, match="would do"):
            await recorder.samples(make.exchanges(1))
        with pytest.raises(SessionRefused, match="would do"):
            await recorder.exchanges("camera", make.samples(1))
        with pytest.raises(SessionRefused, match=r"float64.*uint16.*expected"):
            await recorder.frame("camera", make.frame_header(0), np.zeros((6, 8)))
        with pytest.raises(SessionRefused, match="it has camera"):
            await recorder.frame("other", make.frame_header(0), make.pixels(0))
        with pytest.raises(SessionRefused, match="clock name"):
            await recorder.exchanges("a/b", make.exchanges(1))
        with pytest.raises(SessionRefused, match="queue name"):
            await recorder.queue_counters("a/b", {})
        with pytest.raises(SessionRefused, match="no attributes"):
            await recorder.attributes("samples", {"a": 1})
        with pytest.raises(SessionRefused, match="cannot be stored"):
            await recorder.attributes("sample", {"a": object()})
    assert validate(path) == []


async def test_a_recorder_that_is_not_open_says_so(tmp_path, make):
    recorder = Recorder(tmp_path / "s.h5", make.header(), in_process=True)
    with pytest.raises(SessionError, match="was not started"):
        await recorder.samples(make.samples(1))
    async with recorder:
        await recorder.finish("done")
        with pytest.raises(SessionError, match="was finished"):
            await recorder.samples(make.samples(1))
        with pytest.raises(SessionError, match="was finished"):
            await recorder.finish("again")


@POSIX  # HDF5 does not lock files on Windows
async def test_a_session_that_is_being_recorded_is_refused(tmp_path, make):
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header()):
        with pytest.raises(SessionRefused, match="no other program is writing"):
            Session.open(path)


async def test_flush_puts_all_into_the_file(tmp_path, make):
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header()) as recorder:
        await recorder.samples(make.samples(7))
        await recorder.flush()
        # A copy of the file as it is now, as a killed recorder would leave it.
        await asyncio.to_thread((tmp_path / "copy.h5").write_bytes, path.read_bytes())
    with Session.open(tmp_path / "copy.h5") as session:
        assert len(session.samples()) == 7


async def test_an_answer_counts_although_the_sending_thread_is_late(tmp_path, make, monkeypatch):
    monkeypatch.setattr("session.pipe_client._set_done", lambda sent: None)
    async with Recorder(tmp_path / "s.h5", make.header()) as recorder:
        await recorder.flush()
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "done"


@POSIX
async def test_a_full_ring_waits_and_loses_nothing(tmp_path, make):
    path = tmp_path / "s.h5"
    async with Recorder(path, make.header(), slots=4) as recorder:
        await recorder.flush()
        os.kill(recorder.pid, signal.SIGSTOP)
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(4):
                    await recorder.frame("camera", make.frame_header(index), make.pixels(index))
                late = [
                    group.create_task(
                        recorder.frame("camera", make.frame_header(i), make.pixels(i))
                    )
                    for i in range(4, 10)
                ]
                # Samples pass although the frames wait.
                await recorder.samples(make.samples(1))
                assert not any(task.done() for task in late)
                os.kill(recorder.pid, signal.SIGCONT)
        finally:
            os.kill(recorder.pid, signal.SIGCONT)
        counters = recorder.ring_counters("camera")
        assert counters.written == 10
        assert counters.high_water == 4
        assert counters.waits >= 6
    with Session.open(path) as session:
        assert session.attributes("queues/recorder.camera")["waits"] == counters.waits
        for index, pixels in enumerate(session.frames("camera")):
            np.testing.assert_array_equal(pixels, make.pixels(index))
        assert len(session.frames("camera")) == 10
    assert validate(path) == []


@POSIX
async def test_a_dead_recorder_is_noticed_by_all_who_wait(tmp_path, make):
    header = make.frame_header(0)
    outcomes = []
    try:
        async with Recorder(tmp_path / "s.h5", make.header(), slots=4) as recorder:
            os.kill(recorder.pid, signal.SIGSTOP)
            for index in range(4):
                await recorder.frame("camera", header, make.pixels(index))
            async with asyncio.TaskGroup() as group:
                for waiting in (
                    recorder.frame("camera", header, make.pixels(4)),
                    recorder.frame("camera", header, make.pixels(5)),
                    recorder.flush(),
                ):
                    group.create_task(_keep_outcome(waiting, outcomes))
                await asyncio.sleep(0)
                os.kill(recorder.pid, signal.SIGKILL)
            await _keep_outcome(recorder.samples(make.samples(1)), outcomes)
    except RecorderLost as error:
        outcomes.append(error)
    assert [type(outcome) for outcome in outcomes] == [RecorderLost] * 5
    assert "gone" in str(outcomes[0])
    assert {p.severity for p in validate(tmp_path / "s.h5")} == {"warning"}


async def _keep_outcome(coroutine, outcomes):
    try:
        outcomes.append(await coroutine)
    except SessionError as error:
        outcomes.append(error)


async def _fail_once_the_recorder_is_lost(recorder):
    os.kill(recorder.pid, KILL)
    outcomes = []
    while not outcomes or outcomes[-1] is None:
        await _keep_outcome(recorder.flush(), outcomes)
    raise ZeroDivisionError


async def test_a_dead_recorder_does_not_hide_the_first_error(tmp_path, make):
    with pytest.raises(ZeroDivisionError):
        async with Recorder(tmp_path / "s.h5", make.header()) as recorder:
            await _fail_once_the_recorder_is_lost(recorder)


async def test_a_dead_recorder_is_an_error_at_the_end(tmp_path, make):
    with pytest.raises(RecorderLost):
        async with Recorder(tmp_path / "s.h5", make.header()) as recorder:
            os.kill(recorder.pid, KILL)


@POSIX
async def test_a_recorder_that_hangs_is_ended(tmp_path, make):
    recorder = Recorder(tmp_path / "s.h5", make.header(), finish_timeout_s=0.1)
    with pytest.raises(RecorderLost, match=r"not closed within 0\.1 s"):
        async with recorder:
            os.kill(recorder.pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(recorder.pid, 0)


@POSIX
async def test_signals_are_for_the_runner(tmp_path, make):
    async with Recorder(tmp_path / "s.h5", make.header()) as recorder:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(recorder.pid, number)
        await recorder.samples(make.samples(1))
        await recorder.flush()
    with Session.open(tmp_path / "s.h5") as session:
        assert session.exit_reason == "done"


@POSIX
def test_a_full_disk_ends_in_recorder_lost_and_a_readable_file(tmp_path):
    program = """
import asyncio, resource, signal, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from streaming_client import HEADER, stream_frames, stream_samples
from session.errors import RecorderLost
from session.recorder import Recorder

async def main():
    async with Recorder(sys.argv[1], HEADER) as recorder:
        async with asyncio.TaskGroup() as group:
            group.create_task(stream_samples(recorder))
            group.create_task(stream_frames(recorder))

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
    try:
        asyncio.run(main())
    except* RecorderLost as errors:
        print("lost:", errors.exceptions[0])
"""
    script = tmp_path / "fill.py"
    script.write_text(program)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, script, tmp_path / "s.h5", here],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        env={**os.environ, "PYTHONPATH": str(here.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "lost: writing" in done.stdout.splitlines()[-1], done.stdout[-500:]
    assert "leaked" not in done.stderr
    with Session.open(tmp_path / "s.h5") as session:
        assert len(session.samples()) > 0
        assert len(session.frames("camera")) > 100
