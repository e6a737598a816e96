"""SIGKILL at random moments: what a session keeps, and what `lamella recover` makes of it.

    pip install -e .
    python benchmarks/killed_recorder.py 200

Half of the kills hit the recorder, half the runner and the recorder at once. A client records
frames of 256 x 256 and readings as fast as they go, and says what was flushed.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from session import Session
from session.recorder import Recorder
from session.records import SESSION_SAMPLE_DTYPE, CameraHeader, FrameHeader, SessionHeader
from session.recover import recover
from session.validate import validate

AT_ONCE = 2


def _header() -> SessionHeader:
    camera = CameraHeader(
        name="camera",
        model="none",
        height=256,
        width=256,
        dtype="uint16",
        frame_rate_Hz=300.0,
        pixel_size_m=1e-9,
    )
    return SessionHeader(
        title="kill",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(camera,),
    )


async def _client(path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (256, 256), dtype=np.uint16)
    async with Recorder(path, _header()) as recorder:
        _say("started", recorder.pid or 0)
        told = 0
        for index in range(100_000):
            rows = np.zeros(5, SESSION_SAMPLE_DTYPE)
            rows["t_ns"] = rows["read_start_ns"] = rows["read_end_ns"] = time.monotonic_ns()
            rows["step"] = np.arange(told, told + 5)
            await recorder.samples(rows)
            told += 5
            t_ns = time.monotonic_ns()
            header = FrameHeader(
                t_start_ns=t_ns,
                exposure_ns=1_000_000,
                t_sigma_ns=1.0,
                index=index,
                device_start_ns=t_ns,
            )
            await recorder.frame("camera", header, np.roll(pixels, index))
            _say("told", told, index + 1, time.monotonic_ns())
            if index % 40 == 39:
                await recorder.flush()
                _say("flushed", told, index + 1)


def _say(word: str, *numbers: int) -> None:
    sys.stdout.write(" ".join([word, *map(str, numbers)]) + "\n")
    sys.stdout.flush()


@dataclass
class Outcome:
    """What became of one session."""

    closed_because: str = ""
    lost_s: float = float("nan")
    flushed_there: bool = False
    right: bool = False


def why_not_open(path: Path) -> str:
    """Return why h5py does not open a file as it is; empty where it does.

    A process that was killed holds its lock until the system has taken it down.
    """
    for _ in range(500):
        try:
            with h5py.File(path, "r") as file:
                return "" if file["entry/samples/t_ns"].shape else "no readings"
        except BlockingIOError as error:
            why = str(error)
            time.sleep(0.01)
        except (OSError, KeyError) as error:
            return str(error)
    return why


def kill_one(folder: Path, number: int, *, both: bool) -> Outcome:
    """Run a client, kill, look at what it left, recover it, look again."""
    path = folder / f"{number}.h5"
    client = subprocess.Popen(
        [sys.executable, __file__, "--client", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert client.stderr is not None
    if not (begun := client.stdout.readline().split()):
        raise RuntimeError(f"client {number} did not begin:\n{client.stderr.read()}")
    recorder = int(begun[1])
    time.sleep(random.uniform(0.2, 1.5))
    killed_ns = time.monotonic_ns()
    if both:
        client.kill()
    os.kill(recorder, signal.SIGKILL)
    said = [line.split() for line in client.stdout if line.endswith("\n")]
    client.kill()
    client.communicate()
    told = [tuple(map(int, words[1:])) for words in said if words[0] == "told"]
    flushed = [tuple(map(int, words[1:])) for words in said if words[0] == "flushed"]
    outcome = Outcome()
    outcome.closed_because = why_not_open(path)
    recovered = recover(path)
    with Session.open(recovered.path) as session:
        steps = session.sample_columns()["step"]
        frames, table = session.frames("camera"), session.frame_table("camera")
        sums = [zlib.crc32(pixels.tobytes()) for pixels in frames]
        outcome.right = (
            np.array_equal(steps, np.arange(len(steps)))
            and np.array_equal(sums, table["checksum"])
            and not validate(recovered.path, pixels=False)
        )
    samples, stored = max(flushed, default=(0, 0))
    outcome.flushed_there = len(steps) >= samples and len(sums) >= stored
    late = [t_ns for count, frame, t_ns in told if count > len(steps) or frame > len(sums)]
    outcome.lost_s = max(0.0, (killed_ns - min(late, default=killed_ns)) * 1e-9)
    for left in folder.glob(f"{number}.*"):
        left.unlink()
    return outcome


def main(count: int) -> None:
    """Kill and print."""
    with tempfile.TemporaryDirectory(dir=".") as name, ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(kill_one, Path(name), number, both=bool(number % 2))
            for number in range(count)
        ]
        found = []
        for job in jobs:
            found.append(job.result())
            if len(found) % 20 == 0:
                _print(found)


def _print(found: list[Outcome]) -> None:
    lost_s = np.array([outcome.lost_s for outcome in found])
    print(f"{len(found)} kills")
    print(f"  open in h5py as they are     {sum(not o.closed_because for o in found)}")
    print(f"  all flushed is there         {sum(o.flushed_there for o in found)}")
    print(f"  stamps and checksums right   {sum(o.right for o in found)}")
    print(
        f"  lost before the kill         median {np.median(lost_s):.3f} s, max "
        f"{lost_s.max():.3f} s",
        flush=True,
    )
    for why in {o.closed_because for o in found} - {""}:
        print(f"  not opened: {why}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        asyncio.run(_client(Path(sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
