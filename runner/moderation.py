"""Reduces the current of a step by what images show: never beyond the plan, never to nothing.

What moves goes by the ionic charge, so a velocity is a way by charge times the ionic current,
and the current at which it would be the greatest that is allowed does not depend on the
current that flows now::

    allowed ionic current = ionic current now * allowed velocity / velocity now

A density allows its value times the area that is seen. Doubt allows less, never more: the
velocity is taken at its upper and the area at its lower end of 95 %. Where nothing is seen, the
least that the step permits is left. Pure: it is told of frames, and answers with a share.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from correlate.line import weighted_line
from runner.format import in_unit
from runner.image_judge import FEWEST_FOR_VELOCITY, MOST_KEPT, Patience
from runner.image_rules import CONFIDENCE_SIGMAS
from runner.ionic_flow import IonicFlow
from runner.keep_rules import Keep, KeepRule
from runner.tracking import MOVING, Found, Seen

WORTH_LESS, WORTH_MORE = 0.05, 0.1  # of the share: what differs by less is left
BETWEEN_RISES_S = 1.0
LARGEST_RISE = 2.0
LOOK_BACK = 3.0  # for a way by charge: of the usual window for a velocity, which is steadier


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderated:
    """Another share of the step's current.

    Parameters
    ----------
    share
        More than 0, 1 at most.
    frame
        Index of the newest frame with the object in it; -1 where there was none.
    """

    t_ns: int
    share: float
    current_A: float
    reason: str
    frame: int

    def data(self) -> dict[str, object]:
        """Return it as an event keeps it."""
        return {"share": self.share, "current_A": self.current_A, "frame": self.frame}


class Moderation:
    """Follows what one step after the other keeps.

    Parameters
    ----------
    now_ns
        Reads the host clock.
    flow
        Told of all readings.
    patience
        With frames that are lost or late.
    """

    def __init__(self, *, now_ns: Callable[[], int], flow: IonicFlow, patience: Patience) -> None:
        self._now_ns = now_ns
        self._flow = flow
        self._patience = patience
        self._keep = Keep()
        self._current_A = math.nan
        self._seen: dict[str, deque[tuple[int, Found]]] = {}
        self._frame = -1
        self._changed_ns = 0
        self.share = 1.0

    def begin(self, keep: Keep, current_A: float) -> float:
        """Note that a step begins; return the share of its current with which it does.

        With the least where it keeps anything: what it may be is not known before it moves.
        """
        self._keep, self._current_A = keep, current_A
        self._seen = {rule.track: deque(maxlen=MOST_KEPT) for rule in keep.rules}
        self._frame, self._changed_ns = -1, self._now_ns()
        self.share = keep.least_share if keep.rules else 1.0
        return self.share

    def end(self) -> None:
        """Note that no step is on."""
        self.begin(Keep(), math.nan)

    def seen(self, seen: Seen) -> None:
        """Take what the trackers saw in a frame; frames without the object tell nothing."""
        for name, kept in self._seen.items():
            found = seen.tracks.get(name)
            if found is not None and found.valid and (not kept or seen.t_ns > kept[-1][0]):
                kept.append((seen.t_ns, found))
                self._frame = seen.index

    def look(self) -> Moderated | None:
        """Return the change that is due; asked with each block of readings."""
        if not self._keep.rules:
            return None
        now_ns = self._now_ns()
        allowed, reason = min(self._allowed(rule, now_ns) for rule in self._keep.rules)
        share = min(max(allowed, self._keep.least_share), 1.0)
        if share > self.share:
            share = min(share, LARGEST_RISE * self.share)
            if (now_ns - self._changed_ns) / 1e9 < BETWEEN_RISES_S:
                return None
        ends = share in (self._keep.least_share, 1.0) and share != self.share
        more = share / self.share - 1
        if not ends and -WORTH_LESS <= more <= WORTH_MORE:
            return None
        self.share, self._changed_ns = share, now_ns
        current_A = share * self._current_A
        return Moderated(
            t_ns=now_ns,
            share=share,
            current_A=current_A,
            reason=f"{in_unit(current_A, 'A')} of {in_unit(self._current_A, 'A')}: {reason}",
            frame=self._frame,
        )

    def _allowed(self, rule: KeepRule, now_ns: int) -> tuple[float, str]:
        """Return what share of the step's current a rule allows, and why."""
        kept = self._seen[rule.track]
        if not kept:
            return 0.0, f"{rule.text}: nothing is seen yet"
        age_s = (now_ns - kept[-1][0]) / 1e9
        if age_s > self._patience.stale_s:
            return 0.0, f"{rule.text}: not seen for {age_s:.2g} s"
        if rule.is_density:
            amperes, told = self._by_density(rule, kept[-1][1])
        else:
            amperes, told = self._by_velocity(rule, kept)
        share = amperes / abs(self._current_A)
        return (share if math.isfinite(share) else 0.0), f"{rule.text}: {told}"

    def _by_density(self, rule: KeepRule, found: Found) -> tuple[float, str]:
        size = found.values.get(rule.quantity, math.nan)
        least = size - CONFIDENCE_SIGMAS * found.values.get(f"{rule.quantity}_sigma", math.nan)
        area_m2 = math.pi / 4 * max(least, 0.0) ** 2 if rule.quantity == "diameter" else least
        unit = "m" if rule.quantity == "diameter" else "m^2"
        told = f"{rule.quantity} {size:.3g} {unit}, at least {least:.3g} {unit}"
        return rule.value * area_m2, told

    def _by_velocity(self, rule: KeepRule, kept: deque[tuple[int, Found]]) -> tuple[float, str]:
        from_ns = kept[-1][0] - LOOK_BACK * self._patience.velocity_s * 1e9
        recent = [(t_ns, found.values) for t_ns, found in kept if t_ns >= from_ns]
        place = next((name for name in MOVING if name in recent[-1][1]), "")
        rows = [(t, v[place], v[f"{place}_sigma"]) for t, v in recent if place in v]
        rows = [row for row in rows if math.isfinite(row[1]) and row[2] > 0]
        if len(rows) < FEWEST_FOR_VELOCITY:
            return 0.0, "too few frames for a velocity"
        t_ns, at_m, sigma_m = (np.array(column) for column in zip(*rows, strict=True))
        line = weighted_line(self._flow.seconds(t_ns), at_m, sigma_m)
        fastest = abs(line.slope) + CONFIDENCE_SIGMAS * line.slope_sigma
        told = f"{in_unit(line.slope, 'm/s')}, at most {in_unit(fastest, 'm/s')}"
        if not 0 < fastest < math.inf:
            return 0.0, told
        ionic_A = abs(self._flow.current_A) * rule.value / fastest
        # The source gives what the holder takes, too; of a discharge the holder takes its part.
        leak_A = math.copysign(1.0, self._current_A) * self._flow.leak_A
        return max(ionic_A + leak_A, 0.0), told
