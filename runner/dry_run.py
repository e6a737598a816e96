"""The rules on images of an experiment, tried on a recorded session: when each would have fired.

Each rule sees the recorded track frame by frame, as it would have come, and knows nothing of
later ones. Beside its answer stands what the whole track knows: when the quantity, smoothed
over the frames before and after, really came to the rule's value.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from runner.dose_record import dose_of
from runner.experiment import Experiment
from runner.image_judge import ImageJudge, Patience, Sight, Watch, weights
from runner.image_rules import DOSE, ImageRule
from runner.image_stops import patience_for
from runner.ionic_flow import REST_S, IonicFlow
from runner.messages import HolderTerms
from runner.session_holder import holder_of
from session.reader import Session

LATENCY_S = 0.1
LOOK_NS = 50_000_000  # as often it is asked what frames that do not come mean

Floats = NDArray[np.float64]


class CannotTry(ValueError):
    """Rules and session do not go together; says why, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one rule made of one step.

    Parameters
    ----------
    step
        From 0.
    watch
        What it came to: met, lost or stale; calm for nothing in the whole step.
    fired_s
        When, from the beginning of the step; NaN for never.
    crossed_s
        When the smoothed quantity came to the rule's value; NaN for never.
    value, sigma, velocity, predicted
        At the frame that decided, SI; NaN where none did.
    lookahead_s
        Latency and after-flow that were taken into account there.
    nearest
        Least distance of the smoothed quantity to the rule's value, SI; not below 0.
    verdict
        In words.
    """

    step: int
    rule: str
    frames: int
    valid: int
    watch: Watch
    fired_s: float
    crossed_s: float
    value: float
    sigma: float
    velocity: float
    predicted: float
    lookahead_s: float
    nearest: float
    verdict: str

    @property
    def is_false_stop(self) -> bool:
        """True where it fired, and the quantity never came to the value in the step."""
        return self.watch is Watch.MET and math.isnan(self.crossed_s)

    @property
    def is_missed(self) -> bool:
        """True where the quantity came to the value before anything was done."""
        return math.isfinite(self.crossed_s) and not self.fired_s <= self.crossed_s


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """All rules of all steps."""

    tried: tuple[Tried, ...]
    false_stops: int
    missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """One step as it was played."""

    step: int
    start_ns: int
    end_ns: int


def dry_run(
    experiment: Experiment,
    path: Path,
    *,
    latency_s: float = LATENCY_S,
    patience: Patience | None = None,
) -> DryRun:
    """Try an experiment's rules on images on a recorded session.

    Parameters
    ----------
    latency_s
        From the middle of an exposure to the set-point on the wire.
    patience
        With frames that are lost or late; None for that of a run with a camera as fast as
        the frames that were seen.

    Raises
    ------
    CannotTry
        The experiment has no such rules, or the session not the steps or tracks they need.
    """
    if not any(experiment.image_rules):
        raise CannotTry('no step has a rule on images, such as "front.position > 400 nm"')
    with Session.open(path) as session:
        seen = _Seen(session)
        tried = tuple(
            _try(rule, stretch, seen, latency_s, patience or seen.patience(rule))
            for stretch in _stretches(session, experiment)
            for rule in experiment.image_rules[stretch.step]
        )
    return DryRun(
        tried=tried,
        false_stops=sum(t.is_false_stop for t in tried),
        missed=sum(t.is_missed for t in tried),
    )


def _stretches(session: Session, experiment: Experiment) -> list[_Stretch]:
    last_ns = int(session.sample_columns()["t_ns"][-1])
    found: list[_Stretch] = []
    for event in session.events():
        if event.kind == "step_started":
            number, name = int(str(event.data["step"])), str(event.data["name"])
            if number >= len(experiment.steps) or experiment.steps[number].name != name:
                raise CannotTry(
                    f"{session.path}: its step {number + 1} is {name}, and that of the experiment "
                    "is another one; rules are tried on the plan that was played"
                )
            found.append(_Stretch(step=number, start_ns=event.t_ns, end_ns=last_ns))
        elif event.kind == "step_ended" and found:
            begun = found[-1]
            found[-1] = _Stretch(step=begun.step, start_ns=begun.start_ns, end_ns=event.t_ns)
    return found


class _Seen:
    """What a session knows at the time of a frame."""

    def __init__(self, session: Session) -> None:
        self._session = session
        columns = session.sample_columns()
        self.t_ns = np.asarray(columns["t_ns"], np.int64)
        self.voltage_V = np.asarray(columns["voltage"], np.float64)
        self.current_A = np.asarray(columns["current"], np.float64)
        holder = holder_of(session)
        self._holder = (
            None
            if holder is None
            else HolderTerms(
                capacitance_F=holder.capacitance_F,
                conductance_S=holder.conductance_S,
                offset_A=holder.offset_A,
            )
        )

    def sights(self, rule: ImageRule, stretch: _Stretch) -> list[Sight]:
        """Return the frames of a step as a rule sees them.

        Raises
        ------
        CannotTry
            The session has no such track or column.
        """
        t_ns, value, sigma, valid = self._columns(rule)
        inside = np.flatnonzero((t_ns > stretch.start_ns) & (t_ns <= stretch.end_ns))
        return [
            Sight(
                t_ns=int(t_ns[i]),
                value=float(value[i]),
                sigma=float(sigma[i]),
                valid=bool(valid[i]),
                reason="" if valid[i] else "the tracker did not find it",
            )
            for i in inside
        ]

    def patience(self, rule: ImageRule) -> Patience:
        """Return that of a run with frames as often as these."""
        t_ns = self._columns(rule)[0]
        period_s = float(np.median(np.diff(t_ns))) / 1e9 if len(t_ns) > 1 else math.nan
        return patience_for(1 / period_s if period_s > 0 else math.nan)

    def _columns(self, rule: ImageRule) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
        session = self._session
        if rule.quantity == DOSE:
            dose = dose_of(session)
            if dose is None:
                raise CannotTry(f"{session.path} knows no dose, which {rule.text!r} asks for")
            total = np.where(np.isfinite(dose.dose), np.nancumsum(dose.dose), np.nan)
            return dose.t_ns, total, np.zeros(len(total)), np.isfinite(total).astype(np.float64)
        if not session.has(f"tracks/{rule.track}"):
            there = ", ".join(session.tracks) or "none"
            raise CannotTry(
                f"{session.path} has no track {rule.track!r}, which {rule.text!r} asks for; there "
                f"is {there}"
            )
        table = session.table(f"tracks/{rule.track}").columns
        if rule.quantity not in table:
            raise CannotTry(
                f"{session.path}: the track {rule.track!r} has no {rule.quantity}; it has "
                f"{', '.join(n for n in table if f'{n}_sigma' in table)}"
            )
        value, sigma = (
            np.asarray(table[name], np.float64)
            for name in (rule.quantity, f"{rule.quantity}_sigma")
        )
        return (
            np.asarray(table["t_ns"], np.int64),
            value,
            sigma,
            np.asarray(table["valid"], np.float64),
        )

    def flow(self, stretch: _Stretch) -> "_Flow":
        """Return what follows the ionic current through a step."""
        return _Flow(IonicFlow(self._holder), self, stretch)


class _Flow:
    """The ionic current of one step, known up to a time that only moves on."""

    def __init__(self, flow: IonicFlow, seen: _Seen, stretch: _Stretch) -> None:
        self.flow = flow
        self._seen = seen
        self._next = int(np.searchsorted(seen.t_ns, stretch.start_ns - REST_S * 1e9))
        self._take(stretch.start_ns, rests=True)
        flow.begin()

    def after_s(self, t_ns: int) -> float:
        """Return how long the stray capacitance would feed the cell after a stop at a time."""
        self._take(t_ns, rests=False)
        return self.flow.after_flow_s

    def _take(self, until_ns: int, *, rests: bool) -> None:
        end = int(np.searchsorted(self._seen.t_ns, until_ns, "right"))
        if end > self._next:
            rows = slice(self._next, end)
            self.flow.take(
                self._seen.t_ns[rows],
                self._seen.voltage_V[rows],
                self._seen.current_A[rows],
                rests=rests,
            )
            self._next = end


def _try(
    rule: ImageRule, stretch: _Stretch, seen: _Seen, latency_s: float, patience: Patience
) -> Tried:
    if not 0 <= latency_s < patience.stale_s:
        raise CannotTry(
            f"a latency of {latency_s:g} s: frames older than {patience.stale_s:g} s decide "
            "nothing; a shorter one would do"
        )
    sights, flow = seen.sights(rule, stretch), seen.flow(stretch)
    judge = ImageJudge(
        rule,
        begun_ns=stretch.start_ns,
        patience=patience,
        seconds=None if rule.quantity == DOSE else flow.flow.seconds,
    )
    latency_ns = round(latency_s * 1e9)
    watch, fired_ns, decided = Watch.CALM, 0, None
    for sight in [*sights, None]:
        # What a frame that does not come says is said before the next one comes.
        due_ns = stretch.end_ns if sight is None else sight.t_ns + latency_ns
        for silent_ns in range(judge.newest_ns + LOOK_NS, due_ns, LOOK_NS):
            ahead_s = 0.0 if rule.quantity == DOSE else flow.after_s(silent_ns)
            if (watch := judge.look(silent_ns, lookahead_s=ahead_s)) is not Watch.CALM:
                fired_ns = silent_ns
                break
        if watch is not Watch.CALM or sight is None:
            break
        ahead_s = 0.0 if rule.quantity == DOSE else flow.after_s(due_ns)
        watch = judge.take(sight, now_ns=due_ns, lookahead_s=ahead_s)
        if watch is not Watch.CALM:
            fired_ns, decided = due_ns, sight
            break
    fired_s = math.nan if watch is Watch.CALM else (fired_ns - stretch.start_ns) / 1e9
    crossed_s, nearest = _crossing(rule, sights, stretch.start_ns, patience.velocity_s)
    told = judge.prediction if decided is not None and watch is Watch.MET else None
    found = Tried(
        step=stretch.step,
        rule=rule.text,
        frames=len(sights),
        valid=sum(s.valid for s in sights),
        watch=watch,
        fired_s=fired_s,
        crossed_s=crossed_s,
        value=math.nan if told is None or decided is None else decided.value,
        sigma=math.nan if told is None else told.sigma,
        velocity=math.nan if told is None else told.velocity,
        predicted=math.nan if told is None else told.value,
        lookahead_s=math.nan if told is None else told.lookahead_s,
        nearest=nearest,
        verdict="",
    )
    return _with_verdict(found, judge.reason)


def _crossing(
    rule: ImageRule, sights: list[Sight], start_ns: int, width_s: float
) -> tuple[float, float]:
    """Return when the smoothed quantity came to the rule's value, and how near it came."""
    valid = [s for s in sights if s.valid and math.isfinite(s.value + s.sigma)]
    if not valid:
        return math.nan, math.nan
    t_s = np.array([s.t_ns - start_ns for s in valid]) / 1e9
    value = np.array([s.value for s in valid])
    weight = weights(np.array([s.sigma for s in valid]))
    smooth = np.array(
        [
            np.average(value[near], weights=weight[near])
            for near in (np.abs(t_s - t) <= width_s / 2 for t in t_s)
        ]
    )
    missing = rule.value - smooth if rule.relation == ">" else smooth - rule.value
    beyond = np.flatnonzero(missing <= 0)
    crossed_s = float(t_s[beyond[0]]) if len(beyond) else math.nan
    return crossed_s, max(float(missing.min()), 0.0)


