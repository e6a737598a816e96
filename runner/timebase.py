"""The final time base of a session: fits over the whole record, from raw stamps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from session.editor import SessionEditor
from session.reader import Session
from sync.align import average_over_exposures, cumulative_charge, thinned_intervals
from sync.clockfit import ClockFit, fit_segments, granularity_ns, to_host

POTENTIOSTAT = "potentiostat"
MIN_EXCHANGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBase:
    """Host times of all samples and frames of a session.

    Parameters
    ----------
    t_ns, t_sigma_ns
        Middle of each sample's aperture, int64 (n_samples,), and its sigma.
    frame_start_ns, frame_sigma_ns
        Start of each exposure by camera, int64 (n_frames,), and its sigma.
    """

    t_ns: NDArray[np.int64]
    t_sigma_ns: NDArray[np.float64]
    frame_start_ns: dict[str, NDArray[np.int64]]
    frame_sigma_ns: dict[str, NDArray[np.float64]]


def fit_time_base(path: Path) -> TimeBase:
    """Fit every clock of a session, and rewrite what hangs on them.

    Raw stamps stay as they are. A clock with fewer than two exchanges, as in an
    imported session, keeps the times that it has.
    """
    with Session.open(path) as session:
        fits = _fit_clocks(session)
        t_ns, t_sigma_ns = _sample_times(session, fits.get(POTENTIOSTAT, ()))
        frames = {camera: _frame_times(session, camera, fits) for camera in session.cameras}
        base = TimeBase(
            t_ns=t_ns,
            t_sigma_ns=t_sigma_ns,
            frame_start_ns={camera: found[0] for camera, found in frames.items()},
            frame_sigma_ns={camera: found[1] for camera, found in frames.items()},
        )
        averages = {camera: _frame_samples(session, camera, base) for camera in session.cameras}
    with SessionEditor.open(path) as editor:
        for name, segments in fits.items():
            editor.put_table(f"clocks/{name}/fit", _rows(segments))
        if len(base.t_ns):
            editor.update_columns("samples", {"t_ns": base.t_ns, "t_sigma_ns": base.t_sigma_ns})
        for camera, start_ns in base.frame_start_ns.items():
            editor.update_columns(
                f"frames/{camera}",
                {"t_start_ns": start_ns, "t_sigma_ns": base.frame_sigma_ns[camera]},
            )
            editor.put_table(f"frame_samples/{camera}", averages[camera])
    return base


def _fit_clocks(session: Session) -> dict[str, tuple[ClockFit, ...]]:
    fits = {}
    for name in session.clocks:
        exchanges = session.clock_exchanges(name)
        if len(exchanges) >= MIN_EXCHANGES:
            fits[name] = fit_segments(exchanges)
    return fits


def _sample_times(
    session: Session, fits: tuple[ClockFit, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    columns = session.sample_columns()
    t_ns, sigma_ns = columns["t_ns"], columns["t_sigma_ns"]
    if not fits or len(t_ns) == 0:
        return t_ns, sigma_ns
    # The instrument stamps the start of its integration; the reading belongs to the
    # middle of it. A reading without a stamp keeps the host's bracket.
    stamped = np.isfinite(columns["device_time_s"])
    seconds = np.where(stamped, columns["device_time_s"], 0.0)
    device_ns = np.round(seconds * 1e9).astype(np.int64)
    start_ns, fit_sigma_ns = to_host(fits, device_ns)
    # A stamp says only in which step of the read-out the reading began.
    step_ns = granularity_ns(device_ns) * fits[0].rate
    middle_ns = start_ns + np.round(columns["aperture_s"] * 0.5e9).astype(np.int64)
    fitted_sigma_ns = np.hypot(fit_sigma_ns, step_ns / np.sqrt(12.0))
    return np.where(stamped, middle_ns, t_ns), np.where(stamped, fitted_sigma_ns, sigma_ns)


def _frame_times(
    session: Session, camera: str, fits: dict[str, tuple[ClockFit, ...]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    table = session.frame_table(camera)
    if camera in fits and len(table["index"]):
        return to_host(fits[camera], table["device_start_ns"])
    return table["t_start_ns"], table["t_sigma_ns"]


def _frame_samples(session: Session, camera: str, base: TimeBase) -> dict[str, NDArray[np.generic]]:
    """Voltage and current over each exposure, and the charge since the last one."""
    start_ns = base.frame_start_ns[camera]
    stop_ns = start_ns + session.frame_table(camera)["exposure_ns"]
    columns = session.sample_columns()
    aperture_ns = np.round(columns["aperture_s"] * 1e9).astype(np.int64)
    means = {
        name: average_over_exposures(base.t_ns, aperture_ns, columns[name], start_ns, stop_ns)
        for name in ("voltage", "current")
    }
    middle_ns = start_ns + (stop_ns - start_ns) // 2
    return {
        "t_ns": middle_ns,
        "voltage_mean": means["voltage"].mean,
        "voltage_std": means["voltage"].std,
        "current_mean": means["current"].mean,
        "current_std": means["current"].std,
        "count": means["current"].count,
        "coverage": means["current"].coverage,
        "charge_since_last": _charge_since_last(base.t_ns, columns, middle_ns),
    }


def _charge_since_last(
    t_ns: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.generic]],
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


def thinned_of(columns: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_] | None:
    """Tell before which samples readings were not stored; None for a session that has all."""
    if "averaged" not in columns or "left_out" not in columns:
        return None
    thinned = thinned_intervals(columns["averaged"], columns["left_out"])
    return thinned if np.any(thinned) else None


def _rows(segments: tuple[ClockFit, ...]) -> dict[str, list[float]]:
    names = (
        "reference_device_ns",
        "reference_host_ns",
        "rate",
        "rate_sigma",
        "offset_sigma_ns",
        "covariance_ns",
        "bound_ns",
        "valid_from_ns",
        "valid_to_ns",
    )
    return {name: [getattr(segment, name) for segment in segments] for name in names}
