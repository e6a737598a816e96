"""What a cell may see, and when a step ends: pure comparisons, one reading at a time."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Quantity = Literal[
    "V", "I", "|I|", "t", "dV/dt", "|dV/dt|", "dI/dt", "|dI/dt|",
    "Q", "|Q|", "Q_ionic", "|Q_ionic|", "Q_half", "|Q_half|", "Q_run", "T",
]  # fmt: skip

Action = Literal["next", "hold", "safe", "goto"]

SLOPE_WINDOW_S = 30.0
MIN_SLOPE_READINGS = 5
RATE_WINDOW_S = 2.0
RATE_CONFIRM = 3


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
    voltage_rate_max_V_s, current_rate_max_A_s
        Largest magnitude of the slopes over the last ``rate_window_s`` in which the plan
        has not changed the level by itself; infinite for none.
    temperature_min_K, temperature_max_K
        Span of the temperature; infinite for none.
    charge_ionic_max_C
        Largest magnitude of the cell's own charge since the run began; infinite for none.
    time_max_s
        Longest time since the first step began; infinite for none.
    """

    voltage_min_V: float
    voltage_max_V: float
    current_max_A: float
    charge_max_C: float
    voltage_rate_max_V_s: float = math.inf
    current_rate_max_A_s: float = math.inf
    rate_window_s: float = RATE_WINDOW_S
    temperature_min_K: float = -math.inf
    temperature_max_K: float = math.inf
    charge_ionic_max_C: float = math.inf
    time_max_s: float = math.inf

    @property
    def limits_temperature(self) -> bool:
        """True when the temperature has a limit."""
        return math.isfinite(self.temperature_min_K) or math.isfinite(self.temperature_max_K)

    def temperature_violation(self, temperature_K: float) -> str | None:
        """Say which limit a temperature breaks, or None; never one that is not a number."""
        if temperature_K > self.temperature_max_K:
            return f"temperature {temperature_K:.5g} K is above {self.temperature_max_K:.5g} K"
        if temperature_K < self.temperature_min_K:
            return f"temperature {temperature_K:.5g} K is below {self.temperature_min_K:.5g} K"
        return None

    @property
    def limits_rates(self) -> bool:
        """True when a slope has a limit."""
        return math.isfinite(min(self.voltage_rate_max_V_s, self.current_rate_max_A_s))

    def violation(
        self,
        *,
        voltage_V: float,
        current_A: float,
        charge_C: float,
        charge_ionic_C: float = math.nan,
        elapsed_s: float = math.nan,
    ) -> str | None:
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
        return self._spent(charge_C, charge_ionic_C, elapsed_s)

    def _spent(self, charge_C: float, charge_ionic_C: float, elapsed_s: float) -> str | None:
        """Say which limit of what adds up is broken, or None."""
        if abs(charge_C) > self.charge_max_C:
            return f"charge {charge_C:.6g} C is beyond the limit {self.charge_max_C:.6g} C"
        if abs(charge_ionic_C) > self.charge_ionic_max_C:
            most_C = self.charge_ionic_max_C
            return f"ionic charge {charge_ionic_C:.6g} C is beyond the limit {most_C:.6g} C"
        if elapsed_s > self.time_max_s:
            return f"time {elapsed_s:.6g} s is beyond the limit {self.time_max_s:.6g} s"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a condition compares: one reading and what was worked out with it.

    Parameters
    ----------
    charge_C, charge_ionic_C
        Since the step or segment began; the second is NaN without a calibration.
    charge_half_C, charge_run_C
        Since the current or the sweep last changed its direction, and since the run began.
    voltage_rate_V_s, current_rate_A_s
        Slopes over the condition's window; NaN until the window is full.
    temperature_K
        NaN in all but the answers of a thermometer, which come by themselves.
    """

    voltage_V: float = math.nan
    current_A: float = math.nan
    charge_C: float = math.nan
    elapsed_s: float = math.nan
    charge_ionic_C: float = math.nan
    charge_half_C: float = math.nan
    charge_run_C: float = math.nan
    voltage_rate_V_s: float = math.nan
    current_rate_A_s: float = math.nan
    temperature_K: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One end condition of a step or segment, such as ``V > 4.2 V``.

    Parameters
    ----------
    quantity
        ``V`` terminal voltage, ``I`` current, ``Q`` instrument charge and ``Q_ionic``
        charge of the cell since the beginning, ``Q_half`` charge since the direction
        changed, ``Q_run`` since the run began, ``t`` time since the beginning,
        ``dV/dt`` and ``dI/dt`` slopes, ``T`` temperature; magnitudes between bars.
    relation
        ``">"`` or ``"<"``.
    value
        In V, A, C, s, V/s, A/s or K.
    text
        As the user wrote it.
    confirm
        Readings in a row for which it must hold.
    window_s
        Over which a slope is taken.
    action
        What follows: ``"next"`` goes on with the plan, ``"hold"`` rests at 0 A until the
        operator says so, ``"safe"`` takes the cell to its safe state and ends the run,
        ``"goto"`` goes on with the step of the label ``goto``.
    goto, goto_most
        Where to, and how many times at most; then the plan goes on with its next step.
    """

    quantity: Quantity
    relation: Literal[">", "<"]
    value: float
    text: str
    confirm: int = 1
    window_s: float = SLOPE_WINDOW_S
    action: Action = "next"
    goto: str = ""
    goto_most: int = 0

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

    @property
    def needs_temperature(self) -> bool:
        """True for a condition on the temperature, which is asked about once a second."""
        return self.quantity == "T"


