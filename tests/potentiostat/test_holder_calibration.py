"""The holder's fit against holders whose values are known."""

import functools

import numpy as np
import pytest

from potentiostat.calibration import HOLD_S, LEVELS_V, HolderNotCalibrated, fit_holder, staircase

READ_S = 0.047
WINDOW_S = 0.02
RAMP_A = 90e-12
CURRENT_NOISE_A, VOLTAGE_NOISE_V = 8e-15, 5e-5


def simulate(seed, *, capacitance_F, leak_ohm, offset_A=0.0, dielectric_F=0.0, tau_s=10.0):
    """Readings of an open holder on a staircase, from its equations alone."""
    rng = np.random.default_rng(seed)
    step_s = 2e-3
    steps = round(len(LEVELS_V) * HOLD_S / step_s)
    voltage = np.empty(steps)
    current = np.empty(steps)
    v = slow = 0.0
    stiff = 1 + step_s / (2 * leak_ohm * capacitance_F)
    keep = 1 - np.exp(-step_s / tau_s)
    for k in range(steps):
        target = LEVELS_V[int(k * step_s / HOLD_S)]
        absorbed = dielectric_F * (v - slow) / tau_s
        # Leakage is taken at the middle of the step, or it would bend the ramps.
        wanted = capacitance_F * (target - v) / step_s + 0.5 * (v + target) / leak_ohm + absorbed
        given = min(max(wanted, -RAMP_A), RAMP_A)
        rise = (given - v / leak_ohm - absorbed) * step_s / capacitance_F / stiff
        voltage[k], current[k] = v + 0.5 * rise, given
        slow += (v + 0.5 * rise - slow) * keep
        v += rise
    window = round(WINDOW_S / step_s)
    first = np.round(np.arange(0, steps * step_s - 2 * WINDOW_S, READ_S) / step_s).astype(int)
    rows = first[:, None] + np.arange(window)
    n = len(rows)
    # Voltage is integrated first and current after it, as the instrument does.
    volt = voltage[rows].mean(axis=1) + rng.normal(0, VOLTAGE_NOISE_V, n)
    amp = current[rows + window].mean(axis=1) + offset_A + rng.normal(0, CURRENT_NOISE_A, n)
    return first * step_s + WINDOW_S, volt, amp


def fit(t, v, i):
    n = len(t)
    return fit_holder(
        t,
        v,
        i,
        np.full(n, CURRENT_NOISE_A),
        voltage_sigma_V=np.full(n, VOLTAGE_NOISE_V),
        range_A=1e-10,
    )


@functools.cache
def holders(quarter):
    """Ten holders, evenly spread in the logarithm of all that is unknown, and their fits."""
    rng = np.random.default_rng([20, quarter])
    found = []
    for k in range(10):
        true_F = 10 ** rng.uniform(np.log10(30e-12), np.log10(300e-12))
        leak_ohm = 10 ** rng.uniform(11, 15)
        offset_A = rng.uniform(-3e-14, 3e-14)
        seed = 10 * quarter + k
        data = simulate(seed, capacitance_F=true_F, leak_ohm=leak_ohm, offset_A=offset_A)
        found.append((true_F, 1 / leak_ohm, offset_A, fit(*data)))
    return found


@pytest.fixture
def fits():
    return [each for quarter in range(4) for each in holders(quarter)]


# The quarters come first, so that no test has to fit all of them.
@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize("quarter", range(4))
def test_uncertainties_are_small_enough_to_be_of_use(quarter):
    for true_F, _, _, found in holders(quarter):
        assert found.capacitance_sigma_F < 0.01 * true_F
        assert found.conductance_sigma_S < 1e-13
        assert found.noise_A == pytest.approx(CURRENT_NOISE_A, rel=0.2)
        assert 0.7 < found.chi2 < 1.5
        assert found.range_A == 1e-10


def pulls(fits, name, column):
    return np.array(
        [
            (getattr(f[3], name.format("")) - f[column]) / getattr(f[3], name.format("_sigma"))
            for f in fits
        ]
    )


@pytest.mark.parametrize(("name", "column"), [("capacitance{}_F", 0), ("conductance{}_S", 1)])
def test_the_true_value_lies_within_the_stated_uncertainty(fits, name, column):
    pull = pulls(fits, name, column)
    assert 0.7 < np.sqrt(np.mean(pull**2)) < 1.3, pull
    assert np.abs(pull).max() < 4.5


def test_the_ranges_zero_is_found(fits):
    errors = np.array([f[3].offset_A - f[2] for f in fits])
    assert np.abs(errors).max() < 5e-15


def test_dielectric_absorption_is_kept_apart_from_leakage():
    found = fit(*simulate(1, capacitance_F=150e-12, leak_ohm=1e12, dielectric_F=3e-12, tau_s=15.0))
    assert found.dielectric_F == pytest.approx(3e-12, rel=0.2)
    assert found.dielectric_tau_s == pytest.approx(15.0, rel=0.3)
    assert found.capacitance_F == pytest.approx(150e-12, rel=0.01)
    assert abs(found.conductance_S - 1e-12) < 4 * found.conductance_sigma_S


def test_readings_that_are_no_numbers_are_left_out():
    t, v, i = simulate(2, capacitance_F=150e-12, leak_ohm=1e12)
    whole = fit(t, v, i)
    i[::17] = np.nan
    v[5::23] = np.inf
    found = fit(t, v, i)
    assert abs(found.capacitance_F - whole.capacitance_F) < 4 * whole.capacitance_sigma_F


def test_noise_beyond_the_stated_widens_the_uncertainty():
    t, v, i = simulate(3, capacitance_F=150e-12, leak_ohm=1e12)
    quiet = fit(t, v, i)
    loud = fit(t, v, i + np.random.default_rng(3).normal(0, 8e-14, len(i)))
    assert loud.chi2 > 20
    assert loud.conductance_sigma_S > 4 * quiet.conductance_sigma_S


@pytest.mark.parametrize("count", [0, 1, 49])
def test_too_few_readings_are_refused(count):
    t, v, i = simulate(4, capacitance_F=150e-12, leak_ohm=1e12)
    rows = slice(330, 330 + count)
    with pytest.raises(HolderNotCalibrated, match=f"{count} readings .* are no calibration"):
        fit(t[rows], v[rows], i[rows])


def test_readings_without_a_step_are_refused():
    t = np.arange(200) * READ_S
    with pytest.raises(HolderNotCalibrated, match="a step of voltage"):
        fit(t, np.full(200, 2.0), np.zeros(200))


def test_a_voltage_that_is_never_steady_is_refused():
    t, v, i = simulate(5, capacitance_F=150e-12, leak_ohm=1e12)
    with pytest.raises(HolderNotCalibrated, match="too unsteady"):
        fit(t, v + np.random.default_rng(5).normal(0, 1.0, len(v)), i)


def test_short_stretches_between_corners_are_left_out():
    t, v, i = simulate(5, capacitance_F=150e-12, leak_ohm=1e12)
    # Two jumps close to each other leave a few readings between them.
    v[-40] += 0.5
    v[-29] += 0.5
    found = fit(t, v, i)
    assert found.capacitance_F == pytest.approx(150e-12, rel=0.02)


def test_the_staircase_goes_up_and_comes_back():
    steps = staircase()
    levels = [step.voltage_V for step in steps]
    assert levels == levels[::-1]
    assert levels[0] == 0.0
    assert max(levels) == 4.0
    assert all(step.hold_s > 0 for step in steps)
