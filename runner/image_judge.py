"""Decides, frame by frame, whether an image rule is met: early enough, and not by noise.

What is compared is not what was seen but what will be when a stop has taken effect::

    predicted = value + velocity * (latency + frames that confirm + after-flow)

where the after-flow is the time for which the stray capacitance goes on to feed the cell at
the present ionic current (see `runner.ionic_flow`), by whose charge the velocity is taken. A
frame that is not the last of n to say so adds those that must still come. It is beyond where
the next chance to say so, a frame later, would be too late, and a prediction counts as beyond
the rule's value when it is within k sigma of it: an error of the image stops too early, never
too late. Frames that were lost, and frames that do not come, are answers of their own; and
where they might be the last ones before the value, the last velocity is believed for as long
as nothing is seen.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from runner.image_rules import CONFIDENCE_SIGMAS, ImageRule

FEWEST_FOR_VELOCITY = 4
FRAMES_FOR_INTERVAL = 9
LATE_FRAMES, LATE_S = 2.0, 0.1  # after the last one: the longer of both, then one is missing
LOOK_BACK, FARTHEST_BACK = 0.5, 3.0  # for a velocity: of the look-ahead, and of the usual window
FEW_MISSED = 2  # frames in a row without the object, from which it is reckoned where it is
MOST_KEPT = 2000

Seconds = Callable[[NDArray[np.int64]], NDArray[np.float64]]


class Watch(StrEnum):
    """What an image says of its rule."""

    CALM = "calm"
    MET = "met"
    LOST = "lost"  # the tracker does not find its object any more
    STALE = "stale"  # what it says is too old, or nothing comes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one frame says.

    Parameters
    ----------
    t_ns
        Middle of its exposure, host clock.
    value, sigma
        Of the rule's quantity, SI; of no meaning where not valid.
    reason
        Why it is not valid.
    """

    t_ns: int
    value: float
    sigma: float
    valid: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """For how long an image may be missing, and how far back its velocity is taken.

    Parameters
    ----------
    stale_s
        Age of the newest frame from which nothing may be decided by it.
    lost_frames
        Frames in a row without the object, from which it is lost.
    velocity_s
        Over which the velocity is fitted, at least; longer for a long look-ahead.
    """

    stale_s: float = 0.5
    lost_frames: int = 5
    velocity_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What will be when a stop has taken effect, if it is asked for at this frame.

    Parameters
    ----------
    value, sigma
        SI.
    velocity, velocity_sigma
        SI, of a straight line through the last frames; 0 and infinite before there are enough.
    lookahead_s
        From the middle of the exposure to the end of the after-flow, with the frames that
        must still confirm it.
    """

    value: float
    sigma: float
    velocity: float
    velocity_sigma: float
    lookahead_s: float


class ImageJudge:
    """Follows one rule through the frames of one step.

    Parameters
    ----------
    rule
        What ends the step.
    begun_ns
        When the step began: from then on frames are owed.
    patience
        With frames that are lost or late.
    seconds
        The clock by which the velocity is taken: times in ns to s; None for plain seconds.

    Attributes
    ----------
    prediction
        Of the last valid frame; None before there was one.
    newest_ns
        Middle of the newest frame, or when the step began.
    reason
        Why frames say nothing, where they do not.
    """

    def __init__(
        self,
        rule: ImageRule,
        *,
        begun_ns: int,
        patience: Patience | None = None,
        seconds: Seconds | None = None,
    ) -> None:
        self.rule = rule
        self.prediction: Prediction | None = None
        self.reason = ""
        self._patience = Patience() if patience is None else patience
        self._seconds = (lambda t_ns: t_ns / 1e9) if seconds is None else seconds
        self.newest_ns = self._came_ns = begun_ns
        self._missed = 0
        self._kept: deque[Sight] = deque(maxlen=MOST_KEPT)
        self._votes: deque[bool] = deque(maxlen=rule.of)

    def take(self, sight: Sight, *, now_ns: int, lookahead_s: float) -> Watch:
        """Judge a frame.

        Parameters
        ----------
        now_ns
            Host clock.
        lookahead_s
            From now to the end of the after-flow, if a stop is asked for now.
        """
        if sight.t_ns <= self.newest_ns and self._kept:
            # Repeated, or out of order: it says nothing new.
            return self.look(now_ns, lookahead_s=lookahead_s)
        self.newest_ns = max(sight.t_ns, self.newest_ns)
        self._came_ns = now_ns
        if self._age_s(now_ns) > self._patience.stale_s:
            return self.look(now_ns)
        if not sight.valid or not math.isfinite(sight.value + sight.sigma):
            self._missed += 1
            self.reason = sight.reason or "not valid"
            return self.look(now_ns, lookahead_s=lookahead_s)
        self._missed = 0
        self._kept.append(sight)
        ahead_s = (now_ns - sight.t_ns) / 1e9 + lookahead_s + self._missing() * self._interval_s()
        velocity = self._velocity(sight.t_ns, ahead_s)
        self.prediction = self._predict(sight, velocity, ahead_s)
        at_next = self._predict(sight, velocity, ahead_s + self._interval_s())
        self._votes.append(self._is_beyond(at_next))
        return Watch.MET if sum(self._votes) >= self.rule.confirm else Watch.CALM

    def look(self, now_ns: int, *, lookahead_s: float = 0.0) -> Watch:
        """Say what the absence of a frame says.

        Parameters
        ----------
        lookahead_s
            As in `take`.
        """
        age_s = self._age_s(now_ns)
        if age_s > self._patience.stale_s:
            self.reason = f"the newest frame is {age_s:.2g} s old"
            return Watch.STALE
        if self._missed >= self._patience.lost_frames:
            return Watch.LOST
        silent_s = (now_ns - self._came_ns) / 1e9
        is_late = silent_s > max(LATE_FRAMES * self._interval_s(), LATE_S)
        if (self._missed >= FEW_MISSED or is_late) and self._may_be_beyond(now_ns, lookahead_s):
            why = self.reason if self._missed else f"no frame for {silent_s:.2g} s"
            self.reason = f"{why}, and by now it may be there"
            return Watch.LOST if self._missed else Watch.STALE
        return Watch.CALM

    def _age_s(self, now_ns: int) -> float:
        return (now_ns - self.newest_ns) / 1e9

    def _may_be_beyond(self, now_ns: int, lookahead_s: float) -> bool:
        """Reckon with the last velocity where it is that nobody sees."""
        if not self._kept:
            return False
        last = self._kept[-1]
        ahead_s = (now_ns - last.t_ns) / 1e9 + lookahead_s
        return self._is_beyond(self._predict(last, self._velocity(last.t_ns, ahead_s), ahead_s))

    def _missing(self) -> int:
        """Return how many frames must say so after this one, if it does."""
        said = sum(list(self._votes)[-(self.rule.of - 1) :]) if self.rule.of > 1 else 0
        return max(self.rule.confirm - 1 - said, 0)

    def _interval_s(self) -> float:
        """Return the time between valid frames; 0 while it is not known."""
        if len(self._kept) < 2:
            return 0.0
        last = [self._kept[i].t_ns for i in range(-min(FRAMES_FOR_INTERVAL, len(self._kept)), 0)]
        return float(np.median(np.diff(last))) / 1e9

    def _predict(
        self, sight: Sight, velocity_and_sigma: tuple[float, float], lookahead_s: float
    ) -> Prediction:
        velocity, velocity_sigma = velocity_and_sigma
        towards = velocity if (velocity > 0) is (self.rule.relation == ">") else 0.0
        known = math.isfinite(velocity_sigma)
        return Prediction(
            value=sight.value + towards * lookahead_s,
            sigma=math.hypot(sight.sigma, velocity_sigma * lookahead_s if known else 0.0),
            velocity=velocity,
            velocity_sigma=velocity_sigma,
            lookahead_s=lookahead_s,
        )

    def _velocity(self, now_ns: int, ahead_s: float) -> tuple[float, float]:
        """Return the slope of a weighted straight line through the last frames, and its sigma.

        The farther ahead it is to be believed, the farther back it is looked for.
        """
        least_s = self._patience.velocity_s
        window_s = min(max(ahead_s * LOOK_BACK, least_s), FARTHEST_BACK * least_s)
        from_ns = now_ns - window_s * 1e9
        used = [s for s in self._kept if s.t_ns >= from_ns]
        if len(used) < FEWEST_FOR_VELOCITY:
            return 0.0, math.inf
        t_s = self._seconds(np.array([s.t_ns for s in used], np.int64))
        t_s = t_s - t_s[-1]
        value = np.array([s.value for s in used])
        weight = weights(np.array([s.sigma for s in used]))
        middle_s = float(np.average(t_s, weights=weight))
        spread = float(weight @ (t_s - middle_s) ** 2)
        if spread <= 0:
            return 0.0, math.inf
        slope = float((weight * (t_s - middle_s)) @ value) / spread
        return slope, spread**-0.5

    def _is_beyond(self, prediction: Prediction) -> bool:
        margin = CONFIDENCE_SIGMAS * prediction.sigma
        if self.rule.relation == ">":
            return prediction.value + margin > self.rule.value
        return prediction.value - margin < self.rule.value


def weights(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return inverse variances; all alike where one is exact, as of what is counted."""
    return np.asarray(sigma**-2.0 if np.all(sigma > 0) else np.ones(len(sigma)))
