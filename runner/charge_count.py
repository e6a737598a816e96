"""Charge as it flows: of the instrument, and of the cell behind its holder."""

import math

import numpy as np

from potentiostat.records import Status
from runner.messages import HolderTerms


class ChargeCount:
    """Counts charge by trapezia over the middles of the readings.

    Parameters
    ----------
    holder
        What the holder draws; None where it was not measured.

    Attributes
    ----------
    instrument_C, ionic_C
        Since the first reading; the second is NaN without a holder's terms. It leaves
        out dielectric absorption, which the ledger adds afterwards.
    """

    def __init__(self, holder: HolderTerms | None) -> None:
        self._holder = holder
        self._last: tuple[int, float, float, float] | None = None  # middle, I, V, zero of I
        self._held_V = math.nan
        self.instrument_C = 0.0
        self.ionic_C = math.nan if holder is None else 0.0

    def take(self, sample: np.void) -> None:
        """Take a reading; one that is not a number is bridged by its neighbours."""
        middle_ns = (int(sample["read_start_ns"]) + int(sample["read_end_ns"])) // 2
        current_A, voltage_V = float(sample["current_A"]), float(sample["voltage_V"])
        if not (math.isfinite(current_A) and math.isfinite(voltage_V)):
            return
        held_V, was_V = math.nan, self._held_V
        status = int(sample["status"])
        offset_A = 0.0
        if self._holder is not None and not status & Status.TOLD:
            offset_A = self._holder.offset_A  # only a meter has a zero
        if status & Status.POTENTIOSTATIC:
            held_V = float(sample["setpoint"])
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
