"""From exchanges to a clock: offset and rate with their uncertainty, reset by reset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sync.pairs import round_trip_ns

HUBER = 1.345  # residuals beyond this many sigmas count less
ITERATIONS = 12
MIN_SIGMA_NS = 5_000.0  # a user-space stamp is no better than a few microseconds
MIN_EXCHANGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFit:
    """A device clock against the host clock: ``host = reference + rate * (device - reference)``.

    Parameters
    ----------
    reference_device_ns, reference_host_ns
        A point of the line: integers, so that no precision is lost.
    rate
        Host ns in one device ns.
    rate_sigma
        Standard uncertainty of ``rate``.
    offset_sigma_ns
        Standard uncertainty of the host time at the reference.
    covariance_ns
        Covariance of offset and rate.
    bound_ns
        Half the smallest round trip: a hard bound on what asymmetry can hide.
    valid_from_ns, valid_to_ns
        Device times of the first and last exchange.
    count
        Exchanges used.
    """

    reference_device_ns: int
    reference_host_ns: int
    rate: float
    rate_sigma: float
    offset_sigma_ns: float
    covariance_ns: float
    bound_ns: float
    valid_from_ns: int
    valid_to_ns: int
    count: int

    def to_host_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return host times of device times, int64, same shape."""
        elapsed = np.asarray(device_ns, dtype=np.int64) - self.reference_device_ns
        # Only the small part goes through floating point: the rest stays exact.
        extra = np.round(elapsed.astype(np.float64) * (self.rate - 1.0))
        host = self.reference_host_ns + elapsed + extra.astype(np.int64)
        return np.asarray(host, dtype=np.int64)

    def sigma_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the standard uncertainty of `to_host_ns`, in ns, same shape."""
        elapsed = np.asarray(device_ns, dtype=np.int64) - self.reference_device_ns
        x = elapsed.astype(np.float64)
        variance = self.offset_sigma_ns**2 + 2 * self.covariance_ns * x + (self.rate_sigma * x) ** 2
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)


class Stretch(Protocol):
    """A device clock against the host's for as long as it did not begin anew."""

    @property
    def valid_from_ns(self) -> int:
        """Device time of the first exchange."""
        ...

    @property
    def valid_to_ns(self) -> int:
        """Device time of the last exchange."""
        ...

    def to_host_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return host times of device times, int64, same shape."""
        ...

    def sigma_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the standard uncertainty of `to_host_ns`, in ns, same shape."""
        ...


def granularity_ns(stamps: NDArray[np.int64]) -> int:
    """Return the step in which a clock is read out: the power of ten in all stamps."""
    step = 1
    while step < 10**9 and np.all(stamps % (step * 10) == 0):
        step *= 10
    return step


def fit_clock(exchanges: NDArray[np.void], *, min_sigma_ns: float = MIN_SIGMA_NS) -> ClockFit:
    """Fit a line through two-way exchanges, robustly and weighted by their delays.

    Each exchange is worth ``floor**2 + step**2 / 12 + (excess / 2)**2``, where the
    excess is its round trip beyond the smallest one and the step is the resolution of
    the device's read-out. The covariance is scaled up when the residuals ask for it.

    Parameters
    ----------
    exchanges
        EXCHANGE_DTYPE, shape (n,), n of at least 2, at different device times.
    min_sigma_ns
        Smallest uncertainty of a single exchange.

    Raises
    ------
    ValueError
        Fewer than two exchanges, or all at the same device time.
    """
    if len(exchanges) < MIN_EXCHANGES:
        raise ValueError(f"{len(exchanges)} clock exchanges are too few: a rate needs at least 2")
    host_ns = exchanges["t0_ns"] + (exchanges["t3_ns"] - exchanges["t0_ns"]) // 2
    device_ns = exchanges["t1_ns"] + (exchanges["t2_ns"] - exchanges["t1_ns"]) // 2
    middle = len(exchanges) // 2
    reference_host, reference_device = int(host_ns[middle]), int(device_ns[middle])
    y = (host_ns - reference_host).astype(np.float64)
    x = (device_ns - reference_device).astype(np.float64)
    if np.ptp(x) == 0:
        raise ValueError("all clock exchanges carry the same device time: no rate in it")
    # The line is fitted as an excess over rate 1, which keeps small numbers small.
    slope = float((y[-1] - y[0]) / (x[-1] - x[0]))
    trip_ns = round_trip_ns(exchanges, slope).astype(np.float64)
    step_ns = granularity_ns(exchanges["t1_ns"])
    sigma_ns = np.sqrt(min_sigma_ns**2 + step_ns**2 / 12 + ((trip_ns - trip_ns.min()) / 2) ** 2)
    offset, slope, covariance = _robust_line(x, y, sigma_ns)
    rounded = round(offset)
    return ClockFit(
        reference_device_ns=reference_device,
        reference_host_ns=reference_host + rounded,
        rate=slope,
        rate_sigma=float(np.sqrt(covariance[1, 1])),
        offset_sigma_ns=float(np.sqrt(covariance[0, 0])),
        covariance_ns=float(covariance[0, 1]),
        bound_ns=float(max(trip_ns.min(), 0.0)) / 2,
        valid_from_ns=int(device_ns.min()),
        valid_to_ns=int(device_ns.max()),
        count=len(exchanges),
    )


