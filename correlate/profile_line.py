"""A diffuse step in one line of counts, with the covariance of all that describes it.

Model and likelihood are those of `correlate.edge`. Beside the counts, the specimen's own
texture moves the step; its share is told by stretches along the interface, each of which
has a texture of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from correlate.edge import fit_edges
from correlate.edge_search import PIXEL_VARIANCE

Floats = NDArray[np.float64]
FEWEST_PX = 16  # of a line that a step with four unknowns can be fitted to
MIN_BLOCKS = 5
LEAST_REACH_PX = 20.0
REACH_WIDTHS = 5.0  # of the line on each side, so that both levels are seen
PARAMETERS = 4  # position, width and both levels


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFit:
    """A step found in a line.

    Parameters
    ----------
    position_px, width_px
        Of the step; the width is a Gaussian sigma, without the pixel's own.
    left, right
        Levels, in counts of a column.
    covariance
        Of position, width, left and right from the counts, shape (4, 4).
    significance
        Of the step, in standard deviations of no step.
    converged
        False when the search ran away or did not settle.
    """

    position_px: float
    width_px: float
    left: float
    right: float
    covariance: Floats
    significance: float
    converged: bool

    @property
    def gradient(self) -> float:
        """Steepest slope, in counts of a column per px."""
        return (self.right - self.left) / (math.sqrt(2 * math.pi) * self.width_px)

    @property
    def gradient_slope(self) -> Floats:
        """Derivatives of the gradient by the four parameters, shape (4,)."""
        steep = 1 / (math.sqrt(2 * math.pi) * self.width_px)
        return np.array([0.0, -self.gradient / self.width_px, -steep, steep])


def reach_px(width_px: float) -> float:
    """Return how much of a line is looked at on each side of a step."""
    return max(REACH_WIDTHS * math.hypot(width_px, math.sqrt(PIXEL_VARIANCE)), LEAST_REACH_PX)


def fit_profile(x: Floats, counts: Floats, start_px: float | None, width_px: float) -> ProfileFit:
    """Fit position, width and both levels of a step.

    Parameters
    ----------
    x
        Positions, increasing, shape (n,).
    counts
        Summed counts, shape (n,).
    start_px
        Where to begin; None looks at every place.
    width_px
        Where to begin.
    """
    found = fit_edges(x, counts[None, :], start_px, width_px, free_width=True).line(0)
    slope, model = derivatives(x, found.position_px, found.width_px, found.left, found.right)
    return ProfileFit(
        position_px=found.position_px,
        width_px=found.width_px,
        left=found.left,
        right=found.right,
        covariance=_inverse((slope / model) @ slope.T),
        significance=found.significance,
        converged=found.converged and found.width_px < (x[-1] - x[0]) / 4,
    )


def derivatives(
    x: Floats, position_px: float, width_px: float, left: float, right: float
) -> tuple[Floats, Floats]:
    """Return the model's derivatives by its four parameters, shape (4, n), and the model."""
    wide = math.hypot(width_px, math.sqrt(PIXEL_VARIANCE))
    z = (x - position_px) / wide
    shape = special.ndtr(z)
    bell = np.exp(-0.5 * z**2) * (right - left) / (wide * math.sqrt(2 * math.pi))
    slope = np.stack([-bell, -bell * z * width_px / wide, 1 - shape, shape])
    return slope, np.maximum(left + (right - left) * shape, 1e-3)


