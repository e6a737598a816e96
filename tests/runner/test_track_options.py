"""What a tracker is told beside its name, from the experiment file to the tracker."""

import math
from pathlib import Path

import pytest

from correlate.registry import UnknownTracker
from correlate.trackers.front import FrontTracker
from correlate.trackers.protocol import Option, SceneSettings
from runner.config_node import NodeSettings
from runner.experiment import Experiment, ExperimentError
from runner.quantities import QuantityError
from runner.track_options import read_options, read_pairs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "examples" / "lco_lipon_li.toml").read_text("utf-8")
NODE = """\
[camera]
driver = "stream"
port = 5040
[node]
name = "n"
keep = "frames"
[[track]]
name = "front"
tracker = "front"
"""
KNOWN = {
    "min_size": Option(kind="length", default=math.nan),
    "sigmas": Option(kind="number", default=4.0),
    "target": Option(kind="word", default="none", words=("none", "left", "right")),
}


@pytest.fixture(autouse=True)
def told_more(monkeypatch):
    monkeypatch.setattr(FrontTracker, "options", KNOWN, raising=False)


def with_keys(text, keys):
    return text.replace('tracker = "front"', f'tracker = "front"\n{keys}')


def test_options_are_read_in_si_units():
    given = 'min_size = "20 nm"\nsigmas = 3\ntarget = "right"'
    (track,) = Experiment.loads(with_keys(TEXT, given)).tracks
    assert track.options == {"min_size": pytest.approx(20e-9), "sigmas": 3.0, "target": "right"}
    (track,) = NodeSettings.loads(with_keys(NODE, given)).tracks
    assert track.options["target"] == "right"
    assert Experiment.loads(TEXT).tracks[0].options == {}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('targt = "right"', "track[1].targt: is not known here; did you mean target?"),
        ('x = "right"', "track[1].x: is not known here; front takes min_size, sigmas, target"),
        ('target = "rigth"', "target: 'rigth' is none of none, left, right; did you mean 'right'"),
        ("target = 3", "target: 3 is none of none, left, right"),
        ("min_size = 20", "min_size: 20 has no unit"),
        ('min_size = "20 pA"', "min_size: '20 pA'"),
        ('min_size = "-20 nm"', "less than nothing"),
        ('sigmas = "3"', "sigmas: '3' is no plain number, such as 4"),
        ("sigmas = nan", "is no plain number"),
        ("sigmas = true", "is no plain number"),
    ],
)
@pytest.mark.parametrize("file", ["experiment", "node"])
def test_what_is_wrong_is_told_with_its_key_and_line(line, says, file):
    text, read = (TEXT, Experiment.loads) if file == "experiment" else (NODE, NodeSettings.loads)
    text = with_keys(text, line)
    with pytest.raises(ExperimentError) as refused:
        read(text)
    (problem,) = refused.value.problems
    assert says in str(problem)
    assert text.splitlines()[problem.line - 1] == line


def test_a_tracker_that_takes_nothing_and_one_that_is_not_there():
    text = TEXT.replace('tracker = "front"', 'tracker = "drift"\ntarget = "right"')
    with pytest.raises(ExperimentError, match="the tracker drift takes name and tracker alone"):
        Experiment.loads(text)
    with pytest.raises(ExperimentError, match=r"track\[1\].tracker: .*did you mean 'front'"):
        Experiment.loads(TEXT.replace('tracker = "front"', 'tracker = "frnt"\ntarget = "x"'))


def test_pairs_of_a_command_line():
    told = read_pairs("front", ["min_size=20 nm", " sigmas = 3 ", "target=left"])
    assert told == {"min_size": pytest.approx(20e-9), "sigmas": 3.0, "target": "left"}
    assert read_pairs("front", []) == {}
    with pytest.raises(QuantityError, match="'target' is no option; write key=value"):
        read_pairs("front", ["target"])
    with pytest.raises(QuantityError, match=r"sigmas: 'few'.*; target: 'up' is none of"):
        read_pairs("front", ["sigmas=few", "target=up"])
    with pytest.raises(UnknownTracker):
        read_pairs("frnt", [])


def test_a_tracker_takes_what_is_given_or_its_default():
    options = read_options("front", {"target": "left", "min_size": "1 um"}).values
    scene = SceneSettings(shape=(64, 64), options=options)
    assert scene.word("target", KNOWN) == "left"
    assert scene.number("min_size", KNOWN) == pytest.approx(1e-6)
    assert scene.number("sigmas", KNOWN) == 4.0
