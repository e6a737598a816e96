"""The live view in a real browser: drawn, steered, reloaded, and nothing fetched from elsewhere."""

import pytest

from runner.tracking import Found, Seen
from tests.runner.browser import BROWSER, browsed
from tests.runner.live_run import LiveRun

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed"),
    pytest.mark.timeout(600),
]


SEEN_PX = 40.0  # of the 128 that the frame is wide
SEEN = Seen(7, 0, {"front": Found(valid=True, values={"x_front_px": SEEN_PX})}, 12_000_000)


def blue_at(x_px):
    """Return what tells by how much the frame is more blue than red about a column."""
    return (
        "(() => { const c = document.getElementById('frame'), s = c.width / 128;"
        f" const d = c.getContext('2d').getImageData(Math.round({x_px + 0.5} * s) - 1,"
        " Math.round(c.height / 2), 3, 1).data;"
        " return Math.max(d[2] - d[0], d[6] - d[4], d[10] - d[8]); })()"
    )


def press(page, word):
    page.value(f"document.querySelector('[data-word={word}]').click()")


def text(page, name):
    return page.value(f"document.getElementById('{name}').textContent")


def refuse_noise(page, own):
    """Fail where anything was asked of elsewhere, or the console holds an error."""
    urls = [r["request"]["url"] for r in page.of("Network.requestWillBeSent")]
    urls += [r["url"] for r in page.of("Network.webSocketCreated")]
    ours = (own, own.replace("http", "ws", 1), f"blob:{own.rsplit('/', 1)[0]}", "data:")
    assert [u for u in urls if not u.startswith(ours)] == []
    assert page.of("Runtime.exceptionThrown") == []
    assert [e for e in page.of("Log.entryAdded") if e["entry"]["level"] == "error"] == []
    assert [e for e in page.of("Runtime.consoleAPICalled") if e["type"] == "error"] == []


def test_a_run_is_seen_steered_and_seen_again_after_a_reload(tmp_path):
    with LiveRun(tmp_path / "a.h5") as run, browsed(run.address, tmp_path / "p") as page:
        page.wait_for("lamella.status && lamella.status.step === 1 && lamella.drawn > 1")
        assert page.value("lamella.points") > 5
        assert page.value("document.querySelectorAll('.chart canvas').length") == 3
        assert "step 2 of 4 · cp" in text(page, "step")
        assert text(page, "v").endswith(" V")
        lit = "(() => { const c = document.getElementById('frame'); return c.getContext('2d')"
        lit += ".getImageData(c.width / 2, c.height / 2, 1, 1).data[0]; })()"
        assert page.value(lit) > 20

        press(page, "pause")  # at once
        page.wait_for("document.body.dataset.state === 'paused'")
        assert text(page, "answer") == "pause: done, and recorded in the session"
        assert page.value("document.querySelector('[data-word=next]').disabled") is True

        # All is there again after a reload, and a page that was opened anew may go on.
        page.call("Page.reload")
        page.wait_for("window.lamella && lamella.ready && lamella.status && lamella.points > 5")
        page.wait_for("document.body.dataset.state === 'paused'")
        assert "paused, at rest at 0 A" in text(page, "log")
        press(page, "resume")
        assert page.value("document.querySelector('.armed').dataset.word") == "resume"
        press(page, "resume")  # each but a pause is confirmed
        page.wait_for("document.body.dataset.state === 'running'")

        page.value(
            "document.getElementById('note').value = '<b>a note</b>';"
            "document.querySelector('#note-form button').click()"
        )
        page.wait_for("document.querySelector('#log .note')")
        assert "<b>a note</b>" in text(page, "log")
        press(page, "halt")
        press(page, "stop")  # another one is armed in its place
        press(page, "stop")
        page.wait_for("document.body.dataset.state === 'ended'")
        assert "stopped by the operator" in text(page, "step")

        refuse_noise(page, run.address.rstrip("/"))
        # Whoever only looks has no controls.
        page.call("Page.navigate", url=run.look)
        page.wait_for("window.lamella && lamella.ready && lamella.facts.may_command === false")
        assert page.value("document.getElementById('controls').hidden") is True
        assert page.value("document.getElementById('note-form').hidden") is True
    words = [e.data["word"] for e in run.events() if e.kind == "order"]
    assert words == ["pause", "resume", "stop"]
    assert [e.message for e in run.events() if e.kind == "note"] == ["<b>a note</b>"]


def test_what_was_seen_is_drawn_and_a_tablet_shows_all_without_scrolling(tmp_path):
    with LiveRun(tmp_path / "a.h5") as run, browsed(run.address, tmp_path / "p") as page:
        page.wait_for("lamella.status && lamella.status.step === 1 && lamella.drawn > 1")
        run.loop.call_soon_threadsafe(run.view.seen, SEEN)
        page.wait_for("document.getElementById('tracks').textContent === 'front: followed'")
        page.wait_for(f"{blue_at(SEEN_PX)} > 60 && {blue_at(SEEN_PX - 9)} < 20")
        assert text(page, "seen-in") == "frame 7 · 12 ms"
        for width, height in ((1024, 768), (768, 1024), (1280, 900)):  # a tablet needs no scrolling
            page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=False,
            )
            page.settle()
            beyond = "(() => { const m = document.querySelector('main');"
            beyond += " return m.scrollHeight - m.clientHeight; })()"
            assert page.value(beyond) <= 1, (width, height)
        refuse_noise(page, run.address.rstrip("/"))
