"""What any step may say besides its technique: its name, where it goes to, what it stores."""

import math
import re
from collections.abc import Iterator

from runner.config_steps import TECHNIQUE_TABLES, StepTable
from runner.problems import Key
from runner.rules import CellRule
from runner.steps import CellTerms

Found = list[tuple[Key, str]]

_LABEL = re.compile(r"[A-Za-z][\w-]*")
_MISSING = {
    "dx": 'the charge of a whole lithium; write [cell] charge_per_x = "25 nC"',
    "dSoC": 'the capacity; write [cell] capacity = "12 nC"',
    "SoC": 'the capacity and the state at the beginning; write [cell] capacity = "12 nC" and '
    'soc = "20 %"',
    "x": "the charge of a whole lithium and x at the beginning; write [cell] charge_per_x = "
    '"25 nC" and x0 = 1.0',
}


def techniques_of(table: StepTable) -> list[str]:
    """Return the techniques that a step names; a sound one names one."""
    return [name for name in TECHNIQUE_TABLES if getattr(table, name) is not None]


def check_words(tables: list[StepTable], cell: CellTerms) -> Found:
    """Return what is wrong with names, jumps, and rules of what is stored."""
    names: dict[str, int] = {}
    found: Found = []
    for i, table in enumerate(tables):
        key = ("step", i, "name")
        if not table.name:
            continue
        if _LABEL.fullmatch(table.name) is None:
            found.append((key, f"{table.name!r} is no name; write a word such as charge_1"))
        elif table.name in names:
            found.append((key, f"{table.name!r} is the name of step {names[table.name] + 1}, too"))
        elif table.loop is not None:
            found.append((key, "belongs to the steps of a loop, not to the loop"))
        names.setdefault(table.name, i)
    for i, table in enumerate(tables):
        found += _check_rules(("step", i, "until"), table, cell)
        found += _check_jumps(("step", i, "until"), table, names, i)
        found += _check_record(("step", i), table)
    return found


def _check_rules(key: Key, table: StepTable, cell: CellTerms) -> Iterator[tuple[Key, str]]:
    for rule, condition in zip(table.electrical, cell.conditions(table.electrical), strict=True):
        if isinstance(rule, CellRule) and math.isnan(condition.value):
            yield key, f"{condition.text!r} needs {_MISSING[rule.quantity]}"


def _check_jumps(
    key: Key, table: StepTable, names: dict[str, int], own: int
) -> Iterator[tuple[Key, str]]:
    for rule in table.electrical:
        condition = rule.condition if isinstance(rule, CellRule) else rule
        if condition.action != "goto":
            continue
        target = names.get(condition.goto)
        if target is None:
            known = ", ".join(names) or 'none has a name yet: write name = "charge" in one'
            yield key, f"{condition.text!r} goes to no step of this plan; there is {known}"
        elif target <= own and condition.goto_most == 0:
            yield (
                key,
                f"{condition.text!r} goes back without an end; write for example "
                f"then go to {condition.goto} up to 5 times",
            )
        elif target > own and condition.goto_most > 0:
            yield key, f"{condition.text!r} goes ahead, once at most; leave 'up to' out"


def _check_record(key: Key, table: StepTable) -> Iterator[tuple[Key, str]]:
    if table.average < 0:
        yield (*key, "average"), "cannot be negative"
    if not table.record and table.average <= 0:
        return
    own = "record" if table.record else "average"
    if table.record and table.average > 0:
        yield (*key, "average"), "and record exclude each other; write one of them"
    if table.peis is not None or table.geis is not None:
        yield (*key, own), "would spoil the impedance, which needs every reading; leave it out"
    if table.loop is not None:
        yield (*key, own), "belongs to the steps of a loop, not to the loop"
