"""How many of a set of particles are pristine, converted, or on their way.

States with errors are a mixture: some at 0, some at 1, the rest evenly in between, each
blurred by its own sigma. In one set of them, the shares are as little known as the counts
that tell them and are integrated out, over Jeffreys' prior; in many sets at once, the likeliest
are found by expectation and maximisation.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
ROUNDS = 60
UNSEEN = 0.5  # particles of each class beside those that are seen: Jeffreys' prior
FAR_SIGMAS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic:
    """Shares of the particles, each with the sigma of telling them apart."""

    active: float
    active_sigma: float
    converted: float
    converted_sigma: float


def mosaic(states: Floats, sigmas: Floats) -> Mosaic:
    """Return how many particles are on their way, and how many are there.

    Mean and standard deviation of the exact distribution of both counts: the polynomial whose
    factors are the odds of each particle, weighed by a Dirichlet-multinomial prior.

    Parameters
    ----------
    states, sigmas
        Of the particles, shape (n,).
    """
    n = len(states)
    chance = _count_chances(_odds(states, sigmas))
    number = np.arange(n + 1)

    def told(chances: Floats) -> tuple[float, float]:
        mean = float(chances @ number)
        return mean / n, math.sqrt(max(float(chances @ (number - mean) ** 2), 0.0)) / n

    active, active_sigma = told(chance.sum(axis=1))
    converted, converted_sigma = told(chance.sum(axis=0))
    return Mosaic(
        active=active,
        active_sigma=active_sigma,
        converted=converted,
        converted_sigma=converted_sigma,
    )


def _count_chances(odds: Floats) -> Floats:
    """Return how likely it is that so many are on their way and so many are there.

    Parameters
    ----------
    odds
        Likelihood of each particle in each class, shape (n, 3).

    Returns
    -------
    chances
        Of each pair of counts, shape (n + 1, n + 1).
    """
    n = len(odds)
    ways = np.zeros((n + 1, n + 1))
    ways[0, 0] = 1.0
    for k, (pristine, active, converted) in enumerate(odds / odds.max(axis=1, keepdims=True)):
        size = k + 2
        before = ways[:size, :size].copy()
        ways[:size, :size] *= pristine
        ways[1:size, :size] += active * before[:-1]
        ways[:size, 1:size] += converted * before[:, :-1]
        ways[:size, :size] /= ways[:size, :size].max()  # there are up to 3^n of them
    number = np.arange(n + 1)
    left = n - number[:, None] - number
    weight = special.gammaln(number + UNSEEN)
    with np.errstate(divide="ignore"):
        height = np.log(ways) + weight[:, None] + weight
    height += np.where(left >= 0, special.gammaln(np.maximum(left, 0) + UNSEEN), -np.inf)
    chance = np.exp(height - height.max())
    return np.asarray(chance / chance.sum())


def _shares(belongs: Floats) -> Floats:
    """Return the shares of the classes; none is ever lost."""
    return np.asarray((belongs.sum(axis=0) + UNSEEN) / (len(belongs) + 3 * UNSEEN))


def _odds(states: Floats, sigmas: Floats) -> Floats:
    """Return the likelihood of each particle in each class, shape (n, 3)."""
    sigma = np.maximum(sigmas, 1e-6)

    def bell(z: Floats) -> Floats:
        z = np.minimum(np.abs(z), 30.0)
        return np.asarray(np.exp(-0.5 * z**2) / (math.sqrt(2 * math.pi) * sigma))

    between = special.ndtr(states / sigma) - special.ndtr((states - 1) / sigma)
    return np.stack(
        [bell(states / sigma), np.maximum(between, 1e-300), bell((states - 1) / sigma)], 1
    )


def converted_change(changes: Floats, sigmas: Floats) -> tuple[float, float]:
    """Find by how much the brightness of a particle changes when it converts.

    Parameters
    ----------
    changes, sigmas
        Relative changes of brightness of particles in many frames, shape (n,).

    Returns
    -------
    change, sigma
        The most likely full change for which some are at none, some at all of it, and the
        rest evenly between; NaN where nothing tells.
    """
    sure = np.isfinite(changes) & (sigmas > 0)
    changes, sigmas = changes[sure], sigmas[sure]
    if len(changes) < 2:
        return math.nan, math.nan
    side = 1.0 if np.max(changes / sigmas) >= -np.min(changes / sigmas) else -1.0
    top = float(np.max(side * changes))
    if top < FAR_SIGMAS * float(np.median(sigmas)):
        return math.nan, math.nan
    grid = np.linspace(0.5 * top, 1.05 * top, 221)
    value = np.array(
        [_likelihood(side * changes / r, sigmas / r) - len(changes) * math.log(r) for r in grid]
    )
    best = float(grid[int(np.argmax(value))])
    chance = np.exp(value - value.max())
    chance /= chance.sum()
    mean = float(chance @ grid)
    pitch = float(grid[1] - grid[0])
    sigma = math.sqrt(max(float(chance @ (grid - mean) ** 2), pitch**2 / 12))
    return side * (mean if sigma > pitch else best), sigma


def _likelihood(states: Floats, sigmas: Floats) -> float:
    """Return the logarithm of the likelihood at the best shares."""
    odds, share = _odds(states, sigmas), np.full(3, 1 / 3)
    for _ in range(ROUNDS // 3):
        belongs = odds * share
        total = np.maximum(belongs.sum(axis=1, keepdims=True), 1e-300)
        share = _shares(belongs / total)
    return float(np.sum(np.log(np.maximum(odds @ share, 1e-300))))
