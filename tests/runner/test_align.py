"""``lamella align``: hidden offsets are found within what is stated, or refused and left alone."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from mocks.blanker import Blanker
from runner.align_records import binned, find_steps, mean_intensity
from runner.align_summary import render_align
from runner.aligning import align_session, undo_alignment
from runner.cli import main
from runner.plan import ExitCode
from session import Session
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.records import (
    EXCHANGE_DTYPE,
    SESSION_SAMPLE_DTYPE,
    CameraHeader,
    FrameHeader,
    SessionHeader,
)
from session.validate import Severity, validate
from session.writer import SessionWriter
from sync.code import BlankingCode
from sync.search import Series

pytestmark = pytest.mark.timeout(600)
GAPS_S = np.array([13.0, 29.0, 9.0, 22.0, 35.0, 11.0, 26.0, 17.0])


def lamella(*words, code=0):
    result = CliRunner().invoke(main, ["align", *(str(word) for word in words)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def write(
    path,
    *,
    sample_s,
    current_A,
    frame_s,
    brightness,
    offset_s=0.0,
    rate=0.0,
    exposure_s=None,
    aperture_s=0.0,
    voltage_V=None,
    exchanges=False,
    sigma_ns=100.0,
    row_time_ns=0.0,
    stamp="exposure_start",
    events=(),
    noise=20.0,
    seed=1,
):
    """Write a session whose movie is late by an offset that nothing in it tells."""
    rng = np.random.default_rng([seed, 5])
    exposure_s = float(np.median(np.diff(frame_s))) if exposure_s is None else exposure_s
    camera = CameraHeader(
        name="camera",
        model="Maker One",
        height=4,
        width=4,
        dtype="uint16",
        frame_rate_Hz=1.0,
        pixel_size_m=1e-9,
        stamp=stamp,
        row_time_ns=row_time_ns,
    )
    header = SessionHeader(
        title="pair",
        experiment_text="",
        start_time="2025-03-01T10:00:00+00:00",
        host_start_ns=0,
        simulated=True,
        cameras=(camera,),
    )
    rows = np.zeros(len(sample_s), SESSION_SAMPLE_DTYPE)
    rows["t_ns"] = np.round(np.asarray(sample_s) * 1e9)
    rows["read_start_ns"] = rows["read_end_ns"] = rows["t_ns"]
    rows["aperture_s"], rows["current"] = aperture_s, current_A
    rows["voltage"] = 3.5 if voltage_V is None else voltage_V
    late_s = offset_s + rate * np.asarray(frame_s)
    start_ns = np.round((frame_s + late_s) * 1e9).astype(np.int64)
    with SessionWriter(path, header) as writer:
        writer.append_samples(rows)
        for t_ns, kind, data in events:
            writer.append_event(t_ns, kind, "microscope", "", json.dumps(data))
        for i, (t_ns, level) in enumerate(zip(start_ns.tolist(), brightness, strict=True)):
            pixels = level + noise * rng.standard_normal((4, 4))
            frame = FrameHeader(
                t_start_ns=t_ns,
                exposure_ns=round(exposure_s * 1e9),
                t_sigma_ns=sigma_ns,
                index=i,
                device_start_ns=10**15 + t_ns,
            )
            writer.append_frame("camera", frame, np.round(pixels).astype(np.uint16))
        if exchanges:
            sent = np.arange(5, dtype=np.int64) * 10**9
            asked = np.zeros(5, EXCHANGE_DTYPE)
            asked["t0_ns"], asked["t3_ns"] = sent, sent + 200_000
            asked["t1_ns"] = asked["t2_ns"] = sent + 10**15 + 100_000
            writer.append_exchanges("camera", asked)
        writer.finish("done", "2025-03-01T11:00:00+00:00")
    return path


def stepped(path, *, offset_s=17.3, gaps_s=GAPS_S, by=(1.0,), begin_s=-40.0, end_s=None, **changes):
    """Write steps of the current that change how bright the movie is."""
    steps_s = 20 + np.cumsum(gaps_s)
    sample_s = np.arange(0, steps_s[-1] + 20, 0.1)
    signs = np.resize([1.0, -1.0], len(steps_s))
    current = 1e-12 * (sample_s[:, None] > steps_s) @ signs
    heights = np.resize(by, len(steps_s)) * signs
    frame_s = np.arange(begin_s, end_s or steps_s[-1] + 40, 0.25)
    bright = 1000 + 60 * ((frame_s[:, None] > steps_s) @ heights)
    given = {"brightness": bright, "aperture_s": 0.1, **changes}
    return write(
        path, sample_s=sample_s, current_A=current, frame_s=frame_s, offset_s=offset_s, **given
    )


def coded(path, *, offset_s, recorded="", seen=True, by="current", **changes):
    """Write a code that the beam was blanked with, over both records."""
    code = BlankingCode(order=6, chip_ns=107_000_000)
    blanker = Blanker(3)
    blanker.play(code.edges_ns(3_000_000_000), latency_s=0.004, jitter_s=0.001, rise_s=0.0005)
    rng = np.random.default_rng(6)
    frame_s, sample_s = np.arange(0.0, 14.0, 0.025), np.arange(0.0, 14.0, 0.02)

    def beam(t_s, for_s):
        return np.array([blanker.mean(round(a * 1e9), round((a + for_s) * 1e9)) for a in t_s])

    wave = beam(sample_s - 0.01, 0.02) if seen else np.zeros(len(sample_s))
    noisy = wave + 0.3 * rng.standard_normal(len(sample_s))
    current = 1e-12 + (1e-13 * noisy if by == "current" else 0.0)
    voltage = 3.5 + (1e-4 * noisy if by == "voltage" else 0.0)
    edges_ns = [int(t_ns) for t_ns in blanker.commanded_ns]
    sent_ns, done_ns = [t - 200_000 for t in edges_ns], [t + 200_000 for t in edges_ns]
    events = [
        (sent, "beam_blank", {"sent_ns": sent, "done_ns": done, "blanked": off})
        for off, sent, done in zip([True, False] * 99, sent_ns, done_ns, strict=False)
    ]
    if recorded == "whole":
        events = [(done_ns[-1], "beam", {"sent_ns": sent_ns, "done_ns": done_ns})]
    write(
        path,
        sample_s=sample_s,
        current_A=current,
        voltage_V=voltage,
        frame_s=frame_s,
        brightness=100 + 3000 * beam(frame_s, 0.024),
        exposure_s=0.024,
        offset_s=offset_s,
        events=events if recorded else (),
        **{"aperture_s": 0.02, **changes},
    )
    return path, code


def times(path):
    with Session.open(path) as session:
        table = session.frame_table("camera")
        return table["t_start_ns"], table["t_sigma_ns"], table["device_start_ns"]


def covers(found, offset_s):
    # The interval is of 95 %; a fixed pair must lie within a little more than it.
    half = 0.5 * (found.high_s - found.low_s)
    return found.low_s - half < offset_s < found.high_s + half


# --- found ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Return a stepped pair, and what it was before and after it was aligned."""
    path = stepped(tmp_path_factory.mktemp("align") / "steps.h5")
    before = times(path)
    return path, before, align_session(path, max_offset_s=60.0)


