"""The area of a lattice, from how much of it fills each of many windows."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from correlate.bragg import STRIDE_PX, Floats

SOFT = 0.25, 0.75  # shares of a window between which the edge of a lattice lies
FINE_PX = 2.0  # between windows, where the edge is looked for
# What is lost of the area of an island, whatever its size, as a share of the window's square:
# a window's average moves an edge inwards by its curvature, which adds up to one turn.
LOST_RATIO = 0.0985
EDGE_DEPTH = 0.27  # of the window, over which an edge is soft
# What bends more than that leaves: of the window's side to 3/2, times the root of the edge's
# length. Seen in simulated grains and domains without noise.
BENT_RATIO = 0.00425
NEAR = 0.1  # of a share, within which it is near another


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """How much of the field is lattice, in px^2.

    Parameters
    ----------
    area_px
        Within the field of the windows.
    shape_sigma_px
        As edges bend more than windows tell.
    slope_px
        By how much a share of each window moves it, shape (rows, columns).
    gained_px
        For a field that lies by one px further to the right, and down.
    """

    area_px: float
    shape_sigma_px: float
    slope_px: Floats
    gained_px: tuple[float, float]


def area_of(
    share: Floats,
    variance: Floats,
    alike: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    side: int,
) -> Area:
    """Return the area of a lattice.

    Parameters
    ----------
    share
        Of each window that a lattice fills, shape (rows, columns).
    variance
        Of each share, by noise.
    alike
        Whether each window and the next see the same crystal: the one to the right, shape
        (rows, columns - 1), and the one below, shape (rows - 1, columns).
    side
        Of a window in px.
    """
    low, high = SOFT
    along, across = between(share.shape[0]), between(share.shape[1])
    fine = along @ share @ across.T
    cell = (STRIDE_PX * share.shape[0] / fine.shape[0]) * (
        STRIDE_PX * share.shape[1] / fine.shape[1]
    )
    filled = np.clip((fine - low) / (high - low), 0.0, 1.0)
    edge = (fine > low) & (fine < high)
    length_px = max(np.count_nonzero(edge) * cell / (EDGE_DEPTH * side), side)
    # Noise lifts what ends at 0 and lowers what ends at 1: around an island there is more of
    # the first.
    more = [np.count_nonzero(np.abs(fine - end) < NEAR) / (2 * NEAR) for end in SOFT]
    some = (share > low) & (share < high)
    scatter = float(np.mean(variance[some])) if some.any() else 0.0
    lifted = 0.5 * scatter * (more[0] - more[1]) / (high - low)
    area = cell * (float(filled.sum()) - lifted) + LOST_RATIO * side**2 * turning(share, alike)
    return Area(
        area_px=max(area, 0.0),
        shape_sigma_px=BENT_RATIO * side**1.5 * math.sqrt(length_px),
        slope_px=along.T @ edge @ across * (cell / (high - low)),
        gained_px=(
            float(np.sum(filled[:, -1] - filled[:, 0])) * math.sqrt(cell),
            float(np.sum(filled[-1] - filled[0])) * math.sqrt(cell),
        ),
    )


@lru_cache(maxsize=8)
def between(count: int) -> Floats:
    """Return what each of some windows adds to places between them, shape (places, count).

    A share changes smoothly, over the side of a window: a cubic spline through windows that
    are much nearer follows it, where the windows alone would round an edge to themselves.
    """
    fine = round(STRIDE_PX / FINE_PX)
    places = (np.arange(count * fine) + 0.5) / fine - 0.5
    beyond = np.arange(-3, count + 3)
    spline = make_interp_spline(beyond, np.eye(count)[np.clip(beyond, 0, count - 1)], k=3)
    return np.asarray(spline(places), dtype=np.float64)


def turning(
    share: Floats,
    alike: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> float:
    """Return by how many full turns the edges of a lattice bend, outwards counted positive.

    An island turns once, a hole once back, a strip from side to side not at all: the Euler
    number, less what the sides of the field cut off, by the angles at which edges meet
    them. Two crystals that touch have two edges.

    Parameters
    ----------
    share
        Of each window that is filled, shape (rows, columns).
    alike
        Whether each window and the next see the same crystal, see `area_of`; all do where
        None.
    """
    inside = share > 0.5
    right = inside[:, 1:] & inside[:, :-1]
    down = inside[1:] & inside[:-1]
    if alike is not None:
        right, down = right & alike[0], down & alike[1]
    faces = right[1:] & right[:-1] & down[:, 1:] & down[:, :-1]
    euler = np.count_nonzero(inside) - np.count_nonzero(right) - np.count_nonzero(down)
    euler += np.count_nonzero(faces)
    rim, inner = _around(share), _around(share, 1)
    linked = np.concatenate([right[0], down[:, -1], right[-1, ::-1], down[::-1, 0]])
    after = np.roll(rim, -1)
    along, inwards = np.abs(after - rim), 0.5 * (inner + np.roll(inner, -1) - rim - after)
    # Where two crystals meet, as if their edges met the side upright.
    edge = (rim > 0.5) != (after > 0.5)
    cut = np.where(edge, 0.25 - np.arctan2(inwards, along) / (2 * math.pi), 0.25)
    ends = ~linked * ((rim > 0.5) * 1.0 + (after > 0.5))
    corners = int(np.sum(inside[[0, 0, -1, -1], [0, -1, 0, -1]]))
    return float(euler - np.sum(ends * cut) - 0.25 * corners)


def _around(share: Floats, inwards: int = 0) -> Floats:
    """Return the windows at the rim in turn, or those further inwards beside each."""
    top, bottom = share[inwards], share[-1 - inwards]
    left, right = share[:, inwards], share[:, -1 - inwards]
    return np.concatenate([top, right[1:], bottom[-2::-1], left[-2:0:-1]])
