"""How long it takes to open a session of 50 GB, and how much memory, beside its peers.

    pip install -e ".[peers,bench]"
    python benchmarks/open_session.py

The file is sparse: every chunk of every frame is allocated, so that the index is as long as
that of a real session, but no pixel was written. Each opening is the best of several, in a
process of its own that has imported what it needs; memory is what that process grew by.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from session.columns import GrowingTable
from session.records import (
    FRAME_ROW_DTYPE,
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    SessionHeader,
)
from session.writer import SessionWriter

SIDE, FRAMES, SAMPLES = 1024, 25_000, 360_000  # u16: 52 GB; an hour of readings at 100 Hz
LIMIT_S = 0.2
TRIES = 5

_MEASURE = """
import json, resource, sys, time
path = sys.argv[1]
{setup}
def run():
{body}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best = 1e9
for _ in range({tries}):
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    best = min(best, time.perf_counter() - wall)
    cpu = time.process_time() - cpu
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([best, cpu, grown / 1024]))
"""

WAYS = {
    "plain h5py: open, shape of the frames": (
        "s.h5",
        "import h5py",
        "    with h5py.File(path) as f: f['entry/frames/camera/data'].shape",
    ),
    "Session.open, frames()": (
        "s.h5",
        "from session import Session",
        "    with Session.open(path) as s: s.frames('camera').shape",
    ),
    "Session.open, frames(), one frame": (
        "s.h5",
        "from session import Session",
        "    with Session.open(path) as s: s.frames('camera')[12_345]",
    ),
    "Session.open, frames().dask()": (
        "s.h5",
        "from session import Session\nimport dask.array",
        "    with Session.open(path) as s: s.frames('camera').dask()",
    ),
    "Session.open, a minute of samples": (
        "s.h5",
        "from session import Session\nimport pandas",
        "    with Session.open(path) as s: s.samples(from_ns=10**12, to_ns=10**12 + 6 * 10**10)",
    ),
    "Session.open, an hour of samples": (
        "s.h5",
        "from session import Session\nimport pandas",
        "    with Session.open(path) as s: s.samples()",
    ),
    "HyperSpy, lazy": (
        "s.hspy",
        "import hyperspy.api as hs",
        "    hs.load(path, lazy=True)",
    ),
    "zarr: open, shape": (
        "s.zarr",
        "import zarr",
        "    zarr.open(path, mode='r')['data'].shape",
    ),
}


def make(folder: Path) -> None:
    """Write the sparse session, and what stands for it with the peers."""
    camera = CameraHeader(
        name="camera",
        model="none",
        height=SIDE,
        width=SIDE,
        dtype="uint16",
        frame_rate_Hz=400.0,
        pixel_size_m=1e-9,
    )
    header = SessionHeader(
        title="fifty",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(camera,),
    )
    with SessionWriter(folder / "s.h5", header) as writer:
        rows = np.zeros(SAMPLES, SESSION_SAMPLE_DTYPE)
        rows["t_ns"] = np.arange(SAMPLES) * 10_000_000
        for start in range(0, SAMPLES, 4096):
            writer.append_samples(rows[start : start + 4096])
        first = FrameHeader(t_start_ns=0, exposure_ns=1, t_sigma_ns=1.0, index=0, device_start_ns=0)
        writer.append_frame("camera", first, np.zeros((SIDE, SIDE), np.uint16))
        writer.finish("done", "")
    with h5py.File(folder / "s.h5", "r+") as file:
        group = file["entry/frames/camera"]
        group["data"].resize(FRAMES, axis=0)  # allocates each chunk, and writes none
        table = GrowingTable(group, FRAME_ROW_DTYPE)
        stamps = np.zeros(FRAMES - 1, FRAME_ROW_DTYPE)
        stamps["t_start_ns"] = stamps["index"] = np.arange(1, FRAMES)
        table.append(stamps)
        table.commit()
    _peers(folder)


def _peers(folder: Path) -> None:
    import hyperspy.api as hs  # noqa: PLC0415 - a peer
    import zarr  # noqa: PLC0415

    hs.signals.Signal2D(np.zeros((2, 8, 8), np.uint16)).save(folder / "s.hspy", overwrite=True)
    with h5py.File(folder / "s.hspy", "r+") as file:
        experiment = next(iter(file["Experiments"].values()))
        attributes = dict(experiment["data"].attrs)
        del experiment["data"]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, SIDE, SIDE))
        made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((FRAMES, SIDE, SIDE))
        h5py.h5d.create(experiment.id, b"data", h5py.h5t.NATIVE_UINT16, space, made)
        experiment["data"].attrs.update(attributes)
        for name, size in (("axis-0", FRAMES), ("axis-1", SIDE), ("axis-2", SIDE)):
            experiment[name].attrs["size"] = size
    zarr.create_array(
        store=str(folder / "s.zarr"),
        name="data",
        shape=(FRAMES, SIDE, SIDE),
        chunks=(1, SIDE, SIDE),
        dtype="uint16",
    )


def main() -> None:
    """Make the files, measure, and print the table."""
    folder = Path(tempfile.mkdtemp(prefix="open-"))
    try:
        make(folder)
        found = (folder / "s.h5").stat()
        print(
            f"session of {found.st_size / 1e9:.1f} GB ({found.st_blocks * 512 / 1e6:.0f} MB on the"
            f" disk), {FRAMES} frames, {SAMPLES} samples"
        )
        opened_s = 0.0
        print(f"{'':40}{'best s':>9}{'cpu s':>9}{'MiB':>7}")
        for name, (file, setup, body) in WAYS.items():
            code = _MEASURE.format(setup=setup, body=body, tries=TRIES)
            command = [sys.executable, "-c", code, str(folder / file)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                print(f"{name:40} failed: {ran.stderr.strip().splitlines()[-1][:90]}")
                continue
            best_s, cpu_s, grown = json.loads(ran.stdout.splitlines()[-1])
            print(f"{name:40}{best_s:9.4f}{cpu_s:9.4f}{grown:7.1f}", flush=True)
            if name == "Session.open, frames()":
                opened_s = best_s
        verdict = "PASS" if 0 < opened_s < LIMIT_S else "MISS"
        print(f"{verdict}: a session of 50 GB opens in {opened_s:.3f} s (wanted: {LIMIT_S} s)")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
