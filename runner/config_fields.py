"""Fields of an experiment file: a text with a unit becomes a number in SI units."""

import math
from functools import partial
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from potentiostat.limits import Condition
from potentiostat.segments import Change, Level
from runner.image_rules import ImageRule, looks_like_image_rule, parse_image_rule
from runner.keep_rules import KeepRule, parse_keep_rule
from runner.quantities import (
    CurrentLevel,
    parse,
    parse_any,
    parse_current_level,
    parse_fraction,
    parse_level,
    parse_moment,
)
from runner.rules import CellRule, parse_change, parse_rule


def _reader(kind: str) -> BeforeValidator:
    return BeforeValidator(partial(parse, kind=kind))


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

Fraction = Annotated[float, BeforeValidator(parse_fraction)]
AnyCurrent = Annotated[
    tuple[float, str],
    BeforeValidator(partial(parse_any, kinds=("current", "current_density", "c_rate"))),
]
AnyCurrentLevel = Annotated[CurrentLevel, BeforeValidator(parse_current_level)]


def _any_rule(text: object) -> Condition | CellRule | ImageRule:
    """Read a rule of what an instrument reads or of what a tracker sees."""
    if isinstance(text, str) and looks_like_image_rule(text):
        return parse_image_rule(text)
    return parse_rule(text)


Rule = Annotated[Condition | CellRule | ImageRule, BeforeValidator(_any_rule)]
KeepField = Annotated[KeepRule, BeforeValidator(parse_keep_rule)]
RecordRule = Annotated[Change, BeforeValidator(parse_change)]
CurrentRate = Annotated[float, _reader("current_rate")]
Moment = Annotated[str, BeforeValidator(parse_moment)]
Mass = Annotated[float, _reader("mass")]


NO_LIMIT = (-math.inf, math.inf)


def _temperature_span(value: object) -> tuple[float, float]:
    """Read a largest temperature, or a list of the lowest and the highest; in K."""
    if not isinstance(value, list):
        return NO_LIMIT[0], parse(value, "temperature")
    if len(value) != 2:
        raise ValueError(
            f'{value!r} is neither one temperature nor a list of two, such as ["250 K", "330 K"]'
        )
    return parse(value[0], "temperature"), parse(value[1], "temperature")


TemperatureSpan = Annotated[tuple[float, float], BeforeValidator(_temperature_span)]


def _holds(value: object) -> tuple[float, float]:
    """Read one time for both vertices of a sweep, or a list of two."""
    parts = value if isinstance(value, list) else [value, value]
    if len(parts) != 2:
        raise ValueError(f"{value!r} is neither one time nor a list of two")
    return parse(parts[0], "time"), parse(parts[1], "time")


Holds = Annotated[tuple[float, float], BeforeValidator(_holds)]


class Table(BaseModel):
    """A table of the file: every key known, none read as what it is not."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )
