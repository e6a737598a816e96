"""The power of a scene in each mode of a frame, where it stands out of noise."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.modes import Power, Powers

SMOOTH_SHARE = 1 / 24  # of the modes of a side, over which a scene's power is averaged
SMOOTH_MODES = 1.5, 6.0  # at least and at most


def scene_power(powers: Powers, noise: Powers, sigmas: float) -> Powers:
    """Return the mean power around each mode; 0 where noise alone would make it.

    Parameters
    ----------
    powers
        Of each mode, less that of noise and pattern.
    noise
        Power that scatters each mode.
    sigmas
        Of that scatter, above which a power is no longer noise.
    """
    rest, columns, rows = powers
    height, width = rest.shape
    across = _Smoothing.over(width, _width(width))
    along = _Smoothing.over(height, _width(height // 2))
    half = _Smoothing.over(len(rows), _width(len(rows)))
    means = along.mean(across.mean(rest).T).T, across.mean(columns), half.mean(rows)
    scatter = along.scatter[:, None] * across.scatter, across.scatter, half.scatter
    a, b, c = (
        np.where(mean > np.float32(sigmas) * s * n, mean, np.float32(0))
        for mean, s, n in zip(means, scatter, noise, strict=True)
    )
    return a, b, c


@dataclass(frozen=True, slots=True)
class _Smoothing:
    """A Gaussian mean over neighbours on a line, of which there are fewer at its ends.

    Parameters
    ----------
    width
        Its sigma, in modes.
    inside
        Share of the Gaussian that lies on the line, shape (n,).
    scatter
        Of the mean of independent values, over that of one, shape (n,).
    """

    width: float
    inside: NDArray[np.float32]
    scatter: NDArray[np.float32]

    @classmethod
    def over(cls, count: int, width: float) -> Self:
        """Return what averages so many values."""
        ones = np.ones(count, np.float32)
        inside = ndimage.gaussian_filter1d(ones, width, mode="constant")
        # A Gaussian's square is a narrower Gaussian.
        squares = ndimage.gaussian_filter1d(ones, width / math.sqrt(2), mode="constant")
        scatter = np.sqrt(squares / (2 * math.sqrt(math.pi) * width)) / inside
        return cls(width, inside, scatter.astype(np.float32))

    def mean(self, values: Power) -> Power:
        """Return the means along the last axis."""
        found = ndimage.gaussian_filter1d(values, self.width, mode="constant")
        return np.asarray(found / self.inside)


def _width(count: int) -> float:
    return min(max(count * SMOOTH_SHARE, SMOOTH_MODES[0]), SMOOTH_MODES[1])
