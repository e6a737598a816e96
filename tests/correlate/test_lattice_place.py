"""A specimen that shows a lattice stays in its place by all that is no fringe."""

import math

import numpy as np
import pytest
from scipy import ndimage

from correlate.lattice_place import PlaceFinder

SIDE, SPACING_PX, COUNTS = 128, 6.5, 400.0
FRAMES = 12


@pytest.fixture
def amorphous():
    rng = np.random.default_rng(3)
    speckle = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 3.0, mode="wrap")
    return 0.1 * speckle / speckle.std()


def moved(image, dx_px):
    """Move a field by whole and part pixels along x, wrapped."""
    return ndimage.shift(image, (0, dx_px), order=3, mode="grid-wrap")


def frame(rng, plain, drift_px, strain_px):
    x, y = np.arange(SIDE)[None, :] - drift_px - strain_px, np.arange(SIDE)[:, None]
    fringes = sum(0.15 * np.cos(2 * math.pi * along / SPACING_PX) for along in (x, y))
    return rng.poisson(COUNTS * (1 + moved(plain, drift_px) + fringes)).astype(np.uint16)


@pytest.mark.parametrize("strain_px", [0.0, 0.1, 0.5])
def test_fringes_that_move_are_no_drift(amorphous, strain_px):
    rng = np.random.default_rng(5)
    finder = PlaceFinder((SIDE, SIDE), SPACING_PX, 8.0, FRAMES)
    first_sigma = finder.update(frame(rng, amorphous, 0.0, 0.0)).sigma_x_px
    pulls = []
    for k in range(1, FRAMES):
        drift_px = 0.1 * k
        place = finder.update(frame(rng, amorphous, drift_px, strain_px * k / FRAMES))
        error = place.x_px - drift_px
        pulls.append(error / math.hypot(place.sigma_x_px, first_sigma))
        assert place.shift.dx_px == -place.x_px
    assert max(abs(np.array(pulls))) < 3.5
    assert math.sqrt(np.mean(np.square(pulls))) < 1.6


def test_where_nothing_but_fringes_is_seen_they_tell_the_drift():
    rng = np.random.default_rng(7)
    finder = PlaceFinder((SIDE, SIDE), SPACING_PX, 8.0, FRAMES)
    for k in range(FRAMES):
        place = finder.update(frame(rng, np.zeros((SIDE, SIDE)), 0.1 * k, 0.0))
        assert place.shift.valid
    assert place.x_px == pytest.approx(0.1 * (FRAMES - 1), abs=0.15)
