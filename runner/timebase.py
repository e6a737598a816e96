"""The final time base of a session: fits over the whole record, from raw stamps."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.frame_samples import frame_samples
from session.editor import SessionEditor
from session.reader import Session
from session.records import AttributeValue
from session.schema import NO_STAMP
from session.tables import Table
from sync.arrivals import counted_stamps, fit_arrivals
from sync.clockfit import ClockFit, Stretch, fit_segments, granularity_ns, to_host
from sync.shutter import exposure_starts
from sync.smoother import WANDERS, smooth_clock

POTENTIOSTAT = "potentiostat"
MIN_EXCHANGES = 2
WORTH_SMOOTHING = 12  # exchanges: with fewer, wander cannot be told from noise
MIN_ARRIVALS = 5  # with fewer, their scatter tells nothing of itself
LINE, SMOOTHER, ARRIVALS = "line", "smoother", "arrivals"
FIT_COLUMNS = tuple(each.name for each in fields(ClockFit))
# Words of the session file: what a stamp marks, and on which clock.
ENDS, ARRIVED, UNKNOWN, HOST = ("exposure_end", "arrival"), "arrival", "unknown", "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedClock:
    """A clock of the session on the host's, and by which method.

    Parameters
    ----------
    stretches
        One for each stretch between steps of the clock.
    rows
        The same as straight pieces, for the file.
    notes
        Method and what decided on it, for the file.
    """

    stretches: tuple[Stretch, ...]
    rows: tuple[ClockFit, ...]
    notes: dict[str, AttributeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBase:
    """Host times of all samples and frames of a session.

    Parameters
    ----------
    t_ns, t_sigma_ns
        Middle of each sample's aperture, int64 (n_samples,), and its sigma.
    frame_start_ns, frame_sigma_ns
        Start of each exposure by camera, int64 (n_frames,), and its sigma.
    methods
        How each clock was tied to the host's: by a line, the smoother, or arrivals.
    """

    t_ns: NDArray[np.int64]
    t_sigma_ns: NDArray[np.float64]
    frame_start_ns: dict[str, NDArray[np.int64]]
    frame_sigma_ns: dict[str, NDArray[np.float64]]
    methods: dict[str, str]


def fit_time_base(path: Path) -> TimeBase:
    """Fit every clock of a session, and rewrite what hangs on them.

    Raw stamps stay as they are. A clock with fewer than two exchanges, as in an
    imported session, keeps the times that it has; but a camera's frames that came with a
    host stamp are tied to the host by the quickest of them.
    """
    with Session.open(path) as session:
        fits = _fit_clocks(session)
        t_ns, t_sigma_ns = _sample_times(session, fits.get(POTENTIOSTAT))
        frames = {camera: _frame_times(session, camera, fits) for camera in session.cameras}
        base = TimeBase(
            t_ns=t_ns,
            t_sigma_ns=t_sigma_ns,
            frame_start_ns={camera: found[0] for camera, found in frames.items()},
            frame_sigma_ns={camera: found[1] for camera, found in frames.items()},
            methods={name: str(fit.notes["method"]) for name, fit in fits.items()},
        )
        averages = {
            camera: frame_samples(session, camera, base.t_ns, base.frame_start_ns[camera])
            for camera in session.cameras
        }
    with SessionEditor.open(path) as editor:
        for name, fit in fits.items():
            editor.put_table(f"clocks/{name}/fit", _rows(fit.rows), fit.notes)
        if len(base.t_ns):
            editor.update_columns("samples", {"t_ns": base.t_ns, "t_sigma_ns": base.t_sigma_ns})
        for camera, start_ns in base.frame_start_ns.items():
            editor.update_columns(
                f"frames/{camera}",
                {"t_start_ns": start_ns, "t_sigma_ns": base.frame_sigma_ns[camera]},
            )
            editor.put_table(f"frame_samples/{camera}", averages[camera])
    return base


def _fit_clocks(session: Session) -> dict[str, FittedClock]:
    fits = {}
    for name in session.clocks:
        if not session.has(f"clocks/{name}/exchanges"):
            continue  # it was tied to the host by arrivals
        exchanges = session.clock_exchanges(name)
        if len(exchanges) >= MIN_EXCHANGES:
            fits[name] = fit_exchanges(exchanges)
    return fits


def fit_exchanges(exchanges: NDArray[np.void]) -> FittedClock:
    """Take the line where it is enough, and the smoother where the clock wanders or steps.

    What decides is how much likelier the exchanges are with a wandering clock than with a
    straight one, or that they show steps that are smaller than a reset.

    Raises
    ------
    ValueError
        Fewer than two exchanges.
    """
    lines = fit_segments(exchanges)
    notes: dict[str, AttributeValue] = {"method": LINE}
    if len(exchanges) < WORTH_SMOOTHING:
        return FittedClock(stretches=lines, rows=lines, notes=notes)
    record = smooth_clock(exchanges)
    notes |= {
        "wander_statistic": record.wander_statistic,
        "wander_threshold": WANDERS,
        "noise_ns": record.noise_ns,
        "queue_ratio": record.queue_ratio,
    }
    if not record.wanders and not record.steps:
        return FittedClock(stretches=lines, rows=lines, notes=notes)
    notes |= {"method": SMOOTHER, "wander_ns2_s3": record.wander, "together": record.together}
    rows = tuple(row for piece in record.pieces for row in piece.rows())
    return FittedClock(stretches=record.pieces, rows=rows, notes=notes)


def _sample_times(
    session: Session, fit: FittedClock | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    columns = session.sample_columns()
    t_ns, sigma_ns = columns["t_ns"], columns["t_sigma_ns"]
    if fit is None or len(t_ns) == 0:
        return t_ns, sigma_ns
    # The instrument stamps the start of its integration; the reading belongs to the
    # middle of it. A reading without a stamp keeps the host's bracket.
    stamped = np.isfinite(columns["device_time_s"])
    seconds = np.where(stamped, columns["device_time_s"], 0.0)
    device_ns = np.round(seconds * 1e9).astype(np.int64)
    start_ns, fit_sigma_ns = to_host(fit.stretches, device_ns)
    # A stamp says only in which step of the read-out the reading began.
    step_ns = granularity_ns(device_ns) * fit.rows[0].rate
    middle_ns = start_ns + np.round(columns["aperture_s"] * 0.5e9).astype(np.int64)
    fitted_sigma_ns = np.hypot(fit_sigma_ns, step_ns / np.sqrt(12.0))
    return np.where(stamped, middle_ns, t_ns), np.where(stamped, fitted_sigma_ns, sigma_ns)


def _frame_times(
    session: Session, camera: str, fits: dict[str, FittedClock]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the starts of the exposures; what they hang on is added to ``fits``."""
    table = session.frame_table(camera)
    if camera in fits and len(table["index"]):
        stamp_ns, sigma_ns = to_host(fits[camera].stretches, table["device_start_ns"])
        # A microsecond of the camera's clock is one of ours.
        marks = str(table.attributes.get("stamp", "exposure_start"))
        starts = exposure_starts(stamp_ns, table["exposure_ns"], marks)
        return starts.start_ns, np.hypot(sigma_ns, starts.sigma_ns)
    if "arrival_ns" in table:
        arrived = table["arrival_ns"] != NO_STAMP
        if int(arrived.sum()) >= MIN_ARRIVALS:
            return _times_by_arrival(table, arrived, camera, fits)
    return table["t_start_ns"], table["t_sigma_ns"]


