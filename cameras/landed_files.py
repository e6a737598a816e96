"""Files that have landed: which names are meant, and what a reader makes of one file."""

import fnmatch
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cameras.files.recording import (
    GROUP,
    SUFFIXES,
    FrameFileError,
    FrameRecording,
    read_frames,
)
from cameras.records import CameraInfo, StampClock, StampKind
from cameras.wholeness import known_suffixes

COARSEST_NS = 100_000_000


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a name is meant by a pattern; capitals do not matter.

    Without a pattern, all formats are meant whose headers are understood. Names that
    begin with a dot are those of programs that copy, and of unfinished files.
    """
    if not pattern:
        suffixes = tuple(known_suffixes())
        return lambda name: not _is_hidden(name) and name.lower().endswith(suffixes)
    asked = [pattern.lower()]
    if asked[0].startswith("**/"):
        asked.append(asked[0][3:])
    return lambda name: (
        not _is_hidden(name) and any(fnmatch.fnmatchcase(name.lower(), each) for each in asked)
    )


def _is_hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")


@functools.cache
def _reader(name: str) -> Callable[[Sequence[Path]], FrameRecording] | None:
    """Return a registered reader: to look among all distributions takes longer than to read."""
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            reader: Callable[[Sequence[Path]], FrameRecording] = entry.load()
            return reader
    return None


def read_landed(path: Path) -> FrameRecording:
    """Read one file that has landed.

    Raises
    ------
    FrameFileError
        It cannot be read, whatever the reason.
    """
    suffix = path.suffix.lower().lstrip(".")
    read = _reader(SUFFIXES.get(suffix, suffix))
    try:
        # Without one, the refusal names the suffixes for which there is one.
        return read_frames([path]) if read is None else read([path])
    except FrameFileError:
        raise
    except Exception as error:
        raise FrameFileError(f"{path}: cannot be read: {error}") from error


def stamps_of(recording: FrameRecording) -> Any:
    """Return the frames' own stamps; None where the file has none, or none that help.

    A stamp to the second says less than the arrival, and one that was computed from a
    start and a period says nothing of the single frame.
    """
    stamps = getattr(recording, "stamps", None)
    if stamps is None or stamps.computed or stamps.resolution_ns > COARSEST_NS:
        return None
    return stamps


def pixels_of(path: Path, recording: FrameRecording) -> Iterator[NDArray[np.generic]]:
    """Yield the pixels of each frame.

    Raises
    ------
    FrameFileError
        They cannot be unpacked.
    """
    try:
        yield from recording.frames()
    except FrameFileError:
        raise
    except Exception as error:
        raise FrameFileError(f"{path}: is damaged: {error}") from error


def describe(
    path: Path, model: str, *, frame_rate_Hz: float = math.nan, pixel_size_m: float = math.nan
) -> CameraInfo:
    """Return what one file tells of all that will follow.

    Raises
    ------
    FrameFileError
        It cannot be read.
    """
    recording = read_landed(path)
    info = CameraInfo(
        model=model,
        height=recording.height,
        width=recording.width,
        dtype=recording.dtype,
        frame_rate_Hz=frame_rate_Hz,
        pixel_size_m=pixel_size_m,
    )
    stamps = stamps_of(recording)
    if stamps is None:
        # When it landed is all that is known, and nothing of its shutter.
        return replace(info, stamp=StampKind.ARRIVAL, clock=StampClock.HOST, row_time_ns=math.nan)
    return replace(info, stamp=stamps.kind, clock=StampClock.CAMERA, row_time_ns=stamps.row_time_ns)
