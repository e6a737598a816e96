"""What is taken from an instrument: its readings as they come, and its clock in time."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from potentiostat.protocol import ClockExchange, Potentiostat, ReadsSingly
from potentiostat.records import Reading


class Sampling:
    """Reads an instrument, and compares its clock with the host's.

    Parameters
    ----------
    interval_s
        Time between comparisons, on the host clock; the first is due at once.
    now_ns
        Host clock.
    """

    def __init__(
        self, instrument: Potentiostat, *, interval_s: float, now_ns: Callable[[], int]
    ) -> None:
        self._instrument = instrument
        self._single = instrument if isinstance(instrument, ReadsSingly) else None
        self._interval_ns = int(interval_s * 1e9)
        self._now_ns = now_ns
        self._next_exchange_ns = now_ns()
        self._told_s = math.nan  # the instrument's time of the last reading

    def read(self) -> Reading | NDArray[np.void]:
        """Take what the instrument gives at once: one reading, or a block of them.

        Raises
        ------
        InstrumentError
            It does not answer.
        """
        one = None if self._single is None else self._single.read_one()
        return self._instrument.read() if one is None else one

    def exchange_if_due(self, found: Reading | NDArray[np.void]) -> tuple[ClockExchange, ...]:
        """Compare the clocks if it is time, or if the readings show a timer that began anew.

        Raises
        ------
        InstrumentError
            It does not answer.
        """
        # A timer that began anew is asked at once: its stamps hang on nothing else.
        if isinstance(found, Reading):
            told_s = found.device_time_s
        else:
            told_s = float(found["device_time_s"][-1]) if len(found) else math.nan
        anew, self._told_s = told_s < self._told_s, told_s
        if self._now_ns() < self._next_exchange_ns and not anew:
            return ()
        self._next_exchange_ns = self._now_ns() + self._interval_ns
        return (self._instrument.exchange_clock(),)
