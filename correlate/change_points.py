"""Steps of a series' level that its own memory does not explain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from correlate.autoregression import whitened
from correlate.enough import NotEnoughData
from correlate.noise_memory import NoiseMemory, fit_noise_memory

Floats = NDArray[np.float64]

MIN_SAMPLES = 50
FEWEST = 5  # samples on each side of a step
TAKEN_OUT = 2  # steps before the noise is fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoints:
    """Where the level steps.

    Parameters
    ----------
    index
        First sample of each new level, increasing, shape (m,).
    step, step_sigma
        By how much the level changes there, and its standard uncertainty.
    p
        Share of noise with the same memory that steps as clearly somewhere.
    smallest_p
        The smallest that the number of simulated records allows.
    """

    index: NDArray[np.int64]
    step: Floats
    step_sigma: Floats
    p: Floats
    smallest_p: float


def change_points(
    series: Floats, *, rng: np.random.Generator, level: float = 0.05, count: int = 199
) -> ChangePoints:
    """Find steps of the level in noise with memory.

    The clearest step of a stretch counts when fewer than ``level`` of records that are
    simulated with the memory fitted to it, and treated alike, have one as clear. Both
    sides of it are then looked at in the same way. In a series without steps only the
    first question is asked, so ``level`` is the rate of false alarms per series.

    Parameters
    ----------
    series
        Evenly spaced, shape (n,); NaN in gaps, which are left out.
    rng
        Of the simulated records.
    level
        Rate of false alarms.
    count
        Simulated records of each stretch.

    Raises
    ------
    NotEnoughData
        Fewer than 50 samples, or too few simulated records for the level.
    """
    series = np.asarray(series, np.float64)
    known = int(np.isfinite(series).sum())
    if known < MIN_SAMPLES:
        raise NotEnoughData(f"{known} samples", f"at least {MIN_SAMPLES} would do")
    if 1 / (1 + count) > level:
        raise NotEnoughData(
            f"{count} simulated records never give p below {1 / (1 + count):.2g}",
            f"{int(np.ceil(1 / level)) - 1} would do",
        )
    found: list[tuple[int, float]] = []
    stretches = [(0, len(series))]
    while stretches:
        start, stop = stretches.pop()
        part = series[start:stop]
        if int(np.isfinite(part).sum()) < MIN_SAMPLES or np.nanstd(part) == 0:
            continue
        place, p = _clearest(part, rng, count)
        if p <= level:
            found.append((start + place, p))
            stretches += [(start, start + place), (start + place, stop)]
    found.sort()
    index = np.array([place for place, _ in found], dtype=np.int64)
    step, sigma = _together(series, index)
    return ChangePoints(
        index=index,
        step=step,
        step_sigma=sigma,
        p=np.array([p for _, p in found]),
        smallest_p=1 / (1 + count),
    )


def _clearest(part: Floats, rng: np.random.Generator, count: int) -> tuple[int, float]:
    """Return place and p of the clearest step."""
    noise, step, sigma = _treated(part[None, :])
    clear = np.abs(step[0]) / sigma[0]
    place = int(np.argmax(clear))
    drawn = noise.drawn(len(part), count, rng)
    drawn[:, ~np.isfinite(part)] = np.nan
    _, by_chance, chance_sigma = _treated(drawn)
    largest = (np.abs(by_chance) / chance_sigma).max(axis=1)
    p = (1 + int((largest >= clear[place]).sum())) / (1 + count)
    return place, p


def _together(series: Floats, index: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return size and sigma of all steps, fitted together in their common noise."""
    known = np.isfinite(series)
    design = np.stack([np.ones(len(series)), *(np.arange(len(series)) >= at for at in index)])
    rough, *_ = np.linalg.lstsq(design[:, known].T, series[known], rcond=None)
    terms = fit_noise_memory((series - rough @ design)[None, :]).whitening()[0]
    y, x = whitened(series, terms), whitened(design, terms)
    used = np.isfinite(y)
    x, y = x[:, used].T, y[used]
    size, *_ = np.linalg.lstsq(x, y, rcond=None)
    variance = float(np.sum((y - x @ size) ** 2)) / max(len(y) - len(size), 1)
    sigma = np.sqrt(variance * np.diagonal(np.linalg.pinv(x.T @ x)))
    return np.asarray(size[1:], np.float64), np.asarray(sigma[1:], np.float64)


