"""Correlation that does not call chance a result."""

import numpy as np
import pytest

from correlate.autoregression import fit_memory, whitened
from correlate.cross_correlation import aligned, cross_correlation, pairs_that_meet
from correlate.effect import effect_size
from correlate.enough import NotEnoughData
from correlate.lag import Declared, lag_correlation
from correlate.lag_interval import lag_interval
from correlate.memory import effective_number
from correlate.nuisance import Nuisance
from correlate.registry import UnknownTracker, tracker_class, tracker_names
from correlate.surrogate import Surrogate, iaaft, phase_randomised, power, surrogates
from tests.correlate.series import ar1, protocol


def declared(max_lag_s=10.0, **more):
    return Declared(**{"step_s": 1.0, "max_lag_s": max_lag_s, "count": 99} | more)


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize("drive", ["memory", "steps"])
def test_unrelated_series_are_significant_about_as_often_as_claimed(drive):
    rng = np.random.default_rng(11)
    trials, n, hits, naive = 50, 160, 0, 0
    for _ in range(trials):
        rate = ar1(rng, n, 0.95)
        other = ar1(rng, n, 0.95) if drive == "memory" else protocol(n)
        found = lag_correlation(rate, other, declared(8.0, count=20), rng=rng)
        hits += found.p <= 0.05
        naive += abs(np.corrcoef(rate, other)[0, 1]) > 1.96 / np.sqrt(n)
    assert hits / trials < 0.13  # 5 % within the spread of 50 trials
    assert naive / trials > 0.3  # what a plain correlation would have called a result


def test_a_coupled_series_is_found_with_its_lag_and_its_slope():
    rng = np.random.default_rng(3)
    drive = ar1(rng, 500, 0.8)
    rate = 1.7 * np.roll(drive, 4) + 0.5 * rng.standard_normal(500)
    found = lag_correlation(rate, drive, declared(step_s=0.5), rng=rng)
    assert found.p == found.smallest_p == 1 / 199
    assert found.lag_at_max_s == 2.0
    assert found.lag_low_s < 2.0 < found.lag_high_s
    assert found.lag_high_s - found.lag_low_s < 1.0
    assert abs(found.r_max) > found.band > found.phase.largest.min()
    assert found.effect.slope_low < 1.7 < found.effect.slope_high
    assert found.effect.slope_high - found.effect.slope_low < 0.5
    assert found.effect.r_low < found.effect.r < found.effect.r_high < 1
    assert found.p_of_lag[np.argmax(found.r)] == found.phase.p == 0.01
    assert found.p_of_lag.max() > 0.05
    assert found.enough_ratio == 1.0


def test_the_same_seed_gives_the_same_answer():
    series = ar1(np.random.default_rng(1), 80, 0.5)
    first, second = (
        lag_correlation(series, series[::-1], declared(), rng=np.random.default_rng(5))
        for _ in range(2)
    )
    assert np.array_equal(first.largest, second.largest)
    assert first.p == second.p


def test_a_clock_that_is_unsure_widens_the_lag():
    rng = np.random.default_rng(3)
    drive = ar1(rng, 300, 0.8)
    rate = np.roll(drive, 2) + 0.3 * rng.standard_normal(300)
    sure, unsure = (
        lag_correlation(rate, drive, declared(5.0, count=9, clock_sigma_s=s), rng=rng)
        for s in (0.0, 2.0)
    )
    assert unsure.lag_high_s - unsure.lag_low_s > sure.lag_high_s - sure.lag_low_s + 3


def test_a_rate_that_follows_the_steps_of_a_protocol_is_found():
    rng = np.random.default_rng(5)
    drive = 30 * protocol(180)
    follows = drive / 30 + 0.3 * rng.standard_normal(len(drive))
    assert lag_correlation(follows, drive, declared(5.0, switches=4), rng=rng).p < 0.05
    unrelated = ar1(rng, len(drive), 0.5)
    found = lag_correlation(unrelated, drive, declared(5.0, switches=4), rng=rng)
    assert found.p > 0.05
    assert found.enough_ratio > 1


