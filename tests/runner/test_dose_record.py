"""Dose of each frame and of each part of the specimen, as it is stored in a session."""

import json
import math

import numpy as np
import pytest

from runner.analysis import correlate_session
from runner.dose_record import PATH, dose_of
from runner.report_data import gather
from runner.summary import summarise
from runner.summary_text import render_summary
from session.editor import SessionEditor
from session.reader import Session
from session.records import CameraHeader, FrameHeader, SessionHeader
from session.validate import validate
from session.writer import SessionWriter

RATE = 3e20  # electrons per m^2 and s
S = 10**9
COUNT, SIZE = 8, (5, 7)


def written(path, *, rate=RATE, events=(), blanked=(), sigma_ns=0.0, drift=None):
    """Frames of 0.5 s each second, from 10 s on; number 3 was dropped."""
    camera = CameraHeader(
        name="camera",
        model="m",
        height=SIZE[0],
        width=SIZE[1],
        dtype="uint8",
        frame_rate_Hz=1.0,
        pixel_size_m=1e-9,
    )
    header = SessionHeader(
        title="dose",
        experiment_text="",
        start_time="2026-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=False,
        cameras=(camera,),
    )
    with SessionWriter(path, header) as writer:
        for i in (i for i in range(COUNT + 1) if i != 3):
            stamps = FrameHeader(
                t_start_ns=(10 + i) * S,
                exposure_ns=S // 2,
                t_sigma_ns=sigma_ns,
                index=i,
                device_start_ns=i * S,
                dropped_before=int(i == 4),
                dose_per_m2=rate * (i + 0.5),
                blanked=i in blanked,
            )
            writer.append_frame("camera", stamps, np.zeros(SIZE, np.uint8))
        for t_ns, kind, source, data in events:
            writer.append_event(t_ns, kind, source, kind, json.dumps(data))
        writer.finish("imported", "2026-01-01T00:01:00+00:00")
    if drift is not None:
        with SessionEditor.open(path) as editor:
            columns = dict.fromkeys(("sigma_x", "sigma_y", "sigma", "quality"), np.ones(COUNT))
            editor.put_table("drift/camera", {"t_ns": np.arange(COUNT), **columns, **drift})
    correlate_session(path)
    assert validate(path) == []
    return path


def table(path):
    with Session.open(path) as session:
        return session.table(PATH)


def test_each_frame_has_the_dose_since_the_one_before(tmp_path):
    found = table(written(tmp_path / "a.h5", sigma_ns=1e6))
    # The first half a second, then a second each; two where one was dropped.
    seconds = np.array([0.5, 1, 1, 2, 1, 1, 1, 1])
    np.testing.assert_allclose(found["dose"], RATE * seconds)
    np.testing.assert_allclose(found["dose_total"], RATE * np.cumsum(seconds))
    np.testing.assert_allclose(found["dose_sigma"][1:], RATE * 1e-3 * math.sqrt(2))
    assert found.units["dose"] == found.units["dose_sigma"] == found.units["map"] == "1/m^2"
    assert found["map"].dtype == np.float32
    assert found["map"].shape == SIZE
    np.testing.assert_allclose(found["map"], 8.5 * RATE, rtol=1e-6)
    assert "nobody watched the beam current" in found.attributes["reason"]
    assert not found.attributes["drift_known"]


def test_an_unknown_dose_is_nan_and_says_why(tmp_path):
    path = written(tmp_path / "a.h5", rate=math.nan)
    found = table(path)
    for name in ("dose", "dose_sigma", "dose_total"):
        assert np.all(np.isnan(found[name]))
    assert "map" not in found
    assert found.attributes["reason"].startswith("the session has no dose rate")
    assert summarise(path).dose.reason == found.attributes["reason"]
    assert gather(path, frames_budget_bytes=10**6).content["dose"]["image"] is None


