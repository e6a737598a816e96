"""Titrations of a simulated film, whose diffusivity is known, through a whole run."""

import asyncio
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mocks.scenario import load
from runner.analysis import correlate_session
from runner.check import refuse_unfit
from runner.conduct import run
from runner.experiment import Experiment, ExperimentError
from runner.summary import summarise
from runner.summary_text import render_summary
from runner.titrations import _settled_current
from session import Session
from session.truth import read_truth

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

# Diffusion across the film takes 250 s here. The pulses of the second step are a twelfth of
# that, the one of the third is a quarter of it.
DIFFUSIVITY = 1e-15
PLAN = """
title = "titration"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.5 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
[mock]
scenario = "lco_solid_solution"
seed = 3
[limits]
voltage = ["2.5 V", "4.6 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
ocv = { for = "20 s" }
[[step]]
gitt = { current = "20 pA", pulse = "20 s", rest = "110 s", pulses = 2 }
until = ["V > 4.5 V"]
[[step]]
gitt = { current = "-20 pA", pulse = "60 s", rest = "60 s", pulses = 1 }
until = ["V < 3 V"]
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("titration") / "a.h5"
    experiment = Experiment.loads(PLAN)
    overrides = {
        "diffusivity_m2_s": DIFFUSIVITY,
        "straight_V": 0.6,
        "exchange_current_A": 26e-12,
    }
    experiment = replace(experiment, mock=replace(experiment.mock, overrides=overrides))
    return path, asyncio.run(run(experiment, output=path, speed=math.inf))


def test_the_diffusivity_is_that_of_the_truth_where_the_guard_says_yes(measured):
    path, _ = measured
    true = float(read_truth(path.with_suffix(".truth.h5"))["film"]["diffusivity"][0])
    assert true == DIFFUSIVITY
    with Session.open(path) as session:
        table = session.table("correlation/gitt_step_2")
    assert table["valid"].tolist() == [1, 1], table["reasons"]
    assert table["reasons"].tolist() == ["", ""]
    for name in ("diffusivity", "diffusivity_fit"):
        error = table[name] - true
        assert np.max(np.abs(error / true)) < 0.05
        assert np.max(np.abs(error / table[f"{name}_sigma"])) < 3.5
        assert np.max(table[f"{name}_sigma"] / true) < 0.03
    assert table["current"] == pytest.approx([20e-12, 20e-12], rel=0.03)
    assert table.units["diffusivity"] == table.units["diffusivity_sigma"] == "m^2/s"


def test_the_guard_says_no_to_a_pulse_that_reaches_the_far_side(measured):
    path, _ = measured
    with Session.open(path) as session:
        table = session.table("correlation/gitt_step_3")
    assert table["valid"].tolist() == [0]
    assert "and the far side of the film is felt" in table["reasons"][0]
    assert table["diffusivity_fit"] == pytest.approx([DIFFUSIVITY], rel=0.05)


def test_the_summary_tells_it(measured):
    _, summary = measured
    assert [t.step for t in summary.titrations] == [1, 2]
    assert [p.valid for t in summary.titrations for p in t.pulses] == [True, True, False]
    out = io.StringIO()
    Console(file=out, width=240).print(render_summary(summary))
    text = out.getvalue()
    assert "diffusivity, step 2" in text
    assert "e-15" in text
    assert "no: a rest was too short" in text


def test_without_a_calibration_nothing_is_to_be_believed(measured, tmp_path, monkeypatch):
    path, _ = measured
    bare = tmp_path / "bare.h5"
    bare.write_bytes(path.read_bytes())
    monkeypatch.setattr("runner.analysis.holder_of", lambda session: None)
    correlate_session(bare)
    pulses = [p for t in summarise(bare).titrations for p in t.pulses]
    assert len(pulses) == 3
    for pulse in pulses:
        assert not pulse.valid
        assert "without an open-holder calibration" in pulse.reasons


def test_a_meter_that_settles_does_not_make_the_charge_late():
    columns = {
        "setpoint": np.array([0.0, 0.0, 2.0, 2.0, 2.0, 3.5, 3.5, 1.0]),
        "current": np.array([0.1, 0.1, 0.8, 1.6, 2.1, 0.3, 0.4, 0.5]),
        "status": np.array([0, 0, 8, 8, 0, 24, 16, 8], np.uint32),
    }
    # A held voltage, and a level that never settles, stay as they were read.
    assert _settled_current(columns) == pytest.approx([0.1, 0.1, 2.1, 2.1, 2.1, 0.3, 0.4, 0.5])


def test_the_example_is_sound_and_changes_the_simulated_world():
    example = Experiment.load(ROOT / "examples" / "gitt_film.toml")
    refuse_unfit(example)
    world = load(example.mock.scenario, **example.mock.overrides)
    assert world.cell.diffusivity_m2_s == 1e-15
    with pytest.raises(ExperimentError, match="overrides"):
        Experiment.loads(PLAN.replace("seed = 3", 'seed = 3\noverrides = { stray_F = "1 pF" }'))
