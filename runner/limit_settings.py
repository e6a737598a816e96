"""The hard limits as an experiment file sets them, and what is wrong with them."""

import math
from collections.abc import Sequence

from potentiostat.limits import Envelope
from runner.config import ExperimentTable
from runner.problems import Key
from runner.specimen import Cell

_Found = list[tuple[Key, str]]


def read_envelope(tables: ExperimentTable) -> Envelope:
    """Return what no reading may leave."""
    limits = tables.limits
    return Envelope(
        voltage_min_V=limits.voltage[0],
        voltage_max_V=limits.voltage[1],
        current_max_A=limits.current,
        charge_max_C=limits.charge,
        voltage_rate_max_V_s=_or_inf(limits.voltage_rate),
        current_rate_max_A_s=_or_inf(limits.current_rate),
        rate_window_s=limits.rate_window,
        temperature_min_K=limits.temperature[0],
        temperature_max_K=limits.temperature[1],
        charge_ionic_max_C=_or_inf(limits.charge_ionic),
        time_max_s=_or_inf(limits.time),
    )


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _check_pair(key: Key, pair: Sequence[float]) -> _Found:
    if len(pair) != 2:
        return [(key, 'needs a low and a high value, such as ["2.8 V", "4.2 V"]')]
    if not pair[0] < pair[1]:
        return [(key, f"runs from {pair[0]:g} to {pair[1]:g} V; write the lower first")]
    return []


def check_limits(tables: ExperimentTable, cell: Cell) -> _Found:
    """Return what is wrong with limits and with the window that they stand around."""
    limits = tables.limits
    found = _check_pair(("cell", "window"), tables.cell.window)
    found += _check_pair(("limits", "voltage"), limits.voltage)
    if found:
        return found
    low, high = limits.voltage
    if low > cell.window_V[0] or high < cell.window_V[1]:
        found.append(
            (
                ("limits", "voltage"),
                f"{low:g} to {high:g} V lies inside the cell's window "
                f"{cell.window_V[0]:g} to {cell.window_V[1]:g} V; limits stand outside it",
            )
        )
    if low <= 0:
        found.append(
            (
                ("limits", "voltage"),
                f"the lower limit {low:g} V would allow 0 V on a cell",
            )
        )
    coldest_K, hottest_K = limits.temperature
    if not coldest_K < hottest_K:
        what = f"runs from {coldest_K:g} to {hottest_K:g} K; write the lower first"
        found.append((("limits", "temperature"), what))
    optional = (
        ("voltage_rate", "10 mV/s"),
        ("current_rate", "10 pA/s"),
        ("rate_window", "2 s"),
        ("charge_ionic", "8 nC"),
        ("time", "2 h"),
    )
    for name, example in (("current", "100 pA"), ("charge", "8 nC"), ("dose", None), *optional):
        value = getattr(limits, name)
        if value is not None and value <= 0:
            hint = f", such as {example}" if example else ""
            found.append((("limits", name), f"must be more than nothing{hint}"))
    return found
