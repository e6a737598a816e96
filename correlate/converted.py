"""How much of a specimen has converted, between how it looked before and how it looks after.

Each block of a frame is regressed on its whole change. Where each place is either before or
after (a front, or a mosaic), the slope is the converted share. Where a block changes evenly,
the variance of its grains grows with the share, so that their amplitude goes as its root, and
the slope lies between the two. The power of the grains is as the share in both cases, though
less well known: all frames together tell by it what a slope stands for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
BLOCK_PX = 16
MIN_SIGMAS = 6.0  # of the change of a block, against noise
MIN_SEEN = 0.25  # of a block, that must be in the field
TOLD = (0.03, 0.97)  # of the power, between which slope and power can be told apart
NODES = (-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6)  # of Gauss and Hermite


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The mean of some frames that were brought onto the reference.

    Parameters
    ----------
    mean
        Counts, shape (height, width).
    frames
        Their numbers in the recording.
    """

    mean: Float
    frames: frozenset[int]


def in_blocks(image: NDArray[np.generic]) -> Float:
    """Return square blocks of an image, shape (rows, columns, BLOCK_PX**2); zeros fill the last."""
    down, right = (-side % BLOCK_PX for side in image.shape)
    full = np.pad(np.asarray(image, dtype=np.float64), ((0, down), (0, right)))
    rows, columns = full.shape[0] // BLOCK_PX, full.shape[1] // BLOCK_PX
    parts = full.reshape(rows, BLOCK_PX, columns, BLOCK_PX).swapaxes(1, 2)
    return parts.reshape(rows, columns, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one frame tells.

    Parameters
    ----------
    share, sigma
        Slope of blocks, NaN for those that tell nothing, and its sigma of counting.
    slope
        Their mean over the field, with the sigma of counting.
    partly
        Sigma by blocks that are partly there, if they are a patchwork.
    pair
        Slope and power of the grains in blocks whose grains tell, with their sigmas.
    """

    share: Float
    sigma: Float
    slope: tuple[float, float]
    partly: float
    pair: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What slopes stand for: ``slope = b f + (1 - b) sqrt(f)`` for a converted fraction f.

    Parameters
    ----------
    straight, sigma
        The number b, and its sigma.
    patchwork
        1 for a front or a mosaic, 0 for a conversion that is even in each block.
    """

    straight: float
    sigma: float
    patchwork: float

    def slope(self, fraction: Float) -> Float:
        """Return the slope of fractions."""
        root = np.sign(fraction) * np.sqrt(np.abs(fraction))
        return np.asarray(self.straight * fraction + (1 - self.straight) * root)

    def fraction(self, slope: float) -> float:
        """Return the fraction of a slope."""
        b, size = self.straight, abs(slope)
        if b < 1e-6:
            return math.copysign(size**2, slope)
        root = (-(1 - b) + math.sqrt((1 - b) ** 2 + 4 * b * size)) / (2 * b)
        return math.copysign(root**2, slope)


class WholeChange:
    """The change from one look to another, with which frames are compared.

    Grains are told by their contrast against the mean brightness of their block.

    Parameters
    ----------
    before, after
        Looks.
    gain
        Variance of counting noise over the mean count.
    """

    def __init__(self, before: Look, after: Look, gain: float) -> None:
        self._before, self._after, self._gain = before, after, gain
        last = in_blocks(after.mean)
        self._whole = in_blocks(np.ones(before.mean.shape))
        self._last_level = _level(last, self._whole)
        self._first = _Parts.of(in_blocks(before.mean), self._whole, self._last_level)
        whole = _Parts.of(last, self._whole, self._last_level)
        self._step, self._fine = whole.level - self._first.level, whole.fine - self._first.fine
        self._noise = (
            gain
            * self._last_level
            * (self._first.scale / len(before.frames) + 1 / len(after.frames))
        )
        power, fine_power, n = self._powers(self._whole)
        own = np.sqrt(2 * n) * self._noise
        self.used = power > MIN_SIGMAS * own
        self.grains_tell = fine_power > MIN_SIGMAS * own
        self.grains_share = float(
            np.clip(fine_power[self.used].sum() / max(power[self.used].sum(), 1e-30), 0.0, 1.0)
        )

    def _powers(self, there: Float) -> tuple[Float, Float, Float]:
        """Return the power of the change in what is seen of blocks, and that of grains alone."""
        n = there.sum(axis=2)
        fine = np.sum(there * self._fine**2, axis=2) - n * self._noise
        return fine + n * self._step**2, fine, n

    def seen_in(self, image: Float, there: Mask, number: int) -> Seen:
        """Compare a frame.

        Parameters
        ----------
        image
            Counts, brought onto the reference, shape (height, width).
        there
            Pixels that are in the frame, same shape.
        number
            Of the frame; noise is shared with looks that it is part of.
        """
        seen = np.asarray(in_blocks(there), dtype=np.float64)
        power, fine_power, n = self._powers(seen)
        use = self.used & (n >= MIN_SEEN * BLOCK_PX**2)
        now = _Parts.of(np.asarray(in_blocks(image), np.float64), seen, self._last_level)
        away, fine = now.level - self._first.level, seen * (now.fine - self._first.fine)
        noise = self._noise_of(now.scale, number)
        with np.errstate(invalid="ignore", divide="ignore"):
            product = np.sum(fine * self._fine, axis=2) - n * noise.product
            share = (product + n * away * self._step) / power
            v = noise.residual(np.clip(share, 0.0, 1.0))
            sigma = np.sqrt(v * (power + n * self._noise)) / power
            grains = (np.sum(fine**2, axis=2) - n * noise.frame) / fine_power
            grains_sigma = (
                np.sqrt(
                    2 * n * noise.frame**2 + 4 * np.clip(grains, 0, None) * fine_power * noise.frame
                )
                / fine_power
            )
        share, sigma = np.where(use, share, np.nan), np.where(use, sigma, np.nan)
        both = use & self.grains_tell
        return Seen(
            share=share,
            sigma=sigma,
            slope=_mean(share[use], sigma[use], n[use]),
            partly=_partly(share[use], sigma[use], power[use] / n[use], n[use]),
            pair=_pair(share, sigma, grains, grains_sigma, n, both),
        )

    def _noise_of(self, scale: Float, number: int) -> "_Noise":
        own = self._gain * self._last_level
        return _Noise(
            own=own * scale,
            before=own * self._first.scale / len(self._before.frames),
            after=own / len(self._after.frames),
            in_before=float(number in self._before.frames) / len(self._before.frames),
            in_after=float(number in self._after.frames) / len(self._after.frames),
        )


def _level(blocks: Float, there: Float) -> Float:
    mean = np.sum(blocks * there, axis=2) / np.maximum(there.sum(axis=2), 1)
    return np.asarray(np.maximum(mean, 1e-9))


@dataclass(frozen=True, slots=True)
class _Parts:
    """Level of blocks, and what is finer, as if they were as bright as they will be."""

    level: Float
    fine: Float
    scale: Float  # of the variance of counts, by that

    @classmethod
    def of(cls, blocks: Float, there: Float, last_level: Float) -> "_Parts":
        level = _level(blocks, there)
        ratio = last_level / level
        fine = (blocks - level[..., None]) * ratio[..., None] * (there > 0)
        return cls(level, fine, ratio)


@dataclass(frozen=True, slots=True)
class _Noise:
    """Variances of counting noise in blocks, of a frame against looks it may be part of."""

    own: Float
    before: Float
    after: Float
    in_before: float
    in_after: float

    @property
    def frame(self) -> Float:
        """Of the frame less the look before."""
        return np.asarray(self.own * (1 - 2 * self.in_before) + self.before)

    @property
    def product(self) -> Float:
        """Covariance of that with the whole change."""
        return np.asarray(self.own * (self.in_after - self.in_before) + self.before)

    def residual(self, share: Float) -> Float:
        """Of a frame less the patchwork of both looks."""
        v = self.own * (1 - 2 * self.in_before * (1 - share) - 2 * self.in_after * share)
        return np.maximum(v + (1 - share) ** 2 * self.before + share**2 * self.after, 0.0)


def _weights(share: Float, sigma: Float, size: Float) -> tuple[Float, float]:
    """Return the weights of blocks in a mean over the field, and the variance of their shares.

    By counting noise where blocks are alike, by size where they are not.
    """
    w = 1 / sigma**2
    mean = float(w @ share) / float(w.sum())
    # The spread of the blocks themselves: DerSimonian and Laird's moment.
    beyond = float(w @ (share - mean) ** 2) - (len(share) - 1)
    spread = max(beyond / float(w.sum() - (w**2).sum() / w.sum()), 0.0)
    even = size / size.sum()
    if spread == 0:
        return w / w.sum(), 0.0
    by_noise = even * spread / (spread + sigma**2)
    return by_noise / by_noise.sum(), spread


def _mean(share: Float, sigma: Float, size: Float) -> tuple[float, float]:
    if len(share) < 2:
        return math.nan, math.nan
    w, spread = _weights(share, sigma, size)
    variance = float(w**2 @ sigma**2) + spread * float(np.sum((w - size / size.sum()) ** 2))
    return float(w @ share), math.sqrt(variance)


def _partly(share: Float, sigma: Float, power: Float, size: Float) -> float:
    """Return the sigma by blocks of a patchwork: which part of its change lies in one's share."""
    if len(share) < 2:
        return math.nan
    uneven = float(np.var(power)) / float(np.mean(power)) ** 2
    partly = float(np.sum((size / size.sum()) ** 2 * (share * (1 - share) + sigma**2)))
    return math.sqrt(max(uneven * partly, 0.0))


def _pair(
    share: Float, sigma: Float, grains: Float, grains_sigma: Float, size: Float, use: Mask
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return slope and power of the grains over the same blocks."""
    nothing = (math.nan, math.nan), (math.nan, math.nan)
    if int(use.sum()) < 4:
        return nothing
    # The weights of the slope's own mean, so that both tell of the same places.
    w, _ = _weights(share[use], sigma[use], size[use])
    return (
        (float(w @ share[use]), math.sqrt(float(w**2 @ sigma[use] ** 2))),
        (float(w @ grains[use]), math.sqrt(float(w**2 @ grains_sigma[use] ** 2))),
    )


def kind_of(seen: Sequence[Seen], grains_share: float) -> Kind:
    """Return what slopes stand for, by the power of the grains in all frames.

    Parameters
    ----------
    seen
        What frames tell.
    grains_share
        Of the power of the whole change. What grains do not carry goes straight in any case,
        so that b lies between 1 less this share, and 1.
    """
    told: list[tuple[float, float, float]] = []
    for one in seen:
        (g, g_sigma), (h, h_sigma) = one.pair
        if not (math.isfinite(g + h) and TOLD[0] + 2 * h_sigma < h < TOLD[1] - 2 * h_sigma):
            continue
        root = math.sqrt(h)
        slope = abs(1 - 0.5 / root) if root > 0 else 1.0
        told.append((root - h, g - h, math.hypot(g_sigma, (0.3 + slope) * h_sigma)))
    width = max(grains_share, 1e-3) / math.sqrt(12)
    weight, total = 1 / width**2, 0.5 * grains_share / width**2
    for room, bent, sigma in told:
        weight += (room / sigma) ** 2
        total += room * bent / sigma**2
    bend = min(max(total / weight, 0.0), 1.0)
    own = 1 / math.sqrt(weight)
    if len(told) > 1:
        # Frames that agree less than their counts allow: Birge's ratio.
        chi2 = sum(((bent - bend * room) / sigma) ** 2 for room, bent, sigma in told)
        own = min(own * math.sqrt(max(chi2 / (len(told) - 1), 1.0)), width)
    return Kind(
        straight=1 - bend,
        sigma=own,
        patchwork=min(max(1 - bend / max(grains_share, 1e-3), 0.0), 1.0),
    )


def fraction(seen: Seen, kind: Kind) -> tuple[float, float]:
    """Return the converted fraction of a frame and its sigma."""
    slope, own = seen.slope
    value = kind.fraction(slope)
    root = math.sqrt(abs(value))
    sigma = math.hypot(own, kind.patchwork * seen.partly, kind.sigma * (root - value))
    nodes = [kind.fraction(slope + node * sigma) for node in NODES[0]]
    mean = sum(w * f for w, f in zip(NODES[1], nodes, strict=True))
    return value, math.sqrt(sum(w * (f - mean) ** 2 for w, f in zip(NODES[1], nodes, strict=True)))
