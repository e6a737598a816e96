"""Velocity of a tracked position, on the frames' own times."""

import math

import numpy as np
from numpy.typing import NDArray

from correlate.line import weighted_line


def windowed_velocity(
    t_ns: NDArray[np.int64],
    position: NDArray[np.float64],
    sigma: NDArray[np.float64],
    window_s: float,
    *,
    later_s: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the slope of a position in a window around each row, and its sigma.

    Parameters
    ----------
    t_ns
        Times, increasing, shape (n,).
    position, sigma
        Values and standard uncertainties; NaN where not valid.
    window_s
        Full width of the window.
    later_s
        By how much the middle of the window lies after the row.

    Returns
    -------
    velocity, velocity_sigma
        Shape (n,); NaN where fewer than three valid rows are within the window.
    """
    velocity = np.full(len(t_ns), np.nan)
    error = np.full(len(t_ns), np.nan)
    if len(t_ns) == 0:
        return velocity, error
    seconds = (t_ns - t_ns[0]).astype(np.float64) / 1e9
    good = np.isfinite(position) & np.isfinite(sigma) & (sigma > 0)
    first = np.searchsorted(seconds, seconds + later_s - window_s / 2)
    last = np.searchsorted(seconds, seconds + later_s + window_s / 2, side="right")
    for i, (a, b) in enumerate(zip(first, last, strict=True)):
        rows = np.flatnonzero(good[a:b]) + a
        if len(rows) >= 3:
            line = weighted_line(seconds[rows], position[rows], sigma[rows])
            velocity[i], error[i] = line.slope, line.slope_sigma
    return velocity, error


def mean_velocity(
    t_ns: NDArray[np.int64],
    position: NDArray[np.float64],
    sigma: NDArray[np.float64],
    *,
    from_ns: int,
    to_ns: int,
) -> tuple[float, float]:
    """Return the velocity over a stretch of time and its sigma; NaN without three rows."""
    rows = np.flatnonzero((t_ns >= from_ns) & (t_ns <= to_ns) & np.isfinite(position) & (sigma > 0))
    if len(rows) < 3:
        return math.nan, math.nan
    seconds = (t_ns[rows] - from_ns).astype(np.float64) / 1e9
    line = weighted_line(seconds, position[rows], sigma[rows])
    residual = (position[rows] - line.offset - line.slope * seconds) / sigma[rows]
    return line.slope, line.slope_sigma * memory_factor(residual)


def memory_factor(residual: NDArray[np.float64]) -> float:
    """Return by how much memory in the residuals widens a fit's sigmas, at least 1.

    Drift and texture push neighbouring frames the same way; the square is
    ``1 + 2 sum(r_k)`` over the lags up to the first that is not positive.
    """
    n = len(residual)
    centred = residual - residual.mean()
    power = float(centred @ centred)
    if n < 8 or power == 0:
        return 1.0
    total = 0.0
    for k in range(1, n // 3):
        r = float(centred[k:] @ centred[:-k]) / power
        if r <= 0:
            break
        total += r
    return math.sqrt(1 + 2 * total)
