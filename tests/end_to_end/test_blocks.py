"""Whole runs with readings in blocks and with trigger lines, against the hidden truth."""

import math

import numpy as np
import pytest

from potentiostat.records import Status
from runner.conduct import run
from runner.experiment import Experiment
from runner.plan import ExitCode
from session import Session
from session.truth import read_truth
from session.validate import validate

pytestmark = pytest.mark.timeout(600)

PLAN = """
title = "blocks and lines"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = { material = "LiCoO2", thickness = "500 nm" }
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "DRIVER"
resource = "mock"
OPTIONS
[camera]
driver = "mock"
frame_rate = "5 Hz"
pixel_size = "4 nm"
dose_rate = "2 e/angstrom^2/s"
height = 48
width = 220
[mock]
SCENARIO
seed = 3
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
ocv = { for = "4 s" }
[[step]]
cp = { current = "30 pA" }
until = ["V > 4.2 V", "t > 20 s"]
[[step]]
ocv = { for = "4 s" }
"""


def plan(options="", driver="keithley6430", scenario="", changes=()):
    text = PLAN.replace("OPTIONS", options).replace("DRIVER", driver)
    text = text.replace("SCENARIO", scenario)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Experiment.loads(text)


async def played(folder, experiment):
    summary = await run(experiment, output=folder / "a.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.DONE
    assert summary.left_in in ("S1", "S2")
    assert validate(folder / "a.h5") == []
    with Session.open(folder / "a.h5") as session:
        return (
            session.sample_columns(),
            session.table("correlation/kinematics"),
            read_truth(folder / "a.truth.h5"),
        )


def stamp_errors_ns(columns, truth, aperture_s=0.04):
    """Return how far the fitted middle of each reading is from a true one."""
    true_ns = truth["samples"]["t_ns"]
    assert np.all(columns["aperture_s"] == aperture_s)
    after = np.clip(np.searchsorted(true_ns, columns["t_ns"]), 1, len(true_ns) - 1)
    near = np.stack([true_ns[after - 1], true_ns[after]]) - columns["t_ns"]
    return np.take_along_axis(near, np.abs(near).argmin(axis=0)[None], axis=0)[0]


def instrument_charge(kinematics, truth, step):
    """Return the charge of a step and the true one."""
    row = int(np.flatnonzero(kinematics["step"] == step)[0])
    ledger = truth["ledger"]
    ends_ns = np.array([kinematics["t_start_ns"][row], kinematics["t_end_ns"][row]])
    origin_ns = ledger["t_ns"][0]
    true_C = np.interp(ends_ns - origin_ns, ledger["t_ns"] - origin_ns, ledger["instrument"])
    return kinematics["instrument"][row], true_C[1] - true_C[0]


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
async def test_charge_and_stamps_in_blocks_are_as_true_as_one_by_one(tmp_path):
    errors = {}
    for block in (1, 20):
        folder = tmp_path / str(block)
        folder.mkdir()
        columns, kinematics, truth = await played(folder, plan(f"block = {block}"))
        assert len(columns["t_ns"]) > 400
        assert np.all(np.diff(columns["t_ns"]) > 0)
        off_ns = stamp_errors_ns(columns, truth)
        assert np.abs(off_ns).max() < 1e6
        pull = off_ns / columns["t_sigma_ns"]
        assert 0.7 < np.sqrt(np.mean(pull**2)) < 1.4
        found_C, true_C = instrument_charge(kinematics, truth, 1)
        errors[block] = found_C / true_C - 1
        # A reading is inside the bracket that is told of it.
        start_ns = columns["t_ns"] - 20_000_000
        assert np.all(columns["read_start_ns"] <= start_ns + 1e6)
        assert np.all(columns["read_end_ns"] >= start_ns + 40_000_000 - 1e6)
    # The same seed gives the same gain and zero: what blocks add is seen in the difference.
    assert abs(errors[20] - errors[1]) < 1e-3
    assert abs(errors[20]) < 5e-3


async def test_a_limit_that_is_passed_within_a_block_ends_the_run(tmp_path):
    experiment = plan("block = 20", changes=(('"8 nC"', '"300 pC"'),))
    summary = await run(experiment, output=tmp_path / "a.h5", speed=math.inf)
    assert summary.exit_code == ExitCode.LIMIT
    assert summary.left_in == "S1"
    ledger = read_truth(tmp_path / "a.truth.h5")["ledger"]
    # Not later than a block and a reading after it: 1.1 s of 30 pA.
    assert abs(ledger["instrument"][-1]) < 300e-12 + 1.1 * 31e-12


@pytest.mark.parametrize("block", [1, 2])
async def test_readings_begin_with_exposures_and_changes_give_marks(tmp_path, block):
    options = f"block = {block}\nexposure_line = 3\nmark_line = 2"
    columns, _, truth = await played(tmp_path, plan(options))
    untriggered = columns["status"] & Status.UNTRIGGERED != 0
    # Once the camera films, only the reading that gives a mark does not wait.
    assert np.mean(untriggered) < 0.1
    off_ns = stamp_errors_ns(columns, truth)
    assert np.abs(off_ns).max() < 1e6
    exposures_ns = truth["frames/camera"]["t_start_ns"]
    period_ns = np.median(np.diff(exposures_ns))
    began_ns = columns["t_ns"] - 20_000_000 + off_ns
    first = np.flatnonzero(~untriggered)[::block]
    phase_ns = (began_ns[first] - exposures_ns[0]) % period_ns
    assert len(first) > 50
    assert np.all(phase_ns < 1e6)
    assert np.all(truth["marks"]["line"] == 2)
    changes_ns = truth["source"]["t_ns"]
    for mark_ns in truth["marks"]["t_ns"]:
        after_ns = mark_ns - changes_ns
        assert after_ns[after_ns >= 0].min() < 100e6
    levels = truth["source"]["level"]
    charging_ns = changes_ns[np.flatnonzero(levels > 2e-11)[0]]
    assert np.sum(truth["marks"]["t_ns"] - charging_ns >= 0) >= 2


FILM = (
    ('width = "5 um"\ndepth = "2 um"', 'width = "1 mm"\ndepth = "1 mm"'),
    ('"30 pA"', '"200 nA"'),
    ('"100 pA"', '"900 nA"'),
    ('"8 nC"', '"800 uC"'),
)


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize("driver", ["keithley2400", "keithley2450", "keysight_b2900"])
async def test_every_driver_reads_in_blocks_that_begin_with_exposures(tmp_path, driver):
    options = "block = 2\nexposure_line = 4\nmark_line = 3"
    experiment = plan(options, driver, 'scenario = "lco_thin_film"', FILM)
    columns, kinematics, truth = await played(tmp_path, experiment)
    assert len(columns["t_ns"]) > 150
    off_ns = stamp_errors_ns(columns, truth)
    assert np.abs(off_ns).max() < 1e6
    triggered = columns["status"] & Status.UNTRIGGERED == 0
    assert np.mean(triggered) > 0.9
    exposures_ns = truth["frames/camera"]["t_start_ns"]
    period_ns = np.median(np.diff(exposures_ns))
    began_ns = columns["t_ns"] - 20_000_000 + off_ns
    phase_ns = (began_ns[np.flatnonzero(triggered)[::2]] - exposures_ns[0]) % period_ns
    assert np.all(phase_ns < 1e6)
    assert set(truth["marks"]["line"].tolist()) == {3}
    found_C, true_C = instrument_charge(kinematics, truth, 1)
    assert found_C == pytest.approx(true_C, rel=0.01)
