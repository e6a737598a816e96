"""A runner that is killed in mid charge, with instruments that bear a lease of their own."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from potentiostat.registry import potentiostat_class
from runner.clock import real_now_ns
from session.calibration_file import write_calibration
from tests.end_to_end.test_killed_runner import (
    LEASE_S,
    PLAN,
    ROOT,
    TELLING_RUNNER,
    _open_when_released,
    _wait_until_written,
)

CURRENT_A = 3e-7
SLACK_S = 1.0  # for a busy machine: what is late in real time is late in the world

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]


def plan_for(driver):
    """The plan of the 6430 on a larger cell, for instruments that cannot source picoamperes."""
    text = PLAN
    for old, new in (
        ("keithley6430", driver),
        ("5 um", "1 mm"),
        ("2 um", "1 mm"),
        ("[limits]", '[mock]\nscenario = "lco_thin_film"\n[limits]'),
        ('current = "100 pA"', 'current = "900 nA"'),
        ("8 nC", "800 uC"),
        ("30 pA", "300 nA"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def begin(driver, folder):
    """Start a run in a process of its own; return it in mid charge, and who guards the cell."""
    (folder / "plan.toml").write_text(plan_for(driver))
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S", "conductance_sigma_S"),
        *("dielectric_F", "dielectric_sigma_F", "dielectric_tau_s"),
        *("offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-6, "source": "a test"}
    write_calibration(folder / "holder.h5", attributes, {"voltage": np.zeros(3)})
    process = subprocess.Popen(
        [sys.executable, TELLING_RUNNER, "run", "plan.toml", "-o", "killed.h5"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if process.stdout.readline() != "charging\n":
        raise AssertionError(f"the run never began: {process.communicate()[1]}")
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("driver", ["keithley2600", "palmsens_methodscript"])
def test_an_instrument_left_alone_is_safe_within_its_own_lease(driver, tmp_path):
    """The runner is killed, and who guards the cell hangs: nobody but the instrument is left."""
    process, guardian = begin(driver, tmp_path)
    killed_ns = real_now_ns()
    os.kill(guardian, signal.SIGSTOP)  # its link stays open, as that of a host that hangs
    process.kill()
    time.sleep(LEASE_S + SLACK_S)  # the silence is the test
    os.kill(guardian, signal.SIGKILL)
    process.communicate()  # until all that it had begun are gone, too
    truth = _wait_until_written(tmp_path / "killed.truth.h5")
    source = truth["source"]
    before = np.flatnonzero(source["t_ns"] <= killed_ns)[-1]
    assert abs(source["level"][before] / CURRENT_A - 1) < 0.05, "it did not charge"
    open_or_rests = (source["mode"] == "open") | (
        (source["mode"] == "current") & (np.abs(source["level"]) < 1e-2 * CURRENT_A)
    )
    safe = np.flatnonzero(open_or_rests & (source["t_ns"] >= killed_ns))
    assert len(safe) > 0, "the cell was left with its set-point"
    assert (source["t_ns"][safe[0]] - killed_ns) / 1e9 < LEASE_S + SLACK_S
    # And stays so: never 0 V across it.
    after = slice(int(safe[0]), None)
    assert np.all(open_or_rests[after])
    rests = potentiostat_class(driver).off_states
    assert ("S2" if source["mode"][-1] == "open" else "S1") in rests
    assert truth["cell"]["voltage"].min() > 2.5
    recorded = _open_when_released(tmp_path / "killed.h5")
    assert recorded["reason"] == "runner lost"
    assert len(recorded["pixels"]) > 0
