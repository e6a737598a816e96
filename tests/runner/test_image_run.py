"""Steps that images end, played: a real guardian, a session as it is written, tracks by script."""

import asyncio
import math
from dataclasses import replace

import pytest

from potentiostat.technique import chronopotentiometry, open_circuit
from runner.acquisition import Acquisition
from runner.control import Control
from runner.image_rules import parse_image_rule
from runner.messages import HolderTerms
from runner.plan import ExitCode, Plan
from runner.tracking import Found, Seen
from session.reader import Session
from session.writer import SessionWriter
from tests.runner.test_pausing import Cell
from tests.runner.test_position import (
    EXPERIMENT,
    RANGE_A,
    CellInstrument,
    StillClock,
    Written,
    rule,
)
from tests.session.conftest import make_header

CHARGE = chronopotentiometry(3e-11, (rule("t", ">", 8.0),))
REST = open_circuit(0.5)
PLAN = (REST, CHARGE, REST)
BEGUN = 12  # blocks, by which the charge is on


class Film:
    """What a tracker says before each block, in nm; None for nothing, NaN for a lost front."""

    def __init__(self, says):
        self.says = says

    def at(self, block, now_ns):
        position_nm = self.says(block)
        if position_nm is None:
            return None
        valid = math.isfinite(position_nm)
        values = {"position": position_nm * 1e-9, "position_sigma": 1e-9}
        found = Found(valid, values, "" if valid else "the front has left the field")
        return Seen(block, now_ns, {"front": found}, 1000)


class FilmedCell(Cell):
    """Frames come before each block of readings."""

    acquisition = None
    film = None

    def turn(self):
        super().turn()
        seen = self.film.at(self._count, self.guardian._now_ns())
        if seen is not None:
            self.acquisition._take_seen(seen)


def play(path, text, says, *, script=(), blocks=300, steps=PLAN, image_step=1):
    control, instrument = Control(), CellInstrument()
    cell = FilmedCell(instrument, blocks, script, control)
    rules = tuple((parse_image_rule(text),) if i == image_step else () for i in range(len(steps)))
    header = replace(make_header(), cameras=(), clocks=(), host_start_ns=0)
    states = []
    with SessionWriter(path, header) as writer:
        acquisition = Acquisition(
            replace(EXPERIMENT, image_rules=rules),
            cell=cell,
            camera=None,
            recorder=Written(writer),
            plan=Plan(steps, range_A=RANGE_A),
            clock=StillClock(instrument),
            control=control,
            watcher=lambda state: states.append((state.held, state.unseen)),
            show=lambda _topic, _message: None,
            holder=HolderTerms(capacitance_F=2e-14, conductance_S=0.0, offset_A=0.0),
        )
        cell.acquisition, cell.film = acquisition, Film(says)
        ending = asyncio.run(acquisition.run())
        writer.finish(ending.reason, "")
    with Session.open(path) as session:
        return ending, session.events(), states, instrument


def of(events, kind):
    return [e for e in events if e.kind == kind]


def test_a_step_ends_at_its_image_and_the_plan_goes_on(tmp_path):
    ending, events, _, _ = play(
        tmp_path / "s.h5", "front.position > 400 nm", lambda block: 100 + 10 * block
    )
    assert ending.code is ExitCode.DONE
    (stop,) = of(events, "image_stop")
    ended = of(events, "step_ended")
    assert [e.data["step"] for e in ended] == [0, 1, 2]
    assert ended[1].data["reason"] == stop.message
    assert stop.data["watch"] == "met"
    # Foreseen at 390 nm, confirmed by the next frame.
    assert [f["value"] for f in stop.data["frames_before"]][-2] < 3.95e-7
    assert ended[1].t_ns <= stop.t_ns + 2 * 50_000_000
    started = of(events, "step_started")[1]
    assert started.data["until"] == ["t > 8", "front.position > 400 nm"]


def test_an_image_that_ends_the_run_leaves_nothing_to_begin(tmp_path):
    ending, events, _, instrument = play(
        tmp_path / "s.h5",
        "front.position > 400 nm, then safe state",
        lambda block: 100 + 10 * block,
    )
    assert ending.code is ExitCode.LIMIT
    assert ending.reason.startswith("front.position > 400 nm, then safe state")
    assert len(of(events, "step_started")) == 2
    assert instrument._state()[1] == 0.0


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (lambda block: 100.0 if block < BEGUN + 5 else math.nan, "the image is lost"),
        (lambda block: 100.0 if block < BEGUN + 5 else None, "the image is stale"),
    ],
)
def test_an_image_that_fails_holds_the_cell_at_rest_until_the_operator_goes_on(tmp_path, says, why):
    ending, events, states, _ = play(
        tmp_path / "s.h5", "front.position > 400 nm", says, script=((80, "resume"),)
    )
    assert ending.code is ExitCode.DONE
    (stop,) = of(events, "image_stop")
    assert why in stop.message
    held = [held for held, _ in states if held]
    assert len(held) > 20
    assert set(held) == {stop.message}
    assert [e.data["step"] for e in of(events, "step_started")] == [0, 1, 2]


def test_a_step_waits_at_rest_until_its_track_is_followed(tmp_path):
    ending, events, states, _ = play(
        tmp_path / "s.h5",
        "front.position > 400 nm",
        lambda block: math.nan if block < 60 else 100.0 + 20 * (block - 60),
    )
    assert ending.code is ExitCode.DONE
    began = of(events, "step_started")[1].t_ns
    assert began > of(events, "step_ended")[0].t_ns + 20 * 50_000_000
    assert any("the track 'front' is not followed" in unseen for _, unseen in states)
    assert states[-1] == ("", "")


def test_a_step_whose_track_is_never_followed_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.acquisition.SIGHT_S", 2.0)
    ending, events, _, instrument = play(
        tmp_path / "s.h5", "front.position > 400 nm", lambda _block: None
    )
    assert ending.code is ExitCode.FAILED
    assert ending.reason == "step 2 was not begun: no frame of the track 'front' has come"
    assert len(of(events, "step_started")) == 1
    assert instrument._state()[1] == 0.0


@pytest.mark.parametrize(("word", "steps"), [("stop", [0, 2]), ("abort", [0])])
def test_the_operator_ends_a_plan_that_waits_for_an_image(tmp_path, word, steps):
    ending, events, _, _ = play(
        tmp_path / "s.h5",
        "front.position > 400 nm",
        lambda _block: None,
        script=((30, word),),
    )
    assert ending.code is ExitCode.INTERRUPTED
    assert [e.data["step"] for e in of(events, "step_started")] == steps


def test_a_step_that_is_paused_rests_whatever_images_show(tmp_path):
    ending, events, _, _ = play(
        tmp_path / "s.h5",
        "front.position > 400 nm",
        lambda block: 100.0 if block < 20 or block > 60 else None,
        script=((18, "pause"), (70, "resume")),
    )
    assert ending.code is ExitCode.DONE
    assert not of(events, "image_stop") or of(events, "image_stop")[0].t_ns > (
        of(events, "resumed")[0].t_ns
    )
    assert len(of(events, "paused")) == 1
