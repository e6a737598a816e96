"""The swelling tracker on simulated nanowires, whose size is known."""

import numpy as np
import pytest

from correlate.object_shape import shape_of
from correlate.outline import Outline
from correlate.trackers.protocol import CannotTrack, SceneSettings
from correlate.trackers.swelling import SwellingTracker
from mocks.camera import new_scene
from mocks.scenario import load

BLANK, SATURATED, CRACKED = 12, 13, 21
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


@pytest.fixture(scope="module")
def cracking():
    shares = np.concatenate([np.full(10, 0.1), np.linspace(0.1, 0.9, 22)])
    opens = float(shares[CRACKED]) - 1e-6
    frames, true, settings = movie("si_nanowire", shares, width=256.0, fracture_share=opens)
    frames[BLANK] = np.zeros_like(frames[BLANK])
    frames[SATURATED] = np.full_like(frames[SATURATED], 255)
    return frames, true, settings, SwellingTracker(settings).track(lambda: frames)


def test_sizes_are_true_within_their_sigmas(cracking):
    _, true, _, track = cracking
    for name in SIZES:
        error = (track.columns[name] - true[name])[track.valid]
        pull = error / track.columns[f"{name}_sigma"][track.valid]
        assert 0.6 < np.sqrt(np.mean(pull**2)) < 1.4, name
    assert track.columns["diameter_sigma"][5] < 0.15 * 2e-9


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
    assert not track.valid[[BLANK, SATURATED]].any()
    assert track.valid.sum() == 30
    assert np.isnan(track.columns["diameter"][[BLANK, SATURATED]]).all()
    assert track.reasons["blank: all pixels are alike"] == 2


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


def test_a_reacting_wire_grows_longer_and_does_not_crack():
    frames, true, settings = movie("sno2_nanowire", np.linspace(0.2, 0.3, 14))
    track = SwellingTracker(settings).track(lambda: frames)
    assert track.valid.all()
    assert track.attributes["fracture_frame"] == -1
    for name in SIZES:
        pull = (track.columns[name] - true[name]) / track.columns[f"{name}_sigma"]
        assert np.sqrt(np.mean(pull**2)) < 1.8, name


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
    for name in ("length", "gap"):
        error, sigma = track.columns[name] - true[name], track.columns[f"{name}_sigma"]
        assert np.nanmax(np.abs(error / sigma)) < 4.5, name


def test_where_a_frame_says_little_the_first_outline_is_stretched():
    changes = {"wire_transmission": 0.8, "lithiated_transmission": 0.8}
    frames, true, settings = movie(
        "si_nanowire", np.full(12, 0.1), dose_rate_e_m2_s=1.25e19, **changes
    )
    track = SwellingTracker(settings).track(lambda: frames)
    assert track.attributes["stretched_frames"] == 12
    pull = (track.columns["diameter"] - true["diameter"]) / track.columns["diameter_sigma"]
    assert np.sqrt(np.mean(pull**2)) < 2.0
