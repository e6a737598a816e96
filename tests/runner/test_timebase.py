"""Which method ties a clock to the host's, and what the file is told of it."""

import numpy as np
import pytest

from mocks.clock_pair import ClockPair, VirtualClock
from runner.timebase import _times_by_arrival, fit_exchanges, in_order
from session.tables import Table

ASKED = np.arange(120.0)


@pytest.mark.parametrize(
    ("clock", "method", "stretches"),
    [
        ({}, "line", 1),
        ({"thermal_ppm": 2.0, "thermal_s": 100.0}, "smoother", 1),
        ({"steps": ((60.5, 400_000),)}, "smoother", 2),
        ({"resets": ((60.5, 5_000_000),)}, "line", 2),
    ],
)
def test_the_line_is_kept_where_it_is_enough(clock, method, stretches):
    clocks = ClockPair(device=VirtualClock(rate_ppm=20, **clock))
    fit = fit_exchanges(clocks.exchange(ASKED, 1))
    assert fit.notes["method"] == method
    assert len(fit.stretches) == stretches
    assert "wander_statistic" in fit.notes
    assert (len(fit.rows) > 50) == (method == "smoother")


def test_few_exchanges_are_a_line():
    fit = fit_exchanges(ClockPair().exchange(ASKED[:5], 1))
    assert fit.notes == {"method": "line"}


@pytest.mark.parametrize(
    ("marks", "on", "shift_ns"),
    [
        ("exposure_start", "camera", 0),
        ("exposure_end", "camera", 2_000_000),
        ("arrival", "host", 0),  # then the counter serves
    ],
)
def test_frames_without_a_clock_are_tied_by_their_arrivals(marks, on, shift_ns):
    rng = np.random.default_rng(1)
    index = np.delete(np.arange(3000), [100, 101, 1500])
    start_ns = 10**12 + index * 2_500_000
    exposure_ns = np.full(len(index), 2_000_000)
    arrival_ns = start_ns + exposure_ns + rng.exponential(1e6, len(index)).astype(np.int64)
    columns = {
        "index": index,
        "device_start_ns": start_ns - 10**12 + shift_ns,
        "exposure_ns": exposure_ns,
        "arrival_ns": arrival_ns,
        "t_start_ns": np.zeros(len(index), np.int64),
        "t_sigma_ns": np.full(len(index), np.inf),
    }
    table = Table(
        path="frames/camera", columns=columns, units={}, attributes={"stamp": marks, "clock": on}
    )
    arrived = np.arange(len(index)) != 7
    fits = {}
    t_ns, sigma_ns = _times_by_arrival(table, arrived, "camera", fits)
    assert (t_ns[7], sigma_ns[7]) == (0, np.inf)
    error_ns = (t_ns - start_ns)[arrived]
    assert np.sqrt(np.mean(error_ns**2.0)) < 50_000
    assert fits["camera"].notes["method"] == "arrivals"
    assert fits["camera"].notes["abscissa"] == ("counter" if on == "host" else "stamps")
    assert all(np.isinf(row.bound_ns) for row in fits["camera"].rows)


def test_no_frame_is_earlier_than_the_one_before_it():
    t_ns = np.array([10, 20, 17, 19, 30], np.int64)
    found_ns, sigma_ns = in_order(t_ns, np.array([1.0, 1.0, 4.0, 1.0, 2.0]))
    assert found_ns.tolist() == [10, 20, 20, 20, 30]
    assert sigma_ns.tolist() == pytest.approx([1.0, 1.0, 5.0, 2**0.5, 2.0])
