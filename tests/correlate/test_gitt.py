"""Titrations: diffusivity against the slab in closed form, and a guard that says no."""

import math
from dataclasses import replace

import numpy as np
import pytest

from correlate.gitt import titrate
from correlate.gitt_guard import objections
from correlate.relaxation import relaxed
from correlate.scatter import excess
from correlate.slab import CannotFit, fit_slab, root_time, step_response, surface_charge
from correlate.titration import Pulse, Setting
from correlate.titration_bins import Readings, binned, history
from mocks.cell import Source
from mocks.film import FilmCell
from mocks.scenario import load
from tests.correlate.slabs import ALL_C, PER_HOUR_A, THICKNESS_M, series, titration

ACROSS_S = THICKNESS_M**2 / 1e-16
KNOWN = Setting(thickness_m=THICKNESS_M)


def one(level_A, share, setting=KNOWN, **options):
    """What the last pulse tells; the first 7 % of it are left out."""
    readings, pulses = titration(level_A, share, **options)
    window_s = 0.07 * (pulses[0].end_s - pulses[0].begin_s)
    return titrate(readings, pulses, replace(setting, settling_s=window_s))[-1]


# --- the slab ------------------------------------------------------------------------------------


def test_the_response_is_that_of_the_series():
    x = np.array([1e-3, 0.01, 0.1, 0.2999, 0.3001, 0.5, 1.0, 3.0])
    assert step_response(x) == pytest.approx(series(x, terms=20_000), rel=3e-6)
    assert step_response(np.array([1e-9])) == pytest.approx(2 * math.sqrt(1e-9 / math.pi))
    assert np.all(step_response(np.array([-1.0, 0.0])) == 0.0)


def test_any_current_is_a_sum_of_steps():
    edges_s = np.array([0.0, 100.0, 250.0, 400.0])
    charge_C = np.array([0.0, 3e-12, 3e-12, -1e-12])
    at_s = np.array([50.0, 100.0, 300.0, 400.0, 4e4])
    found = surface_charge(at_s, edges_s, charge_C, ACROSS_S)
    by_hand = np.zeros(len(at_s))
    for current_A, a, b in ((3e-14, 0.0, 100.0), (-4e-12 / 150, 250.0, 400.0)):
        for sign, switch_s in ((1, a), (-1, b)):
            by_hand += sign * current_A * ACROSS_S * series((at_s - switch_s) / ACROSS_S)
    assert found == pytest.approx(by_hand, rel=1e-3)
    assert found[-1] == pytest.approx(charge_C[-1], rel=1e-6)


def test_the_root_of_time_is_that_of_a_constant_current():
    edges_s = np.array([10.0, 11.0, 14.0, 30.0])
    at_s = np.array([12.0, 30.0])
    assert root_time(at_s, edges_s, np.ones(3)) == pytest.approx(np.sqrt(at_s - 10.0))
    late = root_time(at_s, edges_s, np.array([0.0, 1.0, 1.0]))
    assert late == pytest.approx(np.sqrt(at_s - 11.0))


def test_what_cannot_be_fitted_is_refused():
    few = np.arange(5.0)
    none = np.zeros((5, 0))
    with pytest.raises(CannotFit, match="5 readings"):
        fit_slab(few, few, few + 1, few, (few, few), none, guess_s=100.0)
    t_s = np.arange(200.0)
    charge_C = np.clip(t_s - 50.0, 0.0, 50.0)
    with pytest.raises(CannotFit, match="no diffusivity near"):
        # A voltage that follows the charge at once has no diffusion in it.
        fit_slab(
            t_s,
            3.9 + charge_C,
            np.full(200, 1e-6),
            np.gradient(charge_C),
            (t_s, charge_C),
            np.zeros((200, 0)),
            guess_s=1e5,
        )


# --- groups and rests ----------------------------------------------------------------------------


