"""Every transition of the guardian, over an instrument that a test scripts."""

import contextlib
import math
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from potentiostat.claim import Claim
from potentiostat.errors import InstrumentError
from potentiostat.limits import Condition, Envelope, RateGuard
from potentiostat.protocol import ClockExchange, SafeState
from potentiostat.records import SAMPLE_DTYPE, TOGETHER, Reading, Status, readings_of
from potentiostat.technique import (
    Level,
    Segment,
    Step,
    after,
    chronoamperometry,
    chronopotentiometry,
    galvanostatic_cycling,
    linear_sweep,
)
from runner.charge_count import ChargeCount
from runner.clock import ClockSpec
from runner.guardian import MAX_BAD_READINGS, Guardian
from runner.guardian_process import guardian_main
from runner.guardian_states import Phase
from runner.messages import (
    Block,
    EndKind,
    EndStep,
    Finish,
    Finished,
    GuardianSettings,
    HolderTerms,
    Moderate,
    Passed,
    PauseStep,
    Refused,
    Renew,
    SegmentEnded,
    StartStep,
    StepEnded,
    StepPaused,
    Tripped,
)
from runner.outbox import Outgoing

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9)
READ_NS = 50_000_000


class ScriptedInstrument:
    """Reads what the script says; remembers what was asked of it."""

    ranges = ()
    apertures = TOGETHER
    off_states = (SafeState.S1,)

    def __init__(self, script, block=1):
        self.script = list(script)  # per reading: dict of changes, or an exception
        self.block = block
        self.now_ns = 0
        self.reads = 0
        self.level_A = 0.0
        self.voltage_V = 3.9
        self.calls = []
        self.before_read = {}
        self.timer_s = 0.0
        self.fail_safe = 0
        self.fail_apply = False
        self.fail_rest = False

    def clock(self):
        return self.now_ns

    def connect(self, envelope, *, cell_attached=True):
        raise AssertionError("a guardian is given a connected instrument")

    def apply(self, setpoint):
        if self.fail_apply:
            raise InstrumentError("the set-point was not taken")
        self.calls.append(("apply", setpoint.mode, setpoint.level, setpoint.clamp))
        if setpoint.mode == "current":
            self.level_A = setpoint.level
        else:
            self.voltage_V, self.level_A = setpoint.level, 1e-11

    def read(self):
        return np.concatenate([self._read_one() for _ in range(self.block)])

    def _read_one(self):
        if action := self.before_read.get(self.reads):
            action()
        change = self.script[self.reads] if self.reads < len(self.script) else {}
        self.reads += 1
        assert self.reads < 200, "the guardian never ended"
        if isinstance(change, Exception):
            raise change
        row = np.zeros(1, SAMPLE_DTYPE)
        row["read_start_ns"] = self.now_ns
        self.now_ns += READ_NS
        row["read_end_ns"] = self.now_ns
        row["voltage_V"] = change.get("voltage_V", self.voltage_V)
        row["current_A"] = change.get("current_A", self.level_A)
        row["status"] = change.get("status", 0)
        row["device_time_s"] = change.get("device_time_s", 0.0)
        row["voltage_sigma_V"] = 5e-5
        return row

    def exchange_clock(self):
        self.calls.append(("clock",))
        return ClockExchange(
            sent_ns=self.now_ns, device_time_s=self.timer_s, received_ns=self.now_ns
        )

    def ensure_safe(self):
        self.calls.append(("safe",))
        if self.fail_safe:
            self.fail_safe -= 1
            raise InstrumentError("no answer")
        self.level_A = 0.0
        return SafeState.S1

    def rest_at_end(self):
        if self.fail_rest:
            raise InstrumentError("no answer")
        self.calls.append(("rest",))
        self.level_A = 0.0
        return SafeState.S1

    def close(self):
        self.calls.append(("close",))


class Direct(Outgoing):
    """Says each message at once: nothing is gathered."""

    def __init__(self, connection):
        self._connection = connection

    def put(self, message):
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def close(self):
        pass


class SingleInstrument(ScriptedInstrument):
    """The same, of a kind that gives its readings as plain numbers, too."""

    def read_one(self):
        return readings_of(self._read_one())[0] if self.block == 1 else None


@pytest.fixture(autouse=True, params=[ScriptedInstrument, SingleInstrument])
def both_kinds(request, monkeypatch):
    monkeypatch.setattr(Scene, "makes", request.param)


class Scene:
    """A guardian, its instrument, and the runner's end of the pipe."""

    makes = ScriptedInstrument

    def __init__(self, script=(), **changes):
        self.ours, theirs = multiprocessing.Pipe()
        self.theirs = theirs
        self.instrument = self.makes(script, changes.get("block", 1))
        self.lease_ns = 0
        settings = GuardianSettings(
            driver="scripted",
            resource="none",
            clock=ClockSpec(origin_ns=0),
            **{"envelope": ENVELOPE, **changes},
        )
        self.guardian = Guardian(
            self.instrument,
            theirs,
            Direct(theirs),
            settings,
            now_ns=self.instrument.clock,
            lease_now_ns=lambda: self.lease_ns,
        )

    def say(self, *messages):
        for message in messages:
            self.ours.send(message)

    def at(self, reading, *messages):
        self.instrument.before_read[reading] = lambda: self.say(*messages)

    def play(self):
        self.guardian.run()
        self.theirs.close()
        heard = []
        try:
            while self.ours.poll(0):
                heard.append(self.ours.recv())
        except EOFError:
            pass
        self.ours.close()
        return heard


def charge_step(*until, level=2e-11, index=1):
    return StartStep(index=index, step=chronopotentiometry(level, until), range_A=1e-10)


def condition(quantity, relation, value):
    return Condition(
        quantity=quantity, relation=relation, value=value, text=f"{quantity}{relation}"
    )


def only(kind, messages):
    return [m for m in messages if isinstance(m, kind)]


def test_finish_rests_the_cell_closes_and_says_so():
    scene = Scene()
    scene.at(3, Finish(reason="done"))
    heard = scene.play()
    assert scene.instrument.calls[-2:] == [("rest",), ("close",)]
    assert only(Finished, heard)[-1].state is SafeState.S1
    assert only(Finished, heard)[-1].reason == "done"
    assert [b.step for b in only(Block, heard)] == [-1] * 4
    assert scene.guardian.phase is Phase.DONE


