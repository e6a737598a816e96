"""What can be wrong in the steps of an experiment file, each with its key."""

import math
from collections.abc import Iterator

from potentiostat.limits import Condition
from potentiostat.multisine import MOST_HARMONIC
from potentiostat.technique import Level
from runner.config import ExperimentTable, LimitsTable
from runner.config_steps import TECHNIQUE_TABLES, PeisTable, StepTable, WaitTable
from runner.problems import Key
from runner.quantities import CurrentLevel
from runner.step_words import Found, check_words, techniques_of
from runner.steps import CellTerms, build_steps, window

MAX_STEPS = 10_000


def check_steps(tables: ExperimentTable, cell: CellTerms) -> Found:
    """Return all that is wrong with the steps of a file, by key."""
    steps, limits = tables.step, tables.limits
    if not steps:
        return [(("step",), "is missing; an experiment has at least one step")]
    found: Found = []
    for i, table in enumerate(steps):
        found += _check_step(("step", i), table, cell, limits, before=steps[:i])
        if table.wait is not None and table.wait.trigger == "frame" and tables.camera is None:
            key = ("step", i, "wait", "trigger")
            found.append((key, "waits for a frame, and there is no camera"))
    found += check_words(steps, cell)
    if not found:
        count = len(build_steps(steps, cell, limits))
        if count > MAX_STEPS:
            found.append((("step",), f"come to {count} steps; at most {MAX_STEPS} can be"))
    return found


def _check_step(
    key: Key, table: StepTable, cell: CellTerms, limits: LimitsTable, *, before: list[StepTable]
) -> Found:
    named = techniques_of(table)
    if len(named) != 1:
        others = ", ".join(name for name in TECHNIQUE_TABLES if name != "loop")
        return [(key, f"needs exactly one technique: {others} or loop")]
    name = named[0]
    own = (*key, name)
    part = getattr(table, name)
    found = [*_check_numbers(own, part), *_check_levels(own, table, limits)]
    found += _check_references(own, part, before)
    if table.loop is not None:
        found += _check_loop(own, table, len(before))
    if table.wait is not None:
        found += _check_wait(own, table.wait)
    currents = [
        (field, cell.amperes(getattr(part, field)))
        for field in ("current", "base")
        if hasattr(part, field)
    ]
    relative = table.cp is not None and table.cp.current.versus != "zero"
    for field, current_A in currents:
        found += _check_current((*own, field), current_A, limits, relative=relative)
    found += _check_sines(own, table, cell, limits)
    if found:
        return found
    if table.cp is not None:
        # The sign of a current that counts from another is not known: it is stopped both ways.
        both = (math.inf, -math.inf) if relative else (currents[0][1],)
        stops = [_check_voltage_stop(key, table, current_A) for current_A in both]
        return [*_check_time_stop(key, table), *(problem for stop in stops for problem in stop)]
    if table.gcpl is not None:
        return _check_gcpl(own, currents[0][1], table.gcpl.voltage, limits)
    if table.gitt is not None or table.pulses is not None or (table.geis and currents[0][1]):
        return _check_voltage_stop(key, table, currents[0][1])
    return []


_HOLD_A_VOLTAGE = frozenset({"ca", "lsv", "cv", "gcpl", "pitt", "peis"})


def _check_references(own: Key, part: object, before: list[StepTable]) -> Iterator[tuple[Key, str]]:
    """Demand that what a level counts from has been there."""
    earlier = {name for table in before for name in techniques_of(table)}
    for field in ("voltage", "start", "first", "second", "to"):
        level = getattr(part, field, None)
        if not isinstance(level, Level) or level.versus != "control":
            continue
        if not earlier & _HOLD_A_VOLTAGE:
            yield (
                (*own, "from" if field == "start" else field),
                "counts from the voltage that was held last, and no step before holds one; "
                "write OCV or measured",
            )
    current = getattr(part, "current", None)
    versus = current.versus if isinstance(current, CurrentLevel) else "zero"
    if versus == "control" and not earlier - {"ca", "lsv", "cv", "pitt", "peis", "loop"}:
        yield (
            (*own, "current"),
            "counts from the current that was held last, and no step before holds one; "
            "write it in A",
        )


