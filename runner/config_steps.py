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
    """``ocv = { for }``."""

    duration: Time


class WaitTable(Table):
    """``wait = { for | until | trigger, longest }``: a rest that something ends."""

    duration: Time | None = None
    until: Moment | None = None
    trigger: Literal["frame", "operator"] | None = None
    longest: Time | None = None


class CpTable(Table):
    """``cp = { current }``."""

    current: AnyCurrentLevel


class CaTable(Table):
    """``ca = { voltage, for }``."""

    voltage: VoltageLevel
    duration: Time


class LsvTable(Table):
    """``lsv = { from, to, rate, step }``."""

    start: VoltageLevel = OCV
    to: VoltageLevel
    rate: ScanRate
    step: Voltage = RAMP_STEP_V


class CvTable(Table):
    """``cv = { from, first, second, to, rate, cycles, hold, step }``."""

    start: VoltageLevel = OCV
    first: VoltageLevel
    second: VoltageLevel
    to: VoltageLevel = OCV
    rate: ScanRate
    cycles: int = 1
    hold: Holds = (0.0, 0.0)
    step: Voltage = RAMP_STEP_V


class GcplTable(Table):
    """``gcpl = { current, voltage, longest, hold_until, hold_for, rest, ... }``."""

    current: AnyCurrent
    voltage: Voltage
    longest: Time
    hold_until: Current = 0.0
    hold_until_rate: CurrentRate | None = None
    hold_for: Time
    rest: Time = 0.0
    relaxed: ScanRate | None = None


class GittTable(Table):
    """``gitt = { current, pulse, rest, pulses, relaxed }``."""

    current: AnyCurrent
    pulse: Time
    rest: Time
    pulses: int
    relaxed: ScanRate | None = None


class PittTable(Table):
    """``pitt = { from, step, levels, hold_for, hold_until }``."""

    start: VoltageLevel = OCV
    step: Voltage
    levels: int
    hold_for: Time
    hold_until: Current = 0.0


class PulsesTable(Table):
    """``pulses = { current, on, off, count, base }``."""

    current: AnyCurrent
    on: Time
    off: Time
    count: int
    base: AnyCurrent = (0.0, "current")


class PeisTable(Table):
    """``peis = { voltage, amplitude, lowest, highest, points, periods, settle }``."""

    voltage: VoltageLevel = OCV
    amplitude: Voltage
    lowest: Frequency
    highest: Frequency
    points: int = 6
    periods: int = 3
    settle: Time = 0.0


class GeisTable(Table):
    """``geis = { current, amplitude, lowest, highest, points, periods, settle }``."""

    current: AnyCurrent = (0.0, "current")
    amplitude: Current
    lowest: Frequency
    highest: Frequency
    points: int = 6
    periods: int = 3
    settle: Time = 0.0


class LoopTable(Table):
    """``loop = { steps, times }``: the steps before it, so many times in all."""

    steps: int
    times: int


class StepTable(Table):
    """``[[step]]``: one technique, until when, what it keeps, and what of it is stored."""

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
