"""Charge while a range settles after a step of a held voltage: integrated, with its sigma."""

import numpy as np
import pytest

from correlate.ledger import Accuracy, Holder, Lagging, charge_ledger

DELAY_S = 0.87  # of the smallest ranges of a 6430, by the limit of its data sheet
SETTLING_S, EVERY_S = 2.0, 0.05
T_S = np.arange(0, 40, EVERY_S)
STEPS_S = (5.02, 20.02)
EXACT = Accuracy(gain_ratio=0.0, offset_A=0.0)
FINE_S = 1e-3


def holder(stray_F):
    return Holder(
        capacitance_F=stray_F,
        **dict.fromkeys(
            (
                *("capacitance_sigma_F", "conductance_S", "conductance_sigma_S"),
                *("dielectric_F", "dielectric_sigma_F", "offset_A", "offset_sigma_A"),
            ),
            0.0,
        ),
        dielectric_tau_s=10.0,
    )


def world(lag_s, stray_F, step_V):
    """What flows after each step, what a first-order range shows of it, and the truth."""
    fine_s = np.arange(0, 40, FINE_S)
    flows = np.zeros(len(fine_s))
    held_V = np.full(len(fine_s), 3.9)
    for begin_s in STEPS_S:
        since = np.maximum(fine_s - begin_s, FINE_S)
        flows += np.where(fine_s >= begin_s, 2e-13 / np.sqrt(since + 0.1), 0.0)
        held_V += np.where(fine_s >= begin_s, step_V, 0.0)
    given = flows + stray_F * np.gradient(held_V, FINE_S)
    shown = given.copy()
    if lag_s > 0:
        keep = np.exp(-FINE_S / lag_s)
        for k in range(1, len(shown)):
            shown[k] = given[k] + (shown[k - 1] - given[k]) * keep
    else:  # an ammeter that is not there between its readings sees nothing of the spike
        shown = flows
    rows = np.round(T_S / FINE_S).astype(int)
    return shown[rows], held_V[rows], float(np.sum(flows) * FINE_S)


def booked(lag_s, *, stray_F, step_V, lagging=True):
    current, voltage, true_C = world(lag_s, stray_F, step_V)
    unsettled = np.zeros(len(T_S), np.bool_)
    for begin_s in STEPS_S:
        unsettled |= (begin_s <= T_S) & (begin_s + SETTLING_S > T_S)
    ledger = charge_ledger(
        (T_S * 1e9).astype(np.int64),
        current if lagging else np.where(unsettled, np.nan, current),
        voltage,
        current_sigma_A=np.full(len(T_S), 1e-16),
        voltage_sigma_V=np.zeros(len(T_S)),
        accuracy=EXACT,
        holder=holder(stray_F),
        moved_V=np.diff(voltage, prepend=voltage[0]),
        lagging=Lagging(held=STEPS_S[0] < T_S, unsettled=unsettled, delay_s=DELAY_S)
        if lagging
        else None,
    ).columns
    return ledger["ionic"][-1] - true_C, ledger["ionic_sigma"][-1], true_C


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("stray_F", "step_V"), [(0.0, 0.02), (1e-12, 0.02), (1e-10, 0.001)])
def test_the_charge_after_a_step_is_true_within_its_sigma_for_every_lag(share, stray_F, step_V):
    error_C, sigma_C, true_C = booked(share * DELAY_S, stray_F=stray_F, step_V=step_V)
    assert abs(error_C) < 2.5 * sigma_C
    assert sigma_C < 0.02 * true_C


def test_what_was_bridged_was_wrong_by_many_sigma():
    error_C, sigma_C, true_C = booked(0.0, stray_F=0.0, step_V=0.02, lagging=False)
    assert abs(error_C) > 3 * sigma_C
    assert abs(error_C) > 0.05 * true_C
    better_C, *_ = booked(0.0, stray_F=0.0, step_V=0.02)
    assert abs(better_C) < 0.1 * abs(error_C)


def test_a_range_that_settles_to_the_end_of_the_record_owes_its_last_reading():
    current = np.array([0.0, 0.0, 1e-12, 2e-12])
    found = charge_ledger(
        np.arange(4, dtype=np.int64) * 10**9,
        current,
        np.full(4, 3.9),
        current_sigma_A=np.zeros(4),
        voltage_sigma_V=np.zeros(4),
        accuracy=EXACT,
        holder=None,
        lagging=Lagging(
            held=np.array([False, False, True, True]),
            unsettled=np.array([False, False, True, True]),
            delay_s=0.5,
        ),
    ).columns
    # By hand: trapezia of 0.5 and 1.5 pC, and a quarter of a second of what has risen.
    assert found["instrument"].tolist() == pytest.approx([0.0, 0.0, 0.75e-12, 2.5e-12])
