"""From exchanges to a clock that may wander: offset, rate and error bars at any time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sync.clockfit import ClockFit, find_resets, granularity_ns
from sync.envelope import quickest
from sync.pairs import round_trip_ns
from sync.wander import (
    OTHER_STEPS_SIGMA,
    SKEW_SIGMA,
    Bank,
    Behaviour,
    Measurements,
    Smoothed,
    find_break,
    follow,
    guesses,
    smooth,
)

MIN_NOISE_NS = 300.0  # no stamp of a computer is better
BREAK_SIGMAS = 6.0
EACH_WAY = 4.0  # sigmas by which what is known may be off before a step is believed
MAX_BREAKS = 50
WANDERS = 6.0  # the statistic beyond which a straight line is not enough
BOUND_SIGMAS = 4.0  # of the skew, by which a bound grows with its age
MAX_ROWS = 2_000
MANY = 60  # exchanges from which on the quickest halves of several are joined
BLOCK_S, BLOCKS = 4.0, 20  # of a block, and how many there are at least
SURE = 0.1  # of the smallest half trip: by so much may a block be off for its skew
ODD_SIGMAS, NEVER_NS = 6.0, 1e12
NOTHING_NS2 = 1e24  # variance of what says nothing

Floats = NDArray[np.float64]
Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothClock:
    """A device clock against the host's, between two of its steps.

    Parameters
    ----------
    device_ns
        Device times of the knots, rising, int64 (n,).
    base_ns, offset_ns
        Host minus device time at the knots: an integer, and the small rest (n,).
    skew
        Host ns gained in a device second, (n,).
    covariance, lag
        Of offset and skew at each knot (n, 2, 2), and between each and the next.
    bound_ns
        Largest error of the offset that any asymmetry can hide, (n,): from the round
        trips, and growing by `BOUND_SIGMAS` of the skew's sigma away from them.
    wander
        Variance by which the skew changes in a second, (ns/s)**2/s.
    count
        Exchanges behind it.
    """

    device_ns: Stamps
    base_ns: int
    offset_ns: Floats
    skew: Floats
    covariance: Floats
    lag: Floats
    bound_ns: Floats
    wander: float
    count: int

    @property
    def valid_from_ns(self) -> int:
        """Device time of the first exchange."""
        return int(self.device_ns[0])

    @property
    def valid_to_ns(self) -> int:
        """Device time of the last exchange."""
        return int(self.device_ns[-1])

    def to_host_ns(self, device_ns: Stamps) -> Stamps:
        """Return host times of device times, int64, same shape."""
        stamps = np.asarray(device_ns, dtype=np.int64)
        k, tau, gap = self._place(stamps)
        j = np.minimum(k + 1, len(self.device_ns) - 1)
        u = tau / gap
        inside = (
            _h00(u) * self.offset_ns[k]
            + _h10(u) * gap * self.skew[k]
            + _h00(1 - u) * self.offset_ns[j]
            - _h10(1 - u) * gap * self.skew[j]
        )
        offset = np.where(self._inside(stamps), inside, self.offset_ns[k] + tau * self.skew[k])
        host = stamps + self.base_ns + np.round(offset).astype(np.int64)
        return np.asarray(host, dtype=np.int64)

    def sigma_ns(self, device_ns: Stamps) -> Floats:
        """Return the standard uncertainty of `to_host_ns`, in ns, same shape."""
        stamps = np.asarray(device_ns, dtype=np.int64)
        k, tau, gap = self._place(stamps)
        j = np.minimum(k + 1, len(self.device_ns) - 1)
        u, q = tau / gap, self.wander
        a = np.stack([_h00(u), _h10(u) * gap], axis=-1)
        b = np.stack([_h00(1 - u), -_h10(1 - u) * gap], axis=-1)
        lag = self.lag[np.minimum(k, max(len(self.lag) - 1, 0))] if len(self.lag) else 0.0
        inside = (
            np.einsum("...i,...ij,...j", a, self.covariance[k], a)
            + np.einsum("...i,...ij,...j", b, self.covariance[j], b)
            + 2 * np.einsum("...i,...ij,...j", a, np.zeros((2, 2)) + lag, b)
            + q * (tau * (gap - tau)) ** 3 / (3 * gap**3)
        )
        c = np.stack([np.ones_like(tau), tau], axis=-1)
        outside = np.einsum("...i,...ij,...j", c, self.covariance[k], c) + q * np.abs(tau) ** 3 / 3
        variance = np.where(self._inside(stamps), inside, outside)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)

    def bound_at_ns(self, device_ns: Stamps) -> Floats:
        """Return the hard bound on the error of `to_host_ns`, in ns, same shape."""
        stamps = np.asarray(device_ns, dtype=np.int64)
        k, tau, gap = self._place(stamps)
        j = np.minimum(k + 1, len(self.device_ns) - 1)
        here = self.bound_ns[k] + self._growth(k, np.abs(tau))
        there = self.bound_ns[j] + self._growth(j, gap - tau)
        return np.asarray(np.where(self._inside(stamps), np.minimum(here, there), here))

    def _growth(self, k: NDArray[np.intp], tau: Floats) -> Floats:
        tau = np.maximum(tau, 0.0)
        skew = np.sqrt(self.covariance[k, 1, 1])
        grown = skew * tau + np.sqrt(self.wander) * tau**1.5 * (2 / 3)
        return np.asarray(BOUND_SIGMAS * grown, dtype=np.float64)

    def _inside(self, stamps: Stamps) -> NDArray[np.bool_]:
        return np.asarray((stamps >= self.device_ns[0]) & (stamps < self.device_ns[-1]))

    def _place(self, stamps: Stamps) -> tuple[NDArray[np.intp], Floats, Floats]:
        """Return the knot at or before each stamp, the time since, and to the next, in s."""
        last = len(self.device_ns) - 1
        k = np.clip(np.searchsorted(self.device_ns, stamps, side="right") - 1, 0, last)
        tau = (stamps - self.device_ns[k]).astype(np.float64) / 1e9
        gap = (self.device_ns[np.minimum(k + 1, last)] - self.device_ns[k]) / 1e9
        return k, tau, np.where(gap > 0, gap, 1.0)

    def rows(self, most: int = MAX_ROWS) -> tuple[ClockFit, ...]:
        """Return straight pieces, one around each of at most ``most`` knots."""
        chosen = np.unique(np.linspace(0, len(self.device_ns) - 1, most).astype(np.int64))
        knots = self.device_ns[chosen]
        edges = np.concatenate([knots[:1], knots[:-1] + np.diff(knots) // 2, knots[-1:]])
        host_ns = self.to_host_ns(knots)
        sigma = np.sqrt(np.maximum(self.covariance[chosen][:, [0, 1], [0, 1]], 0.0))
        shares = np.diff(np.concatenate([[0], np.arange(1, len(chosen) + 1) * self.count]))
        counts = np.round(np.cumsum(shares) / len(chosen)).astype(np.int64)
        return tuple(
            ClockFit(
                reference_device_ns=int(knots[i]),
                reference_host_ns=int(host_ns[i]),
                rate=1 + float(self.skew[k]) / 1e9,
                rate_sigma=float(sigma[i, 1]) / 1e9,
                offset_sigma_ns=float(sigma[i, 0]),
                covariance_ns=float(self.covariance[k, 0, 1]) / 1e9,
                bound_ns=float(self.bound_ns[k]),
                valid_from_ns=int(edges[i]),
                valid_to_ns=int(edges[i + 1]),
                count=int(counts[i] - (counts[i - 1] if i else 0)),
            )
            for i, k in enumerate(chosen)
        )


def _h00(u: Floats) -> Floats:
    return np.asarray((1 + 2 * u) * (1 - u) ** 2, dtype=np.float64)


def _h10(u: Floats) -> Floats:
    return np.asarray(u * (1 - u) ** 2, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRecord:
    """A whole record of a clock.

    Parameters
    ----------
    pieces
        One for each stretch between steps of the clock.
    wander, noise_ns, queue_ratio
        What the exchanges themselves say of the clock and the way: see `Behaviour`.
    together
        How many exchanges in a row are wrong in the same way while they are held up, as
        in one queue: they are worth only one.
    wander_statistic
        Twice the log of how much likelier wander is than a straight line.
    steps
        Steps of the clock that were found, beside resets.
    """

    pieces: tuple[SmoothClock, ...]
    wander: float
    noise_ns: float
    queue_ratio: float
    together: float
    wander_statistic: float
    steps: int

    @property
    def wanders(self) -> bool:
        """True where a straight line is not enough."""
        return self.wander_statistic > WANDERS


def smooth_clock(exchanges: NDArray[np.void], *, min_noise_ns: float = MIN_NOISE_NS) -> ClockRecord:
    """Follow a clock through two-way exchanges, with what came before and after each.

    Each exchange is worth ``noise**2 + step**2 / 12 + (ratio * excess)**2``, the excess
    being its round trip beyond the smallest. Noise, ratio and the wander of the clock
    are not given: all that make the exchanges likely are taken, by their likelihood.
    Stretches between resets of the clock, and between smaller steps that the exchanges
    show clearly, share the skew but no offset.

    Parameters
    ----------
    exchanges
        EXCHANGE_DTYPE, shape (n,), n of at least 2, in any order.
    min_noise_ns
        Smallest standard deviation of a single exchange that is thought possible.

    Raises
    ------
    ValueError
        Fewer than two exchanges.
    """
    rows = np.unique(exchanges)  # answers that came twice are one
    rows = rows[np.argsort(rows["t0_ns"], kind="stable")]
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} clock exchanges are too few: a rate needs at least 2")
    edges = {0, *find_resets(rows)}
    given, device_ns, base_ns, half_ns, line_ns, skew = _measure(rows, sorted(edges))
    bank = _judge(given, min_noise_ns)
    for _ in range(MAX_BREAKS):
        most_ns = np.where(_unexplained(given, half_ns, bank), np.inf, 0.0)
        at = find_break(given, bank.likeliest(), sigmas=BREAK_SIGMAS, most_ns=most_ns)
        if at is None:
            break
        given = given.with_break(at)
        bank = _judge(given, min_noise_ns)
    behaviour, weights = bank.few(len(rows))
    found = smooth(given, behaviour, weights)
    likeliest = bank.likeliest()
    # Those that decide are held up least, and are wrong together less than the others.
    together = wrong_together(given, likeliest, found.state[:, 0]) ** (1 / 3)
    if together > 1:
        found = smooth(given, behaviour, weights, together=together)
    measured = given
    if len(rows) >= MANY:
        given = _joined(given, half_ns, found, likeliest)
        joined = _judge(given, min_noise_ns)
        found = smooth(given, *joined.few(len(rows)))
        found = _as_from_few(found, given, joined.likeliest(), 1.0)
    else:
        found = _as_from_few(found, given, likeliest, together)
    own = half_ns + np.abs(measured.y_ns - found.state[:, 0])
    found.state[:, 0] += line_ns
    found.state[:, 1] += skew
    starts = np.flatnonzero(given.fresh)
    pieces = tuple(
        _piece(found, slice(a, b), device_ns, base_ns, own)
        for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)
    )
    return ClockRecord(
        pieces=pieces,
        wander=float(likeliest.wander[0]),
        noise_ns=float(likeliest.noise_ns[0]),
        queue_ratio=float(likeliest.queue_ratio[0]),
        together=together,
        wander_statistic=bank.wander_statistic(),
        steps=len(starts) - len(edges),
    )


def _joined(
    given: Measurements, half_ns: Floats, found: Smoothed, behaviour: Behaviour
) -> Measurements:
    """Return the same with the quickest halves of each block joined; the others say nothing.

    A block is so short that the skew, as it was found, tells nearly all that the clock
    gained within it.
    """
    skew_sigma = float(np.sqrt(np.median(found.covariance[:, 1, 1])))
    t_s = np.cumsum(given.dt_s)
    length_s = min(BLOCK_S, float(t_s[-1]) / BLOCKS, SURE * float(half_ns.min()) / skew_sigma)
    stretch = np.cumsum(given.fresh) - 1
    began_s = t_s[given.fresh][stretch]
    # One that no delay explains takes no part.
    far_ns = np.abs(given.y_ns - found.state[:, 0]) - given.excess_ns / 2
    sigma_ns = np.sqrt(found.covariance[:, 0, 0] + behaviour.variance_ns2(0.0, given.variance_ns2))
    half_ns = np.where(far_ns > ODD_SIGMAS * sigma_ns, NEVER_NS, half_ns)
    within = np.floor((t_s - began_s) / max(length_s, 1e-9)).astype(np.int64)
    begins = given.fresh | (np.diff(within, prepend=-1) != 0)
    joined = quickest(t_s, given.y_ns, half_ns, found.state[:, 1], np.cumsum(begins))
    at = joined.at
    y_ns, excess_ns = given.y_ns.copy(), np.zeros(len(t_s))
    variance, fresh = np.full(len(t_s), NOTHING_NS2), given.fresh.copy()
    y_ns[at], variance[at] = joined.y_ns, given.variance_ns2[at]
    excess_ns[at] = 2 * (joined.half_trip_ns - joined.half_trip_ns.min())
    return replace(given, y_ns=y_ns, excess_ns=excess_ns, variance_ns2=variance, fresh=fresh)


def _as_from_few(
    found: Smoothed, given: Measurements, likeliest: Behaviour, together: float
) -> Smoothed:
    """Widen what few good exchanges say: their own noise is hardly known (Student's t)."""
    held = likeliest.queue_ratio**2 * together * given.excess_ns**2
    weight = 1 / np.sqrt(likeliest.noise_ns**2 + given.variance_ns2 + held)
    wider = wider_for(float(weight.sum() ** 2 / np.sum(weight**2)))
    return replace(found, covariance=found.covariance * wider, lag=found.lag * wider)


def wider_for(good: float) -> float:
    """Return the factor of a variance that hangs on so many good exchanges, 2 for a line."""
    return 1 + 2 / max(good - 4, 1.0)


def wrong_together(given: Measurements, behaviour: Behaviour, offset_ns: Floats) -> float:
    """Return how many held-up exchanges in a row are wrong in the same way, at least 1."""
    held = behaviour.queue_ratio * given.excess_ns
    plain = behaviour.noise_ns**2 + given.variance_ns2
    queued = held**2 > plain
    pull = np.clip((given.y_ns - offset_ns) / np.sqrt(plain + held**2), -3, 3) * queued
    count, total = float(queued.sum()), 1.0
    mean_square = float(pull @ pull) / max(count, 1.0)
    for lag in range(1, len(pull) // 4):
        pairs = float(np.sum(queued[lag:] & queued[:-lag]))
        alike = float(pull[lag:] @ pull[:-lag]) / max(pairs, 1.0)
        if pairs < 8 or alike < 2 / np.sqrt(pairs) * mean_square:
            break
        total += 2 * alike / mean_square
    return total


def _measure(
    rows: NDArray[np.void], edges: Sequence[int]
) -> tuple[Measurements, Stamps, Stamps, Floats, Floats, float]:
    """Return the offsets and device times, what was taken off the offsets, half the trips.

    What was taken off is an integer for each stretch, and one line, so that small numbers
    are left: its values and its slope come last.
    """
    host_ns = rows["t0_ns"] + (rows["t3_ns"] - rows["t0_ns"]) // 2
    device_ns = rows["t1_ns"] + (rows["t2_ns"] - rows["t1_ns"]) // 2
    fresh = np.zeros(len(rows), np.bool_)
    fresh[list(edges)] = True
    piece = np.cumsum(fresh) - 1
    base_ns = (host_ns - device_ns)[np.asarray(edges)][piece]
    half_ns = np.maximum(round_trip_ns(rows), 0) / 2
    rate, skew_sigma = _rate(host_ns, device_ns, half_ns, piece)
    began_ns = device_ns[np.asarray(edges)][piece]
    line_ns = (rate - 1) * (device_ns - began_ns).astype(np.float64)
    y_ns = (host_ns - device_ns - base_ns) - line_ns
    # Over a reset the host says how much time went by.
    step_ns = np.where(fresh[1:], np.diff(host_ns), np.diff(device_ns))
    dt_s = np.concatenate([[0.0], np.maximum(step_ns, 0) / 1e9])
    trip_ns = np.maximum(round_trip_ns(rows, rate), 0)
    excess_ns = (trip_ns - trip_ns.min()).astype(np.float64)
    variance = np.full(len(rows), granularity_ns(rows["t1_ns"]) ** 2 / 12.0)
    given = Measurements(
        dt_s=dt_s,
        y_ns=y_ns,
        excess_ns=excess_ns,
        variance_ns2=variance,
        fresh=fresh,
        skew_sigma=skew_sigma,
    )
    return given, device_ns, base_ns, trip_ns / 2, line_ns, (rate - 1) * 1e9


def _rate(
    host_ns: Stamps, device_ns: Stamps, half_ns: Floats, piece: NDArray[np.intp]
) -> tuple[float, float]:
    """Return about how many host ns a device ns has, and by how much that may be off, in ns/s.

    That is 1 where it may be: no way can have been so unequal that two crystals explain a
    clock which gains more. Else it is the line through all stretches, by how much each
    exchange can be off at most.
    """
    lead_ns = host_ns - device_ns
    weight = 1 / np.maximum(half_ns, MIN_NOISE_NS) ** 2
    dx, dy, beyond = np.zeros(len(host_ns)), np.zeros(len(host_ns)), False
    for k in range(int(piece[-1]) + 1):
        mine = np.flatnonzero(piece == k)
        quick = mine[np.argmin(half_ns[mine])]
        x_s = (device_ns[mine] - device_ns[quick]) / 1e9
        y_ns = (lead_ns[mine] - lead_ns[quick]).astype(np.float64)
        most_ns = half_ns[mine] + half_ns[quick] + 5 * SKEW_SIGMA * np.abs(x_s)
        beyond |= bool(np.any(np.abs(y_ns) > most_ns))
        dx[mine] = x_s - np.average(x_s, weights=weight[mine])
        dy[mine] = y_ns - np.average(y_ns, weights=weight[mine])
    spread = float(np.sum(weight * dx**2))
    if not beyond or spread == 0:
        return 1.0, SKEW_SIGMA
    return 1 + float(np.sum(weight * dx * dy)) / spread / 1e9, OTHER_STEPS_SIGMA


def _unexplained(given: Measurements, half_ns: Floats, bank: Bank) -> NDArray[np.bool_]:
    """Return before which exchanges the clock must have stepped, shape (n,).

    What an exchange says is off by half of what it was held up, at most; where they are few,
    the quickest may have been held up too, and then by half the round trip. It was a step
    where no such delays make the exchanges before and after agree.
    """
    _, drift, covariance = bank.mean()
    skew = min(EACH_WAY * float(np.sqrt(covariance[1, 1])), 5 * given.skew_sigma)
    noise_ns = EACH_WAY * np.sqrt(bank.likeliest().noise_ns ** 2 + given.variance_ns2)
    most_ns = half_ns + EACH_WAY * np.sqrt(given.variance_ns2)
    if len(given.y_ns) >= MANY:
        most_ns = np.minimum(given.excess_ns / 2 + noise_ns, most_ns)
    low, high = _possible(given, most_ns, drift, skew)
    later = _possible(given.backwards(), most_ns[::-1], -drift, skew)
    later_low, later_high = later[0][::-1], later[1][::-1]
    dt_s = given.dt_s[1:]
    steps = np.zeros(len(given.y_ns), np.bool_)
    steps[1:] = (low[:-1] + (drift - skew) * dt_s > later_high[1:]) | (
        high[:-1] + (drift + skew) * dt_s < later_low[1:]
    )
    return steps


def _possible(
    given: Measurements, most_ns: Floats, drift: float, skew: float
) -> tuple[Floats, Floats]:
    """Return between what the offset must lie at each exchange, by it and those before it."""
    low, high = given.y_ns - most_ns, given.y_ns + most_ns
    for k in range(1, len(low)):
        since_low = low[k - 1] + (drift - skew) * given.dt_s[k]
        since_high = high[k - 1] + (drift + skew) * given.dt_s[k]
        # Those that contradict each other have a step between them, or tell nothing.
        if not given.fresh[k] and since_low <= high[k] and since_high >= low[k]:
            low[k], high[k] = max(low[k], since_low), min(high[k], since_high)
    return low, high


def _judge(given: Measurements, min_noise_ns: float) -> Bank:
    bank = Bank(guesses(min_noise_ns))
    follow(bank, given)
    return bank


def _piece(
    found: Smoothed,
    part: slice,
    device_ns: Stamps,
    base_ns: Stamps,
    own_bound_ns: Floats,
) -> SmoothClock:
    stamps = device_ns[part]
    last = np.append(np.flatnonzero(np.diff(stamps) > 0), len(stamps) - 1)
    chosen = np.arange(part.start, part.stop)[last]
    knots = SmoothClock(
        device_ns=device_ns[chosen],
        base_ns=int(base_ns[part.start]),
        offset_ns=found.state[chosen, 0],
        skew=found.state[chosen, 1],
        covariance=found.covariance[chosen],
        lag=found.lag[chosen[:-1]],
        bound_ns=own_bound_ns[chosen],
        wander=found.wander,
        count=len(stamps),
    )
    return replace(knots, bound_ns=spread_bound(knots))


def spread_bound(clock: SmoothClock) -> Floats:
    """Return the bound at each knot as its neighbours' bounds tighten it."""
    gap_s = np.diff(clock.device_ns) / 1e9
    skew = np.sqrt(np.maximum(clock.covariance[:, 1, 1], 0.0))
    grown = BOUND_SIGMAS * np.maximum(skew[1:], skew[:-1]) * gap_s
    total = np.concatenate([[0.0], np.cumsum(grown)])
    forward = np.minimum.accumulate(clock.bound_ns - total) + total
    backward = np.minimum.accumulate((clock.bound_ns + total)[::-1])[::-1] - total
    return np.asarray(np.minimum(forward, backward), dtype=np.float64)
