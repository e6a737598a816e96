"""Steps as plain data and back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.limits import Condition
from potentiostat.multisine import multisine
from potentiostat.segments import Change, Record, Step, Wait
from potentiostat.technique import (
    Level,
    chronoamperometry,
    chronopotentiometry,
    cyclic_voltammetry,
    galvanostatic_cycling,
    impedance,
    intermittent_titration,
    linear_sweep,
    open_circuit,
    pulses,
    repeat,
    sequence,
    staircase,
    wait,
)
from potentiostat.technique_data import TechniqueDataError, step_from_data, step_to_data

VOLTS = st.floats(-5.0, 5.0)
AMPERES = st.floats(1e-15, 1e-6)
SECONDS = st.floats(1e-3, 1e6)
FEW = st.integers(1, 4)
LEVELS = st.builds(
    Level, volts=VOLTS, versus=st.sampled_from(["zero", "ocv", "control", "measured"])
)
CONDITIONS = st.builds(
    Condition,
    quantity=st.sampled_from(["V", "|I|", "Q", "|Q_half|", "Q_run", "t", "dV/dt"]),
    relation=st.sampled_from([">", "<"]),
    value=st.floats(0.0, 5.0),
    text=st.text(max_size=12),
    confirm=st.integers(1, 9),
    window_s=SECONDS,
    action=st.sampled_from(["next", "hold", "safe", "goto"]),
    goto=st.sampled_from(["", "charge"]),
    goto_most=st.integers(0, 5),
)
UNTIL = st.lists(CONDITIONS, max_size=3)
SINES = st.builds(
    multisine, st.just(0.01), st.floats(0.01, 0.5), per_decade=FEW, peak=st.floats(1e-12, 1e-2)
)
TECHNIQUES = {
    "ocv": st.builds(open_circuit, SECONDS, UNTIL),
    "wait": st.builds(
        wait, st.builds(Wait, trigger=st.sampled_from(["frame", "operator"])), SECONDS, UNTIL
    ),
    "cp": st.builds(
        chronopotentiometry, AMPERES, UNTIL, versus=st.sampled_from(["zero", "control"])
    ),
    "ca": st.builds(chronoamperometry, LEVELS, SECONDS, UNTIL),
    "lsv": st.builds(
        linear_sweep, LEVELS, LEVELS, st.floats(1e-6, 1.0), step_V=SECONDS, window_V=st.just(2.0)
    ),
    "cv": st.builds(
        cyclic_voltammetry,
        st.tuples(LEVELS, LEVELS, LEVELS, LEVELS),
        st.floats(1e-6, 1.0),
        cycles=FEW,
        vertex_hold_s=st.tuples(SECONDS, SECONDS),
        window_V=st.just(2.0),
        until=UNTIL,
    ),
    "gcpl": st.builds(
        galvanostatic_cycling,
        AMPERES,
        VOLTS,
        longest_s=SECONDS,
        hold_s=SECONDS,
        hold_until_A=AMPERES,
        hold_until=UNTIL,
        rest_s=SECONDS,
        relaxed=st.none() | CONDITIONS,
        until=UNTIL,
    ),
    "gitt": st.builds(
        intermittent_titration,
        AMPERES,
        pulse_s=SECONDS,
        rest_s=SECONDS,
        pulses=FEW,
        relaxed=st.none() | CONDITIONS,
        until=UNTIL,
    ),
    "pitt": st.builds(
        staircase, LEVELS, VOLTS, count=FEW, hold_s=SECONDS, hold_until_A=AMPERES, until=UNTIL
    ),
    "pulses": st.builds(pulses, AMPERES, on_s=SECONDS, off_s=SECONDS, count=FEW, until=UNTIL),
    "peis": st.builds(impedance, SINES, voltage=LEVELS, settle_s=SECONDS, periods=FEW, until=UNTIL),
    "geis": st.builds(impedance, SINES, current_A=AMPERES, settle_s=SECONDS, periods=FEW),
}
RECORDS = st.none() | st.builds(
    Record,
    changes=st.lists(
        st.builds(Change, quantity=st.sampled_from(["V", "I", "Q", "t"]), more_than=SECONDS),
        max_size=3,
    ).map(tuple),
    average_s=SECONDS,
)


def assert_plain(data):
    """Texts, numbers, lists and tables alone: what JSON and TOML have both."""
    if isinstance(data, dict):
        assert all(isinstance(name, str) for name in data)
        for value in data.values():
            assert_plain(value)
    elif isinstance(data, list):
        for value in data:
            assert_plain(value)
    else:
        assert type(data) in (str, int, float)


@pytest.mark.parametrize("name", TECHNIQUES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_technique_comes_back_from_plain_data_as_it_was(name, data):
    from dataclasses import replace

    step = data.draw(TECHNIQUES[name])
    step = replace(step, label="here", record=data.draw(RECORDS))
    plain = step_to_data(step)
    assert_plain(plain)
    assert step_from_data(json.loads(json.dumps(plain))) == step


@settings(deadline=None, max_examples=30)
@given(steps=st.lists(st.one_of(*TECHNIQUES.values()), min_size=1, max_size=3), times=FEW)
def test_techniques_nest_and_still_come_back(steps, times):
    whole = sequence(
        "mine", [s for s in repeat(steps, times) if len(s.segments) == 1 or not s.until]
    )
    if whole.segments:
        assert step_from_data(step_to_data(whole)) == whole
        assert whole.longest_s <= sum(s.longest_s for s in steps) * times * (1 + 1e-12)


def test_a_sequence_keeps_what_ends_each_part():
    end = Condition(quantity="V", relation=">", value=4.2, text="V > 4.2 V")
    whole = sequence(
        "mine", [chronopotentiometry(1e-11, [end]), chronoamperometry(Level(volts=4.2), 5.0)]
    )
    assert [s.name for s in whole.segments] == ["cp", "ca"]
    assert whole.segments[0].until == (end,)
    assert whole.segments[1].longest_s == 5.0
    gitt = intermittent_titration(1e-11, pulse_s=1.0, rest_s=1.0, pulses=2, until=[end])
    with pytest.raises(ValueError, match="gitt has 4 segments and conditions for all"):
        sequence("mine", [gitt])


STEP = {"name": "cp", "segments": [{"name": "cp", "current_A": 1e-11}]}


STOP = {"quantity": "V", "relation": ">", "value": 4.2, "text": "V > 4.2 V"}


def changed(**values):
    return {**STEP, **values}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (3, "step is 3; it must be a table"),
        ({"name": "cp"}, "step.segments is missing"),
        (changed(segmnts=[]), "step.segmnts is not known; a Step has name, segments"),
        (changed(name=3), "step.name is 3; it must be a text"),
        (changed(segments="cp"), "step.segments is 'cp'; it must be a list"),
        (changed(segments=[{"name": "a", "current_A": "1 pA"}]), "current_A is '1 pA'; it must be"),
        (changed(segments=[{"name": "a", "current_A": True}]), "is True; it must be a number"),
        (changed(segments=[{"name": "a", "current_A": float("nan")}]), "must be a finite number"),
        (changed(segments=[{"name": "a", "current_versus": "it"}]), "is one of zero, ocv, control"),
        (changed(wait={"trigger": "moon"}), "step.wait.trigger is 'moon'; it is one of time"),
        (
            changed(until=[{**STOP, "confirm": 1.5}]),
            "step.until[1].confirm is 1.5; it must be a whole number",
        ),
    ],
)  # fmt: skip
def test_data_that_is_no_step_is_refused_with_its_place(data, says):
    with pytest.raises(TechniqueDataError) as refused:
        step_from_data(data)
    assert says in str(refused.value)


def test_what_is_as_usual_is_left_out():
    assert step_to_data(chronopotentiometry(1e-11, ())) == STEP
    assert step_from_data(STEP) == Step(name="cp", segments=chronopotentiometry(1e-11, ()).segments)
