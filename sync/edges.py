"""TTL edges that two records have seen, matched by what they are and not by their order.

The intervals between edges tell which is which, so that missing and extra edges do no harm.
Pulses that are all alike tell nothing: they are refused unless about when is known.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sync.clockfit import ClockFit

Floats = NDArray[np.float64]
NEIGHBOURS = 5  # intervals that tell what an edge is
ANCHORS = 200  # pairs that are tried
MIN_MATCHES = 4
SECOND_RATIO = 0.75  # of the matches, which another place must not reach
GATE = 5.0  # sigmas within which edges belong together
RESIDUAL_LEVEL = 1e-3  # chance below which the line does not fit
SHARED = 0.5  # of the edges of the shorter record, that must find each other


class EdgesAmbiguous(ValueError):
    """Edges fit in more than one place, or in none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeMatch:
    """Which edges are the same, and the clock that follows.

    Parameters
    ----------
    first_index, second_index
        Edges that are the same, shape (k,).
    clock
        From the first record's clock (as device) to the second's (as host); it goes on with
        its rate, and a growing sigma, beyond the edges.
    residual_ns
        Second less line, shape (k,).
    chi2_ratio, p
        Of the residuals in a degree of freedom, and how likely chance makes them as large.
    fits
        False where the clocks do not keep to a line; the sigmas are widened then.
    missing, extra
        Edges of the first within the second's time that it has not, and the other way round.
    second_best
        Matches of the best other place.
    """

    first_index: NDArray[np.intp]
    second_index: NDArray[np.intp]
    clock: ClockFit
    residual_ns: Floats
    chi2_ratio: float
    p: float
    fits: bool
    missing: int
    extra: int
    second_best: int


def edge_sigma_ns(sample_period_ns: float) -> float:
    """Return the standard uncertainty of an edge that was sampled: an even spread."""
    return sample_period_ns / math.sqrt(12)


def match_edges(
    first_ns: NDArray[np.int64],
    second_ns: NDArray[np.int64],
    *,
    first_sigma_ns: float,
    second_sigma_ns: float,
    max_rate_error: float = 1e-3,
    near_ns: tuple[int, int] | None = None,
) -> EdgeMatch:
    """Match the edges of two records and fit the clock between them.

    Parameters
    ----------
    first_ns, second_ns
        Edges of one kind (all, or rising ones) on each record's clock, increasing.
    first_sigma_ns, second_sigma_ns
        Of a single edge: `edge_sigma_ns` of the sample period.
    max_rate_error
        By how much the rates of the clocks may differ.
    near_ns
        Second less first as far as it is known, and how far off that may be; None for
        nothing. It settles which pulse is which among pulses that are alike.

    Raises
    ------
    EdgesAmbiguous
        Too few edges, no place that fits, or more than one.
    ValueError
        Edges in no order.
    """
    if np.any(np.diff(first_ns) <= 0) or np.any(np.diff(second_ns) <= 0):
        raise ValueError("edges must be in order of time, each at a time of its own")
    if min(len(first_ns), len(second_ns)) < MIN_MATCHES:
        raise EdgesAmbiguous(
            f"{len(first_ns)} and {len(second_ns)} edges are too few to tell which is which: at "
            f"least {MIN_MATCHES} are needed in both"
        )
    sigma_ns = math.hypot(first_sigma_ns, second_sigma_ns)
    origin = int(first_ns[0]), int(second_ns[0])
    first, second = (first_ns - origin[0]).astype(float), (second_ns - origin[1]).astype(float)
    tried = _Matcher(first, second, sigma_ns, max_rate_error)
    places: list[_Place] = []
    for i, j in _anchors(tried, near_ns, origin[1] - origin[0]):
        known = second[j] - first[i]
        if not any(tried.same_place(place, first[i], known) for place in places):
            places.append(tried.grow(i, j))
    places.sort(key=lambda place: -len(place.first))
    if not places or len(places[0].first) < MIN_MATCHES:
        raise EdgesAmbiguous("the edges of both records have no intervals in common")
    best = places[0]
    second_best = max((len(p.first) for p in places[1:] if tried.differ(p, best)), default=0)
    if second_best > SECOND_RATIO * len(best.first):
        raise EdgesAmbiguous(
            f"the edges fit in more than one place ({len(best.first)} and {second_best} of them): "
            "pulses that are all alike do not tell which is which; vary their intervals, or say "
            "about when they came"
        )
    return _result(tried, best, (first_ns, second_ns), sigma_ns, second_best)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    rate: float
    offset: float  # second = offset + rate * first

    def at(self, first: Floats) -> Floats:
        return self.offset + self.rate * first


