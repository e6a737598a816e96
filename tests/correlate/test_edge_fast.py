"""The compiled climb takes the same steps as the one in NumPy."""

import numpy as np
import pytest

from correlate import edge

X = np.arange(-32, 33.0)


def lines(seed, count, dose):
    rng = np.random.default_rng(seed)
    shape = np.array([edge.step_shape(X, t, 2.0) for t in rng.uniform(-3, 3, count)])
    return rng.poisson(dose * (0.9 + 0.2 * shape)).astype(float)


@pytest.mark.parametrize("free_width", [False, True])
@pytest.mark.parametrize("dose", [3, 300, 30_000])
def test_compiled_and_numpy_agree(monkeypatch, free_width, dose):
    pytest.importorskip("numba")
    counts = lines(dose, 32, dose)
    shade = 1 + 0.02 * np.cos(X / 3)
    found = []
    for climb in (edge.fast_climb, None):
        monkeypatch.setattr(edge, "fast_climb", climb)
        found.append(
            edge.fit_edges(
                X, counts, 0.0, 2.0, texture=shade, free_width=free_width, sign=1, reach_px=5.0
            )
        )
    for name in edge.EdgeFits.__slots__:
        fast, plain = (getattr(fits, name) for fits in found)
        assert np.array_equal(np.isfinite(fast), np.isfinite(plain))
        np.testing.assert_allclose(fast, plain, rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_line_that_tells_nothing_is_the_same_to_both(monkeypatch):
    pytest.importorskip("numba")
    found = []
    for climb in (edge.fast_climb, None):
        monkeypatch.setattr(edge, "fast_climb", climb)
        found.append(edge.fit_edges(X, np.zeros((2, len(X))), 0.0, 2.0, free_width=True))
    assert np.array_equal(found[0].converged, found[1].converged)
    assert not found[0].converged.any()
