"""The conversion tracker on a simulated film, by a front and in bulk."""

import numpy as np
import pytest
from scipy import fft, special

from correlate.drift import Shift
from correlate.grain_band import GrainBand
from correlate.grain_change import GrainChange
from correlate.looks import Noise, noise_in_band
from correlate.lost_area import area_of
from correlate.pattern_of_change import pattern_of
from correlate.texture import HALF_WIDTH, GrainRings, filled_part
from correlate.trackers.conversion import ConversionTracker, look_of
from correlate.trackers.protocol import CannotTrack, SceneSettings
from mocks.camera import new_scene
from mocks.scenario import load
from mocks.scene import Grains

BLANK, CORRUPT, SATURATED = 15, 17, 40
GRAIN_M = 6e-9
SEEDS = (1, 2, 3)
STAYS = Shift(dx_px=0.0, dy_px=0.0, sigma_x_px=0.0, sigma_y_px=0.0, quality=1.0, valid=True)


def movie(seed=1, count=24, after=20, options=None, beam=None, drifts_px=0.02, **overrides):
    scenario = load("fef2_conversion", width=192.0, height=96.0, **overrides)
    scene = new_scene(scenario, seed)
    shares = np.concatenate([np.zeros(10), np.linspace(0, 1, count), np.ones(after)])
    new_m, whole_m = scenario.cell.front_start_m, scenario.cell.film_thickness_m
    fronts = new_m + shares * (whole_m - new_m)
    beam = np.ones(len(fronts)) if beam is None else beam
    frames = [scene.frame(i, f, (drifts_px * i, 0.01 * i), beam[i]) for i, f in enumerate(fronts)]
    true = np.array([scene.truth(f)["conversion"]["converted_fraction"] for f in fronts])
    settings = SceneSettings(
        shape=scene.shape, pixel_size_m=scenario.camera.pixel_size_m, options=options or {}
    )
    return frames, true, settings


def rms(values):
    return float(np.sqrt(np.nanmean(np.square(values))))


def pulls(track, true, name):
    return ((track.columns[name] - true) / track.columns[f"{name}_sigma"])[track.valid]


@pytest.fixture(scope="module", params=[1.0, 0.0], ids=["front", "bulk"])
def converting(request):
    found = []
    for seed in SEEDS:
        frames, true, settings = movie(seed, by_front=request.param)
        frames[BLANK] = np.zeros_like(frames[BLANK])
        frames[CORRUPT] = np.where(frames[CORRUPT] > 40, np.nan, frames[CORRUPT])
        frames[SATURATED] = np.where(np.arange(192) < 96, 255, frames[SATURATED]).astype(np.uint8)
        track = ConversionTracker(settings).track(lambda frames=frames: frames)
        found.append((true, track))
    return request.param, found


@pytest.mark.parametrize("name", ["converted_fraction", "fraction_by_level", "fraction_by_grains"])
def test_the_fraction_is_true_within_its_sigma(converting, name):
    found = [pulls(track, true, name) for true, track in converting[1]]
    assert 0.85 < rms(found) < 1.15


def test_the_fraction_is_told_well(converting):
    for true, track in converting[1]:
        assert rms((track.columns["converted_fraction"] - true)[track.valid]) < 0.02
        assert track.attributes["end_settled"] == 1.0
        assert track.attributes["shot_gain"] == pytest.approx(1, abs=0.02)
        assert track.attributes["flicker"] == 1.0


@pytest.mark.parametrize("drifts_px", [0.6, -0.6])
def test_what_has_left_the_field_is_as_what_is_beside_it(drifts_px):
    # Half converted, a column of blocks has gone on one side, and a part of another.
    frames, true, settings = movie(count=30, after=10, drifts_px=drifts_px)
    track = ConversionTracker(settings).track(lambda: frames)
    for name in ("converted_fraction", "fraction_by_level", "fraction_by_grains"):
        found = pulls(track, true, name)
        assert len(found) == len(frames)
        assert rms(found) < 1.25, name
        assert np.abs(found).max() < 3.5, name
    assert np.median(track.columns["converted_fraction_sigma"]) < 0.03


def test_frames_that_cannot_be_used_are_left_out_and_counted(converting):
    for _, track in converting[1]:
        assert np.flatnonzero(~track.valid).tolist() == [BLANK, CORRUPT, SATURATED]
        assert np.isnan(track.columns["converted_fraction"][[BLANK, CORRUPT, SATURATED]]).all()
        assert track.reasons == {
            "blank: all pixels are alike": 1,
            "pixels that are not numbers": 1,
            "saturated": 1,
        }


def test_the_scale_of_the_grains_is_theirs(converting):
    found = []
    for _, track in converting[1]:
        scale = track.columns["grain_scale"]
        assert np.isnan(scale[:8]).all()  # no grains there yet
        assert np.nanmedian(scale[-20:]) == pytest.approx(GRAIN_M, rel=0.06)
        found.append(pulls(track, GRAIN_M, "grain_scale"))
    assert 0.8 < rms(found) < 1.15


