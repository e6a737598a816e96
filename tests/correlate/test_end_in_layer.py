"""The end of a shaft in a layer that comes on with it."""

import numpy as np
import pytest

from correlate.end_in_layer import Layer
from correlate.shaft import Axis, fit_end

AXIS = Axis(x_px=0.0, y_px=30.0, turn_rad=0.0, radius_px=8.0, soft_px=1.2)
LAYER = Layer(strong=0.3, weak=0.15, thick_px=9.0)
DOSE, TRUE_PX = 40.0, 61.4


def seen(rises, expected_px):
    """Return places, counts, shade, and the layer that was there already."""
    layer = Layer(strong=rises * LAYER.strong, weak=rises * LAYER.weak, thick_px=LAYER.thick_px)
    y, x = np.mgrid[16:45, 20:110].reshape(2, -1).astype(np.float64)
    s, t = AXIS.along(x, y)
    cover, nothing = AXIS.cover(s, t, TRUE_PX), np.zeros(len(s))
    around = layer.around(AXIS, s, t, TRUE_PX, nothing)
    bright = 1 + around * (1 - cover) + layer.strong * cover
    counts = np.random.default_rng(5).poisson(DOSE * bright).astype(np.float64)
    before = layer.around(AXIS, s, t, expected_px, nothing)
    return layer, s, t, counts, np.full(len(s), DOSE), before


@pytest.mark.parametrize("rises", [1, -1])
@pytest.mark.parametrize("expected_px", [44.0, 54.5, 61.4])
def test_the_edge_of_the_layer_is_not_taken_for_the_end_of_the_shaft(rises, expected_px):
    layer, s, t, counts, shade, before = seen(rises, expected_px)
    found = layer.likely_end(AXIS, s, t, counts, shade, before, expected_px, 24.0)
    assert found == pytest.approx(TRUE_PX, abs=3.0)
    lit = shade * (1 + layer.around(AXIS, s, t, found, before))
    fit = fit_end(AXIS, s, t, counts, lit, found, rises=rises, reach_px=6.0)
    assert fit.converged
    assert abs(fit.end_px - TRUE_PX) < 3 * fit.sigma_px


def test_an_end_beyond_what_is_looked_at_is_at_its_limit():
    layer, s, t, counts, shade, before = seen(1, 44.0)
    assert layer.likely_end(AXIS, s, t, counts, shade, before, 44.0, 5.0) == 49.0


def test_a_layer_that_was_there_stays():
    _, s, t, *_ = seen(1, 44.0)
    before = np.full(len(s), 0.15)
    np.testing.assert_array_equal(LAYER.around(AXIS, s, t, 30.0, before), before)
