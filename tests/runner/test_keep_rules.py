"""What a step keeps by less current: how it is written, and what is refused."""

from pathlib import Path

import pytest

from runner.check import check
from runner.errors import ExperimentError
from runner.experiment import Experiment
from runner.findings import Severity
from runner.keep_rules import KeepRuleError, parse_keep_rule

EXAMPLE = (Path(__file__).parents[2] / "examples" / "whisker_plate_strip.toml").read_text("utf-8")
KEEP = 'keep = ["whisker.velocity < 20 nm/s"]'


@pytest.mark.parametrize(
    ("text", "track", "quantity", "value"),
    [
        ("whisker.velocity < 20 nm/s", "whisker", "velocity", 20e-9),
        (" wire-2.velocity  <  1.5 um/s ", "wire-2", "velocity", 1.5e-6),
        ("density(whisker.diameter) < 2 mA/cm^2", "whisker", "diameter", 20.0),
        ("density( film.area )<0.1 mA/cm^2", "film", "area", 1.0),
    ],
)
def test_a_rule_is_read(text, track, quantity, value):
    rule = parse_keep_rule(text)
    assert (rule.track, rule.quantity) == (track, quantity)
    assert rule.value == pytest.approx(value)
    assert rule.text == " ".join(text.split())
    assert rule.is_density is (quantity != "velocity")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("whisker.velocity > 20 nm/s", "is nothing that a step can keep"),
        (7, "is nothing that a step can keep"),
        ("whisker.length < 20 nm", "column 9: 'length' cannot be kept"),
        ("whisker.diameter < 20 nm", "write for example density(...diameter)"),
        ("density(whisker.length) < 2 mA/cm^2", "column 17: 'length' cannot be kept"),
        ("whisker.velocity < 20 nm", "column 20"),
        ("density(whisker.area) < 2 mA", "column 25"),
        ("whisker.velocity < 0 nm/s", "must be more than nothing"),
        ("whisker.velocity < -3 nm/s", "must be more than nothing"),
    ],
)
def test_what_is_none_is_refused_with_its_place(text, says):
    with pytest.raises(KeepRuleError) as caught:
        parse_keep_rule(text)
    assert says in str(caught.value)


def test_a_step_keeps_it_and_a_loop_repeats_it():
    found = Experiment.loads(EXAMPLE + "\n[[step]]\nloop = { steps = 5, times = 2 }\n")
    assert len(found.keeps) == len(found.steps) == 10
    assert [i for i, keep in enumerate(found.keeps) if keep.rules] == [1, 3, 6, 8]
    assert found.keeps[1].least_share == pytest.approx(0.1)
    assert found.keeps[3].least_share == pytest.approx(0.1)  # where nothing is written


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        (KEEP, 'keep = ["wisker.velocity < 20 nm/s"]', "keep[1]", "did you mean whisker?"),
        (KEEP, 'keep = ["density(whisker.aera) < 2 A/m^2"]', "keep[1]", "'aera' cannot be kept"),
        (KEEP, f'{KEEP[:-1]}, "whisker.width < 2 nm"]', "keep[2]", "cannot be kept"),
        ('"0.5 pA"', '"5 pA"', "least", "less than the step's 5 pA will do"),
        ('"0.5 pA"', '"0 pA"', "least", "more than nothing"),
        (KEEP, "", "least", "belongs to a step with keep"),
        ('cp = { current = "5 pA" }', 'ocv = { for = "9 s" }', "keep", "that holds one current"),
        ('"5 pA" }', '"control + 1 pA" }', "keep", "known beforehand"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_key(old, new, key, says):
    with pytest.raises(ExperimentError) as caught:
        Experiment.loads(EXAMPLE.replace(old, new, 1))
    assert f"step[2].{key}" in str(caught.value)
    assert says in str(caught.value)


def test_without_a_camera_nothing_is_kept():
    camera = EXAMPLE[EXAMPLE.index("[camera]") : EXAMPLE.index("[mock]")]
    with pytest.raises(ExperimentError, match="there is no camera"):
        Experiment.loads(EXAMPLE.replace(camera, ""))


def test_check_says_with_what_it_begins_and_refuses_what_cannot_be_followed(monkeypatch):
    found = Experiment.loads(EXAMPLE)
    told = [f for f in check(found).findings if "keeps" in f.what]
    assert [f.severity for f in told] == [Severity.OK, Severity.OK]
    assert told[0].arithmetic.startswith("begins with 500 fA, and gives up to 5 pA")
    monkeypatch.delattr("correlate.trackers.growth.GrowthTracker.begin")
    told = [f for f in check(found).findings if "keeps" in f.what]
    assert [f.severity for f in told] == [Severity.REFUSE, Severity.REFUSE]
    assert "needs all frames of a recording" in told[0].arithmetic