@pytest.mark.parametrize(
    ("until", "script", "readings"),
    [
        (condition("t", ">", 0.12), [], 3),
        (condition("V", ">", 4.2), [{}, {}, {"voltage_V": 4.25}], 3),
        (condition("V", "<", 3.0), [{"voltage_V": 2.9}], 1),
        (condition("I", "<", 1e-11), [{}, {"current_A": 5e-12}], 2),
        (condition("Q", ">", 1.9e-12), [], 3),
    ],
)
def test_a_condition_ends_its_step_at_once_in_rest(until, script, readings):
    scene = Scene(script)
    scene.say(charge_step(until))
    scene.at(6, Finish(reason="done"))
    heard = scene.play()
    end = only(StepEnded, heard)
    assert len(end) == 1
    assert end[0].kind is EndKind.CONDITION
    assert end[0].reason == until.text
    assert end[0].latency_ns == 0
    applied = [c for c in scene.instrument.calls if c[0] == "apply"]
    assert applied == [
        ("apply", "current", 2e-11, 4.3),
        ("apply", "current", 0.0, 4.3),
    ]
    steps = [b.step for b in only(Block, heard)]
    assert steps == [1] * readings + [-1] * (len(steps) - readings)
    assert not only(Tripped, heard)


@pytest.mark.parametrize("whole", [True, False])
def test_a_rule_that_holds_ends_the_step_in_rest_and_says_that_it_holds(whole):
    until = replace(condition("V", ">", 4.2), action="hold")
    inner = Segment(name="cp", current_A=2e-11, until=() if whole else (until,))
    further = Segment(name="further", current_A=1e-11)
    step = Step(name="cp", segments=(inner, further), until=(until,) if whole else ())
    scene = Scene([{}, {"voltage_V": 4.25}])
    scene.say(StartStep(index=1, step=step, range_A=1e-10))
    scene.at(6, Finish(reason="done"))
    heard = scene.play()
    assert [(e.kind, e.reason) for e in only(StepEnded, heard)] == [(EndKind.HELD, until.text)]
    assert [c[2] for c in scene.instrument.calls if c[0] == "apply"] == [2e-11, 0.0]
    assert not only(Tripped, heard)


def test_a_rule_that_asks_for_the_safe_state_trips():
    until = replace(condition("V", ">", 4.2), action="safe")
    scene = Scene([{}, {"voltage_V": 4.25}])
    scene.say(charge_step(until))
    scene.at(4, charge_step(condition("t", ">", 10.0), index=2))
    scene.at(6, Finish(reason="done"))
    heard = scene.play()
    assert [e.kind for e in only(StepEnded, heard)] == [EndKind.LIMIT, EndKind.FAULT]
    assert only(Tripped, heard)[0].reason == until.text
    assert ("safe",) in scene.instrument.calls


def test_charge_of_a_condition_counts_from_the_start_of_its_step():
    scene = Scene()
    scene.say(charge_step(condition("Q", ">", 2.5e-12)))
    scene.at(8, charge_step(condition("Q", ">", 2.5e-12), index=2))
    scene.at(16, Finish(reason="done"))
    heard = scene.play()
    ends = only(StepEnded, heard)
    assert [e.index for e in ends] == [1, 2]
    total = only(Block, heard)[-1].charge_C[-1]
    assert total == pytest.approx(2 * 3e-12, rel=0.4)


@pytest.mark.parametrize(
    "reading",
    [{"voltage_V": 4.31}, {"voltage_V": 2.4}, {"current_A": 1.1e-10}],
)
def test_a_hard_limit_trips_and_refuses_more(reading):
    scene = Scene([{}, reading])
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.at(3, charge_step(condition("t", ">", 100.0), index=2))
    scene.at(5, Finish(reason="done"))
    heard = scene.play()
    ends = only(StepEnded, heard)
    assert [e.kind for e in ends] == [EndKind.LIMIT, EndKind.FAULT]
    assert "refused" in ends[1].reason
    assert only(Tripped, heard)[0].state is SafeState.S1
    assert ("safe",) in scene.instrument.calls
    assert scene.instrument.level_A == 0.0


def test_a_limit_of_the_time_counts_from_the_first_step_through_rests_and_steps():
    scene = Scene(envelope=replace(ENVELOPE, time_max_s=0.51))
    scene.at(4, charge_step(after(0.2)))
    scene.at(20, Finish(reason="done"))
    heard = scene.play()
    (tripped,) = only(Tripped, heard)
    assert tripped.kind is EndKind.LIMIT
    assert "time" in tripped.reason
    assert "beyond the limit 0.51 s" in tripped.reason
    began_ns = 4 * READ_NS
    assert began_ns + 0.5e9 < tripped.t_ns <= began_ns + 0.5e9 + 2 * READ_NS
    assert only(StepEnded, heard)[0].kind is EndKind.CONDITION


def test_a_limit_of_the_ionic_charge_leaves_out_what_the_holder_takes():
    # 20 pA of 0.25 s are 5 pC, of which a leak of 5 pA takes a quarter.
    holder = HolderTerms(capacitance_F=0.0, conductance_S=5e-12 / 3.9, offset_A=0.0)
    for most_C, trips in ((4.5e-12, False), (2e-12, True)):
        envelope = replace(ENVELOPE, charge_ionic_max_C=most_C)
        scene = Scene(envelope=envelope, holder=holder)
        scene.at(2, charge_step(after(0.25)))
        scene.at(12, Finish(reason="done"))
        tripped = only(Tripped, scene.play())
        assert bool(tripped) is trips
        if tripped:
            assert "ionic charge" in tripped[0].reason


def test_limits_hold_at_rest_too():
    scene = Scene([{}, {"voltage_V": 4.4}])
    scene.at(3, Finish(reason="done"))
    heard = scene.play()
    assert only(Tripped, heard)[0].kind is EndKind.LIMIT
    assert not only(StepEnded, heard)


