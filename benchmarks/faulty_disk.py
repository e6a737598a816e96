"""A disk that fails: at every call of a short run, and what is kept then.

    pip install -e .
    python benchmarks/faulty_disk.py                    # all, every n
    python benchmarks/faulty_disk.py calls --every 7    # every seventh call fails
    python benchmarks/faulty_disk.py kills full slow --kills 200 --compression bitshuffle-lz4

Linux with gcc. The recorder runs in a process of its own, as in `lamella run`, told over its
pipe; for each n the n-th write, sync or resize of the session or of its journal fails, or is
the last before a SIGKILL. Then `recover` is run, and what it makes is held against what was
told and acknowledged. The same for kills at random moments, for a tmpfs that is full (as
root), and for a disk whose syncs take seconds.
"""

import argparse
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from failing_calls import Call, FailingCalls, Fault, How, load

from session import Session, recorder_process
from session.errors import SessionError
from session.messages import (
    Degraded,
    Event,
    Exchanges,
    Failed,
    Finish,
    Finished,
    Flush,
    Flushed,
    Frame,
    Released,
    Samples,
    Started,
)
from session.records import (
    EXCHANGE_DTYPE,
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    SessionHeader,
)
from session.recover import recover
from session.ring import FrameRing
from session.validate import validate

FRAMES, ROWS, SHAPE = 12, 5, (64, 64)
FLUSH_EVERY = 4
PATIENCE_S = 10.0
TRACEBACK = 70
FEW_CALLS = 30
OPENS_NOT = "h5py does not open the file as it is; recover is held against what was told"
SESSION, JOURNAL = ".h5", ".h5.journal"

FAULTS = (
    Fault(ending=SESSION, calls=Call.WRITE, how=How.FAIL, number=errno.EIO),
    Fault(ending=SESSION, calls=Call.WRITE, how=How.FAIL, number=errno.EIO, stays=True),
    Fault(ending=SESSION, calls=Call.WRITE, how=How.FAIL, number=errno.ENOSPC, stays=True),
    Fault(ending=SESSION, calls=Call.WRITE, how=How.SHORT),
    Fault(ending=SESSION, calls=Call.RESIZE, how=How.FAIL, number=errno.ENOSPC),
    Fault(ending=SESSION, calls=Call.SYNC, how=How.FAIL, number=errno.EIO),
    Fault(ending=SESSION, calls=Call.ANY, how=How.KILL),
    Fault(ending=SESSION, calls=Call.WRITE, how=How.KILL_HALF),
    Fault(ending=JOURNAL, calls=Call.WRITE, how=How.FAIL, number=errno.EIO),
    Fault(ending=JOURNAL, calls=Call.WRITE, how=How.FAIL, number=errno.EIO, stays=True),
    Fault(ending=JOURNAL, calls=Call.WRITE, how=How.FAIL, number=errno.ENOSPC, stays=True),
    Fault(ending=JOURNAL, calls=Call.WRITE, how=How.SHORT),
    Fault(ending=JOURNAL, calls=Call.RESIZE, how=How.FAIL, number=errno.ENOSPC),
    Fault(ending=JOURNAL, calls=Call.SYNC, how=How.FAIL, number=errno.EIO),
    Fault(ending=JOURNAL, calls=Call.ANY, how=How.KILL),
    Fault(ending=JOURNAL, calls=Call.WRITE, how=How.KILL_HALF),
    Fault(ending="", calls=Call.WRITE | Call.SYNC, how=How.FAIL, number=errno.EIO, stays=True),
)


@dataclass
class Told:
    """What the recorder was told, and what it acknowledged."""

    rows: int = 0
    frames: int = 0
    acknowledged_rows: int = 0
    acknowledged_frames: int = 0
    ended: str = ""
    troubles: list[str] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    kept_rows: int = 0
    kept_frames: int = 0

    @property
    def degraded(self) -> bool:
        """True when it was said that frames are not stored."""
        return any("frames are not stored" in text for text in self.troubles)


def pixels_of(index: int) -> np.ndarray[Any, Any]:
    """Return a frame that no other frame is like."""
    return np.random.default_rng(index).integers(0, 2**12, SHAPE, dtype=np.uint16)


def header(compression: str) -> SessionHeader:
    """Return what the session is of."""
    camera = CameraHeader(
        name="camera",
        model="none",
        height=SHAPE[0],
        width=SHAPE[1],
        dtype="uint16",
        frame_rate_Hz=100.0,
        pixel_size_m=1e-9,
        compression=compression,
    )
    return SessionHeader(
        title="faults",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(camera,),
        clocks=("camera",),
    )


