"""Profile across an interface: error over the Cramer-Rao bound and over claimed sigma.

    pip install -e ".[bench]"
    python benchmarks/interface_profile.py

First lines of Poisson counts across an error function whose place, width and levels are all
unknown: root-mean-square error over the bound, of place and of width, of the lines that stand
out far enough for the tracker (of how many do not, is said). Beside ours an unweighted
least-squares fit (scipy's curve_fit, from the same start, failures left out) and, for the
place, the steepest point of the line smoothed by 2 px (np.gradient, argmax).
Then the simulated recordings, with drift, texture and a detector's pattern: errors beside
claimed sigmas. The texture's part of an error is one draw for a recording. The zero of
positions is that of the registration.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from scene_movies import Pulls, errors, heading, movie
from scipy import ndimage, optimize

from correlate.edge import step_shape
from correlate.profile_line import derivatives, fit_profile, reach_px
from correlate.trackers.profile import SEEN_SIGNIFICANCE, ProfileTracker

ROWS, TRIALS, SEEDS, FRAMES = 100, 400, 12, 50
Floats = NDArray[np.float64]


def rms(values: list[float]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.nanmean(np.square(values))))


def unweighted(x: Floats, line: Floats, start: tuple[float, float]) -> tuple[float, float]:
    """Fit place and width by plain least squares; NaN where that fails."""

    def model(x: Floats, x0: float, w: float, a: float, b: float, /) -> Floats:
        return a + (b - a) * step_shape(x, x0, abs(w))

    warnings.simplefilter("ignore", optimize.OptimizeWarning)
    first = (*start, float(line[:5].mean()), float(line[-5:].mean()))
    try:
        found, _ = optimize.curve_fit(model, x, line, p0=first, maxfev=2000)
    except RuntimeError:
        return float("nan"), float("nan")
    return float(found[0]), abs(float(found[1]))


def steepest(x: Floats, line: Floats) -> float:
    """Return the steepest place of a smoothed line."""
    return float(x[np.argmax(np.abs(np.gradient(ndimage.gaussian_filter1d(line, 2.0))))])


def lines() -> None:
    """Print the table of lines."""
    rng = np.random.default_rng(4)
    print(f"{'':23}{'place over bound':^32}   {'width over bound':^26}")
    print(
        f"{'w px':>5}{'e/px':>6}{'step':>6}{'':6}{'ours':>7}{'pull':>6}{'unw.':>7}{'steepest':>10}"
        f"{'':8}{'ours':>7}{'pull':>6}{'unw.':>7}"
    )
    for width in (2.0, 6.0, 15.0):
        x = np.arange(-np.ceil(reach_px(width)), np.ceil(reach_px(width)) + 1)
        for dose in (3, 30):
            for step in (0.1, 0.4):
                found: dict[str, list[float]] = {}
                left, right = ROWS * dose * (1 + step / 2), ROWS * dose * (1 - step / 2)
                slope, mean = derivatives(x, 0.0, width, left, right)
                bound = np.sqrt(np.diag(np.linalg.inv((slope / mean) @ slope.T)))
                for _ in range(TRIALS):
                    place = rng.uniform(-1, 1)
                    _, mean = derivatives(x, place, width, left, right)
                    line = rng.poisson(mean).astype(np.float64)
                    ours = fit_profile(x, line, 0.0, 1.2 * width)
                    if not ours.converged or ours.significance < SEEN_SIGNIFICANCE:
                        found.setdefault("lost", []).append(1.0)
                        continue
                    sigma = np.sqrt(np.diag(ours.covariance))
                    plain = unweighted(x, line, (0.0, 1.2 * width))
                    for name, value in (
                        ("place", (ours.position_px - place) / bound[0]),
                        ("place pull", (ours.position_px - place) / sigma[0]),
                        ("width", (ours.width_px - width) / bound[1]),
                        ("width pull", (ours.width_px - width) / sigma[1]),
                        ("plain place", (plain[0] - place) / bound[0]),
                        ("plain width", (plain[1] - width) / bound[1]),
                        ("steepest", (steepest(x, line) - place) / bound[0]),
                    ):
                        found.setdefault(name, []).append(value)
                if "place" not in found:
                    print(f"{width:5.0f}{dose:6d}{step:6.1f}   none is told")
                    continue
                r = {name: rms(values) for name, values in found.items()}
                print(
                    f"{width:5.0f}{dose:6d}{step:6.1f}{'':6}{r['place']:7.2f}{r['place pull']:6.2f}"
                    f"{r['plain place']:7.2f}{r['steepest']:10.1f}{'':8}{r['width']:7.2f}"
                    f"{r['width pull']:6.2f}{r['plain width']:7.2f}"
                    + (f"   {len(found['lost'])} are not told" if "lost" in found else "")
                )


def recordings() -> None:
    """Print the table of simulated recordings."""
    print()
    heading()
    for name in ("lco_nasicon_potential", "sno2_lvso_lco_profile", "li_lipon_interface"):
        pulls = Pulls()
        for seed in range(SEEDS):
            seen = movie(name, seed, FRAMES, front_m=60e-9)
            track = ProfileTracker(seen.settings).track(lambda seen=seen: seen.frames)
            zero_px = float(np.nanmean(seen.x_px + track.drift["dx"]))
            for column in ("position", "width", "gradient", "drop"):
                truth = seen.truth[column]
                if column == "position":
                    truth = truth + zero_px * seen.settings.pixel_size_m
                pulls.add(column, *errors(track, column, truth))
        pulls.show(name)


if __name__ == "__main__":
    lines()
    recordings()
