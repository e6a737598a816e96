"""Passes over frames in blocks, each of which may be looked at in another process.

What a look finds follows from the frames of its block and from what it was made with, and
from nothing else: where blocks are looked at, and in which order, changes no bit.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from correlate.trackers.protocol import Frames

BLOCK_FRAMES = 256
T = TypeVar("T")
Look = Callable[[Iterable[NDArray[np.generic]]], T]
"""Goes through the frames of a block once, in order; can be pickled, and keeps no state."""


def in_blocks(
    frames: Frames,
    look_of: Callable[[int], Look[T]],
    *,
    start: int = 0,
    most: int | None = None,
) -> Iterator[T]:
    """Look at frames in blocks of 256, and yield what was found, in order.

    Parameters
    ----------
    frames
        Whose own method ``in_blocks(look_of, start, most)`` does this, where they have one.
    look_of
        Makes the look for the block that begins at a frame's number.
    start
        Frame at which the first block begins.
    most
        Blocks at most; all where None.
    """
    elsewhere = getattr(frames, "in_blocks", None)
    if elsewhere is not None:
        yield from elsewhere(look_of, start, most)
        return
    stream = itertools.islice(frames(), start, None)
    for number in itertools.count() if most is None else range(most):
        block = itertools.islice(stream, BLOCK_FRAMES)
        if (head := next(block, None)) is None:
            return
        yield look_of(start + number * BLOCK_FRAMES)(itertools.chain([head], block))


def some_frames(frames: Frames, numbers: Sequence[int]) -> Iterator[NDArray[np.generic]]:
    """Yield frames of these numbers, which grow; others are not read where that can be.

    Parameters
    ----------
    frames
        Whose own method ``some(numbers)`` does this, where they have one.
    """
    elsewhere = getattr(frames, "some", None)
    if elsewhere is not None:
        yield from elsewhere(numbers)
        return
    wanted = set(numbers)
    yield from (pixels for k, pixels in enumerate(frames()) if k in wanted)