def samples_of(first: int) -> np.ndarray[Any, Any]:
    """Return readings that carry their number."""
    rows = np.zeros(ROWS, SESSION_SAMPLE_DTYPE)
    number = np.arange(first, first + ROWS)
    rows["t_ns"] = rows["read_start_ns"] = rows["read_end_ns"] = 1_000_000 * (number + 1)
    rows["step"] = number
    return rows


class Run:
    """A recorder that was forked off, and what it was told.

    Parameters
    ----------
    path
        The session.
    arm
        Called in the recorder's process before it begins.
    of
        What the session is of.
    """

    def __init__(
        self,
        path: Path,
        arm: Callable[[], object],
        frames: int = FRAMES,
        *,
        of: SessionHeader,
    ) -> None:
        self.told = Told()
        self._frames = frames
        self._ring = FrameRing.create(slots=32, height=SHAPE[0], width=SHAPE[1], dtype="uint16")
        self._pipe, theirs = multiprocessing.get_context("fork").Pipe()
        self.pid = os.fork()
        if not self.pid:
            code = TRACEBACK
            try:
                self._pipe.close()
                recorder_process.JOURNAL_SYNC_INTERVAL_S = 0.002
                arm()
                spec = {"camera": self._ring.spec}
                recorder_process.run_recorder(theirs, path, of, spec)
                code = 0
            finally:
                os._exit(code)
        theirs.close()

    def play(self, on_start: Callable[[], object] = lambda: None) -> int:
        """Tell all of it; return how the process ended, as `os.waitpid` has it."""
        try:
            if self._hear(Started):
                on_start()
                self._tell()
        except (EOFError, OSError):
            self.told.ended = self.told.ended or "gone"
        except Silent:
            self.told.ended = "silent"
            os.kill(self.pid, signal.SIGKILL)
        self._pipe.close()
        _, status = os.waitpid(self.pid, 0)
        self._ring.close()
        self._ring.unlink()
        return status

    def _tell(self) -> None:
        told = self.told
        for index in range(self._frames):
            self._tell_round(index)
            told.times_ns.append(time.monotonic_ns())
            if index % FLUSH_EVERY == FLUSH_EVERY - 1:
                self._pipe.send(Flush())
                if not self._hear(Flushed):
                    return
                told.acknowledged_rows = told.rows
                if not told.degraded:  # from there on, frames are not stored, and it was said
                    told.acknowledged_frames = told.frames
                time.sleep(0.004)  # for a sync between two flushes
        self._pipe.send(Finish("done", "2025-01-01T00:00:01+00:00"))
        if self._hear(Finished):
            told.ended = "finished"

    def _tell_round(self, index: int) -> None:
        told = self.told
        self._pipe.send(Samples(samples_of(told.rows)))
        told.rows += ROWS
        t_ns = 1_000_000 * told.rows
        header = FrameHeader(
            t_start_ns=t_ns,
            exposure_ns=1_000_000,
            t_sigma_ns=1.0,
            index=index,
            device_start_ns=t_ns,
        )
        while self._ring.is_full:
            self._hear(Released)
        self._pipe.send(Frame("camera", self._ring.put(pixels_of(index)), header))
        told.frames += 1
        clock = "node" if index > FRAMES // 2 else "camera"
        self._pipe.send(Exchanges(clock, np.zeros(2, EXCHANGE_DTYPE)))
        self._pipe.send(Event(t_ns, "note", "test", f"event {index}", "{}"))

    def _hear(self, wanted: type) -> bool:
        while self._pipe.poll(PATIENCE_S):
            answer = self._pipe.recv()
            if isinstance(answer, Released):
                self._ring.release(answer.count)
            if isinstance(answer, Degraded):
                self.told.troubles.append(answer.text)
            if isinstance(answer, Failed):
                self.told.ended = f"failed: {answer.text}"
                return False
            if isinstance(answer, wanted):
                return True
        raise Silent


class Silent(Exception):
    """The recorder does not answer."""


def one(
    faults: FailingCalls, folder: Path, fault: Fault, at: int, of: SessionHeader
) -> tuple[str, list[str]]:
    """Run once; return how the run ended, and what is wrong with what was kept."""
    path = folder / "s.h5"
    run = Run(path, lambda: faults.arm(fault, at), of=of)
    status = run.play()
    killed = fault.how in (How.KILL, How.KILL_HALF)
    died_of = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    wrong = list(look(path, run.told))
    if died_of and not (killed and died_of == signal.SIGKILL):
        wrong.append(f"the recorder died of signal {died_of}")
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == TRACEBACK:
        wrong.append("the recorder ended with an error that nobody took")
    if not killed and run.told.ended in ("gone", "silent"):
        wrong.append(f"the recorder is {run.told.ended} without a word")
    for left in folder.iterdir():
        left.unlink()
    return run.told.ended.split(":")[0], wrong


