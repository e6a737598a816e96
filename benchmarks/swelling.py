"""Size of a simulated nanowire: error over the Cramer-Rao bound and over claimed sigma.

    pip install -e ".[bench]"
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/swelling.py

First a wire that stays as it is, over dose and contrast. The bound is that of a wire known to
be straight, with round ends: its place, turn, length, both levels, the width of its edge, the
diameter of its middle half and that of the rest are unknown. Ours knows nothing of the shape.
Printed: frames that were measured, root-mean-square error over the bound, the pull (error over
claimed sigma) of all four sizes, and the errors of a plain Otsu threshold beside (scikit-image,
smoothed by 2 px, largest region), by the median where it finds the wire at all. Then pulls
of wires that react and of one that breaks in two, and the time of a 1024 x 1024 frame.
"""

import math
import time

import numpy as np
from numpy.typing import NDArray
from scene_movies import Pulls, errors, heading
from scipy import ndimage, special

from correlate.trackers.protocol import CannotTrack, SceneSettings, Track
from correlate.trackers.swelling import SwellingTracker
from mocks.camera import new_scene
from mocks.nanowire import NanowireScene, WireShape
from mocks.scenario import load

DOSES, CONTRASTS = (1, 3, 10, 30, 100), (0.05, 0.1, 0.2, 0.4)
SEEDS, FRAMES, PIXEL_M = 8, 14, 2e-9
SIZES = ("length", "diameter", "area", "volume")
DRIFT_PX = (0.05, -0.03)
SIDE = 1024
Floats = NDArray[np.float64]


def film(
    name: str, seed: int, shares: Floats, **overrides: float
) -> tuple[list[NDArray[np.uint8]], dict[str, Floats], SceneSettings]:
    """Return frames, what is true in each, and what a tracker is told."""
    scenario = load(name, **overrides)
    scene = new_scene(scenario, seed)
    fronts = shares * scenario.cell.film_thickness_m
    frames = [scene.frame(i, f, (i * DRIFT_PX[0], i * DRIFT_PX[1])) for i, f in enumerate(fronts)]
    truth = [scene.truth(f)["swelling"] for f in fronts]
    settings = SceneSettings(shape=scene.shape, pixel_size_m=scenario.camera.pixel_size_m)
    return frames, {key: np.array([t[key] for t in truth]) for key in truth[0]}, settings


def bounds_px(scene: NanowireScene, front_m: float, dose: float, contrast: float) -> Floats:
    """Return the bounds of length and diameter, by differences of the expected counts."""
    shape = scene.wire(front_m)
    half, radius = shape.right_px, shape.radius_px

    def expected(p: Floats) -> Floats:
        long, mid, rest, dx, dy, turn, inner, outer, wide = p
        x, y = scene.field((dx, dy))
        x, y = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        away = [
            WireShape(left_px=-long / 2, right_px=long / 2, radius_px=r).outside(x, y)
            for r in (mid, rest)
        ]
        outside = np.where(np.abs(x) < half / 2, *away)
        return np.asarray(inner + (outer - inner) * special.ndtr(outside / wide))

    width = math.hypot(scene.camera.edge_width_m / PIXEL_M, 12**-0.5)
    at = np.array([2 * half, radius, radius, 0, 0, 0, dose * (1 - contrast), dose, width])
    steps = np.array([1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 1e-4, dose * 1e-4, dose * 1e-4, 1e-3])
    slope = np.array(
        [
            (expected(at + e) - expected(at - e)).ravel() / (2 * s)
            for e, s in zip(np.diag(steps), steps, strict=True)
        ]
    )
    covariance = np.linalg.inv((slope / expected(at).ravel()) @ slope.T)
    return np.array([math.sqrt(covariance[0, 0]), 2 * math.sqrt(covariance[1, 1])])


def otsu(image: NDArray[np.generic]) -> tuple[float, float]:
    """Return length and diameter of the largest dark region, px; NaN without one."""
    from skimage.filters import threshold_otsu  # noqa: PLC0415 - an optional peer
    from skimage.measure import label, regionprops  # noqa: PLC0415

    smooth = ndimage.gaussian_filter(image.astype(float), 2.0)
    regions = regionprops(label(smooth < threshold_otsu(smooth)))
    if not regions:
        return math.nan, math.nan
    best = max(regions, key=lambda region: region.area)
    y, x = (best.coords - np.array(best.centroid)).T
    axis = np.array([math.cos(best.orientation), math.sin(best.orientation)])
    along = y * axis[0] + x * axis[1]
    length = float(np.ptp(along)) + 1
    return length, float(np.sum(np.abs(along) < length / 4)) / (length / 2)


def rms(values: Floats) -> float:
    """Return the root of the mean square; NaN of none."""
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else math.nan


def grid() -> None:
    """Print errors and pulls over dose and contrast."""
    print(
        f"{'e/px':>5}{'step':>6}{'found':>8}{'stretched':>10}{'bound px: l, d':>17}"
        f"{'ours/bound':>13}{'pulls: l, d, a, v':>24}{'Otsu/bound':>14}"
    )
    for dose in DOSES:
        for contrast in CONTRASTS:
            cell(dose, contrast)


