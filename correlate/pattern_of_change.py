"""Front or bulk: how a converted fraction is spread over blocks."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
LEAST_ROOM = 0.1  # of the field, that must be on the other side
NOTHING = math.nan, math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """How converted blocks lie, over ``f (1 - f)`` of two phases; NaN near both ends.

    Parameters
    ----------
    segregation
        Variance between blocks, and its sigma: 1 for two phases in patches as large as blocks
        or larger, 0 for a conversion that is everywhere the same.
    clustering
        Covariance of neighbouring blocks: near 1 for a front, near 0 for a mosaic.
    """

    segregation: tuple[float, float] = NOTHING
    clustering: tuple[float, float] = NOTHING


def pattern_of(share: Float, sigma: Float) -> Pattern:
    """Return how converted blocks lie.

    Parameters
    ----------
    share, sigma
        Of blocks, shape (rows, columns); NaN for those that do not tell.
    """
    used = np.isfinite(share)
    n = int(used.sum())
    if n < 4:
        return Pattern()
    mean = float(share[used].mean())
    own = math.sqrt(float(np.sum(sigma[used] ** 2))) / n
    if min(mean, 1 - mean) < LEAST_ROOM + 3 * own:
        return Pattern()
    away, noise = np.where(used, share - mean, 0.0), np.where(used, sigma, 0.0) ** 2
    return Pattern(
        segregation=_segregation(away[used], noise[used], mean, own),
        clustering=_clustering(away, noise, used, mean, own),
    )


def _segregation(away: Float, noise: Float, mean: float, own: float) -> tuple[float, float]:
    n, room = len(away), mean * (1 - mean)
    between = (float(away @ away) - float(noise.sum()) * (n - 1) / n) / n
    # The blocks' own noise only: where the front is, is no chance.
    signal = max(float(np.sum(4 * (away**2 - noise) * noise)), 0.0)
    variance = (signal + 2 * float(np.sum(noise**2))) / n**2
    of_mean = between / room * abs(1 - 2 * mean) / room * own
    return between / room, math.hypot(math.sqrt(variance) / room, of_mean)


def _clustering(
    away: Float, noise: Float, used: NDArray[np.bool_], mean: float, own: float
) -> tuple[float, float]:
    pairs = int(np.sum(used[:, 1:] & used[:, :-1]) + np.sum(used[1:] & used[:-1]))
    if pairs < 4:
        return NOTHING
    room = mean * (1 - mean)
    beside = _beside(away)
    found = float(np.sum(away * beside)) / 2 / pairs
    # Of products of neighbours, whose noise is independent.
    signal = max(float(np.sum(noise * (beside**2 - _beside(noise)))), 0.0)
    variance = (signal + float(np.sum(noise * _beside(noise))) / 2) / pairs**2
    of_mean = found / room * abs(1 - 2 * mean) / room * own
    return found / room, math.hypot(math.sqrt(variance) / room, of_mean)


def _beside(values: Float) -> Float:
    """Return the sum of the four neighbours."""
    around = np.pad(values, 1)
    return np.asarray(around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:])
