"""The profile tracker on interfaces whose place, width and drop are known."""

import numpy as np
import pytest
from scipy import ndimage, special

from correlate.profile_line import ProfileNoise, fit_profile, step_ratio, texture_of
from correlate.trackers.profile import ProfileTracker
from correlate.trackers.protocol import CannotTrack, SceneSettings
from mocks.camera import new_scene
from mocks.scenario import load
from mocks.stage import Stage

FRAMES = 36


def movie(name, seed, **overrides):
    """Return frames, what is known of them, and the truth by column."""
    scenario = load(name, height=64, **overrides)
    scene, camera = new_scene(scenario, seed), scenario.camera
    stage, size_m = Stage(seed, camera.drift_m_per_root_s), camera.pixel_size_m
    front_m = scenario.cell.front_start_m + np.linspace(0, 60e-9, FRAMES)
    drift_px = [tuple(p / size_m for p in stage.position_m(0.2 * i)) for i in range(FRAMES)]
    frames = [scene.frame(i, front_m[i], drift_px[i]) for i in range(FRAMES)]
    rows = [scene.truth(front)["profile"] for front in front_m]
    truth = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    truth["x_px"] = np.array([x for x, _ in drift_px])
    return frames, SceneSettings(shape=scene.shape, pixel_size_m=size_m), truth


@pytest.fixture(scope="module")
def moving():
    return movie("sno2_lvso_lco_profile", 1)


def pulls(track, truth, name, size_m):
    error = track.columns[name] - truth[name]
    if name == "position":
        # The zero of the reference is where the registration put it.
        error -= np.mean(truth["x_px"] + track.drift["dx"]) * size_m
    return (error / track.columns[f"{name}_sigma"])[track.valid]


def test_counts_and_texture_together_make_honest_sigmas():
    rng, x = np.random.default_rng(3), np.arange(90.0)
    errors, plain = [], []
    for _ in range(300):
        grains = ndimage.gaussian_filter1d(rng.standard_normal((10, 110)), 2.5)[:, 10:100]
        place = rng.uniform(44, 46)
        line = 400 * (1 - 0.4 * special.ndtr((x - place) / np.hypot(5, 12**-0.5)))
        blocks = rng.poisson(line * (1 + 0.05 * grains / grains.std())).astype(float)
        fit = fit_profile(x, blocks.sum(axis=0), 45.0, 4.0)
        texture = texture_of(x, blocks, fit, 1.0)
        noise = ProfileNoise(texture=texture, width_px=fit.width_px, step_ratio=step_ratio(fit))
        truth = np.array([place, 5.0, 4000.0, 2400.0])
        found = np.array([fit.position_px, fit.width_px, fit.left, fit.right])
        errors.append((found - truth) / np.sqrt(np.diag(noise.covariance(fit))))
        plain.append((found - truth) / np.sqrt(np.diag(fit.covariance)))
    pull = np.sqrt(np.mean(np.square(errors), axis=0))
    assert np.all((pull > 0.85) & (pull < 1.2)), pull
    assert np.all(np.sqrt(np.mean(np.square(plain), axis=0)) > 1.3)  # of counts alone


def test_a_profile_that_moves_and_broadens_is_followed(moving):
    frames, settings, truth = moving
    track = ProfileTracker(settings).track(lambda: frames)
    for column in ("position", "width", "gradient", "drop"):
        pull = pulls(track, truth, column, settings.pixel_size_m)
        # The texture's part is one draw for all frames.
        assert np.sqrt(np.mean(pull**2)) < 2.2, column
        assert np.all(track.columns[f"{column}_sigma"] > 0)
    moved = track.columns["position"][-1] - track.columns["position"][0]
    assert moved == pytest.approx(30e-9, abs=4e-9)
    assert track.columns["width"][-1] > 2 * track.columns["width"][0]


def test_live_it_says_what_it_says_afterwards(moving):
    frames, settings, truth = moving
    frames = [*frames[:25], np.zeros_like(frames[0]), *frames[26:]]
    live = ProfileTracker(settings).begin(lambda: frames[:20]).track(lambda: frames[20:])
    assert not live.valid[5]
    assert live.reasons == {"blank: all pixels are alike": 1}
    assert np.isnan(live.columns["position"][5])
    error = live.columns["width"] - truth["width"][20:]
    assert np.nanmax(np.abs(error / live.columns["width_sigma"])) < 5


def test_a_map_may_lie_on_its_side_and_need_no_registration(moving):
    frames, settings, _ = moving
    told = {"drift": "none", "per_count": 0.5}
    plain = SceneSettings(shape=settings.shape, pixel_size_m=settings.pixel_size_m, options=told)
    turned = SceneSettings(
        shape=settings.shape[::-1],
        pixel_size_m=settings.pixel_size_m,
        options={**told, "across": "y", "per_count": 1.0},
    )
    a = ProfileTracker(plain).track(lambda: frames[:20])
    b = ProfileTracker(turned).track(lambda: [f.T for f in frames[:20]])
    assert np.allclose(a.columns["position"], b.columns["position"])
    assert np.allclose(a.columns["drop"], 0.5 * b.columns["drop"])
    assert np.all(a.drift["dx"] == 0)


def test_what_is_no_interface_is_told():
    rng = np.random.default_rng(0)
    flat = [rng.poisson(40.0, (64, 160)).astype(np.uint8) for _ in range(5)]
    settings = SceneSettings(shape=(64, 160), pixel_size_m=1e-9)
    with pytest.raises(CannotTrack, match="no interface stands out"):
        ProfileTracker(settings).track(lambda: flat)
    with pytest.raises(CannotTrack, match="no frame can be used: blank"):
        ProfileTracker(settings).track(lambda: [np.zeros((64, 160), np.uint8)])
    with pytest.raises(CannotTrack, match="pixel size"):
        ProfileTracker(SceneSettings(shape=(64, 160)))


def test_an_interface_that_goes_is_not_made_up(moving):
    frames, settings, _ = moving
    rng = np.random.default_rng(1)
    gone = [rng.poisson(50.0, frames[0].shape).astype(np.uint8) for _ in range(3)]
    told = SceneSettings(
        shape=settings.shape, pixel_size_m=settings.pixel_size_m, options={"drift": "none"}
    )
    track = ProfileTracker(told).track(lambda: [*frames[:20], *gone])
    assert track.valid.tolist() == [True] * 20 + [False] * 3
    assert track.reasons["no step stands out where the interface should be"] == 3
