"""How a specimen looks before and after it has changed, and the noise of single frames."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.grain_band import Banded, Blocks, GrainBand, both

Float = NDArray[np.float64]
FLICKERS = 2.5  # variance of levels over that of their counts, from which it is no chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The mean of some frames.

    Parameters
    ----------
    seen
        The mean.
    frames
        Their numbers in the recording.
    """

    seen: Banded
    frames: frozenset[int]

    @property
    def count(self) -> int:
        """How many frames."""
        return len(self.frames)

    def share_of(self, number: int) -> float:
        """Return how much of the mean is one frame."""
        return float(number in self.frames) / len(self.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What is known of the noise of single frames.

    Parameters
    ----------
    gain
        Variance over mean of a pixel's counts.
    in_band
        The same of what the grains' band lets through; NaN without a band.
    in_band_error
        Relative error of that.
    flicker
        Variance of the mean level of a frame, over that of its counts.
    """

    gain: float
    in_band: float = math.nan
    in_band_error: float = 0.0
    flicker: float = 1.0

    def of_level(self, seen: Banded) -> Float:
        """Return the variance of the mean counts of blocks."""
        return np.asarray(self.gain * seen.level / np.maximum(seen.pixels, 1.0))

    def of_grains(self, seen: Banded) -> Float:
        """Return the variance of noise in the band, over the square of the level, of blocks."""
        return np.asarray(self.in_band / np.maximum(seen.level, 1e-9))


def shot_gain(frames: Sequence[NDArray[np.generic]], blocks: Blocks) -> float:
    """Return variance over mean of counting noise, by the differences of successive frames.

    The median over blocks lets no block that changes tell.

    Parameters
    ----------
    frames
        Two at least, within some px of each other.
    """
    ratios = []
    for one, other in itertools.pairwise(frames):
        a, b = (np.asarray(f, dtype=np.float32) for f in (one, other))
        first, second = float(a.mean(dtype=np.float64)), float(b.mean(dtype=np.float64))
        level = 0.5 * (first + second)
        a, b = a / np.float32(first), b / np.float32(second)
        # Neighbours' differences, as what does not change but drifts is left in frames' own.
        away = np.diff(a - b, axis=1, append=0)
        mean = blocks.total(a + b) / 2
        ratios.append(blocks.total(away * away) / 4 * level / np.maximum(mean, 1e-9))
    return max(float(np.median(np.mean(ratios, axis=0))), 1e-6)


def noise_of(gain: float, levels: Sequence[float], pixels: int) -> Noise:
    """Return the noise of frames without a band.

    Parameters
    ----------
    levels
        Mean counts of first frames.
    pixels
        In a frame.
    """
    counts = gain * float(np.mean(levels)) / pixels
    ratio = float(np.var(levels, ddof=1)) / max(counts, 1e-30)
    return Noise(gain=gain, flicker=ratio if ratio > FLICKERS else 1.0)


def noise_in_band(noise: Noise, frames: Sequence[Banded], band: GrainBand) -> Noise:
    """Return the noise with that of a band, by the differences of successive frames.

    Parameters
    ----------
    frames
        Two at least, in which nothing changes.
    """
    found = []
    for one, other in itertools.pairwise(frames):
        away, box = one.fine - other.fine, both(one.box, other.box)
        power = band.mean_product(away, away, box) / 2 * one.level
        found.append(float(np.average(power, weights=band.blocks.inside(box))))
    modes = band.noise_modes * frames[0].fine.size * len(found)
    return Noise(
        gain=noise.gain,
        in_band=float(np.mean(found)),
        # Each frame is in two differences: their sum scatters by half as much again.
        in_band_error=math.sqrt(3 / modes),
        flicker=noise.flicker,
    )
