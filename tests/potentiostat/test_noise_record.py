"""Noise of readings at rest against noises whose spectrum and Allan deviation are known."""

import numpy as np
import pytest

from potentiostat.noise_record import CONFIDENCE, degrees_of_freedom, noise_record

INTERVAL_S, SIGMA_A = 0.047, 13e-15
N = 2000


def record(current, *, jitter_s=0.0, keep=None, stated=SIGMA_A, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(len(current)) * INTERVAL_S + rng.uniform(-jitter_s, jitter_s, len(current))
    rows = slice(None) if keep is None else keep
    return noise_record(
        t[rows], current[rows], stated_sigma_A=np.full(len(t[rows]), stated), range_A=1e-10
    )


def white(seed, n=N):
    return np.random.default_rng(seed).normal(2e-14, SIGMA_A, n)


def inside(curve, true):
    return (curve.low <= true) & (true <= curve.high)


@pytest.fixture(scope="module")
def many():
    return [record(white(seed), jitter_s=2e-3, seed=seed) for seed in range(200)]


def test_white_noise_has_the_density_and_the_intervals_that_theory_gives(many):
    true = np.sqrt(2 * SIGMA_A**2 * INTERVAL_S)
    level = np.mean([np.mean(r.spectrum.value**2) for r in many]) ** 0.5
    assert level == pytest.approx(true, rel=0.01)
    covered = np.mean([inside(r.spectrum, true) for r in many])
    assert covered == pytest.approx(CONFIDENCE, abs=0.02)
    assert np.mean([r.white_A_rtHz for r in many]) == pytest.approx(true, rel=0.02)


def test_white_noise_averages_as_the_root_of_the_number(many):
    for k, tau_s in enumerate(many[0].allan.at):
        true = SIGMA_A / np.sqrt(2**k)
        assert tau_s == pytest.approx(2**k * INTERVAL_S, rel=0.01)
        assert np.mean([r.allan.value[k] ** 2 for r in many]) ** 0.5 == pytest.approx(
            true, rel=0.08
        )
        covered = np.mean([r.allan.low[k] <= true <= r.allan.high[k] for r in many])
        assert CONFIDENCE - 0.1 < covered < 0.95, (k, covered)


def test_the_zero_and_the_drift_have_honest_sigmas(many):
    zero = np.array([(r.mean_A - 2e-14) / r.mean_sigma_A for r in many])
    drift = np.array([r.drift_A_s / r.drift_sigma_A_s for r in many])
    assert 0.7 < np.sqrt(np.mean(zero**2)) < 1.1
    assert 0.8 < np.sqrt(np.mean(drift**2)) < 1.5  # six degrees of freedom: Student's tails


def test_a_random_walk_rises_as_theory_says():
    step_A = 1e-15
    steps = [np.random.default_rng(seed).normal(0, step_A, N) for seed in range(100)]
    found = [record(np.cumsum(each)) for each in steps]
    for k in range(len(found[0].allan.at)):
        m = 2**k
        true = step_A * np.sqrt((m + 0.5 / m) / 3)
        assert np.mean([r.allan.value[k] ** 2 for r in found]) ** 0.5 == pytest.approx(
            true, rel=0.15
        )
        covered = np.mean([r.allan.low[k] <= true <= r.allan.high[k] for r in found])
        assert covered > CONFIDENCE - 0.12, (k, covered)
    # The Hann window lets a steep spectrum leak a little into its lowest lines.
    f = found[0].spectrum.at[3:]
    true = step_A * np.sqrt(2 * INTERVAL_S) / np.abs(2 * np.sin(np.pi * f * INTERVAL_S))
    level = np.mean([r.spectrum.value[3:] ** 2 for r in found], axis=0) ** 0.5
    assert np.allclose(level, true, rtol=0.15, atol=0)
    assert np.median([r.best_s for r in found]) < 3 * INTERVAL_S
    assert not any(r.still_falling for r in found)


def flicker(seed, n=N):
    rng = np.random.default_rng(seed)
    f = np.fft.rfftfreq(4 * n)
    shape = np.zeros(len(f))
    shape[1:] = f[1:] ** -0.5
    lines = (rng.normal(size=len(f)) + 1j * rng.normal(size=len(f))) * shape
    return np.fft.irfft(lines)[:n]


def test_a_flicker_floor_is_found_under_white_noise():
    floors, best = [], []
    for seed in range(30):
        pink = flicker(seed)
        # sqrt(2 ln 2 h) with h read off the spectrum that it was made with.
        pink *= 2e-15 / np.sqrt(2 * np.log(2)) / np.sqrt(4 / (4 * N))
        found = record(white(seed) + pink)
        floors.append(found.floor_A)
        best.append(found.mean_sigma_A)
    assert np.median(floors) == pytest.approx(2e-15, rel=0.4)
    assert np.median(best) > 4 * SIGMA_A / np.sqrt(N)


def test_a_drift_is_seen_and_spoils_long_averages():
    drift_A_s = 1e-15
    found = record(white(1) + drift_A_s * INTERVAL_S * np.arange(N))
    assert abs(found.drift_A_s - drift_A_s) < 4 * found.drift_sigma_A_s
    assert found.drift_A_s > 10 * found.drift_sigma_A_s
    assert not found.still_falling
    # The minimum of white noise and drift: (2 W / D^2)^(1/3), within an octave or so.
    best_s = (2 * SIGMA_A**2 * INTERVAL_S / drift_A_s**2) ** (1 / 3)
    assert 0.4 < found.best_s / best_s < 2.5


def test_gaps_part_the_record_and_change_nothing_else():
    keep = np.ones(N, bool)
    keep[700:760] = keep[1400] = False
    found = record(white(3) + 1e-12 * (np.arange(N) > 730), keep=np.flatnonzero(keep))
    assert found.allan.value[-1] < 3 * SIGMA_A / np.sqrt(2 ** (len(found.allan.at) - 1))
    assert found.count == N - 61
    bad = white(3)
    bad[10] = np.nan
    assert record(bad).count == N - 1


def test_a_driver_that_states_another_noise_is_found_out():
    assert record(white(5)).agrees
    assert not record(white(5), stated=2 * SIGMA_A).agrees
    assert not record(white(5), stated=0.5 * SIGMA_A).agrees


def test_readings_that_never_change_have_no_noise():
    found = record(np.full(64, 3e-15))
    assert found.reading_A == found.floor_A == found.best_A == found.mean_sigma_A == 0.0
    assert found.mean_A == pytest.approx(3e-15)


def test_too_few_readings_tell_no_noise():
    with pytest.raises(ValueError, match="31 readings tell no noise"):
        record(white(1, 31))


def test_degrees_of_freedom_are_the_fewest_of_the_three_laws():
    assert degrees_of_freedom(2001, 1) == pytest.approx(2001 * 2 / 3, rel=0.01)  # white
    assert degrees_of_freedom(2001, 100) < 3 * 2000 / 200
    assert degrees_of_freedom(9, 4) >= 1.0
