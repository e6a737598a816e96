"""Names, jumps, waits, shares of the cell and rules of what is stored, in an experiment file."""

import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from potentiostat.limits import Condition
from potentiostat.segments import Change, Level, Record, Wait
from potentiostat.technique import RAMP_STEP_V
from runner.experiment import Experiment, ExperimentError
from runner.format import held_text
from runner.quantities import (
    CurrentLevel,
    QuantityError,
    parse_current_level,
    parse_fraction,
    parse_moment,
)
from runner.rules import RuleError, parse_change, parse_rule
from runner.waiting import Waiting, seconds_until, with_known_end

ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "examples" / "techniques.toml").read_text("utf-8")
HEAD = TOUR.partition("[[step]]")[0]
CAPACITY_C = 12.422e-9


def load(*steps, head=HEAD):
    return Experiment.loads(head + "\n".join(f"[[step]]\n{step}" for step in steps))


def refusal(*steps, head=HEAD):
    with pytest.raises(ExperimentError) as refused:
        load(*steps, head=head)
    return str(refused.value)


CP = 'cp = { current = "20 pA" }\nuntil = ["V > 4.2 V", "t > 9 s"]'
OCV = 'ocv = { for = "1 s" }'
CA = 'ca = { voltage = "3.9 V", for = "9 s" }'


def cell(*words):
    return HEAD.replace("[cell]", "[cell]\n" + "\n".join(words))


# --- levels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("control + 10 mV", Level(volts=0.01, versus="control")),
        ("measured - 5 mV", Level(volts=-0.005, versus="measured")),
        ("measured", Level(volts=0.0, versus="measured")),
    ],
)
def test_a_voltage_may_count_from_what_was_held_or_measured_last(text, level):
    step = load(CA, f'ca = {{ voltage = "{text}", for = "9 s" }}').steps[1]
    assert step.segments[0].voltage == level
    assert held_text(step) == text
    assert step.references == {f"{level.versus}_V"}


def test_a_current_may_count_from_what_was_held_or_measured_last():
    both = 'until = ["V > 4.2 V", "V < 2.8 V", "t > 9 s"]'
    step = load(CP, f'cp = {{ current = "control + 5 pA" }}\n{both}').steps[1]
    assert (step.segments[0].current_A, step.segments[0].current_versus) == (5e-12, "control")
    assert math.isnan(step.current_A)
    assert held_text(step) == "control + 5 pA"
    experiment = load(CA, f'cp = {{ current = "measured" }}\n{both}')
    assert experiment.steps[1].references == {"measured_A"}
    # The plan does not tell the current: the range is that of the limit.
    assert experiment.largest_current_A == pytest.approx(90e-12)
    assert parse_current_level("C/10") == CurrentLevel(0.1, "c_rate")


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([CP, 'ca = { voltage = "control", for = "9 s" }'], "step[2].ca.voltage: counts from"),
        ([OCV, 'lsv = { from = "control", to = "4 V", rate = "1 mV/s" }'], "lsv.from: counts"),
        ([CA, CP.replace("20 pA", "control + 5 pA")], "step[2].cp.current: counts from the cur"),
        ([CP, CP.replace("20 pA", "measured")], "a discharge needs an end in voltage"),
        ([CP.replace("20 pA", "OCV")], "a rest voltage is no current"),
        ([CP.replace("20 pA", "measured + 5 mV")], "is a voltage; this field is a current"),
    ],
)
def test_a_level_that_counts_from_nothing_is_refused(steps, says):
    assert says in refusal(*steps)


def test_the_stairs_and_the_holds_of_a_sweep_are_as_written():
    cv = 'cv = {{ first = "4 V", second = "3.8 V", rate = "5 mV/s", hold = {} }}'
    (step,) = load(cv.format('["1 s", "2 s"], step = "5 mV"')).steps
    assert [s.longest_s for s in step.segments if s.ramp is None] == [1.0, 2.0]
    assert {s.ramp.step_V for s in step.segments if s.ramp} == {5e-3}
    (step,) = load('lsv = { to = "4 V", rate = "1 mV/s" }').steps
    assert step.segments[0].ramp.step_V == RAMP_STEP_V
    assert "neither one time nor a list of two" in refusal(cv.format('["1 s"]'))
    assert "more than nothing, such as 1 mV" in refusal(cv.format('"1 s", step = "0 mV"'))


