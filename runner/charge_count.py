"""Charge as it flows: of the instrument, and of the cell behind its holder."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.records import Reading, Status
from runner.messages import Carried, HolderTerms

NOTHING_CARRIED = Carried()
TOLD, POTENTIOSTATIC = int(Status.TOLD), int(Status.POTENTIOSTATIC)


class ChargeCount:
    """Counts charge by trapezia over the middles of the readings.

    Parameters
    ----------
    holder
        What the holder draws; None where it was not measured.
    carried
        From where it counts.

    Attributes
    ----------
    instrument_C, ionic_C
        Since the first reading of all; the second is NaN without a holder's terms. It leaves
        out dielectric absorption, which the ledger adds afterwards.
    """

    def __init__(self, holder: HolderTerms | None, carried: Carried = NOTHING_CARRIED) -> None:
        self._holder = holder
        self._last: tuple[int, float, float, float] | None = None  # middle, I, V, zero of I
        self._held_V = math.nan
        self.instrument_C = carried.charge_C
        self.ionic_C = math.nan if holder is None else carried.charge_ionic_C

    def take(self, reading: Reading) -> None:
        """Take a reading; one that is not a number is bridged by its neighbours."""
        current_A, voltage_V, status = reading.current_A, reading.voltage_V, reading.status
        if not (math.isfinite(current_A) and math.isfinite(voltage_V)):
            return
        middle_ns = (reading.read_start_ns + reading.read_end_ns) // 2
        held_V, was_V = math.nan, self._held_V
        offset_A = 0.0
        if self._holder is not None and not status & TOLD:
            offset_A = self._holder.offset_A  # only a meter has a zero
        if status & POTENTIOSTATIC:
            held_V = reading.setpoint
        self._held_V = held_V
        if self._last is not None:
            last_ns, last_A, last_V, last_offset_A = self._last
            dt_s = (middle_ns - last_ns) / 1e9
            flowed_C = 0.5 * (current_A + last_A) * dt_s
            self.instrument_C += flowed_C
            if self._holder is not None:
                leak_A = self._holder.conductance_S * 0.5 * (voltage_V + last_V)
                # A held voltage that is moved charges the stray capacitance between two
                # readings: what neither has seen is not taken off.
                moved_V = held_V - (last_V if math.isnan(was_V) else was_V)
                unseen_V = 0.0 if math.isnan(moved_V) else moved_V
                stray_C = self._holder.capacitance_F * (voltage_V - last_V - unseen_V)
                zero_A = 0.5 * (offset_A + last_offset_A)
                self.ionic_C += flowed_C - (leak_A + zero_A) * dt_s - stray_C
        self._last = (middle_ns, current_A, voltage_V, offset_A)

    def ahead(self, samples: NDArray[np.void]) -> "Ahead | None":
        """Return what `take` would count at each of many readings, which changes nothing yet.

        None where no reading was taken before, or where a level is held or none was read: then
        they are taken one by one.
        """
        plain = not (math.isfinite(self._held_V) or np.any(samples["status"]))
        if self._last is None or not plain:
            return None
        last_ns, last_A, last_V, last_offset_A = self._last
        # As of the last reading: nanoseconds of a clock are more than a float can hold.
        middle_ns = (samples["read_start_ns"] + samples["read_end_ns"]) // 2 - last_ns
        dt_s = np.diff(middle_ns, prepend=0) / 1e9
        current_A, voltage_V = samples["current_A"], samples["voltage_V"]
        flowed_C = 0.5 * (current_A + _before(current_A, last_A)) * dt_s
        instrument_C = _running(self.instrument_C, flowed_C)
        ionic_C = np.full(len(samples), math.nan)
        offset_A = 0.0
        if self._holder is not None:
            offset_A = self._holder.offset_A
            before_V = _before(voltage_V, last_V)
            zero_A = np.full(len(samples), offset_A)
            zero_A[0] = 0.5 * (offset_A + last_offset_A)
            leak_A = self._holder.conductance_S * 0.5 * (voltage_V + before_V)
            stray_C = self._holder.capacitance_F * (voltage_V - before_V)
            ionic_C = _running(self.ionic_C, flowed_C - (leak_A + zero_A) * dt_s - stray_C)
        last = (last_ns + int(middle_ns[-1]), float(current_A[-1]), float(voltage_V[-1]), offset_A)
        return Ahead(instrument_C=instrument_C, ionic_C=ionic_C, last=last)

    def settle(self, ahead: "Ahead") -> None:
        """Take the readings of `ahead`, all of them numbers."""
        self._last = ahead.last
        self.instrument_C = float(ahead.instrument_C[-1])
        self.ionic_C = float(ahead.ionic_C[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Charge at each of many readings, shape (n,), and the last of them."""

    instrument_C: NDArray[np.float64]
    ionic_C: NDArray[np.float64]
    last: tuple[int, float, float, float]


def _before(values: NDArray[np.float64], first: float) -> NDArray[np.float64]:
    return np.concatenate(([first], values[:-1]))


def _running(first: float, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add one after the other, as `take` does: to the last digit."""
    total: NDArray[np.float64] = np.cumsum(np.concatenate(([first], steps)))[1:]
    return total
