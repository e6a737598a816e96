"""Delays of frames and currents against a code: right, as sure as they say, or refused."""

import numpy as np
import pytest

from sync.code_camera import fit_camera
from sync.code_current import beam_charge, fit_current
from sync.code_fit import compare_delays, delay_between
from sync.code_search import CodeNotFound
from tests.sync.code_bench import START_NS, Played

SOME = 8


def pulls(errors, sigmas):
    return np.asarray(errors) / np.asarray(sigmas)


@pytest.mark.parametrize("duty", [1.0, 0.5])
def test_a_camera_is_found_at_any_delay_and_is_as_good_as_the_bound(duty):
    errors, sigmas = [], []
    for seed in range(SOME):
        played = Played(seed)
        delay_s = float(played.rng.uniform(-30, 30))
        fit = fit_camera(*played.frames(delay_s, duty=duty), played.edges_ns)
        errors.append(fit.delay_s - delay_s)
        sigmas.append(fit.delay_sigma_s)
    bound_s = np.sqrt(duty) / (400 * 100 * np.sqrt(32))
    assert np.median(sigmas) < 1.5 * bound_s
    assert 0.4 < np.sqrt(np.mean(pulls(errors, sigmas) ** 2)) < 1.6


def test_a_currents_delay_time_constant_and_step_are_as_sure_as_they_say():
    found = []
    for seed in range(SOME):
        played = Played(seed)
        delay_s = float(played.rng.uniform(-3, 3))
        fit = fit_current(*played.current(delay_s), played.edges_ns)
        found.append(
            (
                (fit.delay_s - delay_s) / fit.delay_sigma_s,
                (fit.response_s - 0.005) / fit.response_sigma_s,
                (fit.amplitude - 1e-13) / fit.amplitude_sigma,
            )
        )
    assert np.all(np.sqrt(np.mean(np.square(found), axis=0)) < 1.7)
    assert np.all(np.std(found, axis=0) > 0.4)


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
def test_edges_that_scatter_are_common_to_both_and_cancel():
    errors, sigmas = [], []
    for seed in range(SOME):
        played = Played(seed, jitter_s=0.003)
        late = float(played.rng.uniform(-2, 2))
        camera = fit_camera(*played.frames(late), played.edges_ns)
        current = fit_current(*played.current(0.5, snr=30.0), played.edges_ns, edges_from=camera)
        both = delay_between(camera, current)
        errors.append(both.delay_s - (late - 0.5))
        sigmas.append(both.sigma_s)
        assert camera.jitter_s == pytest.approx(0.003, rel=0.5)
    # The mean of 32 edges that scatter by 3 ms is 0.5 ms off: none of it is in the difference.
    assert np.sqrt(np.mean(np.square(errors))) < 1.5e-4
    assert 0.4 < np.sqrt(np.mean(pulls(errors, sigmas) ** 2)) < 1.7


def test_a_single_record_pays_for_the_scatter():
    played = Played(4, jitter_s=0.003)
    camera = fit_camera(*played.frames(0.1), played.edges_ns)
    assert camera.delay_sigma_s == pytest.approx(0.003 / np.sqrt(32), rel=0.5)
    assert abs(camera.delay_s - 0.1) < 4 * camera.delay_sigma_s
    seen_s = (camera.seen_ns - START_NS) / 1e9 - 0.1
    assert np.median(np.abs(seen_s - played.true_s)) < 1e-4
    given = fit_camera(*played.frames(0.1), played.edges_ns, jitter_s=0.003)
    assert given.jitter_s == 0.003


def test_the_rise_of_the_blanker_is_found_and_does_not_move_the_delay():
    played = Played(5)
    fit = fit_camera(*played.frames(0.2, rise_s=0.004), played.edges_ns)
    assert fit.response_s == pytest.approx(0.004, abs=5 * fit.response_sigma_s + 1e-4)
    assert fit.response_sigma_s < 0.001
    assert abs(fit.delay_s - 0.2) < 5 * fit.delay_sigma_s
    known = fit_camera(*played.frames(0.2, rise_s=0.004), played.edges_ns, rise_s=0.004)
    assert (known.response_s, known.response_sigma_s) == (0.004, 0.0)


