"""Codes, what makes them unreadable, and what a window sees of them."""

import math

import numpy as np
import pytest

from sync.code import (
    BlankingCode,
    CodeRefused,
    camera_bound_s,
    check_code,
    current_bound_s,
    m_sequence,
    seen_share,
    sigma_away_s,
)
from sync.code_wave import edge_slopes, window_mean


@pytest.mark.parametrize("order", range(5, 11))
def test_a_sequence_is_like_its_own_shift_nowhere(order):
    chips = m_sequence(order)
    signs = 2.0 * chips - 1
    own = np.fft.irfft(np.abs(np.fft.rfft(signs)) ** 2, len(signs))
    assert len(chips) == 2**order - 1
    assert own[0] == pytest.approx(len(chips))
    assert own[1:] == pytest.approx(-1.0)
    assert (chips[0], chips[-1]) == (0, 1)


def test_an_order_that_has_no_sequence_is_refused():
    with pytest.raises(ValueError, match="from 5 to 10"):
        m_sequence(4)


def test_edges_go_off_first_and_number_as_expected():
    code = BlankingCode(order=7, chip_ns=20_700_000, repeats=2)
    edges = code.edges_ns(1000)
    assert len(edges) == 128
    assert edges[0] == 1000
    assert np.all((edges - 1000) % 20_700_000 == 0)
    assert code.length_s == pytest.approx(2 * 127 * 0.0207)


def test_the_bounds_are_those_of_the_table():
    assert camera_bound_s(400, 0.5, 100, 64) == pytest.approx(2.21e-6, rel=0.01)
    assert camera_bound_s(25, 0.9, 50, 64) == pytest.approx(95e-6, rel=0.01)
    assert current_bound_s(1000, 0.05, 1, 64) == pytest.approx(1.34e-3, rel=0.1)
    assert current_bound_s(10, 2.0, 3, 64) == pytest.approx(28.6e-3, rel=0.1)
    assert sigma_away_s(1.0, 10.0, 10.0) == pytest.approx(math.sqrt(13))


def test_a_commensurate_chip_is_refused_with_one_that_would_do():
    with pytest.raises(CodeRefused, match="8 frame periods") as refused:
        check_code(0.020, frame_period_s=0.0025, duty=0.5)
    better = check_code(refused.value.proposed_chip_s, frame_period_s=0.0025, duty=0.5)
    assert better.seen_share > 0.4
    assert math.isnan(better.current_bound_s)


def test_what_counts_is_the_measured_period_and_the_dead_time():
    assert check_code(0.020, frame_period_s=0.0025, duty=1.0).seen_share == 1.0
    # A period that is 1 % off spreads the phases of the same chip.
    assert check_code(0.020, frame_period_s=0.002525, duty=0.5).seen_share > 0.25
    edges_s = BlankingCode(order=7, chip_ns=20_000_000).edges_ns(0) / 1e9
    assert seen_share(edges_s, 0.0025, 0.5) == 0.0


def test_samples_with_gaps_need_spread_phases_too_unless_the_response_is_slow():
    frames = {"frame_period_s": 0.00243, "duty": 1.0}
    samples = {"sample_interval_s": 0.01, "aperture_s": 0.002}
    with pytest.raises(CodeRefused, match="sample intervals"):
        check_code(0.1, **frames, **samples)
    assert check_code(0.1, **frames, **samples, tau_s=0.01).edges == 64
    assert check_code(0.1037, **frames, **samples).edges == 64


@pytest.mark.parametrize(
    "more",
    [{"frame_period_s": 0.02}, {"tau_s": 0.02}, {"sample_interval_s": 0.02}, {"rise_s": 0.02}],
)
def test_a_chip_that_is_too_short_is_refused(more):
    with pytest.raises(CodeRefused, match="too short") as refused:
        check_code(0.0207, **{"frame_period_s": 0.0025, "duty": 0.9, **more})
    assert refused.value.proposed_chip_s > 0.04


def test_a_chip_is_proposed_and_said_how_well_it_will_do():
    plan = check_code(
        None, frame_period_s=0.2, duty=0.98, sample_interval_s=0.1, aperture_s=0.1, tau_s=0.2
    )
    assert plan.code.chip_ns >= 0.8e9
    assert plan.notes == ()
    assert 0 < plan.camera_bound_s < plan.current_bound_s
    short = check_code(0.5137, frame_period_s=0.2, duty=0.98, tau_s=0.2)
    assert "settle" in short.notes[0]


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="cannot be"):
        check_code(0.02, frame_period_s=0.0025, duty=1.5)


@pytest.mark.parametrize("response", [{}, {"rise_s": 0.05}, {"tau_s": 0.2}])
def test_windows_see_what_a_fine_sum_sees(response):
    rng = np.random.default_rng(1)
    edges = np.cumsum(rng.uniform(0.2, 0.6, 12))
    start = np.sort(rng.uniform(-0.5, 7, 30))
    stop = start + 0.13
    fine = 1e-4 * (np.arange(-20_000, 80_000) + 0.5)
    beam = (np.searchsorted(edges, fine) % 2 == 0).astype(float)
    if "rise_s" in response:
        beam = np.convolve(np.pad(beam, 250, mode="edge"), np.ones(500) / 500, "same")[250:-250]
    elif "tau_s" in response:
        keep, level = math.exp(-1e-4 / 0.2), 1.0
        for i, on in enumerate(beam):
            level = on + (level - on) * keep
            beam[i] = level
    area = np.concatenate([[0.0], np.cumsum(beam) * 1e-4])
    grid = np.concatenate([fine - 5e-5, [fine[-1] + 5e-5]])
    expected = (np.interp(stop, grid, area) - np.interp(start, grid, area)) / 0.13
    assert window_mean(start, stop, edges, **response) == pytest.approx(expected, abs=2e-3)
    slopes = edge_slopes(start, stop, edges, **response).toarray()
    for i in (0, 5):
        moved = [edges + np.where(np.arange(12) == i, h, 0.0) for h in (1e-6, -1e-6)]
        more, less = (window_mean(start, stop, e, **response) for e in moved)
        assert slopes[:, i] == pytest.approx((more - less) / 2e-6, abs=1e-3)
