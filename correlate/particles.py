"""Particles in a mean image: found once, then read in every frame."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]
SMOOTH_PX = 1.5
RIM_PX = 2.5  # of each particle that is not read: it holds what is beside it, too
FEWEST_PX = 40  # of a particle that is read
MOST = 256
NECK_RATIO = 0.7  # two particles that touch have a neck thinner than that
SUPPORT_AWAY_PX = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Particles:
    """Where particles stand in the reference, by their place from left to right.

    Parameters
    ----------
    labels
        Number of the particle that a pixel is read for, from 1; 0 for none, and -1 for the
        support between them, shape (height, width).
    area_px
        Of each whole particle, shape (n,).
    x_px, y_px
        Of their middles.
    """

    labels: Labels
    area_px: Floats
    x_px: Floats
    y_px: Floats

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.area_px)

    def read(
        self, pixels: NDArray[np.generic], dx_px: float, dy_px: float
    ) -> tuple[Floats, Floats]:
        """Sum a frame over each particle.

        Parameters
        ----------
        pixels
            Shape (height, width).
        dx_px, dy_px
            What brings the frame onto the reference.

        Returns
        -------
        counts, pixels
            Of support and particles, shape (n + 1,): first the support. Particles of which
            a part has left the field have NaN.
        """
        down, right = -round(dy_px), -round(dx_px)
        height, width = self.labels.shape
        there = self.labels[
            max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
        ]
        seen = pixels[max(down, 0) : height - max(-down, 0), max(right, 0) : width - max(-right, 0)]
        flat = np.where(there < 0, self.count + 1, there).ravel()
        size = np.bincount(flat, minlength=self.count + 2)[1:].astype(np.float64)
        sums = np.bincount(flat, weights=seen.ravel(), minlength=self.count + 2)[1:]
        whole = np.bincount(self.labels[self.labels > 0], minlength=self.count + 1)[1:]
        sums[:-1][size[:-1] < whole] = np.nan
        return np.roll(sums, 1), np.roll(size, 1)


def otsu(values: Floats) -> float:
    """Return the threshold that splits values into two classes farthest apart (Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=256)
    middle = 0.5 * (edges[1:] + edges[:-1])
    low = np.cumsum(counts)
    high = low[-1] - low
    sums = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = low * high * (sums / low - (sums[-1] - sums) / high) ** 2
    apart = np.nan_to_num(apart)
    # Of several places that are as good, the middle one.
    best = np.flatnonzero(apart >= apart.max() * (1 - 1e-12))
    return float(edges[1:][best].mean())


def find_particles(image: Floats, *, smallest_px: float, dark: bool) -> Particles:
    """Find particles that stand out from their support.

    Parameters
    ----------
    image
        Mean of the first frames, shape (height, width).
    smallest_px
        Area of what is still a particle.
    dark
        The particles are darker than their support.
    """
    smooth = ndimage.gaussian_filter(-image if dark else image, SMOOTH_PX)
    mask = ndimage.binary_opening(smooth > otsu(smooth.ravel()), iterations=1)
    labels, count = _split(ndimage.binary_fill_holes(mask))
    inner = ndimage.distance_transform_edt(_apart(labels)) > RIM_PX
    read = np.where(inner, labels, 0)
    index = np.arange(1, count + 1)
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    clear = np.bincount(read.ravel(), minlength=count + 1)[1:]
    rim = np.ones(labels.shape, dtype=bool)
    rim[1:-1, 1:-1] = False
    inside = ~np.isin(index, labels[rim])
    good = index[inside & (area >= smallest_px) & (clear >= FEWEST_PX)]
    good = good[np.argsort(-area[good - 1], kind="stable")][:MOST]
    middles = np.array(ndimage.center_of_mass(labels > 0, labels, good)).reshape(-1, 2)
    order = np.argsort(middles[:, 1], kind="stable")
    good, middles = good[order], middles[order]
    numbers = np.zeros(count + 1, np.int32)
    numbers[good] = np.arange(1, len(good) + 1)
    support = ndimage.distance_transform_edt(labels == 0) > SUPPORT_AWAY_PX
    return Particles(
        labels=np.where(support, np.int32(-1), numbers[read]).astype(np.int32),
        area_px=area[good - 1].astype(np.float64),
        x_px=middles[:, 1],
        y_px=middles[:, 0],
    )


def _apart(labels: Labels) -> NDArray[np.bool_]:
    """Return where a pixel and its neighbours below and to the right are of one particle."""
    same = labels > 0
    same[:-1] &= labels[:-1] == labels[1:]
    same[:, :-1] &= labels[:, :-1] == labels[:, 1:]
    return same


def _split(mask: NDArray[np.bool_]) -> tuple[Labels, int]:
    """Label particles, and cut those that touch at their necks."""
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    whole = np.asarray(ndimage.label(mask)[0])
    tops: list[tuple[int, int]] = []
    peak = (ndimage.maximum_filter(depth, 7) == depth) & mask
    for y, x in sorted(np.argwhere(peak).tolist(), key=lambda p: -depth[p[0], p[1]]):
        if all(whole[y, x] != whole[v, u] or _neck(depth, (y, x), (v, u)) for v, u in tops):
            tops.append((y, x))
    labels = np.zeros(mask.shape, np.int32)
    part = np.array([whole[top] for top in tops], dtype=np.int64)
    for component in np.unique(part):
        own = np.flatnonzero(part == component)
        down, right = np.nonzero(whole == component)
        # Nearest circle: those of two that touch meet at their neck.
        power = np.array(
            [
                (down - tops[k][0]) ** 2 + (right - tops[k][1]) ** 2 - depth[tops[k]] ** 2
                for k in own
            ]
        )
        labels[down, right] = own[np.argmin(power, axis=0)] + 1
    return labels, len(tops)


def _neck(depth: Floats, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Tell whether the straight way between two tops passes a neck."""
    steps = max(math.ceil(math.dist(a, b)), 1)
    way = np.rint(np.linspace(a, b, steps + 1)).astype(int)
    thinnest = float(depth[way[:, 0], way[:, 1]].min())
    return thinnest < NECK_RATIO * min(float(depth[a]), float(depth[b]))
