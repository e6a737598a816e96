"""Rotation and magnification of a field that turns slowly, against the simulation's own."""

import numpy as np
import pytest
from scipy import ndimage

from correlate.trackers.drift import DriftTracker
from correlate.trackers.protocol import SceneSettings
from correlate.turning import BASE_FRAMES, FIRST_FRAMES

SIDE, FRAMES, STILL = 288, 64, FIRST_FRAMES + BASE_FRAMES
MIDDLE = (SIDE - 1) / 2


def movie(seed, *, turn_rad, grows):
    """Turn and magnify a scene more and more after the first frames, on a drifting stage."""
    rng = np.random.default_rng(seed)
    size = SIDE + 60
    grains = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2.5, mode="wrap")
    scene = ndimage.spline_filter(1 + 0.12 * grains / grains.std(), order=3)
    along = np.clip((np.arange(FRAMES) - STILL + 1) / (FRAMES - STILL), 0, 1)
    drift = np.cumsum(rng.normal(0, 0.15, (FRAMES, 2)), axis=0)
    drift[0] = 0
    frames = []
    for share, d in zip(along, drift, strict=True):
        t, m = turn_rad * share, grows * share
        # A point r of the scene stands at (1 + m) R r + d in the frame; rows first.
        turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) * (1 + m)
        back = np.linalg.inv(turn)
        offset = MIDDLE + 30 - back @ (MIDDLE + d)
        mean = ndimage.affine_transform(
            scene, back, offset, output_shape=(SIDE, SIDE), order=3, prefilter=False
        )
        frames.append(rng.poisson(20 * np.maximum(mean, 0.05)).astype(np.uint16))
    return frames, turn_rad * along, grows * along


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
def test_rotation_and_magnification_are_true():
    pulls = []
    for seed in range(9):
        frames, turn, grows = movie(seed, turn_rad=4e-3, grows=-2e-3)
        track = DriftTracker(SceneSettings(shape=(SIDE, SIDE))).track(lambda f=frames: f)
        found = track.columns
        seen = np.isfinite(found["rotation"])
        assert seen[STILL:].all()
        assert not seen[:STILL].any()
        assert abs(found["rotation"][-1] - 4e-3) < 5 * found["rotation_sigma"][-1] < 2e-3
        for name, true in (("rotation", turn), ("magnification", grows)):
            pulls.append(((found[name] - true) / found[f"{name}_sigma"])[seen])
        assert track.attributes["last_rotation"] == found["rotation"][-1]
    assert 0.88 < np.sqrt(np.mean(np.square(pulls))) < 1.15


def test_small_frames_have_no_tiles():
    rng = np.random.default_rng(9)
    grains = ndimage.gaussian_filter(rng.standard_normal((100, 100)), 2.0)
    small = list(rng.poisson(20 * (1 + 0.1 * grains / grains.std()).clip(0.1), (40, 100, 100)))
    track = DriftTracker(SceneSettings(shape=(100, 100))).track(lambda: small)
    assert np.isnan(track.columns["rotation"]).all()
    assert "last_rotation" not in track.attributes
