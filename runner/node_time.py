"""A camera's stamps on the clock of the node's computer, as well as they are known now."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from cameras.protocol import ClockExchange
from cameras.records import CameraInfo, FrameInfo, StampClock, StampKind
from sync.live_clock import LiveClock
from sync.pairs import EXCHANGE_DTYPE

ENVELOPE_FRAMES = 600  # over which the quickest arrival ties a clock that cannot be asked


class CameraTime:
    """Puts stamps onto the node's clock.

    By a fit through clock exchanges where the camera has a clock that can be asked, by the
    frame that came quickest where it has not: a bound then, without an uncertainty.

    Parameters
    ----------
    info
        What the camera said of its stamps.
    """

    def __init__(self, info: CameraInfo) -> None:
        self._info = info
        self._clock = LiveClock()
        self._ways_ns: deque[int] = deque(maxlen=ENVELOPE_FRAMES)

    def add(self, exchange: ClockExchange) -> NDArray[np.void]:
        """Take an exchange into the fit; return it as a row for a session."""
        row = np.zeros(1, EXCHANGE_DTYPE)
        row["t0_ns"], row["t1_ns"] = exchange.t0_ns, exchange.t1_ns
        row["t2_ns"], row["t3_ns"] = exchange.t2_ns, exchange.t3_ns
        self._clock.add(row)
        return row

    def stamp(self, info: FrameInfo, arrival_ns: int) -> tuple[int, float]:
        """Return a frame's stamp on the node's clock, moved to the start of its exposure.

        Where the maker does not say what a stamp marks, it is not moved.

        Returns
        -------
        tuple of int and float
            Node clock in ns, and 1 sigma; infinite where there is no estimate.
        """
        raw_ns = info.device_start_ns
        if self._info.stamp in (StampKind.EXPOSURE_END, StampKind.ARRIVAL):
            raw_ns -= info.exposure_ns
        if self._info.clock is StampClock.HOST:
            return raw_ns, math.inf
        if self._clock.count >= 2:
            stamps = np.array([raw_ns], np.int64)
            here_ns, sigma_ns = self._clock.to_host_ns(stamps)[0], self._clock.sigma_ns(stamps)[0]
            return int(here_ns), float(sigma_ns)
        # The frame cannot be here before its exposure ended.
        self._ways_ns.append(arrival_ns - info.exposure_ns - raw_ns)
        return raw_ns + min(self._ways_ns), math.inf
