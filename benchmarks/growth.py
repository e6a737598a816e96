"""A whisker that grows: errors over claimed sigmas, with peers on the same frames, and speed.

    pip install -e ".[bench]"
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/growth.py

A whisker that is long already at the first frame stands still, then grows, on a drifting
specimen with texture, under a detector with a fixed pattern. For each dose and contrast: the
root-mean-square error, the same of the claimed sigma, and the error over sigma (pull) of
length, tip position, tip distance, area and tip velocity, over all valid frames of all seeds,
which share of the frames is valid, and in which share more ends are told than the one there is.
Beside it two peers, which are told the drift, the electrodes and where to look: Otsu's threshold,
and half of the true contrast over the true background; each on the frame smoothed by 1.5 px,
largest part, its pixels for the area, its foremost column for the end, and scikit-image's
skeleton for the length. A threshold claims no sigma: its pull of the area is by its own scatter
from frame to frame. Then the same of dendrites that are plated and stripped, and last the time
of drift and growth on 1024 x 1024 uint16 frames.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scene_movies import Floats, Movie, Pulls, errors, heading, movie
from scipy import ndimage

from correlate.faraday import volume_balance
from correlate.particles import otsu
from correlate.trackers.growth import GrowthTracker, with_velocity
from mocks.growths import GrowthScene
from mocks.scenario import load

PIXEL_M, FRAME_S = 4e-9, 0.2
EDGE_FRAMES = 6  # beside a change of speed, in which a window's slope is none of an instant
PEER_EVERY = 6
TARGET_HZ = 20.0
DENDRITE_FRAME_S, DENDRITE_FRAMES = 0.25, 240
# Rests, plating at 5 pA, and stripping: s and C.
DENDRITE_HEIGHT = 272  # px; no branch leaves the field
LAYER = {"layer_m": 50e-9, "layer_contrast": 0.15}
DENDRITE_CHARGE_C = ((0, 0.0), (15, 0.0), (40, 125e-12), (45, 125e-12), (58, 60e-12))
QUANTITIES = ("length", "tip_x", "tip_distance", "area", "velocity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A field, and what grows in it, in px."""

    height: int
    width: int
    diameter: float
    start: float
    grows: float
    frames: int
    doses: tuple[float, ...]
    contrasts: tuple[float, ...]


SIZES = (
    Size(
        height=128,
        width=256,
        diameter=12,
        start=50,
        grows=60,
        frames=66,
        doses=(3, 10, 30, 100),
        contrasts=(0.05, 0.1, 0.2, 0.4),
    ),
    Size(
        height=1024,
        width=1024,
        diameter=40,
        start=200,
        grows=60,
        frames=45,
        doses=(3, 10, 100),
        contrasts=(0.05, 0.4),
    ),
)


def film(size: Size, seed: int, dose: float, contrast: float) -> Movie:
    """Return a movie of a whisker."""
    scenario = load("li_whisker_solid")
    diameter_m = size.diameter * PIXEL_M
    volume_m3 = np.pi / 4 * diameter_m**2 * size.grows * PIXEL_M
    charge_C = volume_m3 * 96_485.33212 / 13.02e-6
    return movie(
        "li_whisker_solid",
        seed,
        size.frames,
        front_m=charge_C / scenario.cell.charge_per_m_C,
        height=size.height,
        width=size.width,
        diameter_m=diameter_m,
        start_m=size.start * PIXEL_M,
        object_contrast=contrast,
        pixel_size_m=PIXEL_M,
        dose_rate_e_m2_s=dose / (PIXEL_M**2 * 0.98 / 5.0),
    )


def scene_of(seen: Movie) -> GrowthScene:
    """Return the scene of a movie."""
    if not isinstance(seen.scene, GrowthScene):
        raise TypeError("not a scene of growth")
    return seen.scene


