"""The impedance spectra of a session: from the readings of its steps to tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.impedance import (
    Impedance,
    TooFewReadings,
    fit_amplitudes,
    impedance,
    with_gain,
    with_lag,
    without_delay,
    without_holder,
)
from correlate.ledger import Holder
from potentiostat.records import Status
from potentiostat.segments import Segment, Step
from runner.frame_samples import aperture_offset_ns
from session.reader import Session

INSTRUMENT = "instrument/potentiostat"
PREFIX = "impedance_step_"
SETTLED_TO_10_PERCENT = 2.3  # time constants
UNUSABLE = int(Status.INVALID | Status.OVERFLOW | Status.COMPLIANCE)

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """The impedance of one step, as measured and without the holder.

    Parameters
    ----------
    cell
        None without an open-holder calibration.
    """

    step: int
    whole: Impedance
    cell: Impedance | None

    def columns(self) -> Columns:
        """Return the table's columns."""
        found: Columns = {"frequency": self.whole.frequency_Hz}
        for prefix, z in (("", self.whole), ("cell_", self.cell)):
            if z is not None:
                found[f"{prefix}real"], found[f"{prefix}imag"] = z.z_ohm.real, z.z_ohm.imag
                found[f"{prefix}sigma"] = z.z_sigma_ohm
        return found

    def units(self) -> dict[str, str]:
        """Return the unit of each column."""
        return {name: "Hz" if name == "frequency" else "ohm" for name in self.columns()}


def spectra(
    session: Session,
    steps: Mapping[int, Step],
    columns: Mapping[str, NDArray[np.generic]],
    *,
    holder: Holder | None,
    gain_ratio: float,
) -> tuple[Spectrum, ...]:
    """Return the impedance of each step that shook the cell with sines.

    Parameters
    ----------
    steps
        By the number with which they were played.
    columns
        Of the samples.
    gain_ratio
        Limit of the gain error of the current range.

    Notes
    -----
    A step that was cut short, so that its readings determine nothing, is left out.
    """
    found = []
    for index, step in steps.items():
        segment = next((s for s in step.segments if s.sines is not None), None)
        if segment is None:
            continue
        rows = _rows(session, index, segment, columns)
        try:
            whole = _impedance(session, segment, columns, rows)
        except TooFewReadings:
            continue
        whole = with_gain(whole, gain_ratio)
        cell = None
        if holder is not None:
            cell = _without(whole, holder, _stray_share(session, segment, columns, rows))
        found.append(Spectrum(step=index, whole=whole, cell=cell))
    return tuple(found)


def _rows(
    session: Session, index: int, segment: Segment, columns: Mapping[str, NDArray[np.generic]]
) -> NDArray[np.int_]:
    """Return the usable readings of the sines, whole periods of the slowest only."""
    t_ns, status = np.asarray(columns["t_ns"]), np.asarray(columns["status"], np.uint32)
    own = np.asarray(columns["step"]) == index
    for event in session.events():
        if event.kind == "segment_ended" and event.data.get("step") == index:
            own &= t_ns > event.t_ns
    rows = np.flatnonzero(own & ((status & UNUSABLE) == 0))
    if len(rows) == 0 or segment.sines is None:
        return rows
    period_ns = 1e9 / segment.sines.base_Hz
    lasted_ns = float(t_ns[rows[-1]] - t_ns[rows[0]])
    whole_ns = max(round(lasted_ns / period_ns), 1) * period_ns
    whole = np.asarray(t_ns[rows] - t_ns[rows[0]] <= whole_ns)
    return np.asarray(rows[whole])


