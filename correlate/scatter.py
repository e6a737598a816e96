"""By how much a fit is worse than the noise of its readings says."""

import math

import numpy as np
from numpy.typing import NDArray

LARGEST_CORRELATION = 0.98


def excess(residual: NDArray[np.float64], spare: int) -> tuple[float, float]:
    """Return scatter over noise, and the factor by which uncertainties grow.

    Parameters
    ----------
    residual
        Over the noise of each reading, in order of time, shape (n,).
    spare
        Readings beyond the number of parameters.

    Notes
    -----
    What neighbours have in common is no noise, and does not average out: with a
    correlation r of neighbours a variance is larger by ``(1 + r) / (1 - r)``.
    """
    square = float(np.sum(residual**2))
    scatter = math.sqrt(square / spare)
    if square == 0.0:
        return scatter, 1.0
    r = float(np.sum(residual[1:] * residual[:-1])) / square
    r = min(max(r, 0.0), LARGEST_CORRELATION)
    return scatter, max(scatter, 1.0) * math.sqrt((1.0 + r) / (1.0 - r))
