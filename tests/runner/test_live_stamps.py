"""Starts of exposures while a run goes on, by what the camera's stamps mark."""

import math

import pytest

from cameras.records import FrameInfo, StampKind
from runner.frame_stamper import start_by_stamp
from sync.clockfit import ClockFit

FIT = ClockFit(
    reference_device_ns=0,
    reference_host_ns=5_000_000,
    rate=1.0,
    rate_sigma=0.0,
    offset_sigma_ns=300.0,
    covariance_ns=0.0,
    bound_ns=0.0,
    valid_from_ns=0,
    valid_to_ns=10**9,
    count=9,
)
INFO = FrameInfo(index=1, device_start_ns=2_000_000, exposure_ns=1_000_000)


@pytest.mark.parametrize(
    ("marks", "start_ns", "sigma_ns"),
    [
        (StampKind.EXPOSURE_START, 7_000_000, 300.0),
        (StampKind.EXPOSURE_END, 6_000_000, 300.0),
        (StampKind.UNKNOWN, 6_500_000, math.hypot(300.0, 1_000_000 / math.sqrt(12))),
    ],
)
def test_the_live_start_is_that_of_the_exposure(marks, start_ns, sigma_ns):
    found = start_by_stamp(FIT, INFO, marks)
    assert found == (start_ns, pytest.approx(sigma_ns))
