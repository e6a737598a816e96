"""An hour of a simulated 6430: the times of its readings and its charge against the truth.

    python benchmarks/an_hour.py

The instrument counts 1024 ticks of a second as 1000 ms, and its oscillator is off besides.
A cell is charged at 5 pA for an hour of virtual time, in some minutes of real time. Printed
are the errors of the fitted times against the simulation's own, beside those of who takes
the instrument's TIME for seconds, as other drivers do; and the error of the charge, by
either, against what really came out of the source.
"""

import asyncio
import math
import tempfile
from pathlib import Path

import numpy as np

from runner import Experiment, run
from session import Session
from session.truth import read_truth

PLAN = """
title = "an hour"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
range = "100 pA"
[mock]
seed = 11
overrides = { share_of_specification = 0 }
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "30 nC"
[[step]]
cp = { current = "5 pA" }
until = ["V > 4.2 V", "t > 3600 s"]
"""


def main() -> None:
    """Print a small table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.h5"
        asyncio.run(run(Experiment.loads(PLAN, folder=path.parent), output=path, speed=math.inf))
        with Session.open(path) as session:
            columns = session.sample_columns()
        truth = read_truth(path.with_name("hour.truth.h5"))
    count = len(columns["t_ns"])
    true_ns = np.asarray(truth["samples"]["t_ns"])
    # The simulation remembers readings of the empty holder, too, and some at the very end.
    nearest = np.clip(np.searchsorted(true_ns, columns["t_ns"]), 1, len(true_ns) - 1)
    before = columns["t_ns"] - true_ns[nearest - 1] < true_ns[nearest] - columns["t_ns"]
    error_ms = (columns["t_ns"] - true_ns[nearest - before]) / 1e6
    named_s = columns["device_time_s"] - columns["device_time_s"][0]
    passed_s = (columns["t_ns"] - columns["t_ns"][0]) / 1e9
    print(f"{count} readings in {passed_s[-1]:.0f} s")
    stated_ms = np.median(columns["t_sigma_ns"]) / 1e6
    print(
        f"times: rms {np.sqrt(np.mean(error_ms**2)):.3f} ms, largest "
        f"{np.abs(error_ms).max():.3f} ms (stated sigma {stated_ms:.3f} ms); "
        f"TIME taken for seconds: {1e3 * (named_s[-1] - passed_s[-1]):,.0f} ms at the end"
    )
    ledger, t_ns = truth["ledger"], truth["ledger"]["t_ns"]
    true_C = np.diff(np.interp(columns["t_ns"][[0, -1]], t_ns, ledger["instrument"]))[0]
    ours_C = np.trapezoid(columns["current"], passed_s)
    theirs_C = np.trapezoid(columns["current"], named_s)
    print(
        f"charge: {100 * (ours_C / true_C - 1):+.4f} % of {true_C * 1e9:.4f} nC; with TIME taken "
        f"for seconds {100 * (theirs_C / true_C - 1):+.2f} %"
    )


if __name__ == "__main__":
    main()
