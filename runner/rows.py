"""Rows of the session file from readings, and which of them are stored.

All readings are judged by the limits and counted in the charge before they come here: what
a step's ``record`` leaves out is only not stored. Each row that is stored carries the charge
counted up to it, and how many readings are not there or are in its mean.
"""

import math

import numpy as np
from numpy.typing import NDArray

from potentiostat.records import Status
from potentiostat.segments import Change, Record, Step
from runner.messages import Block
from session.records import SESSION_SAMPLE_DTYPE

Rows = NDArray[np.void]

_COLUMNS = {"V": "voltage", "I": "current", "Q": "charge"}


def session_rows(block: Block, cycle: int) -> Rows:
    """Return session rows; the stamps are provisional until the time base is fitted."""
    samples = block.samples
    rows = np.zeros(len(samples), SESSION_SAMPLE_DTYPE)
    for name in ("read_start_ns", "read_end_ns", "device_time_s", "aperture_s"):
        rows[name] = samples[name]
    rows["voltage"], rows["current"] = samples["voltage_V"], samples["current_A"]
    rows["voltage_sigma"] = samples["voltage_sigma_V"]
    rows["current_sigma"] = samples["current_sigma_A"]
    rows["setpoint"], rows["range"] = samples["setpoint"], samples["range_A"]
    rows["status"] = samples["status"]
    width_ns = samples["read_end_ns"] - samples["read_start_ns"]
    rows["t_ns"] = samples["read_start_ns"] + width_ns // 2
    rows["t_sigma_ns"] = width_ns / np.sqrt(12.0)
    rows["step"], rows["cycle"] = block.step, cycle
    rows["charge"] = block.charge_C
    rows["charge_ionic"] = rows["charge_ionic_sigma"] = np.nan
    rows["averaged"] = 1
    return rows


class Thinner:
    """Picks the rows that are stored, by what each step asks for.

    Wherever step, status or set-point change, the readings on both sides are stored as they
    are: what happens between two rows that stand for more is even.
    """

    def __init__(self) -> None:
        self._record: Record | None = None
        self._sweeps = False
        self._key: tuple[object, ...] = ()
        self._stored: np.void | None = None  # the last one, to measure changes from
        self._held: list[np.void] = []  # not stored yet
        self._left_out = 0

    def take(self, rows: Rows, step: Step | None) -> Rows:
        """Return what is to be stored now, of these rows and of earlier ones.

        Parameters
        ----------
        step
            That the rows belong to; None between steps.
        """
        record = None if step is None else step.record
        if record is None and self._record is None:
            return rows
        kept: list[np.void] = []
        sweeps = step is not None and any(s.ramp is not None for s in step.segments)
        if record != self._record or sweeps != self._sweeps:
            kept += self._close()
        self._record, self._sweeps = record, sweeps
        if record is None:
            return _together([*kept, *rows])
        for row in rows:
            kept += self._place(row.copy(), record)
        return _together(kept)

    def flush(self) -> Rows:
        """Return what was held back: nothing follows."""
        return _together(self._close())

    def _place(self, row: np.void, record: Record) -> list[np.void]:
        level = 0.0 if self._sweeps else float(row["setpoint"])
        key = (int(row["step"]), int(row["status"]), level)
        kept: list[np.void] = []
        plain = int(row["status"]) & ~int(Status.POTENTIOSTATIC) == 0
        if key != self._key or not plain:
            kept += [*self._close(), row]
            self._key, self._stored = key, row
        elif record.average_s > 0:
            kept += self._average(row, record.average_s)
        elif self._stored is None or _changed(self._stored, row, record.changes):
            row["left_out"] += _count(self._held) + self._left_out
            self._held, self._left_out, self._stored = [], 0, row
            kept.append(row)
        else:
            self._left_out += _count(self._held)
            self._held = [row]
        return kept

    def _average(self, row: np.void, average_s: float) -> list[np.void]:
        """Begin a new mean when the time of the present one is over."""
        kept: list[np.void] = []
        if self._held and row["t_ns"] - self._held[0]["t_ns"] >= average_s * 1e9:
            kept.append(_mean(self._held))
            self._held = []
        self._held.append(row)
        return kept

    def _close(self) -> list[np.void]:
        """Return what is held back, with the last reading as it is."""
        held, self._held = self._held, []
        left, self._left_out = self._left_out, 0
        self._key = ()
        if not held:
            return []
        last = held[-1]
        last["left_out"] += left
        return [last] if len(held) == 1 else [_mean(held[:-1]), last]


def _changed(before: np.void, now: np.void, changes: tuple[Change, ...]) -> bool:
    for change in changes:
        if change.quantity == "t":
            moved = float(now["t_ns"] - before["t_ns"]) / 1e9
        else:
            column = _COLUMNS[change.quantity]
            moved = abs(float(now[column]) - float(before[column]))
        if moved > change.more_than:
            return True
    return False


def _count(held: list[np.void]) -> int:
    """Return how many readings these are, with those that were lost before them."""
    return len(held) + sum(int(row["left_out"]) for row in held)


def _mean(held: list[np.void]) -> np.void:
    """Return the mean of readings, with the sigma and the aperture of a mean."""
    if len(held) == 1:
        return held[0]
    rows = _together(held)
    n, first, last = len(rows), rows[0], rows[-1]
    mean: np.void = first.copy()
    mean["t_ns"] = first["t_ns"] + (last["t_ns"] - first["t_ns"]) // 2
    mean["read_end_ns"] = last["read_end_ns"]
    # From the beginning of the first reading to the end of the last.
    own_s = float(rows["aperture_s"].mean())
    mean["aperture_s"] = float(last["t_ns"] - first["t_ns"]) / 1e9 + own_s
    for name in ("voltage", "current", "setpoint"):
        mean[name] = rows[name].mean()
    for name in ("voltage_sigma", "current_sigma"):
        mean[name] = math.sqrt(float(np.mean(rows[name] ** 2)) / n)
    origin = first["t_ns"]
    mean["charge"] = np.interp(
        float(mean["t_ns"] - origin), (rows["t_ns"] - origin).astype(float), rows["charge"]
    )
    mean["averaged"], mean["left_out"] = n, rows["left_out"].sum()
    return mean


def _together(rows: list[np.void]) -> Rows:
    together = np.zeros(len(rows), SESSION_SAMPLE_DTYPE)
    for i, row in enumerate(rows):
        together[i] = row
    return together
