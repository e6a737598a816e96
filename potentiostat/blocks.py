"""Readings that come many at a time: when each was taken, and that they are what was asked."""

import numpy as np
from numpy.typing import NDArray

from potentiostat.errors import UnsafeRequest
from potentiostat.protocol import TriggerLines


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
