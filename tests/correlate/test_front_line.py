"""A front line: followed, lost and found again, with honest width and roughness."""

import numpy as np
import pytest

from correlate.edge import EdgeFit, fit_edges, step_shape
from correlate.film import Film
from correlate.front_line import LOST_FRAMES, FrontFollower, FrontModel, roughness_of
from correlate.sums import frame_sums

FILM = Film(collector_px=20, interface_px=220, interface_sigma_px=0.1)
X = np.arange(240.0)


def follower(place_px, width_px=2.0):
    model = FrontModel(film=FILM, texture=np.ones(240), width_px=width_px, rises=1)
    return FrontFollower(model, place_px)


def line(place_px, rng, counts=2000.0, contrast=0.2, width=2.0):
    return rng.poisson(counts * (1 + contrast * step_shape(X, place_px, width))).astype(float)


def test_a_front_that_is_lost_says_so_and_is_found_again():
    rng = np.random.default_rng(1)
    front = follower(150.0)
    assert isinstance(front.fit(line(150.5, rng), 0.0), EdgeFit)
    missed = [front.fit(line(90.0, rng), 0.0) for _ in range(LOST_FRAMES)]
    assert set(missed) <= {
        "no step stands out where the front should be",
        "a jump beyond what the front can move",
        "the fit did not settle",
    }
    found = front.fit(line(90.0, rng), 0.0)
    assert isinstance(found, EdgeFit)
    assert found.position_px == pytest.approx(90, abs=1)


def test_a_front_at_the_film_s_end_has_left():
    rng = np.random.default_rng(2)
    front = follower(190.0)
    front.place_px = 245.0
    assert front.fit(line(150.0, rng), 0.0) == "the front has left the field"


def test_a_faint_front_keeps_an_honest_sigma():
    rng = np.random.default_rng(3)
    x = np.arange(65.0) - 32
    true = rng.uniform(-1, 1, 400)
    mean = 1024 * (1 + 0.05 * np.array([step_shape(x, t, 2.0) for t in true]))
    fits = fit_edges(x, rng.poisson(mean).astype(float), 0.0, 2.0, sign=1, reach_px=5)
    pull = (fits.position_px - true) / fits.sigma_px
    assert np.all(fits.converged)
    assert np.median(fits.sigma_px) > 1.0  # half the width: the likelihood is no parabola
    assert 0.85 < np.sqrt(np.mean(pull**2)) < 1.15


def test_widths_are_true_with_their_sigmas():
    rng = np.random.default_rng(4)
    x = np.arange(65.0) - 32
    counts = rng.poisson(5000 * (1 + 0.3 * np.tile(step_shape(x, 0.3, 3.0), (200, 1))))
    fits = fit_edges(x, counts.astype(float), 0.0, 2.0, free_width=True)
    pull = (fits.width_px - 3.0) / fits.width_sigma_px
    assert np.mean(fits.converged) > 0.98
    assert 0.85 < np.sqrt(np.mean(pull**2)) < 1.15


@pytest.mark.parametrize("rough_px", [0.0, 1.5])
def test_roughness_leaves_out_what_noise_makes(rough_px):
    rng = np.random.default_rng(5)
    found = [
        roughness_of(100 + 0.2 * np.arange(24) + rng.normal(0, np.hypot(rough_px, 0.5), 24), own)
        for own in np.full((200, 24), 0.5)
    ]
    value, sigma = np.array(found).T
    variance = np.mean(np.where(value > 0, value**2, 0))
    assert variance == pytest.approx(rough_px**2, abs=0.15)
    if rough_px:
        assert np.std(value) == pytest.approx(np.mean(sigma), rel=0.25)
    assert np.all(np.isnan(roughness_of(np.zeros(3), np.ones(3))))


def test_shape_of_a_wavy_front():
    rng = np.random.default_rng(6)
    waves = 120 + 2.0 * np.sin(np.arange(256) / 30)
    mean = 40 * (1 + 0.4 * np.array([step_shape(X, w, 2.0) for w in waves]))
    pixels = rng.poisson(mean).astype(np.uint16)
    sums, front = frame_sums(pixels, 4), follower(120.0)
    fit = front.fit(sums.line(), 0.0)
    shape = front.shape(sums, (fit.position_px, fit.significance), 0.0)
    true = np.std(waves - np.polyval(np.polyfit(np.arange(256), waves, 1), np.arange(256)))
    assert abs(shape.roughness_px - true) < 3 * shape.roughness_sigma_px
    assert shape.width_px > 2.0  # the sum over all rows is broader than each
    assert shape.width_sigma_px < 0.2
