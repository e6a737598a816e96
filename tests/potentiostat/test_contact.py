"""The parts of a contact test, over answers that are written down."""

import math

import numpy as np
import pytest

from potentiostat.contact import (
    LEAST_SWING_V,
    PROBE_S,
    REVERSALS,
    Contact,
    judge_contact,
    probe_current_A,
    probe_step,
    rest_step,
)
from potentiostat.limits import Envelope
from potentiostat.records import RangeSpec

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-10, charge_max_C=8e-9)
SIGMA_V = 6e-5
I_A = 1.5e-13


def answer(ohm, tau_s, rest_V, *, seed=0, leftover_V=0.0, step_s=0.05):
    """What a resistance with a capacitance across it answers, stepped finely."""
    t = np.arange(0, 5 + (REVERSALS + 1) * PROBE_S, step_s)
    phase = np.floor((t - 5) / PROBE_S).astype(int)
    current = np.where(t < 5, 0.0, I_A * (-1.0) ** phase)
    v = np.empty(len(t))
    state = leftover_V
    for k in range(len(t)):
        keep = math.exp(-step_s / tau_s) if tau_s > 0 else 0.0
        target = ohm * current[k]
        state = target + (state - target) * keep
        v[k] = rest_V + state
    return t, v + np.random.default_rng(seed).normal(0, SIGMA_V, len(t)), current


def judge(t, v, i):
    sigma = np.full(len(t), SIGMA_V)
    return judge_contact(t, v, i, voltage_sigma_V=sigma, envelope=ENVELOPE)


@pytest.mark.parametrize(
    ("ohm", "tau_s", "rest_V", "contact"),
    [
        (1e9, 0.15, 3.9, Contact.CELL),
        (9e10, 13.0, 3.9, Contact.CELL),
        (1e13, 1500.0, 3.9, Contact.OPEN),
        (1e13, 1500.0, 0.1, Contact.OPEN),
        (1e6, 1e-4, 0.002, Contact.SHORT),
        (1e11, 15.0, 0.3, Contact.UNCLEAR),
        (1e11, 15.0, 2.5, Contact.UNCLEAR),
    ],
)
def test_answers_are_told_apart(ohm, tau_s, rest_V, contact):
    found = judge(*answer(ohm, tau_s, rest_V))
    assert found.contact is contact, found
    if tau_s > 0.1:
        assert 0.8 * found.ohm_low < ohm < 1.2 * found.ohm_high
        assert found.capacitance_F == pytest.approx(tau_s / ohm, rel=0.15)
    assert found.reason.startswith(("a " if contact is Contact.CELL else "") + contact.value)


def test_a_drift_that_was_there_before_is_no_answer():
    found = judge(*answer(2e9, 0.3, 3.9, leftover_V=1.0))
    assert found.contact is Contact.CELL
    assert found.ohm == pytest.approx(2e9, rel=0.1)


def test_what_happens_at_one_reversal_spoils_that_one_alone():
    t, v, i = answer(1e6, 0.0, 0.002)
    found = judge(t, v + 0.05 / (1 + np.exp((t - 27) / 1.5)), i)
    assert found.contact is Contact.SHORT


def test_a_voltage_at_its_limit_is_an_open_contact():
    t, v, i = answer(1e13, 1500.0, 3.9)
    found = judge(t, np.minimum(v + 0.05 * t, 4.3), i)
    assert found.contact is Contact.OPEN
    assert "ran to its limit of 4.3 V" in found.reason
    assert math.isinf(found.ohm)


def test_too_little_is_no_test():
    t, v, i = answer(1e9, 0.15, 3.9)
    with pytest.raises(ValueError, match="10 readings are no contact test"):
        judge(t[:30], v[:30], i[:30])
    with pytest.raises(ValueError, match="never reversed"):
        judge(t, v, np.zeros(len(t)))


def test_readings_that_are_no_numbers_are_left_out():
    t, v, i = answer(1e9, 0.15, 3.9)
    v[::9] = np.nan
    assert judge(t, v, i).contact is Contact.CELL


def test_the_current_is_clear_of_the_zero_of_the_source():
    spec = {"full_scale_A": 1e-10, "gain_ratio": 1e-3, "resolution_A": 1e-15, "settling_s": 0.05}
    assert probe_current_A(RangeSpec(offset_A=3e-14, **spec)) == pytest.approx(1.5e-13)
    assert probe_current_A(RangeSpec(offset_A=1e-15, **spec)) == 5e-14
    assert probe_current_A(
        RangeSpec(offset_A=1e-15, source_offset_A=1e-12, **spec)
    ) == pytest.approx(5e-12)


@pytest.mark.parametrize("rest_V", [-4.0, 0.0, 2.51, 3.5, 4.29, 4.3])
def test_a_probe_is_balanced_and_bounded(rest_V):
    step = probe_step(I_A, rest_V, ENVELOPE)
    assert sum(segment.current_A for segment in step.segments) == 0.0
    assert step.longest_s == (REVERSALS + 1) * PROBE_S
    high, low, _ = step.segments[0].until
    assert low.value < rest_V < high.value
    assert high.value <= max(4.3, rest_V + 0.5)
    if 2.7 < rest_V < 4.3:
        assert low.value >= 2.5
    if 2.5 < rest_V < 2.6:
        assert low.value == pytest.approx(rest_V - LEAST_SWING_V)
    assert rest_step().is_rest