def test_an_open_holder_has_no_cell_to_protect_and_returns_to_no_voltage():
    scene = Scene([{"voltage_V": 1.0}] * 4, cell_attached=False)
    step = chronoamperometry(Level(volts=1.0), 0.09)
    scene.say(StartStep(index=1, step=step, range_A=1e-10))
    scene.at(4, Finish(reason="done"))
    heard = scene.play()
    assert not only(Tripped, heard)
    applied = [c[1:3] for c in scene.instrument.calls if c[0] == "apply"]
    assert applied == [("voltage", 1.0), ("voltage", 0.0)]


@pytest.mark.parametrize(
    "bad",
    [
        {"voltage_V": math.nan},
        {"current_A": math.nan},
        {"status": int(Status.INVALID)},
        {"status": int(Status.OVERFLOW), "voltage_V": 9.9e37},
    ],
)
def test_invalid_readings_break_no_limit_until_there_are_too_many(bad):
    few = [bad] * (MAX_BAD_READINGS - 1) + [{}]
    scene = Scene(few + [bad] * MAX_BAD_READINGS)
    scene.at(len(few) + MAX_BAD_READINGS + 1, Finish(reason="done"))
    heard = scene.play()
    tripped = only(Tripped, heard)
    assert len(tripped) == 1
    assert tripped[0].kind is EndKind.FAULT
    assert f"{MAX_BAD_READINGS} readings" in tripped[0].reason
    assert len(only(Block, heard)) >= len(few) + MAX_BAD_READINGS


def test_a_reading_that_was_begun_before_the_step_does_not_end_it():
    scene = Scene([{}, {}, {}])
    scene.say(charge_step(condition("I", "<", 1e-11)))
    scene.at(3, Finish(reason="done"))
    heard = scene.play()
    assert not only(StepEnded, heard)


def test_a_failing_link_trips_and_is_retried_until_safe():
    scene = Scene([{}, InstrumentError("timeout"), InstrumentError("timeout")])
    scene.instrument.fail_safe = 2
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.at(6, Finish(reason="done"))
    heard = scene.play()
    tripped = only(Tripped, heard)
    assert [t.kind for t in tripped] == [EndKind.FAULT]
    assert tripped[0].state is None
    assert scene.instrument.calls.count(("safe",)) == 3
    assert scene.instrument.level_A == 0.0


def test_a_set_point_that_is_not_taken_trips():
    scene = Scene()
    scene.instrument.fail_apply = True
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.at(2, Finish(reason="done"))
    heard = scene.play()
    assert only(StepEnded, heard)[0].kind is EndKind.FAULT
    assert only(Tripped, heard)[0].state is SafeState.S1


def test_a_rest_that_is_not_taken_trips():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 0.12)))
    scene.instrument.before_read[1] = lambda: setattr(scene.instrument, "fail_apply", True)
    scene.at(4, Finish(reason="done"))
    heard = scene.play()
    assert only(Tripped, heard)[0].kind is EndKind.FAULT
    assert ("safe",) in scene.instrument.calls


def test_silence_for_the_lease_trips_only_while_a_step_is_on():
    scene = Scene(lease_s=2.0)
    scene.say(charge_step(condition("t", ">", 100.0)))

    def grow_old():
        scene.lease_ns += 1_500_000_000

    scene.instrument.before_read[1] = grow_old
    scene.instrument.before_read[2] = lambda: (scene.say(Renew(sequence=2)), grow_old())
    scene.instrument.before_read[4] = grow_old
    scene.instrument.before_read[5] = grow_old
    scene.at(8, Finish(reason="done"))
    heard = scene.play()
    tripped = only(Tripped, heard)
    assert [t.kind for t in tripped] == [EndKind.LEASE]
    tripped_after = [m for m in heard if isinstance(m, (Block, Tripped))]
    assert tripped_after.index(tripped[0]) == 5 + 1


def test_at_rest_silence_is_no_fault():
    scene = Scene()
    scene.instrument.before_read[1] = lambda: setattr(scene, "lease_ns", 10**12)
    scene.at(3, Finish(reason="done"))
    assert not only(Tripped, scene.play())


def test_a_runner_that_dies_leaves_the_cell_safe_at_once():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.instrument.before_read[2] = scene.ours.close
    scene.guardian.run()
    assert scene.instrument.reads == 3
    assert scene.instrument.calls[-3:] == [("safe",), ("rest",), ("close",)]
    assert scene.instrument.level_A == 0.0
    assert scene.guardian.phase is Phase.DONE
    scene.theirs.close()


def test_the_operator_ends_a_step_and_a_second_request_does_nothing():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.at(2, EndStep(reason="stopped"), EndStep(reason="stopped"))
    scene.at(4, Finish(reason="done"))
    heard = scene.play()
    assert [(e.kind, e.reason) for e in only(StepEnded, heard)] == [(EndKind.COMMAND, "stopped")]


def test_clock_exchanges_come_at_their_interval():
    scene = Scene(exchange_interval_s=0.2)
    scene.at(12, Finish(reason="done"))
    heard = scene.play()
    with_exchange = [i for i, b in enumerate(only(Block, heard)) if b.exchanges]
    assert with_exchange == [0, 4, 8, 12]


def test_an_end_that_fails_tries_the_safe_state_and_admits_what_it_does_not_know():
    scene = Scene()
    scene.instrument.fail_rest = True
    scene.instrument.fail_safe = 1
    scene.at(1, Finish(reason="done"))
    heard = scene.play()
    assert only(Finished, heard)[0].state is None
    assert scene.instrument.calls[-1] == ("close",)


def test_in_virtual_time_no_reading_is_taken_before_the_last_was_dealt_with():
    scene = Scene(lease_s=5.0)
    scene.guardian._settings = replace(
        scene.guardian._settings, clock=ClockSpec(origin_ns=0, path="virtual")
    )
    scene.say(Renew(sequence=0))
    for reading in range(1, 4):
        scene.at(reading - 1, Renew(sequence=reading))
    scene.at(3, Finish(reason="done"))
    heard = scene.play()
    assert [b.sequence for b in only(Block, heard)] == [1, 2, 3, 4]


# --- segments -------------------------------------------------------------------------------


def play_step(step, *, script=(), until_reading=20, index=1, **settings):
    scene = Scene(script, **settings)
    scene.say(StartStep(index=index, step=step, range_A=1e-10))
    scene.at(until_reading, Finish(reason="done"))
    return scene, scene.play()


