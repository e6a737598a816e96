"""The shape of what has grown out of an edge: its free ends, and the paths that lead there.

Distances are geodesic, within the shape. A free end is a place from which every way leads
back, of a prominence that noise of an outline does not have.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, sparse, special
from scipy.sparse import csgraph

from correlate.edge_search import PIXEL_VARIANCE
from correlate.kinematics import memory_factor
from correlate.segmentation import EIGHT, Mask, robust_spread
from correlate.shaft import Axis

MOST_PIXELS = 5000  # of a shape that ends are looked for in; larger ones are binned
PROMINENCE = 1.3  # of an end, in radii
STRAIGHT_RATIO = 0.7  # of the radius, by which a way may leave a straight line
PIECES = 8
FIRST_SOFT_PX = 1.5
SHORTEST_PX, BLURRED_PX = 3.0, 4.0
ROUNDS = 3
BESIDE_SHARE, BESIDE_SIGMAS = 0.25, 3.0  # of contrast and noise, from which a branch is beside
FEWEST_BARE = 0.25  # of a shaft, that tells how it lies
# Moves to neighbours, with knight's moves: a way is at most 2.7 % longer than it should be.
MOVES = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A free end, and the way to it.

    Parameters
    ----------
    axis
        Of its last straight piece.
    path_px, path_sigma_px
        From the edge to the point from which places along the axis are counted.
    end_px
        About where the end is, along the axis.
    contrast
        Of the piece beside what is around it.
    is_straight
        The axis begins at the edge.
    """

    axis: Axis
    path_px: float
    path_sigma_px: float
    end_px: float
    contrast: float
    is_straight: bool


def rooted(low: Mask, high: Mask, columns: int = 3) -> Mask:
    """Return the parts of a mask that hold a sure pixel and touch the left edge."""
    labels, count = ndimage.label(low, EIGHT)
    keep = np.zeros(count + 1, dtype=bool)
    keep[np.intersect1d(labels[:, :columns], labels[high])] = True
    keep[0] = False
    return np.asarray(keep[labels])


def find_ends(excess: Floats, mask: Mask, edge_px: float, radius_px: float = math.nan) -> list[End]:
    """Find the free ends of a shape that touches the left edge, the longest way first.

    Parameters
    ----------
    excess
        Relative brightness beside the background, shape (height, width).
    mask
        The shape.
    edge_px
        Column of the edge out of which it grows, in columns of ``excess``; at most 0.
    radius_px
        Of its branches; NaN for what the mask tells.
    """
    bin_px = 1
    while mask.sum() > MOST_PIXELS * bin_px**2:
        bin_px *= 2
    small = _binned(mask, bin_px)
    ways = _Ways(small)
    if not len(ways.distance):
        return []
    if not math.isfinite(radius_px):
        depth = ndimage.distance_transform_edt(np.pad(mask, ((1, 1), (0, 1))))
        ridge = np.sort(depth[depth == ndimage.maximum_filter(depth, 5)])
        # A ragged outline has shallow tops of its own, and few pixels around each.
        share = np.cumsum(ridge**2)
        radius_px = max(float(ridge[np.searchsorted(share, 0.5 * share[-1])]), 1.5)
        if ways.distance.max() * bin_px < 2 * radius_px:
            # Shorter than it is wide: its foot tells how wide.
            radius_px = max(radius_px, 0.5 * float(mask[:, 0].sum()))
    centre = _Centre(mask, radius_px)
    found = []
    for top in ways.tops(PROMINENCE * radius_px / bin_px):
        way = np.array(ways.way(top), dtype=np.float64) * bin_px + (bin_px - 1) / 2
        end = _end_of(excess, way, centre.of(way), edge_px, radius_px)
        if end is not None:
            found.append(end)
    return sorted(found, key=lambda e: -(e.path_px + e.end_px))


