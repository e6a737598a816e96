"""The swelling tracker on simulated nanowires, whose size is known."""

import numpy as np
import pytest
from scipy import special

from correlate.object_shape import shape_of
from correlate.outline import Outline
from correlate.trackers.protocol import CannotTrack, SceneSettings
from correlate.trackers.swelling import SwellingTracker
from mocks.camera import new_scene
from mocks.nanowire import WireShape
from mocks.scenario import load

BLANK, SATURATED, CORRUPT, CRACKED = 12, 13, 15, 21
SIZES = ("length", "diameter", "area", "volume")


def movie(name, shares, *, seed=1, drift=(0.05, -0.03), **overrides):
    """Return frames, what is true in each, and what a tracker is told."""
    scenario = load(name, **overrides)
    scene = new_scene(scenario, seed)
    fronts = np.asarray(shares) * scenario.cell.film_thickness_m
    frames = [scene.frame(i, front, (i * drift[0], i * drift[1])) for i, front in enumerate(fronts)]
    truth = [scene.truth(front)["swelling"] for front in fronts]
    true = {q: np.array([t[q] for t in truth]) for q in truth[0]}
    settings = SceneSettings(shape=scene.shape, pixel_size_m=scenario.camera.pixel_size_m)
    return frames, true, settings


def pulls(track, true, name):
    """Return errors over claimed sigmas."""
    error = (track.columns[name] - true[name]) / track.columns[f"{name}_sigma"]
    return error[track.valid & np.isfinite(error)]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.fixture(scope="module")
def cracking():
    shares = np.concatenate([np.full(10, 0.1), np.linspace(0.1, 0.9, 22)])
    opens = float(shares[CRACKED]) - 1e-6
    frames, true, settings = movie("si_nanowire", shares, width=256.0, fracture_share=opens)
    frames[BLANK] = np.zeros_like(frames[BLANK])
    frames[SATURATED] = np.where(np.arange(256) < 128, 255, frames[SATURATED]).astype(np.uint8)
    frames[CORRUPT] = np.where(frames[CORRUPT] > 150, np.nan, frames[CORRUPT]).astype(np.float32)
    return frames, true, settings, SwellingTracker(settings).track(lambda: frames)


@pytest.fixture(scope="module")
def reacting():
    frames, true, settings = movie("sno2_nanowire", np.linspace(0.2, 0.3, 16), seed=2)
    return true, SwellingTracker(settings).track(lambda: frames)


@pytest.fixture(scope="module")
def faint():
    found = []
    for seed in (1, 2):
        frames, true, settings = movie(
            "si_nanowire",
            np.full(12, 0.1),
            seed=seed,
            wire_transmission=0.8,
            lithiated_transmission=0.8,
            dose_rate_e_m2_s=1.25e19,
        )
        found.append((true, SwellingTracker(settings).track(lambda frames=frames: frames)))
    return found


@pytest.mark.parametrize("name", SIZES)
def test_errors_are_as_large_as_sigmas_say(cracking, reacting, faint, name):
    kinds = [(cracking[1], cracking[3]), reacting, *faint]
    found = [pulls(track, true, name) for true, track in kinds]
    assert 0.85 < rms(np.concatenate(found)) < 1.15


def test_sigmas_are_small(cracking):
    # A thirteenth of a pixel, and a third: at 117 e/px and 55 %.
    _, _, _, track = cracking
    assert track.columns["diameter_sigma"][5] < 0.08 * 2e-9
    assert track.columns["length_sigma"][5] < 0.3 * 2e-9


def test_changes_are_against_the_first_frames_and_the_volume_is_bounded(cracking):
    _, true, _, track = cracking
    for name in SIZES:
        expected = true[name][-1] / true[name][0] - 1
        sigma = track.columns[f"{name}_change_sigma"][-1]
        assert track.columns[f"{name}_change"][-1] == pytest.approx(expected, abs=4 * sigma)
    low, high = track.columns["volume_change_low"][-1], track.columns["volume_change_high"][-1]
    assert low < track.columns["volume_change"][-1] < high + 0.1
    assert track.units["volume"] == "m^3"
    assert track.units["volume_change"] == "1"


def test_unusable_frames_are_gaps_and_counted(cracking):
    _, _, _, track = cracking
    unusable = [BLANK, SATURATED, CORRUPT]
    assert np.flatnonzero(~track.valid).tolist() == unusable
    assert np.isnan(track.columns["diameter"][unusable]).all()
    assert track.reasons == {
        "blank: all pixels are alike": 1,
        "saturated": 1,
        "pixels that are not numbers": 1,
    }