def look(path: Path, told: Told) -> Iterator[str]:
    """Yield what is wrong with what a run left."""
    if not opens(path) and told.acknowledged_rows:
        yield OPENS_NOT
    try:
        recovered = recover(path)
    except SessionError as error:
        if told.acknowledged_rows:
            yield f"recover: {error}"
        return
    yield from compare(recovered.path, told)
    if recovered.path != path:  # else a journal beside it is told of, rightly
        for problem in validate(recovered.path):
            yield f"recovered: {problem.path}: {problem.message}"


def opens(path: Path) -> bool:
    """Tell whether h5py opens a file as it is."""
    try:
        with h5py.File(path, "r") as file:
            return file["entry/samples/t_ns"].shape is not None
    except (OSError, KeyError):
        return False


def compare(path: Path, told: Told) -> Iterator[str]:
    """Hold a session against what was told; note what it holds."""
    with Session.open(path) as session:
        steps = session.sample_columns()["step"]
        table, frames = session.frame_table("camera"), session.frames("camera")
        index = table["index"]
        right = [
            n >= 0 and np.array_equal(p, pixels_of(int(n)))
            for n, p in zip(index, frames, strict=True)
        ]
        sums = [zlib.crc32(pixels.tobytes()) for pixels in frames]
        events = [event.message for event in session.events()]
    told.kept_rows, told.kept_frames = len(steps), len(index)
    if not all(right):
        yield f"{right.count(False)} frames are not what was told"
    if not np.array_equal(table["checksum"], sums):
        yield "a checksum is wrong"
    if not np.array_equal(steps, np.arange(len(steps))):
        yield "readings are not in order"
    if len(steps) < told.acknowledged_rows:
        yield f"{told.acknowledged_rows - len(steps)} acknowledged readings lost"
    missing = told.acknowledged_frames - int(np.count_nonzero(index < told.acknowledged_frames))
    if missing > 0:
        yield f"{missing} acknowledged frames lost"
    went_on = told.ended == "finished" or told.ended.startswith("failed: the run ended")
    if (
        told.troubles
        and went_on
        and not any("failed" in event or "full" in event for event in events)
    ):
        yield "no event says what was wrong"


def sweep(faults: FailingCalls, folder: Path, fault: Fault, every: int, of: SessionHeader) -> None:
    """Have every n-th call fail, and print what came of it."""
    ends: Counter[str] = Counter()
    wrong: dict[str, list[int]] = {}
    count = calls_of(faults, folder, fault, of)
    for at in range(1, count + 1, every if count > FEW_CALLS else 1):
        ended, problems = one(faults, folder, fault, at, of)
        ends[ended] += 1
        for problem in problems:
            wrong.setdefault(problem, []).append(at)
    print(f"{fault!s:50} n = 1..{count}: {dict(ends)}", flush=True)
    for problem, where in wrong.items():
        print(f"      {len(where):4} x {problem} (n = {where[:8]})", flush=True)


def calls_of(faults: FailingCalls, folder: Path, fault: Fault, of: SessionHeader) -> int:
    """Return how many such calls a run makes that meets no fault."""
    quiet = Fault(ending=fault.ending, calls=fault.calls, how=How.COUNT)
    at_end, count = multiprocessing.get_context("fork").Pipe(duplex=False)
    path = folder / "s.h5"

    def arm() -> None:
        faults.arm(quiet, 0)
        finish = recorder_process.Journal.remove

        def note(journal: recorder_process.Journal) -> None:
            count.send(faults.count())
            finish(journal)

        recorder_process.Journal.remove = note

    run = Run(path, arm, of=of)
    run.play()
    assert run.told.ended == "finished", run.told
    path.unlink()
    return int(at_end.recv())


# --- at moments that nobody chose ---------------------------------------------------------


