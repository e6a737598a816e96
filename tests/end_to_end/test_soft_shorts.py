"""Soft shorts from the simulated cell to the summary, and to the guardian that stops."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from runner.analysis import correlate_session
from runner.conduct import run
from runner.experiment import Experiment
from runner.plan import ExitCode
from runner.summary import summarise
from runner.summary_text import render_summary
from session import Session
from session.truth import read_truth
from session.validate import validate

pytestmark = pytest.mark.timeout(600)

EXAMPLE = Path(__file__).parents[2] / "examples" / "lco_lipon_li.toml"


def experiment(folder, *changes, **overrides):
    text = EXAMPLE.read_text("utf-8")
    camera = text[text.index("[camera]") : text.index("[mock]")]
    track = text[text.index("[[track]]") : text.index("[[step]]")]
    for old, new in ((camera, ""), (track, ""), ('dose = "500 e/angstrom^2"', ""), *changes):
        assert old in text
        text = text.replace(old, new)
    loaded = Experiment.loads(text, folder=folder)
    return replace(loaded, mock=replace(loaded.mock, overrides=overrides))


async def test_soft_shorts_are_events_and_widen_the_ionic_charge(tmp_path):
    path = tmp_path / "a.h5"
    soft = {"soft_ohm": 5e11, "soft_on_per_s": 0.04, "soft_off_per_s": 0.08}
    summary = await run(experiment(tmp_path, **soft), output=path, speed=math.inf)
    assert summary.exit_code == ExitCode.DONE
    truth = read_truth(tmp_path / "a.truth.h5")
    with Session.open(path) as session:
        events = [e for e in session.events() if e.kind == "soft_short"]
        table = session.table("ledger")
    at_ns = np.array([e.t_ns for e in events])
    closes = np.array([e.data["step_V"] < 0 for e in events])
    true_ns = truth["soft"]["t_ns"]
    # Each of them is one that was there, but for those that follow each other too closely.
    assert len(events) >= 6
    near = np.abs(true_ns[None, :] - at_ns[:, None]).argmin(axis=1)
    right = (np.abs(true_ns[near] - at_ns) < 0.5e9) & (truth["soft"]["on"][near] == closes)
    assert right.mean() >= 0.8
    ohms = [e.data["short_ohm"] for e in events if e.data["short_ohm"] is not None]
    assert np.median(ohms) == pytest.approx(5e11, rel=0.4)
    taken_C = truth["ledger"]["soft"][-1]
    assert taken_C > 50e-12
    error_C = table["ionic"][-1] - np.interp(
        table["t_ns"][-1] - truth["ledger"]["t_ns"][0],
        truth["ledger"]["t_ns"] - truth["ledger"]["t_ns"][0],
        truth["ledger"]["ionic"],
    )
    assert abs(error_C) < 2 * table["ionic_sigma"][-1]
    assert table["ionic_sigma"][-1] > 0.5 * taken_C
    console = Console(width=200, record=True)
    console.print(render_summary(await asyncio.to_thread(summarise, path)))
    assert "soft shorts: the voltage fell at once" in console.export_text()
    await asyncio.to_thread(correlate_session, path)
    with Session.open(path) as session:
        assert len([e for e in session.events() if e.kind == "soft_short"]) == len(events)
    assert validate(path) == []


async def test_a_clean_cell_has_none(tmp_path):
    path = tmp_path / "a.h5"
    summary = await run(experiment(tmp_path), output=path, speed=math.inf)
    assert summary.warnings == ()


async def test_a_short_stops_the_run_where_the_limits_say_so(tmp_path):
    path = tmp_path / "a.h5"
    asked = ('charge = "8 nC"', 'charge = "8 nC"\nshort = "stop"')
    soft = {"soft_ohm": 2e11, "soft_on_per_s": 0.02}
    summary = await run(experiment(tmp_path, asked, **soft), output=path, speed=math.inf)
    assert summary.exit_code == ExitCode.LIMIT
    assert "a short: the voltage fell by" in summary.exit_reason
    assert summary.left_in == "S1"
    truth = read_truth(tmp_path / "a.truth.h5")
    closed_ns = truth["soft"]["t_ns"][0]
    with Session.open(path) as session:
        (tripped,) = [e for e in session.events() if e.kind == "made_safe"]
    # Simulated time, so no machine's pace is in it.
    assert 0 < tripped.t_ns - closed_ns < 2e9
