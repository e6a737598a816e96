"""The experiment file as it is written: its tables and keys. The door to pydantic."""

import difflib
import tomllib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from potentiostat.limits import Condition
from runner.problems import ExperimentError, Key, Problem, find_line, spelled
from runner.quantities import parse, parse_any
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


class BusTable(_Table):
    """``[bus]``."""

    broker: str
    lab: str = "lab"


class StepTable(_Table):
    """``[[step]]``: one technique, and until when."""

    ocv: OcvTable | None = None
    cp: CpTable | None = None
    until: list[Rule] = []


class ExperimentTable(_Table):
    """The whole file."""

    title: str
    cell: CellTable
    potentiostat: PotentiostatTable
    camera: CameraTable | None = None
    mock: MockTable | None = None
    limits: LimitsTable
    track: list[TrackTable] = []
    step: list[StepTable]
    bus: BusTable | None = None


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
        if isinstance(step, dict) and isinstance(ocv := step.get("ocv"), dict):
            # ``for`` is a word of Python's own, so the table calls it something else.
            step["ocv"] = {"duration" if k == "for" else k: v for k, v in ocv.items()}
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
    path: Key = tuple("for" if p == "duration" else p for p in found["loc"])
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
    ("track",): TrackTable,
    ("step",): StepTable,
    ("step", "cp"): CpTable,
    ("step", "ocv"): OcvTable,
    ("bus",): BusTable,
}


def _near(location: Key) -> str:
    """Suggest a key of the same table."""
    words = [part for part in location if isinstance(part, str)]
    table = _TABLES.get(tuple(words[:-1]))
    if table is None:
        return ""
    known = ["for" if key == "duration" else key for key in table.model_fields]
    near = difflib.get_close_matches(words[-1], known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
