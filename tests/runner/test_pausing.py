"""Pauses, and every other word of the operator: a real guardian, and sessions as they are written.

A step that was paused goes on as if nothing had been; whatever else is said meanwhile, the cell
rests at 0 A until the operator resumes.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from potentiostat.segments import Segment, Step, Wait
from potentiostat.technique import (
    Level,
    chronoamperometry,
    chronopotentiometry,
    cyclic_voltammetry,
    galvanostatic_cycling,
    open_circuit,
    pulses,
)
from runner.acquisition import Acquisition
from runner.control import Control
from runner.messages import Carried, EndKind, EndStep, Passed, PauseStep, StartStep, StepPaused
from runner.pausing import Pausing, again
from runner.plan import ExitCode, Plan
from runner.waiting import with_known_end
from session.reader import Session
from session.writer import SessionWriter
from tests.runner.test_position import (
    EXPERIMENT,
    RANGE_A,
    READ_S,
    CellInstrument,
    Died,
    SteppedCell,
    StillClock,
    Written,
    continuation,
    find,
    rule,
    told,
)
from tests.runner.test_position import play as play_on
from tests.session.conftest import make_header

CHARGE = chronopotentiometry(3e-11, (rule("|Q|", ">", 3e-11),))
REST = open_circuit(0.3)
PLAN = (REST, CHARGE, REST)
IN_STEP = 15  # blocks, by which the charge is on


def parts(until):
    """Return a step of two segments, of which the first is paused."""
    first = Segment(name="first", current_A=3e-11, until=(until,))
    return Step(name="parts", segments=(first, replace(first, name="second", current_A=-2e-11)))


class Cell(SteppedCell):
    """Its operator speaks before some of the blocks."""

    def __init__(self, instrument, blocks, script, control):
        super().__init__(instrument, Carried(), blocks)
        self._script, self._control, self._count = dict(script), control, 0
        self.refused = []

    def turn(self):
        for word in self._script.get(self._count, "").split():
            self.refused.append(self._control.order(word, source="view"))
        self._count += 1
        assert self._count < 400, "the plan never ended"
        super().turn()

    def pause_step(self):
        self._said.append(PauseStep())

    def end_step(self, reason):
        self._said.append(EndStep(reason=reason))


class Run:
    """A plan played with an operator's words, by the block before which each is said."""

    def __init__(self, path, steps, script=(), *, blocks=-1, changes=None, control=None):
        self.path, self.control = path, control or Control()
        self.instrument = CellInstrument()
        cell = Cell(self.instrument, blocks, script, self.control)
        if changes is not None:
            changes(self.instrument, cell)
        header = replace(make_header(), cameras=(), clocks=(), host_start_ns=0)
        self.paused_A, self.words = [], []
        with SessionWriter(path, header) as writer:
            acquisition = Acquisition(
                EXPERIMENT,
                cell=cell,
                camera=None,
                recorder=Written(writer),
                plan=Plan(steps, range_A=RANGE_A),
                clock=StillClock(self.instrument),
                control=self.control,
                watcher=self._watch,
                show=lambda _topic, _message: None,
            )
            try:
                self.ending = asyncio.run(acquisition.run())
                writer.finish(self.ending.reason, "")
            except Died:
                cell.guardian._runner_is_gone()
                writer.finish("runner lost", "")
        self.refused, self.state = cell.refused, acquisition.state
        with Session.open(path) as session:
            self.events = session.events()
            self.columns = session.sample_columns()

    def _watch(self, state):
        self.words.append(state.paused)
        if state.paused == "paused":
            self.paused_A.append(self.instrument._state()[1])

    def of(self, kind):
        return [e for e in self.events if e.kind == kind]

    @property
    def kinds(self):
        listed = ("step_started", "step_ended", "paused", "resumed")
        return [(e.kind, e.data["step"]) for e in self.events if e.kind in listed]


