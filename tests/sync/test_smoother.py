"""A clock that wanders: honest error bars at any time, against simulated truth."""

from itertools import pairwise

import numpy as np
import pytest

from mocks.clock_pair import HEAVY, LIGHT, ClockPair, VirtualClock, Way, waves
from sync.clockfit import to_host
from sync.live_clock import LiveClock
from sync.pairs import EXCHANGE_DTYPE
from sync.smoother import smooth_clock

FLOOD = Way(jitter_ns=600_000.0)
HEAVY_TAIL = Way(jitter_ns=300_000.0, heavy_tail=True)
LAWS = {"light": LIGHT, "heavy": HEAVY, "flood": FLOOD, "heavy tail": HEAVY_TAIL}


def pair(way=LIGHT, back=None, *, seed=0, thermal_ppm=0.25, **clock):
    phase = np.random.default_rng([seed, 3]).uniform(0, 6)
    device = VirtualClock(
        rate_ppm=20, thermal_ppm=thermal_ppm, thermal_s=600, thermal_phase=phase, **clock
    )
    return ClockPair(device=device, there=way, back=back or way)


def at(start_s, stop_s, step_s=0.37):
    return np.round(np.arange(start_s, stop_s, step_s) * 1e9).astype(np.int64)


def errors(clocks, record, host_ns):
    found, sigma = to_host(record.pieces, clocks.shows(host_ns))
    return found - host_ns, sigma


def test_a_perfect_line_over_a_constant_way_is_undone_to_the_nanosecond():
    clocks = ClockPair(
        device=VirtualClock(offset_ns=-98_765_432_101_234_567),
        there=Way(jitter_ns=0.0),
        back=Way(jitter_ns=0.0),
        stamp_ns=0.0,
    )
    record = smooth_clock(clocks.exchange(np.arange(40) * 10.0, 1))
    error, _ = errors(clocks, record, at(0, 400))
    assert np.abs(error).max() <= 1
    assert not record.wanders


def test_a_clock_that_counts_in_other_steps_is_undone():
    clocks = pair(thermal_ppm=0.1)
    rows = clocks.exchange(np.arange(100.0), 1)
    for name in ("t1_ns", "t2_ns"):
        rows[name] = np.round(rows[name] * 1.024).astype(np.int64)
    record = smooth_clock(rows)
    host_ns = at(1, 98)
    stamps = np.round(clocks.shows(host_ns) * 1.024).astype(np.int64)
    error = record.pieces[0].to_host_ns(stamps) - host_ns
    assert np.sqrt(np.mean(error**2.0)) < 5_000


def coverage(way, *, asked, seeds):
    inside, pulls, bounded = [], [], []
    for seed in range(seeds):
        clocks = pair(way, seed=seed)
        (piece,) = smooth_clock(clocks.exchange(asked, seed)).pieces
        host_ns = at(0.5, asked[-1])
        stamps = clocks.shows(host_ns)
        error, sigma = piece.to_host_ns(stamps) - host_ns, piece.sigma_ns(stamps)
        inside.append(np.mean(np.abs(error) < 1.96 * sigma))
        pulls.append(np.mean((error / sigma) ** 2))
        bounded.append(np.all(np.abs(error) <= piece.bound_at_ns(stamps)))
    return float(np.mean(inside)), float(np.sqrt(np.mean(pulls))), all(bounded)


@pytest.mark.parametrize("law", LAWS)
def test_intervals_of_95_percent_hold_the_truth_about_as_often(law):
    share, spread, bounded = coverage(LAWS[law], asked=np.arange(0, 60, 0.8), seeds=16)
    assert 0.9 <= share <= 1.0
    assert 0.55 < spread < 1.25
    assert bounded


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
def test_error_over_sigma_has_unit_spread_over_many_short_records():
    _, spread, bounded = coverage(LIGHT, asked=np.arange(0, 25, 0.6), seeds=40)
    assert 0.7 < spread < 1.2
    assert bounded


def test_wander_is_seen_where_there_is_some_and_only_there():
    asked = waves(120)
    assert smooth_clock(pair().exchange(asked, 1)).wanders
    steady = smooth_clock(pair(thermal_ppm=0.0).exchange(asked, 1))
    assert not steady.wanders
    assert steady.queue_ratio == pytest.approx(0.29, abs=0.06)  # queues alike both ways


