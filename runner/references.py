"""What the levels of a next step may count from: what was asked for, and read, last."""

import math
from collections.abc import Collection

from potentiostat.protocol import Setpoint
from potentiostat.segments import NOTHING_KNOWN, References


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

    def held(self, setpoint: Setpoint) -> None:
        """Note a level that the plan asked for."""
        if setpoint.mode == "voltage":
            self._control_V = setpoint.level
        else:
            self._control_A = setpoint.level

    def read(self, voltage_V: float, current_A: float, *, playing: bool) -> None:
        """Note a valid reading; between two steps only where nothing is known yet.

        Parameters
        ----------
        current_A
            NaN while the meter settles.
        """
        if playing or math.isnan(self._measured_V):
            self._measured_V = voltage_V
        if math.isfinite(current_A) and (playing or math.isnan(self._measured_A)):
            self._measured_A = current_A

    def known(self, rest_V: Collection[float]) -> References:
        """Return what is known now; the rest voltage is the mean of its readings."""
        ocv_V = sum(rest_V) / len(rest_V) if rest_V else math.nan
        return References(
            ocv_V=ocv_V,
            control_V=self._control_V,
            control_A=self._control_A,
            measured_V=self._measured_V,
            measured_A=self._measured_A,
        )
