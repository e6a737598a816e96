"""Rows a second into storage, and rows lost on SIGKILL: ours beside QCoDeS and PyMeasure.

    pip install -e ".[bench]"
    python benchmarks/sample_path.py        # three kills of each
    python benchmarks/sample_path.py 10

Linux. Each is given the same rows (number, time, voltage, current, status), one a call (ours in
blocks of 100, too), as fast as it takes them, by a process of its own; that process is killed
after a while. Told are the rows whose call had returned by then; kept are those that can be
read afterwards, ours after `recover` where that is needed. The rate is from the first call to
the last row in its file when nobody is killed. Ours has the disk sync its journal twice a
second; QCoDeS writes into its database from time to time, with SQLite's sync at each commit;
PyMeasure writes lines into a CSV file and never syncs it.
"""

import asyncio
import csv
import json
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qcodes.dataset as qc
from pymeasure.experiment import FloatParameter, Procedure, Results, Worker

from session import Session
from session.recorder import Recorder
from session.records import SESSION_SAMPLE_DTYPE, SessionHeader
from session.recover import recover

SECONDS = 3.0
FORK = multiprocessing.get_context("fork")
COLUMNS = ("number", "t_ns", "voltage", "current", "status")


class Progress:
    """How many rows were told; it outlives whoever wrote it."""

    def __init__(self, folder: Path) -> None:
        self._shared = np.memmap(folder / "progress.bin", np.int64, "w+", shape=4)

    def say(self, told: int) -> None:
        """Say that so many calls have returned."""
        self._shared[0] = told

    def note(self, pid: int) -> None:
        """Say which process writes, where that is another one."""
        self._shared[1] = pid

    def end(self, spent_s: float) -> None:
        """Say that all is in the file."""
        self._shared[2] = round(spent_s * 1e9)

    @property
    def told(self) -> int:
        """Rows told."""
        return int(self._shared[0])

    @property
    def writer_pid(self) -> int:
        """Process that writes; 0 where it is the teller."""
        return int(self._shared[1])

    @property
    def spent_s(self) -> float:
        """Time from the first call to the last row in the file."""
        return float(self._shared[2]) * 1e-9


def row_of(number: int) -> tuple[int, int, float, float, int]:
    """Return a row."""
    return number, time.monotonic_ns(), 3.5 + 1e-6 * number, 5e-12, 0


# --- ours ---------------------------------------------------------------------------------


def lamella(folder: Path, progress: Progress, seconds: float, block: int = 1) -> None:
    """Tell a recorder of rows, so many a call."""
    header = SessionHeader(
        title="rows",
        experiment_text="",
        start_time="2025-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=True,
    )

    async def tell() -> None:
        async with Recorder(folder / "s.h5", header) as recorder:
            progress.note(recorder.pid or 0)
            begun, number = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                rows = np.zeros(block, SESSION_SAMPLE_DTYPE)
                told = np.array([row_of(number + n) for n in range(block)])
                names = ["step", "t_ns", "voltage", "current", "status"]
                for name, values in zip(names, told.T, strict=True):
                    rows[name] = values
                await recorder.samples(rows)
                number += block
                progress.say(number)
            await recorder.finish("done")
            progress.end(time.perf_counter() - begun)

    asyncio.run(tell())


def lamella_blocks(folder: Path, progress: Progress, seconds: float) -> None:
    """Tell a recorder of blocks of 100 rows."""
    lamella(folder, progress, seconds, block=100)


def kept_by_lamella(folder: Path) -> int:
    """Return how many rows there are; each must be there, in order."""
    with Session.open(recover(folder / "s.h5").path) as session:
        numbers = session.sample_columns()["step"]
    assert np.array_equal(numbers, np.arange(len(numbers)))
    return len(numbers)


# --- QCoDeS -------------------------------------------------------------------------------


def qcodes(folder: Path, progress: Progress, seconds: float) -> None:
    """Add each row to a data set."""
    qc.initialise_or_create_database_at(folder / "q.db")
    measurement = qc.Measurement(exp=qc.load_or_create_experiment("bench", "rows"))
    for name in COLUMNS:
        measurement.register_custom_parameter(name, paramtype="numeric")
    with measurement.run() as saver:
        begun, number = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            saver.add_result(*zip(COLUMNS, row_of(number), strict=True))
            number += 1
            progress.say(number)
    progress.end(time.perf_counter() - begun)