def test_groups_widen_and_keep_the_means():
    t_s = np.arange(0.0, 100.0, 0.1)
    readings = Readings(t_s=t_s, volts=2 * t_s, sigma_V=t_s * 0 + 1e-3, charge_C=-t_s)
    found = binned(readings, 10.0, 60.0)
    assert found.volts == pytest.approx(2 * found.t_s)
    assert found.charge_C == pytest.approx(-found.t_s)
    assert np.diff(found.t_s)[-1] > 5 * np.diff(found.t_s)[0]
    assert found.sigma_V[-1] < found.sigma_V[0] == pytest.approx(1e-3)
    assert len(binned(readings, 200.0, 300.0).t_s) == 0
    assert 10.0 < found.t_s[0] < 10.2
    times_s, charge_C = history(readings, (10.0, 60.0), (found,))
    assert times_s[0] == 0.0
    assert np.all(np.diff(times_s) > 0)
    assert charge_C == pytest.approx(-times_s)


@pytest.mark.parametrize("leak_A", [0.0, -2e-14])
def test_a_rest_is_extrapolated_and_the_leak_taken_out(leak_A):
    t_s = np.linspace(0.0, 100.0, 4000)
    slope_V_C = 1e9
    volts = 3.9 + 0.01 * np.exp(-t_s / 30.0) + slope_V_C * leak_A * (t_s - 100.0)
    readings = Readings(t_s=t_s, volts=volts, sigma_V=t_s * 0 + 1e-6, charge_C=leak_A * t_s)
    rest = relaxed(readings, 0.0, 100.0, slope_V_C)
    assert rest.volts == pytest.approx(3.9, abs=2e-6)
    assert abs(rest.remaining_V) == pytest.approx(0.01 * math.exp(-90 / 30), rel=0.05)
    assert rest.sigma_V > 0.1 * abs(rest.remaining_V)


def test_a_rest_that_is_over_is_left_alone():
    t_s = np.linspace(0.0, 100.0, 400)
    volts = 3.9 + 1e-5 * np.random.default_rng(1).standard_normal(400)
    readings = Readings(t_s=t_s, volts=volts, sigma_V=t_s * 0 + 1e-5, charge_C=t_s * 0)
    rest = relaxed(readings, 0.0, 100.0, 0.0)
    assert rest.remaining_V == 0.0
    assert rest.sigma_V == pytest.approx(1e-5 / math.sqrt(80), rel=0.05)
    with pytest.raises(ValueError, match="too few readings"):
        relaxed(readings, 200.0, 300.0, 0.0)


# --- the table of errors -------------------------------------------------------------------------

# D over the true one by the formula, for pulses of 0.004, 0.04, 0.1 and 0.4 of L2/D that
# discharge from x = 0.75: straight open-circuit voltage, and that of LiCoO2 at three rates.
TABLE = {
    (0.5, 0.1): (1.000, 1.000, 1.000, 0.949),
    (None, 0.01): (1.005, 1.013, 1.019, 0.976),
    (None, 0.1): (1.05, 1.14, 1.21, 1.26),
    (None, 1.0): (1.57, 3.67, 6.50, 0.000),
}
SHARES = (0.004, 0.04, 0.1, 0.4)
CASES = [(*key, s, r) for key, row in TABLE.items() for s, r in zip(SHARES, row, strict=True)]


@pytest.mark.parametrize(("straight_V", "rate", "share", "ratio"), CASES)
def test_the_formula_errs_as_it_is_known_to_and_the_guard_says_so(straight_V, rate, share, ratio):
    found = one(-rate * PER_HOUR_A, share, straight_V=straight_V)
    got = found.diffusivity_m2_s / 1e-16
    assert got == pytest.approx(ratio, rel=0.05, abs=1e-3)
    if straight_V is not None:
        assert got == pytest.approx(ratio, abs=5e-3)
    if found.valid:
        assert got == pytest.approx(1.0, abs=0.05)
    # What is right is not refused, unless the pulse is longer than the guard allows.
    assert found.valid == (straight_V is not None or rate == 0.01) * (share <= 0.1)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_fit_is_right_where_the_formula_is_not(rate):
    for share in SHARES:
        assert one(-rate * PER_HOUR_A, share).fit_m2_s == pytest.approx(1e-16, rel=5e-3)


