"""The report as a file: complete, self-contained, small, and honest about gaps."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from runner.outputs import OutputRefused
from runner.report import render, write_report
from runner.report_data import ReportData, gather
from runner.report_numbers import axis_unit, numbers, reduce_trace, value_text
from runner.summary import summarise
from session import Session
from session.editor import SessionEditor
from session.records import SESSION_SAMPLE_DTYPE, CameraHeader, FrameHeader, SessionHeader
from session.writer import SessionWriter

pytestmark = pytest.mark.timeout(600)


def data_of(path):
    page = path.read_text("utf-8")
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    return page, json.loads(raw)


def bare_session(path, *, samples=0, frames=0, title="bare", size=(64, 80)):
    cameras = ()
    if frames:
        cameras = (
            CameraHeader(
                name="camera",
                model="m",
                height=size[0],
                width=size[1],
                dtype="uint8",
                frame_rate_Hz=1.0,
                pixel_size_m=math.nan,
            ),
        )
    header = SessionHeader(
        title=title,
        experiment_text="",
        start_time="2026-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=False,
        cameras=cameras,
    )
    rng = np.random.default_rng(0)
    with SessionWriter(path, header) as writer:
        rows = np.zeros(samples, SESSION_SAMPLE_DTYPE)
        rows["t_ns"] = np.arange(samples) * 10**8
        rows["voltage"] = 3.9 + 0.01 * rng.standard_normal(samples)
        rows["current"] = -3.9e-9 + 5e-12 * rng.standard_normal(samples)
        if samples:
            writer.append_samples(rows)
        for i in range(frames):
            stamps = FrameHeader(
                t_start_ns=i * 10**9 + (5 * 10**9 if i > 2 else 0),
                exposure_ns=10**9,
                t_sigma_ns=math.nan,
                index=i,
                device_start_ns=i * 10**9,
            )
            writer.append_frame("camera", stamps, rng.poisson(40, size).astype(np.uint8))
        writer.finish("imported", "2026-01-01T00:01:00+00:00")
    return path


def test_a_finished_run_has_every_panel(finished, tmp_path):
    summary = write_report(finished, tmp_path / "a.html")
    page, data = data_of(tmp_path / "a.html")
    assert summary.size_bytes == (tmp_path / "a.html").stat().st_size < 20_000_000
    assert data["simulated"] is True
    assert len(data["steps"]) == 5
    assert data["steps"][1]["ended"] == "t > 40 s"
    assert " ± " in data["steps"][1]["charge"]["ionic"]
    assert data["steps"][1]["charge"]["beam"] == "not measured"
    tested = {test["name"]: test for test in data["associations"]}
    assert tested["front_current"]["p"] < 0.2
    surrogates = tested["front_current"]["surrogates"]
    assert sum(surrogates["phase"]) == sum(surrogates["iaaft"]) == 499
    (balance,) = data["balances"]
    assert " ± " in balance["ratio"]
    assert "depth_sigma" in balance["lacks"]
    assert len(balance["charge"]) == len(balance["value"]) > 100
    assert {"voltage", "current"} < set(data["traces"])
    assert len(data["frames"]["t"]) == len(data["frames"]["offsets"]) - 1
    (front,) = data["tracks"]
    assert front["valid"] > 0.9 * front["count"]
    assert [q["name"] for q in front["quantities"]] == [
        *("position", "velocity", "width", "roughness", "area_swept")
    ]
    assert {mark["thing"]: mark["moves"] for mark in data["marks"]} == {
        "front": True,
        "interface": False,
        "collector": False,
    }
    assert "The track 'front' was made by the front tracker" in data["methods"]
    assert "Lamella" in data["methods"]
    assert data["reductions"] == []
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert 'http-equiv="Content-Security-Policy"' in page
    with pytest.raises(OutputRefused, match="--overwrite"):
        write_report(finished, tmp_path / "a.html")
    write_report(finished, tmp_path / "a.html", overwrite=True)


def test_frames_are_pictures_at_their_own_times(tmp_path):
    session = bare_session(tmp_path / "s.h5", frames=6)
    data = gather(session, frames_budget_bytes=10**7).content["frames"]
    assert data["t"] == [0.5, 1.5, 2.5, 8.5, 9.5, 10.5]
    raw = base64.b64decode(data["data"])
    picture = Image.open(io.BytesIO(raw[data["offsets"][2] : data["offsets"][3]]))
    assert picture.size == (80, 64)
    assert data["pixel_nm"] is None


def test_axes_have_the_unit_in_which_their_values_read_well(tmp_path):
    session = bare_session(tmp_path / "s.h5", samples=50)
    traces = gather(session, frames_budget_bytes=10**6).content["traces"]
    with Session.open(session) as opened:
        current_A = opened.sample_columns()["current"]
    assert traces["current_unit"] == "nA"
    assert np.allclose(np.array(traces["current"]) * 1e-9, current_A, rtol=1e-6)


def test_a_session_of_frames_alone_has_a_duration(tmp_path):
    session = bare_session(tmp_path / "s.h5", frames=6)
    assert summarise(session).duration_s == 11.0


def test_what_is_too_large_is_reduced_and_said(tmp_path):
    session = bare_session(tmp_path / "s.h5", samples=20_000, frames=12, size=(600, 640))
    found = gather(session, frames_budget_bytes=60_000)
    said = " ".join(found.reductions)
    assert "binned 2 x 2" in said
    assert re.search(r"1 of \d+ is shown", said)
    assert "JPEG quality 30" in said
    assert "of 20000 readings" in said
    frames = found.content["frames"]
    assert len(base64.b64decode(frames["data"])) < 90_000
    assert frames["row"][0] == 0
    assert frames["width"] == 640


@pytest.mark.parametrize(("samples", "frames"), [(0, 3), (50, 0), (0, 0)])
def test_a_session_with_parts_missing_has_a_page(tmp_path, samples, frames):
    session = bare_session(tmp_path / "s.h5", samples=samples, frames=frames)
    write_report(session, tmp_path / "s.html")
    _, data = data_of(tmp_path / "s.html")
    assert (data["traces"] is None) == (samples == 0)
    assert (data["frames"] is None) == (frames == 0)
    assert data["ledger"] is None
    assert data["tracks"] == data["marks"] == data["stops"] == []


def test_a_title_cannot_become_part_of_the_page(tmp_path):
    evil = "</script><script>alert(1)</script>"
    session = bare_session(tmp_path / "s.h5", samples=4, title=evil)
    write_report(session, tmp_path / "s.html")
    page, data = data_of(tmp_path / "s.html")
    assert data["title"] == evil
    assert "<script>alert" not in page


def test_numbers_that_are_none_are_null():
    assert numbers([1.0, math.nan, math.inf, 1 / 3], 4) == [1.0, None, None, 0.3333]
    content = {"title": "t", "x": numbers([math.nan])}
    assert "null" in render(ReportData(content=content, reductions=()))


def test_reduced_traces_keep_their_extremes():
    value = np.zeros(50_000)
    value[12_345], value[40_000] = 7.0, -3.0
    rows = reduce_trace([value], 1000)
    assert len(rows) <= 1002
    assert {12_345, 40_000, 0, 49_999} <= set(rows.tolist())
    assert np.all(np.diff(rows) > 0)
    assert len(reduce_trace([value[:10]], 1000)) == 10


@pytest.mark.parametrize(
    ("unit", "size", "factor", "name"),
    [
        ("m", 4e-7, 1e-9, "nm"),
        ("m/s", 2e-9, 1e-9, "nm/s"),
        ("m^2", 3e-14, 1e-12, "µm²"),
        ("m^2", 3e-15, 1e-18, "nm²"),
        ("m^3", 8e-21, 1e-18, "µm³"),
        ("1/m", 2e7, 1e9, "1/nm"),
        ("1", 0.3, 1.0, ""),
        ("px", 300.0, 1.0, "px"),
        ("rad", 0.0, 1.0, "rad"),
    ],
)
def test_axes_of_tracked_quantities_read_well(unit, size, factor, name):
    found = axis_unit(unit, size)
    assert found[0] == pytest.approx(factor)
    assert found[1] == name


def test_values_have_two_digits_of_their_sigma_in_any_unit():
    assert value_text(0.99333, 0.0047, "1") == "0.9933 ± 0.0047"
    assert value_text(8.88e-8, 9.6e-10, "m") == "88.80 ± 0.96 nm"
    assert value_text(2e-14, 1e-16, "m^2") == "0.02000 ± 0.00010 µm²"
    assert value_text(math.nan, 1.0, "1") == "unknown"
    assert value_text(5.0, math.nan, "1") == "5 (uncertainty unknown)"


# --- a tracker that nobody knows -------------------------------------------------------


def foreign_track(path, *, frames=6):
    """Write the track of a tracker that is not installed here."""
    session = bare_session(path, samples=80, frames=frames)
    t_ns = np.arange(frames) * 10**9
    bend = np.linspace(0.1, 0.4, frames)
    columns = {
        "t_ns": t_ns,
        "bend": bend,
        "bend_sigma": np.full(frames, 0.01),
        "length": 1e-7 * bend,
        "length_sigma": np.full(frames, 1e-9),
        "knee_x_px": np.linspace(10, 20, frames),
        "knee_x_px_sigma": np.full(frames, 0.5),
        "knee_y_px": np.full(frames, 30.0),
        "joint_1": bend,
        "joint_1_sigma": np.full(frames, 0.1),
        "joint_2": 2 * bend,
        "joint_2_sigma": np.full(frames, 0.1),
        "valid": np.array([1, 1, 0, 1, 1, 1][:frames], np.uint8),
    }
    units = {"bend": "rad", "length": "m", "knee_x_px": "px", "knee_y_px": "px", "joint_1": "1"}
    about = {"tracker": "elbow", "reasons": "1: hidden", "floor_y_px": 50.0}
    with SessionEditor.open(session) as editor:
        shift = np.full(frames, 2.0)
        drift = {"dx": shift, "dy": -shift, "quality": shift, "valid": np.ones(frames, np.uint8)}
        sigmas = dict.fromkeys(("sigma", "sigma_x", "sigma_y"), shift)
        editor.put_table("drift/camera", {"t_ns": t_ns, **drift, **sigmas})
        editor.put_table("tracks/arm", columns, about, units=units)
    return session


def test_a_tracker_that_is_not_known_has_all_its_quantities_and_marks(tmp_path):
    content = gather(foreign_track(tmp_path / "s.h5"), frames_budget_bytes=10**6).content
    (track,) = content["tracks"]
    assert (track["tracker"], track["valid"], track["reasons"]) == ("elbow", 5, "1: hidden")
    assert [(q["name"], q["unit"]) for q in track["quantities"]] == [
        ("bend", "rad"),
        ("length", "nm"),
    ]
    length = track["quantities"][1]
    assert length["value"][0] == pytest.approx(10.0)
    assert length["high"][0] == pytest.approx(11.0)
    assert length["value"][2] is None  # not valid: nothing is filled in
    (joints,) = track["many"]
    assert joints["names"] == ["joint_1", "joint_2"]
    knee, floor = content["marks"]
    assert (knee["thing"], knee["moves"], floor["thing"], floor["moves"]) == (
        *("knee", True),
        *("floor", False),
    )
    # In pixels of the frames, which the drift of 2 px had moved.
    assert (knee["x"][0], knee["y"][0], knee["sigma"][0]) == (8.0, 32.0, 0.5)
    assert knee["x"][2] is None
    assert floor["x"] is None
    assert floor["y"] == [52.0] * 6
    assert (
        "'arm' was made by the elbow tracker (bend, length), in 5 of 6 frames"
        in (content["methods"])
    )


# --- why images ended a step ------------------------------------------------------------


def stopped(path, **changes):
    session = foreign_track(path)
    data = {
        "rule": "arm.length > 25 nm, 2 of 3 frames, then hold",
        "watch": "met",
        "then": "hold",
        "frame": 3,
        "age_s": 0.12,
        "after_flow_s": 0.25,
        "value": 28e-9,
        "sigma": 1e-9,
        "prediction": {
            "value": 30e-9,
            "sigma": 1.5e-9,
            "velocity": 6e-9,
            "velocity_sigma": 1e-9,
            "lookahead_s": 0.4,
        },
        "frames_before": [
            {"frame": 1, "t_ns": 10**9, "value": 16e-9, "sigma": 1e-9, "valid": True},
            {"frame": 2, "t_ns": 2 * 10**9, "value": None, "sigma": None, "valid": False},
        ],
        **changes,
    }
    with SessionEditor.open(session) as editor:
        editor.add_event(4 * 10**9, "image_stop", "runner", "the arm is long", data)
    (stop,) = gather(session, frames_budget_bytes=10**6).content["stops"]
    json.dumps(stop, allow_nan=False)
    return stop


def test_a_stop_tells_rule_value_forecast_and_what_came_true(tmp_path):
    stop = stopped(tmp_path / "s.h5")
    facts = {fact["name"]: fact["value"] for fact in stop["facts"]}
    assert facts["seen"] == "28.0 ± 1.0 nm"
    assert facts["foreseen"] == "30.0 ± 1.5 nm"
    assert facts["velocity"] == "6.0 ± 1.0 nm/s"
    assert facts["of it after-flow"] == "0.25 s"
    assert facts["in frame"] == "3"
    # The first valid frame after all that was looked ahead by.
    assert facts["by the whole recording"] == "34.0 ± 1.0 nm, 1.00 s after that frame"
    chart = stop["chart"]
    assert (chart["limit"], chart["unit"]) == (pytest.approx(25.0), "nm")
    assert (chart["live_t"], chart["live"]) == ([1.0], [16.0])
    assert chart["foreseen_t"] == pytest.approx(3.4)
    strip = stop["strip"]
    assert strip["index"][strip["decided"]] == 3
    assert strip["index"][0] < 3 < strip["index"][-1]
    assert len(strip["images"]) == len(strip["marks"][0]["x"]) == len(strip["index"])


def test_a_stop_by_an_image_that_was_lost_has_no_forecast(tmp_path):
    stop = stopped(tmp_path / "s.h5", watch="stale", prediction={}, value=None, frame=-1)
    facts = {fact["name"]: fact["value"] for fact in stop["facts"]}
    assert facts["what the image said"] == "it is stale"
    assert not {"seen", "foreseen", "in frame", "by the whole recording"} & set(facts)
    assert stop["chart"]["foreseen"] is None


def test_a_stop_by_the_dose_or_by_a_rule_of_tomorrow_is_told_all_the_same(tmp_path):
    dose = stopped(tmp_path / "a.h5", rule="dose > 5 e/angstrom^2", prediction={}, value=5e20)
    assert "chart" not in dose
    strange = stopped(tmp_path / "b.h5", rule="arm.feeling > 3")
    assert strange["why"] == "the arm is long"
    assert "chart" not in strange


def test_clocks_leave_less_than_their_bound(finished):
    clocks = gather(finished, frames_budget_bytes=10**6).content["clocks"]["clocks"]
    assert {clock["name"] for clock in clocks} == {"camera", "potentiostat"}
    for clock in clocks:
        assert clock["rows"][0]["exchanges"] != "-"
        left, high = np.array(clock["left"]), np.array(clock["high"])
        assert np.mean(np.abs(left) <= high - left) > 0.95  # half a round trip bounds each
