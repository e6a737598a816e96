"""What is left to write to when the session file has failed: the journal."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused
from session.journal import Journal
from session.records import AttributeValue
from session.writer import FLUSH_INTERVAL_NS, SessionWriter


class JournalAlone:
    """Takes the place of a `SessionWriter` whose file failed; it stores no frames.

    Parameters
    ----------
    failed
        The writer that is given up; it is not called any more.
    """

    def __init__(
        self,
        failed: SessionWriter,
        journal: Journal,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.path = failed.path
        # Kept, since HDF5 would write on, and cut the file, as its last handle goes.
        self._failed = failed
        self.last_t_ns = failed.last_t_ns
        self.sample_count = failed.sample_count
        self._frames = failed.frame_counts()
        self._journal = journal
        self._monotonic_ns = monotonic_ns
        self._last_flush_ns = 0

    def frame_count(self, camera: str) -> int:
        """Return the number of frames that were stored while there was a file."""
        return self._frames[camera]

    def append_samples(self, rows: NDArray[np.void]) -> None:
        """Append readings, shape (n,)."""
        self._journal.add({"kind": "samples"}, rows)
        self.sample_count += len(rows)
        if len(rows):
            self._note(int(rows["t_ns"][-1]))

    def append_event(
        self, t_ns: int, kind: str, source: str, message: str, data_json: str = "{}"
    ) -> None:
        """Append an event."""
        row = (t_ns, kind, source, message.replace("\0", ""), data_json)
        self._journal.add({"kind": "event", "row": row})
        self._note(t_ns)

    def append_exchanges(self, clock: str, rows: NDArray[np.void]) -> None:
        """Append exchanges with a clock, shape (n,)."""
        self._journal.add({"kind": "exchanges", "clock": clock}, rows)

    def append_temperatures(self, rows: NDArray[np.void]) -> None:
        """Append what a thermometer said."""
        self._journal.add({"kind": "temperature"}, rows)

    def set_queue_counters(self, queue: str, counters: Mapping[str, int]) -> None:
        """Store the counters of a bounded queue."""
        self._journal.add({"kind": "queue", "queue": queue, "counters": dict(counters)})

    def put_attributes(self, path: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Store attributes."""
        self._journal.add({"kind": "attributes", "path": path, "attributes": dict(attributes)})

    def begin_frame(self, camera: str, *_: object) -> None:
        """Refuse a frame: whoever knows that the file failed leaves them out."""
        raise SessionRefused(f"{self.path} takes no frames of {camera} any more")

    def collect_frames(self, camera: str, *, wait: bool = False) -> int:
        """Return 0: no frame is on its way."""
        return 0

    def seconds_until_flush(self) -> float:
        """Return the real time until a flush is due, at least 0."""
        elapsed_ns = self._monotonic_ns() - self._last_flush_ns
        return max(0.0, (FLUSH_INTERVAL_NS - elapsed_ns) * 1e-9)

    def flush_if_due(self) -> None:
        """Flush when the last time was long enough ago."""
        if self.seconds_until_flush() == 0.0:
            self.flush()

    def flush(self) -> None:
        """Hand all that was appended to the operating system.

        Raises
        ------
        JournalFailed
            It does not take it.
        """
        self._journal.write()
        self._last_flush_ns = self._monotonic_ns()

    def finish(self, exit_reason: str, end_time: str) -> None:
        """Say why and when it ended, and have the disk keep the journal."""
        self._journal.add({"kind": "end", "exit_reason": exit_reason, "end_time": end_time})
        self._journal.write()
        self._journal.sync()

    def _note(self, t_ns: int) -> None:
        self.last_t_ns = max(self.last_t_ns, t_ns)
