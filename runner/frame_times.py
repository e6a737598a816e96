"""Times of frames that are imported: the stamps in their files, or an interval that is told."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps
from cameras.records import StampKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """When each frame of a recording was taken.

    Parameters
    ----------
    start_ns
        Since the frame of the smallest number, int64, shape (n,).
    device_ns
        Stamps on the camera's clock, int64, shape (n,).
    exposure_ns
        Int64, shape (n,).
    sigma_ns
        Of one time against the others; NaN where nobody can say.
    rate_Hz
        Mean rate by the frames' numbers; NaN where unknown.
    kind, row_time_ns
        What a stamp marks, and by which each row is later than the row before.
    start_time
        ISO 8601 of the first stamp; empty where its zone or date is not told.
    """

    start_ns: NDArray[np.int64]
    device_ns: NDArray[np.int64]
    exposure_ns: NDArray[np.int64]
    sigma_ns: float
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
        exposure_ns=np.full(len(index), interval_ns, np.int64),
        sigma_ns=math.nan,
        rate_Hz=1 / interval_s,
        kind=StampKind.EXPOSURE_START,
        row_time_ns=0.0,
        start_time="",
        assumptions=(f"frames are {interval_s} s apart by number, and exposed all the time",),
    )


def _stamped(index: NDArray[np.int64], stamps: FrameStamps) -> FrameTimes:
    start_ns = stamps.device_ns - stamps.device_ns[int(np.argmin(index))]
    period_ns = _mean_period_ns(index, stamps.device_ns)
    said = [
        f"times are the files' own ({stamps.clock}, to {stamps.resolution_ns / 1e9:.9g} s) and "
        "count from the first frame"
    ]
    if stamps.kind is StampKind.UNKNOWN:
        said.append("what a stamp marks is not told; it is taken for the start of the exposure")
    elif stamps.kind is not StampKind.EXPOSURE_START:
        said.append(f"a stamp marks {stamps.kind.replace('_', ' ')}, not the start of the exposure")
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
    return FrameTimes(
        start_ns=start_ns,
        device_ns=stamps.device_ns,
        exposure_ns=exposure_ns,
        # Computed times are as good as a period that nobody measured.
        sigma_ns=math.nan if stamps.computed else stamps.resolution_ns / math.sqrt(12),
        rate_Hz=1e9 / period_ns if period_ns > 0 else math.nan,
        kind=stamps.kind,
        row_time_ns=stamps.row_time_ns,
        start_time=_start_time(stamps),
        assumptions=tuple(said),
    )


def _mean_period_ns(index: NDArray[np.int64], device_ns: NDArray[np.int64]) -> float:
    counts = int(index.max() - index.min())
    return float(device_ns.max() - device_ns.min()) / counts if counts else math.nan


def _start_time(stamps: FrameStamps) -> str:
    if not stamps.is_utc:
        return ""
    microseconds = int(stamps.device_ns[0]) // 1000
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
