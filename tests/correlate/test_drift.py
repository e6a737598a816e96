"""Drift: true under Poisson noise and fixed pattern, with an honest sigma."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import fft, ndimage

from correlate.drift import DriftEstimator, fixed_pattern_correlation, why_unusable
from correlate.trackers.drift import DriftTracker
from correlate.trackers.protocol import CannotTrack, SceneSettings
from correlate.window import Band
from mocks.camera import new_scene
from mocks.layers import LayersScene
from mocks.scenario import load

REAL = Path(os.environ.get("LAMELLA_REAL_DATA", Path(__file__).parents[3] / "shared/data"))
TI = REAL / "ti_annealing_tem"
# Shifts onto the first frame of each group by matching of patches, (y, x) in px, as the
# folder's README tells them.
PATCHES = {
    1733: {
        1734: (8.39, 9.48),
        1735: (9.45, 10.56),
        1736: (10.58, 11.45),
        1737: (11.18, 11.70),
        1738: (12.56, 12.75),
        1739: (10.68, 10.17),
    },
    1751: {
        1752: (3.38, 3.72),
        1753: (3.19, 3.04),
        1754: (5.39, 5.31),
        1755: (9.01, 9.04),
        1756: (7.97, 7.60),
    },
}


class Specimen:
    """A periodic band-limited scene that can be shifted exactly."""

    def __init__(self, shape, seed, *, contrast=0.2):
        rng = np.random.default_rng(seed)
        grains = ndimage.gaussian_filter(rng.standard_normal(shape), 3.0, mode="wrap")
        self._modes = fft.rfft2(contrast * grains / grains.std())
        self._shape = shape

    def at(self, dx, dy):
        """Return the scene displaced by (dx, dy), mean 1."""
        fy = fft.fftfreq(self._shape[0])[:, None]
        fx = fft.rfftfreq(self._shape[1])[None, :]
        turn = np.exp(-2j * np.pi * (fx * dx + fy * dy))
        return np.maximum(1 + fft.irfft2(self._modes * turn, s=self._shape), 0.05)


@pytest.mark.parametrize("shape", [(128, 128), (96, 256)])
@pytest.mark.parametrize("pattern", [0.0, 0.02])
def test_shift_and_sigma_are_true_on_poisson_frames(shape, pattern):
    pulls, errors = [], []
    for seed in range(24):
        rng = np.random.default_rng([seed, 3])
        scene = Specimen(shape, seed)
        gain = 1 + pattern * rng.standard_normal(shape)
        true = rng.uniform(-6, 6, 2)
        first = rng.poisson(20 * scene.at(0, 0) * gain)
        second = rng.poisson(20 * scene.at(*true) * gain)
        estimator = DriftEstimator(shape)
        assert estimator.update(first).dx_px == 0.0
        shift = estimator.update(second)
        assert shift.valid
        error = np.array([shift.dx_px + true[0], shift.dy_px + true[1]])
        errors.extend(error)
        pulls.extend(error / [shift.sigma_x_px, shift.sigma_y_px])
    assert np.sqrt(np.mean(np.square(errors))) < 0.1
    assert 0.7 < np.sqrt(np.mean(np.square(pulls))) < 1.35


def test_sigma_knows_how_bright_it_is_where_the_shift_is_told():
    # The left third has all the grains: what counts is the noise there, and not of the field.
    shape = (96, 144)
    left = np.arange(shape[1]) < 48

    def pull(beside):
        found = []
        for seed in range(40):
            rng = np.random.default_rng([seed, 6])
            scene, estimator = Specimen(shape, seed), DriftEstimator(shape)
            for true in (0.0, *rng.uniform(-1.5, 1.5, 3)):
                mean = np.where(left, scene.at(0.0, true), beside)
                shift = estimator.update(rng.poisson(50 * mean))
                assert shift.valid
                found.append((shift.dy_px + true) / shift.sigma_y_px)
        return np.sqrt(np.mean(np.square(found)))

    assert 0.8 < pull(0.2) / pull(3.0) < 1.3


def test_a_window_over_a_small_field_of_many_counts_draws_nothing_to_itself():
    # What lies under its edges goes along with it; it made errors of 2 sigmas.
    shape, pulls = (96, 144), []
    for seed in range(12):
        rng = np.random.default_rng([seed, 6])
        scene, estimator = Specimen(shape, seed), DriftEstimator(shape)
        estimator.update(rng.poisson(1000 * scene.at(0.0, 0.0)))
        for true in rng.uniform(-1.5, 1.5, (3, 2)):
            shift = estimator.update(rng.poisson(1000 * scene.at(*true)))
            pulls.append((shift.dx_px + true[0]) / shift.sigma_x_px)
            pulls.append((shift.dy_px + true[1]) / shift.sigma_y_px)
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.2


def test_a_growing_reference_is_better_than_one_frame():
    shape = (96, 128)
    scene = Specimen(shape, 5)
    rng = np.random.default_rng(8)
    path = np.cumsum(rng.normal(0, 0.3, (60, 2)), axis=0)
    path[0] = 0
    frames = [rng.poisson(8 * scene.at(*place)) for place in path]

    def spread(count):
        estimator = DriftEstimator(shape, reference_frames=count)
        found = [estimator.update(frame) for frame in frames]
        error = np.array([s.dx_px for s in found]) + path[:, 0]
        return error[20:].std()

    assert spread(32) < 0.85 * spread(1)


def test_a_window_that_must_move_further_asks_the_same_frames_again():
    scene, rng = Specimen((128, 128), 4), np.random.default_rng(4)
    estimator = DriftEstimator((128, 128), reference_frames=8)
    sigmas_px = []
    for k in range(40):
        at = 0.1 * k + 0.4 * max(k - 20, 0)
        shift = estimator.update(rng.poisson(20 * scene.at(at, -at)))
        assert abs(shift.dx_px + at) < 0.5
        sigmas_px.append(shift.sigma_x_px)
    # By fewer pixels, and not by the one first frame alone.
    assert 1.1 * sigmas_px[15] < max(sigmas_px[16:]) < 1.5 * sigmas_px[15]
    assert estimator.has_learned


def test_a_scene_that_fades_tells_less_of_the_shift_and_the_sigma_knows():
    pulls = []
    for seed in range(30):
        rng = np.random.default_rng([seed, 8])
        scene = Specimen((128, 128), seed)
        estimator = DriftEstimator((128, 128), reference_frames=16)
        for _ in range(16):
            estimator.update(rng.poisson(20 * scene.at(0, 0)))
        for _ in range(4):
            true = rng.uniform(-2, 2, 2)
            faded = 1 + 0.6 * (scene.at(*true) - 1)
            shift = estimator.update(rng.poisson(20 * faded))
            pulls.append((shift.dx_px + true[0]) / shift.sigma_x_px)
            pulls.append((shift.dy_px + true[1]) / shift.sigma_y_px)
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.25


@pytest.mark.parametrize("grain_px", [2.0, 20.0])
def test_quality_is_1_for_a_scene_that_has_only_drifted(grain_px):
    # Of coarse grains all power is at the end of the modes.
    rng = np.random.default_rng(3)
    grains = ndimage.gaussian_filter(rng.standard_normal((256, 256)), grain_px, mode="wrap")
    mean = 50 * (1 + 0.2 * grains / grains.std())
    estimator = DriftEstimator((256, 256))
    found = [estimator.update(rng.poisson(np.roll(mean, k, axis=1))) for k in range(4)]
    assert all(0.85 < s.quality < 1.15 for s in found[1:])


def test_a_moving_front_is_no_drift_once_its_band_is_left_out():
    scenario = load("lco_lipon_li", dose_rate_e_m2_s=3e20)
    scene = LayersScene(scenario, 3)
    band = Band(left_px=scene.collector_px + 12, right_px=scene.interface_px - 12)

    def drift_seen(band):
        estimator = DriftEstimator((160, 400), band=band)
        estimator.update(scene.frame(0, 60e-9, (0.0, 0.0)))
        moved = [scene.frame(i, 200e-9, (0.0, 0.0)) for i in range(1, 25)]
        return [estimator.update(frame) for frame in moved]

    assert abs(np.mean([s.dx_px for s in drift_seen(band)])) < 0.05
    # Where it is not, it is found out, as other parts of the scene do not move.
    late = drift_seen(None)[12:]
    assert abs(np.mean([s.dx_px for s in late])) < 0.1
    assert np.sqrt(np.mean([(s.dx_px / s.sigma_x_px) ** 2 for s in late])) < 2


def drift_of_scene(name, seed, frames, **changes):
    """Return pulls about their mean, shape (frames, 2), while a scene changes or not."""
    scenario = load(name, width=256, height=256)
    scene, rng = new_scene(scenario, seed), np.random.default_rng(seed)
    estimator = DriftEstimator(scene.shape, reference_frames=64)
    path = np.cumsum(rng.normal(0, 0.2, (frames, 2)), axis=0)
    path -= path[0]
    errors, sigmas = [], []
    for k, place in enumerate(path):
        scene.dose_e_m2 = changes.get("dose_e_m2", 0.0) * k / frames
        front_m = scenario.cell.front_start_m + changes.get("moves_m", 0.0) * k / frames
        s = estimator.update(scene.frame(k, front_m, tuple(place)))
        errors.append((s.dx_px + place[0], s.dy_px + place[1]))
        sigmas.append((s.sigma_x_px, s.sigma_y_px))
    errors, sigmas = np.array(errors)[4:], np.array(sigmas)[4:]
    return (errors - np.nanmean(errors, axis=0)) / sigmas


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("name", "changes", "most"),
    [
        # One crystal's waves fill the field: along them nothing tells the drift but speckle.
        ("garnet_beam_damage", {}, 1.2),
        ("garnet_beam_damage", {"dose_e_m2": 0.6e24}, 1.2),
        # A layer grows over two crystals, and its spacing changes; it was 6 sigmas.
        ("layered_to_spinel", {"moves_m": 4e-8}, 1.9),
        # A film's grains are exchanged for others behind a front.
        ("fef2_conversion", {"moves_m": 8e-8}, 1.2),
    ],
)
def test_drift_is_true_while_the_scene_changes_by_itself(name, changes, most):
    pulls = np.concatenate([drift_of_scene(name, seed, 50, **changes) for seed in range(2)])
    assert 0.6 < np.sqrt(np.nanmean(pulls**2)) < most


def test_frames_that_are_to_come_are_looked_at_without_a_trace():
    scenario = load("lco_lipon_li", dose_rate_e_m2_s=3e20)
    scene = LayersScene(scenario, 3)
    learned = DriftEstimator((160, 400), reference_frames=8)
    for k in range(12):
        learned.update(scene.frame(k, 60e-9, (0.0, 0.0)))
    later = [scene.frame(k, 200e-9, (0.1, 0.2)) for k in range(20, 30)]
    plain, informed = learned.frozen(), learned.frozen()
    informed.acquaint(later[:8])
    first = [estimator.update(later[0]) for estimator in (plain, informed)]
    # The front has moved by half of the film: who has seen that doubts what tells of it.
    assert abs(first[1].dx_px + 0.1) < abs(first[0].dx_px + 0.1)
    assert first[1].sigma_x_px > first[0].sigma_x_px
    # The learned one knows nothing of it.
    assert learned.frozen().update(later[0]) == first[0]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((64, 64), np.uint8), "blank"),
        (np.full((64, 64), 7.0), "blank"),
        (np.where(np.arange(4096).reshape(64, 64) % 3, 255, 9).astype(np.uint8), "saturated"),
        (np.full((64, 64), np.nan), "not numbers"),
    ],
)
def test_unusable_frames_are_told_apart(pixels, reason):
    assert reason in why_unusable(pixels)
    estimator = DriftEstimator((64, 64))
    estimator.update(np.random.default_rng(0).poisson(9, (64, 64)).astype(np.uint8))
    shift = estimator.update(pixels)
    assert not shift.valid
    assert reason in shift.reason
    assert np.isnan(shift.dx_px)


def test_frames_of_other_shapes_or_too_small_are_refused():
    with pytest.raises(ValueError, match="too small"):
        DriftEstimator((20, 400))
    with pytest.raises(ValueError, match="not of"):
        DriftEstimator((64, 64)).update(np.ones((64, 65)))


def test_noise_alone_gives_no_confident_shift():
    rng = np.random.default_rng(1)
    estimator = DriftEstimator((64, 64))
    estimator.update(rng.poisson(10, (64, 64)))
    found = [estimator.update(rng.poisson(10, (64, 64))) for _ in range(8)]
    assert all(not s.valid or s.sigma_x_px > 0.1 for s in found)


def test_a_fixed_pattern_is_noticed():
    rng = np.random.default_rng(2)
    scene, pattern = Specimen((128, 128), 1), rng.standard_normal((128, 128))
    pair = [rng.poisson(50 * scene.at(d, 0)) + 5 * pattern for d in (0, 4)]
    assert fixed_pattern_correlation(*pair) > 0.15
    clean = [rng.poisson(50 * scene.at(d, 0)).astype(float) for d in (0, 4)]
    assert abs(fixed_pattern_correlation(*clean)) < 0.05


def test_the_tracker_counts_what_it_could_not_use():
    rng = np.random.default_rng(4)
    scene = Specimen((64, 96), 3)
    frames = [rng.poisson(30 * scene.at(d, 0)).astype(np.uint8) for d in (0.0, 1.0, 2.0)]
    frames.insert(2, np.zeros((64, 96), np.uint8))
    track = DriftTracker(SceneSettings(shape=(64, 96))).track(lambda: frames)
    assert track.valid.tolist() == [True, True, False, True]
    assert sum(track.reasons.values()) == 1
    assert track.drift["dx"][3] == pytest.approx(-2.0, abs=0.3)


@pytest.mark.parametrize(
    ("frames", "says"),
    [([np.zeros((64, 64), np.uint8)], "no frame could be"), ([], "no frame could be")],
)
def test_the_tracker_says_when_there_is_nothing_to_register(frames, says):
    with pytest.raises(CannotTrack, match=says):
        DriftTracker(SceneSettings(shape=(64, 64))).track(lambda: frames)
    with pytest.raises(CannotTrack, match="too small"):
        DriftTracker(SceneSettings(shape=(8, 8))).track(lambda: frames)


def test_a_fixed_pattern_draws_no_drift_to_itself():
    shape = (128, 160)
    rng = np.random.default_rng(3)
    scene, gain = Specimen(shape, 2, contrast=0.05), 1 + 0.1 * rng.standard_normal(shape)
    places = [0.0, 3.0, -2.0, 1.0, 4.0, *([0.6] * 12)]
    frames = [rng.poisson(300 * scene.at(x, 0) * gain) for x in places]
    estimator = DriftEstimator(shape, reference_frames=64)
    found = [estimator.update(frame).dx_px for frame in frames]
    assert estimator.pattern_ratio > 0.5
    assert np.mean(found[5:]) == pytest.approx(-0.6, abs=0.05)


def test_a_live_tracker_goes_on_where_it_began():
    rng = np.random.default_rng(6)
    scene = Specimen((64, 96), 3)
    frames = [rng.poisson(30 * scene.at(d, 0)) for d in np.arange(8) * 0.4]
    settings = SceneSettings(shape=(64, 96))
    whole = DriftTracker(settings).track(lambda: frames)
    live = DriftTracker(settings).begin(lambda: frames[:4])
    later = live.track(lambda: frames[4:])
    np.testing.assert_array_equal(later.columns["dx"], whole.columns["dx"][4:])
    with pytest.raises(CannotTrack, match="no frame could be"):
        DriftTracker(settings).begin(list)


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.skipif(not TI.is_dir(), reason=f"the measured TEM frames are not in {TI}")
@pytest.mark.parametrize("first", sorted(PATCHES))
def test_measured_tem_frames_agree_with_matched_patches(first):
    def frames():
        for number in (first, *PATCHES[first]):
            yield np.asarray(Image.open(TI / f"{number}.png"))

    track = DriftTracker(SceneSettings(shape=(1024, 1024))).track(frames)
    assert track.attributes["fixed_pattern_correlation"] > 0.1
    for row, (number, (y, x)) in enumerate(PATCHES[first].items(), 1):
        assert abs(track.drift["dy"][row] - y) < 0.5, number
        assert abs(track.drift["dx"][row] - x) < 0.5, number