def speeds(seen: Movie) -> Floats:
    """Return the true velocity, NaN near changes."""
    speed = np.gradient(seen.truth["length"], FRAME_S)
    sharp = ndimage.maximum_filter(np.abs(np.diff(speed, append=speed[-1])), 2 * EDGE_FRAMES + 1)
    return np.where(sharp < 1e-3 * np.abs(speed).max(), speed, np.nan)


def ours(seen: Movie) -> tuple[dict[str, tuple[Floats, Floats]], Floats, Floats]:
    """Return errors and sigmas of the valid frames by quantity, in px, which, and of what ends."""
    track = GrowthTracker(seen.settings).track(lambda: seen.frames)
    t_ns = (np.arange(len(seen.frames)) * FRAME_S * 1e9).astype(np.int64)
    track = with_velocity(track, t_ns, 2.0, PIXEL_M)
    scene = scene_of(seen)
    branch = scene.branches[0]
    # Where the reference stands is known to the noise of its first frame, the same for all.
    if not np.any(track.valid):
        raise ValueError(max(track.reasons, key=lambda why: track.reasons[why]))
    stands_px = float(np.nanmean(track.drift["dx"] + seen.x_px))
    along = seen.truth["length"] / PIXEL_M
    true = {
        "length": along,
        "tip_x": branch.x_px + along * np.cos(branch.turn_rad) + stands_px,
        "tip_distance": seen.truth["tip_distance"] / PIXEL_M,
        "area": seen.truth["area"] / PIXEL_M**2,
        "velocity": speeds(seen) / PIXEL_M,
    }
    scale = {"area": PIXEL_M**2, "tip_x": 1.0}
    found = {}
    for name in QUANTITIES:
        column = "tip_x_px" if name == "tip_x" else name
        value = track.columns[column] / scale.get(name, PIXEL_M)
        sigma = track.columns[f"{column}_sigma"] / scale.get(name, PIXEL_M)
        error = value - true[name]
        good = track.valid & np.isfinite(error)
        found[name] = error[good], sigma[good]
    return found, track.valid.astype(np.float64), track.columns["branches"][track.valid]


def skeleton_px(mask: NDArray[np.bool_]) -> float:
    """Return the length of a part's skeleton; NaN where scikit-image is absent."""
    try:
        from skimage.morphology import skeletonize  # noqa: PLC0415 - an optional peer
    except ImportError:
        return float("nan")
    thin = np.argwhere(skeletonize(mask))
    if len(thin) < 2:
        return float("nan")
    # Neighbours along rows or columns are 1 px apart, those across sqrt(2).
    number = np.full(mask.shape, -1)
    number[thin[:, 0], thin[:, 1]] = np.arange(len(thin))
    straight = sum(
        np.count_nonzero((number[a] >= 0) & (number[b] >= 0))
        for a, b in (
            ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
            ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        )
    )
    return float(straight + max(len(thin) - 1 - straight, 0) * np.sqrt(2))


def peers(seen: Movie, contrast: float) -> dict[str, dict[str, list[float]]]:
    """Return errors of the peers by name and quantity, in px."""
    scene = scene_of(seen)
    found: dict[str, dict[str, list[float]]] = {}
    scatter: dict[str, list[float]] = {}
    first, last = round(scene.root_px) + 3, round(scene.target_px) - 4
    numbers = [k for at in range(0, len(seen.frames) - 1, PEER_EVERY) for k in (at, at + 1)]
    for k in numbers:
        shift = round(seen.x_px[k])
        gap = seen.frames[k][:, first + shift : last + shift].astype(np.float64)
        smooth = ndimage.gaussian_filter(gap, 1.5)
        level = float(np.median(smooth))
        for name, limit in (
            ("Otsu", otsu(smooth.ravel())),
            ("half contrast", level * (1 + contrast / 2)),
        ):
            labels, count = ndimage.label(smooth > limit)
            if count == 0:
                continue
            mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
            area = float(mask.sum()) + 3 * float(mask[:, 0].sum())
            scatter.setdefault(name, []).append(area - seen.truth["area"][k] / PIXEL_M**2)
            if k % PEER_EVERY:
                continue
            tip = float(np.nonzero(mask)[1].max()) + 0.5 + first
            true_px = scene.target_px - seen.truth["tip_distance"][k] / PIXEL_M
            rows = found.setdefault(name, {})
            rows.setdefault("area", []).append(area - seen.truth["area"][k] / PIXEL_M**2)
            rows.setdefault("tip_distance", []).append(tip - true_px)
            rows.setdefault("length", []).append(
                skeleton_px(mask) - seen.truth["length"][k] / PIXEL_M
            )
    for name, values in scatter.items():
        spread = rms(np.diff(values)[::2]) / np.sqrt(2)
        found[name]["area_pull"] = [error / spread for error in found[name]["area"]]
    return found


