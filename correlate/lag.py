"""Whether a rate follows a drive, how strongly, with which lag, and how surely.

The statistic is the largest correlation within the declared lags, and its null comes
from surrogates of the rate alone: memory in the series and the choice of the best lag are
both paid for, and the drive, such as the steps of a protocol, stays what it was.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.cross_correlation import aligned, cross_correlation
from correlate.effect import Effect, effect_size
from correlate.enough import NotEnoughData
from correlate.lag_interval import lag_interval
from correlate.memory import effective_number
from correlate.nuisance import Nuisance
from correlate.surrogate import Surrogate, surrogates

Floats = NDArray[np.float64]

MIN_SAMPLES = 30
MIN_EFFECTIVE = 4.0
MIN_SWITCHES = 3
BAND = 0.95
SIGMAS = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a test is told before it looks.

    Parameters
    ----------
    step_s
        Spacing of the samples.
    max_lag_s
        Lags that are looked at.
    count
        Surrogates of each of both kinds.
    switches
        Switching events of a step protocol that the drive follows; None for another drive.
    clock_sigma_s
        Uncertainty of the time between both series, added to the interval of the lag.
    """

    step_s: float
    max_lag_s: float
    count: int = 499
    switches: int | None = None
    clock_sigma_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """What one kind of surrogates gives.

    Parameters
    ----------
    kind
        How they were drawn.
    largest
        Largest magnitude of r over the lags, for each surrogate, shape (surrogates,).
    p
        Share of surrogates at least as large as the data, the data counted in.
    p_of_lag
        The same for each lag by itself, shape (lags,); NaN where r is.
    """

    kind: Surrogate
    largest: Floats
    p: float
    p_of_lag: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class LagResult:
    """What was found, beside what chance gives.

    Parameters
    ----------
    lag_s, r
        Correlation of the rate, ``lag_s`` later, with the drive; shape (lags,). NaN where
        too few pairs meet.
    lag_at_max_s
        Where the magnitude of r is largest.
    effect
        At that lag.
    best_lag_s, lag_low_s, lag_high_s
        The lag of a straight relation and its interval of 95 %, with the clocks'
        uncertainty in it; NaN where the lag is not determined.
    phase, iaaft
        What surrogates of both kinds give. The test's p counts both together.
    n, n_effective
        Pairs at lag 0, and how many of them count when memory is taken into account.
    """

    lag_s: Floats
    r: Floats
    lag_at_max_s: float
    effect: Effect
    best_lag_s: float
    lag_low_s: float
    lag_high_s: float
    phase: Chance
    iaaft: Chance
    n: int
    n_effective: float

    @property
    def largest(self) -> Floats:
        """The largest magnitude of r over the lags for every surrogate of both kinds."""
        return np.concatenate([self.phase.largest, self.iaaft.largest])

    @property
    def p(self) -> float:
        """Share of all surrogates at least as large as the data, the data counted in."""
        return _share(int((self.largest >= abs(self.r_max)).sum()), len(self.largest))

    @property
    def smallest_p(self) -> float:
        """The smallest p that the number of surrogates allows."""
        return _share(0, len(self.largest))

    @property
    def p_of_lag(self) -> Floats:
        """The same as p for each lag by itself, shape (lags,)."""
        return (self.phase.p_of_lag + self.iaaft.p_of_lag) / 2

    @property
    def band(self) -> float:
        """The magnitude of r that chance exceeds in 5 % of all cases."""
        return float(np.quantile(self.largest, BAND))

    @property
    def r_max(self) -> float:
        """The correlation of largest magnitude."""
        return float(self.r[np.nanargmax(np.abs(self.r))])

    @property
    def enough_ratio(self) -> float:
        """How many times as long a record would show an effect of the size seen.

        The band of chance falls with the root of the length.
        """
        return max((self.band / max(abs(self.r_max), 1e-12)) ** 2, 1.0)


