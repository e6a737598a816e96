"""Registers a whole stack: learns from its first frames, then block after block apart.

A reference that still grows makes every frame depend on those before it; once it is
learned, a block of frames needs nothing of the others but where the last one stood.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlate.blocks import in_blocks
from correlate.drift import DriftEstimator, Shift
from correlate.sums import FrameSums, frame_sums
from correlate.trackers.protocol import Frames

# A block begins where the first frames ended, or by looking everywhere. Where that leads
# further from the frame before than this, or nowhere, it is followed from that frame:
# fringes look alike a spacing apart, and plain layers stand out from no noise everywhere.
CONTINUED_PX = 1.5
SURE_SIGMAS = 3.0  # of a shift that asks for a window with more room
ACQUAINTED_FRAMES = 8  # of a block, looked at beforehand: what moves in them was still before
UINT32_MAX = 2**32 - 1
Line = NDArray[np.uint32] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """Frames that were registered.

    Parameters
    ----------
    shifts
        Of each frame.
    lines
        Column sums of each frame, shape (width,); empty where they were not asked for.
    """

    shifts: list[Shift] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as few arrays: so many objects take long to send."""
        numbers = [
            (s.dx_px, s.dy_px, s.sigma_x_px, s.sigma_y_px, s.quality, s.valid) for s in self.shifts
        ]
        reasons = {k: s.reason for k, s in enumerate(self.shifts) if s.reason}
        kinds = {(line.dtype, line.shape) for line in self.lines}
        lines = np.array(self.lines) if len(kinds) == 1 else self.lines
        return _unpacked, (np.array(numbers, np.float64), reasons, lines)


def _unpacked(
    numbers: NDArray[np.float64], reasons: Mapping[int, str], lines: Iterable[Line]
) -> Registered:
    """Return what was packed."""
    shifts = [
        Shift(
            dx_px=dx,
            dy_px=dy,
            sigma_x_px=sigma_x,
            sigma_y_px=sigma_y,
            quality=quality,
            valid=bool(valid),
            reason=reasons.get(k, ""),
        )
        for k, (dx, dy, sigma_x, sigma_y, quality, valid) in enumerate(numbers.tolist())
    ]
    return Registered(shifts=shifts, lines=list(lines))


def register(
    frames: Frames, estimator: DriftEstimator, *, with_lines: bool = False
) -> tuple[Registered, DriftEstimator]:
    """Register all frames.

    Parameters
    ----------
    estimator
        That has registered nothing yet.
    with_lines
        Keep the column sums, too.

    Returns
    -------
    registered, estimator
        And what can go on from the last frame; another one than was given, where the
        specimen drifted far and the reference was learned again with more room.
    """
    while True:
        found = _Look(estimator, with_lines, until_learned=True)(frames())
        if not estimator.has_learned:
            return found, estimator
        if (far := _go_on(frames, estimator, found, with_lines=with_lines)) is None:
            break
        estimator = estimator.wider(far)
    if (last := _last(found.shifts)) is not None:
        estimator.go_on_from(last)
    return found, estimator


def _go_on(
    frames: Frames, estimator: DriftEstimator, found: Registered, *, with_lines: bool
) -> float | None:
    """Register the rest; return a shift that asks for more room, where there is one."""
    look = _Look(estimator.frozen(), with_lines)
    for block in in_blocks(frames, lambda _: look, start=len(found.shifts)):
        seen, last = block, _last(found.shifts)
        if last is not None and not _continues(block.shifts[0], last):
            after = estimator.frozen()
            after.go_on_from(last)
            seen = _one_block(frames, _Look(after, with_lines), len(found.shifts))
        far = max((_surely_moved_px(s) for s in seen.shifts if s.valid), default=0.0)
        if estimator.is_too_narrow_for(far):
            return far
        found.shifts.extend(seen.shifts)
        found.lines.extend(seen.lines)
    return None


def _one_block(frames: Frames, look: "_Look", start: int) -> Registered:
    return next(in_blocks(frames, lambda _: look, start=start, most=1))


@dataclass(frozen=True, slots=True)
class _Look:
    """Registers frames one after the other."""

    estimator: DriftEstimator
    with_lines: bool
    until_learned: bool = False

    def __call__(self, frames: Iterable[NDArray[np.generic]]) -> Registered:
        frames = iter(frames)
        estimator = self.estimator if self.until_learned else copy.copy(self.estimator)
        found = Registered()
        if not self.until_learned:
            first = list(itertools.islice(frames, ACQUAINTED_FRAMES))
            estimator.acquaint(first)
            frames = itertools.chain(first, frames)
        for pixels in frames:
            sums = frame_sums(pixels, estimator.bin_px)
            found.shifts.append(estimator.update_sums(sums, pixels))
            if self.with_lines:
                found.lines.append(_line(sums))
            if self.until_learned and estimator.has_learned:
                break
        return found


def _line(sums: FrameSums) -> Line:
    """Return the column sums, in half the memory where they are counts."""
    line = sums.line()
    if sums.rows.dtype.kind in "bu" and line.max() <= UINT32_MAX:
        return line.astype(np.uint32)
    return line


def _surely_moved_px(shift: Shift) -> float:
    """Return how far a frame stands at least: of many, one is further by noise alone."""
    x = abs(shift.dx_px) - SURE_SIGMAS * shift.sigma_x_px
    y = abs(shift.dy_px) - SURE_SIGMAS * shift.sigma_y_px
    return max(x, y, 0.0)


def _continues(shift: Shift, last: tuple[float, float]) -> bool:
    moved = math.hypot(shift.dx_px - last[0], shift.dy_px - last[1])
    return shift.valid and moved < CONTINUED_PX


def _last(shifts: list[Shift]) -> tuple[float, float] | None:
    """Return where the last frame that is registered stands."""
    last = next((s for s in reversed(shifts) if s.valid), None)
    return None if last is None else (last.dx_px, last.dy_px)
