"""Techniques as data: what they are made of, and what ends them."""

import itertools
import math

import pytest

from potentiostat.limits import Condition, Envelope, Seen, Slope, Watch
from potentiostat.technique import (
    OCV,
    Level,
    References,
    chronoamperometry,
    cyclic_voltammetry,
    galvanostatic_cycling,
    intermittent_titration,
    linear_sweep,
    open_circuit,
    pulses,
    repeat,
    resolve,
    staircase,
)

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9)


def names(step):
    return [segment.name for segment in step.segments]


def test_a_level_may_count_from_the_cells_rest():
    assert resolve(Level(volts=4.0), References(ocv_V=3.9)) == 4.0
    assert resolve(Level(volts=-0.02, versus="ocv"), References(ocv_V=3.9)) == pytest.approx(3.88)
    assert resolve(OCV, References(ocv_V=3.9)) == 3.9
    assert math.isnan(resolve(OCV, References()))


def test_a_held_voltage_is_limited_below_the_limit_of_the_current():
    (segment,) = chronoamperometry(Level(volts=4.0), 10.0).segments
    setpoint = segment.setpoint(ENVELOPE, 1e-9)
    assert (setpoint.mode, setpoint.level) == ("voltage", 4.0)
    assert setpoint.clamp == pytest.approx(0.9e-10)
    assert segment.setpoint(ENVELOPE, 1e-11).clamp == pytest.approx(0.9e-11)


def test_what_a_step_says_of_itself():
    rest = open_circuit(30.0)
    assert (rest.is_rest, rest.holds_voltage, rest.needs_ocv) == (True, False, False)
    held = chronoamperometry(OCV, 10.0)
    assert (held.is_rest, held.holds_voltage, held.needs_ocv) == (False, True, True)
    assert math.isnan(held.current_A)
    assert held.largest_current_A == 0.0
    assert linear_sweep(Level(volts=3.9), OCV, 1e-3, window_V=1.8).needs_ocv
    assert not linear_sweep(Level(volts=3.9), Level(volts=4), 1e-3, window_V=1.8).needs_ocv


def test_the_longest_duration_adds_up_and_is_cut_by_the_step():
    def gitt(*until):
        return intermittent_titration(1e-11, pulse_s=10.0, rest_s=50.0, pulses=4, until=until)

    assert gitt().longest_s == 240.0
    end = Condition(quantity="t", relation=">", value=100.0, text="")
    assert gitt(end).longest_s == 100.0


def test_a_sweep_is_bounded_in_time_even_from_an_unknown_rest():
    known = linear_sweep(Level(volts=3.9), Level(volts=4.0), 1e-3, window_V=1.8)
    assert 100.0 < known.longest_s < 200.0
    unknown = linear_sweep(OCV, Level(volts=4.0), 1e-3, window_V=1.8)
    assert 1800.0 < unknown.longest_s < 3000.0


def test_cyclic_voltammetry_visits_its_vertices():
    levels = (Level(volts=3.9), Level(volts=4.1), Level(volts=3.7), Level(volts=3.9))
    step = cyclic_voltammetry(levels, 1e-3, cycles=2, window_V=1.8)
    way = [(s.voltage.volts, s.ramp.to.volts) for s in step.segments]
    assert way == [(3.9, 4.1), (4.1, 3.7), (3.7, 4.1), (4.1, 3.7), (3.7, 3.9)]
    held = cyclic_voltammetry(levels, 1e-3, cycles=1, vertex_hold_s=5.0, window_V=1.8)
    assert names(held) == ["sweep 1", "hold 1", "sweep 2", "hold 2", "sweep 3"]
    assert held.segments[1].voltage == Level(volts=4.1)


@pytest.mark.parametrize(("current_A", "relation"), [(2e-11, ">"), (-2e-11, "<")])
def test_galvanostatic_cycling_holds_what_it_reached(current_A, relation):
    def gcpl(rest_s):
        return galvanostatic_cycling(
            current_A, 4.0, longest_s=60.0, hold_s=30.0, hold_until_A=1e-12, rest_s=rest_s
        )

    assert names(gcpl(10.0)) == ["cc", "cv", "rest"]
    charge, hold, _ = gcpl(10.0).segments
    assert (charge.until[0].quantity, charge.until[0].relation) == ("V", relation)
    assert hold.voltage == Level(volts=4.0)
    assert (hold.until[0].quantity, hold.until[0].confirm) == ("|I|", 3)
    assert names(gcpl(0.0)) == ["cc", "cv"]


