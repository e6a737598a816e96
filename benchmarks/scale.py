"""Tracking of long stacks: time for each frame, memory of all processes, and two workers.

    pip install -e ".[bench,cluster,fast]"
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/scale.py --folder FOLDER

Stacks of 10 000, 30 000 and 100 000 frames of a film with a moving front on a drifting
specimen, Poisson counts, stored as a session. 512 different noises are used in turn, each
laid on the frame's own mean, so that making the stack takes less than tracking it. Every
stack is tracked by this process alone; the longest also by one and by two workers of a Dask
cluster on this computer, which are started as `docs/large-stacks.md` says, and by two
processes. Memory is the largest sum of the resident
memory of this process and all its children, read twice a second; the stack is in none of it.
Results must be the same to the last bit, or the benchmark ends with an error.
"""

import argparse
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import psutil
from numpy.typing import NDArray
from scipy import ndimage, special

from runner.session_tracks import track_session
from runner.team import ALONE, Team, open_team
from session import Session
from session.columns import GrowingTable
from session.records import FRAME_ROW_DTYPE, CameraHeader, FrameHeader, SessionHeader
from session.writer import SessionWriter

PIXEL_M, RATE_HZ, NOISES, BLOCK_FRAMES = 1e-9, 400.0, 512, 256
SERIES = (10_000, 30_000, 100_000)
LIMIT_GIB, SPEED_UP = 2.0, 1.7
WORKERS_KEEP = {
    "MALLOC_TRIM_THRESHOLD_": "200000000",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def frames(count: int, side: int) -> Iterator[NDArray[np.uint8]]:
    """Make frames whose front crosses a third of the film."""
    rng = np.random.default_rng(8)
    grains = ndimage.gaussian_filter(rng.standard_normal((side, side)), 2.0, mode="wrap")
    texture = 1 + 0.08 * grains / grains.std()
    noises = rng.standard_normal((NOISES, side, side)).astype(np.float32)
    x = np.arange(side)
    for k in range(count):
        dx = 1.5 * np.sin(6 * k / count) + 0.2 * np.sin(k / 700)
        shapes = [
            0.5 * (1 + special.erf((x - dx - at) / 2 / np.sqrt(2)))
            for at in (0.2 * side, side * (0.65 - 0.3 * k / count), 0.8 * side)
        ]
        film = 0.6 * (1 + 0.2 * shapes[1])
        profile = 0.3 + (film - 0.3) * shapes[0] + (0.9 - film) * shapes[2]
        low = int(np.floor(dx))
        share = dx - low
        moved = (1 - share) * np.roll(texture, low, 1) + share * np.roll(texture, low + 1, 1)
        mean = (30 * profile * moved).astype(np.float32)
        # A Gaussian with the variance of counts; rounded, as counts are.
        counted = mean + np.sqrt(mean) * np.roll(noises[k % NOISES], k // NOISES, 0)
        yield np.clip(np.rint(counted), 0, 255).astype(np.uint8)


def make(path: Path, count: int, side: int) -> None:
    """Store a stack as a session."""
    camera = CameraHeader(
        name="camera",
        model="none",
        height=side,
        width=side,
        dtype="uint8",
        frame_rate_Hz=RATE_HZ,
        pixel_size_m=PIXEL_M,
    )
    header = SessionHeader(
        title=f"{count} frames",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(camera,),
        sample={"working_thickness_m": 0.6 * side * PIXEL_M},
    )
    step_ns = int(1e9 / RATE_HZ)
    made = frames(count, side)
    with SessionWriter(path, header) as writer:
        row = FrameHeader(
            t_start_ns=0, exposure_ns=step_ns, t_sigma_ns=1.0, index=0, device_start_ns=0
        )
        writer.append_frame("camera", row, next(made))
        writer.finish("done", "")
    # The recorder's care for each frame, which is not what is measured, takes longer than all
    # the rest: the other frames are written at once.
    with h5py.File(path, "r+") as file:
        group = file["entry/frames/camera"]
        group["data"].resize(count, axis=0)
        for start in range(1, count, BLOCK_FRAMES):
            block = np.array(list(itertools.islice(made, BLOCK_FRAMES)))
            group["data"][start : start + len(block)] = block
        stamps = np.zeros(count - 1, FRAME_ROW_DTYPE)
        stamps["index"] = np.arange(1, count)
        stamps["t_start_ns"], stamps["exposure_ns"] = step_ns * stamps["index"], step_ns
        table = GrowingTable(group, FRAME_ROW_DTYPE)
        table.append(stamps)
        table.commit()


class Memory:
    """The largest resident memory of this process and its children."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._ends = threading.Event()

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        us = psutil.Process()
        while not self._ends.wait(0.5):
            total = 0
            for process in (us, *us.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)


def written(path: Path) -> bytes:
    """Return all that a tracker wrote."""
    with Session.open(path) as session:
        names = ["drift/camera", *(f"tracks/{name}" for name in session.tracks)]
        tables = [session.table(name).columns for name in names]
        return b"".join(np.asarray(c).tobytes() for t in tables for c in t.values())


@contextmanager
def dask_team(workers: int) -> Iterator[Team]:
    """Start Dask workers on this computer."""
    import dask  # noqa: PLC0415 - optional
    from distributed import LocalCluster  # noqa: PLC0415 - optional

    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": WORKERS_KEEP}),
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        open_team(cluster=cluster.scheduler_address) as team,
    ):
        yield team


def timed(path: Path, tracker: str, team: Team) -> tuple[float, bytes]:
    """Track a stack; return the seconds and what was found."""
    begun = time.perf_counter()
    summary = track_session(path, tracker, team=team)
    took_s = time.perf_counter() - begun
    assert summary.valid > 0.99 * summary.frames, summary
    return took_s, written(path)


def main() -> None:
    """Print the table."""
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("--folder", type=Path, required=True)
    told.add_argument("--side", type=int, default=128)
    told.add_argument("--trackers", nargs="+", default=["drift", "front"])
    told.add_argument("--series", nargs="+", type=int, default=SERIES)
    told.add_argument("--make-only", action="store_true")
    given = told.parse_args()
    paths = {n: given.folder / f"stack_{given.side}_{n}.h5" for n in given.series}
    for count, path in paths.items():
        if not path.exists():
            make(path, count, given.side)
    if given.make_only:
        return
    longest = paths[max(paths)]
    size_gib = longest.stat().st_size / 2**30
    print(f"{given.side} x {given.side} uint8; the longest stack {size_gib:.2f} GiB")
    with Memory() as memory:
        for tracker in given.trackers:
            alone_s, found = 0.0, b""
            for count, path in paths.items():
                alone_s, found = timed(path, tracker, ALONE)
                print(
                    f"{tracker:6}{count:8d} frames, alone: {1e3 * alone_s / count:7.3f} ms each",
                    flush=True,
                )
            seconds = {"alone": alone_s}
            for label, opened in (
                ("1 Dask worker", dask_team(1)),
                ("2 Dask workers", dask_team(2)),
                ("2 processes", open_team(2)),
            ):
                with opened as team:
                    seconds[label], again = timed(longest, tracker, team)
                if again != found:
                    sys.exit(f"{tracker}, {label}: not what this process alone found")
                print(
                    f"{tracker:6}{max(paths):8d} frames, {label}: {seconds[label]:.1f} s",
                    flush=True,
                )
            two = seconds["2 Dask workers"]
            print(
                f"{tracker}: 2 Dask workers {seconds['1 Dask worker'] / two:.2f} times as quick as "
                f"one, {alone_s / two:.2f} times as alone (target {SPEED_UP}); the same bits"
            )
    print(
        f"largest memory of all processes: {memory.peak_bytes / 2**30:.2f} GiB (limit {LIMIT_GIB});"
        f" {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
