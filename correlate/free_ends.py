"""Which of the ends that are found anew are those that were followed before."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from correlate.outgrowth import STRAIGHT_RATIO, End, from_edge, refine

MATCH_RADII = 2.5
MOST_MISSED = 3  # frames in which an end was not seen, after which it is not held on to
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Followed:
    """A free end that is followed."""

    end: End
    place_px: float
    number: int
    speed_px: float = 0.0
    seen: bool = False  # in a frame, and not in the mean alone
    blur_px: float = 0.0  # sigma of the last frame that it was seen in
    missed: int = 0  # frames since then


def lowered(end: End, rows: int) -> End:
    """Return an end with its rows counted from another one."""
    return replace(end, axis=replace(end.axis, y_px=end.axis.y_px + rows))


def looked_at_again(
    excess: Floats, followed: Followed, place_px: float, top: int, edge_px: float
) -> End:
    """Return an end whose shaft was fitted from where it was before.

    Parameters
    ----------
    excess
        Relative brightness beside the background, of rows from ``top`` on.
    place_px
        Where the end is along its shaft.
    edge_px
        Column of the edge out of which it grows.
    """
    before = lowered(followed.end, -top).axis
    axis, contrast = refine(excess, before, 0.0, place_px)
    found = replace(followed.end, axis=from_edge(axis, edge_px), end_px=place_px, contrast=contrast)
    return lowered(found, top)


def on_their_shafts(
    found: Sequence[End], before: Sequence[Followed], excess: Floats, top: int, edge_px: float
) -> list[End]:
    """Return ends, of which those on a straight shaft that was followed are on it still.

    A branch that comes out bends the way to an end, or is longer than the way to it.
    """
    ends = list(found)
    for one in before:
        if not one.end.is_straight or not one.seen or one.missed >= MOST_MISSED:
            continue
        axis = one.end.axis
        near = []
        for k, end in enumerate(ends):
            x, y = end.axis.place(end.end_px)
            s, t = axis.along(np.array(x), np.array(y))
            aside, away = abs(float(t)), abs(float(s) - one.place_px)
            if aside < STRAIGHT_RATIO * axis.radius_px and away < _reach_px(end):
                near.append((aside, k, float(s)))
        if not near:
            ends.append(looked_at_again(excess, one, one.place_px, top, edge_px))
            continue
        _, k, place_px = min(near)
        if not ends[k].is_straight:
            ends[k] = looked_at_again(excess, one, place_px, top, edge_px)
    return ends


def matched(found: Sequence[End], before: Sequence[Followed], count: int) -> list[Followed]:
    """Return ends with the places at which those before them were followed, the nearest first.

    Parameters
    ----------
    count
        The highest number of an end so far; new ones have the next.
    """
    new = [Followed(end, end.end_px, count + 1 + k) for k, end in enumerate(found)]
    pairs = []
    for k, one in enumerate(new):
        x, y = one.end.axis.place(one.place_px)
        for j, old in enumerate(before):
            u, v = old.end.axis.place(old.place_px)
            away = math.hypot(u - x, v - y)
            if away < _reach_px(one.end):
                pairs.append((away, k, j))
    taken: set[int] = set()
    left = set(range(len(before)))
    for _, k, j in sorted(pairs):
        if k in taken or j not in left:
            continue
        taken.add(k)
        left.remove(j)
        one, old = new[k], before[j]
        one.number = old.number
        if old.seen:
            s, _ = one.end.axis.along(*(np.array(v) for v in old.end.axis.place(old.place_px)))
            one.place_px, one.speed_px = float(s), old.speed_px
            one.seen, one.blur_px, one.missed = True, old.blur_px, old.missed
    return new


def _reach_px(end: End) -> float:
    return MATCH_RADII * end.axis.radius_px + 4
