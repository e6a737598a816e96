"""Velocity of a tracked position, on the frames' own times."""

import math

import numpy as np
from numpy.typing import NDArray

from correlate.line import weighted_line

CHUNK_ROWS = 4096  # whose running sums have one origin, so that nothing is lost to rounding


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
    known = np.where(good, position, 0.0), np.where(good, sigma, 1.0)
    for start in range(0, len(t_ns), CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, len(t_ns)))
        low, high = int(first[rows.start]), int(last[rows.stop - 1])
        part = slice(low, high)
        found = _slopes(
            seconds[part] - seconds[min(low, len(seconds) - 1)],
            known[0][part],
            np.where(good[part], 1 / known[1][part] ** 2, 0.0),
            (first[rows] - low, last[rows] - low),
        )
        velocity[rows], error[rows] = found
    return velocity, error


def _slopes(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weight: NDArray[np.float64],
    window: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slopes and sigmas of weighted lines in windows of rows, by running sums.

    As `correlate.line.weighted_line` has them, in a time that does not grow with the window.
    """
    total = weight.sum()
    y = y - float(weight @ y) / total if total > 0 else y
    terms = np.stack([weight > 0, weight, weight * x, weight * x * x])
    terms = np.concatenate([terms, np.stack([weight * y, weight * x * y, weight * y * y])])
    sums = np.concatenate([np.zeros((7, 1)), np.cumsum(terms, axis=1)], axis=1)
    n, w, wx, wxx, wy, wxy, wyy = sums[:, window[1]] - sums[:, window[0]]
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = wxx - wx**2 / w
        slope = (wxy - wx * wy / w) / spread
        chi2 = (wyy - wy**2 / w - slope**2 * spread) / (n - 2)
        sigma = np.sqrt(np.maximum(chi2, 1.0) / spread)
    enough = (n >= 3) & (spread > 0)
    return np.where(enough, slope, np.nan), np.where(enough, sigma, np.nan)


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
