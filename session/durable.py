"""Has the disk keep what was written: what a loss of power can take is bounded in time.

A flush hands data to the operating system, which survives the death of every process of
ours but not the loss of power. So a thread asks for a sync again and again.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

SYNC_INTERVAL_S = 2.0
JOURNAL_SYNC_INTERVAL_S = 0.5


def sync_content(descriptor: int) -> None:
    """Have the disk keep what is in a file, not when it was changed last."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


class Syncer:
    """Syncs a file from a thread of its own, one sync after the other.

    Parameters
    ----------
    path
        The file; it exists.
    interval_s
        From the end of a sync to the begin of the next.
    sync
        Blocks until the disk has the file of a descriptor.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval_s: float = SYNC_INTERVAL_S,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        self.path = path
        self._interval_s = interval_s
        self._sync = sync
        self._failed: OSError | None = None
        self._ended = threading.Event()
        self._descriptor = os.open(path, os.O_RDWR)
        self._thread = threading.Thread(target=self._run, name="recorder sync", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, without one more sync; what is closed stays closed."""
        if self._descriptor >= 0:
            self._end()
            os.close(self._descriptor)
            self._descriptor = -1

    def check(self) -> None:
        """Raise the error of a sync that failed: the disk has lost what it had taken."""
        if self._failed is not None:
            raise OSError(self._failed.errno, f"sync: {self._failed.strerror}")

    def finish(self) -> None:
        """Sync once more, when all is written."""
        self._end()
        self.check()
        self._sync(self._descriptor)

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                self._sync(self._descriptor)
            except OSError as error:
                self._failed = error
                return
