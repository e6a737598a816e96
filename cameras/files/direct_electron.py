"""The text file that Direct Electron's server writes beside a movie: a start and a period."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cameras.files.recording import FrameFileError, FrameStamps
from cameras.files.times import seconds_to_ns
from cameras.records import StampKind

CLOCK = "recording computer UTC"
START = "Timestamp (seconds since Epoch)"
FRAME_NS = "Frame Time (nanoseconds)"
EXPOSURE_NS = "Frame Exposure Time (nanoseconds)"
RATE = "Frames Per Second"
SUM = "Autosave Movie Sum Count"
DROPPED = "Grabber Dropped Frames"
SHUTTER = "Readout - Shutter"
TOTAL = "Exposure Time (seconds)"
COUNT = "Frame Count"
APART = 1e-6  # relative, beyond which two rates disagree
_MOVIE = re.compile(r"(.+?)_movie")


def find_info(movie: Path) -> Path | None:
    """Return the ``_info.txt`` of a ``_movie.mrc``; None where there is none."""
    found = _MOVIE.fullmatch(movie.stem)
    stem = found[1] if found else ""
    # Suffix and number of a movie may stand between, as in 20241021_00405_lamella_2_movie.
    while stem:
        info = movie.with_name(f"{stem}_info.txt")
        if info.exists():
            return info
        stem = stem.rpartition("_")[0]
    return None


def read_info(path: Path, count: int) -> tuple[FrameStamps | None, list[str]]:
    """Return the times computed for ``count`` frames, and what was taken for granted.

    Raises
    ------
    FrameFileError
        A number in it is none.
    """
    told = _fields(path)
    summed = _whole(path, told, SUM) or 1
    frame_ns, said = _frame_ns(path, told)
    start_ns = _start_ns(path, told)
    dropped = _whole(path, told, DROPPED)
    if dropped:
        said.append(
            f"{path.name}: the grabber dropped {dropped} frames; where is not told, so times "
            "after them are too early"
        )
    if frame_ns is None or start_ns is None:
        return None, [*said, f"{path.name}: tells no start or no period"]
    period_ns = summed * frame_ns
    said.append(
        f"{path.name}: frames have no stamps; times are computed from the start, given to 1 s, "
        f"and {summed} x {frame_ns:.9g} ns a frame"
    )
    row_time_ns = 0.0
    if told.get(SHUTTER, "") != "Global":
        row_time_ns = float("nan")
        said.append(
            f"{path.name}: the shutter is {told.get(SHUTTER, 'not told').lower()}, and the time "
            "from row to row is not told"
        )
    exposure_ns = _whole(path, told, EXPOSURE_NS)
    whole_ns = None if not exposure_ns else round((summed - 1) * frame_ns) + exposure_ns
    numbers = np.arange(count)
    stamps = FrameStamps(
        raw=np.full(count, told[START]),
        device_ns=start_ns + np.round(numbers * period_ns).astype(np.int64),
        exposure_ns=None if whole_ns is None else np.full(count, whole_ns, np.int64),
        kind=StampKind.UNKNOWN,
        clock=CLOCK,
        resolution_ns=10**9,
        row_time_ns=row_time_ns,
        computed=True,
    )
    return stamps, said


def _fields(path: Path) -> Mapping[str, str]:
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise FrameFileError(f"{path}: cannot be read: {error}") from error
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _start_ns(path: Path, told: Mapping[str, str]) -> int | None:
    # Once more, as text: nanoseconds since 1970 are too long for a float.
    return seconds_to_ns(told[START]) if _number(path, told, START) else None


def _whole(path: Path, told: Mapping[str, str], name: str) -> int | None:
    number = _number(path, told, name)
    return None if number is None else round(number)


def _number(path: Path, told: Mapping[str, str], name: str) -> float | None:
    """Return a number that is not negative; None where it is missing or -1, not known."""
    text = told.get(name, "")
    if not text:
        return None
    try:
        found = seconds_to_ns(text) / 10**9
    except ValueError as error:
        raise FrameFileError(f"{path}: {name} is {text[:40]!r}, no number") from error
    return found if found >= 0 else None


def _frame_ns(path: Path, told: Mapping[str, str]) -> tuple[float | None, list[str]]:
    """Return the time from frame to frame before summing; the fields may disagree."""
    frame_ns, rate = _number(path, told, FRAME_NS), _number(path, told, RATE)
    by_rate_ns = 1e9 / rate if rate else None
    if not frame_ns or by_rate_ns is None:
        return frame_ns or by_rate_ns, []
    if abs(frame_ns / by_rate_ns - 1) <= APART:
        return frame_ns, []
    taken_ns, because = frame_ns, "the finer"
    total, frames = _number(path, told, TOTAL), _whole(path, told, COUNT)
    if total and frames:
        taken_ns = min((frame_ns, by_rate_ns), key=lambda ns: abs(ns - total * 1e9 / frames))
        because = f"nearer to {TOTAL} over {COUNT}"
    return taken_ns, [
        f"{path.name}: {FRAME_NS} is {frame_ns:.9g}, and {RATE} {rate:.9g} is {by_rate_ns:.9g} "
        f"ns: {(frame_ns / by_rate_ns - 1) * 1e6:.3g} ppm apart; {taken_ns:.9g} ns was taken as "
        f"{because}"
    ]
