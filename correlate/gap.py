"""The gap between two electrodes, in which something grows: its edges and its background.

Arrays of the gap hold the columns between the edges only, without a few beside them that
an edge's softness reaches.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.edge import fit_edges
from correlate.outgrowth import rooted
from correlate.residuals import LAG_PX, autocorrelation
from correlate.segmentation import Mask, robust_spread, without_small

STRETCHES = 8
SIDE_SHARE = 0.45  # of the width, in which the edge of an electrode is looked for
EDGE_REACH_PX = 8.0
EDGE_STEP = 0.06  # least change of brightness at an electrode's edge, of the mean
FIRST_WIDTH_PX = 2.0
ODD_SIGMAS, FEWEST_BARE = 4.0, 4  # of a stretch's brightness beside an edge; stretches
CLEAR_WIDTHS, CLEAR_PX = 2.0, 1.5  # of an edge, that its softness reaches
LEAST_GAP_PX = 40
BLOCK_PX = 8
SMOOTH_PX, COARSE_PX = 1.5, 4.0
SURE_SIGMAS = 6.0  # of the noise, by which a contrast stands out pixel by pixel
LOW_SIGMAS, HIGH_SIGMAS, LEAST_PX = 2.5, 5.0, 30
HIDES_PX, HIDES_MORE = 5.0, 4.0  # around an object; of the texture over its contrast
FIRST_LAG_PX = 2.0
GRAINS_PX = np.linspace(1.0, 5.0, 17)  # Gaussian sigmas that are looked for
HALF = 0.5  # of the contrast: where the outline of an object lies
Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An electrode's edge, a column; NaN where there is none."""

    x_px: float = math.nan
    sigma_px: float = 0.0
    width_px: float = FIRST_WIDTH_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What the first frames tell of the gap.

    Parameters
    ----------
    root, target
        Edges on the left, out of which something grows, and on the right.
    first, last
        Columns of the gap's arrays: from ``first`` on, before ``last``.
    background
        Counts per pixel without what grows, shape (height, last - first).
    level
        The same without texture.
    unknown
        Where the background was covered, and is what is around it.
    start
        Mean of the very first frames, as it is seen.
    frames
        That the background is the mean of.
    texture, grain_px
        Variance of the relative brightness by texture, per px of an area that is much
        larger than a grain; Gaussian sigma of the grain.
    """

    root: Edge
    target: Edge
    first: int
    last: int
    background: Floats
    level: Floats
    unknown: Mask
    start: Floats
    frames: int
    texture: float
    grain_px: float

    @property
    def edge_px(self) -> float:
        """Column of the root's edge in the gap's arrays."""
        return self.root.x_px - self.first

    def by_texture(self, rows: Index, columns: Index, weight: Floats) -> float:
        """Return the variance of a weighted sum of relative brightness, by texture."""
        if not np.any(weight):
            return 0.0
        patch = np.zeros((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
        patch[rows - rows.min(), columns - columns.min()] = weight
        # Two grains see each other over sqrt(2) of their size.
        shared = ndimage.gaussian_filter(
            patch, math.sqrt(2) * self.grain_px, mode="constant", truncate=3.0
        )
        return self.texture * max(float(np.sum(patch * shared)), 0.0)


def find_edge(mean: Floats, *, right: bool) -> Edge:
    """Return the edge of an electrode on one side of a mean image, the strongest step there.

    Its sigma is how stretches along the edge scatter, with the electrode's texture in it.
    """
    height, width = mean.shape
    part = max(int(SIDE_SHARE * width), 20)
    columns = slice(width - part, width) if right else slice(0, part)
    x = np.arange(width, dtype=np.float64)[columns]
    each = max(height // STRETCHES, 1)
    count = height // each
    # The median of the stretches: what grows stands in a few of them.
    lines = mean[: each * count, columns].reshape(count, each, part).mean(axis=1)
    whole = np.median(lines, axis=0)[None] * each
    found = fit_edges(x, whole, None, FIRST_WIDTH_PX).line(0)
    step = abs(found.right - found.left) / max(found.right + found.left, 1e-12) * 2
    if not found.converged or step < EDGE_STEP:
        return Edge()
    sign = 1 if found.right > found.left else -1
    near = np.abs(x - found.position_px) < 3 * EDGE_REACH_PX
    if near.sum() < 8:
        return Edge()
    lines = lines[_bare(lines, near & ((x < found.position_px) == right))]
    fits = fit_edges(
        x[near],
        lines[:, near] * each,
        found.position_px,
        FIRST_WIDTH_PX,
        sign=sign,
        reach_px=EDGE_REACH_PX,
        free_width=True,
    )
    at, width_px = fits.position_px[fits.converged], fits.width_px[fits.converged]
    if len(at) < 3:
        return Edge(x_px=found.position_px, sigma_px=1.0)
    middle, spread = robust_spread(at)
    at = at[np.abs(at - middle) < 4 * max(spread, 0.1)]
    n = len(at)
    if n < 4:
        return Edge(x_px=float(at.mean()), sigma_px=1.0, width_px=float(np.median(width_px)))
    # So few values tell their own spread badly: that of Student's distribution.
    return Edge(
        x_px=float(at.mean()),
        sigma_px=float(at.std(ddof=1)) / math.sqrt(n) * math.sqrt((n - 1) / (n - 3)),
        width_px=float(np.median(width_px)),
    )


def _bare(lines: Floats, beside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the stretches of an edge out of which nothing grows: the end of it draws a fit.

    Parameters
    ----------
    lines
        Of each stretch, shape (stretches, columns).
    beside
        Columns of the gap that are near the edge.
    """
    level = lines[:, beside].mean(axis=1)
    middle, spread = robust_spread(level)
    bare = np.abs(level - middle) <= ODD_SIGMAS * spread
    return bare if bare.sum() >= FEWEST_BARE else np.ones(len(lines), dtype=bool)


