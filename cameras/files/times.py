"""Texts of dates to integer nanoseconds, without a float on the way."""

import re
from decimal import Decimal

import numpy as np

NS = 10**9
LATEST_S = 9_000_000_000  # as nanoseconds it still has room in 64 bits
# No NaT, "now" or the like, which NumPy would take for a date.
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)Z?"
)


def date_to_ns(text: str) -> int:
    """Return nanoseconds since 1970 of ``2021-05-07T13:44:03.123456789``, in its own zone.

    Raises
    ------
    ValueError
        It is no such date.
    """
    found = _DATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no date with a time")
    # NumPy raises ValueError where day or hour do not exist.
    return int(np.datetime64(f"{found[1]}T{found[2]}", "ns").astype(np.int64))


def seconds_to_ns(text: str) -> int:
    """Return nanoseconds of a text in seconds, exactly.

    Raises
    ------
    ValueError
        It is no number.
    """
    try:
        seconds = Decimal(text.strip())
        # Before it is made an integer: 1e999999 is a text of few bytes.
        if not abs(seconds) <= LATEST_S:
            raise ValueError(f"{text!r} is no number of seconds: {LATEST_S} are the most")
        return int((seconds * NS).to_integral_value())
    except ArithmeticError as error:
        raise ValueError(f"{text!r} is no number of seconds") from error
