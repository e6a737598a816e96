"""Frames that another program stored, their stamps, and the readers that are registered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cameras.records import StampKind

GROUP = "lamella.frame_files"
UTC_CLOCK = "UTC"


class FrameFileError(ValueError):
    """Frame files are not what they should be; names the odd one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStamps:
    """When each frame was taken, as its file says it.

    Parameters
    ----------
    raw
        As read: text, or int64; shape (n,), or (n, k) where a stamp has k fields.
    device_ns
        The same in integer nanoseconds on that clock, int64, shape (n,): since 1970 for
        clocks that tell the date.
    exposure_ns
        Length of each exposure, int64, shape (n,); None where the file gives none.
    kind
        What a stamp marks; unknown where the maker does not say.
    clock
        Whose clock and which time zone, such as ``"camera UTC"``.
    resolution_ns
        Step in which stamps are written.
    row_time_ns
        By which each row is exposed later than the row before; 0 where all rows are
        exposed at once, NaN where unknown.
    computed
        True where the file has a start and a period, but no stamp for a frame.
    """

    raw: NDArray[Any]
    device_ns: NDArray[np.int64]
    exposure_ns: NDArray[np.int64] | None
    kind: StampKind
    clock: str
    resolution_ns: int
    row_time_ns: float = 0.0
    computed: bool = False

    @property
    def is_utc(self) -> bool:
        """True where the stamps count from 1970 UTC."""
        return self.clock.endswith(UTC_CLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRecording:
    """A series of frames, read one by one.

    Parameters
    ----------
    paths
        The files, in order; one may hold many frames.
    index
        The camera's own number of each frame, int64, shape (n,): a jump is a gap.
    height, width, dtype
        Of every frame.
    load
        Reads the pixels of one frame by its place in the series.
    stamps
        When each frame was taken; None where the files do not say.
    model
        Kind of file, or the camera where the file names it.
    assumptions
        What the reader took for granted, one sentence each.
    """

    paths: tuple[Path, ...]
    index: NDArray[np.int64]
    height: int
    width: int
    dtype: str
    load: "LoadFrame"
    stamps: FrameStamps | None = None
    model: str = "imported images"
    assumptions: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.index)

    def frames(self) -> Iterator[NDArray[np.generic]]:
        """Yield each frame, shape (height, width)."""
        for number in range(len(self)):
            yield self.load(number)


class LoadFrame(Protocol):
    """Reads the pixels of one frame."""

    def __call__(self, number: int, /) -> NDArray[np.generic]:
        """Return frame ``number``, counting from 0, shape (height, width)."""
        ...


SUFFIXES = {
    "png": "image",
    "tif": "tiff",
    "tiff": "tiff",
    "dm3": "dm",
    "dm4": "dm",
    "mrc": "mrc",
    "mrcs": "mrc",
}


def read_frames(paths: Sequence[Path]) -> FrameRecording:
    """Read a series of frame files with the reader of their suffix.

    Raises
    ------
    FrameFileError
        No reader knows the suffix, or the files do not make one series.
    """
    if not paths:
        raise FrameFileError("no frame file is named")
    readers: dict[str, Any] = {e.name: e for e in entry_points(group=GROUP)}
    suffix = paths[0].suffix.lower().lstrip(".")
    name = SUFFIXES.get(suffix, suffix)
    if name not in readers:
        names = [*SUFFIXES, *sorted({*readers} - {*SUFFIXES.values()})]
        known = ", ".join(f".{s}" for s in names)
        raise FrameFileError(f"{paths[0]}: no reader for .{suffix} files; there is {known}")
    recording: FrameRecording = readers[name].load()(paths)
    return recording
