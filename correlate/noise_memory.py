"""Memory of noise that is told apart from steps: they are rare, so medians pass over them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.autoregression import MOST_TERMS

Floats = NDArray[np.float64]

NORMAL = 1.4826  # from the median magnitude of a normal distribution to its spread
SHARES = 20  # of memory that are tried
SHARE_OF_RECORD = 40  # the longest difference: so many steps are still rare


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseMemory:
    """Noise that forgets at one rate, with white noise on top, of one or many series.

    Parameters
    ----------
    kept
        Share that is kept from one sample to the next, shape (m,).
    slow, white
        Variances of both parts, shape (m,).
    """

    kept: Floats
    slow: Floats
    white: Floats

    def whitening(self) -> Floats:
        """Return the autoregression of each, shape (m, terms), by Levinson's recursion."""
        total = np.maximum(self.slow + self.white, np.finfo(float).tiny)
        lags = np.arange(1, MOST_TERMS + 1)
        r = (self.slow / total)[:, None] * self.kept[:, None] ** lags
        terms = np.zeros((len(total), 0))
        left = np.ones(len(total))
        for order in range(MOST_TERMS):
            known = np.einsum("ij,ij->i", terms, r[:, :order][:, ::-1])
            reflection = (r[:, order] - known) / left
            terms = np.concatenate(
                [terms - reflection[:, None] * terms[:, ::-1], reflection[:, None]], axis=1
            )
            left = left * (1 - reflection**2)
        return terms

    def drawn(self, n: int, count: int, rng: np.random.Generator) -> Floats:
        """Return records of the first of these noises, shape (count, n)."""
        kept, slow, white = float(self.kept[0]), float(self.slow[0]), float(self.white[0])
        push = np.sqrt(slow * (1 - kept**2))
        memory = push * rng.standard_normal((count, n))
        memory[:, 0] += kept * np.sqrt(slow) * rng.standard_normal(count)
        for row in range(1, n):
            memory[:, row] += kept * memory[:, row - 1]
        return np.asarray(memory + np.sqrt(white) * rng.standard_normal((count, n)))


def fit_noise_memory(series: Floats) -> NoiseMemory:
    """Fit the noise of series that may have a few steps, each by itself.

    The variance of differences over k samples is ``2 slow (1 - kept**k) + 2 white``; its
    robust estimate, from the median magnitude, hardly sees steps that are rarer than k.

    Parameters
    ----------
    series
        Shape (m, n), NaN in gaps.
    """
    n = series.shape[-1]
    lags = np.unique(np.round(np.geomspace(1, max(n // SHARE_OF_RECORD, 4), 10)).astype(int))
    seen = np.stack([_difference_variance(series, int(k)) for k in lags], axis=-1) / 2
    weight = 1 / np.maximum(seen, np.finfo(float).tiny) ** 2 / lags  # long ones overlap
    shares = np.concatenate([[0.0], 1 - np.geomspace(0.9, 1 / n, SHARES)])
    best = np.full(len(series), np.inf)
    kept, slow, white = np.zeros((3, len(series)))
    for share in shares:
        a, b, misfit = _two_parts(seen, weight, 1 - share**lags)
        better = misfit < best
        best = np.where(better, misfit, best)
        kept, slow, white = (
            np.where(better, new, old) for new, old in ((share, kept), (a, slow), (b, white))
        )
    return NoiseMemory(kept=kept, slow=slow, white=white)


def _difference_variance(series: Floats, k: int) -> Floats:
    apart = series[:, k:] - series[:, :-k]
    middle = np.nanmedian if np.isnan(apart).any() else np.median
    return np.asarray((NORMAL * middle(np.abs(apart), axis=-1)) ** 2)


def _two_parts(seen: Floats, weight: Floats, shape: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit ``seen = a shape + b`` with neither negative; return a, b and the misfit."""
    total, first = weight.sum(axis=-1), weight @ shape
    second = weight @ shape**2
    y, yx = (weight * seen).sum(axis=-1), (weight * seen) @ shape
    bottom = total * second - first**2
    flat = bottom <= 1e-12 * total * second
    a = np.where(flat, 0.0, (total * yx - first * y) / np.where(flat, 1.0, bottom))
    b = (y - a * first) / total
    only_slow, only_white = yx / second, y / total
    a, b = (
        np.where(b < 0, only_slow, np.where(a < 0, 0.0, a)),
        np.where(b < 0, 0.0, np.where(a < 0, only_white, b)),
    )
    rest = seen - a[:, None] * shape - b[:, None]
    return a, b, (weight * rest**2).sum(axis=-1)
