"""The ionic current behind a stray capacitance: how fast it runs now, what it does after a stop.

What moves in a cell moves with its ionic charge, and the current of the source is not the
ionic one while the stray capacitance C charges and the holder leaks by G::

    I_ion = I - I_0 - C dV/dt - G V

where I_0 is the zero of the current range. After a stop at 0 A, C goes on to feed the cell
until the leakage takes all of it. The leakage flowed at rest, too: ``V_loaded - V_rest`` is
``(I_ion + G V) R``. With ``tau = R C`` the charge that still goes through is::

    Q = I_ion tau - G V tau ln(1 + I_ion / (G V))

for a charge; a leakage only adds to a discharge, and what it adds is not counted.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from potentiostat.calibration import LARGEST_STRAY_F
from runner.messages import HolderTerms

REST_S = 5.0  # before a step, over which its rest voltage is taken
SLOPE_S = 1.0  # over which the slope of the voltage is taken
FEWEST_FOR_SLOPE = 4
SMALLEST_SHARE = 0.1  # of the source's current; below it the ionic one is hardly known
MOST_KEPT = 2000
# Of a holder that was not measured: the worst, by which a stop comes too early, never too late.
UNKNOWN = HolderTerms(capacitance_F=LARGEST_STRAY_F, conductance_S=0.0, offset_A=0.0)


class IonicFlow:
    """Follows readings, and knows the ionic current from them.

    Parameters
    ----------
    holder
        What it takes of the current; None for one that was not measured.
    """

    def __init__(self, holder: HolderTerms | None) -> None:
        self._holder = UNKNOWN if holder is None else holder
        self._charge: deque[tuple[int, float]] = deque(maxlen=MOST_KEPT)  # time, ionic C
        self._rest: deque[tuple[int, float]] = deque()
        self._slope: deque[tuple[int, float]] = deque()
        self._rest_V = math.nan
        self._last: tuple[int, float, float] | None = None
        self._known: NDArray[np.float64] | None = None  # s and C from the last reading, (n, 2)

    def take(
        self,
        t_ns: NDArray[np.int64],
        voltage_V: NDArray[np.float64],
        current_A: NDArray[np.float64],
        *,
        rests: bool,
    ) -> None:
        """Take readings, in their order, and whether the cell rests at 0 A; others are left out."""
        finite = np.isfinite(voltage_V) & np.isfinite(current_A)
        amperes = current_A - self._holder.offset_A
        rows = (column[finite].tolist() for column in (t_ns, voltage_V, amperes))
        for reading_ns, volts, amps in zip(*rows, strict=True):
            self._count(reading_ns, volts, amps)
            self._slope.append((reading_ns, volts))
            while self._slope[0][0] < reading_ns - SLOPE_S * 1e9:
                self._slope.popleft()
            if rests:
                self._rest.append((reading_ns, volts))
                while self._rest[0][0] < reading_ns - REST_S * 1e9:
                    self._rest.popleft()

    def begin(self) -> None:
        """Note that a step begins: what was read at rest before it is its rest voltage."""
        self._rest_V = float(np.mean([v for _, v in self._rest])) if self._rest else math.nan
        self._slope.clear()

    @property
    def current_A(self) -> float:
        """Ionic current now; of the source where its slope is not known; NaN before a reading."""
        if self._last is None:
            return math.nan
        _, volts, amps = self._last
        charging_A = self._holder.capacitance_F * self._slope_V_s()
        return amps - charging_A - self._holder.conductance_S * volts

    @property
    def leak_A(self) -> float:
        """What the holder's leakage takes of the source's current now; 0 before a reading."""
        return 0.0 if self._last is None else self._holder.conductance_S * self._last[1]

    @property
    def after_flow_s(self) -> float:
        """For how long the present ionic current would move as much as flows after a stop now."""
        if self._last is None or not math.isfinite(self._rest_V):
            return 0.0
        _, volts, amps = self._last
        ionic_A = max(abs(self.current_A), SMALLEST_SHARE * abs(amps))
        stored_C = self._holder.capacitance_F * (volts - self._rest_V) * math.copysign(1.0, amps)
        if amps == 0 or not stored_C > 0:
            return 0.0
        leaks_A = self._holder.conductance_S * volts
        if amps < 0 or not leaks_A > 0:
            return stored_C / ionic_A
        tau_s = stored_C / (ionic_A + leaks_A)
        return max(tau_s * (1 - leaks_A / ionic_A * math.log1p(ionic_A / leaks_A)), 0.0)

    def seconds(self, t_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return times as the present ionic current would have needed for their charge.

        From the last reading, in s, shape (n,): a clock by which what moves with the charge
        moves evenly. Plain seconds where the ionic current is hardly known.
        """
        if self._last is None:
            return t_ns / 1e9
        last_ns, _, amps = self._last
        plain_s = (t_ns - last_ns) / 1e9
        ionic_A = self.current_A
        if amps == 0 or not ionic_A / amps > SMALLEST_SHARE:
            return np.asarray(plain_s)
        if self._known is None:
            last_C = self._charge[-1][1]
            self._known = np.array([((t - last_ns) / 1e9, q - last_C) for t, q in self._charge])
        passed_C = np.interp(plain_s, *self._known.T)
        return np.asarray(passed_C / ionic_A + np.maximum(plain_s, 0.0))

    def _count(self, t_ns: int, volts: float, amps: float) -> None:
        total_C = self._charge[-1][1] if self._charge else 0.0
        if self._last is not None:
            before_ns, before_V, before_A = self._last
            dt_s = (t_ns - before_ns) / 1e9
            leaks_A = self._holder.conductance_S * (volts + before_V) / 2
            total_C += ((amps + before_A) / 2 - leaks_A) * dt_s
            total_C -= self._holder.capacitance_F * (volts - before_V)
        self._last = (t_ns, volts, amps)
        self._charge.append((t_ns, total_C))
        self._known = None

    def _slope_V_s(self) -> float:
        """Return the slope of the voltage at the last reading, of a parabola through the last."""
        if len(self._slope) < FEWEST_FOR_SLOPE or self._slope[0][0] == self._slope[-1][0]:
            return 0.0
        last_ns, last_V = self._slope[-1]
        t_s = np.array([t - last_ns for t, _ in self._slope]) / 1e9
        volts = np.array([v - last_V for _, v in self._slope])
        powers = np.stack([np.ones_like(t_s), t_s, t_s**2], axis=1)
        return float(np.linalg.lstsq(powers, volts, rcond=None)[0][1])
