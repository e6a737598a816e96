"""The quickest halves of several exchanges, joined as one."""

import numpy as np
import pytest

from mocks.clock_pair import ClockPair, VirtualClock, Way, waves
from sync.envelope import quickest
from sync.live_clock import LiveClock
from sync.smoother import smooth_clock

BURSTS = Way(jitter_ns=60_000.0, queue_ns=1_500_000.0, queue_share=0.5, queue_s=4.0)


def test_the_quickest_half_of_each_way_is_taken():
    there = np.array([0.0, 500.0, 900.0, 0.0])
    back = np.array([800.0, 700.0, 0.0, 300.0])
    true, least = np.array([10.0, 20.0, 30.0, 40.0]), 100.0
    joined = quickest(
        np.arange(4.0),
        true + (back - there) / 2,
        least + (there + back) / 2,
        10.0,
        np.array([0, 0, 0, 1]),
    )
    # The way there was free at 0, that back at 2: they meet at 1, with nothing to wait for.
    assert joined.at.tolist() == [1, 3]
    assert joined.y_ns == pytest.approx([20.0, 40.0 + 150.0])
    assert joined.half_trip_ns == pytest.approx([100.0, 250.0])


def test_each_by_itself_stays_as_it_is():
    rng = np.random.default_rng(0)
    y, half = rng.normal(size=9), rng.uniform(1, 2, 9)
    joined = quickest(np.arange(9.0), y, half, rng.normal(size=9), np.arange(9))
    assert joined.at.tolist() == list(range(9))
    assert joined.y_ns == pytest.approx(y)
    assert joined.half_trip_ns == pytest.approx(half)


@pytest.mark.parametrize(("online", "most_ns"), [(True, 4_000), (False, 1_800)])
def test_queues_in_bursts_cost_little_because_each_way_is_free_at_times(online, most_ns):
    errors, pulls = [], []
    for seed in range(3):
        clocks = ClockPair(
            device=VirtualClock(rate_ppm=20, thermal_ppm=0.25), there=BURSTS, back=BURSTS
        )
        rows = clocks.exchange(waves(80.0), seed)
        if online:
            clock = LiveClock()
            for k in range(len(rows)):
                clock.add(rows[k : k + 1])
            host_ns = np.arange(79.0, 81.0, 0.5)
        else:
            (clock,) = smooth_clock(rows).pieces
            host_ns = np.arange(10.0, 70.0, 0.5)
        host_ns = np.round(host_ns * 1e9).astype(np.int64)
        stamps = clocks.shows(host_ns)
        errors.append(clock.to_host_ns(stamps) - host_ns)
        pulls.append(errors[-1] / clock.sigma_ns(stamps))
    assert np.sqrt(np.mean(np.square(errors, dtype=float))) < most_ns
    assert np.sqrt(np.mean(np.square(pulls))) < 2.0
