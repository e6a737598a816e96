"""The projected area of an object, as a sum of what stands out over its contrast.

``A = sum(w e) / c`` over a region that holds the whole object and a margin, with e the
relative brightness beside the background, c its mean deep inside. Nothing is counted over
a threshold, so the sum is linear in the counts and its variance that of the counts: of the
frame, of the background, of the level of the beam, and of the contrast; neighbouring pixels
share the last three.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.gap import LEAST_PX, Gap, Index
from correlate.segmentation import Mask

MARGIN_WIDTHS, MARGIN_PX = 2.0, 1.0  # of the outline's softness, around the object
DEEP_WIDTHS = 3.0  # from an outline on, where the cover is whole
RING_PX, RING_SIGMAS = 8.0, 3.0  # around that, in which a new branch shows, and how clearly
AWAY_PX = 14.0  # of the background that tells the level of the beam
MOST_BESIDE = 40_000
EDGE_COLUMNS = 6  # next to the electrode, that stand for what its edge hides, too
MEMORY_FRAMES = 60.0
FEWEST_DEEP = 4
Floats = NDArray[np.float64]
Crop = tuple[slice, slice]


@dataclass(slots=True)
class Contrast:
    """The mean of what stands out deep inside of the object, over some time.

    Attributes
    ----------
    value, variance
        Relative brightness; NaN before there is one.
    """

    value: float = math.nan
    variance: float = math.inf
    _sum: float = 0.0
    _cover: float = 0.0
    _noise: float = 0.0

    def add(self, total: float, cover: float, variance: float, frames: int = 1) -> None:
        """Add what stands out over the inner pixels of some frames, and their cover."""
        keep = (1 - 1 / MEMORY_FRAMES) ** frames
        self._sum = keep * self._sum + total
        self._cover = keep * self._cover + cover
        self._noise = keep**2 * self._noise + variance
        self.value = self._sum / self._cover
        self.variance = self._noise / self._cover**2


@dataclass(frozen=True, slots=True)
class Pixels:
    """Some pixels of the gap, and what is known of them.

    Parameters
    ----------
    rows, columns
        In the gap's arrays.
    background, down, right
        Counts, and their slopes.
    level
        Without texture.
    """

    rows: Index
    columns: Index
    background: Floats
    down: Floats
    right: Floats
    level: Floats

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a frame stands: whole pixels and what is left of a shift.

    Parameters
    ----------
    down, right
        To be added to a place in the gap's arrays for one in the frame, whole.
    rest_y_px, rest_x_px
        By how much the pixel that is found there lies beyond that place.
    """

    down: int
    right: int
    rest_y_px: float
    rest_x_px: float


def placed(gap: Gap, dx_px: float, dy_px: float) -> Placed:
    """Return where a frame stands whose coordinates are brought back by (dx, dy)."""
    right, down = round(dx_px), round(dy_px)
    return Placed(
        down=-down, right=gap.first - right, rest_y_px=dy_px - down, rest_x_px=dx_px - right
    )


class Background:
    """The gap's background with its slopes, from which pixels are taken."""

    def __init__(self, gap: Gap) -> None:
        self.gap = gap
        slopes = np.gradient(gap.background)
        self._down, self._right = np.asarray(slopes[0]), np.asarray(slopes[1])
        every = math.ceil(math.sqrt(gap.background.size / MOST_BESIDE))
        self._some = np.zeros(gap.background.shape, dtype=bool)
        self._some[::every, ::every] = True

    def pixels(self, mask: Mask, crop: Crop) -> Pixels:
        """Return the pixels of a mask of a part of the gap."""
        rows, columns = np.nonzero(mask)
        return self.at(rows + crop[0].start, columns + crop[1].start)

    def some(self, mask: Mask, crop: Crop) -> Pixels:
        """Return evenly spread pixels of the gap, within a part of it only those of a mask."""
        chosen = self._some.copy()
        chosen[crop] &= mask
        return self.at(*np.nonzero(chosen))

    def at(self, rows: Index, columns: Index) -> Pixels:
        """Return pixels by their places in the gap's arrays."""
        gap = self.gap
        return Pixels(
            rows,
            columns,
            gap.background[rows, columns],
            self._down[rows, columns],
            self._right[rows, columns],
            gap.level[rows, columns],
        )


