"""Pairs of frames: shifts add up, and those that lie are found out."""

import itertools

import numpy as np
import pytest

from correlate.pairs import solve_pairs


def stack(seed, count=10, sigma=0.1):
    rng = np.random.default_rng(seed)
    true = np.cumsum(rng.normal(0, 2, (count, 2)), axis=0)
    true -= true[0]
    pairs = np.array(list(itertools.combinations(range(count), 2)))
    shift = true[pairs[:, 1]] - true[pairs[:, 0]] + rng.normal(0, sigma, (len(pairs), 2))
    return true, pairs, shift, np.full(shift.shape, sigma)


def test_pairs_that_lie_are_repaired_and_sigmas_are_honest():
    pulls = []
    for seed in range(40):
        true, pairs, shift, sigma = stack(seed)
        wrong = [3, 17, 30, 41]
        shift[wrong] += [[9.0, -4.0]]
        shift[12] = np.nan
        solution = solve_pairs(10, pairs, shift, sigma)
        assert np.flatnonzero(solution.outliers).tolist() == wrong
        pulls.append((solution.shift_px - true)[1:] / solution.sigma_px[1:])
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < 1.15


def test_a_frame_without_a_good_pair_is_not_guessed():
    true, pairs, shift, sigma = stack(1, 5)
    shift[np.any(pairs == 3, axis=1)] = np.nan
    solution = solve_pairs(5, pairs, shift, sigma)
    assert np.isnan(solution.shift_px[3]).all()
    np.testing.assert_allclose(np.delete(solution.shift_px - true, 3, axis=0), 0, atol=0.5)
    with pytest.raises(ValueError, match="must all be"):
        solve_pairs(5, pairs, shift[:-1], sigma)
