"""From the steps of an experiment file to techniques, with what can be wrong in each."""

import math
from collections.abc import Callable, Iterator

from potentiostat import technique
from potentiostat.limits import Condition
from potentiostat.multisine import MOST_HARMONIC, multisine
from potentiostat.technique import Level, Step
from runner.config import GeisTable, LimitsTable, PeisTable, StepTable
from runner.problems import Key

HOUR_S = 3600.0
MAX_STEPS = 10_000
TECHNIQUES = (
    "ocv", "cp", "ca", "lsv", "cv", "gcpl", "gitt", "pitt", "pulses", "peis", "geis", "loop",
)  # fmt: skip

ToAmperes = Callable[[tuple[float, str]], float]
"""A current, current density or C-rate in A; NaN where the capacity is not known."""

Found = list[tuple[Key, str]]


def to_amperes(area_m2: float, capacity_C: float) -> ToAmperes:
    """Return the conversion of a cell."""

    def convert(value: tuple[float, str]) -> float:
        number, kind = value
        match kind:
            case "current_density":
                return number * area_m2
            case "c_rate":
                return number * capacity_C / HOUR_S
            case _:
                return number

    return convert


def build_steps(
    tables: list[StepTable], amperes: ToAmperes, limits: LimitsTable
) -> tuple[Step, ...]:
    """Return the steps of a plan, with its loops played out. The tables are sound."""
    low_V, high_V = _window(limits)
    steps: list[Step] = []
    sizes: list[int] = []  # of each table, in steps
    for table in tables:
        if table.loop is not None:
            size = sum(sizes[-table.loop.steps :])
            again = technique.repeat(steps[-size:], table.loop.times - 1)
            steps += again
            sizes[-table.loop.steps :] = [size + len(again)]
        else:
            steps.append(_build(table, amperes, high_V - low_V))
            sizes.append(1)
    return tuple(steps)


def _build(table: StepTable, amperes: ToAmperes, window_V: float) -> Step:
    until = tuple(table.until)
    if table.ocv is not None:
        return technique.open_circuit(table.ocv.duration, until)
    if table.cp is not None:
        return technique.chronopotentiometry(amperes(table.cp.current), until)
    if table.ca is not None:
        return technique.chronoamperometry(table.ca.voltage, table.ca.duration, until)
    if table.lsv is not None:
        lsv = table.lsv
        return technique.linear_sweep(lsv.start, lsv.to, lsv.rate, window_V=window_V, until=until)
    if table.cv is not None:
        cv = table.cv
        return technique.cyclic_voltammetry(
            (cv.start, cv.first, cv.second, cv.to),
            cv.rate,
            cycles=cv.cycles,
            vertex_hold_s=cv.hold,
            window_V=window_V,
            until=until,
        )
    return _build_row(table, amperes, until)


def _build_row(table: StepTable, amperes: ToAmperes, until: tuple[Condition, ...]) -> Step:
    """Build what repeats currents or levels."""
    if table.gcpl is not None:
        gcpl = table.gcpl
        return technique.galvanostatic_cycling(
            amperes(gcpl.current),
            gcpl.voltage,
            longest_s=gcpl.longest,
            hold_s=gcpl.hold_for,
            hold_until_A=gcpl.hold_until,
            rest_s=gcpl.rest,
            until=until,
        )
    if table.gitt is not None:
        gitt = table.gitt
        return technique.intermittent_titration(
            amperes(gitt.current),
            pulse_s=gitt.pulse,
            rest_s=gitt.rest,
            pulses=gitt.pulses,
            relaxed=None if gitt.relaxed is None else _relaxed(gitt.relaxed),
            until=until,
        )
    if table.pitt is not None:
        pitt = table.pitt
        return technique.staircase(
            pitt.start,
            pitt.step,
            count=pitt.levels,
            hold_s=pitt.hold_for,
            hold_until_A=pitt.hold_until,
            until=until,
        )
    if table.pulses is None:
        return _build_impedance(table, amperes, until)
    pulses = table.pulses
    return technique.pulses(
        amperes(pulses.current),
        on_s=pulses.on,
        off_A=amperes(pulses.base),
        off_s=pulses.off,
        count=pulses.count,
        until=until,
    )


def _build_impedance(table: StepTable, amperes: ToAmperes, until: tuple[Condition, ...]) -> Step:
    shaken = table.peis or table.geis
    if shaken is None:
        raise ValueError("a step has one technique")
    return technique.impedance(
        multisine(shaken.lowest, shaken.highest, per_decade=shaken.points, peak=shaken.amplitude),
        voltage=shaken.voltage if isinstance(shaken, PeisTable) else None,
        current_A=amperes(shaken.current) if isinstance(shaken, GeisTable) else 0.0,
        settle_s=shaken.settle,
        periods=shaken.periods,
        until=until,
    )


def _relaxed(rate_V_s: float) -> Condition:
    return Condition(
        quantity="|dV/dt|",
        relation="<",
        value=rate_V_s,
        text=f"|dV/dt| < {rate_V_s * HOUR_S * 1e3:.4g} mV/h",
    )