def read(pixels: NDArray[np.generic], some: Pixels, at: Placed) -> tuple[Floats, Floats, Mask]:
    """Return counts of some pixels, their background, and which of them are in the frame."""
    rows, columns = some.rows + at.down, some.columns + at.right
    inside = (rows >= 0) & (rows < pixels.shape[0]) & (columns >= 0) & (columns < pixels.shape[1])
    if not inside.all():
        rows = np.clip(rows, 0, pixels.shape[0] - 1)
        columns = np.clip(columns, 0, pixels.shape[1] - 1)
    counts = np.asarray(pixels[rows, columns], dtype=np.float64)
    background = some.background + at.rest_y_px * some.down + at.rest_x_px * some.right
    return counts, np.maximum(background, 1e-6), inside


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAreas:
    """The areas of two classes that differ by their contrast, in px^2, with their sigmas."""

    strong_px: float
    strong_sigma_px: float
    weak_px: float
    weak_sigma_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaReading:
    """The area in one frame, in px^2.

    Parameters
    ----------
    area_px, sigma_px
        Of the object.
    behind_px, behind_sigma_px
        Of the parts of it that touch the electrode no more.
    shared_sigma_px
        The part of its sigma that neighbouring frames share: contrast, background, edge.
    outside
        A part of the region is out of the field.
    outgrown
        Something stands out beside the region, too, and was added.
    classes
        What the area is of; None where no two classes are told apart.
    """

    area_px: float
    sigma_px: float
    shared_sigma_px: float
    behind_px: float
    behind_sigma_px: float
    outside: bool
    outgrown: bool
    classes: ClassAreas | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What stands out in the pixels of a region, in one frame.

    Parameters
    ----------
    excess, variance
        Relative brightness beside the background, by its weight; 0 out of the field.
    weight
        Of pixels that stand for what the electrode's edge hides, too; 1 of all others.
    inside
        Which are in the field.
    """

    excess: Floats
    variance: Floats
    weight: Floats
    inside: Mask


def is_more(total: float, variance: float) -> bool:
    """Return whether something stands out beside a region."""
    return total > RING_SIGMAS * math.sqrt(variance)


@dataclass(slots=True)
class Region:
    """Where an object is, until it is looked for anew.

    Parameters
    ----------
    background
        Of the gap.
    crop
        Part of the gap's arrays that holds the object with room around it; its columns begin
        with theirs.
    cover
        Share of each pixel that is thought to be covered, shape as the crop.
    ahead
        Where it may grow meanwhile, beyond its own margin.
    behind
        Which of its parts touch the electrode no more.
    soft_px
        Of its outline, as pixels see it.
    rises
        +1 for a brighter object, -1 for a darker one.
    """

    background: Background
    crop: Crop
    cover: Floats
    ahead: Mask
    behind: Mask
    soft_px: float
    rises: int
    beside: Pixels = field(init=False)
    where: Mask = field(init=False)
    near_edge: Mask = field(init=False)
    _whole: Pixels = field(init=False)
    _ring: Pixels = field(init=False)
    _is_behind: Mask = field(init=False)
    _deep: Pixels = field(init=False)
    _shared: float = field(init=False)
    _deep_cover: float = field(init=False)

    def __post_init__(self) -> None:
        gap, mask = self.background.gap, self.cover > 0.5
        away = ndimage.distance_transform_edt(~(mask | self.ahead))
        region = (away <= MARGIN_WIDTHS * self.soft_px + MARGIN_PX) | self.ahead
        self.beside = self.background.some(away > AWAY_PX, self.crop)
        self.where = region
        self._whole = whole = self.background.pixels(region, self.crop)
        ring = ~region & (away <= MARGIN_WIDTHS * self.soft_px + MARGIN_PX + RING_PX)
        self._ring = self.background.pixels(ring, self.crop)
        padded = np.pad(mask, ((0, 0), (1, 0)), mode="edge")
        depth = ndimage.distance_transform_edt(padded)[:, 1:]
        deep = depth > min(DEEP_WIDTHS * self.soft_px, 0.7 * float(depth.max(initial=0.0)))
        deep[:, :2] = False
        self._deep = self.background.pixels(deep, self.crop)
        self._deep_cover = float(self.cover[deep].sum())
        labels = np.zeros(len(whole), dtype=bool)
        if np.any(self.behind):
            nearer = ndimage.distance_transform_edt(~self.behind)
            rest = mask & ~self.behind
            other = ndimage.distance_transform_edt(~rest) if np.any(rest) else np.inf
            labels = (nearer < other)[region]
        self._is_behind = labels
        self.near_edge = (whole.columns < EDGE_COLUMNS) & (gap.root.x_px > 0)
        # What background and texture do to sum and contrast alike.
        area = max(float(self.cover.sum()), 1.0)
        weight = region.astype(np.float64)
        if self._deep_cover > 0:
            weight[deep] -= area / self._deep_cover
        squares = weight**2
        unknown = gap.unknown[self.crop]
        counted = squares * gap.background[self.crop] / gap.level[self.crop] ** 2 / gap.frames
        # Where the background was seen, its texture is known.
        rows, columns = np.nonzero(unknown & (weight != 0))
        texture = gap.by_texture(rows, columns, weight[rows, columns])
        self._shared = float(counted[~unknown].sum()) + texture

    def level(
        self, pixels: NDArray[np.generic], at: Placed, noise: float
    ) -> tuple[float, float, float]:
        """Return the level of the beam against the background, its variance, and the noise.

        The noise is the variance of counts over that of Poisson.
        """
        counts, background, inside = read(pixels, self.beside, at)
        counts, background = counts[inside], background[inside]
        total = float(background.sum())
        if len(counts) < 50 or total <= 0:
            return math.nan, math.nan, noise
        level = float(counts.sum()) / total
        if level <= 0:
            return math.nan, math.nan, noise
        frames = self.background.gap.frames
        rest = counts - level * background
        seen = float(np.mean(rest**2 / (level * background))) / (1 + level / frames)
        variance = max(seen, 1e-6) * level / total + level**2 / (frames * total)
        return level, variance, seen

    def measure(
        self,
        pixels: NDArray[np.generic],
        at: Placed,
        beam: tuple[float, float, float],
        contrast: Contrast,
        drift_sigma_px: tuple[float, float],
        *,
        learns: bool,
    ) -> AreaReading | None:
        """Measure the area, and let the frame add to the contrast if it may.

        Parameters
        ----------
        beam
            Level, its variance, and noise, see `level`.
        drift_sigma_px
            Standard uncertainties of dx and dy.
        learns
            The frame may add to the contrast.

        Returns
        -------
        AreaReading or None
            None where no contrast is known.
        """
        if learns or not contrast.value > 0:
            excess, variance = self.deep(pixels, at, beam, self._deep)
            if len(excess) and self._deep_cover > 0:
                bright = len(excess) + self.rises * float(excess.sum())
                by_level = (bright / beam[0]) ** 2 * beam[1]
                contrast.add(
                    float(excess.sum()), self._deep_cover, float(variance.sum()) + by_level
                )
        if not contrast.value > 0:
            return None
        seen, gap = self.seen(pixels, at, beam), self.background.gap
        excess, every = seen.excess, np.ones(len(self._whole), dtype=bool)
        edge = float(excess[self.near_edge].sum()) / EDGE_COLUMNS

        def area_of(on: Mask, shared: float, edge: float) -> tuple[float, float]:
            area = float(excess[on].sum()) / contrast.value
            own = self.frame_variance(on.astype(np.float64), seen, beam, drift_sigma_px)
            own += edge**2 * (gap.root.sigma_px**2 + drift_sigma_px[0] ** 2)
            return area, math.sqrt(own + shared + area**2 * contrast.variance) / contrast.value

        area, sigma = area_of(every, self._shared, edge)
        more, more_variance = self.beside_it(pixels, at, beam)
        outgrown = is_more(more, more_variance)
        if outgrown:
            area += more / contrast.value
            sigma = math.hypot(sigma, math.sqrt(more_variance) / contrast.value)
        behind, behind_sigma = 0.0, float(LEAST_PX)
        if np.any(self._is_behind):
            share = float(np.mean(self._is_behind))
            behind, behind_sigma = area_of(self._is_behind, self._shared * share, 0.0)
        common = self._shared + area**2 * contrast.variance + (edge * gap.root.sigma_px) ** 2
        return AreaReading(
            area_px=area,
            sigma_px=sigma,
            shared_sigma_px=math.sqrt(common) / contrast.value,
            behind_px=behind,
            behind_sigma_px=behind_sigma,
            outside=not bool(seen.inside.all()),
            outgrown=outgrown,
        )

    def seen(
        self, pixels: NDArray[np.generic], at: Placed, beam: tuple[float, float, float]
    ) -> Seen:
        """Return what stands out in each pixel of the region."""
        level, _, noise = beam
        whole = self._whole
        counts, background, inside = read(pixels, whole, at)
        excess = self.rises * (counts / level - background) / whole.level
        # Counts are their own variance, without bias in a sum.
        variance = noise * counts / level**2 / whole.level**2
        weight = np.ones(len(whole))
        if np.any(self.near_edge):
            hidden_px = at.rest_x_px - 0.5 - self.background.gap.edge_px
            weight[self.near_edge] += hidden_px / EDGE_COLUMNS
        excess = np.where(inside, weight * excess, 0.0)
        return Seen(excess=excess, variance=weight**2 * variance, weight=weight, inside=inside)

    def frame_variance(
        self,
        factor: Floats,
        seen: Seen,
        beam: tuple[float, float, float],
        drift_sigma_px: tuple[float, float],
    ) -> float:
        """Return the variance of a sum of what stands out: of counts, beam and drift.

        Parameters
        ----------
        factor
            By which each pixel is in the sum.
        """
        level, level_variance, _ = beam
        whole, weight = self._whole, factor * seen.weight
        bright = float(np.sum(weight + self.rises * factor * seen.excess))
        slope_x = float(np.sum(weight * whole.right / whole.level))
        slope_y = float(np.sum(weight * whole.down / whole.level))
        return (
            float(np.sum(factor**2 * seen.variance))
            + (bright / level) ** 2 * level_variance
            + (slope_x * drift_sigma_px[0]) ** 2
            + (slope_y * drift_sigma_px[1]) ** 2
        )

    def beside_it(
        self, pixels: NDArray[np.generic], at: Placed, beam: tuple[float, float, float]
    ) -> tuple[float, float]:
        """Return what stands out in the ring around the region, and its variance."""
        level, level_variance, noise = beam
        counts, background, inside = read(pixels, self._ring, at)
        excess = (self.rises * (counts / level - background) / self._ring.level)[inside]
        variance = (noise * np.maximum(counts, 1.0) / (level * self._ring.level) ** 2)[inside]
        frames = self.background.gap.frames
        shared = float(inside.sum()) ** 2 * level_variance / level**2
        return float(excess.sum()), float(variance.sum()) * (1 + level / frames) + shared + 1e-12

    def deep(
        self,
        pixels: NDArray[np.generic],
        at: Placed,
        beam: tuple[float, float, float],
        some: Pixels,
    ) -> tuple[Floats, Floats]:
        """Return what stands out in pixels deep inside, and its variance by counts.

        Both are empty where some are out of the field, or too few.
        """
        level, _, noise = beam
        counts, background, inside = read(pixels, some, at)
        if len(some) < FEWEST_DEEP or not inside.all():
            return np.zeros(0), np.zeros(0)
        excess = self.rises * (counts / level - background) / some.level
        return excess, noise * counts / level**2 / some.level**2
