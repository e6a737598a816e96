"""What images ask of each step of a plan, jumps and loops and all."""

from pathlib import Path

import pytest

from runner.experiment import Experiment
from runner.image_watch import ImageWatch
from runner.plan import Plan
from runner.tracking import Found, Seen

EXAMPLES = Path(__file__).parents[2] / "examples"
DOSE = 'until = ["dose > 50 e/angstrom^2, then safe state", "V > 4.2 V", "t > 9 s"]'


@pytest.fixture
def watch():
    text = (EXAMPLES / "whisker_plate_strip.toml").read_text("utf-8")
    text += f'[[step]]\ncp = {{ current = "1 pA" }}\n{DOSE}\n'
    experiment = Experiment.loads(text)
    plan = Plan(experiment.steps, range_A=1e-11)
    return ImageWatch(experiment, plan, now_ns=lambda: 0, holder=None, frame_rate_Hz=10.0), plan


def test_a_step_waits_for_what_it_stops_by_and_for_what_it_keeps(watch):
    images, plan = watch
    assert [images.not_seen(i) for i in (0, 2, 4, 5)] == [""] * 4  # a dose is not seen, but counted
    assert "no frame of the track 'whisker'" in images.not_seen(1)
    images.seen(Seen(0, 0, {"whisker": Found(True, {"length": 1e-7})}, 0))
    assert images.not_seen(1) == ""
    assert [bool(images.keep(i).rules) for i in range(len(plan))] == [False, True] * 2 + [False] * 2


def test_a_step_begins_with_the_share_that_its_rules_leave(watch):
    images, plan = watch
    shares = []
    while (message := plan.next_step()) is not None:
        shares.append(images.begin(message))
        images.end()
    assert shares == [1.0, pytest.approx(0.1), 1.0, pytest.approx(0.1), 1.0, 1.0]