def _impedance(
    session: Session,
    segment: Segment,
    columns: Mapping[str, NDArray[np.generic]],
    rows: NDArray[np.int_],
) -> Impedance:
    if segment.sines is None or len(rows) == 0:
        raise TooFewReadings("there are no readings")
    frequency_Hz = np.array(segment.sines.frequencies_Hz)
    t_ns = np.asarray(columns["t_ns"])[rows]
    t_s = (t_ns - t_ns[0]) / 1e9
    # The current that is held stands still in a reading; the voltage, which the capacitance
    # across it smooths, is that of its own aperture.
    voltage_s = t_s
    if segment.voltage is None:
        voltage_s = t_s + aperture_offset_ns(session, "voltage")[rows] / 1e9
    found = impedance(
        fit_amplitudes(voltage_s, np.asarray(columns["voltage"], np.float64)[rows], frequency_Hz),
        fit_amplitudes(t_s, np.asarray(columns["current"], np.float64)[rows], frequency_Hz),
    )
    found = with_lag(found, _apart_s(session, columns, rows))
    delay_s = _group_delay_s(session, columns, rows)
    return without_delay(found, delay_s / 2, delay_s / np.sqrt(12.0))


def _apart_s(
    session: Session, columns: Mapping[str, NDArray[np.generic]], rows: NDArray[np.int_]
) -> float:
    """Return by how much voltage and current may be apart within a reading, at most.

    The meter integrates one after the other while the level stands still. What follows
    the level at once (a resistance) has the same time in both, what follows it smoothly
    (a capacitance) has not.
    """
    attributes = session.attributes(INSTRUMENT)
    window_s = float(str(attributes["nplc"])) / float(str(attributes["line_frequency_Hz"]))
    whole_s = float(np.median(np.asarray(columns["aperture_s"], np.float64)[rows]))
    return max(whole_s - window_s, 0.0)


def _group_delay_s(
    session: Session, columns: Mapping[str, NDArray[np.generic]], rows: NDArray[np.int_]
) -> float:
    """Return by how much the range delays the current that is read, at most.

    It comes from the settling of the data sheet, which is a limit: the true delay is as
    likely anywhere from 0 to it. So the middle is taken out, and the rest is uncertainty.
    """
    attributes = session.attributes(INSTRUMENT)
    full_A = np.atleast_1d(np.asarray(attributes["range_full_scale_A"], np.float64))
    used_A = float(np.median(np.asarray(columns["range"], np.float64)[rows]))
    nearest = int(np.argmin(np.abs(full_A - used_A)))
    if (known_s := attributes.get("range_group_delay_s")) is not None:
        return float(np.atleast_1d(np.asarray(known_s, np.float64))[nearest])
    settling_s = np.atleast_1d(np.asarray(attributes["range_settling_s"], np.float64))
    return float(settling_s[nearest]) / SETTLED_TO_10_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """Share of the stray capacitance's current that is in the readings."""

    value: float
    sigma: float


def _stray_share(
    session: Session,
    segment: Segment,
    columns: Mapping[str, NDArray[np.generic]],
    rows: NDArray[np.int_],
) -> _Share:
    """Return how much of what the stray capacitance takes is read as current.

    All of it at a held current. A held voltage is moved between two readings, which charges
    the capacitance at once; but a range that lags still shows a part of it in the reading:
    anything from nothing to what a first-order range with the settling of the data sheet
    would show in the last part of a reading.
    """
    if segment.voltage is None:
        return _Share(value=1.0, sigma=0.0)
    tau_s = _group_delay_s(session, columns, rows)
    end_s = float(np.median(np.asarray(columns["aperture_s"], np.float64)[rows]))
    begin_s = _apart_s(session, columns, rows)
    every_s = float(np.median(np.diff(np.asarray(columns["t_ns"])[rows]))) / 1e9
    most = 0.0
    if tau_s > 0 and end_s > begin_s:
        left = np.exp(-begin_s / tau_s) - np.exp(-end_s / tau_s)
        most = every_s / (end_s - begin_s) * left / (1 - np.exp(-every_s / tau_s))
    return _Share(value=float(most) / 2, sigma=float(most) / np.sqrt(12.0))


def _without(whole: Impedance, holder: Holder, stray: _Share) -> Impedance:
    return without_holder(
        whole,
        capacitance_F=stray.value * holder.capacitance_F,
        capacitance_sigma_F=float(
            np.hypot(stray.value * holder.capacitance_sigma_F, stray.sigma * holder.capacitance_F)
        ),
        conductance_S=holder.conductance_S,
        conductance_sigma_S=holder.conductance_sigma_S,
    )
