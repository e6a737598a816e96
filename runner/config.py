"""The experiment file as it is written: its tables and keys. The door to pydantic."""

import difflib
import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from potentiostat.limits import Condition
from potentiostat.technique import OCV, Level
from runner.problems import ExperimentError, Key, Problem, find_line, spelled
from runner.quantities import parse, parse_any, parse_level
from runner.rules import parse_rule


def _reader(kind: str) -> BeforeValidator:
    return BeforeValidator(lambda text: parse(text, kind))


Voltage = Annotated[float, _reader("voltage")]
Current = Annotated[float, _reader("current")]
Charge = Annotated[float, _reader("charge")]
Time = Annotated[float, _reader("time")]
Length = Annotated[float, _reader("length")]
FrameRate = Annotated[float, _reader("frame_rate")]
Dose = Annotated[float, _reader("dose")]
DoseRate = Annotated[float, _reader("dose_rate")]

Frequency = Annotated[float, _reader("frequency")]
ScanRate = Annotated[float, _reader("scan_rate")]
VoltageLevel = Annotated[Level, BeforeValidator(parse_level)]

AnyCurrent = Annotated[
    tuple[float, str],
    BeforeValidator(lambda text: parse_any(text, ("current", "current_density", "c_rate"))),
]
Rule = Annotated[Condition, BeforeValidator(parse_rule)]


class _Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )


class WorkingTable(_Table):
    """``working = { material, thickness }``."""

    material: str
    thickness: Length


class CellTable(_Table):
    """``[cell]``."""

    stack: str
    width: Length
    depth: Length
    working: WorkingTable
    window: list[Voltage]


class PotentiostatTable(_Table):
    """``[potentiostat]``."""

    driver: str
    resource: str
    calibration: str | None = None
    range: Current | None = None
    nplc: float | int = 1.0
    line_frequency: FrameRate = 50.0


class CameraTable(_Table):
    """``[camera]``."""

    driver: str
    frame_rate: FrameRate
    pixel_size: Length
    dose_rate: DoseRate
    height: int = 160
    width: int = 400
    host: str = "127.0.0.1"
    port: int = 0


class MockTable(_Table):
    """``[mock]``."""

    scenario: str = "lco_lipon_li"
    seed: int = 1


class LimitsTable(_Table):
    """``[limits]``."""

    voltage: list[Voltage]
    current: Current
    charge: Charge
    dose: Dose | None = None
    short: Literal["stop"] | None = None


class ContactTable(_Table):
    """``[contact]``: test the contact before the plan."""

    current: Current | None = None


class TrackTable(_Table):
    """``[[track]]``."""

    name: str
    tracker: str