def _window(limits: LimitsTable) -> tuple[float, float]:
    """Return the limits of the voltage; wide open where the file has no sound pair."""
    if len(limits.voltage) != 2:
        return -math.inf, math.inf
    return limits.voltage[0], limits.voltage[1]


# --- what can be wrong ---------------------------------------------------------------------


def check_steps(tables: list[StepTable], amperes: ToAmperes, limits: LimitsTable) -> Found:
    """Return all that is wrong with the steps of a file, by key."""
    if not tables:
        return [(("step",), "is missing; an experiment has at least one step")]
    found: Found = []
    for i, table in enumerate(tables):
        found += _check_step(("step", i), table, amperes, limits, before=i)
    if not found:
        count = len(build_steps(tables, amperes, limits))
        if count > MAX_STEPS:
            found.append((("step",), f"come to {count} steps; at most {MAX_STEPS} can be"))
    return found


def _check_step(
    key: Key, table: StepTable, amperes: ToAmperes, limits: LimitsTable, *, before: int
) -> Found:
    named = [name for name in TECHNIQUES if getattr(table, name) is not None]
    if len(named) != 1:
        return [(key, f"needs exactly one technique: {', '.join(TECHNIQUES[:-1])} or loop")]
    name = named[0]
    own = (*key, name)
    found = [*_check_numbers(own, getattr(table, name)), *_check_levels(own, table, limits)]
    if table.loop is not None:
        found += _check_loop(own, table, before)
    currents = [
        (field, amperes(getattr(getattr(table, name), field)))
        for field in ("current", "base")
        if hasattr(getattr(table, name), field)
    ]
    for field, current_A in currents:
        found += _check_current((*own, field), current_A, limits)
    found += _check_sines(own, table, amperes, limits)
    if found:
        return found
    if table.cp is not None:
        current_A = currents[0][1]
        return [*_check_time_stop(key, table), *_check_voltage_stop(key, table, current_A)]
    if table.gcpl is not None:
        return _check_gcpl(own, currents[0][1], table.gcpl.voltage, limits)
    if table.gitt is not None or table.pulses is not None or (table.geis and currents[0][1]):
        return _check_voltage_stop(key, table, currents[0][1])
    return []


_MUST_BE_POSITIVE = {
    "duration": "for", "rate": "rate", "cycles": "cycles", "longest": "longest",
    "hold_for": "hold_for", "pulse": "pulse", "rest": "rest", "pulses": "pulses",
    "relaxed": "relaxed", "levels": "levels", "on": "on", "off": "off", "count": "count",
    "amplitude": "amplitude", "lowest": "lowest", "highest": "highest", "points": "points",
    "periods": "periods",
}  # fmt: skip
_MAY_BE_ZERO = ("hold", "hold_until", "settle")
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


def _check_levels(own: Key, table: StepTable, limits: LimitsTable) -> Iterator[tuple[Key, str]]:
    low_V, high_V = _window(limits)
    part = getattr(table, str(own[-1]))
    for field in ("voltage", "start", "first", "second", "to"):
        level = getattr(part, field, None)
        if not isinstance(level, Level | float):
            continue
        volts = level.volts if isinstance(level, Level) else level
        from_ocv = isinstance(level, Level) and level.versus_ocv
        if not from_ocv and not low_V <= volts <= high_V:
            written = "from" if field == "start" else field
            yield (
                (*own, written),
                f"{volts:g} V is outside the limits {low_V:g} to {high_V:g} V",
            )
    if table.pitt is not None and table.pitt.step == 0:
        yield (*own, "step"), "is nothing; write for example 5 mV"
    if table.pitt is not None and not table.pitt.start.versus_ocv:
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


def _check_current(key: Key, current_A: float, limits: LimitsTable) -> Found:
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
    if current_A == 0 and key[-2:] not in _MAY_BE_NO_CURRENT:
        return [(key, "is nothing; write ocv for a rest")]
    return []


def _check_sines(
    own: Key, table: StepTable, amperes: ToAmperes, limits: LimitsTable
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
    low_V, high_V = _window(limits)
    if isinstance(sines, PeisTable):
        volts, swing_V = sines.voltage.volts, sines.amplitude
        if (
            not sines.voltage.versus_ocv
            and not low_V <= volts - swing_V <= volts + swing_V <= high_V
        ):
            yield (
                (*own, "amplitude"),
                f"{volts:g} V with {swing_V:g} V leaves the limits {low_V:g} to {high_V:g} V",
            )
    elif abs(amperes(sines.current)) + sines.amplitude > limits.current:
        yield (
            (*own, "amplitude"),
            f"{sines.amplitude:.4g} A on top is beyond the limit {limits.current:.4g} A",
        )


def _check_gcpl(own: Key, current_A: float, voltage_V: float, limits: LimitsTable) -> Found:
    low_V, high_V = _window(limits)
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
    times = [c for c in step.until if c.quantity == "t" and c.relation == ">"]
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
    if any(c.quantity == "V" and c.relation == relation for c in step.until):
        return []
    example = '"V > 4.2 V"' if current_A > 0 else '"V < 2.8 V"'
    way = "charge" if current_A > 0 else "discharge"
    return [((*key, "until"), f"a {way} needs an end in voltage, such as {example}")]
