"""From the text of an experiment file to its tables, with all that is wrong told at once."""

import difflib
import tomllib
from typing import Any

from pydantic import BaseModel, ValidationError

from runner.config import (
    BlankerTable,
    BusTable,
    CameraTable,
    CellTable,
    ContactTable,
    ExperimentTable,
    LimitsTable,
    MicroscopeTable,
    MockTable,
    PotentiostatTable,
    RecordTable,
    TrackTable,
    WorkingTable,
)
from runner.config_steps import TECHNIQUE_TABLES, StepTable
from runner.problems import ExperimentError, Key, Problem, find_line, spelled

OWN_WORDS = {"for": "duration", "from": "start"}
AS_WRITTEN: dict[str | int, str | int] = {own: written for written, own in OWN_WORDS.items()}

TABLES: dict[tuple[str, ...], type[BaseModel]] = {
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
                step[technique] = {OWN_WORDS.get(k, k): v for k, v in table.items()}
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
    path: Key = tuple(AS_WRITTEN.get(p, p) for p in found["loc"])
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


def _near(location: Key) -> str:
    """Suggest a key of the same table."""
    words = [part for part in location if isinstance(part, str)]
    table = TABLES.get(tuple(words[:-1]))
    if table is None:
        return ""
    known = [str(AS_WRITTEN.get(key, key)) for key in table.model_fields]
    near = difflib.get_close_matches(words[-1], known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
