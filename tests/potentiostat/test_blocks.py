"""Stamps of readings that come in blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potentiostat.blocks import host_brackets, refuse_unknown_block
from potentiostat.errors import UnsafeRequest
from potentiostat.protocol import NO_LINES, TriggerLines


@given(
    gaps_ms=st.lists(st.integers(0, 10_000), min_size=1, max_size=20),
    before_ms=st.integers(0, 1000),
    after_ms=st.integers(0, 1000),
    epoch_s=st.floats(0, 1e6),
)
def test_each_reading_lies_within_its_bracket(gaps_ms, before_ms, after_ms, epoch_s):
    taken_ns = (before_ms + np.cumsum(gaps_ms)) * 1_000_000
    received_ns = int(taken_ns[-1]) + after_ms * 1_000_000
    start_ns, end_ns = host_brackets(
        epoch_s + taken_ns / 1e9 * 1.024,
        sent_ns=0,
        received_ns=received_ns,
        seconds_per_tick=1 / 1.024,
    )
    rounding_ns = 10
    assert np.all(start_ns <= taken_ns + rounding_ns)
    assert np.all(end_ns >= taken_ns - rounding_ns)
    spare_ns = received_ns - (taken_ns[-1] - taken_ns[0])
    assert np.all(np.abs(end_ns - start_ns - spare_ns) <= 2 * rounding_ns)


@pytest.mark.parametrize(
    "device_time_s", [[0.0, np.nan], [1.0, 0.5], [0.0, 9.0]], ids=["unknown", "falling", "too long"]
)
def test_times_that_cannot_be_give_the_whole_exchange(device_time_s):
    start_ns, end_ns = host_brackets(np.array(device_time_s), sent_ns=5, received_ns=1_000_000_005)
    assert start_ns.tolist() == [5, 5]
    assert end_ns.tolist() == [1_000_000_005] * 2


def test_no_readings_have_no_stamps():
    start_ns, end_ns = host_brackets(np.empty(0), sent_ns=0, received_ns=1)
    assert len(start_ns) == len(end_ns) == 0


@pytest.mark.parametrize(
    ("block", "lines", "told"),
    [
        (0, NO_LINES, "1 to 100 readings"),
        (101, NO_LINES, "1 to 100 readings"),
        (1, TriggerLines(exposure_in=5), "lines 1 to 4, not a line 5"),
        (1, TriggerLines(exposure_in=2, mark_out=2), "input and an output"),
    ],
)
def test_what_a_model_does_not_have_is_refused(block, lines, told):
    with pytest.raises(UnsafeRequest, match=told):
        refuse_unknown_block("9999", block=block, largest=100, lines=lines, known=(1, 2, 3, 4))


def test_what_a_model_has_is_not():
    lines = TriggerLines(exposure_in=1, mark_out=2)
    refuse_unknown_block("9999", block=100, largest=100, lines=lines, known=(1, 2, 3, 4))
    with pytest.raises(UnsafeRequest, match="one by one"):
        refuse_unknown_block("9999", block=2, largest=1, lines=NO_LINES, known=())
    with pytest.raises(UnsafeRequest, match="no trigger lines"):
        refuse_unknown_block("9999", block=1, largest=1, lines=lines, known=())
