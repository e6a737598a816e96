"""The experiment file as it is written: its tables and keys.

The ``config`` modules are the door to pydantic.
"""

import difflib
import tomllib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from potentiostat.limits import RATE_WINDOW_S
from runner.config_fields import (
    NO_LIMIT,
    Charge,
    Current,
    CurrentRate,
    Dose,
    DoseRate,
    Fraction,
    FrameRate,
    Length,
    Mass,
    ScanRate,
    Table,
    TemperatureSpan,
    Time,
    Voltage,
)
from runner.config_steps import TECHNIQUE_TABLES, StepTable
from runner.problems import ExperimentError, Key, Problem, find_line, spelled

MOCK, NODE = "mock", "node"  # drivers that are none of a maker


class WorkingTable(Table):
    """``working = { material, thickness }``."""

    material: str
    thickness: Length


class CellTable(Table):
    """``[cell]``."""

    stack: str
    width: Length
    depth: Length
    working: WorkingTable
    window: list[Voltage]
    mass: Mass | None = None
    capacity: Charge | None = None
    soc: Fraction | None = None
    x0: Fraction | None = None
    charge_per_x: Charge | None = None
    comments: str = ""


class PotentiostatTable(Table):
    """``[potentiostat]``."""

    driver: str
    resource: str
    model: str | None = None
    calibration: str | None = None
    range: Current | None = None
    nplc: float | int = 1.0
    line_frequency: FrameRate = 50.0
    block: int = 1
    exposure_line: int | None = None
    mark_line: int | None = None
    thermocouple: bool = False


class CameraTable(Table):
    """``[camera]``."""

    driver: str
    frame_rate: FrameRate
    pixel_size: Length
    dose_rate: DoseRate
    height: int = 160
    width: int = 400
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    data_port: int = 0
    path: str = ""
    pattern: str = ""
    node: str = ""
    node_session: str = "cameras"
    armed_by: Literal["lamella", "microscope"] = "lamella"
    exposure: Time | None = None


class MockTable(Table):
    """``[mock]``."""

    scenario: str = "lco_lipon_li"
    seed: int = 1
    overrides: dict[str, float | int] = Field(default_factory=dict)


class LimitsTable(Table):
    """``[limits]``."""

    voltage: list[Voltage]
    current: Current
    charge: Charge
    dose: Dose | None = None
    voltage_rate: ScanRate | None = None
    current_rate: CurrentRate | None = None
    rate_window: Time = RATE_WINDOW_S
    temperature: TemperatureSpan = NO_LIMIT
    short: Literal["stop"] | None = None
    charge_ionic: Charge | None = None
    time: Time | None = None


class ContactTable(Table):
    """``[contact]``: test the contact before the plan."""

    current: Current | None = None


class TrackTable(Table):
    """``[[track]]``; what else it holds is the tracker's own, see `runner.track_options`."""

    model_config = ConfigDict(extra="allow")

    name: str
    tracker: str


class MicroscopeTable(Table):
    """``[microscope]``: what is beside the camera."""

    driver: str
    host: str = "127.0.0.1"
    port: int = 0


class BlankerTable(Table):
    """``[blanker]``: blank the beam in a code that camera and meter can read."""

    code: Literal["auto"] | int = "auto"
    chip: Time | None = None
    every: Time | None = None
    after: Time = 5.0
    repeats: int = 1
    response: Time = 0.0
    rise: Time = 0.0


class RecordTable(Table):
    """``[record]``: which frames are stored, and how."""

    compression: Literal["none", "auto", "deflate", "bitshuffle-lz4"] = "none"
    before: Time | None = None
    after: Time | None = None
    idle_rate: FrameRate | None = None
    on: list[str] = Field(default_factory=list)


class BusTable(Table):
    """``[bus]``."""

    broker: str
    lab: str = "lab"
    version: Literal[3, 5] = 5
    username: str = ""
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    command_key_file: str | None = None


class ExperimentTable(Table):
    """The whole file."""

    title: str
    cell: CellTable
    potentiostat: PotentiostatTable
    camera: CameraTable | None = None
    mock: MockTable | None = None
    limits: LimitsTable
    contact: ContactTable | None = None
    track: list[TrackTable] = Field(default_factory=list)
    step: list[StepTable]
    bus: BusTable | None = None
    microscope: MicroscopeTable | None = None
    blanker: BlankerTable | None = None
    record: RecordTable | None = None


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
    **{("step", name): table for name, table in TECHNIQUE_TABLES.items()},
    ("bus",): BusTable,
    ("microscope",): MicroscopeTable,
    ("blanker",): BlankerTable,
    ("record",): RecordTable,
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
