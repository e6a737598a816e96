"""Converted fraction and grain scale of a simulated film: errors over claimed sigmas, and peers.

    pip install -e ".[bench]"
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/conversion.py

A film of FeF2 turns into grains of Fe in LiF, by a front or everywhere at once, over dose, the
change of its brightness, and the strength and size of its grains. Peers, in the same frames:
Otsu's threshold (scikit-image) and k-means of two classes (SciPy), both of the local power of what
has come and of its local brightness, and half the width of the autocorrelation at half its
height, without the noise at zero. Then the time of a 1024 x 1024 frame.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scene_movies import Pulls, errors, heading
from scipy import fft, ndimage
from scipy.cluster import vq

from correlate.trackers.conversion import ConversionTracker
from correlate.trackers.protocol import SceneSettings
from mocks.camera import new_scene
from mocks.scenario import load

SEEDS = 8
BEFORE, CHANGING, AFTER = 10, 24, 16  # frames
DRIFT_PX = (0.02, 0.01)  # a frame
LOCAL_PX = 5.0  # Gaussian sigma, of the peers' maps
SIDE, TIMED = 1024, 12
Floats = NDArray[np.float64]
CASES: tuple[tuple[str, dict[str, float]], ...] = (
    ("as it is", {}),
    ("half the dose", {"dose_rate_e_m2_s": 1e20}),
    ("twice the dose", {"dose_rate_e_m2_s": 4e20}),
    ("no brighter", {"converted_transmission": 0.6}),
    ("brighter after", {"converted_transmission": 0.66}),
    ("faint grains", {"grain_ratio": 0.06}),
    ("coarse grains", {"grain_m": 12e-9}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Frames, what is true in each, and what a tracker is told."""

    frames: list[NDArray[np.uint8]]
    fraction: Floats
    level_change: Floats
    grain_m: float
    settings: SceneSettings


def film(seed: int, **overrides: float) -> Film:
    """Film a conversion from before to after."""
    scenario = load("fef2_conversion", **overrides)
    scene = new_scene(scenario, seed)
    shares = np.concatenate([np.zeros(BEFORE), np.linspace(0, 1, CHANGING), np.ones(AFTER)])
    new_m, whole_m = scenario.cell.front_start_m, scenario.cell.film_thickness_m
    fronts = new_m + shares * (whole_m - new_m)
    truth = [scene.truth(f)["conversion"] for f in fronts]
    level = np.array([float(scene.expected(f, (0.0, 0.0)).mean()) for f in fronts])
    return Film(
        frames=[
            scene.frame(i, f, (i * DRIFT_PX[0], i * DRIFT_PX[1])) for i, f in enumerate(fronts)
        ],
        fraction=np.array([t["converted_fraction"] for t in truth]),
        level_change=level / level[0] - 1,
        grain_m=truth[0]["grain_scale"],
        settings=SceneSettings(shape=scene.shape, pixel_size_m=scenario.camera.pixel_size_m),
    )


def maps(image: Floats, before: Floats) -> Floats:
    """Return local brightness and local power of what has come, shape (2, height, width)."""
    away = image - before
    local = ndimage.gaussian_filter(away, LOCAL_PX)
    return np.stack([local, ndimage.gaussian_filter((away - local) ** 2, LOCAL_PX)])


def by_otsu(seen: Floats) -> float:
    """Return the share of pixels above a threshold of the local power."""
    from skimage.filters import threshold_otsu  # noqa: PLC0415 - an optional peer

    return float(np.mean(seen[1] > threshold_otsu(seen[1])))


def by_k_means(seen: Floats) -> float:
    """Return the share of the class of more power."""
    features = vq.whiten(seen.reshape(2, -1).T)
    centres, label = vq.kmeans2(features, 2, seed=1, minit="++")
    return float(np.mean(label == int(np.argmax(centres[:, 1]))))


