"""Position of diffuse steps in lines of counts, by maximum likelihood.

Model: ``m(x) = T(x) [I1 + (I2 - I1) (1 + erf((x - x0) / (sqrt(2) w))) / 2]`` with Poisson
counts. The bound for known levels is ``sigma(x0) = sqrt(2 sqrt(pi) w / (N L)) / c`` for
N counts per pixel in L rows and a relative step c. Many lines are fitted at once.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from correlate.edge_search import PIXEL_VARIANCE, search_steps

fast_climb: Any
try:
    from correlate.edge_fast import climb as fast_climb
except ImportError:  # the extra "fast" is not there
    fast_climb = None

STEPS = 12
WIDTH_STEPS = 30
CONVERGED_SIGMAS = 0.02  # a step this small changes nothing that could be seen
SETTLED_SIGMAS = 0.1  # a last step beyond is none that settles
BROAD = 0.5  # of the width: a sigma beyond is no longer that of a parabola
MIN_WIDTH_PX = 0.2
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFit:
    """A step found in a line.

    Parameters
    ----------
    position_px, sigma_px
        Of the step; the sigma allows for unknown levels, and for the width where it was
        fitted.
    left, right
        Levels, in counts per pixel of the line.
    chi2
        Reduced, with the variance of counts.
    converged
        False when the search ran away or did not settle.
    width_px, width_sigma_px
        Of the step, without the pixel's own; the sigma is 0 where the width was given.
    significance
        Of the step, in standard deviations of no step.
    """

    position_px: float
    sigma_px: float
    left: float
    right: float
    chi2: float
    converged: bool
    width_px: float
    width_sigma_px: float
    significance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFits:
    """Steps found in many lines: the fields of `EdgeFit` as arrays, shape (n_lines,)."""

    position_px: FloatArray
    sigma_px: FloatArray
    left: FloatArray
    right: FloatArray
    chi2: FloatArray
    converged: NDArray[np.bool_]
    width_px: FloatArray
    width_sigma_px: FloatArray
    significance: FloatArray

    def line(self, index: int) -> EdgeFit:
        """Return the step of one line."""
        return EdgeFit(
            position_px=float(self.position_px[index]),
            sigma_px=float(self.sigma_px[index]),
            left=float(self.left[index]),
            right=float(self.right[index]),
            chi2=float(self.chi2[index]),
            converged=bool(self.converged[index]),
            width_px=float(self.width_px[index]),
            width_sigma_px=float(self.width_sigma_px[index]),
            significance=float(self.significance[index]),
        )


def step_shape(x: NDArray[np.floating], position_px: float, width_px: float) -> FloatArray:
    """Return the step from 0 to 1, integrated over pixels."""
    width = math.sqrt(width_px**2 + PIXEL_VARIANCE)
    return np.asarray(0.5 * (1 + special.erf((x - position_px) / (math.sqrt(2) * width))))


def fit_edge(
    x: NDArray[np.floating],
    counts: FloatArray,
    start_px: float | None,
    width_px: float,
    *,
    texture: FloatArray | None = None,
    free_width: bool = False,
) -> EdgeFit:
    """Fit a step in one line; see `fit_edges`."""
    fits = fit_edges(x, counts[None, :], start_px, width_px, texture=texture, free_width=free_width)
    return fits.line(0)


def fit_edges(
    x: NDArray[np.floating],
    counts: FloatArray,
    start_px: float | FloatArray | None,
    width_px: float,
    *,
    texture: FloatArray | None = None,
    free_width: bool = False,
    sign: int = 0,
    reach_px: float | None = None,
) -> EdgeFits:
    """Fit one step in each line by Fisher scoring.

    Parameters
    ----------
    x
        Positions, increasing, shape (n,).
    counts
        Summed counts, shape (n_lines, n).
    start_px
        Where to begin, for all or for each line. None looks at every place for the one
        where a step is most likely.
    width_px
        Width of the step (Gaussian sigma): known, or where to begin.
    texture
        Relative brightness of the specimen at each position; 1 where None.
    free_width
        Fit the width of each line, too.
    sign
        +1 for a step that rises to the right, -1 for one that falls, 0 for either.
    reach_px
        With it, places up to this far from ``start_px`` are looked at.
    """
    searched = start_px is None or reach_px is not None
    given = np.empty(len(counts))
    given[:] = np.nan if start_px is None else start_px
    # Of one layout: what is compiled is compiled once.
    lines = (
        np.ascontiguousarray(x, dtype=np.float64),
        np.ascontiguousarray(counts, dtype=np.float64),
        np.ones(len(x)) if texture is None else np.ascontiguousarray(texture, dtype=np.float64),
    )
    within = (given, math.inf if reach_px is None or start_px is None else reach_px)
    place, significance, mean, sigma = search_steps(*lines, width_px, sign, within)
    fits = _score(*lines, place if searched else given, width_px, free_width, significance)
    # Where a line says so little that its likelihood is no parabola, the mean of the
    # likelihood errs less than its top, and its spread is the honest sigma.
    wide = BROAD * math.sqrt(width_px**2 + PIXEL_VARIANCE)
    broad = ~((fits.sigma_px < wide) & fits.converged)
    if not searched or not np.any(broad):
        return fits
    position, sigma_px = fits.position_px.copy(), fits.sigma_px.copy()
    position[broad], sigma_px[broad] = mean[broad], sigma[broad]
    return EdgeFits(
        position_px=position,
        sigma_px=sigma_px,
        left=fits.left,
        right=fits.right,
        chi2=fits.chi2,
        converged=fits.converged | broad,
        width_px=fits.width_px,
        width_sigma_px=fits.width_sigma_px,
        significance=significance,
    )


def _score(
    x: FloatArray,
    counts: FloatArray,
    shade: FloatArray,
    start: FloatArray,
    width_px: float,
    free_width: bool,  # noqa: FBT001 - private, and named where it is given
    significance: FloatArray,
) -> EdgeFits:
    """Climb to the top of the likelihood of each line, compiled where that is there."""
    steps = WIDTH_STEPS if free_width else STEPS
    limits = np.array(
        [free_width, steps, PIXEL_VARIANCE, SETTLED_SIGMAS, CONVERGED_SIGMAS, MIN_WIDTH_PX], float
    )
    chosen = climb if fast_climb is None else fast_climb
    top = chosen(x, counts, shade, start, width_px, limits)
    position, width, low, high, sigma, width_sigma, chi2, settled = top
    inside = (position > x[0]) & (position < x[-1]) & np.isfinite(sigma) & (sigma > 0)
    return EdgeFits(
        position_px=position,
        sigma_px=sigma,
        left=low,
        right=high,
        chi2=chi2,
        converged=inside & (settled > 0),
        width_px=width,
        width_sigma_px=width_sigma,
        significance=significance,
    )


def climb(
    x: FloatArray,
    counts: FloatArray,
    shade: FloatArray,
    start: FloatArray,
    width_px: float,
    limits: FloatArray,
) -> FloatArray:
    """Climb to the top of the likelihood of each line by Fisher scoring.

    Parameters
    ----------
    x, counts, shade
        Positions, lines, and the specimen's brightness, as for `fit_edges`.
    start, width_px
        Where to begin: places, shape (n_lines,), and width.
    limits
        1 where the width is fitted, steps at most, variance of a pixel's square, shares of
        the sigma that are settled and converged, the least width.

    Returns
    -------
    numpy.ndarray
        Position, width, both levels, sigmas of position and width, reduced chi2, and 1
        where the climb settled; shape (8, n_lines).
    """
    free_width, steps, _, settled_at, converged_at, least_px = limits.tolist()
    n = 4 if free_width else 3
    top = np.zeros((8, len(counts)))
    top[0], top[1], top[2:4], top[4] = start, width_px, _levels(x, counts / shade, start), np.inf
    todo = np.arange(len(counts))  # the lines that have not converged
    for _ in range(int(steps)):
        position, width, low, high = top[:4, todo]
        gradient, model = _gradient(x, shade, (position, width, low, high), n)
        weighted = gradient / model[:, None, :]
        fisher = weighted @ gradient.transpose(0, 2, 1)
        score = weighted @ (counts[todo] - model)[:, :, None]
        inverse = _inverse(fisher)
        change = (inverse @ score)[:, :, 0]
        wide = np.sqrt(width**2 + PIXEL_VARIANCE)
        step = _within(change[:, 0], -2 * wide, 2 * wide)
        top[0, todo] = _within(position + step, x[0], x[-1])
        top[2, todo], top[3, todo] = low + change[:, 1], high + change[:, 2]
        if free_width:
            change_w = _within(change[:, 3], -0.3 * width, 0.3 * width)
            top[1, todo] = _within(width + change_w, least_px, (x[-1] - x[0]) / 4)
            top[5, todo] = np.sqrt(np.maximum(inverse[:, 3, 3], 0.0))
        sigma = np.sqrt(np.maximum(inverse[:, 0, 0], 0.0))
        share = np.abs(step) / np.maximum(sigma, 1e-9)
        top[4, todo], top[7, todo] = sigma, share < settled_at
        todo = todo[~(share < converged_at)]
        if not len(todo):
            break
    _, model = _gradient(x, shade, (top[0], top[1], top[2], top[3]), n)
    top[6] = np.sum((counts - model) ** 2 / model, axis=1) / max(len(x) - n, 1)
    return top


def _gradient(
    x: NDArray[np.floating],
    shade: FloatArray,
    parameters: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    n: int,
) -> tuple[FloatArray, FloatArray]:
    """Return the model's derivatives, shape (n_lines, n, n_x), and the model."""
    position, width, low, high = parameters
    wide = np.sqrt(width**2 + PIXEL_VARIANCE)[:, None]
    z = (x[None, :] - position[:, None]) / wide
    shape = special.ndtr(z)
    height = (high - low)[:, None]
    bell = np.exp(-0.5 * z**2) * (height / wide / math.sqrt(2 * math.pi)) * shade
    right = shade * shape
    gradient = np.empty((len(position), n, len(x)))
    gradient[:, 0] = -bell
    gradient[:, 1] = shade - right
    gradient[:, 2] = right
    if n == 4:
        # The width enters through sqrt(w^2 + 1/12).
        gradient[:, 3] = bell * z * (-width[:, None] / wide)
    model = np.maximum(low[:, None] * shade + height * right, 1e-3)
    return gradient, model