def test_a_wandering_clock_is_followed_where_a_line_cannot():
    clocks = pair(thermal_ppm=2.0)
    rows = clocks.exchange(np.arange(300.0), 1)
    error, sigma = errors(clocks, smooth_clock(rows), at(1, 298))
    x = clocks.shows(at(1, 298)).astype(float) / 1e9
    line = np.polyval(np.polyfit(x, at(1, 298) / 1e9 - x, 1), x) - (at(1, 298) / 1e9 - x)
    assert np.sqrt(np.mean(error**2.0)) < np.std(line) * 1e9 / 20
    assert np.mean(np.abs(error) < 1.96 * sigma) > 0.9


def test_sigma_grows_between_exchanges_and_beyond_them():
    clocks = pair()
    asked = np.concatenate([np.arange(0.0, 60), np.arange(120.0, 180)])
    (piece,) = smooth_clock(clocks.exchange(asked, 2)).pieces
    host_ns = np.array([30, 61, 75, 90], np.int64) * 10**9
    sigma = piece.sigma_ns(clocks.shows(host_ns))
    bound = piece.bound_at_ns(clocks.shows(host_ns))
    assert np.all(np.diff(sigma) > 0)
    assert np.all(np.diff(bound[1:]) > 0)
    beyond = clocks.shows(np.array([180, 200, 300, -20, -100], np.int64) * 10**9)
    sigma, bound = piece.sigma_ns(beyond), piece.bound_at_ns(beyond)
    for values in (sigma, bound):
        assert values[0] < values[1] < values[2]
        assert values[3] < values[4]
    error = piece.to_host_ns(beyond) - np.array([180, 200, 300, -20, -100], np.int64) * 10**9
    assert np.all(np.abs(error) < 3 * sigma)


def test_a_gap_is_bridged_with_the_walk_that_may_have_happened_in_it():
    """The sigma in the middle is that of the smoother itself, were it asked there."""
    clocks = pair()
    rows = clocks.exchange(np.concatenate([np.arange(0.0, 60), np.arange(100.0, 160)]), 2)
    (piece,) = smooth_clock(rows).pieces
    middle = clocks.shows(np.array([80 * 10**9]))
    k = int(np.searchsorted(piece.device_ns, middle[0])) - 1
    t = float(middle[0] - piece.device_ns[k]) / 1e9
    gap = float(piece.device_ns[k + 1] - piece.device_ns[k]) / 1e9
    q = piece.wander

    def step(dt):
        f = np.array([[1, dt], [0, 1]])
        return f, q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])

    f1, q1 = step(t)
    f2, q2 = step(gap - t)
    # The state in between, given both ends: the gain on what the far end adds.
    gain = q1 @ f2.T @ np.linalg.inv(f2 @ q1 @ f2.T + q2)
    a, b = f1 - gain @ f2 @ f1, gain
    rest = q1 - gain @ f2 @ q1
    lag = piece.lag[k]
    total = (
        a @ piece.covariance[k] @ a.T
        + b @ piece.covariance[k + 1] @ b.T
        + a @ lag @ b.T
        + (a @ lag @ b.T).T
        + rest
    )
    assert piece.sigma_ns(middle)[0] == pytest.approx(np.sqrt(total[0, 0]), rel=1e-6)


@pytest.mark.parametrize(("there", "back"), [(100_000, 900_000), (900_000, 100_000)])
def test_an_asymmetric_way_is_beyond_sigma_and_within_the_bound(there, back):
    clocks = pair(Way(least_ns=there), Way(least_ns=back))
    (piece,) = smooth_clock(clocks.exchange(np.arange(60.0), 1)).pieces
    host_ns = at(-50, 150)
    stamps = clocks.shows(host_ns)
    error = np.abs(piece.to_host_ns(stamps) - host_ns)
    inside = (host_ns > 0) & (host_ns < 59 * 10**9)
    assert error[inside].min() > 20 * piece.sigma_ns(stamps)[inside].max()
    assert np.all(error <= piece.bound_at_ns(stamps))
    assert piece.bound_at_ns(stamps)[inside].max() < 600_000


# --- steps and resets -----------------------------------------------------------------------------


def test_a_small_step_is_found_and_not_smeared():
    clocks = pair(steps=((50.3, 300_000),))
    record = smooth_clock(clocks.exchange(np.arange(100.0), 1))
    assert (len(record.pieces), record.steps) == (2, 1)
    error, sigma = errors(clocks, record, at(1, 98))
    near = np.abs(at(1, 98) / 1e9 - 50.5) < 1
    assert np.abs(error[~near]).max() < 10_000
    # In the gap nobody knows when it came, and sigma says so.
    assert np.all(np.abs(error) < 4 * sigma)
    assert sigma[near].max() > 100_000