def _check_wait(own: Key, wait: WaitTable) -> Iterator[tuple[Key, str]]:
    ways = [n for n in ("duration", "until", "trigger") if getattr(wait, n) is not None]
    if len(ways) != 1:
        yield (
            own,
            'ends by one of for = "10 min", until = "2026-11-26 08:00" or trigger = "operator"',
        )
    if wait.trigger is not None and wait.longest is None:
        yield (*own, "longest"), 'is missing; a wait for a trigger ends at the latest after "1 h"'
    if wait.duration is not None and wait.longest is not None:
        yield (*own, "longest"), "belongs to a wait for a trigger or a time of day"


_MUST_BE_POSITIVE = {
    "duration": "for", "rate": "rate", "cycles": "cycles", "longest": "longest",
    "hold_for": "hold_for", "pulse": "pulse", "rest": "rest", "pulses": "pulses",
    "relaxed": "relaxed", "levels": "levels", "on": "on", "off": "off", "count": "count",
    "amplitude": "amplitude", "lowest": "lowest", "highest": "highest", "points": "points",
    "periods": "periods", "hold_until_rate": "hold_until_rate",
}  # fmt: skip
_MAY_BE_ZERO = ("hold_until", "settle")
_MAY_BE_NO_CURRENT = (("pulses", "base"), ("geis", "current"))


def _check_numbers(own: Key, table: object) -> Iterator[tuple[Key, str]]:
    for field, written in _MUST_BE_POSITIVE.items():
        value = getattr(table, field, None)
        optional = field == "rest" and type(table).__name__ == "GcplTable"
        if value is not None and (value < 0 or (value == 0 and not optional)):
            longer = "longer" if field in ("duration", "pulse", "on", "off") else "more"
            yield (*own, written), f"must be {longer} than nothing"
        if isinstance(value, int) and value > MAX_STEPS:
            yield (*own, written), f"is {value}; at most {MAX_STEPS} can be"
    for field in _MAY_BE_ZERO:
        value = getattr(table, field, None)
        if value is not None and value < 0:
            yield (*own, field), "cannot be negative"
    if own[-1] == "cv" and min(getattr(table, "hold", (0.0,))) < 0:
        yield (*own, "hold"), "cannot be negative"
    if own[-1] in ("lsv", "cv") and getattr(table, "step", 1.0) <= 0:
        yield (*own, "step"), "must be more than nothing, such as 1 mV"


def _check_levels(own: Key, table: StepTable, limits: LimitsTable) -> Iterator[tuple[Key, str]]:
    low_V, high_V = window(limits)
    part = getattr(table, str(own[-1]))
    for field in ("voltage", "start", "first", "second", "to"):
        level = getattr(part, field, None)
        if not isinstance(level, Level | float):
            continue
        volts = level.volts if isinstance(level, Level) else level
        relative = isinstance(level, Level) and level.versus != "zero"
        if not relative and not low_V <= volts <= high_V:
            written = "from" if field == "start" else field
            yield (
                (*own, written),
                f"{volts:g} V is outside the limits {low_V:g} to {high_V:g} V",
            )
    if table.pitt is not None and table.pitt.step == 0:
        yield (*own, "step"), "is nothing; write for example 5 mV"
    if table.pitt is not None and table.pitt.start.versus == "zero":
        last_V = table.pitt.start.volts + table.pitt.step * (table.pitt.levels - 1)
        if not low_V <= last_V <= high_V:
            yield (
                (*own, "levels"),
                f"end at {last_V:g} V, outside the limits {low_V:g} to {high_V:g} V",
            )