def _robust_line(
    x: NDArray[np.float64], y: NDArray[np.float64], sigma: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """Return offset, slope and covariance of a Huber line (iteratively reweighted)."""
    scale = float(np.ptp(x))
    design = np.stack([np.ones_like(x), x / scale], axis=1)
    weight = 1.0 / sigma**2
    solution, normal = np.zeros(2), np.eye(2)
    for _ in range(ITERATIONS):
        normal = np.asarray(design.T @ (weight[:, None] * design))
        solution = np.asarray(np.linalg.solve(normal, design.T @ (weight * y)))
        pull = np.abs(y - design @ solution) / sigma
        weight = np.minimum(1.0, HUBER / np.maximum(pull, HUBER)) / sigma**2
    covariance = np.linalg.inv(normal)
    if (freedom := len(x) - 2) > 0:
        used = weight * sigma**2
        chi2 = float(np.sum(used * ((y - design @ solution) / sigma) ** 2)) / freedom
        covariance = covariance * max(1.0, chi2)
    unit = np.array([1.0, 1.0 / scale])
    return (
        float(solution[0]),
        float(solution[1] / scale),
        covariance * unit[:, None] * unit[None, :],
    )


def find_resets(exchanges: NDArray[np.void], *, step_ns: float = 50e6) -> list[int]:
    """Return the indices at which the device clock was set anew.

    Parameters
    ----------
    step_ns
        A jump against the host by more than this is a reset, as is any step back from one
        exchange to another that was begun later than the first had ended.
    """
    host = (exchanges["t0_ns"] + exchanges["t3_ns"]) // 2
    device = exchanges["t1_ns"]
    host_step, device_step = np.diff(host), np.diff(device)
    if len(host_step) == 0:
        return []
    forward = device_step > 0
    rate = _typical_rate(host_step[forward], device_step[forward]) if np.any(forward) else 1.0
    trip = exchanges["t3_ns"] - exchanges["t0_ns"]
    allowed = step_ns + (trip[1:] + trip[:-1]) / 2
    jumped = np.abs(host_step - rate * device_step) > allowed
    in_turn = exchanges["t0_ns"][1:] >= exchanges["t3_ns"][:-1]
    return [int(i) + 1 for i in np.flatnonzero(jumped | (in_turn & (device_step < 0)))]


def _typical_rate(host_step: NDArray[np.int64], device_step: NDArray[np.int64]) -> float:
    """Return the rate that half of the time was slower than: short steps tell little of it."""
    rates = host_step / device_step
    order = np.argsort(rates)
    passed = np.cumsum(host_step[order].astype(np.float64))
    return float(rates[order][np.searchsorted(passed, passed[-1] / 2)])


def fit_segments(
    exchanges: NDArray[np.void], *, min_sigma_ns: float = MIN_SIGMA_NS
) -> tuple[ClockFit, ...]:
    """Fit each stretch between resets of the device clock by itself.

    A stretch of a single exchange carries no rate and is left out, but for the last one: a
    clock that began anew just before the end keeps the rate that it had.

    Raises
    ------
    ValueError
        No stretch has two exchanges.
    """
    edges = [0, *find_resets(exchanges), len(exchanges)]
    stretches = [exchanges[a:b] for a, b in pairwise(edges)]
    long_enough = [s for s in stretches if len(s) >= MIN_EXCHANGES]
    if not long_enough:
        raise ValueError(f"{len(exchanges)} clock exchanges are too few: a rate needs at least 2")
    fits = [fit_clock(s, min_sigma_ns=min_sigma_ns) for s in long_enough]
    last = stretches[-1]
    if len(last) == 1 and last["t1_ns"][0] < exchanges["t1_ns"][-2]:
        step_ns = granularity_ns(exchanges["t1_ns"])
        fits.append(_at_rate_of(fits[-1], last, np.hypot(min_sigma_ns, step_ns / np.sqrt(12))))
    return tuple(fits)


def _at_rate_of(before: ClockFit, exchange: NDArray[np.void], sigma_ns: float) -> ClockFit:
    """Return the line through one exchange, with the rate that was fitted before it."""
    (row,) = exchange
    device_ns = int(row["t1_ns"]) + (int(row["t2_ns"]) - int(row["t1_ns"])) // 2
    trip_ns = int(round_trip_ns(exchange, before.rate)[0])
    return replace(
        before,
        reference_device_ns=device_ns,
        reference_host_ns=int(row["t0_ns"]) + (int(row["t3_ns"]) - int(row["t0_ns"])) // 2,
        offset_sigma_ns=float(np.hypot(sigma_ns, trip_ns / np.sqrt(12))),
        covariance_ns=0.0,
        bound_ns=max(trip_ns, 0) / 2,
        valid_from_ns=device_ns,
        valid_to_ns=device_ns,
        count=1,
    )


def to_host(
    segments: Sequence[Stretch], device_ns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return host times and their sigma for stamps in the order in which they came.

    A stamp belongs to the stretch whose range is nearest; between two stretches that
    fit equally well, time must not run backwards, so the later one is taken. Where it
    may belong to either, because nobody saw when the clock stepped, its sigma says so.
    """
    stamps = np.asarray(device_ns, dtype=np.int64)
    chosen = stretch_of(segments, stamps)
    host = np.empty(len(stamps), dtype=np.int64)
    sigma = np.empty(len(stamps), dtype=np.float64)
    for k, segment in enumerate(segments):
        mine = chosen == k
        host[mine] = segment.to_host_ns(stamps[mine])
        sigma[mine] = segment.sigma_ns(stamps[mine])
    for k, (one, other) in enumerate(pairwise(segments)):
        between = (chosen == k) | (chosen == k + 1)
        between &= (stamps > one.valid_to_ns) & (stamps < other.valid_from_ns)
        if np.any(between):
            unsure = _unsure_ns(one, other, stamps[between])
            sigma[between] = np.hypot(sigma[between], unsure)
    return host, sigma


def stretch_of(segments: Sequence[Stretch], stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the stretch of each stamp, in the order in which they came."""
    chosen = np.zeros(len(stamps), dtype=np.int64)
    if len(segments) == 1:
        return chosen
    now = 0
    for i, stamp in enumerate(stamps):
        # A step back is one reset, so it ends one stretch.
        if i > 0 and stamp < stamps[i - 1] and now + 1 < len(segments):
            now += 1
        while now + 1 < len(segments) and _next_is_nearer(segments, now, int(stamp)):
            now += 1
        chosen[i] = now
    return chosen


def _unsure_ns(one: Stretch, other: Stretch, stamps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what not knowing when the clock stepped adds, for stamps in between.

    The step came at any time between the last exchange before and the first after it, so
    the farther a stamp is from both, the likelier it is on the wrong side. A stamp that
    only one of the two can have shown is in no doubt.
    """
    edges = np.array([one.valid_to_ns, other.valid_from_ns])
    passed = int(other.to_host_ns(edges[1:])[0] - one.to_host_ns(edges[:1])[0])
    since, until = stamps - edges[0], edges[1] - stamps
    wrong = np.minimum(since, until) / (edges[1] - edges[0])
    apart = np.abs(other.to_host_ns(stamps) - one.to_host_ns(stamps))
    either = (since <= passed) & (until <= passed)
    return np.asarray(np.where(either, apart * np.sqrt(wrong), 0.0), dtype=np.float64)


def _next_is_nearer(segments: Sequence[Stretch], now: int, stamp: int) -> bool:
    return _distance(segments[now + 1], stamp) < _distance(segments[now], stamp)


def _distance(segment: Stretch, stamp: int) -> int:
    return max(segment.valid_from_ns - stamp, stamp - segment.valid_to_ns, 0)
