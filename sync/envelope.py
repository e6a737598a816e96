"""The quickest way there and the quickest way back, of exchanges that need not be the same.

A message is held up and never early. In each direction the one that was held up least says
most, so of all exchanges of a short time the best two halves are put together as one: where
queues come in bursts, both ways are seldom free at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quickest:
    """One joined exchange of each block.

    Parameters
    ----------
    at
        Which exchange stands for the block, rising: the one nearest to the middle of both
        halves, (m,).
    y_ns
        Offset at that exchange, (m,).
    half_trip_ns
        Half the joined round trip, less than 0 where a coarse read-out made it so, (m,).
    """

    at: NDArray[np.intp]
    y_ns: Floats
    half_trip_ns: Floats


def quickest(
    t_s: Floats, y_ns: Floats, half_trip_ns: Floats, skew: Floats | float, block: NDArray[np.int64]
) -> Quickest:
    """Join the quickest halves of each block.

    Parameters
    ----------
    t_s, y_ns, half_trip_ns
        When each exchange was, its offset, and half its round trip, shape (n,), in order.
    skew
        Of the offset, ns in a s, at each exchange or at all: by it they are compared.
    block
        To which block each belongs, rising.
    """
    edges = np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1])
    sizes = np.diff(np.append(edges, len(block)))
    middle = np.repeat((t_s[edges] + t_s[edges + sizes - 1]) / 2, sizes)
    level = y_ns - skew * (t_s - middle)
    back = _extreme(level + half_trip_ns, edges, sizes)
    there = _extreme(half_trip_ns - level, edges, sizes)
    low, high = (level - half_trip_ns)[there], (level + half_trip_ns)[back]
    when = (t_s[there] + t_s[back]) / 2
    at = np.array(
        [
            a + int(np.argmin(np.abs(t_s[a : a + n] - t)))
            for a, n, t in zip(edges, sizes, when, strict=True)
        ],
        dtype=np.intp,
    )
    moved = np.broadcast_to(skew, t_s.shape)[at] * (t_s - middle)[at]
    return Quickest(at=at, y_ns=(low + high) / 2 + moved, half_trip_ns=(high - low) / 2)


def _extreme(values: Floats, edges: NDArray[np.intp], sizes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return where the least value of each block stands."""
    least = np.repeat(np.minimum.reduceat(values, edges), sizes)
    found = np.flatnonzero(values == least)
    # Of several that are alike, the first.
    place = np.searchsorted(found, edges)
    return np.asarray(found[place], dtype=np.intp)