def levels(scene):
    return [c[1:3] for c in scene.instrument.calls if c[0] == "apply"]


def test_segments_follow_each_other_without_a_rest():
    step = Step(
        name="two",
        segments=(
            Segment(name="up", current_A=2e-11, until=(after(0.12),)),
            Segment(name="down", current_A=-1e-11, until=(after(0.07),)),
        ),
    )
    scene, heard = play_step(step)
    assert levels(scene) == [("current", 2e-11), ("current", -1e-11), ("current", 0.0)]
    (segment,) = only(SegmentEnded, heard)
    assert (segment.index, segment.segment, segment.reason) == (1, "up", "t > 0.12 s")
    (end,) = only(StepEnded, heard)
    assert end.reason == "t > 0.07 s"
    # Time of the second segment counts from its own beginning.
    assert end.t_ns - segment.t_ns == 2 * READ_NS


def test_a_condition_of_the_step_ends_it_from_any_segment():
    step = Step(
        name="two",
        segments=(
            Segment(name="a", current_A=2e-11, until=(after(0.07),)),
            Segment(name="b", current_A=3e-11, until=(after(100.0),)),
        ),
        until=(condition("t", ">", 0.22),),
    )
    scene, heard = play_step(step)
    assert levels(scene)[-1] == ("current", 0.0)
    assert only(StepEnded, heard)[0].reason == "t>"
    assert only(StepEnded, heard)[0].t_ns == 5 * READ_NS


def test_a_voltage_counts_from_the_cells_own_rest():
    step = chronoamperometry(Level(volts=0.02, versus="ocv"), 0.07)
    scene, heard = play_step(step, script=[{"voltage_V": 3.8}] * 3)
    # No rest voltage was known: the step waits for one.
    assert [b.step for b in only(Block, heard)][:2] == [-1, 1]
    assert levels(scene) == [("voltage", pytest.approx(3.82)), ("current", 0.0)]


def test_a_step_that_waits_for_a_rest_can_be_called_off():
    step = chronoamperometry(Level(volts=0.02, versus="ocv"), 0.07)
    scene = Scene()
    scene.say(StartStep(index=1, step=step, range_A=1e-10), EndStep(reason="stopped"))
    scene.at(3, Finish(reason="done"))
    scene.play()
    assert levels(scene) == []


def test_a_sweep_is_a_staircase_that_keeps_its_rate():
    step = linear_sweep(Level(volts=3.9), Level(volts=3.93), 0.1, window_V=1.8)
    scene, heard = play_step(step)
    swept = [level for mode, level in levels(scene) if mode == "voltage"]
    assert swept[0] == 3.9
    assert swept[-1] == 3.93
    assert np.allclose(np.diff(swept), 0.005)  # 0.1 V/s, a reading each 50 ms
    assert only(StepEnded, heard)[0].reason == "the sweep is at 3.93 V"
    assert levels(scene)[-1] == ("current", 0.0)


def test_a_sweep_goes_down_as_well():
    step = linear_sweep(Level(volts=3.9), Level(volts=3.888), 0.1, window_V=1.8)
    scene, _ = play_step(step)
    swept = [level for mode, level in levels(scene) if mode == "voltage"]
    assert swept == pytest.approx([3.9, 3.895, 3.89, 3.888])


def test_a_ramp_that_is_not_taken_trips():
    step = linear_sweep(Level(volts=3.9), Level(volts=3.93), 0.1, window_V=1.8)
    scene = Scene()
    scene.say(StartStep(index=1, step=step, range_A=1e-10))
    scene.instrument.before_read[2] = lambda: setattr(scene.instrument, "fail_apply", True)
    scene.at(4, Finish(reason="done"))
    heard = scene.play()
    assert only(Tripped, heard)[0].kind is EndKind.FAULT
    assert ("safe",) in scene.instrument.calls


def test_a_hold_goes_on_until_the_current_has_fallen_for_three_settled_readings():
    step = galvanostatic_cycling(
        2e-11, 4.0, longest_s=10.0, hold_s=10.0, hold_until_A=1e-12, rest_s=0.07
    )
    settling = {"current_A": 0.0, "status": int(Status.SETTLING)}
    script = [
        {"voltage_V": 3.9},
        {"voltage_V": 4.01},
        *[settling] * 4,
        {"current_A": 9e-13},
        {"current_A": 2e-12},
        *[{"current_A": 9e-13}] * 3,
    ]
    scene, heard = play_step(step, script=script)
    assert levels(scene) == [
        ("current", 2e-11),
        ("voltage", 4.0),
        ("current", 0.0),
        ("current", 0.0),
    ]
    assert [e.reason for e in only(SegmentEnded, heard)] == ["V > 4 V", "|I| < 1e-12 A"]
    assert only(SegmentEnded, heard)[1].t_ns == 11 * READ_NS


def test_ionic_charge_leaves_out_what_the_holder_takes():
    holder = HolderTerms(capacitance_F=1e-10, conductance_S=1e-12, offset_A=1e-13)
    step = chronopotentiometry(2e-11, (condition("Q_ionic", ">", 2e-12),))
    script = [{"voltage_V": 3.9 + 0.001 * i} for i in range(20)]
    _, heard = play_step(step, script=script, holder=holder)
    end = only(StepEnded, heard)[0]
    dt_s, n = READ_NS / 1e9, np.arange(20)
    ionic = (2e-11 - 1e-13 - 1e-12 * 3.905) * dt_s * n - 1e-10 * 0.001 * n
    expected = int(np.flatnonzero(ionic > 2e-12)[0]) if np.any(ionic > 2e-12) else None
    assert expected is not None
    assert end.t_ns == (expected + 1) * READ_NS


def test_a_current_that_no_meter_read_has_no_zero_to_take_off():
    count = ChargeCount(HolderTerms(capacitance_F=0.0, conductance_S=0.0, offset_A=1e-13))
    row = np.zeros(1, SAMPLE_DTYPE)[0]
    row["voltage_V"], row["current_A"] = 3.9, 2e-11
    for second, status in enumerate((0, 0, Status.TOLD, Status.TOLD)):
        row["read_start_ns"] = row["read_end_ns"] = second * 10**9
        row["status"] = int(status)
        count.take(Reading(*row.tolist()))
    assert count.instrument_C == pytest.approx(3 * 2e-11)
    # One second with the zero, half a one while it went away, one without.
    assert count.ionic_C == pytest.approx(3 * 2e-11 - 1.5 * 1e-13)


