"""The lattice tracker on crystals whose area, thickness and spacing are known."""

import numpy as np
import pytest
from scipy import special

from correlate.bragg import Ring
from correlate.lattice_area import area_of, turning
from correlate.lattice_place import PlaceFinder
from correlate.lattice_sight import look
from correlate.trackers.lattice import LatticeTracker, alike
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


def grain(rng, radius_px, counts=47.0):
    """Return counts of a round crystal in the middle of a frame."""
    y, x = np.indices((64, 64)) - 31.5
    inside = special.ndtr((radius_px - np.hypot(x, y)) / 1.5)
    phase = (x * np.cos(0.4) + y * np.sin(0.4)) / 4.96
    return rng.poisson(counts * (1 + 0.2 * inside * np.cos(2 * np.pi * phase)))


@pytest.mark.parametrize("radius_px", [99.0, 20.0])
def test_a_mean_of_frequencies_errs_by_its_sigma(radius_px):
    rng, ring, errors = np.random.default_rng(1), Ring(4.96), []
    for _ in range(120):
        image = grain(rng, radius_px)
        sight = look(ring, image, 0, 0)
        inner = sight.strength > 0.7 * sight.strength.max()
        which = sight.number[inner & (sight.number >= 0)]
        found = sight.peaks.frequency[which]
        size = np.hypot(found[:, 0], found[:, 1])
        pulls = sight.peaks.pulls(which, found / size[:, None] / len(which))
        at = np.argwhere(inner & (sight.number >= 0))
        moved = ring.pull(image.shape, (0, 0), at, found, pulls)
        errors.append((size.mean() - 1 / 4.96) / np.sqrt(np.sum(image * moved**2)))
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) < 1.2


def test_noise_is_no_part_of_a_lattice():
    rng, ring, sizes = np.random.default_rng(0), Ring(4.96), []
    for _ in range(40):
        sight = look(ring, grain(rng, 99.0, counts=10.0), 0, 0)
        assert sight.seen.all()
        sizes.append(np.mean(sight.strength))
    full = 0.5 * 0.2 * 10 * 16**2  # half the amplitude, times the sum of a Hann window
    assert np.mean(sizes) == pytest.approx(full, rel=0.01)


@pytest.mark.parametrize("radius_px", [0.0, 20.0, 99.0])
def test_the_noise_of_counts_is_told_with_a_lattice_and_without(radius_px):
    rng, ring = np.random.default_rng(3), Ring(4.96)
    found = [look(ring, grain(rng, radius_px), 0, 0).background for _ in range(12)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.08)


def test_a_straight_edge_lies_where_it_is_wherever_windows_are():
    ring, (y, x) = Ring(4.96), np.indices((96, 96))
    waves = np.cos(2 * np.pi * (x * np.cos(0.9) + y * np.sin(0.9)) / 4.96)
    whole = (np.ones((9, 8), bool), np.ones((8, 9), bool))
    errors = []
    for place in np.arange(40.0, 48.0):
        image = 1e9 * (1 + 0.2 * waves * special.ndtr((place - x) / 1.5))
        share = look(ring, image, 0, 0).strength / (0.5 * 0.2 * 1e9 * 16**2)
        # Cells of windows begin 12 px from the side of the frame, which is at -0.5.
        errors.append(area_of(share, np.zeros((9, 9)), whole, 32).area_px / 72 + 11.5 - place)
    assert np.ptp(errors) < 0.15
    assert np.mean(errors) == pytest.approx(0.0, abs=0.1)


def test_the_field_stays_where_it_was_when_fringes_are_as_well_one_further():
    scenario = load("garnet_beam_damage", height=160.0, width=192.0)
    scene = new_scene(scenario, 2)
    front = scenario.cell.front_start_m
    frames = [scene.frame(i, front, (0.0, 0.0)) for i in range(3)]
    # By one spacing and back a bit: fringes lie as if it had not moved.
    one = 3.24e-10 / 5e-11
    away = one * np.cos(0.4) - 0.3, one * np.sin(0.4)
    scene.dose_e_m2 = 7e23
    frames.append(scene.frame(3, front, away))
    finder = PlaceFinder(scene.shape, one, 8.0, 64)
    place = [finder.update(f) for f in frames][-1]
    assert place.x_px == pytest.approx(away[0], abs=0.8)
    assert place.y_px == pytest.approx(away[1], abs=0.8)
    assert -place.shift.dx_px == pytest.approx(away[0], abs=0.8)
    noise = np.random.default_rng(1).poisson(50.0, scene.shape)
    lost = finder.update(noise)
    assert (lost.x_px, lost.y_px) == (place.x_px, place.y_px)
    assert lost.sigma_x_px == pytest.approx(8 / np.sqrt(3))


def test_fringes_that_run_upright_are_of_one_crystal():
    rng, y, ring = np.random.default_rng(2), np.indices((80, 80))[0], Ring(4.96)
    image = rng.poisson(47 * (1 + 0.2 * np.cos(2 * np.pi * y / 4.96)))
    sight = look(ring, image, 0, 0)
    # Half of them are found as waves that come from below, half as the same from above.
    assert np.ptp(np.sign(sight.frequency[..., 1])) == 2
    assert all(part.all() for part in alike(sight, 0.5 / 32))


def test_the_truth_of_a_field_is_that_of_the_first_frame():
    scenario = load("garnet_beam_damage")
    first, later = new_scene(scenario, 3), new_scene(scenario, 3)
    for scene, drift_px in ((first, (0.0, 0.0)), (later, (15.0, 0.0))):
        scene.dose_e_m2 = 7e23
        scene.frame(0, 0.0, drift_px)
        scene.frame(1, 0.0, (3.0, 1.0))
    told = [s.truth(0.0)["lattice"]["crystalline_fraction"] for s in (first, later)]
    assert abs(told[1] - told[0]) > 0.005


def test_edges_turn_once_around_an_island():
    field = np.zeros((12, 12))
    field[3:7, 3:7] = 1
    assert turning(field) == 1
    field[4:6, 4:6] = 0
    assert turning(field) == 0  # a hole turns back
    strip = np.zeros((12, 12))
    strip[:, 4:8] = 1
    assert turning(strip) == 0
    assert turning(1 - field) == 0  # and so does what lies around it, with an island in its hole
    assert turning(np.ones((12, 12))) == 0
    half = np.zeros((12, 12))
    half[:4, 3:8] = 1
    assert turning(half) == 0.5
    # Two crystals that touch are two islands.
    pair = np.zeros((12, 12))
    pair[3:7, 3:9] = 1
    same = np.ones((12, 11), bool), np.ones((11, 12), bool)
    assert turning(pair, same) == 1
    same[0][:, 5] = False
    assert turning(pair, same) == 2
    # An island that a side only touches turns on inside of the field.
    y, x = np.indices((12, 12))
    touching = np.clip(1.0 - 0.25 * (np.hypot(x - 6, y - 3.6) - 2.0), 0.0, 1.0)
    assert touching[0].max() > 0.5
    assert 0.75 < turning(touching) < 1.0
