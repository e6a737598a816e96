"""Packages of a MethodSCRIPT instrument to rows of readings."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from potentiostat.errors import ReplyError
from potentiostat.methodscript import (
    CURRENTS,
    MEASURED_CURRENT,
    OVERLOAD,
    TIME,
    VOLTAGES,
    Variable,
    read_package,
)
from potentiostat.methodscript_stream import Package
from potentiostat.palmsens_models import NOISE, RANGES
from potentiostat.protocol import Setpoint
from potentiostat.readings import Raw, sample_rows
from potentiostat.records import RangeSpec, Status

REST = Setpoint(mode="current", level=0.0, clamp=math.inf, range_A=RANGES[0].full_scale_A)


def variables_of(package: Package) -> dict[str, Variable]:
    """Return what a package tells, by type; nothing for one that makes no sense."""
    try:
        return read_package(package.text)
    except ReplyError:
        return {}


def first_of(found: dict[str, Variable], kinds: tuple[str, ...]) -> Variable | None:
    """Return the first of these types that there is, or None."""
    return next((found[kind] for kind in kinds if kind in found), None)


def spec_of(range_A: float) -> RangeSpec:
    """Return the range of a full scale that a model has."""
    return next(r for r in RANGES if r.full_scale_A == range_A)


def row_of(
    package: Package,
    *,
    setpoint: Setpoint | None,
    begun_s: float,
    zero_ns: int,
    interval_s: float,
    settled_ns: int,
) -> NDArray[np.void]:
    """Return a package as a row; SAMPLE_DTYPE, shape (1,).

    Parameters
    ----------
    setpoint
        That was held; None for nothing.
    begun_s
        When the instrument's timer began, on the time scale of all scripts; NaN for unknown.
    zero_ns
        Host time of the zero of that scale.
    interval_s
        Between readings, each of which takes all of it.
    settled_ns
        Readings that begin before this are marked SETTLING.
    """
    found = variables_of(package)
    voltage, current = first_of(found, VOLTAGES), first_of(found, CURRENTS)
    held = REST if setpoint is None else setpoint
    if voltage is not None and current is None:  # of the open cell, on the way to a level
        held = replace(REST, range_A=held.range_A)
        current = Variable(value=0.0)
    voltage_V, current_A = _value(voltage), _value(current)
    time_s = math.nan if (time := found.get(TIME)) is None else begun_s + time.value
    time_s -= interval_s
    controlled = voltage_V if held.mode == "current" else current_A
    # The stream knows no question: the reading may have begun one interval before it.
    began_ns = package.asked_ns - round(interval_s * 1e9)
    # By its own time it may have begun later than that: when the meter was settled.
    later_ns = 0
    if math.isfinite(time_s):
        later_ns = max(0, zero_ns + round(time_s * 1e9) - began_ns)
    rows = sample_rows(
        Raw(
            read_start_ns=np.array([began_ns]),
            read_end_ns=np.array([package.received_ns]),
            voltage_V=np.array([voltage_V]),
            current_A=np.array([current_A]),
            device_time_s=np.array([time_s]),
            compliance=np.array([abs(controlled) >= held.clamp]),
        ),
        setpoint=held,
        spec=spec_of(held.range_A),
        noise=NOISE,
        window_s=interval_s,
        aperture_s=interval_s,
        settled_ns=settled_ns - later_ns,
    )
    if MEASURED_CURRENT not in found and math.isfinite(current_A):
        rows["status"] |= int(Status.TOLD)
    return rows


def _value(variable: Variable | None) -> float:
    """Return a value; NaN where there is none, infinite where the range is overloaded."""
    if variable is None:
        return math.nan
    if variable.status & OVERLOAD:
        return math.copysign(math.inf, variable.value)
    return variable.value
