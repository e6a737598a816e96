"""What a cell may see, and when a step ends: pure comparisons, one reading at a time."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Quantity = Literal["V", "I", "|I|", "Q", "Q_ionic", "t", "dV/dt", "|dV/dt|", "dI/dt", "|dI/dt|"]

Action = Literal["next", "hold", "safe"]

SLOPE_WINDOW_S = 30.0
MIN_SLOPE_READINGS = 5


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
class Seen:
    """What a condition compares: one reading and what was worked out with it.

    Parameters
    ----------
    charge_C, charge_ionic_C
        Since the step or segment began; the second is NaN without a calibration.
    voltage_rate_V_s, current_rate_A_s
        Slopes over the condition's window; NaN until the window is full.
    """

    voltage_V: float
    current_A: float
    charge_C: float
    elapsed_s: float
    charge_ionic_C: float = math.nan
    voltage_rate_V_s: float = math.nan
    current_rate_A_s: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One end condition of a step or segment, such as ``V > 4.2 V``.

    Parameters
    ----------
    quantity
        ``V`` terminal voltage, ``I`` current, ``Q`` instrument charge and ``Q_ionic``
        charge of the cell since the beginning, ``t`` time since the beginning,
        ``dV/dt`` and ``dI/dt`` slopes; magnitudes between bars.
    relation
        ``">"`` or ``"<"``.
    value
        In V, A, C, s, V/s or A/s.
    text
        As the user wrote it.
    confirm
        Readings in a row for which it must hold.
    window_s
        Over which a slope is taken.
    action
        What follows: ``"next"`` goes on with the plan, ``"hold"`` rests at 0 A until the
        operator says so, ``"safe"`` takes the cell to its safe state and ends the run.
    """

    quantity: Quantity
    relation: Literal[">", "<"]
    value: float
    text: str
    confirm: int = 1
    window_s: float = SLOPE_WINDOW_S
    action: Action = "next"

    def met(self, seen: Seen) -> bool:
        """Tell whether the condition holds; never for a value that is not a number."""
        now = _value(seen, self.quantity)
        if math.isnan(now):
            return False
        return now > self.value if self.relation == ">" else now < self.value

    @property
    def needs_slope(self) -> bool:
        """True for a condition on a rate of change."""
        return self.quantity.strip("|") in ("dV/dt", "dI/dt")


def _value(seen: Seen, quantity: Quantity) -> float:
    value = {
        "V": seen.voltage_V,
        "I": seen.current_A,
        "Q": seen.charge_C,
        "Q_ionic": seen.charge_ionic_C,
        "t": seen.elapsed_s,
        "dV/dt": seen.voltage_rate_V_s,
        "dI/dt": seen.current_rate_A_s,
    }[quantity.strip("|")]
    return abs(value) if quantity.startswith("|") else value


class Slope:
    """The slope of a value over the last seconds, by least squares.

    Parameters
    ----------
    window_s
        Longer windows see smaller slopes: the error falls with its power of 1.5.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, float]] = deque()

    def add(self, t_s: float, value: float) -> float:
        """Take a value; return the slope, NaN until nine tenths of the window are full."""
        if math.isfinite(value):
            self._seen.append((t_s, value))
        while self._seen and self._seen[0][0] < t_s - self._window_s:
            self._seen.popleft()
        if len(self._seen) < MIN_SLOPE_READINGS or t_s - self._seen[0][0] < 0.9 * self._window_s:
            return math.nan
        mean_t = sum(t for t, _ in self._seen) / len(self._seen)
        spread = sum((t - mean_t) ** 2 for t, _ in self._seen)
        return sum((t - mean_t) * v for t, v in self._seen) / spread


class Watch:
    """Looks for the first of several conditions that holds for long enough.

    Parameters
    ----------
    conditions
        In the order in which they are asked.
    """

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = tuple(conditions)
        self._held = [0] * len(self._conditions)
        windows = {c.window_s for c in self._conditions if c.needs_slope}
        self._slopes = {w: (Slope(w), Slope(w)) for w in windows}

    def first_met(self, seen: Seen) -> Condition | None:
        """Take a valid reading; return the condition that is met now, or None."""
        rates = {
            window_s: (
                of_voltage.add(seen.elapsed_s, seen.voltage_V),
                of_current.add(seen.elapsed_s, seen.current_A),
            )
            for window_s, (of_voltage, of_current) in self._slopes.items()
        }
        found = None
        for i, condition in enumerate(self._conditions):
            known = seen
            if condition.needs_slope:
                voltage_rate, current_rate = rates[condition.window_s]
                known = replace(seen, voltage_rate_V_s=voltage_rate, current_rate_A_s=current_rate)
            self._held[i] = self._held[i] + 1 if condition.met(known) else 0
            if found is None and self._held[i] >= condition.confirm:
                found = condition
        return found
