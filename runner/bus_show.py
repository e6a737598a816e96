"""What a run shows over the bus: readings, headers of frames and tracks, some together."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from runner.plain import plain
from runner.tracking import Found, Seen
from session.records import FrameHeader

SAMPLES_TOGETHER = 20  # in one message: one message each would cost a third of a core
TRACKED_S = 0.25  # of frames whose tracks go into one message

Show = Callable[[str, object], None]
"""Shows a message under a topic to whoever listens; must return at once."""


class BusShow:
    """Gathers what is shown, and shows it in messages that are worth their cost."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._samples: list[NDArray[np.void]] = []
        self._tracked: list[Seen] = []

    def samples(self, rows: NDArray[np.void]) -> None:
        """Show readings, SESSION_SAMPLE_DTYPE, shape (n,)."""
        self._samples.append(rows)
        if sum(len(part) for part in self._samples) < SAMPLES_TOGETHER:
            return
        rows = np.concatenate(self._samples)
        self._samples.clear()
        finite = np.isfinite(rows["voltage"]) & np.isfinite(rows["current"])
        self._show(
            "samples",
            {name: rows[name][finite].tolist() for name in ("t_ns", "voltage", "current")},
        )

    def frame(self, stamps: FrameHeader) -> None:
        """Show the header of a frame."""
        self._show("frames", {"index": stamps.index, "t_start_ns": stamps.t_start_ns})

    def seen(self, seen: Seen) -> None:
        """Show what trackers see in a frame, as a node shows it."""
        self._tracked.append(seen)
        if (seen.t_ns - self._tracked[0].t_ns) / 1e9 >= TRACKED_S:
            self.flush()

    def flush(self) -> None:
        """Show the tracks that wait for more of them."""
        tracked, self._tracked = self._tracked, []
        for name in dict.fromkeys(name for seen in tracked for name in seen.tracks):
            rows = [(s.index, s.t_ns, s.tracks[name]) for s in tracked if name in s.tracks]
            self._show(f"tracks/{name}", _track_message(rows))


def _track_message(rows: list[tuple[int, int, Found]]) -> Mapping[str, object]:
    """Return frames' index, time and track as columns; what is no number becomes null."""
    index, t_ns, found = zip(*rows, strict=True)
    names = dict.fromkeys(name for f in found for name in f.values if name not in f.attributes)
    columns = {name: plain([f.values.get(name) for f in found]) for name in names}
    return {
        "provisional": True,
        "index": list(index),
        "t_ns": list(t_ns),
        "valid": [f.valid for f in found],
        "reason": [f.reason for f in found],
        "columns": columns,
    }
