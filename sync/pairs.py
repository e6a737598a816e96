"""Two-way clock exchanges: what they are, and what they bound."""

import numpy as np
from numpy.typing import NDArray

EXCHANGE_DTYPE = np.dtype(
    [
        ("t0_ns", "<i8"),  # host clock, question sent
        ("t1_ns", "<i8"),  # device clock, question received
        ("t2_ns", "<i8"),  # device clock, answer sent
        ("t3_ns", "<i8"),  # host clock, answer received
    ]
)


def round_trip_ns(exchanges: NDArray[np.void], rate: float = 1.0) -> NDArray[np.int64]:
    """Return the time that each exchange spent on its way, in host ns, shape (n,).

    Parameters
    ----------
    exchanges
        EXCHANGE_DTYPE, shape (n,).
    rate
        Host ns in one device ns, to bring the device's holding time onto the host
        clock.
    """
    held = (exchanges["t2_ns"] - exchanges["t1_ns"]).astype(np.float64) * rate
    way = (exchanges["t3_ns"] - exchanges["t0_ns"]) - np.round(held).astype(np.int64)
    return np.asarray(way, dtype=np.int64)


def half_trip_bound_ns(exchanges: NDArray[np.void], rate: float = 1.0) -> float:
    """Return half the smallest round trip: no two-way method can see inside it.

    Raises
    ------
    ValueError
        There is no exchange.
    """
    if len(exchanges) == 0:
        raise ValueError("no clock exchange: exchange the clocks at least once")
    return float(np.min(round_trip_ns(exchanges, rate))) / 2
