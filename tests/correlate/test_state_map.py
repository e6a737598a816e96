"""The state map on a mosaic of particles whose states are known."""

import numpy as np
import pytest

from correlate.mosaic import converted_change, mosaic
from correlate.particles import find_particles
from correlate.trackers.protocol import CannotTrack, SceneSettings
from correlate.trackers.state_map import StateMapTracker
from mocks.camera import new_scene
from mocks.scenario import load

FRAMES, STILL = 42, 20


@pytest.fixture(scope="module")
def movie():
    scenario = load("lfp_state_map", width=160.0, height=120.0, columns=4.0, rows=3.0)
    scene, cell = new_scene(scenario, 2), scenario.cell
    gone = np.clip((np.arange(FRAMES) - STILL) / (FRAMES - STILL - 3), 0, 1)
    front_m = cell.front_start_m + gone * (cell.film_thickness_m - cell.front_start_m)
    frames = [scene.frame(i, f, (0.1 * i, -0.05 * i)) for i, f in enumerate(front_m)]
    settings = SceneSettings(shape=scene.shape, pixel_size_m=2e-9)
    return frames, settings, [scene.truth(f)["state_map"] for f in front_m], scene


def column(truth, name):
    return np.array([row[name] for row in truth])


def test_each_particle_is_read_within_its_sigma(movie):
    frames, settings, truth, scene = movie
    track = StateMapTracker(settings).track(lambda: frames)
    assert track.valid.all()
    assert track.attributes["particles"] == 12
    pulls = []
    for k in range(1, 13):
        at = track.attributes[f"x_px_{k}"], track.attributes[f"y_px_{k}"]
        nearest = int(np.argmin(np.hypot(scene.x_px - at[0], scene.y_px - at[1])))
        error = track.columns[f"state_{k}"] - column(truth, f"state_{nearest + 1}")
        pulls.append(error / track.columns[f"state_{k}_sigma"])
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < 1.2


@pytest.mark.parametrize("name", ["mean_state", "active_fraction", "converted_fraction", "spread"])
def test_all_particles_together_are_true_within_their_sigmas(movie, name):
    frames, settings, truth, _ = movie
    track = StateMapTracker(settings).track(lambda: frames)
    error = track.columns[name] - column(truth, name)
    sigma = track.columns[f"{name}_sigma"]
    # A particle is 1/12 of them: one that has only begun may be counted as one that has not.
    assert np.max(np.abs(error)) < (0.05 if name in {"mean_state", "spread"} else 0.17)
    assert 0.5 < np.sqrt(np.mean(error**2) / np.mean(sigma**2)) < 1.5


def test_live_the_change_of_a_converted_particle_must_be_known(movie):
    frames, settings, truth, _ = movie
    with pytest.raises(CannotTrack, match="give converted_change"):
        StateMapTracker(settings).begin(lambda: frames[:STILL])
    told = SceneSettings(shape=settings.shape, options={"converted_change": 0.4})
    live = StateMapTracker(told).begin(lambda: frames[:STILL])
    track = live.track(lambda: [*frames[STILL:30], np.zeros_like(frames[0])])
    assert track.valid.tolist() == [True] * 10 + [False]
    assert track.reasons == {"blank: all pixels are alike": 1}
    assert np.isnan(track.columns["mean_state"][-1])
    error = track.columns["mean_state"][:-1] - column(truth, "mean_state")[STILL:30]
    assert np.max(np.abs(error)) < 0.05


def test_a_beam_that_fades_is_no_conversion(movie):
    frames, settings, _, _ = movie
    rng = np.random.default_rng(1)
    told = SceneSettings(shape=settings.shape, options={"converted_change": 0.4})
    dim = [rng.binomial(frame, 0.8).astype(np.uint8) for frame in frames[:6]]
    track = StateMapTracker(told).track(lambda: [*frames[:STILL], *dim[:6]])
    pull = track.columns["mean_state"] / track.columns["mean_state_sigma"]
    assert np.sqrt(np.mean(pull[STILL:] ** 2)) < 2.0


def test_a_field_without_particles_is_told():
    rng = np.random.default_rng(0)
    flat = [rng.poisson(40.0, (96, 96)).astype(np.uint8) for _ in range(4)]
    with pytest.raises(CannotTrack, match="no particle|no frame can be used"):
        StateMapTracker(SceneSettings(shape=(96, 96))).track(lambda: flat)


def test_particles_that_touch_are_cut_at_their_necks():
    y, x = np.indices((60, 90))
    image = np.full((60, 90), 10.0)
    for middle in (25, 50):
        image[np.hypot(y - 30, x - middle) < 14] = 30.0
    found = find_particles(image, smallest_px=50, dark=False)
    assert found.count == 2
    assert found.x_px == pytest.approx([25, 50], abs=1.5)
    dark = find_particles(40 - image, smallest_px=50, dark=True)
    assert dark.area_px == pytest.approx(found.area_px)


def test_the_mosaic_is_counted_and_its_full_change_found():
    rng = np.random.default_rng(5)
    states = np.concatenate([np.zeros(30), rng.uniform(0, 1, 20), np.ones(50)])
    sigmas = np.full(100, 0.03)
    noisy = states + rng.normal(0, 0.03, 100)
    found = mosaic(noisy, sigmas)
    assert abs(found.active - 0.2) < 3 * found.active_sigma
    assert abs(found.converted - 0.5) < 3 * found.converted_sigma
    change, sigma = converted_change(-0.3 * noisy, 0.3 * sigmas)
    assert change == pytest.approx(-0.3, abs=5 * sigma)
    assert sigma < 0.01
    assert np.isnan(converted_change(rng.normal(0, 0.03, 100), sigmas)[0])


@pytest.mark.parametrize("count", [6, 24])
def test_counts_of_a_mosaic_are_as_far_off_as_their_sigmas_say(count):
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(300):
        kind = rng.choice(3, count, p=rng.dirichlet([0.5, 0.5, 0.5]))
        states = np.choose(kind, [np.zeros(count), rng.uniform(0, 1, count), np.ones(count)])
        found = mosaic(states + rng.normal(0, 0.06, count), np.full(count, 0.06))
        active, converted = np.mean(kind == 1), np.mean(kind == 2)
        pulls.append(
            [
                (found.active - active) / found.active_sigma,
                (found.converted - converted) / found.converted_sigma,
            ]
        )
    assert np.sqrt(np.mean(np.square(pulls), axis=0)) == pytest.approx([1.0, 1.0], abs=0.12)


def test_a_mosaic_of_two_particles_is_counted_as_by_hand():
    # One is clearly pristine. The other is on its way or there, with odds 1 to r; the prior of
    # Jeffreys has both alike.
    sigma = 0.05
    r = 1 / (np.sqrt(2 * np.pi) * sigma) / 0.5
    found = mosaic(np.array([-0.2, 1.0]), np.full(2, sigma))
    assert found.converted == pytest.approx(0.5 * r / (1 + r), rel=2e-3)
    chance = r / (1 + r)
    assert found.converted_sigma == pytest.approx(0.5 * np.sqrt(chance * (1 - chance)), rel=2e-2)


def test_many_particles_that_tell_nothing_of_themselves_are_counted_too():
    found = mosaic(np.zeros(700), np.full(700, 3e3))
    assert (found.active, found.converted) == pytest.approx((1 / 3, 1 / 3), rel=1e-4)
    # Of Jeffreys' prior: (1/3) (2/3) / (3/2 + 1).
    assert found.active_sigma == pytest.approx(np.sqrt(2 / 9 / 2.5), rel=0.01)
