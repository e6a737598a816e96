"""The look of `correlate.edge_search`, compiled; the extra ``fast`` brings Numba.

The same steps as `correlate.edge_search.look`, which explains them: a test holds both equal.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
LEAST_POWER, LEAST_LEVEL = 1e-300, 1e-12


@njit(cache=True)
def look(
    x: Float,
    counts: Float,
    shade: Float,
    grid: Float,
    about: Float,
    limits: tuple[float, float, float, float],
) -> Float:
    """Weigh up all places of a grid for each line; see `correlate.edge_search.look`."""
    width, pitch, reach_px, sign = limits
    shapes, power = _shapes(x, shade, grid, width)
    bright = shade.sum()
    found = np.zeros((4, len(counts)))
    signed = np.empty(len(grid))
    for k in range(len(counts)):
        level = max(counts[k].sum() / bright, LEAST_LEVEL)
        best = 0
        for g in range(len(grid)):
            signed[g] = 0.0
            if not abs(grid[g] - about[k]) > reach_px:
                total = 0.0
                for i in range(len(x)):
                    total += counts[k, i] * shapes[g, i]
                z = total / math.sqrt(level * power[g])
                signed[g] = abs(z) if sign == 0 else max(sign * z, 0.0)
            if signed[g] > signed[best]:
                best = g
        weight, mean, square = 0.0, 0.0, 0.0
        for g in range(len(grid)):
            likely = math.exp(0.5 * (signed[g] ** 2 - signed[best] ** 2))
            weight += likely
            mean += likely * grid[g]
            square += likely * grid[g] ** 2
        mean /= weight
        spread = math.sqrt(max(square / weight - mean**2, 0.0) + pitch**2 / 12)
        found[0, k], found[1, k], found[2, k], found[3, k] = grid[best], signed[best], mean, spread
    return found


@njit(cache=True)
def _shapes(x: Float, shade: Float, grid: Float, width: float) -> tuple[Float, Float]:
    """Return steps without their means, and what each would vary by in noise."""
    shapes, power = np.empty((len(grid), len(x))), np.empty(len(grid))
    scale, bright = 1 / (math.sqrt(2.0) * width), shade.sum()
    for g in range(len(grid)):
        mean = 0.0
        for i in range(len(x)):
            shapes[g, i] = 0.5 * math.erfc(-(x[i] - grid[g]) * scale)
            mean += shapes[g, i] * shade[i]
        mean /= bright
        total = 0.0
        for i in range(len(x)):
            shapes[g, i] -= mean
            total += shapes[g, i] ** 2 * shade[i]
        power[g] = max(total, LEAST_POWER)
    return shapes, power