def _binned(mask: Mask, bin_px: int) -> Mask:
    if bin_px == 1:
        return mask
    height, width = (side - side % bin_px for side in mask.shape)
    parts = mask[:height, :width].reshape(height // bin_px, bin_px, width // bin_px, bin_px)
    return np.asarray(parts.mean(axis=(1, 3)) >= 0.5)


class _Centre:
    """Draws a way into the middle of a shape: to the mean of what is within a radius."""

    def __init__(self, mask: Mask, radius_px: float) -> None:
        self._shape = mask.shape
        # The shape goes on beyond its edge on the left.
        share = mask.astype(np.float32)
        y, x = np.indices(mask.shape, dtype=np.float32)

        def smooth(image: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(
                ndimage.gaussian_filter(image, radius_px, mode=("constant", "nearest"))
            )

        whole = np.maximum(smooth(share), 1e-6)
        self._y, self._x = smooth(share * y) / whole, smooth(share * x) / whole

    def of(self, way: Floats) -> Floats:
        """Return a way (y, x), drawn into the middle."""
        for _ in range(ROUNDS):
            y, x = (
                np.clip(np.rint(way[:, k]).astype(np.intp), 0, self._shape[k] - 1) for k in (0, 1)
            )
            way = np.stack([self._y[y, x], self._x[y, x]], axis=1)
        return way.astype(np.float64)


class _Ways:
    """Shortest ways within a shape from its pixels at the left edge.

    Attributes
    ----------
    distance
        Of each pixel that can be reached, shape (n,).
    """

    def __init__(self, mask: Mask) -> None:
        self._number = np.full(mask.shape, -1)
        self._at = np.argwhere(mask)
        self._number[mask] = np.arange(len(self._at))
        seeds = self._number[:, :2][mask[:, :2]]
        self.distance = np.zeros(0)
        if len(seeds) == 0:
            return
        first, second, length = [], [], []
        for down, right in MOVES:
            height, width = mask.shape
            a = self._number[: height - down, max(-right, 0) : width - max(right, 0)]
            b = self._number[down:, max(right, 0) : width - max(-right, 0)]
            both = (a >= 0) & (b >= 0)
            first.append(a[both])
            second.append(b[both])
            length.append(np.full(int(both.sum()), math.hypot(down, right)))
        n = len(self._at)
        graph = sparse.coo_array(
            (np.concatenate(length), (np.concatenate(first), np.concatenate(second))), shape=(n, n)
        ).tocsr()
        distance, before, _ = csgraph.dijkstra(
            graph, directed=False, indices=seeds, return_predecessors=True, min_only=True
        )
        # What cannot be reached is no part of it.
        self.distance = np.where(np.isfinite(distance), distance, -1.0)
        self._before = before

    def way(self, number: int) -> list[tuple[int, int]]:
        """Return the pixels (y, x) of the way to one, from the edge on."""
        found = []
        while number >= 0:
            found.append((int(self._at[number, 0]), int(self._at[number, 1])))
            number = int(self._before[number])
        return found[::-1]

    def tops(self, prominence: float) -> list[int]:
        """Return the pixels farthest away, each farther than what surrounds it by so much."""
        n = len(self.distance)
        owner = [-1] * n
        parent: dict[int, int] = {}
        tops: list[int] = []
        distance = self.distance.tolist()
        padded = np.pad(self._number, 1, constant_values=-1)
        around = np.stack(
            [
                padded[self._at[:, 0] + 1 + v, self._at[:, 1] + 1 + u]
                for v in (-1, 0, 1)
                for u in (-1, 0, 1)
                if v or u
            ],
            axis=1,
        ).tolist()

        def top_of(k: int) -> int:
            while parent[k] != k:
                parent[k] = parent[parent[k]]
                k = parent[k]
            return k

        for pixel in np.argsort(-self.distance, kind="stable").tolist():
            if distance[pixel] < 0:
                break
            beside = {top_of(owner[k]) for k in around[pixel] if k >= 0 and owner[k] >= 0}
            if not beside:
                parent[pixel] = owner[pixel] = pixel
                continue
            best = max(beside, key=lambda k: distance[k])
            owner[pixel] = best
            for other in beside - {best}:
                parent[other] = best
                if distance[other] - distance[pixel] >= prominence:
                    tops.append(other)
        last = [k for k, p in parent.items() if k == p]
        return tops + [k for k in last if distance[k] >= SHORTEST_PX]


def _end_of(
    excess: Floats, whole: Floats, way: Floats, edge_px: float, radius_px: float
) -> End | None:
    """Return the end that a way leads to, along the shape's middle.

    Parameters
    ----------
    whole
        The way as it was found, (y, x), from the edge on.
    way
        The same, drawn into the middle.
    """
    corners = _corners(way, STRAIGHT_RATIO * radius_px)
    last, tip = way[corners[-2]], whole[-1]
    straight = len(corners) == 2
    turn = math.atan2(way[-1, 0] - last[0], way[-1, 1] - last[1])
    if straight and math.dist(last, tip) < 3 * radius_px:
        turn = 0.0  # so short a piece tells no direction but that of the edge
        last = np.array([np.mean(way[:, 0]), last[1]])
    axis = Axis(
        x_px=float(last[1]),
        y_px=float(last[0]),
        turn_rad=turn,
        radius_px=radius_px,
        soft_px=FIRST_SOFT_PX,
    )
    far = float(axis.along(tip[1], tip[0])[0])
    begin = 0.0 if straight else min(radius_px, 0.3 * far)
    fitted, contrast = refine(excess, axis, begin, far)
    if not straight:
        steps = np.diff(way[corners[:-1]], axis=0)
        path = float(np.hypot(steps[:, 0], steps[:, 1]).sum()) + float(way[0, 1]) - edge_px
        away = math.hypot(fitted.x_px - last[1], fitted.y_px - last[0])
        return End(
            axis=fitted,
            path_px=path,
            path_sigma_px=math.hypot(1.0, 0.01 * path, away),
            end_px=far,
            contrast=contrast,
            is_straight=False,
        )
    fitted = from_edge(fitted, edge_px)
    far = float(fitted.along(tip[1], tip[0])[0])
    return End(
        axis=fitted,
        path_px=0.0,
        path_sigma_px=0.0,
        end_px=far,
        contrast=contrast,
        is_straight=True,
    )


def from_edge(axis: Axis, edge_px: float) -> Axis:
    """Return the same axis, counted from where it crosses a column."""
    back = (axis.x_px - edge_px) / math.cos(axis.turn_rad)
    return Axis(
        x_px=edge_px,
        y_px=axis.y_px - back * math.sin(axis.turn_rad),
        turn_rad=axis.turn_rad,
        radius_px=axis.radius_px,
        soft_px=axis.soft_px,
        turn_sigma_rad=axis.turn_sigma_rad,
        radius_sigma_px=axis.radius_sigma_px,
    )


def _corners(way: Floats, tolerance: float) -> list[int]:
    """Return the places at which a way turns (Ramer, Douglas and Peucker)."""
    keep, todo = {0, len(way) - 1}, [(0, len(way) - 1)]
    while todo:
        a, b = todo.pop()
        chord = way[b] - way[a]
        length = math.hypot(*chord)
        if b - a < 2 or length == 0:
            continue
        rest = way[a + 1 : b] - way[a]
        away = np.abs(rest[:, 0] * chord[1] - rest[:, 1] * chord[0]) / length
        k = int(np.argmax(away))
        if away[k] > tolerance:
            keep.add(a + 1 + k)
            todo += [(a, a + 1 + k), (a + 1 + k, b)]
    return sorted(keep)


def refine(excess: Floats, axis: Axis, begin_px: float, end_px: float) -> tuple[Axis, float]:
    """Fit place, direction, width and softness of a shaft in a mean image.

    Parameters
    ----------
    excess
        Relative brightness beside the background, shape (height, width).
    axis
        About where it is.
    begin_px, end_px
        Between which it is there, along the axis; its end takes no part.

    Returns
    -------
    axis, contrast
        Fitted; the axis as it was where too little of it is there.
    """
    contrast = math.nan
    for _ in range(ROUNDS):
        # A mean of frames in which the end came on blurs it.
        last = end_px - 2 * axis.radius_px - BLURRED_PX
        reach = 1.6 * axis.radius_px + 5
        y0, x0, part = _around(excess, axis, begin_px, end_px, reach)
        y, x = np.indices(part.shape, dtype=np.float64)
        s, t = axis.along(np.asarray(x + x0), np.asarray(y + y0))
        on = (s > begin_px) & (s < last) & (np.abs(t) < reach)
        if on.sum() < 20 or last - begin_px < SHORTEST_PX:
            return axis, contrast
        s, t, e = s[on], t[on], part[on]
        bare = _bare(axis, s, t, e)
        s, t, e = s[bare], t[bare], e[bare]
        axis, contrast, offset = _across(axis, t, e, contrast)
        axis = _turned(axis, s, t - offset, e, contrast, offset)
    return axis, contrast


def _bare(axis: Axis, s: Floats, t: Floats, e: Floats) -> Mask:
    """Return which pixels are of stretches beside which nothing else stands out.

    A branch that comes out would draw the shaft aside and widen it.
    """
    away = np.abs(t) - axis.radius_px - 2 * axis.wide_px > 0
    core = np.abs(t) < 0.6 * axis.radius_px
    if not np.any(core) or not np.any(away):
        return np.ones(len(s), dtype=bool)
    first = float(s.min())
    each = max((float(s.max()) - first) / (2 * PIECES), 2.0)
    stretch = np.floor((s - first) / each).astype(np.intp)
    cell = 2 * stretch + (t > 0)
    size = np.bincount(cell[away], minlength=int(cell.max()) + 2)
    mean = np.bincount(cell[away], weights=e[away], minlength=len(size)) / np.maximum(size, 1)
    middle, spread = robust_spread(e[away])
    limit = BESIDE_SHARE * max(float(np.median(e[core])) - middle, 0.0)
    odd = mean - middle > np.maximum(limit, BESIDE_SIGMAS * spread / np.sqrt(np.maximum(size, 1)))
    free = ~(odd[2 * stretch] | odd[2 * stretch + 1])
    return free if free.mean() > FEWEST_BARE else np.ones(len(s), dtype=bool)


def _around(
    image: Floats, axis: Axis, begin_px: float, end_px: float, reach: float
) -> tuple[int, int, Floats]:
    """Return the part of an image around a shaft, with its first row and column."""
    (xa, ya), (xb, yb) = axis.place(begin_px), axis.place(end_px)
    y0 = max(math.floor(min(ya, yb) - reach), 0)
    x0 = max(math.floor(min(xa, xb) - reach), 0)
    y1, x1 = math.ceil(max(ya, yb) + reach) + 1, math.ceil(max(xa, xb) + reach) + 1
    return y0, x0, image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def _profile(t: Floats, c: float, r: float, w: float, t0: float, base: float) -> Floats:
    wide = math.sqrt(w**2 + PIXEL_VARIANCE)
    inside = special.ndtr((r - t + t0) / wide) + special.ndtr((r + t - t0) / wide) - 1
    return np.asarray(base + c * inside)


def _across(axis: Axis, t: Floats, e: Floats, contrast: float) -> tuple[Axis, float, float]:
    """Fit the mean profile across; returns axis, contrast and by how much it lies aside."""
    index = np.floor(2 * t).astype(np.intp)
    first = int(index.min())
    size = np.bincount(index - first)
    mean = np.bincount(index - first, weights=e) / np.maximum(size, 1)
    at = np.bincount(index - first, weights=t) / np.maximum(size, 1)
    good = size > 0.3 * np.median(size)
    guess = float(np.percentile(mean[good], 90)) if not math.isfinite(contrast) else contrast
    if good.sum() < 8:
        return axis, guess, 0.0
    weight = np.sqrt(size[good])

    def rest(p: Floats) -> Floats:
        return np.asarray(weight * (_profile(at[good], *p) - mean[good]))

    start = np.array([guess, axis.radius_px, axis.soft_px, 0.0, 0.0])
    fit = optimize.least_squares(rest, start, max_nfev=200)
    found, slope = np.asarray(fit.x), np.asarray(fit.jac, dtype=np.float64)
    fisher = slope.T @ slope
    if not np.linalg.cond(fisher) < 1e12:
        return axis, guess, 0.0
    covariance = np.linalg.inv(fisher) * 2 * fit.cost / max(int(good.sum()) - 5, 1)
    r, w = abs(float(found[1])), abs(float(found[2]))
    sane = 0.4 < r / axis.radius_px < 2.5 and w < 2 * r and abs(found[3]) < axis.radius_px
    if not sane or not covariance[1, 1] > 0:
        return axis, guess, 0.0
    fitted = Axis(
        x_px=axis.x_px,
        y_px=axis.y_px,
        turn_rad=axis.turn_rad,
        radius_px=r,
        soft_px=min(max(w, 0.3), 0.6 * r),
        turn_sigma_rad=axis.turn_sigma_rad,
        # Texture draws neighbouring bins the same way.
        radius_sigma_px=math.sqrt(covariance[1, 1]) * memory_factor(fit.fun),
    )
    return fitted, float(found[0]), float(found[3])


def _turned(axis: Axis, s: Floats, t: Floats, e: Floats, contrast: float, offset: float) -> Axis:
    """Move and turn an axis to where its pieces lie."""
    edges = np.linspace(s.min(), s.max() + 1e-6, PIECES + 1)
    length = float(edges[-1] - edges[0])
    turn, sigma, aside = 0.0, axis.turn_sigma_rad, 0.0
    if length > 1.5 * axis.radius_px:
        middles, places = [], []
        wide = axis.wide_px
        near = np.abs(t) < axis.radius_px + 2 * wide
        for a, b in itertools.pairwise(edges):
            on = near & (s >= a) & (s < b)
            # One step of scoring: where the profile rises tells by how much it lies aside.
            rise = np.exp(-0.5 * ((t[on] - axis.radius_px) / wide) ** 2)
            rise -= np.exp(-0.5 * ((t[on] + axis.radius_px) / wide) ** 2)
            rise *= contrast / (math.sqrt(2 * math.pi) * wide)
            rest = e[on] - _profile(t[on], contrast, axis.radius_px, axis.soft_px, 0.0, 0.0)
            power = float(rise @ rise)
            if power > 0:
                middles.append(0.5 * (a + b))
                places.append(float(rise @ rest) / power)
        at, aways = np.array(middles), np.array(places)
        if len(at) >= 4:
            rest = aways - np.polyval(np.polyfit(at, aways, 1), at)
            middle, spread = robust_spread(rest)
            # A branch that leaves draws its own piece aside.
            good = np.abs(rest - middle) < 3 * max(spread, 0.1)
            if good.sum() >= 4:
                line, covariance = np.polyfit(at[good], aways[good], 1, cov=True)
                turn, aside = float(line[0]), float(line[1])
                sigma = math.sqrt(max(covariance[0, 0], 0.0))
    if abs(turn) > 0.5 or abs(aside) > axis.radius_px or sigma * length > axis.radius_px:
        turn, aside = 0.0, 0.0
        sigma = max(min(sigma, axis.radius_px / max(length, 1.0)), axis.turn_sigma_rad)
    across = offset + aside
    return Axis(
        x_px=axis.x_px - across * math.sin(axis.turn_rad),
        y_px=axis.y_px + across * math.cos(axis.turn_rad),
        turn_rad=axis.turn_rad + math.atan(turn),
        radius_px=axis.radius_px,
        soft_px=axis.soft_px,
        turn_sigma_rad=sigma,
        radius_sigma_px=axis.radius_sigma_px,
    )
