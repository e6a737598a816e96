"""What the levels of a next step may count from: what was asked for, and read, last."""

import math
from collections.abc import Collection
from dataclasses import replace

from potentiostat.protocol import Setpoint
from potentiostat.segments import NOTHING_KNOWN, References


class LastLevels:
    """Remembers the last levels of a run. Pure: it is told what happens."""

    def __init__(self) -> None:
        self._known = NOTHING_KNOWN

    def held(self, setpoint: Setpoint) -> None:
        """Note a level that the plan asked for."""
        if setpoint.mode == "voltage":
            self._known = replace(self._known, control_V=setpoint.level)
        else:
            self._known = replace(self._known, control_A=setpoint.level)

    def read(self, voltage_V: float, current_A: float, *, playing: bool) -> None:
        """Note a valid reading; between two steps only where nothing is known yet.

        Parameters
        ----------
        current_A
            NaN while the meter settles.
        """
        if playing or math.isnan(self._known.measured_V):
            self._known = replace(self._known, measured_V=voltage_V)
        if math.isfinite(current_A) and (playing or math.isnan(self._known.measured_A)):
            self._known = replace(self._known, measured_A=current_A)

    def known(self, rest_V: Collection[float]) -> References:
        """Return what is known now; the rest voltage is the mean of its readings."""
        ocv_V = sum(rest_V) / len(rest_V) if rest_V else math.nan
        return replace(self._known, ocv_V=ocv_V)
