"""Amplitudes and impedances against circuits whose impedance is known."""

import numpy as np
import pytest

from correlate.impedance import (
    Amplitudes,
    Impedance,
    TooFewReadings,
    fit_amplitudes,
    impedance,
    without_delay,
    without_holder,
)

FREQUENCY_HZ = np.array([1.0, 2.0, 3.0, 5.0, 7.0, 10.0]) * 0.01
R0, R1, C1 = 8e9, 20e9, 150e-12


def z_of(frequency_Hz):
    return R0 + R1 / (1 + 2j * np.pi * frequency_Hz * R1 * C1)


def signals(seed, *, noise_V=0.0, noise_A=0.0, red=0.0, duration_s=300.0, every_s=0.05):
    """A voltage and the current that a known circuit answers it with, on their own times."""
    rng = np.random.default_rng(seed)
    t_s = np.arange(0, duration_s, every_s) + rng.uniform(0, every_s / 4, int(duration_s / every_s))
    phase = rng.uniform(0, 2 * np.pi, len(FREQUENCY_HZ))
    v_hat = 2e-3 * np.exp(1j * phase)
    i_hat = v_hat / z_of(FREQUENCY_HZ)

    def wave(t_s, hat):
        return np.real(np.exp(2j * np.pi * np.outer(t_s, FREQUENCY_HZ)) @ hat)

    late_s = t_s + 0.02
    voltage = 3.9 + 1e-4 * t_s / 300 + wave(t_s, v_hat) + noise_V * rng.standard_normal(len(t_s))
    current = 2e-14 - 1e-18 * t_s**2 / 300 + wave(late_s, i_hat)
    current += noise_A * rng.standard_normal(len(t_s))
    current += red * np.cumsum(rng.standard_normal(len(t_s)))
    return t_s, voltage, late_s, current


def measured(seed, **options):
    t_s, voltage, late_s, current = signals(seed, **options)
    return impedance(
        fit_amplitudes(t_s, voltage, FREQUENCY_HZ), fit_amplitudes(late_s, current, FREQUENCY_HZ)
    )


def test_a_circuit_without_noise_is_found_though_it_drifts():
    found = measured(1)
    assert found.z_ohm == pytest.approx(z_of(FREQUENCY_HZ), rel=1e-6)


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize("red", [0.0, 1e-16])
def test_the_stated_uncertainty_is_the_spread_of_the_error(red):
    pulls = []
    for seed in range(60):
        found = measured(seed, noise_V=5e-5, noise_A=5e-15, red=red)
        error = (found.z_ohm - z_of(FREQUENCY_HZ)) / found.z_sigma_ohm
        pulls += [*error.real, *error.imag]
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1.0, abs=0.2)


def test_rows_that_are_not_finite_are_left_out():
    t_s, voltage, late_s, current = signals(2)
    voltage[5], current[7] = np.nan, np.inf
    found = impedance(
        fit_amplitudes(t_s, voltage, FREQUENCY_HZ), fit_amplitudes(late_s, current, FREQUENCY_HZ)
    )
    assert found.z_ohm == pytest.approx(z_of(FREQUENCY_HZ), rel=1e-6)


def test_too_few_readings_are_refused():
    t_s = np.arange(20.0)
    with pytest.raises(TooFewReadings, match="20 readings do not determine 6 frequencies; 23 are"):
        fit_amplitudes(t_s, t_s, FREQUENCY_HZ)


def test_a_current_that_drowns_in_noise_gives_no_impedance():
    found = measured(3, noise_A=1e-9)
    assert np.all(np.isnan(found.z_ohm))
    assert np.all(np.isnan(found.z_sigma_ohm))


def test_the_holder_is_taken_out_with_its_uncertainty():
    stray_F, leak_S = 120e-12, 1e-13
    omega = 2 * np.pi * FREQUENCY_HZ
    z_ohm = 1 / (1 / z_of(FREQUENCY_HZ) + leak_S + 1j * omega * stray_F)
    pulls = []
    rng = np.random.default_rng(4)
    for _ in range(300):
        # The calibration is wrong by as much as it says.
        found = without_holder(
            Impedance(frequency_Hz=FREQUENCY_HZ, z_ohm=z_ohm, z_sigma_ohm=1e-3 * np.abs(z_ohm)),
            capacitance_F=stray_F + 1e-12 * rng.standard_normal(),
            capacitance_sigma_F=1e-12,
            conductance_S=leak_S + 1e-15 * rng.standard_normal(),
            conductance_sigma_S=1e-15,
        )
        pulls.append((found.z_ohm - z_of(FREQUENCY_HZ)) / found.z_sigma_ohm)
    # Across the direction of the error: C moves the admittance along the imaginary axis.
    assert np.median(np.abs(pulls)) < 1.2
    exact = without_holder(
        Impedance(frequency_Hz=FREQUENCY_HZ, z_ohm=z_ohm, z_sigma_ohm=1e-6 * np.abs(z_ohm)),
        capacitance_F=stray_F,
        capacitance_sigma_F=0.0,
        conductance_S=leak_S,
        conductance_sigma_S=0.0,
    )
    assert exact.z_ohm == pytest.approx(z_of(FREQUENCY_HZ), rel=1e-9)


def test_a_cell_that_the_holder_hides_is_not_known():
    omega = 2 * np.pi * FREQUENCY_HZ
    found = without_holder(
        Impedance(
            frequency_Hz=FREQUENCY_HZ,
            z_ohm=1 / (1j * omega * 1e-10),
            z_sigma_ohm=0.1 / (omega * 1e-10),
        ),
        capacitance_F=1e-10,
        capacitance_sigma_F=1e-12,
        conductance_S=0.0,
        conductance_sigma_S=0.0,
    )
    assert np.all(np.isnan(found.z_ohm))


def test_amplitudes_are_those_of_a_cosine():
    t_s = np.arange(0, 100, 0.1)
    found: Amplitudes = fit_amplitudes(
        t_s, 3 + 2 * np.cos(2 * np.pi * 0.1 * t_s + 0.5), np.array([0.1])
    )
    assert found.value[0] == pytest.approx(2 * np.exp(0.5j))


@pytest.mark.parametrize("delay_s", [0.022, 0.4])
def test_a_delay_of_the_current_is_taken_out_of_the_phase(delay_s):
    t_s, voltage, late_s, current = signals(1)
    z_ohm = z_of(FREQUENCY_HZ)
    # The current that is read now is the one of a while ago.
    late = impedance(
        fit_amplitudes(t_s, voltage, FREQUENCY_HZ),
        fit_amplitudes(late_s + delay_s, current, FREQUENCY_HZ),
    )
    found = without_delay(late, delay_s, 0.1 * delay_s)
    assert found.z_ohm == pytest.approx(z_ohm, rel=1e-6)
    assert np.max(np.abs(late.z_ohm / z_ohm - 1)) > 0.5 * delay_s
    turn = 2 * np.pi * FREQUENCY_HZ * 0.1 * delay_s
    assert found.z_sigma_ohm == pytest.approx(np.abs(z_ohm) * turn, rel=1e-3)