def _times_by_arrival(
    table: Table, arrived: NDArray[np.bool_], camera: str, fits: dict[str, FittedClock]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tie frames to the host by the quickest of them; those without an arrival keep theirs."""
    t_ns, sigma_ns = table["t_start_ns"].copy(), table["t_sigma_ns"].copy()
    arrival_ns, exposure_ns = table["arrival_ns"][arrived], table["exposure_ns"][arrived]
    try:
        ends_ns, counted = _ends(table, arrived)
        record = fit_arrivals(ends_ns, arrival_ns)
    except ValueError:  # neither stamps nor counter go on: they tell nothing
        return t_ns, sigma_ns
    end_ns, end_sigma_ns = record.to_host_ns(ends_ns)
    t_ns[arrived], sigma_ns[arrived] = in_order(end_ns - exposure_ns, end_sigma_ns)
    fits[camera] = FittedClock(
        stretches=record.pieces,
        rows=record.rows(),
        notes={
            "method": ARRIVALS,
            "abscissa": "counter" if counted else "stamps",
            "wander_ns2_s3": record.wander,
            "late_median_ns": float(np.median(record.late_ns)),
            "systematic": "all times are late by the least time that a frame spends on its "
            "way, between 0 and bound_ns: arrivals cannot tell it",
        },
    )
    return t_ns, sigma_ns


def in_order(
    t_ns: NDArray[np.int64], sigma_ns: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Let no frame be earlier than the one before it, which came first.

    Where a clock stepped, the pieces on both sides may overlap by what is not known of them:
    by so much the frames that are moved are less sure.
    """
    risen_ns = np.maximum.accumulate(t_ns)
    return risen_ns, np.hypot(sigma_ns, (risen_ns - t_ns).astype(np.float64))


def _ends(table: Table, arrived: NDArray[np.bool_]) -> tuple[NDArray[np.int64], bool]:
    """Return the ends of the exposures on the camera's clock, or by its counter: then True."""
    stamps = np.asarray(table["device_start_ns"][arrived], np.int64)
    exposure_ns = np.asarray(table["exposure_ns"][arrived], np.int64)
    marks, clock = table.attributes.get("stamp"), table.attributes.get("clock")
    if clock == HOST or marks == ARRIVED or np.ptp(stamps) == 0:
        return counted_stamps(table["index"][arrived], table["arrival_ns"][arrived]), True
    return stamps if marks in (*ENDS, UNKNOWN) else stamps + exposure_ns, False


def _rows(rows: tuple[ClockFit, ...]) -> dict[str, list[float]]:
    return {name: [getattr(row, name) for row in rows] for name in FIT_COLUMNS}
