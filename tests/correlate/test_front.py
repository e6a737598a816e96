"""The front tracker on a scene of its own, and on the simulated lamella."""

import numpy as np
import pytest
from scipy import ndimage, special

from correlate.drift import Shift
from correlate.edge import fit_edge, step_shape
from correlate.film import Film, edge_in_mean
from correlate.film_texture import interface_sigma
from correlate.trackers.front import FrontTracker, with_velocity
from correlate.trackers.protocol import CannotTrack, SceneSettings
from mocks.layers import LayersScene
from mocks.scenario import load
from mocks.stage import Stage

PIXEL_M = 2e-9
SETTINGS = SceneSettings(shape=(96, 300), pixel_size_m=PIXEL_M, film_thickness_m=380e-9)


def lamella(front_px, drift_px, rng, *, counts=25.0, contrast=0.15, texture=None):
    """Return a frame of collector, film of 190 px and electrolyte; drawn independently."""
    x = np.arange(300) - drift_px

    def right_of(edge, width=2.2):
        return 0.5 * (1 + special.erf((x - edge) / width / np.sqrt(2)))

    film = 0.6 * (1 + contrast * right_of(front_px))
    profile = 0.3 + (film - 0.3) * right_of(50) + (0.85 - film) * right_of(240)
    image = np.tile(profile, (96, 1))
    if texture is not None:
        image = image * ndimage.shift(texture, (0, drift_px), order=3, mode="wrap")
    return rng.poisson(counts * image).astype(np.uint8)


def movie(seed, count=80, *, counts=25.0):
    rng = np.random.default_rng(seed)
    grains = ndimage.gaussian_filter(rng.standard_normal((96, 300)), 2.0, mode="wrap")
    coarse = np.where(np.arange(300) < 50, 0.2, 0.01)
    texture = 1 + coarse * grains / grains.std()
    front = 180 - np.linspace(0, 40, count)
    drift = np.cumsum(rng.normal(0, 0.15, count))
    frames = [
        lamella(f, d, rng, counts=counts, texture=texture)
        for f, d in zip(front, drift, strict=True)
    ]
    return frames, (240 - front) * PIXEL_M


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
def test_position_and_sigma_are_true():
    errors, pulls = [], []
    for seed in range(3):
        frames, true_m = movie(seed)
        track = FrontTracker(SETTINGS).track(lambda frames=frames: frames)
        assert track.valid.mean() > 0.95
        error = (track.columns["position"] - true_m)[track.valid]
        errors.extend(error / PIXEL_M)
        pulls.extend(error / track.columns["position_sigma"][track.valid])
    assert np.sqrt(np.mean(np.square(errors))) < 0.6
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.3


@pytest.mark.parametrize("seed", [1, 2])
def test_the_simulated_lamella_is_tracked_within_half_a_pixel(seed):
    scenario = load("lco_lipon_li", dose_rate_e_m2_s=0.6e20)
    scene, stage = LayersScene(scenario, seed), Stage(seed, scenario.camera.drift_m_per_root_s)
    t = np.arange(150) * 0.2
    front_m = 60e-9 + 3e-9 * t
    frames = [
        scene.frame(i, front_m[i], tuple(p / PIXEL_M for p in stage.position_m(t[i])))
        for i in range(len(t))
    ]
    settings = SceneSettings(shape=(160, 400), pixel_size_m=PIXEL_M, film_thickness_m=500e-9)
    track = FrontTracker(settings).track(lambda: frames)
    error_px = (track.columns["position"] - front_m)[track.valid] / PIXEL_M
    pull = error_px * PIXEL_M / track.columns["position_sigma"][track.valid]
    assert track.valid.mean() > 0.95
    assert np.sqrt(np.mean(error_px**2)) < 0.5
    assert 0.75 < np.sqrt(np.mean(pull**2)) < 1.35


def test_a_blank_frame_is_a_gap_and_not_a_position():
    frames, _ = movie(4, 40)
    frames[20] = np.zeros_like(frames[20])
    track = FrontTracker(SETTINGS).track(lambda: frames)
    assert not track.valid[20]
    assert np.isnan(track.columns["position"][20])
    assert track.reasons["not registered"] == 1


def test_a_film_without_a_front_is_told():
    rng = np.random.default_rng(0)
    frames = [lamella(150, 0.0, rng, contrast=0.0) for _ in range(30)]
    with pytest.raises(CannotTrack, match="no front stands out"):
        FrontTracker(SETTINGS).track(lambda: frames)


