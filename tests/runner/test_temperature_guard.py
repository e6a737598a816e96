"""What a guardian makes of a thermometer, over an instrument that a test scripts."""

import math
from dataclasses import replace

import numpy as np
import pytest

from potentiostat.errors import InstrumentRefused, LinkError, NoReply
from potentiostat.limits import Condition
from potentiostat.technique import Segment, Step, chronopotentiometry
from potentiostat.thermometer import TemperatureReading
from runner.messages import Block, EndKind, Finish, SegmentEnded, StartStep, StepEnded, Tripped
from runner.outbox import Outgoing
from runner.temperature_guard import STALE_S
from tests.runner.test_guardian import ENVELOPE, READ_NS, Scene, ScriptedInstrument, only

LIMITED = replace(ENVELOPE, temperature_min_K=250.0, temperature_max_K=330.0)
ALWAYS = Condition(quantity="t", relation=">", value=1000.0, text="t > 1000 s")
OPEN = "open"


def hotter(kelvin, **changes):
    text = f"T > {kelvin:g} K"
    return Condition(quantity="T", relation=">", value=kelvin, text=text, **changes)


class Warm(ScriptedInstrument):
    """Says one temperature after the other, and then the last one again."""

    says = (300.0,)

    def __init__(self, script, block=1):
        super().__init__(script, block)
        self.asked_ns = []

    def read_temperature(self):
        said = self.says[min(len(self.asked_ns), len(self.says) - 1)]
        self.asked_ns.append(self.now_ns)
        if isinstance(said, Exception):
            self.now_ns += 2_000_000_000 if isinstance(said, NoReply) else 0
            raise said
        about = {"read_start_ns": self.now_ns, "read_end_ns": self.now_ns}
        if said == OPEN:
            return TemperatureReading.unknown("the thermocouple is open", **about)
        return TemperatureReading(temperature_K=said, sigma_K=1.0, **about)


class Heard(list, Outgoing):
    """Keeps what is said: a pipe that nobody empties holds a few blocks only."""

    def put(self, message):
        self.append(message)

    def close(self):
        pass


def scene(says, *, limited=False, script=(), finish=150, **changes):
    class ThisWarm(Warm):
        pass

    class ThisScene(Scene):
        makes = ThisWarm

        def play(self):
            self.guardian._outbox = heard = Heard()
            self.guardian.run()
            return heard

    ThisWarm.says = tuple(says)
    envelope = LIMITED if limited else ENVELOPE
    made = ThisScene(script, envelope=envelope, asks_temperature=True, **changes)
    made.at(finish, Finish(reason="done"))
    return made


def step(*until, index=1):
    return StartStep(index=index, step=chronopotentiometry(2e-11, (*until, ALWAYS)), range_A=1e-10)


def said(heard):
    return [t for block in only(Block, heard) for t in block.temperatures]


def sources(made):
    return [call[2] for call in made.instrument.calls if call[0] == "apply"]


def test_it_is_asked_about_once_a_second_beside_the_readings():
    made = scene([300.0, 301.0])
    heard = made.play()
    between_s = np.diff(made.instrument.asked_ns) / 1e9
    assert len(between_s) >= 5
    assert np.all((between_s >= 1.0) & (between_s <= 1.0 + 2 * READ_NS / 1e9))
    assert [t.temperature_K for t in said(heard)][:3] == [300.0, 301.0, 301.0]
    assert sum(len(b.samples) for b in only(Block, heard)) == made.instrument.reads
    assert not only(Tripped, heard)


def test_nobody_asks_where_no_sensor_is_wired():
    made = Scene(envelope=LIMITED)
    made.at(30, Finish(reason="done"))
    heard = made.play()
    assert said(heard) == []
    assert not only(Tripped, heard)


@pytest.mark.parametrize("by", ["limit", "rule"])
def test_no_set_point_is_put_on_where_nobody_measures_what_it_hangs_on(by):
    made = Scene(envelope=LIMITED if by == "limit" else ENVELOPE)
    made.say(step(*([hotter(340.0)] if by == "rule" else [])))
    made.at(3, Finish(reason="done"))
    (trip,) = only(Tripped, made.play())
    assert trip.reason == "a limit or rule of the temperature, and nobody measures it"
    assert sources(made) == []


@pytest.mark.parametrize(
    ("says", "broken"),
    [
        ([300.0, 331.0], "temperature 331 K is above 330 K"),
        ([300.0, 249.0], "temperature 249 K is below 250 K"),
    ],
)
def test_a_limit_takes_the_cell_to_safety_at_once_and_the_answer_is_told_before(says, broken):
    made = scene(says, limited=True)
    made.say(step())
    heard = made.play()
    (trip,) = only(Tripped, heard)
    assert (trip.kind, trip.reason) == (EndKind.LIMIT, broken)
    assert made.instrument.calls.count(("safe",)) == 1
    before = heard[: heard.index(trip)]
    assert said(before)[-1].temperature_K == says[1]
    assert [e.kind for e in only(StepEnded, heard)] == [EndKind.LIMIT]
    assert len(made.instrument.asked_ns) > 3  # it is told after that, too


def test_a_limit_holds_at_rest_too():
    (trip,) = only(Tripped, scene([300.0, 400.0], limited=True).play())
    assert trip.kind is EndKind.LIMIT


def test_an_open_holder_has_no_cell_that_is_too_warm():
    heard = scene([300.0, 400.0], limited=True, cell_attached=False).play()
    assert not only(Tripped, heard)