def test_the_crack_is_told_with_its_frame(cracking):
    _, _, _, track = cracking
    assert track.attributes["fracture_frame"] == CRACKED
    assert track.attributes["fracture_place"] == pytest.approx(0.6, abs=0.03)
    assert not track.columns["cracks"][:CRACKED].any()
    assert np.all(track.columns["cracks"][CRACKED + 1 :] == 1)


def test_a_live_tracker_goes_on_with_the_same_numbers(cracking):
    frames, _, settings, whole = cracking
    live = SwellingTracker(settings).begin(lambda: frames[:24])
    row = live.update(frames[24])
    assert len(row.cracks) == 1
    assert row.values["length"] * 2e-9 == pytest.approx(whole.columns["length"][24], rel=1e-9)


def test_a_reacting_wire_grows_longer_and_does_not_crack(reacting):
    _, track = reacting
    assert track.valid.all()
    assert track.attributes["fracture_frame"] == -1
    grown = track.columns["length_change"][-1] / track.columns["length_change_sigma"][-1]
    assert grown > 10


def test_an_object_that_jumps_is_found_again_and_one_that_is_gone_is_not_made_up():
    frames, true, settings = movie("si_nanowire", np.full(8, 0.1), drift=(0, 0))
    frames[3] = np.roll(frames[3], (9, 14), axis=(0, 1))
    frames[5] = np.random.default_rng(1).poisson(117, frames[5].shape).astype(np.uint8)
    track = SwellingTracker(settings).track(lambda: frames)
    assert track.valid.tolist() == [i != 5 for i in range(8)]
    assert track.columns["length"][3] == pytest.approx(true["length"][3], rel=0.01)
    assert np.isnan(track.columns["length"][5])
    assert sum(track.reasons.values()) == 1


def test_what_cannot_be_tracked_is_told():
    settings = SceneSettings(shape=(64, 64), pixel_size_m=1e-9)
    with pytest.raises(CannotTrack, match="pixel size"):
        SwellingTracker(SceneSettings(shape=(64, 64)))
    with pytest.raises(CannotTrack, match="no frame"):
        SwellingTracker(settings).track(list)
    flat = np.random.default_rng(0).poisson(50, (64, 64)).astype(np.uint8)
    with pytest.raises(CannotTrack, match="no dark object"):
        SwellingTracker(settings).track(lambda: [flat] * 3)


def test_the_shape_of_an_ellipse_is_known():
    t = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    c, s = np.cos(0.3), np.sin(0.3)
    x, y = 40 * np.cos(t), 15 * np.sin(t)
    outline = Outline.through(np.column_stack([70 + c * x - s * y, 50 + s * x + c * y]), 3.0)
    shape = shape_of(outline)
    assert shape.values["length"] == pytest.approx(80, rel=1e-3)
    assert shape.values["area"] == pytest.approx(np.pi * 600, rel=1e-3)
    assert shape.values["volume"] == pytest.approx(4 / 3 * np.pi * 40 * 15**2, rel=2e-3)
    # Gradients: all points outwards by a little.
    out = shape_of(outline.moved(np.full(outline.knots, 0.01)))
    for name in SIZES:
        grown = (out.values[name] - shape.values[name]) / 0.01
        assert grown == pytest.approx(
            shape.gradients[name] @ outline.spline.sum(axis=1), rel=0.02
        ), name


def test_a_wire_that_breaks_in_two_keeps_its_size_and_the_gap_is_told():
    shares = np.concatenate([np.full(4, 0.55), np.linspace(0.6, 0.9, 10)])
    frames, true, settings = movie("si_nanowire", shares, fracture_share=0.6, opening_m=60e-9)
    track = SwellingTracker(settings).track(lambda: frames)
    assert track.valid.all()
    assert track.columns["parts"][-1] == 2
    assert track.columns["cracks"].max() == 1
    for name in ("length", "gap"):
        error, sigma = track.columns[name] - true[name], track.columns[f"{name}_sigma"]
        assert np.nanmax(np.abs(error / sigma)) < 4.5, name


def test_where_a_frame_says_little_the_first_outline_is_stretched(faint):
    for _, track in faint:
        assert track.attributes["stretched_frames"] == track.valid.sum() >= 10


