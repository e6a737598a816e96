"""Keeps the last of the disk for readings: frames are left out first.

A frame is a thousand readings. When little is left of the disk, frames are no longer stored,
counted as lost before the next one that is, until there is room again.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

KEPT_BYTES = 256 * 2**20
KEPT_SHARE = 0.1  # of a small disk
FRAMES_ON_THEIR_WAY = 16
_LOOK_NS = 200_000_000


def free_bytes(folder: Path) -> int:
    """Return how much of a disk is free."""
    return shutil.disk_usage(folder).free


def total_bytes(folder: Path) -> int:
    """Return how large a disk is."""
    return shutil.disk_usage(folder).total


class Space:
    """Tells whether the disk has room for frames; looks at most five times a second.

    Parameters
    ----------
    folder
        On the disk.
    frame_bytes
        Of the largest frames.
    """

    def __init__(
        self,
        folder: Path,
        frame_bytes: int,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        free: Callable[[Path], int] = free_bytes,
        total: Callable[[Path], int] = total_bytes,
    ) -> None:
        self._folder = folder
        self._monotonic_ns = monotonic_ns
        self._free = free
        kept = min(KEPT_BYTES, round(KEPT_SHARE * total(folder)))
        self.floor_bytes = kept + FRAMES_ON_THEIR_WAY * frame_bytes
        self.left_bytes = free(folder)
        self._is_short = self.left_bytes < self.floor_bytes
        self._next_ns = monotonic_ns() + _LOOK_NS

    @property
    def is_short(self) -> bool:
        """True when there is no room for frames; there is again at twice the floor."""
        if (now_ns := self._monotonic_ns()) >= self._next_ns:
            self._next_ns = now_ns + _LOOK_NS
            self.left_bytes = self._free(self._folder)
            floor_bytes = self.floor_bytes * (2 if self._is_short else 1)
            self._is_short = self.left_bytes < floor_bytes
        return self._is_short