def kept_by_qcodes(folder: Path) -> int:
    """Return how many rows the database has."""
    with sqlite3.connect(folder / "q.db") as database:
        (name,) = database.execute("SELECT result_table_name FROM runs").fetchone()
        (count,) = database.execute(f'SELECT COUNT(voltage) FROM "{name}"').fetchone()
    return int(count)


# --- PyMeasure ----------------------------------------------------------------------------


def pymeasure(folder: Path, progress: Progress, seconds: float) -> None:
    """Have a worker's recorder write each row that a procedure emits."""
    logging.getLogger("pymeasure").setLevel(logging.ERROR)

    class Rows(Procedure):
        seconds = FloatParameter("seconds", default=SECONDS)
        DATA_COLUMNS = list(COLUMNS)  # noqa: RUF012 - its interface

        def execute(self) -> None:
            begun, number = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                self.emit("results", dict(zip(COLUMNS, row_of(number), strict=True)))
                number += 1
                progress.say(number)

    worker = Worker(Results(Rows(), str(folder / "p.csv")))
    begun = time.perf_counter()
    worker.start()
    worker.join(timeout=seconds + 120)
    progress.end(time.perf_counter() - begun)


def kept_by_pymeasure(folder: Path) -> int:
    """Return how many whole rows the file has."""
    with (folder / "p.csv").open() as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    return sum(len(row) == len(COLUMNS) for row in rows[1:])


Way = tuple[Callable[[Path, Progress, float], None], Callable[[Path], int], bool]
WAYS: dict[str, Way] = {
    "Lamella, runner killed": (lamella, kept_by_lamella, False),
    "Lamella, runner and recorder killed": (lamella, kept_by_lamella, True),
    "Lamella, blocks of 100, both killed": (lamella_blocks, kept_by_lamella, True),
    "QCoDeS": (qcodes, kept_by_qcodes, False),
    "PyMeasure": (pymeasure, kept_by_pymeasure, False),
}


def rate(way: Way) -> float:
    """Return rows a second, all of them in the file at the end."""
    tell, kept, _ = way
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        progress = Progress(folder)
        child = FORK.Process(target=tell, args=(folder, progress, SECONDS))
        child.start()
        child.join()
        count = kept(folder)
        assert count == progress.told, (count, progress.told)
        return count / progress.spent_s


def kill(way: Way) -> tuple[int, int, float]:
    """Return rows told, rows kept, and for how long they were told."""
    tell, kept, both = way
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        progress = Progress(folder)
        child = FORK.Process(target=tell, args=(folder, progress, 3600.0))
        child.start()
        while not progress.told:
            time.sleep(0.001)
        begun = time.perf_counter()
        time.sleep(random.uniform(1.0, SECONDS))
        child.kill()
        if both:
            os.kill(progress.writer_pid, signal.SIGKILL)
        child.join()
        lasted = time.perf_counter() - begun
        while not both and progress.writer_pid and is_running(progress.writer_pid):
            time.sleep(0.01)  # the recorder closes the file
        return progress.told, kept(folder), lasted


def is_running(pid: int) -> bool:
    """Tell whether a process runs still."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def main(kills: int) -> None:
    """Print rates, and losses."""
    rates = {tell.__name__: 0.0 for tell, _, _ in WAYS.values()}
    for way in WAYS.values():
        if not rates[way[0].__name__]:
            rates[way[0].__name__] = rate(way)
    print(f"{'':36}{'rows/s':>10}{'told':>10}{'lost':>10}{'most lost':>11}{'share':>8}{'of s':>7}")
    for name, way in WAYS.items():
        found = [kill(way) for _ in range(kills)]
        lost = [max(0, told - kept) for told, kept, _ in found]
        told = sum(told for told, _, _ in found)
        seconds = statistics.mean(s for _, _, s in found)
        print(
            f"{name:36}{rates[way[0].__name__]:>10,.0f}{told:>10,}{sum(lost):>10,}{max(lost):>11,}"
            f"{100 * sum(lost) / told:>7.1f}%{seconds:>7.1f}",
            flush=True,
        )
    print(json.dumps({"kills": kills, "rates": {n: round(r) for n, r in rates.items()}}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
