"""How much a series that remembers itself has to say."""

import numpy as np
from numpy.typing import NDArray

from correlate.cross_correlation import cross_correlation

Floats = NDArray[np.float64]

LONGEST_SHARE = 5  # autocorrelations are summed up to a fifth of the record


def autocorrelation(series: Floats, max_lag: int) -> Floats:
    """Return the autocorrelation at lags 0 to ``max_lag``; 0 where too few pairs meet."""
    r = cross_correlation(series, series, max_lag)[max_lag:]
    return np.nan_to_num(r, nan=0.0)


def effective_number(first: Floats, second: Floats) -> float:
    """Return the effective number of independent pairs at lag 0.

    Bartlett's formula, ``1/n_eff = 1/n + (2/n) sum (1 - k/n) r_first(k) r_second(k)``.

    Parameters
    ----------
    first, second
        Shape (n,), NaN in gaps, which do not count.
    """
    pairs = int((np.isfinite(first) & np.isfinite(second)).sum())
    n = len(first)
    reach = max(n // LONGEST_SHARE, 2)
    lags = np.arange(1, reach + 1)
    a, b = autocorrelation(first, reach)[1:], autocorrelation(second, reach)[1:]
    inverse = (1 + 2 * float(np.sum((1 - lags / n) * a * b))) / max(pairs, 1)
    return float(np.clip(1 / inverse if inverse > 0 else pairs, min(3, pairs), pairs))
