"""The lattice tracker on crystals whose area, thickness and spacing are known."""

import numpy as np
import pytest

from correlate.bragg import Ring, turning
from correlate.trackers.lattice import LatticeTracker, look
from correlate.trackers.protocol import CannotTrack, SceneSettings
from mocks.camera import new_scene
from mocks.scenario import load

SPACING_M = {
    "inactive_li_cryo": 2.48e-10,
    "layered_to_spinel": 2.87e-10,
    "garnet_beam_damage": 3.24e-10,
}


def movie(name, seed, count, **overrides):
    """Return frames, what is known of them, and the truth in each."""
    scenario = load(name, height=160.0, width=192.0, **overrides)
    scene = new_scene(scenario, seed)
    front_m = scenario.cell.front_start_m + np.linspace(0, 25e-9, count)
    frames, truth = [], []
    for i, front in enumerate(front_m):
        scene.dose_e_m2 = 2e23 * i
        frames.append(scene.frame(i, front, (0.3 * i, -0.2 * i)))
        truth.append(scene.truth(front)["lattice"])
    told = {"spacing": SPACING_M[name]}
    settings = SceneSettings(shape=scene.shape, pixel_size_m=5e-11, options=told)
    return frames, settings, {k: np.array([row[k] for row in truth]) for k in truth[0]}


def pull(track, truth, name):
    return (track.columns[name] - truth[name]) / track.columns[f"{name}_sigma"]


def test_a_growing_layer_has_its_thickness_spacing_and_direction():
    frames, settings, truth = movie("layered_to_spinel", 1, 7)
    track = LatticeTracker(settings).track(lambda: frames)
    assert track.valid.all()
    for name in ("thickness", "spacing", "orientation"):
        assert np.sqrt(np.mean(pull(track, truth, name) ** 2)) < 1.8, name
    grown = track.columns["thickness"][-1] - track.columns["thickness"][0]
    assert grown == pytest.approx(2.5e-9, rel=0.03)
    strained = track.columns["strain"][-1] - track.columns["strain"][0]
    assert strained == pytest.approx(1.5e-3, abs=8e-4)


@pytest.mark.parametrize("carbonate", [0.0, 1.0])
def test_the_area_of_inactive_lithium_is_true(carbonate):
    frames, settings, truth = movie("inactive_li_cryo", 4, 3, carbonate=carbonate)
    track = LatticeTracker(settings).track(lambda: frames)
    assert track.columns["area"] == pytest.approx(truth["area"], rel=0.04)
    assert np.all(np.abs(pull(track, truth, "area")) < 3)


def test_what_the_beam_makes_amorphous_is_no_longer_counted():
    frames, settings, truth = movie("garnet_beam_damage", 3, 8)
    track = LatticeTracker(settings).track(lambda: frames)
    assert truth["crystalline_fraction"][-1] < 0.5
    assert track.columns["crystalline_fraction"] == pytest.approx(
        truth["crystalline_fraction"], abs=0.015
    )
    assert np.sqrt(np.mean(pull(track, truth, "crystalline_fraction") ** 2)) < 2


def test_no_lattice_is_a_result_and_a_blank_frame_is_none():
    frames, settings, _ = movie("layered_to_spinel", 1, 2)
    amorphous = np.random.default_rng(1).poisson(45.0, frames[0].shape).astype(np.uint8)
    live = LatticeTracker(settings).begin(lambda: frames)
    track = live.track(lambda: [amorphous, np.zeros_like(amorphous), frames[1]])
    assert track.valid.tolist() == [True, False, True]
    assert track.columns["area"][0] == 0
    assert track.columns["area_sigma"][0] > 0
    assert np.isnan(track.columns["spacing"][0])
    assert track.reasons == {"blank: all pixels are alike": 1}
    with pytest.raises(CannotTrack, match="no lattice of 2.87 angstrom"):
        LatticeTracker(settings).track(lambda: [amorphous])


def test_what_cannot_be_seen_is_told():
    with pytest.raises(CannotTrack, match="pixel size"):
        LatticeTracker(SceneSettings(shape=(160, 160)))
    with pytest.raises(CannotTrack, match=r"a spacing of 1\.24 px cannot be seen"):
        LatticeTracker(SceneSettings(shape=(160, 160), pixel_size_m=2e-10))
    with pytest.raises(CannotTrack, match="does not fit"):
        LatticeTracker(SceneSettings(shape=(160, 40), pixel_size_m=5e-11))


def test_the_frequency_of_fringes_errs_by_its_sigma():
    rng, (y, x) = np.random.default_rng(0), np.indices((56, 56))
    ring, angle = Ring(4.96), 0.4
    errors = []
    for _ in range(30):
        phase = (x * np.cos(angle) + y * np.sin(angle)) / 4.96 + rng.uniform()
        image = rng.poisson(47 * (1 + 0.2 * np.cos(2 * np.pi * phase)))
        windows = ring.look(image, 0, 0)
        seen = windows.seen(ring.background(windows))
        assert seen.all()
        found = ring.peaks(image, 0, 0, np.argwhere(seen), windows.best[seen])
        sigma = np.sqrt(ring.frequency_gain * windows.noise / windows.power) / seen.size
        size = np.hypot(found[:, 0], found[:, 1])
        spread = np.sqrt(ring.frequency_variance(sigma, np.full(seen.shape, angle)))
        errors.append((size.mean() - 1 / 4.96) / spread)
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) < 1.25


def test_noise_is_no_part_of_a_lattice():
    rng, (y, x) = np.random.default_rng(0), np.indices((56, 56))
    ring, powers = Ring(4.96), []
    for _ in range(40):
        phase = (0.9 * x + 0.44 * y) / (4.96 * np.hypot(0.9, 0.44)) + rng.uniform()
        image = rng.poisson(10 * (1 + 0.2 * np.cos(2 * np.pi * phase)))
        strength, seen, _, _ = look(ring, image, 0, 0)
        assert seen.all()
        powers.append(np.mean(strength**2))
    full = (0.5 * 0.2 * 10 * 16**2) ** 2  # half the amplitude, times the sum of a Hann window
    assert np.mean(powers) == pytest.approx(full, rel=0.03)


def test_edges_turn_once_around_an_island():
    field = np.zeros((12, 12), bool)
    field[3:7, 3:7] = True
    assert turning(field) == 1
    field[4:6, 4:6] = False
    assert turning(field) == 0  # a hole turns back
    strip = np.zeros((12, 12), bool)
    strip[:, 4:8] = True
    assert turning(strip) == 0
    assert turning(~field) == 0  # and so does what lies around it, with an island in its hole
    assert turning(np.ones((12, 12), bool)) == 0
    half = np.zeros((12, 12), bool)
    half[:4, 3:8] = True
    assert turning(half) == 0.5
