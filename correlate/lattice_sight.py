"""What a frame's windows show of a lattice: how strong it is in each, and at what frequency."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.bragg import STRIDE_PX, Floats, Peaks, Ring

SURE = 0.5  # of the power of the strongest windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What of a lattice is seen in a frame, shape (rows, columns) where not told otherwise.

    Parameters
    ----------
    corner
        Row and column of the frame where the grid of windows begins.
    strength
        Fourier coefficient of each window without what noise adds to its size, at the
        frequency of the nearest window that shows a lattice; 0 far from all of them.
    seen
        Which windows show one by themselves.
    background
        Variance of a pixel, over its count.
    noise
        Mean squared coefficient of noise.
    value, frequency
        Fourier coefficient, and (kx, ky) where it was taken, shape (rows, columns, 2); NaN
        far from all.
    peaks, number
        Of the windows whose own peak was fitted; which of these a window is, else -1.
    """

    corner: tuple[int, int]
    strength: Floats
    seen: NDArray[np.bool_]
    background: float
    noise: Floats
    value: NDArray[np.complex128]
    frequency: Floats
    peaks: Peaks | None
    number: NDArray[np.intp]


def look(ring: Ring, pixels: NDArray[np.generic], y0: int, x0: int) -> Sight:
    """Look for a lattice in the windows of a frame, on a grid that begins at a place."""
    windows = ring.look(pixels, y0, x0)
    background = ring.background(windows)
    noise, seen = windows.noise * background, windows.seen(background)
    shape, reach = seen.shape, ring.window_px / STRIDE_PX
    strength, value = np.zeros(shape), np.full(shape, math.nan, np.complex128)
    frequency, number = np.full((*shape, 2), math.nan), np.full(shape, -1, np.intp)
    peaks = None
    if seen.any():
        sure = seen & (windows.power > SURE * np.percentile(windows.power[seen], 90))
        # A window that shows a part of a lattice takes the frequency from one that is full of
        # it: its own would be where noise adds most.
        alone = seen & (ndimage.distance_transform_edt(~sure) > reach) if sure.any() else seen
        sources = sure | alone
        at, which = nearest(sources, reach)
        peaks = ring.peaks(pixels, y0, x0, np.argwhere(sources), windows.best[sources])
        number[sources] = np.arange(len(peaks.value))
        row, column = at.T
        frequency[row, column] = peaks.frequency[which]
        value[row, column] = ring.coefficients(pixels, y0, x0, at, peaks.frequency[which])
        power = np.abs(value[row, column]) ** 2
        ratio = np.minimum(power / np.abs(peaks.value[which]) ** 2, 1.0)
        gained = ring.frequency_noise(at - np.argwhere(sources)[which], ratio)
        # A root of noisy power less all of its noise is too small by as much as one of all of
        # the power is too large.
        own = power - (0.5 + gained) * noise[row, column]
        strength[row, column] = np.sqrt(np.maximum(own, 0.0))
    return Sight(
        corner=(y0, x0),
        strength=strength,
        seen=seen,
        background=background,
        noise=noise,
        value=value,
        frequency=frequency,
        peaks=peaks,
        number=number,
    )


def nearest(seen: NDArray[np.bool_], reach: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the windows near some, and which of those is the nearest to each.

    Parameters
    ----------
    seen
        Which windows, shape (rows, columns).
    reach
        Farthest distance, in windows.

    Returns
    -------
    at, which
        Rows and columns, shape (n, 2), and the number of the nearest among those that are
        seen, in the order of `numpy.argwhere`, shape (n,).
    """
    if not np.any(seen):
        return np.zeros((0, 2), np.intp), np.zeros(0, np.intp)
    distance, index = ndimage.distance_transform_edt(~seen, return_indices=True)
    number = np.cumsum(seen.ravel()).reshape(seen.shape) - 1
    at = np.argwhere(distance <= reach)
    row, column = (part[at[:, 0], at[:, 1]] for part in index)
    return at, number[row, column]
