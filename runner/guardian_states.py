"""The states of a guarded cell, and the ways from one to another: what its source is told.

A cell rests, or a step's set-point is on, or it was made safe and stays so. Whatever the
instrument refuses on the way makes the cell safe.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

from potentiostat.errors import InstrumentError
from potentiostat.protocol import Potentiostat, SafeState, Setpoint
from runner.charge_count import ChargeCount
from runner.messages import (
    EndKind,
    Finished,
    FromGuardian,
    GuardianSettings,
    LevelsKnown,
    Moderate,
    SegmentEnded,
    StartStep,
    StepEnded,
    StepPaused,
    Tripped,
)
from runner.playing import Counts, Met, Playing
from runner.references import LastLevels
from runner.temperature_guard import TemperatureGuard


class Phase(Enum):
    """What the guardian is doing."""

    RESTING = auto()  # S1, measuring
    STEPPING = auto()  # a step's set-point is on
    TRIPPED = auto()  # made safe by itself: rests, and refuses further steps
    DONE = auto()


class GuardianStates:
    """Which state a cell is in, and every change of it.

    Parameters
    ----------
    instrument
        A connected driver.
    charge
        Counts the readings.
    thermal
        Asked before a step that hangs on the temperature.
    say
        Tells the runner; never waits.
    forget
        Told when another set-point is on: what was read before it tells nothing of it.
    now_ns
        Host clock.

    Attributes
    ----------
    phase
        The present state.
    playing
        The step that is on; None at rest.
    levels
        What levels of a next step may count from.
    changed_ns
        Host time of the last set-point.
    begun_ns
        Host time of the first step; infinite before it.
    """

    def __init__(
        self,
        instrument: Potentiostat,
        settings: GuardianSettings,
        *,
        charge: ChargeCount,
        thermal: TemperatureGuard,
        say: Callable[[FromGuardian], None],
        forget: Callable[[], None],
        now_ns: Callable[[], int],
    ) -> None:
        self._instrument = instrument
        self._settings = settings
        self._charge = charge
        self._thermal = thermal
        self._say = say
        self._forget = forget
        self._now_ns = now_ns
        self.phase = Phase.RESTING
        self.playing: Playing | None = None
        self.levels = LastLevels(settings.carried.levels)
        self.changed_ns = 0
        self.begun_ns = math.inf
        self._waiting: StartStep | None = None  # for a rest voltage to count from
        self._paused: int | None = None  # the step that was set aside
        self._safe_state: SafeState | None = None
        self._finish_reason = ""

    # --- a step begins, goes on and ends -------------------------------------------

    def start(self, message: StartStep) -> None:
        """Begin a step, at once or when the readings that it counts from are known."""
        if self.phase is Phase.TRIPPED:
            refusal = "refused: the cell was already taken to safety"
            self._say_ended(message.index, EndKind.FAULT, refusal)
            return
        self._paused = None
        unfit = self._thermal.before(message.step, self._now_ns)
        if unfit is not None:
            self.trip(*unfit)
            return
        passed = message.passed
        known = self.levels.known() if passed is None else passed.known
        missing = [name for name in message.step.references if math.isnan(getattr(known, name))]
        if any(name.startswith("control") for name in missing):
            self.trip(EndKind.FAULT, "a level counts from one that was held before, and none was")
            return
        if missing:
            self._waiting = message
            return
        playing = Playing(
            message.index,
            message.step,
            envelope=self._settings.envelope,
            range_A=message.range_A,
            known=known,
            passed=passed,
            share=message.share,
        )
        self.playing = playing
        self.begun_ns = min(self.begun_ns, self._now_ns())
        self.phase = Phase.STEPPING
        self._hold(playing.setpoint)
        if message.step.references:
            self._say(LevelsKnown(index=message.index, known=known, t_ns=self._now_ns()))

    def follow_level(self) -> None:
        """Begin what waited for a rest, and move what a segment moves.

        Raises
        ------
        InstrumentError
            It did not take what moved: the cell is not safe yet.
        """
        if self._waiting is not None and self.levels.has_rested:
            message, self._waiting = self._waiting, None
            self.start(message)
        if self.playing is not None:
            setpoint = self.playing.moved_setpoint(self._now_ns())
            if setpoint is not None:
                self._instrument.apply(setpoint)
                if self.playing.segment.sines is None:
                    self.levels.held(setpoint)

    def moderate(self, message: Moderate) -> None:
        """Let another share of the step's current flow; the step goes on as it was."""
        playing = self.playing
        if playing is None or playing.index != message.index:
            return  # it has ended meanwhile
        setpoint = playing.moderate(message.share)
        if setpoint is not None:
            self._put_on(setpoint)

    def heed(self, met: Met, *, seen_ns: int) -> None:
        """Go on with the next segment, or end the step in rest."""
        playing = self.playing
        if playing is None:
            return
        if met.condition.action == "safe":
            self.trip(EndKind.LIMIT, met.condition.text)
            return
        if met.condition.action == "hold":
            self._end(EndKind.HELD, met.condition.text, seen_ns=seen_ns)
            return
        if met.ends_step:
            self._end(EndKind.CONDITION, met.condition.text, seen_ns=seen_ns, met=met)
            return
        ended = playing.segment.name
        self._hold(playing.next_segment())
        now_ns = self._now_ns()
        self._say(
            SegmentEnded(
                index=playing.index,
                segment=ended,
                reason=met.condition.text,
                t_ns=now_ns,
                latency_ns=now_ns - seen_ns,
            )
        )

    def pause(self) -> None:
        """Set the present step aside at rest; nothing where there is none."""
        seen_ns = self._now_ns()
        if (waiting := self._waiting) is not None:
            self._waiting = None
            index, passed = waiting.index, waiting.passed
        elif (playing := self.playing) is not None:
            index, passed = playing.index, playing.passed(self.counts(seen_ns))
            if not self._rest(playing):
                return
        else:
            return
        self._paused = index
        now_ns = self._now_ns()
        self._say(StepPaused(index=index, passed=passed, t_ns=now_ns, latency_ns=now_ns - seen_ns))

    def end(self, reason: str) -> None:
        """End the present step in rest, as it is asked for, and what was set aside."""
        self._end_set_aside(EndKind.COMMAND, reason)
        if self.playing is not None:
            self._end(EndKind.COMMAND, reason, seen_ns=self._now_ns())

    def _end(self, kind: EndKind, reason: str, *, seen_ns: int, met: Met | None = None) -> None:
        playing = self.playing
        if playing is None or not self._rest(playing):
            return
        self._say_ended(playing.index, kind, reason, seen_ns=seen_ns, met=met)

    def _end_set_aside(self, kind: EndKind, reason: str) -> None:
        """End a step that rests already, as it is paused or waits for what it counts from."""
        waiting, paused = self._waiting, self._paused
        self._waiting = self._paused = None
        index = paused if waiting is None else waiting.index
        if index is not None:
            self._say_ended(index, kind, reason)

    # --- what the source is told ---------------------------------------------------

    def _hold(self, setpoint: Setpoint) -> None:
        """Put a segment's set-point on, and let its time begin."""
        if not self._put_on(setpoint):
            return
        self.levels.begun()
        if self.playing is not None:
            self.playing.started(self.counts(self.changed_ns))

    def _put_on(self, setpoint: Setpoint) -> bool:
        """Put another set-point on; False where that failed, and the cell was made safe."""
        try:
            self._instrument.apply(setpoint)
        except InstrumentError as error:
            self.trip(EndKind.FAULT, str(error))
            return False
        self._changed()
        self.levels.held(setpoint)
        return True

    def _rest(self, playing: Playing) -> bool:
        """Leave a step and rest at 0 A; False where that failed, and the cell was made safe."""
        try:
            self._instrument.apply(self._rest_setpoint(playing.setpoint))
        except InstrumentError as error:
            self.trip(EndKind.FAULT, str(error))
            return False
        self.playing = None
        self.phase = Phase.RESTING
        self._changed()
        return True

    def _rest_setpoint(self, held: Setpoint) -> Setpoint:
        if held.mode == "voltage" and not self._settings.cell_attached:
            # An open holder has no cell to protect.
            return replace(held, level=0.0)
        return Setpoint(
            mode="current",
            level=0.0,
            clamp=self._settings.envelope.voltage_max_V,
            range_A=held.range_A,
        )

    def _changed(self) -> None:
        """Note that another set-point is on, from now."""
        self.changed_ns = self._now_ns()
        self._forget()

    def counts(self, t_ns: int) -> Counts:
        """Return what was counted up to a reading that ended at a host time."""
        return Counts(
            t_ns=t_ns,
            charge_C=self._charge.instrument_C,
            charge_ionic_C=self._charge.ionic_C,
            charge_run_C=self._charge.instrument_C,
        )

    # --- safety --------------------------------------------------------------------

    def trip(self, kind: EndKind, reason: str) -> None:
        """Make the cell safe now; no step begins afterwards."""
        if self.phase in (Phase.TRIPPED, Phase.DONE):
            return
        seen_ns = self._now_ns()
        self._safe_state = self._make_safe()
        playing, self.playing = self.playing, None
        self.phase = Phase.TRIPPED
        self._end_set_aside(kind, reason)
        if playing is not None:
            self._say_ended(playing.index, kind, reason, seen_ns=seen_ns)
        self._say(Tripped(kind=kind, reason=reason, state=self._safe_state, t_ns=self._now_ns()))

    def insist(self) -> None:
        """Make a cell safe that was to be, until it is confirmed."""
        if self.phase is Phase.TRIPPED and self._safe_state is None:
            self._safe_state = self._make_safe()

    def _make_safe(self) -> SafeState | None:
        try:
            return self._instrument.ensure_safe()
        except InstrumentError:
            return None

    def finish(self, reason: str) -> None:
        """Note that there is nothing left to guard; see `leave`."""
        self._finish_reason = reason
        self.phase = Phase.DONE

    def leave(self) -> None:
        """Rest the cell for good, whatever happened before, and let go of the instrument."""
        try:
            state: SafeState | None = self._instrument.rest_at_end()
        except InstrumentError:
            state = self._make_safe()
        self._instrument.close()
        self._say(Finished(state=state, reason=self._finish_reason, t_ns=self._now_ns()))

    # --- telling the runner --------------------------------------------------------

    def _say_ended(
        self,
        index: int,
        kind: EndKind,
        reason: str,
        *,
        seen_ns: int | None = None,
        met: Met | None = None,
    ) -> None:
        """Say that a step has ended; at once where nothing was seen that ended it."""
        now_ns = self._now_ns()
        self._say(
            StepEnded(
                index=index,
                kind=kind,
                reason=reason,
                t_ns=now_ns,
                latency_ns=0 if seen_ns is None else now_ns - seen_ns,
                goto="" if met is None else met.condition.goto,
                goto_most=0 if met is None else met.condition.goto_most,
            )
        )
