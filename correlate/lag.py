"""Whether two rates go together, with which lag, and how surely.

The statistic is the largest correlation within the declared lags, and its null comes
from surrogates, so memory in the series and the choice of the best lag are both paid for.
Rates only: positions and charges are sums, and sums of unrelated noise correlate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.surrogate import phase_randomised, redrawn_steps

MIN_SAMPLES = 30
DELTA_CHI2_95 = 3.84
FINE = 20  # lag steps in one sample, for the interval


class NotEnoughData(ValueError):
    """There are too few samples to say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LagResult:
    """What was found, beside what chance gives.

    Parameters
    ----------
    lag_s, r
        Correlation of the first series, ``lag_s`` later, with the second; shape (m,).
    r_max, lag_at_max_s
        Where its magnitude is largest.
    lag_low_s, lag_high_s
        Interval of 95 % of the lag, from the misfit of a delayed straight relation with
        its residuals' own memory; NaN where the lag is not determined.
    surrogate_band
        95th percentile of the largest magnitude under the null.
    p, smallest_p
        Share of surrogates at least as large, and the smallest that their number allows.
    n, n_effective
        Samples, and their number when memory is taken into account (lag 0).
    null
        What the surrogates were.
    """

    lag_s: NDArray[np.floating]
    r: NDArray[np.float64]
    r_max: float
    lag_at_max_s: float
    lag_low_s: float
    lag_high_s: float
    surrogate_band: float
    p: float
    smallest_p: float
    n: int
    n_effective: float
    null: str


def cross_correlation(
    first: NDArray[np.float64], second: NDArray[np.float64], max_lag: int
) -> NDArray[np.float64]:
    """Return r for lags from -max_lag to max_lag: positive where ``first`` is later.

    Each product sum is divided by the number of its terms.
    """
    n = len(first)
    a, b = _standard(first), _standard(second)
    size = 2 * n
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    lags = np.arange(-max_lag, max_lag + 1)
    return np.asarray(product[lags % size] / (n - np.abs(lags)))


def _standard(series: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = series.std()
    return np.asarray((series - series.mean()) / (spread if spread > 0 else 1.0))


def lag_correlation(
    rate: NDArray[np.float64],
    drive: NDArray[np.float64],
    *,
    step_s: float,
    max_lag_s: float,
    rng: np.random.Generator,
    surrogates: int = 999,
    protocol: tuple[NDArray[np.float64], NDArray[np.int_]] | None = None,
    clock_sigma_s: float = 0.0,
) -> LagResult:
    """Test whether a rate follows a drive.

    Parameters
    ----------
    rate
        Rate seen in the images, evenly spaced, shape (n,).
    drive
        Electrical quantity on the same times, shape (n,).
    step_s
        Spacing of the samples.
    max_lag_s
        Lags that are looked at, declared before looking.
    rng
        Of the surrogates.
    surrogates
        Their number.
    protocol
        Levels and lengths of a step protocol that the drive follows. A step protocol is
        not stationary, so its own steps are drawn anew; without one the phases of the
        rate are.
    clock_sigma_s
        Uncertainty of the time between both series, added to the interval of the lag.

    Raises
    ------
    NotEnoughData
        Fewer than 30 samples, or a series that does not vary.
    """
    n = len(rate)
    if n < MIN_SAMPLES or np.std(rate) == 0 or np.std(drive) == 0:
        raise NotEnoughData(
            f"{n} samples are too few, or one series does not vary: at least "
            f"{MIN_SAMPLES} varying samples are needed"
        )
    max_lag = max(1, min(round(max_lag_s / step_s), n // 3))
    r = cross_correlation(rate, drive, max_lag)
    best = int(np.argmax(np.abs(r)))
    lags_s = np.arange(-max_lag, max_lag + 1, dtype=np.float64) * step_s
    draw = _null(rate, drive, protocol, rng)
    chance = np.empty(surrogates)
    for i in range(surrogates):
        first, second = draw()
        chance[i] = np.max(np.abs(cross_correlation(first, second, max_lag)))
    exceed = int(np.sum(chance >= abs(r[best])))
    low_s, high_s = _lag_interval(rate, drive, step_s, max_lag, clock_sigma_s)
    return LagResult(
        lag_s=lags_s,
        r=r,
        r_max=float(r[best]),
        lag_at_max_s=float(lags_s[best]),
        lag_low_s=low_s,
        lag_high_s=high_s,
        surrogate_band=float(np.quantile(chance, 0.95)),
        p=(1 + exceed) / (1 + surrogates),
        smallest_p=1 / (1 + surrogates),
        n=n,
        n_effective=effective_number(rate, drive),
        null="steps drawn anew" if protocol is not None else "random phases",
    )


_Draw = Callable[[], tuple[NDArray[np.float64], NDArray[np.float64]]]


def _null(
    rate: NDArray[np.float64],
    drive: NDArray[np.float64],
    protocol: tuple[NDArray[np.float64], NDArray[np.int_]] | None,
    rng: np.random.Generator,
) -> _Draw:
    if protocol is None:
        return lambda: (phase_randomised(rate, rng), drive)
    levels, lengths = protocol
    return lambda: (rate, redrawn_steps(levels, lengths, rng))


def effective_number(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the effective number of independent pairs at lag 0 (Bartlett's formula)."""
    n = len(first)
    lags = np.arange(1, max(n // 5, 2))
    a = cross_correlation(first, first, len(lags))[-len(lags) :]
    b = cross_correlation(second, second, len(lags))[-len(lags) :]
    inverse = 1 / n + 2 / n * float(np.sum((1 - lags / n) * a * b))
    return float(np.clip(1 / inverse if inverse > 0 else n, 3, n))


def _lag_interval(
    rate: NDArray[np.float64],
    drive: NDArray[np.float64],
    step_s: float,
    max_lag: int,
    clock_sigma_s: float,
) -> tuple[float, float]:
    """Return the 95 % interval of the lag of ``rate = a + b drive(t - lag)``."""
    n = len(rate)
    at = np.arange(max_lag, n - max_lag, dtype=np.float64)
    inner = rate[max_lag : n - max_lag]
    lags = np.arange(-max_lag * FINE, max_lag * FINE + 1) / FINE
    misfit, index = np.empty(len(lags)), np.arange(n, dtype=np.float64)
    for i, lag in enumerate(lags):
        left = _off_line(np.interp(at - lag, index, drive), inner)
        misfit[i] = left @ left
    best = int(np.argmin(misfit))
    residual = _off_line(np.interp(at - lags[best], index, drive), inner)
    variance = misfit[best] / max(len(inner) - 3, 1)
    # Residuals with memory carry less information than their number says.
    share = effective_number(residual, residual) / len(residual)
    inside = np.flatnonzero((misfit - misfit[best]) / variance * share <= DELTA_CHI2_95)
    if len(inside) == 0 or inside[0] == 0 or inside[-1] == len(lags) - 1:
        return math.nan, math.nan
    widen = 1.96 * clock_sigma_s
    half = 0.5 / FINE
    low, high = (lags[inside[0]] - half) * step_s, (lags[inside[-1]] + half) * step_s
    middle = lags[best] * step_s
    return (
        middle - math.hypot(middle - low, widen),
        middle + math.hypot(high - middle, widen),
    )


def _off_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the best straight line leaves of ``y``; an ``x`` that stands has no slope."""
    moved, left = x - x.mean(), y - y.mean()
    square = moved @ moved
    varies = square > (len(x) * np.finfo(np.float64).eps) ** 2 * (x @ x)
    return np.asarray(left - (moved @ left / square) * moved if varies else left)
