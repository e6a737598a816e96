"""Frames a second into a session on two cores, beside a tracker and a potentiostat.

    python benchmarks/record_400fps.py [--seconds 15] [--rate 400] [--folder DIR] [--copy]

A camera made up here exposes 1024 x 1024 pixels at a steady rate and waits for nobody: its
driver holds 64 frames, and one that finds them all in use is lost and counted there. Its source
is a thread that copies each frame from the driver into a buffer of the recorder's ring (with
`--copy` into memory of its own, which the recorder copies once more). A tracker process bins one
frame of those that arrive after the other and correlates it by FFT; 50 readings a second are
recorded.

Printed are, for u8 and u16: produced = stored + lost, exactly; how full the ring was, how long
the source had to wait, what share of a core recorder and tracker took, the lag of the event
loop; and every stored frame, read with plain h5py, against its number and its checksum. In the
same run, what the machine can do at most with the same frames: O_DIRECT writes to a bare file,
and `write_direct_chunk` of plain h5py, each with the sync at its end.
"""

import argparse
import asyncio
import functools
import mmap
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from session.recorder import Recorder
from session.records import SESSION_SAMPLE_DTYPE, CameraHeader, FrameHeader, SessionHeader

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from cameras.protocol import FrameBuffers

SIDE = 1024
DRIVER_FRAMES = 64
PATTERNS = 16
SAMPLES_HZ = 50
BIN = 4


@functools.cache
def patterns(dtype: str) -> NDArray[np.generic]:
    """Return some frames of counts, as a detector would give them, always the same ones."""
    counts = np.random.default_rng(1).poisson(8, (PATTERNS, SIDE, SIDE))
    return (counts * (1 if dtype == "uint8" else 25)).astype(dtype)


# --- the camera ---------------------------------------------------------------------------


@dataclass
class Arrived:
    """A frame with the camera's own number."""

    index: int
    dropped_before: int
    start_ns: int
    pixels: NDArray[np.generic]


class Camera:
    """Makes frames by the clock; a thread brings them to the event loop."""

    def __init__(self, dtype: str, rate_Hz: float, seconds: float) -> None:
        self._patterns = patterns(dtype)
        self._period_ns = round(1e9 / rate_Hz)
        self.produced = round(rate_Hz * seconds)
        self.lost = 0
        self.longest_wait_s = 0.0
        self.most_behind = 0
        self.queue: asyncio.Queue[Arrived | None] = asyncio.Queue()

    def run(self, loop: asyncio.AbstractEventLoop, take: Callable[[], NDArray[np.generic]]) -> None:
        """Bring each frame; blocks until the last one."""
        start_ns, last = time.monotonic_ns(), -1
        index = 0
        while index < self.produced:
            exposed = (time.monotonic_ns() - start_ns) // self._period_ns
            if exposed < index:
                time.sleep(max(0, index * self._period_ns + start_ns - time.monotonic_ns()) / 1e9)
                continue
            self.most_behind = max(self.most_behind, exposed - index)
            index = max(index, min(exposed, self.produced) - DRIVER_FRAMES)
            asked = time.perf_counter()
            pixels = take()
            self.longest_wait_s = max(self.longest_wait_s, time.perf_counter() - asked)
            pixels[...] = self._patterns[index % PATTERNS]
            pixels.reshape(-1).view(np.int64)[0] = index
            frame = Arrived(index, index - last - 1, start_ns + index * self._period_ns, pixels)
            self.lost += index - last - 1
            del pixels
            loop.call_soon_threadsafe(self.queue.put_nowait, frame)
            del frame
            last = index
            index += 1
        self.lost += self.produced - 1 - last
        loop.call_soon_threadsafe(self.queue.put_nowait, None)


# --- the tracker --------------------------------------------------------------------------


