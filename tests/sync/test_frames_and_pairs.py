"""Frame counters, clock exchanges and the budget of a pairing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.budget import TimingBudget
from sync.frames import account_for_frames
from sync.pairs import EXCHANGE_DTYPE, half_trip_bound_ns, round_trip_ns


def account(*index):
    return account_for_frames(np.array(index, np.int64))


@pytest.mark.parametrize(
    ("index", "before", "dropped", "repeated", "reordered"),
    [
        ((), [], 0, 0, 0),
        ((7,), [0], 0, 0, 0),
        ((0, 1, 2), [0, 0, 0], 0, 0, 0),
        ((0, 3, 4, 9), [0, 2, 0, 4], 6, 0, 0),
        ((0, 1, 1, 2), [0, 0, 0, 0], 0, 1, 0),
        ((0, 2, 1, 3), [0, 1, 0, 0], 0, 0, 1),
        ((0, 4, 2, 5), [0, 3, 0, 0], 2, 0, 1),
        ((0, 1, 2, 1, 3), [0, 0, 0, 0, 0], 0, 0, 1),
        ((0, 3, 1, 1, 4), [0, 2, 0, 0, 0], 1, 1, 2),
        ((5, 3, 6), [0, 0, 0], 0, 0, 1),
    ],
)
def test_every_count_is_accounted_for(index, before, dropped, repeated, reordered):
    found = account(*index)
    assert found.dropped_before.tolist() == before
    assert (found.dropped, found.repeated, found.reordered) == (dropped, repeated, reordered)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_lost_frames_are_those_that_never_came(index):
    found = account(*index)
    assert found.dropped == len(set(range(index[0], max(index) + 1)) - set(index))
    assert np.all(found.dropped_before >= 0)


def exchange(t0, t1, t2, t3):
    return np.array([(t0, t1, t2, t3)], EXCHANGE_DTYPE)


def test_a_round_trip_leaves_out_what_the_device_held():
    assert round_trip_ns(exchange(100, 5000, 5040, 200)).tolist() == [60]


def test_a_fast_device_clock_holds_for_less_than_it_says():
    rows = exchange(0, 0, 1_024_000, 1_500_000)
    assert round_trip_ns(rows, 1 / 1.024).tolist() == [500_000]


def test_the_bound_is_half_the_quickest_round_trip():
    rows = np.concatenate([exchange(0, 9, 9, 400), exchange(0, 9, 9, 90), exchange(0, 9, 9, 500)])
    assert half_trip_bound_ns(rows) == 45.0


def test_without_exchanges_there_is_no_bound():
    with pytest.raises(ValueError, match="exchange the clocks"):
        half_trip_bound_ns(np.zeros(0, EXCHANGE_DTYPE))


def test_a_budget_adds_sigmas_as_squares_and_bounds_as_they_are():
    budget = TimingBudget(
        sample_clock_ns=2.0,
        frame_clock_ns=3.0,
        sample_step_ns=6.0,
        sample_bound_ns=10.0,
        frame_bound_ns=20.0,
    )
    assert budget.sigma_ns == pytest.approx(7.0)
    assert budget.bound_ns == 30.0