def test_steps_tell_a_hidden_offset(once):
    path, before, found = once
    assert (found.method, found.refusal, found.applied) == ("steps", "", True)
    assert covers(found, 17.3)
    assert found.sigma_s < 0.2
    assert found.peak_mass > 0.95
    assert found.p < 0.01
    assert "8 steps of the current and mean intensity" in found.evidence
    start_ns, sigma_ns, raw_ns = times(path)
    np.testing.assert_array_equal(raw_ns, before[2])
    error_s = (start_ns - before[0]) / 1e9 + 17.3
    assert np.all(np.abs(error_s) < 4 * sigma_ns / 1e9)
    assert np.all(sigma_ns >= found.sigma_s * 1e9)


def test_what_was_found_is_in_the_session(once):
    path, before, found = once
    start_ns = times(path)[0]
    with Session.open(path) as session:
        (fit,) = session.clock_fits("camera")
        assert session.attributes("clocks/camera/fit")["method"] == "align: steps"
        i = int(np.flatnonzero(before[2] == fit.reference_device_ns)[0])
        assert fit.reference_host_ns == start_ns[i]
        assert fit.offset_sigma_ns == pytest.approx(found.sigma_s * 1e9)
        assert fit.rate == pytest.approx(1 - found.rate, abs=1e-9)
        event = session.events()[-1]
        assert event.kind == "aligned"
        assert event.data["offset_s"] == pytest.approx(found.offset_s)
        assert event.data["t_start_before_ns"] == before[0][0]
        means = session.table("frame_samples/camera")
        np.testing.assert_array_equal(means["t_ns"], start_ns + 125_000_000)
        # A frame that is bright was exposed while the current flowed.
        inside = means["count"] > 0
        bright = mean_intensity(session.frames("camera"))[inside]
        current = means["current_mean"][inside]
        assert np.corrcoef(bright, current)[0, 1] > 0.9
        kept = session.table("correlation/alignment_camera")
        np.testing.assert_array_equal(kept["t_start_before_ns"], before[0])
        assert kept["probability"].sum() == pytest.approx(1.0)
    assert [p for p in validate(path) if p.severity is Severity.ERROR] == []