def test_without_a_calibration_no_condition_on_ionic_charge_is_met():
    step = chronopotentiometry(2e-11, (condition("Q_ionic", "<", 1.0), condition("t", ">", 0.4)))
    _, heard = play_step(step)
    assert only(StepEnded, heard)[0].reason == "t>"


class OverheardPipe:
    """The guardian's end of the pipe; writes down what it takes from it."""

    def __init__(self, pipe, heard):
        self._pipe, self._heard = pipe, heard

    def __getattr__(self, name):
        return getattr(self._pipe, name)

    def recv(self):
        message = self._pipe.recv()
        self._heard.append(type(message).__name__)
        return message


def test_in_virtual_time_a_wish_waits_until_the_last_block_was_dealt_with():
    scene = Scene(lease_s=5.0)
    scene.guardian._settings = replace(
        scene.guardian._settings, clock=ClockSpec(origin_ns=0, path="virtual")
    )
    order = scene.instrument.calls
    scene.guardian._inbox = OverheardPipe(scene.theirs, order)
    scene.say(Renew(sequence=0))
    scene.at(0, charge_step(condition("t", ">", 100.0)), Renew(sequence=1))
    scene.at(1, EndStep(reason="enough"), Finish(reason="done"))
    scene.play()
    begun = order.index("StartStep")
    assert order[begun : begun + 3] == ["StartStep", "Renew", ("apply", "current", 2e-11, 4.3)]


def test_charge_is_counted_by_trapezia_over_the_middles_of_the_readings():
    scene = Scene([{"current_A": 0.0}, {"current_A": 4e-12}, {"current_A": 1e-11}])
    scene.at(2, Finish(reason="done"))
    blocks = only(Block, scene.play())
    dt_s = READ_NS / 1e9
    assert [float(b.charge_C[0]) for b in blocks] == pytest.approx(
        [0.0, 2e-12 * dt_s, 9e-12 * dt_s], rel=1e-12, abs=0
    )


def test_in_virtual_time_a_dead_runner_is_noticed_while_waiting():
    scene = Scene(lease_s=5.0)
    scene.guardian._settings = replace(
        scene.guardian._settings, clock=ClockSpec(origin_ns=0, path="virtual")
    )
    scene.say(charge_step(condition("t", ">", 100.0)), Renew(sequence=0))
    scene.instrument.before_read[0] = scene.ours.close
    scene.guardian.run()
    assert scene.instrument.reads == 1
    assert scene.instrument.level_A == 0.0
    scene.theirs.close()


def test_in_virtual_time_a_frozen_runner_loses_its_lease():
    scene = Scene(lease_s=0.01)
    scene.guardian._settings = replace(
        scene.guardian._settings, clock=ClockSpec(origin_ns=0, path="virtual")
    )
    scene.say(charge_step(condition("t", ">", 100.0)), Renew(sequence=0))
    scene.instrument.before_read[0] = lambda: setattr(scene, "lease_ns", 0)

    ticks = iter(range(0, 10**9, 20_000_000))
    scene.guardian._lease_now_ns = lambda: next(ticks)
    scene.at(1, Finish(reason="done"))
    heard = scene.play()
    assert only(Tripped, heard)[0].kind is EndKind.LEASE


def test_an_unknown_message_is_a_defect_of_ours_and_still_leaves_the_cell_safe():
    scene = Scene()
    scene.at(1, "nonsense")
    with pytest.raises(TypeError, match="nonsense"):
        scene.guardian.run()
    assert scene.instrument.calls[-2:] == [("rest",), ("close",)]
    scene.ours.close()
    scene.theirs.close()


def test_an_instrument_that_another_program_has_is_not_opened():
    resource = "TCPIP::127.0.0.1::9::SOCKET"
    ours, theirs = multiprocessing.Pipe()
    settings = GuardianSettings(
        driver="keithley6430", resource=resource, clock=ClockSpec(origin_ns=0), envelope=ENVELOPE
    )
    with Claim(resource), ours, theirs:
        guardian_main(theirs, settings)
        told = ours.recv()
    assert isinstance(told, Refused)
    assert "connected to it already" in told.error


# --- levels that count from others ----------------------------------------------------------


def levelled(volts, versus):
    return chronoamperometry(Level(volts=volts, versus=versus), 0.07)


def test_a_voltage_counts_from_the_one_that_was_held_last():
    scene = Scene([{"voltage_V": 3.8}] * 20)
    swept = linear_sweep(Level(volts=3.9), Level(volts=3.93), 0.1, window_V=1.8)
    scene.say(StartStep(index=0, step=swept, range_A=1e-10))
    held = StartStep(index=1, step=levelled(0.01, "control"), range_A=1e-10)
    scene.at(10, held)
    scene.at(16, Finish(reason="done"))
    heard = scene.play()
    assert not only(Tripped, heard)
    assert levels(scene)[-2] == ("voltage", pytest.approx(3.94))


def test_a_voltage_that_counts_from_none_is_not_put_on():
    scene, heard = play_step(levelled(0.01, "control"))
    assert levels(scene) == []
    assert "none was" in only(Tripped, heard)[0].reason
    assert ("safe",) in scene.instrument.calls


def test_a_voltage_counts_from_the_last_reading_of_the_step_before():
    # Under current 3.95 V; at rest between the steps the cell falls to 3.9 V.
    scene = Scene([{"voltage_V": 3.95}] * 3 + [{"voltage_V": 3.9}] * 20)
    scene.say(charge_step(condition("t", ">", 0.12)))
    later = StartStep(index=2, step=levelled(-0.02, "measured"), range_A=1e-10)
    scene.at(8, later)
    scene.at(12, Finish(reason="done"))
    scene.play()
    assert ("voltage", pytest.approx(3.93)) in levels(scene)


def test_at_the_beginning_the_last_reading_is_that_of_the_rest():
    scene, heard = play_step(levelled(0.02, "measured"), script=[{"voltage_V": 3.8}] * 3)
    assert [b.step for b in only(Block, heard)][:2] == [-1, 1]
    assert levels(scene)[0] == ("voltage", pytest.approx(3.82))


