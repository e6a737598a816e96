"""Frames that a source receives into the recorder's memory."""

import asyncio
import errno
import functools
import os
import signal
import threading

import numpy as np
import pytest

from session import Session, recorder_process
from session.durable import Syncer
from session.errors import RecorderLost, SessionError
from session.placed_file import PlacedFile
from session.recorder import Recorder
from session.records import CameraHeader
from session.ring import choose_slots
from session.validate import validate

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
SIZE = (64, 64)


@pytest.fixture
def header(make):
    camera = CameraHeader(
        name="camera",
        model="Maker One",
        height=SIZE[0],
        width=SIZE[1],
        dtype="uint16",
        frame_rate_Hz=20.0,
        pixel_size_m=1e-9,
    )
    return make.header(cameras=(camera,))


def make_frame(index):
    return np.random.default_rng(index).integers(0, 2**16, SIZE, dtype=np.uint16)


@pytest.mark.parametrize("in_process", [True, False], ids=["thread", "process"])
async def test_lent_and_copied_frames_are_stored_in_order(tmp_path, make, header, in_process):
    path = tmp_path / "s.h5"
    async with Recorder(path, header, in_process=in_process, slots=4) as recorder:
        buffers = recorder.buffers("camera")
        for index in range(40):
            pixels = make_frame(index)
            if index % 2:
                pixels = await asyncio.to_thread(buffers.take)
                pixels[...] = make_frame(index)
            if index % 5 == 0:
                await asyncio.to_thread(buffers.take)  # and never recorded
            await recorder.frame("camera", make.frame_header(index), pixels)
        counters = recorder.ring_counters("camera")
    assert (counters.written, counters.unused) == (40, 8)
    with Session.open(path) as session:
        assert session.attributes("queues/recorder.camera")["unused"] == 8
        for index, pixels in enumerate(session.frames("camera")):
            np.testing.assert_array_equal(pixels, make_frame(index))
        assert len(session.frames("camera")) == 40
    assert validate(path) == []


async def test_lent_pixels_are_not_copied(tmp_path, make, header, monkeypatch):
    monkeypatch.setattr("session.ring.FrameRing.put_into", None)  # nobody may call it
    path = tmp_path / "s.h5"
    async with Recorder(path, header, in_process=True) as recorder:
        pixels = await asyncio.to_thread(recorder.buffers("camera").take)
        pixels[...] = 5
        await recorder.frame("camera", make.frame_header(0), pixels)
    with Session.open(path) as session:
        assert (session.frames("camera")[0] == 5).all()
    assert (pixels == 5).all()  # also after the recording, for who looks at it


async def test_the_same_pixels_can_be_recorded_twice(tmp_path, make, header):
    path = tmp_path / "s.h5"
    async with Recorder(path, header, in_process=True) as recorder:
        pixels = await asyncio.to_thread(recorder.buffers("camera").take)
        pixels[...] = 5
        for index in range(2):
            await recorder.frame("camera", make.frame_header(index), pixels)
    assert validate(path) == []
    with Session.open(path) as session:
        assert (session.frames("camera")[:] == 5).all()


async def test_a_source_that_waits_is_told_of_the_end(tmp_path, header):
    async with Recorder(tmp_path / "s.h5", header, in_process=True, slots=4) as recorder:
        buffers = recorder.buffers("camera")
        held = [buffers.take() for _ in range(4)]
        waiting = asyncio.create_task(asyncio.to_thread(buffers.take))
        while recorder.ring_counters("camera").waits == 0:
            await asyncio.sleep(0)
        await recorder.finish("done")
        with pytest.raises(SessionError, match="was finished"):
            await waiting
        del held[0]
        with pytest.raises(SessionError, match="was finished"):
            buffers.take()
    for pixels in held:
        pixels[...] = 1  # still memory of ours


async def test_a_source_that_waits_is_told_that_the_recorder_is_lost(tmp_path, header):
    with pytest.raises(RecorderLost):
        async with Recorder(tmp_path / "s.h5", header, slots=4) as recorder:
            await _lose_the_recorder_while_a_source_waits(recorder)


async def _lose_the_recorder_while_a_source_waits(recorder):
    buffers = recorder.buffers("camera")
    held = [buffers.take() for _ in range(4)]
    waiting = asyncio.create_task(asyncio.to_thread(buffers.take))
    os.kill(recorder.pid, KILL)
    with pytest.raises(RecorderLost, match="gone"):
        await waiting
    assert len(held) == 4


async def test_a_frame_that_waits_gets_the_slot_that_a_source_drops(tmp_path, make, header):
    async with Recorder(tmp_path / "s.h5", header, in_process=True, slots=4) as recorder:
        held = [recorder.buffers("camera").take() for _ in range(4)]
        recording = [
            asyncio.create_task(recorder.frame("camera", make.frame_header(i), make_frame(i)))
            for i in range(2)
        ]
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(task.done() for task in recording)
        dropping = threading.Thread(target=held.clear)
        dropping.start()
        for task in recording:
            await task
        dropping.join()
        assert recorder.ring_counters("camera").waits == 2
    assert validate(tmp_path / "s.h5") == []


async def test_a_disk_that_fails_under_the_pixels_is_told(tmp_path, make, header, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PlacedFile, "put", fail)
    with pytest.raises(RecorderLost, match="No space left"):
        async with Recorder(tmp_path / "s.h5", header, in_process=True) as recorder:
            await recorder.frame("camera", make.frame_header(0), make_frame(0))


async def test_a_disk_that_fails_to_sync_is_told_at_once(tmp_path, make, monkeypatch):
    failing = functools.partial(Syncer, interval_s=0.0, sync=_fail_to_sync)
    monkeypatch.setattr(recorder_process, "Syncer", failing)
    told = []
    with pytest.raises(RecorderLost, match="Input/output error"):
        async with Recorder(
            tmp_path / "s.h5", make.header(), in_process=True, on_trouble=told.append
        ) as recorder:
            await _flush_until(recorder, told)
    assert "Input/output error" in told[0]


async def test_the_last_sync_is_part_of_the_end(tmp_path, make, monkeypatch):
    failing = functools.partial(Syncer, interval_s=1000.0, sync=_fail_to_sync)
    monkeypatch.setattr(recorder_process, "Syncer", failing)
    with pytest.raises(RecorderLost, match="Input/output error"):
        async with Recorder(tmp_path / "s.h5", make.header(), in_process=True) as recorder:
            await recorder.samples(make.samples(1))


def _fail_to_sync(_):
    raise OSError(errno.EIO, "Input/output error")


async def _flush_until(recorder, told):
    async with asyncio.timeout(20):
        while not told:
            await recorder.flush()


def test_half_a_second_of_frames_fits_where_memory_permits():
    assert choose_slots(2**20, frame_rate_Hz=400.0, memory_bytes=2**29) == 200
    assert choose_slots(2**20, frame_rate_Hz=20.0, memory_bytes=2**29) == 64
    assert choose_slots(2**20, frame_rate_Hz=4_000.0, memory_bytes=2**29) == 512
    assert choose_slots(4_097, memory_bytes=8_192 * 5) == 5
