"""The main job, from the command line to the page, against the hidden truth."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from session import Session
from session.truth import read_truth
from session.validate import validate

ROOT = Path(__file__).parents[2]
PIXEL_M = 2e-9


@pytest.fixture(scope="module")
def first_charge(tmp_path_factory):
    """Run the example once, as a person would, as fast as it can."""
    folder = tmp_path_factory.mktemp("first_charge")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "runner.cli", "run"),
            str(ROOT / "examples" / "lco_lipon_li.toml"),
            *("-o", "first_charge.h5", "--report", "first_charge.html"),
            *("--speed", "max", "--json"),
        ],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert "live view: http://127.0.0.1:" in done.stderr
    assert "live view" not in done.stdout
    return folder, summary


@pytest.fixture(scope="module")
def session(first_charge):
    with Session.open(first_charge[0] / "first_charge.h5") as opened:
        yield opened


@pytest.fixture(scope="module")
def truth(first_charge):
    return read_truth(first_charge[0] / "first_charge.truth.h5")


pytestmark = pytest.mark.timeout(600)


def test_the_summary_says_what_came_of_it(first_charge):
    _, summary = first_charge
    assert summary["exit_code"] == 0
    assert summary["exit_reason"] == "completed"
    assert summary["left_in"] == "S1"
    assert summary["simulated"] is True
    assert [step["ended"] for step in summary["steps"]] == [
        *("t > 20 s", "t > 120 s", "t > 30 s", "t > 80 s", "t > 20 s")
    ]
    assert summary["correlations"][0]["p"] < 0.05


def test_the_session_is_sound_and_opens_without_its_truth(first_charge):
    assert validate(first_charge[0] / "first_charge.h5") == []


def test_front_is_within_half_a_pixel_and_its_sigma_is_honest(session, truth):
    front = session.table("tracks/front")
    valid = front["valid"] == 1
    assert valid.mean() > 0.95
    index = session.frame_table("camera")["index"]
    assert np.array_equal(index, truth["frames/camera"]["index"])
    error_m = (front["position"] - truth["tracks/front"]["position"])[valid]
    assert np.sqrt(np.mean(error_m**2)) < 0.5 * PIXEL_M
    pull = error_m / front["position_sigma"][valid]
    assert 0.8 < np.sqrt(np.mean(pull**2)) < 1.3


def _charge_between(truth, term, start_ns, stop_ns):
    ledger = truth["ledger"]
    origin = ledger["t_ns"][0]
    at = np.interp(np.array([start_ns, stop_ns]) - origin, ledger["t_ns"] - origin, ledger[term])
    return at[1] - at[0]


@pytest.mark.parametrize("step", [1, 3])
def test_ionic_charge_is_true_where_the_instrument_is_far_off(session, truth, step):
    table = session.table("correlation/kinematics")
    row = int(np.flatnonzero(table["step"] == step)[0])
    true_C = _charge_between(truth, "ionic", table["t_start_ns"][row], table["t_end_ns"][row])
    assert abs(table["ionic"][row] / true_C - 1) < 0.01
    assert abs(table["ionic"][row] - true_C) < 4 * table["ionic_sigma"][row]
    assert abs(table["instrument"][row] / true_C - 1) > 0.05


def test_sample_and_frame_times_are_true(session, truth):
    frames = session.frame_table("camera")
    frame_error_ns = frames["t_start_ns"] - truth["frames/camera"]["t_start_ns"]
    assert np.sqrt(np.mean(frame_error_ns.astype(float) ** 2)) < 0.1e6
    true_ns = truth["samples"]["t_ns"][-len(session.sample_columns()["t_ns"]) - 5 :]
    t_ns = session.sample_columns()["t_ns"]
    nearest = true_ns[np.abs(true_ns[None, :] - t_ns[:, None]).argmin(axis=1)]
    sample_error_ns = (t_ns - nearest).astype(float)
    assert np.sqrt(np.mean(sample_error_ns**2)) < 1e6
    pull = sample_error_ns / session.sample_columns()["t_sigma_ns"]
    assert 0.8 < np.sqrt(np.mean(pull**2)) < 1.3


def test_the_camera_was_off_and_dropped_frames_and_this_is_seen(session, truth):
    (fit,) = session.clock_fits("camera")
    assert fit.rate == pytest.approx(1 / (1 + 50e-6), abs=1e-6)
    index = session.frame_table("camera")["index"]
    dropped = session.frame_table("camera")["dropped_before"]
    assert int(dropped.sum()) == int(index[-1]) + 1 - len(index)
    assert 0.005 < dropped.sum() / len(index) < 0.05


def test_the_instrument_clock_runs_fast_by_its_ticks(session):
    (fit,) = session.clock_fits("potentiostat")
    assert fit.rate == pytest.approx(1000 / 1024, abs=2e-5)


def test_samples_are_averaged_over_exposures(session):
    table = session.table("frame_samples/camera")
    assert len(table) == len(session.frames("camera"))
    inside = slice(5, -5)
    assert np.all(table["coverage"][inside] > 0.5)
    assert np.all(np.isfinite(table["current_mean"][inside]))


def test_the_front_moves_as_faraday_says(session):
    found = session.attributes("correlation/faraday")
    assert abs(found["ratio"] - 1) < 4 * found["ratio_sigma"]
    assert found["ratio_sigma"] < 0.02


def test_the_truth_stays_out_of_the_session(first_charge):
    import h5py

    with h5py.File(first_charge[0] / "first_charge.h5") as file:
        names = []
        file.visit(names.append)
    assert not [name for name in names if "truth" in name.lower()]


def test_the_cell_stayed_inside_its_window_and_was_never_shorted(truth):
    voltage = truth["cell"]["voltage"]
    assert voltage.min() > 2.5
    assert voltage.max() < 4.3
    source = truth["source"]
    attached = source["t_ns"] >= truth["cell"]["t_ns"][0]
    assert set(source["mode"][attached]) <= {"current"}
    assert np.all(source["output_on"][attached] == 1)
    assert abs(source["level"][-1]) < 1e-13


def test_the_report_is_one_file_that_asks_for_nothing(first_charge):
    page = (first_charge[0] / "first_charge.html").read_text("utf-8")
    assert len(page) < 20_000_000
    assert "default-src 'none'" in page
    assert "src=" not in page.split("<script", 1)[0]


def test_a_second_run_refuses_to_overwrite_and_leaves_all_as_it_was(first_charge):
    folder, _ = first_charge
    before = (folder / "first_charge.h5").stat()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "runner.cli", "run"),
            str(ROOT / "examples" / "lco_lipon_li.toml"),
            *("-o", "first_charge.h5", "--speed", "max"),
        ],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert (folder / "first_charge.h5").stat() == before
