"""Ends steps by what images show: one judge for each rule of the step that is on.

Pure: it is told of readings, frames and steps, and answers with a stop or with nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from potentiostat.limits import Action
from runner.format import scientific, with_sigma
from runner.image_judge import (
    ImageJudge,
    Patience,
    Prediction,
    Sight,
    Watch,
)
from runner.image_rules import DOSE, KIND_OF, ImageRule
from runner.ionic_flow import IonicFlow
from runner.plain import plain
from runner.tracking import Found, Seen

BEATS_KEPT = 20
FRAMES_TOLD = 10  # before the one that decided, with the event of a stop
FRAMES_STALE = 3.0  # of a camera slower than the patience: so many of its periods
FRAMES_FOR_VELOCITY = 8.0


def patience_for(frame_rate_Hz: float) -> Patience:
    """Return for how long an image may be missing, with a camera that may be slow."""
    usual = Patience()
    if not frame_rate_Hz > 0:
        return usual
    return Patience(
        stale_s=max(usual.stale_s, FRAMES_STALE / frame_rate_Hz),
        lost_frames=usual.lost_frames,
        velocity_s=max(usual.velocity_s, FRAMES_FOR_VELOCITY / frame_rate_Hz),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStop:
    """Why a step ends by an image.

    Parameters
    ----------
    action
        What follows: a rule's own, and ``"hold"`` where an image that failed would have gone
        on to the next step.
    frame
        Index of the frame that decided; -1 where none did.
    age_s
        Of that frame, middle of the exposure, when the stop was asked for.
    flow_s
        For which the stray capacitance was taken to feed the cell.
    before
        The last frames and what was seen in them, oldest first.
    """

    t_ns: int
    rule: ImageRule
    watch: Watch
    action: Action
    reason: str
    frame: int
    age_s: float
    flow_s: float
    seen: Sight | None
    prediction: Prediction | None
    before: tuple[tuple[int, Sight], ...]

    def data(self) -> dict[str, object]:
        """Return it as an event keeps it; numbers that are none become None."""
        told = {
            "rule": self.rule.text,
            "watch": self.watch.value,
            "then": self.action,
            "frame": self.frame,
            "age_s": self.age_s,
            "after_flow_s": self.flow_s,
            "value": None if self.seen is None else self.seen.value,
            "sigma": None if self.seen is None else self.seen.sigma,
            "prediction": {} if self.prediction is None else asdict(self.prediction),
            "frames_before": [{"frame": i, **asdict(s)} for i, s in self.before],
        }
        return {name: plain(value) for name, value in told.items()}


@dataclass(slots=True)
class _Watched:
    judge: ImageJudge
    frames: deque[tuple[int, Sight]]


class ImageStops:
    """Judges the rules on images of one step after the other.

    Parameters
    ----------
    now_ns
        Reads the host clock.
    flow
        Told of the readings here.
    patience
        With frames that are lost or late.
    """

    def __init__(self, *, now_ns: Callable[[], int], flow: IonicFlow, patience: Patience) -> None:
        self._now_ns = now_ns
        self._flow = flow
        self._patience = patience
        self._watched: list[_Watched] = []
        self._newest: dict[str, tuple[int, Found]] = {}
        self._beats_s: deque[float] = deque(maxlen=BEATS_KEPT)
        self._beat_ns: int | None = None
        self._stopped = False

    # --- what it is told ----------------------------------------------------------------

    def begin(self, rules: Sequence[ImageRule]) -> None:
        """Note that a step begins, and by which images it may end."""
        now_ns = self._now_ns()
        self._stopped = False
        self._flow.begin()
        self._watched = [
            _Watched(
                ImageJudge(
                    rule,
                    begun_ns=now_ns,
                    patience=self._patience,
                    seconds=None if rule.quantity == DOSE else self._flow.seconds,
                ),
                deque(maxlen=FRAMES_TOLD),
            )
            for rule in rules
        ]

    def end(self) -> None:
        """Note that no step is on."""
        self._watched = []

    def readings(
        self,
        t_ns: NDArray[np.int64],
        voltage_V: NDArray[np.float64],
        current_A: NDArray[np.float64],
        *,
        rests: bool,
    ) -> None:
        """Take the readings of a block, and whether the cell rests at 0 A."""
        now_ns = self._now_ns()
        if self._beat_ns is not None:
            self._beats_s.append((now_ns - self._beat_ns) / 1e9)
        self._beat_ns = now_ns
        self._flow.take(t_ns, voltage_V, current_A, rests=rests)

    def seen(self, seen: Seen) -> ImageStop | None:
        """Take what the trackers saw in a frame."""
        for name, found in seen.tracks.items():
            self._newest[name] = (seen.t_ns, found)
        for watched in self._watched:
            rule = watched.judge.rule
            if rule.track in seen.tracks:
                sight = _sight(rule, seen.t_ns, seen.tracks[rule.track])
                if (stop := self._take(watched, seen.index, sight)) is not None:
                    return stop
        return None

    def dose(self, index: int, t_ns: int, dose_e_m2: float) -> ImageStop | None:
        """Take the dose of the specimen at the end of a frame."""
        sight = Sight(t_ns=t_ns, value=dose_e_m2, sigma=0.0, valid=math.isfinite(dose_e_m2))
        for watched in self._watched:
            if watched.judge.rule.quantity == DOSE:
                stop = self._take(watched, index, sight)
                if stop is not None:
                    return stop
        return None

    def look(self) -> ImageStop | None:
        """Say what frames that do not come mean; asked with each block of readings."""
        now_ns = self._now_ns()
        for watched in self._watched:
            watch = watched.judge.look(now_ns, lookahead_s=self._ahead_s(watched.judge.rule))
            if watch is not Watch.CALM:
                return self._stop(watched, watch, now_ns)
        return None

    # --- what it answers ----------------------------------------------------------------

    def not_seen(self, tracks: Iterable[str]) -> str:
        """Return why a step that needs these tracks may not begin yet; empty where it may."""
        now_ns = self._now_ns()
        for track in tracks:
            t_ns, found = self._newest.get(track, (None, None))
            if t_ns is None or found is None:
                return f"no frame of the track {track!r} has come"
            if not found.valid:
                return f"the track {track!r} is not followed: {found.reason}"
            age_s = (now_ns - t_ns) / 1e9
            if age_s > self._patience.stale_s:
                return f"the newest frame of the track {track!r} is {age_s:.2g} s old"
        return ""

    @property
    def stop_s(self) -> float:
        """The longest of the last intervals between readings: a stop waits for the next one."""
        return max(self._beats_s, default=0.0)

    @property
    def flow_s(self) -> float:
        """For how long the stray capacitance would feed the cell after a stop now."""
        return self._flow.after_flow_s

    def _take(self, watched: _Watched, index: int, sight: Sight) -> ImageStop | None:
        now_ns = self._now_ns()
        watched.frames.append((index, sight))
        ahead_s = self._ahead_s(watched.judge.rule)
        watch = watched.judge.take(sight, now_ns=now_ns, lookahead_s=ahead_s)
        return None if watch is Watch.CALM else self._stop(watched, watch, now_ns)

    def _ahead_s(self, rule: ImageRule) -> float:
        """Return how long a stop takes effect after it is asked for; a dose ends with the beam."""
        return 0.0 if rule.quantity == DOSE else self.stop_s + self.flow_s

    def _stop(self, watched: _Watched, watch: Watch, now_ns: int) -> ImageStop | None:
        """Return the stop, the first time that it is asked for in a step."""
        if self._stopped:
            return None
        self._stopped = True
        rule, judge = watched.judge.rule, watched.judge
        frame, seen = watched.frames[-1] if watched.frames else (-1, None)
        action = rule.action
        if watch is not Watch.MET and action == "next":
            action = "hold"  # what comes next was meant for a cell that is seen
        return ImageStop(
            t_ns=now_ns,
            rule=rule,
            watch=watch,
            action=action,
            reason=_reason(rule, watch, judge, seen),
            frame=frame,
            age_s=math.nan if seen is None else (now_ns - seen.t_ns) / 1e9,
            flow_s=self.flow_s,
            seen=seen,
            prediction=judge.prediction if watch is Watch.MET else None,
            before=tuple(watched.frames),
        )


def _sight(rule: ImageRule, t_ns: int, found: Found) -> Sight:
    return Sight(
        t_ns=t_ns,
        value=found.values.get(rule.quantity, math.nan),
        sigma=found.values.get(f"{rule.quantity}_sigma", math.nan),
        valid=found.valid,
        reason=found.reason,
    )


def _reason(rule: ImageRule, watch: Watch, judge: ImageJudge, seen: Sight | None) -> str:
    if watch is not Watch.MET:
        return f"{rule.text}: the image is {watch.value}: {judge.reason}"
    told = judge.prediction
    if seen is None or told is None or rule.quantity == DOSE:
        return rule.text
    return (
        f"{rule.text}: {_in_words(rule, seen.value, seen.sigma)}, foreseen "
        f"{_in_words(rule, told.value, told.sigma)} in {told.lookahead_s:.2g} s"
    )


def _in_words(rule: ImageRule, value: float, sigma: float) -> str:
    kind = KIND_OF[rule.quantity]
    if kind == "area":  # a prefix would be squared
        return f"{scientific(value, sigma)} m²"
    return with_sigma(value, sigma, {"length": "m", "speed": "m/s"}.get(kind, ""))
