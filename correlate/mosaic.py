"""How many of a set of particles are pristine, converted, or on their way.

States with errors are a mixture: some at 0, some at 1, the rest evenly in between, each
blurred by its own sigma. Its shares are found by expectation and maximisation.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
ROUNDS = 60
UNSEEN = 0.5  # particles of each class beside those that are seen (Jeffreys' prior)
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

    Parameters
    ----------
    states, sigmas
        Of the particles, shape (n,).
    """
    odds, share = _odds(states, sigmas), np.full(3, 1 / 3)
    belongs = np.zeros_like(odds)
    for _ in range(ROUNDS):
        belongs = odds * share
        belongs /= np.maximum(belongs.sum(axis=1, keepdims=True), 1e-300)
        share = _shares(belongs)
    n = len(states)
    # A particle that could be of two classes is counted as a share of each.
    doubt = np.sqrt(np.sum(belongs * (1 - belongs), axis=0)) / n
    return Mosaic(
        active=float(belongs[:, 1].mean()),
        active_sigma=float(doubt[1]),
        converted=float(belongs[:, 2].mean()),
        converted_sigma=float(doubt[2]),
    )


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