@pytest.mark.parametrize(
    ("rate", "drive", "more", "reason", "enough"),
    [
        (np.arange(10.0), np.arange(10.0), {}, "10 pairs", "at least 30, 30 s"),
        (np.ones(50), np.arange(50.0), {}, "rate does not vary", "that varies"),
        (np.arange(50.0), np.ones(50), {}, "drive does not vary", "that varies"),
        (np.arange(50.0), np.arange(50.0), {"switches": 2}, "2 switching events", "at least 3"),
    ],
)
def test_too_little_is_an_answer_that_says_what_would_do(rate, drive, more, reason, enough):
    with pytest.raises(NotEnoughData, match=reason) as caught:
        lag_correlation(rate, drive, declared(2.0, **more), rng=np.random.default_rng(0))
    assert enough in caught.value.enough


@pytest.mark.parametrize("bins", [0, 1])
def test_a_record_of_no_bins_is_too_little_with_a_nuisance_too(bins):
    nothing = np.empty(bins)
    with pytest.raises(NotEnoughData, match="pairs of both rates"):
        lag_correlation(
            nothing,
            nothing,
            declared(),
            rng=np.random.default_rng(0),
            regressors=np.empty((bins, 2)),
        )


def test_memory_as_long_as_the_record_is_too_little():
    slow = np.cos(np.linspace(0, np.pi, 200))
    with pytest.raises(NotEnoughData, match="remember so long") as caught:
        lag_correlation(slow, slow, declared(), rng=np.random.default_rng(0))
    assert float(caught.value.enough.split()[1]) > 200


def test_what_stands_in_a_gap_is_never_made_up():
    rng = np.random.default_rng(8)
    drive = ar1(rng, 240, 0.7)
    rate = np.roll(drive, 3) + 0.4 * rng.standard_normal(240)
    rate[60:100] = np.nan
    rate[rng.integers(0, 240, 10)] = np.nan
    found = lag_correlation(rate, drive, declared(), rng=rng)
    assert found.n == np.isfinite(rate).sum()
    assert found.p < 0.05
    assert found.lag_low_s < 3 < found.lag_high_s
    z_rate, z_drive = ((v - np.nanmean(v)) / np.nanstd(v) for v in (rate, drive))
    for lag in (-7, 0, 3):
        pairs = np.multiply(*aligned(z_rate, z_drive, lag))
        assert found.r[lag + 10] == pytest.approx(np.nanmean(pairs))


def test_what_both_owe_to_the_dose_is_taken_out_of_both():
    rng = np.random.default_rng(4)
    dose = np.linspace(0, 1e22, 300)
    grow = 4e-22 * dose
    rate, drive = grow + ar1(rng, 300, 0.5), grow + ar1(rng, 300, 0.5)
    apart = lag_correlation(rate, drive, declared(), rng=rng, regressors=dose[:, None])
    assert lag_correlation(rate, drive, declared(), rng=rng).p < 0.05 < apart.p
    coupled = 0.8 * drive + grow + ar1(rng, 300, 0.5)
    found = lag_correlation(coupled, drive, declared(), rng=rng, regressors=dose[:, None])
    assert found.p < 0.05
    assert found.effect.slope_low < 0.8 < found.effect.slope_high
    with pytest.raises(NotEnoughData, match="explains the whole drive"):
        lag_correlation(rate, 3 * dose + 1, declared(), rng=rng, regressors=dose[:, None])


def test_a_nuisance_leaves_nothing_of_itself():
    rng = np.random.default_rng(4)
    beam = (rng.random(50) > 0.5).astype(float)
    used = np.arange(50) != 7
    nuisance = Nuisance(np.stack([beam, 2 * beam, np.ones(50)], axis=1), used)
    assert nuisance.rank == 2
    rest = nuisance.taken_out(rng.standard_normal((3, 50)))
    assert np.isnan(rest[:, 7]).all()
    assert np.abs(rest[:, used] @ beam[used]).max() < 1e-12


@pytest.mark.no_cover
def test_intervals_of_lag_and_slope_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    trials, lags, slopes = 50, 0, 0
    for _ in range(trials):
        drive = ar1(rng, 160, 0.8)
        rate = 0.7 * np.roll(drive, 2) + ar1(rng, 160, 0.8)
        _, low, high = lag_interval(rate[5:-5], drive[5:-5], max_lag=8)
        lags += bool(low <= 2 <= high)
        effect = effect_size(*aligned(rate[5:-5], drive[5:-5], 2))
        slopes += bool(effect.slope_low <= 0.7 <= effect.slope_high)
    assert lags / trials > 0.85
    assert slopes / trials > 0.85