def _treated(series: Floats) -> tuple[NoiseMemory, Floats, Floats]:
    """Return noise, and size and sigma of a step at each sample.

    The noise is that of what is left without the clearest steps, which else would look
    like memory; simulated records lose theirs in the same way.
    """
    rest, samples = series, np.arange(series.shape[-1])
    for _ in range(TAKEN_OUT):
        step, sigma = _steps(rest, fit_noise_memory(rest).whitening())
        place = np.argmax(np.abs(step) / sigma, axis=1)[:, None]
        rest = rest - np.take_along_axis(step, place, axis=1) * (samples >= place)
    noise = fit_noise_memory(rest)
    return noise, *_steps(series, noise.whitening())


def _steps(series: Floats, terms: Floats) -> tuple[Floats, Floats]:
    """Return size and sigma of a step at each sample, by generalised least squares.

    Parameters
    ----------
    series
        Shape (m, n), with the same gaps.
    terms
        Autoregression of each, shape (m, terms).
    """
    n, order = series.shape[-1], terms.shape[-1]
    centred = series - np.nanmean(series, axis=-1, keepdims=True)
    known = np.isfinite(series[0])
    white = np.where(known, centred, 0.0)[:, order:].copy()
    used = known[order:].copy()
    for i in range(order):
        lagged = slice(order - 1 - i, n - 1 - i)
        white -= terms[:, i : i + 1] * np.where(known, centred, 0.0)[:, lagged]
        used &= known[lagged]
    white[:, ~used] = 0.0
    # A step, filtered: it rises over the filter's length, then stays.
    response = 1 - np.concatenate([np.zeros((len(terms), 1)), np.cumsum(terms, axis=1)], axis=1)
    shape = np.concatenate(
        [response, np.repeat(response[:, -1:], white.shape[1] - order - 1, axis=1)], axis=1
    )
    mask = np.broadcast_to(used.astype(np.float64), white.shape)
    level = response[:, -1:]
    with_step, shape_sum = _slid(white, shape), _slid(mask, shape)
    shape_square = _slid(mask, shape**2)
    number = max(int(used.sum()), 1)
    spread = np.maximum(shape_square - shape_sum**2 / number, 0.0)
    product = with_step - shape_sum * white.sum(axis=-1, keepdims=True) / number
    inner = slice(FEWEST, white.shape[1] - FEWEST)
    free = np.zeros(spread.shape, dtype=bool)
    free[:, inner] = spread[:, inner] > 1e-6 * level**2 + 1e-12 * shape_square.max()
    size = np.where(free, product / np.where(free, spread, 1.0), 0.0)
    centre = white.sum(axis=-1, keepdims=True) / number
    total = (mask * (white - centre) ** 2).sum(axis=-1, keepdims=True)
    variance = np.maximum(total - size * product, 0.0) / max(number - 3, 1)
    sigma = np.sqrt(np.where(free, variance / np.where(free, spread, 1.0), np.inf))
    pad = ((0, 0), (order, 0))
    return np.pad(size, pad), np.pad(sigma, pad, constant_values=np.inf)


def _slid(values: Floats, shape: Floats) -> Floats:
    """Return the sum of values times a shape that begins at each sample, shape (m, n)."""
    n = values.shape[-1]
    size = fft.next_fast_len(2 * n, real=True)
    spectrum = fft.rfft(values, size) * np.conj(fft.rfft(shape, size))
    return np.asarray(fft.irfft(spectrum, size)[:, :n])