@pytest.mark.parametrize(("versus", "expected"), [("control", 2.5e-11), ("measured", 1.6e-11)])
def test_a_current_counts_from_the_one_before(versus, expected):
    settling = {"current_A": 5e-11, "status": int(Status.SETTLING)}
    scene = Scene([{"current_A": 1.1e-11}] * 2 + [settling] + [{"current_A": 0.0}] * 20)
    scene.say(charge_step(condition("t", ">", 0.12)))
    step = chronopotentiometry(5e-12, (condition("t", ">", 0.1),), versus=versus)
    scene.at(6, StartStep(index=2, step=step, range_A=1e-10))
    scene.at(12, Finish(reason="done"))
    scene.play()
    assert levels(scene)[2] == ("current", pytest.approx(expected))


def test_a_shaken_voltage_does_not_count_as_held():
    from potentiostat.multisine import multisine
    from potentiostat.technique import impedance

    sines = multisine(1.0, 2.0, per_decade=2, peak=0.01)
    shaken = impedance(sines, voltage=Level(volts=3.9), settle_s=0.0, periods=1)
    scene = Scene()
    scene.say(StartStep(index=0, step=replace(shaken, until=(after(0.3),)), range_A=1e-10))
    scene.at(10, StartStep(index=1, step=levelled(0.0, "control"), range_A=1e-10))
    scene.at(14, Finish(reason="done"))
    scene.play()
    assert levels(scene)[-2] == ("voltage", 3.9)


# --- charges of other beginnings ------------------------------------------------------------


def test_the_charge_of_a_half_cycle_begins_when_the_current_turns():
    parts = (("up", 2e-11, 0.32), ("rest", 0.0, 0.12), ("down", -2e-11, 5.0))
    step = Step(
        name="pulses",
        segments=tuple(
            Segment(name=name, current_A=current_A, until=(after(time_s),))
            for name, current_A, time_s in parts
        ),
        until=(condition("Q_half", "<", -2.4e-12),),
    )
    _, heard = play_step(step)
    end = only(StepEnded, heard)[0]
    assert end.reason == "Q_half<"
    # Q is still above nothing then: 7 pC went in before.
    turned = only(SegmentEnded, heard)[1].t_ns
    assert end.t_ns - turned == 3 * READ_NS


def test_the_charge_of_the_run_counts_over_its_steps():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 0.2)))
    scene.at(6, charge_step(condition("Q_run", ">", 6.5e-12), index=2))
    scene.at(16, Finish(reason="done"))
    heard = scene.play()
    second = only(StepEnded, heard)[1]
    blocks = [b for b in only(Block, heard) if b.step == 2]
    assert second.reason == "Q_run>"
    assert blocks[-1].charge_C[-1] > 6.5e-12 >= blocks[-2].charge_C[-1]


# --- jumps and slopes -----------------------------------------------------------------------


def test_the_end_of_a_step_says_where_its_rule_leads():
    rule = replace(condition("V", ">", 4.2), action="goto", goto="rest", goto_most=3)
    scene = Scene([{}, {"voltage_V": 4.25}])
    scene.say(charge_step(rule))
    scene.at(4, Finish(reason="done"))
    end = only(StepEnded, scene.play())[0]
    assert (end.kind, end.goto, end.goto_most) == (EndKind.CONDITION, "rest", 3)


FAST = replace(ENVELOPE, voltage_rate_max_V_s=0.01, rate_window_s=0.5)


def play_rates(script, *, envelope=FAST, **settings):
    scene = Scene(script, **settings)
    scene.guardian._settings = replace(scene.guardian._settings, envelope=envelope)
    scene.guardian._rates = RateGuard(envelope)
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.at(60, Finish(reason="done"))
    return scene, scene.play()


def test_a_voltage_that_runs_away_trips_before_it_is_at_a_limit():
    runaway = [{"voltage_V": 3.9 + max(0, i - 20) * 0.002} for i in range(60)]
    scene, heard = play_rates(runaway)
    tripped = only(Tripped, heard)[0]
    assert tripped.kind is EndKind.LIMIT
    assert "voltage changes at" in tripped.reason
    assert scene.instrument.level_A == 0.0
    assert 21 * READ_NS < tripped.t_ns < 35 * READ_NS


