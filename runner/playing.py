"""The step that a guardian plays: which segment is on, its level now, and when it ends."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from potentiostat.limits import Condition, Envelope, Seen, Watch
from potentiostat.protocol import Setpoint
from potentiostat.segments import References, Segment, Step, resolve
from runner.calm import Origin
from runner.messages import Passed, check_share

ROUNDING = 1e-6  # of a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What has been counted up to a reading, since the instrument was connected."""

    t_ns: int
    charge_C: float
    charge_ionic_C: float
    charge_run_C: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """A condition is met: it ends the whole step, or the present segment alone."""

    condition: Condition
    ends_step: bool


class Playing:
    """A step under way. Pure: it is told the time and the readings, and touches nothing.

    Parameters
    ----------
    index
        Of the step in its plan.
    known
        What levels count from, as it is when the step begins.
    passed
        What of it has passed already: conditions and sweeps go on from there.
    share
        Of held currents, that flows: see `moderate`.
    """

    def __init__(
        self,
        index: int,
        step: Step,
        *,
        envelope: Envelope,
        range_A: float,
        known: References,
        passed: Passed | None = None,
        share: float = 1.0,
    ) -> None:
        self.index = index
        self.step = step
        self._envelope = envelope
        self._range_A = range_A
        self._known = known
        self._passed = passed
        self._share = share
        self._number = -1 if passed is None else passed.segment - 1
        self._whole, self._whole_warm = _watches(step.until)
        self._part, self._part_warm = _watches(())
        self._began: Counts | None = None
        self._segment_began: Counts | None = None
        self._half_began: Counts | None = None
        self.stage = object()  # another one whenever something begins
        self._direction = 0
        self.setpoint = self._advance()
        if passed is not None and self.segment.ramp is not None:
            level = self._ramped_V(passed.segment_elapsed_s)
            self.setpoint = replace(
                self.setpoint, level=self.setpoint.level if level is None else level
            )

    @property
    def segment(self) -> Segment:
        """The segment that is on."""
        return self.step.segments[self._number]

    @property
    def is_last(self) -> bool:
        """True while no further segment waits."""
        return self._number + 1 == len(self.step.segments)

    def _advance(self) -> Setpoint:
        self._number += 1
        self._part, self._part_warm = _watches(self.segment.until)
        self._segment_began = None
        return self._planned()

    def _planned(self) -> Setpoint:
        """Return what the present segment holds, with the share of its current that may flow."""
        planned = self.segment.setpoint(self._envelope, self._range_A, self._known)
        return replace(planned, level=planned.level * self._share) if self._moderates else planned

    @property
    def _moderates(self) -> bool:
        return self.segment.current_A is not None and self.segment.sines is None

    def moderate(self, share: float) -> Setpoint | None:
        """Let another share of held currents flow from now on.

        Returns
        -------
        Setpoint or None
            What is to be held now; None where that is what it was.

        Raises
        ------
        ValueError
            It is nothing, or more than all.
        """
        check_share(share)
        self._share = share
        moderated = self._planned()
        if not self._moderates or moderated.level == self.setpoint.level:
            return None
        self.setpoint = moderated
        return moderated

    def next_segment(self) -> Setpoint:
        """Move to the next segment; return what is to be held."""
        self.setpoint = self._advance()
        return self.setpoint

    def started(self, now: Counts) -> None:
        """Note that the set-point of the present segment is on."""
        passed, self._passed = self._passed, None
        if passed is not None:
            self._go_on(now, passed)
            return
        if self._began is None:
            self._began = now
        self._segment_began = now
        self.stage = object()
        # A hold or a rest belongs to the half cycle before it.
        direction = self.segment.direction
        if self._half_began is None or (direction and direction != self._direction):
            self._half_began = now
        self._direction = direction or self._direction

    def _go_on(self, now: Counts, passed: Passed) -> None:
        """Count on from what has passed: everything began that much before now."""
        self._began = _before(now, passed.elapsed_s, passed.charge_C, passed.charge_ionic_C)
        self._segment_began = _before(
            now,
            passed.segment_elapsed_s,
            passed.segment_charge_C,
            passed.segment_charge_ionic_C,
        )
        self._half_began = _before(now, 0.0, passed.half_charge_C, 0.0)
        directions = (s.direction for s in reversed(self.step.segments[: self._number + 1]))
        self._direction = next((direction for direction in directions if direction), 0)
        self.stage = object()

    def passed(self, now: Counts) -> Passed:
        """Return what of the step has passed, to be gone on with later."""
        began, part, half = self._began, self._segment_began, self._half_began
        if began is None or part is None or half is None:
            return self._passed or Passed(segment=self._number, known=self._known)
        if self.segment.sines is not None:
            part = now  # its periods are only worth something together
        return Passed(
            segment=self._number,
            elapsed_s=(now.t_ns - began.t_ns) / 1e9,
            charge_C=now.charge_C - began.charge_C,
            charge_ionic_C=now.charge_ionic_C - began.charge_ionic_C,
            segment_elapsed_s=(now.t_ns - part.t_ns) / 1e9,
            segment_charge_C=now.charge_C - part.charge_C,
            segment_charge_ionic_C=now.charge_ionic_C - part.charge_ionic_C,
            half_charge_C=now.charge_C - half.charge_C,
            known=self._known,
        )

    # --- what moves ------------------------------------------------------------------------

    def moved_setpoint(self, t_ns: int) -> Setpoint | None:
        """Return the set-point that a moving segment asks for now, or None to leave it."""
        if self._segment_began is None:
            return None
        elapsed_s = (t_ns - self._segment_began.t_ns) / 1e9
        level = self._shaken(elapsed_s) if self.segment.sines else self._ramped_V(elapsed_s)
        if level is None or level == self.setpoint.level:
            return None
        self.setpoint = replace(self.setpoint, level=level)
        return self.setpoint

    def _shaken(self, elapsed_s: float) -> float | None:
        segment = self.segment
        if segment.sines is None:
            return None
        held = segment.setpoint(self._envelope, self._range_A, self._known).level
        return held + segment.sines.value(elapsed_s)

    def _ramped_V(self, elapsed_s: float) -> float | None:
        ramp = self.segment.ramp
        if ramp is None or self.segment.voltage is None:
            return None
        start_V = resolve(self.segment.voltage, self._known)
        end_V = resolve(ramp.to, self._known)
        moved_V = ramp.rate_V_s * elapsed_s
        span_V = abs(end_V - start_V)
        way = 1.0 if end_V > start_V else -1.0
        climbed_V = int(moved_V / ramp.step_V + ROUNDING) * ramp.step_V
        arrived = climbed_V >= span_V - ROUNDING * ramp.step_V or moved_V >= span_V
        return end_V if arrived else start_V + way * climbed_V

    def _arrived(self) -> bool:
        ramp = self.segment.ramp
        return ramp is not None and self.setpoint.level == resolve(ramp.to, self._known)

    @property
    def is_idle(self) -> bool:
        """True while nothing moves, and no condition has held at the last reading."""
        still = self.segment.ramp is None and self.segment.sines is None
        return still and self._whole.is_idle and self._part.is_idle

    def conditions(self) -> Iterator[tuple[Condition, Origin]]:
        """Yield all conditions that are asked of a reading now, with what each counts from."""
        for conditions, began in (
            (self.step.until, self._began),
            (self.segment.until, self._segment_began),
        ):
            if began is None or self._half_began is None:
                raise ValueError("a step has conditions once it was started")
            origin = Origin(
                t_ns=began.t_ns,
                charge_C=began.charge_C,
                charge_ionic_C=began.charge_ionic_C,
                half_C=self._half_began.charge_C,
            )
            for condition in conditions:
                if not condition.needs_temperature:
                    yield condition, origin

    # --- ends ------------------------------------------------------------------------------

    def judge(self, now: Counts, *, voltage_V: float, current_A: float) -> Met | None:
        """Take a valid reading; tell what it ends, or None.

        Parameters
        ----------
        current_A
            NaN while the meter settles: no condition on the current is asked then.
        """
        if self._began is None or self._segment_began is None or self._half_began is None:
            return None
        half_C = now.charge_C - self._half_began.charge_C
        found = self._whole.first_met(_seen(self._began, now, half_C, voltage_V, current_A))
        if found is not None:
            return Met(condition=found, ends_step=True)
        found = self._part.first_met(_seen(self._segment_began, now, half_C, voltage_V, current_A))
        if found is None and self._arrived():
            level_V = self.setpoint.level
            found = Condition(
                quantity="V", relation=">", value=level_V, text=f"the sweep is at {level_V:.4g} V"
            )
        return None if found is None else Met(condition=found, ends_step=self.is_last)

    def judge_temperature(self, temperature_K: float) -> Met | None:
        """Take what a thermometer says, by itself and not with a reading; see `judge`."""
        if self._segment_began is None:
            return None
        seen = Seen(temperature_K=temperature_K)
        if (found := self._whole_warm.first_met(seen)) is not None:
            return Met(condition=found, ends_step=True)
        if (found := self._part_warm.first_met(seen)) is not None:
            return Met(condition=found, ends_step=self.is_last)
        return None


def _watches(conditions: Sequence[Condition]) -> tuple[Watch, Watch]:
    """Part what is asked of readings from what is asked of a thermometer.

    Each counts its own: three times in a row are three answers of a thermometer, in whose
    time there may be hundreds of readings.
    """
    return (
        Watch([c for c in conditions if not c.needs_temperature]),
        Watch([c for c in conditions if c.needs_temperature]),
    )


def _before(now: Counts, elapsed_s: float, charge_C: float, charge_ionic_C: float) -> Counts:
    return replace(
        now,
        t_ns=now.t_ns - round(elapsed_s * 1e9),
        charge_C=now.charge_C - charge_C,
        charge_ionic_C=now.charge_ionic_C - charge_ionic_C,
    )


def _seen(began: Counts, now: Counts, half_C: float, voltage_V: float, current_A: float) -> Seen:
    return Seen(
        voltage_V=voltage_V,
        current_A=current_A,
        charge_C=now.charge_C - began.charge_C,
        charge_ionic_C=now.charge_ionic_C - began.charge_ionic_C,
        charge_half_C=half_C,
        charge_run_C=now.charge_run_C,
        elapsed_s=(now.t_ns - began.t_ns) / 1e9,
    )
