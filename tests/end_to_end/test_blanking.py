"""A run that blanks its beam with a code, from the command line, against the hidden truth."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runner import analysis
from session import Session
from session.truth import read_truth
from session.validate import validate

ROOT = Path(__file__).parents[2]
BEAM_A = 2e-12
TERMS = ("instrument", "beam", "ionic")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """Run a shorter example, with an instrument whose gain is better than its data sheet."""
    folder = tmp_path_factory.mktemp("coded")
    text = (ROOT / "examples" / "coded_blanking.toml").read_text()
    text = text.replace('code = "auto"', "code = 5").replace('for = "70 s"', 'for = "22 s"')
    text = text.replace("overrides = { ", "overrides = { share_of_specification = 0.1, ")
    (folder / "coded.toml").write_text(text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "runner.cli", "run", "coded.toml", "-o", "coded.h5"),
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
    return folder, json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def truth(coded):
    return read_truth(coded[0] / "coded.truth.h5")


@pytest.fixture(scope="module")
def session(coded):
    with Session.open(coded[0] / "coded.h5") as opened:
        yield opened


def true_charges(truth, t_ns):
    """Return what each term was between the first reading and the last."""
    table, ends_ns = truth["ledger"], t_ns[[0, -1]]
    origin = int(t_ns[0])
    at = {
        name: np.interp(
            (ends_ns - origin).astype(float), (table["t_ns"] - origin).astype(float), table[name]
        )
        for name in TERMS
    }
    return {name: value[1] - value[0] for name, value in at.items()}


def test_the_session_is_sound_and_says_what_was_played(coded, session, truth):
    assert validate(coded[0] / "coded.h5") == []
    (played,) = (e for e in session.events() if e.kind == "beam")
    assert played.data["complete"] is True
    assert played.data["left_on"] is True
    assert played.data["edges"] == len(played.data["sent_ns"]) == 16
    commanded_ns = truth["blanker"]["commanded_ns"]
    assert np.all(np.array(played.data["sent_ns"]) <= commanded_ns)
    assert np.all(np.array(played.data["done_ns"]) >= commanded_ns)
    assert [e.kind for e in session.events()].count("microscope") == 1  # the code is no news


def test_delays_are_true_within_their_sigmas(session, truth):
    table = session.table("correlation/blanking")
    late_s = (truth["blanker"]["t_ns"] - truth["blanker"]["commanded_ns"]) / 1e9
    camera_s, sigma_s = table["camera_delay"][0], table["camera_delay_sigma"][0]
    assert abs(camera_s - 0.004) < 3 * sigma_s
    assert abs(camera_s - late_s.mean()) < 3 * sigma_s
    assert sigma_s < 2e-3
    # The instrument integrates the current after the voltage, so a quarter of a reading
    # after the middle, by which it is stamped: no clock says so, the code does.
    aside_s = session.sample_columns()["aperture_s"][0] / 4
    meter_s, sigma_s = table["meter_delay"][0], table["meter_delay_sigma"][0]
    assert abs(meter_s - (late_s.mean() - aside_s)) < 3 * sigma_s
    difference_s, sigma_s = table["difference"][0], table["difference_sigma"][0]
    assert abs(difference_s - aside_s) < 3 * sigma_s
    assert aside_s < table["difference_bound"][0]
    (told,) = (e for e in session.events() if e.kind == "blanking")
    assert told.data["agrees"] == 1.0


def test_the_current_of_the_beam_is_true_and_its_sigma_is_honest(coded, session):
    table = session.table("correlation/blanking")
    beam_A, sigma_A = table["beam_current"][0], table["beam_current_sigma"][0]
    assert beam_A == pytest.approx(BEAM_A, rel=0.02)
    assert abs(beam_A - BEAM_A) < 4 * sigma_A
    (summary,) = coded[1]["codes"]
    assert summary["beam_current_A"] == {"value": beam_A, "sigma": sigma_A}
    assert coded[1]["steps"][0]["charge_C"]["beam"]["sigma"] > 0


def test_the_ionic_charge_is_true_with_the_code_and_wrong_by_the_beam_without(
    coded, session, truth, tmp_path, monkeypatch
):
    ledger = session.table("ledger")
    true_C = true_charges(truth, ledger["t_ns"])
    assert ledger.attributes["beam_status"].startswith("measured by 1 code")
    for name in TERMS:
        error_C = ledger[name][-1] - true_C[name]
        assert abs(error_C) < 4 * ledger[f"{name}_sigma"][-1]
    assert ledger["ionic"][-1] == pytest.approx(true_C["ionic"], rel=1e-3)
    blind = tmp_path / "blind.h5"
    shutil.copy(coded[0] / "coded.h5", blind)
    monkeypatch.setattr(analysis, "read_codes", lambda *_: ())
    analysis.correlate_session(blind)
    with Session.open(blind) as unread:
        ionic_C = unread.table("ledger")["ionic"][-1]
    assert ionic_C - true_C["ionic"] == pytest.approx(-true_C["beam"], rel=0.05)
    assert abs(ionic_C / true_C["ionic"] - 1) > 0.05
