"""What a technique is made of: levels, segments and steps. Plain data, no hardware in sight.

A step is a row of segments that follow each other without a rest; its own conditions
end all of it.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from potentiostat.limits import Condition, Envelope
from potentiostat.multisine import Sines
from potentiostat.protocol import Setpoint

CLAMP_RATIO = 0.9  # of limit and range: noise on a clamped current must not look like a breach
RAMP_STEP_V = 1e-3  # of the staircase that a ramp is made of

Reference = Literal["zero", "ocv", "control", "measured"]
"""What a level counts from: 0, the cell's rest voltage, what was asked for last, or the last
reading."""

Trigger = Literal["time", "frame", "operator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What levels may count from, as known when a step begins; NaN where unknown.

    Parameters
    ----------
    ocv_V
        Rest voltage of the cell.
    control_V, control_A
        What a step or segment before asked for last.
    measured_V, measured_A
        The last settled reading.
    """

    ocv_V: float = math.nan
    control_V: float = math.nan
    measured_V: float = math.nan
    control_A: float = math.nan
    measured_A: float = math.nan


NOTHING_KNOWN = References()


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A voltage, counted from 0 or from what is known when its step begins."""

    volts: float
    versus: Reference = "zero"


OCV = Level(volts=0.0, versus="ocv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A voltage that moves evenly, as a staircase of small steps.

    Parameters
    ----------
    to
        Where it ends.
    rate_V_s
        Magnitude.
    step_V
        Height of a stair.
    """

    to: Level
    rate_V_s: float
    step_V: float = RAMP_STEP_V


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One level, held or moved until the first of its conditions.

    Parameters
    ----------
    current_A
        For a galvanostatic segment; None for a potentiostatic one.
    current_versus
        What the current counts from.
    voltage
        For a potentiostatic segment; None for a galvanostatic one.
    ramp
        Moves the voltage, and ends the segment when it has arrived.
    sines
        Shake the current or the voltage about its level.
    until
        End conditions; charge and time count from the segment's beginning.
    """

    name: str
    current_A: float | None = None
    current_versus: Reference = "zero"
    voltage: Level | None = None
    ramp: Ramp | None = None
    sines: Sines | None = None
    until: tuple[Condition, ...] = ()

    @property
    def largest_current_A(self) -> float:
        """Largest magnitude of what is asked for; 0 where the plan alone does not tell."""
        if self.current_A is None or self.current_versus != "zero":
            return 0.0
        return abs(self.current_A) + (0.0 if self.sines is None else self.sines.peak)

    @property
    def longest_s(self) -> float:
        """Longest possible duration in s, infinite where nothing bounds it."""
        return _longest_s(self.until)

    @property
    def references(self) -> frozenset[str]:
        """Fields of `References` that its levels count from."""
        levels = [self.voltage] + ([] if self.ramp is None else [self.ramp.to])
        found = {f"{lv.versus}_V" for lv in levels if lv is not None and lv.versus != "zero"}
        if self.current_A is not None and self.current_versus != "zero":
            found.add(f"{self.current_versus}_A")
        return frozenset(found)

    @property
    def direction(self) -> int:
        """1 where it charges or sweeps up, -1 where the other way, 0 where neither."""
        if self.ramp is not None and self.voltage is not None:
            if self.ramp.to.versus != self.voltage.versus:
                return 0
            span_V = self.ramp.to.volts - self.voltage.volts
            return (span_V > 0) - (span_V < 0)
        if self.current_A is None or self.current_versus != "zero":
            return 0
        return (self.current_A > 0) - (self.current_A < 0)

    def setpoint(
        self, envelope: Envelope, range_A: float, known: References = NOTHING_KNOWN
    ) -> Setpoint:
        """Return what is held at its beginning.

        Parameters
        ----------
        known
            What levels count from.
        """
        if self.current_A is not None:
            return Setpoint(
                mode="current",
                level=resolve_current(self.current_A, self.current_versus, known),
                clamp=envelope.voltage_max_V,
                range_A=range_A,
            )
        return Setpoint(
            mode="voltage",
            level=resolve(self.voltage or OCV, known),
            clamp=CLAMP_RATIO * min(envelope.current_max_A, range_A),
            range_A=range_A,
        )


def resolve(level: Level, known: References) -> float:
    """Return a level in V against 0; NaN where it counts from what is not known."""
    match level.versus:
        case "zero":
            return level.volts
        case "ocv":
            return level.volts + known.ocv_V
        case "control":
            return level.volts + known.control_V
        case "measured":
            return level.volts + known.measured_V


def resolve_current(current_A: float, versus: Reference, known: References) -> float:
    """Return a current in A against 0; NaN where it counts from what is not known."""
    match versus:
        case "control":
            return current_A + known.control_A
        case "measured":
            return current_A + known.measured_A
        case _:
            return current_A


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What ends a step that waits at rest.

    Parameters
    ----------
    trigger
        A time of day, the next frame of the camera, or a word of the operator.
    until
        For a time of day: ISO 8601; local time where it names no zone.
    """

    trigger: Trigger
    until: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A rule of what is stored: a reading that is this far from the last one stored."""

    quantity: Literal["V", "I", "Q", "t"]
    more_than: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Which readings of a step are stored. All of them are judged and counted.

    Parameters
    ----------
    changes
        Any of them has a reading stored; none stores all.
    average_s
        Stores the means of the readings over this time instead; 0 for none.
    """

    changes: tuple[Change, ...] = ()
    average_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan.

    Parameters
    ----------
    name
        Technique, as in the experiment file.
    segments
        One after the other, without a rest between them.
    until
        Conditions that end the whole step, counted from its beginning.
    label
        To which a rule of another step may go.
    wait
        For a rest that something else may end.
    record
        Which of its readings are stored; None stores all.
    """

    name: str
    segments: tuple[Segment, ...]
    until: tuple[Condition, ...] = field(default=())
    label: str = ""
    wait: Wait | None = None
    record: Record | None = None

    @property
    def current_A(self) -> float:
        """Current of the first segment; NaN where the plan alone does not tell."""
        first = self.segments[0]
        if first.current_A is None or first.current_versus != "zero":
            return math.nan
        return first.current_A

    @property
    def largest_current_A(self) -> float:
        """Largest magnitude of its galvanostatic segments; 0 where there is none."""
        return max(s.largest_current_A for s in self.segments)

    @property
    def holds_voltage(self) -> bool:
        """True when any segment is potentiostatic."""
        return any(s.voltage is not None for s in self.segments)

    @property
    def has_open_current(self) -> bool:
        """True when the plan alone does not tell all of its currents."""
        return self.holds_voltage or any(s.current_versus != "zero" for s in self.segments)

    @property
    def references(self) -> frozenset[str]:
        """Fields of `References` that its levels count from."""
        return frozenset().union(*(s.references for s in self.segments))

    @property
    def needs_ocv(self) -> bool:
        """True when a level is counted from the cell's rest voltage."""
        return "ocv_V" in self.references

    @property
    def needs_temperature(self) -> bool:
        """True when any of its conditions is on the temperature."""
        conditions = (self.until, *(s.until for s in self.segments))
        return any(c.needs_temperature for until in conditions for c in until)

    @property
    def is_rest(self) -> bool:
        """True for open circuit."""
        return all(
            s.current_A == 0.0 and s.current_versus == "zero" and s.sines is None
            for s in self.segments
        )

    @property
    def longest_s(self) -> float:
        """Longest possible duration in s, infinite where nothing bounds it."""
        return min(_longest_s(self.until), sum(s.longest_s for s in self.segments))


def _longest_s(until: tuple[Condition, ...]) -> float:
    return min(
        (c.value for c in until if c.quantity == "t" and c.relation == ">"), default=math.inf
    )
