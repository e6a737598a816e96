"""Files that hold frames each, put together to one recording."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cameras.files.counter import unroll_counter
from cameras.files.raw import frame_in
from cameras.files.recording import FrameFileError, FrameRecording, FrameStamps, LoadFrame

NO_STAMPS = "the files give no time for a frame"
NO_COUNTER = "the files carry no counter: frames are numbered as they come, without gaps"
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """The frames of one file.

    Parameters
    ----------
    load
        Reads a frame of this file by its place in it.
    counter
        As stored, int64, shape (n,); None where there is none.
    """

    path: Path
    count: int
    height: int
    width: int
    dtype: str
    load: LoadFrame
    stamps: FrameStamps | None = None
    counter: NDArray[np.int64] | None = None
    assumptions: tuple[str, ...] = ()


def natural_key(path: Path) -> tuple[str | int, ...]:
    """Return a key that sorts the numbers in a path by their value."""
    parts = _DIGITS.split(str(path))
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts))


def read_parts(paths: Sequence[Path], read_one: Callable[[Path], FilePart]) -> list[FilePart]:
    """Return the files' parts in the order of their stamps, or of the numbers in the names."""
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise FrameFileError(f"{path}: is named twice")
    return in_order([read_one(path) for path in sorted(paths, key=natural_key)])


def in_order(parts: list[FilePart]) -> list[FilePart]:
    """Return parts in the order of their stamps, where all have some."""
    if all(part.stamps is not None and not part.stamps.computed for part in parts):
        return sorted(parts, key=_first_stamp_ns)
    return parts


def _first_stamp_ns(part: FilePart) -> int:
    return 0 if part.stamps is None else int(part.stamps.device_ns[0])


def join_parts(
    parts: Sequence[FilePart], *, model: str, modulus: int | None = None
) -> FrameRecording:
    """Return one recording of the frames of all files, in the order given.

    Parameters
    ----------
    modulus
        Where the counter runs over to 0; None where that is not known.

    Raises
    ------
    FrameFileError
        Frames are not alike, only some have stamps, or stamps run backwards.
    """
    first = parts[0]
    for part in parts[1:]:
        _check_alike(part, first)
    bounds = np.cumsum([0, *(part.count for part in parts)])

    def place(number: int) -> tuple[FilePart, int]:
        which = int(np.searchsorted(bounds, number, side="right")) - 1
        return parts[which], number - int(bounds[which])

    def load(number: int, /) -> NDArray[np.generic]:
        part, own = place(number)
        return part.load(own)

    def name(number: int) -> str:
        part, own = place(number)
        return frame_in(part.path, own)

    index, said = _index(parts, int(bounds[-1]), modulus, name)
    stamps = _join_stamps(parts)
    if stamps is None:
        said.append(NO_STAMPS)
    elif not stamps.computed:
        said += _check_order(stamps.device_ns, index, name)
        said += _compare_counts(stamps, index, name)
    told = [text for part in parts for text in part.assumptions]
    return FrameRecording(
        paths=tuple(part.path for part in parts),
        index=index,
        height=first.height,
        width=first.width,
        dtype=first.dtype,
        load=load,
        stamps=stamps,
        model=model,
        assumptions=tuple(dict.fromkeys([*told, *said])),
    )


def _check_alike(part: FilePart, first: FilePart) -> None:
    if (part.height, part.width, part.dtype) != (first.height, first.width, first.dtype):
        raise FrameFileError(
            f"{part.path}: frames are {part.width} x {part.height} {part.dtype}, and those of "
            f"{first.path} are {first.width} x {first.height} {first.dtype}; the frames of a "
            "series are alike"
        )
    if (part.stamps is None) != (first.stamps is None):
        without, having = (part, first) if part.stamps is None else (first, part)
        raise FrameFileError(
            f"{without.path}: has no stamps, and {having.path} has; import them apart"
        )
    if part.stamps is None or first.stamps is None:
        return
    if (part.stamps.clock, part.stamps.kind) != (first.stamps.clock, first.stamps.kind):
        raise FrameFileError(
            f"{part.path}: is stamped by the clock {part.stamps.clock} ({part.stamps.kind}), "
            f"and {first.path} by {first.stamps.clock} ({first.stamps.kind}); import them apart"
        )
    if part.stamps.computed:
        raise FrameFileError(
            f"{part.path}: has a start and a period only, which cannot be joined to those of "
            f"{first.path}; import them apart"
        )


def _index(
    parts: Sequence[FilePart], count: int, modulus: int | None, name: Callable[[int], str]
) -> tuple[NDArray[np.int64], list[str]]:
    counters = [part.counter for part in parts if part.counter is not None]
    if len(counters) != len(parts):
        return np.arange(count, dtype=np.int64), [NO_COUNTER]
    index, restarts = unroll_counter(np.concatenate(counters), modulus)
    if len(restarts) == 0:
        return index, []
    return index, [
        f"the camera's counter starts again {len(restarts)} times, first at "
        f"{name(int(restarts[0]))}: it is taken to count on, and what was lost there is unknown"
    ]


def _join_stamps(parts: Sequence[FilePart]) -> FrameStamps | None:
    found = [part.stamps for part in parts if part.stamps is not None]
    if not found:
        return None
    exposures = [stamps.exposure_ns for stamps in found if stamps.exposure_ns is not None]
    first = found[0]
    return FrameStamps(
        raw=np.concatenate([stamps.raw for stamps in found]),
        device_ns=np.concatenate([stamps.device_ns for stamps in found]),
        exposure_ns=np.concatenate(exposures) if len(exposures) == len(found) else None,
        kind=first.kind,
        clock=first.clock,
        resolution_ns=max(stamps.resolution_ns for stamps in found),
        row_time_ns=first.row_time_ns,
        computed=first.computed,
    )


def _check_order(
    device_ns: NDArray[np.int64], index: NDArray[np.int64], name: Callable[[int], str]
) -> list[str]:
    """Refuse stamps that go back in the counter's order and in the file's."""
    order = np.argsort(index, kind="stable")
    back = np.flatnonzero(np.diff(device_ns[order]) < 0)
    if len(back) == 0:
        return []
    if np.all(np.diff(device_ns) >= 0):
        return ["stamps follow the order of the file and not that of the counter"]
    here, before = int(order[back[0] + 1]), int(order[back[0]])
    raise FrameFileError(
        f"{name(here)}: is stamped {device_ns[before] - device_ns[here]} ns before the frame "
        f"ahead of it (number {index[before]}): the clock was set back, or the file is damaged"
    )


def _compare_counts(
    stamps: FrameStamps, index: NDArray[np.int64], name: Callable[[int], str]
) -> list[str]:
    """Say where counter and stamps disagree on how many frames have passed."""
    counts, passed_ns = np.diff(index), np.diff(stamps.device_ns)
    ahead = counts > 0
    if not np.any(ahead):
        return []
    period_ns = float(np.median(passed_ns[ahead] / counts[ahead]))
    # A period of few steps of the stamps says nothing about single frames.
    if period_ns < 4 * stamps.resolution_ns:
        return []
    apart = np.abs(passed_ns / period_ns - counts) > 0.75
    odd = np.flatnonzero(apart & ahead)
    if len(odd) == 0:
        return []
    at = int(odd[0])
    return [
        f"counter and stamps disagree at {len(odd)} places, first before {name(at + 1)}: the "
        f"numbers go on by {counts[at]}, and {passed_ns[at] / period_ns:.2f} of the usual "
        "periods have passed; numbers are the counter's and times are the stamps'"
    ]
