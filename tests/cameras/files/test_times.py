"""Texts of times: short ones may stand for numbers that fill the memory."""

import pytest

from cameras.files.times import seconds_to_ns


@pytest.mark.parametrize("text", ["1e999999999", "-1e400", "1e10", "nan", "inf", "x"])
def test_what_is_no_time_is_refused_at_once(text):
    with pytest.raises(ValueError, match="is no number of seconds"):
        seconds_to_ns(text)


def test_seconds_stay_exact():
    assert seconds_to_ns("1700000000.123456789") == 1_700_000_000_123_456_789
