"""The diffusivities of a session: from the readings of its GITT steps to tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from correlate.gitt import titrate
from correlate.ledger import Accuracy, Holder, Ledger
from correlate.titration import Pulse, Setting, Titration
from correlate.titration_bins import Readings
from potentiostat.records import Status
from potentiostat.technique import Step
from session.reader import Session

PREFIX = "gitt_step_"
UNUSABLE = int(Status.INVALID | Status.OVERFLOW | Status.COMPLIANCE)
TECHNIQUE = "gitt"

Columns = dict[str, NDArray[np.generic]]
Samples = Mapping[str, NDArray[np.generic]]

# Column of the table, its unit, and where it comes from.
_COLUMNS = (
    ("t_start", "s", "begin_s"),
    ("duration", "s", "duration_s"),
    ("current", "A", "current_A"),
    ("step", "V", "step_V"),
    ("step_sigma", "V", "step_sigma_V"),
    ("remaining", "V", "remaining_V"),
    ("charge", "C", "charge_C"),
    ("root_slope", "V/s^0.5", "root_slope"),
    ("root_slope_sigma", "V/s^0.5", "root_slope_sigma"),
    ("resistance", "ohm", "ohm"),
    ("resistance_sigma", "ohm", "ohm_sigma"),
    ("diffusivity", "m^2/s", "diffusivity_m2_s"),
    ("diffusivity_sigma", "m^2/s", "diffusivity_sigma_m2_s"),
    ("diffusivity_fit", "m^2/s", "fit_m2_s"),
    ("diffusivity_fit_sigma", "m^2/s", "fit_sigma_m2_s"),
    ("fit_scatter", "", "fit_scatter"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTitration:
    """What the pulses of one step told; times count from the first reading of the session."""

    step: int
    pulses: tuple[Titration, ...]

    def columns(self) -> Columns:
        """Return the table's columns."""
        found: Columns = {
            name: np.array([float(getattr(p, field)) for p in self.pulses])
            for name, _, field in _COLUMNS
        }
        found["valid"] = np.array([p.valid for p in self.pulses], np.uint8)
        found["reasons"] = np.array(["; ".join(p.reasons) for p in self.pulses], dtype=np.str_)
        return found

    @staticmethod
    def units() -> dict[str, str]:
        """Return the unit of each column."""
        return {name: unit for name, unit, _ in _COLUMNS}


def titrations(
    session: Session,
    steps: Mapping[int, Step],
    columns: Samples,
    *,
    holder: Holder | None,
    accuracy: Accuracy,
    ledger_of: Callable[[Samples], Ledger],
) -> tuple[StepTitration, ...]:
    """Return what each GITT step of a session tells.

    Parameters
    ----------
    steps
        By the numbers with which they were played.
    columns
        Of the samples.
    ledger_of
        Parts the charge of samples into its terms.
    """
    numbers = [i for i, step in sorted(steps.items()) if step.name == TECHNIQUE]
    found = {i: _pulses(columns, i) for i in numbers}
    if not any(found.values()):
        return ()
    held = {**columns, "current": _settled_current(columns)}
    charge = ledger_of(held).columns
    usable = (np.asarray(columns["status"], np.uint32) & UNUSABLE) == 0
    usable &= np.isfinite(np.asarray(columns["voltage"], np.float64))
    readings = Readings(
        t_s=_seconds(columns)[usable],
        volts=np.asarray(columns["voltage"], np.float64)[usable],
        sigma_V=np.asarray(columns["voltage_sigma"], np.float64)[usable],
        charge_C=charge["instrument" if holder is None else "ionic"][usable],
    )
    setting = _setting(session, columns, holder, accuracy)
    return tuple(
        StepTitration(step=step, pulses=titrate(readings, pulses, setting))
        for step, pulses in found.items()
        if pulses
    )


def _seconds(columns: Samples) -> NDArray[np.float64]:
    t_ns = np.asarray(columns["t_ns"], np.int64)
    return np.asarray((t_ns - t_ns[0]) / 1e9, np.float64)