class _Matcher:
    """Grows a match from one pair of edges."""

    def __init__(self, first: Floats, second: Floats, sigma_ns: float, rate_error: float) -> None:
        self.first, self.second = first, second
        self.sigma_ns = sigma_ns
        self.rate_error = rate_error

    def same_place(self, place: _Place, first: float, offset: float) -> bool:
        """Tell whether a pair of edges lies on a line that is known already."""
        expected = place.offset + (place.rate - 1) * first
        return abs(expected - offset) <= 2 * GATE * self.sigma_ns

    def differ(self, one: _Place, other: _Place) -> bool:
        """Tell whether two lines pair different edges."""
        shared = set(zip(one.first, one.second, strict=True))
        return len(shared & set(zip(other.first, other.second, strict=True))) < 0.5 * len(one.first)

    def grow(self, i: int, j: int) -> _Place:
        """Match ever more edges around a pair, with the rate that they have shown so far."""
        first, second = self.first, self.second
        place = _Place(
            first=np.array([i]), second=np.array([j]), rate=1.0, offset=second[j] - first[i]
        )
        reach = 4 * float(np.median(np.diff(first)))
        rate_sigma = self.rate_error / 2
        whole = False
        while not whole:
            whole = reach > max(first[-1] - first[0], second[-1] - second[0])
            near = np.flatnonzero(np.abs(first - first[i]) <= reach)
            away = np.abs(first[near] - first[i])
            gate = GATE * self.sigma_ns + 2 * np.minimum(rate_sigma, self.rate_error / 2) * away
            own, other = self._pair(near, place.at(first[near]), gate)
            if len(own) >= 2:
                place, rate_sigma = self._line(own, other)
            reach *= 2
        near = np.arange(len(first))
        gate = np.full(len(first), GATE * self.sigma_ns)
        own, other = self._pair(near, place.at(first), gate)
        if len(own) < 2:
            return place
        return self._line(own, other)[0]

    def _pair(
        self, near: NDArray[np.intp], expected: Floats, gate: Floats
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the nearest edges of the second record within a gate, each once."""
        second = self.second
        right = np.clip(np.searchsorted(second, expected), 1, len(second) - 1)
        nearest = right - (expected - second[right - 1] < second[right] - expected)
        off = np.abs(second[nearest] - expected)
        good = off <= gate
        near, nearest, off = near[good], nearest[good], off[good]
        order = np.argsort(off, kind="stable")
        _, once = np.unique(nearest[order], return_index=True)
        chosen = np.sort(order[once])
        return near[chosen], nearest[chosen]

    def _line(self, own: NDArray[np.intp], other: NDArray[np.intp]) -> tuple[_Place, float]:
        x, y = self.first[own], self.second[other]
        middle = x.mean()
        spread = float(np.sum((x - middle) ** 2))
        rate = 1 + float(np.sum((x - middle) * (y - x - np.mean(y - x)))) / spread
        limit = self.rate_error
        rate = float(np.clip(rate, 1 - limit, 1 + limit))
        offset = float(np.mean(y - x)) + (1 - rate) * middle
        place = _Place(first=own, second=other, rate=rate, offset=offset)
        return place, self.sigma_ns / math.sqrt(spread)


def _anchors(
    tried: _Matcher, near_ns: tuple[int, int] | None, moved_ns: int
) -> list[tuple[int, int]]:
    """Return pairs of edges whose next intervals are alike, the surest first."""
    first, second = tried.first, tried.second
    mine, own = _intervals(first)
    other, theirs = _intervals(second)
    order = np.argsort(other)
    other, theirs = other[order], theirs[order]
    gate = GATE * math.sqrt(2) * tried.sigma_ns + tried.rate_error * mine
    low = np.searchsorted(other, mine - gate)
    high = np.searchsorted(other, mine + gate, side="right")
    lengths = high - low
    pairs = np.repeat(own, lengths)
    ends = np.cumsum(lengths)
    found = theirs[
        np.arange(len(pairs)) - np.repeat(ends - lengths, lengths) + np.repeat(low, lengths)
    ]
    if near_ns is not None:
        offset = second[found] - first[pairs] + moved_ns
        close = np.abs(offset - near_ns[0]) <= near_ns[1]
        pairs, found = pairs[close], found[close]
    key, votes = np.unique(pairs * len(second) + found, return_counts=True)
    # Many pairs are as sure as each other where pulses are alike: take them from all over.
    shuffled = np.random.default_rng(0).permutation(len(key))
    best = shuffled[np.argsort(-votes[shuffled], kind="stable")][:ANCHORS]
    return [(int(k) // len(second), int(k) % len(second)) for k in key[best]]


def _intervals(edges: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return intervals to the next few edges, and the edge that each begins at."""
    index = np.arange(len(edges))
    steps = range(1, min(NEIGHBOURS, len(edges) - 1) + 1)
    return (
        np.concatenate([edges[k:] - edges[:-k] for k in steps]),
        np.concatenate([index[:-k] for k in steps]),
    )


def _result(
    tried: _Matcher,
    best: _Place,
    edges_ns: tuple[NDArray[np.int64], NDArray[np.int64]],
    sigma_ns: float,
    second_best: int,
) -> EdgeMatch:
    first_ns, second_ns = edges_ns
    x, y = tried.first[best.first], tried.second[best.second]
    residual = y - best.at(x)
    freedom = len(x) - 2
    chi2 = float(np.sum((residual / sigma_ns) ** 2))
    p = float(special.chdtrc(freedom, chi2)) if freedom > 0 else 1.0
    ratio = chi2 / freedom if freedom > 0 else 1.0
    ends, margin = best.at(tried.first[[0, -1]]), GATE * sigma_ns
    inside = np.sum((tried.second >= ends[0] - margin) & (tried.second <= ends[1] + margin))
    back = (tried.second[[0, -1]] - best.offset) / best.rate
    within = np.sum((tried.first >= back[0] - margin) & (tried.first <= back[1] + margin))
    shorter = max(1, int(min(inside, within)))
    if len(x) < max(MIN_MATCHES, SHARED * shorter):
        raise EdgesAmbiguous(
            f"only {len(x)} of {shorter} edges that both records should have are the same: chance "
            "makes as many"
        )
    spread = float(np.sum((x - x.mean()) ** 2))
    scale = math.sqrt(max(ratio, 1.0))
    reference = round(float(x.mean()))
    host = float(best.at(np.array([float(reference)]))[0])
    clock = ClockFit(
        reference_device_ns=int(first_ns[0]) + reference,
        reference_host_ns=int(second_ns[0]) + round(host),
        rate=best.rate,
        rate_sigma=scale * sigma_ns / math.sqrt(spread),
        offset_sigma_ns=scale * sigma_ns / math.sqrt(len(x)),
        covariance_ns=0.0,  # about the middle
        bound_ns=0.0,  # both records have seen the same edge
        valid_from_ns=int(first_ns[best.first[0]]),
        valid_to_ns=int(first_ns[best.first[-1]]),
        count=len(x),
    )
    return EdgeMatch(
        first_index=best.first,
        second_index=best.second,
        clock=clock,
        residual_ns=residual,
        chi2_ratio=ratio,
        p=p,
        fits=p >= RESIDUAL_LEVEL,
        missing=int(within) - len(x),
        extra=int(inside) - len(x),
        second_best=second_best,
    )
