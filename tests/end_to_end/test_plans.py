"""What plans say besides their techniques, through all processes, against the simulator's truth."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest

from potentiostat.technique_data import step_from_data
from runner.conduct import run
from runner.control import Control
from runner.experiment import Experiment
from runner.plan import ExitCode
from session import Session
from session.truth import read_truth

pytestmark = pytest.mark.timeout(600)

HEAD = """
title = "a plan"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
[mock]
seed = 4
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
"""
CAMERA = """
[camera]
driver = "mock"
frame_rate = "5 Hz"
pixel_size = "4 nm"
dose_rate = "2 e/angstrom^2/s"
height = 96
width = 200
"""


def cp(current, time, *rules):
    stop = "V < 2.8 V" if current.startswith("-") else "V > 4.2 V"
    listed = ", ".join(f'"{rule}"' for rule in (*rules, stop, f"t > {time}"))
    return f'cp = {{ current = "{current}" }}\nuntil = [{listed}]'


def load(*steps, head=HEAD):
    return Experiment.loads(head + "\n".join(f"[[step]]\n{step}" for step in steps))


async def play(tmp_path, experiment, **options):
    return await run(experiment, output=tmp_path / "a.h5", speed=math.inf, **options)


def charge_between(truth, term, start_ns, stop_ns):
    ledger = truth["ledger"]
    origin = ledger["t_ns"][0]
    at = np.interp(np.array([start_ns, stop_ns]) - origin, ledger["t_ns"] - origin, ledger[term])
    return at[1] - at[0]


def pulls(tmp_path):
    """Return by how many sigmas the ionic charge of each step is off."""
    truth = read_truth(tmp_path / "a.truth.h5")
    with Session.open(tmp_path / "a.h5") as session:
        table = session.table("correlation/kinematics")
        return {
            int(step): (
                table["ionic"][row]
                - charge_between(truth, "ionic", table["t_start_ns"][row], table["t_end_ns"][row])
            )
            / table["ionic_sigma"][row]
            for row, step in enumerate(table["step"])
        }


OCV = 'ocv = { for = "3 s" }'
THINNED = (
    OCV,
    f'record = ["dE > 2 mV", "dt > 1 s"]\n{cp("30 pA", "12 s")}',
    f'average = "1 s"\n{cp("-30 pA", "12 s")}',
    'record = ["dt > 1 s"]\nca = { voltage = "OCV + 10 mV", for = "8 s" }',
    f'average = "500 ms"\n{OCV}',
    'average = "600 ms"\ncv = { first = "OCV + 20 mV", second = "OCV - 20 mV", rate = "10 mV/s" }',
    f'record = ["dE > 3 mV"]\n{OCV}',
)


async def test_charge_and_sigma_stay_true_whatever_is_stored(tmp_path):
    summary = await play(tmp_path, load(*THINNED))
    assert summary.exit_code == ExitCode.DONE
    assert max(abs(pull) for pull in pulls(tmp_path).values()) < 4
    with Session.open(tmp_path / "a.h5") as session:
        columns = session.sample_columns()
    stored = {step: int(np.sum(columns["step"] == step)) for step in range(7)}
    assert stored[0] > 40  # of 3 s: everything
    assert stored[1] < 60 > stored[2]
    assert stored[3] < 60
    assert max(columns["averaged"][columns["step"] == 2]) > 10
    assert max(columns["left_out"][columns["step"] == 1]) > 10
    # A stamp is the middle of a mean, so that its charge and its voltage are of one time.
    mean = columns["averaged"] > 1
    truth = read_truth(tmp_path / "a.truth.h5")
    t_ns, seen = columns["t_ns"][mean], columns["voltage"][mean]
    origin = truth["cell"]["t_ns"][0]
    true_V = np.interp(t_ns - origin, truth["cell"]["t_ns"] - origin, truth["cell"]["voltage"])
    assert np.median(np.abs(seen - true_V)) < 2e-3


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
async def test_the_same_run_is_judged_alike_whatever_is_stored(tmp_path):
    rule = cp("30 pA", "30 s", "Q > 200 pC")
    ends = []
    for words in ("", 'average = "5 s"\n', 'record = ["dQ > 1 nC"]\n'):
        folder = tmp_path / str(len(ends))
        folder.mkdir()
        await play(folder, load(OCV, words + rule, OCV))
        with Session.open(folder / "a.h5") as session:
            events = [e for e in session.events() if e.kind in ("step_started", "step_ended")]
            first = events[0].t_ns
            ends.append([(e.kind, e.t_ns - first, e.message) for e in events])
            assert session.sample_columns()["charge"].max() > 200e-12
    assert ends[0] == ends[1] == ends[2]


async def test_the_charge_of_frames_is_true_where_readings_are_left_out(tmp_path):
    pulsed = 'pulses = { current = "30 pA", on = "2 s", off = "2 s", count = 2 }\n'
    step = f'record = ["dt > 1 s"]\n{pulsed}until = ["V > 4.2 V"]'
    await play(tmp_path, load(OCV, step, OCV, head=HEAD + CAMERA))
    truth = read_truth(tmp_path / "a.truth.h5")
    with Session.open(tmp_path / "a.h5") as session:
        frames = session.table("frame_samples/camera")
        columns = session.sample_columns()
    known = np.flatnonzero(np.isfinite(frames["charge_since_last"]))
    start_ns, stop_ns = frames["t_ns"][known[0] - 1], frames["t_ns"][known[-1]]
    found_C = frames["charge_since_last"][known].sum()
    true_C = charge_between(truth, "instrument", start_ns, stop_ns)
    assert found_C == pytest.approx(true_C, abs=0.02 * 120e-12)
    assert true_C > 100e-12
    # A frame that no stored reading belongs to says so, and has no made-up mean.
    inside = (frames["t_ns"] > columns["t_ns"][columns["step"] == 1][0]) & (
        frames["t_ns"] < columns["t_ns"][columns["step"] == 1][-1]
    )
    empty = np.isnan(frames["current_mean"]) & inside
    assert empty.sum() > 10
    assert np.all(frames["coverage"][empty] == 0)


async def test_a_jump_back_plays_its_steps_again_each_with_a_number(tmp_path):
    summary = await play(
        tmp_path,
        load(
            OCV,
            f'name = "charge"\n{cp("30 pA", "4 s")}',
            cp("-30 pA", "4 s", "t > 3 s, then go to charge up to 2 times"),
            'name = "end"\n' + OCV,
        ),
    )
    assert summary.exit_code == ExitCode.DONE
    assert [step.index for step in summary.steps] == list(range(8))
    assert [step.held for step in summary.steps] == ["0 A", *["30 pA", "-30 pA"] * 3, "0 A"]
    found = pulls(tmp_path)
    assert set(found) == set(range(8))
    assert max(abs(pull) for pull in found.values()) < 4
    with Session.open(tmp_path / "a.h5") as session:
        started = [e for e in session.events() if e.kind == "step_started"]
    played = [step_from_data(e.data["technique"]) for e in started]
    assert [step.label for step in played] == ["", *["charge", ""] * 3, "end"]
    assert played[1] == played[3]


async def test_levels_count_from_the_steps_before(tmp_path):
    await play(
        tmp_path,
        load(
            OCV,
            'ca = { voltage = "OCV + 10 mV", for = "4 s" }',
            'ca = { voltage = "control + 10 mV", for = "4 s" }',
            'cp = { current = "measured + 5 pA" }\nuntil = ["V > 4.2 V", "V < 2.8 V", "t > 4 s"]',
            'cp = { current = "control - 2 pA" }\nuntil = ["V > 4.2 V", "V < 2.8 V", "t > 4 s"]',
            OCV,
        ),
    )
    with Session.open(tmp_path / "a.h5") as session:
        columns = session.sample_columns()
    level = [columns["setpoint"][columns["step"] == step][-1] for step in range(5)]
    assert level[2] - level[1] == pytest.approx(0.01)
    last = np.flatnonzero(columns["step"] == 2)[-1]
    assert level[3] == pytest.approx(columns["current"][last] + 5e-12, abs=2e-13)
    assert level[4] == pytest.approx(level[3] - 2e-12)


async def test_a_plan_waits_for_the_operator_for_a_frame_and_for_a_time_of_day(tmp_path):
    control, waited = Control(), []
    control.go_on()  # said too early: it is not meant

    def watcher(state):
        if state.waits:
            waited.append(state.step_elapsed_s)
            if waited[-1] > 3:
                control.go_on()

    moment = (datetime.now().astimezone() + timedelta(seconds=40)).isoformat(timespec="seconds")
    summary = await play(
        tmp_path,
        load(
            'wait = { trigger = "operator", longest = "50 s" }',
            'wait = { trigger = "frame", longest = "50 s" }',
            f'wait = {{ until = "{moment}" }}',
            'wait = { trigger = "operator", longest = "2 s" }',
            head=HEAD + CAMERA,
        ),
        control=control,
        watcher=watcher,
    )
    assert summary.exit_code == ExitCode.DONE
    ended = [(step.kind, step.ended) for step in summary.steps]
    assert ended[0] == ("command", "the operator went on")
    assert ended[1] == ("command", "a frame has come")
    assert ended[2][0] == "condition"
    assert ended[2][1].startswith("it is ")
    assert ended[3] == ("condition", "t > 2 s")
    assert 3 < summary.steps[0].duration_s < 4
    assert summary.steps[1].duration_s < 1
    assert 5 < summary.steps[2].duration_s < 40
    source = read_truth(tmp_path / "a.truth.h5")["source"]
    # All of them rest: no current was ever asked for with the cell in.
    with Session.open(tmp_path / "a.h5") as session:
        assert set(session.sample_columns()["setpoint"]) == {0.0}
    assert abs(source["level"][-1]) < 1e-13


async def test_a_voltage_that_changes_too_fast_ends_the_run_safely(tmp_path):
    slow = HEAD.replace("[limits]", '[limits]\nvoltage_rate = "2 mV/s"')
    summary = await play(tmp_path, load(OCV, cp("80 pA", "30 s"), OCV, head=slow))
    assert summary.exit_code == ExitCode.LIMIT
    assert "voltage changes at" in summary.exit_reason
    assert summary.left_in == "S1"
    assert 1.8 < summary.steps[1].duration_s < 5  # once the window of 2 s is full
    assert abs(read_truth(tmp_path / "a.truth.h5")["source"]["level"][-1]) < 1e-13


async def test_shares_of_the_cell_end_a_step(tmp_path):
    head = HEAD.replace("[cell]", "[cell]\nsoc = 0.25")
    summary = await play(
        tmp_path,
        load(cp("30 pA", "30 s", "dSoC > 1 %"), cp("30 pA", "30 s", "SoC > 0.27"), OCV, head=head),
    )
    assert [step.ended for step in summary.steps[:2]] == ["dSoC > 1 %", "SoC > 0.27"]
    with Session.open(tmp_path / "a.h5") as session:
        columns = session.sample_columns()
    at_end = [columns["charge"][columns["step"] == step][-1] for step in (0, 1)]
    # A reading lasts 50 ms, in which 30 pA move 1.5 pC.
    assert at_end[0] == pytest.approx(124.2e-12, abs=3e-12)
    assert at_end[1] == pytest.approx(248.4e-12, abs=3e-12)
