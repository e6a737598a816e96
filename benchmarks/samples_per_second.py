"""Samples a second from an instrument to a record on disk: ours beside four others, in one run.

    pip install -e ".[bench]"
    python benchmarks/samples_per_second.py

All talk through pyvisa-py over a socket to one instrument that has every reading ready,
first with one query for each reading, then in blocks of 1000. Ours is what runs in `lamella
run`: the guardian judges each reading by the limits and counts its charge, the runner passes
it on, and the recorder writes all columns of the session with bounded flushes. For one
query each it is `run` itself. A plan with blocks of 1000 is refused, because nobody would
look at a cell for too long: there the same guardian and recorder are put together without
it. The others store time, voltage, current and status, and judge nothing:

* pyvisa-py into h5py: the query, its numbers, a resizable dataset, a flush every 512 rows;
* PyMeasure: a Procedure in its Worker, into its CSV file;
* QCoDeS: `add_result` of a measurement, into its database;
* bluesky: a RunEngine that counts a readable device, its documents into JSON lines.

Each is timed from its first reading to its last row on disk, as often as `ROUNDS`; printed
are the best and the median, and what share of pyvisa-py into h5py that is.
"""

import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pyvisa
from wire_smu import ServedSmu

from runner import Experiment, run
from runner.cell import GuardedCell
from runner.clock import ClockSpec, real_now_ns
from runner.header import session_header
from runner.messages import Block, GuardianSettings, StartStep
from runner.rows import session_rows
from session import Session
from session.recorder import Recorder

ROUNDS, SECONDS = 5, 3.0
BLOCK = 1000
COLUMNS = ("voltage_V", "current_A", "device_time_s", "status")

PLAN = """
title = "samples a second"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "RESOURCE"

[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
cp = { current = "20 pA" }
until = ["V > 4.2 V", "t > SECONDS s"]
"""

Way = Callable[[str, Path, int], float]
"""Measures for `SECONDS`; takes resource, folder and block, returns samples a second."""


# --- ours ---------------------------------------------------------------------------------


def lamella(resource: str, folder: Path, block: int) -> float:
    """Run an experiment; count what its step has stored between its first and last stamp."""
    experiment = Experiment.loads(
        PLAN.replace("RESOURCE", resource).replace("SECONDS", f"{SECONDS:g}"), folder=folder
    )
    output = folder / "session.h5"
    if block > 1:
        return asyncio.run(_lamella_in_blocks(experiment, output, block))
    asyncio.run(run(experiment, output=output))
    with Session.open(output) as session:
        samples = session.samples()
        ended = [event for event in session.events() if event.kind == "step_ended"]
    in_step = samples[samples["step"] == 0]
    return len(in_step) / ((ended[0].t_ns - in_step["read_start_ns"].iloc[0]) / 1e9)


async def _lamella_in_blocks(experiment: Experiment, output: Path, block: int) -> float:
    """Have the guardian hold a current and read blocks, and record all of them."""
    settings = GuardianSettings(
        driver="keithley6430",
        resource=experiment.potentiostat.resource,
        clock=ClockSpec(origin_ns=real_now_ns()),
        envelope=experiment.envelope,
        block=block,
    )
    count = 0
    async with GuardedCell(settings) as cell:
        connected = cell.get_connected()
        now_ns = real_now_ns()
        header = session_header(
            experiment,
            connected=connected,
            camera=None,
            simulated=False,
            start_time=datetime.now(UTC),
            host_start_ns=now_ns,
        )
        async with Recorder(output, header) as recorder:
            step = StartStep(index=0, step=experiment.steps[0], range_A=1e-10)
            cell.start(step)
            cell.renew(0)
            start = time.perf_counter()
            while time.perf_counter() - start < SECONDS:
                message = await cell.receive()
                if isinstance(message, Block):
                    await recorder.samples(session_rows(message, 0))
                    count += len(message.samples)
                    cell.renew(message.sequence)
            await recorder.finish("done")
            spent_s = time.perf_counter() - start
        cell.reason = "done"
    with Session.open(output) as session:
        if len(session.samples()) != count:
            raise SystemExit("not all readings were stored")
    return count / spent_s


# --- pyvisa-py into h5py ------------------------------------------------------------------


def _open(resource: str, block: int) -> pyvisa.resources.MessageBasedResource:
    visa = pyvisa.ResourceManager("@py").open_resource(
        resource, read_termination="\n", write_termination="\n"
    )
    visa.write(f":TRIG:COUN {block}")
    return visa


def _numbers(visa: pyvisa.resources.MessageBasedResource) -> np.ndarray:
    if (text := visa.query(":READ?")).count(",") == 3:
        return np.array([[float(part) for part in text.split(",")]])
    return np.array(text.split(","), dtype=float).reshape(-1, 4)


def bare(resource: str, folder: Path, block: int) -> float:
    """Query, parse, append, and flush every 512 rows: the least that keeps data."""
    visa, count = _open(resource, block), 0
    with h5py.File(folder / "bare.h5", "w") as file:
        table = file.create_dataset("samples", (0, 5), "f8", maxshape=(None, 5), chunks=(2048, 5))
        rows: list[tuple[float, ...]] = []
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            if block == 1:
                numbers = visa.query(":READ?").split(",")
                rows.append((time.time(), *map(float, numbers)))  # noqa: TID251 - as they do
                if len(rows) < 512:
                    continue
                new = np.array(rows)
                rows.clear()
            else:
                got = _numbers(visa)
                new = np.column_stack([np.full(len(got), time.time()), got])  # noqa: TID251
            table.resize(count + len(new), axis=0)
            table[count:] = new
            count += len(new)
            file.flush()
    visa.close()
    return count / (time.perf_counter() - start)


