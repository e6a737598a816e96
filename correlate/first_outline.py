"""Finds the largest dark object of a frame, and its rough outline."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.outline import SAMPLE_PX, Outline
from correlate.trackers.protocol import CannotTrack

BLUR_PX = 2.0
SMOOTH_PX = 4.0  # along the outline
RAYS = 720
MIN_AREA_PX = 200
MIN_FILLED = 0.9  # of the object that its rays must see


def first_outline(image: NDArray[np.float64]) -> Outline:
    """Return the outline of the largest dark object that lies in the field as a whole.

    Parameters
    ----------
    image
        Mean counts, shape (height, width).

    Raises
    ------
    CannotTrack
        There is none, or it is too small, or bent too much for its outline to be found.
    """
    smooth = ndimage.gaussian_filter(image, BLUR_PX)
    level = _between(smooth)
    labels, count = ndimage.label(ndimage.binary_fill_holes(smooth < level))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    sizes[np.unique(edge)] = 0
    best = int(np.argmax(sizes))
    if sizes[best] < MIN_AREA_PX:
        raise CannotTrack(
            f"no dark object of at least {MIN_AREA_PX} px lies in the field as a whole; choose a "
            "field with all of it and some of the bright background on every side"
        )
    mask = labels == best
    cy, cx = ndimage.center_of_mass(mask)
    angle = 2 * math.pi * np.arange(RAYS) / RAYS
    far = np.arange(0.0, math.hypot(*image.shape), 0.5)
    rows = cy + np.outer(np.sin(angle), far)
    columns = cx + np.outer(np.cos(angle), far)
    seen = ndimage.map_coordinates(mask.astype(np.float32), [rows, columns], order=1) > 0.5
    radius = far[seen.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)]
    points = np.column_stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)])
    outline = Outline.through(points)
    # The steps of the mask's pixels are finer than the sectors that will be fitted.
    even = ndimage.gaussian_filter1d(outline.points, SMOOTH_PX / SAMPLE_PX, axis=0, mode="wrap")
    outline = Outline.through(even)
    x, y = outline.points.T
    inside = 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    if not MIN_FILLED < sizes[best] / max(inside, 1.0) < 1 / MIN_FILLED:
        raise CannotTrack(
            "the dark object is bent or branched: all of its outline must be seen from its middle"
        )
    return outline


def _between(image: NDArray[np.float64]) -> float:
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
