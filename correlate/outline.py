"""The outline of a dark object, fitted in sectors by maximum likelihood.

Each pixel near the outline belongs to the outline's nearest point, at a signed distance s.
In a sector the counts are Poisson around ``I_in + (I_out - I_in) Phi((s - d) / w)``, so d is
how far the edge stands outside the outline. Pixels stay where they were counted: nothing is
interpolated, and the Fisher matrix tells the sigma of d.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special
from scipy.spatial import cKDTree

from correlate.edge import PIXEL_VARIANCE, SETTLED_SIGMAS

Float = NDArray[np.float64]
STEPS = 10
NORMAL_PX = 2.0  # over which normals are smoothed
SAMPLE_PX = 0.5  # between points of an outline
CELL_PX = 4  # of residuals that may hang together
LEVEL_SIGMAS = 4.0  # of a step between neighbouring sectors that is none of noise
LEVEL_DOUBT = 0.4
MIN_SIGNIFICANCE = 5.0  # of the edge of a sector, in sigmas of its contrast


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed outline.

    Parameters
    ----------
    points
        (x, y) in px, counter-clockwise as x to y goes, shape (n, 2), evenly spaced.
    """

    points: Float

    @classmethod
    def through(cls, points: Float) -> "Outline":
        """Return the outline through points, evenly spaced."""
        closed = np.vstack([points, points[:1]])
        at = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
        n = max(round(at[-1] / SAMPLE_PX), 16)
        even = np.arange(n) * at[-1] / n
        return cls(np.column_stack([np.interp(even, at, closed[:, i]) for i in range(2)]))

    @property
    def normals(self) -> Float:
        """Unit normals, outwards, shape (n, 2)."""
        smooth = ndimage.gaussian_filter1d(self.points, NORMAL_PX / SAMPLE_PX, axis=0, mode="wrap")
        along = np.roll(smooth, -1, axis=0) - np.roll(smooth, 1, axis=0)
        along /= np.maximum(np.hypot(*along.T), 1e-12)[:, None]
        return np.column_stack([along[:, 1], -along[:, 0]])

    @property
    def lengths_px(self) -> Float:
        """Length of outline that each point stands for, shape (n,)."""
        step = np.hypot(*(np.roll(self.points, -1, axis=0) - self.points).T)
        return np.asarray((step + np.roll(step, 1)) / 2)

    def moved(self, outwards_px: Float) -> "Outline":
        """Return the outline with each point moved along its normal."""
        return Outline(self.points + outwards_px[:, None] * self.normals)

    def shifted(self, dx: float, dy: float) -> "Outline":
        """Return the outline elsewhere."""
        return Outline(self.points + np.array([dx, dy]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Where the edge stands, by sector.

    Parameters
    ----------
    outwards_px, sigma_px
        Distance outside of the outline, shape (sectors,).
    inside, outside, inside_sigma
        Levels, counts per px, and the sigma of the first.
    good
        Whether the edge stood out and its fit settled.
    excess
        Spread of what hangs together in the residuals over that of Poisson counts.
    log_likelihood
        Of all sectors, up to what the counts alone say.
    """

    outwards_px: Float
    sigma_px: Float
    inside: Float
    outside: Float
    inside_sigma: Float
    good: NDArray[np.bool_]
    excess: float
    log_likelihood: float


def doubt_px(edges: Edges, width_px: float) -> Float:
    """Return by how much edges may be off where two levels meet inside, shape (sectors,).

    A sector that is darker at one end than at the other has no one level, and its edge is
    found too far inside: in simulation by up to 0.4 widths times the step over the contrast.
    """
    step = np.abs(np.roll(edges.inside, -1) - edges.inside)
    own = np.hypot(np.roll(edges.inside_sigma, -1), edges.inside_sigma)
    contrast = np.maximum(edges.outside - edges.inside, 1e-9)
    share = np.where(step > LEVEL_SIGMAS * own, step / contrast, 0.0)
    return np.asarray(LEVEL_DOUBT * width_px * np.maximum(share, np.roll(share, 1)))


def sector_weights(points: int, sectors: int) -> Float:
    """Return how points follow sectors, shape (points, sectors): linear, and periodic."""
    at = (np.arange(points) + 0.5) * sectors / points - 0.5
    low = np.floor(at).astype(int)
    share = at - low
    weights = np.zeros((points, sectors))
    rows = np.arange(points)
    np.add.at(weights, (rows, low % sectors), 1 - share)
    np.add.at(weights, (rows, (low + 1) % sectors), share)
    return weights


@dataclass(frozen=True, slots=True)
class Near:
    """The pixels near an outline.

    Parameters
    ----------
    rows, columns
        Of the pixels, shape (n,).
    s
        Signed distance from the outline, px, positive outside.
    point
        Nearest point of the outline.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    s: Float
    point: NDArray[np.intp]


def near(outline: Outline, shape: tuple[int, int], reach_px: float) -> Near | None:
    """Return the pixels within reach of an outline; None where it leaves the frame."""
    points = outline.points
    low = np.floor(points.min(axis=0) - reach_px).astype(int)
    high = np.ceil(points.max(axis=0) + reach_px).astype(int)
    if np.any(low < 0) or high[0] >= shape[1] or high[1] >= shape[0]:
        return None
    y, x = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
    pixels = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    found_away, found_point = cKDTree(points).query(
        pixels, distance_upper_bound=reach_px + SAMPLE_PX
    )
    away, point = np.asarray(found_away, np.float64), np.asarray(found_point, np.intp)
    found = np.isfinite(away)
    pixels, point = pixels[found], point[found]
    # A point of the outline lies up to half a sample beside the foot: the normal tells.
    offset = pixels - points[point]
    across = np.einsum("ij,ij->i", offset, outline.normals[point])
    side = np.where(across >= 0, 1.0, -1.0)
    away = away[found]
    s = np.where(away < 2 * SAMPLE_PX, across, side * np.sqrt(np.maximum(away**2, across**2)))
    inside = np.abs(s) <= reach_px
    whole = pixels[inside].astype(np.intp)
    return Near(whole[:, 1], whole[:, 0], s[inside], point[inside])


def fit_edges_of(
    counts: Float, at: Near, points: int, sectors: int, width_px: float, reach_px: float
) -> Edges:
    """Fit the edge of each sector by Fisher scoring; levels are free in each.

    Parameters
    ----------
    counts
        Of the pixels of ``at``, shape (n,).
    points
        Of the outline.
    width_px
        Of the edge, Gaussian sigma, without the pixel's own.
    """
    k, s = at.point * sectors // points, at.s
    wide = math.sqrt(width_px**2 + PIXEL_VARIANCE)

    def total(values: NDArray[np.floating]) -> Float:
        return np.asarray(np.bincount(k, values, sectors), np.float64)

    deep, far = s < -wide, s > wide
    inside = total(counts * deep) / np.maximum(total(deep * 1.0), 1)
    outside = total(counts * far) / np.maximum(total(far * 1.0), 1)
    d, step, sigma = np.zeros(sectors), np.zeros(sectors), np.zeros(sectors)
    covariance = np.full((sectors, 3, 3), np.inf)
    for _ in range(STEPS):
        z = (s - d[k]) / wide
        share = special.ndtr(z)
        model = np.maximum(inside[k] + (outside - inside)[k] * share, 1e-3)
        bell = np.exp(-0.5 * z * z) * ((inside - outside)[k] / (wide * math.sqrt(2 * math.pi)))
        parts = [bell, 1 - share, share]
        fisher = np.empty((sectors, 3, 3))
        for i in range(3):
            for j in range(i, 3):
                fisher[:, i, j] = fisher[:, j, i] = total(parts[i] * parts[j] / model)
        residual = (counts - model) / model
        score = np.stack([total(part * residual) for part in parts], axis=1)
        covariance = _inverse(fisher)
        change = np.einsum("kij,kj->ki", covariance, score)
        step = np.clip(change[:, 0], -wide, wide)
        d = np.clip(d + step, -reach_px, reach_px)
        inside, outside = inside + change[:, 1], outside + change[:, 2]
        sigma = np.sqrt(covariance[:, 0, 0])
        if np.all(np.abs(step) < 0.02 * sigma):
            break
    contrast = outside - inside
    own = covariance[:, 1, 1] + covariance[:, 2, 2] - 2 * covariance[:, 1, 2]
    good = (np.abs(step) < SETTLED_SIGMAS * sigma) & (np.abs(d) < reach_px) & (sigma < reach_px)
    good &= contrast > MIN_SIGNIFICANCE * np.sqrt(np.maximum(own, 0.0))
    z = (s - d[k]) / wide
    model = np.maximum(inside[k] + contrast[k] * special.ndtr(z), 1e-3)
    return Edges(
        outwards_px=d,
        sigma_px=sigma,
        inside=inside,
        outside=outside,
        inside_sigma=np.sqrt(covariance[:, 1, 1]),
        good=good,
        excess=_excess(counts, model, at, 3 * sectors),
        log_likelihood=float(np.sum(counts * np.log(model) - model)),
    )


def _inverse(fisher: Float) -> Float:
    """Invert each matrix; one that is singular leaves an infinite variance."""
    scale = np.sqrt(np.maximum(np.einsum("kii->ki", fisher), 1e-300))
    outer = scale[:, :, None] * scale[:, None, :]
    correlation = fisher / outer
    good = np.linalg.det(correlation) > 1e-10
    correlation[~good] = np.eye(3)
    inverse = np.linalg.inv(correlation) / outer
    inverse[~good] = np.diag([1e12, 0.0, 0.0])
    return np.asarray(inverse)


def _excess(counts: Float, model: Float, at: Near, parameters: int) -> float:
    """Return the spread of sums over cells of 4 px a side over that of independent counts.

    Texture hangs together over some pixels, and misleads an edge more than shot noise of
    the same variance.
    """
    cells_x = at.columns // CELL_PX
    cell = at.rows // CELL_PX * (int(cells_x.max()) + 1) + cells_x
    difference = np.bincount(cell, counts - model)
    expected = np.bincount(cell, model)
    used = expected > 0.5 * float(np.median(expected[expected > 0]))
    n = int(used.sum())
    if n <= 2 * parameters / CELL_PX:
        return 1.0
    # The fit has taken its share out of the cells' sums.
    ratio = float(np.sum(difference[used] ** 2 / expected[used])) / max(n - parameters, n / 3)
    return math.sqrt(ratio)