def _check_loop(own: Key, table: StepTable, before: int) -> Iterator[tuple[Key, str]]:
    loop = table.loop
    if loop is None:
        return
    if not 1 <= loop.steps <= before:
        yield (
            (*own, "steps"),
            f"is {loop.steps}; {before} steps stand before it, so write 1 to {before}"
            if before
            else "has no step before it; move the loop below the steps that it repeats",
        )
    if not 1 <= loop.times <= MAX_STEPS:
        yield (*own, "times"), f"is {loop.times}; write 1 to {MAX_STEPS}"
    if table.until:
        yield (*own[:-1], "until"), "belongs to the steps of a loop, not to the loop"


def _check_current(key: Key, current_A: float, limits: LimitsTable, *, relative: bool) -> Found:
    if math.isnan(current_A):
        return [
            (
                key,
                "a C-rate needs a capacity, and that of the working material is not known; "
                "write the current in A",
            )
        ]
    if abs(current_A) > limits.current:
        return [(key, f"{current_A:.4g} A is beyond the limit {limits.current:.4g} A")]
    if current_A == 0 and not relative and key[-2:] not in _MAY_BE_NO_CURRENT:
        return [(key, "is nothing; write ocv for a rest")]
    return []


def _check_sines(
    own: Key, table: StepTable, cell: CellTerms, limits: LimitsTable
) -> Iterator[tuple[Key, str]]:
    """Check the frequencies of an impedance, and what its amplitude adds to its level."""
    sines = table.peis or table.geis
    if sines is None or sines.lowest <= 0:
        return
    if not sines.lowest <= sines.highest <= MOST_HARMONIC * sines.lowest:
        yield (
            (*own, "highest"),
            f"lies above lowest, {sines.lowest:g} Hz, by a factor of {MOST_HARMONIC} at most",
        )
    low_V, high_V = window(limits)
    if isinstance(sines, PeisTable):
        volts, swing_V = sines.voltage.volts, sines.amplitude
        if (
            sines.voltage.versus == "zero"
            and not low_V <= volts - swing_V <= volts + swing_V <= high_V
        ):
            yield (
                (*own, "amplitude"),
                f"{volts:g} V with {swing_V:g} V leaves the limits {low_V:g} to {high_V:g} V",
            )
    elif abs(cell.amperes(sines.current)) + sines.amplitude > limits.current:
        yield (
            (*own, "amplitude"),
            f"{sines.amplitude:.4g} A on top is beyond the limit {limits.current:.4g} A",
        )


def _check_gcpl(own: Key, current_A: float, voltage_V: float, limits: LimitsTable) -> Found:
    low_V, high_V = window(limits)
    if not low_V < voltage_V < high_V:
        way = "charge" if current_A > 0 else "discharge"
        return [
            (
                (*own, "voltage"),
                f"{voltage_V:g} V ends the {way} outside the limits {low_V:g} to {high_V:g} V",
            )
        ]
    return []


def _check_time_stop(key: Key, step: StepTable) -> Found:
    times = [
        c for c in step.until if isinstance(c, Condition) if c.quantity == "t" and c.relation == ">"
    ]
    if not times or min(c.value for c in times) <= 0:
        return [
            (
                (*key, "until"),
                'needs an end in time, such as "t > 120 s", in every cp step',
            )
        ]
    return []


def _check_voltage_stop(key: Key, step: StepTable, current_A: float) -> Found:
    """Demand a stop on the voltage that a galvanostatic step drives the cell towards."""
    relation = ">" if current_A > 0 else "<"
    if any(
        isinstance(c, Condition) and c.quantity == "V" and c.relation == relation
        for c in step.until
    ):
        return []
    example = '"V > 4.2 V"' if current_A > 0 else '"V < 2.8 V"'
    way = "charge" if current_A > 0 else "discharge"
    return [((*key, "until"), f"a {way} needs an end in voltage, such as {example}")]
