"""The level inside an object, along its axis: smooth, and even in both ends.

A level that could change up to the very end would take the place of the edge there. Where it
changes along the object, as by a reaction front, it may do so in the ends, too: by as much, as
a Gaussian prior has it.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

END_PX = 10.0  # at both ends, of one level
MIN_LEVELS = 4
CLEAR_RATIO = 4.0  # of the variance of levels over that of their noise
Float = NDArray[np.float64]


def level_basis(length: int, knots: int) -> Float:
    """Return smooth functions along an axis, shape (length, knots); flat near both ends."""
    if knots < MIN_LEVELS or length < 4 * END_PX:
        return np.ones((length, 1))
    inner = np.linspace(END_PX, length - END_PX, knots - 2)
    t = np.concatenate([np.full(3, inner[0]), inner, np.full(3, inner[-1])])
    at = np.clip(np.arange(length) + 0.5, inner[0], inner[-1])
    return np.asarray(interpolate.BSpline.design_matrix(at, t, 3).toarray())


def end_basis(length: int) -> Float:
    """Return what changes in each end alone, 1 at the very end, shape (length, 2)."""
    from_end = np.maximum(1 - (np.arange(length) + 0.5) / END_PX, 0.0)
    return np.column_stack([from_end, from_end[::-1]])


def unevenness(basis: Float, numbers: Float, covariance: Float) -> float:
    """Return by how much a level changes along an axis, of itself; 0 where that may be noise.

    Parameters
    ----------
    basis, numbers, covariance
        Shapes (length, knots), (knots,) and (knots, knots).
    """
    level = basis @ numbers
    noise = float(np.mean(np.einsum("ij,jk,ik->i", basis, covariance, basis)))
    variance, mean = float(np.var(level)), float(np.mean(level))
    if mean <= 0 or variance < CLEAR_RATIO * noise:
        return 0.0
    # Of two levels, half each, the spread is half of their difference.
    return 2 * math.sqrt(variance - noise) / mean