def test_a_busy_machine_is_no_step_of_the_clock():
    """Few exchanges, all of them held up by milliseconds and mostly on one way."""
    queue = {"queue_ns": 10e6, "queue_share": 0.4, "queue_s": 2.0, "heavy_tail": True}
    there = Way(least_ns=700_000, jitter_ns=1e6, **queue)
    back = Way(least_ns=700_000, jitter_ns=3e6, **queue)
    host_ns, pulls = at(0.1, 11.5), []
    for seed in range(40):
        clocks = ClockPair(device=VirtualClock(rate_ppm=35.0), there=there, back=back)
        asked = np.concatenate([np.arange(8) * 0.01, np.arange(1.0, 12.0)])
        record = smooth_clock(clocks.exchange(asked, seed))
        error, sigma = errors(clocks, record, host_ns)
        (piece,) = record.pieces
        assert record.steps == 0
        assert np.all(np.abs(error) <= piece.bound_at_ns(clocks.shows(host_ns)))
        pulls.append(error / sigma)
    assert np.sqrt(np.mean(np.square(pulls))) < 1.6
    assert np.mean(np.abs(pulls) < 1.96) > 0.85


def test_a_clock_in_other_steps_over_a_bad_way_is_followed():
    """The first and the last exchange, both held up, do not decide on the rate."""
    clocks = ClockPair(
        device=VirtualClock(), there=Way(jitter_ns=2e6, heavy_tail=True), back=Way(jitter_ns=5e5)
    )
    rows = clocks.exchange(np.arange(0.0, 30.0), 5)
    rows["t0_ns"][0] -= 300_000_000
    rows["t3_ns"][-1] += 300_000_000
    for name in ("t1_ns", "t2_ns"):
        rows[name] = np.round(rows[name] * 1.024).astype(np.int64)
    record = smooth_clock(rows)
    host_ns = at(1, 28)
    found, sigma = to_host(record.pieces, np.round(clocks.shows(host_ns) * 1.024).astype(np.int64))
    assert record.steps == 0
    assert np.all(np.abs(found - host_ns) < 5 * sigma)
    assert sigma.max() < 2_000_000


def test_a_clock_that_wanders_has_no_steps():
    for seed in range(4):
        for way in (LIGHT, HEAVY):
            assert smooth_clock(pair(way, seed=seed).exchange(waves(60), seed)).steps == 0


def test_stretches_after_a_reset_share_the_rate():
    clocks = pair(resets=((40.0, 1_000_000), (41.5, 7_000_000)))
    rows = clocks.exchange(np.arange(80.0), 1)
    record = smooth_clock(rows)
    assert [piece.count for piece in record.pieces] == [40, 2, 38]
    assert record.steps == 0
    short = record.pieces[1]
    assert short.skew[0] == pytest.approx(record.pieces[0].skew[-1], abs=200)
    for piece, span in zip(record.pieces, ((1, 39), (40, 41.4), (42, 79)), strict=True):
        host_ns = at(*span)
        error = piece.to_host_ns(clocks.shows(host_ns)) - host_ns
        assert np.abs(error).max() < 10_000


def test_a_host_that_slept_is_a_reset():
    clocks = ClockPair(device=VirtualClock(rate_ppm=20), suspended=((30.5, 600.0),))
    record = smooth_clock(clocks.exchange(np.arange(60.0), 1))
    assert len(record.pieces) == 2
    error, _ = errors(clocks, record, np.concatenate([at(1, 29), at(32, 58)]))
    assert np.abs(error).max() < 10_000


def test_a_reset_to_a_clock_seen_once_still_has_a_time():
    clocks = pair(resets=((58.5, 5_000_000),))
    record = smooth_clock(clocks.exchange(np.arange(60.0), 1))
    assert [piece.count for piece in record.pieces] == [59, 1]
    last = record.pieces[1]
    host_ns = at(58.6, 70)
    stamps = clocks.shows(host_ns)
    error = last.to_host_ns(stamps) - host_ns
    assert np.all(np.abs(error) < 4 * last.sigma_ns(stamps))
    assert np.all(np.abs(error) < last.bound_at_ns(stamps))


