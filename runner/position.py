"""Where in its plan a run died, and what had flowed by then, as its session tells it.

The plan's position is that of its steps' ends, played again. What of the interrupted step has
passed is counted in charge and time from the readings. Nothing is asked of any hardware.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from potentiostat.records import Status
from potentiostat.segments import NOTHING_KNOWN, References, Segment, Step
from runner.messages import LEASE_S, EndKind, HolderTerms, Passed, StepEnded
from runner.pausing import PAUSED_KIND, RESUMED_KIND
from runner.plan import Plan
from runner.session_ledger import moved_voltage
from session.reader import Event, Session
from session.records import NOT_FINISHED, RECORDER_LOST, RUNNER_LOST
from session.session_link import LINK

CONTINUED = "continued"  # event that a continued session begins with
LOST_S = 1.0  # of readings, at most, with the recorder or the computer
HEARD_AFTER = 2.0  # readings, after which a guardian has heard that its runner is gone
FOUND_AFTER_S = LOST_S + LEASE_S
UNKNOWN = int(Status.INVALID | Status.OVERFLOW | Status.SETTLING)
HELD_V = int(Status.POTENTIOSTATIC)

Columns = Mapping[str, NDArray[np.generic]]


class CannotContinue(Exception):
    """A session cannot be continued; the message says why, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a run stood when it died.

    Parameters
    ----------
    ended
        All ends of steps since the first run began, in order.
    index
        The step that was on; None between two steps.
    passed
        What of that step had passed; None between two steps.
    charge_C, charge_ionic_C
        Counted since the first run began, with `flow_C`; the second is NaN without a
        calibration of the holder. The guardian's count: the ledger's is another.
    flow_C, flow_sigma_C
        Charge between the last reading and the moment when the cell was made safe.
    dose_e_m2
        Electrons per area since the first run began; NaN where not known.
    last_ns
        Host time of the last reading.
    cut_ns
        When the cell was made safe, as far as it is known.
    voltage_V, current_A
        The last reading that is a number.
    span_V
        Lowest and highest voltage of the session.
    levels
        What was held and read last.
    is_guarded
        True where a guardian outlived the run, so that the cell rested afterwards.
    """

    ended: tuple[StepEnded, ...]
    index: int | None
    passed: Passed | None
    charge_C: float
    charge_ionic_C: float
    flow_C: float
    flow_sigma_C: float
    dose_e_m2: float
    last_ns: int
    cut_ns: int
    voltage_V: float
    current_A: float
    span_V: tuple[float, float]
    levels: References
    is_guarded: bool


def find_position(session: Session, steps: Sequence[Step], holder: HolderTerms | None) -> Position:
    """Return where a run died.

    Parameters
    ----------
    steps
        Of its experiment.
    holder
        What its holder draws; None where it was not measured.

    Raises
    ------
    CannotContinue
        It ended in order, or its session does not tell.
    """
    columns = session.sample_columns()
    if not np.any(_good(columns)):
        raise CannotContinue(f"{session.path} holds no reading: run its experiment from the start")
    with told_in_full(session.path):
        return _Finder(session, columns, Plan(steps, range_A=math.nan), holder).position()


@contextmanager
def told_in_full(path: Path) -> Iterator[None]:
    """Take what a session lacks, or says in another way, for a reason not to go on."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CannotContinue(
            f"{path} does not tell where its run was ({type(error).__name__}: {error}): "
            "run what is left as an experiment of its own"
        ) from error


