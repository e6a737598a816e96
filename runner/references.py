"""What the levels of a next step may count from: what was asked for, and read, last."""

import math
from collections import deque

from potentiostat.protocol import Setpoint
from potentiostat.segments import NOTHING_KNOWN, References

REST_READINGS = 10  # of which a rest voltage is the mean


class LastLevels:
    """Remembers the last levels of a run. Pure: it is told what happens.

    Parameters
    ----------
    before
        What is known from a run that this one continues.
    """

    def __init__(self, before: References = NOTHING_KNOWN) -> None:
        self._control_V, self._control_A = before.control_V, before.control_A
        self._measured_V, self._measured_A = before.measured_V, before.measured_A
        self._rest_V: deque[float] = deque(maxlen=REST_READINGS)

    def held(self, setpoint: Setpoint) -> None:
        """Note a level that the plan asked for."""
        if setpoint.mode == "voltage":
            self._control_V = setpoint.level
        else:
            self._control_A = setpoint.level

    def begun(self) -> None:
        """Note that a set-point of a step is on: a rest voltage from before it counts no more."""
        self._rest_V.clear()

    @property
    def has_rested(self) -> bool:
        """True once a rest voltage was read since the last set-point of a step."""
        return bool(self._rest_V)

    def read(self, voltage_V: float, current_A: float, *, playing: bool) -> None:
        """Note a valid reading.

        Between two steps it is one of the rest voltage, and else counts only where nothing is
        known yet.

        Parameters
        ----------
        current_A
            NaN while the meter settles.
        """
        if playing or math.isnan(self._measured_V):
            self._measured_V = voltage_V
        if math.isfinite(current_A) and (playing or math.isnan(self._measured_A)):
            self._measured_A = current_A
        if not playing:
            self._rest_V.append(voltage_V)

    def known(self) -> References:
        """Return what is known now; the rest voltage is the mean of its last readings."""
        rest_V = self._rest_V
        return References(
            ocv_V=sum(rest_V) / len(rest_V) if rest_V else math.nan,
            control_V=self._control_V,
            control_A=self._control_A,
            measured_V=self._measured_V,
            measured_A=self._measured_A,
        )
