"""Dose by place on a specimen that drifts, against sums by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlate.dose import dose_map, frame_doses

HEIGHT, WIDTH = 5, 7
drifts = st.floats(-9, 9)


def covered(place, start, length):
    """Share of the pixel [place, place + 1] that lies within a frame."""
    return max(0.0, min(place + 1, start + length) - max(place, start))


@given(st.lists(st.tuples(st.floats(0, 100), drifts, drifts), min_size=1, max_size=8))
def test_every_place_has_the_dose_of_the_frames_that_covered_it(frames):
    added, dx, dy = (np.array(column) for column in zip(*frames, strict=True))
    found = dose_map(added, dx, dy, height=HEIGHT, width=WIDTH)
    rows, columns = found.dose_per_m2.shape
    for r in range(rows):
        for c in range(columns):
            expected = sum(
                a * covered(found.top + r, -y, HEIGHT) * covered(found.left + c, -x, WIDTH)
                for a, x, y in frames
            )
            assert found.dose_per_m2[r, c] == pytest.approx(expected, abs=1e-9)
    whole = HEIGHT * WIDTH * added.sum()
    assert found.dose_per_m2.sum() == pytest.approx(whole, abs=1e-6)


def test_a_specimen_that_stands_still_has_the_same_everywhere():
    found = dose_map(np.ones(30), np.zeros(30), np.zeros(30), height=HEIGHT, width=WIDTH)
    assert (found.top, found.left) == (0, 0)
    assert np.all(found.dose_per_m2 == 30)


def test_a_place_is_named_in_a_frame_without_drift():
    found = dose_map(np.array([2.0]), np.array([3.0]), np.array([0.0]), height=HEIGHT, width=WIDTH)
    assert found.at(0.5, -2.5) == 2.0  # it stood three further right in the frame
    assert found.at(0.5, WIDTH - 2.5) != found.at(0.5, 0.5)
    assert np.isnan(found.at(-1.0, 0.0))


def test_a_frame_of_unknown_drift_stands_where_the_one_before_did():
    known = dose_map(np.ones(3), np.array([1.0, 1.0, 4.0]), np.zeros(3), height=5, width=7)
    unknown = dose_map(np.ones(3), np.array([1.0, np.nan, 4.0]), np.zeros(3), height=5, width=7)
    assert np.array_equal(known.dose_per_m2, unknown.dose_per_m2)


def test_a_running_dose_is_shared_among_frames_and_none_is_lost():
    assert frame_doses(np.array([1.0, 3.0, np.nan, 8.0])).tolist() == [1.0, 2.0, 0.0, 5.0]


@pytest.mark.parametrize("lengths", [(0, 0, 0), (2, 1, 2)])
def test_doses_without_their_drift_are_refused(lengths):
    added, dx, dy = (np.zeros(n) for n in lengths)
    with pytest.raises(ValueError, match="one of each"):
        dose_map(added, dx, dy, height=5, width=7)
