"""The scale of grains in an image that holds counting noise, by Whittle's likelihood."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float = NDArray[np.float64]
STEPS = 30
RINGS = 96
TAPER = 4  # parts of a side, of which the first and the last fade
MOST_WIDENED = 0.3  # of a spectrum's variance, by the window
FIRST_RING = 4  # beyond what changes over the field
MIN_SIGMAS = 5.0  # of the grains' power, below which no scale is told
STARTS_PX = (0.9, 2.2, 5.0)
HALF_WIDTH = 4 * math.sqrt(math.log(2))  # of the autocorrelation, in full, by a grain's sigma


class GrainRings:
    """Rings of the frequencies of frames of one shape.

    Parameters
    ----------
    shape
        Height and width.

    Attributes
    ----------
    weight
        How much each pixel tells, shape (height, width).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        height, width = shape
        fy, fx = fft.fftfreq(height), fft.rfftfreq(width)
        q2 = fy[:, None] ** 2 + fx[None, :] ** 2
        window = np.outer(_taper(height), _taper(width))
        self.weight: Float = window**2
        self._share = (window / window.sum()).astype(np.float32)
        # What the window widens a spectrum by, along either axis, in the mean.
        self._widened = float(np.mean([_spread(_taper(n)) for n in shape]))
        self._window = (window / math.sqrt(float(np.sum(window**2)))).astype(np.float32)
        radius = np.sqrt(q2)
        # All beyond the last ring, and below the first, go to one that is not looked at.
        ring = np.floor(radius / 0.5 * RINGS).astype(np.intp)
        ring = np.where((ring >= FIRST_RING) & (ring < RINGS), ring, RINGS)
        # Modes without a frequency along x come in pairs that say the same.
        weight = np.ones(ring.shape)
        weight[:, 0] = 0.5
        if width % 2 == 0:
            weight[:, -1] = 0.5
        self._ring, self._weight = ring.ravel(), weight.ravel()
        count = np.bincount(self._ring, self._weight, RINGS + 1)[FIRST_RING:RINGS]
        self._full = count > 0
        total = np.bincount(self._ring, self._weight * radius.ravel(), RINGS + 1)
        self._at = total[FIRST_RING:RINGS][self._full] / count[self._full]
        self._count = count[self._full]
        # Neighbouring modes of a window share what they tell.
        own = float(np.sum(window**2) ** 2 / np.sum(window**4) / window.size)
        self._modes: Float = np.asarray(self._count * own, dtype=np.float64)

    def powers(self, modes: NDArray[np.complex64]) -> tuple[Float, Float, Float]:
        """Return frequency in cycles per px, mean power, and number of modes, by rings.

        Parameters
        ----------
        modes
            Of an image; for white noise the power is its variance.
        """
        image = fft.irfft2(modes, s=self._shape)
        image -= np.vdot(self._share, image)
        seen = fft.rfft2(image * self._window)
        power = (seen.real**2 + seen.imag**2).ravel()
        total = np.bincount(self._ring, power * self._weight, RINGS + 1)[FIRST_RING:RINGS]
        return self._at, total[self._full] / self._count, self._modes

    def scale(self, modes: NDArray[np.complex64], filled: float = 1.0) -> tuple[float, float]:
        """Return the scale of grains in px and its sigma, see `grain_scale`."""
        found, sigma = grain_scale(*self.powers(modes), filled)
        wider = 2 * (2 * math.pi * found / HALF_WIDTH) ** 2 * self._widened
        if not wider < MOST_WIDENED:
            return math.nan, math.nan
        return found / math.sqrt(1 - wider), sigma / (1 - wider) ** 1.5


def _spread(window: Float) -> float:
    """Return the variance of a window's spectrum, (cycles per px)^2."""
    return float(np.sum(np.diff(window) ** 2) / np.sum(window**2)) / (4 * math.pi**2)


def _taper(n: int) -> Float:
    """Return a window that is flat in the middle, shape (n,)."""
    edge = max(n // TAPER, 1)
    at = np.minimum(np.arange(n), np.arange(n)[::-1])
    return np.where(at < edge, 0.5 - 0.5 * np.cos(np.pi * (at + 0.5) / edge), 1.0)


def filled_part(share: Float, variance: Float, weight: Float, square: Float) -> float:
    """Return in what part of a field grains are, as told by blocks; 1 where that is not known.

    Parameters
    ----------
    share, variance
        Of all grains, that are in a block, and of its noise, shape (n,).
    weight, square
        Sums of `GrainRings.weight` and of its square in blocks, shape (n,).
    """
    whole = float(weight.sum())
    mean = float(weight @ share) / whole
    own = math.sqrt(float(weight**2 @ variance)) / whole
    mean_square = float(square @ (share**2 - variance)) / float(square.sum())
    if mean < MIN_SIGMAS * own or mean_square <= 0:
        return 1.0
    return min(mean**2 / mean_square, 1.0)


def grain_scale(at: Float, power: Float, modes: Float, filled: float = 1.0) -> tuple[float, float]:
    """Return the scale of grains in px, and its sigma; NaN where they do not stand out.

    Whittle's likelihood of ``W + A exp(-(2 pi q s)^2)``: W is counting noise and s the grains'
    sigma. The scale is the full half width of the grains' autocorrelation, ``4 sqrt(ln 2) s``.

    Parameters
    ----------
    at, power, modes
        Of rings, by `GrainRings`.
    filled
        Part of the field in which grains are: fewer of them scatter more.
    """
    white = float(np.mean(power[at > 0.4]))
    low = float(np.mean(power[at < 0.1])) - white
    best: tuple[float, float, float] = (math.nan, math.nan, -math.inf)
    for start in STARTS_PX:
        begin = np.array([max(low, 1e-9 * white), start, white])
        found = _climb(at, power, modes, begin, filled)
        if found[2] > best[2]:
            best = found
    return best[0] * HALF_WIDTH, best[1] * HALF_WIDTH


def _climb(
    at: Float, power: Float, modes: Float, p: Float, filled: float
) -> tuple[float, float, float]:
    """Return the grains' sigma, its own sigma, and the likelihood."""
    nothing = math.nan, math.nan, -math.inf
    q2 = (2 * np.pi * at) ** 2
    covariance, model, slope = np.full((3, 3), np.nan), power, np.zeros((3, len(at)))
    for _ in range(STEPS):
        bell = np.exp(-q2 * p[1] ** 2)
        model = p[2] + p[0] * bell
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
    stands = p[0] >= MIN_SIGMAS * math.sqrt(covariance[0, 0])
    # What grains in a part of the field scatter beyond those that are everywhere.
    more = (p[0] * np.exp(-q2 * p[1] ** 2)) ** 2 * (1 / filled - 1)
    pulled = covariance @ slope / model**2
    covariance = covariance + (pulled * modes * more) @ pulled.T
    sigma = math.sqrt(covariance[1, 1])
    if not stands or not 0 < sigma < p[1]:
        return nothing
    return float(p[1]), sigma, -float(np.sum(modes * (np.log(model) + power / model)))
