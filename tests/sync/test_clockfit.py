"""A clock from exchanges: exact integers, honest uncertainty, resets kept apart."""

import numpy as np
import pytest

from sync.clockfit import (
    ClockFit,
    find_resets,
    fit_clock,
    fit_segments,
    granularity_ns,
    to_host,
)
from sync.pairs import EXCHANGE_DTYPE

EPOCH_NS = 1_700_000_000_123_456_789


class Device:
    """A clock that is off by a known line, asked over a way with known delays."""

    def __init__(self, *, offset_ns=4_217_000_000, rate=1.0, zero_ns=EPOCH_NS):
        self.zero_ns = zero_ns
        self.offset_ns = offset_ns
        self.rate = rate  # device ns in one host ns

    def shows(self, host_ns):
        elapsed = np.asarray(host_ns, np.int64) - self.zero_ns
        extra = np.round(elapsed.astype(float) * (self.rate - 1)).astype(np.int64)
        return self.offset_ns + elapsed + extra

    def exchanges(self, host_s, *, there_ns=200_000, back_ns=200_000, held_ns=20_000):
        sent = self.zero_ns + np.round(np.asarray(host_s) * 1e9).astype(np.int64)
        rows = np.zeros(len(sent), EXCHANGE_DTYPE)
        asked = sent + np.asarray(there_ns, np.int64)
        told = asked + held_ns
        rows["t0_ns"], rows["t3_ns"] = sent, told + np.asarray(back_ns, np.int64)
        rows["t1_ns"], rows["t2_ns"] = self.shows(asked), self.shows(told)
        return rows


def test_a_clock_with_a_constant_offset_is_undone_to_the_nanosecond():
    device = Device(offset_ns=-98_765_432_101_234_567)
    fit = fit_clock(device.exchanges(np.arange(100) * 10.0))
    host_ns = EPOCH_NS + np.arange(1000, dtype=np.int64) * 1_000_000_007
    assert fit.to_host_ns(device.shows(host_ns)).tolist() == host_ns.tolist()
    assert fit.rate == pytest.approx(1.0, abs=1e-15)
    assert fit.count == 100
    assert fit.bound_ns == 200_000.0


def test_one_nanosecond_between_stamps_survives_at_unix_times():
    device = Device(offset_ns=EPOCH_NS, rate=1 + 50e-6)
    fit = fit_clock(device.exchanges(np.arange(50) * 10.0))
    start = int(device.shows(EPOCH_NS))
    host = fit.to_host_ns(np.array([start, start + 1, start + 2], np.int64))
    assert np.diff(host).tolist() == [1, 1]


def test_a_clock_that_runs_far_too_fast_is_undone():
    device = Device(rate=1.024)
    fit = fit_clock(device.exchanges(np.arange(60) * 10.0))
    host_ns = EPOCH_NS + np.arange(0, 600, 7, dtype=np.int64) * 1_000_000_000
    assert fit.rate == pytest.approx(1 / 1.024, rel=1e-9)
    assert np.abs(fit.to_host_ns(device.shows(host_ns)) - host_ns).max() < 1000


@pytest.mark.parametrize(
    ("stamps", "step"),
    [
        ([1, 2, 3], 1),
        ([10, 20, 40], 10),
        ([1_000_000, 7_000_000], 1_000_000),
        ([0, 0], 10**9),
        ([-3000, 2000], 1000),
    ],
)
def test_the_read_out_step_is_found(stamps, step):
    assert granularity_ns(np.array(stamps, np.int64)) == step


def quantised_fit(seed):
    device = Device(offset_ns=5_000_000_000)
    rng = np.random.default_rng(seed)
    rows = device.exchanges(np.sort(rng.uniform(0, 600, 80)), held_ns=0)
    for name in ("t1_ns", "t2_ns"):
        # The display is cut off, so it shows half a step too little on average.
        rows[name] = rows[name] // 1_000_000 * 1_000_000
    middle = 0.5 * (rows["t0_ns"][0] + rows["t3_ns"][-1])
    fit = fit_clock(rows)
    at = device.shows(round(middle))
    error = int(fit.to_host_ns(at)) - (round(middle) + 500_000)
    return error, float(fit.sigma_ns(at))


def test_a_coarse_read_out_is_averaged_and_its_step_stands_in_the_sigma():
    errors, sigmas = np.array([quantised_fit(seed) for seed in range(40)]).T
    assert np.sqrt(np.mean((errors / sigmas) ** 2)) == pytest.approx(1.0, abs=0.3)
    assert sigmas.max() < 1e6 / np.sqrt(12) / 6


def test_outliers_with_short_trips_do_not_pull_the_line():
    device = Device()
    rows = device.exchanges(np.arange(60) * 10.0)
    clean = fit_clock(rows)
    rows["t1_ns"][[5, 30, 52]] += 40_000_000
    rows["t2_ns"][[5, 30, 52]] += 40_000_000
    fit = fit_clock(rows)
    at = device.shows(EPOCH_NS + 300_000_000_000)
    # Plain least squares would be off by 3/60 of 40 ms, that is 2 ms.
    assert abs(int(fit.to_host_ns(at)) - int(clean.to_host_ns(at))) < 10_000
    assert abs(fit.rate - 1.0) < 1e-7


