"""Steps as plain data, and back: texts, numbers, lists and tables alone, as JSON and TOML have.

What has its usual value is left out. Reading is strict: a step that is not understood in
full is not understood at all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from potentiostat.segments import Step

PlainData = dict[str, Any]
"""Texts, whole and real numbers, truth values, and lists and tables of them."""

_Made = TypeVar("_Made")


class TechniqueDataError(ValueError):
    """Data is no step; the message says where and what would do."""


def step_to_data(step: Step) -> PlainData:
    """Return a step as plain data."""
    return _table(step)


def step_from_data(data: object) -> Step:
    """Return the step that plain data describes.

    Raises
    ------
    TechniqueDataError
        It describes none.
    """
    return _made(Step, data, "step")


def _table(item: Any) -> PlainData:
    found: PlainData = {}
    for part in fields(item):
        value = getattr(item, part.name)
        if part.default is MISSING or value != part.default:
            found[part.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _table(value)
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _made(kind: type[_Made], data: object, place: str) -> _Made:
    if not isinstance(data, Mapping):
        raise TechniqueDataError(f"{place} is {data!r}; it must be a table")
    hints = get_type_hints(kind)
    parts: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name in data:
        if name not in parts:
            raise TechniqueDataError(
                f"{place}.{name} is not known; a {kind.__name__} has {', '.join(parts)}"
            )
    found: PlainData = {}
    for name, part in parts.items():
        if name in data:
            found[name] = _value(hints[name], data[name], f"{place}.{name}")
        elif part.default is MISSING:
            raise TechniqueDataError(f"{place}.{name} is missing")
    return kind(**found)


def _value(hint: Any, data: object, place: str) -> Any:
    """Return what data of a declared type stands for."""
    origin = get_origin(hint)
    if origin is UnionType:
        hint = next(h for h in get_args(hint) if h is not NoneType)
        origin = get_origin(hint)
    if origin is tuple:
        inner = get_args(hint)[0]
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise TechniqueDataError(f"{place} is {data!r}; it must be a list")
        return tuple(_value(inner, part, f"{place}[{i + 1}]") for i, part in enumerate(data))
    if origin is Literal:
        if data not in get_args(hint):
            known = ", ".join(get_args(hint))
            raise TechniqueDataError(f"{place} is {data!r}; it is one of {known}")
        return data
    if is_dataclass(hint):
        return _made(hint, data, place)  # type: ignore[arg-type]
    if isinstance(data, bool) or not isinstance(data, _ACCEPTED[hint]):
        raise TechniqueDataError(f"{place} is {data!r}; it must be {_NAMES[hint]}")
    if hint is float and not math.isfinite(float(data)):  # type: ignore[arg-type]
        raise TechniqueDataError(f"{place} is {data!r}; it must be a finite number")
    return hint(data)


_ACCEPTED: Mapping[Any, Any] = {str: str, int: int, float: (int, float)}
_NAMES: Mapping[Any, str] = {str: "a text", int: "a whole number", float: "a number"}
