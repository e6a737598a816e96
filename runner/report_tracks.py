"""Tracks in a report: every quantity with its sigma, and what is drawn on the frames.

Nothing here knows a tracker: quantities are those that it declares, then all others that
have a unit and a sigma; what is drawn is told by names of columns (`runner.track_marks`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from correlate.registry import tracker_class, tracker_names
from runner.report_numbers import axis_unit, largest, number, numbers, reduce_trace, seconds
from runner.track_marks import Mark, marks_of
from session.reader import Session
from session.tables import Table

POINTS = 2000
MANY_POINTS = 600  # of each of many columns of one kind
_MANY = re.compile(r"(?P<kind>\w+?)_\d+")
SIGMA = "_sigma"


def tracks_content(session: Session, origin_ns: int) -> list[dict[str, Any]]:
    """Return every track with its quantities, the declared ones first."""
    found = []
    for name in session.tracks:
        table = session.table(f"tracks/{name}")
        if "valid" not in table or len(table) == 0:
            continue  # frames that another computer kept have no quantities
        about = table.attributes
        tracker = str(about.get("tracker", ""))
        found.append(
            {
                "name": name,
                "tracker": tracker,
                "valid": int(np.sum(table["valid"])),
                "count": len(table["valid"]),
                "reasons": str(about.get("reasons", "")),
                "quantities": [
                    _quantity(table, q, origin_ns) for q in quantities_of(table, tracker)
                ],
                "many": [_many(table, kind, origin_ns) for kind in _kinds(table)],
            }
        )
    return found


def quantities_of(table: Table, tracker: str) -> list[str]:
    """Return columns with a sigma that a person reads: those that the tracker declares first."""
    declared: Sequence[str] = ()
    if tracker in tracker_names():
        declared = getattr(tracker_class(tracker), "quantities", ())
    others = [
        name
        for name in table.columns
        if f"{name}{SIGMA}" in table
        and table.units.get(name) != "px"
        and not name.endswith(SIGMA)
        and not _MANY.fullmatch(name)
        and name not in declared
        and _is_measured(table[name], table[f"{name}{SIGMA}"])
    ]
    known = [name for name in [*declared, *others] if name in table]
    return [name for name in known if np.any(np.isfinite(table[name]))]


def _is_measured(values: NDArray[np.generic], sigmas: NDArray[np.generic]) -> bool:
    """Tell whether a column changes and is known to a sigma: else it is a mere number."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return len(known) > 0 and bool(np.ptp(known) > 0) and bool(np.any(np.asarray(sigmas) > 0))


def valid_column(table: Table, name: str) -> NDArray[np.float64]:
    """Return a column, NaN where the tracker said that it is not valid."""
    return np.where(np.asarray(table["valid"]) == 1, np.asarray(table[name], np.float64), np.nan)


def _quantity(table: Table, name: str, origin_ns: int) -> dict[str, Any]:
    value = valid_column(table, name)
    sigma = np.asarray(table[f"{name}{SIGMA}"] if f"{name}{SIGMA}" in table else value * np.nan)
    factor, unit = axis_unit(table.units.get(name, ""), largest(value) or largest(sigma))
    rows = reduce_trace([value], POINTS)
    return {
        "name": name,
        "unit": unit,
        "t": seconds(table["t_ns"][rows], origin_ns),
        "value": numbers(value[rows] / factor, 6),
        "low": numbers((value - sigma)[rows] / factor, 6),
        "high": numbers((value + sigma)[rows] / factor, 6),
    }


def _kinds(table: Table) -> list[str]:
    """Return what there is a whole row of, such as ``"state"`` of ``state_1``, ``state_2``."""
    found = dict.fromkeys(
        match["kind"]
        for name in table.columns
        if (match := _MANY.fullmatch(name)) and table.units.get(name) != "px"
    )
    return [kind for kind in found if not kind.endswith(SIGMA)]


def _many(table: Table, kind: str, origin_ns: int) -> dict[str, Any]:
    names = [n for n in table.columns if (m := _MANY.fullmatch(n)) and m["kind"] == kind]
    names.sort(key=lambda n: int(n.rpartition("_")[2]))
    values = [valid_column(table, n) for n in names]
    factor, unit = axis_unit(table.units.get(names[0], ""), largest(*values))
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), MANY_POINTS)).astype(int))
    return {
        "name": kind,
        "unit": unit,
        "names": names,
        "t": seconds(table["t_ns"][rows], origin_ns),
        "values": [numbers(v[rows] / factor, 4) for v in values],
    }


# --- what is drawn on frames --------------------------------------------------------------


def marks_content(
    session: Session, camera: str | None, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """Return what all tracks draw on some frames, in px of those frames.

    Parameters
    ----------
    rows
        Of the frames.
    """
    if camera is None or not len(rows):
        return []
    at, count = np.asarray(rows, int), len(session.frame_table(camera)["index"])
    shift = drift_at(session, camera, at)
    found = []
    for name in session.tracks:
        table = session.table(f"tracks/{name}")
        if "valid" not in table or len(table) != count:
            continue  # it is of other frames
        for mark in marks_of([*table.columns, *table.attributes]):
            drawn = _drawn(table, mark, at, shift)
            if drawn is not None:
                found.append({"track": name, "thing": mark.thing, **drawn})
    return found


def drift_at(
    session: Session, camera: str, rows: NDArray[np.int_]
) -> Mapping[str, NDArray[np.float64]]:
    """Return the shift of some frames along x and y, 0 where it is not known."""
    if not session.has(f"drift/{camera}"):
        return {axis: np.zeros(len(rows)) for axis in "xy"}
    table = session.table(f"drift/{camera}")
    return {axis: np.nan_to_num(np.asarray(table[f"d{axis}"])[rows], nan=0.0) for axis in "xy"}


def _drawn(
    table: Table,
    mark: Mark,
    rows: NDArray[np.int_],
    shift: Mapping[str, NDArray[np.float64]],
) -> dict[str, Any] | None:
    moves = (mark.x or mark.y) in table
    places = {
        axis: _column(table, name, rows) - shift[axis]
        for axis, name in (("x", mark.x), ("y", mark.y))
        if name
    }
    if not any(np.any(np.isfinite(p)) for p in places.values()):
        return None
    area = number(table.attributes.get(mark.area)) if mark.area else None
    return {
        "moves": moves,
        "x": numbers(places["x"], 6) if "x" in places else None,
        "y": numbers(places["y"], 6) if "y" in places else None,
        "sigma": numbers(_column(table, mark.sigma, rows), 3) if mark.sigma and moves else None,
        "radius": None if area is None else round(math.sqrt(area / math.pi), 2),
        "state": numbers(_column(table, mark.state, rows), 3) if mark.state else None,
    }


def _column(table: Table, name: str, rows: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return a column at some rows, or an attribute as often."""
    if name in table:
        return valid_column(table, name)[rows]
    return np.full(len(rows), float(str(table.attributes[name])))
