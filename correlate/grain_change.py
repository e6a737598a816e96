"""Grains that come: how much of their power is there, block by block."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.grain_band import Banded, GrainBand, both
from correlate.looks import Look, Noise
from correlate.lost_area import area_of

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
MIN_SIGMAS = 6.0  # of the power that has come, against noise
LEAST_POWER = 0.2  # of the median, in a block that tells
MIN_BLOCKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GrainsSeen:
    """What the grains of one frame tell.

    Parameters
    ----------
    fraction, sigma
        Converted fraction of the field.
    shares, share_sigma
        Of blocks, shape (rows, columns); NaN for those that do not tell.
    patchwork
        1 where the grains that are there look as they will in the end and others are not there
        at all, 0 where all of them are on their way.
    unlike
        Mean square by which places are not converted as the field is in the mean.
    lost
        Of the sigma, by what is not in the frame: any witness has it.
    """

    fraction: float
    sigma: float
    shares: Float
    share_sigma: Float
    patchwork: float
    unlike: float
    lost: float


class GrainChange:
    """The power that grains gain from one look to the other.

    Parameters
    ----------
    before, after
        Both looks.
    band
        Of the grains.
    noise
        Of single frames, with that in the band.
    """

    def __init__(self, before: Look, after: Look, band: GrainBand, noise: Noise) -> None:
        self._before, self._after, self._band, self._noise = before, after, band, noise
        own = (
            noise.of_grains(before.seen) / before.count + noise.of_grains(after.seen) / after.count
        )
        self._change = after.seen.fine - before.seen.fine
        self._box = both(before.seen.box, after.seen.box)
        self._power = band.mean_product(self._change, self._change, self._box) - own
        there = before.seen.whole & after.seen.whole
        stands, middle = False, 0.0
        if np.any(there):
            middle = float(np.median(self._power[there]))
            square = float(np.mean(own[there] ** 2))
            alone = math.sqrt(2 * square / band.noise_modes / self._change.size)
            stands = middle > MIN_SIGMAS * alone
        self.used = there & (self._power > LEAST_POWER * middle) & stands
        # What has no grains to come is no part of what converts.
        self._field = self.used | ~there
        told = self._power[self.used]
        self._uneven = float(np.var(told) / np.mean(told) ** 2) if len(told) else math.nan

    def seen_in(self, seen: Banded, number: int) -> GrainsSeen | None:
        """Return how much has come in a frame; None where too little of it is in the field.

        Parameters
        ----------
        seen
            The frame, brought onto the reference.
        number
            Of the frame; noise is shared with looks that it is part of.
        """
        use = self.used & seen.whole
        if int(use.sum()) < MIN_BLOCKS:
            return None
        area = area_of(self._band.blocks.pixels, seen.pixels, use, self._field & ~use)
        weight = area.weight
        power, noise = self._power[use], self._noises(seen, number, use)
        away, box = seen.fine - self._before.seen.fine, both(seen.box, self._box)
        n = self._band.blocks.inside(box)[use]
        product = self._band.mean_product
        share = (product(away, away, box)[use] - noise.frame) / power
        slope = (product(away, self._change, box)[use] - noise.shared) / power
        alone = 2 * (noise.frame / power) ** 2 / self._band.noise_modes
        crossed = 4 * noise.with_grains(share) / power / self._band.grain_modes
        variance = np.maximum(alone + crossed, alone / 2) / n
        patchwork = _patchwork(
            share, variance, slope, noise.frame / power / n / self._band.grain_modes
        )
        own = variance * self._band.block_share
        # Unbiased, where the shares themselves are noisy.
        mixed = patchwork * max(float(weight @ (share - share**2 + own)), 0.0)
        mean = float(weight @ share)
        between = max(float(weight @ ((share - mean) ** 2 - own)), 0.0)
        # Noise in what is divided by makes a quotient too large, unless both share it.
        excess = 4 * (share * noise.looks - slope * noise.shared)
        fraction = mean - float(weight @ (excess / (power * n * self._band.grain_modes)))
        part = min(max(fraction, 0.0), 1.0)
        bent = (1 - patchwork) * (math.sqrt(part) - part) ** 2
        # What a look lacks is, by it, as what is beside.
        in_a_look = noise.in_before + noise.in_after > 0
        lost = 0.0 if in_a_look else area.sigma(share, own, patchwork)
        common = self._noise.in_band_error * float(np.mean(noise.frame / power))
        # In a part of a block's area there is not the same part of its grains.
        variance = variance + self._uneven * mixed
        shares, sigmas = np.full(use.shape, math.nan), np.full(use.shape, math.nan)
        shares[use], sigmas[use] = share, np.sqrt(own + self._uneven * mixed)
        return GrainsSeen(
            fraction=fraction,
            sigma=math.hypot(math.sqrt(float(weight**2 @ variance)), common, lost),
            shares=shares,
            share_sigma=sigmas,
            patchwork=patchwork,
            unlike=between + mixed + bent,
            lost=lost,
        )

    def _noises(self, seen: Banded, number: int, use: Mask) -> "_Noises":
        return _Noises(
            now=self._noise.of_grains(seen)[use],
            start=self._noise.of_grains(self._before.seen)[use] / self._before.count,
            end=self._noise.of_grains(self._after.seen)[use] / self._after.count,
            in_before=self._before.share_of(number),
            in_after=self._after.share_of(number),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noises:
    """Variances of noise in blocks: of a frame, and of both looks, which it may be part of."""

    now: Float
    start: Float
    end: Float
    in_before: float
    in_after: float

    @property
    def frame(self) -> Float:
        """Of the frame less the look before."""
        return np.asarray(self.now * (1 - 2 * self.in_before) + self.start)

    @property
    def looks(self) -> Float:
        """Of the whole change."""
        return np.asarray(self.start + self.end)

    @property
    def shared(self) -> Float:
        """Covariance of that with the whole change."""
        return np.asarray(self.start + self.now * (self.in_after - self.in_before))

    def with_grains(self, part: Float) -> Float:
        """Return what multiplies grains of which a part has come, less that part of all."""
        root = np.sqrt(np.clip(part, 0.0, 1.0))
        of_frame = (
            part * self.now * (1 - 2 * self.in_after * root - 2 * self.in_before * (1 - root))
        )
        return np.asarray(of_frame + part**2 * self.end + (root - root**2) ** 2 * self.start)


def _patchwork(share: Float, variance: Float, slope: Float, slope_variance: Float) -> float:
    """Return how far blocks are patches of both looks, by how alike their grains are."""
    unlike = float(np.sum(share - slope**2 + slope_variance))
    room = float(np.sum(share - share**2 + variance))
    return min(max(unlike / room, 0.0), 1.0) if room > 0 else 1.0
