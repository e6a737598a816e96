"""The place in a line of counts where a step is most likely, among all within reach.

For levels that are unknown and a line whose variance is that of its mean level, the
logarithm of the likelihood is ``z^2 / 2`` with z the significance of a step there.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

fast_look: Any
try:
    from correlate.edge_search_fast import look as fast_look
except ImportError:  # the extra "fast" is not there
    fast_look = None

PIXEL_VARIANCE = 1 / 12  # of a pixel's own square
LEAST_POWER, LEAST_LEVEL = 1e-300, 1e-12
FloatArray = NDArray[np.float64]


def search_steps(
    x: FloatArray,
    counts: FloatArray,
    shade: FloatArray,
    width_px: float,
    sign: int,
    within: tuple[FloatArray, float],
) -> FloatArray:
    """Look for a step in each line, compiled where that is there.

    Parameters
    ----------
    x, counts, shade, width_px, sign
        As for `correlate.edge.fit_edges`, without gaps in memory.
    within
        About which place it is looked for in each line, and how far from there.

    Returns
    -------
    numpy.ndarray
        The most likely place, its significance, and mean and spread of the likelihood;
        shape (4, n_lines).
    """
    width = math.sqrt(width_px**2 + PIXEL_VARIANCE)
    pitch = min(width / 2, 1.0)
    edge = min(2 * width, float(x[-1] - x[0]) / 4)
    about, reach_px = within[0], within[1] + pitch / 2
    grid = np.arange(x[0] + edge, x[-1] - edge + pitch, pitch)
    if math.isfinite(reach_px):
        nearest = np.abs(grid[None, :] - about[:, None]).min(axis=0)
        grid = grid[nearest <= max(reach_px, float(nearest.min()))]
    chosen = look if fast_look is None else fast_look
    limits = (width, pitch, reach_px, float(sign))
    return np.asarray(chosen(x, counts, shade, grid, about, limits))


def look(
    x: FloatArray,
    counts: FloatArray,
    shade: FloatArray,
    grid: FloatArray,
    about: FloatArray,
    limits: tuple[float, float, float, float],
) -> FloatArray:
    """Weigh up all places of a grid for each line.

    Parameters
    ----------
    x, counts, shade, about
        As for `search_steps`.
    grid
        Places of steps.
    limits
        Width of the step with the pixel's own, pitch of the grid, reach about each line's
        place, and the step's sign; 0 for either.
    """
    width, pitch, reach_px, sign = limits
    shape = 0.5 * (1 + special.erf((x[None, :] - grid[:, None]) / (math.sqrt(2) * width)))
    shape -= (shape @ shade / shade.sum())[:, None]
    power = np.maximum(shape**2 @ shade, LEAST_POWER)
    level = np.maximum(counts.sum(axis=1) / shade.sum(), LEAST_LEVEL)
    z = (counts @ shape.T) / np.sqrt(level[:, None] * power[None, :])
    signed = np.abs(z) if sign == 0 else np.maximum(sign * z, 0.0)
    signed[np.abs(grid[None, :] - about[:, None]) > reach_px] = 0.0
    best = np.argmax(signed, axis=1)
    top = signed[np.arange(len(counts)), best]
    likelihood = np.exp(0.5 * (signed**2 - top[:, None] ** 2))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    mean = likelihood @ grid
    spread = np.sqrt(np.maximum(likelihood @ grid**2 - mean**2, 0.0) + pitch**2 / 12)
    return np.stack([grid[best], top, mean, spread])
