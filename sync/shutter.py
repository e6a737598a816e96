"""When a frame was exposed: from what its stamp marks, and from how its shutter moves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sync.align import ExposureMeans, average_over_exposures

Stamps = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Start of each exposure of the first row, and what the kind of stamp leaves open.

    Parameters
    ----------
    start_ns
        Shape (n,), on the clock of the stamps.
    sigma_ns, bound_ns
        Standard uncertainty, and the largest error, shape (n,).
    """

    start_ns: Stamps
    sigma_ns: Floats
    bound_ns: Floats


def exposure_starts(stamp_ns: Stamps, exposure_ns: Stamps, marks: str) -> Starts:
    """Return when exposures began, by what their stamps mark.

    Parameters
    ----------
    stamp_ns, exposure_ns
        Shape (n,).
    marks
        ``"exposure_start"`` or ``"exposure_end"``; ``"arrival"``, which comes after the
        end by nobody knows how much, so that its start is the latest possible one; or
        ``"unknown"``: anywhere from the start to the end of the exposure, all alike.

    Raises
    ------
    ValueError
        There is no such kind of stamp.
    """
    nothing = np.zeros(len(stamp_ns))
    match marks:
        case "exposure_start":
            return Starts(start_ns=stamp_ns, sigma_ns=nothing, bound_ns=nothing)
        case "exposure_end":
            return Starts(start_ns=stamp_ns - exposure_ns, sigma_ns=nothing, bound_ns=nothing)
        case "arrival":
            endless = np.full(len(stamp_ns), np.inf)
            return Starts(start_ns=stamp_ns - exposure_ns, sigma_ns=nothing, bound_ns=endless)
        case "unknown":
            return Starts(
                start_ns=stamp_ns - exposure_ns // 2,
                sigma_ns=exposure_ns / np.sqrt(12.0),
                bound_ns=exposure_ns / 2.0,
            )
    raise ValueError(
        f"stamps that mark {marks!r}; known are exposure_start, exposure_end, arrival, unknown"
    )


def row_delays(row_time_ns: float, rows: int) -> Stamps:
    """Return by how much each row is exposed later than the first one to be, shape (rows,).

    Parameters
    ----------
    row_time_ns
        From row to row; negative from the bottom up, 0 or NaN for all rows at once.
    """
    if not np.isfinite(row_time_ns):
        return np.zeros(rows, np.int64)
    delays = np.round(np.arange(rows) * row_time_ns)
    return np.asarray(delays - delays.min(), dtype=np.int64)


def frame_windows(
    start_ns: Stamps, exposure_ns: Stamps, *, row_time_ns: float, rows: int
) -> tuple[Stamps, Stamps]:
    """Return from when to when any row of each frame was exposed, shape (n,) each."""
    last = int(row_delays(row_time_ns, rows).max(initial=0))
    return start_ns, start_ns + exposure_ns + last


def average_over_rows(
    t_mid_ns: Stamps,
    aperture_ns: Stamps,
    value: Floats,
    start_ns: Stamps,
    exposure_ns: Stamps,
    *,
    row_time_ns: float,
    rows: int,
) -> ExposureMeans:
    """Average samples over the exposure of each row of each frame; all of shape (n, rows).

    Parameters
    ----------
    t_mid_ns, aperture_ns, value
        Samples, as in `average_over_exposures`.
    start_ns, exposure_ns
        Of the frames, shape (n,); the start is that of the row which is exposed first.
    row_time_ns, rows
        As in `row_delays`.
    """
    starts = (start_ns[:, None] + row_delays(row_time_ns, rows)[None, :]).ravel()
    stops = starts + np.repeat(exposure_ns, rows)
    order = np.argsort(starts, kind="stable")
    found = average_over_exposures(t_mid_ns, aperture_ns, value, starts[order], stops[order])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    shape = (len(start_ns), rows)
    return ExposureMeans(
        mean=found.mean[back].reshape(shape),
        std=found.std[back].reshape(shape),
        count=found.count[back].reshape(shape),
        coverage=found.coverage[back].reshape(shape),
    )
