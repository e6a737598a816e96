"""A runner that is killed in mid charge: the cell is safe, and the file opens."""

import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from runner.clock import real_now_ns
from session.truth import read_truth

ROOT = Path(__file__).parents[2]
LEASE_S = 2.0
KILLS = 20
TELLING_RUNNER = Path(__file__).with_name("telling_runner.py")

PLAN = """
title = "killed in mid charge"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
calibration = "holder.h5"
[camera]
driver = "mock"
frame_rate = "20 Hz"
pixel_size = "4 nm"
dose_rate = "0.5 e/angstrom^2/s"
height = 64
width = 200
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
cp = { current = "30 pA" }
until = ["V > 4.2 V", "t > 600 s"]
"""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]


@pytest.fixture(scope="module")
def holder(tmp_path_factory):
    """An open-holder calibration, so that each run goes straight to the cell."""
    from session.calibration_file import write_calibration

    path = tmp_path_factory.mktemp("holder") / "holder.h5"
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S"),
        *("conductance_sigma_S", "dielectric_F", "dielectric_sigma_F"),
        *("dielectric_tau_s", "offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-10, "source": "a test"}
    write_calibration(path, attributes, {"voltage": np.zeros(3)})
    return path


def _wait_until_written(path, deadline_s=30.0):
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            return read_truth(path)
        except Exception:  # noqa: BLE001 - not there yet, or half written
            time.sleep(0.05)
    raise AssertionError(f"{path} was never written")


def _open_when_released(path, deadline_s=20.0):
    """Open the file in plain h5py once the recorder has let go of it."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            with h5py.File(path, "r") as file:
                frames = file["entry/frames/camera"]
                return {
                    "reason": file["entry/exit_reason"][()].decode(),
                    "t_ns": file["entry/samples/t_ns"][:],
                    "checksums": frames["checksum"][:],
                    "pixels": frames["data"][:],
                }
        except OSError:
            assert time.monotonic() < end, f"{path} does not open"
            time.sleep(0.05)


def _begin(holder, folder):
    """Start a run in a process of its own; return it in mid charge."""
    (folder / "plan.toml").write_text(PLAN)
    (folder / "holder.h5").write_bytes(holder.read_bytes())
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
    return process


def _charges_at(folder, t_ns):
    """Tell whether the hidden source really charged the cell at a moment."""
    source = _wait_until_written(folder / "killed.truth.h5")["source"]
    last = np.flatnonzero(source["t_ns"] <= t_ns)[-1]
    return abs(source["level"][last] - 3e-11) < 1e-12


def _first_safe_s(source, since_ns):
    safe = np.flatnonzero((source["t_ns"] >= since_ns) & (np.abs(source["level"]) < 1e-13))
    assert len(safe) > 0, "the source was never brought to 0 A"
    return (source["t_ns"][safe[0]] - since_ns) / 1e9


@pytest.mark.parametrize("trial", range(KILLS))
def test_sigkill_in_mid_charge(trial, holder, tmp_path):
    session_path = tmp_path / "killed.h5"
    process = _begin(holder, tmp_path)
    rng = np.random.default_rng([trial, 11])
    time.sleep(float(rng.uniform(0.0, 1.5)))  # the random moment is the test
    killed_ns = real_now_ns()
    process.kill()
    process.communicate()
    assert _charges_at(tmp_path, killed_ns)

    truth = _wait_until_written(tmp_path / "killed.truth.h5")
    source = truth["source"]
    assert _first_safe_s(source, killed_ns) < LEASE_S
    assert source["mode"][-1] == "current"
    assert source["output_on"][-1] == 1
    assert abs(source["level"][-1]) < 1e-13
    assert truth["cell"]["voltage"].min() > 2.5

    recorded = _open_when_released(session_path)
    assert recorded["reason"] == "runner lost"
    assert (killed_ns - recorded["t_ns"][-1]) / 1e9 < 1.0
    assert len(recorded["pixels"]) > 0
    assert [zlib.crc32(frame.tobytes()) for frame in recorded["pixels"]] == list(
        recorded["checksums"]
    )


def test_a_runner_that_is_frozen_loses_its_lease_and_says_so_when_it_wakes(holder, tmp_path):
    process = _begin(holder, tmp_path)
    frozen_ns = real_now_ns()
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5 * LEASE_S)  # frozen for real: the silence is the test
    process.send_signal(signal.SIGCONT)
    _, told = process.communicate(timeout=40)
    assert process.returncode == 3, told
    assert _charges_at(tmp_path, frozen_ns)

    truth = _wait_until_written(tmp_path / "killed.truth.h5")
    assert 0.5 * LEASE_S < _first_safe_s(truth["source"], frozen_ns) < LEASE_S + 0.5
    assert abs(truth["source"]["level"][-1]) < 1e-13
    assert truth["cell"]["voltage"].min() > 2.5
    recorded = _open_when_released(tmp_path / "killed.h5")
    assert "silent" in recorded["reason"]
    # What the guardian read while nobody listened was waiting in its pipe.
    gaps_s = np.diff(recorded["t_ns"]) / 1e9
    assert gaps_s.max() < 1.0