def _with_verdict(found: Tried, reason: str) -> Tried:
    early_s = found.crossed_s - found.fired_s
    match found.watch:
        case Watch.CALM if found.is_missed:
            text = f"missed: it came to the value after {found.crossed_s:.3g} s"
        case Watch.CALM:
            text = "not met"
        case Watch.LOST | Watch.STALE:
            text = (
                f"stops after {found.fired_s:.3g} s, because the image is {found.watch}: {reason}"
            )
        case _ if found.is_false_stop:
            text = f"false stop after {found.fired_s:.3g} s: it never came to the value"
        case _ if early_s < 0:
            text = f"late: stops {-early_s:.3g} s after it came to the value"
        case _:
            text = (
                f"stops after {found.fired_s:.3g} s, {early_s:.3g} s before it comes to the value"
            )
    return replace(found, verdict=text)


def render_dry_run(found: DryRun) -> Table:
    """Return what was found for a terminal."""
    table = Table(title="rules on images, tried on a recorded session", title_justify="left")
    for heading in ("step", "rule", "frames", "verdict", "seen", "predicted", "look-ahead"):
        table.add_column(heading)
    for tried in found.tried:
        known = math.isfinite(tried.value)
        table.add_row(
            str(tried.step + 1),
            tried.rule,
            f"{tried.frames}, {tried.valid} valid",
            tried.verdict,
            f"{tried.value:.4g} ± {tried.sigma:.2g}" if known else "",
            f"{tried.predicted:.4g}" if known else "",
            f"{tried.lookahead_s:.3g} s" if known else "",
        )
    return table
