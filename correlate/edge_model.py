"""The expected counts around an edge, pixel by pixel, and how they follow what was fitted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.outline_pixels import Pixels, plane_of
from correlate.surroundings import Surroundings

Float = NDArray[np.float64]
MIN_LEVEL = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeModel:
    """The model of a fit.

    Parameters
    ----------
    around, pixels
        The box, and what of it was fitted.
    moves
        Outward movement of the outline's points by the numbers that were fitted, shape (n, p).
    by_place, by_width
        Change of the counts in the band by the edge's place and width, shape (band,).
    share
        Of the outside in the band, shape (band,).
    levels
        Basis of the level inside, by px along the axis, shape (length, k).
    inside, outside
        Numbers of the level inside, and of the plane outside.
    """

    around: Surroundings
    pixels: Pixels
    moves: Float
    by_place: Float
    by_width: Float
    share: Float
    levels: Float
    inside: Float
    outside: Float

    def in_box(self) -> Float:
        """Return the share of the outside in each pixel of the box."""
        share = np.zeros(self.around.shape[0] * self.around.shape[1])
        share[self.around.far] = 1.0
        share[self.around.band] = self.share
        return share

    def model(self) -> Float:
        """Return the expected counts of the pixels of the box."""
        return np.maximum(self._mixed(self.levels @ self.inside, self.outside), MIN_LEVEL)

    def spread(self, numbers: Float) -> Float:
        """Return the change of each pixel's expected counts for a change of all numbers."""
        at, p, k = self.around, self.moves.shape[1], self.levels.shape[1]
        change = self._mixed(self.levels @ numbers[p + 1 : p + 1 + k], numbers[p + 1 + k :])
        change[at.band] += self.by_place * (self.moves @ numbers[:p])[at.point]
        change[at.band] += self.by_width * numbers[p]
        return np.where(self.pixels.used, change, 0.0)

    def _mixed(self, inside: Float, outside: Float) -> Float:
        at, share = self.around, self.in_box()
        plane = plane_of(at, np.arange(len(share))) @ outside
        return np.asarray((1 - share) * inside[at.along] + share * plane)
