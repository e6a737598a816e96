"""Frames that stay elsewhere count for dose, display and whoever waits for one."""

from types import SimpleNamespace

import pytest

from runner.acquisition import Acquisition
from runner.clock import ClockSpec, RunningClock, real_now_ns
from runner.control import Control
from runner.plan import ExitCode, Plan
from tests.runner.test_remote_times import plan


@pytest.fixture
def acquisition(tmp_path):
    experiment = plan(tmp_path, ('dose = "100', 'dose = "0.05'))
    return Acquisition(
        experiment,
        cell=None,
        camera=None,
        recorder=None,
        plan=Plan(experiment.steps, range_A=1e-10),
        clock=RunningClock(ClockSpec(origin_ns=real_now_ns())),
        control=Control(),
        watcher=lambda _: None,
        show=lambda *_: None,
    )


def test_frames_of_a_node_are_seen_and_their_dose_is_limited(acquisition):
    acquisition.see_remote(10, 2, 3_000_000_000)
    acquisition.see_remote(5, 0, 4_000_000_000)
    assert (acquisition.state.frames, acquisition.state.dropped) == (15, 2)
    assert acquisition.state.dose_e_m2 == pytest.approx(0.04e20)
    assert acquisition._plan.ending is None
    acquisition.see_remote(0, 0, 6_000_000_000)  # no header came, and the beam is on
    assert acquisition._plan.must_close
    assert acquisition._plan.ending.code is ExitCode.LIMIT
    assert "dose beyond the limit 0.05" in acquisition._why_end


def test_a_step_that_waits_for_a_frame_ends_with_one_of_a_node(acquisition):
    acquisition._waiting.begin(SimpleNamespace(wait=SimpleNamespace(trigger="frame")))
    acquisition.see_remote(0, 0, 0)
    assert acquisition._why_end is None
    acquisition.see_remote(1, 0, 0)
    assert acquisition._why_end == "a frame has come"
