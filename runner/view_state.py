"""What a live view knows of a run, and what of it each viewer has not seen yet.

Nothing waits in a queue: a viewer has a place in what the run told, and a slow one is given
what it missed from here, thinned, or the newest frame alone.
"""

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from runner.control import Control
from runner.live_state import LiveState
from runner.plain import plain
from runner.tracking import Seen
from runner.view_frames import Painter, Picture, frame_message
from runner.view_marks import marks, track_lines
from runner.view_traces import (
    MOST_AT_ONCE,
    MOST_MISSED,
    Kind,
    Rows,
    Traces,
    at_most,
    trace_message,
)
from session.messages import Event
from session.records import FrameHeader

TICK_S = 0.04
FRAME_S, IDLE_FRAME_S = 0.1, 1.0  # between pictures, with viewers and without
STATUS_S = 0.2
MOST_EVENTS = 300
MOST_ANSWERS = 32
LONGEST_LINE = 2_000  # characters of an event in the list
UNLISTED = ("remote_frames", "remote_track")

Message = str | bytes


@dataclass(slots=True)
class Viewer:
    """What one page has been sent."""

    may_command: bool
    rows: int = -1  # so many of all; none were sent while it is negative
    events: int = 0
    frame: int = 0
    status: int = -1
    answers: deque[str] = field(default_factory=deque)
    skipped_frames: int = 0


def as_json(message: Mapping[str, object]) -> str:
    """Return a message as JSON; a number that is none becomes null."""
    return json.dumps(plain(message), allow_nan=False)