def test_resistance_step_and_slope_are_those_of_the_film():
    level_A = 0.1 * PER_HOUR_A
    found = one(level_A, 0.04, straight_V=0.5, ohm=7e9)
    assert found.ohm == pytest.approx(7e9, rel=1e-3)
    assert found.charge_C == pytest.approx(level_A * 100.0, rel=1e-3)
    assert found.step_V == pytest.approx(0.5 * found.charge_C / ALL_C, rel=1e-3)
    slope = 0.5 * level_A / ALL_C * math.sqrt(4 * ACROSS_S / math.pi)
    assert found.root_slope == pytest.approx(slope, rel=1e-3)
    assert found.duration_s == pytest.approx(100.0)
    assert found.current_A == pytest.approx(level_A, rel=1e-3)


def test_what_earlier_pulses_left_behind_is_known():
    options = {"straight_V": 0.5, "rest": 0.15, "noise_V": 1e-6, "pulses": 3}
    readings, pulses = titration(PER_HOUR_A / 10, 0.08, **options)
    # The first two are part of the record, and not of what is asked.
    (found,) = titrate(readings, pulses[2:], replace(KNOWN, settling_s=14.0))
    assert found.fit_m2_s == pytest.approx(1e-16, rel=0.03)
    assert found.fit_scatter < 1.3


# --- honest uncertainties ------------------------------------------------------------------------


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_stated_uncertainty_is_the_spread_of_the_error():
    formula, fit = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        diffusivity = 10 ** rng.uniform(-16.3, -15.3)
        share = rng.uniform(0.02, 0.09)
        level_A = rng.choice([-1, 1]) * ALL_C * rng.uniform(0.004, 0.02)
        level_A /= share * THICKNESS_M**2 / diffusivity
        sigma_m = 5e-9 if seed % 3 == 0 else 0.0
        found = one(
            level_A,
            share,
            # The thickness is believed wrong by as much as is said of it.
            Setting(
                thickness_m=THICKNESS_M + sigma_m * rng.standard_normal(),
                thickness_sigma_m=sigma_m,
            ),
            diffusivity=diffusivity,
            rest=rng.uniform(0.8, 2.0),
            straight_V=rng.uniform(0.3, 0.8),
            noise_V=10 ** rng.uniform(-5.0, -4.0),
            seed=seed,
            points=200,
        )
        formula.append((found.diffusivity_m2_s - diffusivity) / found.diffusivity_sigma_m2_s)
        fit.append((found.fit_m2_s - diffusivity) / found.fit_sigma_m2_s)
        assert found.valid, found.reasons
    assert np.sqrt(np.mean(np.square(formula))) == pytest.approx(1.0, abs=0.25)
    assert np.sqrt(np.mean(np.square(fit))) == pytest.approx(1.0, abs=0.25)
    assert abs(np.mean(formula)) < 0.4
    assert abs(np.mean(fit)) < 0.4


def test_an_uncertain_zero_of_the_current_is_in_the_uncertainty():
    sure = one(PER_HOUR_A / 50, 0.04, straight_V=0.5, noise_V=1e-5)
    level_A = PER_HOUR_A / 50
    unsure = Setting(thickness_m=THICKNESS_M, offset_sigma_A=0.01 * level_A)
    other = one(level_A, 0.04, unsure, straight_V=0.5, noise_V=1e-5)
    assert other.diffusivity_sigma_m2_s > 5 * sure.diffusivity_sigma_m2_s
    assert other.fit_sigma_m2_s > sure.fit_sigma_m2_s


def test_an_unknown_moment_of_switching_is_in_the_uncertainty():
    readings, (pulse,) = titration(PER_HOUR_A / 50, 0.04, straight_V=0.5, noise_V=1e-5)
    setting = replace(KNOWN, settling_s=7.0)
    (sure,) = titrate(readings, (pulse,), setting)
    (unsure,) = titrate(readings, (replace(pulse, clock_sigma_s=0.5),), setting)
    assert unsure.diffusivity_sigma_m2_s > 2 * sure.diffusivity_sigma_m2_s
    assert unsure.fit_sigma_m2_s > 2 * sure.fit_sigma_m2_s


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_guard_lets_pass_is_right():
    """Films of LiCoO2 at any state, any current, pulse, rest and noise."""
    passed = refused = 0
    for seed in range(40):
        rng = np.random.default_rng(1000 + seed)
        readings, pulses = titration(
            rng.choice([-1, 1]) * PER_HOUR_A * 10 ** rng.uniform(-2.0, -0.5),
            share := 10 ** rng.uniform(-2.3, -0.6),
            start=rng.uniform(0.1, 0.6),
            rest=rng.uniform(0.3, 2.0),
            noise_V=10 ** rng.uniform(-7.0, -5.0),
            seed=seed,
            points=200,
        )
        setting = replace(KNOWN, settling_s=0.05 * share * ACROSS_S)
        for found in titrate(readings, pulses, setting):
            if found.valid:
                assert found.diffusivity_m2_s == pytest.approx(1e-16, rel=0.05)
            passed, refused = passed + found.valid, refused + (not found.valid)
    assert passed >= 5
    assert refused >= 5


