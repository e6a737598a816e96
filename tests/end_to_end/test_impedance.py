"""Impedance of the simulated cell, against what its hidden model has."""

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest

from mocks.cell import THERMAL_V, open_circuit_V
from mocks.scenario import load
from runner.conduct import run
from runner.experiment import Experiment
from session import Session
from session.truth import read_truth

pytestmark = pytest.mark.timeout(600)

PLAN = """
title = "impedance"
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
seed = 3
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
cp = { current = "60 pA" }
until = ["V > 4.2 V", "t > 40 s"]
[[step]]
ocv = { for = "10 s" }
[[step]]
peis = { amplitude = "5 mV", SINES }
[[step]]
geis = { amplitude = "6 pA", SINES }
""".replace(
    "SINES",
    'lowest = "20 mHz", highest = "200 mHz", points = 4, periods = 2, settle = "5 s"',
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("impedance") / "a.h5"
    plan = Experiment.loads(PLAN)
    # A meter that lags as its data sheet lets it: what is not corrected is 8 sigma off.
    mock = replace(plan.mock, overrides={"current_lag_ratio": 1.0})
    summary = asyncio.run(run(replace(plan, mock=mock), output=path, speed=math.inf))
    return path, summary


def true_impedance(path, step, frequency_Hz):
    """Slope of the hidden model about where the cell was during the step."""
    p = load("lco_lipon_li").cell
    truth = read_truth(path.with_suffix(".truth.h5"))["cell"]
    with Session.open(path) as session:
        columns = session.sample_columns()
    t_ns = columns["t_ns"][columns["step"] == step]
    inside = (truth["t_ns"] > t_ns[0]) & (truth["t_ns"] < t_ns[-1])
    share = float(np.mean(truth["position"][inside])) / p.film_thickness_m
    ion_A = np.asarray(truth["current_ionic"])[inside]
    transfer_ohm = np.mean(2 * THERMAL_V / np.hypot(ion_A, 2 * p.exchange_current_A))
    slope = (open_circuit_V(share + 1e-4) - open_circuit_V(share - 1e-4)) / 2e-4
    per_C = slope / (p.charge_per_m_C * p.film_thickness_m)
    return p.electrolyte_ohm + transfer_ohm + per_C / (2j * np.pi * frequency_Hz)


@pytest.mark.parametrize(("step", "within"), [(2, 0.06), (3, 0.02)], ids=["peis", "geis"])
def test_the_cells_impedance_is_found_within_its_uncertainty(measured, step, within):
    path, _ = measured
    with Session.open(path) as session:
        found = session.table(f"correlation/impedance_step_{step + 1}").columns
    z_ohm = found["cell_real"] + 1j * found["cell_imag"]
    error = z_ohm - true_impedance(path, step, found["frequency"])
    assert np.max(np.abs(error / z_ohm)) < within
    assert np.max(np.abs(error.real / found["cell_sigma"])) < 3
    assert np.max(np.abs(error.imag / found["cell_sigma"])) < 3
    assert np.max(found["cell_sigma"] / np.abs(z_ohm)) < within


def test_the_holder_hides_the_cell_where_it_is_not_taken_out(measured):
    path, _ = measured
    with Session.open(path) as session:
        found = session.table("correlation/impedance_step_4").columns
    z_ohm = found["real"] + 1j * found["imag"]
    error = z_ohm - true_impedance(path, 3, found["frequency"])
    assert np.abs(error / z_ohm)[-1] > 0.2


def test_the_summary_tells_it(measured):
    _, summary = measured
    assert [s.step for s in summary.spectra] == [2, 3]
    assert all(s.of_cell for s in summary.spectra)
    assert 0 < summary.reaction_median_s <= summary.reaction_largest_s < 0.1


def test_sines_leave_no_set_point_behind(measured):
    path, _ = measured
    source = read_truth(path.with_suffix(".truth.h5"))["source"]
    assert abs(source["level"][-1]) < 1e-13
    assert source["mode"][-1] == "current"
