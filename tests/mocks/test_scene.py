"""What scenes are made of: grains that move with the specimen, and soft edges."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, special

from mocks.layers import _risen
from mocks.scene import Grains

ROOT = Path(__file__).parents[2]
SHAPE = (25, 33)  # odd: an even side has a wave whose direction is not told


@pytest.fixture(scope="module")
def grains():
    return Grains(np.random.default_rng(1).standard_normal(SHAPE))


@pytest.mark.parametrize("shape", [SHAPE, (24, 32), (8, 9)])  # the last narrower than the blur
def test_grains_are_blurred_noise_of_unit_spread(shape):
    noise = np.random.default_rng(2).standard_normal(shape)
    blurred = ndimage.gaussian_filter(noise, 2.5, mode="wrap")
    still = Grains(noise, 2.5).moved(0.0, 0.0)
    assert np.allclose(still, blurred / blurred.std(), rtol=0, atol=1e-12)
    assert still.std() == pytest.approx(1.0, rel=1e-12)


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


def test_an_edge_rises_as_the_normal_distribution_does():
    z = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -8.5, 8.5]])
    assert np.allclose(_risen(z), special.ndtr(z), rtol=0, atol=3e-16)


def test_a_bench_that_shows_layers_starts_without_what_other_scenes_need():
    tells = (
        "import sys, mocks.bench, mocks.camera, mocks.scenario; "
        "scene = mocks.camera.new_scene(mocks.scenario.load('lco_lipon_li'), 1); "
        "scene.frame(0, 1e-8, (0, 0)); "
        "print([name for name in sys.modules if name.split('.')[0] == 'scipy'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", tells], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
