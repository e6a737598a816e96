"""What a series does, on average, around events, with a band that all of it lies in."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from correlate.autoregression import fit_memory
from correlate.enough import NotEnoughData
from correlate.surrogate import BLOCK_VALUES, Surrogate, phase_randomised, surrogates

Floats = NDArray[np.float64]
_Average = Callable[[Floats], Floats]

MIN_EVENTS = 3
LEVEL = 0.95
MIN_TRIED, MAX_TRIED = 50, 100  # series, by which is told what an average takes out of one
LEAST_KEPT = 0.1  # of a variance


@dataclass(frozen=True, slots=True, kw_only=True)
class EventAverage:
    """An average over events, against the mean before each.

    Parameters
    ----------
    offset_s
        Time after the event, shape (offsets,).
    mean
        Shape (offsets,); NaN where every event has a gap.
    low, high
        Band in which the whole true average lies in 95 % of all cases (not each point for
        itself), from surrogates of what the average leaves of the series.
    chance_low, chance_high
        Band in which the whole average lies in 95 % of all cases when nothing happens.
    p, smallest_p
        Share of surrogates that leave that band as far, and the smallest possible one.
    events
        How many lie whole within the record.
    """

    offset_s: Floats
    mean: Floats
    low: Floats
    high: Floats
    chance_low: Floats
    chance_high: Floats
    p: float
    smallest_p: float
    events: int


def event_average(
    series: Floats,
    events: NDArray[np.int_],
    *,
    before: int,
    after: int,
    step_s: float,
    rng: np.random.Generator,
    signs: Floats | None = None,
    count: int = 499,
) -> EventAverage:
    """Average a series around events.

    Parameters
    ----------
    series
        Evenly spaced, shape (n,); NaN in gaps, which are left out.
    events
        Samples at which something happens, shape (m,).
    before, after
        Samples of the window; the mean of those before is taken off each event.
    step_s
        Spacing of the samples.
    rng
        Of the surrogates.
    signs
        By which each event is multiplied, shape (m,): of a current switched on and off, for
        example; ones where None. Events of sign 0 do not count.
    count
        Surrogates of each kind.

    Raises
    ------
    ValueError
        ``before`` or ``after`` is below 1.
    NotEnoughData
        Fewer than 3 events lie whole within the record.
    """
    if before < 1 or after < 1:
        raise ValueError(f"a window of {before} before and {after} after; at least 1 will do")
    series = np.asarray(series, np.float64)
    offsets = np.arange(-before, after)
    place, first = np.unique(events, return_index=True)
    sign = np.ones(len(place)) if signs is None else np.asarray(signs, np.float64)[first]
    whole = (place >= before) & (place + after <= len(series)) & (sign != 0)
    inside, sign = place[whole], sign[whole]
    if len(inside) < MIN_EVENTS:
        raise NotEnoughData(
            f"{len(inside)} events with their whole window in the record",
            f"at least {MIN_EVENTS} would do",
        )
    window = inside[:, None] + offsets[None, :]
    gaps = ~np.isfinite(series[window])

    def average(rows: Floats) -> Floats:
        seen = np.where(gaps, np.nan, rows[..., window])
        known = np.isfinite(seen)
        pre = _mean(seen[..., :before], known[..., :before], axis=-1)
        off = (seen - pre[..., None]) * sign[:, None]
        return _mean(off, np.isfinite(off), axis=-2)

    mean = average(series)
    rest = _rest(series, inside, sign, mean[before:])
    spread, factor, _ = _band(rest, average, mean, rng, count, Surrogate.PHASE)
    spread = spread / _kept(rest, inside, sign, average, before, rng)
    bands = [_band(series, average, mean, rng, count, kind) for kind in Surrogate]
    chance = np.max([s * f for s, f, _ in bands], axis=0)
    return EventAverage(
        offset_s=np.asarray(offsets * step_s, dtype=np.float64),
        mean=mean,
        low=mean - factor * spread,
        high=mean + factor * spread,
        chance_low=-chance,
        chance_high=chance,
        p=max(p for *_, p in bands),
        smallest_p=1 / (1 + count),
        events=len(inside),
    )


def _mean(values: Floats, known: NDArray[np.bool_], *, axis: int) -> Floats:
    number = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def _rest(series: Floats, events: NDArray[np.int_], signs: Floats, mean: Floats) -> Floats:
    """Return the series without the average after each event, up to the next one."""
    rest = series.copy()
    ends = np.append(events[1:], len(series))
    for event, end, sign in zip(events, ends, signs, strict=True):
        stop = min(event + len(mean), end)
        rest[event:stop] -= sign * np.nan_to_num(mean[: stop - event])
    return rest


def _kept(
    rest: Floats,
    events: NDArray[np.int_],
    signs: Floats,
    average: _Average,
    before: int,
    rng: np.random.Generator,
) -> float:
    """Return what is left of an average's spread where averages were taken out of a series.

    With the average goes its noise, and of events at even distances all that repeats with
    them, which is what the average of other noise would hold. Tried with noise of the same
    memory, whose spectrum has no such gaps.
    """
    n, rows = len(rest), int(np.clip(BLOCK_VALUES // len(rest), MIN_TRIED, MAX_TRIED))
    response = np.abs(fft.rfft(np.concatenate([[1.0], -fit_memory(rest)]), n))
    drawn = fft.irfft(fft.rfft(rng.standard_normal((rows, n))) / response, n)
    drawn[:, ~np.isfinite(rest)] = np.nan
    own = average(drawn)
    again = [
        average(phase_randomised(_rest(row, events, signs, mean[before:]), 1, rng))[0]
        for row, mean in zip(drawn, own, strict=True)
    ]
    ratio = np.nanmean(np.square(again)[:, before:]) / np.nanmean(np.square(own)[:, before:])
    return float(np.sqrt(np.clip(ratio, LEAST_KEPT, 1.0)))


def _band(  # one private step of one function
    series: Floats,
    average: _Average,
    mean: Floats,
    rng: np.random.Generator,
    count: int,
    kind: Surrogate,
) -> tuple[Floats, float, float]:
    """Return spread of surrogate averages, the factor to a band of all, and the p of one."""
    drawn = np.concatenate([average(block) for block in surrogates(series, count, rng, kind)])
    spread = np.sqrt(np.mean(drawn**2, axis=0))
    unit = np.where(spread > 0, spread, np.inf)
    largest = np.nanmax(np.abs(drawn) / unit, axis=1)
    far = float(np.nanmax(np.abs(mean) / unit))
    p = (1 + int((largest >= far).sum())) / (1 + count)
    return spread, float(np.quantile(largest, LEVEL, method="higher")), p
