"""Looking for a step: the compiled look finds what the one in NumPy does."""

import math

import numpy as np
import pytest

from correlate import edge, edge_search

X = np.arange(-32, 33.0)
NAMES = ("place", "significance", "mean", "spread")


def lines(places, dose, seed=1):
    rng = np.random.default_rng(seed)
    shape = np.array([edge.step_shape(X, t, 2.0) for t in places])
    return rng.poisson(dose * (0.9 + 0.2 * shape)).astype(float)


@pytest.mark.parametrize("sign", [1, 0])
@pytest.mark.parametrize("reach_px", [5.0, math.inf])
@pytest.mark.parametrize("dose", [3, 300, 30_000])
def test_compiled_and_numpy_agree(monkeypatch, sign, reach_px, dose):
    pytest.importorskip("numba")
    about = np.linspace(-6, 6, 16)
    counts = lines(about, dose)
    shade = 1 + 0.02 * np.cos(X / 3)
    found = []
    for chosen in (edge_search.fast_look, None):
        monkeypatch.setattr(edge_search, "fast_look", chosen)
        found.append(edge_search.search_steps(X, counts, shade, 2.0, sign, (about, reach_px)))
    for name, fast, plain in zip(NAMES, *found, strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-9, err_msg=name)


def test_the_highest_step_within_reach_is_taken():
    counts = lines([12.0], 3000) + 3 * lines([-12.0], 3000, seed=2)
    for about, reach_px, highest in ((12.0, 3.0, 9.0), (12.0, math.inf, -12.0), (0.0, 5.0, -5.0)):
        within = np.array([about]), reach_px
        place = edge_search.search_steps(X, counts, np.ones(len(X)), 2.0, 1, within)[0, 0]
        assert place == pytest.approx(highest, abs=0.6)


def test_a_step_of_the_other_sign_counts_for_nothing():
    counts = lines([0.0], 3000)
    within = np.array([0.0]), 5.0
    rising, falling = (
        edge_search.search_steps(X, counts, np.ones(len(X)), 2.0, sign, within)[1, 0]
        for sign in (1, -1)
    )
    assert rising > 30
    assert falling == 0


def test_the_mean_is_as_far_off_as_the_spread_says():
    off = []
    for seed in range(200):
        place = np.array([0.37])
        found = edge_search.search_steps(
            X, lines(place, 100, seed), np.ones(len(X)), 2.0, 1, (place, 15.0)
        )
        off.append((found[2, 0] - place[0]) / found[3, 0])
    assert 0.75 < math.sqrt(np.mean(np.square(off))) < 1.25