@pytest.mark.parametrize(
    "step",
    [
        CHARGE,
        chronopotentiometry(3e-11, (rule("t", ">", 1.0),)),
        chronopotentiometry(3e-11, (rule("|Q_ionic|", ">", 3e-11),)),
        pulses(3e-11, on_s=0.4, off_s=0.2, count=2),
        galvanostatic_cycling(4e-11, 3.95, longest_s=0.6, hold_s=0.3, rest_s=0.2),
        chronoamperometry(Level(volts=0.05, versus="ocv"), 0.8),
        cyclic_voltammetry(
            tuple(Level(volts=v) for v in (3.6, 3.65, 3.55, 3.6)), 0.2, cycles=1, window_V=1.0
        ),
        open_circuit(0.8),
        parts(rule("|Q|", ">", 2e-11)),
        parts(rule("|Q_ionic|", ">", 2e-11)),
        replace(parts(rule("t", ">", 5.0)), until=(rule("|Q_half|", ">", 3e-11),)),
    ],
    ids=["Q", "t", "ionic", "pulses", "gcpl", "ca", "cv", "ocv", "part", "ionic part", "half"],
)
def test_a_step_that_was_paused_goes_on_as_if_nothing_had_been(tmp_path, step):
    steps = (REST, step, REST)
    whole = Run(tmp_path / "whole.h5", steps)
    cut = Run(tmp_path / "cut.h5", steps, {12: "pause", 20: "resume"})
    assert cut.refused == [None, None]
    assert told(cut.path)[0] == told(whole.path)[0]
    assert [k for k, _ in cut.kinds].count("paused") == 1
    assert cut.kinds[2:6] == [("step_started", 1), ("paused", 1), ("resumed", 1), ("step_ended", 1)]
    assert cut.ending.code is ExitCode.DONE
    # A rule is asked at each reading, and a pause costs one reading where charge flows unread;
    # a held voltage drives what the cell's own relaxation at rest asks for.
    if step.name not in ("ca", "cv"):
        tolerance_C = 4e-11 * READ_S * 3
        assert cut.instrument.charge_C == pytest.approx(whole.instrument.charge_C, abs=tolerance_C)
    # It rested: nothing flowed, and its readings belong to no step.
    paused, resumed = cut.of("paused")[0], cut.of("resumed")[0]
    meanwhile = (cut.columns["t_ns"] > paused.t_ns) & (cut.columns["t_ns"] < resumed.t_ns)
    assert np.count_nonzero(meanwhile) >= 7
    assert set(cut.columns["step"][meanwhile]) == {-1}
    assert np.all(cut.columns["current"][meanwhile] == 0.0)
    assert set(cut.paused_A) == {0.0}
    # Its clock stood still: the rest is not counted into the step.
    assert resumed.data["passed"] == paused.data["passed"]
    assert resumed.data["rested_s"] == pytest.approx((resumed.t_ns - paused.t_ns) / 1e9)


def test_each_word_is_an_event_with_its_source_and_its_time(tmp_path):
    run = Run(tmp_path / "a.h5", PLAN, {IN_STEP: "pause", 20: "resume", 24: "stop"})
    orders = run.of("order")
    assert [(e.data["word"], e.source) for e in orders] == [
        ("pause", "view"),
        ("resume", "view"),
        ("stop", "view"),
    ]
    assert orders[0].message == "pause, by view"
    assert orders[0].t_ns == IN_STEP * 50_000_000
    assert run.of("paused")[0].t_ns - orders[0].t_ns <= 2 * 50_000_000


def test_a_pause_between_two_steps_holds_up_the_next(tmp_path):
    # Said in the last block of the first step: the step is over before it is set aside.
    for block in range(4, 9):
        run = Run(tmp_path / f"{block}.h5", PLAN, {block: "pause", 60: "resume"})
        assert run.ending.code is ExitCode.DONE
        assert set(run.paused_A) == {0.0}
        assert run.words.count("paused") > 40
        if not run.of("paused"):
            break
    assert run.kinds[:3] == [("step_started", 0), ("step_ended", 0), ("step_started", 1)]
    started = run.of("step_started")[1]
    assert started.t_ns >= 60 * 50_000_000


def test_a_pause_before_the_first_step_holds_it_up(tmp_path):
    control = Control()
    assert control.order("pause", source="keyboard") is None
    run = Run(tmp_path / "a.h5", PLAN, {10: "resume"}, control=control)
    assert run.ending.code is ExitCode.DONE
    assert run.of("step_started")[0].t_ns >= 10 * 50_000_000
    assert run.paused_A[0] == 0.0
    assert [(e.source, e.t_ns) for e in run.of("order")] == [("keyboard", 0), ("view", 500_000_000)]


def test_a_pause_that_is_taken_back_at_once_costs_nothing_but_a_rest(tmp_path):
    run = Run(tmp_path / "a.h5", PLAN, {IN_STEP: "pause resume"})
    assert run.ending.code is ExitCode.DONE
    assert "paused" not in run.words
    assert told(run.path)[0] == told(Run(tmp_path / "b.h5", PLAN).path)[0]


