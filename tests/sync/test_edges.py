"""TTL edges of two records: which is which, the clock that follows, and when it is refused."""

import numpy as np
import pytest

from sync.edges import EdgesAmbiguous, edge_sigma_ns, match_edges

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000


class Wire:
    """Edges on a wire that two records sample, each with a clock of its own."""

    def __init__(self, seed, *, count=80, rate=1 + 40e-6, offset_s=12.345, even=False):
        rng = np.random.default_rng(seed)
        self.rng = rng
        gaps = np.full(count, 1.0) if even else rng.uniform(0.2, 2.0, count)
        self.edges_s = 3 + np.cumsum(gaps)
        self.rate, self.offset_s = rate, offset_s

    def shows(self, edges_s):
        return START_NS + np.round((self.offset_s + self.rate * edges_s) * 1e9).astype(np.int64)

    def pair(self, *, first_period_ms=1.0, second_period_ms=0.2, lost=0.0, extra=0):
        keep = self.rng.random((2, len(self.edges_s))) >= lost
        spurious = self.rng.uniform(self.edges_s[0], self.edges_s[-1], (2, extra))
        first = self._sampled(np.round(self.edges_s * 1e9), keep[0], spurious[0], first_period_ms)
        seen = (self.shows(self.edges_s) - START_NS).astype(float)
        second = self._sampled(seen, keep[1], spurious[1], second_period_ms)
        return first, START_NS + second

    def _sampled(self, edges_ns, keep, spurious_s, period_ms):
        period = round(period_ms * MS)
        every = np.concatenate([edges_ns[keep], spurious_s * 1e9])
        # An edge is seen at the sample after it, half a period late in the mean.
        late = np.ceil((every + self.rng.uniform(0, period)) / period) * period - period
        return np.unique(late.astype(np.int64))


def matched(first, second, **more):
    return match_edges(
        first,
        second,
        first_sigma_ns=edge_sigma_ns(1.0 * MS),
        second_sigma_ns=edge_sigma_ns(0.2 * MS),
        **more,
    )


def test_an_edge_is_as_good_as_its_sample_period():
    assert edge_sigma_ns(1e6) == pytest.approx(288_675, rel=1e-3)


@pytest.mark.parametrize(("lost", "extra"), [(0.0, 0), (0.1, 5), (0.25, 15)])
def test_edges_are_matched_by_their_intervals(lost, extra):
    wire = Wire(5)
    first, second = wire.pair(lost=lost, extra=extra)
    match = matched(first, second)
    clock = match.clock
    at_ns = np.array([round(40e9)], np.int64)
    error_ns = clock.to_host_ns(at_ns) - wire.shows(np.array([40.0]))
    # Both are seen half a sample late.
    assert abs(error_ns[0]) < 4 * clock.sigma_ns(at_ns)[0] + 0.5 * MS
    assert clock.rate == pytest.approx(wire.rate, abs=5 * clock.rate_sigma)
    assert match.fits
    assert match.missing >= 0
    assert match.extra >= 0
    if lost == 0:
        assert len(match.first_index) == len(wire.edges_s)
        assert match.missing == match.extra == 0


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
def test_errors_are_as_large_as_stated_over_many_pairs():
    pulls = []
    for seed in range(60):
        wire = Wire(seed, count=40, offset_s=seed - 30.0)
        first, second = wire.pair(lost=0.1, extra=3)
        match = matched(first, second)
        far_ns = np.array([round(200e9)], np.int64)  # well beyond the last edge
        error = match.clock.to_host_ns(far_ns) - wire.shows(np.array([200.0]))
        late_ns = (0.2 - 1.0) * MS / 2
        pulls.append((error[0] - late_ns - 0.4 * MS) / match.clock.sigma_ns(far_ns)[0])
    assert 0.5 < np.std(pulls) < 1.4


def test_beyond_the_edges_the_clock_goes_on_and_its_sigma_grows():
    wire = Wire(1, rate=1 + 300e-6)
    match = matched(*wire.pair())
    near, far = np.array([50e9, 5000e9]).astype(np.int64)
    sigma = match.clock.sigma_ns(np.array([near, far]))
    assert sigma[1] > 20 * sigma[0]
    error = match.clock.to_host_ns(np.array([far]))[0] - wire.shows(np.array([5000.0]))[0]
    assert abs(error) < 5 * sigma[1]


def test_pulses_that_are_all_alike_are_refused_unless_about_when_is_known():
    wire = Wire(2, even=True, count=60)
    first, second = wire.pair()
    with pytest.raises(EdgesAmbiguous, match="all alike"):
        matched(first, second[3:])
    near = (START_NS + round(12.345e9), 300 * MS)
    match = matched(first, second[3:], near_ns=near)
    assert match.first_index[0] == 3
    assert match.clock.rate == pytest.approx(wire.rate, abs=5e-5)


def test_one_extra_edge_at_the_front_moves_nothing():
    first, second = Wire(3).pair()
    moved = np.concatenate([[second[0] - 777 * MS], second])
    assert np.array_equal(
        matched(first, moved).second_index - 1, matched(first, second).second_index
    )


def test_a_clock_that_does_not_keep_to_a_line_is_told():
    wire = Wire(4)
    first, second = wire.pair()
    bent = second + np.round(1.2 * MS * np.sin(np.arange(len(second)) / 8)).astype(np.int64)
    match = matched(first, bent)
    assert not match.fits
    assert match.chi2_ratio > 3
    straight = matched(first, second)
    assert match.clock.offset_sigma_ns > 1.5 * straight.clock.offset_sigma_ns


def test_edges_of_two_different_wires_are_refused():
    refused = 0
    for seed in range(10):
        first, _ = Wire(seed).pair()
        _, second = Wire(100 + seed).pair()
        try:
            matched(first, second)
        except EdgesAmbiguous:
            refused += 1
    assert refused == 10


def test_too_few_edges_and_edges_in_no_order_are_refused():
    first, second = Wire(6).pair()
    with pytest.raises(EdgesAmbiguous, match="too few"):
        matched(first[:3], second)
    with pytest.raises(ValueError, match="in order"):
        matched(first[::-1].copy(), second)
    with pytest.raises(EdgesAmbiguous, match="no intervals"):
        matched(first, START_NS + np.cumsum(np.full(20, 10**13)))
