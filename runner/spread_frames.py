"""The frames of a session, block by block, wherever each block is looked at.

Frames are never sent: a worker is told the file's path and which frames, and opens it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlate.blocks import BLOCK_FRAMES, Look
from runner.team import Team
from session.frame_source import FrameSource
from session.frames import FrameStack

CHUNK_BYTES = 64 * 2**20  # of frames in memory at a time, in each process
CHUNK_FRAMES = 32  # at most
TASK_BYTES = 64 * 2**20  # of frames that a worker is asked to look at at once, where small
TASKS_EACH = 2  # of what is left, so that no worker waits long for the others at the end


class SessionFrames:
    """Starts passes over the frames of one camera.

    Parameters
    ----------
    stack
        The frames, of an open session.
    team
        Who looks at blocks of them.
    """

    def __init__(self, stack: FrameStack, team: Team) -> None:
        self._stack, self._team = stack, team
        self._source: FrameSource = stack.source()

    def __call__(self) -> Iterator[NDArray[np.generic]]:
        """Read frame after frame."""
        return _read(self._stack, 0, len(self._stack))

    def in_blocks(
        self, look_of: Callable[[int], Look[Any]], start: int, most: int | None
    ) -> Iterator[Any]:
        """Look at blocks of frames, in whatever process, and yield what was found in order."""
        if self._team.executor is None:
            for first, last in islice(self._ranges(start), most):
                yield look_of(first)(_read(self._stack, first, last))
            return
        blocks = list(islice(self._ranges(start), most))
        tasks = (
            (self._source, part, [look_of(first) for first, _ in part])
            for part in self._parts(blocks)
        )
        for found in self._team.in_order(look_at, tasks):
            yield from found

    def _parts(self, blocks: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
        """Yield the blocks that a worker takes at once.

        Several, as opening the file takes time, too; ever fewer towards the end.
        """
        block_bytes = BLOCK_FRAMES * self._stack.nbytes // max(len(self._stack), 1)
        enough = math.ceil(TASK_BYTES / max(block_bytes, 1))
        start = 0
        while rest := len(blocks) - start:
            each = max(1, min(enough, rest // (TASKS_EACH * self._team.size)))
            yield blocks[start : start + each]
            start += each

    def some(self, numbers: Sequence[int]) -> Iterator[NDArray[np.generic]]:
        """Read frames of these numbers."""
        return (self._stack[k] for k in numbers)

    def _ranges(self, start: int) -> Iterator[tuple[int, int]]:
        count = len(self._stack)
        for first in range(start, count, BLOCK_FRAMES):
            yield first, min(first + BLOCK_FRAMES, count)


def look_at(
    source: FrameSource, blocks: Sequence[tuple[int, int]], looks: Sequence[Look[Any]]
) -> list[Any]:
    """Look at blocks of frames, from the first to before the last, wherever this process is.

    Raises
    ------
    SessionRefused
        The file is not there, damaged, or another one.
    """
    with source.opened() as stack:
        return [
            look(_read(stack, first, last))
            for (first, last), look in zip(blocks, looks, strict=True)
        ]


def _read(stack: FrameStack, first: int, last: int) -> Iterator[NDArray[np.generic]]:
    frame_bytes = max(1, stack.nbytes // max(len(stack), 1))
    count = max(1, min(CHUNK_FRAMES, CHUNK_BYTES // frame_bytes))
    for start in range(first, last, count):
        yield from stack[start : min(start + count, last)]
