"""Cameras whose clock cannot be asked: their stamps tied to the host by arrivals.

A frame can come late and never early, so the curve under all arrivals is the camera's
clock, later by the smallest time that a frame spends on its way. How long that is no
arrival can tell: what hangs on it is one-sided, and named as such.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d

from sync.clockfit import ClockFit
from sync.smoother import SmoothClock
from sync.wander import (
    Bank,
    Measurements,
    find_break,
    follow,
    guesses,
    smooth,
)

BLOCKS = 50  # wanted of a record; the least late frame of each counts
SMALLEST, LARGEST_S = 8, 0.25  # of a block: frames, and time beyond as many
LEAST_LATE = 4  # frames of a block that say how much quicker one could have been
NEIGHBOURS = 15  # blocks whose gaps are taken together
MEDIAN_OF_GAPS = 0.891  # of their mean: three exponential gaps in a row
UNSURE = 0.15  # of a gap: by so much the least late are all off if gaps are not exponential
MIN_NOISE_NS = 300.0
RESET_NS = 50_000_000  # a jump of the stamps against the host beyond this begins anew
BEFORE = 128  # frames before it with which a frame is compared, to find resets
LASTING = 16  # frames that a reset lasts; fewer are frames out of their order
BREAK_SIGMAS = 8.0
BREAK_BLOCKS = 8  # that must agree
MAX_BREAKS = 20
LASTING_S = 5.0  # that a step lasts on both sides: longer than a computer is busy
FASTEST = 1e6  # ns in a s: no clock gains or loses so much
LEAST_STALL_NS, STALL_SIGMAS = 1e6, 8.0  # what is less is left to the filters
NOTHING_NS2 = 1e24  # variance of what says nothing
FRAMES_LOST = 3  # in a row, beyond which a jump of the stamps is none of them

Floats = NDArray[np.float64]
Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalRecord:
    """A camera's clock as its frames' arrivals show it.

    Parameters
    ----------
    pieces
        One for each stretch between resets of the stamps.
    piece
        To which piece each frame belongs, shape (n,).
    latency_max_ns
        What is known of the time that the quickest frame spends on its way; infinite
        where nothing is. The true time is earlier than the one given by between 0 and
        this: a one-sided systematic error, the same for all frames, and the hard bound.
    wander
        Variance by which the skew changes in a second, (ns/s)**2/s.
    late_ns
        By how much each frame came later than the quickest, shape (n,).
    """

    pieces: tuple[SmoothClock, ...]
    piece: NDArray[np.int64]
    latency_max_ns: float
    wander: float
    late_ns: Stamps

    def to_host_ns(self, device_ns: Stamps) -> tuple[Stamps, Floats]:
        """Return host time and sigma of each frame's stamp, shape (n,).

        Parameters
        ----------
        device_ns
            One stamp for each frame that was given, such as the start of its exposure.
        """
        stamps = np.asarray(device_ns, np.int64)
        host, sigma = np.empty(len(stamps), np.int64), np.empty(len(stamps))
        for k, clock in enumerate(self.pieces):
            mine = self.piece == k
            host[mine] = clock.to_host_ns(stamps[mine])
            sigma[mine] = clock.sigma_ns(stamps[mine])
        return host, sigma

    def rows(self) -> tuple[ClockFit, ...]:
        """Return straight pieces; their bound is what no arrival can tell."""
        rows = [row for clock in self.pieces for row in clock.rows()]
        return tuple(replace(row, bound_ns=self.latency_max_ns) for row in rows)


def counted_stamps(counter: Stamps, arrival_ns: Stamps) -> Stamps:
    """Return stamps for a camera that has none: its counter times a whole frame period.

    Parameters
    ----------
    counter
        The camera's own counter, shape (n,).
    arrival_ns
        Host stamps, shape (n,); the period need not be exact.

    Raises
    ------
    ValueError
        No frame came after another.
    """
    step, passed = np.diff(counter), np.diff(arrival_ns)
    forward = step > 0
    if not np.any(forward) or int(passed[forward].sum()) <= 0:
        raise ValueError("a frame period needs two frames with rising counters")
    period = int(passed[forward].sum()) / int(step[forward].sum())
    return np.asarray(counter * max(round(period), 1), dtype=np.int64)


def fit_arrivals(
    device_ns: Stamps,
    arrival_ns: Stamps,
    *,
    latency_max_ns: float = math.inf,
    min_noise_ns: float = MIN_NOISE_NS,
) -> ArrivalRecord:
    """Follow a camera's clock by the frames that came quickest.

    Frames are taken in blocks; the least late one of each is a measurement, with what
    the next ones say of how much quicker one could have been. Between the blocks the
    clock is smoothed as between exchanges. Blocks that came late altogether, in a stall,
    count little. A step of the clock is one that the quickest frames of the seconds before
    and after it show: lateness that ends is none.

    Parameters
    ----------
    device_ns
        The end of each exposure on the camera's clock, or `counted_stamps`, shape (n,),
        in the order of arrival; frames out of their order and repeated ones do no harm.
    arrival_ns
        Host clock when each whole frame was here, shape (n,).

    Raises
    ------
    ValueError
        Fewer than two frames, or all with one stamp.
    """
    stamps, arrivals = np.asarray(device_ns, np.int64), np.asarray(arrival_ns, np.int64)
    if len(stamps) < 2 or np.ptp(stamps) == 0:
        raise ValueError(f"{len(stamps)} frames are too few: their stamps must go on")
    stretch = _stretches(stamps, arrivals)
    given, at_ns, base_ns = _measure(stamps, arrivals, stretch)
    unsure = UNSURE * float(np.sqrt(np.mean(given.variance_ns2)))
    given = replace(given, variance_ns2=np.where(_held_up(given), NOTHING_NS2, given.variance_ns2))
    bank = _judge(given, min_noise_ns)
    for _ in range(MAX_BREAKS):
        at = find_break(
            given, bank.likeliest(), sigmas=BREAK_SIGMAS, one_sided=True, most_ns=_shift_ns(given)
        )
        if at is None or not _lasts(given.fresh, at):
            break
        given = given.with_break(at)
        bank = _judge(given, min_noise_ns)
    behaviour, weights = bank.few(len(given.y_ns))
    found = smooth(given, behaviour, weights, one_sided=True)
    found.covariance[:, 0, 0] += unsure**2
    found.lag[:, 0, 0] += unsure**2
    starts = np.flatnonzero(given.fresh)
    pieces = tuple(
        SmoothClock(
            device_ns=at_ns[a:b],
            base_ns=int(base_ns[a]),
            offset_ns=found.state[a:b, 0],
            skew=found.state[a:b, 1],
            covariance=found.covariance[a:b],
            lag=found.lag[a : b - 1],
            bound_ns=np.full(b - a, latency_max_ns),
            wander=found.wander,
            count=b - a,
        )
        for a, b in zip(starts, [*starts[1:], len(given.y_ns)], strict=True)
    )
    piece = _piece_of(stamps, stretch, pieces, base_ns[starts])
    record = ArrivalRecord(
        pieces=pieces,
        piece=piece,
        latency_max_ns=latency_max_ns,
        wander=found.wander,
        late_ns=np.zeros(0, np.int64),
    )
    return replace(record, late_ns=arrivals - record.to_host_ns(stamps)[0])


def _judge(given: Measurements, min_noise_ns: float) -> Bank:
    bank = Bank(guesses(min_noise_ns, queues=False), one_sided=True)
    follow(bank, given)
    return bank


def _lasts(fresh: NDArray[np.bool_], at: int) -> bool:
    """Tell whether a step lies well inside its stretch."""
    lo, hi = max(at - BREAK_BLOCKS + 1, 0), at + BREAK_BLOCKS
    return at >= BREAK_BLOCKS and hi <= len(fresh) and not np.any(fresh[lo:hi])


def _by_stretch(given: Measurements) -> Iterator[tuple[NDArray[np.intp], Floats, Floats]]:
    """Yield the blocks of each stretch, their times in s, and how late beside their line."""
    t_s, stretch = np.cumsum(given.dt_s), np.cumsum(given.fresh)
    for number in np.unique(stretch):
        mine = np.flatnonzero(stretch == number)
        t, y = t_s[mine] - t_s[mine[0]], given.y_ns[mine]
        yield mine, t, y - _slope(t, y) * t


def _held_up(given: Measurements) -> NDArray[np.bool_]:
    """Tell which blocks came late altogether, in a stall, shape (n,).

    They are later than a clock can be that was quicker just before and just after; at the
    ends of a stretch one of these is enough.
    """
    late = np.zeros(len(given.y_ns), np.bool_)
    for mine, t, y in _by_stretch(given):
        margin = LEAST_STALL_NS + STALL_SIGMAS * np.sqrt(given.variance_ns2[mine])
        for k in range(len(mine)):
            near = np.abs(t - t[k]) <= LASTING_S
            below = near & (y + FASTEST * np.abs(t - t[k]) < y[k] - margin[k])
            before, after = bool(below[:k].any()), bool(below[k + 1 :].any())
            first, last = t[k] < LASTING_S, t[-1] - t[k] < LASTING_S
            late[mine[k]] = (before or (first and after)) and (after or (last and before))
    return late


def _shift_ns(given: Measurements) -> Floats:
    """Return by how much the quickest of the seconds before and after each block differ.

    Shape (n,); 0 where there are no such seconds on both sides. What delays frames ends
    within them, and then the quickest are again where they were.
    """
    shift = np.zeros(len(given.y_ns))
    for mine, t, y in _by_stretch(given):
        n = np.arange(len(t))
        lo = np.maximum(np.minimum(np.searchsorted(t, t - LASTING_S), n - BREAK_BLOCKS), 0)
        hi = np.maximum(np.searchsorted(t, t + LASTING_S, side="right"), n + BREAK_BLOCKS)
        for k in np.flatnonzero((t >= LASTING_S) & (t[-1] - t >= LASTING_S)):
            shift[mine[k]] = abs(y[k : hi[k]].min() - y[lo[k] : k].min())
    return shift


def _stretches(stamps: Stamps, arrivals: Stamps) -> NDArray[np.int64]:
    """Return the stretch of each frame: where the stamps jump for good, they began anew."""
    lag = arrivals - stamps
    step = np.diff(stamps, prepend=stamps[:1])
    period = max(float(np.median(np.abs(step))), 1.0)
    reach = int(np.clip(LASTING_S * 1e9 / period, BEFORE, len(stamps) + BEFORE))
    back = stamps < -_before(-stamps, BEFORE) - RESET_NS
    ahead = lag < _before(lag, reach) - RESET_NS  # earlier than any before it could have been
    # Frames that pile up and come at once at the beginning are as early against the first.
    jump = step > RESET_NS + FRAMES_LOST * period
    ahead &= jump | (arrivals - arrivals[0] > LASTING_S * 1e9)
    begins = ahead.astype(np.int64)
    for i in np.flatnonzero(back & ~np.concatenate([[False], back[:-1]])):
        begins[i] |= np.all(back[i : i + LASTING])
    return np.cumsum(begins)


def _before(values: Stamps, reach: int) -> Stamps:
    """Return the least of the values before each, over so many of them, shape (n,)."""
    # The filter counts in floating point: small numbers lose nothing.
    padded = np.concatenate([values[:1], values[:-1]]) - values[0]
    least = minimum_filter1d(padded, reach, origin=(reach - 1) // 2, mode="nearest")
    return np.asarray(least + values[0], dtype=np.int64)


def _measure(
    stamps: Stamps, arrivals: Stamps, stretch: NDArray[np.int64]
) -> tuple[Measurements, Stamps, Stamps]:
    """Return a measurement of each block, its stamp, and what was taken off."""
    parts = [_least_late(stamps[stretch == k], arrivals[stretch == k]) for k in np.unique(stretch)]
    at_ns = np.concatenate([at for at, _, _ in parts])
    lag_ns = np.concatenate([lag for _, lag, _ in parts])
    quicker = np.concatenate([gap for _, _, gap in parts])
    fresh = np.concatenate([np.arange(len(at)) == 0 for at, _, _ in parts])
    base_ns = lag_ns[fresh][np.cumsum(fresh) - 1]
    typical = _typical(quicker)
    host_ns = at_ns + lag_ns
    step_ns = np.where(fresh[1:], np.diff(host_ns), np.diff(at_ns))
    given = Measurements(
        dt_s=np.concatenate([[0.0], np.maximum(step_ns, 0) / 1e9]),
        # The least of a block is late by as much as the next ones are later than it.
        y_ns=(lag_ns - base_ns) - typical,
        excess_ns=np.zeros(len(at_ns)),
        variance_ns2=typical**2,
        fresh=fresh,
    )
    return given, at_ns, base_ns


def _typical(quicker: Floats) -> Floats:
    """Return the gaps as their neighbours have them, shape (n,)."""
    padded = np.pad(
        quicker, NEIGHBOURS // 2, mode="reflect" if len(quicker) > NEIGHBOURS else "edge"
    )
    views = np.lib.stride_tricks.sliding_window_view(padded, NEIGHBOURS)
    return np.asarray(np.median(views, axis=1) / MEDIAN_OF_GAPS, dtype=np.float64)


def _least_late(stamps: Stamps, arrivals: Stamps) -> tuple[Stamps, Stamps, Floats]:
    """Return stamp and lag of the least late frame of each block, and the gap to the next."""
    order = np.lexsort((arrivals, stamps))
    stamps, arrivals = stamps[order], arrivals[order]
    first = np.concatenate([[True], np.diff(stamps) > 0])  # a repeated frame came before
    stamps, lag = stamps[first], (arrivals - stamps)[first]
    n = len(stamps)
    span_s = max(float(stamps[-1] - stamps[0]) / 1e9, 1e-9)
    largest = max(64, round(LARGEST_S * n / span_s))
    size = int(np.clip(n // BLOCKS, SMALLEST, largest))
    x = (stamps - stamps[0]).astype(np.float64)
    level = (lag - lag[0]).astype(np.float64) - _slope(x, lag) * x
    edges = np.linspace(0, n, max(n // size, 1) + 1).astype(np.int64)
    least, quicker = [], []
    for a, b in pairwise(edges):
        sorted_ = np.argsort(level[a:b], kind="stable")[:LEAST_LATE]
        least.append(a + sorted_[0])
        spread = level[a + sorted_[-1]] - level[a + sorted_[0]]
        quicker.append(spread / max(len(sorted_) - 1, 1))
    return stamps[least], lag[least], np.array(quicker)


def _slope(x: Floats, lag: Stamps | Floats) -> float:
    """Return about the slope under all lags: least late of the first and last third."""
    third = max(len(x) // 3, 1)
    i = int(np.argmin(lag[:third]))
    j = len(x) - third + int(np.argmin(lag[-third:]))
    return float(lag[j] - lag[i]) / float(x[j] - x[i]) if x[j] > x[i] else 0.0


def _piece_of(
    stamps: Stamps,
    stretch: NDArray[np.int64],
    pieces: tuple[SmoothClock, ...],
    base_ns: Stamps,
) -> NDArray[np.int64]:
    """Return the piece of each frame: of its stretch, the one whose stamps are nearest."""
    starts = np.array([clock.valid_from_ns for clock in pieces])
    stops = np.array([clock.valid_to_ns for clock in pieces])
    parent = np.cumsum(np.concatenate([[0], np.diff(base_ns) != 0]))
    found = np.zeros(len(stamps), np.int64)
    for k in np.unique(stretch):
        mine = np.flatnonzero(parent == k)
        edges = stops[mine[:-1]] + (starts[mine[1:]] - stops[mine[:-1]]) // 2
        at = stretch == k
        found[at] = mine[np.searchsorted(edges, stamps[at], side="right")]
    return found