def by_autocorrelation(image: Floats, before: Floats) -> float:
    """Return the full width of the autocorrelation at half its height, px."""
    away = image - before
    away = away - ndimage.gaussian_filter(away, 4 * LOCAL_PX)
    lags = fft.irfft2(np.abs(fft.rfft2(away)) ** 2, s=away.shape)
    line = 0.5 * (lags[0, :32] + lags[:32, 0])
    top = line[1] + (line[1] - line[2]) / 3  # noise stands at zero only; a parabola to there
    below = np.flatnonzero(line < top / 2)
    if not len(below) or below[0] == 0:
        return float("nan")
    i = int(below[0])
    return 2 * float(i - (top / 2 - line[i]) / max(line[i - 1] - line[i], 1e-9))


def case(title: str, overrides: dict[str, float]) -> None:
    """Print the pulls of a kind of film, and its peers' errors."""
    pulls = Pulls()
    otsu, k_means, width = [], [], []
    for seed in range(SEEDS):
        seen = film(seed, **overrides)
        track = ConversionTracker(seen.settings).track(lambda seen=seen: seen.frames)
        for column in ("converted_fraction", "fraction_by_level", "fraction_by_grains"):
            pulls.add(column, *errors(track, column, seen.fraction))
        pulls.add("level_change", *errors(track, "level_change", seen.level_change))
        pulls.add("grain_scale", *errors(track, "grain_scale", seen.grain_m + 0 * seen.fraction))
        if overrides["by_front"] == 0:
            for column in ("segregation", "clustering"):
                pulls.add(column, *errors(track, column, 0 * seen.fraction))
        before = np.mean([f.astype(float) for f in seen.frames[:BEFORE]], axis=0)
        for i in range(BEFORE, BEFORE + CHANGING, 3):
            seen_maps = maps(seen.frames[i].astype(float), before)
            otsu.append(by_otsu(seen_maps) - seen.fraction[i])
            k_means.append(by_k_means(seen_maps) - seen.fraction[i])
            width.append(
                by_autocorrelation(seen.frames[i].astype(float), before)
                * seen.settings.pixel_size_m
                - seen.grain_m
            )
    pulls.show(title)
    for name, found in (
        ("Otsu's fraction", otsu),
        ("k-means' fraction", k_means),
        ("autocorrelation", width),
    ):
        print(f"{'':<34}{name:<21}{np.sqrt(np.nanmean(np.square(found))):12.4g}", flush=True)


def speed() -> None:
    """Print the time of large frames."""
    overrides = {"height": float(SIDE), "width": float(SIDE), "grain_m": 12e-9}
    scenario = load("fef2_conversion", **overrides)
    scene = new_scene(scenario, 1)
    new_m, whole_m = scenario.cell.front_start_m, scenario.cell.film_thickness_m
    frames = [
        scene.frame(i, new_m + share * (whole_m - new_m), (0.02 * i, 0.01 * i)).astype(np.uint16)
        for i, share in enumerate(np.concatenate([np.zeros(10), np.linspace(0, 1, TIMED)]))
    ]
    settings = SceneSettings(
        shape=scene.shape, pixel_size_m=1e-9, options={"converted_change": -0.133}
    )
    live = ConversionTracker(settings).begin(lambda: frames[:10])
    live.learn_after(frames[-10:])
    times = []
    for frame in frames[10:]:
        start = time.thread_time()
        live.update(frame)
        times.append(1e3 * (time.thread_time() - start))
    print(
        f"drift and conversion of {SIDE} x {SIDE} uint16, CPU ms a frame: "
        f"median {np.median(times):.0f}, least {min(times):.0f}"
    )


def main() -> None:
    """Print all."""
    speed()
    heading()
    for by_front, kind in ((1.0, "front"), (0.0, "everywhere")):
        for name, overrides in CASES:
            case(f"{kind}, {name}", {**overrides, "by_front": by_front})


if __name__ == "__main__":
    main()
