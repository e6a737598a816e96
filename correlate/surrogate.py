"""Series that share a series' spectrum but nothing else: the null of a correlation.

Phase randomisation after Theiler et al., Physica D 58, 77 (1992); the amplitude-adjusted
iteration after Schreiber and Schmitz, Phys. Rev. Lett. 77, 635 (1996).
"""

import numpy as np
from numpy.typing import NDArray

IAAFT_ROUNDS = 30


def phase_randomised(series: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a series with the same power spectrum and random phases, shape (n,)."""
    n = len(series)
    spectrum = np.fft.rfft(series - series.mean())
    phase = rng.uniform(0, 2 * np.pi, len(spectrum))
    phase[0] = 0.0
    if n % 2 == 0:
        phase[-1] = 0.0
    randomised = np.fft.irfft(np.abs(spectrum) * np.exp(1j * phase), n)
    return np.asarray(randomised + series.mean())


def iaaft(series: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a series with the same values and nearly the same spectrum, shape (n,)."""
    ordered = np.sort(series)
    modulus = np.abs(np.fft.rfft(series))
    surrogate = rng.permutation(series)
    for _ in range(IAAFT_ROUNDS):
        spectrum = np.fft.rfft(surrogate)
        turned = modulus * np.exp(1j * np.angle(spectrum))
        rank = np.argsort(np.argsort(np.fft.irfft(turned, len(series))))
        surrogate = ordered[rank]
    return surrogate


def redrawn_steps(
    levels: NDArray[np.float64],
    lengths: NDArray[np.int_],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return a step protocol with the same levels in random order and random lengths.

    Parameters
    ----------
    levels
        Level of each step.
    lengths
        Samples of each step; the sum is kept, each is at least one.
    """
    total, count = int(lengths.sum()), len(levels)
    cuts = np.sort(rng.choice(np.arange(1, total), count - 1, replace=False))
    new = np.diff(np.concatenate([[0], cuts, [total]]))
    return np.repeat(rng.permutation(levels), new)
