"""Limits on how fast voltage and current may change."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potentiostat.limits import MIN_SLOPE_READINGS, RATE_CONFIRM, Envelope, RateGuard, Slope

EACH_S = 0.05


def guard(**limits):
    return RateGuard(
        Envelope(
            voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9, **limits
        )
    )


def first_broken(watch, voltage, current=lambda _t: 1e-11, *, readings=200):
    for i in range(readings):
        t_s = i * EACH_S
        said = watch.violation(t_s, voltage_V=voltage(t_s), current_A=current(t_s))
        if said:
            return t_s, said
    return None


@settings(deadline=None, max_examples=60)
@given(
    rate=st.floats(-0.1, 0.1),
    limit=st.floats(1e-4, 0.05),
    window_s=st.floats(0.5, 4.0),
)
def test_a_steady_slope_is_broken_exactly_when_it_is_beyond_the_limit(rate, limit, window_s):
    watch = guard(voltage_rate_max_V_s=limit, rate_window_s=window_s)
    broken = first_broken(watch, lambda t: 3.5 + rate * t)
    if abs(rate) > limit * (1 + 1e-6):
        assert broken is not None
        t_s, said = broken
        assert said.startswith("voltage changes at ")
        # As soon as the window is full, and it has held for some readings.
        assert t_s <= window_s + (RATE_CONFIRM + 1) * EACH_S
    elif abs(rate) < limit * (1 - 1e-6):
        assert broken is None


def test_a_current_has_a_limit_of_its_own():
    watch = guard(current_rate_max_A_s=1e-12)
    _, said = first_broken(watch, lambda _t: 3.9, lambda t: 1e-11 + 2e-12 * t)
    assert said == "current changes at 2e-12 A/s, beyond the limit 1e-12 A/s"
    assert (
        first_broken(guard(current_rate_max_A_s=3e-12), lambda _t: 3.9, lambda t: 2e-12 * t) is None
    )


def test_without_a_limit_nothing_is_asked():
    assert first_broken(guard(), lambda t: 3.0 + t) is None


def test_a_single_wild_reading_breaks_nothing():
    watch = guard(voltage_rate_max_V_s=0.5)

    def voltage(t_s):
        return 3.9 + (1.0 if math.isclose(t_s, 3.0) else 0.0)

    # Its pull on the slope lasts for a window, but stays below the limit.
    assert first_broken(watch, voltage) is None


def test_what_the_plan_itself_changes_is_forgotten():
    watch = guard(voltage_rate_max_V_s=0.05)
    for i in range(100):
        if i == 50:
            watch.forget()
        assert (
            watch.violation(i * EACH_S, voltage_V=3.9 if i < 50 else 4.1, current_A=1e-11) is None
        )
    other = guard(voltage_rate_max_V_s=0.05)
    assert any(
        other.violation(i * EACH_S, voltage_V=3.9 if i < 50 else 4.1, current_A=1e-11)
        for i in range(100)
    )


@pytest.mark.parametrize("bad", [math.nan])
def test_a_current_that_settles_is_not_asked(bad):
    watch = guard(current_rate_max_A_s=1e-13)
    assert first_broken(watch, lambda _t: 3.9, lambda _t: bad) is None


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), start_s=st.sampled_from([0.0, 1e5, 1e9]))
def test_a_slope_is_that_of_the_straight_line_through_its_window(seed, start_s):
    rng = np.random.default_rng(seed)
    t_s = start_s + np.cumsum(rng.uniform(0.02, 0.3, 150))
    value = 3.9 + 1e-4 * (t_s - start_s) + 1e-4 * rng.standard_normal(len(t_s))
    value[rng.random(len(t_s)) < 0.05] = math.nan
    slope = Slope(4.0)
    found = [slope.add(t, v) for t, v in zip(t_s, value, strict=True)]
    known = 0
    for i, now in enumerate(found):
        inside = (t_s >= t_s[i] - 4.0) & (t_s <= t_s[i]) & np.isfinite(value)
        if np.isfinite(now):
            known += 1
            assert inside.sum() >= MIN_SLOPE_READINGS
            line = np.polyfit(t_s[inside] - t_s[i], value[inside], 1)[0]
            assert now == pytest.approx(line, rel=1e-4, abs=1e-9)
    assert known > 50
