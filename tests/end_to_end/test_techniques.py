"""Every technique through all processes, on every simulated instrument that can do it."""

import math
from pathlib import Path

import numpy as np
import pytest

from mocks.instruments import driver_names
from potentiostat.records import Status
from runner.conduct import run
from runner.experiment import Experiment
from runner.plan import ExitCode
from session import Session
from session.truth import read_truth

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "examples" / "techniques.toml").read_text("utf-8")

pytestmark = pytest.mark.timeout(600)


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


# --- other instruments, on a cell that suits them ---------------------------------------------

FILM = """
title = "a film of a square millimetre"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "1 mm"
depth = "1 mm"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley2400"
resource = "mock"
[mock]
scenario = "lco_thin_film"
seed = 3
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "900 nA"
charge = "1 mC"
[[step]]
ocv = { for = "3 s" }
[[step]]
cp = { current = "500 nA" }
until = ["V > 4.2 V", "t > 5 s"]
[[step]]
ca = { voltage = "OCV + 5 mV", for = "4 s" }
[[step]]
cv = { first = "OCV + 6 mV", second = "OCV - 6 mV", rate = "5 mV/s" }
[[step]]
gcpl = { current = "500 nA", voltage = "3.906 V", longest = "20 s", hold_until = "300 nA",
  hold_for = "3 s", rest = "1 s" }
[[step]]
ocv = { for = "2 s" }
""".replace("\n  hold_for", " hold_for")


# A B298x has no business there: one step of its source is 50 nA through that film.
FOR_LAMELLAE = ("keithley6430", "keysight_b298x")


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize("driver", [d for d in driver_names() if d not in FOR_LAMELLAE])
async def test_every_driver_holds_currents_and_voltages_and_ends_open(driver, tmp_path):
    experiment = Experiment.loads(FILM.replace("keithley2400", driver))
    summary = await run(experiment, output=tmp_path / "film.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.DONE
    assert [step.kind for step in summary.steps] == ["condition"] * 6
    assert summary.left_in == "S2"
    truth = read_truth(tmp_path / "film.truth.h5")
    assert truth["source"]["mode"][-1] == "open"
    assert truth["cell"]["voltage"].min() > 3.8
    assert truth["cell"]["voltage"].max() < 4.0
    with Session.open(tmp_path / "film.h5") as session:
        table = session.table("correlation/kinematics")
        for row in range(len(table["step"])):
            true_C = charge_between(
                truth, "ionic", table["t_start_ns"][row], table["t_end_ns"][row]
            )
            assert abs(table["ionic"][row] - true_C) < 4 * table["ionic_sigma"][row]


# --- a current that is held in software ---------------------------------------------------------

ELECTROMETER = """
title = "a lamella on an electrometer"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keysight_b298x"
resource = "mock"
[mock]
seed = 3
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "90 pA"
charge = "8 nC"
[[step]]
ocv = { for = "3 s" }
[[step]]
cp = { current = "30 pA" }
until = ["V > 4.2 V", "t > 60 s"]
[[step]]
ocv = { for = "5 s" }
[[step]]
ca = { voltage = "OCV + 20 mV", for = "10 s" }
[[step]]
cv = { first = "OCV + 20 mV", second = "OCV - 20 mV", rate = "5 mV/s" }
[[step]]
gcpl = { current = "30 pA", voltage = "3.945 V", longest = "60 s", hold_until = "20 pA",
  hold_for = "20 s", rest = "3 s" }
""".replace("\n  hold_for", " hold_for")


async def test_an_electrometer_holds_currents_by_software_and_ends_open(tmp_path):
    experiment = Experiment.loads(ELECTROMETER)
    summary = await run(experiment, output=tmp_path / "run.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.DONE
    assert [step.kind for step in summary.steps] == ["condition"] * 6
    assert summary.left_in == "S2"
    truth = read_truth(tmp_path / "run.truth.h5")
    assert truth["source"]["mode"][-1] == "open"
    assert truth["cell"]["voltage"].min() > 3.85
    assert truth["cell"]["voltage"].max() < 3.96
    with Session.open(tmp_path / "run.h5") as session:
        samples = session.sample_columns()
        table = session.table("correlation/kinematics")
        segments = [e for e in session.events() if e.kind == "segment_ended"]
        reasons = {e.data["segment"]: e.data["reason"] for e in segments}
    assert reasons["cc"] == "V > 3.945 V"

    # The current of the second step, once it has settled: within 1 % and a quarter of a
    # step of the source through the cell for the loop, 0.5 % + 5 fA for the ammeter.
    held = (samples["step"] == 1) & ((samples["status"] & int(Status.SETTLING)) == 0)
    cell = truth["cell"]
    after = (cell["t_ns"] > samples["t_ns"][held][0]) & (cell["t_ns"] < samples["t_ns"][held][-1])
    assert np.ptp(cell["t_ns"][after]) > 25e9
    true_A = np.trapezoid(cell["current"][after], cell["t_ns"][after]) / np.ptp(cell["t_ns"][after])
    assert abs(true_A - 30e-12) < 0.01 * 30e-12 + 0.25 * 0.9e-12 + 0.005 * 30e-12 + 5e-15
    assert np.all(np.abs(samples["current"][held] - 30e-12) < 2.5e-12)

    # Where the input opens, the ammeter has not shown the last of the current yet.
    lag_s = 1.4 / math.log(10)
    for row in range(len(table["step"])):
        start_ns, stop_ns = table["t_start_ns"][row], table["t_end_ns"][row]
        true_C = charge_between(truth, "ionic", start_ns, stop_ns)
        step = np.flatnonzero(samples["step"] == table["step"][row])
        unseen_C = lag_s * np.abs(samples["current"][step]).max()
        assert abs(table["ionic"][row] - true_C) < 4 * table["ionic_sigma"][row] + unseen_C
