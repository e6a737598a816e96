"""Drift of a stack from many pairs of frames, with the pairs that lie repaired.

Shifts of pairs must add up: ``d_jk = d_k - d_j``. A least-squares solution over more pairs
than frames shows which do not (Savitzky et al., Ultramicroscopy 191, 56 (2018)); they
are taken out one after the other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OUTLIER_SIGMAS = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSolution:
    """Positions of frames that agree with the shifts of their pairs.

    Parameters
    ----------
    shift_px
        Of each frame, shape (n, 2); the first is 0. NaN where no good pair ties it to the
        first frame.
    sigma_px
        Standard uncertainties against the first frame, shape (n, 2).
    outliers
        Pairs that did not agree, shape (n_pairs,).
    """

    shift_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    outliers: NDArray[np.bool_]


def solve_pairs(
    count: int,
    pairs: NDArray[np.intp],
    shift_px: NDArray[np.float64],
    sigma_px: NDArray[np.float64],
) -> PairSolution:
    """Solve for the shifts of frames from those of pairs.

    Parameters
    ----------
    count
        Number of frames.
    pairs
        Frames j and k of each pair, shape (n_pairs, 2).
    shift_px
        Shift of k less that of j, along two axes, shape (n_pairs, 2); NaN where a pair
        could not be registered.
    sigma_px
        Standard uncertainties, shape (n_pairs, 2), taken as independent. Pairs that share
        a frame share its noise: from all pairs, the sigmas that come of them are too small.

    Raises
    ------
    ValueError
        The arrays do not fit each other.
    """
    if pairs.shape != shift_px.shape or shift_px.shape != sigma_px.shape:
        raise ValueError(
            f"pairs {pairs.shape}, shifts {shift_px.shape} and sigmas {sigma_px.shape} "
            "must all be (n_pairs, 2)"
        )
    design = np.zeros((len(pairs), count))
    rows = np.arange(len(pairs))
    design[rows, pairs[:, 0]], design[rows, pairs[:, 1]] = -1.0, 1.0
    good = np.all(np.isfinite(shift_px) & (sigma_px > 0), axis=1)
    while True:
        tied = _tied(count, pairs[good])
        used = good & tied[pairs[:, 0]] & tied[pairs[:, 1]]
        free = np.flatnonzero(tied)[1:]  # the first frame stays at 0
        found, sigma = np.full((count, 2), np.nan), np.full((count, 2), np.nan)
        found[0], sigma[0] = 0.0, 0.0
        excess = np.zeros(len(pairs))
        for axis in range(2):
            weight = 1 / sigma_px[used, axis]
            a = design[np.ix_(used, free)]
            normal = (a * weight[:, None] ** 2).T @ a
            covariance = np.linalg.inv(normal)
            solved = covariance @ (a.T @ (weight**2 * shift_px[used, axis]))
            found[free, axis], sigma[free, axis] = solved, np.sqrt(np.diag(covariance))
            # A residual scatters less than its pair, which has pulled the solution along;
            # a pair that alone ties a frame has none.
            own = 1 / weight**2 - np.einsum("pi,ij,pj->p", a, covariance, a)
            residual = np.abs(shift_px[used, axis] - a @ solved)
            checked = own > 1e-9 / weight**2
            excess[used] = np.maximum(
                excess[used],
                np.where(checked, residual / np.sqrt(np.where(checked, own, 1.0)), 0.0),
            )
        worst = int(np.argmax(excess)) if len(excess) else 0
        if not len(excess) or excess[worst] <= OUTLIER_SIGMAS:
            finite = np.all(np.isfinite(shift_px), axis=1)
            return PairSolution(shift_px=found, sigma_px=sigma, outliers=finite & ~good)
        good[worst] = False


def _tied(count: int, pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return the frames that chains of pairs tie to the first."""
    tied = np.zeros(count, dtype=bool)
    tied[0] = True
    while True:
        touched = tied[pairs[:, 0]] | tied[pairs[:, 1]]
        before = int(tied.sum())
        tied[pairs[touched].ravel()] = True
        if int(tied.sum()) == before:
            return tied
