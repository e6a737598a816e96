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
    pytest.mark.timeout(90),
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


def _wait_for_charge(session_path, process, deadline_s=40.0):
    """Return when the recorder has written the start of the charge."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        if session_path.exists() and session_path.stat().st_size > 400_000:
            return
        time.sleep(0.02)
    raise AssertionError("the run never began")


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


@pytest.mark.parametrize("trial", range(KILLS))
def test_sigkill_in_mid_charge(trial, holder, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "holder.h5").write_bytes(holder.read_bytes())
    session_path = tmp_path / "killed.h5"
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.cli", "run", "plan.toml", "-o", "killed.h5"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    _wait_for_charge(session_path, process)
    rng = np.random.default_rng([trial, 11])
    time.sleep(float(rng.uniform(0.0, 1.5)))  # the random moment is the test
    killed_ns = real_now_ns()
    process.kill()
    process.communicate()

    truth = _wait_until_written(tmp_path / "killed.truth.h5")
    source = truth["source"]
    safe = np.flatnonzero((source["t_ns"] >= killed_ns) & (np.abs(source["level"]) < 1e-13))
    assert len(safe) > 0, "the source was never brought to 0 A"
    assert (source["t_ns"][safe[0]] - killed_ns) / 1e9 < LEASE_S
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
