"""The steps of an experiment file as they are written: their tables and keys."""

from typing import Literal

from pydantic import Field

from potentiostat.limits import Condition
from potentiostat.segments import OCV, RAMP_STEP_V
from runner.config_fields import (
    AnyCurrent,
    AnyCurrentLevel,
    Current,
    CurrentRate,
    Frequency,
    Holds,
    KeepField,
    Moment,
    RecordRule,
    Rule,
    ScanRate,
    Table,
    Time,
    Voltage,
    VoltageLevel,
)
from runner.image_rules import ImageRule
from runner.rules import CellRule


class OcvTable(Table):
    """``ocv = { for }``.

    Parameters
    ----------
    duration
        How long, unless `until` ends it before.
    """

    duration: Time


class WaitTable(Table):
    """``wait = { for | until | trigger, longest }``: a rest that something ends.

    Parameters
    ----------
    duration
        How long.
    until
        Date and time of day; local time without a zone.
    trigger
        A frame, or the operator.
    longest
        After which the trigger is waited for no more.
    """

    duration: Time | None = None
    until: Moment | None = None
    trigger: Literal["frame", "operator"] | None = None
    longest: Time | None = None


class CpTable(Table):
    """``cp = { current }``.

    Parameters
    ----------
    current
        Positive charges the cell.
    """

    current: AnyCurrentLevel


class CaTable(Table):
    """``ca = { voltage, for }``.

    Parameters
    ----------
    voltage
        That is held.
    duration
        How long.
    """

    voltage: VoltageLevel
    duration: Time


class LsvTable(Table):
    """``lsv = { from, to, rate, step }``.

    Parameters
    ----------
    start
        First voltage.
    to
        Last voltage.
    rate
        Of the sweep.
    step
        Height of a stair.
    """

    start: VoltageLevel = OCV
    to: VoltageLevel
    rate: ScanRate
    step: Voltage = RAMP_STEP_V


class CvTable(Table):
    """``cv = { from, first, second, to, rate, cycles, hold, step }``.

    Parameters
    ----------
    start
        First voltage.
    first
        First vertex.
    second
        Second vertex.
    to
        Last voltage.
    rate
        Of the sweep.
    cycles
        How often between the vertices.
    hold
        Time at each vertex, or a list of two.
    step
        Height of a stair.
    """

    start: VoltageLevel = OCV
    first: VoltageLevel
    second: VoltageLevel
    to: VoltageLevel = OCV
    rate: ScanRate
    cycles: int = 1
    hold: Holds = (0.0, 0.0)
    step: Voltage = RAMP_STEP_V


class GcplTable(Table):
    """``gcpl = { current, voltage, longest, hold_until, hold_for, rest, ... }``.

    Parameters
    ----------
    current
        Positive charges the cell.
    voltage
        Up or down to which, and that is held then.
    longest
        Time for the held current.
    hold_until
        Magnitude of the current that ends the held voltage.
    hold_until_rate
        Slope of the current that ends it.
    hold_for
        Longest time of the held voltage.
    rest
        Longest rest at the end.
    relaxed
        Slope of the voltage that ends the rest.
    """

    current: AnyCurrent
    voltage: Voltage
    longest: Time
    hold_until: Current = 0.0
    hold_until_rate: CurrentRate | None = None
    hold_for: Time
    rest: Time = 0.0
    relaxed: ScanRate | None = None


class GittTable(Table):
    """``gitt = { current, pulse, rest, pulses, relaxed }``.

    Parameters
    ----------
    current
        Of the pulses.
    pulse
        How long each is.
    rest
        How long the rest behind each is, at most.
    pulses
        How many.
    relaxed
        Slope of the voltage that ends a rest.
    """

    current: AnyCurrent
    pulse: Time
    rest: Time
    pulses: int
    relaxed: ScanRate | None = None


