"""Length, width, area and volume of an outline, each with its gradient by the edge's place."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.outline import Outline

Float = NDArray[np.float64]
MIDDLE = 0.25  # of the length, to both sides of the middle, in which the width is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Numbers of an outline in px, and how each grows where the outline moves outwards.

    Parameters
    ----------
    values
        ``length`` along the long axis, ``diameter`` across it in the middle half, ``area``,
        and ``volume`` of the body of revolution about the long axis.
    gradients
        Of each, by how far each point moves outwards, shape (points,).
    axis
        Unit vector (x, y) along the long axis.
    middle
        (x, y) of the centre of the area.
    ends
        Where the outline crosses its long axis, along it from the middle.
    """

    values: dict[str, float]
    gradients: dict[str, Float]
    axis: tuple[float, float]
    middle: tuple[float, float]
    ends: tuple[float, float]

    def places(self) -> dict[str, tuple[float, float]]:
        """Return (x, y) of both ends of the length and of both sides of the diameter."""
        along, across = self.axis, (-self.axis[1], self.axis[0])
        half = self.values["diameter"] / 2
        steps = {"end_1": (along, self.ends[0]), "end_2": (along, self.ends[1])}
        steps |= {"side_1": (across, -half), "side_2": (across, half)}
        return {
            name: (self.middle[0] + by * way[0], self.middle[1] + by * way[1])
            for name, (way, by) in steps.items()
        }


def shape_of(outline: Outline) -> Shape:
    """Return the numbers of an outline."""
    p, dl = outline.points, outline.lengths_px
    cross = p[:, 0] * np.roll(p[:, 1], -1) - np.roll(p[:, 0], -1) * p[:, 1]
    area = float(cross.sum()) / 2
    axis, middle = outline.axis
    x, y = (p - middle) @ axis, (p - middle) @ np.array([-axis[1], axis[0]])
    (first, first_weights), (last, last_weights) = (_crossing(x, y, side) for side in (-1, 1))
    ends = first, last
    length = ends[1] - ends[0]
    about = 0.5 * (ends[0] + ends[1])
    in_slab = np.abs(x - about) <= MIDDLE * length
    slab = np.clip(x, about - MIDDLE * length, about + MIDDLE * length)
    next_slab, next_y = np.roll(slab, -1), np.roll(y, -1)
    diameter = -float(np.sum((next_slab - slab) * (y + next_y) / 2)) / (2 * MIDDLE * length)
    at_ends = np.abs(np.abs(x - about) - MIDDLE * length) < 1.0
    end_width = 2 * float(np.abs(y[at_ends]).mean()) if np.any(at_ends) else diameter
    of_length = first_weights + last_weights
    dx, mean = np.roll(x, -1) - x, (y + next_y) / 2
    volume = -float(np.sum(math.pi / 2 * mean * np.abs(mean) * dx))
    return Shape(
        values={"length": length, "diameter": diameter, "area": area, "volume": volume},
        gradients={
            "length": of_length,
            # A longer object has a longer middle, which ends where it is as wide as there.
            "diameter": dl * in_slab / (2 * MIDDLE * length)
            + of_length * (end_width - diameter) / length,
            "area": dl,
            "volume": math.pi * np.abs(y) * dl,
        },
        axis=(float(axis[0]), float(axis[1])),
        middle=(float(middle[0]), float(middle[1])),
        ends=ends,
    )


def _crossing(x: Float, y: Float, side: int) -> tuple[float, Float]:
    """Return where the outline crosses its axis at one end, and which points tell."""
    n = len(x)
    after = np.roll(y, -1)
    crosses = np.flatnonzero((y <= 0) != (after <= 0))
    last = crosses[np.argmax(side * x[crosses])]
    share = y[last] / (y[last] - after[last])
    weights = np.zeros(n)
    weights[last], weights[(last + 1) % n] = 1 - share, share
    return float(weights @ x), weights
