"""Counters of cameras that run over or start again, made to count on."""

import numpy as np
from numpy.typing import NDArray

LATEST = 1000  # frames by which one may come late across the edge of a counter


def unroll_counter(
    counter: NDArray[np.int64], modulus: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return frame numbers that count on where a counter runs over or starts again.

    A smaller count is a frame that came late where the counter is soon beyond its highest
    again. Otherwise the counter has started again: the numbers go on by 1, for nobody can
    say what was lost there.

    Parameters
    ----------
    counter
        As stored, in the order of the file, shape (n,).
    modulus
        Where it is known to run over to 0.

    Returns
    -------
    index, restarts
        The numbers, and the frames at which the counter started again without reaching
        its modulus.
    """
    index = counter.astype(np.int64)
    if len(index) == 0:
        return index, np.zeros(0, np.int64)
    if modulus is not None:
        step = np.diff(index)
        # A leap ahead is a loss, but for a frame that comes late across the edge.
        late = min(LATEST, modulus // 2)
        turns = (step < -modulus // 2).astype(np.int64) - (step > modulus - late)
        index[1:] += modulus * np.cumsum(turns)
    jumps = np.zeros(len(index), np.int64)
    restarts: list[int] = []
    first, highest, seen = int(index[0]), int(index[0]), 0
    for at in (np.flatnonzero(np.diff(index) < 0) + 1).tolist():
        highest = max(highest, int(index[seen:at].max()))
        seen = at
        value = int(index[at])
        # Without a loss the count is past its highest one frame after this window.
        window = index[at + 1 : at + 1 + highest - value]
        if np.any(window > highest):
            continue
        if len(window) < highest - value and value > first:
            continue
        jumps[at] = highest + 1 - value
        restarts.append(at)
        first = highest = value
    return index + np.cumsum(jumps), np.array(restarts, np.int64)