class PittTable(Table):
    """``pitt = { from, step, levels, hold_for, hold_until }``.

    Parameters
    ----------
    start
        First voltage.
    step
        From level to level; negative goes down.
    levels
        How many.
    hold_for
        Longest time at each.
    hold_until
        Magnitude of the current that ends a level.
    """

    start: VoltageLevel = OCV
    step: Voltage
    levels: int
    hold_for: Time
    hold_until: Current = 0.0


class PulsesTable(Table):
    """``pulses = { current, on, off, count, base }``.

    Parameters
    ----------
    current
        Of the pulses.
    base
        Between them.
    on
        How long a pulse is.
    off
        How long it is from one to the next.
    count
        How many pulses.
    """

    current: AnyCurrent
    on: Time
    off: Time
    count: int
    base: AnyCurrent = (0.0, "current")


class SinesTable(Table):
    """What ``peis`` and ``geis`` are told alike.

    Parameters
    ----------
    lowest
        Lowest frequency, of which all others are multiples.
    highest
        Highest frequency.
    points
        Frequencies in a decade.
    periods
        Of the lowest frequency.
    settle
        Wait before the sines.
    """

    lowest: Frequency
    highest: Frequency
    points: int = 6
    periods: int = 3
    settle: Time = 0.0


class PeisTable(SinesTable):
    """``peis = { voltage, amplitude, lowest, highest, points, periods, settle }``.

    Parameters
    ----------
    voltage
        That is held.
    amplitude
        Peak of the sum of all sines.
    """

    voltage: VoltageLevel = OCV
    amplitude: Voltage


class GeisTable(SinesTable):
    """``geis = { current, amplitude, lowest, highest, points, periods, settle }``.

    Parameters
    ----------
    current
        That is held.
    amplitude
        Peak of the sum of all sines.
    """

    current: AnyCurrent = (0.0, "current")
    amplitude: Current


class LoopTable(Table):
    """``loop = { steps, times }``: the steps before it, so many times in all.

    Parameters
    ----------
    steps
        How many of the steps before it.
    times
        How often in all.
    """

    steps: int
    times: int


class StepTable(Table):
    """``[[step]]``: one technique, until when, what it keeps, and what of it is stored.

    Parameters
    ----------
    name
        For `go to`, and for reports.
    ocv, wait, cp, ca, lsv, cv, gcpl, gitt, pitt, pulses, peis, geis, loop
        The technique: one of them.
    until
        Rules, of which any ends the step.
    keep
        What is kept below a value by less current, in a step with `cp`.
    least
        Current to which that may reduce it; a tenth of the step's where left out.
    record
        What must have changed for a reading to be stored; all are where left out.
    average
        Store means over so long.
    """

    name: str = ""
    ocv: OcvTable | None = None
    wait: WaitTable | None = None
    cp: CpTable | None = None
    ca: CaTable | None = None
    lsv: LsvTable | None = None
    cv: CvTable | None = None
    gcpl: GcplTable | None = None
    gitt: GittTable | None = None
    pitt: PittTable | None = None
    pulses: PulsesTable | None = None
    peis: PeisTable | None = None
    geis: GeisTable | None = None
    loop: LoopTable | None = None
    until: list[Rule] = Field(default_factory=list)
    keep: list[KeepField] = Field(default_factory=list)
    least: Current | None = None
    record: list[RecordRule] = Field(default_factory=list)
    average: Time = 0.0

    @property
    def electrical(self) -> list[Condition | CellRule]:
        """The rules on what the instrument reads, which hold beside it."""
        return [rule for rule in self.until if not isinstance(rule, ImageRule)]

    @property
    def image_rules(self) -> tuple[ImageRule, ...]:
        """The rules on what a tracker sees."""
        return tuple(rule for rule in self.until if isinstance(rule, ImageRule))


TECHNIQUE_TABLES: dict[str, type[Table]] = {
    "ocv": OcvTable, "wait": WaitTable, "cp": CpTable, "ca": CaTable, "lsv": LsvTable,
    "cv": CvTable, "gcpl": GcplTable, "gitt": GittTable, "pitt": PittTable,
    "pulses": PulsesTable, "peis": PeisTable, "geis": GeisTable, "loop": LoopTable,
}  # fmt: skip
