"""Two calibrations of one holder, and the ledger of the time between."""

import math

import numpy as np
import pytest

from correlate.holder_change import holder_between, is_fast_drift
from correlate.ledger import Accuracy, Holder, charge_ledger

HOLDER = {
    "capacitance_F": 150e-12,
    "capacitance_sigma_F": 1e-13,
    "conductance_S": 1e-12,
    "conductance_sigma_S": 1e-15,
    "dielectric_F": 3e-12,
    "dielectric_sigma_F": 1e-14,
    "dielectric_tau_s": 15.0,
    "offset_A": 10e-15,
    "offset_sigma_A": 5e-16,
}


def holder(**changes):
    return Holder(**HOLDER | changes)


def test_the_mean_is_taken_and_the_difference_is_an_even_spread():
    change = holder_between(holder(), holder(conductance_S=1.6e-12, dielectric_tau_s=60.0))
    assert change.holder.conductance_S == pytest.approx(1.3e-12)
    assert change.holder.conductance_sigma_S == pytest.approx(
        math.hypot(1e-15 / math.sqrt(2), 0.3e-12 / math.sqrt(3))
    )
    assert change.holder.dielectric_tau_s == pytest.approx(30.0)
    assert change.holder.capacitance_F == 150e-12
    assert [c.name for c in change.changes if c.is_alarming] == ["leakage"]


def test_means_over_runs_with_a_jump_anywhere_have_that_sigma():
    rng = np.random.default_rng(1)
    before, after = 1e-12, 1.6e-12
    at = rng.uniform(0, 1, 10_000)
    mean = at * before + (1 - at) * after
    joined = holder_between(holder(), holder(conductance_S=after)).holder
    assert np.std(mean - joined.conductance_S) == pytest.approx(
        joined.conductance_sigma_S, rel=0.02
    )


def test_what_chance_gives_is_no_alarm():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(500):
        pair = [
            holder(offset_A=rng.normal(10e-15, 5e-16), conductance_S=rng.normal(1e-12, 1e-15))
            for _ in range(2)
        ]
        alarms += sum(c.is_alarming for c in holder_between(*pair).changes)
    assert alarms < 10  # 0.27 % of 1000


def test_a_fast_drift_is_surely_faster_than_50_fa_in_an_hour():
    change = holder_between(holder(), holder(offset_A=70e-15)).changes[3]
    assert is_fast_drift(change, 3600.0)
    assert not is_fast_drift(change, 2 * 3600.0)
    unsure = holder_between(holder(), holder(offset_A=11e-15)).changes[3]
    assert not is_fast_drift(unsure, 1.0)


def test_a_capacitance_that_changed_takes_charge_with_it_or_not():
    t_ns = np.arange(100) * 50_000_000
    voltage, current = np.full(100, 3.9), np.full(100, 1e-11)

    def sigma(changed_F):
        return charge_ledger(
            t_ns,
            current,
            voltage,
            current_sigma_A=np.zeros(100),
            voltage_sigma_V=np.zeros(100),
            accuracy=Accuracy(gain_ratio=0.0, offset_A=0.0),
            holder=holder(offset_sigma_A=0.0, conductance_sigma_S=0.0),
            changed_F=changed_F,
        ).columns["ionic_sigma"]

    assert np.all(sigma(0.0) == 0.0)
    found = sigma(-1e-12)
    assert found[0] == 0.0
    assert found[1:] == pytest.approx(1e-12 * 3.9 / math.sqrt(2))
