"""Soft shorts in a session: which steps of the voltage, and what charge went astray in them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.soft_short import VoltageStep, find_steps
from potentiostat.records import Status
from runner.format import in_unit, with_sigma

NEAR_READINGS = 10  # whose mean is the voltage just before a change of the current
AFTER_S = (1.0, 2.0)  # after it: the stray capacitance has followed, the film has not


@dataclass(frozen=True, slots=True, kw_only=True)
class Shorts:
    """The soft shorts of a session.

    Parameters
    ----------
    steps
        Sudden falls and rises of the voltage at a held current.
    cell_ohm
        Resistance of the cell, from changes of the current; NaN where there was none.
    charge_C
        Taken by the shorts up to each reading, shape (n,); NaN where it is not known.
    """

    steps: tuple[VoltageStep, ...]
    start_ns: int
    cell_ohm: float
    charge_C: NDArray[np.float64]

    def events(self) -> list[tuple[int, str, dict[str, object]]]:
        """Return time, words and numbers of each step."""
        return [(self.start_ns + round(s.t_s * 1e9), *self._said(s)) for s in self.steps]

    def _said(self, step: VoltageStep) -> tuple[str, dict[str, object]]:
        moved = "fell" if step.closes else "rose"
        text = (
            f"the voltage {moved} at once by {with_sigma(abs(step.step_V), step.sigma_V, 'V')} at "
            f"a held current"
        )
        ohm = step.short_ohm(self.cell_ohm)
        if step.closes and math.isfinite(ohm):
            text += f": a short of about {in_unit(ohm, 'ohm', 2)}"
        return text, {
            "step_V": step.step_V,
            "sigma_V": step.sigma_V,
            "significance": step.significance,
            "short_ohm": ohm if step.closes and math.isfinite(ohm) else None,
        }


def find_shorts(columns: Mapping[str, NDArray[np.generic]]) -> Shorts:
    """Look for soft shorts in the samples of a session."""
    t_ns = np.asarray(columns["t_ns"])
    t_s = (t_ns - t_ns[0]) / 1e9
    voltage, level = np.asarray(columns["voltage"]), np.asarray(columns["setpoint"])
    potentiostatic = np.asarray(columns["status"], np.uint32) & int(Status.POTENTIOSTATIC) != 0
    changes = np.flatnonzero((np.diff(level) != 0) | np.diff(potentiostatic)) + 1
    held = np.zeros(len(t_s), np.int64)
    held[changes] = 1
    held = np.where(potentiostatic, -1, np.cumsum(held))
    steps = find_steps(t_s, voltage, np.asarray(columns["voltage_sigma"]), held)
    cell_ohm = _cell_ohm(t_s, voltage, np.where(potentiostatic, np.nan, level), changes)
    return Shorts(
        steps=tuple(steps),
        start_ns=int(t_ns[0]),
        cell_ohm=cell_ohm,
        charge_C=_charge(t_s, held, steps, cell_ohm),
    )


def _cell_ohm(
    t_s: NDArray[np.float64],
    voltage: NDArray[np.float64],
    current: NDArray[np.float64],
    changes: NDArray[np.intp],
) -> float:
    found = []
    for k in changes:
        after = np.flatnonzero((t_s >= t_s[k] + AFTER_S[0]) & (t_s <= t_s[k] + AFTER_S[1]))
        change_A = current[k] - current[k - 1]
        same = len(after) > 0 and np.all(current[after] == current[k])
        if same and np.isfinite(change_A) and change_A != 0:
            before_V = np.nanmean(voltage[max(k - NEAR_READINGS, 0) : k])
            found.append(float((np.nanmean(voltage[after]) - before_V) / change_A))
    return float(np.median(found)) if found else math.nan


def _charge(
    t_s: NDArray[np.float64],
    held: NDArray[np.int64],
    steps: list[VoltageStep],
    cell_ohm: float,
) -> NDArray[np.float64]:
    """Integrate what the shorts take: from a fall to the next rise, or until a change."""
    taken_A = np.zeros(len(t_s))
    for k, step in enumerate(steps):
        if not step.closes:
            continue
        first = int(np.searchsorted(t_s, step.t_s))
        other = np.flatnonzero(held[first:] != held[first])
        last = first + int(other[0]) if len(other) else len(t_s)
        opens = [s.t_s for s in steps[k + 1 :] if not s.closes]
        if opens:
            last = min(last, int(np.searchsorted(t_s, opens[0])))
        taken_A[first:last] += abs(step.step_V / cell_ohm)
    charge_C = np.zeros(len(t_s))
    charge_C[1:] = np.cumsum(taken_A[:-1] * np.diff(t_s))
    return charge_C