# --- a real cell about the film ------------------------------------------------------------------

LEVEL_A = 10e-12
PULSE_S, REST_S = 20.0, 200.0


def film_titration(seed, *, pulses=2, **changed):
    """A titration of the simulated film with stray capacitance, leak and noise."""
    p = replace(load("lco_solid_solution").cell, diffusivity_m2_s=1e-15, straight_V=0.6)
    p = replace(p, exchange_current_A=26e-12, **changed)
    cell, dt_s = FilmCell(p), 0.05
    rows, spans, t_s = [], [], 0.0

    def hold(seconds, level_A):
        nonlocal t_s
        for _ in range(round(seconds / dt_s)):
            cell.step(dt_s, Source(mode="current", level=level_A, clamp=4.9))
            t_s += dt_s
            rows.append((t_s, cell.voltage_V, cell.ion_C))

    hold(REST_S, 0.0)
    rest_s = 0.0
    for _ in range(pulses):
        begin_s = t_s
        hold(PULSE_S, LEVEL_A)
        end_s = t_s
        hold(REST_S, 0.0)
        spans.append(Pulse(rest_s=rest_s, begin_s=begin_s, end_s=end_s, rest_end_s=t_s))
        rest_s = end_s
    t, volts, charge_C = np.array(rows).T
    noise = 3e-5 * np.random.default_rng(seed).standard_normal(len(t))
    readings = Readings(
        t_s=t, volts=volts + noise, sigma_V=np.full(len(t), 3e-5), charge_C=charge_C
    )
    return readings, tuple(spans), Setting(thickness_m=THICKNESS_M, stray_F=p.stray_F)


@pytest.mark.parametrize("changed", [{}, {"stray_F": 30e-12}, {"leak_ohm": 3e12}])
def test_stray_capacitance_and_leak_do_not_deceive(changed):
    for found in titrate(*film_titration(1, **changed)):
        assert found.valid, found.reasons
        for value, sigma in (
            (found.diffusivity_m2_s, found.diffusivity_sigma_m2_s),
            (found.fit_m2_s, found.fit_sigma_m2_s),
        ):
            assert value == pytest.approx(1e-15, rel=0.03)
            assert abs(value - 1e-15) < 3.5 * sigma
        ohm = 0.43e9 + 2 * 0.025693 * math.asinh(LEVEL_A / 52e-12) / LEVEL_A
        assert found.ohm == pytest.approx(ohm, rel=0.02)
        assert abs(found.ohm - ohm) < 3 * found.ohm_sigma


def test_stray_capacitance_that_is_not_taken_out_deceives():
    readings, pulses, _ = film_titration(1)
    for found in titrate(readings, pulses, KNOWN):
        assert abs(found.diffusivity_m2_s - 1e-15) > 5e-17
        assert not found.valid


# --- the guard says no ---------------------------------------------------------------------------


def reasons_of(*args, **options):
    found = one(*args, **options)
    assert not found.valid
    return "; ".join(found.reasons)


def test_a_pulse_that_reaches_the_far_side_is_refused():
    assert "lasts 0.3" in reasons_of(PER_HOUR_A / 10, 0.3, straight_V=0.5)


def test_a_rest_that_is_too_short_is_refused_but_the_fit_still_knows():
    readings, pulses = titration(PER_HOUR_A / 10, 0.04, straight_V=0.5, rest=0.12, noise_V=1e-6)
    (found,) = titrate(readings, pulses, replace(KNOWN, settling_s=7.0))
    assert "rest was too short" in "; ".join(found.reasons)
    assert found.fit_m2_s == pytest.approx(1e-16, rel=0.1)
    assert abs(found.fit_m2_s - 1e-16) < 3 * found.fit_sigma_m2_s


