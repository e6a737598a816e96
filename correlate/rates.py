"""Rates in even bins, by the same operator for images and currents.

Positions and charges are sums, and sums of unrelated noise correlate. Their changes from
bin to bin do not. A front that moves in proportion to the charge keeps that proportion
exactly, because both are averaged over the same bins before they are subtracted.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def even_edges(start_ns: int, stop_ns: int, step_s: float) -> NDArray[np.int64]:
    """Return the edges of whole bins between two times, shape (bins + 1,)."""
    return np.arange(start_ns, stop_ns + 1, round(step_s * 1e9), dtype=np.int64)


def bin_means(t_ns: NDArray[np.int64], value: Floats, edges_ns: NDArray[np.int64]) -> Floats:
    """Return means between neighbouring edges.

    Parameters
    ----------
    t_ns, value
        Shape (n,), in any order; values that are not finite do not count.
    edges_ns
        Shape (bins + 1,), increasing.

    Returns
    -------
    numpy.ndarray
        Shape (bins,); NaN for a bin without a value. Nothing is interpolated.
    """
    index = np.searchsorted(edges_ns, t_ns, side="right") - 1
    size = max(len(edges_ns) - 1, 0)
    inside = (index >= 0) & (index < size) & np.isfinite(value)
    total = np.bincount(index[inside], value[inside], size)
    count = np.bincount(index[inside], minlength=size)
    return np.asarray(np.divide(total, count, out=np.full(size, np.nan), where=count > 0))


def binned_rate(t_ns: NDArray[np.int64], value: Floats, edges_ns: NDArray[np.int64]) -> Floats:
    """Return the change per second from bin to bin.

    Returns
    -------
    numpy.ndarray
        Shape (bins - 1,), at the inner edges; NaN beside a bin without a value.
    """
    seconds = np.diff(edges_ns[:-1]) / 1e9
    return np.asarray(np.diff(bin_means(t_ns, value, edges_ns)) / seconds)


def running_integral(t_ns: NDArray[np.int64], value: Floats) -> Floats:
    """Return the trapezoid sum of a rate over seconds, shape (n,), from 0.

    A value that is not finite adds nothing and makes its own place NaN, so that
    `binned_rate` of the sum gives that rate back, averaged like a tracked position.
    """
    good = np.isfinite(value)
    seconds = (t_ns[good] - t_ns[0]).astype(np.float64) / 1e9 if len(t_ns) else np.empty(0)
    known = value[good]
    whole = np.full(len(value), np.nan)
    pieces = np.diff(seconds) * (known[1:] + known[:-1]) / 2
    whole[good] = np.concatenate([[0.0], np.cumsum(pieces)])[: len(known)]
    return whole
