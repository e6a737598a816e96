"""Rotation and magnification of the field against the reference, from shifts of its tiles.

A point r about the middle of the field that is turned by t and magnified by 1 + m is moved
by ``(m x - t y, t x + m y)``, for small t and m; nine tiles in a square tell both. They are
told and not corrected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.blocks import some_frames
from correlate.drift import MIN_SIDE_PX, DriftEstimator, Shift
from correlate.trackers.protocol import Frames

TILES = 3  # along a side
FIRST_FRAMES = 16  # of which each tile's reference is made
BASE_FRAMES = 16  # the next ones, that the others are compared with
LOOKS = 128  # at most, spread over all
ROOM_PX = 4.0  # of a tile's window, beyond the drift of the field
Tiles = list[tuple[slice, slice]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How the field stood in some frames; NaN in those that were not looked at.

    Parameters
    ----------
    rotation_rad, rotation_sigma_rad
        From the x axis towards that of growing rows, against frames 17 to 32 of those that
        are registered; shape (n_frames,).
    magnification, magnification_sigma
        Relative change, against the same.
    """

    rotation_rad: NDArray[np.float64]
    rotation_sigma_rad: NDArray[np.float64]
    magnification: NDArray[np.float64]
    magnification_sigma: NDArray[np.float64]


def find_turns(frames: Frames, shifts: Sequence[Shift], shape: tuple[int, int]) -> Turns:
    """Tell rotation and magnification in up to 128 frames.

    Parameters
    ----------
    shifts
        Of the whole field, in each frame.
    shape
        Height and width of the frames.
    """
    found = np.full((4, len(shifts)), np.nan)
    tiles = _tiles(shape)
    valid = np.flatnonzero([s.valid for s in shifts])
    start = FIRST_FRAMES + BASE_FRAMES
    if tiles and len(valid) > start:
        later = valid[start:]
        spread = np.linspace(0, len(later) - 1, min(len(later), LOOKS)).round().astype(np.intp)
        numbers = [*valid[:start].tolist(), *later[spread].tolist()]
        middle = np.array([[_middle(x, shape[1]), _middle(y, shape[0])] for y, x in tiles])
        moved = _moved(frames, numbers, shifts, tiles)
        # Where a tile's reference stands is known to the noise of one frame: what the
        # next frames say of it is taken out.
        base = moved[:BASE_FRAMES, :, :2]
        base = _mean(base - _mean(base, 1)[:, None], 0)
        for k, tile in zip(numbers[start:], moved[BASE_FRAMES:], strict=True):
            found[:, k] = turn_of(middle, tile[:, :2] - base, tile[:, 2:])
    return Turns(
        rotation_rad=found[0],
        rotation_sigma_rad=found[1],
        magnification=found[2],
        magnification_sigma=found[3],
    )


def turn_of(
    middle_px: NDArray[np.float64], shift_px: NDArray[np.float64], sigma_px: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Return rotation, its sigma, magnification and its sigma from shifts of tiles.

    The sigmas are those of the shifts, or wider by as much as the shifts scatter more about
    a field that turns and grows as a whole.

    Parameters
    ----------
    middle_px
        Of each tile about the middle of the field, x first; shape (n_tiles, 2).
    shift_px, sigma_px
        What brings each tile back, x first; shape (n_tiles, 2). NaN where unknown.
    """
    used = np.all(np.isfinite(shift_px) & (sigma_px > 0), axis=1)
    if used.sum() < 3:
        return (math.nan,) * 4
    x, y = middle_px[used].T
    one, none = np.ones_like(x), np.zeros_like(x)
    # The shift brings a tile back: it is the movement with the other sign.
    design = np.concatenate([np.stack([one, none, y, -x], 1), np.stack([none, one, -x, -y], 1)])
    shift, sigma = shift_px[used].T.ravel(), sigma_px[used].T.ravel()
    weighted = design / sigma[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    solved = covariance @ (weighted.T @ (shift / sigma))
    chi2 = float(np.sum((shift - design @ solved) ** 2 / sigma**2))
    own = math.sqrt(max(chi2 / (len(shift) - 4), 1.0)) * np.sqrt(np.diag(covariance))
    return float(solved[2]), float(own[2]), float(solved[3]), float(own[3])


def _moved(
    frames: Frames, numbers: Sequence[int], shifts: Sequence[Shift], tiles: Tiles
) -> NDArray[np.float64]:
    """Return shifts and sigmas of the tiles in frames after the first, (n, n_tiles, 4)."""
    far = max(max(abs(shifts[k].dx_px), abs(shifts[k].dy_px)) for k in numbers)
    estimators = _estimators(tiles, far + ROOM_PX)
    moved = np.full((len(numbers), len(tiles), 4), np.nan)
    for place, pixels in enumerate(some_frames(frames, numbers)):
        if place == FIRST_FRAMES:
            estimators = [e.frozen() for e in estimators]
        whole = shifts[numbers[place]]
        for i, (tile, estimator) in enumerate(zip(tiles, estimators, strict=True)):
            estimator.go_on_from((whole.dx_px, whole.dy_px))
            s = estimator.update(np.ascontiguousarray(pixels[tile]))
            moved[place, i] = s.dx_px, s.dy_px, s.sigma_x_px, s.sigma_y_px
    return moved[FIRST_FRAMES:]


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the mean of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _tiles(shape: tuple[int, int]) -> Tiles:
    """Part a field; into none where its tiles would be too small."""
    height, width = (size // TILES for size in shape)
    if min(height, width) < MIN_SIDE_PX:
        return []
    return [
        (slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width))
        for i in range(TILES)
        for j in range(TILES)
    ]


def _estimators(tiles: Tiles, margin_px: float) -> list[DriftEstimator]:
    found = []
    for rows, columns in tiles:
        shape = rows.stop - rows.start, columns.stop - columns.start
        room = min(margin_px, min(shape) / 8)
        found.append(DriftEstimator(shape, reference_frames=FIRST_FRAMES, margin_px=room))
    return found


def _middle(part: slice, size: int) -> float:
    return float(part.start + part.stop - size) / 2
