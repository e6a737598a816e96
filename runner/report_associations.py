"""What goes with what, in a report: tests with their surrogates, and balances with the charge."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from runner.report_numbers import axis_unit, largest, number, numbers, value_text
from runner.volumes import PREFIX as VOLUME_PREFIX
from session.reader import Session
from session.records import AttributeValue
from session.tables import Table

SWITCHING = "_switching"
BINS = 30
POINTS = 1500


def associations_content(session: Session) -> list[dict[str, Any]]:
    """Return every test of a rate against a drive, the surest first."""
    found = []
    for name in session.correlations:
        known = session.attributes(f"correlation/{name}")
        if not {"first", "second", "verdict", "p"} <= set(known):
            continue
        about: dict[str, Any] = {
            "name": name,
            "what": f"{known['first']} with {known['second']}",
            "given": str(known.get("given", "nothing")),
            "verdict": str(known["verdict"]),
            **{key: number(known.get(key), 4) for key in ("p", "q", "r_max", "lag_at_max_s", "n")},
            **{key: number(known.get(key), 4) for key in ("lag_low_s", "lag_high_s")},
            "n_effective": number(known.get("n_effective"), 3),
            "family": number(known.get("family")),
        }
        table = session.table(f"correlation/{name}")
        if "lag_s" in table:
            about |= _figures(table, known)
        found.append(about)
    return sorted(found, key=lambda t: (t["p"] is None, t["p"] or 0.0))


def _figures(table: Table, known: dict[str, Any]) -> dict[str, Any]:
    slope, low, high = (float(str(known[n])) for n in ("slope", "slope_low", "slope_high"))
    phase, iaaft = table["surrogates_phase"], table["surrogates_iaaft"]
    top = max(largest(phase, iaaft), abs(float(str(known["r_max"]))), 1e-3) * 1.05
    edges = np.linspace(0.0, top, BINS + 1)
    return {
        "lag": numbers(table["lag_s"], 6),
        "r": numbers(table["r"], 5),
        "band": number(table["surrogate_band"][0], 5),
        "effect": f"slope {slope:.4g} ({low:.4g} to {high:.4g}) {known.get('slope_unit', '')}",
        "surrogates": {
            "edges": numbers(edges, 5),
            "phase": np.histogram(phase, edges)[0].tolist(),
            "iaaft": np.histogram(iaaft, edges)[0].tolist(),
        },
    }


def switching_content(session: Session) -> list[dict[str, Any]]:
    """Return averages of rates around changes of the set-point."""
    found = []
    for name in session.correlations:
        path = f"correlation/{name}"
        if not name.endswith(SWITCHING) or "offset_s" not in session.table(path):
            continue
        table = session.table(path)
        scale = largest(table["mean"], table["low"], table["high"])
        factor, _ = axis_unit("m/s", scale)  # SI of any rate: a power of ten that reads well
        power = round(math.log10(factor))
        columns = ("mean", "low", "high", "chance_low", "chance_high")
        found.append(
            {
                "name": name.removesuffix(SWITCHING),
                "offset": numbers(table["offset_s"], 5),
                **{c: numbers(table[c] / factor, 5) for c in columns},
                "unit": f"1e{power} SI" if power else "SI",
                "p": number(table.attributes.get("p"), 3),
                "events": number(table.attributes.get("events")),
            }
        )
    return found


def balances_content(session: Session) -> list[dict[str, Any]]:
    """Return what moved for the charge that crossed, beside what was expected of it.

    Any group below ``correlation`` with a ``ratio``, its sigma and a slope is one; its points
    are shown where it has the columns ``charge`` and another one with a sigma.
    """
    found = []
    for name in session.correlations:
        known = session.attributes(f"correlation/{name}")
        slope = next((k for k in known if k.startswith("slope_m") and "sigma" not in k), None)
        if slope is None or not {"ratio", "ratio_sigma"} <= set(known):
            continue
        power = 3 if slope.startswith("slope_m3") else 2 if slope.startswith("slope_m2") else 1
        unit = "m" if power == 1 else f"m^{power}"
        value = float(str(known[slope]))
        sigma = float(str(known.get(slope.replace("slope_m", "slope_sigma_m"), math.nan)))
        expected = next((float(str(known[k])) for k in known if k.startswith("expected_m")), None)
        track = name.removeprefix(VOLUME_PREFIX) if name.startswith(VOLUME_PREFIX) else "front"
        about: dict[str, Any] = {
            "name": name,
            "what": f"{track}: {'volume' if power == 3 else 'area' if power == 2 else 'position'}"
            " against ionic charge",
            "ratio": value_text(float(str(known["ratio"])), float(str(known["ratio_sigma"])), "1"),
            "lacks": _lacks(known),
            "slope": _per_nC(value, sigma, power),
            "expected": "" if expected is None else _per_nC(expected, math.nan, power),
            "n": number(known.get("n")),
        }
        points = _points(session.table(f"correlation/{name}"), unit, value, expected)
        found.append(about | points)
    return found


def _lacks(known: Mapping[str, AttributeValue]) -> str:
    """Say what the sigma of a ratio lacks; empty where nothing is."""
    if math.isnan(float(str(known.get("ratio_sigma_depth", 0.0)))):
        return "How surely the lamella's depth is known is not in that: depth_sigma of [cell]."
    return ""


def _per_nC(value: float, sigma: float, power: int) -> str:  # noqa: N802 - a unit
    factor, unit = {1: (1.0, "nm"), 2: (1e3, "µm²"), 3: (1e9, "µm³")}[power]
    if math.isnan(sigma):
        return f"{value * factor:.4g} {unit}/nC"
    return f"{value_text(value * factor, sigma * factor, '1')} {unit}/nC"


def _points(table: Table, unit: str, slope: float, expected: float | None) -> dict[str, Any]:
    columns = [c for c in table.columns if c != "charge" and f"{c}_sigma" in table]
    if "charge" not in table or not columns:
        return {}
    charge, value, sigma = table["charge"], table[columns[0]], table[f"{columns[0]}_sigma"]
    order = np.argsort(charge, kind="stable")
    order = order[:: max(1, math.ceil(len(order) / POINTS))]
    by_charge, charge_unit = axis_unit("C", largest(charge))
    by_value, value_unit = axis_unit(unit, largest(value))
    # Lines go through the weighted middle of the points, as the fit does.
    weight = sigma**-2.0
    middle = np.average(charge, weights=weight), np.average(value, weights=weight)
    lines = {
        name: numbers((middle[1] + each * (charge[order] - middle[0])) / by_value)
        for name, each in (("fit", slope), ("faraday", expected))
        if each is not None
    }
    return {
        "charge": numbers(charge[order] / by_charge),
        "value": numbers(value[order] / by_value, 5),
        "low": numbers((value - sigma)[order] / by_value, 5),
        "high": numbers((value + sigma)[order] / by_value, 5),
        "charge_unit": charge_unit,
        "value_unit": value_unit,
        **lines,
    }
