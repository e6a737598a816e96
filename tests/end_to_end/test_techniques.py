"""Every technique through all processes, on every simulated instrument that can do it."""

import math
from pathlib import Path

import numpy as np
import pytest

from runner.conduct import run
from runner.experiment import Experiment
from runner.plan import ExitCode
from session import Session
from session.truth import read_truth

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "examples" / "techniques.toml").read_text("utf-8")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """The example, played once."""
    import asyncio

    folder = tmp_path_factory.mktemp("tour")

    async def play():
        return await run(Experiment.loads(TOUR), output=folder / "tour.h5", speed=math.inf)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
        summary = loop.run(play())
    return folder, summary


def charge_between(truth, term, start_ns, stop_ns):
    ledger = truth["ledger"]
    origin = ledger["t_ns"][0]
    at = np.interp(np.array([start_ns, stop_ns]) - origin, ledger["t_ns"] - origin, ledger[term])
    return at[1] - at[0]


def test_every_step_is_played_to_its_own_end(tour):
    _, summary = tour
    assert summary.exit_code == ExitCode.DONE
    ended = [(step.name, step.ended) for step in summary.steps]
    assert ended[1] == ("ca", "t > 10 s")
    assert ended[3][1].startswith("the sweep is at ")
    assert ("cp", "Q_ionic > 100 pC") in ended
    assert [name for name, _ in ended[-5:]] == ["pulses", "lsv", "pulses", "lsv", "ocv"]


def test_the_terminals_stay_in_the_window_and_see_no_zero(tour):
    truth = read_truth(tour[0] / "tour.truth.h5")
    voltage = truth["cell"]["voltage"]
    assert voltage.min() > 3.7
    assert voltage.max() < 4.1


def test_the_ionic_charge_of_every_step_is_true_within_its_sigma(tour):
    truth = read_truth(tour[0] / "tour.truth.h5")
    with Session.open(tour[0] / "tour.h5") as session:
        table = session.table("correlation/kinematics")
        pulls = []
        for row in range(len(table["step"])):
            start_ns, stop_ns = table["t_start_ns"][row], table["t_end_ns"][row]
            true_C = charge_between(truth, "ionic", start_ns, stop_ns)
            pulls.append((table["ionic"][row] - true_C) / table["ionic_sigma"][row])
    assert np.abs(pulls).max() < 4
    assert np.sqrt(np.mean(np.square(pulls))) < 2


def test_a_step_that_ends_on_ionic_charge_has_moved_that_much(tour):
    truth = read_truth(tour[0] / "tour.truth.h5")
    with Session.open(tour[0] / "tour.h5") as session:
        events = session.events()
    start = next(e for e in events if e.kind == "step_started" and e.data["name"] == "cp")
    end = next(e for e in events if e.kind == "step_ended" and e.data["step"] == start.data["step"])
    moved_C = charge_between(truth, "ionic", start.t_ns, end.t_ns)
    # A reading lasts 50 ms, in which 20 pA move a picocoulomb.
    assert moved_C == pytest.approx(100e-12, abs=2.5e-12)


def test_segments_are_recorded_with_their_reason_and_latency(tour):
    with Session.open(tour[0] / "tour.h5") as session:
        segments = [e for e in session.events() if e.kind == "segment_ended"]
    assert {"cc", "cv", "pulse 1", "level 1", "sweep 1"} <= {e.data["segment"] for e in segments}
    latency_ms = np.array([e.data["latency_ns"] for e in segments]) / 1e6
    assert 0 < np.median(latency_ms) < 100


def test_a_hold_ends_when_the_current_has_fallen(tour):
    with Session.open(tour[0] / "tour.h5") as session:
        columns = session.sample_columns()
        held = [
            e for e in session.events() if e.kind == "segment_ended" and e.data["segment"] == "cv"
        ][1]
    assert held.data["reason"] == "|I| < 2e-11 A"
    before = np.flatnonzero(columns["t_ns"] < held.t_ns)[-3:]
    assert np.all(np.abs(columns["current"][before]) < 20e-12)
    assert np.allclose(columns["voltage"][before], 3.86, atol=2e-3)