def kill_at_random(folder: Path, count: int, of: SessionHeader) -> None:
    """Kill the recorder at random moments, and print what is left."""
    found: list[tuple[bool, float, list[str]]] = []
    for number in range(1, count + 1):
        path = folder / "s.h5"
        run = Run(path, lambda: None, frames=10**6, of=of)
        killed: list[int] = []

        def kill(pid: int = run.pid, killed: list[int] = killed) -> None:
            killed.append(time.monotonic_ns())
            os.kill(pid, signal.SIGKILL)

        timer = threading.Timer(random.uniform(0.1, 1.0), kill)
        run.play(timer.start)
        timer.join()
        opened = opens(path)
        wrong = [problem for problem in look(path, run.told) if problem != OPENS_NOT]
        told = run.told
        whole = min(told.kept_rows // ROWS, told.kept_frames)
        late = [t_ns for t_ns in told.times_ns[whole:] if t_ns < killed[0]]
        found.append((opened, max(0, killed[0] - min(late, default=killed[0])) * 1e-9, wrong))
        for left in folder.iterdir():
            left.unlink()
        if number % 20 == 0:
            lost_s = [lost for _, lost, _ in found]
            print(
                f"{number:4} kills: {sum(o for o, _, _ in found)} open in h5py as they are,"
                f" {sum(not w for _, _, w in found)} right and whole after recover; lost before"
                f" the kill: median {np.median(lost_s):.3f} s, at most {max(lost_s):.3f} s",
                flush=True,
            )
            print(*{w for _, _, wrong in found for w in wrong}, sep="\n", end="", flush=True)


# --- a disk that is full, a disk that is slow ---------------------------------------------


def fill(folder: Path, of: SessionHeader) -> None:
    """Record into a small tmpfs until nothing goes any more, and print what is left."""
    disk = folder / "disk"
    disk.mkdir()
    for megabytes in (4, 8, 16):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", disk],
            check=False,
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            print(f"no tmpfs can be mounted here ({mounted.stderr.strip()}): not measured")
            return
        try:
            path = disk / "s.h5"
            run = Run(path, lambda: None, frames=3000, of=of)
            status = run.play()
            told = run.told
            print(f"tmpfs of {megabytes} MB: told {told.rows} readings and {told.frames} frames")
            print(f"  the recorder ended with {status}, the run {told.ended[:160] or 'is silent'}")
            for trouble in told.troubles:
                print(f"  told: {trouble[:160]}")
            elsewhere = folder / "recovered.h5"
            whole = recover(path, elsewhere).path
            wrong = list(compare(whole, told))
            print(f"  kept: {told.kept_rows} readings, {told.kept_frames} frames; wrong: {wrong}")
            print(*(f"  verify: {p.message}" for p in validate(whole)), sep="\n", end="")
            elsewhere.unlink(missing_ok=True)
        finally:
            subprocess.run(["umount", disk], check=True)
    disk.rmdir()


def slow_down(faults: FailingCalls, folder: Path, of: SessionHeader, sync_ms: int = 2000) -> None:
    """Record while each sync takes seconds, and print whether anybody waited for it."""
    path = folder / "s.h5"
    for ms in (0, sync_ms):
        slow = Fault(ending="", calls=Call.SYNC, how=How.SLOW, number=ms, stays=True)
        run = Run(path, lambda slow=slow: faults.arm(slow, 1), frames=400, of=of)
        begun = time.monotonic()
        run.play()
        spent_s = time.monotonic() - begun
        gaps_s = np.diff(run.told.times_ns) * 1e-9
        wrong = list(look(path, run.told))
        print(
            f"each sync {ms} ms slower: {run.told.ended}, {spent_s:.1f} s, longest wait between"
            f" two rounds {gaps_s.max():.3f} s; kept {run.told.kept_rows} of {run.told.rows}"
            f" readings, {run.told.kept_frames} of {run.told.frames} frames; wrong: {wrong}",
            flush=True,
        )
        path.unlink()


def main(parts: list[str], every: int, kills: int, compression: str) -> None:
    """Do what was asked for."""
    faults, of = load(), header(compression)
    with tempfile.TemporaryDirectory(dir=".") as name:
        if "kills" in parts:
            kill_at_random(Path(name), kills, of)
        if "full" in parts:
            fill(Path(name), of)
        if "slow" in parts:
            slow_down(faults, Path(name), of)
        if "calls" in parts:
            for fault in FAULTS:
                sweep(faults, Path(name), fault, every, of)


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("parts", nargs="*", default=["kills", "full", "slow", "calls"])
    reader.add_argument("--every", type=int, default=1, help="only every n-th call fails")
    reader.add_argument("--kills", type=int, default=200)
    reader.add_argument("--compression", choices=["none", "bitshuffle-lz4"], default="none")
    asked = reader.parse_args()
    main(asked.parts, asked.every, asked.kills, asked.compression)
