"""The climb of `correlate.edge`, compiled; the extra ``fast`` brings Numba.

The same steps in the same order as `correlate.edge.climb`, which explains them: a test
holds both equal.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
SQRT_HALF, SQRT_TAU = math.sqrt(0.5), math.sqrt(2 * math.pi)
LEAST_MODEL = 1e-3


@njit(cache=True)
def climb(
    x: Float,
    counts: Float,
    shade: Float,
    start: Float,
    width_px: float,
    limits: Float,
) -> Float:
    """Climb to the top of the likelihood of each line; see `correlate.edge.climb`."""
    n = 4 if limits[0] > 0 else 3
    top = np.zeros((8, len(counts)))
    fisher, inverse, score, change = np.empty((n, n)), np.empty((n, n)), np.empty(n), np.empty(n)
    for k in range(len(counts)):
        low, high = _levels(x, counts[k], shade, start[k])
        at = np.array([start[k], width_px, low, high])
        sigma, settled = np.inf, False
        for _ in range(int(limits[1])):
            _information(x, counts[k], shade, at, limits[2], fisher, score)
            _invert(fisher, inverse)
            _solve(inverse, score, change)
            step = abs(_step(x, at, change, limits))
            sigma = math.sqrt(max(inverse[0, 0], 0.0))
            share = step / max(sigma, 1e-9)
            settled = share < limits[3]
            if share < limits[4]:
                break
        top[:4, k], top[4, k] = at, sigma
        top[5, k] = math.sqrt(max(inverse[n - 1, n - 1], 0.0)) if n == 4 else 0.0
        top[6, k] = _misfit(x, counts[k], shade, at, limits[2]) / max(len(x) - n, 1)
        top[7, k] = settled
    return top


@njit(cache=True)
def _levels(x: Float, line: Float, shade: Float, position: float) -> tuple[float, float]:
    """Return the means on both sides of a place."""
    count, left, right = 0, 0.0, 0.0
    for i in range(len(x)):
        if x[i] < position:
            count += 1
            left += line[i] / shade[i]
        else:
            right += line[i] / shade[i]
    count = min(max(count, 1), len(x) - 1)
    return left / count, right / (len(x) - count)


@njit(cache=True)
def _information(
    x: Float,
    line: Float,
    shade: Float,
    at: Float,
    pixel: float,
    fisher: Float,
    score: Float,
) -> None:
    """Sum the lower half of the information, and the score."""
    position, width, low, high = at
    wide, n = math.sqrt(width * width + pixel), len(score)
    gradient = np.empty(4)
    fisher[:], score[:] = 0.0, 0.0
    for i in range(len(x)):
        z = (x[i] - position) / wide
        right = shade[i] * 0.5 * math.erfc(-z * SQRT_HALF)
        bell = math.exp(-0.5 * z * z) * ((high - low) / wide / SQRT_TAU) * shade[i]
        model = max(low * shade[i] + (high - low) * right, LEAST_MODEL)
        gradient[0], gradient[1], gradient[2] = -bell, shade[i] - right, right
        gradient[3] = bell * z * (-width / wide)
        for a in range(n):
            weighted = gradient[a] / model
            score[a] += weighted * (line[i] - model)
            for b in range(a + 1):
                fisher[a, b] += weighted * gradient[b]


@njit(cache=True)
def _solve(inverse: Float, score: Float, change: Float) -> None:
    for a in range(len(score)):
        change[a] = 0.0
        for b in range(len(score)):
            change[a] += inverse[a, b] * score[b]


@njit(cache=True)
def _step(x: Float, at: Float, change: Float, limits: Float) -> float:
    """Move place, levels and width, as far as they may go; return the step of the place."""
    wide = math.sqrt(at[1] * at[1] + limits[2])
    step = min(max(change[0], -2 * wide), 2 * wide)
    at[0] = min(max(at[0] + step, x[0]), x[-1])
    at[2] += change[1]
    at[3] += change[2]
    if len(change) == 4:
        change_w = min(max(change[3], -0.3 * at[1]), 0.3 * at[1])
        at[1] = min(max(at[1] + change_w, limits[5]), (x[-1] - x[0]) / 4)
    return float(step)


@njit(cache=True)
def _misfit(x: Float, line: Float, shade: Float, at: Float, pixel: float) -> float:
    """Return chi2 with the variance of counts."""
    wide, total = math.sqrt(at[1] * at[1] + pixel), 0.0
    for i in range(len(x)):
        right = shade[i] * 0.5 * math.erfc(-(x[i] - at[0]) / wide * SQRT_HALF)
        model = max(at[2] * shade[i] + (at[3] - at[2]) * right, LEAST_MODEL)
        total += (line[i] - model) ** 2 / model
    return total


@njit(cache=True)
def _invert(fisher: Float, inverse: Float) -> None:
    """Invert a matrix of which the lower half is given; nothing but 0 where it is singular."""
    n = len(fisher)
    scale = np.empty(n)
    for a in range(n):
        scale[a] = math.sqrt(max(fisher[a, a], 1e-300))
    lower = np.zeros((n, n))
    if not _factor(fisher, scale, lower) > 1e-12:
        inverse[:] = 0.0
        return
    for column in range(n):
        for a in range(n):
            rest = 1.0 if a == column else 0.0
            for c in range(a):
                rest -= lower[a, c] * inverse[c, column]
            inverse[a, column] = rest / lower[a, a]
        for a in range(n - 1, -1, -1):
            rest = inverse[a, column]
            for c in range(a + 1, n):
                rest -= lower[c, a] * inverse[c, column]
            inverse[a, column] = rest / lower[a, a]
    for a in range(n):
        for b in range(n):
            inverse[a, b] /= scale[a] * scale[b]


@njit(cache=True)
def _factor(fisher: Float, scale: Float, lower: Float) -> float:
    """Make Cholesky's factor of the correlations, and return their determinant."""
    determinant = 1.0
    for a in range(len(fisher)):
        for b in range(a + 1):
            rest = fisher[a, b] / (scale[a] * scale[b])
            for c in range(b):
                rest -= lower[a, c] * lower[b, c]
            if a == b:
                determinant *= rest
                lower[a, a] = math.sqrt(max(rest, 1e-30))
            else:
                lower[a, b] = rest / lower[b, b]
    return determinant
