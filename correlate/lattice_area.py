"""The area of a lattice, from how much of it fills each of many windows."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from correlate.bragg import STRIDE_PX, Floats

SOFT = 0.25, 0.75  # shares of a window between which the edge of a lattice lies
FINE_PX = 2.0  # between windows, where the edge is looked for
# What is lost of the area of an island, whatever its size, as a share of the window's square:
# a window's average moves an edge inwards by its curvature, which adds up to one turn.
LOST_RATIO, LOST_SIGMA_RATIO = 0.095, 0.014
CORNER_RATIO = 0.25  # of the window: so far from the next, an edge errs by itself
EDGE_DEPTH = 0.27  # of the window, over which an edge is soft
EDGE_PX = 0.2  # by which such a piece of an edge is off, as it bends


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


def area_of(share: Floats, alike: tuple[NDArray[np.bool_], NDArray[np.bool_]], side: int) -> Area:
    """Return the area of a lattice.

    Parameters
    ----------
    share
        Of each window that a lattice fills, shape (rows, columns).
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
    inside = share > 0.5
    window2 = float(side**2)
    length_px = np.count_nonzero(edge) * cell / (EDGE_DEPTH * side)
    pieces = length_px / (CORNER_RATIO * side)
    bent = EDGE_PX * length_px / math.sqrt(max(pieces, 1.0))
    islands = ndimage.label(inside)[1] + ndimage.label(~inside)[1]
    lost = LOST_SIGMA_RATIO * window2 * math.sqrt(islands)
    area = cell * float(filled.sum()) + LOST_RATIO * window2 * turning(inside, alike)
    return Area(
        area_px=max(area, 0.0),
        shape_sigma_px=math.hypot(bent, lost),
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
    inside: NDArray[np.bool_],
    alike: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> float:
    """Return by how many full turns the edges of some windows bend, outwards counted positive.

    An island turns once, a hole once back, a strip from side to side not at all: the Euler
    number, less what the sides of the field cut off. Two crystals that touch have two edges.

    Parameters
    ----------
    inside
        Which windows, shape (rows, columns).
    alike
        Whether each window and the next see the same crystal, see `area_of`; all do where
        None.
    """
    right = inside[:, 1:] & inside[:, :-1]
    down = inside[1:] & inside[:-1]
    if alike is not None:
        right, down = right & alike[0], down & alike[1]
    faces = right[1:] & right[:-1] & down[:, 1:] & down[:, :-1]
    euler = np.count_nonzero(inside) - np.count_nonzero(right) - np.count_nonzero(down)
    euler += np.count_nonzero(faces)
    rim = np.concatenate([inside[0], inside[1:, -1], inside[-1, -2::-1], inside[-2:0:-1, 0]])
    linked = np.concatenate([right[0], down[:, -1], right[-1, ::-1], down[::-1, 0]])
    # As many parts of the rim as of gaps between them.
    runs = int(np.count_nonzero(rim & ~linked))
    corners = int(np.sum(inside[[0, 0, -1, -1], [0, -1, 0, -1]]))
    return float(euler) - 0.5 * runs - 0.25 * corners
