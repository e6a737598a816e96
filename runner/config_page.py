"""The keys of an experiment file as a Markdown page for the documentation."""

import math
import re
import sys
from collections.abc import Iterator
from inspect import cleandoc, get_annotations, getdoc
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from correlate.registry import tracker_names, tracker_options
from correlate.trackers.protocol import Option
from potentiostat.segments import Level
from runner import config_fields
from runner.config_reading import AS_WRITTEN, TABLES
from runner.format import in_unit
from runner.quantities import KINDS

_HEAD = """
# Experiment file: all keys

TOML. A quantity is a text with its unit, `"5 pA"`. What each technique does stands under
[techniques](techniques.md), what a rule may say under [ends](techniques.md#ends) and
[image rules](image-rules.md). A key that is not listed here is refused, and so is a unit of
another kind. All that is wrong with a file is told at once, by `lamella check`.
"""
_SEVERAL = {("track",), ("step",)}
# What a field is written as where no single kind of quantity says so.
_FORMS = {
    config_fields.VoltageLevel: '`"4.1 V"` or `"OCV + 20 mV"`',
    config_fields.AnyCurrent: '`"20 pA"`, `"0.2 mA/cm^2"` or `"C/10"`',
    config_fields.AnyCurrentLevel: '`"20 pA"`, `"C/10"` or `"control + 5 pA"`',
    config_fields.Fraction: '`0.8` or `"80 %"`',
    list[config_fields.Voltage]: '`["2.8 V", "4.2 V"]`',
    list[config_fields.Rule]: '`["V > 4.2 V", "t > 2 h"]`',
    list[config_fields.KeepField]: '`["whisker.velocity < 20 nm/s"]`',
    list[config_fields.RecordRule]: '`["dE > 1 mV", "dt > 1 s"]`',
    config_fields.Moment: '`"2026-11-26 08:00"`',
    config_fields.TemperatureSpan: '`"330 K"` or `["250 K", "330 K"]`',
    config_fields.Holds: '`"1 s"` or `["1 s", "2 s"]`',
}
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
_PARAMETER = re.compile(r"^(\w[\w, ]*)\n((?:    .*\n?)+)", re.MULTILINE)


def reference_page() -> str:
    """Render the tables and keys, and what each tracker may be told, as a Markdown page."""
    lines = [_HEAD.strip()]
    for path, table in TABLES.items():
        lines += _section(path, table)
    for name in tracker_names():
        if options := tracker_options(name):
            lines += ["", f'## `[[track]]` with `tracker = "{name}"`', ""]
            lines += ["| key | written | if left out | meaning |", "|---|---|---|---|"]
            lines += [_option_row(key, option) for key, option in options.items()]
    return "\n".join(lines) + "\n"


def _section(path: tuple[str, ...], table: type[BaseModel]) -> list[str]:
    name, summary = _title(path, table)
    hints = get_type_hints(table, include_extras=True)
    meanings = dict(_meanings(table))
    rows = [
        f"| `{AS_WRITTEN.get(key, key)}` | {_written(hints[key])} "
        f"| {_left_out(field, hints[key])} | {meanings.get(key, '')} |"
        for key, field in _fields(table)
    ]
    head = ["| key | written | if left out | meaning |", "|---|---|---|---|"]
    return ["", f"## {name}", *(["", summary] if summary else []), "", *head, *rows]


def _fields(table: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the keys of a table, its own before those that it shares with others."""
    own = get_annotations(table)
    return sorted(table.model_fields.items(), key=lambda field: field[0] not in own)


def _title(path: tuple[str, ...], table: type[BaseModel]) -> tuple[str, str]:
    """Return the heading of a table, and what its first line says beside the keys."""
    first = (getdoc(table) or "").partition("\n")[0]
    summary = first.partition("``: ")[2]
    summary = summary[:1].upper() + summary[1:]
    if not path:
        return "The file", ""
    if len(path) == 1:
        return (f"`[[{path[0]}]]`" if path in _SEVERAL else f"`[{path[0]}]`"), summary
    return f"`{path[1]} = {{ ... }}` of `{'step' if path[0] == 'step' else path[0]}`", summary


def _meanings(table: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield each key of a table with what its docstring, or that of its base, says of it."""
    told = "\n".join(
        cleandoc(part.__doc__ or "").partition("----------\n")[2]
        for part in table.__mro__
        if issubclass(part, config_fields.Table)
    )
    for match in _PARAMETER.finditer(told):
        meaning = " ".join(match[2].split()).replace("|", r"\|")
        for name in match[1].split(", "):
            yield name, meaning


def _written(hint: Any) -> str:
    """Say how a value is written in the file."""
    for known, form in _FORMS.items():
        if hint == known:
            return form
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind = KINDS.get(_kind_of(hint) or "")
        return _plain(parts[0]) if kind is None else f'{kind.name}, `"{kind.example}"`'
    if origin is list:
        one = _written(parts[0])
        return "tables" if one == "table" else f"list of {one}s"
    if origin is dict:
        return "table of numbers"
    return _one_of(origin, parts) if parts else _plain(hint)


def _one_of(origin: Any, parts: tuple[Any, ...]) -> str:
    """Say which words, or which kinds of values, a value is one of."""
    if origin is Literal:
        return " or ".join(f'`"{one}"`' if isinstance(one, str) else f"`{one}`" for one in parts)
    forms = dict.fromkeys(_written(part) for part in parts if part is not NoneType)
    if "number" in forms:
        forms.pop("whole number", None)
    return " or ".join(forms)


def _plain(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    return _PLAIN[kind]


def _kind_of(hint: Any) -> str | None:
    """Return the kind of quantity that a field reads; None where it reads something else."""
    for part in (hint, *get_args(hint)):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, BeforeValidator):
                keywords = getattr(mark.func, "keywords", {})
                return keywords.get("kind", "current" if "kinds" in keywords else None)
    return None


def _left_out(field: FieldInfo, hint: Any) -> str:
    """Say what holds where a key is not written."""
    if field.is_required():
        return "**refused**"
    value = field.get_default(call_default_factory=True)
    if value in (None, "", [], {}) or value == config_fields.NO_LIMIT:
        return ""
    if isinstance(value, Level):
        return f'`"{value.versus.upper()}"`'
    if isinstance(value, tuple):
        return f'`"{in_unit(value[0], "s" if hint == config_fields.Holds else "A")}"`'
    kind = _kind_of(hint)
    if kind is not None and isinstance(value, float):
        return f'`"{in_unit(value, _unit_of(kind))}"`'
    return f"`{str(value).lower()}`" if isinstance(value, bool | float | int) else f'`"{value}"`'


def _unit_of(kind: str) -> str:
    """Return the unit that needs no factor."""
    return next(unit for unit, scale in KINDS[kind].units.items() if scale == (1, 0))


def _option_row(key: str, option: Option) -> str:
    written = {
        "length": f'a length, `"{KINDS["length"].example}"`',
        "number": "number",
        "word": " or ".join(f'`"{word}"`' for word in option.words),
    }[option.kind]
    default = option.default
    if isinstance(default, str):
        left_out = f'`"{default}"`' if default else ""
    elif math.isnan(default):
        left_out = ""
    elif option.kind == "length":
        left_out = f'`"{in_unit(default, "m")}"`'
    else:
        left_out = f"`{default:g}`"
    return f"| `{key}` | {written} | {left_out} | {option.about} |"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(reference_page())