class _Finder:
    """What a session says, in the order in which it is needed."""

    def __init__(
        self, session: Session, columns: Columns, plan: Plan, holder: HolderTerms | None
    ) -> None:
        self._path = session.path
        self._events = session.events()
        self._reason = session.exit_reason
        self._columns = columns
        self._plan = plan
        self._carried = session.attributes(LINK) if session.has(LINK) else {}
        self._t_ns = np.asarray(columns["t_ns"], np.int64)
        self._charge_C = np.asarray(columns["charge"], np.float64)
        self._ionic_C = _ionic(columns, holder, self._carried_number("counted_ionic_C", 0.0))
        self._last = int(np.flatnonzero(_good(columns))[-1])
        self._dose_e_m2 = self._carried_number("dose_e_m2", 0.0) + _dose(session)

    def _carried_number(self, name: str, otherwise: float) -> float:
        return float(str(self._carried.get(name, otherwise)))

    def position(self) -> Position:
        """Play the plan again as far as it went."""
        self._refuse_finished()
        before = self._of_kind(CONTINUED)
        ended = [] if not before else _ends(before[0].data["ended"])
        ended += [_end(e) for e in self._of_kind("step_ended")]
        ended = [e for e in ended if e.kind not in (EndKind.FAULT, EndKind.LEASE)]
        self._refuse_ended(ended)
        try:
            self._plan.take_up(ended)
        except ValueError as error:
            raise CannotContinue(f"{self._path} is not of this plan: {error}") from error
        message = self._plan.next_step()
        if message is None:
            raise CannotContinue(f"{self._path} has played its whole plan: nothing is left to do")
        started = self._started(message.index)
        passed, base = None, _passed(before[0].data["passed"]) if before else None
        cut_ns, cut_sigma_ns = self._cut()
        flow_C = flow_sigma_C = 0.0
        if started and started[-1].kind == PAUSED_KIND:
            passed = _passed(started[-1].data["passed"])
        elif started:
            held_A = float(self._columns["current"][self._last])
            flow_C = held_A * (cut_ns - int(self._t_ns[self._last])) / 1e9
            flow_sigma_C = abs(held_A) * cut_sigma_ns / 1e9
            if message.step.is_rest:
                flow_C = flow_sigma_C = 0.0
            passed = self._passed(message.step, started[-1], cut_ns, flow_C)
        elif base is not None:
            passed = base
        voltage_V = np.asarray(self._columns["voltage"], np.float64)
        return Position(
            ended=tuple(ended),
            index=None if passed is None else message.index,
            passed=passed,
            charge_C=float(self._charge_C[self._last]) + flow_C,
            charge_ionic_C=float(self._ionic_C[self._last]) + flow_C,
            flow_C=flow_C,
            flow_sigma_C=flow_sigma_C,
            dose_e_m2=self._dose_e_m2,
            last_ns=int(self._t_ns[self._last]),
            cut_ns=cut_ns,
            voltage_V=float(voltage_V[self._last]),
            current_A=float(self._columns["current"][self._last]),
            span_V=(float(np.nanmin(voltage_V)), float(np.nanmax(voltage_V))),
            levels=self._levels(),
            is_guarded=self._reason != RECORDER_LOST,
        )

    def _started(self, index: int) -> list[Event]:
        """Return the starts of a step, with where it was paused and resumed."""
        kinds = ("step_started", PAUSED_KIND, RESUMED_KIND)
        return [e for e in self._events if e.kind in kinds and e.data["step"] == index]

    # --- whether it may be continued ---------------------------------------------------------

    def _refuse_finished(self) -> None:
        if self._reason == NOT_FINISHED:
            raise CannotContinue(
                f"{self._path} was not closed: `lamella recover {self._path}` makes a whole "
                "session of it, which can be continued"
            )
        safe = self._of_kind("made_safe")
        by_fault = bool(safe) and safe[-1].data["kind"] in (EndKind.FAULT, EndKind.LEASE)
        died = self._reason in (RUNNER_LOST, RECORDER_LOST) or self._reason.startswith("error: ")
        if not died and not by_fault:
            raise CannotContinue(
                f"{self._path} ended in order ({self._reason}): only a run that died is "
                "continued; run an experiment of its own for what is to follow"
            )
        if safe and safe[-1].data["kind"] == EndKind.LIMIT:
            raise CannotContinue(f"{self._path} ended for safety: {safe[-1].message}")

    def _refuse_ended(self, ended: Sequence[StepEnded]) -> None:
        last = ended[-1] if ended else None
        by_word = last is not None and last.kind is EndKind.COMMAND
        if last is not None and (last.kind is EndKind.LIMIT or (by_word and _is_end(last.reason))):
            raise CannotContinue(f"{self._path} was ended on purpose: {last.reason}")

    # --- when, and how far -------------------------------------------------------------------

    def _cut(self) -> tuple[int, float]:
        """Return when the cell was made safe, and 1 sigma in ns."""
        last_ns = int(self._t_ns[self._last])
        known = [e.t_ns for e in self._of_kind("made_safe") if e.t_ns >= last_ns]
        interval_ns = self._interval_ns()
        if known:
            return known[0], interval_ns / math.sqrt(12)
        late_ns = HEARD_AFTER * interval_ns if self._reason == RUNNER_LOST else FOUND_AFTER_S * 1e9
        return last_ns + round(late_ns / 2), late_ns / math.sqrt(12)

    def _interval_ns(self) -> float:
        """Return the time from reading to reading, those that were not stored too."""
        rows = slice(max(self._last - 50, 0), self._last + 1)
        count = np.ones(len(self._t_ns[rows]))
        if "averaged" in self._columns:
            averaged = np.asarray(self._columns["averaged"][rows], np.float64)
            count = np.maximum(averaged, 1) + np.asarray(self._columns["left_out"][rows])
        steps_ns = np.diff(self._t_ns[rows]) / count[1:]
        return float(np.median(steps_ns)) if len(steps_ns) else 0.0

    def _passed(self, step: Step, start: Event, cut_ns: int, flow_C: float) -> Passed:
        """Return what of a step has passed, by its readings."""
        base = _passed(start.data.get("passed")) or Passed()
        index = start.data["step"]
        segments = [
            e
            for e in self._of_kind("segment_ended")
            if e.data["step"] == index and e.t_ns >= start.t_ns
        ]
        number = base.segment + len(segments)
        elapsed_s, charge_C, ionic_C = self._since(start.t_ns, cut_ns, flow_C)
        part = self._since(segments[-1].t_ns, cut_ns, flow_C) if segments else None
        segment = step.segments[number]
        if part is None:
            part = (
                base.segment_elapsed_s + elapsed_s,
                base.segment_charge_C + charge_C,
                base.segment_charge_ionic_C + ionic_C,
            )
        if segment.sines is not None:
            part = (0.0, 0.0, 0.0)  # its periods are only worth something together
        turned = self._turned(step, base.segment, segments)
        half_C = (
            base.half_charge_C + charge_C
            if turned is None
            else self._since(turned.t_ns, cut_ns, flow_C)[1]
        )
        whole_s = base.elapsed_s + elapsed_s
        if step.wait is not None and step.wait.trigger == "time":
            whole_s = 0.0  # what is left is counted from the time of day
        return Passed(
            segment=number,
            elapsed_s=whole_s,
            charge_C=base.charge_C + charge_C,
            charge_ionic_C=base.charge_ionic_C + ionic_C,
            segment_elapsed_s=part[0],
            segment_charge_C=part[1],
            segment_charge_ionic_C=part[2],
            half_charge_C=half_C,
            known=self._known(step, index, base),
        )

    def _since(self, t_ns: int, cut_ns: int, flow_C: float) -> tuple[float, float, float]:
        """Return time, charge and ionic charge from a moment of the plan to the cut."""
        # As the guardian counts: from the last reading before.
        row = max(int(np.searchsorted(self._t_ns[: self._last + 1], t_ns, side="right")) - 1, 0)
        return (
            (cut_ns - t_ns) / 1e9,
            float(self._charge_C[self._last] - self._charge_C[row]) + flow_C,
            float(self._ionic_C[self._last] - self._ionic_C[row]) + flow_C,
        )

    def _turned(self, step: Step, first: int, segments: Sequence[Event]) -> Event | None:
        """Return the end of the segment after which the direction last changed."""
        found, direction = None, _direction(step.segments[: first + 1])
        for number, event in enumerate(segments, start=first + 1):
            now = step.segments[number].direction
            if now and now != direction:
                found, direction = event, now
        return found

    def _known(self, step: Step, index: object, base: Passed) -> References:
        """Return what a step's levels count from, as the guardian said when it began."""
        if not step.references:
            return NOTHING_KNOWN
        said = [e for e in self._of_kind("levels_known") if e.data["step"] == index]
        known = base.known if not said else _references(said[-1].data)
        missing = [name for name in step.references if math.isnan(getattr(known, name))]
        if missing:
            raise CannotContinue(
                f"{self._path} does not tell from what the levels of step {step.name} count "
                f"({', '.join(sorted(missing))}): run an experiment of what is left of the plan"
            )
        return known

    def _levels(self) -> References:
        """Return the levels that were held and read last within steps."""
        status = np.asarray(self._columns["status"], np.uint32)
        steps = np.asarray(self._columns["step"], np.int64)
        setpoint = np.asarray(self._columns["setpoint"], np.float64)
        held = (status & HELD_V) != 0
        good = np.flatnonzero(_good(self._columns) & (steps >= 0))
        before = (
            References()
            if not (told := self._of_kind(CONTINUED))
            else _references(told[0].data["levels"])
        )

        def last(values: NDArray[np.generic], rows: NDArray[np.intp], otherwise: float) -> float:
            return float(values[rows[-1]]) if len(rows) else otherwise

        def level(rows: NDArray[np.intp], otherwise: float) -> float:
            # Where a level is shaken, a row's set-point is not what the plan asked for.
            shaken = len(rows) and any(s.sines for s in self._plan[int(steps[rows[-1]])].segments)
            return math.nan if shaken else last(setpoint, rows, otherwise)

        return References(
            control_V=level(np.flatnonzero(held & (steps >= 0)), before.control_V),
            control_A=level(np.flatnonzero(~held & (steps >= 0)), before.control_A),
            measured_V=last(self._columns["voltage"], good, before.measured_V),
            measured_A=last(self._columns["current"], good, before.measured_A),
        )

    def _of_kind(self, kind: str) -> list[Event]:
        return [e for e in self._events if e.kind == kind]


