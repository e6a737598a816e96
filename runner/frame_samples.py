"""What the instrument read while each frame was exposed."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from potentiostat.records import Status
from session.reader import Session
from sync.align import (
    average_over_exposures,
    average_with_delays,
    cumulative_charge,
    thinned_intervals,
)
from sync.shutter import frame_windows

INSTRUMENT = "instrument/potentiostat"
Columns = Mapping[str, NDArray[np.generic]]


def frame_samples(
    session: Session, camera: str, t_ns: NDArray[np.int64], start_ns: NDArray[np.int64]
) -> dict[str, NDArray[np.generic]]:
    """Return voltage and current over each exposure, and the charge since the last one.

    With a rolling shutter, a frame lasts from its first row to the end of its last. Voltage
    and current count when they were integrated, and a current that is measured, not sourced,
    before the group delay of its range.

    Parameters
    ----------
    t_ns
        Middle of each sample's aperture, host clock.
    start_ns
        Start of each exposure, host clock, shape (n,).
    """
    table = session.frame_table(camera)
    row_time_ns = float(str(table.attributes.get("row_time", 0.0)))
    rows = session.frames(camera).shape[1]
    start_ns, stop_ns = frame_windows(
        start_ns, table["exposure_ns"], row_time_ns=row_time_ns, rows=rows
    )
    return samples_over(session, t_ns, start_ns, stop_ns)


def samples_over(
    session: Session,
    t_ns: NDArray[np.int64],
    start_ns: NDArray[np.int64],
    stop_ns: NDArray[np.int64],
) -> dict[str, NDArray[np.generic]]:
    """Return the same from the first to the last moment of each frame, shape (n,)."""
    columns = session.sample_columns()
    # A value stands for its whole reading, as nothing else tells of that time, but about the
    # middle of its own aperture.
    aperture_ns = np.round(columns["aperture_s"] * 1e9).astype(np.int64)
    voltage_ns, current_ns = (
        t_ns + aperture_offset_ns(session, name) for name in ("voltage", "current")
    )
    voltage = average_over_exposures(voltage_ns, aperture_ns, columns["voltage"], start_ns, stop_ns)
    delay_ns = current_delay_ns(session)
    current = average_with_delays(
        current_ns, aperture_ns, columns["current"], delay_ns, start_ns, stop_ns
    )
    middle_ns = start_ns + (stop_ns - start_ns) // 2
    return {
        "t_ns": middle_ns,
        "voltage_mean": voltage.mean,
        "voltage_std": voltage.std,
        "current_mean": current.mean,
        "current_std": current.std,
        "count": current.count,
        "coverage": current.coverage,
        "charge_since_last": _charge_since_last(current_ns, columns, middle_ns),
    }


def aperture_offset_ns(session: Session, name: str) -> NDArray[np.int64]:
    """Return the middle of the ``voltage``'s or the ``current``'s own aperture in each reading.

    From the middle of the reading, which its stamp means; int64, shape (n_samples,). 0 where
    the order within a reading is not known, and in a session that does not tell it.
    """
    columns = session.sample_columns()
    attributes = session.attributes(INSTRUMENT) if session.has(INSTRUMENT) else {}
    told = attributes.get(f"{name}_aperture_offset_ratio")
    if told is None:
        return np.zeros(len(columns["t_ns"]), np.int64)
    of_held_A, of_held_V = (float(share) for share in np.asarray(told, np.float64))
    share = np.where(_holds_voltage(columns), of_held_V, of_held_A)
    whole_ns = np.asarray(columns["aperture_s"], np.float64) * 1e9
    return np.asarray(np.round(share * whole_ns), dtype=np.int64)


def _holds_voltage(columns: Columns) -> NDArray[np.bool_]:
    status = np.asarray(columns["status"], np.uint32)
    return np.asarray((status & Status.POTENTIOSTATIC.value) != 0)


def current_delay_ns(session: Session) -> NDArray[np.int64]:
    """Return by how much each reading of the current lags the current, int64 (n_samples,).

    It is the group delay of the range where a voltage is held, as the data sheet's
    settling gives it, which is a limit; and 0 where the instrument sources the current
    and so knows it, and in a session that names no delays.
    """
    columns = session.sample_columns()
    delay_s = np.zeros(len(columns["t_ns"]))
    attributes = session.attributes(INSTRUMENT) if session.has(INSTRUMENT) else {}
    known_s = attributes.get("range_group_delay_s")
    if known_s is not None and len(delay_s):
        full_A = np.atleast_1d(np.asarray(attributes["range_full_scale_A"], np.float64))
        of_range_s = np.atleast_1d(np.asarray(known_s, np.float64))
        range_A = np.nan_to_num(np.asarray(columns["range"], np.float64))
        nearest = np.argmin(np.abs(range_A[:, None] - full_A[None, :]), axis=1)
        delay_s = np.where(_holds_voltage(columns), of_range_s[nearest], 0.0)
    return np.asarray(np.round(delay_s * 1e9), dtype=np.int64)


def _charge_since_last(
    t_ns: NDArray[np.int64],
    columns: Columns,
    middle_ns: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Charge between the middles of neighbouring frames; NaN where no sample reaches."""
    charge = np.full(len(middle_ns), np.nan)
    if len(t_ns) < 2 or len(middle_ns) == 0:
        return charge
    reference_ns = t_ns[0]
    total_C = cumulative_charge(
        t_ns,
        np.asarray(columns["current"], np.float64),
        counted_C=np.asarray(columns["charge"], np.float64),
        thinned=thinned_of(columns),
    )
    at_frame_C = np.interp(
        (middle_ns - reference_ns).astype(np.float64),
        (t_ns - reference_ns).astype(np.float64),
        total_C,
        left=np.nan,
        right=np.nan,
    )
    charge[1:] = np.diff(at_frame_C)
    return charge


def thinned_of(columns: Columns) -> NDArray[np.bool_] | None:
    """Tell before which samples readings were not stored; None for a session that has all."""
    if "averaged" not in columns or "left_out" not in columns:
        return None
    thinned = thinned_intervals(columns["averaged"], columns["left_out"])
    return thinned if np.any(thinned) else None
