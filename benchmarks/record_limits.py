"""What the recorder is measured beside: the limits of this machine, and peers.

Each way writes as many frames as it is told, from few that are given, into a path, with the same
syncs as the recorder: 2 s after the last one, and at the end.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from record_400fps import SIDE, bare

from session.durable import SYNC_INTERVAL_S, Syncer


class Others:
    """What all programs but this one and its children had of the processors, on Linux.

    Outside of the kernel, which writes for us from threads of its own. Children count once they
    have ended.
    """

    def __init__(self) -> None:
        self._begun_s, self._of_others_s = time.perf_counter(), _of_others_s()

    def cores(self) -> float:
        """Return how many cores others had since this was made; NaN where nobody says."""
        lasted_s = time.perf_counter() - self._begun_s
        return (_of_others_s() - self._of_others_s) / lasted_s


def _of_others_s() -> float:
    stat, spent = Path("/proc/stat"), os.times()
    if not stat.exists():
        return float("nan")
    _cpu, user, nice, *_ = stat.read_text().split(maxsplit=3)
    ticks = int(user) + int(nice)
    return ticks / os.sysconf("SC_CLK_TCK") - spent.user - spent.children_user


@contextmanager
def synced(path: Path) -> Iterator[None]:
    """Sync a file as the recorder does: again and again, and at the end."""
    with Syncer(path) as syncer:
        yield
        syncer.finish()


@contextmanager
def all_synced() -> Iterator[None]:
    """Sync all files of the machine so: for writers of many files."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(SYNC_INTERVAL_S):
            os.sync()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    ended.set()
    thread.join()
    os.sync()


def raw_direct(path: Path, frames: NDArray[np.generic], count: int) -> None:
    """Write past the page cache into a file that is nothing else."""
    bare(path, frames, count)


def raw_cached(path: Path, frames: NDArray[np.generic], count: int) -> None:
    """Write through the page cache into a file that is nothing else."""
    with path.open("wb", buffering=0) as file, synced(path):
        for number in range(count):
            file.write(frames[number % len(frames)].data)


def direct_chunk(path: Path, frames: NDArray[np.generic], count: int) -> None:
    """Write chunks with h5py, a flush every 40."""
    with h5py.File(path, "w") as file, synced(path):
        data = _growing(file, frames)
        for number in range(count):
            if number % 64 == 0:
                data.resize(number + 64, axis=0)
            data.id.write_direct_chunk((number, 0, 0), frames[number % len(frames)])
            if number % 40 == 0:
                file.flush()
        file.flush()


def h5py_append(path: Path, frames: NDArray[np.generic], count: int) -> None:
    """Append frame after frame with h5py."""
    with h5py.File(path, "w") as file, synced(path):
        data = _growing(file, frames)
        for number in range(count):
            data.resize(number + 1, axis=0)
            data[number] = frames[number % len(frames)]
        file.flush()


def _growing(file: h5py.File, frames: NDArray[np.generic]) -> h5py.Dataset:
    size = frames.shape[1:]
    return file.create_dataset(
        "data", (0, *size), frames.dtype, maxshape=(None, *size), chunks=(1, *size)
    )


def zarr_append(path: Path, frames: NDArray[np.generic], count: int) -> None:
    """Write frame after frame into a zarr array, one chunk each, as zarr compresses by itself."""
    import zarr  # noqa: PLC0415 - a peer

    with all_synced():
        array = zarr.create_array(
            str(path), shape=(count, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype=frames.dtype
        )
        for number in range(count):
            array[number] = frames[number % len(frames)]


LIBERTEM = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from libertem.api import Context
from libertem_live.udf.record import RecordUDF
path, patterns, count = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
data = patterns[np.arange(count) % len(patterns)].reshape(1, count, *patterns.shape[1:])
with Context.make_with("inline") as ctx:
    source = ctx.load("memory", data=data, sig_dims=2, num_partitions=max(1, count // 64))
    begun = time.perf_counter()
    ctx.run_udf(source, RecordUDF(path))
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
    print(count / (time.perf_counter() - begun))
"""


def libertem(path: Path, frames: NDArray[np.generic], count: int, python: str) -> float:
    """Return the rate of LiberTEM-live's recording UDF, fed from memory.

    Raises
    ------
    RuntimeError
        It cannot be had; the text says why.
    """
    stored = path.with_suffix(".patterns.npy")
    np.save(stored, frames)
    arguments = [python, "-c", LIBERTEM, str(path), str(stored), str(count)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    stored.unlink()
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1])
    return float(ended.stdout.split()[-1])