def test_lost_doubled_and_swapped_exchanges_change_nothing_but_the_count():
    quiet = pair()
    rough = ClockPair(device=quiet.device, lost=0.2, doubled=0.2, swapped=0.2)
    rows = rough.exchange(np.arange(120.0), 1)
    assert np.any(np.diff(rows["t0_ns"]) < 0)
    assert len(np.unique(rows)) < len(rows)
    record = smooth_clock(rows)
    once = smooth_clock(np.unique(rows))
    assert len(record.pieces) == 1
    assert record.pieces[0].count == len(np.unique(rows)) < 110
    assert np.array_equal(record.pieces[0].offset_ns, once.pieces[0].offset_ns)
    error, sigma = errors(rough, record, at(2, 118))
    assert np.all(np.abs(error) < 4 * sigma)


def test_outliers_with_short_trips_hardly_pull():
    clocks = pair()
    rows = clocks.exchange(np.arange(100.0), 1)
    for name in ("t1_ns", "t2_ns"):
        rows[name][[20, 47, 80]] += 30_000_000
    record = smooth_clock(rows)
    assert len(record.pieces) == 1
    error, _ = errors(clocks, record, at(2, 98))
    assert np.abs(error).max() < 20_000


def test_a_coarse_read_out_stands_in_the_sigma():
    pulls = []
    for seed in range(12):
        clocks = pair(seed=seed, step_ns=1_000_000, thermal_ppm=0.0)
        asked = np.sort(np.random.default_rng(seed).uniform(0, 90, 90))
        (piece,) = smooth_clock(clocks.exchange(asked, seed)).pieces
        host_ns = np.array([45 * 10**9])
        # Cut off, the clock shows half a step too little on average.
        fine = pair(seed=seed, thermal_ppm=0.0).shows(host_ns) - 500_000
        pulls.append((piece.to_host_ns(fine) - host_ns)[0] / piece.sigma_ns(fine)[0])
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.5


def test_few_exchanges_are_refused_or_uncertain():
    rows = pair().exchange([0.0, 1.0], 1)
    with pytest.raises(ValueError, match="at least 2"):
        smooth_clock(rows[:1])
    with pytest.raises(ValueError, match="1 clock exchanges"):
        smooth_clock(np.repeat(rows[:1], 3))
    record = smooth_clock(rows)
    assert record.pieces[0].sigma_ns(rows["t1_ns"])[0] > 0
    at_once = np.zeros(3, EXCHANGE_DTYPE)
    at_once["t0_ns"], at_once["t3_ns"] = [0, 1, 2], [100, 102, 104]
    at_once["t1_ns"] = at_once["t2_ns"] = 777
    assert len(smooth_clock(at_once).pieces[0].device_ns) == 1


def test_rows_say_the_same_in_straight_pieces():
    clocks = pair(thermal_ppm=2.0)
    (piece,) = smooth_clock(clocks.exchange(np.arange(200.0), 1)).pieces
    for most, near_ns in ((2_000, 100), (25, 20_000)):
        rows = piece.rows(most)
        assert len(rows) == min(most, len(piece.device_ns))
        assert sum(row.count for row in rows) == piece.count
        assert rows[0].valid_from_ns == piece.valid_from_ns
        assert rows[-1].valid_to_ns == piece.valid_to_ns
        assert all(a.valid_to_ns == b.valid_from_ns for a, b in pairwise(rows))
        for row in rows:
            stamps = np.array([row.valid_from_ns, row.reference_device_ns, row.valid_to_ns])
            apart = row.to_host_ns(stamps) - piece.to_host_ns(stamps)
            assert np.abs(apart).max() < near_ns
            (sigma,) = piece.sigma_ns(stamps[1:2])
            assert row.sigma_ns(stamps[1:2])[0] == pytest.approx(sigma, rel=1e-6)


# --- online ---------------------------------------------------------------------------------------


def follow(clocks, rows, **options):
    """Return error, sigma and bound just before each next exchange."""
    live, found = LiveClock(**options), []
    for k in range(len(rows) - 1):
        live.add(rows[k : k + 1])
        host_ns = rows["t0_ns"][k + 1 : k + 2] - 1000
        stamps = clocks.shows(host_ns)
        found.append(
            (
                live.to_host_ns(stamps)[0] - host_ns[0],
                live.sigma_ns(stamps)[0],
                live.bound_ns(stamps)[0],
            )
        )
    return live, np.array(found).T


@pytest.mark.parametrize("law", LAWS)
def test_online_intervals_hold_the_truth_about_as_often_as_they_say(law):
    inside, bounded = [], []
    for seed in range(5):
        clocks = pair(LAWS[law], seed=seed)
        _, (error, sigma, bound) = follow(clocks, clocks.exchange(np.arange(100.0), seed))
        late = slice(10, None)
        inside.append(np.abs(error[late]) < 1.96 * sigma[late])
        bounded.append(np.abs(error) <= bound)
    assert 0.88 < np.mean(inside) <= 1.0
    assert np.mean(bounded) > 0.995