def test_a_lag_that_is_nowhere_has_no_interval():
    rng = np.random.default_rng(9)
    found = lag_correlation(*rng.standard_normal((2, 60)), declared(5.0, count=9), rng=rng)
    assert np.isnan(found.lag_low_s) or found.p > 0.01
    with pytest.raises(NotEnoughData, match="rows between gaps"):
        lag_interval(np.full(60, np.nan), np.ones(60), max_lag=5)


def test_an_effect_needs_series_that_vary():
    with pytest.raises(ValueError, match="does not vary"):
        effect_size(np.ones(9), np.arange(9.0))


def test_cross_correlation_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 40))
    za, zb = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    r = cross_correlation(a, b, 5)
    for i, lag in enumerate(range(-5, 6)):
        assert r[i] == pytest.approx(np.mean(np.multiply(*aligned(za, zb, lag))))
    holed = np.isfinite(np.where(rng.random(40) < 0.3, np.nan, a))
    met = pairs_that_meet(holed, np.ones(40, bool), 5)
    assert met.tolist() == [
        np.logical_and(*aligned(holed, holed | True, k)).sum() for k in range(-5, 6)
    ]


def test_lags_at_which_few_pairs_meet_say_nothing():
    a, b = np.random.default_rng(1).standard_normal((2, 60))
    a[30:], b[:25] = np.nan, np.nan
    r = cross_correlation(a, b, 30)
    assert np.isnan(r[30])
    assert np.isfinite(r[0])


def test_memory_lowers_the_effective_number():
    rng = np.random.default_rng(2)
    slow = ar1(rng, 1000, 0.95)
    assert effective_number(slow, slow) < 200
    white = rng.standard_normal(1000)
    assert effective_number(white, rng.standard_normal(1000)) > 600


def test_whitening_takes_the_memory_out():
    rng = np.random.default_rng(3)
    series = ar1(rng, 2000, 0.9)
    terms = fit_memory(series)
    assert terms[0] == pytest.approx(0.9, abs=0.05)
    rest = whitened(series, terms)
    assert abs(np.corrcoef(rest[1:], rest[:-1])[0, 1]) < 0.06
    assert len(fit_memory(rng.standard_normal(2000))) <= 2
    series[100] = np.nan
    assert np.isnan(whitened(series, terms)[100 - len(terms) : 101]).all()


@pytest.mark.parametrize("n", [100, 101])
def test_surrogates_keep_what_they_promise(n):
    rng = np.random.default_rng(4)
    series = ar1(rng, n, 0.7)
    modulus = np.abs(np.fft.rfft(series - series.mean()))
    same_spectrum = phase_randomised(series, 3, rng)
    assert np.allclose(np.abs(np.fft.rfft(same_spectrum - series.mean()))[:, 1:], modulus[1:])
    assert not np.allclose(same_spectrum[0], same_spectrum[1])
    same_values = iaaft(series, 3, rng)
    assert np.allclose(np.sort(same_values), np.sort(series))
    ratio = np.abs(np.fft.rfft(same_values))[:, 1:] / modulus[1:]
    assert np.median(np.abs(ratio - 1)) < 0.15


def test_surrogates_of_a_series_with_gaps_have_its_memory():
    rng = np.random.default_rng(4)
    series = ar1(rng, 2000, 0.9)
    series[500:700] = np.nan
    series[rng.random(2000) < 0.1] = np.nan
    drawn = np.concatenate(list(surrogates(series, 7, rng, Surrogate.PHASE)))
    assert drawn.shape == (7, 2000)
    neighbours = np.mean(drawn[:, 1:] * drawn[:, :-1]) / np.mean(drawn**2)
    assert neighbours == pytest.approx(0.9, abs=0.05)
    assert drawn.std() == pytest.approx(np.nanstd(series), rel=0.15)
    assert np.isfinite(iaaft(series, 2, rng)).all()
    assert power(series)[0] == 0


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

    return SceneSettings(shape=(64, 64), pixel_size_m=1e-10, film_thickness_m=3e-9)
