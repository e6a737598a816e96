"""Where a code stands in a record, when its delay is unknown by seconds.

Record and code are brought to one even grid, slow parts are taken from both alike, and the
code is slid along the record. What is found is good to a part of a chip.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from sync.code_wave import window_mean

GRID_IN_CHIP = 6
OUTLIER = 6.0  # spreads beyond which a value is a step of the source, not of the beam
SECOND_RATIO = 0.8  # of the best place, which another one must not reach
LONGEST = 4_000_000  # grid points

Floats = NDArray[np.float64]


class CodeNotFound(ValueError):
    """A record does not show the code, or shows it in more than one place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a code was found.

    Parameters
    ----------
    delay_s
        Of the record against the nominal edges.
    likeness
        Correlation there, 0 to 1, and at the best place elsewhere.
    second
        The same at the best place elsewhere.
    """

    delay_s: float
    likeness: float
    second: float


def chip_of(edges_s: Floats) -> float:
    """Return the length of a chip: the shortest time between two edges."""
    return float(np.min(np.diff(edges_s)))


def find_code(
    t_s: Floats,
    value: Floats,
    edges_s: Floats,
    *,
    tau_s: float = 0.0,
    search_s: tuple[float, float] | None = None,
    either_sign: bool = True,
) -> Place:
    """Find a code in a record.

    Parameters
    ----------
    t_s, value
        The record, in order of time, shape (n,); what is not a number is bridged.
    edges_s
        Nominal edges, in order of time.
    tau_s
        Of the record's response, as far as it is known.
    search_s
        Smallest and largest delay that are looked at; None for wherever the record shows
        half of the code.
    either_sign
        False where the beam can only make the record larger.

    Raises
    ------
    CodeNotFound
        Another place is nearly as good as the best one, or there is none.
    """
    good = np.isfinite(value)
    t_s, value = t_s[good], value[good]
    if len(t_s) and np.ptp(value) == 0:
        raise CodeNotFound("the record shows nothing of the code: it does not change at all")
    if len(t_s) < 2 * len(edges_s):
        raise CodeNotFound(
            f"{len(t_s)} values are too few for a code of {len(edges_s)} edges: record at least "
            "two in a chip"
        )
    step_s = chip_of(edges_s) / GRID_IN_CHIP
    begin_s, length_s = edges_s[0] - 2 * step_s, edges_s[-1] - edges_s[0] + 4 * step_s
    count = int((t_s[-1] - t_s[0]) / step_s)
    if count > LONGEST:
        raise CodeNotFound(
            f"a record of {t_s[-1] - t_s[0]:.0f} s is too long to look for chips of "
            f"{chip_of(edges_s):.3g} s: say roughly where the code was played"
        )
    slow = max(3, int(2 * GRID_IN_CHIP * np.max(np.diff(edges_s)) / chip_of(edges_s)))
    record = _quick(_on_grid(t_s, value, t_s[0] + step_s * np.arange(count + 1)), slow)
    spread = 1.4826 * float(np.median(np.abs(record))) or float(np.std(record))
    record = np.clip(record, -OUTLIER * spread, OUTLIER * spread)
    at_s = begin_s + step_s * np.arange(int(length_s / step_s) + 1)
    wave = window_mean(at_s, at_s + step_s, edges_s, tau_s=tau_s)
    wave = _quick(wave, slow)
    likeness = _slide(record, wave)
    lag = np.arange(-len(wave) + 1, len(record))
    delay_s = lag * step_s + t_s[0] - begin_s
    overlap = np.minimum(lag + len(wave), len(record)) - np.maximum(lag, 0)
    allowed = overlap >= 0.5 * len(wave)
    if search_s is not None:
        allowed &= (delay_s >= search_s[0] - step_s) & (delay_s <= search_s[1] + step_s)
    score = np.where(allowed, np.abs(likeness) if either_sign else likeness, 0.0)
    return _best(delay_s, score, chip_of(edges_s) + 2 * tau_s)


def _best(delay_s: Floats, score: Floats, apart_s: float) -> Place:
    best = int(np.argmax(score))
    if score[best] <= 0:
        raise CodeNotFound("the record shows nothing of the code: was the beam blanked in it?")
    elsewhere = np.abs(delay_s - delay_s[best]) > 1.5 * apart_s
    second = int(np.argmax(np.where(elsewhere, score, 0.0)))
    if elsewhere[second] and score[second] > SECOND_RATIO * score[best]:
        raise CodeNotFound(
            f"the code may stand at {delay_s[best]:.3f} s or at {delay_s[second]:.3f} s "
            f"(likeness {score[best]:.2f} and {score[second]:.2f}): record all of it, or play a "
            "longer one"
        )
    return Place(
        delay_s=float(delay_s[best]),
        likeness=float(score[best]),
        second=float(score[second]) if elsewhere[second] else 0.0,
    )


def _on_grid(t_s: Floats, value: Floats, grid_s: Floats) -> Floats:
    """Return means over the steps of a grid: from the integral, so that nothing is skipped."""
    area = np.concatenate([[0.0], np.cumsum(0.5 * (value[1:] + value[:-1]) * np.diff(t_s))])
    return np.asarray(np.diff(np.interp(grid_s, t_s, area)) / np.diff(grid_s))


def _quick(values: Floats, slow: int) -> Floats:
    """Take the running mean off."""
    values = values - np.median(values)
    return np.asarray(values - ndimage.uniform_filter1d(values, slow, mode="nearest"))


def _slide(record: Floats, wave: Floats) -> Floats:
    """Return the correlation of a wave with each stretch of a record, for all lags."""
    size = fft.next_fast_len(len(record) + len(wave), real=True)
    turned = np.conj(fft.rfft(wave, size))
    product = np.asarray(fft.irfft(fft.rfft(record, size) * turned, size))
    lag = np.arange(-len(wave) + 1, len(record))
    energy = np.concatenate([[0.0], np.cumsum(record**2)])
    high = np.minimum(lag + len(wave), len(record))
    stretch = energy[high] - energy[np.maximum(lag, 0)]
    norm = np.sqrt(np.maximum(stretch, 1e-3 * energy[-1] / max(len(record), 1)) * np.sum(wave**2))
    return np.asarray(product[lag % size] / np.maximum(norm, 1e-300))
