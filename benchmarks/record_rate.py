"""What the recorder sustains, beside the disk, the peers, a tracker and a potentiostat.

    python benchmarks/record_rate.py [--seconds 60] [--rate 400] [--rounds 5] [--folder DIR]
        [--gigabytes 6] [--tracker moment|correlation] [--dtype uint8|uint16]
        [--compression none ...] [--libertem-python PYTHON] [--skip chain|rates]

Two parts for u8 and u16 frames of 1024 x 1024 Poisson counts.

The chain: a camera that waits for nobody makes `--rate` frames a second for `--seconds`; 100
readings a second are recorded; a tracker in a process of its own looks at **each** frame in the
ring: by default at the centre of mass of every fourth row (`moment`), which keeps up on two
cores; `correlation` bins and registers by FFT as drift correction does, about 2 ms a frame.
Frames lost and wrong, share of a core and memory of the recorder are printed; what the tracker
found is compared with what was filmed.

The rates: as many frames as fill `--gigabytes`, as fast as they are taken, from the first to the
end of the last sync (6 by default: what is sustained; where a disk takes 2.5 GB in a second,
opening and closing are a good part of the time that 1.5 GB take): the whole recorder (ring, pipe,
process, journal, checksums, stamps), without and with compression; the limits of this machine with
the same bytes and the same syncs (2 s after the last, and at the end): raw sequential writes past
the page cache and through it, and `write_direct_chunk` alone; peers: h5py appends, zarr, and the
recording UDF of LiberTEM-live (from a Python that has it, by `--libertem-python`: it is no package
of ours). All in turn, in several rounds, peers once and with a quarter of the frames; ratios are
medians of those of a round. After each rate stands how many cores other programs had meanwhile;
rounds in which that was next to nothing count, as long as there are some.
"""

import argparse
import asyncio
import importlib.util
import multiprocessing
import os
import shutil
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray
from record_400fps import (
    BIN,
    SIDE,
    Arrived,
    Camera,
    header,
    patterns,
    spent_s,
    verify,
)
from record_400fps import _bin as binned
from record_limits import (
    Others,
    direct_chunk,
    h5py_append,
    libertem,
    raw_cached,
    raw_direct,
    zarr_append,
)
from scipy import fft

from session.recorder import Recorder
from session.records import SESSION_SAMPLE_DTYPE, CameraHeader, FrameHeader, SessionHeader
from session.ring import FrameRing, RingSpec

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SAMPLES_HZ = 100
MOST_UNTRACKED = 48  # frames that wait for the tracker; beyond, one is passed over and counted
MEMORY_LIMIT_BYTES = 2**30
TARGET = 0.9
MOST_OF_OTHERS = 0.2  # cores that others may have in a round that counts
PEER_PART = 4  # of the frames, for peers: some take a second for a few
_SLOT, _FOUND = struct.Struct("<qq"), struct.Struct("<qd")


# --- the tracker --------------------------------------------------------------------------


def moment(frame: NDArray[np.generic]) -> float:
    """Return the centre of mass along a row, in pixels, from every fourth row."""
    line = frame[1::4].sum(axis=0, dtype=np.uint32)
    return float(line @ np.arange(len(line))) / float(line.sum())


