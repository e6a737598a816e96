"""What `lamella check` says of a blanking code."""

import math
import re
from pathlib import Path

import pytest

from runner.check import check
from runner.experiment import Experiment
from sync.code import camera_bound_s

EXAMPLES = Path(__file__).parents[2] / "examples"


def found(text):
    report = check(Experiment.loads(text, folder=EXAMPLES))
    return {f.what: f.arithmetic for f in report.findings}


@pytest.fixture
def text():
    return (EXAMPLES / "coded_blanking.toml").read_text()


def number(said, unit):
    value, prefix = re.search(rf"± ([\d.]+) ([afpnµm]?){unit}", said).groups()
    return (
        float(value)
        * {"a": 1e-18, "f": 1e-15, "p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1}[prefix]
    )


def test_the_bounds_of_both_delays_are_shown(text):
    experiment = Experiment.loads(text, folder=EXAMPLES)
    said = found(text)["blanking code"]
    edges = int(re.search(r"(\d+) edges", said)[1])
    bound_s = camera_bound_s(experiment.camera.frame_rate_Hz, 0.9, 100, edges)
    assert number(said, "s") == pytest.approx(bound_s, rel=0.1)


def test_a_longer_code_tells_a_smaller_current(text):
    what = "the beam's current by one code"
    shorter, longer = (
        number(found(re.sub(r"(?m)^code = .*$", f"code = {order}", text))[what], "A")
        for order in (5, 6)
    )
    assert longer == pytest.approx(shorter / math.sqrt(2), rel=0.1)


def test_without_a_code_nothing_is_said():
    text = (EXAMPLES / "lco_lipon_li.toml").read_text()
    assert not [what for what in found(text) if "code" in what]