class ViewState:
    """An `Audience` that remembers; on the event loop of the run, but for the pictures.

    Parameters
    ----------
    title
        Of the experiment.
    control
        Whose pauses and wishes are shown.
    facts
        What does not change, such as limits and the size of a pixel.
    now_s
        Real time: however fast the run goes, a page is told so often and no more.
    """

    def __init__(
        self,
        title: str,
        control: Control,
        *,
        facts: Mapping[str, object] | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._facts = dict(facts or {})
        self._control = control
        size_m = self._facts.get("pixel_m")
        self._pixel_m = float(size_m) if isinstance(size_m, int | float) else math.nan
        self._now_s = now_s
        self._run = LiveState(steps=0)
        self._start_ns = 0
        self._stage = "starting"
        self._ended = ""
        self._ionic_C = math.nan
        self._read_s = math.nan  # when the last readings came
        self._traces = Traces()
        self._events: deque[tuple[int, str]] = deque(maxlen=MOST_EVENTS)
        self._told = 0
        self._remote: dict[str, str] = {}
        self._seen: Seen | None = None
        self._is_closed = False
        self._frame: tuple[int, bytes] = (0, b"")
        self._frame_due_s = -math.inf
        self._painter = Painter()
        self._painting = False
        self._pool = ThreadPoolExecutor(1, "runner.view")
        self._status: tuple[int, str] = (0, "")
        self._status_due_s = -math.inf
        self._block: tuple[int, int, bytes] = (0, 0, b"")  # encoded once, for all who keep up
        self.viewers: list[Viewer] = []
        self.counters = {"frames": 0, "frames_skipped": 0, "commands": 0, "commands_refused": 0}

    def close(self) -> None:
        """Paint no more."""
        self._is_closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- what the run tells --------------------------------------------------------------

    def begin(self, state: LiveState, start_ns: int) -> None:
        """Take the state, which the run goes on to write."""
        self._run, self._start_ns = state, start_ns

    def readings(self, rows: NDArray[np.void], ionic_C: NDArray[np.float64] | None) -> None:
        """See readings, SESSION_SAMPLE_DTYPE, shape (n,)."""
        if not len(rows):
            return
        new = np.empty((len(rows), 5))
        new[:, 0] = (rows["t_ns"] - self._start_ns) / 1e9
        for column, name in enumerate(("voltage", "current", "charge"), start=1):
            new[:, column] = rows[name]
        new[:, 4] = math.nan if ionic_C is None else ionic_C
        self._traces.add(new)
        self._ionic_C = float(new[-1, 4])
        self._read_s = self._now_s()

    def frame(self, stamps: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """See a frame; one that comes while another is painted is not shown."""
        now_s = self._now_s()
        if self._is_closed or self._painting or now_s < self._frame_due_s:
            return
        every_s = FRAME_S if self.viewers else IDLE_FRAME_S
        # From when it was due, not from when it came: a camera of that rate is shown at it.
        self._frame_due_s = max(self._frame_due_s, now_s - every_s / 2) + every_s
        about = {
            "index": stamps.index,
            "t_s": (stamps.t_start_ns - self._start_ns) / 1e9,
            "sigma_s": plain(stamps.t_sigma_ns / 1e9),
            "exposure_s": stamps.exposure_ns / 1e9,
            "dose_e_A2": plain(stamps.dose_per_m2 / 1e20),
            "blanked": bool(stamps.blanked),
        }
        self._painting = True
        loop = asyncio.get_running_loop()
        painted = loop.run_in_executor(self._pool, self._painter.paint, pixels)
        painted.add_done_callback(partial(self._painted, about))

    def _painted(self, about: dict[str, object], painted: asyncio.Future[Picture]) -> None:
        self._painting = False
        if painted.cancelled():
            return
        if (error := painted.exception()) is not None:
            self.tell(f"a frame cannot be shown: {error}")
            return
        self._frame = (self._frame[0] + 1, frame_message(painted.result(), about))
        self.counters["frames"] += 1

    def event(self, event: Event) -> None:
        """See an event that is recorded; of frames and tracks of a node, the last alone."""
        if event.kind in UNLISTED:
            self._remote[event.kind] = event.message
            return
        t_s = (event.t_ns - self._start_ns) / 1e9 if self._start_ns else None
        self._list(t_s, event.kind, event.source, event.message)

    def seen(self, seen: Seen) -> None:
        """See what trackers see in a frame; the newest is shown."""
        self._seen = seen

    def stage(self, text: str) -> None:
        """See what is being done."""
        self._stage = text
        self.tell(text)

    def tell(self, text: str) -> None:
        """Show a line that is no event of the session."""
        self._list(None, "stage", "runner", text)

    def _list(self, t_s: float | None, what: str, source: str, message: str) -> None:
        self._told += 1
        told = {"kind": "event", "number": self._told, "t_s": t_s, "what": what}
        text = message[:LONGEST_LINE]
        self._events.append((self._told, as_json({**told, "source": source, "message": text})))

    def end(self, reason: str) -> None:
        """See how it ended: the last that there is to tell."""
        self._ended = reason
        self._status_due_s = -math.inf

    # --- what viewers are told -------------------------------------------------------------

    def enter(self, *, may_command: bool) -> Viewer:
        """Take a viewer in; it has seen nothing."""
        viewer = Viewer(may_command=may_command)
        self.viewers.append(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Let a viewer go."""
        self.viewers.remove(viewer)

    def hello(self, nonce: str, viewer: Viewer) -> str:
        """Return what a page is told first."""
        about = {"title": self._title, "nonce": nonce, "may_command": viewer.may_command}
        return as_json({"kind": "hello", **about, **self._facts})

    def tick(self) -> None:
        """Encode what is new, once for all viewers."""
        start, total = self._block[1], self._traces.total
        if total > start:
            rows = self._traces.since(start)
            message = b"" if rows is None else _more(rows, MOST_AT_ONCE)
            self._block = (start, total, message)
        now_s = self._now_s()
        if now_s >= self._status_due_s:
            self._status_due_s = now_s + STATUS_S
            self._status = (self._status[0] + 1, as_json(self._describe(now_s)))

    def lacks(self, viewer: Viewer) -> bool:
        """Tell whether a viewer has not seen the last status."""
        return viewer.status != self._status[0]

    def due(self, viewer: Viewer) -> Iterator[Message]:
        """Yield what a viewer has not seen, the most urgent first.

        Each message counts as seen when the next is asked for: between them, the viewer may be
        waited for.
        """
        while viewer.answers:
            yield viewer.answers.popleft()
        if viewer.status != self._status[0]:
            viewer.status = self._status[0]
            yield self._status[1]
        yield from self._due_rows(viewer)
        if viewer.events != self._told:
            for number, text in list(self._events):
                if number > viewer.events:
                    viewer.events = number
                    yield text
        number, message = self._frame
        if number > viewer.frame:
            skipped = number - viewer.frame - 1 if viewer.frame else 0
            viewer.skipped_frames += skipped
            self.counters["frames_skipped"] += skipped
            viewer.frame = number
            yield message

    def _due_rows(self, viewer: Viewer) -> Iterator[bytes]:
        start, total, message = self._block
        if viewer.rows == total:
            return
        if viewer.rows == start and message:
            viewer.rows = total
            yield message
            return
        # It is new or fell behind: what it lacks is made for it alone.
        rows = None if viewer.rows < 0 else self._traces.since(viewer.rows)
        viewer.rows = self._traces.total
        if rows is None:
            yield trace_message(Kind.ALL, self._traces.all())
        elif len(rows):
            yield _more(rows, MOST_MISSED)

    def _describe(self, now_s: float) -> dict[str, object]:
        run, control = self._run, self._control
        return {
            "kind": "status",
            "stage": self._stage,
            "ended": self._ended,
            "wish": control.wish.name.lower(),
            "is_paused": control.is_paused,
            "paused": run.paused,
            "held": run.held,
            "unseen": run.unseen,
            "moderated": run.moderated,
            "waits": run.waits,
            "step": run.step,
            "steps": run.steps,
            "name": run.step_name,
            "step_elapsed_s": run.step_elapsed_s,
            "step_longest_s": run.step_longest_s,
            "elapsed_s": run.elapsed_s,
            "planned_s": run.planned_s,
            "voltage_V": run.voltage_V,
            "current_A": run.current_A,
            "charge_C": run.charge_C,
            "ionic_C": self._ionic_C,
            "samples": run.samples,
            "age_s": now_s - self._read_s,
            "frames": run.frames,
            "dropped": run.dropped,
            "dose_e_A2": run.dose_e_m2 / 1e20,
            "ring_fill": run.ring_fill,
            "clock_sigma_s": run.clock_sigma_ns / 1e9,
            "temperature_K": run.temperature_K,
            "viewers": len(self.viewers),
            "tracks": track_lines(self._seen, run.rules),
            "seen_frame": None if self._seen is None else self._seen.index,
            "seen_took_s": None if self._seen is None else self._seen.took_ns / 1e9,
            "untracked": run.untracked,
            "marks": marks(self._seen, run.rules, self._pixel_m),
            "remote": self._remote.get("remote_track") or self._remote.get("remote_frames", ""),
        }


def _more(rows: Rows, most: int) -> bytes:
    return trace_message(Kind.MORE, at_most(rows, most))