def columns_between(root: Edge, target: Edge, width: int) -> tuple[int, int]:
    """Return the first column between two edges and that after the last; few are none."""

    def clear(edge: Edge) -> float:
        return CLEAR_WIDTHS * min(edge.width_px, 6.0) + CLEAR_PX

    first = math.ceil(root.x_px + clear(root)) if root.x_px > 0 else 0
    last = math.floor(target.x_px - clear(target)) if math.isfinite(target.x_px) else width
    return max(first, 0), min(last, width)


def learn_gap(
    mean: Floats,
    parts: tuple[Floats, Floats],
    frames: int,
    edges: tuple[Edge, Edge],
    rises: int,
    *,
    faint: bool = False,
) -> Gap:
    """Learn the background from the mean of the first frames.

    Parameters
    ----------
    mean, parts
        Mean of the first frames, and of the first and last ones of them, shape (height, width).
    frames
        How many.
    edges
        Of root and target.
    rises
        +1 for an object that is brighter than the background, -1 for a darker one.
    faint
        What stands out by less than half of the object is part of it, too.
    """

    def stands_out(excess: Floats, before: Mask) -> Mask:
        found, _ = outline(excess, before)
        return found | standing_out(excess, before) if faint else found

    root, target = edges
    first, last = columns_between(root, target, mean.shape[1])
    part, (start, end) = mean[:, first:last], (p[:, first:last] for p in parts)
    level = plane(part)
    covered = np.zeros(part.shape, dtype=bool)
    for image in (part, end):
        excess = rises * (image - level) / level
        covered |= stands_out(excess, covered)
    if np.any(covered):
        level = plane(part, ~_grown(covered, 8.0))
        for image in (part, end):
            covered |= stands_out(rises * (image - level) / level, covered)
    unknown = _grown(covered, HIDES_PX) if np.any(covered) else covered
    texture, grain_px = _texture(part, level, unknown)
    if np.any(covered):
        # Texture shifts an outline: what is thought to be bare there may be covered, too.
        depth = ndimage.distance_transform_edt(covered)
        contrast = float(np.median(np.abs(part / level - 1)[depth > 0.6 * depth.max()]))
        more_px = HIDES_MORE * math.sqrt(texture) / max(contrast, 1e-3)
        unknown = _grown(covered, HIDES_PX + min(more_px, 2 * HIDES_PX))
    background = _filled(part, level, unknown)
    return Gap(
        root=root,
        target=target,
        first=first,
        last=last,
        background=background,
        level=level,
        unknown=unknown,
        start=start,
        frames=frames,
        texture=texture,
        grain_px=grain_px,
    )


def _grown(mask: Mask, by_px: float) -> Mask:
    return np.asarray(ndimage.distance_transform_edt(~mask) <= by_px)


def plane(image: Floats, used: Mask | None = None) -> Floats:
    """Return a plane through the background of an image, which fills most of it."""
    height, width = (side - side % BLOCK_PX for side in image.shape)

    def blocks(values: Floats) -> Floats:
        parts = values[:height, :width].reshape(
            height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX
        )
        return np.asarray(parts.mean(axis=(1, 3)))

    y, x = np.indices(image.shape, dtype=np.float64)
    values, at_y, at_x = (blocks(np.asarray(v, np.float64)).ravel() for v in (image, y, x))
    whole = np.ones(len(values)) if used is None else blocks(np.asarray(used, np.float64)).ravel()
    design = np.stack([np.ones(len(values)), at_y, at_x], axis=1)
    good = whole > 0.99
    if good.sum() < 6:
        good = np.ones(len(values), dtype=bool)
    found = np.array([np.median(values[good]), 0.0, 0.0])
    known = good
    for _ in range(6):
        rest = values - design @ found
        middle, spread = robust_spread(rest[good])
        known = good & (np.abs(rest - middle) < 3 * max(spread, 1e-12))
        if known.sum() < 6:
            break
        found = np.linalg.lstsq(design[known], values[known], rcond=None)[0]
    return np.asarray(np.maximum(found[0] + found[1] * y + found[2] * x, 1e-6))


