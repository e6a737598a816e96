"""From the steps of an experiment file to techniques."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from potentiostat import technique
from potentiostat.limits import Condition
from potentiostat.multisine import multisine
from potentiostat.segments import Record, Step, Wait
from runner.config import LimitsTable
from runner.config_steps import GeisTable, PeisTable, StepTable, WaitTable
from runner.image_rules import ImageRule
from runner.keep_rules import Keep
from runner.quantities import CurrentLevel
from runner.rules import CellRule

Each = TypeVar("Each")

HOUR_S = 3600.0
LONGEST_WAIT_S = 7 * 24 * HOUR_S  # for a time of day


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTerms:
    """What turns C-rates, current densities and shares into amperes and coulombs.

    NaN where it is not known.

    Parameters
    ----------
    soc, x0
        State of charge, and lithium of the working material, when the run begins.
    charge_per_x_C
        That takes a whole lithium from each formula unit of the film.
    """

    area_m2: float
    capacity_C: float
    soc: float = math.nan
    charge_per_x_C: float = math.nan
    x0: float = math.nan

    def amperes(self, current: tuple[float, str] | CurrentLevel) -> float:
        """Return a current in A; NaN for a C-rate where the capacity is not known."""
        number, kind = (
            (current.number, current.kind) if isinstance(current, CurrentLevel) else current
        )
        match kind:
            case "current_density":
                return number * self.area_m2
            case "c_rate":
                return number * self.capacity_C / HOUR_S
            case _:
                return number

    def conditions(self, rules: Sequence[Condition | CellRule]) -> tuple[Condition, ...]:
        """Return the conditions that rules stand for."""
        return tuple(
            rule.of_cell(
                capacity_C=self.capacity_C,
                soc=self.soc,
                charge_per_x_C=self.charge_per_x_C,
                x0=self.x0,
            )
            if isinstance(rule, CellRule)
            else rule
            for rule in rules
        )


def build_steps(tables: list[StepTable], cell: CellTerms, limits: LimitsTable) -> tuple[Step, ...]:
    """Return the steps of a plan, with its loops played out. The tables are sound."""
    low_V, high_V = window(limits)
    steps: list[Step] = []
    sizes: list[int] = []  # of each table, in steps
    for table in tables:
        if table.loop is not None:
            size = sum(sizes[-table.loop.steps :])
            again = technique.repeat(steps[-size:], table.loop.times - 1)
            steps += again
            sizes[-table.loop.steps :] = [size + len(again)]
        else:
            steps.append(_with_words(_build(table, cell, high_V - low_V), table))
            sizes.append(1)
    return tuple(steps)


def image_rules(tables: list[StepTable]) -> tuple[tuple[ImageRule, ...], ...]:
    """Return the rules on images of each step that `build_steps` gives."""
    return _by_step(tables, lambda table: table.image_rules)


def keeps(tables: list[StepTable], cell: CellTerms) -> tuple[Keep, ...]:
    """Return what each step that `build_steps` gives keeps by less current."""

    def of(table: StepTable) -> Keep:
        if table.cp is None or not table.keep:
            return Keep()
        if table.least is None:
            return Keep(rules=tuple(table.keep))
        share = table.least / abs(cell.amperes(table.cp.current))
        return Keep(rules=tuple(table.keep), least_share=share)

    return _by_step(tables, of)


def _by_step(tables: list[StepTable], of: Callable[[StepTable], Each]) -> tuple[Each, ...]:
    """Return something of each step that `build_steps` gives, with its loops played out."""
    found: list[Each] = []
    sizes: list[int] = []
    for table in tables:
        if table.loop is not None:
            size = sum(sizes[-table.loop.steps :])
            again = found[-size:] * (table.loop.times - 1)
            found += again
            sizes[-table.loop.steps :] = [size + len(again)]
        else:
            found.append(of(table))
            sizes.append(1)
    return tuple(found)


def _with_words(step: Step, table: StepTable) -> Step:
    """Return a step with what any technique may say of itself."""
    record = None
    if table.record or table.average:
        record = Record(changes=tuple(table.record), average_s=table.average)
    return replace(step, label=table.name, record=record)


def _build(table: StepTable, cell: CellTerms, window_V: float) -> Step:
    until = cell.conditions(table.electrical)
    if table.ocv is not None:
        return technique.open_circuit(table.ocv.duration, until)
    if table.cp is not None:
        current = table.cp.current
        return technique.chronopotentiometry(cell.amperes(current), until, versus=current.versus)
    if table.ca is not None:
        return technique.chronoamperometry(table.ca.voltage, table.ca.duration, until)
    if table.lsv is not None:
        lsv = table.lsv
        return technique.linear_sweep(
            lsv.start, lsv.to, lsv.rate, step_V=lsv.step, window_V=window_V, until=until
        )
    if table.cv is not None:
        cv = table.cv
        return technique.cyclic_voltammetry(
            (cv.start, cv.first, cv.second, cv.to),
            cv.rate,
            cycles=cv.cycles,
            vertex_hold_s=cv.hold,
            step_V=cv.step,
            window_V=window_V,
            until=until,
        )
    return _build_row(table, cell, until)


def _wait(table: WaitTable, until: tuple[Condition, ...]) -> Step:
    if table.until is not None:
        return technique.wait(
            Wait(trigger="time", until=table.until), table.longest or LONGEST_WAIT_S, until
        )
    if table.trigger is not None:
        return technique.wait(Wait(trigger=table.trigger), table.longest or math.inf, until)
    return replace(technique.open_circuit(table.duration or 0.0, until), name="wait")


def _build_row(table: StepTable, cell: CellTerms, until: tuple[Condition, ...]) -> Step:
    """Build what repeats currents or levels, or waits."""
    if table.wait is not None:
        return _wait(table.wait, until)
    if table.gcpl is not None:
        gcpl = table.gcpl
        return technique.galvanostatic_cycling(
            cell.amperes(gcpl.current),
            gcpl.voltage,
            longest_s=gcpl.longest,
            hold_s=gcpl.hold_for,
            hold_until_A=gcpl.hold_until,
            hold_until=() if gcpl.hold_until_rate is None else (_steady(gcpl.hold_until_rate),),
            rest_s=gcpl.rest,
            relaxed=None if gcpl.relaxed is None else _relaxed(gcpl.relaxed),
            until=until,
        )
    if table.gitt is not None:
        gitt = table.gitt
        return technique.intermittent_titration(
            cell.amperes(gitt.current),
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
        return _build_impedance(table, cell, until)
    pulses = table.pulses
    return technique.pulses(
        cell.amperes(pulses.current),
        on_s=pulses.on,
        off_A=cell.amperes(pulses.base),
        off_s=pulses.off,
        count=pulses.count,
        until=until,
    )


def _build_impedance(table: StepTable, cell: CellTerms, until: tuple[Condition, ...]) -> Step:
    shaken = table.peis or table.geis
    if shaken is None:
        raise ValueError("a step has one technique")
    return technique.impedance(
        multisine(shaken.lowest, shaken.highest, per_decade=shaken.points, peak=shaken.amplitude),
        voltage=shaken.voltage if isinstance(shaken, PeisTable) else None,
        current_A=cell.amperes(shaken.current) if isinstance(shaken, GeisTable) else 0.0,
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


def _steady(rate_A_s: float) -> Condition:
    return Condition(
        quantity="|dI/dt|",
        relation="<",
        value=rate_A_s,
        text=f"|dI/dt| < {rate_A_s:.4g} A/s",
        confirm=3,
    )


def window(limits: LimitsTable) -> tuple[float, float]:
    """Return the limits of the voltage; wide open where the file has no sound pair."""
    if len(limits.voltage) != 2:
        return -math.inf, math.inf
    return limits.voltage[0], limits.voltage[1]
