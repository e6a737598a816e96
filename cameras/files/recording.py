"""Frames that another program stored, and the readers that are registered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

GROUP = "lamella.frame_files"


class FrameFileError(ValueError):
    """Frame files are not what they should be; names the odd one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRecording:
    """A series of frames, read one by one.

    Parameters
    ----------
    paths
        One file for each frame, in order.
    index
        Number of each frame, int64, shape (n,): a jump is a gap.
    height, width, dtype
        Of every frame.
    assumptions
        What the reader took for granted, one sentence each.
    """

    paths: tuple[Path, ...]
    index: NDArray[np.int64]
    height: int
    width: int
    dtype: str
    load: "LoadFrame"
    assumptions: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.paths)

    def frames(self) -> Iterator[NDArray[np.generic]]:
        """Yield each frame, shape (height, width)."""
        for path in self.paths:
            yield self.load(path)


class LoadFrame(Protocol):
    """Reads the pixels of one file."""

    def __call__(self, path: Path) -> NDArray[np.generic]:
        """Return them, shape (height, width)."""
        ...


SUFFIXES = {"png": "image", "tif": "image", "tiff": "image"}


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
        known = ", ".join(f".{s}" for s in sorted({*SUFFIXES, *readers} - {"image"}))
        raise FrameFileError(f"{paths[0]}: no reader for .{suffix} files; there is {known}")
    recording: FrameRecording = readers[name].load()(paths)
    return recording
