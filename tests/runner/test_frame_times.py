"""Starts of exposures, from what the stamps of imported frames mark."""

import math
from pathlib import Path

import numpy as np
import pytest

from cameras.files.recording import FrameRecording, FrameStamps
from cameras.records import StampKind
from runner.frame_times import time_frames

STAMPS = np.array([10_000, 20_000, 45_000], np.int64) + 1_700_000_000 * 10**9
EXPOSURES = np.array([4_000, 8_000, 2_000], np.int64)


def timed(kind, *, index=(0, 1, 3), exposure_ns=EXPOSURES, stamps=STAMPS, **others):
    told = FrameStamps(
        raw=stamps,
        device_ns=stamps,
        exposure_ns=exposure_ns,
        kind=kind,
        clock="camera UTC",
        resolution_ns=12,
        **others,
    )
    series = FrameRecording(
        paths=(Path("film.mib"),),
        index=np.array(index, np.int64),
        height=1,
        width=1,
        dtype="uint8",
        load=lambda number: np.zeros((1, 1), np.uint8),
        stamps=told,
    )
    return time_frames(series, None)


@pytest.mark.parametrize(
    ("kind", "starts", "sigma", "says"),
    [
        (StampKind.EXPOSURE_START, STAMPS, [0, 0, 0], "are the files' own"),
        (StampKind.EXPOSURE_END, STAMPS - EXPOSURES, [0, 0, 0], "marks the end"),
        (StampKind.ARRIVAL, STAMPS - EXPOSURES, [math.nan] * 3, "marks the arrival"),
        (StampKind.UNKNOWN, STAMPS - EXPOSURES // 2, EXPOSURES, "earlier by half"),
    ],
)
def test_a_stamp_is_moved_to_the_start_of_its_exposure(kind, starts, sigma, says):
    times = timed(kind)
    assert times.start_ns.tolist() == (starts - starts[0]).tolist()
    expected = np.hypot(12, sigma) / math.sqrt(12)
    np.testing.assert_allclose(times.sigma_ns, expected)
    assert times.device_ns.tolist() == STAMPS.tolist()
    assert any(says in text for text in times.assumptions)
    assert times.start_time.endswith(f"20.{int(starts[0]) // 1000 % 10**6:06}+00:00")


def test_an_unknown_stamp_in_a_long_exposure_does_not_move_its_frame_before_others():
    times = timed(StampKind.UNKNOWN, exposure_ns=np.array([2_000, 90_000, 2_000], np.int64))
    assert times.start_ns.tolist() == [0, 0, 35_000]
    # By so much as it was moved back, it is less sure.
    moved = (STAMPS[0] - 1_000) - (STAMPS[1] - 45_000)
    expected = math.hypot(90_000 / math.sqrt(12), 12 / math.sqrt(12), moved)
    assert times.sigma_ns[1] == pytest.approx(expected)


def test_frames_in_no_order_of_time_stay_where_their_stamps_say():
    times = timed(StampKind.EXPOSURE_START, index=(0, 3, 1))
    assert times.start_ns.tolist() == (STAMPS - STAMPS[0]).tolist()


def test_nobody_knows_how_good_computed_times_are():
    assert np.all(np.isnan(timed(StampKind.EXPOSURE_START, computed=True).sigma_ns))