def test_a_front_and_bulk_are_told_apart(converting):
    by_front, found = converting
    for _, track in found:
        for name in ("segregation", "clustering"):
            seen = track.columns[name][20:26]
            sigma = track.columns[f"{name}_sigma"][20:26]
            if by_front:
                assert np.all(seen > 5 * sigma), name
                assert np.median(seen) > 0.5, name
            else:
                assert rms(seen / sigma) < 1.8, name
                assert np.nanmax(np.abs(seen)) < 0.1, name


def test_a_beam_that_is_not_steady_makes_both_witnesses_differ():
    frames, true, settings = movie(
        by_front=0.0, beam=1 + 0.04 * np.sin(np.clip(np.arange(54) - 9, 0, None) / 5)
    )
    track = ConversionTracker(settings).track(lambda: frames)
    assert track.attributes["witnesses_apart_sigmas"] > 1.5
    assert rms(pulls(track, true, "fraction_by_level")) > 3
    assert rms(pulls(track, true, "fraction_by_grains")) < 1.5
    assert rms(pulls(track, true, "converted_fraction")) < 2.5


def test_grains_alone_tell_where_the_brightness_stays():
    frames, true, settings = movie(converted_transmission=0.6)
    track = ConversionTracker(settings).track(lambda: frames)
    assert rms((track.columns["converted_fraction"] - true)[track.valid]) < 0.03
    assert rms(pulls(track, true, "converted_fraction")) < 1.3


def test_brightness_alone_tells_where_no_grains_come():
    frames, true, settings = movie(grain_ratio=0.0, pristine_texture=0.06)
    track = ConversionTracker(settings).track(lambda: frames)
    assert np.isnan(track.columns["fraction_by_grains"]).all()
    assert rms((track.columns["converted_fraction"] - true)[track.valid]) < 0.02
    assert rms(pulls(track, true, "converted_fraction")) < 1.3


def test_a_live_tracker_tells_what_it_can_and_the_fraction_where_it_was_told_the_change():
    frames, true, settings = movie(count=4, after=4)
    live = ConversionTracker(settings).begin(lambda: frames[:10])
    row = live.track(lambda: frames[10:])
    assert row.valid.all()
    assert np.isnan(row.columns["converted_fraction"]).all()
    change, sigma = (row.columns[name][-1] for name in ("level_change", "level_change_sigma"))
    # The field's own grains shift its mean brightness a little.
    assert change == pytest.approx(0.52 / 0.60 - 1, abs=0.01 + 4 * sigma)
    assert row.columns["grain_scale"][-1] == pytest.approx(GRAIN_M, rel=0.1)
    told = SceneSettings(
        shape=settings.shape, pixel_size_m=1e-9, options={"converted_change": 0.52 / 0.60 - 1}
    )
    live = ConversionTracker(told).begin(lambda: frames[:10])
    row = live.track(lambda: frames[10:])
    assert row.columns["converted_fraction"] == pytest.approx(true[10:], abs=0.1)


def test_a_specimen_that_has_left_says_so():
    frames, _, settings = movie(count=4, after=4)
    frames[12] = np.random.default_rng(1).poisson(24, frames[12].shape).astype(np.uint8)
    track = ConversionTracker(settings).track(lambda: frames)
    assert not track.valid[12]
    assert np.isnan(track.columns["converted_fraction"][12])
    assert sum(track.reasons.values()) == 1


def test_a_film_that_does_not_change_is_told():
    frames, _, settings = movie(count=2)
    with pytest.raises(CannotTrack, match="nothing has changed"):
        ConversionTracker(settings).track(lambda: frames[:10])
    with pytest.raises(CannotTrack, match="two frames"):
        ConversionTracker(settings).track(list)


def test_noise_of_the_converted_look_makes_no_more_of_the_grains():
    found = [whole_share(seed) for seed in range(4)]
    assert np.mean(found) == pytest.approx(1, abs=0.025)  # 1.045 where it does


def whole_share(seed):
    """Return what share of its grains a film of ten counts has, by a look of two frames."""
    shape, rng, band = (320, 320), np.random.default_rng(seed), GrainBand((320, 320), 1.8)
    grains = 10 * (1 + 0.15 * Grains(rng.standard_normal(shape), 1.8).moved(0.0, 0.0))
    bare = rng.poisson(10, (6, *shape))
    before, _ = look_of(band, [(i, frame, STAYS) for i, frame in enumerate(bare)])
    after, _ = look_of(band, [(10 + i, rng.poisson(grains), STAYS) for i in range(2)])
    alone = [band.seen(frame, STAYS, band.modes(frame, STAYS)) for frame in bare]
    change = GrainChange(before, after, band, noise_in_band(Noise(gain=1.0), alone, band))
    frame = rng.poisson(grains)
    seen = change.seen_in(band.seen(frame, STAYS, band.modes(frame, STAYS)), 20)
    assert seen is not None
    assert seen.lost == 0.0
    return seen.fraction


def test_opposite_borders_of_a_field_are_no_neighbours():
    x = np.arange(192)
    front = np.broadcast_to(60 - 8 * special.ndtr((70 - x) / 8.0), (96, 192))
    for image in (front, front.repeat(2, axis=0)[:, :96].T.copy()):
        band = GrainBand(image.shape, 1.8)
        fine = band.seen(image, STAYS, band.modes(image, STAYS)).fine
        # A step of both phases would be 0.02.
        assert np.abs(fine).max() < 4e-3


