"""What a detector adds to a scene: white noise, and a pattern that stays where it is.

Both are seen at high spatial frequencies, where the scene has gone: the noise as power,
the pattern as what two frames have in common there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

PLATEAU = (0.33, 0.47)  # cycles per pixel where only noise is left
LN2 = float(np.log(2))  # the median of an exponential distribution is ln 2 of its mean
Parts = NDArray[np.float64]
"""Variances of a pixel, of a column's mean, and of a row's mean; shape (3,)."""


@dataclass(frozen=True, slots=True)
class HighModes:
    """The modes of a frame in which only noise is left, in pixels, columns and rows."""

    parts: tuple[NDArray[np.complexfloating], ...]
    sizes: tuple[int, ...]

    def power(self) -> Parts:
        """Return the variances of noise and pattern together."""
        return np.array(
            [
                float(np.median(np.abs(part) ** 2)) / LN2 / size
                for part, size in zip(self.parts, self.sizes, strict=True)
            ]
        )

    def shared_with(self, other: "HighModes") -> Parts:
        """Return the variances of the pattern that both frames show at the same place."""
        return np.array(
            [
                float(np.mean((a * np.conj(b)).real)) / size
                for a, b, size in zip(self.parts, other.parts, self.sizes, strict=True)
            ]
        )


def high_modes(pixels: NDArray[np.generic]) -> HighModes:
    """Return the high modes of a frame, shape (height, width)."""
    image = pixels.astype(np.float32)
    image -= image.mean()
    height, width = image.shape
    fy, fx = np.abs(fft.fftfreq(height)), fft.rfftfreq(width)
    rows = np.flatnonzero((fy > PLATEAU[0]) & (fy < PLATEAU[1]))
    columns = np.flatnonzero((fx > PLATEAU[0]) & (fx < PLATEAU[1]))
    across = fft.rfft(image, axis=1)[:, columns]
    block = fft.fft(across, axis=0)[rows]
    along = np.flatnonzero(
        (fft.rfftfreq(height) > PLATEAU[0]) & (fft.rfftfreq(height) < PLATEAU[1])
    )
    return HighModes(
        (
            block,
            _high(image.mean(axis=0, dtype=np.float64), columns),
            _high(image.mean(axis=1, dtype=np.float64), along),
        ),
        (height * width, width, height),
    )


def _high(profile: NDArray[np.float64], which: NDArray[np.intp]) -> NDArray[np.complexfloating]:
    """Return high modes of a profile whose ends do not meet."""
    slope = np.arange(len(profile)) * (profile[-1] - profile[0]) / max(len(profile) - 1, 1)
    return np.asarray(fft.rfft(profile - slope)[which])
