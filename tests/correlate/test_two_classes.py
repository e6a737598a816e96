"""What has grown, divided into two classes by contrast: films and frames with known areas."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, special

from correlate.deposit import Background, Contrast, Placed, Region
from correlate.gap import Edge, Gap
from correlate.trackers.growth import GrowthTracker
from correlate.trackers.protocol import CannotTrack
from correlate.two_classes import SMOOTH_PX, Split, layer_px, settled_parts, strong_part, two_levels
from tests.correlate.growths import PIXEL_M, charge_for, film

STRONG, WEAK, SOFT_PX, DOSE = 0.3, 0.12, 1.2, 30.0
SHAPE = (60, 110)
WIDE_M = 60e-9
STEPS = np.concatenate([np.zeros(10), np.arange(22), np.full(4, 21.0), 21.0 - np.arange(10)])


def layered(seed, **overrides):
    """Film a whisker with a layer around it that is plated, and stripped out of its layer."""
    sizes = {"height": 112, "width": 208, "diameter_m": WIDE_M, "start_m": 200e-9}
    scene = {"layer_m": 44e-9, "dose_rate_e_m2_s": 2e19, "electrolyte_texture_ratio": 0.006}
    charge = charge_for(STEPS * PIXEL_M, WIDE_M)
    seen = film("li_whisker_solid", seed, charge, **{**sizes, **scene, **overrides})
    return replace(seen, settings=replace(seen.settings, options={"classes": 2.0}))


def tracked(seen):
    return GrowthTracker(seen.settings).track(lambda: seen.frames)


@pytest.fixture(scope="module")
def films():
    return [layered(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def tracks(films):
    return [tracked(seen) for seen in films]


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_two_classes_are_told_in_most_frames(tracks):
    for track in tracks:
        told = track.columns["classes"] == 2
        assert np.mean(told) > 0.75
        for name in ("strong_area", "weak_area"):
            np.testing.assert_array_equal(np.isfinite(track.columns[name]), told)


def test_before_two_classes_are_told_the_area_is_as_doubtful_as_that(tracks, films):
    for track, seen in zip(tracks, films, strict=True):
        untold = track.columns["classes"] == 1
        error = (track.columns["area"] - seen.truth["area"])[untold]
        assert np.any(untold)
        assert rms(error / track.columns["area_sigma"][untold]) < 1


@pytest.mark.parametrize("name", ["strong_area", "weak_area", "area", "length"])
def test_errors_of_both_are_as_large_as_their_sigmas_say(tracks, films, name):
    pulls = []
    for track, seen in zip(tracks, films, strict=True):
        error = (track.columns[name] - seen.truth[name]) / track.columns[f"{name}_sigma"]
        pulls.append(error[(track.columns["classes"] == 2) & np.isfinite(error)])
    assert 0.75 < rms(np.concatenate(pulls)) < 1.3


def test_sigmas_are_small(tracks):
    for track in tracks:
        for name in ("strong_area", "weak_area"):
            assert np.nanmedian(track.columns[f"{name}_sigma"] / track.columns[name]) < 0.07


def test_what_is_stripped_leaves_its_layer(tracks, films):
    changes = {"strong_area": [], "weak_area": []}
    most, left = slice(32, 36), slice(-4, None)
    for track, seen in zip(tracks, films, strict=True):
        for name, found in changes.items():
            columns = track.columns[name], seen.truth[name]
            found.append([np.mean(c[left]) - np.mean(c[most]) for c in columns])
        assert track.columns["residual_area"][-1] == 0
    for name, sign in (("strong_area", -1), ("weak_area", 1)):
        seen, true = np.mean(changes[name], axis=0)
        assert sign * true > 0
        assert seen == pytest.approx(true, rel=0.4)


def test_nothing_is_divided_unasked(films):
    plain = replace(films[0].settings, options={})
    track = GrowthTracker(plain).track(lambda: films[0].frames[:12])
    assert not {"strong_area", "weak_area", "classes"} & set(track.columns)


@pytest.mark.parametrize(
    "overrides",
    [{"layer_m": 0.0}, {"layer_m": 8e-9}, {"layer_contrast": 0.22}, {"layer_contrast": 0.02}],
    ids=["no layer", "a layer as thin as its edge", "nearly as strong", "lost in the texture"],
)
def test_where_two_classes_are_not_told_apart_nothing_is_said_of_them(overrides):
    seen = layered(4, **overrides)
    track = GrowthTracker(seen.settings).track(lambda: seen.frames[:26])
    assert np.all(track.columns["classes"] == 1)
    for name in ("strong_area", "weak_area"):
        assert np.all(np.isnan(track.columns[name]))
        assert np.all(np.isnan(track.columns[f"{name}_sigma"]))


def test_other_numbers_of_classes_are_refused(films):
    with pytest.raises(CannotTrack, match="classes can be 1 or 2"):
        GrowthTracker(replace(films[0].settings, options={"classes": 3.0}))


# --- still images ------------------------------------------------------------------------------


def away(x_px, radius_px):
    """Return how far each pixel is outside of a shaft with a round end."""
    y, x = np.indices(SHAPE, dtype=np.float64)
    return np.hypot(np.maximum(x - x_px, 0.0), y - 29.7) - radius_px


def covers(x_px=60.3, radius_px=8.2, layer_px=9.0):
    inner = special.ndtr(-away(x_px, radius_px) / SOFT_PX)
    return inner, special.ndtr(-away(x_px, radius_px + layer_px) / SOFT_PX)


def image(strong, both):
    return STRONG * strong + WEAK * (both - strong)


def smoothed(excess):
    return ndimage.gaussian_filter(excess, SMOOTH_PX)


def test_two_levels_are_those_of_two_plateaus():
    noise = 0.05 * np.random.default_rng(1).standard_normal(SHAPE)
    strong, both = covers()
    smooth = smoothed(image(strong, both) + noise)
    assert two_levels(smooth, both > 0.5) == pytest.approx((STRONG, WEAK), abs=0.015)
    found = strong_part(smooth, both > 0.5, (STRONG, WEAK))
    assert np.mean(found != (strong > 0.5)) < 0.01
    assert layer_px(both > 0.5, found) == pytest.approx(9, abs=1.5)


@pytest.mark.parametrize("kind", ["one", "slope", "noise", "soft edge"])
def test_what_has_one_level_has_not_two(kind):
    noise = np.random.default_rng(2).standard_normal(SHAPE)
    _, both = covers()
    excess = {
        "one": STRONG * both + 0.02 * noise,
        "slope": STRONG * both * np.linspace(0.3, 1.0, SHAPE[1]) + 0.02 * noise,
        "noise": STRONG * both + 0.5 * noise,
        "soft edge": STRONG * special.ndtr(-away(60.3, 17.2) / 2.0),
    }[kind]
    assert two_levels(smoothed(excess), both > 0.05) is None


def gap_of(frames):
    """Return a gap without texture, known by so many frames."""
    return Gap(
        root=Edge(x_px=0.0),
        target=Edge(),
        first=0,
        last=SHAPE[1],
        background=np.full(SHAPE, DOSE),
        level=np.full(SHAPE, DOSE),
        unknown=np.zeros(SHAPE, dtype=bool),
        start=np.full(SHAPE, DOSE),
        frames=frames,
        texture=0.0,
        grain_px=1.0,
    )


def split_of(gap, strong, both, smooth, moving=None):
    nothing = np.zeros(SHAPE, dtype=bool)
    region = Region(
        background=Background(gap),
        crop=(slice(0, SHAPE[0]), slice(0, SHAPE[1])),
        cover=both.astype(np.float64),
        ahead=nothing,
        behind=nothing,
        soft_px=SOFT_PX,
        rises=1,
    )
    return Split(
        region=region,
        mask=both,
        strong=strong,
        moving=nothing if moving is None else moving,
        behind=nothing,
        smooth=smooth,
        levels=(STRONG, WEAK),
        soft_px=SOFT_PX,
    )


@pytest.mark.parametrize("off_px", [0.0, 1.0, -1.0])
def test_areas_err_by_their_sigmas_and_not_by_where_the_boundary_was_thought_to_be(off_px):
    rng = np.random.default_rng([7, int(off_px) + 5])
    strong, both = covers()
    thought, _ = covers(60.3 + off_px, 8.2 + off_px)
    at = Placed(down=0, right=0, rest_y_px=0.0, rest_x_px=0.0)
    pulls = {"strong": [], "weak": []}
    for _ in range(60):
        gap = gap_of(24)
        seen_before = rng.poisson(DOSE, (24, *SHAPE)).mean(axis=0)
        gap = replace(gap, background=seen_before)
        split = split_of(gap, thought > 0.5, both > 0.5, smoothed(image(strong, both)))
        contrasts = Contrast(), Contrast()
        read = None
        for number in range(4):
            if number == 3:
                split.followed_by(split, contrasts)
            counts = rng.poisson(DOSE * (1 + image(strong, both)))
            beam = split.region.level(counts, at, 1.0)
            read = split.measure(counts, at, (*beam[:2], 1.0), contrasts, (0.0, 0.0), learns=True)
            # Before it is looked at anew, nothing has told the contrasts.
            assert (read is None) == (number < 3)
        areas = read.classes
        true = {"strong": strong.sum(), "weak": (both - strong).sum()}
        for name, found in pulls.items():
            error = getattr(areas, f"{name}_px") - true[name]
            found.append(error / getattr(areas, f"{name}_sigma_px"))
    for name, found in pulls.items():
        assert 0.75 < rms(found) < 1.25, name
        assert abs(np.mean(found)) < 0.5, name


def test_a_contrast_is_told_behind_an_end_and_not_where_it_may_come():
    strong, both = covers()
    moving = np.ones(SHAPE, dtype=bool)
    split = split_of(gap_of(24), strong > 0.5, both > 0.5, smoothed(image(strong, both)), moving)
    inner, outer = split.deep_masks
    assert np.any(inner)
    assert np.all(strong[inner] > 0.99)
    assert not np.any(outer)


def test_parts_that_are_fainter_than_their_class_have_not_come_loose():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10:20, 60:70] = mask[40:50, 60:70] = True
    smooth = np.where(np.arange(SHAPE[0])[:, None] < 30, STRONG, 0.6 * STRONG) * mask
    found = settled_parts(mask, smooth, (STRONG, WEAK))
    assert found[10:20, 60:70].all()
    assert not found[40:50, 60:70].any()