def rms(values: Floats | list[float]) -> float:
    """Return the root-mean-square."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def table(size: Size, seeds: int) -> None:  # noqa: C901 - one table
    """Print errors, sigmas and pulls of one size."""
    print(f"\n{size.width} x {size.height} px, {size.diameter:.0f} px across; {seeds} seeds")
    print(
        f"{'e/px':>5}{'contr.':>8}{'valid':>7}{'extra':>7}  "
        + "".join(f"{name + ' err':>17}{'sigma':>9}{'pull':>6}" for name in QUANTITIES)
        + "   peers over ours: Otsu area, end, skeleton, its pull; half contrast the same"
    )
    for dose in size.doses:
        for contrast in size.contrasts:
            errors: dict[str, list[tuple[Floats, Floats]]] = {}
            valid: list[Floats] = []
            others: dict[str, dict[str, list[float]]] = {}
            why: dict[str, int] = {}
            ends: list[Floats] = []
            # Other specimens in each row: one's texture would be in all of them.
            number = size.doses.index(dose) * len(size.contrasts) + size.contrasts.index(contrast)
            for seed in range(1 + number * seeds, 1 + (number + 1) * seeds):
                seen = film(size, seed, dose, contrast)
                try:
                    found, good, told = ours(seen)
                    ends.append(told)
                except ValueError as error:
                    why[str(error)[:40]] = why.get(str(error)[:40], 0) + 1
                    found, good = {}, np.zeros(len(seen.frames))
                valid.append(good)
                for name, pair in found.items():
                    errors.setdefault(name, []).append(pair)
                for peer, rows in peers(seen, contrast).items():
                    for name, values in rows.items():
                        others.setdefault(peer, {}).setdefault(name, []).extend(values)
            line = f"{dose:5.0f}{contrast:8.2f}{np.mean(np.concatenate(valid)):7.2f}"
            line += f"{np.mean(np.concatenate(ends) > 1) if ends else np.nan:7.2f}  "
            own: dict[str, float] = {}
            for name in QUANTITIES:
                pairs = errors.get(name, [])
                error = np.concatenate([p[0] for p in pairs]) if pairs else np.zeros(0)
                sigma = np.concatenate([p[1] for p in pairs]) if pairs else np.zeros(0)
                own[name] = rms(error)
                line += f"{own[name]:17.3f}{rms(sigma):9.3f}{rms(error / sigma):6.2f}"
            for peer in ("Otsu", "half contrast"):
                for name in ("area", "tip_distance", "length"):
                    ratio = rms(others.get(peer, {}).get(name, [])) / own[name]
                    line += f"{ratio:9.1f}"
                line += f"{rms(others.get(peer, {}).get('area_pull', [])):7.1f}"
            print(line + (f"   {why}" if why else ""), flush=True)


def speed() -> None:
    """Print the time of drift and growth on large frames."""
    seen = film(SIZES[1], 1, 30.0, 0.2)
    frames = [frame.astype(np.uint16) for frame in seen.frames]
    live = GrowthTracker(seen.settings).begin(lambda: frames[:8])
    times = []
    for pixels in frames[8:]:
        start = time.thread_time()
        live.update(pixels)
        times.append(time.thread_time() - start)
    each = 1e3 * np.array(times)
    hertz = 1e3 / each.mean()
    start = time.thread_time()
    labels, _ = ndimage.label(ndimage.gaussian_filter(frames[-1].astype(np.float32), 1.5) > 20)
    skeleton = skeleton_px(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))
    peer = 1e3 * (time.thread_time() - start)
    print(
        f"\ndrift and growth, 1024 x 1024 uint16, one core: {hertz / TARGET_HZ:.2f} of the target "
        f"of {TARGET_HZ:.0f} Hz; {hertz:.1f} Hz, ms: mean {each.mean():.1f}, median "
        f"{np.median(each):.1f}, longest {each.max():.1f}"
    )
    absent = " (scikit-image absent: threshold alone)" if np.isnan(skeleton) else ""
    print(f"threshold, largest part and skeleton alone, without drift: {peer:.1f} ms{absent}")


def dendrites(seeds: int) -> None:
    """Print errors and pulls of dendrites that are plated and stripped, bare and in a layer."""
    t_s = np.arange(DENDRITE_FRAMES) * DENDRITE_FRAME_S
    at_s, at_C = np.array(DENDRITE_CHARGE_C).T
    charge_C = np.interp(t_s, at_s, at_C)
    scenario = load("li_dendrite_liquid")
    names = ("length", "tip_distance", "velocity", "area", "residual_area", "branches")
    for layer in ({}, LAYER):
        title = "li_dendrite_liquid" + (", in a layer" if layer else "")
        pulls, valid, told, ratios = Pulls(), [], [], []
        for seed in range(1, seeds + 1):
            front_m = charge_C.max() / scenario.cell.charge_per_m_C
            seen = movie(
                "li_dendrite_liquid",
                seed,
                DENDRITE_FRAMES,
                front_m=front_m,
                options={"classes": 2.0} if layer else {},
                shares=charge_C / charge_C.max(),
                frame_s=DENDRITE_FRAME_S,
                height=DENDRITE_HEIGHT,
                **layer,
            )
            track = GrowthTracker(seen.settings).track(lambda seen=seen: seen.frames)
            size_m = seen.settings.pixel_size_m
            track = with_velocity(track, (t_s * 1e9).astype(np.int64), 2.0, size_m)
            truth = {**seen.truth, "velocity": np.gradient(seen.truth["length"], t_s)}
            classes = track.columns.get("classes", np.full(len(t_s), 2.0))
            for name in (*names, "strong_area", "weak_area") if layer else names:
                # Before two classes are told, an area is of no known class.
                rows = np.where(classes == 2, truth[name], np.nan)
                error, sigma = errors(track, name, rows)
                pulls.add(name, error[np.isfinite(error)], sigma[np.isfinite(error)])
            valid.append(float(np.mean(track.valid)))
            told.append(float(np.mean(classes == 2)))
            balance = volume_balance(
                charge_C,
                np.where(track.valid, track.columns["volume"], np.nan),
                track.columns["volume_sigma"],
                scale_sigma=track.attributes["volume_scale_sigma"],
                expected_m3_C=track.attributes["volume_per_charge"],
            )
            ratios.append((balance.ratio, balance.ratio_sigma))
        heading()
        pulls.show(title)
        ratio, sigma = np.array(ratios).T
        print(
            f"valid {np.mean(valid):.2f}, classes told {np.mean(told):.2f}, volume over that of "
            f"the charge {ratio.mean():.3f} (claimed {rms(sigma):.3f}, pull "
            f"{rms((ratio - 1) / sigma):.2f})"
        )


def main() -> None:
    """Print both tables and the times."""
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("--seeds", type=int, default=5)
    told.add_argument("--only", choices=("small", "large", "dendrites", "speed"))
    asked = told.parse_args()
    if asked.only in (None, "speed"):
        speed()
    if asked.only in (None, "dendrites"):
        dendrites(asked.seeds)
    for name, size in zip(("small", "large"), SIZES, strict=True):
        if asked.only in (None, name):
            table(size, asked.seeds)


if __name__ == "__main__":
    main()
