"""Times of frames that are imported: the stamps in their files, or an interval that is told."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.records import StampKind
from runner.timebase import in_order
from sync.shutter import Starts, exposure_starts


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """When each frame of a recording was taken.

    Parameters
    ----------
    start_ns
        Start of each exposure, since that of the frame of the smallest number, int64,
        shape (n,).
    device_ns
        Stamps on the camera's clock, int64, shape (n,).
    origin_ns
        Where ``start_ns`` is 0 on that clock; None where the files have no stamps.
    exposure_ns
        Int64, shape (n,).
    sigma_ns
        Of each start, on the clock of the stamps, shape (n,); NaN where nobody can say.
    rate_Hz
        Mean rate by the frames' numbers; NaN where unknown.
    kind, row_time_ns
        What a stamp marks, and by which each row is later than the row before.
    start_time
        ISO 8601 of the first start; empty where its zone or date is not told.
    """

    start_ns: NDArray[np.int64]
    device_ns: NDArray[np.int64]
    origin_ns: int | None
    exposure_ns: NDArray[np.int64]
    sigma_ns: NDArray[np.float64]
    rate_Hz: float
    kind: StampKind
    row_time_ns: float
    start_time: str
    assumptions: tuple[str, ...]


def time_frames(series: FrameRecording, interval_s: float | None) -> FrameTimes:
    """Return the times of a recording's frames.

    Parameters
    ----------
    interval_s
        Time from frame to frame; wanted where the files have no stamps, and only there.

    Raises
    ------
    FrameFileError
        It is missing, or the files have stamps of their own.
    """
    if series.stamps is not None:
        if interval_s is not None:
            raise FrameFileError(
                f"{series.paths[0]}: has times of its own ({series.stamps.clock}, to "
                f"{series.stamps.resolution_ns / 1e9:.9g} s); leave --frame-interval out"
            )
        return _stamped(series.index, series.stamps)
    if not (interval_s and interval_s > 0):
        raise FrameFileError(
            f"{series.paths[0]}: images carry no times; say how far apart they are, such "
            'as --frame-interval "1 s"'
        )
    return _told(series.index, interval_s)


def _told(index: NDArray[np.int64], interval_s: float) -> FrameTimes:
    interval_ns = round(interval_s * 1e9)
    start_ns = (index - index.min()) * interval_ns
    return FrameTimes(
        start_ns=start_ns,
        device_ns=start_ns,
        origin_ns=None,
        exposure_ns=np.full(len(index), interval_ns, np.int64),
        sigma_ns=np.full(len(index), math.nan),
        rate_Hz=1 / interval_s,
        kind=StampKind.EXPOSURE_START,
        row_time_ns=0.0,
        start_time="",
        assumptions=(f"frames are {interval_s} s apart by number, and exposed all the time",),
    )


def _stamped(index: NDArray[np.int64], stamps: FrameStamps) -> FrameTimes:
    period_ns = _mean_period_ns(index, stamps.device_ns)
    said = [
        f"times are the files' own ({stamps.clock}, to {stamps.resolution_ns / 1e9:.9g} s) and "
        "count from the first frame"
    ]
    exposure_ns = stamps.exposure_ns
    if exposure_ns is None:
        mean_ns = round(period_ns) if period_ns > 0 else 0
        exposure_ns = np.full(len(index), mean_ns, np.int64)
        said.append(
            "exposures are not told; frames are taken as exposed all the time, "
            f"{mean_ns / 1e9:.9g} s in the mean"
            if mean_ns
            else "exposures are not told and cannot be had from the stamps: 0 is stored"
        )
    starts = exposure_starts(stamps.device_ns, exposure_ns, stamps.kind.value)
    said += _said_of(stamps.kind)
    start_ns, sigma_ns = _in_counter_order(index, stamps, starts)
    first = int(np.argmin(index))
    return FrameTimes(
        start_ns=start_ns - start_ns[first],
        device_ns=stamps.device_ns,
        origin_ns=int(start_ns[first]),
        exposure_ns=exposure_ns,
        sigma_ns=sigma_ns,
        rate_Hz=1e9 / period_ns if period_ns > 0 else math.nan,
        kind=stamps.kind,
        row_time_ns=stamps.row_time_ns,
        start_time=_start_time(stamps, int(start_ns[first])),
        assumptions=tuple(said),
    )


def _said_of(kind: StampKind) -> list[str]:
    match kind:
        case StampKind.EXPOSURE_START:
            return []
        case StampKind.EXPOSURE_END:
            return ["a stamp marks the end of the exposure: starts are earlier by the exposure"]
        case StampKind.ARRIVAL:
            return [
                "a stamp marks the arrival of the frame: exposures began earlier by the exposure, "
                "and by a time on the way that nobody knows"
            ]
    return [
        "what a stamp marks is not told: starts are earlier by half of the exposure, as if it "
        "lay anywhere in it, and as unsure"
    ]


def _in_counter_order(
    index: NDArray[np.int64], stamps: FrameStamps, starts: Starts
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return starts and their sigmas; no start is before that of an earlier frame.

    A stamp that may lie anywhere in a long exposure must not move its frame before others.
    """
    start_ns = starts.start_ns.copy()
    # Computed times are as good as a period that nobody measured, and nobody knows how long
    # a frame was on its way.
    unknown = stamps.computed or not np.all(np.isfinite(starts.bound_ns))
    read_ns = math.nan if unknown else stamps.resolution_ns / math.sqrt(12)
    sigma_ns = np.hypot(starts.sigma_ns, read_ns)
    order = np.argsort(index, kind="stable")
    if np.all(np.diff(stamps.device_ns[order]) >= 0):
        start_ns[order], sigma_ns[order] = in_order(start_ns[order], sigma_ns[order])
    return start_ns, sigma_ns


def _mean_period_ns(index: NDArray[np.int64], device_ns: NDArray[np.int64]) -> float:
    counts = int(index.max() - index.min())
    return float(device_ns.max() - device_ns.min()) / counts if counts else math.nan


def _start_time(stamps: FrameStamps, first_ns: int) -> str:
    if not stamps.is_utc:
        return ""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first_ns // 1000)).isoformat()