def test_a_hold_may_end_on_the_slope_of_its_current_and_the_rest_on_that_of_its_voltage():
    gcpl = (
        'gcpl = { current = "30 pA", voltage = "4 V", longest = "9 s", hold_for = "60 s", '
        'hold_until_rate = "10 fA/s", rest = "5 s", relaxed = "1 mV/h" }'
    )
    (step,) = load(gcpl).steps
    _, hold, rest = step.segments
    assert [c.quantity for c in hold.until] == ["|dI/dt|", "t"]
    assert hold.until[0].value == pytest.approx(1e-14)
    assert [c.quantity for c in rest.until] == ["|dV/dt|", "t"]


# --- jumps -----------------------------------------------------------------------------------


def test_a_rule_may_go_to_a_named_step():
    rule = parse_rule("V > 4.2 V, 3 times, then go to rest up to 5 times")
    assert (rule.action, rule.goto, rule.goto_most, rule.confirm) == ("goto", "rest", 5, 3)
    assert parse_rule("V > 4.2 V, then go to end-1").goto_most == 0
    for text, says in (
        ("V > 4.2 V, then go to a up to no times", "column 17: 'no' times cannot be"),
        ("V > 4.2 V, then go to a up to 0 times", "'0' times cannot be; write 1 to 1000"),
        ("V > 4.2 V, then go away", "or then go to NAME up to 5 times"),
    ):
        with pytest.raises(RuleError) as refused:
            parse_rule(text)
        assert says in str(refused.value)


BACK = CP.replace('"V > 4.2 V"', '"V > 4.2 V", "V > 4 V, then go to rest up to 3 times"')


def test_the_longest_duration_counts_every_jump_back():
    experiment = load(f'name = "rest"\n{OCV}', BACK)
    assert experiment.longest_s == 4 * (1 + 9)
    assert [s.label for s in experiment.steps] == ["rest", ""]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([OCV, BACK], "goes to no step of this plan; there is none has a name yet"),
        ([f'name = "other"\n{OCV}', BACK], "goes to no step of this plan; there is other"),
        (
            [f'name = "rest"\n{OCV}', BACK.replace(" up to 3 times", "")],
            "goes back without an end; write for example then go to rest up to 5 times",
        ),
        ([BACK, f'name = "rest"\n{OCV}'], "goes ahead, once at most; leave 'up to' out"),
        ([f'name = "a b"\n{OCV}'], "'a b' is no name"),
        ([f'name = "a"\n{OCV}', f'name = "a"\n{OCV}'], "is the name of step 1, too"),
        (
            [OCV, 'name = "a"\nloop = { steps = 1, times = 2 }'],
            "step[2].name: belongs to the steps of a loop",
        ),
    ],
)
def test_a_jump_that_leads_nowhere_or_never_ends_is_refused(steps, says):
    assert says in refusal(*steps)


# --- waits -----------------------------------------------------------------------------------


def test_a_wait_is_a_rest_that_something_ends():
    steps = load(
        'wait = { for = "3 s" }',
        'wait = { until = "2026-11-26 08:00" }',
        'wait = { trigger = "operator", longest = "1 h" }',
    ).steps
    assert [s.name for s in steps] == ["wait"] * 3
    assert all(s.is_rest for s in steps)
    assert steps[0].longest_s == 3.0
    assert steps[1].wait == Wait(trigger="time", until="2026-11-26T08:00:00")
    assert (steps[2].wait, steps[2].longest_s) == (Wait(trigger="operator"), 3600.0)


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        ("", "ends by one of"),
        ('for = "1 s", trigger = "operator", longest = "1 h"', "ends by one of"),
        ('trigger = "operator"', "step[1].wait.longest: is missing"),
        ('trigger = "moon", longest = "1 h"', "'moon' is not right"),
        ('trigger = "frame", longest = "1 h"', "there is no camera"),
        ('for = "1 s", longest = "1 h"', "belongs to a wait for a trigger"),
        ('until = "tomorrow"', "is no date with a time of day"),
        ('for = "0 s"', "longer than nothing"),
    ],
)
def test_a_wait_that_has_no_end_or_two_is_refused(wait, says):
    assert says in refusal(f"wait = {{ {wait} }}")


def test_a_time_of_day_is_what_is_left_of_it_when_its_step_begins():
    now = datetime(2026, 11, 26, 6, 0, tzinfo=UTC)
    assert seconds_until("2026-11-26T08:00:00+01:00", now) == 3600.0
    local = (now + timedelta(seconds=90)).astimezone().replace(tzinfo=None)
    assert seconds_until(local.isoformat(), now) == 90.0
    (step,) = load('wait = { until = "2026-11-26 08:00+01:00" }').steps
    assert with_known_end(step, now).longest_s == 3600.0
    assert with_known_end(step, now).until[0].text == "it is 2026-11-26T08:00:00+01:00"
    late = with_known_end(step, now + timedelta(hours=2))
    assert 0 < late.longest_s < 0.01
    (rest,) = load(OCV).steps
    assert with_known_end(rest, now) is rest
    with pytest.raises(QuantityError):
        parse_moment("2026-11-26")
    with pytest.raises(QuantityError):
        parse_moment("25:00 today")