def test_online_follows_a_step_within_four_exchanges():
    clocks = pair(steps=((50.3, 2_000_000),))
    _, (error, _, bound) = follow(clocks, clocks.exchange(np.arange(100.0), 1))
    assert np.abs(error[10:49]).max() < 20_000
    assert np.abs(error[50]) > 1_000_000  # one strange exchange is not believed
    assert np.abs(error[55:]).max() < 50_000
    assert np.all(np.abs(error[55:]) <= bound[55:])


def test_online_begins_anew_after_a_reset_and_keeps_the_rate():
    clocks = pair(resets=((30.5, 1_000_000),), thermal_ppm=0.0)
    _, (error, _, _) = follow(clocks, clocks.exchange(np.arange(60.0), 1))
    assert np.abs(error[10:30]).max() < 20_000
    assert np.abs(error[31:]).max() < 100_000
    assert np.abs(error[40:]).max() < 20_000


def test_online_is_sure_of_nothing_before_the_second_exchange():
    clocks = pair()
    rows = clocks.exchange(np.arange(3.0), 1)
    live = LiveClock()
    assert live.offset_sigma_ns == np.inf
    live.add(rows[:1])
    assert live.offset_sigma_ns == np.inf
    live.add(rows[1:2])
    assert live.offset_sigma_ns < 1e6
    assert live.count == 2


def test_single_outliers_are_no_step_online():
    clocks = pair()
    rows = clocks.exchange(np.arange(60.0), 1)
    for name in ("t1_ns", "t2_ns"):
        rows[name][[20, 25, 40]] += np.array([3_000_000, -3_000_000, 5_000_000])
    _, (error, _, _) = follow(clocks, rows)
    assert np.abs(error[12:]).max() < 60_000


def test_online_forgets_what_is_minutes_old_and_goes_on():
    clocks = pair(thermal_ppm=1.0)
    rows = clocks.exchange(np.arange(0.0, 620.0, 0.14), 3)
    live = LiveClock()
    for k in range(len(rows)):
        live.add(rows[k : k + 1])
    host_ns = np.round(np.arange(619.0, 622.0, 0.5) * 1e9).astype(np.int64)
    stamps = clocks.shows(host_ns)
    error = live.to_host_ns(stamps) - host_ns
    assert np.abs(error).max() < 6_000
    assert np.all(np.abs(error) < 4 * live.sigma_ns(stamps))
    assert live.count == len(rows) > 4_400


def test_online_a_clock_that_counts_in_other_steps_is_followed():
    clocks = ClockPair(device=VirtualClock(rate_ppm=30_000.0))
    _, (error, sigma, bound) = follow(clocks, clocks.exchange(np.arange(60.0), 1))
    assert np.abs(error[20:]).max() < 20_000
    assert np.all(np.abs(error[20:]) < 5 * sigma[20:])
    assert np.all(np.abs(error) <= bound)


def test_online_a_coarse_read_out_stands_in_the_sigma():
    pulls = []
    for seed in range(6):
        clocks = pair(seed=seed, thermal_ppm=0.0)
        asked = np.sort(np.random.default_rng(seed).uniform(0, 60, 60))
        rows = clocks.exchange(asked, seed)
        for name in ("t1_ns", "t2_ns"):
            rows[name] -= rows[name] % 1_000_000
        live = LiveClock()
        for k in range(len(rows)):
            live.add(rows[k : k + 1])
        host_ns = np.array([60 * 10**9])
        # Cut off, the clock shows half a step too little on average.
        fine = clocks.shows(host_ns) - 500_000
        pulls.append((live.to_host_ns(fine) - host_ns)[0] / live.sigma_ns(fine)[0])
        assert 10_000 < live.sigma_ns(fine)[0] < 500_000
    assert np.sqrt(np.mean(np.square(pulls))) < 2.0


def test_online_a_strange_exchange_that_is_not_followed_by_its_like_is_forgotten():
    clocks = pair()
    rows = clocks.exchange(np.arange(80.0), 1)
    for name in ("t1_ns", "t2_ns"):  # far apart from each other: no step
        rows[name][30:33] += np.array([2_000_000, -9_000_000, 30_000_000])
    live, (error, _, _) = follow(clocks, rows)
    assert np.abs(error[34:]).max() < 60_000
    assert live.bound_ns(rows["t1_ns"][-1:])[0] < 1e6