def test_a_second_alignment_begins_from_the_same_times(tmp_path):
    path = stepped(tmp_path / "a.h5", gaps_s=GAPS_S[:6])
    first = align_session(path, by="steps", max_offset_s=60.0)
    once_ns = times(path)[0]
    again = align_session(path, by="steps", max_offset_s=60.0)
    assert again.offset_s == first.offset_s
    np.testing.assert_array_equal(times(path)[0], once_ns)


@pytest.mark.parametrize("by", ["current", "voltage"])
def test_a_code_that_is_told_gives_the_offset(tmp_path, by):
    path, code = coded(tmp_path / "a.h5", offset_s=-6.123, by=by)
    found = align_session(path, code=code)
    assert (found.method, found.refusal) == ("code", "")
    assert found.evidence == f"mean intensity and {by}"
    assert covers(found, -6.123)
    assert found.sigma_s < 0.005


@pytest.mark.parametrize("recorded", ["by command", "whole"])
def test_recorded_blanking_is_the_code(tmp_path, recorded):
    path, _ = coded(tmp_path / "a.h5", offset_s=4.2, recorded=recorded)
    found = align_session(path)
    assert (found.method, found.refusal) == ("code", "")
    assert covers(found, 4.2)


def test_rows_that_are_exposed_one_after_the_other_are_taken_as_such(tmp_path):
    # All pixels are exposed at once here: told that rows follow, the first was 3 ms before
    # their mean, so that its stamp is later than it by as much.
    path, code = coded(tmp_path / "a.h5", offset_s=1.0)
    at_once = align_session(path, code=code, apply=False)
    path, code = coded(tmp_path / "b.h5", offset_s=1.0, row_time_ns=2e6)
    rolling = align_session(path, code=code, apply=False)
    assert rolling.offset_s - at_once.offset_s == pytest.approx(3e-3, abs=5e-4)


def test_a_reading_of_unknown_aperture_makes_the_offset_less_sure(tmp_path):
    path, code = coded(tmp_path / "a.h5", offset_s=1.0, aperture_s=0.0)
    found = align_session(path, code=code, apply=False)
    assert found.sigma_s >= 0.02 / math.sqrt(12)
    assert covers(found, 1.0)