def test_only_the_trigger_that_is_waited_for_ends_a_step():
    waiting = Waiting()
    step = load('wait = { trigger = "operator", longest = "1 h" }').steps[0]
    assert waiting.came("operator") is None
    waiting.begin(step)
    assert waiting.for_operator
    assert waiting.came("frame") is None
    assert waiting.came("operator") == "the operator went on"
    assert waiting.came("operator") is None
    waiting.begin(replace(step, wait=Wait(trigger="frame")))
    assert not waiting.for_operator
    assert waiting.came("frame") == "a frame has come"


# --- shares of the cell ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "rule", "quantity", "relation", "value"),
    [
        ((), "dx > 0.1", "|Q|", ">", 0.1 * 2 * CAPACITY_C),
        ((), "dSoC > 10 %", "|Q|", ">", 0.1 * CAPACITY_C),
        (("soc = 0.2",), "SoC > 80 %", "Q_run", ">", 0.6 * CAPACITY_C),
        (('soc = "90 %"',), "SoC < 0.3", "Q_run", "<", -0.6 * CAPACITY_C),
        (("x0 = 1.0",), "x < 0.9", "Q_run", ">", 0.1 * 2 * CAPACITY_C),
        (("x0 = 0.5",), "x > 0.75", "Q_run", "<", -0.25 * 2 * CAPACITY_C),
        (('capacity = "10 nC"',), "dSoC > 0.1", "|Q|", ">", 1e-9),
        (('charge_per_x = "30 nC"',), "dx > 0.1", "|Q|", ">", 3e-9),
    ],
)
def test_shares_of_the_cell_become_charges(words, rule, quantity, relation, value):
    step = CP.replace('"V > 4.2 V"', f'"V > 4.2 V", "{rule}"')
    condition = load(step, head=cell(*words)).steps[0].until[1]
    assert (condition.quantity, condition.relation, condition.text) == (quantity, relation, rule)
    assert condition.value == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("SoC > 0.8", 'soc = "20 %"'),
        ("x < 0.9", "and x0 = 1.0"),
        ("dx > 0.1 V", "is a voltage; this field is a fraction"),
    ],
)
def test_a_share_of_what_is_not_known_is_refused(rule, says):
    assert says in refusal(CP.replace('"V > 4.2 V"', f'"V > 4.2 V", "{rule}"'))


def test_an_unknown_film_needs_its_charges_in_the_file():
    head = HEAD.replace("LiCoO2", "Sn")
    step = CP.replace('"V > 4.2 V"', '"V > 4.2 V", "dSoC > 0.1", "dx > 0.1"')
    told = refusal(step, head=head)
    assert 'capacity = "12 nC"' in told
    assert 'charge_per_x = "25 nC"' in told
    given = head.replace("[cell]", '[cell]\ncapacity = "9 nC"\ncharge_per_x = "20 nC"')
    assert [c.value for c in load(step, head=given).steps[0].until[1:3]] == pytest.approx(
        [9e-10, 2e-9]
    )
    # The capacity gives C-rates, too.
    assert load(CP.replace("20 pA", "1 C"), head=given).steps[0].current_A == 9e-9 / 3600


def test_what_the_cell_is_may_be_written_down():
    head = cell('mass = "25 pg"', 'comments = "third lamella"', "x0 = 0.98", "soc = 0.1")
    known = load(OCV, head=head).cell
    assert known.mass_kg == pytest.approx(25e-15)
    assert (known.comments, known.x0, known.soc) == ("third lamella", 0.98, 0.1)
    assert "cell.x0: 1.2 lies outside 0 to 1" in refusal(OCV, head=cell("x0 = 1.2"))
    assert "cell.capacity: must be more" in refusal(OCV, head=cell('capacity = "0 nC"'))


@pytest.mark.parametrize(
    ("text", "fraction"), [(0.3, 0.3), (1, 1.0), ("0.3", 0.3), ("30 %", 0.3), (" 0.3 ", 0.3)]
)
def test_fractions(text, fraction):
    assert parse_fraction(text) == pytest.approx(fraction)


@pytest.mark.parametrize("text", [True, math.nan, "thirty", "0,3", None])
def test_what_is_no_fraction_is_refused(text):
    with pytest.raises(QuantityError):
        parse_fraction(text)


