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
from runner.report_data import ReportData, gather, numbers, reduce_trace
from runner.summary import summarise
from session import Session
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
    assert data["lag"]["p"] < 0.2
    assert " ± " in data["faraday"]["ratio"]
    assert {"voltage", "current"} < set(data["traces"])
    assert len(data["frames"]["t"]) == len(data["frames"]["offsets"]) - 1
    assert data["front"]["valid"] > 0.9 * data["front"]["count"]
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
    assert not data["drift_known"]


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
    assert "every" in said
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
    assert data["front"] is None


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