def test_a_slow_way_counts_less_than_a_quick_one():
    device = Device()
    back_ns = np.where(np.arange(60) % 3 == 0, 30_000_000, 200_000)
    fit = fit_clock(device.exchanges(np.arange(60) * 10.0, back_ns=back_ns))
    at = EPOCH_NS + 300_000_000_000
    # A third of the exchanges is wrong by 15 ms, and says so by its round trip.
    assert abs(int(fit.to_host_ns(device.shows(at))) - at) < 20_000


def pulls(seed):
    rng = np.random.default_rng(seed)
    device = Device(rate=1 + rng.uniform(-1e-4, 1e-4))
    rows = device.exchanges(np.arange(40) * 15.0)
    noise = np.round(rng.normal(0, 5_000, 40)).astype(np.int64)
    rows["t1_ns"] += noise
    rows["t2_ns"] += noise
    fit = fit_clock(rows)
    for at_s in (0.0, 250.0, 600.0, 1200.0):
        host_ns = EPOCH_NS + round(at_s * 1e9)
        stamp = device.shows(host_ns)
        yield (int(fit.to_host_ns(stamp)) - host_ns) / float(fit.sigma_ns(stamp))
    yield (fit.rate - 1 / device.rate) / fit.rate_sigma


def test_the_uncertainty_is_neither_too_small_nor_too_large():
    all_pulls = np.array([list(pulls(seed)) for seed in range(150)])
    rms = np.sqrt(np.mean(all_pulls**2, axis=0))
    assert np.all((rms > 0.8) & (rms < 1.3)), rms


def test_noise_beyond_the_model_widens_the_uncertainty():
    rng = np.random.default_rng(3)
    rows = Device().exchanges(np.arange(50) * 10.000000123)
    quiet = fit_clock(rows).offset_sigma_ns
    noise = np.round(rng.normal(0, 200_000, 50)).astype(np.int64)
    rows["t1_ns"] += noise
    rows["t2_ns"] += noise
    assert fit_clock(rows).offset_sigma_ns > 10 * quiet


@pytest.mark.parametrize(("there_ns", "back_ns"), [(10_000, 900_000), (900_000, 10_000)])
def test_a_one_sided_delay_stays_within_the_bound(there_ns, back_ns):
    device = Device()
    fit = fit_clock(device.exchanges(np.arange(30) * 10.0, there_ns=there_ns, back_ns=back_ns))
    host_ns = EPOCH_NS + np.arange(0, 300, 11, dtype=np.int64) * 1_000_000_000
    error_ns = np.abs(fit.to_host_ns(device.shows(host_ns)) - host_ns)
    assert error_ns.min() > 400_000  # the fit alone cannot see it
    assert np.all(error_ns <= fit.bound_ns)


def test_sigma_grows_away_from_the_exchanges():
    device = Device()
    fit = fit_clock(device.exchanges(np.arange(30) * 10.0))
    at = device.shows(EPOCH_NS + np.array([150, 3_000, 30_000], np.int64) * 1_000_000_000)
    assert np.all(np.diff(fit.sigma_ns(at)) > 0)


def test_two_exchanges_make_a_clock_but_one_does_not():
    rows = Device().exchanges([0.0, 100.0])
    assert fit_clock(rows).count == 2
    with pytest.raises(ValueError, match="at least 2"):
        fit_clock(rows[:1])


def test_exchanges_at_one_device_time_are_refused():
    rows = Device().exchanges([5.0, 5.0, 5.0])
    with pytest.raises(ValueError, match="same device time"):
        fit_clock(rows)


# --- resets ------------------------------------------------------------------------------


def joined(*parts):
    return np.concatenate(parts)


def test_a_steady_clock_has_no_resets():
    assert find_resets(Device(rate=1.024).exchanges(np.arange(30) * 10.0)) == []
    assert find_resets(Device().exchanges([0.0])) == []
    assert find_resets(Device().exchanges([])) == []


def test_steps_back_and_jumps_ahead_are_resets():
    rows = joined(
        Device(offset_ns=10**9).exchanges(np.arange(10) * 10.0),
        Device(offset_ns=-(10**11)).exchanges(100 + np.arange(10) * 10.0),
        Device(offset_ns=10**12).exchanges(200 + np.arange(10) * 10.0),
    )
    assert find_resets(rows) == [10, 20]


def test_a_clock_that_only_falls_is_all_resets():
    rows = Device().exchanges([0.0, 10.0, 20.0])
    for name in ("t1_ns", "t2_ns"):
        rows[name] = rows[name][::-1].copy()
    assert find_resets(rows) == [1, 2]


def test_a_long_round_trip_is_no_reset():
    back_ns = np.where(np.arange(20) == 7, 400_000_000, 200_000)
    assert find_resets(Device().exchanges(np.arange(20) * 10.0, back_ns=back_ns)) == []