def test_a_block_out_of_the_field_is_stood_for_by_the_nearest_that_tells():
    pixels, use = np.full((2, 4), 10.0), np.ones((2, 4), dtype=bool)
    inside = np.array([[10.0, 10, 4, 0], [10, 10, 4, 0]])
    use[:, 3] = False
    area = area_of(pixels, inside, use, ~use)
    assert area.weight == pytest.approx(np.array([1, 1, 2, 1, 1, 2]) / 8)
    assert area.unseen == pytest.approx(np.array([0, 0, 16, 0, 0, 16]) / 80)
    # Both phases beside what is lost: it may be either.
    half = np.array([1, 1, 0.5, 1, 1, 0.5])
    assert area.gone == 0.25
    assert area.sigma(half, np.zeros(6)) == pytest.approx(0.4 * 0.5, rel=0.02)
    assert area.sigma(np.round(half), np.zeros(6)) == pytest.approx(0.0, abs=1e-12)
    assert area.sigma(half, np.zeros(6), patchwork=0.0) < 0.03
    # All that is seen is of one phase: what is gone may be of any.
    assert area.sigma(np.ones(6), np.zeros(6)) == pytest.approx(0.25 / 6**0.5)
    # A hole in the specimen is no part of it.
    alone = area_of(pixels, pixels, use, np.zeros_like(use))
    assert alone.weight == pytest.approx(np.full(6, 1 / 6))
    assert alone.sigma(half, np.zeros(6)) == 0.0


def test_two_phases_are_segregated_and_one_is_not():
    rng = np.random.default_rng(3)
    sigma = np.full((10, 20), 0.1)
    front = np.broadcast_to(np.arange(20) < 8, (10, 20)).astype(float)
    mosaic = rng.permuted(front.ravel()).reshape(10, 20)
    for phases, clustered in ((front, True), (mosaic, False)):
        found = pattern_of(phases + 0.1 * rng.standard_normal(phases.shape), sigma)
        assert found.segregation[0] == pytest.approx(1, abs=4 * found.segregation[1])
        assert (found.clustering[0] > 0.6) == clustered
        assert clustered or abs(found.clustering[0]) < 0.25
    assert np.isnan(pattern_of(np.full((10, 20), 0.01), sigma).segregation[0])


def test_sigmas_of_a_pattern_are_as_large_as_its_errors():
    rng = np.random.default_rng(4)
    even = np.full((8, 16), 0.4)
    found = [
        pattern_of(even + 0.1 * rng.standard_normal(even.shape), np.full(even.shape, 0.1))
        for _ in range(300)
    ]
    for name in ("segregation", "clustering"):
        pair = np.array([getattr(one, name) for one in found])
        assert 0.85 < rms(pair[:, 0] / pair[:, 1]) < 1.1, name


def test_grains_of_any_size_are_measured_within_their_sigma():
    rings, rng = GrainRings((96, 192)), np.random.default_rng(5)
    found = []
    for size_px in (1.2, 1.8, 3.0):
        for _ in range(25):
            grains = Grains(rng.standard_normal((96, 192)), size_px).moved(0.0, 0.0)
            image = grains + rng.standard_normal(grains.shape)
            scale, sigma = rings.scale(fft.rfft2(image.astype(np.float32)))
            found.append((scale / HALF_WIDTH - size_px) / (sigma / HALF_WIDTH))
    assert 0.88 < rms(found) < 1.15


def test_grains_in_a_part_of_the_field_are_fewer():
    rings, rng = GrainRings((96, 192)), np.random.default_rng(8)
    weight, square = rings.weight.sum(axis=0), (rings.weight**2).sum(axis=0)
    share = special.ndtr((72 - np.arange(192)) / 8.0)
    part = filled_part(share, np.zeros(192), weight, square)
    found = []
    for _ in range(100):
        grains = np.sqrt(share) * Grains(rng.standard_normal((96, 192)), 1.8).moved(0.0, 0.0)
        image = grains + 0.4 * rng.standard_normal(grains.shape)
        scale, sigma = rings.scale(fft.rfft2(image.astype(np.float32)), part)
        found.append((scale / HALF_WIDTH - 1.8) / (sigma / HALF_WIDTH))
    assert 0.88 < rms(found) < 1.12


def test_where_grains_are_is_everywhere_unless_blocks_tell():
    even = np.full(40, 0.3)
    assert filled_part(even, np.zeros(40), np.ones(40), np.ones(40)) == pytest.approx(1.0)
    noise = np.random.default_rng(9).normal(0, 0.3, 40)
    assert filled_part(noise, np.full(40, 0.09), np.ones(40), np.ones(40)) == 1.0


def test_shot_noise_alone_has_no_grains():
    rings, rng = GrainRings((96, 96)), np.random.default_rng(2)
    for _ in range(20):
        image = rng.poisson(30, (96, 96)).astype(np.float32)
        assert np.isnan(rings.scale(fft.rfft2(image))[0])
