"""What two calibrations of a holder, before and after a run, say of the time between.

Neither says when the holder changed. What the ledger needs is a mean over the run: it
lies between the two values, and nothing prefers any place there. So the mean of both is
taken, and their difference adds ``abs(difference) / sqrt(12)``: half the difference as the
limit of an even spread, beside what the two calibrations do not know themselves.
"""

import math
from dataclasses import dataclass, fields, replace

from correlate.ledger import Holder

ALARM_SIGMAS = 3.0
ALARM_OFFSET_A_S = 50e-15 / 3600.0
_QUANTITIES = (
    ("stray capacitance", "capacitance_F", "capacitance_sigma_F", "F"),
    ("leakage", "conductance_S", "conductance_sigma_S", "S"),
    ("dielectric branch", "dielectric_F", "dielectric_sigma_F", "F"),
    ("zero of the current range", "offset_A", "offset_sigma_A", "A"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One quantity of a holder before and after a run."""

    name: str
    unit: str
    before: float
    after: float
    sigma: float  # of the difference

    @property
    def difference(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def is_alarming(self) -> bool:
        """True where chance would hardly give such a difference (3 sigma)."""
        return abs(self.difference) > ALARM_SIGMAS * self.sigma


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderChange:
    """A holder that was measured twice.

    Parameters
    ----------
    holder
        What to take for the time between.
    changes
        Each quantity.
    """

    holder: Holder
    changes: tuple[Change, ...]

    @property
    def capacitance_F(self) -> float:
        """By how much the stray capacitance changed."""
        return self.changes[0].difference


def holder_between(before: Holder, after: Holder) -> HolderChange:
    """Join the calibrations before and after a run."""
    changes: list[Change] = []
    joined: dict[str, float] = {}
    for name, value, sigma, unit in _QUANTITIES:
        first, last = getattr(before, value), getattr(after, value)
        sigmas = getattr(before, sigma), getattr(after, sigma)
        own = math.hypot(*sigmas)
        joined[value] = 0.5 * (first + last)
        joined[sigma] = math.hypot(0.5 * own, (last - first) / math.sqrt(12.0))
        changes.append(Change(name=name, unit=unit, before=first, after=last, sigma=own))
    taus = before.dielectric_tau_s, after.dielectric_tau_s
    joined["dielectric_tau_s"] = math.sqrt(taus[0] * taus[1])
    known = {f.name for f in fields(Holder)} & set(joined)
    return HolderChange(
        holder=replace(before, **{name: joined[name] for name in known}), changes=tuple(changes)
    )


def is_fast_drift(change: Change, seconds: float) -> bool:
    """Tell whether a zero moved by more than 50 fA in an hour, and surely so."""
    return change.is_alarming and abs(change.difference) > ALARM_OFFSET_A_S * seconds