def test_a_beam_that_drifts_and_frames_that_are_no_numbers_do_no_harm():
    played = Played(6)
    start, stop, sums = played.frames(1.5, drift=0.3)
    sums[::50] = np.nan
    fit = fit_camera(start, stop, sums, played.edges_ns)
    assert abs(fit.delay_s - 1.5) < 5 * fit.delay_sigma_s
    assert fit.delay_sigma_s < 1e-5


def test_a_free_running_clock_needs_a_rate():
    played = Played(7)
    frames = played.frames(0.3, rate=2e-4, snr=1000.0)
    fit = fit_camera(*frames, played.edges_ns, with_rate=True, jitter_s=0.0)
    assert fit.rate == pytest.approx(2e-4, abs=5 * fit.rate_sigma)
    current = fit_current(*played.current(0.3), played.edges_ns)
    both = delay_between(fit, current)
    assert both.rate_sigma > 0


def test_rows_of_a_rolling_shutter_add_up():
    offsets_s = np.linspace(0, 0.008, 8)
    played = Played(8, chip_s=0.0437)
    start, stop, rows = played.rows(0.7, offsets_s)
    offsets_ns = np.round(offsets_s * 1e9).astype(np.int64)
    by_row = fit_camera(start, stop, rows, played.edges_ns, row_offset_ns=offsets_ns)
    profile = np.linspace(0.5, 1.5, 8)
    whole = fit_camera(
        start,
        stop,
        rows.mean(axis=1),
        played.edges_ns,
        row_offset_ns=offsets_ns,
        row_weight=profile,
    )
    blind = fit_camera(start, stop, rows.mean(axis=1), played.edges_ns, rise_s=0.0)
    assert abs(by_row.delay_s - 0.7) < 5 * by_row.delay_sigma_s
    assert abs(whole.delay_s - 0.7) < 5 * whole.delay_sigma_s + 2e-5
    # Who does not know of the shutter is late by half of it.
    assert blind.delay_s - 0.7 == pytest.approx(-0.0046, abs=0.002)


def test_the_sign_of_the_beams_current_is_free():
    played = Played(9)
    fit = fit_current(*played.current(0.1, step_A=-2e-13), played.edges_ns)
    assert fit.amplitude == pytest.approx(-2e-13, abs=5 * fit.amplitude_sigma)
    assert abs(fit.delay_s - 0.1) < 5 * fit.delay_sigma_s


def test_a_time_constant_that_is_known_makes_the_delay_surer():
    played = Played(10)
    record = played.current(0.1)
    free = fit_current(*record, played.edges_ns, tau_s=0.004)
    fixed = fit_current(*record, played.edges_ns, tau_s=0.005, tau_sigma_s=0.0)
    assert fixed.delay_sigma_s < 0.85 * free.delay_sigma_s
    assert fixed.response_sigma_s == 0.0
    about = fit_current(*record, played.edges_ns, tau_s=0.0052, tau_sigma_s=0.0002)
    assert fixed.delay_sigma_s < about.delay_sigma_s < 0.95 * free.delay_sigma_s
    assert abs(about.response_s - 0.005) < 3 * about.response_sigma_s < 0.0006
    assert abs(about.delay_s - 0.1) < 4 * about.delay_sigma_s
    for wrong in ({"tau_sigma_s": 0.1}, {"tau_s": 0.005, "tau_sigma_s": -1.0}):
        with pytest.raises(ValueError, match="give one above 0, and its sigma"):
            fit_current(*record, played.edges_ns, **wrong)


def test_a_record_without_the_code_is_refused():
    played = Played(11)
    start, stop, sums = played.frames(0.0)
    steady = 1e6 + 1e4 * played.rng.standard_normal(len(sums))
    with pytest.raises(CodeNotFound):
        fit_camera(start, stop, steady, played.edges_ns)
    t_ns, aperture, value = played.current(0.0)
    noise = 1e-14 * played.rng.standard_normal(len(value))
    with pytest.raises(CodeNotFound):
        fit_current(t_ns, aperture, noise, played.edges_ns)
    with pytest.raises(CodeNotFound, match="nothing"):
        fit_camera(start, stop, np.full(len(sums), 7.0), played.edges_ns)
    with pytest.raises(CodeNotFound, match="too few"):
        fit_camera(start[:9], stop[:9], sums[:9], played.edges_ns)


