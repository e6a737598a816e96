"""Correlation over lags, for many series at once and with gaps left as gaps."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]

FEWEST_SHARE = 1 / 3  # of all values, that must still meet at a lag


def standardised(series: Floats) -> Floats:
    """Return series with mean 0 and spread 1 over their finite values, 0 in their gaps.

    Parameters
    ----------
    series
        Shape (..., n), NaN in gaps. One that does not vary becomes 0.
    """
    used = np.isfinite(series)
    count = np.maximum(used.sum(axis=-1, keepdims=True), 1)
    centred = np.where(used, series, 0.0)
    centred -= np.where(used, centred.sum(axis=-1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=-1, keepdims=True) / count)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def cross_correlation(first: Floats, second: Floats, max_lag: int) -> Floats:
    """Return r for lags from -max_lag to max_lag: positive where ``first`` is later.

    Parameters
    ----------
    first
        Shape (..., n): one series or many with the same gaps (NaN).
    second
        Shape (n,), NaN in gaps.

    Returns
    -------
    numpy.ndarray
        Shape (..., 2 max_lag + 1): products summed, over the number of pairs that meet at
        the lag; NaN where these are fewer than a third of the values.
    """
    n = second.shape[-1]
    size = fft.next_fast_len(n + max_lag, real=True)
    lags = np.arange(-max_lag, max_lag + 1)
    other = np.conj(fft.rfft(standardised(second), size))
    product = fft.irfft(fft.rfft(standardised(first), size) * other, size)[..., lags % size]
    pairs = pairs_that_meet(np.isfinite(first.reshape(-1, n)[0]), np.isfinite(second), max_lag)
    most = min(int(np.isfinite(second).sum()), int(np.isfinite(first.reshape(-1, n)[0]).sum()))
    enough = pairs >= max(FEWEST_SHARE * most, 2)
    return np.asarray(np.where(enough, product / np.maximum(pairs, 1), np.nan))


def pairs_that_meet(
    first: NDArray[np.bool_], second: NDArray[np.bool_], max_lag: int
) -> NDArray[np.int64]:
    """Return how many pairs of used values meet at each lag, shape (2 max_lag + 1,)."""
    n = len(first)
    lags = np.arange(-max_lag, max_lag + 1)
    if first.all() and second.all():
        return np.asarray(n - np.abs(lags), dtype=np.int64)
    size = fft.next_fast_len(n + max_lag, real=True)
    spectrum = fft.rfft(first.astype(float), size) * np.conj(fft.rfft(second.astype(float), size))
    return np.asarray(np.rint(fft.irfft(spectrum, size)[lags % size]), dtype=np.int64)


def aligned(first: Floats, second: Floats, lag: int) -> tuple[Floats, Floats]:
    """Return the pairs that meet at a lag, gaps included: ``first[t + lag], second[t]``."""
    n = len(second)
    if lag >= 0:
        return first[lag:], second[: n - lag]
    return first[: n + lag], second[-lag:]
