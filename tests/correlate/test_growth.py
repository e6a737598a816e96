"""The growth tracker on whiskers and dendrites whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from correlate.faraday import volume_balance
from correlate.growth_reading import LEFT, NOT_FOUND, TOUCHES
from correlate.shaft import Axis, fit_end
from correlate.trackers.growth import GrowthTracker, with_velocity
from correlate.trackers.protocol import CannotTrack
from tests.correlate.growths import PIXEL_M, charge_for, film

WIDE_M, LONG_M = 60e-9, 240e-9  # 15 px across, 60 px long at the first frame
SIZES = {"height": 128, "width": 256, "diameter_m": WIDE_M, "start_m": LONG_M}
STILL, GROWS, STEP_PX = 14, 40, 1.6


def whisker(seed, *, grows=GROWS, step_px=STEP_PX, **overrides):
    step_m = PIXEL_M * step_px * np.clip(np.arange(STILL + grows) - STILL, 0, None)
    return film("li_whisker_solid", seed, charge_for(step_m, WIDE_M), **{**SIZES, **overrides})


def pull(track, truth, name, rows=slice(None)):
    error = track.columns[name] - truth[name]
    good = track.valid & np.isfinite(error)
    return (error / track.columns[f"{name}_sigma"])[good][rows]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.fixture(scope="module")
def films():
    return [whisker(seed) for seed in range(1, 5)]


@pytest.fixture(scope="module")
def tracks(films):
    return [GrowthTracker(f.settings).track(lambda f=f: f.frames) for f in films]


def test_a_whisker_that_is_long_at_first_is_followed_in_every_frame(tracks, films):
    for track, seen in zip(tracks, films, strict=True):
        assert np.mean(track.valid) > 0.97
        start = track.columns["length"][:5] / PIXEL_M
        assert start == pytest.approx(seen.truth["length"][:5] / PIXEL_M, abs=2.5)


@pytest.mark.parametrize("name", ["length", "tip_distance", "area", "volume"])
def test_errors_are_as_large_as_sigmas_say(tracks, films, name):
    pulls = [pull(t, f.truth, name) for t, f in zip(tracks, films, strict=True)]
    assert 0.7 < rms(np.concatenate(pulls)) < 1.35


def test_sigmas_are_small(tracks):
    # 0.6 px of the end, and a twentieth of the area, at 19 counts per px and 25 %.
    for track in tracks:
        assert np.nanmedian(track.columns["length_sigma"]) < 0.9 * PIXEL_M
        assert np.nanmedian(track.columns["area_sigma"] / track.columns["area"]) < 0.05


def test_the_velocity_is_that_of_the_charge(tracks, films):
    t_ns = (np.arange(STILL + GROWS) * 2e8).astype(np.int64)
    pulls = []
    for track in tracks:
        moved = with_velocity(track, t_ns, 2.0, PIXEL_M)
        late = slice(STILL + 8, STILL + GROWS - 6)
        error = moved.columns["velocity"][late] - STEP_PX * PIXEL_M / 0.2
        assert np.mean(np.isfinite(error)) > 0.9
        pulls.append((error / moved.columns["velocity_sigma"][late])[np.isfinite(error)])
    assert 0.6 < rms(np.concatenate(pulls)) < 1.4


def test_the_volume_is_that_of_the_charge(tracks, films):
    found = []
    for track, seen in zip(tracks, films, strict=True):
        balance = volume_balance(
            seen.charge_C,
            np.where(track.valid, track.columns["volume"], np.nan),
            track.columns["volume_sigma"],
            scale_sigma=track.attributes["volume_scale_sigma"],
            expected_m3_C=track.attributes["volume_per_charge"],
        )
        assert balance.ratio_sigma < 0.05
        found.append((balance.ratio - 1) / balance.ratio_sigma)
    assert rms(found) < 2
    assert np.all(np.abs(found) < 3)


def test_growth_is_not_taken_for_drift(tracks, films):
    for track, seen in zip(tracks, films, strict=True):
        rest = track.drift["dx"] + seen.drift_px[:, 0]
        assert abs(np.mean(rest[-15:]) - np.mean(rest[:STILL])) < 0.08


def test_chunk_after_chunk_is_the_same_as_all_at_once(films, tracks):
    seen = films[0]
    live = GrowthTracker(seen.settings)._learn(lambda: seen.frames[:24])
    parts = [live.track(lambda k=k: seen.frames[k : k + 9]) for k in range(0, STILL + GROWS, 9)]
    for name, values in tracks[0].columns.items():
        again = np.concatenate([part.columns[name] for part in parts])
        np.testing.assert_array_equal(again, values, err_msg=name)
    begun = GrowthTracker(seen.settings).begin(lambda: seen.frames[:24])
    rest = begun.track(lambda: seen.frames[24:])
    both = rest.valid & tracks[0].valid[24:]
    assert both.sum() > 25
    assert rest.columns["length"][both] == pytest.approx(
        tracks[0].columns["length"][24:][both], rel=0.02
    )


@pytest.mark.parametrize("root", ["right", "top", "bottom"])
def test_it_grows_from_any_side(films, tracks, root):
    seen, straight = films[1], tracks[1]
    turn = {
        "right": lambda f: f[:, ::-1],
        "top": lambda f: f.T,
        "bottom": lambda f: f[:, ::-1].T,
    }[root]
    frames = [turn(f) for f in seen.frames[:30]]
    settings = replace(seen.settings, shape=frames[0].shape, options={"root": root})
    track = GrowthTracker(settings).track(lambda: frames)
    np.testing.assert_allclose(track.columns["length"], straight.columns["length"][:30])
    x, y = straight.columns["tip_x_px"][:30], straight.columns["tip_y_px"][:30]
    width = seen.frames[0].shape[1]
    there = {"right": (width - 1 - x, y), "top": (y, x), "bottom": (y, width - 1 - x)}[root]
    np.testing.assert_allclose(track.columns["tip_x_px"], there[0])
    np.testing.assert_allclose(track.columns["tip_y_px"], there[1])
    along = {"right": ("dx", -1), "top": ("dy", 1), "bottom": ("dy", -1)}[root]
    np.testing.assert_allclose(track.drift[along[0]], along[1] * straight.drift["dx"][:30])


def test_frames_that_show_nothing_are_counted_and_bridge_nothing(films):
    seen = films[2]
    frames = list(seen.frames[:34])
    frames[26] = np.zeros_like(frames[0])
    frames[28] = np.full_like(frames[0], 255)
    frames[30] = np.where(np.arange(frames[0].size).reshape(frames[0].shape) == 7, np.nan, 1.0)
    track = GrowthTracker(seen.settings).track(lambda: frames)
    bad = [26, 28, 30]
    assert not track.valid[bad].any()
    assert np.all(np.isnan(track.columns["length"][bad]))
    assert np.all(np.isnan(track.columns["area"][bad]))
    assert sum(track.reasons.values()) == np.count_nonzero(~track.valid)
    assert track.reasons["pixels that are not numbers"] == 1
    assert track.valid[[25, 27, 29, 31, 32]].all()


def test_what_is_gone_is_lost_and_what_comes_back_is_found():
    seen, bare = whisker(7, grows=30), whisker(7, grows=30, object_contrast=0.0)
    frames = list(seen.frames)
    frames[20:32] = bare.frames[20:32]
    track = GrowthTracker(seen.settings).track(lambda: frames)
    assert track.valid[:20].all()
    assert not track.valid[20:32].any()
    assert np.all(np.isnan(track.columns["tip_distance"][20:32]))
    assert track.valid[38:].all()
    assert np.abs(track.columns["length"][38:] - seen.truth["length"][38:]).max() < 4 * PIXEL_M


def test_no_object_is_none_and_electrodes_are_none():
    bare = whisker(3, grows=10, object_contrast=0.0)
    track = GrowthTracker(bare.settings).track(lambda: bare.frames)
    assert not track.valid.any()
    assert track.reasons[NOT_FOUND] == len(bare.frames)
    # Both electrodes are dark, and so is nothing else.
    seen = whisker(3, grows=10)
    dark = replace(seen.settings, options={"contrast": "dark"})
    track = GrowthTracker(dark).track(lambda: seen.frames)
    assert not track.valid.any()


def test_one_that_is_not_there_at_first_is_found_when_it_comes():
    step_m = 2e-9 * 3 * np.clip(np.arange(60) - 26, 0, None)
    seen = film("li_whisker_solid", 4, charge_for(step_m, WIDE_M), **{**SIZES, "start_m": 1e-12})
    track = GrowthTracker(seen.settings).track(lambda: seen.frames)
    assert not track.valid[:26].any()
    assert track.valid[-12:].all()
    assert rms(pull(track, seen.truth, "length", slice(-12, None))) < 2.5


def test_one_that_leaves_the_field_is_censored_and_one_that_arrives_touches():
    seen = whisker(5, grows=44, step_px=4.0)
    cut = [f[:, :200] for f in seen.frames]
    settings = replace(seen.settings, shape=cut[0].shape, options={"target": "none"})
    track = GrowthTracker(settings).track(lambda: cut)
    out = seen.truth["length"] > (200 - seen.scene.root_px + 8) * PIXEL_M
    assert out.sum() > 5
    assert not track.valid[out].any()
    assert np.all(track.columns["censored"][out] == 1)
    assert track.reasons[LEFT] >= out.sum()
    assert np.all(np.isnan(track.columns["tip_distance"]))
    whole = GrowthTracker(seen.settings).track(lambda: seen.frames)
    there = seen.truth["tip_distance"] < 0
    assert there.any()
    assert not whole.valid[there].any()
    assert whole.reasons[TOUCHES] >= there.sum()
    assert not whole.columns["censored"].any()


@pytest.fixture(scope="module")
def dendrite():
    up, down = np.linspace(0, 80, 56), np.linspace(80, 50, 26)
    charge = 1e-12 * np.concatenate([np.zeros(14), up, np.full(10, 80.0), down])
    seen = film("li_dendrite_liquid", 3, charge, height=240, width=400, pixel_size_m=PIXEL_M)
    return seen, GrowthTracker(seen.settings).track(lambda: seen.frames)


def test_a_dendrite_is_measured_and_what_it_leaves_behind(dendrite):
    seen, track = dendrite
    assert np.mean(track.valid) > 0.75
    for name in ("length", "tip_distance", "area"):
        assert np.median(np.abs(pull(track, seen.truth, name))) < 1.3, name
    left = seen.truth["residual_area"][-1]
    assert left > 0
    assert track.columns["residual_area"][-1] == pytest.approx(left, rel=0.08)
    assert np.all(track.columns["residual_area"][:60] == 0)
    # Frames in which its contact was lost, and nobody had looked yet, say nothing.
    assert np.abs(pull(track, seen.truth, "residual_area")).max() < 5


def test_a_velocity_knows_that_it_changes(dendrite):
    seen, track = dendrite
    t_ns = (np.arange(len(seen.frames)) * 2.5e8).astype(np.int64)
    moved = with_velocity(track, t_ns, 2.0, PIXEL_M)
    true = {"velocity": np.gradient(seen.truth["length"], 0.25)}
    assert 0.7 < rms(pull(moved, true, "velocity")) < 1.3
    # Where it stands still, it is known much better than where it begins to grow.
    sigma = moved.columns["velocity_sigma"]
    assert np.nanmin(sigma[12:17]) > 3 * np.nanmedian(sigma[3:9])


def test_the_texture_of_the_electrolyte_is_known(tracks, films):
    grain_px, ratio = 2.5, 0.015  # of the scene
    for track in tracks:
        assert track.attributes["texture"] == pytest.approx(
            4 * np.pi * grain_px**2 * ratio**2, rel=0.35
        )


def test_what_is_darker_than_the_electrolyte_is_followed_if_told():
    # Zinc, or a void.
    seen = whisker(6, grows=16, object_contrast=-0.25)
    dark = replace(seen.settings, options={"contrast": "dark"})
    track = GrowthTracker(dark).track(lambda: seen.frames)
    assert np.mean(track.valid) > 0.9
    for name in ("length", "tip_distance", "area"):
        assert rms(pull(track, seen.truth, name)) < 1.6, name


def test_every_branch_of_a_dendrite_is_counted(dendrite):
    seen, track = dendrite
    assert seen.truth["branches"][78] == 3
    assert track.columns["branches"][78] == 3


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_no_end_is_told_that_has_not_come_out(seed):
    charge_C = np.linspace(0, 2.6e-10, 110)[:44]
    told = {"root": "left", "classes": 2}
    seen = film(
        "li_dendrite_liquid",
        seed,
        charge_C,
        options=told,
        height=240.0,
        width=400.0,
        pixel_size_m=5e-9,
    )
    track = GrowthTracker(seen.settings).track(lambda: seen.frames)
    length_px = seen.truth["length"] / 5e-9
    sides = seen.scene.branches[1:]
    out = 1 + sum(seen.scene._reach_px(side, length_px) > 0 for side in sides)
    assert np.mean(track.valid) > 0.7
    assert not np.any(track.columns["branches"][track.valid] > out[track.valid])


def test_what_cannot_be_told_is_said(films):
    seen = films[0]
    with pytest.raises(CannotTrack, match="pixel size"):
        GrowthTracker(replace(seen.settings, pixel_size_m=np.nan))
    with pytest.raises(CannotTrack, match="no frame can be used"):
        GrowthTracker(seen.settings).track(lambda: [np.zeros_like(seen.frames[0])])
    bare = [f[:, 60:180] for f in seen.frames[:6]]
    settings = replace(seen.settings, shape=bare[0].shape)
    with pytest.raises(CannotTrack, match=r"no edge of another electrode.*target_edge"):
        GrowthTracker(settings).track(lambda: bare)
    near = replace(seen.settings, options={"target_edge": 60 * PIXEL_M})
    with pytest.raises(CannotTrack, match=r"the gap is \d+ px wide, and 40 px are needed"):
        GrowthTracker(near).track(lambda: seen.frames[:6])


@pytest.mark.parametrize(("dose", "contrast"), [(30.0, 0.4), (30.0, 0.1), (3.0, 0.4)])
def test_the_end_of_a_shaft_errs_by_its_sigma(dose, contrast):
    rng = np.random.default_rng(5)
    y, x = np.indices((44, 110)).astype(float)
    axis = Axis(x_px=-50, y_px=8.3, turn_rad=0.13, radius_px=6, soft_px=1.25)
    s, t = axis.along(x, y)
    on = (np.abs(t) < 10) & (np.abs(s - 110) < 28)
    pulls = []
    for _ in range(80):
        end = 110 + rng.uniform(-2, 2)
        counts = rng.poisson(dose * (1 + contrast * axis.cover(s[on], t[on], end))).astype(float)
        shade = np.full(counts.shape, dose)
        fit = fit_end(axis, s[on], t[on], counts, shade, 110.0, rises=1, reach_px=8.0)
        if fit.converged and fit.significance > 4:
            pulls.append((fit.end_px - end) / fit.sigma_px)
    assert len(pulls) > 55
    assert 0.75 < rms(pulls) < 1.25


def test_a_balance_needs_three_rows():
    rows = np.array([1.0, np.nan])
    with pytest.raises(ValueError, match="1 frames with charge and volume are too few"):
        volume_balance(rows, rows, np.ones(2), scale_sigma=0.0, expected_m3_C=1.0)