def _galvanostatic(columns: Samples) -> NDArray[np.bool_]:
    status = np.asarray(columns["status"], np.uint32)
    return np.asarray((status & int(Status.POTENTIOSTATIC)) == 0)


def _stretches(columns: Samples) -> list[tuple[int, int]]:
    """Return first and last row of each stretch with one set-point, half open."""
    level = np.asarray(columns["setpoint"], np.float64)
    mode = _galvanostatic(columns)
    change = (level[1:] != level[:-1]) | (mode[1:] != mode[:-1])
    bounds = [0, *(np.flatnonzero(change) + 1).tolist(), len(level)]
    return list(pairwise(bounds))


def _settled_current(columns: Samples) -> NDArray[np.float64]:
    """Return the current as the source gives it: a meter that still settles is not asked.

    The source is there at once; the reading of a small range takes seconds to follow, and
    the charge would be late by as much.
    """
    current = np.array(columns["current"], np.float64)
    settling = (np.asarray(columns["status"], np.uint32) & int(Status.SETTLING)) != 0
    held = _galvanostatic(columns)
    for first, last in _stretches(columns):
        late = settling[first:last]
        if held[first] and np.any(late) and not np.all(late):
            part = current[first:last]
            part[late] = np.nanmedian(part[~late])
    return current


def _pulses(columns: Samples, step: int) -> tuple[Pulse, ...]:
    """Return the pulses of a step, with the rests about them."""
    numbers, t_s = np.asarray(columns["step"]), _seconds(columns)
    level, held = np.asarray(columns["setpoint"], np.float64), _galvanostatic(columns)
    origin_ns = int(np.asarray(columns["t_ns"])[0])
    starts = (np.asarray(columns["read_start_ns"], np.int64) - origin_ns) / 1e9
    ends = (np.asarray(columns["read_end_ns"], np.int64) - origin_ns) / 1e9
    parts = _stretches(columns)

    def switched_s(row: int) -> float:
        """Return when the source changed: between two readings."""
        return float(t_s[0] if row == 0 else (ends[row - 1] + starts[row]) / 2)

    pulses = []
    for (rest, _), (first, last), (_, end) in zip(parts[:-2], parts[1:-1], parts[2:], strict=True):
        rests = held[rest] and held[last] and level[rest] == level[last] == 0.0
        if numbers[first] != step or level[first] == 0.0 or not held[first] or not rests:
            continue
        pulses.append(
            Pulse(
                rest_s=switched_s(rest),
                begin_s=switched_s(first),
                end_s=switched_s(last),
                rest_end_s=switched_s(end) if end < len(t_s) else float(t_s[-1]),
                clock_sigma_s=float(t_s[first] - t_s[first - 1]) / np.sqrt(12.0),
            )
        )
    return tuple(pulses)


def _setting(
    session: Session, columns: Samples, holder: Holder | None, accuracy: Accuracy
) -> Setting:
    instrument = session.attributes("instrument/potentiostat")
    full_A = np.atleast_1d(np.asarray(instrument["range_full_scale_A"], np.float64))
    settling_s = np.atleast_1d(np.asarray(instrument["range_settling_s"], np.float64))
    used_A = float(np.median(np.asarray(columns["range"], np.float64)))
    volts = float(np.nanmean(np.asarray(columns["voltage"], np.float64)))
    thickness_m = float(str(session.attributes("sample")["working_thickness_m"]))
    offset_sigma_A = accuracy.offset_A / np.sqrt(3.0)
    if holder is not None:
        offset_sigma_A = np.hypot(holder.offset_sigma_A, holder.conductance_sigma_S * volts)
    return Setting(
        thickness_m=thickness_m,
        stray_F=0.0 if holder is None else holder.capacitance_F,
        settling_s=float(settling_s[int(np.argmin(np.abs(full_A - used_A)))]),
        gain_sigma=float(accuracy.gain_ratio / np.sqrt(3.0)),
        offset_sigma_A=float(offset_sigma_A),
        ionic=holder is not None,
    )