def lag_correlation(
    rate: Floats,
    drive: Floats,
    declared: Declared,
    *,
    rng: np.random.Generator,
    regressors: Floats | None = None,
) -> LagResult:
    """Test whether a rate follows a drive.

    Parameters
    ----------
    rate
        Rate seen in the images, evenly spaced, shape (n,); NaN in gaps.
    drive
        Electrical quantity on the same times, shape (n,); NaN in gaps.
    declared
        What is known and asked before looking.
    rng
        Of the surrogates.
    regressors
        What is taken out of both series first, such as dose and beam state: shape (n, k).

    Raises
    ------
    NotEnoughData
        Fewer than 30 pairs, a series that does not vary, fewer than 3 switching events, or
        a memory as long as the record.
    """
    rate, drive = np.asarray(rate, np.float64), np.asarray(drive, np.float64)
    known: NDArray[np.bool_] = np.ones(len(rate), dtype=bool)
    if regressors is not None:
        finite = np.atleast_2d(np.isfinite(regressors).T).T  # one alone may come as (n,)
        known = np.asarray(finite.all(axis=1), dtype=bool)
    of_rate = Nuisance(regressors, np.isfinite(rate) & known)
    of_drive = Nuisance(regressors, np.isfinite(drive) & known)
    step_s = declared.step_s
    _check_enough(rate, drive, known, step_s, declared.switches)
    seen, driven = of_rate.taken_out(rate), of_drive.taken_out(drive)
    n = int((np.isfinite(seen) & np.isfinite(driven)).sum())
    number = _check_memory(rate, seen, drive, driven, step_s)
    max_lag = max(1, min(round(declared.max_lag_s / step_s), len(rate) // 3))
    r = cross_correlation(seen, driven, max_lag)
    if not np.isfinite(r).any():
        raise NotEnoughData("the gaps of both series leave no lag", "fewer gaps would do")
    best = int(np.nanargmax(np.abs(r))) - max_lag
    chances = [
        _chance(kind, seen, driven, r, of_rate, rng, declared.count)
        for kind in (Surrogate.PHASE, Surrogate.IAAFT)
    ]
    lag, low, high = _interval(rate, drive, max_lag, regressors)
    widen = SIGMAS * declared.clock_sigma_s
    return LagResult(
        lag_s=np.arange(-max_lag, max_lag + 1, dtype=np.float64) * step_s,
        r=r,
        lag_at_max_s=best * step_s,
        effect=effect_size(*aligned(seen, driven, best), fitted=of_rate.rank + 1),
        best_lag_s=lag * step_s,
        lag_low_s=lag * step_s - math.hypot((lag - low) * step_s, widen),
        lag_high_s=lag * step_s + math.hypot((high - lag) * step_s, widen),
        phase=chances[0],
        iaaft=chances[1],
        n=n,
        n_effective=number,
    )


def _check_enough(
    rate: Floats,
    drive: Floats,
    known: NDArray[np.bool_],
    step_s: float,
    switches: int | None,
) -> None:
    pairs = np.isfinite(rate) & np.isfinite(drive) & known
    n = int(pairs.sum())
    if n < MIN_SAMPLES:
        raise NotEnoughData(
            f"{n} pairs of both rates",
            f"at least {MIN_SAMPLES}, {MIN_SAMPLES * step_s:.3g} s without gaps, would do",
        )
    if switches is not None and switches < MIN_SWITCHES:
        raise NotEnoughData(
            f"{switches} switching events, which any trend would match",
            f"a protocol with at least {MIN_SWITCHES} would do",
        )
    for name, series in (("rate", rate), ("drive", drive)):
        if np.ptp(series[pairs]) == 0:
            raise NotEnoughData(f"the {name} does not vary", f"a {name} that varies would do")


def _check_memory(
    rate: Floats, seen: Floats, drive: Floats, driven: Floats, step_s: float
) -> float:
    """Return the effective number of pairs."""
    for name, before, after in (("rate", rate, seen), ("drive", drive, driven)):
        if not np.nanstd(after) > 1e-9 * np.nanstd(before):
            raise NotEnoughData(
                f"what is taken out explains the whole {name}",
                f"a {name} that does not go with it would do",
            )
    number = effective_number(seen, driven)
    if number < MIN_EFFECTIVE:
        length_s = len(rate) * step_s
        raise NotEnoughData(
            f"both series remember so long that {length_s:.3g} s hold {number:.1f} independent"
            " pairs",
            f"about {length_s * MIN_EFFECTIVE / number:.3g} s would do",
        )
    return number


def _chance(
    kind: Surrogate,
    seen: Floats,
    driven: Floats,
    r: Floats,
    nuisance: Nuisance,
    rng: np.random.Generator,
    count: int,
) -> Chance:
    largest, exceeding = [], np.zeros(len(r))
    for block in surrogates(seen, count, rng, kind):
        chance = np.abs(cross_correlation(nuisance.taken_out(block), driven, len(r) // 2))
        largest.append(np.nanmax(chance, axis=1))
        exceeding += (chance >= np.abs(r)).sum(axis=0)
    every = np.concatenate(largest)
    return Chance(
        kind=kind,
        largest=every,
        p=_share(int((every >= np.nanmax(np.abs(r))).sum()), count),
        p_of_lag=np.where(np.isfinite(r), (1 + exceeding) / (1 + count), np.nan),
    )


def _share(exceeding: int, count: int) -> float:
    return (1 + exceeding) / (1 + count)


def _interval(
    rate: Floats, drive: Floats, max_lag: int, regressors: Floats | None
) -> tuple[float, float, float]:
    try:
        return lag_interval(rate, drive, max_lag=max_lag, regressors=regressors)
    except NotEnoughData:
        return math.nan, math.nan, math.nan
