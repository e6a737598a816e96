"""Rates, false discoveries, averages over events, and steps in noise with memory."""

import numpy as np
import pytest

from correlate.change_points import change_points
from correlate.enough import NotEnoughData
from correlate.event_average import event_average
from correlate.false_discovery import adjusted_p, surrogates_needed
from correlate.noise_memory import fit_noise_memory
from correlate.rates import bin_means, binned_rate, even_edges, running_integral
from tests.correlate.series import ar1

# Benjamini and Hochberg (1995), their example of 15 comparisons.
P_1995 = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
]


def test_false_discoveries_are_those_of_the_paper():
    q = adjusted_p(P_1995)
    assert (q <= 0.05).sum() == 4
    assert q[3] == pytest.approx(0.0095 * 15 / 4)
    assert np.all(np.diff(q) >= 0)
    assert (adjusted_p(P_1995, any_dependence=True) <= 0.05).sum() == 3


def test_regions_without_data_do_not_count_and_stay_unknown():
    p = np.array([[0.01, np.nan], [0.5, 0.02]])
    q = adjusted_p(p)
    assert np.isnan(q[0, 1])
    assert q[0, 0] == pytest.approx(0.03)
    assert adjusted_p([]).size == 0
    with pytest.raises(ValueError, match="0 to 1 will do"):
        adjusted_p([1.2])


def test_few_surrogates_can_find_nothing_among_many_tests():
    assert surrogates_needed(1) == 19
    assert surrogates_needed(20) == 399
    assert surrogates_needed(20, any_dependence=True) > 1400


def test_rates_of_a_front_and_of_its_charge_stay_in_proportion():
    t_ns = np.arange(0, 60_000_000_000, 125_000_000, dtype=np.int64)
    current = np.where((t_ns // 10_000_000_000) % 2 == 1, 2.0, -1.0)
    charge = running_integral(t_ns, current)
    assert charge[80] == pytest.approx(-10.0, abs=0.2)
    position = 3.0 * charge
    position[100:140] = np.nan
    edges_ns = even_edges(0, int(t_ns[-1]), 1.0)
    meanwhile = np.where(np.isfinite(position), charge, np.nan)
    seen, driven = (binned_rate(t_ns, v, edges_ns) for v in (position, meanwhile))
    known = np.isfinite(seen)
    assert known.sum() == len(seen) - 5  # four whole bins are missing, and the rates beside them
    assert np.allclose(seen[known], 3.0 * driven[known])  # half a bin, too
    assert np.isnan(bin_means(t_ns, np.full(len(t_ns), np.nan), edges_ns)).all()
    assert binned_rate(t_ns, charge, np.empty(0, np.int64)).size == 0


@pytest.fixture(scope="module")
def switched():
    """A series that rises after some events and falls after others."""
    rng = np.random.default_rng(6)
    noise, at = ar1(rng, 400, 0.8), np.array([30, 90, 150, 210, 270, 340, 395])
    signs = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    shape = 3 * np.exp(-np.arange(20) / 8)
    series = noise.copy()
    for place, sign in zip(at[:-1], signs[:-1], strict=True):
        series[place : place + 20] += sign * shape
    return noise, series, at, signs, shape


def average(series, at, **more):
    settings = {"before": 10, "after": 20, "step_s": 0.5, "count": 99}
    return event_average(series, at, rng=np.random.default_rng(1), **settings | more)


def test_an_average_over_events_has_a_band_that_holds_the_truth(switched):
    noise, series, at, signs, shape = switched
    found = average(series, at, signs=signs)
    assert found.events == 6  # the last one is too near to the end
    assert found.p == found.smallest_p == 0.01
    truth = np.concatenate([np.zeros(10), shape])
    assert np.all((found.low <= truth) & (truth <= found.high))
    assert found.offset_s[10] == 0
    assert found.mean[10] > found.chance_high[10]
    assert average(noise, at, signs=signs).p > 0.05
    assert average(series, at).p > found.p  # rises and falls cancel


def test_the_band_of_many_even_events_holds_what_their_average_took_out_of_the_noise():
    at = np.linspace(20, 560, 12).astype(int)
    errors, halves = [], []
    for seed in range(40):
        noise = ar1(np.random.default_rng([seed, 12]), 600, 0.9)
        found = average(noise, at, after=30, count=99)
        errors.append(found.mean[20:])
        halves.append((found.high - found.low)[20:] / 2)
    # A band of 30 offsets at once is some 2.8 sigma wide.
    assert 2.4 < np.mean(halves) / np.sqrt(np.mean(np.square(errors))) < 3.4


def test_gaps_in_events_are_left_out(switched):
    _, series, at, signs, _ = switched
    holed = series.copy()
    holed[92:100] = np.nan
    found = average(holed, at, signs=signs)
    left_out = average(series, np.delete(at, 1), signs=np.delete(signs, 1))
    # The baseline is each event's own, so the other events' values are what is left.
    assert np.allclose(found.mean[12:20], left_out.mean[12:20])


def test_too_few_events_are_an_answer(switched):
    with pytest.raises(NotEnoughData, match="2 events"):
        average(switched[1], np.array([30, 90, 399]))
    with pytest.raises(ValueError, match="at least 1"):
        average(switched[1], np.array([30, 90, 120]), before=0)


@pytest.mark.parametrize("memory", [0.0, 0.95])
def test_steps_are_found_and_memory_alone_makes_none(memory):
    rng = np.random.default_rng(12)
    false = 0
    for _ in range(4):
        noise = ar1(rng, 300, memory)
        false += len(change_points(noise, rng=rng, count=19).index) > 0
    assert false <= 1
    stepped = noise + 5.0 * ((np.arange(300) >= 100) & (np.arange(300) < 220))
    stepped[150:155] = np.nan
    found = change_points(stepped, rng=rng, count=19)
    assert [int(np.abs(found.index - true).min()) <= 2 for true in (100, 220)] == [True, True]
    nearest = int(np.abs(found.index - 100).argmin())
    assert abs(found.step[nearest] - 5.0) < 4 * found.step_sigma[nearest]


def test_memory_of_noise_is_read_past_steps():
    rng = np.random.default_rng(2)
    noise = np.stack([ar1(rng, 2000, 0.9), ar1(rng, 2000, 0.9) + 20 * (np.arange(2000) > 700)])
    fit = fit_noise_memory(noise)
    assert fit.kept == pytest.approx([0.9, 0.9], abs=0.06)
    terms = fit.whitening()
    assert terms.shape == (2, 8)
    drawn = fit.drawn(4000, 2, rng)
    assert drawn.std() == pytest.approx(1.0, rel=0.25)


def test_too_short_a_series_has_no_change_points():
    rng = np.random.default_rng(2)
    with pytest.raises(NotEnoughData, match="20 samples"):
        change_points(np.arange(20.0), rng=rng)
    with pytest.raises(NotEnoughData, match="simulated records"):
        change_points(np.arange(60.0), rng=rng, count=9)
