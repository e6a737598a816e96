"""Whitening: a series' own memory, fitted and filtered out."""

import numpy as np
from numpy.typing import NDArray

from correlate.memory import autocorrelation

Floats = NDArray[np.float64]

MOST_TERMS = 8


def fit_memory(series: Floats) -> Floats:
    """Return the autoregression of a series by Yule and Walker, shape (terms,).

    The number of terms is Akaike's (corrected for few values), at most 8.

    Parameters
    ----------
    series
        Shape (n,), NaN in gaps.
    """
    n = int(np.isfinite(series).sum())
    most = min(MOST_TERMS, max(n // 20, 1), len(series) - 2)
    return best_order(autocorrelation(series, most), n)


def best_order(r: Floats, n: int) -> Floats:
    """Return the autoregression of an autocorrelation (r[0] = 1), of Akaike's order."""
    best, chosen = n * np.log(1.0) + 2.0, np.empty(0)
    terms, left = np.empty(0), 1.0
    for order in range(1, len(r)):
        # Levinson's recursion: each order from the one before.
        reflection = (r[order] - terms @ r[order - 1 : 0 : -1]) / left
        if not abs(reflection) < 1:
            break
        terms = np.append(terms - reflection * terms[::-1], reflection)
        left *= 1 - reflection**2
        parameters = order + 1
        score = n * np.log(left) + 2 * parameters * n / max(n - parameters - 1, 1)
        if score < best:
            best, chosen = score, terms
    return chosen


def whitened(series: Floats, terms: Floats) -> Floats:
    """Return ``x[t] - sum terms[i] x[t - 1 - i]``, shape (..., n - len(terms)).

    NaN where one of the values is in a gap.
    """
    order, n = len(terms), series.shape[-1]
    known = np.isfinite(series)
    filled = np.where(known, series, 0.0)
    rest, whole = filled[..., order:].copy(), known[..., order:].copy()
    for i, term in enumerate(terms, start=1):
        rest -= term * filled[..., order - i : n - i]
        whole &= known[..., order - i : n - i]
    return np.where(whole, rest, np.nan)
