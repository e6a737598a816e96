"""Rules on images: read with their units, or refused with the place of what is wrong."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.check import check
from runner.experiment import Experiment, ExperimentError
from runner.findings import Severity
from runner.image_checks import image_findings
from runner.image_rules import ImageRuleError, looks_like_image_rule, parse_image_rule
from runner.rules import RuleError, parse_rule


def test_a_position_an_area_and_a_velocity_are_read_in_their_units():
    rule = parse_image_rule("front.position > 400 nm, 3 of 5 frames, then hold")
    assert (rule.track, rule.quantity, rule.relation) == ("front", "position", ">")
    assert (rule.value, rule.confirm, rule.of, rule.action) == (4e-7, 3, 5, "hold")
    assert parse_image_rule("dendrite.area>0.5 um^2").value == pytest.approx(5e-13)
    assert parse_image_rule("front.velocity < 20 nm/s").value == 2e-8
    assert parse_image_rule("particles.active_fraction > 80 %").value == 0.8


def test_a_distance_is_that_of_the_tip_to_an_edge():
    rule = parse_image_rule(" distance( whisker.tip ,cathode.edge ) <  200 nm ")
    assert (rule.track, rule.quantity, rule.edge) == ("whisker", "tip_distance", "cathode")
    assert (rule.confirm, rule.of, rule.action) == (2, 3, "next")
    assert rule.text == "distance( whisker.tip ,cathode.edge ) < 200 nm"


def test_a_dose_is_counted_and_needs_no_second_frame():
    rule = parse_image_rule("dose > 500 e/angstrom^2, then safe state")
    assert (rule.track, rule.value, rule.confirm, rule.of) == ("", 5e22, 1, 1)
    assert rule.action == "safe"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("front.depth > 2 nm", "column 7: a track has no 'depth'"),
        ("front.position > 2 V", "column 18: '2 V' is a voltage; this field is a length"),
        ("front.position > 2", "column 18"),
        ("front.area > 2 nm", "this field is an area"),
        ("front.position > 2,5 nm", "no rule on images"),
        ("front.position >= 2 nm", "column 17"),
        ("front.position", "no rule on images"),
        ("distance(a.tip, b.side) < 2 nm", "no rule on images"),
        ("front.position > 2 nm, 6 of 5 frames", "6 of 5 frames cannot be"),
        ("front.position > 2 nm, 0 of 5 frames", "0 of 5 frames cannot be"),
        ("front.position > 2 nm, 2 of 5000 frames", "of 1000 at most"),
        ("front.position > 2 nm, then go to charge", "an image, which may only stop"),
        ("front.position > 2 nm, then more", "an image, which may only stop"),
        ("dose > 5 nm", "this field is a dose"),
        ("front.position > __import__('os')", "column 18"),
    ],
)
def test_what_cannot_be_meant_says_where(text, says):
    with pytest.raises(ImageRuleError) as caught:
        parse_image_rule(text)
    assert says in str(caught.value)
    assert repr(text) in str(caught.value)


@given(st.text(alphabet="front.positdose()<> ,0123456789nmeV^2/oframes", max_size=60))
def test_no_text_is_more_than_refused(text):
    try:
        rule = parse_image_rule(text)
    except ImageRuleError:
        return
    assert math.isfinite(rule.value)


@pytest.mark.parametrize(
    "text", ["V > 4.2 V", "|I| < 1 pA", "dV/dt < 1 mV/h", "t > 1.5 s", "T > 3 K"]
)
def test_rules_on_readings_are_no_rules_on_images(text):
    assert not looks_like_image_rule(text)
    parse_rule(text)
    with pytest.raises(ImageRuleError):
        parse_image_rule(text)
    with pytest.raises(RuleError):
        parse_rule("front.position > 400 nm")


# --- in an experiment -------------------------------------------------------------------


EXAMPLE = (Path(__file__).parents[2] / "examples" / "lco_lipon_li.toml").read_text("utf-8")


def experiment(rule, extra=""):
    old = 'until = ["V > 4.2 V", "t > 120 s"]'
    assert old in EXAMPLE
    return Experiment.loads(
        EXAMPLE.replace(old, f'until = ["V > 4.2 V", "{rule}", "t > 120 s"]') + extra
    )


def test_a_step_keeps_its_rules_on_images_apart_and_a_loop_repeats_them():
    loop = "\n[[step]]\nloop = { steps = 5, times = 2 }\n"
    found = experiment("front.position > 400 nm", loop)
    assert len(found.image_rules) == len(found.steps) == 10
    having = [i for i, rules in enumerate(found.image_rules) if rules]
    assert having == [1, 6]
    assert [c.text for c in found.steps[1].until] == ["V > 4.2 V", "t > 120 s"]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("frnt.position > 400 nm", "no [[track]] is called 'frnt'; did you mean front?"),
        ("other.position > 400 nm", "no [[track]] is called 'other'; there is front"),
        ("distance(front.tip, cathode.edge) < 2 nm", "'front' does not tell tip_distance"),
        ("front.depth > 2 nm", "a track has no 'depth'"),
    ],
)
def test_a_rule_on_what_is_not_there_is_refused_with_its_line(rule, says):
    with pytest.raises(ExperimentError) as caught:
        experiment(rule)
    assert says in str(caught.value)
    assert "step[2].until[2]" in str(caught.value)


def test_a_run_is_told_by_which_images_it_may_end():
    found = check(experiment("front.position > 400 nm, then hold")).findings
    told = [f for f in found if "front.position" in f.what]
    assert [f.severity for f in told] == [Severity.OK]
    assert told[0].arithmetic.startswith("rests and asks, once 2 of 3 frames")


def test_rules_on_what_cannot_be_followed_live_are_refused(monkeypatch):
    monkeypatch.delattr("correlate.trackers.front.FrontTracker.begin")
    told = [f for f in check(experiment("front.position > 400 nm")).findings if "front." in f.what]
    assert [f.severity for f in told] == [Severity.REFUSE]
    assert "needs all frames of a recording" in told[0].arithmetic


def test_a_holder_that_was_not_measured_is_told_where_images_stop():
    found = experiment("front.position > 400 nm")
    real = replace(found.potentiostat, resource="GPIB0::24::INSTR")
    warned, told = image_findings(replace(found, potentiostat=real))
    assert (warned.severity, told.severity) == (Severity.WARN, Severity.OK)
    assert "taken for that of 300 pF, so stops come early" in warned.arithmetic
    named = replace(real, calibration=Path("holder.h5"))
    assert len(list(image_findings(replace(found, potentiostat=named)))) == 1


def test_rules_on_the_images_of_a_camera_node_are_refused():
    found = experiment("front.position > 400 nm")
    node = replace(found, camera=replace(found.camera, driver="node"))
    (told,) = image_findings(node)
    assert told.severity is Severity.REFUSE
    assert "a camera node sees comes too late" in told.arithmetic
