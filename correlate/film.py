"""Where a film stands between two edges in a mean profile, and a front inside it.

The layers run across the frames, gold to electrolyte from left to right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from correlate.edge import fit_edges, step_shape
from correlate.trackers.protocol import CannotTrack

REACH_PX = 32.0  # of the line on each side of the front
CLEAR_PX = 10.0  # kept free of the film's own edges
EDGE_REACH_PX = 14.0
FIRST_WIDTH_PX = 2.5
MIN_SIGNIFICANCE = 8.0  # of the step in the mean of the first frames
GRAIN_PX = 5.0  # residuals of a mean profile are correlated over a grain


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Where the film stands, in reference coordinates."""

    collector_px: float
    interface_px: float
    interface_sigma_px: float

    @property
    def first_px(self) -> float:
        """Return where a front may begin to be looked for."""
        return self.collector_px + CLEAR_PX

    @property
    def last_px(self) -> float:
        """Return where a front may be looked for at last."""
        return self.interface_px - CLEAR_PX


def find_film(lines: NDArray[np.float64], dx: NDArray[np.float64], film_px: float) -> Film:
    """Find the two strong edges that stand one film apart.

    Parameters
    ----------
    lines
        Column sums, shape (n_frames, width).
    dx
        Shifts onto the reference, shape (n_frames,); NaN where not registered.
    film_px
        Thickness of the film.

    Raises
    ------
    CannotTrack
        There are no two such edges.
    """
    usable = np.isfinite(dx)
    if not np.any(usable):
        raise CannotTrack("no frame could be registered")
    mean = mean_profile(lines[usable], dx[usable])
    slope = ndimage.gaussian_filter1d(mean, 2.0, order=1, mode="nearest")
    slope[: int(EDGE_REACH_PX)] = slope[-int(EDGE_REACH_PX) :] = 0.0
    tolerance = max(0.05 * film_px, 4.0)
    best: tuple[float, int, int] | None = None
    for left in _peaks(slope):
        for right in _peaks(slope):
            if abs(right - left - film_px) > tolerance:
                continue
            score = min(abs(slope[left]), abs(slope[right]))
            if best is None or score > best[0]:
                best = (score, left, right)
    if best is None:
        raise CannotTrack(
            f"no two edges stand {film_px:.0f} px apart; check the pixel size, "
            "the film's thickness, and that the whole film is in the field"
        )
    collector, _ = edge_in_mean(mean, best[1])
    interface, sigma = edge_in_mean(mean, best[2])
    return Film(collector_px=collector, interface_px=interface, interface_sigma_px=sigma)


def mean_profile(lines: NDArray[np.float64], dx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average lines in reference coordinates, sharing counts between two neighbours."""
    n, width = lines.shape
    total, weight = np.zeros(width + 1), np.zeros(width + 1)
    for line, shift in zip(lines, dx, strict=True):
        at = np.arange(width) + shift
        low = np.floor(at).astype(int)
        share = at - low
        for index, part in ((low, 1 - share), (low + 1, share)):
            ok = (index >= 0) & (index < width)
            total[index[ok]] += (line * part)[ok]
            weight[index[ok]] += part[ok]
    with np.errstate(invalid="ignore"):
        mean = total[:-1] / weight[:-1]
    return np.asarray(np.where(weight[:-1] > 0.25 * n, mean, np.nanmean(lines)))


def _peaks(slope: NDArray[np.float64]) -> list[int]:
    """Return the strongest extrema of a slope, at most eight."""
    size = np.abs(slope)
    top = size == ndimage.maximum_filter1d(size, 9)
    candidates = np.flatnonzero(top & (size > 0.1 * size.max()))
    order = np.argsort(size[candidates])[::-1][:8]
    return [int(i) for i in candidates[order]]


def edge_in_mean(mean: NDArray[np.float64], near: int) -> tuple[float, float]:
    """Return position and sigma of an edge of a mean profile; texture sets the sigma."""
    low, high = max(near - int(EDGE_REACH_PX), 0), near + int(EDGE_REACH_PX) + 1
    x, y = np.arange(low, min(high, len(mean)), dtype=float), mean[low:high]

    def model(
        x: NDArray[np.float64], x0: float, w: float, a: float, b: float, /
    ) -> NDArray[np.float64]:
        return a + (b - a) * step_shape(x, x0, abs(w))

    start = (float(near), FIRST_WIDTH_PX, float(y[:4].mean()), float(y[-4:].mean()))
    try:
        found, covariance = optimize.curve_fit(model, x, y, p0=start, maxfev=2000)
    except RuntimeError as error:
        raise CannotTrack(f"the film's edge near column {near} has no shape") from error
    x0, width, left, right = (float(value) for value in found)
    # The specimen's own texture sets the limit: neighbours within a grain are off
    # together, so a step is located to sqrt(grain * variance / sum(bell**2)) / height.
    texture = max(_roughness(mean, near, -1), _roughness(mean, near, +1))
    bell = 1 / (2 * np.sqrt(np.pi) * max(abs(width), 0.5))
    sigma = np.sqrt(GRAIN_PX * texture**2 / bell) / max(abs(right - left), 1e-12)
    return x0, float(np.hypot(sigma, np.sqrt(covariance[0, 0])))


def _roughness(mean: NDArray[np.float64], near: int, side: int) -> float:
    """Return the spread of a mean profile beside an edge, about its own trend."""
    low, high = sorted((near + side * 8, near + side * 28))
    part = mean[max(low, 0) : max(high, 0)]
    if len(part) < 6:
        return 0.0
    x = np.arange(len(part))
    return float(np.std(part - np.polyval(np.polyfit(x, part, 1), x), ddof=2))


def first_place(
    lines: NDArray[np.float64], dx: NDArray[np.float64], film: Film, width_px: float
) -> tuple[float, int]:
    """Return where the front stands at first, and +1 where it rises to the right.

    It is the most significant step in the film.

    Raises
    ------
    CannotTrack
        None stands out.
    """
    mean = mean_profile(lines, dx)
    x = np.arange(int(np.ceil(film.first_px)), int(film.last_px) + 1)
    counts = mean[x] * len(lines)
    best, place, rises = 0.0, np.nan, 1
    # In stretches, as a film may shade slowly from side to side.
    for middle in np.arange(x[0], x[-1] + 1, REACH_PX / 2):
        near = np.abs(x - middle) <= REACH_PX
        if near.sum() < 12:
            continue
        fit = fit_edges(x[near].astype(float), counts[None, near], None, width_px).line(0)
        inside = x[near][0] + 6 <= fit.position_px <= x[near][-1] - 6
        if inside and fit.significance > best:
            best, place = fit.significance, fit.position_px
            rises = 1 if fit.right > fit.left else -1
    if best < MIN_SIGNIFICANCE:
        raise CannotTrack(
            f"no front stands out in the film (best step {best:.1f} sigma, "
            f"{MIN_SIGNIFICANCE:.0f} are asked)"
        )
    return float(place), rises