def outline(
    excess: Floats, before: Mask, contrast: float = math.nan, left_behind: Mask | None = None
) -> tuple[Mask, float]:
    """Return where an object stands out of the left edge, and the noise.

    Parameters
    ----------
    excess
        Relative brightness beside the background, positive on the object.
    before
        Where the object was; it takes no part in the noise.
    contrast
        Of the object, if known: its outline lies at half of it.
    left_behind
        Where parts may be that no longer touch the edge.
    """
    found, noise, seen = _outline(excess, before, contrast, left_behind, SMOOTH_PX)
    if seen > SURE_SIGMAS * noise:
        return found, noise
    # What is wide and faint stands out of what is smoother.
    coarse, _, _ = _outline(excess, before, math.nan, left_behind, COARSE_PX)
    return found | coarse, noise


def standing_out(excess: Floats, before: Mask) -> Mask:
    """Return all that stands out of the noise from the left edge on, however faint.

    Parameters
    ----------
    excess, before
        See `outline`.
    """
    return _outline(excess, before, 0.0, before, SMOOTH_PX)[0]


def _outline(
    excess: Floats, before: Mask, contrast: float, left_behind: Mask | None, smooth_px: float
) -> tuple[Mask, float, float]:
    """Return an outline at one scale, the noise there, and the contrast."""
    smooth = ndimage.gaussian_filter(excess, smooth_px)
    away = ~before if 0 < before.mean() < 0.7 else np.ones(before.shape, dtype=bool)
    middle, noise = robust_spread(smooth[away])
    noise = max(noise, 1e-9)
    high = smooth - middle > HIGH_SIGMAS * noise
    low = max(LOW_SIGMAS * noise, HALF * contrast if math.isfinite(contrast) else 0.0)
    found = _parts(smooth > low, high, left_behind)
    if math.isnan(contrast) and np.any(found):
        # Half of what is deep inside is the place of an outline.
        depth = ndimage.distance_transform_edt(found)
        contrast = float(np.median(smooth[depth > 0.6 * depth.max()]))
        low = max(low, HALF * contrast)
        found = _parts(smooth > low, high, left_behind)
    return without_small(found, LEAST_PX), noise, contrast if math.isfinite(contrast) else 0.0


def _parts(low: Mask, high: Mask, left_behind: Mask | None) -> Mask:
    found = rooted(low, high)
    if left_behind is None or not np.any(left_behind):
        return found
    labels, _ = ndimage.label(low, np.ones((3, 3), dtype=bool))
    keep = np.zeros(int(labels.max()) + 1, dtype=bool)
    keep[np.intersect1d(labels[left_behind], labels[high])] = True
    keep[0] = False
    return np.asarray(found | keep[labels])


def _filled(part: Floats, level: Floats, unknown: Mask) -> Floats:
    """Return a background in which covered places are as their column is elsewhere."""
    if not np.any(unknown):
        return part.copy()
    known = ~unknown
    count = known.sum(axis=0)
    share = np.where(known, part / level, 0.0).sum(axis=0) / np.maximum(count, 1)
    good = count > 0.1 * part.shape[0]
    x = np.arange(part.shape[1])
    share = np.interp(x, x[good], share[good]) if np.any(good) else np.ones(part.shape[1])
    return np.asarray(np.where(unknown, level * share[None, :], part))


def _texture(part: Floats, level: Floats, unknown: Mask) -> tuple[float, float]:
    """Return the variance of relative brightness by texture, per px of a large area, and its grain.

    Grains of Gaussian sigma ``a`` have an autocorrelation ``v exp(-(r / 2 a)^2)``, and the mean
    of a large area varies by ``4 pi a^2 v`` over its size. Lags of 2 px and more are free of the
    noise of counts, which moving frames by parts of a pixel spreads over neighbours.
    """
    known = (~unknown).astype(np.float64)
    rest = np.where(unknown, 0.0, part / level - 1)
    rest -= known * float(rest.sum() / known.sum())
    pairs = autocorrelation(known)
    lags = autocorrelation(rest) / np.maximum(pairs, 1.0)
    at = np.hypot(*(np.indices(lags.shape) - LAG_PX))
    used = (at >= FIRST_LAG_PX) & (at <= LAG_PX)
    # What a plane does not hold is a level of all lags.
    best, found = math.inf, (0.0, 1.0)
    for grain in GRAINS_PX:
        bell = np.exp(-((at[used] / (2 * grain)) ** 2))
        design = np.stack([bell, np.ones(len(bell))], axis=1)
        (value, ground), *_ = np.linalg.lstsq(design, lags[used], rcond=None)
        misfit = float(np.sum((lags[used] - design @ (value, ground)) ** 2))
        if misfit < best and value > 0:
            best, found = misfit, (4 * math.pi * grain**2 * float(value), float(grain))
    return found
