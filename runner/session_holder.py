"""What a session knows of its holder: measured before the run, and perhaps again after it."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from correlate.holder_change import Change, HolderChange, holder_between, is_fast_drift
from correlate.ledger import Holder
from runner.format import in_unit, with_sigma
from runner.holder_record import HOUR_S, HolderRecord, calibration_from, in_range
from session.editor import SessionEditor
from session.reader import Session

BEFORE = "calibration"  # both the table and the event of the run's start
AFTER = "calibration_after"
RANGES = f"{BEFORE}/ranges"
UNITS = {"voltage": "V", "current": "A", "range": "A"}


class HolderMismatch(Exception):
    """Two calibrations of a holder cannot be compared."""


def put_holder(path: Path, holder: HolderRecord) -> None:
    """Write the calibration before the run into its session."""
    with SessionEditor.open(path) as editor:
        editor.put_table(BEFORE, holder.columns, holder.attributes(), units=UNITS)
        for name, table in holder.tables.items():
            editor.put_table(f"{BEFORE}/{name}", table)


def put_holder_after(path: Path, after: HolderRecord) -> tuple[str, ...]:
    """Write the calibration after the run; return what changed beyond chance, in words.

    Each change is an event of the session, too.

    Raises
    ------
    HolderMismatch
        The two were measured in different current ranges.
    """
    with Session.open(path) as session:
        before = _before(session)
        columns = session.sample_columns()
        t_ns = int(columns["t_ns"][-1]) if len(columns["t_ns"]) else 0
        known = {event.message for event in session.events()}
    if before is not None:
        before_A = calibration_from(before).range_A
        if not np.isclose(before_A, after.calibration.range_A, rtol=1e-6, atol=0.0):
            raise HolderMismatch(
                f"{after.source} was measured in the {in_unit(after.calibration.range_A, 'A')} "
                f"range and the calibration of {path} in that of {in_unit(before_A, 'A')}: "
                "calibrate again with the same experiment file"
            )
    with SessionEditor.open(path) as editor:
        editor.put_table(AFTER, after.columns, after.attributes(), units=UNITS)
    with Session.open(path) as session:
        change = holder_change_of(session)
        hours = _hours(before, after)
    said = () if change is None else alarms(change, hours)
    with SessionEditor.open(path) as editor:
        for text in said:
            if text not in known:
                editor.add_event(t_ns, "holder_changed", "analysis", text)
    return said


def alarms(change: HolderChange, hours: float | None) -> tuple[str, ...]:
    """Say in words what of a holder changed beyond chance."""
    return tuple(_alarm(c, hours) for c in change.changes if c.is_alarming)


def _alarm(change: Change, hours: float | None) -> str:
    text = (
        f"the {change.name} of the holder changed from {in_unit(change.before, change.unit)} to "
        f"{in_unit(change.after, change.unit)}, by "
        f"{with_sigma(change.difference, change.sigma, change.unit)}"
    )
    if hours is None or change.unit != "A":
        return text
    text += f" in {hours:.2g} h"
    if is_fast_drift(change, hours * HOUR_S):
        text += ", faster than 50 fA/h: let the instrument warm up"
    return text


def _hours(before: Mapping[str, object] | None, after: HolderRecord) -> float | None:
    if before is None or after.measured_at is None or "measured_at" not in before:
        return None
    elapsed = after.measured_at - datetime.fromisoformat(str(before["measured_at"]))
    hours = elapsed.total_seconds() / HOUR_S
    return hours if hours > 0 else None


def holder_of(session: Session) -> Holder | None:
    """Return what is known of a session's holder, or None.

    It is taken from the calibration's table, or from the event of the run's start when
    the run did not live to write the table; and from the calibration after the run, where
    there is one.
    """
    change = holder_change_of(session)
    if change is not None:
        return change.holder
    before = _before(session)
    if before is not None:
        ranges = session.table(RANGES).columns if session.has(RANGES) else None
        return _holder(session, before, ranges)
    return _holder(session, session.table(AFTER).attributes) if session.has(AFTER) else None


def holder_change_of(session: Session) -> HolderChange | None:
    """Return what two calibrations say of a session's holder; None without both."""
    before = _before(session)
    if before is None or not session.has(AFTER):
        return None
    after = session.table(AFTER).attributes
    return holder_between(_holder(session, before), _holder(session, after))


def _before(session: Session) -> Mapping[str, object] | None:
    if session.calibration is not None:
        return session.calibration.attributes
    return next((event.data for event in session.events() if event.kind == BEFORE), None)


def _holder(
    session: Session,
    attributes: Mapping[str, object],
    ranges: Mapping[str, NDArray[np.generic]] | None = None,
) -> Holder:
    used_A = session.sample_columns()["range"]
    range_A = float(np.nanmax(np.asarray(used_A, dtype=np.float64), initial=0.0))
    known = asdict(in_range(calibration_from(attributes), ranges, range_A))
    return Holder(**{name: known[name] for name in Holder.__slots__})