def _inverse(fisher: FloatArray) -> FloatArray:
    """Invert each matrix; one that is singular leaves infinite variances and no step."""
    scale = np.sqrt(np.maximum(fisher.diagonal(axis1=1, axis2=2), 1e-300))
    outer = scale[:, :, None] * scale[:, None, :]
    correlation = fisher / outer
    bad = ~(np.linalg.det(correlation) > 1e-12)
    if not bad.any():
        return np.asarray(np.linalg.inv(correlation) / outer)
    correlation[bad] = np.eye(fisher.shape[1])
    inverse = np.linalg.inv(correlation) / outer
    inverse[bad] = 0.0
    return np.asarray(inverse)


def _within(value: FloatArray, low: FloatArray | float, high: FloatArray | float) -> FloatArray:
    """Clip a few numbers, in a fifth of the time of `numpy.clip`."""
    return np.asarray(np.minimum(np.maximum(value, low), high))


def _levels(x: FloatArray, lines: FloatArray, position: FloatArray) -> FloatArray:
    """Return the means on both sides of a place in each line, shape (2, n_lines)."""
    left = x[None, :] < position[:, None]
    count = _within(left.sum(axis=1), 1, len(x) - 1)
    on_left = np.sum(left * lines, axis=1)
    return np.stack([on_left / count, (lines.sum(axis=1) - on_left) / (len(x) - count)])
