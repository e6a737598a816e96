"""Rates of a session's tracks, tested and written: made tracks in a real file."""

import math

import numpy as np
import pytest

from correlate.rates import running_integral
from runner.analysis import correlate_session
from runner.associations import SURROGATES
from runner.report_data import gather
from runner.summary import summarise
from runner.summary_text import render_summary
from session.editor import SessionEditor
from session.reader import Session
from session.records import SESSION_SAMPLE_DTYPE, CameraHeader, FrameHeader, SessionHeader
from session.validate import validate
from session.writer import SessionWriter

S = 10**9
SECONDS = 150
M_PER_C = 2.0e3
LEVELS_A = 1e-12 * np.repeat([0.0, 20.0, 0.0, -15.0, 0.0, 25.0], [15, 40, 20, 35, 15, 25])


def written(path, current_A):
    """Two readings and two frames a second, and a front that follows the charge."""
    camera = CameraHeader(
        name="camera",
        model="m",
        height=4,
        width=4,
        dtype="uint8",
        frame_rate_Hz=2.0,
        pixel_size_m=1e-9,
    )
    header = SessionHeader(
        title="made",
        experiment_text="",
        start_time="2026-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=False,
        cameras=(camera,),
    )
    rng = np.random.default_rng(3)
    rows = np.zeros(2 * SECONDS, SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = np.arange(2 * SECONDS) * S // 2
    rows["setpoint"] = np.repeat(current_A, 2)
    rows["current"] = rows["setpoint"] + 1e-14 * rng.standard_normal(len(rows))
    rows["current_sigma"], rows["voltage_sigma"] = 1e-14, 0.01
    rows["voltage"] = 3.4 + 0.01 * rng.standard_normal(len(rows))
    with SessionWriter(path, header) as writer:
        writer.append_samples(rows)
        for i in range(2 * SECONDS - 2):
            stamps = FrameHeader(
                t_start_ns=i * S // 2,
                exposure_ns=S // 4,
                t_sigma_ns=2e7,
                index=i,
                device_start_ns=i * S // 2,
                dose_per_m2=math.nan,
            )
            writer.append_frame("camera", stamps, np.zeros((4, 4), np.uint8))
        writer.finish("imported", "2026-01-01T00:02:30+00:00")
    t_ns = np.arange(2 * SECONDS - 2) * S // 2 + S // 8
    charge_C = running_integral(rows["t_ns"], rows["current"])
    charge_C = np.interp(t_ns / S, rows["t_ns"] / S, charge_C)
    valid = np.ones(len(t_ns), np.uint8)
    valid[100:110] = 0
    position = M_PER_C * charge_C + 2e-9 * rng.standard_normal(len(t_ns))
    position[valid == 0] = 1.0  # not to be believed
    with SessionEditor.open(path) as editor:
        editor.put_table(
            "tracks/front",
            {
                "t_ns": t_ns,
                "position": position,
                "position_sigma": np.full(len(t_ns), 2e-9),
                "valid": valid,
            },
        )
    correlate_session(path)
    assert validate(path) == []
    return path


@pytest.fixture(scope="module")
def coupled(tmp_path_factory):
    return written(tmp_path_factory.mktemp("associations") / "a.h5", LEVELS_A)


def test_a_front_that_follows_the_charge_is_found_with_all_that_a_reader_needs(coupled):
    with Session.open(coupled) as session:
        current = session.table("correlation/front_current")
        voltage = session.attributes("correlation/front_voltage")
    known = current.attributes
    assert known["p"] < 0.05
    assert known["p"] <= known["q"] <= 2 * known["p"]
    assert known["family"] == 2
    assert known["slope_low"] < M_PER_C < known["slope_high"]
    assert known["slope_unit"] == "m/C"
    assert known["lag_low_s"] < 0 < known["lag_high_s"]
    assert known["clock_sigma_s"] == pytest.approx(0.02)
    assert known["n"] < SECONDS - 5  # frames that are not valid are gaps
    assert "follows the current" in known["verdict"]
    assert len(current["surrogates_phase"]) == len(current["surrogates_iaaft"]) == SURROGATES
    assert known["smallest_p"] == 1 / (1 + 2 * SURROGATES)
    assert len(current["p_of_lag"]) == len(current["lag_s"]) == len(current["r"])
    assert voltage["p"] > 0.05
    assert "Not more than chance gives" in voltage["verdict"]


def test_what_happens_at_switches_and_where_the_rate_steps_is_kept(coupled):
    with Session.open(coupled) as session:
        switching = session.table("correlation/front_switching")
        steps = session.table("correlation/front_steps")
    assert switching.attributes["events"] >= 4
    assert switching.attributes["p"] < 0.05
    after = switching["offset_s"] > 2
    assert np.median(switching["mean"][after]) > 1e-8  # 2e3 m/C times about 20 pA
    assert steps.attributes["smallest_p"] == 0.01
    switches_s = np.flatnonzero(np.diff(LEVELS_A)) + 1
    assert all(np.abs(switches_s - t / S).min() < 4 for t in steps["t_ns"])


def test_summary_and_report_say_it(coupled):
    summary = summarise(coupled)
    assert summary.correlations[0].name.startswith("front velocity with")
    content = gather(coupled, frames_budget_bytes=10**6).content
    shown = next(t for t in content["associations"] if t["name"] == "front_current")
    assert shown["verdict"] == summary.correlations[0].verdict
    assert [t["p"] for t in content["associations"]] == sorted(
        t["p"] for t in content["associations"]
    )
    (switching,) = content["switching"]
    assert len(switching["mean"]) == len(switching["offset"])
    assert shown["effect"].startswith("slope ")
    render_summary(summary)


def test_one_switch_is_not_enough_and_the_session_says_what_would_be(tmp_path):
    path = written(tmp_path / "b.h5", 1e-12 * np.repeat([0.0, 20.0], [50, 100]))
    with Session.open(path) as session:
        found = session.attributes("correlation/front_current")
    assert found["reason"].startswith("1 switching events")
    assert "at least 3" in found["enough"]
    assert math.isnan(found["p"])
    assert "r_max" not in found
    told = {t["name"]: t for t in gather(path, frames_budget_bytes=10**6).content["associations"]}
    assert "Not enough data" in told["front_current"]["verdict"]
    assert told["front_current"]["p"] is None
    render_summary(summarise(path))
