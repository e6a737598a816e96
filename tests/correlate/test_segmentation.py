"""Objects in one image: what is found, and that an electrode is none."""

import numpy as np
import pytest
from scipy import ndimage

from correlate.segmentation import segment, wide_across, with_seed

HEIGHT, WIDTH = 400, 300


@pytest.fixture(scope="module")
def image():
    """Return blobs above a bright electrode, in noise, and where the blobs are."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    blobs = np.zeros((HEIGHT, WIDTH), bool)
    for column in range(30, 300, 60):
        blobs |= np.hypot(x - column, (y - 320) / 2) < 7
    electrode = y > 350 + 0.03 * x
    glow = 20 * np.exp(-np.maximum(350 - y, 0) / 60)
    sharp = 40 + glow + 60.0 * blobs + 120 * electrode
    return ndimage.gaussian_filter(sharp, 1.0) + rng.normal(0, 15, y.shape), blobs


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_objects_are_found_beside_an_electrode(image):
    pixels, blobs = image
    found = segment(pixels)
    assert dice(found.objects, blobs) > 0.85
    assert found.electrode[362:370].mean() > 0.9
    assert not found.electrode[:340].any()
    assert not (found.objects & found.electrode).any()


def test_dark_objects_are_found_alike(image):
    pixels, _ = image
    bright, dark = segment(pixels).objects, segment(-pixels, dark=True).objects
    np.testing.assert_array_equal(bright, dark)


def test_noise_alone_holds_no_object():
    noise = np.random.default_rng(2).normal(100, 10, (HEIGHT, WIDTH))
    assert segment(noise).objects.mean() < 1e-3
    assert not segment(np.zeros((64, 64))).objects.any()


def test_a_narrow_line_across_is_no_electrode():
    mask = np.zeros((80, 100), bool)
    mask[20:26] = mask[50:80] = True
    mask[50:80, 60] = False  # a scratch through it, and it does not reach across
    np.testing.assert_array_equal(np.flatnonzero(wide_across(mask, 10).any(axis=1)), [])
    mask[50:80, 60] = True
    assert wide_across(mask, 10)[50:80].all()
    assert not wide_across(mask, 10)[:50].any()


def test_hysteresis_keeps_what_holds_a_seed():
    low = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 0]], bool)
    high = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]], bool)
    np.testing.assert_array_equal(with_seed(low, high), [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]])