def wandering(path, *, offset_s, follows=True, rate=0.0, **changes):
    """Write a front that moves as the current, and a movie that shows nothing else."""
    rng = np.random.default_rng(11)
    sample_s = np.arange(0, 400, 0.2)
    levels = rng.standard_normal((2, 81))
    current, other = 1e-12 * levels[:, (sample_s / 5).astype(int)]
    moving = np.cumsum(current if follows else other) * 0.2 * 1e3
    frame_s = np.arange(20, 380, 0.5)
    write(
        path,
        sample_s=sample_s,
        current_A=current,
        frame_s=frame_s,
        brightness=np.full(len(frame_s), 1000.0),
        offset_s=offset_s,
        rate=rate,
        **changes,
    )
    position = np.interp(frame_s + 0.25, sample_s, moving)
    position += 2e-10 * rng.standard_normal(len(frame_s))
    with SessionEditor.open(path) as editor:
        start_ns = np.round((frame_s + offset_s + rate * frame_s) * 1e9).astype(np.int64)
        columns = {"position": position, "valid": np.ones(len(frame_s), np.uint8)}
        editor.put_table(
            "tracks/front", {"t_ns": start_ns + 250_000_000, **columns}, {"tracker": "front"}
        )
        unplaced = {"t_ns": start_ns, "valid": columns["valid"]}
        editor.put_table("tracks/area", unplaced)
    return path


def test_a_front_that_follows_the_current_tells_it_by_rates(tmp_path):
    path = wandering(tmp_path / "a.h5", offset_s=-8.4)
    found = align_session(path, by="rates", max_offset_s=30.0, track="front")
    assert (found.method, found.refusal) == ("rates", "")
    assert covers(found, -8.4)
    start_ns = times(path)[0]
    with Session.open(path) as session:
        track = session.table("tracks/front")
        np.testing.assert_array_equal(track["t_ns"], start_ns + 250_000_000)
        assert track.attributes["tracker"] == "front"
        assert track.units["position"] == "m"


def test_the_rate_of_times_that_are_no_clocks_is_found_too(tmp_path):
    path = wandering(tmp_path / "a.h5", offset_s=3.0, rate=0.003, sigma_ns=math.nan)
    found = align_session(path, by="rates", max_offset_s=30.0)
    assert found.refusal == ""
    assert abs(found.rate - 0.003) < 3 * found.rate_sigma
    assert found.rate > 3 * found.rate_sigma
    start_ns, sigma_ns, _ = times(path)
    true_ns = 20e9 + 0.5e9 * np.arange(len(start_ns))
    assert np.all(np.abs(start_ns - true_ns) < 4 * sigma_ns)


# --- refused ----------------------------------------------------------------------------


def flat(path):
    t_s = np.arange(0, 60, 0.25)
    nothing = np.full(len(t_s), 1e-12)
    return write(path, sample_s=t_s, current_A=nothing, frame_s=t_s, brightness=1000 + 0 * t_s)


def periodic(path):
    # The movie shows a part of them only: which one, nobody can tell.
    return stepped(path, gaps_s=np.full(12, 20.0), begin_s=90.0, end_s=210.0)


@pytest.mark.parametrize(
    ("make", "why"),
    [(flat, "0 steps"), (periodic, "chance fits as well|more than one offset")],
)
def test_a_pair_that_tells_nothing_is_refused_and_left_as_it_is(tmp_path, make, why):
    import re

    path = make(tmp_path / "a.h5")
    before = path.read_bytes()
    told = json.loads(lamella(path, "--json", code=ExitCode.LIMIT).output.splitlines()[-1])
    assert path.read_bytes() == before
    assert not told["applied"]
    assert told["offset_s"] is None
    assert re.search(why, told["refusal"])
    assert [t.split(" ")[0].rstrip(":") for t in told["tried"]] == ["steps", "rates"]


def test_a_code_that_the_current_does_not_show_is_refused(tmp_path):
    path, code = coded(tmp_path / "a.h5", offset_s=1.0, seen=False)
    found = align_session(path, by="code", code=code)
    assert not found.applied
    assert "mean intensity and current" in found.refusal