# --- limits and other charges ------------------------------------------------------------------


def test_limits_on_slopes_are_optional():
    assert load(OCV).envelope.voltage_rate_max_V_s == math.inf
    head = HEAD.replace(
        "[limits]",
        '[limits]\nvoltage_rate = "5 mV/s"\ncurrent_rate = "2 pA/s"\nrate_window = "3 s"',
    )
    envelope = load(OCV, head=head).envelope
    assert envelope.voltage_rate_max_V_s == 5e-3
    assert envelope.current_rate_max_A_s == 2e-12
    assert envelope.rate_window_s == 3.0
    assert "more than nothing" in refusal(OCV, head=head.replace("5 mV", "0 mV"))


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("|Q| > 1 nC", "|Q|"),
        ("|Q_ionic| > 1 nC", "|Q_ionic|"),
        ("Q_half > 1 nC", "Q_half"),
        ("|Q_half| > 1 nC", "|Q_half|"),
        ("Q_run < -1 nC", "Q_run"),
    ],
)
def test_charges_of_other_beginnings(text, quantity):
    rule = parse_rule(text)
    assert isinstance(rule, Condition)
    assert rule.quantity == quantity


@pytest.mark.parametrize(
    ("text", "kelvin", "relation", "confirm", "action"),
    [
        ("T > 320 K", 320.0, ">", 1, "next"),
        ("T > 45 degC, 3 times", 318.15, ">", 3, "next"),
        ("T < -10 °C, then safe state", 263.15, "<", 1, "safe"),
    ],
)
def test_a_rule_on_the_temperature(text, kelvin, relation, confirm, action):
    rule = parse_rule(text)
    assert (rule.quantity, rule.value, rule.relation) == ("T", kelvin, relation)
    assert (rule.confirm, rule.action) == (confirm, action)
    assert rule.needs_temperature


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("T > 45 C", "column 5: '45 C' is in C, which is coulomb here"),
        ("T > 45", "column 5: '45' has no unit; write for example 298 K"),
        ("T > 3 V", "is a voltage; this field is a temperature"),
        ("T > -300 degC", "below what there can be"),
        ("T > 300 K over 5 s", "only a slope is taken over a time"),
        ("|T| > 300 K", "'|T|' is not known"),
    ],
)
def test_a_rule_on_the_temperature_that_is_none(text, says):
    with pytest.raises(RuleError, match=re.escape(says)):
        parse_rule(text)


# --- what is stored ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("dE > 1 mV", Change(quantity="V", more_than=1e-3)),
        (" dV>1 mV ", Change(quantity="V", more_than=1e-3)),
        ("dI > 1 pA", Change(quantity="I", more_than=1e-12)),
        ("dQ > 1 pC", Change(quantity="Q", more_than=1e-12)),
        ("dt > 1 s", Change(quantity="t", more_than=1.0)),
    ],
)
def test_rules_of_what_is_stored(text, change):
    assert parse_change(text) == change


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dE < 1 mV", "is no rule of what is stored; write dE > 1 mV"),
        ("E > 1 mV", "is no rule of what is stored"),
        ("dE > 1 pA", "column 6: '1 pA' is a current"),
        ("dt > 0 s", "must be more than nothing"),
        (3, "is no rule"),
    ],
)
def test_what_is_no_such_rule_is_refused(text, says):
    with pytest.raises(RuleError) as refused:
        parse_change(text)
    assert says in str(refused.value)


def test_a_step_says_what_of_it_is_stored():
    (step,) = load(f'record = ["dE > 1 mV", "dt > 1 s"]\n{CP}').steps
    assert [c.quantity for c in step.record.changes] == ["V", "t"]
    assert load(f'average = "1 s"\n{CP}').steps[0].record == Record(average_s=1.0)
    assert load(CP).steps[0].record is None


PEIS = 'peis = { amplitude = "5 mV", lowest = "10 mHz", highest = "100 mHz" }'


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([f'average = "-1 s"\n{CP}'], "step[1].average: cannot be negative"),
        ([f'average = "1 s"\nrecord = ["dt > 1 s"]\n{CP}'], "exclude each other"),
        ([f'average = "1 s"\n{PEIS}'], "step[1].average: would spoil the impedance"),
        (
            [OCV, 'record = ["dt > 1 s"]\nloop = { steps = 1, times = 2 }'],
            "step[2].record: belongs to the steps of a loop",
        ),
    ],
)
def test_what_cannot_be_thinned_is_refused(steps, says):
    assert says in refusal(*steps)
