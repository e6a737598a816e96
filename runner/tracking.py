"""The tracking process: looks at frames as they come, each once, and says what it sees.

Frames come through a small ring in shared memory; where one stands there comes through the
pipe, and so does what was seen in it.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from correlate.line import weighted_line
from correlate.registry import tracker_class
from correlate.trackers.protocol import (
    CannotTrack,
    Following,
    LiveTracker,
    SceneSettings,
    Track,
)
from runner.track_options import TrackSettings
from session.ring import FrameRing, RingSpec

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

FIRST_FRAMES = 8  # from which a tracker learns; twice as many, and so on, where they do not do
MOST_FIRST_FRAMES = 64
VELOCITY_WINDOW_S = 2.0
FEWEST_FOR_VELOCITY = 4
MOVING = ("position", "length")  # columns whose slope is a track's velocity
LEARNING = "the tracker is still learning"
FROZEN = "the same picture as before, to the last electron: the camera stands still"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingSettings:
    """What is to be tracked, and where frames come from."""

    tracks: tuple[TrackSettings, ...]
    scene: SceneSettings
    ring: RingSpec


@dataclass(frozen=True, slots=True)
class Look:
    """A frame stands in a slot of the ring; ``t_ns`` is the middle of its exposure."""

    slot: int
    index: int
    t_ns: int


@dataclass(frozen=True, slots=True)
class StopTracking:
    """No frame comes any more."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a tracker found in one frame: columns of its track, SI units; NaN where not valid.

    Beside them stand the track's attributes, whose names are kept, too, and its drift as
    ``drift_dx``, ``drift_dy`` in px.
    """

    valid: bool
    values: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What all trackers found in the frame of a `Look`, and how long they took."""

    index: int
    t_ns: int
    tracks: Mapping[str, Found]
    took_ns: int


def tracking_main(connection: "Connection[Any, Any]", settings: TrackingSettings) -> None:
    """Look at frames until told to stop, or until the other end is gone."""
    ring = FrameRing.attach(settings.ring)
    try:
        eyes = {t.name: Eye(t, settings.scene) for t in settings.tracks}
        pictures = Pictures()
        with suppress(EOFError, OSError):
            while isinstance(look := connection.recv(), Look):
                begun_ns = time.perf_counter_ns()
                pixels = ring.slot_pixels(look.slot)
                if pictures.is_new(pixels):
                    tracks = {name: eye.look(look.t_ns, pixels) for name, eye in eyes.items()}
                else:
                    tracks = dict.fromkeys(eyes, Found(valid=False, reason=FROZEN))
                took_ns = time.perf_counter_ns() - begun_ns
                connection.send(Seen(look.index, look.t_ns, tracks, took_ns))
    finally:
        ring.close()


class Pictures:
    """Tells a new picture from one that comes again: no two of them are noise for noise alike."""

    def __init__(self) -> None:
        self._last: NDArray[np.generic] | None = None

    def is_new(self, pixels: NDArray[np.generic]) -> bool:
        """Tell whether a picture differs from the one before it; a wholly dark one always does."""
        if self._last is None:
            self._last = np.array(pixels)
            return True
        if np.array_equal(pixels, self._last):
            return not np.any(pixels)
        self._last[:] = pixels
        return True


class Eye:
    """One tracker, from its first frames on.

    It learns from the first 8 frames; if its object is not to be found in them, from 16, and so
    on up to 64, and then from the newest 64 again and again.
    """

    def __init__(self, track: TrackSettings, scene: SceneSettings) -> None:
        self._tracker: LiveTracker | None = None
        self._following: Following | None = None
        self._first: deque[NDArray[np.generic]] = deque(maxlen=MOST_FIRST_FRAMES)
        self._enough = FIRST_FRAMES
        self._new = 0
        self._why = LEARNING
        self._rows: deque[tuple[int, float, float]] = deque()  # time, place and its sigma
        try:
            tracker = tracker_class(track.tracker)(replace(scene, options=track.options))
        except CannotTrack as error:
            self._why = str(error)
            return
        if isinstance(tracker, LiveTracker):
            self._tracker = tracker
        else:
            self._why = f"the tracker {track.tracker!r} needs all frames of a recording"

    def look(self, t_ns: int, pixels: NDArray[np.generic]) -> Found:
        """Say what a frame shows; whatever goes wrong is said as the reason, too."""
        try:
            if self._following is None:
                return self._learn(pixels)
            return self._found(t_ns, self._following.track(lambda: [pixels]))
        except Exception as error:  # noqa: BLE001 - one tracker's fault is not another's
            return Found(valid=False, reason=f"{type(error).__name__}: {error}")

    def _learn(self, pixels: NDArray[np.generic]) -> Found:
        if self._tracker is None:
            return Found(valid=False, reason=self._why)
        self._first.append(np.array(pixels))  # the slot goes to another frame
        self._new += 1
        if len(self._first) < self._enough or self._new < self._enough // 2:
            return Found(valid=False, reason=self._why)
        self._new = 0
        frames = list(self._first)
        try:
            self._following = self._tracker.begin(lambda: frames)
        except CannotTrack as error:
            self._why = str(error)
            self._enough = min(2 * self._enough, MOST_FIRST_FRAMES)
            return Found(valid=False, reason=self._why)
        self._first.clear()
        return Found(valid=False, reason=LEARNING)

    def _found(self, t_ns: int, track: Track) -> Found:
        values = {name: float(column[-1]) for name, column in track.columns.items()}
        values |= {f"drift_{name}": float(column[-1]) for name, column in track.drift.items()}
        values |= track.attributes
        valid = bool(track.valid[-1])
        moving = next((name for name in MOVING if name in values), None)
        if valid and moving is not None:
            values |= self._velocity(t_ns, values[moving], values[f"{moving}_sigma"])
        reason = "" if valid else next(iter(track.reasons), "not valid")
        return Found(valid=valid, values=values, reason=reason, attributes=tuple(track.attributes))

    def _velocity(self, t_ns: int, place: float, sigma: float) -> dict[str, float]:
        """Return the slope of the place over the window that ends with this frame."""
        rows = self._rows
        rows.append((t_ns, place, sigma))
        while rows[0][0] < t_ns - VELOCITY_WINDOW_S * 1e9 and len(rows) > FEWEST_FOR_VELOCITY:
            rows.popleft()
        if len(rows) < FEWEST_FOR_VELOCITY:
            return {"velocity": math.nan, "velocity_sigma": math.nan}
        seconds = np.array([row[0] - t_ns for row in rows]) / 1e9
        line = weighted_line(seconds, *np.array([row[1:] for row in rows]).T)
        return {"velocity": line.slope, "velocity_sigma": line.slope_sigma}