@pytest.mark.parametrize(
    ("word", "ends"), [("stop", [0, 1, 2]), ("abort", [0, 1]), ("halt", [0, 1])]
)
@pytest.mark.parametrize("first", ["", "pause"])
def test_what_ends_a_run_ends_it_out_of_a_pause_too(tmp_path, word, ends, first):
    run = Run(tmp_path / "a.h5", PLAN, {IN_STEP: first, 22: word})
    assert run.ending.code is ExitCode.INTERRUPTED
    assert [e.data["step"] for e in run.of("step_ended")] == ends
    assert run.of("step_ended")[1].data["kind"] == EndKind.COMMAND
    assert not run.of("resumed")
    if first:
        # Nothing was put on again: after the pause there is no current.
        after = run.columns["t_ns"] > run.of("paused")[0].t_ns
        assert np.all(run.columns["current"][after] == 0.0)


@pytest.mark.parametrize(("word", "ends"), [("stop", [0, 2]), ("abort", [0]), ("halt", [0])])
def test_what_ends_a_run_ends_it_between_two_steps_too(tmp_path, word, ends):
    run = Run(tmp_path / "a.h5", PLAN, {6: "pause", 20: word})
    assert not run.of("paused")
    assert [e.data["step"] for e in run.of("step_ended")] == ends
    assert run.ending.code is ExitCode.INTERRUPTED


def test_the_next_step_begins_when_the_operator_says_so(tmp_path):
    long = chronopotentiometry(1e-12, (rule("t", ">", 1000.0),))
    run = Run(tmp_path / "a.h5", (REST, long, REST), {IN_STEP: "next"})
    assert run.ending.code is ExitCode.DONE
    assert [e.data["reason"] for e in run.of("step_ended")][1] == "next step: the operator went on"
    assert [e.data["step"] for e in run.of("step_ended")] == [0, 1, 2]


def test_limits_hold_during_a_pause(tmp_path):
    def too_much(instrument, cell):
        turn = cell.turn

        def with_surge():
            if cell._count == 25:
                instrument.charge_C = 5e-9
            turn()

        cell.turn = with_surge

    run = Run(tmp_path / "a.h5", PLAN, {IN_STEP: "pause"}, changes=too_much)
    assert run.ending.code is ExitCode.LIMIT
    assert run.of("made_safe")
    assert run.of("step_ended")[-1].data["kind"] == EndKind.LIMIT


@pytest.mark.parametrize(
    "script", [{IN_STEP: "pause"}, {IN_STEP: "pause", 20: "resume"}], ids=["paused", "resumed"]
)
def test_a_run_that_died_after_a_pause_is_gone_on_with_by_charge(tmp_path, script):
    whole = Run(tmp_path / "whole.h5", PLAN)
    cut = Run(tmp_path / "cut.h5", PLAN, script, blocks=26)
    position = find(cut.path, PLAN)
    assert position.index == 1
    # What passed at rest is not counted into the step.
    in_step = cut.columns["step"] == 1
    assert position.passed.elapsed_s == pytest.approx(np.count_nonzero(in_step) * READ_S, abs=0.12)
    before = continuation(cut.path, position)
    assert play_on(tmp_path / "new.h5", cut.instrument, PLAN, before=before)
    assert cut.instrument.charge_C == pytest.approx(
        whole.instrument.charge_C, abs=3e-11 * READ_S * 4
    )


def test_a_wait_for_a_time_of_day_is_counted_anew():
    step = replace(
        open_circuit(100.0), wait=Wait(trigger="time", until="2026-01-01T00:01:00+00:00")
    )
    message = StartStep(
        index=3,
        step=with_known_end(step, datetime(2026, 1, 1, tzinfo=UTC)),
        range_A=1e-10,
    )
    paused = StepPaused(index=3, passed=Passed(elapsed_s=10.0), t_ns=0, latency_ns=0)
    resumed = again(message, paused, datetime(2026, 1, 1, 0, 0, 40, tzinfo=UTC))
    assert resumed.step.until[-1].value == pytest.approx(20.0)
    assert len(resumed.step.until) == len(message.step.until)
    assert resumed.passed.elapsed_s == 0.0
    with pytest.raises(ValueError, match="step 4 is paused, and was not started"):
        again(None, paused, datetime(2026, 1, 1, tzinfo=UTC))


def test_where_a_plan_stands():
    pausing = Pausing()
    assert (pausing.is_on, pausing.word) == (False, "")
    pausing.between_steps()
    assert (pausing.is_between, pausing.word) == (True, "paused")
    pausing.go_on()
    assert pausing.word == ""
