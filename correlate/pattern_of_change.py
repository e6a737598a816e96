"""Front or bulk: how a converted fraction is spread over blocks."""

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
SHUFFLES = 199


def segregation(fraction: Float, sigma: Float) -> tuple[float, float]:
    """Return how far blocks are either pristine or converted, and its sigma.

    The variance between blocks without the noise's, over ``f (1 - f)`` of two phases: 1 for
    a sharp front, 0 for a conversion that is everywhere the same; NaN near both ends.

    Parameters
    ----------
    fraction, sigma
        Of blocks, shape (n,).
    """
    mean, n = float(fraction.mean()), len(fraction)
    room = mean * (1 - mean)
    own = float(sigma.mean()) / math.sqrt(n)
    if n < 4 or room <= 0 or min(mean, 1 - mean) < 0.1 + 3 * own:
        return math.nan, math.nan
    noise = float(np.mean(sigma**2))
    away = fraction - mean
    between = float(away @ away) / (n - 1) - noise
    # The blocks' own noise only: where the front is, is no chance.
    variance = float(np.sum(4 * away**2 * sigma**2 + 2 * sigma**4)) / (n - 1) ** 2
    of_mean = between / room * abs(1 - 2 * mean) / room * own
    return between / room, math.hypot(math.sqrt(variance) / room, of_mean)


def neighbours_alike(fraction: Float, used: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """Return Moran's I of neighbouring blocks, and its p among shuffled blocks.

    Parameters
    ----------
    fraction, used
        Of blocks, shape (rows, columns).
    seed
        Of the shuffles.
    """
    at = np.flatnonzero(used)
    values = fraction.ravel()[at] - fraction.ravel()[at].mean()
    number = np.full(used.size, -1)
    number[at] = np.arange(len(at))
    grid = number.reshape(used.shape)
    pairs = np.concatenate(
        [
            np.column_stack([grid[:, :-1].ravel(), grid[:, 1:].ravel()]),
            np.column_stack([grid[:-1].ravel(), grid[1:].ravel()]),
        ]
    )
    pairs = pairs[np.all(pairs >= 0, axis=1)]
    total = float(values @ values)
    if len(pairs) < 4 or total <= 0:
        return math.nan, math.nan
    scale = len(values) / len(pairs) / total
    seen = float(np.sum(values[pairs[:, 0]] * values[pairs[:, 1]])) * scale
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(values, (SHUFFLES, 1)), axis=1)
    made = np.sum(shuffled[:, pairs[:, 0]] * shuffled[:, pairs[:, 1]], axis=1) * scale
    return seen, (1 + int(np.sum(made >= seen))) / (1 + SHUFFLES)
