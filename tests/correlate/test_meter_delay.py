"""How late a meter is, from steps of a current that is sourced: true within its sigma."""

import numpy as np
import pytest

from correlate.ledger import Accuracy, Lagging, charge_ledger
from correlate.meter_delay import meter_delay

EVERY_S, FINE_S = 0.045, 1e-3
LONGEST_S = 0.87


def filtered(given, tau_s):
    keep, shown = np.exp(-FINE_S / tau_s), given.copy()
    for k in range(1, len(shown)):
        shown[k] = given[k] + (shown[k - 1] - given[k]) * keep
    return shown


def readings(rng, taus_s, *, levels_A=(0.0, 5e-12, 0.0), noise_A=5e-15, each_s=12.0):
    """Steps anywhere between two readings; set-points as the reading after the step has them."""
    fine_s = np.arange(0, each_s * len(levels_A), FINE_S)
    steps_s = np.arange(1, len(levels_A)) * each_s + rng.uniform(0, EVERY_S, len(levels_A) - 1)
    true_A = np.asarray(levels_A)[np.searchsorted(steps_s, fine_s, side="right")]
    shown = true_A
    for tau_s in taus_s:
        shown = filtered(shown, tau_s)
    rows = np.arange(0, len(fine_s), round(EVERY_S / FINE_S))
    read_A = shown[rows] + noise_A * rng.standard_normal(len(rows))
    true_C = np.cumsum(true_A)[rows] * FINE_S
    return fine_s[rows], read_A, true_A[rows], true_C - true_C[0]


@pytest.mark.parametrize("taus_s", [(0.8,), (0.3, 0.4), (0.1,)])
def test_it_is_found_within_its_sigma_whatever_the_filter(taus_s):
    rng, pulls = np.random.default_rng(3), []
    for _ in range(60):
        seconds, read_A, asked_A, _ = readings(rng, taus_s)
        everywhere = np.ones(len(seconds), bool)
        delay_s, sigma_s = meter_delay(seconds, read_A, asked_A, everywhere, longest_s=LONGEST_S)
        pulls.append((delay_s - sum(taus_s)) / sigma_s)
        assert 0.003 < sigma_s < 0.03
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.2


def test_what_tells_nothing_is_no_answer():
    rng = np.random.default_rng(1)
    seconds, read_A, asked_A, _ = readings(rng, (0.8,))
    everywhere = np.ones(len(seconds), bool)

    def found(read_A=read_A, asked_A=asked_A, sourced=everywhere, longest_s=LONGEST_S):
        return meter_delay(seconds, read_A, asked_A, sourced, longest_s=longest_s)

    assert found() is not None
    assert found(sourced=~everywhere) is None
    assert found(longest_s=4.0) is None  # nothing is level for long enough
    assert found(asked_A=np.zeros(len(seconds))) is None
    assert found(read_A=rng.standard_normal(len(seconds)) * 1e-11) is None  # lost in noise
    gap = everywhere.copy()
    gap[np.flatnonzero(np.diff(asked_A))] = False
    assert found(sourced=gap) is None  # what was read before each step is not known
    assert found(read_A=np.where(gap, read_A, np.nan)) is None


def test_the_charge_is_true_at_each_moment_while_a_current_flows():
    rng = np.random.default_rng(5)
    pulls = []
    for _ in range(20):
        seconds, read_A, asked_A, true_C = readings(rng, (0.8,))
        everywhere = np.ones(len(seconds), bool)
        delay = meter_delay(seconds, read_A, asked_A, everywhere, longest_s=LONGEST_S)
        columns = charge_ledger(
            (seconds * 1e9).astype(np.int64),
            read_A,
            np.full(len(seconds), 3.9),
            current_sigma_A=np.full(len(seconds), 5e-15),
            voltage_sigma_V=np.zeros(len(seconds)),
            accuracy=Accuracy(gain_ratio=0.0, offset_A=0.0),
            holder=None,
            lagging=Lagging(
                held=~everywhere, unsettled=~everywhere, delay_s=LONGEST_S, sourced_s=delay
            ),
        ).columns
        flows = (seconds > 14.0) & (seconds < 24.0)
        error_C = (columns["instrument"] - true_C)[flows]
        sigma_C = columns["instrument_sigma"][flows]
        assert np.all(np.abs(error_C) < 0.3e-12)  # of 60 pC; 4 pC were hidden in the lag
        pulls.append(error_C.mean() / sigma_C.mean())
        after = seconds > 30.0
        assert np.all(np.abs((columns["instrument"] - true_C)[after]) < 0.15e-12)
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.3