def track(dtype: str, arrived: "Synchronized[int]", handled: "Synchronized[int]") -> None:
    """Look at every frame that arrived, one after the other, until told a negative number."""
    frames = patterns(dtype)
    taper = np.outer(*[np.hanning(SIDE // BIN)] * 2).astype(np.float32)
    reference = np.conj(fft.rfft2(_bin(frames[0]) * taper))
    seen = 0
    while (newest := arrived.value) >= 0:
        if newest == seen:
            time.sleep(0.0005)
            continue
        seen += 1
        surface = fft.irfft2(fft.rfft2(_bin(frames[seen % PATTERNS]) * taper) * reference)
        np.argmax(surface)
        handled.value += 1


def _bin(frame: NDArray[np.generic]) -> NDArray[np.float32]:
    rows = frame[0::BIN].astype(np.uint16 if frame.dtype == np.uint8 else np.uint32)
    for row in range(1, BIN):
        rows += frame[row::BIN]
    return sum(rows[:, column::BIN] for column in range(BIN)).astype(np.float32)


# --- the chain ----------------------------------------------------------------------------


def header(dtype: str, rate_Hz: float) -> SessionHeader:
    """Describe the session."""
    return SessionHeader(
        title="frames a second",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(
            CameraHeader(
                name="camera",
                model="made up",
                height=SIDE,
                width=SIDE,
                dtype=dtype,
                frame_rate_Hz=rate_Hz,
                pixel_size_m=1e-10,
            ),
        ),
    )


class Memory:
    """Buffers that are no slots of a ring."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def take(self) -> NDArray[np.generic]:
        """Return memory that was never used."""
        return np.empty((SIDE, SIDE), self._dtype)


async def film(recorder: Recorder, camera: Camera, arrived: "Synchronized[int]") -> None:
    """Record what the camera brings."""
    while (frame := await camera.queue.get()) is not None:
        stamps = FrameHeader(
            t_start_ns=frame.start_ns,
            exposure_ns=1_000_000,
            t_sigma_ns=1.0,
            index=frame.index,
            device_start_ns=frame.start_ns,
            dropped_before=frame.dropped_before,
        )
        await recorder.frame("camera", stamps, frame.pixels)
        del frame
        arrived.value += 1


async def measure_cell(recorder: Recorder) -> None:
    """Record readings until cancelled."""
    rows = np.zeros(1, SESSION_SAMPLE_DTYPE)
    while True:
        rows["t_ns"] = rows["read_start_ns"] = rows["read_end_ns"] = time.monotonic_ns()
        await recorder.samples(rows)
        await asyncio.sleep(1 / SAMPLES_HZ)


async def watch_lag(lags: list[float]) -> None:
    """Note how late the event loop is, until cancelled."""
    while True:
        due = time.perf_counter() + 0.005
        await asyncio.sleep(0.005)
        lags.append(time.perf_counter() - due)


def spent_s(pid: int | None) -> float:
    """Return what a process took of the processors; NaN where nobody says."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def record(path: Path, dtype: str, options: argparse.Namespace) -> Camera:
    """Run the chain and print how it went."""
    context = multiprocessing.get_context("spawn")
    arrived, handled = context.Value("q", 0), context.Value("q", 0)
    tracker = context.Process(target=track, args=(dtype, arrived, handled))
    tracker.start()
    camera = Camera(dtype, options.rate, options.seconds)
    lags: list[float] = []
    async with Recorder(path, header(dtype, options.rate)) as recorder:
        await asyncio.sleep(1.0)  # the tracker starts
        buffers: FrameBuffers = Memory(dtype) if options.copy else recorder.buffers("camera")
        before = [spent_s(pid) for pid in (recorder.pid, tracker.pid, os.getpid())]
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(measure_cell(recorder)),
                group.create_task(watch_lag(lags)),
            ]
            source = threading.Thread(
                target=camera.run, args=(asyncio.get_running_loop(), buffers.take)
            )
            source.start()
            await film(recorder, camera, arrived)
            for task in beside:
                task.cancel()
        lasted = time.perf_counter() - begun
        after = [spent_s(pid) for pid in (recorder.pid, tracker.pid, os.getpid())]
        arrived.value = -1
        source.join()
        begun = time.perf_counter()
        await recorder.finish("done")
        closing = time.perf_counter() - begun
        counters = recorder.ring_counters("camera")
    tracker.join()
    shares = [(late - early) / lasted for early, late in zip(before, after, strict=True)]
    lags.sort()
    print(f"  {camera.produced} produced in {lasted:.1f} s, closed in {closing:.2f} s after")
    print(
        f"  ring of {counters.slots}: at most {counters.high_water} in use"
        f" ({counters.high_water / options.rate:.3f} s), {counters.waits} waits,"
        f" longest {camera.longest_wait_s * 1e3:.1f} ms, {counters.unused} unused;"
        f" at most {camera.most_behind} frames in the camera's driver ({DRIVER_FRAMES})"
    )
    print(
        f"  share of a core: recorder {shares[0]:.2f}, tracker {shares[1]:.2f} (handled"
        f" {100 * handled.value / camera.produced:.1f} %), camera and event loop {shares[2]:.2f}"
    )
    print(
        f"  event loop late by {statistics.median(lags) * 1e3:.2f} ms (p50),"
        f" {lags[int(0.99 * len(lags))] * 1e3:.2f} ms (p99), {lags[-1] * 1e3:.1f} ms at most"
    )
    return camera


def verify(path: Path, camera: Camera) -> bool:
    """Read every frame with plain h5py; tell whether all is accounted for."""
    with h5py.File(path, "r") as file:
        group = file["entry/frames/camera"]
        index, checksum = group["index"][:], group["checksum"][:]
        dropped = int(group["dropped_before"][:].sum()) + camera.produced - 1 - int(index[-1])
        way = file["entry/instrument/camera"].attrs["frames_written"]
        samples = len(file["entry/samples/t_ns"])
        wrong = 0
        frame = np.empty(group["data"].shape[1:], group["data"].dtype)
        for row in range(len(index)):
            group["data"].read_direct(frame, np.s_[row])
            wrong += zlib.crc32(frame.data) != checksum[row]
            wrong += frame.reshape(-1).view(np.int64)[0] != index[row]
    closes = camera.produced == len(index) + camera.lost and dropped == camera.lost
    print(
        f"  {camera.produced} produced {'=' if closes else 'IS NOT'} {len(index)} stored +"
        f" {camera.lost} lost; {wrong} wrong of all checked; {samples} readings; written {way}"
    )
    return closes and not wrong and not camera.lost


# --- what the machine can do --------------------------------------------------------------


def bare(path: Path, frames: NDArray[np.generic], count: int) -> float:
    """Write frames past the page cache into a file that is nothing else; frames a second."""
    memory = mmap.mmap(-1, frames.nbytes)
    memory.write(frames.tobytes())
    size = frames[0].nbytes
    views = [memoryview(memory)[i * size : (i + 1) * size] for i in range(len(frames))]
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
    begun = time.perf_counter()
    for number in range(count):
        if number % 64 == 0:
            os.posix_fallocate(file, number * size, 64 * size)
        os.pwrite(file, views[number % len(views)], number * size)
    os.fsync(file)
    rate = count / (time.perf_counter() - begun)
    os.close(file)
    return rate


def plain(path: Path, frames: NDArray[np.generic], count: int) -> float:
    """Write frames as chunks with h5py, with a flush every 40; frames a second."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data",
            (0, SIDE, SIDE),
            frames.dtype,
            maxshape=(None, SIDE, SIDE),
            chunks=(1, SIDE, SIDE),
        )
        begun = time.perf_counter()
        for number in range(count):
            if number % 64 == 0:
                data.resize(number + 64, axis=0)
            data.id.write_direct_chunk((number, 0, 0), frames[number % len(frames)])
            if number % 40 == 0:
                file.flush()
        file.flush()
        descriptor = os.open(path, os.O_RDWR)
        os.fsync(descriptor)
        os.close(descriptor)
        return count / (time.perf_counter() - begun)


def print_limits(folder: Path, dtype: str) -> None:
    """Print what the machine can do with frames of this type now."""
    frames, count = patterns(dtype), 1200 if dtype == "uint8" else 600
    ways = {"h5py write_direct_chunk": plain}
    if hasattr(os, "O_DIRECT"):
        ways = {"bare O_DIRECT": bare, **ways}
    for name, way in ways.items():
        path = folder / "limit"
        begun = time.process_time()
        rate = way(path, frames, count)
        spent = (time.process_time() - begun) / count
        print(f"  at most, {name}: {rate:.0f} frames/s, {spent * 1e3:.2f} ms of a core for each")
        path.unlink()


def main() -> None:
    """Measure both pixel types."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--copy", action="store_true")
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default=None)
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for dtype in ("uint8", "uint16") if options.dtype is None else (options.dtype,):
            size = SIDE * SIDE * np.dtype(dtype).itemsize * options.rate * options.seconds
            free = shutil.disk_usage(folder).free
            if 1.1 * size > free:
                print(f"{dtype}: {size / 1e9:.1f} GB do not fit into {free / 1e9:.1f} GB; left out")
                good = False
                continue
            print(f"{dtype}, {options.rate:g} frames/s for {options.seconds:g} s", _load())
            print_limits(folder, dtype)
            path = folder / f"{dtype}.h5"
            camera = asyncio.run(record(path, dtype, options))
            good &= verify(path, camera)
            path.unlink()
            print(f"  {'nothing lost' if good else 'LOST OR WRONG'}", _load())
    sys.exit(not good)


def _load() -> str:
    return f"(load {os.getloadavg()[0]:.1f})" if hasattr(os, "getloadavg") else ""


if __name__ == "__main__":
    main()