def test_the_jump_at_a_set_point_is_no_runaway():
    parts = tuple(
        Segment(name=str(i), current_A=current_A, until=(after(1.49),))
        for i, current_A in enumerate((2e-11, -2e-11))
    )
    # Both with the current and with the rest that follows it.
    jumps = [{"voltage_V": (4.1, 3.7, 3.9)[min(i // 30, 2)]} for i in range(100)]
    scene = Scene(jumps)
    scene.guardian._rates = RateGuard(FAST)
    scene.say(StartStep(index=1, step=Step(name="two", segments=parts), range_A=1e-10))
    scene.at(90, Finish(reason="done"))
    heard = scene.play()
    assert not only(Tripped, heard)
    assert [e.kind for e in only(StepEnded, heard)] == [EndKind.CONDITION]
    late = [{"voltage_V": 3.9 if i < 30 else 4.1} for i in range(60)]
    assert only(Tripped, play_rates(late)[1])


def test_an_open_holder_may_change_as_fast_as_it_likes():
    runaway = [{"voltage_V": 0.02 * i} for i in range(60)]
    assert not only(Tripped, play_rates(runaway, cell_attached=False)[1])


# --- readings in blocks ----------------------------------------------------------------------


def test_a_limit_within_a_block_ends_it_before_anything_else_is_read():
    scene = Scene([{}, {}, {}, {"voltage_V": 4.31}], block=5)
    scene.say(charge_step(condition("t", ">", 100.0)))
    scene.instrument.before_read[5] = lambda: order.append(list(scene.instrument.calls))
    order = []
    scene.at(7, Finish(reason="done"))
    heard = scene.play()
    assert [t.kind for t in only(Tripped, heard)] == [EndKind.LIMIT]
    assert ("safe",) in order[0]
    assert [len(b.samples) for b in only(Block, heard)] == [5, 5]
    # The readings of the block that were taken before the cell was safe belong to the step.
    assert [b.step for b in only(Block, heard)] == [1, -1]


def test_each_reading_of_a_block_is_judged_and_counted_as_one_by_one():
    script = [{"current_A": 1e-12 * k} for k in range(30)]
    until = condition("Q", ">", 2e-11)
    charges = {}
    for block in (1, 5):
        scene = Scene(script, block=block)
        scene.say(charge_step(until))
        scene.at(29, Finish(reason="done"))
        blocks = only(Block, scene.play())
        charges[block] = np.concatenate([b.charge_C for b in blocks])[:30]
    assert np.array_equal(charges[1], charges[5])
    assert charges[1][-1] > 2e-11


def test_the_end_of_a_step_is_the_reading_that_met_it():
    scene = Scene([{}, {"voltage_V": 4.25}], block=5)
    scene.say(charge_step(condition("V", ">", 4.2)))
    scene.at(12, Finish(reason="done"))
    (end,) = only(StepEnded, scene.play())
    # From the second of five readings to the set-point after the block: three more.
    assert end.latency_ns == 3 * READ_NS


def test_readings_from_before_a_change_do_not_end_what_comes_after_it():
    until = (condition("V", ">", 4.2),)
    segments = tuple(Segment(name=n, current_A=2e-11, until=until) for n in ("first", "then"))
    high = {"voltage_V": 4.25}
    scene = Scene([{}, high, high, high, high, {}, {}, high], block=5)
    scene.say(StartStep(index=1, step=Step(name="two", segments=segments), range_A=1e-10))
    scene.at(14, Finish(reason="done"))
    heard = scene.play()
    (segment,) = only(SegmentEnded, heard)
    (end,) = only(StepEnded, heard)
    assert segment.t_ns == 5 * READ_NS
    assert end.t_ns == 10 * READ_NS


def test_a_rest_voltage_is_of_readings_after_the_change_alone():
    high = {"voltage_V": 4.25}
    scene = Scene([{}, high, high, high, {}, {}, {}, {}], block=4)
    scene.say(charge_step(condition("V", ">", 4.2)))
    held = chronoamperometry(Level(volts=0.0, versus="ocv"), 0.3)
    scene.at(4, StartStep(index=2, step=held, range_A=1e-10))
    scene.at(20, Finish(reason="done"))
    scene.play()
    voltages = [c[2] for c in scene.instrument.calls if c[:2] == ("apply", "voltage")]
    assert voltages == [3.9]


def test_a_block_of_garbage_is_too_many_readings_that_are_no_numbers():
    scene = Scene([{"voltage_V": math.nan, "status": int(Status.INVALID)}] * 5, block=5)
    scene.at(8, Finish(reason="done"))
    heard = scene.play()
    assert [t.kind for t in only(Tripped, heard)] == [EndKind.FAULT]


def test_readings_that_no_edge_began_are_judged_like_others():
    late = {"status": int(Status.UNTRIGGERED)}
    scene = Scene([late, late, {**late, "voltage_V": 4.31}])
    scene.at(5, Finish(reason="done"))
    heard = scene.play()
    assert [t.kind for t in only(Tripped, heard)] == [EndKind.LIMIT]


def test_a_timer_that_began_anew_is_asked_at_once():
    times = (8190.0, 8191.0, 8193.0, 0.5, 1.0, 1.5)
    scene = Scene([{"device_time_s": t} for t in times], exchange_interval_s=1000.0)
    scene.instrument.timer_s = 8190.5
    scene.instrument.before_read[3] = lambda: setattr(scene.instrument, "timer_s", 0.6)
    scene.at(5, Finish(reason="done"))
    heard = scene.play()
    assert [len(b.exchanges) for b in only(Block, heard)] == [1, 0, 0, 1, 0, 0]


# --- shorts ----------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch):
    """Read rarely, so that few readings make many seconds."""
    monkeypatch.setitem(globals(), "READ_NS", 200_000_000)


def falling(by_V=0.01):
    return [{"voltage_V": 3.9 - (by_V if k >= 60 else 0.0)} for k in range(90)]


def trips(script, start, *, asked=True):
    scene = Scene(script, stop_on_short=asked)
    scene.say(start)
    scene.at(80, Finish(reason="done"))
    return [m for m in scene.play() if isinstance(m, Tripped)]


def test_a_short_takes_the_cell_to_safety_where_it_is_asked_to(slow):
    (tripped,) = trips(falling(), charge_step(after(1000.0)))
    assert tripped.kind is EndKind.LIMIT
    assert "a short: the voltage fell by" in tripped.reason
    assert 60 * READ_NS < tripped.t_ns < 66 * READ_NS
    assert trips(falling(), charge_step(after(1000.0)), asked=False) == []


def test_a_voltage_that_rises_or_is_held_is_no_short(slow):
    assert trips(falling(by_V=-0.01), charge_step(after(1000.0))) == []
    held = chronoamperometry(Level(volts=3.9), 1000.0)
    assert trips(falling(), StartStep(index=0, step=held, range_A=1e-10)) == []


def test_a_change_of_the_current_is_no_short(slow):
    step = charge_step(after(11.0))  # its end lets the voltage fall
    assert trips(falling(), step) == []


# --- pauses ---------------------------------------------------------------------------------


def test_a_paused_step_rests_and_says_what_has_passed():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 0.32)))
    scene.at(4, PauseStep(), PauseStep())
    scene.at(10, Finish(reason="done"))
    heard = scene.play()
    (paused,) = only(StepPaused, heard)
    assert (paused.index, paused.latency_ns) == (1, 0)
    assert paused.passed.elapsed_s == pytest.approx(5 * READ_NS / 1e9)
    assert paused.passed.charge_C == pytest.approx(2e-11 * 4 * READ_NS / 1e9)
    assert levels(scene) == [("current", 2e-11), ("current", 0.0)]
    assert not only(StepEnded, heard)
    assert {b.step for b in only(Block, heard)[5:]} == {-1}


def test_a_step_that_was_paused_ends_by_what_it_lacked():
    scene = Scene()
    message = charge_step(condition("t", ">", 0.32))
    scene.say(message)
    scene.at(4, PauseStep())
    scene.at(10, replace(message, passed=Passed(elapsed_s=0.25, segment_elapsed_s=0.25)))
    scene.at(20, Finish(reason="done"))
    (end,) = only(StepEnded, scene.play())
    assert end.kind is EndKind.CONDITION
    assert end.t_ns == 13 * READ_NS  # 0.07 s more: two readings, and one under way
    assert levels(scene)[-2:] == [("current", 2e-11), ("current", 0.0)]


def test_a_paused_step_is_ended_at_rest():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 10.0)))
    scene.at(4, PauseStep())
    scene.at(8, EndStep(reason="stopped"), EndStep(reason="stopped"))
    scene.at(10, Finish(reason="done"))
    heard = scene.play()
    (end,) = only(StepEnded, heard)
    assert (end.index, end.kind, end.reason) == (1, EndKind.COMMAND, "stopped")
    assert levels(scene) == [("current", 2e-11), ("current", 0.0)]


