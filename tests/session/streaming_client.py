"""A runner that streams until it is killed; each acknowledged row is printed.

Not a test: started by test_crash.py as a program of its own.
"""

import asyncio
import os
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from session.errors import RecorderLost
from session.recorder import Recorder
from session.records import (
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    SessionHeader,
)

HEADER = SessionHeader(
    title="kill",
    experiment_text="",
    start_time="2025-01-01T00:00:00+00:00",
    host_start_ns=0,
    simulated=True,
    cameras=(
        CameraHeader(
            name="camera",
            model="none",
            height=64,
            width=64,
            dtype="uint16",
            frame_rate_Hz=200.0,
            pixel_size_m=1e-9,
        ),
    ),
)


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def stream_samples(recorder):
    number = 0
    while True:
        rows = np.zeros(3, SESSION_SAMPLE_DTYPE)
        rows["t_ns"] = time.monotonic_ns()
        rows["step"] = np.arange(number, number + 3)
        await recorder.samples(rows)
        number += 3
        say("samples", number, rows["t_ns"][0])
        await asyncio.sleep(0.002)


async def stream_frames(recorder):
    generator = np.random.default_rng(1)
    buffers = recorder.buffers("camera")
    index = 0
    while True:
        pixels = generator.integers(0, 2**16, (64, 64), dtype=np.uint16)
        if index % 3:  # most of them out of the recorder's memory
            lent = await asyncio.to_thread(buffers.take)
            lent[...] = pixels
            pixels = lent
        t_ns = time.monotonic_ns()
        header = FrameHeader(
            t_start_ns=t_ns,
            exposure_ns=5_000_000,
            t_sigma_ns=1.0,
            index=index,
            device_start_ns=t_ns,
        )
        await recorder.frame("camera", header, pixels)
        index += 1
        say("frames", index, t_ns, zlib.crc32(pixels.data))
        await asyncio.sleep(0.004)


async def kill_recorder(recorder, delay_s):
    await asyncio.sleep(delay_s)
    say("killed", 0, time.monotonic_ns())
    os.kill(recorder.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


async def main(path, delay_s):
    async with Recorder(Path(path), HEADER) as recorder:
        say("started", recorder.pid, 0)
        async with asyncio.TaskGroup() as group:
            group.create_task(stream_samples(recorder))
            group.create_task(stream_frames(recorder))
            if delay_s is not None:
                group.create_task(kill_recorder(recorder, delay_s))


if __name__ == "__main__":
    delay_s = float(sys.argv[2]) if len(sys.argv) > 2 else None
    try:
        asyncio.run(main(sys.argv[1], delay_s))
    except* RecorderLost:
        say("lost", 0, time.monotonic_ns())