class OcvTable(_Table):
    """``ocv = { for }``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    duration: Time


class CpTable(_Table):
    """``cp = { current }``."""

    current: AnyCurrent


class CaTable(_Table):
    """``ca = { voltage, for }``."""

    voltage: VoltageLevel
    duration: Time


class LsvTable(_Table):
    """``lsv = { from, to, rate }``."""

    start: VoltageLevel = OCV
    to: VoltageLevel
    rate: ScanRate


class CvTable(_Table):
    """``cv = { from, first, second, to, rate, cycles, hold }``."""

    start: VoltageLevel = OCV
    first: VoltageLevel
    second: VoltageLevel
    to: VoltageLevel = OCV
    rate: ScanRate
    cycles: int = 1
    hold: Time = 0.0


class GcplTable(_Table):
    """``gcpl = { current, voltage, longest, hold_until, hold_for, rest }``."""

    current: AnyCurrent
    voltage: Voltage
    longest: Time
    hold_until: Current
    hold_for: Time
    rest: Time = 0.0


class GittTable(_Table):
    """``gitt = { current, pulse, rest, pulses, relaxed }``."""

    current: AnyCurrent
    pulse: Time
    rest: Time
    pulses: int
    relaxed: ScanRate | None = None


class PittTable(_Table):
    """``pitt = { from, step, levels, hold_for, hold_until }``."""

    start: VoltageLevel = OCV
    step: Voltage
    levels: int
    hold_for: Time
    hold_until: Current = 0.0


class PulsesTable(_Table):
    """``pulses = { current, on, off, count, base }``."""

    current: AnyCurrent
    on: Time
    off: Time
    count: int
    base: AnyCurrent = (0.0, "current")


class PeisTable(_Table):
    """``peis = { voltage, amplitude, lowest, highest, points, periods, settle }``."""

    voltage: VoltageLevel = OCV
    amplitude: Voltage
    lowest: Frequency
    highest: Frequency
    points: int = 6
    periods: int = 3
    settle: Time = 0.0


class GeisTable(_Table):
    """``geis = { current, amplitude, lowest, highest, points, periods, settle }``."""

    current: AnyCurrent = (0.0, "current")
    amplitude: Current
    lowest: Frequency
    highest: Frequency
    points: int = 6
    periods: int = 3
    settle: Time = 0.0


class LoopTable(_Table):
    """``loop = { steps, times }``: the steps before it, so many times in all."""

    steps: int
    times: int


class BusTable(_Table):
    """``[bus]``."""

    broker: str
    lab: str = "lab"


class StepTable(_Table):
    """``[[step]]``: one technique, and until when."""

    ocv: OcvTable | None = None
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
    until: list[Rule] = []


class ExperimentTable(_Table):
    """The whole file."""

    title: str
    cell: CellTable
    potentiostat: PotentiostatTable
    camera: CameraTable | None = None
    mock: MockTable | None = None
    limits: LimitsTable
    contact: ContactTable | None = None
    track: list[TrackTable] = []
    step: list[StepTable]
    bus: BusTable | None = None


_OWN_WORDS = {"for": "duration", "from": "start"}
_AS_WRITTEN: dict[str | int, str | int] = {own: written for written, own in _OWN_WORDS.items()}


def read_tables(text: str, name: str) -> ExperimentTable:
    """Read the text of an experiment file.

    Raises
    ------
    ExperimentError
        All that is wrong with it, each with its line.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(name, [_syntax_problem(error)]) from error
    for step in raw.get("step", []) if isinstance(raw.get("step"), list) else []:
        for technique, table in step.items() if isinstance(step, dict) else ():
            # ``for`` and ``from`` are words of Python's own: the tables call them otherwise.
            if isinstance(table, dict):
                step[technique] = {_OWN_WORDS.get(k, k): v for k, v in table.items()}
    try:
        return ExperimentTable.model_validate(raw)
    except ValidationError as error:
        raise ExperimentError(name, [_problem(text, found) for found in error.errors()]) from error


def _syntax_problem(error: tomllib.TOMLDecodeError) -> Problem:
    text = str(error)
    place = text.rpartition("(at line ")[2].split(",")[0]
    line = int(place) if place.isdigit() else 0
    what = text.partition(" (at ")[0]
    return Problem(key="TOML", line=line, what=f"{what}; see toml.io for the syntax")


def _problem(text: str, found: Any) -> Problem:
    path: Key = tuple(_AS_WRITTEN.get(p, p) for p in found["loc"])
    return Problem(key=spelled(path), line=find_line(text, path), what=_what(found))


def _what(found: Any) -> str:
    match found["type"]:
        case "extra_forbidden":
            return f"is not known here{_near(found['loc'])}"
        case "missing":
            return "is missing; every experiment names it"
        case "value_error":
            return str(found["ctx"]["error"])
        case _:
            return f"{found['input']!r} is not right: {found['msg']}"


_TABLES: dict[tuple[str, ...], type[BaseModel]] = {
    (): ExperimentTable,
    ("cell",): CellTable,
    ("cell", "working"): WorkingTable,
    ("potentiostat",): PotentiostatTable,
    ("camera",): CameraTable,
    ("mock",): MockTable,
    ("limits",): LimitsTable,
    ("contact",): ContactTable,
    ("track",): TrackTable,
    ("step",): StepTable,
    ("step", "cp"): CpTable,
    **{
        ("step", name): table
        for name, table in (
            *(("ocv", OcvTable), ("ca", CaTable), ("lsv", LsvTable), ("cv", CvTable)),
            *(("gcpl", GcplTable), ("gitt", GittTable), ("pitt", PittTable)),
            *(("pulses", PulsesTable), ("loop", LoopTable)),
        )
    },
    ("bus",): BusTable,
}


def _near(location: Key) -> str:
    """Suggest a key of the same table."""
    words = [part for part in location if isinstance(part, str)]
    table = _TABLES.get(tuple(words[:-1]))
    if table is None:
        return ""
    known = [str(_AS_WRITTEN.get(key, key)) for key in table.model_fields]
    near = difflib.get_close_matches(words[-1], known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
