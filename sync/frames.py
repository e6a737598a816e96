"""Frame counters to gaps: a lost frame is a gap, never a shift."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAccount:
    """What a camera's counter says of a recording.

    Parameters
    ----------
    dropped_before
        Frames lost just before each frame, int64, shape (n,).
    dropped, repeated, reordered
        Totals; a repeated frame carries the counter of the one before it, a reordered
        one a smaller counter.
    """

    dropped_before: NDArray[np.int64]
    dropped: int
    repeated: int
    reordered: int


def account_for_frames(index: NDArray[np.int64]) -> FrameAccount:
    """Account for every count of a camera's own frame counter.

    Parameters
    ----------
    index
        The counter of each frame in the order of arrival, shape (n,).
    """
    if len(index) == 0:
        return FrameAccount(
            dropped_before=np.zeros(0, np.int64), dropped=0, repeated=0, reordered=0
        )
    highest = np.maximum.accumulate(index)
    before = np.zeros(len(index), np.int64)
    before[1:] = np.maximum(index[1:] - highest[:-1] - 1, 0)
    step = np.diff(index)
    late = index[1:] < highest[:-1]
    # A frame that comes late fills a gap, unless it has come before.
    came = np.unique(index[index >= index[0]])
    return FrameAccount(
        dropped_before=before,
        dropped=int(highest[-1] - index[0]) + 1 - len(came),
        repeated=int(np.sum(step == 0)),
        reordered=int(np.sum(late)),
    )