def test_segments_have_a_direction():
    def way(start, to):
        return linear_sweep(start, to, 1e-3, window_V=1.8).segments[0].direction

    assert way(Level(volts=3.9), Level(volts=4.0)) == 1
    assert way(Level(volts=4.0), Level(volts=3.9)) == -1
    assert way(OCV, Level(volts=3.9)) == 0  # only the cell knows
    up, down = pulses(2e-11, on_s=1.0, off_A=-1e-11, off_s=2.0, count=1).segments
    assert (up.direction, down.direction) == (1, -1)
    assert open_circuit(1.0).segments[0].direction == 0


def test_titrations_and_pulses_alternate():
    relaxed = Condition(quantity="|dV/dt|", relation="<", value=1e-7, text="")
    gitt = intermittent_titration(1e-11, pulse_s=10.0, rest_s=50.0, pulses=2, relaxed=relaxed)
    assert names(gitt) == ["pulse 1", "rest", "pulse 2", "rest"]
    assert gitt.segments[1].until[0] is relaxed
    pitt = staircase(OCV, 5e-3, count=3, hold_s=30.0, hold_until_A=1e-13)
    assert [s.voltage.volts for s in pitt.segments] == pytest.approx([0.0, 5e-3, 1e-2])
    assert all(s.voltage.versus == "ocv" for s in pitt.segments)
    assert [c.quantity for c in pitt.segments[0].until] == ["|I|", "t"]
    plain = staircase(OCV, 5e-3, count=1, hold_s=3.0)
    assert [c.quantity for c in plain.segments[0].until] == ["t"]
    square = pulses(2e-11, on_s=1.0, off_s=2.0, count=2)
    assert [s.current_A for s in square.segments] == [2e-11, 0.0, 2e-11, 0.0]


def test_loops_nest_by_repeating():
    inner = repeat([open_circuit(1.0), open_circuit(2.0)], 2)
    assert [s.longest_s for s in repeat([*inner, open_circuit(3.0)], 2)] == [1, 2, 1, 2, 3] * 2


# --- conditions ----------------------------------------------------------------------------


def seen(t_s, voltage_V=3.9, current_A=1e-11):
    return Seen(voltage_V=voltage_V, current_A=current_A, charge_C=0.0, elapsed_s=t_s)


def test_a_slope_is_found_once_its_window_is_full():
    slope = Slope(10.0)
    found = [slope.add(t, 3.9 + 2e-4 * t) for t in range(30)]
    assert all(math.isnan(v) for v in found[:9])
    assert found[9:] == pytest.approx([2e-4] * 21, rel=1e-6)


def test_a_slope_forgets_what_is_older_than_its_window():
    slope = Slope(5.0)
    for t in range(20):
        slope.add(t, 0.0)
    found = [slope.add(t, float(t - 20)) for t in range(20, 30)]
    assert found[-1] == pytest.approx(1.0)


def test_a_gap_of_no_numbers_does_not_count_for_a_slope():
    slope = Slope(5.0)
    assert all(math.isnan(slope.add(t, math.nan)) for t in range(20))


def test_a_condition_is_confirmed_by_readings_in_a_row():
    above = Condition(quantity="V", relation=">", value=4.0, text="V", confirm=3)
    watch = Watch([above])
    values = [4.1, 4.1, 3.9, 4.1, 4.1, 4.1]
    found = [watch.first_met(seen(t, v)) for t, v in enumerate(values)]
    assert found == [None] * 5 + [above]


def test_the_first_condition_that_is_met_is_told():
    late = Condition(quantity="t", relation=">", value=5.0, text="t")
    high = Condition(quantity="V", relation=">", value=4.0, text="V")
    assert Watch([late, high]).first_met(seen(6.0, 4.1)) is late
    assert Watch([high, late]).first_met(seen(6.0, 4.1)) is high
    assert Watch([late, high]).first_met(seen(1.0, 3.9)) is None


@pytest.mark.parametrize(
    ("quantity", "value", "met"),
    [
        ("dV/dt", -1.5e-4, True),
        ("|dV/dt|", 1.5e-4, False),
        ("dI/dt", 1e-14, False),
        ("|dI/dt|", 3e-13, True),
    ],
)
def test_conditions_on_rates(quantity, value, met):
    condition = Condition(quantity=quantity, relation="<", value=value, text="", window_s=10.0)
    watch = Watch([condition])
    for t in itertools.count():
        found = watch.first_met(seen(t, 3.9 - 2e-4 * t, 1e-11 + 2e-13 * t))
        if t == 9:
            assert (found is condition) is met
            break
        assert found is None


def test_a_magnitude_has_no_sign():
    condition = Condition(quantity="|I|", relation=">", value=1e-11, text="")
    assert condition.met(seen(0.0, current_A=-2e-11))
    assert not condition.met(seen(0.0, current_A=-0.5e-11))
    assert not condition.met(seen(0.0, current_A=math.nan))
