"""Readings that come many at a time: when each was taken, and that they are what was asked."""

import math

import numpy as np
from numpy.typing import NDArray

from potentiostat.errors import ReplyError, UnsafeRequest
from potentiostat.protocol import TriggerLines
from potentiostat.scpi import NOT_A_NUMBER, OVERFLOW, read_number

EDGE_WAIT_S = 0.5  # for the edge of an exposure; then the reading is taken without it
REPLY_S = 2.0  # for a reply, beside the readings it is made of
EDGE_REPLY_S = 0.25  # the same where an edge may be missing: nothing is read meanwhile
READING_OVERHEAD_S = 0.02  # of a reading beside its integration, amply


def block_time_s(block: int, aperture_s: float) -> float:
    """Return how long a block of readings takes, amply."""
    return block * (aperture_s + READING_OVERHEAD_S)


def reply_within_s(block: int, aperture_s: float, *, edge: bool) -> float:
    """Return when the reply with a block must be there.

    Parameters
    ----------
    edge
        True when the block begins with an edge, which may not come.
    """
    beside_s = EDGE_WAIT_S + EDGE_REPLY_S if edge else REPLY_S
    return beside_s + block_time_s(block, aperture_s)


def text_table(text: str, *, rows: int, columns: int) -> NDArray[np.float64]:
    """Read a block of readings that came as text, shape (rows, columns).

    Overflow is infinite, and what is no number is NaN. With more or fewer values than were
    asked for nobody knows which is which: all are NaN then.
    """
    parts = text.split(",")
    if len(parts) != rows * columns:
        return np.full((rows, columns), math.nan)
    try:
        values = np.array(parts, np.float64)
    except ValueError:
        values = np.array([_number_or_nan(part) for part in parts])
    return known_numbers(values.reshape(rows, columns))


def _number_or_nan(text: str) -> float:
    try:
        return read_number(text)
    except ReplyError:
        return math.nan


def known_numbers(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values as `read_number` reads them: overflow infinite, 'not a number' NaN."""
    if np.abs(values).max(initial=0.0) < OVERFLOW * (1 - 1e-6):
        return values
    found = values.copy()
    found[np.abs(values) >= OVERFLOW * (1 - 1e-6)] = math.inf
    found = np.copysign(found, values)
    found[np.isclose(values, NOT_A_NUMBER, rtol=1e-6, atol=0.0) | np.isnan(values)] = math.nan
    return found


def host_brackets(
    device_time_s: NDArray[np.float64],
    *,
    sent_ns: int,
    received_ns: int,
    seconds_per_tick: float = 1.0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return between which host stamps each reading of a block was taken.

    The block was asked for at ``sent_ns`` and was there at ``received_ns``; in between, the
    readings lie as far apart as the instrument says. So reading k began no earlier than the
    first could have, and ended no later than the last could have.

    Parameters
    ----------
    device_time_s
        Of the readings, as the instrument says it, shape (n,), not falling.
    seconds_per_tick
        Host seconds in a second of the instrument's clock.

    Returns
    -------
    start_ns, end_ns
        Host stamps, shape (n,). Where the device times are no numbers, or further apart than
        the exchange was long, all readings get the stamps of the whole exchange.
    """
    count = len(device_time_s)
    start_ns = np.full(count, sent_ns, np.int64)
    end_ns = np.full(count, received_ns, np.int64)
    since_s = (device_time_s - device_time_s[:1]) * seconds_per_tick
    if count == 0 or not np.all(np.isfinite(since_s)) or np.any(np.diff(since_s) < 0):
        return start_ns, end_ns
    since_ns = np.round(since_s * 1e9).astype(np.int64)
    if since_ns[-1] > received_ns - sent_ns:
        return start_ns, end_ns
    return start_ns + since_ns, end_ns - (since_ns[-1] - since_ns)


def refuse_unknown_block(
    model: str, *, block: int, largest: int, lines: TriggerLines, known: tuple[int, ...]
) -> None:
    """Raise UnsafeRequest for a block or a trigger line that a model does not have."""
    if not 1 <= block <= largest:
        raise UnsafeRequest(
            f"a {model} gives 1 to {largest} readings at once, not {block}"
            if largest > 1
            else f"a {model} gives its readings one by one; leave block out"
        )
    wanted = {line for line in (lines.exposure_in, lines.mark_out) if line is not None}
    for line in sorted(wanted - set(known)):
        has = f"lines {known[0]} to {known[-1]}" if known else "no trigger lines here"
        raise UnsafeRequest(f"a {model} has {has}, not a line {line}")
    if lines.exposure_in is not None and lines.exposure_in == lines.mark_out:
        raise UnsafeRequest(f"line {lines.exposure_in} cannot be an input and an output at once")
