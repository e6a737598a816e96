"""A whole run with a Merlin detector: frames from its socket to the session, none lost.

    python benchmarks/merlin_run.py [--rate 400] [--seconds 60] [--size 1024] [--folder .]

The detector of `merlin_400fps.py`, in a process of its own, sends at a paced rate to `lamella
run`, which reads a simulated potentiostat in real time, stamps each frame, and records both.
Printed are the frames that were sent, stored and lost, how full the ring of the recorder was,
by how much a sleep of 5 ms of the runner's event loop was late, and how many readings were
stored. A minute of 1024 x 1024 at 400 a second is a file of 25 GB, which is removed again.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
from merlin_400fps import Job, asked_of, detector, lag, say_in_ms

from runner import Experiment, run
from session import Session
from session.calibration_file import write_calibration

BEFORE_S, AFTER_S = 0.5, 1.5  # of the plan, beside the time in which the detector sends

SETUP = """
title = "frames of a Merlin"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = {{ material = "LiCoO2", thickness = "500 nm" }}
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
calibration = "holder.h5"
[camera]
driver = "merlin"
control_port = {control}
data_port = {data}
frame_rate = "{rate} Hz"
pixel_size = "0.8 nm"
dose_rate = "0.01 e/angstrom^2/s"
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
"""
PLAN = (
    SETUP
    + """
[[step]]
ocv = {{ for = "{length} s" }}
"""
)


def write_holder(path: Path) -> None:
    """Write terms of a holder that nobody measured: to measure one takes minutes."""
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S", "conductance_sigma_S"),
        *("dielectric_F", "dielectric_sigma_F", "dielectric_tau_s", "offset_A"),
        *("offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-10, "source": "made up"}
    write_calibration(path, attributes, {"voltage": np.zeros(3)})


async def film(experiment: Experiment, output: Path) -> list[float]:
    """Run it; return how late the event loop was, in s."""
    lags_s: list[float] = []
    measuring = asyncio.create_task(lag(lags_s))
    try:
        await run(experiment, output=output)
    finally:
        measuring.cancel()
    return lags_s


def tell(output: Path, job: Job) -> None:
    """Print what the session holds."""
    with Session.open(output) as session:
        table = session.frame_table("camera")
        index, sigma_ns = table["index"], table["t_sigma_ns"]
        readings = len(session.samples())
        ring = session.attributes("queues/recorder.camera")
        way = session.attributes("instrument/camera").get("frames_written", "")
        faults = [e.message for e in session.events() if e.kind in ("frame_fault", "gap", "fault")]
    lost = job.frames - len(np.unique(index))
    print(f"frames sent {job.frames}, stored {len(index)}, lost {lost}, faults {faults}")
    print(f"time of a frame: sigma {np.median(sigma_ns) / 1e3:.1f} us in the middle")
    used = f"most in use {ring['high_water']}, waits {ring['waits']}"
    print(f"ring of {ring['slots']} slots, {used}; {way}")
    print(f"readings stored {readings}")


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path())
    asked, job = asked_of(parser, seconds=60.0)
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=detector, args=(job, told))
    process.start()
    control, data = told.get()
    length_s = BEFORE_S + asked.seconds + AFTER_S
    text = PLAN.format(control=control, data=data, rate=asked.rate, length=length_s)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        output = Path(folder) / "merlin.h5"
        write_holder(Path(folder) / "holder.h5")
        experiment = Experiment.loads(text, folder=Path(folder))
        lags_s = asyncio.run(film(experiment, output))
        tell(output, job)
    sent, late_ms, *_ = told.get()
    process.join()
    say_in_ms("event loop late", np.percentile(np.array(lags_s) * 1e3, [50, 99, 100]))
    say_in_ms(f"sent {sent}, the sender late", late_ms)
    print(f"load before {before:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