def _value(seen: Seen, quantity: Quantity) -> float:
    value = {
        "V": seen.voltage_V,
        "I": seen.current_A,
        "Q": seen.charge_C,
        "Q_ionic": seen.charge_ionic_C,
        "Q_half": seen.charge_half_C,
        "Q_run": seen.charge_run_C,
        "t": seen.elapsed_s,
        "dV/dt": seen.voltage_rate_V_s,
        "dI/dt": seen.current_rate_A_s,
        "T": seen.temperature_K,
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
        self._origin = (0.0, 0.0)
        self._sums = (0.0, 0.0, 0.0, 0.0)  # of t, v, t*t and t*v from the origin
        self._changes = 0

    def add(self, t_s: float, value: float) -> float:
        """Take a value; return the slope, NaN until nine tenths of the window are full."""
        if math.isfinite(value):
            if not self._seen:
                self._origin, self._sums = (t_s, value), (0.0, 0.0, 0.0, 0.0)
            self._seen.append((t_s, value))
            self._count(t_s, value, 1.0)
        while self._seen and self._seen[0][0] < t_s - self._window_s:
            self._count(*self._seen.popleft(), -1.0)
        n = len(self._seen)
        if n < MIN_SLOPE_READINGS or t_s - self._seen[0][0] < 0.9 * self._window_s:
            return math.nan
        if self._changes > n:
            self._count_anew()
        sum_t, sum_v, sum_tt, sum_tv = self._sums
        return (sum_tv - sum_t * sum_v / n) / (sum_tt - sum_t * sum_t / n)

    def _count(self, t_s: float, value: float, weight: float) -> None:
        """Add a value to the sums, or take it away: readings may come in large blocks."""
        t, v = t_s - self._origin[0], value - self._origin[1]
        sum_t, sum_v, sum_tt, sum_tv = self._sums
        self._sums = (
            sum_t + weight * t,
            sum_v + weight * v,
            sum_tt + weight * t * t,
            sum_tv + weight * t * v,
        )
        self._changes += 1

    def _count_anew(self) -> None:
        """Take the sums again, from a near origin: differences of large sums are not exact."""
        self._origin, self._sums = self._seen[-1], (0.0, 0.0, 0.0, 0.0)
        for t_s, value in self._seen:
            self._count(t_s, value, 1.0)
        self._changes = 0


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

    @property
    def is_idle(self) -> bool:
        """True while no condition has held at the last reading."""
        return not any(self._held)

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


class RateGuard:
    """Holds the limits of an envelope on how fast voltage and current may change.

    Parameters
    ----------
    envelope
        Its slopes are asked over its own window, for `RATE_CONFIRM` readings in a row.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._limits = (envelope.voltage_rate_max_V_s, envelope.current_rate_max_A_s)
        self._window_s = envelope.rate_window_s
        self._guarded = envelope.limits_rates
        self._beyond = [0, 0]
        self._slopes = (Slope(self._window_s), Slope(self._window_s))

    def forget(self) -> None:
        """Begin anew: what was asked for has changed, and readings jump with it."""
        if self._guarded:
            self._slopes = (Slope(self._window_s), Slope(self._window_s))
            self._beyond = [0, 0]

    def violation(self, t_s: float, *, voltage_V: float, current_A: float) -> str | None:
        """Take a valid reading; say which limit is broken, or None.

        Parameters
        ----------
        current_A
            NaN while the meter settles.
        """
        if not self._guarded:
            return None
        for i, (value, what, unit) in enumerate(
            ((voltage_V, "voltage", "V/s"), (current_A, "current", "A/s"))
        ):
            rate = self._slopes[i].add(t_s, value)
            beyond = abs(rate) > self._limits[i]  # never for a slope that is not known
            self._beyond[i] = self._beyond[i] + 1 if beyond else 0
            if self._beyond[i] >= RATE_CONFIRM:
                return (
                    f"{what} changes at {rate:.4g} {unit}, beyond the limit "
                    f"{self._limits[i]:.4g} {unit}"
                )
        return None