def test_a_code_beyond_the_largest_offset_is_refused(tmp_path):
    path, code = coded(tmp_path / "a.h5", offset_s=5.0)
    found = align_session(path, by="code", code=code, max_offset_s=2.0)
    assert "beyond the 2 s" in found.refusal


def test_without_blanking_there_is_no_code(tmp_path):
    found = align_session(flat(tmp_path / "a.h5"), by="code")
    assert "no blanking is recorded" in found.refusal


def test_records_that_cannot_overlap_are_refused(tmp_path):
    path = stepped(tmp_path / "a.h5", offset_s=9000.0)
    found = align_session(path, by="steps", max_offset_s=10.0)
    assert "overlap by half" in found.refusal
    assert render_align(found).row_count == 2


# --- clocks that were compared ----------------------------------------------------------


def test_clocks_of_the_run_are_judged_and_not_moved_without_force(tmp_path):
    path = stepped(tmp_path / "a.h5", gaps_s=GAPS_S[:6], exchanges=True)
    before = path.read_bytes()
    found = align_session(path, by="steps", max_offset_s=60.0)
    assert not found.applied
    assert "disagree by 17." in found.network
    assert path.read_bytes() == before
    forced = align_session(path, by="steps", max_offset_s=60.0, force=True)
    assert forced.applied
    assert times(path)[0][0] == pytest.approx(-40e9, abs=1e9)


def test_clocks_of_the_run_that_are_right_agree(tmp_path):
    path = stepped(tmp_path / "a.h5", gaps_s=GAPS_S[:6], offset_s=0.0, exchanges=True)
    found = align_session(path, by="steps", max_offset_s=20.0)
    assert "agree within" in found.network
    assert "disagree" not in found.network


# --- undone -----------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_it_can_be_undone(tmp_path, tied):
    path = wandering(tmp_path / "a.h5", offset_s=-8.4)
    if tied:
        stamps = ("reference_device_ns", "reference_host_ns", "valid_from_ns", "valid_to_ns")
        others = ("rate", "rate_sigma", "offset_sigma_ns", "covariance_ns", "bound_ns")
        row = {name: [7] for name in stamps} | {name: [0.5] for name in others}
        with SessionEditor.open(path) as editor:
            editor.put_table("clocks/camera/fit", row, {"method": "arrivals"})
    before = times(path)
    with Session.open(path) as session:
        fits, tracked = session.clock_fits("camera"), session.table("tracks/front")["t_ns"]
    done = align_session(path, by="rates", max_offset_s=30.0, force=tied)
    assert done.applied
    assert not np.array_equal(times(path)[0], before[0])
    # Once more: what was before is not forgotten by it.
    assert align_session(path, by="rates", max_offset_s=30.0, force=True).applied
    lamella(path, "--undo")
    for now, then in zip(times(path), before, strict=True):
        np.testing.assert_array_equal(now, then)
    with Session.open(path) as session:
        assert session.clock_fits("camera") == fits
        method = session.attributes("clocks/camera/fit")["method"]
        assert method == ("arrivals" if tied else "none")
        np.testing.assert_array_equal(session.table("tracks/front")["t_ns"], tracked)
        kinds = [event.kind for event in session.events()]
        assert kinds == ["aligned", "aligned", "align_undone"]
        middle_ns = session.table("frame_samples/camera")["t_ns"]
        np.testing.assert_array_equal(middle_ns, before[0] + 250_000_000)
    with pytest.raises(SessionRefused, match="nothing to undo"):
        undo_alignment(path)


def test_times_that_something_else_set_are_not_undone(tmp_path):
    path, code = coded(tmp_path / "a.h5", offset_s=1.0)
    align_session(path, code=code)
    with SessionEditor.open(path) as editor:
        editor.update_columns("frames/camera", {"t_start_ns": times(path)[0] + 5})
    assert "set anew" in lamella(path, "--undo", code=ExitCode.REFUSED).output