def three_runs():
    """A clock that starts again at 0 at 0, 100 and 200 s."""
    devices = [Device(offset_ns=0, zero_ns=EPOCH_NS + k * 100_000_000_000) for k in range(3)]
    rows = [device.exchanges(np.arange(10) * 10.0) for device in devices]
    return devices, joined(*rows)


def test_each_stretch_between_resets_has_its_own_fit():
    _, rows = three_runs()
    fits = fit_segments(rows)
    assert [fit.count for fit in fits] == [10, 10, 10]
    assert [fit.valid_from_ns for fit in fits] == sorted(fit.valid_from_ns for fit in fits)


def test_a_stretch_of_one_exchange_is_left_out():
    first, second = Device(offset_ns=10**12), Device(offset_ns=0)
    rows = joined(first.exchanges([0.0]), second.exchanges(10 + np.arange(5) * 10.0))
    assert [fit.count for fit in fit_segments(rows)] == [5]
    with pytest.raises(ValueError, match="at least 2"):
        fit_segments(joined(first.exchanges([0.0]), second.exchanges([10.0])))


def test_stamps_after_each_reset_go_by_their_own_stretch():
    devices, rows = three_runs()
    host_ns = EPOCH_NS + np.arange(1, 295, 3, dtype=np.int64) * 1_000_000_000
    run = (host_ns - EPOCH_NS) // 100_000_000_000
    stamps = np.array([devices[k].shows(t) for k, t in zip(run, host_ns, strict=True)])
    found, sigma = to_host(fit_segments(rows), stamps)
    assert np.abs(found - host_ns).max() < 1000
    assert np.all(sigma > 0)


def test_stamps_after_a_jump_ahead_go_by_the_nearer_stretch():
    first, second = Device(offset_ns=0), Device(offset_ns=10**13)
    rows = joined(
        first.exchanges(np.arange(10) * 10.0), second.exchanges(100 + np.arange(10) * 10.0)
    )
    host_ns = EPOCH_NS + np.arange(0, 190, 5, dtype=np.int64) * 1_000_000_000
    stamps = np.where(np.arange(len(host_ns)) < 20, first.shows(host_ns), second.shows(host_ns))
    found, _ = to_host(fit_segments(rows), stamps)
    assert np.abs(found - host_ns).max() < 1000


def test_a_single_stretch_takes_all_stamps():
    device = Device()
    fits = fit_segments(device.exchanges(np.arange(10) * 10.0))
    found, sigma = to_host(fits, device.shows(np.array([EPOCH_NS, EPOCH_NS - 10**9])))
    assert found.tolist() == [EPOCH_NS, EPOCH_NS - 10**9]
    assert len(sigma) == 2


def test_sigma_never_falls_below_zero_by_rounding():
    fit = ClockFit(
        reference_device_ns=0,
        reference_host_ns=0,
        rate=1.0,
        rate_sigma=1e-9,
        offset_sigma_ns=1.0,
        covariance_ns=-1.0000001e-9,
        bound_ns=0.0,
        valid_from_ns=0,
        valid_to_ns=1,
        count=2,
    )
    assert fit.sigma_ns(np.array([10**9])).tolist() == [0.0]


def test_a_clock_that_began_anew_just_before_the_end_keeps_its_rate():
    rng = np.random.default_rng(3)
    host_ns = np.arange(60) * 10**9
    device_ns = np.round(host_ns * 1.024).astype(np.int64)
    device_ns[-1] = 300_000_000
    rows = np.zeros(60, EXCHANGE_DTYPE)
    half_ns = rng.integers(500_000, 700_000, 60)
    rows["t0_ns"], rows["t3_ns"] = host_ns - half_ns, host_ns + half_ns
    rows["t1_ns"] = rows["t2_ns"] = device_ns
    fits = fit_segments(rows)
    assert [fit.count for fit in fits] == [59, 1]
    stamps = np.array([device_ns[-2], 100_000_000, 500_000_000])
    found_ns, sigma_ns = to_host(fits, stamps)
    true_ns = np.array([host_ns[-2], *(host_ns[-1] + (stamps[1:] - device_ns[-1]) / 1.024)])
    assert np.all(np.abs(found_ns - true_ns) < 1e6)
    assert np.all(sigma_ns < 1e6)
    assert np.all(np.abs(found_ns - true_ns)[1:] < 3 * sigma_ns[1:])


def test_one_exchange_that_only_lags_is_still_left_out():
    host_ns = np.arange(10) * 10**9
    rows = np.zeros(10, EXCHANGE_DTYPE)
    rows["t0_ns"], rows["t3_ns"] = host_ns - 500_000, host_ns + 500_000
    rows["t1_ns"] = rows["t2_ns"] = host_ns
    rows["t1_ns"][-1] += 400_000_000
    rows["t2_ns"][-1] += 400_000_000
    assert [fit.count for fit in fit_segments(rows)] == [9]
