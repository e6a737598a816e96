"""Raw numbers of an instrument to rows of readings, with flags and sigmas."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.noise import ELEMENTARY_C, current_sigma_A, voltage_sigma_V
from potentiostat.protocol import Setpoint
from potentiostat.records import SAMPLE_DTYPE, RangeSpec, Reading, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingNoise:
    """Random part of a model's readings.

    Parameters
    ----------
    voltage_V
        At one power-line cycle of 20 ms.
    voltage_step_V
        Last digit.
    current_A
        Of the instrument at one cycle, beside shot and Johnson noise; 0 where the
        feedback resistor explains it.
    """

    voltage_V: float
    voltage_step_V: float
    current_A: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What an instrument said of n readings; arrays of shape (n,).

    Parameters
    ----------
    read_start_ns, read_end_ns
        Host stamps around the exchange. In a block each reading has its own, within
        those of the exchange: `potentiostat.blocks.host_brackets`.
    device_time_s
        As the instrument says it; NaN where it says none.
    """

    read_start_ns: NDArray[np.int64]
    read_end_ns: NDArray[np.int64]
    voltage_V: NDArray[np.float64]
    current_A: NDArray[np.float64]
    device_time_s: NDArray[np.float64]
    compliance: NDArray[np.bool_]


class SingleReadings:
    """Makes readings one by one while conditions last: what does not change is known before.

    Parameters
    ----------
    setpoint
        What is held; None before the first.
    spec
        The current range that is on.
    window_s, aperture_s
        Integration time of one quantity, and of the whole reading.
    settled_ns
        Readings that begin before this are marked SETTLING.
    """

    def __init__(
        self,
        *,
        setpoint: Setpoint | None,
        spec: RangeSpec,
        noise: ReadingNoise,
        window_s: float,
        aperture_s: float,
        settled_ns: int,
    ) -> None:
        self._level, self._range_A, self._status = 0.0, 0.0, 0
        if setpoint is not None:
            self._level, self._range_A = setpoint.level, setpoint.range_A
            if setpoint.mode == "voltage":
                self._status = POTENTIOSTATIC
        self._aperture_s, self._settled_ns = aperture_s, settled_ns
        self._sigma_V = voltage_sigma_V(
            noise_V_at_1_plc=noise.voltage_V, window_s=window_s, step_V=noise.voltage_step_V
        )
        still_A = current_sigma_A(
            0.0,
            feedback_ohm=1.0 / spec.full_scale_A,
            window_s=window_s,
            resolution_A=spec.resolution_A,
            own_A=noise.current_A * (0.02 / window_s) ** 0.5,
        )
        self._still_A2, self._shot_A = still_A**2, ELEMENTARY_C / window_s

    def reading(
        self,
        read_start_ns: int,
        read_end_ns: int,
        voltage_V: float,
        current_A: float,
        device_time_s: float,
        *,
        compliance: bool,
    ) -> Reading:
        """Return what `sample_rows` returns of one reading, in a tenth of the time."""
        status, known_A = self._status, current_A
        if compliance:
            status |= COMPLIANCE
        if read_start_ns < self._settled_ns:
            status |= SETTLING
        if not math.isfinite(voltage_V + current_A):
            infinite = math.isinf(voltage_V) or math.isinf(current_A)
            status |= OVERFLOW if infinite else INVALID
            known_A = current_A if math.isfinite(current_A) else 0.0
        return Reading(
            read_start_ns,
            read_end_ns,
            device_time_s,
            self._aperture_s,
            voltage_V,
            current_A,
            self._sigma_V,
            (abs(known_A) * self._shot_A + self._still_A2) ** 0.5,
            self._level,
            self._range_A,
            status,
        )


def sample_rows(
    raw: Raw,
    *,
    setpoint: Setpoint | None,
    spec: RangeSpec,
    noise: ReadingNoise,
    window_s: float,
    aperture_s: float,
    settled_ns: int,
) -> NDArray[np.void]:
    """Return readings as SAMPLE_DTYPE rows, shape (n,).

    Parameters
    ----------
    setpoint
        What is held; None before the first.
    spec
        The current range that is on.
    window_s, aperture_s
        Integration time of one quantity, and of the whole reading.
    settled_ns
        Readings that begin before this are marked SETTLING.

    Notes
    -----
    An infinite value is marked OVERFLOW, one that is not a number INVALID.
    """
    rows = np.empty(len(raw.voltage_V), SAMPLE_DTYPE)
    for name in ("read_start_ns", "read_end_ns", "voltage_V", "current_A", "device_time_s"):
        rows[name] = getattr(raw, name)
    rows["aperture_s"] = aperture_s
    rows["setpoint"], rows["range_A"] = (
        (0.0, 0.0) if setpoint is None else (setpoint.level, setpoint.range_A)
    )
    # The sum of numbers is a number: one look for all of them, in most cases the only one.
    all_finite = math.isfinite(float(raw.voltage_V.sum()) + float(raw.current_A.sum()))
    rows["status"] = _status(raw, setpoint, settled_ns, all_finite=all_finite)
    rows["voltage_sigma_V"] = voltage_sigma_V(
        noise_V_at_1_plc=noise.voltage_V, window_s=window_s, step_V=noise.voltage_step_V
    )
    known_A = raw.current_A
    if not all_finite:
        known_A = np.where(np.isfinite(known_A), known_A, 0.0)
    rows["current_sigma_A"] = current_sigma_A(
        known_A,
        feedback_ohm=1.0 / spec.full_scale_A,
        window_s=window_s,
        resolution_A=spec.resolution_A,
        own_A=noise.current_A * (0.02 / window_s) ** 0.5,
    )
    return rows


COMPLIANCE, OVERFLOW, INVALID = Status.COMPLIANCE.value, Status.OVERFLOW.value, Status.INVALID.value
SETTLING, POTENTIOSTATIC = Status.SETTLING.value, Status.POTENTIOSTATIC.value


def _status(
    raw: Raw, setpoint: Setpoint | None, settled_ns: int, *, all_finite: bool
) -> NDArray[np.int64]:
    """Return the flags of each reading."""
    held_V = setpoint is not None and setpoint.mode == "voltage"
    status: NDArray[np.int64] = np.multiply(raw.compliance, COMPLIANCE, dtype=np.int64)
    status |= (raw.read_start_ns < settled_ns) * SETTLING
    if held_V:
        status |= POTENTIOSTATIC
    if not all_finite:
        infinite = np.isinf(raw.voltage_V) | np.isinf(raw.current_A)
        unknown = np.isnan(raw.voltage_V) | np.isnan(raw.current_A)
        status |= infinite * OVERFLOW | (unknown & ~infinite) * INVALID
    return status
