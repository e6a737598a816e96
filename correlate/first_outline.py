"""Finds the largest object of an image that lies in the field as a whole, and its outline."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.outline import Outline
from correlate.trackers.protocol import CannotTrack

BLURS_PX = (1.5, 2.5, 4.0, 6.0)
MIN_SIGMAS = 6.0  # of the object's contrast, in what is left of the noise
RAYS = 720
RAY_STEP_PX = 0.5
MIN_AREA_PX = 200
MIN_FILLED = 0.9  # of the object that its rays must see
SPACING_PX = 8.0

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]


def first_outline(image: Float, *, dark: bool = True) -> Outline:
    """Return the outline of the largest object that lies in the field as a whole.

    Parameters
    ----------
    image
        Mean counts, shape (height, width).
    dark
        Whether the object is darker than what is around it.

    Raises
    ------
    CannotTrack
        There is none, or it is too small, or bent too much for its outline to be found.
    """
    values = image if dark else -image
    found: Mask | None = None
    for blur in BLURS_PX:
        smooth = ndimage.gaussian_filter(values, blur)
        mask = _largest(smooth < _between(smooth))
        if mask is not None and _stands_out(values, mask, blur):
            found = mask
            break
    if found is None:
        what = "dark" if dark else "bright"
        raise CannotTrack(
            f"no {what} object of at least {MIN_AREA_PX} px lies in the field as a whole; choose "
            "a field with all of it and some of the background on every side"
        )
    return _outline_of(found)


def _largest(mask: Mask) -> Mask | None:
    """Return the largest part of a mask that does not touch the rim; None for none."""
    labels, count = ndimage.label(ndimage.binary_fill_holes(mask))
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    sizes[np.unique(rim)] = 0
    best = int(np.argmax(sizes))
    return labels == best if sizes[best] >= MIN_AREA_PX else None


def _stands_out(values: Float, mask: Mask, blur_px: float) -> bool:
    """Tell whether a part is darker by more than smoothed noise could be."""
    inner, outer = (ndimage.binary_erosion(m, iterations=2) for m in (mask, ~mask))
    if not np.any(inner) or not np.any(outer):
        return False
    # Of neighbours' differences, as the scene's own slopes tell nothing of noise.
    noise = float(np.std(np.diff(values, axis=1)[:, ::2])) / math.sqrt(2)
    contrast = float(values[outer].mean() - values[inner].mean())
    return contrast > MIN_SIGMAS * noise / (2 * math.sqrt(math.pi) * blur_px)


def _outline_of(mask: Mask) -> Outline:
    """Return the outline of a mask, as rays from its middle see it."""
    cy, cx = ndimage.center_of_mass(mask)
    angle = 2 * math.pi * np.arange(RAYS) / RAYS
    far = np.arange(0.0, math.hypot(*mask.shape), RAY_STEP_PX)
    rows = cy + np.outer(np.sin(angle), far)
    columns = cx + np.outer(np.cos(angle), far)
    seen = ndimage.map_coordinates(mask.astype(np.float32), [rows, columns], order=1) > 0.5
    radius = far[seen.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)]
    points = np.column_stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)])
    outline = Outline.through(points, SPACING_PX)
    x, y = outline.points.T
    inside = 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    if not MIN_FILLED < float(mask.sum()) / max(inside, 1.0) < 1 / MIN_FILLED:
        raise CannotTrack(
            "the object is bent or branched: all of its outline must be seen from its middle"
        )
    return outline


def _between(image: Float) -> float:
    """Return the level half-way between dark and bright."""
    level = 0.5 * float(image.min() + image.max())
    for _ in range(50):
        dark = image < level
        if not np.any(dark) or np.all(dark):
            break
        following = 0.5 * float(image[dark].mean() + image[~dark].mean())
        if abs(following - level) < 1e-6 * abs(level):
            break
        level = following
    return level
