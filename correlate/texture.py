"""The scale of grains in an image that holds counting noise, by Whittle's likelihood."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Float = NDArray[np.float64]
STEPS = 30
RINGS = 48
TAPER = 8  # parts of a side, of which the first and the last fade
SMOOTH_PX = 12.0  # Gaussian sigma; what is wider is no grain
FIRST_RING = 2
MIN_SIGMAS = 5.0  # of the grains' power, below which no scale is told
STARTS_PX = (0.7, 1.0, 1.5, 2.2, 3.3, 5.0)
HALF_WIDTH = 4 * math.sqrt(math.log(2))  # of the autocorrelation, in full, by a grain's sigma


def taper(n: int) -> Float:
    """Return a window that is flat in the middle, shape (n,)."""
    edge = max(n // TAPER, 1)
    at = np.minimum(np.arange(n), np.arange(n)[::-1])
    return np.where(at < edge, 0.5 - 0.5 * np.cos(np.pi * (at + 0.5) / edge), 1.0)


def ring_powers(image: Float) -> tuple[Float, Float, Float]:
    """Return frequency in cycles per px, mean power, and number of modes, by rings.

    Parameters
    ----------
    image
        Shape (height, width); for white noise the power is its variance.
    """
    height, width = image.shape
    window = np.outer(taper(height), taper(width))
    wide = ndimage.gaussian_filter(image, SMOOTH_PX, mode="nearest")
    power = np.abs(fft.rfft2((image - wide) * window)) ** 2 / np.sum(window**2)
    radius = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :])
    ring = np.floor(radius / 0.5 * RINGS).astype(int)
    used = (ring >= FIRST_RING) & (ring < RINGS)
    # Modes without a frequency along x come in pairs that say the same.
    weight = np.ones(power.shape)
    weight[:, 0] = 0.5
    if width % 2 == 0:
        weight[:, -1] = 0.5
    ring, weight = ring[used], weight[used]
    count = np.bincount(ring, weight, RINGS)[FIRST_RING:]
    total = np.bincount(ring, weight * power[used], RINGS)[FIRST_RING:]
    at = np.bincount(ring, weight * radius[used], RINGS)[FIRST_RING:] / np.maximum(count, 1e-9)
    # Neighbouring modes of a window share what they tell.
    own = float(np.sum(window**2) ** 2 / np.sum(window**4) / window.size)
    full = count > 0
    return at[full], total[full] / count[full], np.asarray(count[full] * own, np.float64)


def grain_scale(at: Float, power: Float, modes: Float) -> tuple[float, float]:
    """Return the scale of grains in px, and its sigma; NaN where they do not stand out.

    Whittle's likelihood of ``W + A exp(-(2 pi q s)^2)``: W is counting noise and s the grains'
    sigma. The scale is the full half width of the grains' autocorrelation, ``4 sqrt(ln 2) s``.

    Parameters
    ----------
    at, power, modes
        Of rings, by `ring_powers`.
    """
    white = float(np.mean(power[at > 0.4]))
    low = float(np.mean(power[at < 0.1])) - white
    best: tuple[float, float, float] = (math.nan, math.nan, -math.inf)
    for start in STARTS_PX:
        found = _climb(at, power, modes, np.array([max(low, 1e-9 * white), start, white]))
        if found[2] > best[2]:
            best = found
    return best[0] * HALF_WIDTH, best[1] * HALF_WIDTH


def _climb(at: Float, power: Float, modes: Float, p: Float) -> tuple[float, float, float]:
    """Return the grains' sigma, its own sigma, and the likelihood."""
    nothing = math.nan, math.nan, -math.inf
    q2 = (2 * np.pi * at) ** 2
    # What has been smoothed away is missing from grains and noise.
    left = (1 - np.exp(-0.5 * q2 * SMOOTH_PX**2)) ** 2
    covariance, model = np.full((3, 3), np.nan), power
    for _ in range(STEPS):
        bell = np.exp(-q2 * p[1] ** 2)
        model = left * (p[2] + p[0] * bell)
        if np.any(model <= 0):
            return nothing
        slope = left * np.stack([bell, -2 * p[0] * p[1] * q2 * bell, np.ones(len(at))])
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
    sigma = math.sqrt(covariance[1, 1])
    if p[0] < MIN_SIGMAS * math.sqrt(covariance[0, 0]) or not 0 < sigma < p[1]:
        return nothing
    return float(p[1]), sigma, -float(np.sum(modes * (np.log(model) + power / model)))
