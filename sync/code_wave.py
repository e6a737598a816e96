"""What a window of time sees of a switched beam, sharp, through a ramp, or a first-order lag.

Edges are seconds in order of time; the first one takes the beam off, and so on by turns. The
beam is on before them. Each function gives an integral of the share of beam that is on, so
that the mean over any window is the difference of two values, exactly.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

SHARPEST_S = 2e-5  # ramps below it are edges: no record tells them apart
TAIL_TAUS = 14.0  # where a first-order lag has gone

Floats = NDArray[np.float64]


def signs(count: int) -> Floats:
    """Return what each edge does to the beam: -1, 1, -1, ..."""
    return np.where(np.arange(count) % 2 == 0, -1.0, 1.0)


def _pieces(t_s: Floats, edges_s: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return for each time the last edge, the time since it, and the level after each edge.

    Before the first edge, the first one is taken with a beam that is on: index 0 of the
    pieces is the time before, so that edge i begins piece i + 1.
    """
    piece = np.searchsorted(edges_s, t_s, side="right")
    begins = np.concatenate([edges_s[:1], edges_s])
    level = np.concatenate([[1.0], np.where(np.arange(len(edges_s)) % 2 == 0, 0.0, 1.0)])
    return piece, t_s - begins[piece], level


def _sums(edges_s: Floats, level: Floats) -> tuple[Floats, Floats]:
    """Return first and second integral at the beginning of each piece, 0 at the first edge."""
    lengths = np.concatenate([[0.0], np.diff(edges_s)])
    before = np.concatenate([[0.0], level[1:-1]])
    once = np.cumsum(before * lengths)
    start = np.concatenate([[0.0], once[:-1]])
    twice = np.cumsum(start * lengths + 0.5 * before * lengths**2)
    return np.concatenate([[0.0], once]), np.concatenate([[0.0], twice])


def on_time(t_s: Floats, edges_s: Floats, rise_s: float = 0.0) -> Floats:
    """Return the integral of the beam from the first edge, of ramps ``rise_s`` long.

    The middle of a ramp stands at its edge.
    """
    if rise_s < SHARPEST_S:
        piece, since, level = _pieces(t_s, edges_s)
        once, _ = _sums(edges_s, level)
        return once[piece] + level[piece] * since

    def twice(at_s: Floats) -> Floats:
        piece, since, level = _pieces(at_s, edges_s)
        once, two = _sums(edges_s, level)
        return two[piece] + once[piece] * since + 0.5 * level[piece] * since**2

    return (twice(t_s + rise_s / 2) - twice(t_s - rise_s / 2)) / rise_s


def lagged_time(t_s: Floats, edges_s: Floats, tau_s: float) -> Floats:
    """Return the integral of the beam behind a first-order lag, from the first edge."""
    piece, since, level = _pieces(t_s, edges_s)
    lengths = np.diff(edges_s)
    kept = np.exp(-lengths / tau_s)
    value = np.ones(len(level))  # behind the lag, at the beginning of each piece
    for i, keep in enumerate(kept):
        value[i + 2] = level[i + 1] + (value[i + 1] - level[i + 1]) * keep
    away = value - level
    whole = level[1:-1] * lengths + away[1:-1] * tau_s * (1 - kept)
    total = np.concatenate([[0.0, 0.0], np.cumsum(whole)])
    decay = np.where(piece > 0, -np.expm1(-np.maximum(since, 0.0) / tau_s), 0.0)
    return total[piece] + level[piece] * since + away[piece] * tau_s * decay


def window_mean(
    start_s: Floats, stop_s: Floats, edges_s: Floats, *, rise_s: float = 0.0, tau_s: float = 0.0
) -> Floats:
    """Return the mean share of beam over windows, behind a ramp or a lag, shape (n,)."""
    width = stop_s - start_s
    if tau_s > 0:
        stop, start = (lagged_time(t, edges_s, tau_s) for t in (stop_s, start_s))
    else:
        stop, start = (on_time(t, edges_s, rise_s) for t in (stop_s, start_s))
    return np.asarray((stop - start) / width)


def edge_slopes(
    start_s: Floats, stop_s: Floats, edges_s: Floats, *, rise_s: float = 0.0, tau_s: float = 0.0
) -> sparse.csc_matrix:
    """Return how each window's mean changes with each edge, shape (n, k), 1/s.

    Windows must be in order of time.
    """
    rise_s = 0.0 if rise_s < SHARPEST_S else rise_s
    reach = TAIL_TAUS * tau_s if tau_s > 0 else rise_s / 2
    first = np.searchsorted(stop_s, edges_s - rise_s / 2, side="right")
    last = np.searchsorted(start_s, edges_s + reach, side="right")
    lengths = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(edges_s)), lengths)
    ends = np.cumsum(lengths)
    row = np.arange(len(edge)) - np.repeat(ends - lengths, lengths) + first[edge]
    after, before = stop_s[row] - edges_s[edge], start_s[row] - edges_s[edge]
    change = _risen(after, rise_s, tau_s) - _risen(before, rise_s, tau_s)
    slope = -signs(len(edges_s))[edge] * change / (stop_s[row] - start_s[row])
    return sparse.csc_matrix((slope, (row, edge)), shape=(len(start_s), len(edges_s)))


def _risen(since_s: Floats, rise_s: float, tau_s: float) -> Floats:
    """Return how much of an edge is over at a time after it."""
    if tau_s > 0:
        return np.asarray(-np.expm1(-np.maximum(since_s, 0.0) / tau_s))
    if rise_s > 0:
        return np.clip(since_s / rise_s + 0.5, 0.0, 1.0)
    return np.asarray(since_s > 0, dtype=np.float64)