def _inverse(fisher: Floats) -> Floats:
    """Invert an information matrix; infinite variances where it is singular."""
    scale = np.sqrt(np.maximum(np.diag(fisher), 1e-300))
    correlation = fisher / np.outer(scale, scale)
    if not np.all(np.isfinite(correlation)) or np.linalg.det(correlation) < 1e-12:
        return np.full((PARAMETERS, PARAMETERS), np.inf)
    return np.asarray(np.linalg.inv(correlation) / np.outer(scale, scale))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileNoise:
    """What moves a fitted step beside Poisson's counts.

    Parameters
    ----------
    excess
        Standard deviation of a count from frame to frame over that of Poisson: grey levels
        are no counts.
    texture
        Covariance of position and width in px, and of both levels as shares of their mean,
        that the specimen's texture adds; the same in all frames while the interface stands
        still. Shape (4, 4).
    width_px, step_ratio
        Of the interface for which the texture's covariance holds; the step is a share of
        the mean level.
    """

    excess: float = 1.0
    texture: Floats = field(default_factory=lambda: np.zeros((PARAMETERS, PARAMETERS)))
    width_px: float = 1.0
    step_ratio: float = 1.0

    def covariance(self, fit: ProfileFit) -> Floats:
        """Return the covariance of a fit, texture included.

        What a texture moves a step by goes as the root of its width over its height, as
        for counts.
        """
        wider = math.sqrt(max(fit.width_px, 0.0) / max(self.width_px, 1e-12))
        moved = min(wider * self.step_ratio / max(step_ratio(fit), 1e-12), 1e6)
        level = _level(fit)
        scale = np.array([moved, moved, level, level])
        return fit.covariance * self.excess**2 + self.texture * np.outer(scale, scale)


def step_ratio(fit: ProfileFit) -> float:
    """Return the step as a share of the mean level."""
    return abs(fit.right - fit.left) / _level(fit)


def _level(fit: ProfileFit) -> float:
    return max(abs(fit.left + fit.right) / 2, 1e-12)


def excess_of(lines: Sequence[Floats], models: Sequence[Floats]) -> float:
    """Return the spread of counts from frame to frame, over that of Poisson.

    Parameters
    ----------
    lines, models
        Counts and fitted models of the same columns of the specimen, a pair of each frame.
    """
    if len(lines) < 2:
        return 1.0
    residual = np.array([(y - m) / np.sqrt(m) for y, m in zip(lines, models, strict=True)])
    # What all frames share is the specimen's texture, not noise.
    free = (len(residual) - 1) * max(residual.shape[1] - PARAMETERS, 1)
    noise = float(np.sum((residual - residual.mean(axis=0)) ** 2)) / free
    return math.sqrt(noise) if noise > 0 else 1.0


def texture_of(x: Floats, blocks: Floats, fit: ProfileFit, excess: float) -> Floats:
    """Return the covariance that the specimen's texture adds to a fit of the whole line.

    Each stretch along the interface moves the step as its own texture says; the scatter of
    the stretches, less that of their counts, tells the error of their mean. A tilt of the
    interface is no texture: a straight line along the stretches is taken out.

    Parameters
    ----------
    x
        Columns, shape (n,).
    blocks
        Counts summed over the frames, shape (n_blocks, n).
    fit
        Of the sum of all blocks.
    """
    count = len(blocks)
    if count < MIN_BLOCKS or not np.all(np.isfinite(fit.covariance)):
        return np.zeros((PARAMETERS, PARAMETERS))
    slope, model = derivatives(x, fit.position_px, fit.width_px, fit.left, fit.right)
    gain = fit.covariance @ (slope / model)  # parameters of the line per count
    scores = count * (blocks - blocks.mean(axis=0)) @ gain.T  # of a line of this block alone
    along = np.arange(count) - (count - 1) / 2
    scores -= np.outer(along, along @ scores / float(along @ along))
    level = _level(fit)
    scale = np.array([1.0, 1.0, level, level])
    # Few stretches tell a variance badly: widened so that errors over sigmas have a mean
    # square of 1, as those of Student's t do not.
    seen = scores.T @ scores / (count - 4) / count
    noise = fit.covariance * excess**2 * (count - 2) / (count - 4)
    added = (seen - noise) / np.outer(scale, scale)
    # What is left of a difference must be a covariance.
    values, vectors = np.linalg.eigh(0.5 * (added + added.T))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)
