"""What every registered tracker owes to those who use it, on a film of what it is meant for."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from correlate.registry import tracker_class, tracker_names
from correlate.trackers.protocol import CannotTrack, LiveTracker, SceneSettings, Track
from mocks.camera import new_scene
from mocks.scenario import load
from mocks.stage import Stage
from runner.experiment import Experiment
from runner.live_tracking import scene_of

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAMES, FIRST, BLANK, SATURATED = 36, 8, 20, 25
# By tracker: an experiment that asks for it, and how far its reaction goes in the film.
FILMS = {
    "conversion": ("fef2_conversion", 40e-9),
    "drift": ("lco_lipon_li", 0.0),
    "front": ("lco_lipon_li", 60e-9),
    "growth": ("li_whisker_solid", 1.5e-9),
    "lattice": ("layered_to_spinel", 30e-9),
    "profile": ("li_lipon_interface", 20e-9),
    "state_map": ("lfp_state_map", 100e-9),
    "swelling": ("si_nanowire", 60e-9),
}
trackers = pytest.mark.parametrize("name", tracker_names())


@dataclass(frozen=True)
class Film:
    """Frames, two of them spoiled, and what a tracker is told of them."""

    frames: tuple[np.ndarray, ...]
    settings: SceneSettings


@cache
def film(name: str) -> Film:
    assert name in FILMS, f"give tests/contract a film for the tracker {name!r}"
    example, moves_m = FILMS[name]
    experiment = Experiment.load(EXAMPLES / f"{example}.toml")
    overrides = dict(experiment.mock.overrides)
    scenario = load(experiment.mock.scenario, **overrides)
    scene, stage = new_scene(scenario, 3), Stage(3, scenario.camera.drift_m_per_root_s)
    size_m, start_m = scenario.camera.pixel_size_m, scenario.cell.front_start_m
    frames = []
    for i in range(FRAMES):
        share = np.clip((i - FIRST) / (FRAMES - FIRST), 0, 1)
        x_m, y_m = stage.position_m(0.1 * i)
        frames.append(scene.frame(i, start_m + moves_m * share, (x_m / size_m, y_m / size_m)))
    frames[BLANK] = np.zeros_like(frames[BLANK])
    frames[SATURATED] = np.full_like(frames[SATURATED], np.iinfo(frames[0].dtype).max)
    options = next((t.options for t in experiment.tracks if t.tracker == name), {})
    camera = replace(experiment.camera, pixel_size_m=size_m)
    settings = scene_of(camera, experiment.cell, scene.shape)
    return Film(tuple(frames), replace(settings, options=options))


@cache
def tracked(name: str) -> Track:
    seen = film(name)
    return tracker_class(name)(seen.settings).track(lambda: iter(seen.frames))


@trackers
def test_it_has_a_row_for_each_frame_a_sigma_for_each_column_and_a_unit(name):
    track = tracked(name)
    assert len(track.valid) == FRAMES
    assert track.valid.dtype == np.bool_
    assert set(tracker_class(name).quantities) - {"velocity"} <= set(track.columns)
    assert set(track.units) == set(track.columns)
    for column, values in track.columns.items():
        assert values.shape == (FRAMES,)
        assert values.dtype == np.float64
        if "_sigma" not in column:
            own = {f"{column}_sigma", column.removesuffix("_px") + "_sigma_px"}
            (sigma,) = own & set(track.columns)
            assert track.units[sigma] == track.units[column]


@trackers
def test_it_finds_its_object_in_most_frames_with_sigmas_that_are_numbers(name):
    track = tracked(name)
    assert np.mean(track.valid) > 0.8, dict(track.reasons)
    for quantity in set(tracker_class(name).quantities) & set(track.columns):
        value, sigma = track.columns[quantity], track.columns[f"{quantity}_sigma"]
        known = track.valid & np.isfinite(value)
        assert np.all(np.isfinite(sigma[known])), quantity
        assert np.all(sigma[known] >= 0), quantity


@trackers
def test_a_blank_and_a_saturated_frame_are_skipped_and_counted(name):
    track = tracked(name)
    assert not track.valid[BLANK]
    assert not track.valid[SATURATED]
    assert sum(track.reasons.values()) == np.sum(~track.valid)
    assert all(track.reasons)  # each is said in words
    for quantity in set(tracker_class(name).quantities) & set(track.columns):
        assert np.isnan(track.columns[quantity][[BLANK, SATURATED]]).all(), quantity


@trackers
def test_live_it_says_the_same_of_each_frame_as_of_all_together(name):
    seen = film(name)
    tracker = tracker_class(name)(seen.settings)
    if not isinstance(tracker, LiveTracker):
        pytest.skip(f"{name} needs all frames of a recording")
    first, rest = seen.frames[:FIRST], seen.frames[FIRST:]
    try:
        one, all_of_them = tracker.begin(lambda: iter(first)), tracker.begin(lambda: iter(first))
    except CannotTrack as error:
        pytest.skip(f"{name} cannot learn from {FIRST} frames: {error}")
    together = all_of_them.track(lambda: iter(rest))
    each = [one.track(lambda pixels=pixels: [pixels]) for pixels in rest]
    assert [bool(track.valid[-1]) for track in each] == together.valid.tolist()
    for quantity in set(tracker_class(name).quantities) & set(together.columns):
        found = [float(track.columns[quantity][-1]) for track in each]
        np.testing.assert_allclose(found, together.columns[quantity], rtol=1e-9, err_msg=quantity)


@trackers
def test_frames_of_nothing_are_refused_in_words(name):
    settings = film(name).settings
    dark = np.zeros(settings.shape, np.uint8)
    with pytest.raises(CannotTrack, match=r"\w+ \w+"):
        tracker_class(name)(settings).track(lambda: iter([dark] * 10))