def test_noise_that_hides_the_line_is_refused():
    assert "noise or a sharp bend hides" in reasons_of(
        PER_HOUR_A / 100, 0.004, straight_V=0.5, noise_V=1e-4
    )


def test_a_slope_that_differs_from_pulse_to_pulse_is_refused():
    readings, pulses = titration(-0.1 * PER_HOUR_A, 0.1, pulses=3)
    for found in titrate(readings, pulses, replace(KNOWN, settling_s=17.5)):
        assert "the pulse is too large" in "; ".join(found.reasons)


def test_a_voltage_that_goes_the_other_way_is_refused():
    readings, pulses = titration(PER_HOUR_A / 10, 0.04, straight_V=-0.5)
    (found,) = titrate(readings, pulses, replace(KNOWN, settling_s=7.0))
    assert found.reasons == ("the voltage does not move the way that the current drives it",)


def test_a_pulse_shorter_than_what_settles_is_refused():
    readings, pulses = titration(PER_HOUR_A / 10, 0.04, straight_V=0.5)
    for setting in (replace(KNOWN, settling_s=30.0), replace(KNOWN, stray_F=3e-9)):
        (found,) = titrate(readings, pulses, setting)
        assert "too much of a pulse of 100 s" in "; ".join(found.reasons)
        assert math.isnan(found.diffusivity_m2_s)


def test_a_charge_that_is_not_known_to_be_ionic_is_refused():
    assert "not known without an open-holder calibration" in reasons_of(
        PER_HOUR_A / 10, 0.04, replace(KNOWN, ionic=False), straight_V=0.5
    )


def test_too_few_readings_are_refused():
    readings, (pulse,) = titration(PER_HOUR_A / 10, 0.04, straight_V=0.5)
    cut = replace(pulse, rest_s=pulse.begin_s - 1e-6)
    (found,) = titrate(readings, (cut,), KNOWN)
    assert found.reasons == ("the rest before has 1 groups of readings only",)
    assert math.isnan(found.diffusivity_m2_s)


def test_a_transient_that_no_slab_explains_is_refused():
    readings, pulses = titration(PER_HOUR_A / 10, 0.04, straight_V=0.5)
    # A capacitor: what it has taken is there at once.
    capacitor = replace(readings, volts=3.9 + readings.charge_C / 1e-9)
    (found,) = titrate(capacitor, pulses, replace(KNOWN, settling_s=7.0))
    assert "the whole transient cannot be fitted" in "; ".join(found.reasons)
    assert math.isnan(found.fit_m2_s)


def test_two_answers_that_differ_are_refused():
    found = replace(
        one(PER_HOUR_A / 10, 0.04, straight_V=0.5), fit_m2_s=1.2e-16, fit_sigma_m2_s=1e-18
    )
    (reason,) = objections(found, 0.0, 0.0, (0.0, 0.0), THICKNESS_M**2)
    assert "the fit of the whole transient gives 1.2e-16 m2/s, the formula 1e-16" in reason


def test_what_neighbours_have_in_common_is_no_noise():
    assert excess(np.zeros(10), 8) == (0.0, 1.0)
    white = np.random.default_rng(1).standard_normal(4000)
    scatter, factor = excess(white, 4000)
    assert scatter == pytest.approx(1.0, abs=0.05)
    assert factor == pytest.approx(1.0, abs=0.1)
    _, factor = excess(np.sin(np.arange(4000) / 50), 4000)
    assert factor > 5


def test_a_rest_whose_end_was_not_stored_tells_nothing_and_says_so():
    readings, spans, setting = film_titration(1)
    first = spans[0]
    end = (readings.t_s > first.rest_end_s - 60.0) & (readings.t_s < first.rest_end_s - 1.0)
    left = Readings(**{name: getattr(readings, name)[~end] for name in readings.__slots__})
    found = titrate(left, spans, setting)
    # The second pulse has no drift to compare with.
    for each in found:
        assert not each.valid
        assert any("too few readings" in reason for reason in each.reasons)
    assert math.isnan(found[1].diffusivity_m2_s)
