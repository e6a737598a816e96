"""Series that share a series' memory but nothing else: the null of a correlation.

Phase randomisation after Theiler et al., Physica D 58, 77 (1992); the amplitude-adjusted
iteration after Schreiber and Schmitz, Phys. Rev. Lett. 77, 635 (1996). Both touch one
series only: the other, such as the steps of a protocol, keeps its structure.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]

IAAFT_ROUNDS = 10  # from random phases on, which is nearly there
BLOCK_VALUES = 1 << 20  # of surrogates that are in memory at once


class Surrogate(StrEnum):
    """How surrogates are drawn."""

    PHASE = "random phases"
    IAAFT = "iaaft"


def surrogates(
    series: Floats, count: int, rng: np.random.Generator, kind: Surrogate
) -> Iterator[Floats]:
    """Yield surrogates in blocks of shape (rows, n), ``count`` rows in all.

    Parameters
    ----------
    series
        Shape (n,), NaN in gaps. The surrogates have no gaps: whoever compares them with
        the series leaves out the same places.
    """
    draw: Callable[[Floats, int, np.random.Generator], Floats]
    draw = phase_randomised if kind is Surrogate.PHASE else iaaft
    rows = int(np.clip(BLOCK_VALUES // len(series), 1, count))
    for first in range(0, count, rows):
        yield draw(series, min(rows, count - first), rng)


def power(series: Floats) -> Floats:
    """Return the squared modulus of each Fourier mode, shape (n // 2 + 1,).

    In a series with gaps (NaN) it comes from the products of the pairs that are there,
    over their number; what noise makes negative of it is 0.
    """
    n = len(series)
    used = np.isfinite(series)
    centred = np.where(used, series - series[used].mean(), 0.0)
    raw = np.abs(fft.rfft(centred)) ** 2
    if used.all():
        return np.asarray(raw)
    pairs = np.rint(fft.irfft(np.abs(fft.rfft(used.astype(np.float64))) ** 2, n))
    covariance = np.where(pairs > 0, fft.irfft(raw, n) / np.maximum(pairs, 1), 0.0)
    whole = np.maximum(fft.rfft(n * covariance).real, 0.0)
    whole[0] = 0.0
    return np.asarray(whole)


def phase_randomised(series: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return series with the same power spectrum and random phases, shape (count, n)."""
    n = len(series)
    modulus = np.sqrt(power(series))
    turned = modulus * np.exp(2j * np.pi * rng.random((count, len(modulus))))
    turned[:, 0] = 0.0
    if n % 2 == 0:
        turned[:, -1] = modulus[-1] * rng.choice([-1.0, 1.0], count)
    return np.asarray(fft.irfft(turned, n) + np.nanmean(series))


def iaaft(series: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return series with the same values and nearly the same spectrum, shape (count, n).

    In a series with gaps the sorted values that are there are stretched over all places.
    """
    n = len(series)
    there = np.sort(series[np.isfinite(series)])
    ordered = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(there)), there)
    mean = ordered.mean()
    modulus = np.sqrt(power(series))
    drawn = np.empty((count, n))
    places = np.arange(count)[:, None]
    drawn[places, np.argsort(phase_randomised(series, count, rng), axis=1)] = ordered
    for _ in range(IAAFT_ROUNDS):
        spectrum = fft.rfft(drawn - mean)
        size = np.abs(spectrum)
        spectrum *= modulus / np.where(size > 0, size, 1.0)
        drawn[places, np.argsort(fft.irfft(spectrum, n), axis=1)] = ordered
    return drawn
