"""Rules on images, tried on recorded sessions: when each would have fired, and whether rightly."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from runner.cli import main
from runner.dry_run import CannotTry, dry_run, render_dry_run
from runner.experiment import Experiment
from runner.image_judge import Watch
from session.editor import SessionEditor
from session.records import SESSION_SAMPLE_DTYPE, CameraHeader, SessionHeader
from session.writer import SessionWriter
from tests.runner.test_image_rules import EXAMPLE

S = 10**9
STEP_S, START_S = 60.0, 10.0
SPEED_M_S, SIGMA_M = 5e-9, 1e-9


def plan(*rules):
    """The example, of which the second step has rules on images."""
    old = '"V > 4.2 V", "t > 120 s"'
    assert old in EXAMPLE
    written = ", ".join(f'"{rule}"' for rule in rules)
    return Experiment.loads(EXAMPLE.replace(old, f'"V > 4.2 V", {written}, "t > 120 s"'))


@pytest.fixture
def recorded(tmp_path):
    """A rest of 10 s, then a minute of a front at 5 nm/s that is seen ten times a second."""

    def make(valid=lambda _t_s: True, seen=lambda _t_s: True, from_m=0.0, every_s=0.1):
        path = tmp_path / "recorded.h5"
        header = SessionHeader(
            title="made",
            experiment_text=EXAMPLE,
            start_time="2026-01-01T00:00:00+00:00",
            host_start_ns=0,
            simulated=False,
            cameras=(
                CameraHeader(
                    name="camera",
                    model="m",
                    height=4,
                    width=4,
                    dtype="uint8",
                    frame_rate_Hz=10.0,
                    pixel_size_m=1e-9,
                ),
            ),
        )
        rows = np.zeros(1400, SESSION_SAMPLE_DTYPE)
        rows["t_ns"] = np.arange(len(rows)) * S // 20
        loaded = rows["t_ns"] >= START_S * S
        rows["current"], rows["voltage"] = 3e-11 * loaded, 3.9 + 0.03 * loaded
        with SessionWriter(path, header) as writer:
            writer.append_samples(rows)
            for t_s, number, name in ((0.0, 0, "ocv"), (START_S, 1, "cp")):
                data = json.dumps({"step": number, "name": name})
                writer.append_event(round(t_s * S), "step_started", "runner", "begins", data)
            end_ns = round((START_S + STEP_S) * S)
            writer.append_event(end_ns, "step_ended", "runner", "ends")
            writer.finish("imported", "2026-01-01T00:01:10+00:00")
        t_s = np.array([t for t in np.arange(0.05, 70, every_s) if seen(t)])
        noise = np.random.default_rng(4).standard_normal(len(t_s))
        position = from_m + SPEED_M_S * np.maximum(t_s - START_S, 0) + SIGMA_M * noise
        found = np.array([valid(t) for t in t_s])
        with SessionEditor.open(path) as editor:
            editor.put_table(
                "tracks/front",
                {
                    "t_ns": np.round(t_s * S).astype(np.int64),
                    "position": np.where(found, position, np.nan),
                    "position_sigma": np.full(len(t_s), SIGMA_M),
                    "valid": found.astype(np.uint8),
                },
            )
        return path

    return make


def test_a_rule_fires_before_the_front_is_there_by_latency_and_doubt(recorded):
    (tried,) = dry_run(plan("front.position > 200 nm"), recorded(), latency_s=0.3).tried
    assert (tried.step, tried.watch, tried.frames) == (1, Watch.MET, 600)
    assert tried.crossed_s == pytest.approx(40.0, abs=0.2)
    # At 5 nm/s: 0.3 s of latency is 1.5 nm, 95 % of 1 nm is 1.6 nm.
    assert 39.0 < tried.fired_s < tried.crossed_s
    assert tried.velocity == pytest.approx(SPEED_M_S, rel=0.15)
    assert not tried.is_false_stop
    assert not tried.is_missed
    assert "before it comes to the value" in tried.verdict


def test_what_is_never_reached_is_not_met_and_says_how_near_it_came(recorded):
    found = dry_run(plan("front.position > 400 nm", "front.position < -50 nm"), recorded())
    assert [t.watch for t in found.tried] == [Watch.CALM, Watch.CALM]
    assert found.tried[0].nearest == pytest.approx(100e-9, abs=4e-9)
    assert (found.false_stops, found.missed) == (0, 0)


def test_a_stop_by_frames_that_were_wrong_is_a_false_one(recorded):
    path = recorded(from_m=5e-9)
    rule = "front.position < 4 nm, 1 of 1 frames"
    found = dry_run(plan(rule), path)
    assert found.tried[0].is_false_stop
    assert found.false_stops == 1
    assert "never came" in found.tried[0].verdict


def test_frames_that_must_confirm_do_not_make_a_stop_late(recorded):
    found = dry_run(plan("front.position > 200 nm, 30 of 40 frames"), recorded(), latency_s=0.0)
    (tried,) = found.tried
    assert tried.crossed_s - 1.0 < tried.fired_s < tried.crossed_s


def test_a_rule_that_is_met_from_the_start_but_asks_for_many_frames_comes_late(recorded):
    path = recorded(from_m=300e-9)
    found = dry_run(plan("front.position > 200 nm, 100 of 100 frames"), path, latency_s=0.0)
    (tried,) = found.tried
    assert tried.fired_s == pytest.approx(10.0, abs=0.1)
    assert tried.fired_s > tried.crossed_s
    assert tried.is_missed
    assert found.missed == 1
    assert tried.verdict.startswith("late: stops ")


def test_a_lost_front_and_a_silent_camera_stop_the_step(recorded):
    (lost,) = dry_run(plan("front.position > 200 nm"), recorded(valid=lambda t_s: t_s < 30)).tried
    assert lost.watch is Watch.LOST
    assert lost.fired_s == pytest.approx(20.5, abs=0.2)
    assert "did not find" in lost.verdict


def test_a_silent_camera_stops_the_step_after_half_a_second(recorded):
    path = recorded(seen=lambda t_s: t_s < 30)
    (stale,) = dry_run(plan("front.position > 200 nm"), path).tried
    assert stale.watch is Watch.STALE
    assert stale.fired_s == pytest.approx(20.45, abs=0.06)


def test_a_slow_camera_has_three_of_its_periods(recorded):
    path = recorded(seen=lambda t_s: t_s < 30, every_s=0.5)
    (stale,) = dry_run(plan("front.position > 200 nm"), path).tried
    assert stale.watch is Watch.STALE
    assert stale.fired_s == pytest.approx(19.55 + 1.5, abs=0.06)


def test_what_cannot_be_tried_says_why(recorded):
    path = recorded()
    with pytest.raises(CannotTry, match="no step has a rule on images"):
        dry_run(Experiment.loads(EXAMPLE), path)
    with pytest.raises(CannotTry, match="'front' has no width; it has position"):
        dry_run(plan("front.width > 2 nm"), path)
    with pytest.raises(CannotTry, match="knows no dose"):
        dry_run(plan("dose > 2 e/angstrom^2"), path)
    other = plan("whisker.position > 2 nm".replace("whisker", "front"))
    text = other.text.replace('name = "front"', 'name = "second"').replace(
        "front.position", "second.position"
    )
    with pytest.raises(CannotTry, match="no track 'second'.*there is front"):
        dry_run(Experiment.loads(text), path)
    shifted = EXAMPLE.replace('[[step]]\nocv = { for = "20 s" }\n\n', "", 1).replace(
        '"V > 4.2 V"', '"V > 4.2 V", "front.position > 2 nm"'
    )
    with pytest.raises(CannotTry, match="step 1 is ocv"):
        dry_run(Experiment.loads(shifted), path)


def test_the_command_line_tells_a_person_and_a_program(recorded, tmp_path):
    path, file = recorded(), tmp_path / "rules.toml"
    file.write_text(plan("front.position > 200 nm").text, "utf-8")
    asked = ["dry-run", str(file), "--session", str(path)]
    shown = CliRunner().invoke(main, asked)
    assert shown.exit_code == 0, shown.output
    assert "stops" in shown.output
    told = json.loads(CliRunner().invoke(main, [*asked, "--json"]).output.splitlines()[-1])
    assert told["tried"][0]["watch"] == "met"
    assert told["missed"] == 0
    refused = CliRunner().invoke(main, [*asked, "--latency", "2 nm"])
    assert refused.exit_code == 2
    assert "is a length" in refused.output
    refused = CliRunner().invoke(main, [*asked, "--latency", "0.5 s"])
    assert refused.exit_code == 2
    assert "frames older than 0.5 s decide nothing" in refused.output


def test_a_table_holds_what_was_not_decided(recorded):
    found = dry_run(plan("front.position > 400 nm"), recorded())
    assert math.isnan(found.tried[0].fired_s)
    assert render_dry_run(found).row_count == 1
