"""From the end of an exposure to the set-point on the wire: the loop through the image.

    python benchmarks/loop_latency.py [--rates 20 100 400] [--stops 100] [--size 1024]

The detector of `merlin_400fps.py`, a process of its own, sends pictures of a phase front at a
paced rate to a whole `lamella run` in real time: driver, recorder, tracking process, rules,
guardian and a simulated 6430 on its socket. The plan is a row of short charges that a rule on
the image ends at once, with rests between. Of each stop the first frame that the step saw
whole decides. What is printed is the time from when that frame had left the detector's chip
(it is sent then) to when the instrument obeyed the set-point, by its own record, p50, p99 and
the longest; and beside it what takes its time: the tracker, and the reading that a stop must
wait for.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from merlin_400fps import START_NS, Job, detector
from merlin_run import SETUP, write_holder

from mocks.camera import new_scene
from mocks.scenario import load
from runner import Experiment, run
from session import Session
from session.truth import read_truth

PICTURES = 23
BEFORE_S = 4.0  # until the tracker has learned
CHARGE_S, REST_S = 0.25, 0.35  # at most, and between
CHARGE_A = 5e-12

PLAN = (
    SETUP
    + """
[record]
on = ["image_stop"]
before = "0.2 s"
idle_rate = "2 Hz"
after = "0.1 s"
[[track]]
name = "front"
tracker = "front"
[[step]]
ocv = {{ for = "{before_s} s" }}
"""
)
CHARGE = f"""
[[step]]
cp = {{{{ current = "5 pA" }}}}
until = ["front.position > -10 um, {{rule}}", "V > 4.2 V", "t > 8 s"]
[[step]]
ocv = {{{{ for = "{REST_S} s" }}}}
"""


def front_pictures(size: int) -> Iterator[np.ndarray]:
    """Yield pictures of one front on a stage that trembles."""
    scenario = load(
        "lco_lipon_li",
        height=size,
        width=size,
        pixel_size_m=0.8e-9,
        frame_rate_Hz=1.0,
        dose_rate_e_m2_s=8 / 0.8e-9**2,
    )
    scene = new_scene(scenario, 1)
    rng = np.random.default_rng(2)
    for i in range(PICTURES):
        dx, dy = 0.3 * rng.standard_normal(2)
        yield np.minimum(scene.frame(i, 200e-9, (float(dx), float(dy))), 63)


def latencies_ms(session: Session, truth: Path, begun_ns: int, rate_Hz: float) -> np.ndarray:
    """Return the time of each stop from the end of the frame that decided, shape (n,)."""
    table = session.frame_table("camera")
    stamped_s = (table["device_start_ns"] - START_NS) / 1e9
    # Not every frame is stored; the detector's counter runs beside the index.
    ahead = int(np.median(np.round(stamped_s * rate_Hz) - table["index"]))
    source = read_truth(truth)["source"]
    changed_ns, level_A = np.asarray(source["t_ns"]), np.asarray(source["level"])
    found = []
    for event in session.events():
        if event.kind != "image_stop" or event.data["watch"] != "met":
            continue
        counter = event.data["frame"] + ahead
        ended_ns = begun_ns + round(counter * 1e9 / rate_Hz)
        after = np.flatnonzero((changed_ns >= event.t_ns) & (np.abs(level_A) < CHARGE_A / 2))
        found.append((changed_ns[after[0]] - ended_ns) / 1e6)
    return np.array(found)


def measure(rate_Hz: float, stops: int, size: int, rule: str, folder: Path) -> None:
    """Run once, and print a line."""
    length_s = BEFORE_S + stops * (CHARGE_S + REST_S) + 4
    frames = round(rate_Hz * length_s)
    job = Job(size=size, depth=6, rate_Hz=rate_Hz, frames=frames, pictures=front_pictures)
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=detector, args=(job, told))
    process.start()
    control, data = told.get()
    text = PLAN.format(control=control, data=data, rate=rate_Hz, before_s=BEFORE_S)
    text += stops * CHARGE.format(rule=rule)
    write_holder(folder / "holder.h5")
    output = folder / "loop.h5"
    asyncio.run(run(Experiment.loads(text, folder=folder), output=output, overwrite=True))
    _, late_ms, _, begun_ns = told.get()
    process.join()
    with Session.open(output) as session:
        found_ms = latencies_ms(session, folder / "loop.truth.h5", begun_ns, rate_Hz)
        queue = session.attributes("queues/tracking")
        columns = session.sample_columns()
        reading_ms = np.median(np.diff(columns["t_ns"])) / 1e6
        ends = [e for e in session.events() if e.kind == "image_stop"]
    if not len(found_ms):
        raise SystemExit(f"no step was ended by an image: {[e.message for e in ends][:3]}")
    p50, p99 = np.percentile(found_ms, [50, 99])
    print(
        f"{rate_Hz:4.0f} frames/s, {rule}: {len(found_ms)} of {stops} stops, p50 {p50:.1f} ms, "
        f"p99 {p99:.1f} ms, longest {found_ms.max():.1f} ms  "
        f"(reading {reading_ms:.1f} ms; tracker at most {queue['slowest_us'] / 1e3:.1f} ms, "
        f"{queue['tracked']} frames looked at, {queue['left_out']} left out; sender late p99 "
        f"{late_ms[1]:.1f} ms)",
        flush=True,
    )


def main() -> None:
    """Print a line for each rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 100.0, 400.0])
    parser.add_argument("--stops", type=int, default=100)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rule", default="1 of 1 frames")
    parser.add_argument("--folder", type=Path, help="where sessions go; the system's, if not said")
    asked = parser.parse_args()
    print(
        f"load before {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {asked.size} pixels square"
    )
    for rate_Hz in asked.rates:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            measure(rate_Hz, asked.stops, asked.size, asked.rule, Path(folder))


if __name__ == "__main__":
    main()
