"""The conversion tracker on a simulated film, by a front and in bulk."""

import numpy as np
import pytest

from correlate.pattern_of_change import neighbours_alike, segregation
from correlate.texture import grain_scale, ring_powers
from correlate.trackers.conversion import ConversionTracker
from correlate.trackers.protocol import CannotTrack, SceneSettings
from mocks.camera import new_scene
from mocks.scenario import load

BLANK = 15
GRAIN_M = 6e-9


def movie(seed=1, count=24, **overrides):
    scenario = load("fef2_conversion", width=192.0, height=96.0, **overrides)
    scene = new_scene(scenario, seed)
    shares = np.concatenate([np.zeros(10), np.linspace(0, 1, count), np.ones(20)])
    fronts = shares * scenario.cell.film_thickness_m
    frames = [scene.frame(i, f, (0.02 * i, 0.01 * i)) for i, f in enumerate(fronts)]
    true = np.array([scene.truth(f)["conversion"]["converted_fraction"] for f in fronts])
    settings = SceneSettings(shape=scene.shape, pixel_size_m=scenario.camera.pixel_size_m)
    return frames, true, settings


@pytest.fixture(scope="module", params=[1.0, 0.0], ids=["front", "bulk"])
def converting(request):
    frames, true, settings = movie(by_front=request.param)
    frames[BLANK] = np.zeros_like(frames[BLANK])
    track = ConversionTracker(settings).track(lambda: frames)
    return request.param, true, track


def test_the_fraction_is_true_within_its_sigma(converting):
    _, true, track = converting
    assert track.valid.sum() == len(true) - 1
    assert track.reasons["blank: all pixels are alike"] == 1
    error = (track.columns["converted_fraction"] - true)[track.valid]
    pull = error / track.columns["converted_fraction_sigma"][track.valid]
    assert np.sqrt(np.mean(error**2)) < 0.03
    assert 0.6 < np.sqrt(np.mean(pull**2)) < 2.0  # too small in the middle: see docs
    assert track.attributes["end_settled"] == 1.0
    assert track.attributes["shot_gain"] == pytest.approx(1, abs=0.02)


def test_the_scale_of_the_grains_is_theirs(converting):
    _, _, track = converting
    scale, sigma = track.columns["grain_scale"], track.columns["grain_scale_sigma"]
    assert np.isnan(scale[:8]).all()  # no grains there yet
    assert np.median(scale[-20:]) == pytest.approx(GRAIN_M, rel=0.08)
    pull = (scale[-20:] - GRAIN_M) / sigma[-20:]
    assert np.sqrt(np.mean(pull**2)) < 2.0


def test_a_front_and_bulk_are_told_apart(converting):
    by_front, _, track = converting
    middle = slice(18, 26)
    seen, sigma = track.columns["segregation"][middle], track.columns["segregation_sigma"][middle]
    if by_front:
        assert np.all(seen - 5 * sigma > 0.3)
        assert np.all(track.columns["moran_p"][middle] < 0.02)
    else:
        assert np.all(seen < 0.3)
        assert np.mean(track.columns["moran_p"][middle]) > 0.1


def test_a_live_tracker_needs_the_converted_look_and_says_so():
    frames, _, settings = movie(count=2)
    live = ConversionTracker(settings).begin(lambda: frames[:10])
    row = live.update(frames[-1])
    assert "converted look" in row.reason
    assert np.isnan(np.nan if row.seen is None else 0.0)
    assert row.level_change[0] < -10 * row.level_change[1]
    track = ConversionTracker(settings).track(lambda: frames)
    assert track.columns["level_change"][-1] == pytest.approx(row.level_change[0], abs=0.02)


def test_a_film_that_does_not_change_is_told():
    frames, _, settings = movie(count=2)
    with pytest.raises(CannotTrack, match="nothing has changed"):
        ConversionTracker(settings).track(lambda: frames[:10])
    with pytest.raises(CannotTrack, match="two frames"):
        ConversionTracker(settings).track(list)


def test_two_phases_are_segregated_and_one_is_not():
    rng = np.random.default_rng(3)
    sigma = np.full(200, 0.1)
    phases = (np.arange(200) < 80).astype(float)
    parted = segregation(phases + 0.1 * rng.standard_normal(200), sigma)
    even = segregation(0.4 + 0.1 * rng.standard_normal(200), sigma)
    assert parted[0] == pytest.approx(1, abs=4 * parted[1])
    assert even[0] == pytest.approx(0, abs=4 * even[1])
    assert np.isnan(segregation(np.full(200, 0.01), sigma)[0])
    used = np.ones((10, 20), dtype=bool)
    assert neighbours_alike(phases.reshape(10, 20), used, 1)[1] < 0.01
    assert neighbours_alike(rng.permuted(phases).reshape(10, 20), used, 1)[1] > 0.01


def test_shot_noise_alone_has_no_grains():
    image = np.random.default_rng(2).poisson(30, (96, 96)).astype(float)
    assert np.isnan(grain_scale(*ring_powers(image))[0])
