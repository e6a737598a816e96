"""Raw numbers of an instrument to rows of readings, with flags and sigmas."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.noise import current_sigma_A, voltage_sigma_V
from potentiostat.protocol import Setpoint
from potentiostat.records import SAMPLE_DTYPE, RangeSpec, Status


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
        Host stamps around the exchange; for a block, of the whole block.
    device_time_s
        As the instrument says it; NaN where it says none.
    """

    read_start_ns: NDArray[np.int64]
    read_end_ns: NDArray[np.int64]
    voltage_V: NDArray[np.float64]
    current_A: NDArray[np.float64]
    device_time_s: NDArray[np.float64]
    compliance: NDArray[np.bool_]


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
    n = len(raw.voltage_V)
    rows = np.zeros(n, SAMPLE_DTYPE)
    for name in ("read_start_ns", "read_end_ns", "voltage_V", "current_A", "device_time_s"):
        rows[name] = getattr(raw, name)
    rows["aperture_s"] = aperture_s
    if setpoint is not None:
        rows["setpoint"], rows["range_A"] = setpoint.level, setpoint.range_A
    status = np.where(raw.read_start_ns < settled_ns, int(Status.SETTLING), 0)
    infinite = np.isinf(raw.voltage_V) | np.isinf(raw.current_A)
    unknown = np.isnan(raw.voltage_V) | np.isnan(raw.current_A)
    status |= np.where(infinite, int(Status.OVERFLOW), 0)
    status |= np.where(unknown & ~infinite, int(Status.INVALID), 0)
    status |= np.where(raw.compliance, int(Status.COMPLIANCE), 0)
    if setpoint is not None and setpoint.mode == "voltage":
        status |= int(Status.POTENTIOSTATIC)
    rows["status"] = status
    rows["voltage_sigma_V"] = voltage_sigma_V(
        noise_V_at_1_plc=noise.voltage_V, window_s=window_s, step_V=noise.voltage_step_V
    )
    own_A = noise.current_A * np.sqrt(0.02 / window_s)
    known_A = np.where(np.isfinite(raw.current_A), raw.current_A, 0.0)
    rows["current_sigma_A"] = [
        np.hypot(
            own_A,
            current_sigma_A(
                value,
                feedback_ohm=1.0 / spec.full_scale_A,
                window_s=window_s,
                resolution_A=spec.resolution_A,
            ),
        )
        for value in known_A.tolist()
    ]
    return rows
