"""The lag of one series behind another, with an interval, or the answer that there is none."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from correlate.autoregression import fit_memory, whitened
from correlate.enough import NotEnoughData
from correlate.nuisance import Nuisance

Floats = NDArray[np.float64]

FINE = 20  # lags in one sample
LEVEL = 0.95
ROUNDS = 2  # of whitening with the residuals of the best lag
FEWEST = 20  # rows


def lag_interval(
    response: Floats,
    drive: Floats,
    *,
    max_lag: int,
    regressors: Floats | None = None,
) -> tuple[float, float, float]:
    """Return lag, low and high end (95 %) of ``response = a + b drive(t - lag)``, in samples.

    The residuals' memory is fitted and filtered out of everything, and the lags are those
    whose misfit is not worse than the best by more than Fisher's F allows. Between samples
    the drive is taken to be straight, which is exact for means over bins of a step.

    Parameters
    ----------
    response, drive
        Shape (n,), NaN in gaps, which are left out.
    max_lag
        Lags that are looked at, in samples.
    regressors
        Further columns of the relation, shape (n, k).

    Returns
    -------
    lag, low, high
        All NaN where the lags that fit reach the end of those looked at.

    Raises
    ------
    NotEnoughData
        Too few rows are left between the gaps.
    """
    n = len(response)
    inner = slice(max_lag + 1, n - max_lag - 1)
    # Row j is the drive max_lag + 1 - j samples later: the lags from -max_lag - 1 on.
    reach = 2 * max_lag + 3
    moved = np.stack([drive[reach - 1 - j : n - j] for j in range(reach)])
    columns = np.concatenate(
        [
            np.ones((n, 1)),
            np.empty((n, 0)) if regressors is None else np.asarray(regressors).reshape(n, -1),
        ],
        axis=1,
    )[inner].T
    inner_response = response[inner]
    terms = np.empty(0)
    lags, misfit, free = np.empty(0), np.empty(0), 1
    for _ in range(ROUNDS):
        y = whitened(inner_response, terms)
        x, z = whitened(moved, terms), whitened(columns, terms)
        used = np.isfinite(y) & np.isfinite(x).all(axis=0) & np.isfinite(z).all(axis=0)
        if int(used.sum()) < FEWEST:
            raise NotEnoughData(
                f"{int(used.sum())} rows between gaps fix the lag",
                f"at least {FEWEST} in which no lag meets a gap would do",
            )
        plain = Nuisance(z.T, used)
        lags, misfit = _misfits(plain.taken_out(y)[used], plain.taken_out(x)[:, used], max_lag)
        free = max(int(used.sum()) - plain.rank - 2, 1)
        terms = fit_memory(_residual(inner_response, moved, columns, float(lags[misfit.argmin()])))
    best = int(np.argmin(misfit))
    # Fisher's F with one degree of freedom above is the square of Student's t.
    allowed = misfit[best] * (1 + float(special.stdtrit(free, (1 + LEVEL) / 2)) ** 2 / free)
    inside = np.flatnonzero(misfit <= allowed)
    if inside[0] == 0 or inside[-1] == len(lags) - 1:
        return math.nan, math.nan, math.nan
    half = 0.5 / FINE
    return float(lags[best]), float(lags[inside[0]] - half), float(lags[inside[-1]] + half)


def _misfits(y: Floats, x: Floats, max_lag: int) -> tuple[Floats, Floats]:
    """Return lags and misfits; a drive between two rows is quadratic in its share."""
    product = x @ y
    square = np.einsum("ij,ij->i", x, x)
    cross = np.einsum("ij,ij->i", x[:-1], x[1:])
    share = (np.arange(FINE) / FINE)[:, None]
    top = (1 - share) * product[:-1] + share * product[1:]
    bottom = (1 - share) ** 2 * square[:-1] + 2 * share * (1 - share) * cross
    bottom = bottom + share**2 * square[1:]
    explained = np.divide(top**2, bottom, out=np.zeros_like(top), where=bottom > 0)
    lags = (np.arange(len(x) - 1)[None, :] + share) - (max_lag + 1)
    # Lags on the outermost row are those one sample further than was asked for.
    kept = np.abs(lags.T.ravel()) <= max_lag
    # Of a perfect fit rounding leaves less than nothing.
    return lags.T.ravel()[kept], np.maximum(float(y @ y) - explained.T.ravel(), 0.0)[kept]


def _residual(response: Floats, moved: Floats, columns: Floats, lag: float) -> Floats:
    """Return what the relation at a lag leaves, shape (rows,); NaN in gaps."""
    place = lag + (len(moved) - 1) // 2
    low = min(int(place), len(moved) - 2)
    share = place - low
    design = np.concatenate([[(1 - share) * moved[low] + share * moved[low + 1]], columns])
    used = np.isfinite(response) & np.isfinite(design).all(axis=0)
    found, *_ = np.linalg.lstsq(design[:, used].T, response[used], rcond=None)
    return np.asarray(np.where(used, response - found @ design, np.nan))
