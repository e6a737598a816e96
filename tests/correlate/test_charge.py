"""The ledger, the Faraday balance, and velocities: true, with honest sigmas."""

import math

import numpy as np
import pytest

from correlate.faraday import faraday_balance
from correlate.kinematics import mean_velocity, memory_factor, windowed_velocity
from correlate.ledger import Accuracy, Holder, charge_ledger, slow_voltage
from correlate.line import weighted_line

N, STEP_S = 2000, 0.05
T_NS = (np.arange(N) * STEP_S * 1e9).astype(np.int64) + 10**15
SECONDS = np.arange(N) * STEP_S
ACCURACY = Accuracy(gain_ratio=0.0015, offset_A=30e-15)


def holder(rng=None, **changes):
    values = {
        "capacitance_F": 150e-12,
        "capacitance_sigma_F": 1e-12,
        "conductance_S": 1e-12,
        "conductance_sigma_S": 1e-14,
        "dielectric_F": 3e-12,
        "dielectric_sigma_F": 0.3e-12,
        "dielectric_tau_s": 15.0,
        "offset_A": 10e-15,
        "offset_sigma_A": 2e-15,
    } | changes
    if rng is not None:
        for name in ("capacitance", "conductance", "dielectric", "offset"):
            unit = {"capacitance": "F", "conductance": "S", "dielectric": "F", "offset": "A"}
            key = f"{name}_{unit[name]}"
            values[key] += rng.normal() * values[f"{name}_sigma_{unit[name]}"]
    return Holder(**values)


def experiment(rng=None):
    """A smooth voltage and an ionic current; what the instrument then measures."""
    voltage = 3.9 + 0.05 * np.tanh((SECONDS - 20) / 5) + 0.02 * np.sin(SECONDS / 9)
    ionic = 20e-12 * np.exp(-(((SECONDS - 50) / 40) ** 2))
    known = holder()
    slow = slow_voltage(SECONDS, voltage, known.dielectric_tau_s, None)
    current = (
        ionic
        + known.capacitance_F * np.gradient(voltage, SECONDS)
        + known.conductance_S * voltage
        + known.dielectric_F * (voltage - slow) / known.dielectric_tau_s
        + known.offset_A
    )
    if rng is not None:
        gain = rng.uniform(-1, 1) * ACCURACY.gain_ratio
        current = (current - known.offset_A) * (1 + gain) + known.offset_A
        current = current + rng.normal(0, 9e-15, N)
    true_C = np.trapezoid(ionic, SECONDS)
    return voltage, current, true_C


def book(voltage, current, known, accuracy=ACCURACY):
    return charge_ledger(
        T_NS,
        current,
        voltage,
        current_sigma_A=np.full(N, 9e-15),
        voltage_sigma_V=np.full(N, 50e-6),
        accuracy=accuracy,
        holder=known,
    )


def test_every_term_is_found_and_the_book_closes():
    voltage, current, true_C = experiment()
    columns = book(voltage, current, holder()).columns
    assert columns["ionic"][-1] == pytest.approx(true_C, rel=1e-3)
    assert columns["leak"][-1] == pytest.approx(1e-12 * np.trapezoid(voltage, SECONDS))
    assert columns["capacitive"][-1] == pytest.approx(150e-12 * (voltage[-1] - voltage[0]))
    total = sum(columns[t] for t in ("ionic", "capacitive", "leak", "dielectric"))
    assert np.allclose(total, columns["instrument"], rtol=0, atol=1e-20)
    assert columns["instrument"][-1] > 1.2 * true_C


def test_the_claimed_sigma_of_the_ionic_charge_is_honest():
    pulls = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        voltage, current, true_C = experiment(rng)
        columns = book(voltage, current, holder(rng)).columns
        pulls.append((columns["ionic"][-1] - true_C) / columns["ionic_sigma"][-1])
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.3


def test_without_a_calibration_the_unknown_is_not_zero():
    voltage, current, _ = experiment()
    ledger = book(voltage, current, None)
    for term in ("ionic", "capacitive", "leak", "dielectric"):
        assert np.all(np.isnan(ledger.columns[term]))
        assert np.all(np.isnan(ledger.columns[f"{term}_sigma"]))
    assert np.isfinite(ledger.columns["instrument"][-1])
    assert ledger.columns["instrument_sigma"][-1] >= 30e-15 / math.sqrt(3) * SECONDS[-1] * 0.99
    assert "not measured" in ledger.beam_status
    assert np.all(ledger.columns["beam"] == 0)