@pytest.mark.parametrize("first", [331.0, OPEN, NoReply("late"), InstrumentRefused("-113")])
def test_no_set_point_is_put_on_at_a_temperature_that_is_unknown_or_beyond(first):
    made = scene([first], limited=True, finish=5)
    made.say(step())
    heard = made.play()
    (trip,) = only(Tripped, heard)
    assert trip.kind is (EndKind.LIMIT if first == 331.0 else EndKind.FAULT)
    assert sources(made) == []
    assert 1 <= len(made.instrument.asked_ns) <= 5


def test_a_first_answer_may_fail_where_the_next_does_not():
    made = scene([OPEN, 300.0], limited=True, finish=30)
    made.say(step())
    heard = made.play()
    assert not only(Tripped, heard)
    assert sources(made) == [2e-11]
    assert [t.fault for t in said(heard)][:2] == ["the thermocouple is open", ""]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (OPEN, "the thermocouple is open"),
        (InstrumentRefused("-113"), "the thermometer does not answer: -113"),
        (NoReply("late"), "the thermometer does not answer: late"),
        (LinkError("gone"), "the thermometer does not answer: gone"),
    ],
)
@pytest.mark.parametrize("by", ["limit", "rule"])
def test_where_something_hangs_on_it_not_to_know_it_for_seconds_ends_the_run(bad, why, by):
    made = scene([300.0, bad], limited=by == "limit")
    made.say(step(*([hotter(340.0)] if by == "rule" else [])))
    heard = made.play()
    (trip,) = only(Tripped, heard)
    assert trip.kind is EndKind.FAULT
    assert trip.reason.startswith("the temperature is unknown for ")
    assert trip.reason.endswith(why)
    assert sources(made) == [2e-11]
    asked_s = np.array(made.instrument.asked_ns) / 1e9
    silence_s = trip.t_ns / 1e9 - asked_s[0]
    assert STALE_S <= silence_s < STALE_S + 3.2  # an answer that never comes takes two


@pytest.mark.parametrize("bad", [OPEN, InstrumentRefused("-113")])
def test_where_nothing_hangs_on_it_a_lost_thermometer_is_told_and_no_more(bad):
    made = scene([300.0, bad])
    made.say(step())
    heard = made.play()
    assert not only(Tripped, heard)
    assert not only(StepEnded, heard)
    faults = [t for t in said(heard) if t.fault]
    assert len(faults) >= 4
    assert all(math.isnan(t.temperature_K) for t in faults)


def test_where_nothing_hangs_on_it_one_that_never_answers_is_asked_seldom():
    made = scene([NoReply("late")])
    made.say(step())
    heard = made.play()
    assert not only(Tripped, heard)
    assert len(made.instrument.asked_ns) == 1


def test_a_few_bad_answers_are_bridged():
    made = scene([300.0, OPEN, OPEN, 300.0, OPEN, 300.0], limited=True)
    made.say(step())
    assert not only(Tripped, made.play())


def test_a_rule_ends_its_step_in_rest():
    made = scene([300.0, 300.0, 321.0])
    made.say(step(hotter(320.0)))
    heard = made.play()
    (end,) = only(StepEnded, heard)
    assert (end.kind, end.reason) == (EndKind.CONDITION, "T > 320 K")
    assert 0 <= end.latency_ns <= 2 * READ_NS
    assert sources(made) == [2e-11, 0.0]
    assert not only(Tripped, heard)


@pytest.mark.parametrize("block", [1, 10])
def test_times_in_a_row_are_answers_of_the_thermometer(block):
    made = scene([300.0, 321.0, 321.0, 300.0, 321.0, 321.0, 321.0, 300.0], block=block, finish=185)
    made.say(step(hotter(320.0, confirm=3)))
    heard = made.play()
    (end,) = only(StepEnded, heard)
    before = heard[: heard.index(end)]
    assert [t.temperature_K for t in said(before)] == [300.0, 321, 321, 300, 321, 321, 321]


def test_a_bad_answer_between_does_not_count_and_does_not_forget():
    made = scene([300.0, 321.0, OPEN, 321.0, 300.0])
    made.say(step(hotter(320.0, confirm=2)))
    (end,) = only(StepEnded, made.play())
    assert end.reason == "T > 320 K"


def test_a_rule_of_a_segment_ends_the_segment():
    segments = (
        Segment(name="warm", current_A=2e-11, until=(hotter(320.0),)),
        Segment(name="then", current_A=1e-11, until=(ALWAYS,)),
    )
    made = scene([300.0, 321.0])
    made.say(StartStep(index=1, step=Step(name="two", segments=segments), range_A=1e-10))
    heard = made.play()
    assert [e.segment for e in only(SegmentEnded, heard)] == ["warm"]
    assert sources(made) == [2e-11, 1e-11]


def test_a_rule_may_ask_for_the_safe_state():
    made = scene([300.0, 321.0])
    made.say(step(hotter(320.0, action="safe")))
    (trip,) = only(Tripped, made.play())
    assert (trip.kind, trip.reason) == (EndKind.LIMIT, "T > 320 K")


def test_blocks_of_readings_are_passed_together_although_a_rule_asks_for_the_temperature():
    made = scene([300.0], block=10, finish=185)
    made.say(step(hotter(320.0)))
    looked_at = []
    check = made.guardian._check
    made.guardian._check = lambda reading: (looked_at.append(reading), check(reading))
    made.play()
    assert not looked_at
