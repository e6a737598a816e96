"""Level and texture of blocks of a frame above shot noise, and the scale of its grains."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float = NDArray[np.float64]
STEPS = 30
RINGS = 48
MIN_SIGMAS = 5.0  # of the grains' power, below which no scale is told
HALF_WIDTH = 4 * math.sqrt(math.log(2))  # of the autocorrelation, in full, by a grain's sigma


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Two numbers of each block of a frame.

    Parameters
    ----------
    level, level_variance
        Mean count, and the variance of that mean; shape (rows, columns).
    texture, texture_variance
        Variance of the expected count in a block over the square of its mean, without shot
        noise; and the variance of that.
    """

    level: Float
    level_variance: Float
    texture: Float
    texture_variance: Float


def blocks_of(image: Float, side_px: int, gain: float) -> Blocks:
    """Return level and texture of square blocks.

    Parameters
    ----------
    image
        Counts or grey levels, shape (height, width).
    side_px
        Of a block; what is left over at the right and at the bottom takes no part.
    gain
        Variance over mean of what shot noise makes of the pixels; 1 for counts.
    """
    rows, columns = image.shape[0] // side_px, image.shape[1] // side_px
    cut = image[: rows * side_px, : columns * side_px]
    parts = cut.reshape(rows, side_px, columns, side_px).swapaxes(1, 2).reshape(rows, columns, -1)
    n = parts.shape[2]
    level = np.maximum(parts.mean(axis=2), 1e-9)
    spread = parts.var(axis=2, ddof=1)
    above = spread - gain * level
    # Of the shot noise alone: what the texture is, is the block's own. The square of a Poisson
    # count spreads by its fourth moment, 3 + 1/m.
    shot = gain * level
    variance = (2 * shot**2 + gain**2 * shot + 4 * np.maximum(above, 0.0) * shot) / n
    return Blocks(
        level=level,
        level_variance=shot / n,
        texture=above / level**2,
        texture_variance=variance / level**4,
    )


def ring_powers(image: Float) -> tuple[Float, Float, Float]:
    """Return frequency in cycles per px, mean power, and number of modes, by rings.

    Power is that of the relative deviation from the mean, for white noise its variance, under a
    Hann window.
    """
    height, width = image.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    mean = float(image.mean())
    modes = fft.rfft2((image / mean - 1) * window)
    power = np.abs(modes) ** 2 / np.sum(window**2)
    radius = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :])
    ring = np.floor(radius / 0.5 * RINGS).astype(int)
    # Rings near zero hold the shape of the specimen, those in the corners are cut.
    used = (ring >= 1) & (ring < RINGS)
    count = np.bincount(ring[used], minlength=RINGS)[1:]
    total = np.bincount(ring[used], power[used], RINGS)[1:]
    at = np.bincount(ring[used], radius[used], RINGS)[1:] / np.maximum(count, 1)
    # Neighbouring modes of a window share what they tell.
    independent = count * float(np.sum(window**2) ** 2 / np.sum(window**4) / window.size)
    return at, total / np.maximum(count, 1), np.maximum(independent, 1e-9)


def grain_scale(at: Float, power: Float, modes: Float, before: Float) -> tuple[float, float]:
    """Return the scale of grains in px, and its sigma; NaN where they do not stand out.

    Whittle's likelihood of ``P0(q) + W + A exp(-(2 pi q s)^2)``: P0 is the power before,
    W what shot noise has become, and s the grains' sigma. The scale is the full half width of
    the grains' autocorrelation, ``4 sqrt(ln 2) s``.

    Parameters
    ----------
    at, power, modes
        Of rings, by `ring_powers`.
    before
        Power of the pristine specimen in these rings, with its shot noise.
    """
    high = at > 0.4
    white = float(np.mean((power - before)[high]))
    low = float(np.mean((power - before - white)[at < 0.1]))
    best: tuple[float, float, float] = (math.nan, math.nan, -math.inf)
    for start in (0.7, 1.0, 1.5, 2.2, 3.3, 5.0):
        found = _climb(at, power, modes, before, np.array([max(low, 1e-9), start, white]))
        if found[2] > best[2]:
            best = found
    return best[0] * HALF_WIDTH, best[1] * HALF_WIDTH


def _climb(
    at: Float, power: Float, modes: Float, before: Float, p: Float
) -> tuple[float, float, float]:
    """Return the grains' sigma, its own sigma, and the likelihood."""
    nothing = math.nan, math.nan, -math.inf
    q2 = (2 * np.pi * at) ** 2
    covariance, model = np.full((3, 3), np.nan), before
    for _ in range(STEPS):
        bell = np.exp(-q2 * p[1] ** 2)
        model = before + p[2] + p[0] * bell
        if np.any(model <= 0):
            return nothing
        slope = np.stack([bell, -2 * p[0] * p[1] * q2 * bell, np.ones(len(at))])
        fisher = (slope * modes / model**2) @ slope.T
        scale = np.sqrt(np.diag(fisher))
        if not np.all(np.isfinite(scale)) or np.any(scale == 0):
            return nothing
        relative = fisher / np.outer(scale, scale)
        if np.linalg.det(relative) < 1e-9:
            return nothing
        covariance = np.linalg.inv(relative) / np.outer(scale, scale)
        step = covariance @ (slope @ (modes * (power - model) / model**2))
        step = np.clip(step, -0.5 * np.abs(p) - 1e-9, 0.5 * np.abs(p) + 1e-9)
        p = p + step
        if abs(step[1]) < 1e-3 * math.sqrt(covariance[1, 1]):
            break
    own = math.sqrt(covariance[0, 0])
    sigma = math.sqrt(covariance[1, 1])
    if p[0] < MIN_SIGMAS * own or not 0 < sigma < p[1]:
        return nothing
    likely = -float(np.sum(modes * (np.log(model) + power / model)))
    return float(p[1]), sigma, likely
