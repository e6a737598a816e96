"""A runner that is killed in mid charge, and a second run that goes on with what is left."""

import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, contextmanager

import numpy as np
import pytest
import pyvisa
from click.testing import CliRunner

from runner.cli import main
from runner.conduct import run
from runner.continuing import load_continuation, preview
from runner.experiment import Experiment
from runner.verb import run_async
from session import Session
from session.calibration_file import write_calibration
from session.provenance import hash_file
from session.validate import validate
from tests.end_to_end.test_killed_runner import ROOT, TELLING_RUNNER

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]

HOLDER_S = 1e-15  # of conductance: 4 fA at 4 V
PLAN = """
title = "killed, and gone on with"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = {{ material = "LiCoO2", thickness = "500 nm" }}
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "{resource}"
calibration = "holder.h5"
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
cp = {{ current = "30 pA" }}
until = ["Q > 120 pC", "V > 4.2 V", "t > 60 s"]
[[step]]
ocv = {{ for = "300 ms" }}
"""
CURRENT_A, CHARGE_C = 30e-12, 120e-12


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def lamella(folder, *words, code=0):
    with chdir(folder):
        told = CliRunner().invoke(main, words)
    assert told.exit_code == code, (told.exit_code, told.output)
    return told.output


@contextmanager
def served():
    """Serve a simulated 6430 that outlives its runs; yield its resource name."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "runner.cli",
            *["mock", "potentiostat", "--model", "6430", "--port", "0"],
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        yield process.stderr.readline().split(": ", 1)[1].strip()
    finally:
        process.kill()
        process.communicate()


def _rest(resource):
    """Bring the cell to rest: a 6430 that was just switched on had it at 0 V."""
    link = pyvisa.ResourceManager("@py").open_resource(
        resource, read_termination="\n", write_termination="\n", timeout=20_000
    )
    with link:
        for command in (":SOUR:FUNC CURR", ":SOUR:CURR 0", ":SENS:VOLT:PROT 4.3", ":OUTP ON"):
            link.write(command)
        while float(link.query(":READ?").split(",")[0]) < 3.8:
            pass


def _write_holder(path):
    names = (
        *("capacitance_F", "capacitance_sigma_F", "dielectric_F", "dielectric_sigma_F"),
        *("offset_A", "offset_sigma_A", "noise_A"),
    )
    attributes = {
        **dict.fromkeys(names, 1e-18),
        "conductance_S": HOLDER_S,
        "conductance_sigma_S": 0.1 * HOLDER_S,
        "dielectric_tau_s": 1.0,
        "chi2": 1.0,
        "range_A": 1e-10,
        "source": "a test",
    }
    write_calibration(path, attributes, {"voltage": np.zeros(3)})


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Kill a run in mid charge, look at what would follow, and go on: folder and preview."""
    folder = tmp_path_factory.mktemp("continued")
    _write_holder(folder / "holder.h5")
    with served() as resource:
        _rest(resource)
        (folder / "plan.toml").write_text(PLAN.format(resource=resource))
        process = subprocess.Popen(
            [sys.executable, TELLING_RUNNER, "run", "plan.toml", "-o", "old.h5"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        if process.stdout.readline() != "charging\n":
            raise AssertionError(f"the run never began: {process.communicate()[1]}")
        time.sleep(1.0)  # into the charge: a run in real time is what is killed
        process.kill()
        process.communicate()
        _wait_until_closed(folder / "old.h5")
        before = (folder / "old.h5").read_bytes()
        experiment = Experiment.load(folder / "plan.toml")
        seen = preview(load_continuation(experiment, folder / "old.h5"), experiment)
        with chdir(folder):
            summary = run_async(lambda: run(experiment, output="new.h5", continues="old.h5"))
    assert (folder / "old.h5").read_bytes() == before
    return folder, seen, summary


def _wait_until_closed(path, deadline_s=20.0):
    end = time.monotonic() + deadline_s
    while True:
        try:
            with Session.open(path) as session:
                if session.exit_reason == "runner lost":
                    return
        except Exception:  # noqa: BLE001 - the recorder still has it
            assert time.monotonic() < end, f"{path} was not closed"
        time.sleep(0.05)


def test_all_of_the_charge_flows_once(both):
    folder, _, _ = both
    with Session.open(folder / "new.h5") as session:
        columns = session.sample_columns()
        charge_C, longest_s = columns["charge"], np.diff(columns["t_ns"]).max() / 1e9
        link = session.attributes("continues")
    # A rule is asked at each reading: one of them is how far beyond it a charge may come.
    tolerance_C = 2 * CURRENT_A * longest_s + 3 * link["flow_sigma_C"]
    assert charge_C[-1] == pytest.approx(CHARGE_C, abs=tolerance_C)
    assert 0.05 * CHARGE_C < link["charge_C"] < 0.95 * CHARGE_C
    assert charge_C[0] == pytest.approx(link["charge_C"], abs=1e-14)
    assert link["flow_sigma_C"] < CURRENT_A * longest_s
    assert longest_s < 1.0


def test_the_step_goes_on_with_what_had_passed_of_it(both):
    folder, seen, summary = both
    with Session.open(folder / "new.h5") as session:
        events = session.events()
    started = [e for e in events if e.kind == "step_started"]
    assert [e.data["step"] for e in started] == [0, 1]
    assert (seen.steps_done, seen.step, seen.name) == (0, 0, "cp")
    assert started[0].data["passed"]["charge_C"] == pytest.approx(seen.passed.charge_C)
    assert seen.passed.charge_C == pytest.approx(seen.charge_C, abs=1e-12)
    assert started[1].data["passed"] is None
    assert [s.index for s in summary.steps] == [0, 1]
    assert summary.exit_code == 0


def test_the_new_session_is_linked_to_the_old_one_and_tells_of_the_gap(both):
    folder, _, _ = both
    with Session.open(folder / "old.h5") as old:
        start_time, last = old.start_time, old.sample_columns()
        last_s = (last["t_ns"][-1] - old.host_start_ns) / 1e9
    with Session.open(folder / "new.h5") as session:
        link = session.attributes("continues")
        gap = next(e for e in session.events() if e.kind == "gap")
        columns = session.sample_columns()
        ionic, sigma = columns["charge_ionic"], columns["charge_ionic_sigma"]
        first_s = (columns["t_ns"][0] - session.host_start_ns) / 1e9
        begin = np.datetime64(session.start_time[:26]) - np.datetime64(start_time[:26])
    assert link["path"] == "old.h5"
    assert link["sha256"] == hash_file(folder / "old.h5")
    assert link["start_time"] == start_time
    gap_s = begin / np.timedelta64(1, "s") + first_s - last_s
    assert link["gap_s"] == pytest.approx(gap_s, abs=0.5)
    assert "at rest since the last reading of old.h5" in gap.message
    # What the holder took from a cell at 0 A is known from its calibration.
    assert link["leak_C"] == pytest.approx(HOLDER_S * last["voltage"][-1] * gap_s, rel=0.2)
    assert 0 < link["leak_sigma_C"] < 0.5 * abs(link["leak_C"]) + 1e-12
    assert np.all(columns["step"][:10] == -1)
    assert ionic[0] == pytest.approx(link["charge_ionic_C"], abs=1e-13)
    assert sigma[0] >= link["charge_ionic_sigma_C"] > 0
    assert validate(folder / "new.h5") == []


def test_what_cannot_be_gone_on_with_is_refused_with_its_reason(both):
    folder, _, _ = both
    again = "run plan.toml --continue {} -o third.h5".format
    assert "ended in order (completed)" in lamella(folder, *again("new.h5").split(), code=2)
    plan = (folder / "plan.toml").read_text()
    (folder / "other.toml").write_text(plan.replace("300 ms", "400 ms"))
    refused = lamella(folder, *["check", "other.toml", "--continue", "old.h5"], code=2)
    assert "the experiment is not the one of old.h5" in refused
    words = "run plan.toml --continue old.h5 -o old.h5 --overwrite"
    assert "never written again" in lamella(folder, *words.split(), code=2)
    assert (folder / "old.h5").exists()
    assert not (folder / "third.h5").exists()