def test_a_film_of_another_thickness_is_told():
    frames, _ = movie(1, 10)
    wrong = SceneSettings(shape=(96, 300), pixel_size_m=PIXEL_M, film_thickness_m=240e-9)
    with pytest.raises(CannotTrack, match="120 px apart"):
        FrontTracker(wrong).track(lambda: frames)


def test_unknown_geometry_and_no_frames_are_refused():
    with pytest.raises(CannotTrack, match="pixel size"):
        FrontTracker(SceneSettings(shape=(96, 300)))
    with pytest.raises(CannotTrack, match="no frame"):
        FrontTracker(SETTINGS).track(list)
    blank = [np.zeros((96, 300), np.uint8)] * 3
    with pytest.raises(CannotTrack):
        FrontTracker(SETTINGS).track(lambda: blank)


def test_velocity_is_that_of_the_frames_own_times():
    frames, true_m = movie(6, 60)
    track = FrontTracker(SETTINGS).track(lambda: frames)
    t_ns = np.cumsum(np.where(np.arange(60) == 30, 900_000_000, 100_000_000))
    area, sigma = track.columns["area_swept"], track.columns["area_swept_sigma"]
    true_area = (true_m - true_m[0]) * 96 * PIXEL_M
    assert np.sqrt(np.mean(((area - true_area)[1:] / sigma[1:]) ** 2)) < 2.5
    assert track.units["area_swept"] == "m^2"
    live = FrontTracker(SETTINGS).begin(lambda: frames[:40]).track(lambda: frames[40:])
    error = (live.columns["position"] - true_m[40:]) / live.columns["position_sigma"]
    assert live.valid.all()
    assert np.sqrt(np.mean(error**2)) < 2.0
    moved = with_velocity(track, t_ns, 2.0)
    slope = np.gradient(true_m)[0] / 0.1
    early = moved.columns["velocity"][8:18]
    assert np.mean(early) == pytest.approx(slope, rel=0.2)
    assert moved.units["velocity_sigma"] == "m/s"


# --- the edge itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "contrast", "counts"), [(2.0, 0.2, 320), (1.0, 0.2, 320), (4.0, 0.2, 640)]
)
def test_edges_are_found_near_the_bound_with_honest_sigmas(width, contrast, counts):
    x = np.arange(49.0) - 24
    rng = np.random.default_rng(7)
    errors, pulls = [], []
    for _ in range(300):
        true = rng.uniform(-1, 1)
        mean = counts * (1 - contrast / 2 + contrast * step_shape(x, true, width))
        fit = fit_edge(x, rng.poisson(mean).astype(float), 0.0, width)
        if fit.converged:
            errors.append(fit.position_px - true)
            pulls.append(errors[-1] / fit.sigma_px)
    bound = np.sqrt(2 * np.sqrt(np.pi) * np.hypot(width, 0.29) / counts) / contrast
    assert len(errors) > 285
    assert np.std(errors) < 1.4 * bound
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < 1.2


def test_an_edge_fit_that_runs_away_says_so():
    x = np.arange(49.0)
    assert not fit_edge(x, np.full(49, 100.0), 24.0, 2.0).converged


@pytest.mark.parametrize("grain_px", [3.0, 6.0])
def test_the_film_s_edge_is_as_far_off_as_its_sigma_says(grain_px):
    pulls = []
    x = np.arange(200)
    for seed in range(60):
        rng = np.random.default_rng([seed, 4])
        grains = ndimage.gaussian_filter(rng.standard_normal((160, 200)), grain_px, mode="wrap")
        texture = 1 + 0.015 * grains / grains.std()
        edge = 0.6 + 0.25 * special.ndtr((x - 120) / 2.5)
        frames = rng.poisson(60 * edge * texture, (8, 160, 200))
        shift = Shift(dx_px=0.0, dy_px=0.0, sigma_x_px=0.0, sigma_y_px=0.0, quality=1.0, valid=True)
        mean = frames.sum(axis=1).mean(axis=0)
        found, sigma = edge_in_mean(mean, 120)
        film = Film(collector_px=20.0, interface_px=found, interface_sigma_px=sigma)
        pulls.append((found - 120) / interface_sigma(frames, [shift] * 8, film))
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.25
