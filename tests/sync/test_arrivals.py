"""Frames tied to the host by their arrival: late, lost, out of order, and never early."""

import math

import numpy as np
import pytest

from sync.arrivals import counted_stamps, fit_arrivals
from sync.frames import account_for_frames
from sync.live_arrivals import LiveArrivals

LATENCY_NS = 500_000


def film(seed=0, *, n=6000, rate_Hz=400.0, jitter_ns=1.5e6, dropped=0.001, gap=100, swing_us=20.0):
    """Return counters, stamps of the camera, true ends on the host, and arrivals."""
    rng = np.random.default_rng(seed)
    index = np.arange(n)
    keep = rng.random(n) >= dropped
    keep[n // 2 : n // 2 + gap] = False
    index = index[keep]
    t = index / rate_Hz
    stamps = np.round(t * 1e9).astype(np.int64) + 7_000_000_000
    wander_us = 30 * t + swing_us * np.sin(2 * np.pi * t / 40 + seed)
    ends = 10**15 + stamps + np.round(1e3 * wander_us).astype(np.int64)
    late = LATENCY_NS + np.round(rng.exponential(jitter_ns, len(index))).astype(np.int64)
    return index, stamps, ends, np.maximum.accumulate(ends + late)


def error_of(record, stamps, ends):
    found, sigma = record.to_host_ns(stamps)
    return found - ends - LATENCY_NS, sigma


def test_frames_with_drops_and_a_wandering_clock_are_right_within_a_tenth_of_a_millisecond():
    inside = []
    for seed in range(14):
        index, stamps, ends, arrivals = film(seed)
        error, sigma = error_of(fit_arrivals(stamps, arrivals), stamps, ends)
        assert np.sqrt(np.mean(error**2.0)) < 20_000
        inside.append(np.abs(error) < 1.96 * sigma)
        account = account_for_frames(index)
        assert account.dropped == index[-1] - index[0] + 1 - len(index) >= 100
    assert np.mean(np.concatenate(inside)) > 0.9


def test_a_counter_serves_where_there_are_no_stamps():
    index, _, ends, arrivals = film(1)
    stamps = counted_stamps(index, arrivals)
    error, _ = error_of(fit_arrivals(stamps, arrivals), stamps, ends)
    assert np.sqrt(np.mean(error**2.0)) < 50_000
    with pytest.raises(ValueError, match="rising counters"):
        counted_stamps(np.array([5, 5, 4]), np.array([1, 2, 3]))


def test_stalls_repeats_and_frames_out_of_order_do_no_harm():
    _, stamps, ends, arrivals = film(2)
    stalled = (np.arange(len(stamps)) > 2000) & (np.arange(len(stamps)) < 2400)
    arrivals[stalled] = np.maximum(arrivals[stalled], arrivals[2400])
    arrivals = np.maximum.accumulate(arrivals)
    order = np.arange(len(stamps))
    order[[500, 501, 3000, 3001]] = [501, 500, 3001, 3000]
    arrivals[[500, 3000]] = arrivals[[501, 3001]]  # the later frame comes when it is there
    order = np.insert(order, 900, 880)
    arrivals = np.insert(arrivals, 900, arrivals[899])
    stamps, ends = stamps[order], ends[order]
    record = fit_arrivals(stamps, arrivals)
    assert len(record.pieces) == 1
    error, _ = error_of(record, stamps, ends)
    assert np.sqrt(np.mean(error**2.0)) < 20_000
    assert record.late_ns.max() > 500_000_000
    assert record.late_ns.min() > -100_000


def test_stamps_that_begin_anew_are_a_stretch_of_their_own():
    _, stamps, ends, arrivals = film(3)
    anew = stamps.copy()
    anew[2500:] -= stamps[2500] - 1_000_000
    anew[4500:] += 10_000_000_000
    record = fit_arrivals(anew, arrivals)
    assert np.flatnonzero(np.diff(record.piece)).tolist() == [2499, 4499]
    error, _ = error_of(record, anew, ends)
    assert np.sqrt(np.mean(error**2.0)) < 30_000


def test_a_lasting_shift_is_a_step_of_the_clock():
    _, stamps, ends, arrivals = film(4, n=12_000)
    stamps = stamps.copy()
    stamps[6000:] -= 5_000_000
    record = fit_arrivals(stamps, arrivals)
    assert len(record.pieces) == 2
    error, _ = error_of(record, stamps, ends)
    far = np.abs(np.arange(len(stamps)) - 6000) > 200
    assert np.sqrt(np.mean(error[far] ** 2.0)) < 30_000


def test_what_arrivals_cannot_tell_is_a_one_sided_bound():
    _, stamps, ends, arrivals = film(5)
    assert all(math.isinf(row.bound_ns) for row in fit_arrivals(stamps, arrivals).rows())
    record = fit_arrivals(stamps, arrivals, latency_max_ns=2e6)
    found, sigma = record.to_host_ns(stamps)
    assert {row.bound_ns for row in record.rows()} == {2e6}
    assert np.all(found - ends > -4 * sigma)
    assert np.all(found - ends < 2e6 + 4 * sigma)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_few_frames_have_times_too(count):
    _, stamps, _, arrivals = film(6)
    host, sigma = fit_arrivals(stamps[:count], arrivals[:count]).to_host_ns(stamps[:count])
    assert np.all(np.abs(host - arrivals[:count]) < 20_000_000)
    assert np.all(sigma > 0)


def test_frames_without_a_time_of_their_own_are_refused():
    for stamps in ([5], [5, 5, 5]):
        with pytest.raises(ValueError, match="their stamps must go on"):
            fit_arrivals(np.array(stamps), np.arange(len(stamps)))


# --- live -----------------------------------------------------------------------------------------


def live(index, stamps, arrivals, **options):
    clock = LiveArrivals(**options)
    found = [
        clock.add(int(i), None if stamps is None else int(stamps[k]), int(arrivals[k]))
        for k, i in enumerate(index)
    ]
    return np.array([t for t, _ in found]), np.array([s for _, s in found])


@pytest.mark.parametrize("counted", [False, True])
def test_live_times_are_true_with_honest_sigmas(counted):
    index, stamps, ends, arrivals = film(7)
    options = {"period_ns": 2_510_000} if counted else {}
    found, sigma = live(index, None if counted else stamps, arrivals, **options)
    assert np.all(np.isinf(sigma[:7]))
    assert np.all(np.isfinite(sigma[8:]))
    error = found - ends - LATENCY_NS
    assert np.sqrt(np.mean(error[1500:] ** 2.0)) < 30_000
    assert np.mean(np.abs(error[1500:]) < 1.96 * sigma[1500:]) > 0.85


def test_live_without_stamps_or_period_knows_only_the_arrival():
    assert LiveArrivals().add(3, None, 12345) == (12345, math.inf)


def test_live_begins_anew_with_the_camera_and_keeps_its_rate():
    index, stamps, ends, arrivals = film(8)
    back, ahead = stamps.copy(), stamps.copy()
    back[3000:] -= 6_000_000_000
    ahead[3000:] += 6_000_000_000
    for changed in (back, ahead):
        found, _ = live(index, changed, arrivals)
        error = found - ends - LATENCY_NS
        assert np.sqrt(np.mean(error[4500:] ** 2.0)) < 50_000


def test_live_does_not_follow_a_stall_but_a_lasting_shift():
    index, stamps, ends, arrivals = film(9)
    stalled = arrivals.copy()
    stalled[3000:3200] = stalled[3200]
    found, _ = live(index, stamps, np.maximum.accumulate(stalled))
    error = found - ends - LATENCY_NS
    assert np.abs(error[2000:5000]).max() < 150_000
    found, _ = live(index, stamps, arrivals + np.where(np.arange(len(index)) > 2500, 9_000_000, 0))
    error = found - ends - LATENCY_NS
    assert abs(error[2600]) < 200_000
    assert np.abs(error[-300:] - 9_000_000).max() < 200_000


# --- a busy computer ------------------------------------------------------------------------------


def busy(arrivals, seed, *, every_s=10.0, most_s=2.0):
    """Hold all frames up for up to 2 s, about each 10 s, and then let them come at once."""
    rng = np.random.default_rng([seed, 5])
    arrivals = arrivals.copy()
    began = arrivals[0] + rng.uniform(0, every_s) * 1e9
    while began < arrivals[-1]:
        over = np.int64(began + rng.uniform(0.1, most_s) * 1e9)
        arrivals[(arrivals > began) & (arrivals < over)] = over
        began += rng.uniform(0.5, 1.5) * every_s * 1e9
    return np.maximum.accumulate(arrivals)


@pytest.mark.parametrize(("rate_Hz", "n"), [(400.0, 16_000), (30.0, 1_800), (10.0, 900)])
def test_stalls_of_seconds_are_no_steps_of_the_clock(rate_Hz, n):
    for seed in range(5):
        _, stamps, ends, arrivals = film(seed, n=n, rate_Hz=rate_Hz, gap=20)
        record = fit_arrivals(stamps, busy(arrivals, seed))
        assert len(record.pieces) == 1
        error, _ = error_of(record, stamps, ends)
        assert np.sqrt(np.mean(error**2.0)) < 100_000


def test_a_gap_of_dropped_frames_in_a_stall_is_no_reset():
    index, stamps, ends, arrivals = film(6, n=24_000)
    stalled = (arrivals > arrivals[0] + 29_000_000_000) & (stamps < stamps[index < 12_000][-1] + 1)
    arrivals[stalled] = arrivals[np.flatnonzero(index >= 12_000)[0]]
    record = fit_arrivals(stamps, arrivals)
    assert len(record.pieces) == 1
    error, _ = error_of(record, stamps, ends)
    assert np.sqrt(np.mean(error**2.0)) < 20_000


@pytest.mark.parametrize("step_ns", [5_000_000, -5_000_000])
def test_steps_are_found_among_stalls(step_ns):
    for seed in range(4):
        _, stamps, ends, arrivals = film(seed, n=16_000, gap=1)
        stamps = stamps.copy()
        stamps[8000:] -= step_ns
        record = fit_arrivals(stamps, busy(arrivals, seed))
        assert len(record.pieces) == 2
        error, _ = error_of(record, stamps, ends)
        far = np.abs(np.arange(len(stamps)) - 8000) > 1000
        assert np.sqrt(np.mean(error[far] ** 2.0)) < 30_000


def test_a_film_that_begins_in_a_stall_is_not_late():
    _, stamps, ends, arrivals = film(3, n=600, rate_Hz=30.0, gap=1)
    arrivals[:45] = np.maximum(arrivals[:45], arrivals[45])
    record = fit_arrivals(stamps, arrivals)
    assert len(record.pieces) == 1
    error, _ = error_of(record, stamps, ends)
    assert np.abs(error).max() < 300_000


def test_live_waits_for_a_stall_to_end():
    index, stamps, ends, arrivals = film(4, n=12_000)
    found, _ = live(index, stamps, busy(arrivals, 4))
    error = found - ends - LATENCY_NS
    assert np.abs(error[4000:]).max() < 200_000