class Correlation:
    """Registers binned frames onto the first pattern, as drift correction begins."""

    def __init__(self, first: NDArray[np.generic]) -> None:
        self._taper = np.outer(*[np.hanning(SIDE // BIN)] * 2).astype(np.float32)
        self._reference = np.conj(fft.rfft2(binned(first) * self._taper))

    def __call__(self, frame: NDArray[np.generic]) -> float:
        """Return the place of the highest peak."""
        return float(
            np.argmax(fft.irfft2(fft.rfft2(binned(frame) * self._taper) * self._reference))
        )


def find(name: str, dtype: str) -> Callable[[NDArray[np.generic]], float]:
    """Return a tracker."""
    return moment if name == "moment" else Correlation(patterns(dtype)[0])


def track(spec: RingSpec, told: "Connection[Any, Any]", name: str) -> None:
    """Look at each frame that is told, in the ring; the process of the tracker."""
    ring, look = FrameRing.attach(spec), find(name, spec.dtype)
    told.send_bytes(b"ready")
    with suppress(EOFError):
        while True:
            slot, index = _SLOT.unpack(told.recv_bytes())
            told.send_bytes(_FOUND.pack(index, look(ring.slot_pixels(slot))))
    ring.close()


class Tracked:
    """Our end: frames stay where they are until the tracker has seen them."""

    def __init__(self, ring: FrameRing, name: str) -> None:
        self._ring = ring
        self._held: deque[NDArray[np.generic]] = deque()
        self.found: dict[int, float] = {}
        self.passed_over = 0
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=track, args=(ring.spec, theirs, name))
        self.process.start()
        theirs.close()
        self._pipe.recv_bytes()
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def show(self, slot: int | None, index: int, pixels: NDArray[np.generic]) -> None:
        """Tell the tracker of a frame."""
        if slot is None or len(self._held) >= MOST_UNTRACKED:
            self.passed_over += 1
            return
        self._held.append(pixels)
        self._pipe.send_bytes(_SLOT.pack(slot, index))

    def end(self) -> None:
        """Wait for the last frame, and end."""
        while self._held:
            time.sleep(0.005)
        self.process.kill()
        self.process.join()
        self._thread.join()

    def _hear(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                index, value = _FOUND.unpack(self._pipe.recv_bytes())
                self.found[index] = value
                self._held.popleft()


# --- the chain ----------------------------------------------------------------------------


async def film(recorder: Recorder, camera: Camera, tracked: Tracked | None) -> None:
    """Record what the camera brings, and show it to the tracker."""
    ring = recorder._cameras["camera"].ring  # noqa: SLF001 - the tracker looks into it, too
    while (frame := await camera.queue.get()) is not None:
        slot = ring.lent_slot(frame.pixels)
        await recorder.frame("camera", stamps_of(frame), frame.pixels)
        if tracked is not None:
            tracked.show(slot, frame.index, frame.pixels)
        del frame


def stamps_of(frame: Arrived) -> FrameHeader:
    """Return the stamps of a frame."""
    return FrameHeader(
        t_start_ns=frame.start_ns,
        exposure_ns=1_000_000,
        t_sigma_ns=1.0,
        index=frame.index,
        device_start_ns=frame.start_ns,
        dropped_before=frame.dropped_before,
    )


async def measure_cell(recorder: Recorder) -> None:
    """Record readings until cancelled."""
    rows, due = np.zeros(1, SESSION_SAMPLE_DTYPE), time.monotonic()
    while True:
        rows["t_ns"] = rows["read_start_ns"] = rows["read_end_ns"] = time.monotonic_ns()
        await recorder.samples(rows)
        due += 1 / SAMPLES_HZ
        await asyncio.sleep(max(0.0, due - time.monotonic()))


def memory_bytes(pid: int | None, what: str = "VmHWM") -> float:
    """Return the resident memory of a process, shared memory and all; NaN where nobody says."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return float("nan")
    lines = [line.split() for line in status.read_text().splitlines() if line.startswith(what)]
    return float(lines[0][1]) * 1024


def described(dtype: str, rate_Hz: float, compression: str) -> SessionHeader:
    """Describe the session."""
    made = header(dtype, rate_Hz)
    (camera,) = made.cameras
    fields = {name: getattr(camera, name) for name in CameraHeader.__dataclass_fields__}
    fields["compression"] = compression
    fields_of_session = {n: getattr(made, n) for n in SessionHeader.__dataclass_fields__}
    return SessionHeader(**fields_of_session | {"cameras": (CameraHeader(**fields),)})


async def run_chain(path: Path, dtype: str, compression: str, options: argparse.Namespace) -> bool:
    """Film for a while; print how it went and tell whether all was well."""
    camera = Camera(dtype, options.rate, options.seconds)
    async with Recorder(path, described(dtype, options.rate, compression)) as recorder:
        ring = recorder._cameras["camera"].ring  # noqa: SLF001
        tracked = await asyncio.to_thread(Tracked, ring, options.tracker)
        pids = (recorder.pid, tracked.process.pid, os.getpid())
        before, begun = [spent_s(pid) for pid in pids], time.perf_counter()
        take = recorder.buffers("camera").take
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            readings = group.create_task(measure_cell(recorder))
            source = threading.Thread(target=camera.run, args=(loop, take))
            source.start()
            await film(recorder, camera, tracked)
            readings.cancel()
        lasted = time.perf_counter() - begun
        shares = [(spent_s(p) - b) / lasted for p, b in zip(pids, before, strict=True)]
        source.join()
        await asyncio.to_thread(tracked.end)
        memory, ring_bytes = memory_bytes(recorder.pid), ring.spec.slots * ring.spec.slot_bytes
        await recorder.finish("done")
        counters = recorder.ring_counters("camera")
    expected = [find(options.tracker, dtype)(frame) for frame in patterns(dtype)]
    off = [abs(v - expected[i % len(expected)]) for i, v in tracked.found.items()]
    print(
        f"  {compression}: ring of {counters.slots}, at most {counters.high_water} in use,"
        f" {counters.waits} waits, at most {camera.most_behind} frames in the camera's driver;"
        f" {lasted:.1f} s"
    )
    print(
        f"    share of a core: recorder {shares[0]:.2f}, tracker {shares[1]:.2f}, camera and event"
        f" loop {shares[2]:.2f}; recorder's memory {memory / 2**20:.0f} MiB at most, of which"
        f" {ring_bytes / 2**20:.0f} MiB are the ring"
    )
    print(
        f"    tracker ({options.tracker}): {len(tracked.found)} frames of"
        f" {camera.produced - camera.lost} that came, {tracked.passed_over} passed over;"
        f" off by at most {max(off, default=0.0):.2g} from what was filmed"
    )
    print_compression(path)
    good = verify(path, camera)
    # NaN, where nobody says, is no miss.
    return good and not tracked.passed_over and not memory > MEMORY_LIMIT_BYTES


def print_compression(path: Path) -> None:
    """Say how many frames were compressed."""
    with h5py.File(path, "r") as file:
        group = file["entry/queues"].get("compression.camera")
        if group is not None:
            said = dict(group.attrs)
            ratio = said["pixel_bytes"] / max(1, said["stored_bytes"])
            print(
                f"    {said['compressed']} frames compressed, {said['uncompressed']} stored as they"
                f" are: {ratio:.2f} times smaller"
            )


# --- the rates ----------------------------------------------------------------------------


async def record_all(path: Path, dtype: str, compression: str, count: int) -> float:
    """Return how many frames a second the recorder takes as fast as it can."""
    camera = Camera(dtype, 400.0, count / 400.0)
    frames = patterns(dtype)
    async with Recorder(path, described(dtype, 400.0, compression)) as recorder:
        take, loop = recorder.buffers("camera").take, asyncio.get_running_loop()

        def source() -> None:
            for index in range(count):
                pixels = take()
                pixels[...] = frames[index % len(frames)]
                frame = Arrived(index, 0, index * 2_500_000, pixels)
                loop.call_soon_threadsafe(camera.queue.put_nowait, frame)
                del frame, pixels
            loop.call_soon_threadsafe(camera.queue.put_nowait, None)

        begun = time.perf_counter()
        thread = threading.Thread(target=source)
        thread.start()
        await film(recorder, camera, None)
        await recorder.finish("done")
        lasted = time.perf_counter() - begun
        thread.join()
    print_compression(path)
    return count / lasted


def timed(way: Callable[[Path, NDArray[np.generic], int], None]) -> "Way":
    """Return a way that says how many frames a second it takes."""

    def measure(path: Path, dtype: str, count: int) -> float:
        frames = patterns(dtype)
        begun = time.perf_counter()
        way(path, frames, count)
        return count / (time.perf_counter() - begun)

    return measure


Way = Callable[[Path, str, int], float]


def ways(options: argparse.Namespace) -> dict[str, Way]:
    """Return all that is measured, limits first."""
    found: dict[str, Way] = {}
    if hasattr(os, "O_DIRECT"):
        found["raw, past the page cache"] = timed(raw_direct)
    found["raw, through the page cache"] = timed(raw_cached)
    found["write_direct_chunk alone"] = timed(direct_chunk)
    for compression in options.compression:

        def record(path: Path, dtype: str, count: int, compression: str = compression) -> float:
            return asyncio.run(record_all(path, dtype, compression, count))

        found[f"recorder, {compression}"] = record
    found["h5py append"] = timed(h5py_append)
    if importlib.util.find_spec("zarr") is not None:
        found["zarr"] = timed(zarr_append)
    else:
        print("  zarr is left out: not installed")
    found["LiberTEM-live"] = lambda path, dtype, count: libertem(
        path.with_suffix(".npy"), patterns(dtype), count, options.libertem_python
    )
    return found


def measure_rates(folder: Path, dtype: str, options: argparse.Namespace) -> bool:
    """Measure all ways in turn; print and tell whether the target was met."""
    count = int(options.gigabytes * 1e9 / (SIDE * SIDE * np.dtype(dtype).itemsize))
    rates: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    chosen = ways(options)
    ours = [name for name in chosen if name.startswith(("raw", "write", "recorder"))]
    for number in range(options.rounds):
        names = ours[number % len(ours) :] + ours[: number % len(ours)]
        names += [name for name in chosen if name not in ours and number < options.peer_rounds]
        for name in names:
            frames = count if name in ours else max(64, count // PEER_PART)
            beside = Others()
            try:
                rate = chosen[name](folder / "rate.h5", dtype, frames)
            except RuntimeError as error:
                print(f"  {name} is left out: {error}")
                del chosen[name]
                continue
            rates.setdefault(name, []).append(rate)
            others.setdefault(name, []).append(beside.cores())
            print(f"    {name}: {rate:.0f} ({others[name][-1]:.1f})", flush=True)
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    for name, found in rates.items():
        print(f"  {name:28s} {statistics.median(found):6.0f} frames/s")
    noise = [max(others[name][number] for name in ours) for number in range(options.rounds)]
    met = [_verdict(name, rates, noise) for name in ours if name.startswith("recorder")]
    return any(met)


def _verdict(name: str, rates: dict[str, list[float]], noise: Sequence[float]) -> bool:
    """Print what a way reaches of the limits, and tell whether that is enough.

    Where others took cores in a round, it says as much of them as of the recorder, which needs
    two: it counts only where no round was without.
    """
    raw = [max(both) for both in zip(*(r for n, r in rates.items() if "raw" in n), strict=True)]
    chunk = rates["write_direct_chunk alone"]
    slower = [min(both) for both in zip(raw, chunk, strict=True)]
    still = [number for number, cores in enumerate(noise) if not cores > MOST_OF_OTHERS]
    counted = still or list(range(len(noise)))
    shares = [
        statistics.median(rates[name][number] / limit[number] for number in counted)
        for limit in (raw, chunk, slower)
    ]
    which = f"{len(still)} rounds of {len(noise)}" if still else "all rounds, none of them still"
    print(
        f"  {name}: {shares[0]:.2f} of raw, {shares[1]:.2f} of write_direct_chunk,"
        f" {shares[2]:.2f} of the slower: {'PASS' if shares[2] >= TARGET else 'MISS'}"
        f" (target {TARGET}; {which})"
    )
    return shares[2] >= TARGET


def main() -> None:
    """Measure both pixel types."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--tracker", choices=("moment", "correlation"), default="moment")
    parser.add_argument("--dtype", choices=("uint8", "uint16"), nargs="+", default=None)
    parser.add_argument("--compression", nargs="+", default=["none", "auto"])
    parser.add_argument("--libertem-python", default=sys.executable)
    parser.add_argument("--skip", choices=("chain", "rates"), default=None)
    options = parser.parse_args()
    if importlib.util.find_spec("hdf5plugin") is not None:
        importlib.import_module("hdf5plugin")  # to read what was compressed
    good = True
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for dtype in options.dtype or ("uint8", "uint16"):
            if options.skip != "rates":
                print(f"{dtype}, as fast as can be {_load()}", flush=True)
                good &= measure_rates(folder, dtype, options)
            for compression in () if options.skip == "chain" else options.compression:
                print(f"{dtype}, {options.rate:g} frames/s {_load()}", flush=True)
                path = folder / "chain.h5"
                well = asyncio.run(run_chain(path, dtype, compression, options))
                path.unlink()
                good &= well
                print(f"    {'PASS' if well else 'MISS'} {_load()}", flush=True)
    sys.exit(not good)


def _load() -> str:
    return f"(load {os.getloadavg()[0]:.1f})" if hasattr(os, "getloadavg") else ""


if __name__ == "__main__":
    main()
