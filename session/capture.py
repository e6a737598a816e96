"""All frames around an event, few otherwise: what came before it is still in the ring."""

import dataclasses
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from session.messages import Frame
from session.records import Capture, FrameHeader

LATE_S = 0.25  # by which an event may be heard of after it happened
_RATE_MARGIN = 1.05  # a camera may be quicker than it says
_NO_STAMP = -(2**62)


def frames_held(capture: Capture, frame_rate_Hz: float) -> int:
    """Return how many frames wait in the ring for an event that may come."""
    return math.ceil((capture.before_s + LATE_S) * frame_rate_Hz * _RATE_MARGIN) + 1


@dataclass(frozen=True, slots=True)
class Leaving:
    """A frame that has waited long enough; without a header it is not stored."""

    frame: Frame
    header: FrameHeader | None


class PreTrigger:
    """Holds the newest frames of a camera, and says of each in turn whether it is stored.

    Frames from ``before_s`` before an event to ``after_s`` after it are all stored; of the
    others one now and then, at ``idle_rate_Hz``. The first one after others were left out
    counts them, apart from those that the camera lost. An event that is heard of later than
    `LATE_S` after it happened misses its first frames, and is counted.

    Parameters
    ----------
    most_held
        Slots of the ring that may be held. A camera that is quicker than it said
        has its oldest frames decided on early, and they are counted.
    """

    def __init__(self, capture: Capture, most_held: int) -> None:
        self._capture = capture
        self._hold_ns = round((capture.before_s + LATE_S) * 1e9)
        self._before_ns = round(capture.before_s * 1e9)
        self._after_ns = round(capture.after_s * 1e9)
        none = capture.idle_rate_Hz == 0
        self._idle_ns = math.inf if none else 1e9 / capture.idle_rate_Hz
        self._next_idle_ns = math.inf if none else -math.inf
        self._most_held = most_held
        self._held: deque[Frame] = deque()
        self._windows: deque[tuple[int, int]] = deque()
        self._newest_ns = self._gone_ns = _NO_STAMP
        self._left_out = self._dropped = 0
        self._counts = dict.fromkeys(("events", "late", "around", "idle", "left_out", "early"), 0)

    @property
    def counters(self) -> dict[str, int]:
        """Events, those heard of too late; frames stored around them, otherwise, left out.

        ``early`` are frames that were decided on before their time, for want of slots.
        """
        return dict(self._counts)

    def heed(self, kind: str, t_ns: int) -> None:
        """Take notice of an event; ``leaving`` then gives what it asks for."""
        if kind in self._capture.kinds:
            self._counts["events"] += 1
            self._counts["late"] += self._gone_ns >= t_ns - self._before_ns
            self._windows.append((t_ns - self._before_ns, t_ns + self._after_ns))

    def take(self, frame: Frame) -> None:
        """Hold a frame; ``leaving`` then gives those that need not wait any longer."""
        self._held.append(frame)
        self._newest_ns = max(self._newest_ns, frame.header.t_start_ns)

    def leaving(self, *, all_of_them: bool = False) -> Iterator[Leaving]:
        """Yield frames that need not wait, in the order in which they came."""
        horizon_ns = self._newest_ns - self._hold_ns
        while self._held:
            t_ns = self._held[0].header.t_start_ns
            early = len(self._held) > self._most_held
            if not (all_of_them or early or t_ns < horizon_ns or self._is_around(t_ns)):
                return
            is_old = all_of_them or t_ns < horizon_ns
            self._counts["early"] += not is_old and not self._is_around(t_ns)
            yield self._decide(self._held.popleft())

    def _is_around(self, t_ns: int) -> bool:
        return any(begin <= t_ns <= end for begin, end in self._windows)

    def _decide(self, frame: Frame) -> Leaving:
        header = frame.header
        t_ns = header.t_start_ns
        while self._windows and self._windows[0][1] < t_ns - self._before_ns:
            self._windows.popleft()
        around, idle = self._is_around(t_ns), t_ns >= self._next_idle_ns
        if not (around or idle):
            self._gone_ns = max(self._gone_ns, t_ns)
            self._counts["left_out"] += 1
            self._left_out += 1
            self._dropped += header.dropped_before
            return Leaving(frame, None)
        self._counts["around" if around else "idle"] += 1
        if idle:
            next_ns = self._next_idle_ns + self._idle_ns
            self._next_idle_ns = next_ns if next_ns > t_ns else t_ns + self._idle_ns
        left_out, dropped = self._left_out, self._dropped
        self._left_out = self._dropped = 0
        return Leaving(
            frame,
            dataclasses.replace(
                header, dropped_before=header.dropped_before + dropped, left_out=left_out
            ),
        )
