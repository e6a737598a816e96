"""Correlation that does not call chance a result."""

import numpy as np
import pytest

from correlate.lag import (
    NotEnoughData,
    cross_correlation,
    effective_number,
    lag_correlation,
)
from correlate.registry import UnknownTracker, tracker_class, tracker_names
from correlate.surrogate import iaaft, phase_randomised, redrawn_steps


def ar1(rng, n, memory):
    noise = rng.standard_normal(n + 500)
    series = np.empty_like(noise)
    series[0] = noise[0]
    for i in range(1, len(noise)):
        series[i] = memory * series[i - 1] + noise[i]
    return series[500:]


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize("memory", [0.9, 0.98])
def test_unrelated_series_are_significant_about_as_often_as_claimed(memory):
    rng = np.random.default_rng(11)
    trials, hits, naive = 120, 0, 0
    for _ in range(trials):
        a, b = ar1(rng, 400, memory), ar1(rng, 400, memory)
        found = lag_correlation(a, b, step_s=1.0, max_lag_s=20.0, rng=rng, surrogates=99)
        hits += found.p <= 0.05
        naive += abs(np.corrcoef(a, b)[0, 1]) > 1.96 / np.sqrt(400)
    assert hits / trials < 0.13  # 5 % within the spread of 120 trials
    assert naive / trials > 0.3  # what a plain correlation would have called a result


def test_a_coupled_series_is_found_with_its_lag():
    rng = np.random.default_rng(3)
    drive = ar1(rng, 500, 0.8)
    rate = np.roll(drive, 4) + 0.5 * rng.standard_normal(500)
    found = lag_correlation(rate, drive, step_s=0.5, max_lag_s=10.0, rng=rng, surrogates=199)
    assert found.p == found.smallest_p == 1 / 200
    assert found.lag_at_max_s == 2.0
    assert found.lag_low_s < 2.0 < found.lag_high_s
    assert found.lag_high_s - found.lag_low_s < 1.0
    assert abs(found.r_max) > found.surrogate_band
    assert found.null == "random phases"


def test_a_clock_that_is_unsure_widens_the_lag():
    rng = np.random.default_rng(3)
    drive = ar1(rng, 300, 0.8)
    rate = np.roll(drive, 2) + 0.3 * rng.standard_normal(300)
    sure, unsure = (
        lag_correlation(
            rate, drive, step_s=1.0, max_lag_s=5, rng=rng, surrogates=19, clock_sigma_s=s
        )
        for s in (0.0, 2.0)
    )
    assert unsure.lag_high_s - unsure.lag_low_s > sure.lag_high_s - sure.lag_low_s + 3


def test_step_protocols_have_a_null_of_their_own():
    rng = np.random.default_rng(5)
    levels, lengths = np.array([0.0, 30.0, 0.0, -30.0, 0.0]), np.array([20, 60, 30, 50, 20])
    drive = np.repeat(levels, lengths)
    follows = drive / 30 + 0.3 * rng.standard_normal(len(drive))
    unrelated = ar1(rng, len(drive), 0.5)

    def test(rate):
        return lag_correlation(
            rate,
            drive,
            step_s=1.0,
            max_lag_s=5,
            rng=rng,
            surrogates=199,
            protocol=(levels, lengths),
        )

    assert test(follows).p < 0.05
    assert test(follows).null == "steps drawn anew"
    assert test(unrelated).p > 0.05


def test_too_little_is_an_answer():
    rng = np.random.default_rng(0)
    with pytest.raises(NotEnoughData, match="too few"):
        lag_correlation(np.arange(10.0), np.arange(10.0), step_s=1, max_lag_s=2, rng=rng)
    with pytest.raises(NotEnoughData, match="does not vary"):
        lag_correlation(np.ones(50), rng.standard_normal(50), step_s=1, max_lag_s=2, rng=rng)


def test_a_lag_that_is_nowhere_has_no_interval():
    rng = np.random.default_rng(9)
    found = lag_correlation(
        rng.standard_normal(60),
        rng.standard_normal(60),
        step_s=1,
        max_lag_s=5,
        rng=rng,
        surrogates=19,
    )
    assert np.isnan(found.lag_low_s) or found.p > 0.01


def test_cross_correlation_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 40))
    za, zb = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    r = cross_correlation(a, b, 5)
    for i, lag in enumerate(range(-5, 6)):
        first = za[lag:] if lag >= 0 else za[:lag]
        second = zb[: 40 - lag] if lag >= 0 else zb[-lag:]
        assert r[i] == pytest.approx(np.mean(first * second))


def test_memory_lowers_the_effective_number():
    rng = np.random.default_rng(2)
    slow = ar1(rng, 1000, 0.95)
    assert effective_number(slow, slow) < 200
    white = rng.standard_normal(1000)
    assert effective_number(white, rng.standard_normal(1000)) > 600


@pytest.mark.parametrize("n", [100, 101])
def test_surrogates_keep_what_they_promise(n):
    rng = np.random.default_rng(4)
    series = ar1(rng, n, 0.7)
    same_spectrum = phase_randomised(series, rng)
    assert np.allclose(np.abs(np.fft.rfft(same_spectrum)), np.abs(np.fft.rfft(series)))
    assert not np.allclose(same_spectrum, series)
    same_values = iaaft(series, rng)
    assert np.array_equal(np.sort(same_values), np.sort(series))
    ratio = np.abs(np.fft.rfft(same_values))[1:] / np.abs(np.fft.rfft(series))[1:]
    assert np.median(np.abs(ratio - 1)) < 0.15


def test_redrawn_steps_keep_levels_and_length():
    rng = np.random.default_rng(6)
    levels, lengths = np.array([1.0, 2.0, 3.0]), np.array([5, 6, 7])
    drawn = redrawn_steps(levels, lengths, rng)
    assert len(drawn) == 18
    assert set(drawn) == {1.0, 2.0, 3.0}


def test_trackers_are_found_by_their_names():
    assert set(tracker_names()) >= {"drift", "front"}
    for name in tracker_names():
        assert callable(tracker_class(name)(_settings()).track)
    with pytest.raises(UnknownTracker, match="did you mean 'front'"):
        tracker_class("frnt")
    with pytest.raises(UnknownTracker, match="known are"):
        tracker_class("zzz")


def _settings():
    from correlate.trackers.protocol import SceneSettings

    return SceneSettings(shape=(64, 64), pixel_size_m=1e-9, film_thickness_m=3e-8)