def test_a_current_that_no_meter_read_has_no_zero():
    voltage = np.full(N, 3.9)
    current, told = np.zeros(N), np.ones(N, bool)
    current[N // 2 :] = 20e-12
    known = holder(conductance_S=0.0, offset_A=1e-12)
    plain = book(voltage, current, known).columns
    ledger = charge_ledger(
        T_NS,
        current,
        voltage,
        current_sigma_A=np.full(N, 9e-15),
        voltage_sigma_V=np.full(N, 50e-6),
        accuracy=ACCURACY,
        holder=known,
        told=told,
    ).columns
    true_C = np.trapezoid(current, SECONDS)
    assert ledger["ionic"][-1] == pytest.approx(true_C, rel=1e-9)
    assert plain["ionic"][-1] == pytest.approx(true_C - 1e-12 * SECONDS[-1], rel=1e-9)
    # An open cell has no current at all; a source is true within its data sheet.
    random_C = plain["instrument_sigma"][N // 2 - 1]
    assert ledger["instrument_sigma"][N // 2 - 1] < random_C
    zero_C = 30e-15 / math.sqrt(3) * SECONDS[-1] / 2
    assert ledger["instrument_sigma"][-1] > zero_C * 0.99


def test_readings_that_are_not_numbers_are_bridged():
    voltage, current, true_C = experiment()
    current[100:105] = np.nan
    voltage[500] = np.inf
    assert book(voltage, current, holder()).columns["ionic"][-1] == pytest.approx(true_C, rel=2e-3)
    blind = book(voltage, np.full(N, np.nan), holder())
    assert np.isnan(blind.columns["ionic"][-1])


def test_a_step_of_the_source_is_uncertain_by_when_it_stood_between_two_readings():
    current = np.where(SECONDS < 50, 0.0, 30e-12)
    columns = book(np.full(N, 3.9), current, holder(offset_sigma_A=0.0)).columns
    before, after = (
        np.searchsorted(SECONDS, 49.9),
        np.searchsorted(SECONDS, 50.2),
    )
    growth = columns["instrument_sigma"][after] - columns["instrument_sigma"][before]
    assert growth > 0.5 * 30e-12 * STEP_S / math.sqrt(12)


def test_an_empty_record_has_an_empty_ledger():
    none = np.zeros(0)
    ledger = charge_ledger(
        np.zeros(0, np.int64),
        none,
        none,
        current_sigma_A=none,
        voltage_sigma_V=none,
        accuracy=ACCURACY,
        holder=holder(),
    )
    assert len(ledger.columns["ionic"]) == 0


def test_faraday_balance_finds_the_slope_and_what_the_geometry_expects():
    rng = np.random.default_rng(1)
    charge = np.linspace(0, 3e-9, 400)
    sigma = np.full(400, 0.8e-9)
    position = 60e-9 + 40.0 * charge + rng.normal(0, 0.8e-9, 400)
    position[7] = np.nan
    found = faraday_balance(charge, position, sigma, charge_scale_sigma=0.002, expected_m_C=40.0)
    assert found.n == 399
    assert abs(found.ratio - 1) < 3 * found.ratio_sigma
    assert 0.002 < found.ratio_sigma < 0.01
    with pytest.raises(ValueError, match="too few"):
        faraday_balance(
            charge[:2], position[:2], sigma[:2], charge_scale_sigma=0.0, expected_m_C=1.0
        )


def test_the_depth_of_a_lamella_is_in_a_balance_where_it_is_known_how_surely():
    charge = np.linspace(0, 3e-9, 400)
    sigma = np.full(400, 0.8e-9)
    without, known = (
        faraday_balance(
            charge,
            60e-9 + 41.0 * charge,
            sigma,
            charge_scale_sigma=0.002,
            expected_m_C=40.0,
            depth_scale_sigma=depth,
        )
        for depth in (math.nan, 0.05)
    )
    assert known.ratio_sigma_depth == pytest.approx(0.05 * 41 / 40)
    assert known.ratio_sigma == pytest.approx(
        math.hypot(known.ratio_sigma_images, known.ratio_sigma_charge, known.ratio_sigma_depth)
    )
    assert math.isnan(without.ratio_sigma_depth)
    assert without.ratio_sigma == pytest.approx(
        math.hypot(known.ratio_sigma_images, known.ratio_sigma_charge)
    )
    assert without.slope_sigma_m_C == known.slope_sigma_m_C


def test_velocity_in_a_window_and_over_a_step_have_honest_sigmas():
    pulls = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        t_ns = np.sort(rng.integers(0, 20 * 10**9, 100))
        sigma = rng.uniform(0.5e-9, 1.5e-9, 100)
        position = 1e-9 * t_ns / 1e9 + sigma * rng.standard_normal(100)
        v, v_sigma = mean_velocity(t_ns, position, sigma, from_ns=0, to_ns=20 * 10**9)
        pulls.append((v - 1e-9) / v_sigma)
    assert 0.7 < np.sqrt(np.mean(np.square(pulls))) < 1.2
    velocity, error = windowed_velocity(t_ns, position, sigma, 8.0)
    middle = slice(30, 70)
    assert np.all(np.abs(velocity[middle] - 1e-9) < 5 * error[middle])


def test_velocity_needs_three_rows():
    t_ns = np.array([0, 10**9, 2 * 10**9])
    values = np.array([0.0, np.nan, 1.0])
    velocity, _ = windowed_velocity(t_ns, values, np.ones(3), 10.0)
    assert np.all(np.isnan(velocity))
    assert math.isnan(mean_velocity(t_ns, values, np.ones(3), from_ns=0, to_ns=10**10)[0])
    assert len(windowed_velocity(t_ns[:0], values[:0], values[:0], 1.0)[0]) == 0


def test_memory_widens_and_white_noise_does_not():
    rng = np.random.default_rng(0)
    white = rng.standard_normal(400)
    slow = np.convolve(white, np.ones(20), mode="same")
    assert memory_factor(white) < 1.4
    assert memory_factor(slow) > 2.5
    assert memory_factor(np.zeros(20)) == 1.0
    assert memory_factor(white[:5]) == 1.0


def test_a_line_through_too_little():
    with pytest.raises(ValueError, match="no line"):
        weighted_line(np.ones(1), np.ones(1), np.ones(1))
    flat = weighted_line(np.ones(3), np.arange(3.0), np.ones(3))
    assert math.isinf(flat.slope_sigma)


# --- a held voltage that is moved ------------------------------------------------------------


def staircase(step_V, every):
    """A sweep of a held voltage on a resistive cell; the ammeter never sees the jumps."""
    level = 3.9 + step_V * (np.arange(N) // every)
    moved = np.zeros(N)
    moved[1:] = np.diff(level)
    known = holder(dielectric_F=0.0, dielectric_sigma_F=0.0)
    ionic = (level - 3.89) / 2e9
    current = ionic + known.conductance_S * level + known.offset_A
    # The level moves right after a reading: the new current holds for the whole interval.
    true_C = np.cumsum(ionic[1:] * STEP_S)[-1]
    return level, current, moved, known, true_C


@pytest.mark.parametrize(("step_V", "every"), [(1e-3, 20), (5e-3, 100)])
def test_the_charge_of_jumps_that_no_reading_saw_is_added(step_V, every):
    level, current, moved, known, true_C = staircase(step_V, every)

    def ionic(moved_V):
        found = charge_ledger(
            T_NS,
            current,
            level,
            current_sigma_A=np.full(N, 9e-15),
            voltage_sigma_V=np.full(N, 50e-6),
            accuracy=ACCURACY,
            holder=known,
            moved_V=moved_V,
        ).columns
        return found["ionic"][-1], found["ionic_sigma"][-1]

    value_C, sigma_C = ionic(moved)
    assert abs(value_C - true_C) < 2 * sigma_C
    assert sigma_C < 0.02 * true_C
    blind_C, _ = ionic(None)
    jumps_C = known.capacitance_F * (level[-1] - level[0])
    assert blind_C == pytest.approx(value_C - jumps_C)


def test_large_jumps_and_sweeps_are_less_certain():
    sigmas = []
    for step_V, every in ((1e-3, 20), (5e-3, 100)):
        level, current, moved, known, _ = staircase(step_V, every)
        for moved_V in (None, moved):
            found = charge_ledger(
                T_NS,
                current,
                level,
                current_sigma_A=np.full(N, 9e-15),
                voltage_sigma_V=np.full(N, 50e-6),
                accuracy=ACCURACY,
                holder=known,
                moved_V=moved_V,
            )
            sigmas.append(found.columns["ionic_sigma"][-1])
    assert sigmas[1] > sigmas[0]
    assert sigmas[3] > sigmas[1]
