"""A session and the calibration of its holder after the run."""

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from click.testing import CliRunner

from runner.cli import main
from runner.holder_record import HolderRecord, calibration_from
from runner.session_holder import (
    AFTER,
    HolderMismatch,
    holder_change_of,
    holder_of,
    put_holder_after,
)
from session import Session
from session.editor import SessionEditor
from session.validate import validate

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copy(finished, tmp_path / "run.h5")
    return tmp_path / "run.h5"


def after(path, *, hours=2.0, **changes):
    with Session.open(path) as session:
        attributes = session.calibration.attributes
    return HolderRecord(
        calibration=replace(calibration_from(attributes), **changes),
        columns={"voltage": np.zeros(3)},
        source="after.h5",
        measured_at=datetime.fromisoformat(str(attributes["measured_at"])) + timedelta(hours=hours),
    )


def said(path):
    with Session.open(path) as session:
        return [e.message for e in session.events() if e.kind == "holder_changed"]


def test_a_run_leaves_noise_and_zero_of_its_range_in_the_session(finished):
    with Session.open(finished) as session:
        ranges = session.table("calibration/ranges")
        assert list(ranges["range"]) == [1e-10]
        known = calibration_from(session.calibration.attributes)
        assert abs(ranges["offset"][0] - known.offset_A) < 5 * ranges["offset_sigma"][0]
        assert len(session.table("calibration/allan/100 pA")["deviation"]) > 4
        assert session.table("calibration/spectrum/100 pA").units["density"] == "A/sqrt(Hz)"


def test_a_holder_that_did_not_change_raises_no_alarm(copy):
    assert put_holder_after(copy, after(copy)) == ()
    assert said(copy) == []
    with Session.open(copy) as session:
        assert session.has(AFTER)
        assert holder_change_of(session).capacitance_F == 0.0
    assert validate(copy) == []


def test_a_changed_leak_and_a_drifting_zero_are_events_once(copy):
    offset_A = 150e-15
    for _ in range(2):
        alarms = put_holder_after(copy, after(copy, conductance_S=2e-12, offset_A=offset_A))
    assert len(alarms) == 2
    assert said(copy) == list(alarms)
    assert "the leakage of the holder changed from" in alarms[0]
    assert "in 2 h, faster than 50 fA/h" in alarms[1]
    (slow,) = put_holder_after(copy, after(copy, hours=100.0, offset_A=offset_A))
    assert "in 1e+02 h" in slow
    assert "faster" not in slow
    (undated,) = put_holder_after(copy, after(copy, hours=-5.0, offset_A=offset_A))
    assert " h" not in undated.rpartition("±")[2]


def test_another_range_cannot_be_compared(copy):
    with pytest.raises(HolderMismatch, match="10 pA range and .* 100 pA"):
        put_holder_after(copy, after(copy, range_A=1e-11))


def test_a_calibration_after_the_run_alone_is_better_than_none(copy):
    late = after(copy, conductance_S=2e-12)
    with SessionEditor.open(copy) as editor:
        for name in ("calibration",):
            del editor._file["entry"][name]
        events = editor._file["entry/events"]
        rows = [k.decode() == "calibration" for k in events["kind"][:]]
        events["kind"][int(np.flatnonzero(rows)[0])] = "note"
    with Session.open(copy) as session:
        assert holder_of(session) is None
    assert put_holder_after(copy, late) == ()
    with Session.open(copy) as session:
        assert holder_of(session).conductance_S == 2e-12
        assert holder_change_of(session) is None


def test_correlate_takes_both_calibrations(copy, tmp_path):
    def ionic(*words):
        result = CliRunner().invoke(main, ["correlate", str(copy), "--json", *words])
        assert result.exit_code == 0, (result.output, result.exception)
        step = json.loads(result.stdout.strip().splitlines()[-1])["steps"][1]
        return step["charge_C"]["ionic"], result.stderr

    once, _ = ionic()
    late = after(copy, conductance_S=2e-12)
    late.write(tmp_path / "after.h5", overwrite=False)
    both, warned = ionic("--post", str(tmp_path / "after.h5"))
    assert "warning: the leakage of the holder changed" in warned
    # Half the change of the leakage, at 3.9 V for 40 s; in the sigma over the root of 3.
    expected_C = 0.5 * (2e-12 - 1e-12) * 3.9 * 40
    assert once["value"] - both["value"] == pytest.approx(expected_C, rel=0.05)
    assert both["sigma"] == pytest.approx(expected_C / 3**0.5, rel=0.05)
    again, _ = ionic()
    assert again == both
    bad = CliRunner().invoke(main, ["correlate", str(copy), "--post", str(copy)])
    assert bad.exit_code == 2
    assert "lamella-calibration" in bad.stderr