def test_a_code_that_came_twice_is_refused_unless_about_when_is_known():
    first, second = Played(12), Played(12)
    one, two = first.frames(0.0), second.frames(8.0)
    frames = [np.concatenate([a, b]) for a, b in zip(one, two, strict=True)]
    with pytest.raises(CodeNotFound, match="may stand at"):
        fit_camera(*frames, first.edges_ns)
    fit = fit_camera(*frames, first.edges_ns, search_s=(7.0, 9.0))
    assert abs(fit.delay_s - 8.0) < 5 * fit.delay_sigma_s


def test_fits_of_different_codes_are_not_compared():
    one, other = Played(1), Played(1, chip_s=0.0213)
    camera = fit_camera(*one.frames(0.0), one.edges_ns)
    current = fit_current(*other.current(0.0), other.edges_ns)
    with pytest.raises(ValueError, match="different codes"):
        delay_between(camera, current)
    with pytest.raises(ValueError, match="another code"):
        fit_current(*other.current(0.0), other.edges_ns, edges_from=camera)


@pytest.fixture(scope="module")
def coded():
    played = Played(13)
    camera = fit_camera(*played.frames(0.002), played.edges_ns)
    return delay_between(camera, fit_current(*played.current(0.0, snr=30.0), played.edges_ns))


def test_code_and_network_agree_or_say_how_surely_they_do_not(coded):
    same = compare_delays(coded, network_s=0.002, network_sigma_s=2e-5)
    assert same.agrees
    assert "agree within" in same.text
    hidden = compare_delays(coded, network_sigma_s=2e-5, network_bound_s=0.0025)
    assert hidden.agrees
    assert "asymmetric" in hidden.text
    apart = compare_delays(coded, network_sigma_s=2e-5, network_bound_s=5e-4)
    assert not apart.agrees
    assert apart.sigmas > 5
    assert apart.difference_s == pytest.approx(0.002, abs=2e-4)


@pytest.mark.parametrize("beam_A", [1e-13, 2e-12])
def test_the_beams_charge_is_parted_from_the_ionic(beam_A):
    played = Played(14, chip_s=5.0, order=7, jitter_s=0.01)
    # At a held voltage the instrument gives less where the beam gives more.
    t_ns, aperture, value = played.current(
        0.0, fs=2.0, tau_s=0.6, step_A=-beam_A, snr=beam_A / 2e-14
    )
    fit = fit_current(t_ns, aperture, value, played.edges_ns, tau_s=0.6)
    assert -fit.amplitude == pytest.approx(beam_A, rel=0.02)
    beam = beam_charge(fit, t_ns)
    seconds = (t_ns - t_ns[0]) / 1e9
    on_s = (t_ns[-1] - t_ns[0]) / 1e9 - np.sum(np.diff(played.true_s)[::2])
    assert beam.charge_C[-1] == pytest.approx(beam_A * on_s, abs=4 * beam.sigma_C[-1] + 1e-15)
    ionic = np.trapezoid(value, seconds) + beam.charge_C[-1]
    slow = 5e-12 * np.exp(-np.maximum(seconds - 1.25, -1) / played.true_s[-1])
    assert ionic == pytest.approx(np.trapezoid(slow, seconds), rel=1e-3)


def test_a_voltage_becomes_a_charge_by_the_cells_resistance():
    played = Played(15)
    fit = fit_current(*played.current(0.0, step_A=1e-3, slow_A=0.0), played.edges_ns)
    t_ns = START_NS + np.array([-2, -1], np.int64) * 10**9
    charge = beam_charge(fit, t_ns, ampere_per_unit=1e-9, ampere_per_unit_sigma=1e-10)
    assert charge.charge_C[1] == pytest.approx(1e-12, rel=0.1)
    assert charge.sigma_C[1] == pytest.approx(1e-13, rel=0.3)
    assert len(beam_charge(fit, t_ns[:0]).charge_C) == 0