def _good(columns: Columns) -> NDArray[np.bool_]:
    status = np.asarray(columns["status"], np.uint32)
    known = np.isfinite(columns["voltage"]) & np.isfinite(columns["current"])
    return np.asarray(known & ((status & UNKNOWN) == 0))


def _ionic(columns: Columns, holder: HolderTerms | None, carried_C: float) -> NDArray[np.float64]:
    """Return the ionic charge as the guardian counts it, shape (n,); NaN without a calibration."""
    charge_C = np.asarray(columns["charge"], np.float64)
    if holder is None:
        return np.full(len(charge_C), math.nan)
    voltage_V = np.asarray(columns["voltage"], np.float64)
    status = np.asarray(columns["status"], np.uint32)
    zero_A = np.where((status & int(Status.TOLD)) != 0, 0.0, holder.offset_A)
    t_ns = np.asarray(columns["t_ns"], np.int64)
    dt_s = np.diff((t_ns - t_ns[0]).astype(np.float64)) / 1e9
    moved_V = moved_voltage(columns["setpoint"], voltage_V, status)[1:]
    leak_C = 0.5 * (zero_A[1:] + zero_A[:-1]) * dt_s
    leak_C += holder.conductance_S * 0.5 * (voltage_V[1:] + voltage_V[:-1]) * dt_s
    leak_C += holder.capacitance_F * (np.diff(voltage_V) - moved_V)
    taken_C = np.concatenate(([0.0], np.cumsum(np.nan_to_num(leak_C, nan=0.0))))
    return np.asarray(carried_C + charge_C - charge_C[0] - taken_C, np.float64)