def test_a_limit_during_a_pause_ends_the_step_and_trips():
    scene = Scene([{}] * 8 + [{"voltage_V": 4.4}])
    scene.say(charge_step(condition("t", ">", 10.0)))
    scene.at(4, PauseStep())
    scene.at(12, Finish(reason="done"))
    heard = scene.play()
    assert [e.kind for e in only(StepEnded, heard)] == [EndKind.LIMIT]
    assert only(Tripped, heard)[0].kind is EndKind.LIMIT


def test_a_pause_without_a_step_says_nothing():
    scene = Scene()
    scene.at(2, PauseStep())
    scene.at(4, Finish(reason="done"))
    heard = scene.play()
    assert not only(StepPaused, heard)
    assert levels(scene) == []


def test_a_pause_that_cannot_rest_trips():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 10.0)))

    def fail_then_say():
        scene.instrument.fail_apply = True
        scene.say(PauseStep())

    scene.instrument.before_read[4] = fail_then_say
    scene.at(8, Finish(reason="done"))
    heard = scene.play()
    assert not only(StepPaused, heard)
    assert only(Tripped, heard)[0].kind is EndKind.FAULT
    assert ("safe",) in scene.instrument.calls


@pytest.mark.parametrize("word", [PauseStep(), EndStep(reason="stopped")])
def test_a_step_that_waits_for_a_rest_voltage_may_be_paused_or_ended(word):
    step = chronoamperometry(Level(volts=0.01, versus="ocv"), 0.2)
    scene = Scene()
    scene.say(StartStep(index=1, step=step, range_A=1e-10), word)
    scene.at(4, Finish(reason="done"))
    heard = scene.play()
    assert levels(scene) == []
    if isinstance(word, PauseStep):
        assert [(p.index, p.passed) for p in only(StepPaused, heard)] == [(1, None)]
    else:
        assert [(e.index, e.kind) for e in only(StepEnded, heard)] == [(1, EndKind.COMMAND)]


def test_the_ionic_charge_is_told_with_each_reading_of_a_calibrated_holder():
    holder = HolderTerms(capacitance_F=0.0, conductance_S=1e-12, offset_A=0.0)
    scene = Scene(holder=holder)
    scene.say(charge_step(condition("t", ">", 0.32)))
    scene.at(6, Finish(reason="done"))
    block = only(Block, scene.play())[5]
    # 3.9 V over 1 TOhm takes 3.9 pA of 20.
    assert block.ionic_C / block.charge_C == pytest.approx(1 - 3.9 / 20)
    bare = Scene()
    bare.at(2, Finish(reason="done"))
    assert only(Block, bare.play())[0].ionic_C is None


# --- less current than planned ----------------------------------------------------------------


def test_a_step_begins_with_its_share_and_goes_on_with_another():
    scene = Scene()
    scene.say(replace(charge_step(condition("t", ">", 0.4)), share=0.25))
    scene.at(3, Moderate(index=1, share=0.5), Moderate(index=1, share=0.5))
    scene.at(10, Finish(reason="done"))
    heard = scene.play()
    assert levels(scene)[:3] == [("current", 5e-12), ("current", 1e-11), ("current", 0.0)]
    (ended,) = only(StepEnded, heard)
    assert (ended.kind, ended.reason) == (EndKind.CONDITION, "t>")  # its time counts on
    total_C = only(Block, heard)[-1].charge_C[-1]
    assert total_C == pytest.approx((4 * 5e-12 + 4 * 1e-11) * READ_NS / 1e9, rel=0.2)


def test_a_share_for_a_step_that_is_over_changes_nothing():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 0.12)))
    scene.at(1, Moderate(index=0, share=0.5))
    scene.at(6, Moderate(index=1, share=0.5))
    scene.at(9, Finish(reason="done"))
    scene.play()
    assert levels(scene) == [("current", 2e-11), ("current", 0.0)]


@pytest.mark.parametrize("share", [0.0, -0.5, 1.0001, math.nan, math.inf])
def test_more_than_the_plan_or_nothing_cannot_even_be_said(share):
    with pytest.raises(ValueError, match="no share of a current"):
        Moderate(index=1, share=share)
    with pytest.raises(ValueError, match="no share of a current"):
        replace(charge_step(), share=share)


def test_a_voltage_has_no_share():
    scene = Scene()
    scene.say(StartStep(index=0, step=levelled(3.8, "zero"), range_A=1e-10, share=0.5))
    scene.at(2, Moderate(index=0, share=0.3))
    scene.at(4, Finish(reason="done"))
    scene.play()
    assert [level for level in levels(scene) if level[0] == "voltage"] == [("voltage", 3.8)]


def test_a_share_that_is_not_taken_trips():
    scene = Scene()
    scene.say(charge_step(condition("t", ">", 9.0)))

    def fail():
        scene.instrument.fail_apply = True
        scene.say(Moderate(index=1, share=0.5))

    scene.instrument.before_read[3] = fail
    scene.at(6, Finish(reason="done"))
    heard = scene.play()
    (tripped,) = only(Tripped, heard)
    assert (tripped.kind, tripped.reason) == (EndKind.FAULT, "the set-point was not taken")


def test_the_jump_at_another_share_is_no_short(slow):
    scene = Scene(falling(), stop_on_short=True)
    scene.say(charge_step(after(1000.0)))
    scene.at(59, Moderate(index=1, share=0.2))
    scene.at(80, Finish(reason="done"))
    assert only(Tripped, scene.play()) == []
