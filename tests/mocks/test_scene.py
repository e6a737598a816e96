"""What is common to all scenes: grains that move with the specimen, counts of a seed."""

import numpy as np
import pytest

from mocks.scene import Grains

SHAPE = (25, 33)  # odd: an even side has a wave whose direction is not told


@pytest.fixture(scope="module")
def grains():
    return Grains(np.random.default_rng(1).standard_normal(SHAPE))


def test_grains_have_unit_spread(grains):
    assert grains.moved(0.0, 0.0).std() == pytest.approx(1.0, rel=1e-12)


def test_grains_moved_by_whole_pixels_are_the_same_elsewhere(grains):
    still = grains.moved(0.0, 0.0)
    rolled = np.roll(still, (-2, 5), axis=(0, 1))
    assert np.allclose(grains.moved(5.0, -2.0), rolled, rtol=0, atol=1e-12)


def test_grains_moved_by_parts_of_a_pixel_are_the_sum_of_their_waves_there(grains):
    dx, dy = 0.3, -1.7
    spectrum = np.fft.fft2(grains.moved(0.0, 0.0)) / (SHAPE[0] * SHAPE[1])
    fy, fx = (np.fft.fftfreq(n) for n in SHAPE)
    y, x = np.arange(SHAPE[0]) - dy, np.arange(SHAPE[1]) - dx
    waves_y = np.exp(2j * np.pi * np.outer(y, fy))
    waves_x = np.exp(2j * np.pi * np.outer(fx, x))
    direct = (waves_y @ spectrum @ waves_x).real
    assert np.allclose(grains.moved(dx, dy), direct, rtol=0, atol=1e-9)


def test_grains_can_be_moved_again(grains):
    assert np.array_equal(grains.moved(0.3, 0.4), grains.moved(0.3, 0.4))