def test_what_was_blanked_is_no_dose(tmp_path):
    code = {"sent_ns": [12 * S, 12 * S + S // 4], "done_ns": [12 * S, 12 * S + S // 4]}
    told = [
        (13 * S, "beam", "blanker", {**code, "complete": True}),
        (14 * S + S // 2, "microscope", "microscope", {"beam_blanked": True}),
        (15 * S, "microscope", "microscope", {"beam_blanked": True}),
        (15 * S + S // 2, "microscope", "microscope", {"beam_blanked": False}),
    ]
    found = table(written(tmp_path / "a.h5", events=told, blanked=(7,)))
    # Frames 0, 1, 2, 4, 5, ...: a quarter in 2, all of the second of 5, the exposure of 7.
    np.testing.assert_allclose(found["lit"], [1, 1, 0.75, 1, 0, 1, 0.5, 1])
    np.testing.assert_allclose(found["dose"], RATE * np.array([0.5, 1, 0.75, 2, 0, 1, 0.5, 1]))


def test_a_beam_that_is_blanked_to_the_end_gives_no_more_dose(tmp_path):
    told = [(16 * S + S // 2, "microscope", "microscope", {"beam_blanked": True})]
    found = table(written(tmp_path / "a.h5", events=told))
    assert found["lit"].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_the_dose_follows_the_beam_current(tmp_path):
    told = [
        (9 * S, "microscope", "microscope", {"beam_current_A": 2e-9}),
        (14 * S, "microscope", "microscope", {"beam_current_A": None}),
        (15 * S, "microscope", "microscope", {"beam_current_A": 1e-9}),
    ]
    found = table(written(tmp_path / "a.h5", events=told))
    expected = RATE * np.array([0.5, 1, 1, 2, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(found["dose"], expected)
    np.testing.assert_allclose(found["dose_sigma"], 0.01 / math.sqrt(3) * expected)
    assert "watched" not in found.attributes["reason"]


def test_the_map_lies_on_the_specimen_with_the_drift_taken_out(tmp_path):
    # From frame 4 of the session on, 2 px are to be added to x, and 1 px taken from y.
    late = np.arange(COUNT) >= 4
    drift = {"dx": np.where(late, 2.0, 0.0), "dy": np.where(late, -1.0, 0.0)}
    drift["valid"] = np.ones(COUNT, np.uint8)
    found = table(written(tmp_path / "a.h5", drift=drift))
    assert (found.attributes["map_top"], found.attributes["map_left"]) == (-1, 0)
    assert found["map"].shape == (SIZE[0] + 1, SIZE[1] + 2)
    early, all_ = 4.5 * RATE, 8.5 * RATE
    np.testing.assert_allclose(found["map"][1:-1, 2:-2], all_, rtol=1e-6)
    np.testing.assert_allclose(found["map"][-1, :-2], early, rtol=1e-6)
    np.testing.assert_allclose(found["map"][0, 2:], all_ - early, rtol=1e-6)
    assert found["map"][0, 0] == 0


def test_a_session_without_frames_has_no_dose(tmp_path):
    path = tmp_path / "a.h5"
    header = SessionHeader(
        title="a", experiment_text="", start_time="", host_start_ns=0, simulated=False
    )
    with SessionWriter(path, header) as writer:
        writer.finish("imported", "")
    correlate_session(path)
    with Session.open(path) as session:
        assert dose_of(session) is None
        assert not session.has(PATH)
    assert summarise(path).dose is None


def test_summary_and_report_tell_the_dose(tmp_path, capsys):
    from rich.console import Console

    path = written(tmp_path / "a.h5")
    summary = summarise(path)
    assert summary.dose.total_per_m2 == pytest.approx(8.5 * RATE)
    assert summary.dose.largest_per_m2 == pytest.approx(8.5 * RATE)
    Console(width=200).print(render_summary(summary))
    assert "25.5 e/angstrom^2" in capsys.readouterr().out
    content = gather(path, frames_budget_bytes=10**6).content
    assert content["dose"]["total"] == "25.5 e/Å²"
    assert content["dose"]["image"].startswith("data:image/png;base64,")
