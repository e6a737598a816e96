"""Samples over exposures against a brute-force twin, and charge against sums by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.align import average_over_exposures, average_with_delays, cumulative_charge


def by_hand(samples, frame):
    """Average one frame with loops and whole numbers only."""
    start, stop = frame
    rows = []
    for middle, aperture, value in samples:
        if not math.isfinite(value):
            continue
        begin = middle - aperture // 2
        overlap = min(begin + aperture, stop) - max(begin, start)
        if overlap > 0:
            rows.append((overlap, value))
    total = sum(w for w, _ in rows)
    if not total:
        return math.nan, math.nan, 0.0, 0.0
    mean = sum(w * v for w, v in rows) / total
    spread = math.sqrt(sum(w * (v - mean) ** 2 for w, v in rows) / total)
    count = total**2 / sum(w * w for w, _ in rows)
    return mean, spread, count, min(total / (stop - start), 1.0)


values = st.one_of(st.floats(-1e3, 1e3), st.just(math.nan))


@st.composite
def series(draw):
    gaps = draw(st.lists(st.tuples(st.integers(0, 40), values), max_size=25))
    aperture = draw(st.integers(1, 60))
    middle, samples = draw(st.integers(-100, 100)), []
    for gap, value in gaps:
        middle += gap
        samples.append((middle, aperture, value))
    frames = draw(
        st.lists(st.tuples(st.integers(-150, 600), st.integers(1, 200)), min_size=1, max_size=6)
    )
    return samples, [(a, a + length) for a, length in frames]


def averaged(samples, frames):
    t_mid, aperture, value = (
        np.array(column, dtype)
        for column, dtype in zip(
            zip(*samples, strict=True) if samples else ((), (), ()),
            (np.int64, np.int64, np.float64),
            strict=True,
        )
    )
    start, stop = np.array(frames, np.int64).T
    return average_over_exposures(t_mid, aperture, value, start, stop)


@settings(max_examples=300, deadline=None)
@given(series())
def test_means_agree_with_sums_by_hand(case):
    samples, frames = case
    found = averaged(samples, frames)
    wanted = np.array([by_hand(samples, frame) for frame in frames]).T
    for name, column in zip(("mean", "std", "count", "coverage"), wanted, strict=True):
        np.testing.assert_allclose(getattr(found, name), column, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_constant_stays_constant_and_has_no_spread():
    found = averaged([(t, 10, 2.5) for t in range(0, 200, 10)], [(7, 93)])
    assert found.mean.tolist() == [2.5]
    assert found.std.tolist() == [0.0]
    assert found.coverage.tolist() == [1.0]


def test_a_frame_without_samples_is_no_number():
    found = averaged([(0, 10, 1.0)], [(1000, 1100)])
    assert math.isnan(found.mean[0])
    assert math.isnan(found.std[0])
    assert (found.count[0], found.coverage[0]) == (0.0, 0.0)


def test_no_samples_and_no_frames_are_no_error():
    assert math.isnan(averaged([], [(0, 10)]).mean[0])
    nothing = np.zeros(0, np.int64)
    assert len(average_over_exposures(nothing, nothing, np.zeros(0), nothing, nothing).mean) == 0


def test_samples_out_of_order_are_refused():
    with pytest.raises(ValueError, match="order of time"):
        averaged([(100, 10, 1.0), (0, 10, 1.0)], [(0, 10)])


def test_apertures_that_end_out_of_order_are_refused():
    with pytest.raises(ValueError, match="order of time"):
        averaged([(100, 190, 1.0), (101, 10, 1.0)], [(0, 10)])


# --- charge --------------------------------------------------------------------------------


def test_the_charge_of_a_ramp_is_exact():
    t_ns = np.array([0, 1, 3, 4, 10], np.int64) * 10**9 + 1_700_000_000_000_000_000
    seconds = (t_ns - t_ns[0]) / 1e9
    np.testing.assert_allclose(cumulative_charge(t_ns, 2 * seconds), seconds**2, rtol=1e-15)


def test_a_hole_in_the_samples_is_bridged_by_a_line():
    t_ns = np.arange(5, dtype=np.int64) * 10**9
    charge = cumulative_charge(t_ns, np.array([1.0, 1.0, math.nan, 3.0, 3.0]))
    np.testing.assert_allclose(charge, [0.0, 1.0, 3.0, 5.0, 8.0])


@pytest.mark.parametrize("current", [[], [1.0], [math.nan, math.nan], [math.nan, 1.0]])
def test_fewer_than_two_samples_hold_no_charge(current):
    t_ns = np.arange(len(current), dtype=np.int64)
    assert cumulative_charge(t_ns, np.array(current)).tolist() == [0.0] * len(current)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**10), st.floats(-1e-9, 1e-9)), min_size=2, max_size=30))
def test_charge_agrees_with_trapezia_by_hand(rows):
    t_ns = np.cumsum([gap for gap, _ in rows])
    current = [value for _, value in rows]
    total, wanted = 0.0, [0.0]
    for k in range(1, len(rows)):
        total += 0.5 * (current[k] + current[k - 1]) * float(t_ns[k] - t_ns[k - 1]) / 1e9
        wanted.append(total)
    found = cumulative_charge(t_ns, np.array(current))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-20)


# --- samples that lag ---------------------------------------------------------------------------


@given(series(), st.lists(st.sampled_from([0, 7, 45]), min_size=25, max_size=25))
def test_each_sample_counts_where_its_delay_puts_it(data, delays):
    samples, frames = data
    moved = [(t - delay, a, v) for (t, a, v), delay in zip(samples, delays, strict=False)]
    t_mid = np.array([s[0] for s in samples], np.int64)
    aperture = np.array([s[1] for s in samples], np.int64)
    value = np.array([s[2] for s in samples], np.float64)
    delay = np.array(delays[: len(samples)], np.int64)
    start, stop = np.array(frames, np.int64).T
    found = average_with_delays(t_mid, aperture, value, delay, start, stop)
    for i, frame in enumerate(frames):
        mean, spread, count, coverage = by_hand(moved, frame)
        assert found.mean[i] == pytest.approx(mean, rel=1e-9, abs=1e-9, nan_ok=True)
        assert found.std[i] == pytest.approx(spread, rel=1e-6, abs=1e-4, nan_ok=True)
        assert found.count[i] == pytest.approx(count)
        assert found.coverage[i] == pytest.approx(coverage)


def test_a_first_order_lag_is_taken_off_a_current_that_decays():
    tau_s, lag_s = 40.0, 0.87  # of the current, and of the smallest ranges of a 6430
    t_s = np.arange(0, 30, 0.05)
    # What a first-order meter shows of a decay, some time after it began.
    shown = np.exp(-t_s / tau_s) / (1 - lag_s / tau_s)
    t_ns = np.round(t_s * 1e9).astype(np.int64)
    aperture = np.full(len(t_s), 50_000_000)
    start = np.arange(5, 25, 1) * 10**9
    stop = start + 800_000_000
    middle_s = (start + stop) / 2e9
    true = np.exp(-middle_s / tau_s) * (np.sinh(0.4 / tau_s) / (0.4 / tau_s))
    plain = average_over_exposures(t_ns, aperture, shown, start, stop).mean
    delay = np.full(len(t_s), round(lag_s * 1e9))
    moved = average_with_delays(t_ns, aperture, shown, delay, start, stop).mean
    assert np.all(np.abs(plain / true - 1) > 0.02)
    assert np.all(np.abs(moved / true - 1) < 5e-4)
