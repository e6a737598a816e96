"""Where a reading may lie so that nothing is to be decided about it.

Most readings break no limit and meet no condition, and to find that out one by one takes
longer than to read them. The bounds here say so for one or many with a few comparisons. A
reading that is not well within them is asked in full.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.limits import Condition, Envelope

Span = tuple[float, float]
EVERYWHERE: Span = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """From where a condition counts.

    Parameters
    ----------
    t_ns, charge_C, charge_ionic_C
        At the beginning of its step or segment.
    half_C
        The instrument's charge when the direction last changed.
    """

    t_ns: int
    charge_C: float
    charge_ionic_C: float
    half_C: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """Bounds, none of them included, within which nothing is to be decided.

    Parameters
    ----------
    charge_C, charge_ionic_C
        Since the run began; None for a charge that nothing asks for.
    before_ns
        Host time.
    """

    voltage_V: Span = EVERYWHERE
    current_A: Span = EVERYWHERE
    charge_C: Span = EVERYWHERE
    charge_ionic_C: Span | None = None
    before_ns: float = math.inf

    def holds(
        self,
        voltage_V: float,
        current_A: float,
        charge_C: float,
        charge_ionic_C: float,
        end_ns: int,
    ) -> bool:
        """Tell whether a reading is within; never for one that is not a number."""
        low_V, high_V = self.voltage_V
        low_A, high_A = self.current_A
        low_C, high_C = self.charge_C
        return (
            low_V < voltage_V < high_V
            and low_A < current_A < high_A
            and low_C < charge_C < high_C
            and end_ns < self.before_ns
            and (
                self.charge_ionic_C is None
                or self.charge_ionic_C[0] < charge_ionic_C < self.charge_ionic_C[1]
            )
        )

    def holds_all(
        self,
        voltage_V: NDArray[np.float64],
        current_A: NDArray[np.float64],
        charge_C: NDArray[np.float64],
        charge_ionic_C: NDArray[np.float64],
        end_ns: int,
    ) -> bool:
        """Tell whether all readings are within, the last of which ended at ``end_ns``."""
        spans = [
            (voltage_V, self.voltage_V),
            (current_A, self.current_A),
            (charge_C, self.charge_C),
        ]
        if self.charge_ionic_C is not None:
            spans.append((charge_ionic_C, self.charge_ionic_C))
        return end_ns < self.before_ns and all(
            low < values.min() and values.max() < high for values, (low, high) in spans
        )


def calm_within(
    envelope: Envelope | None,
    conditions: Iterable[tuple[Condition, Origin]],
    *,
    begun_ns: float = math.inf,
) -> Calm | None:
    """Return the bounds, or None where a condition has no such bounds.

    Parameters
    ----------
    envelope
        Hard limits; None where no cell is attached.
    conditions
        Each with what it counts from.
    begun_ns
        Host time of the first step; infinite before it.
    """
    spans = {"V": EVERYWHERE, "I": EVERYWHERE, "Q": EVERYWHERE, "t": EVERYWHERE}
    if envelope is not None:
        if envelope.limits_rates:
            return None
        spans["V"] = (envelope.voltage_min_V, envelope.voltage_max_V)
        spans["I"] = (-envelope.current_max_A, envelope.current_max_A)
        spans["Q"] = (-envelope.charge_max_C, envelope.charge_max_C)
        if math.isfinite(envelope.charge_ionic_max_C):
            spans["Q_ionic"] = (-envelope.charge_ionic_max_C, envelope.charge_ionic_max_C)
        spans["t"] = (-math.inf, begun_ns + envelope.time_max_s * 1e9)
    for condition, origin in conditions:
        bound = _bound(condition, origin)
        if bound is None:
            return None
        name, (low, high) = bound
        was_low, was_high = spans.get(name, EVERYWHERE)
        spans[name] = (max(low, was_low), min(high, was_high))
    return Calm(
        voltage_V=spans["V"],
        current_A=spans["I"],
        charge_C=spans["Q"],
        charge_ionic_C=spans.get("Q_ionic"),
        before_ns=spans["t"][1],
    )


def _bound(condition: Condition, origin: Origin) -> tuple[str, Span] | None:
    """Return where a quantity since the run began does not meet a condition."""
    name, value = condition.quantity.strip("|"), condition.value
    zeros = {
        "V": ("V", 0.0),
        "I": ("I", 0.0),
        "Q": ("Q", origin.charge_C),
        "Q_half": ("Q", origin.half_C),
        "Q_run": ("Q", 0.0),
        "Q_ionic": ("Q_ionic", origin.charge_ionic_C),
    }
    if name == "t":
        end_ns = origin.t_ns + value * 1e9
        return ("t", (-math.inf, end_ns)) if condition.relation == ">" else None
    if name not in zeros:
        return None  # a slope is asked of every reading
    base, zero = zeros[name]
    if math.isnan(zero):
        return base, EVERYWHERE  # never met
    if condition.quantity.startswith("|"):
        return (base, (zero - value, zero + value)) if condition.relation == ">" else None
    low, high = (-math.inf, zero + value) if condition.relation == ">" else (zero + value, math.inf)
    return base, (low, high)
