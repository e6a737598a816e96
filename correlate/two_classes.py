"""What has grown, divided into two classes by contrast: metal and the layer beside it.

Of both classes together the sum of what stands out says nothing. Over a band around their
boundary it does, as each place there holds one or the other: ``S = c1 A1 + c2 (A - A1)``. So
blur and a boundary that has moved by less than the band are no error of either area. Away
from the band a place holds one class or the electrolyte, and its area is ``S / c``.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from correlate.deposit import (
    DEEP_WIDTHS,
    EDGE_COLUMNS,
    MARGIN_PX,
    MARGIN_WIDTHS,
    AreaReading,
    ClassAreas,
    Contrast,
    Pixels,
    Placed,
    Region,
    is_more,
)
from correlate.particles import otsu
from correlate.segmentation import EIGHT, Mask, robust_spread, without_small

SMOOTH_PX = 1.5
APART_SIGMAS = 2.5  # of each class and contrast, by which half of their difference is more
DEEP_PX, FEWEST_DEEP = 3.0, 30  # from an outline on, and so many pixels: what tells a contrast
LEAST_DEEP_WIDTHS = 2.5
SETTLED_SHARE = 0.3  # of what is between both contrasts, by which a place may be off its own
LEAST_PX = 30
OUTLINE_SIGMA_PX = 0.5  # of a mask's outline, where a layer is thinner than the band
Floats = NDArray[np.float64]


def depth(mask: Mask) -> Floats:
    """Return how deep in a mask each pixel is; the mask goes on beyond its left edge."""
    if mask.all():
        return np.full(mask.shape, math.inf)
    padded = np.pad(mask, ((0, 0), (1, 0)), mode="edge")
    return np.asarray(ndimage.distance_transform_edt(padded)[:, 1:])


def two_levels(smooth: Floats, mask: Mask) -> tuple[float, float] | None:
    """Return the higher and the lower contrast of what stands out; None where it has but one.

    Both must be seen deep inside of places of their own, so an edge's softness is no class, and
    half of each step, to the background and between both, must be more than each spreads, so
    neither noise nor a slope is one.

    Parameters
    ----------
    smooth
        Relative brightness beside the background, positive on the object, smoothed.
    mask
        What stands out at all.
    """
    inner = depth(mask) > DEEP_PX
    if inner.sum() < 2 * FEWEST_DEEP:
        return None
    high = mask & (smooth > otsu(smooth[inner]))
    levels = []
    for part in (high, mask & ~high):
        deep = depth(part) > DEEP_PX
        if deep.sum() < FEWEST_DEEP:
            return None
        levels.append(robust_spread(smooth[deep]))
    (strong, strong_spread), (weak, weak_spread) = levels
    step = min(strong - weak, weak)
    if 0.5 * step < APART_SIGMAS * max(strong_spread, weak_spread):
        return None
    return strong, weak


def strong_part(smooth: Floats, mask: Mask, levels: tuple[float, float]) -> Mask:
    """Return where the stronger class is, of a mask of both.

    A narrow strip between what is strong and what is bare is the edge of what is strong.
    """
    strong = without_small(mask & (smooth > 0.5 * sum(levels)), LEAST_PX)
    weak = without_small(mask & ~strong, LEAST_PX)
    core = depth(weak) > DEEP_PX
    if not np.any(core):
        return mask if np.any(strong) else strong
    return mask & (strong | (ndimage.distance_transform_edt(~core) > 2 * DEEP_PX))


def settled_parts(mask: Mask, smooth: Floats, levels: tuple[float, float]) -> Mask:
    """Return the parts of a mask of the stronger class that stay where they are.

    What an end has just come to is fainter in a mean of the last frames, and falls into parts.
    """
    labels, count = ndimage.label(mask, EIGHT)
    if count == 0:
        return mask
    middle = np.atleast_1d(ndimage.median(smooth, labels, np.arange(1, count + 1)))
    least = levels[0] - SETTLED_SHARE * (levels[0] - levels[1])
    return np.concatenate([[False], middle > least])[labels]


def layer_px(mask: Mask, strong: Mask) -> float:
    """Return how thick the weaker class is around the stronger one, along most of its outline."""
    rim = mask & (depth(mask) <= 1)
    if not np.any(strong) or not np.any(rim):
        return 0.0
    return float(np.median(depth(~strong)[rim]))


class Told:
    """What pixels deep inside of a class tell of its contrast until it is looked at anew.

    Those in which something else came meanwhile are left out then.
    """

    def __init__(self, count: int) -> None:
        self._total, self._noise = np.zeros(count), np.zeros(count)
        self._frames, self._level = 0, 0.0

    def add(self, excess: Floats, variance: Floats, level_variance: float) -> None:
        """Add a frame, with the relative variance of its level; an empty one is none."""
        if len(excess):
            self._total += excess
            self._noise += variance
            self._level += level_variance
            self._frames += 1

    def tell(self, contrast: Contrast, stayed: Mask, rises: int) -> None:
        """Let the pixels that stayed in their class add to its contrast."""
        count = int(stayed.sum())
        if self._frames and count >= FEWEST_DEEP:
            total, noise = float(self._total[stayed].sum()), float(self._noise[stayed].sum())
            noise += (count + rises * total / self._frames) ** 2 * self._level
            contrast.add(total, float(count) * self._frames, noise, self._frames)


@dataclass(slots=True)
class Split:
    """A region, divided into both classes until it is looked at anew.

    Parameters
    ----------
    region
        Of both.
    mask, strong
        Where both are, and the stronger one, shapes as the region's crop.
    moving
        Where an end of the stronger class may come or go meanwhile.
    behind
        Which parts of the stronger class touch the electrode no more.
    smooth
        What stands out in a mean of the last frames, smoothed.
    levels
        Contrasts of both in it.
    soft_px
        Of their outlines, as pixels see them.
    unseen_px
        Area that may change from one class to the other away from their boundary, and come
        beside the region, as it did before: a branch that comes out is seen by the mean of
        the last frames only later.
    """

    region: Region
    mask: Mask
    strong: Mask
    moving: Mask
    behind: Mask
    smooth: Floats
    levels: tuple[float, float]
    soft_px: float
    unseen_px: tuple[float, float] = (0.0, 0.0)
    cover: Floats = field(init=False)
    deep_masks: tuple[Mask, Mask] = field(init=False)
    _strong: Floats = field(init=False)
    _both: Floats = field(init=False)
    _band: Mask = field(init=False)
    _near_strong: Mask = field(init=False)
    _is_behind: Mask = field(init=False)
    _outline_px: float = field(init=False)
    _elsewhere: tuple[Mask, Mask] = field(init=False)
    _deep: tuple[Pixels, Pixels] = field(init=False)
    _told: tuple["Told", "Told"] = field(init=False)
    _shared: tuple[float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        region, soft = self.region, self.soft_px
        where, weak = region.where, self.mask & ~self.strong
        from_strong, from_weak = depth(~self.strong), depth(~weak)
        reach = MARGIN_WIDTHS * soft + MARGIN_PX
        band = (from_strong <= reach) & (from_weak <= reach)
        band |= self.moving & self.mask
        self.cover = softened(self.mask, soft)
        strong = np.minimum(softened(self.strong, soft), self.cover)
        self._strong, self._both = strong[where], self.cover[where]
        self._band, self._near_strong = band[where], (from_strong <= from_weak)[where]
        self._elsewhere = self.strong & ~band, weak & ~band
        # Along the outline of both, within the band, what is covered at all is by the mask.
        self._outline_px = float((band & self.mask & (depth(self.mask) <= 1)).sum())
        self._is_behind = np.zeros(int(where.sum()), dtype=bool)
        if np.any(self.behind):
            rest = self.strong & ~self.behind
            self._is_behind = (depth(~self.behind) < depth(~rest))[where]
        # An end that comes on leaves what is behind it where it is; what an end leaves is told
        # by the next look.
        parts = zip(
            (self.strong, weak & ~self.moving), (self.strong, weak), self.levels, strict=True
        )
        deep = [self._deep_of(stays, part, level) for stays, part, level in parts]
        background = region.background
        shape = background.gap.background.shape
        self.deep_masks = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for whole, part in zip(self.deep_masks, deep, strict=True):
            whole[region.crop] = part
        self._deep = (
            background.pixels(deep[0], region.crop),
            background.pixels(deep[1], region.crop),
        )
        self._told = Told(len(self._deep[0])), Told(len(self._deep[1]))
        self._shared = self._shared_variances((deep[0], deep[1]))

    def followed_by(self, other: "Split", contrasts: tuple[Contrast, Contrast]) -> None:
        """Let what is deep inside of its class in another, later one, too, add to contrasts."""
        for contrast, told, deep, later in zip(
            contrasts, self._told, self._deep, other.deep_masks, strict=True
        ):
            told.tell(contrast, later[deep.rows, deep.columns], self.region.rises)

    def changed_px(self, strong: Mask, weak: Mask) -> tuple[float, float]:
        """Return what was not seen to come.

        That is the net area of what is another class now, away from the boundary, and the
        area of both where nothing was looked for.

        Parameters
        ----------
        strong, weak
            Where the classes are now, shapes as the gap.
        """
        rows, columns = self.region.crop
        was_strong, was_weak = self._elsewhere
        came = np.count_nonzero(was_weak & strong[rows, columns])
        gone = np.count_nonzero(was_strong & weak[rows, columns])
        beside = strong | weak
        beside[rows, columns] &= ~self.region.where
        return abs(float(came) - float(gone)), float(np.count_nonzero(beside))

    def _deep_of(self, stays: Mask, part: Mask, level: float) -> Mask:
        """Return where a class is seen alone and stays meanwhile.

        What has come or gone within the mean of the last frames has another level there.
        """
        inside, soft = depth(part), self.soft_px
        limit = min(DEEP_WIDTHS * soft, 0.7 * float(np.max(inside, initial=0.0)))
        near = np.abs(self.smooth - level) < SETTLED_SHARE * (self.levels[0] - self.levels[1])
        deep = (inside > max(limit, LEAST_DEEP_WIDTHS * soft)) & near & stays
        deep[:, :2] = False
        return deep if deep.sum() >= FEWEST_DEEP else np.zeros_like(part)

    def _weights(self, strong: float, weak: float) -> tuple[Floats, Floats]:
        """Return by how much either area grows with what stands out in each pixel."""
        apart = 1 / (strong - weak)
        return (
            np.where(self._band, apart, np.where(self._near_strong, 1 / strong, 0.0)),
            np.where(self._band, -apart, np.where(self._near_strong, 0.0, 1 / weak)),
        )

    def _shared_variances(self, deep: tuple[Mask, Mask]) -> tuple[float, float, float]:
        """Return what background and texture do to the areas of strong, weak, and both."""
        region, gap = self.region, self.region.background.gap
        first, second = self._weights(*self.levels)
        unknown = gap.unknown[region.crop]
        counts = gap.background[region.crop] / gap.level[region.crop] ** 2 / gap.frames
        found = []
        for weight in (first, second, first + second):
            whole = np.zeros(region.where.shape)
            whole[region.where] = weight
            # The contrasts were seen over the same background.
            for part, slope in zip(deep, self._slopes(weight), strict=True):
                whole[part] += slope / max(float(part.sum()), 1.0)
            rows, columns = np.nonzero(unknown & (whole != 0))
            texture = gap.by_texture(rows, columns, whole[rows, columns])
            found.append(float((whole**2 * counts)[~unknown].sum()) + texture)
        return found[0], found[1], found[2]

    def _slopes(self, weight: Floats) -> tuple[float, float]:
        """Return the change of an area with either contrast."""
        weak = self._both - self._strong
        return -float(weight @ self._strong), -float(weight @ weak)

    def measure(
        self,
        pixels: NDArray[np.generic],
        at: Placed,
        beam: tuple[float, float, float],
        contrasts: tuple[Contrast, Contrast],
        drift_sigma_px: tuple[float, float],
        *,
        learns: bool,
    ) -> AreaReading | None:
        """Measure both areas, and let the frame add to their contrasts if it may.

        Parameters
        ----------
        contrasts
            Of strong and weak.

        Returns
        -------
        AreaReading or None
            None where the contrasts are not known well enough to tell the classes apart.
        """
        region = self.region
        if learns:
            for told, deep in zip(self._told, self._deep, strict=True):
                told.add(*region.deep(pixels, at, beam, deep), beam[1] / beam[0] ** 2)
        strong, weak = (contrast.value for contrast in contrasts)
        variances = tuple(contrast.variance for contrast in contrasts)
        if not (weak > 0 and strong - weak > 3 * APART_SIGMAS * math.sqrt(sum(variances))):
            return None
        seen = region.seen(pixels, at, beam)
        count = seen.weight * seen.inside
        rest = seen.excess - count * (strong * self._strong + weak * (self._both - self._strong))

        def area_of(
            weight: Floats, cover: Floats, on: Mask, shared: float, outline: float
        ) -> tuple[float, float, float]:
            each = np.where(on, count * cover + weight * rest, 0.0)
            weight = np.where(on, weight, 0.0)
            edge = float(each[region.near_edge].sum()) / EDGE_COLUMNS
            by_contrast = sum(
                slope**2 * variance
                for slope, variance in zip(self._slopes(weight), variances, strict=True)
            )
            by_outline = (outline * OUTLINE_SIGMA_PX * self._outline_px) ** 2
            root = region.background.gap.root.sigma_px
            common = shared + by_contrast + by_outline + (edge * root) ** 2
            own = region.frame_variance(weight, seen, beam, drift_sigma_px)
            own += (edge * drift_sigma_px[0]) ** 2
            return float(each.sum()), math.sqrt(own + common), math.sqrt(common)

        first, second = self._weights(strong, weak)
        every, apart = np.ones(len(rest), dtype=bool), strong - weak
        strong_px, strong_sigma, strong_shared = area_of(
            first, self._strong, every, self._shared[0], weak / apart
        )
        weak_px, weak_sigma, _ = area_of(
            second, self._both - self._strong, every, self._shared[1], strong / apart
        )
        changes, comes = self.unseen_px
        strong_sigma = math.hypot(strong_sigma, changes)
        weak_sigma = math.hypot(weak_sigma, changes * strong / weak, comes)
        both_px, both_sigma, _ = area_of(first + second, self._both, every, self._shared[2], 1.0)
        both_sigma = math.hypot(both_sigma, changes * apart / weak, comes)
        more, more_variance = region.beside_it(pixels, at, beam)
        outgrown = is_more(more, more_variance)
        if outgrown:
            # Of which class it is, is not known before it is looked at: the outer one is weak.
            more, spread = more / weak, math.sqrt(more_variance) / weak
            weak_px, both_px = weak_px + more, both_px + more
            weak_sigma, both_sigma = (
                math.hypot(weak_sigma, spread, more),
                math.hypot(both_sigma, spread, more),
            )
            strong_sigma = math.hypot(strong_sigma, more * weak / strong)
        behind, behind_sigma = 0.0, float(LEAST_PX)
        if np.any(self._is_behind):
            share = float(np.mean(self._is_behind))
            behind, behind_sigma, _ = area_of(
                first, self._strong, self._is_behind, self._shared[0] * share, 0.0
            )
        return AreaReading(
            area_px=both_px,
            sigma_px=both_sigma,
            shared_sigma_px=strong_shared,
            behind_px=behind,
            behind_sigma_px=behind_sigma,
            outside=not bool(seen.inside.all()),
            outgrown=outgrown,
            classes=ClassAreas(
                strong_px=strong_px,
                strong_sigma_px=strong_sigma,
                weak_px=weak_px,
                weak_sigma_px=weak_sigma,
            ),
        )


def softened(mask: Mask, soft_px: float) -> Floats:
    """Return the share of each pixel that is covered by a mask with a soft outline."""
    if not np.any(mask):
        return np.zeros(mask.shape)
    return np.asarray(
        special.ndtr((depth(mask) - depth(~mask) - np.where(mask, 0.5, -0.5)) / soft_px)
    )
