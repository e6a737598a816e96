"""The pixels that an outline is fitted to: one by one near it, summed where they are alike.

Deep inside, all pixels at one place along the axis have one expectation, so their sum tells
all that they do. Far off the level is a plane, nearly one number in a small cell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.surroundings import Index, Surroundings

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
CELL_PX = 8  # of the field around the object
ODD_SIGMAS = 6.0  # of a cell that holds something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """Single pixels of the band, then sums of those deep inside, then sums of those far off.

    Parameters
    ----------
    number, counts
        Pixels in each sum (0 for those that take no part), and their counts, shape (m,).
    along
        Whole px along the axis.
    plane
        1, x and y in halves of the box from its middle, shape (m, 3); 0 deep inside.
    near, inside
        How many of them are in the band, and how many in the band or deep inside.
    used
        Pixels of the box that take part, flat.
    """

    number: Float
    counts: Float
    along: Index
    plane: Float
    near: int
    inside: int
    used: Mask


def grouped(counts: Float, at: Surroundings, without: Sequence[tuple[float, float]] = ()) -> Pixels:
    """Return the pixels of a box.

    Parameters
    ----------
    counts
        Of the box, flat.
    without
        Stretches along the axis, as fractions of its length, which take no part.
    """
    place = (at.along + 0.5) / at.length
    kept = np.ones(len(counts), dtype=bool)
    for low, high in without:
        kept &= (place < low) | (place > high)
    kept[at.far] = True
    deep = at.deep[kept[at.deep]]
    deep_along = at.along[deep]
    deep_number = np.bincount(deep_along, minlength=at.length)
    filled = np.flatnonzero(deep_number)
    columns = at.shape[1] // CELL_PX + 1
    cell = at.far // at.shape[1] // CELL_PX * columns + at.far % at.shape[1] // CELL_PX
    number = np.bincount(cell)
    total: Float = np.asarray(np.bincount(cell, counts[at.far]), dtype=np.float64)
    alike = _alike(total, np.asarray(number, dtype=np.intp))
    kept[at.far] = alike[cell]
    cells = np.flatnonzero(alike & (number > 0))
    far_plane = [np.bincount(cell, p)[cells] / number[cells] for p in plane_of(at, at.far).T]
    near = kept[at.band]
    return Pixels(
        number=np.concatenate([near, deep_number[filled], number[cells]]).astype(np.float64),
        counts=np.concatenate(
            [
                counts[at.band] * near,
                np.bincount(deep_along, counts[deep], at.length)[filled],
                total[cells],
            ]
        ),
        along=np.concatenate([at.along[at.band], filled, np.zeros(len(cells), dtype=np.intp)]),
        plane=np.concatenate(
            [plane_of(at, at.band), np.zeros((len(filled), 3)), np.column_stack(far_plane)]
        ),
        near=len(near),
        inside=len(near) + len(filled),
        used=kept,
    )


def plane_of(at: Surroundings, index: Index) -> Float:
    """Return 1, x and y of pixels of a box, in halves of it from its middle, shape (n, 3)."""
    scale = max(*at.shape) / 2
    x, y = index % at.shape[1], index // at.shape[1]
    return np.column_stack(
        [np.ones(len(index)), (x - at.shape[1] / 2) / scale, (y - at.shape[0] / 2) / scale]
    )


def _alike(total: Float, number: NDArray[np.intp]) -> Mask:
    """Tell which cells are as bright as most."""
    full = number > CELL_PX**2 / 4
    mean = total / np.maximum(number, 1)
    if not np.any(full):
        return np.ones(len(number), dtype=bool)
    middle = float(np.median(mean[full]))
    spread = 1.4826 * float(np.median(np.abs(mean[full] - middle)))
    spread = max(spread, math.sqrt(max(middle, 0.0)) / CELL_PX)
    odd = np.abs(mean - middle) > ODD_SIGMAS * spread * np.sqrt(CELL_PX**2 / np.maximum(number, 1))
    return np.asarray(~odd)