def _dose(session: Session) -> float:
    """Return the largest dose of a frame of a session; 0 without frames."""
    doses = [np.asarray(session.frame_table(c)["dose"], np.float64) for c in session.cameras]
    return max((float(d[np.isfinite(d)].max(initial=0.0)) for d in doses), default=0.0)


def _is_end(reason: str) -> bool:
    """Tell whether a command was to end the run, and not only a step that waited."""
    return reason.endswith("by the operator") or reason.startswith("dose beyond")


def _direction(segments: Sequence[Segment]) -> int:
    return next((s.direction for s in reversed(segments) if s.direction), 0)


# --- in and out of events ------------------------------------------------------------------


def continued_data(position: Position) -> dict[str, object]:
    """Return what a continued session says of the position that it begins with."""
    return {
        "ended": [[e.index, e.kind.value, e.reason] for e in position.ended],
        "passed": None if position.passed is None else asdict(position.passed),
        "levels": asdict(position.levels),
    }


def _end(event: Event) -> StepEnded:
    data = event.data
    return _ends([[data["step"], data["kind"], data["reason"]]])[0]


def _ends(rows: object) -> list[StepEnded]:
    return [
        StepEnded(index=int(index), kind=EndKind(kind), reason=str(reason), t_ns=0, latency_ns=0)
        for index, kind, reason in rows  # type: ignore[attr-defined]
    ]


def _passed(data: object) -> Passed | None:
    if not isinstance(data, Mapping):
        return None
    numbers = {name: _number(value) for name, value in data.items() if name != "known"}
    return Passed(
        **numbers | {"segment": int(numbers["segment"])},  # type: ignore[arg-type]
        known=_references(data["known"]),
    )


def _references(data: object) -> References:
    if not isinstance(data, Mapping):
        return NOTHING_KNOWN
    return References(**{f.name: _number(data.get(f.name)) for f in fields(References)})


def _number(value: object) -> float:
    return math.nan if value is None else float(str(value))
