"""When a frame was exposed: by the kind of its stamp, and row by row."""

import numpy as np
import pytest

from sync.align import average_over_exposures
from sync.shutter import average_over_rows, exposure_starts, frame_windows, row_delays

STAMP = np.array([1_000, 5_000], np.int64)
EXPOSURE = np.array([100, 301], np.int64)


@pytest.mark.parametrize(
    ("marks", "start", "sigma", "bound"),
    [
        ("exposure_start", [1_000, 5_000], [0, 0], [0, 0]),
        ("exposure_end", [900, 4_699], [0, 0], [0, 0]),
        ("arrival", [900, 4_699], [0, 0], [np.inf, np.inf]),
        ("unknown", [950, 4_850], EXPOSURE / 12**0.5, EXPOSURE / 2),
    ],
)
def test_the_kind_of_a_stamp_says_where_the_exposure_lies(marks, start, sigma, bound):
    found = exposure_starts(STAMP, EXPOSURE, marks)
    assert found.start_ns.tolist() == start
    assert found.sigma_ns == pytest.approx(sigma)
    assert found.bound_ns.tolist() == pytest.approx(list(bound))


def test_an_unknown_stamp_is_honest_wherever_it_really_lies():
    rng = np.random.default_rng(3)
    exposure = np.full(4_000, 10_000, np.int64)
    start = np.arange(4_000, dtype=np.int64) * 20_000
    stamp = start + np.round(rng.random(4_000) * 10_000).astype(np.int64)
    found = exposure_starts(stamp, exposure, "unknown")
    error = found.start_ns - start
    assert np.std(error / found.sigma_ns) == pytest.approx(1, abs=0.05)
    assert np.all(np.abs(error) <= found.bound_ns)


def test_a_kind_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="known are exposure_start"):
        exposure_starts(STAMP, EXPOSURE, "readout")


def test_rows_follow_each_other_downwards_and_upwards():
    assert row_delays(10.4, 4).tolist() == [0, 10, 21, 31]
    assert row_delays(-10.0, 3).tolist() == [20, 10, 0]
    assert row_delays(0.0, 2).tolist() == [0, 0]
    assert row_delays(np.nan, 2).tolist() == [0, 0]


@pytest.mark.parametrize("row_time", [10.0, -10.0])
def test_a_frame_lasts_from_its_first_row_to_its_last(row_time):
    start, stop = frame_windows(STAMP, EXPOSURE, row_time_ns=row_time, rows=5)
    assert start.tolist() == [1_000, 5_000]
    assert stop.tolist() == [1_140, 5_341]


@pytest.mark.parametrize("row_time", [0.0, 30.0, -30.0, 700.0])
def test_each_row_sees_the_samples_of_its_own_exposure(row_time):
    t = np.arange(0, 20_000, 7, dtype=np.int64)
    value = t.astype(np.float64)  # a ramp: the mean is the middle of the window
    aperture = np.full(len(t), 7, np.int64)
    found = average_over_rows(t, aperture, value, STAMP, EXPOSURE, row_time_ns=row_time, rows=4)
    assert found.mean.shape == (2, 4)
    for row, delay in enumerate(row_delays(row_time, 4)):
        alone = average_over_exposures(t, aperture, value, STAMP + delay, STAMP + delay + EXPOSURE)
        assert found.mean[:, row] == pytest.approx(alone.mean)
        assert found.count[:, row] == pytest.approx(alone.count)
        assert found.mean[:, row] == pytest.approx(STAMP + delay + EXPOSURE / 2, abs=2)