# --- PyMeasure ----------------------------------------------------------------------------


def pymeasure(resource: str, folder: Path, block: int) -> float:
    """Run a procedure in its worker; it emits each reading into a CSV file."""
    from pymeasure.experiment import FloatParameter, Procedure, Results, Worker  # noqa: PLC0415

    logging.getLogger("pymeasure").setLevel(logging.ERROR)

    class Reading(Procedure):
        seconds = FloatParameter("seconds", default=SECONDS)
        DATA_COLUMNS = ["time", *COLUMNS]  # noqa: RUF012 - its interface

        def execute(self) -> None:
            visa, start = _open(resource, block), time.perf_counter()
            while time.perf_counter() - start < self.seconds:
                for row in _numbers(visa).tolist():
                    self.emit(
                        "results",
                        dict(zip(self.DATA_COLUMNS, (time.time(), *row), strict=True)),  # noqa: TID251
                    )
            visa.close()

    path = folder / "pymeasure.csv"
    worker = Worker(Results(Reading(), str(path)))
    start = time.perf_counter()
    worker.start()
    worker.join(timeout=SECONDS + 60)
    spent_s = time.perf_counter() - start
    lines = [x for x in path.read_text().splitlines() if x and not x.startswith("#")]
    return (len(lines) - 1) / spent_s


# --- QCoDeS -------------------------------------------------------------------------------


def qcodes(resource: str, folder: Path, block: int) -> float:
    """Add each reading, or each block as arrays, to a dataset."""
    from qcodes.dataset import (  # noqa: PLC0415
        Measurement,
        initialise_or_create_database_at,
        load_or_create_experiment,
    )

    initialise_or_create_database_at(folder / "qcodes.db")
    measurement = Measurement(exp=load_or_create_experiment("bench", "wire"))
    kind = "numeric" if block == 1 else "array"
    for name in ("time", *COLUMNS):
        measurement.register_custom_parameter(name, paramtype=kind)
    visa, count = _open(resource, block), 0
    start = time.perf_counter()
    with measurement.run() as saver:
        while time.perf_counter() - start < SECONDS:
            got = _numbers(visa)
            columns = got[0].tolist() if block == 1 else list(got.T)
            now = time.time() if block == 1 else np.full(len(got), time.time())  # noqa: TID251
            saver.add_result(("time", now), *zip(COLUMNS, columns, strict=True))
            count += len(got)
    spent_s = time.perf_counter() - start
    visa.close()
    return count / spent_s


# --- bluesky ------------------------------------------------------------------------------


def bluesky(resource: str, folder: Path, block: int) -> float:
    """Count a readable device with a RunEngine; its documents go into JSON lines."""
    from bluesky import RunEngine  # noqa: PLC0415
    from bluesky import plan_stubs as stubs  # noqa: PLC0415

    visa = _open(resource, block)

    class Reader:
        name, parent = "smu", None

        def read(self) -> dict[str, dict[str, object]]:
            got = _numbers(visa)
            now = time.time()  # noqa: TID251
            columns = got[0].tolist() if block == 1 else got.T.tolist()
            return {
                name: {"value": value, "timestamp": now}
                for name, value in zip(COLUMNS, columns, strict=True)
            }

        def describe(self) -> dict[str, dict[str, object]]:
            shape = [] if block == 1 else [block]
            dtype = "number" if block == 1 else "array"
            return {n: {"source": "smu", "dtype": dtype, "shape": shape} for n in COLUMNS}

        def read_configuration(self) -> dict[str, object]:
            return {}

        def describe_configuration(self) -> dict[str, object]:
            return {}

    counted = 0

    def plan() -> Iterator[object]:
        nonlocal counted
        device = Reader()
        yield from stubs.open_run()
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            yield from stubs.trigger_and_read([device])
            counted += block
        yield from stubs.close_run()

    engine = RunEngine({}, context_managers=[])
    with (folder / "bluesky.jsonl").open("w") as file:
        engine.subscribe(lambda name, doc: file.write(json.dumps([name, doc]) + "\n"))
        start = time.perf_counter()
        engine(plan())
    spent_s = time.perf_counter() - start
    visa.close()
    return counted / spent_s


WAYS: dict[str, Way] = {
    "pyvisa-py into h5py": bare,
    "Lamella": lamella,
    "PyMeasure": pymeasure,
    "QCoDeS": qcodes,
    "bluesky": bluesky,
}


def measure(block: int) -> None:
    """Print a table for one size of block."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            with ServedSmu() as smu, tempfile.TemporaryDirectory() as folder:
                found[name].append(way(smu.resource, Path(folder), block))
    what = "one query each" if block == 1 else f"blocks of {block}"
    print(f"\n{what:<24}{'best /s':>12}{'median /s':>12}{'share of bare':>16}")
    floor = statistics.median(found["pyvisa-py into h5py"])
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"{name:<24}{max(rates):>12,.0f}{median:>12,.0f}{100 * median / floor:>14.0f} %")


def main() -> None:
    """Measure all, twice."""
    sizes = [int(word) for word in sys.argv[1:]] or [1, BLOCK]
    for block in sizes:
        measure(block)


if __name__ == "__main__":
    main()
