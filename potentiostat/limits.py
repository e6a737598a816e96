"""What a cell may see, and when a step ends: pure comparisons, one reading at a time."""

import math
from dataclasses import dataclass
from typing import Literal

Quantity = Literal["V", "I", "Q", "t"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Hard limits, on in every step.

    Parameters
    ----------
    voltage_min_V, voltage_max_V
        Window of the terminal voltage.
    current_max_A
        Largest magnitude of the current.
    charge_max_C
        Largest magnitude of the instrument's charge since the run began.
    """

    voltage_min_V: float
    voltage_max_V: float
    current_max_A: float
    charge_max_C: float

    def violation(self, *, voltage_V: float, current_A: float, charge_C: float) -> str | None:
        """Say which limit a valid reading breaks, or None.

        Notes
        -----
        A value that is not a number breaks no limit here: whoever reads decides
        how many invalid readings in a row are a fault.
        """
        if voltage_V > self.voltage_max_V:
            return f"voltage {voltage_V:.6g} V is above the limit {self.voltage_max_V:.6g} V"
        if voltage_V < self.voltage_min_V:
            return f"voltage {voltage_V:.6g} V is below the limit {self.voltage_min_V:.6g} V"
        if abs(current_A) > self.current_max_A:
            return f"current {current_A:.6g} A is beyond the limit {self.current_max_A:.6g} A"
        if abs(charge_C) > self.charge_max_C:
            return f"charge {charge_C:.6g} C is beyond the limit {self.charge_max_C:.6g} C"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One end condition of a step, such as ``V > 4.2 V``.

    Parameters
    ----------
    quantity
        ``V`` terminal voltage, ``I`` current, ``Q`` instrument charge since the step
        began, ``t`` time since the step began.
    relation
        ``">"`` or ``"<"``.
    value
        In V, A, C or s.
    text
        As the user wrote it.
    """

    quantity: Quantity
    relation: Literal[">", "<"]
    value: float
    text: str

    def met(self, *, voltage_V: float, current_A: float, charge_C: float, elapsed_s: float) -> bool:
        """Tell whether the condition holds; never for a value that is not a number."""
        now = {"V": voltage_V, "I": current_A, "Q": charge_C, "t": elapsed_s}[self.quantity]
        if math.isnan(now):
            return False
        return now > self.value if self.relation == ">" else now < self.value