# --- the command, and bad input ---------------------------------------------------------


def test_its_help_shows_an_example():
    assert "Example: lamella align ti.h5" in " ".join(lamella("--help").output.split())


def test_a_dry_run_only_tells(tmp_path):
    path, _ = coded(tmp_path / "a.h5", offset_s=2.5)
    before = path.read_bytes()
    words = [path, "--chip", "107 ms", "--order", "6", "--dry-run"]
    shown = lamella(*words).output
    assert "not moved" in shown
    told = json.loads(lamella(*words, "--json").output.splitlines()[-1])
    assert told["offset_s"] == pytest.approx(2.5, abs=0.02)
    assert path.read_bytes() == before
    assert "moved; now" in lamella(*words[:-1], "--max-offset", "1 min").output


def test_input_that_cannot_be_used_is_refused(tmp_path):
    path = flat(tmp_path / "a.h5")
    told = lamella(path, "--track", "front", code=ExitCode.REFUSED).output
    assert "has no 'tracks/front'" in told
    told = lamella(path, "--camera", "other", code=ExitCode.REFUSED).output
    assert "no camera 'other'; there is camera" in told
    assert "'5'" in lamella(path, "--max-offset", "5", code=ExitCode.REFUSED).output
    (tmp_path / "b.h5").write_text("no session")
    assert "cannot be opened" in lamella(tmp_path / "b.h5", code=ExitCode.REFUSED).output


def test_a_track_without_a_position_is_refused(tmp_path):
    path = wandering(tmp_path / "a.h5", offset_s=0.0)
    with pytest.raises(SessionRefused, match="'area' has no position"):
        align_session(path, track="area")
    with pytest.raises(SessionRefused, match="not aligned"):
        undo_alignment(path)


@pytest.mark.parametrize(
    ("frames", "samples", "why"),
    [
        ([0.0], [0.0, 1.0], "1 frames of camera are too few"),
        ([0.0, 1.0], [0.0], "1 samples"),
        ([0.0, 2.0, 1.0], [0.0, 1.0], "frames of camera are not in order"),
        ([0.0, 1.0], [0.0, 2.0, 1.0], "samples are not in order"),
    ],
)
def test_records_that_are_none_are_refused(tmp_path, frames, samples, why):
    path = write(
        tmp_path / "a.h5",
        sample_s=samples,
        current_A=0.0,
        frame_s=np.array(frames),
        brightness=np.ones(len(frames)),
        exposure_s=1.0,
    )
    with pytest.raises(SessionRefused, match=why):
        align_session(path)


# --- parts ------------------------------------------------------------------------------


def test_steps_are_told_from_noise_and_slow_changes():
    rng = np.random.default_rng(1)
    t_s = np.arange(0, 100, 0.1)
    value = 0.01 * t_s + 0.02 * rng.standard_normal(len(t_s))
    assert len(find_steps(t_s, value)) == 0
    value = value + 1.0 * (t_s > 40.05) - 2.0 * np.clip((t_s - 70.05) / 0.3, 0, 1)
    value[123] = math.nan
    np.testing.assert_allclose(find_steps(t_s, value), [40.05, 70.15], atol=0.2)
    assert len(find_steps(t_s[:2], value[:2])) == 0
    assert len(find_steps(t_s, np.cumsum(np.arange(1000) % 10 == 0))) == 40


def test_bins_keep_means():
    t_s, value = np.arange(10.0), np.arange(10.0) ** 2
    value[3] = math.nan
    whole = binned(Series(t_s=t_s, value=value), 2.0)
    np.testing.assert_allclose(whole.t_s, [0.5, 2.0, 4.5, 6.5, 8.5])
    np.testing.assert_allclose(whole.value, [0.5, 4.0, 20.5, 42.5, 72.5])
