"""Which method ties a clock to the host's, and what the file is told of it."""

import numpy as np
import pytest

from mocks.clock_pair import ClockPair, VirtualClock
from runner.timebase import fit_exchanges

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
