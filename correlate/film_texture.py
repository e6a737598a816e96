"""How well the film's edge is known: what the specimen's texture moves it by."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from correlate.drift import Shift
from correlate.film import EDGE_REACH_PX, FIRST_WIDTH_PX, Film
from correlate.profile_line import MIN_BLOCKS, derivatives, excess_of, fit_profile, texture_of
from correlate.sums import frame_sums

STRETCHES = 10  # along the edge


def interface_sigma(
    frames: Iterable[NDArray[np.generic]], shifts: Sequence[Shift], film: Film
) -> float:
    """Return the sigma of the film's edge, px, from stretches along it.

    Each stretch has a texture of its own; the scatter of their edges, less that of counts,
    tells what it moves the edge of all of them by. It is the same in all frames.

    Parameters
    ----------
    frames, shifts
        The first frames, and what brings them onto the reference; those that are not
        registered take no part.
    film
        Its sigma, from the profile alone, is returned where stretches tell nothing.
    """
    near = round(film.interface_px)
    at = np.arange(near - int(EDGE_REACH_PX), near + int(EDGE_REACH_PX) + 1, dtype=np.float64)
    lines: list[NDArray[np.float64]] = []
    total: NDArray[np.float64] = np.zeros((1, 1))
    for pixels, shift in zip(frames, shifts, strict=False):
        columns = np.rint(at - shift.dx_px) if shift.valid else at - np.inf
        if columns[0] < 0 or columns[-1] >= pixels.shape[1]:
            continue
        part = slice(int(columns[0]), int(columns[-1]) + 1)
        stretches = frame_sums(pixels, 1).lines(STRETCHES, part)
        lines.append(stretches.sum(axis=0))
        total = total + stretches
    if len(lines) < 2 or len(total) < MIN_BLOCKS:
        return film.interface_sigma_px
    fit = fit_profile(at, np.sum(lines, axis=0), film.interface_px, FIRST_WIDTH_PX)
    if not fit.converged or not np.all(np.isfinite(fit.covariance)):
        return film.interface_sigma_px
    _, model = derivatives(at, fit.position_px, fit.width_px, fit.left, fit.right)
    excess = excess_of(lines, [model / len(lines)] * len(lines))
    texture = texture_of(at, total, fit, excess)
    # The edge itself is that of the mean of all frames: these few know it no better.
    return math.hypot(
        math.sqrt(texture[0, 0]),
        excess * math.sqrt(fit.covariance[0, 0] * len(lines) / max(len(shifts), len(lines))),
    )
