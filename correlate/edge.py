"""Position of a diffuse step in a line of counts, by maximum likelihood.

Model: ``m(x) = T(x) [I1 + (I2 - I1) (1 + erf((x - x0) / (sqrt(2) w))) / 2]`` with Poisson
counts. The bound for known levels is ``sigma(x0) = sqrt(2 sqrt(pi) w / (N L)) / c`` for
N counts per pixel in L rows and a relative step c.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

STEPS = 12
CONVERGED_PX = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFit:
    """A step found in a line.

    Parameters
    ----------
    position_px, sigma_px
        Of the step; the sigma is the Fisher bound with unknown levels.
    left, right
        Levels, in counts per pixel of the line.
    chi2
        Reduced, with the variance of counts.
    converged
        False when the search ran away or did not settle.
    """

    position_px: float
    sigma_px: float
    left: float
    right: float
    chi2: float
    converged: bool


def step_shape(x: NDArray[np.floating], position_px: float, width_px: float) -> NDArray[np.float64]:
    """Return the step from 0 to 1, integrated over pixels."""
    width = math.hypot(width_px, math.sqrt(1 / 12))
    return np.asarray(0.5 * (1 + special.erf((x - position_px) / (math.sqrt(2) * width))))


def fit_edge(
    x: NDArray[np.floating],
    counts: NDArray[np.float64],
    start_px: float,
    width_px: float,
    *,
    texture: NDArray[np.float64] | None = None,
) -> EdgeFit:
    """Fit a step by Fisher scoring.

    Parameters
    ----------
    x, counts
        Positions and summed counts of a line, shape (n,).
    start_px
        Where to begin.
    width_px
        Width of the step (Gaussian sigma), taken as known.
    texture
        Relative brightness of the specimen at each position; 1 where None.
    """
    shade = np.ones_like(x) if texture is None else texture
    width = math.hypot(width_px, math.sqrt(1 / 12))
    position = start_px
    level = np.array(_levels(x, counts / shade, position))
    step_px, fisher = math.inf, np.eye(3)
    for _ in range(STEPS):
        shape = step_shape(x, position, width_px)
        model = np.maximum(shade * (level[0] + (level[1] - level[0]) * shape), 1e-3)
        bell = np.exp(-0.5 * ((x - position) / width) ** 2) / width / math.sqrt(2 * np.pi)
        gradient = shade * np.stack([-(level[1] - level[0]) * bell, 1 - shape, shape])
        fisher = (gradient / model) @ gradient.T
        score = gradient @ ((counts - model) / model)
        try:
            change = np.linalg.solve(fisher, score)
        except np.linalg.LinAlgError:
            break
        step_px = float(np.clip(change[0], -2 * width, 2 * width))
        position += step_px
        level += change[1:]
        if not x[0] < position < x[-1]:
            break
        if abs(step_px) < CONVERGED_PX:
            break
    inside = bool(x[0] < position < x[-1]) and abs(step_px) < 0.05
    variance = np.linalg.pinv(fisher)[0, 0]
    shape = step_shape(x, position, width_px)
    model = np.maximum(shade * (level[0] + (level[1] - level[0]) * shape), 1e-3)
    chi2 = float(np.sum((counts - model) ** 2 / model)) / max(len(x) - 3, 1)
    return EdgeFit(
        position_px=position,
        sigma_px=math.sqrt(max(float(variance), 0.0)),
        left=float(level[0]),
        right=float(level[1]),
        chi2=chi2,
        converged=inside,
    )


def _levels(
    x: NDArray[np.floating], line: NDArray[np.float64], position: float
) -> tuple[float, float]:
    left, right = x < position, x >= position
    middle = float(np.mean(line))
    return (
        float(np.mean(line[left])) if np.any(left) else middle,
        float(np.mean(line[right])) if np.any(right) else middle,
    )
