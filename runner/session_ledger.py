"""The charge ledger of a session's readings: what its meter, holder and beam make of them."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from correlate.ledger import Accuracy, Beam, Counted, Holder, Lagging, Ledger, charge_ledger
from correlate.meter_delay import meter_delay
from potentiostat.records import Status
from runner.frame_samples import thinned_of
from session.reader import Session
from session.session_link import LINK

BRIDGED_READINGS = 5.0  # that have not settled: of more, their own values are integrated
BEAM_CHARGE, BEAM_SIGMA = "beam_charge", "beam_charge_sigma"  # beside the samples' columns


def accuracy_of(session: Session, columns: Mapping[str, NDArray[np.generic]]) -> Accuracy:
    """Return the data sheet's limits of the range that the readings were taken in.

    NaN for an instrument that the session says nothing about.
    """
    path = "instrument/potentiostat"
    attributes = session.attributes(path) if session.has(path) else {}
    full = np.atleast_1d(attributes.get("range_full_scale_A", np.nan))
    gain = np.atleast_1d(attributes.get("range_gain_ratio", np.nan))
    offset = np.atleast_1d(attributes.get("range_offset_A", np.nan))
    delay = np.atleast_1d(attributes.get("range_group_delay_s", np.zeros(len(full))))
    used = float(np.nanmax(np.asarray(columns["range"], dtype=np.float64), initial=0.0))
    nearest = int(np.argmin(np.abs(np.log(np.maximum(full, 1e-30) / max(used, 1e-30)))))
    return Accuracy(
        gain_ratio=float(gain[nearest]),
        offset_A=float(offset[nearest]),
        delay_s=float(delay[nearest]),
    )


def ledger_of(
    columns: Mapping[str, NDArray[np.generic]],
    accuracy: Accuracy,
    holder: Holder | None,
    rows: slice | NDArray[np.int_],
    changed_F: float = 0.0,
) -> Ledger:
    """Return the charge ledger of some rows of the samples, from the first of them.

    Parameters
    ----------
    columns
        All of the samples, and what codes told of the beam beside them.
    changed_F
        By how much the stray capacitance has changed since it was measured.
    """
    part = {name: np.asarray(column[rows]) for name, column in columns.items()}
    status = np.asarray(part["status"], np.uint32)
    held = (status & int(Status.POTENTIOSTATIC)) != 0
    unsettled = held & ((status & int(Status.SETTLING)) != 0)
    each_s = float(np.median(np.diff(part["t_ns"]))) / 1e9 if len(held) > 1 else math.inf
    current, lagging = part["current"], None
    if accuracy.delay_s > BRIDGED_READINGS * each_s:
        lagging = Lagging(
            held=held,
            unsettled=unsettled,
            delay_s=accuracy.delay_s,
            sourced_s=sourced_delay(columns, accuracy.delay_s),
        )
    else:
        # Few readings have not settled: their neighbours say more than how late they may be.
        current = np.where(unsettled, np.nan, current)
    return charge_ledger(
        part["t_ns"],
        current,
        part["voltage"],
        current_sigma_A=part["current_sigma"],
        voltage_sigma_V=part["voltage_sigma"],
        accuracy=accuracy,
        holder=holder,
        moved_V=moved_voltage(part["setpoint"], part["voltage"], part["status"]),
        counted=_counted(part),
        told=(np.asarray(part["status"], np.uint32) & int(Status.TOLD)) != 0,
        changed_F=changed_F,
        beam=_beam(part),
        lagging=lagging,
    )


def sourced_delay(
    columns: Mapping[str, NDArray[np.generic]], longest_s: float
) -> tuple[float, float]:
    """Return by how much readings of a sourced current are late, in s, and its sigma.

    Where no step of it tells, anything up to the data sheet's delay: the middle, and an even
    spread. None of it where no meter reads the current.
    """
    status = np.asarray(columns["status"], np.uint32)
    told = (status & int(Status.TOLD)) != 0
    if told.all():
        return 0.0, 0.0
    t_ns = np.asarray(columns["t_ns"], np.int64)
    found = meter_delay(
        (t_ns - t_ns[0]).astype(np.float64) / 1e9,
        np.asarray(columns["current"], np.float64),
        np.asarray(columns["setpoint"], np.float64),
        ~told & ((status & int(Status.POTENTIOSTATIC)) == 0),
        longest_s=longest_s,
    )
    return (longest_s / 2, longest_s / math.sqrt(12.0)) if found is None else found


def _beam(columns: Mapping[str, NDArray[np.generic]]) -> Beam | None:
    """Return what the beam added, where codes told it."""
    if BEAM_CHARGE not in columns:
        return None
    charge_C, sigma_C = (np.asarray(columns[n], np.float64) for n in (BEAM_CHARGE, BEAM_SIGMA))
    return Beam(charge_C=charge_C, sigma_C=sigma_C, status="measured")


def _counted(columns: Mapping[str, NDArray[np.generic]]) -> Counted | None:
    """Return what was counted where the plan did not store every reading."""
    thinned = thinned_of(columns)
    if thinned is None:
        return None
    single = np.asarray(columns["left_out"], np.float64) + 1
    return Counted(
        charge_C=np.asarray(columns["charge"], np.float64),
        thinned=thinned,
        readings=single - 1 + np.maximum(np.asarray(columns["averaged"], np.float64), 1),
        single=single,
    )


def moved_voltage(
    setpoint: NDArray[np.generic], voltage: NDArray[np.generic], status: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return by how much a held voltage was moved since the reading before, shape (n,)."""
    held = (np.asarray(status, np.uint32) & int(Status.POTENTIOSTATIC)) != 0
    level = np.where(held, setpoint, np.nan).astype(np.float64)
    before = np.where(np.isnan(level[:-1]), voltage[:-1], level[:-1])
    moved = np.zeros(len(level))
    moved[1:] = np.nan_to_num(level[1:] - before, nan=0.0)
    return moved


def widen(sigma_C: NDArray[np.float64], short_C: NDArray[np.float64]) -> None:
    """Add what shorts took to the sigma of the ionic charge; where unknown, so is that."""
    np.hypot(sigma_C, short_C, out=sigma_C)


def carried_ionic(session: Session) -> tuple[float, float]:
    """Return the ionic charge of the sessions that this one goes on from, with 1 sigma."""
    if not session.has(LINK):
        return 0.0, 0.0
    told = session.attributes(LINK)
    return (
        float(str(told.get("charge_ionic_C", math.nan))),
        float(str(told.get("charge_ionic_sigma_C", math.nan))),
    )