def test_ends_that_do_not_stand_out_have_no_length():
    frames, true, settings = movie(
        "si_nanowire",
        np.full(12, 0.1),
        seed=4,
        wire_transmission=0.8,
        lithiated_transmission=0.8,
        dose_rate_e_m2_s=3.75e18,
    )
    track = SwellingTracker(settings).track(lambda: frames)
    seen = track.valid
    assert seen.sum() >= 6
    assert np.isnan(track.columns["length"][seen]).all()
    assert rms(pulls(track, true, "diameter")) < 1.4


def test_large_pixels_are_made_of_those_that_an_edge_does_not_need():
    y, x = np.mgrid[:160, :240] - np.array([80.0, 120.0])[:, None, None]
    rng = np.random.default_rng(3)
    frames = []
    for k in range(12):
        shape = WireShape(left_px=-80.0, right_px=80.0, radius_px=30.0)
        inside = special.ndtr(-shape.outside(x - 0.1 * k, y) / 3.0)
        frames.append(rng.poisson(20 * (1 - 0.4 * inside)).astype(np.uint16))
    settings = SceneSettings(shape=(160, 240), pixel_size_m=1e-9)
    track = SwellingTracker(settings).track(lambda: frames)
    assert track.attributes["summed_px"] == 2
    true = {name: np.full(12, value) for name, value in shape.truth(1e-9).items()}
    for name in SIZES:
        found = pulls(track, true, name)
        assert abs(found.mean()) < 1.2, name
        assert 0.5 < found.std() < 1.5, name
    # What is drawn lies on its edge in each frame, where the drift brings it.
    moved = {axis: np.nan_to_num(track.drift[f"d{axis}"]) for axis in "xy"}
    for thing, x_px, y_px in (
        ("end_1", 40, 80),
        ("end_2", 200, 80),
        ("side_1", 120, 50),
        ("side_2", 120, 110),
    ):
        for axis, at_px in (("x", x_px + 0.1 * np.arange(12)), ("y", y_px)):
            error = track.columns[f"{thing}_{axis}_px"] - moved[axis] - at_px
            sigma = track.columns[f"{thing}_{axis}_px_sigma"]
            assert np.all(np.abs(error) < 5 * sigma), (thing, axis)
            assert abs(error.mean()) < 0.3, (thing, axis)


def test_a_front_near_an_end_draws_no_length():
    found = []
    for seed in (1, 2):
        frames, true, settings = movie(
            "sno2_nanowire", np.full(12, 0.05), seed=seed, dose_rate_e_m2_s=1.5e20
        )
        track = SwellingTracker(settings).track(lambda frames=frames: frames)
        found.append(pulls(track, true, "length"))
    assert abs(np.mean(np.concatenate(found))) < 0.8
    assert rms(np.concatenate(found)) < 1.4


def test_a_front_that_has_come_to_the_far_end_draws_no_length():
    shares = np.concatenate([np.linspace(0.6, 0.955, 12), np.full(14, 0.955)])
    frames, true, settings = movie("sno2_nanowire", shares, seed=2, dose_rate_e_m2_s=1.5e20)
    track = SwellingTracker(settings).track(lambda: frames)
    found = pulls(track, true, "length")[-12:]
    assert abs(found.mean()) < 0.9
    assert rms(found) < 1.4


def test_a_wire_that_has_cracked_goes_on_growing_at_its_crack():
    shares = np.concatenate([np.full(6, 0.5), np.linspace(0.5, 1.0, 48)])
    frames, true, settings = movie("si_nanowire", shares, seed=4, width=256.0, fracture_share=0.55)
    track = SwellingTracker(settings).track(lambda: frames)
    assert track.columns["cracks"][-1] == 1
    for name in ("diameter", "area", "volume"):
        late = pulls(track, true, name)[-12:]
        assert abs(late.mean()) < 2.0, name
        assert rms(late) < 2.2, name


def test_drift_beside_an_object_that_grows_alone_is_as_doubtful_as_its_sigma_says(cracking):
    frames, true, _, track = cracking
    row = np.arange(len(frames))
    for axis, step_px in (("x", 0.05), ("y", -0.03)):
        error = track.drift[f"d{axis}"] + step_px * row
        sigma = track.drift[f"sigma_{axis}"]
        assert rms((error / sigma)[track.valid]) < 1.3, axis
    grown_px = (true["diameter"][-1] - true["diameter"][0]) / 2e-9
    assert track.drift["sigma_y"][-1] == pytest.approx(grown_px / np.sqrt(12), rel=0.1)
    assert track.drift["sigma_y"][0] < 0.2
