"""Counters that run over, start again, or carry late frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cameras.files.counter import unroll_counter


def unrolled(counter, modulus=None):
    index, restarts = unroll_counter(np.array(counter, np.int64), modulus)
    assert index.dtype == np.int64
    return index.tolist(), restarts.tolist()


@pytest.mark.parametrize(
    ("counter", "index", "restarts"),
    [
        ([], [], []),
        ([5], [5], []),
        ([1, 2, 4, 7], [1, 2, 4, 7], []),
        ([1, 2, 2, 3], [1, 2, 2, 3], []),  # repeated
        ([1, 3, 2, 4], [1, 3, 2, 4], []),  # late by one
        ([5, 6, 7, 8, 4, 9], [5, 6, 7, 8, 4, 9], []),  # late by four
        ([4, 5, 6, 1, 2, 3, 7], [4, 5, 6, 1, 2, 3, 7], []),  # a block that came late
        ([1, 2, 3, 5, 4], [1, 2, 3, 5, 4], []),  # late, and then the file ends
        ([1, 2, 3, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [3]),
        ([0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7], [3, 6]),
        ([9, 0, 0, 1], [9, 10, 10, 11], [1]),
        ([100, 101, 0, 1, 3], [100, 101, 102, 103, 105], [2]),
    ],
)
def test_a_counter_counts_on(counter, index, restarts):
    assert unrolled(counter) == (index, restarts)


@pytest.mark.parametrize(
    ("counter", "index"),
    [
        ([8, 9, 0, 1], [8, 9, 10, 11]),
        ([8, 0, 9, 1], [8, 10, 9, 11]),  # late across the edge
        ([8, 1, 2], [8, 11, 12]),  # lost across the edge
        ([9, 0, 5, 9, 1], [9, 10, 15, 19, 21]),
    ],
)
def test_a_modulus_that_is_known_counts_what_was_lost_there(counter, index):
    assert unrolled(counter, 10) == (index, [])


def test_a_long_loss_is_no_turn_of_the_counter():
    assert unrolled([1, 2, 700_000, 700_001], 10**6) == ([1, 2, 700_000, 700_001], [])
    assert unrolled([5, 999_999, 6], 10**6) == ([5, -1, 6], [])
    assert unrolled([5000, 5001, 1, 2], 10**6) == ([5000, 5001, 5002, 5003], [2])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(2, 40), start=st.integers(0, 10**6))
def test_losses_repeats_and_late_frames_are_never_taken_for_a_restart(data, count, start):
    true = [start + i for i in range(count)]
    kept = [i for i in true if data.draw(st.integers(0, 9)) > 0] or true[:1]
    for i in range(len(kept) - 3):
        if data.draw(st.integers(0, 9)) == 0:
            kept[i], kept[i + 1] = kept[i + 1], kept[i]
    kept.append(start + count)
    assert unrolled(kept) == (kept, [])
    turned = [i % 10**6 for i in kept]
    index, restarts = unrolled(turned, 10**6)
    assert restarts == []
    assert np.diff(index).tolist() == np.diff(kept).tolist()
