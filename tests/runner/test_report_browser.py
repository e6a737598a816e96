"""The report in a real browser: slider, traces and frames move together, offline."""

import time
from contextlib import ExitStack
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from runner.report import write_report
from session.records import SESSION_SAMPLE_DTYPE, SessionHeader
from session.writer import SessionWriter
from tests.runner.browser import BROWSER, browsed

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed"),
    pytest.mark.timeout(600),
]


@pytest.fixture
def browse(tmp_path):
    with ExitStack() as leaving:

        def start(page_path):
            return leaving.enter_context(browsed(page_path.as_uri(), tmp_path / "profile"))

        yield start


@pytest.fixture(scope="module")
def page_of_finished(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(finished, path)
    return path


def fingerprint(page):
    return page.value(
        "(() => { const c = document.getElementById('frame'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let s = 0;"
        " for (let i = 0; i < d.length; i += 97) s = (s * 31 + d[i]) >>> 0; return s; })()"
    )


def move_slider(page, index):
    page.value(
        f"(() => {{ const s = document.getElementById('slider'); s.value = {index};"
        " s.dispatchEvent(new Event('input')); })()"
    )
    page.settle()


def test_slider_frames_and_traces_move_together_and_nothing_is_fetched(
    page_of_finished, tmp_path, browse
):
    page = browse(page_of_finished)

    count = page.value("document.getElementById('slider').max")
    seen = set()
    for index in (0, int(count) // 2, int(count)):
        move_slider(page, index)
        assert page.value("lamella.drawn") == index
        time_s = page.value("lamella.time")
        cursors = page.value("lamella.cursors")
        # Voltage, current, five of the front, drift, ledger, two clocks and times of frames.
        assert len(cursors) == 12
        span = page.value("lamella.charts[0].scales.x.max - lamella.charts[0].scales.x.min")
        assert all(abs(c - time_s) < 0.01 * span for c in cursors)
        assert f"t = {time_s:.3f} s" in page.value("document.getElementById('readout').textContent")
        assert page.value("lamella.marksDrawn") == 3  # front, interface, collector
        seen.add(fingerprint(page))
    assert len(seen) == 3

    # The other way round: a click in a chart moves the frame.
    box = page.value(
        "(() => { const b = lamella.charts[1].over.getBoundingClientRect();"
        " return [b.left + 0.25 * b.width, b.top + b.height / 2]; })()"
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=box[0],
            y=box[1],
            button="left",
            clickCount=1,
        )
    page.settle()
    index = page.value("lamella.index")
    assert 0 < index < int(count)
    assert page.value("Number(document.getElementById('slider').value)") == index
    assert page.value("lamella.drawn") == index

    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    page.settle()
    assert page.value("lamella.index") == index + 1

    requests = [r["request"]["url"] for r in page.of("Network.requestWillBeSent")]
    assert [
        u for u in requests if not u.startswith(("data:", "blob:", page_of_finished.as_uri()))
    ] == []
    assert page.of("Runtime.exceptionThrown") == []
    assert [e for e in page.of("Log.entryAdded") if e["entry"]["level"] == "error"] == []
    assert [e for e in page.of("Runtime.consoleAPICalled") if e["type"] == "error"] == []


def test_every_figure_can_be_saved(page_of_finished, tmp_path, browse):
    page = browse(page_of_finished)
    folder = tmp_path / "saved"
    folder.mkdir()
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    for button in ("#save-frame", "#test figure .save button", "#traces .save button + button"):
        page.value(f"document.querySelector('{button}').click()")
        page.settle()
    wanted = ["frame_*.png", "front_current_lags.svg", "voltage.csv"]
    until_s = time.monotonic() + 30
    while not all(list(folder.glob(name)) for name in wanted) and time.monotonic() < until_s:
        page.settle()
    saved = {name: next(folder.glob(name)) for name in wanted}
    assert saved["frame_*.png"].read_bytes().startswith(b"\x89PNG")
    lines = saved["voltage.csv"].read_text("utf-8").splitlines()
    assert lines[0] == "time (s),terminal voltage (V)"
    assert float(lines[1].split(",")[1]) == pytest.approx(3.9, abs=0.1)
    for number in range(page.value("lamella.figures.length")):
        figure = ET.fromstring(page.value(f"report.svg(lamella.figures[{number}])"))
        drawn = figure.findall(".//{*}path") + figure.findall(".//{*}circle")
        assert len(drawn) > 5
        assert not [p for p in drawn if "NaN" in p.get("d", "") + p.get("cx", "")]
    assert page.of("Runtime.exceptionThrown") == []


def test_a_page_without_frames_or_front_still_works(tmp_path, browse):
    session = tmp_path / "bare.h5"
    header = SessionHeader(
        title="no frames",
        experiment_text="",
        start_time="2026-01-01T00:00:00+00:00",
        host_start_ns=0,
        simulated=False,
    )
    with SessionWriter(session, header) as writer:
        rows = np.zeros(200, SESSION_SAMPLE_DTYPE)
        rows["t_ns"] = np.arange(200) * 10**8
        rows["voltage"] = 3.9
        writer.append_samples(rows)
        writer.finish("imported", "2026-01-01T00:01:00+00:00")
    write_report(session, tmp_path / "bare.html")
    page = browse(tmp_path / "bare.html")
    assert page.value("document.getElementById('no-frames').hidden") is False
    assert page.value("lamella.charts.length") == 2
    assert page.of("Runtime.exceptionThrown") == []


def test_playing_goes_on_by_itself(page_of_finished, tmp_path, browse):
    page = browse(page_of_finished)
    move_slider(page, 3)
    page.value("document.getElementById('play').click()")
    page.value(
        "new Promise(r => { const t = setInterval(() => { if (lamella.index > 6) {"
        " clearInterval(t); r(1); } }, 20); })"
    )
    page.value("document.getElementById('play').click()")
    assert page.value("lamella.playing") is False