def cell(dose: float, contrast: float) -> None:
    """Print a row."""
    pull: dict[str, list[float]] = {name: [] for name in SIZES}
    error: dict[str, list[float]] = {name: [] for name in SIZES}
    peer, found, stretched, why = [], 0, 0.0, set()
    bound = np.full(2, math.nan)
    for seed in range(SEEDS):
        overrides = {
            "wire_transmission": 1 - contrast,
            "lithiated_transmission": 1 - contrast,
            "dose_rate_e_m2_s": dose / PIXEL_M**2 * 5,
        }
        frames, truth, settings = film("si_nanowire", seed, np.full(FRAMES, 0.1), **overrides)
        if seed == 0:
            scenario = load("si_nanowire", **overrides)
            scene = new_scene(scenario, seed)
            assert isinstance(scene, NanowireScene)
            front_m = 0.1 * scenario.cell.film_thickness_m
            bound = bounds_px(scene, front_m, scene.dose_e_px, contrast)
        peer += [
            np.array(otsu(f)) - np.array([truth[q][0] / PIXEL_M for q in SIZES[:2]])
            for f in frames[:6]
        ]
        try:
            track = SwellingTracker(settings).track(lambda frames=frames: frames)
        except CannotTrack as error_:
            why.add(str(error_).split(";")[0])
            continue
        found += int(track.valid.sum())
        stretched += track.attributes["stretched_frames"]
        for name in SIZES:
            away, sigma = errors(track, name, truth[name])
            error[name] += list(away / PIXEL_M)
            pull[name] += list(away / sigma)
    away = np.nanmedian(np.abs(np.array(peer)), axis=0) / 0.6745
    ratio = [rms(np.array(error[q])) / b for q, b in zip(SIZES[:2], bound, strict=True)]
    print(
        f"{dose:5.0f}{contrast:6.2f}{found:5d}/{SEEDS * FRAMES:<4d}{stretched:8.0f}"
        f"{bound[0]:10.3f}{bound[1]:7.3f}{ratio[0]:7.2f}{ratio[1]:6.2f}"
        + "".join(f"{rms(np.array(pull[q])):6.2f}" for q in SIZES)
        + f"{away[0] / bound[0]:8.1f}{away[1] / bound[1]:6.1f}"
        + (f"  {len(why)} reason: {why.pop()[:60]}" if why else ""),
        flush=True,
    )


def scenes() -> None:
    """Print pulls of wires that change."""
    growing = np.concatenate([np.full(10, 0.1), np.linspace(0.1, 0.9, 30)])
    breaking = {"fracture_share": 0.6, "opening_m": 60e-9}
    late: list[float] = []
    false = parted = 0
    for name, overrides in (
        ("si_nanowire", {}),
        ("si_nanowire", breaking),
        ("sno2_nanowire", {}),
    ):
        pulls, columns = Pulls(), (*SIZES, *(["gap"] if overrides else []))
        for seed in range(SEEDS):
            frames, truth, settings = film(name, seed, growing, **overrides)
            track = SwellingTracker(settings).track(lambda frames=frames: frames)
            for column in columns:
                pulls.add(column, *errors(track, column, truth[column]))
            _changes(pulls, track, truth)
            opened = np.flatnonzero(truth["cracks"] > 0)
            if len(opened):
                late.append(track.attributes["fracture_frame"] - opened[0])
                parted += int(track.columns["parts"][-1] == 2)
            else:
                false += int(track.columns["cracks"].max())
        pulls.show(name + (", breaks" if overrides else ""))
    print(f"frames from a crack to the first that tells it: {late}; apart at the end: {parted}")
    print(f"cracks told in wires without one: {false}")


def _changes(pulls: Pulls, track: Track, truth: dict[str, Floats]) -> None:
    for name in SIZES:
        first = truth[name][:10].mean()
        pulls.add(f"{name}_change", *errors(track, f"{name}_change", truth[name] / first - 1))


def speed() -> None:
    """Print the time of large frames."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2.0
    times, off = [], []
    texture = 1 + 0.02 * ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 3.0) * 10
    tracked = None
    for k in range(40):
        shape = WireShape(left_px=-300.0, right_px=300.0, radius_px=70.0 + 0.3 * k)
        inside = special.ndtr(-shape.outside(x - 0.1 * k, y) / 2.5)
        frame = rng.poisson(10 * texture * (1 - 0.4 * inside)).astype(np.uint16)
        if k < 10:
            tracked = [*(tracked or []), frame]
            continue
        if k == 10:
            live = SwellingTracker(SceneSettings(shape=(SIDE, SIDE), pixel_size_m=1e-9)).begin(
                lambda seen=tuple(tracked or ()): seen
            )
        start = time.thread_time()
        reading = live.update(frame)
        times.append(1e3 * (time.thread_time() - start))
        true = (140 + 0.6 * k) / live.bin_px
        off.append((reading.values["diameter"] - true) / reading.sigmas["diameter"])
    print(
        f"drift and swelling of {SIDE} x {SIDE} uint16, wire of 600 x 150 px, CPU ms a frame: "
        f"median {np.median(times):.0f}, least {min(times):.0f}; "
        f"pull of the diameter {rms(np.array(off)):.2f}"
    )


def main() -> None:
    """Print all."""
    speed()
    heading()
    scenes()
    grid()


if __name__ == "__main__":
    main()
