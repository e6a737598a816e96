"""What is worked out from a recorded session, and written back into it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from correlate.ledger import Accuracy, Holder, Ledger
from correlate.trackers.protocol import CannotTrack
from runner.associations import associations, put_associations
from runner.beam_code import ReadCode, beam_of, code_events, code_table, read_codes
from runner.dose_record import put_dose
from runner.edge_record import put_edges
from runner.front_kinematics import FARADAY_UNITS, front_balance, step_kinematics
from runner.holder_record import HolderRecord
from runner.impedances import PREFIX, Spectrum, spectra
from runner.recorded_plan import experiment_of, played_steps
from runner.session_holder import holder_change_of, holder_of, put_holder
from runner.session_ledger import (
    BEAM_CHARGE,
    BEAM_SIGMA,
    accuracy_of,
    carried_ionic,
    ledger_of,
    widen,
)
from runner.session_shorts import Shorts, find_shorts
from runner.session_tracks import track_session
from runner.timebase import fit_time_base
from runner.titrations import PREFIX as GITT_PREFIX
from runner.titrations import StepTitration, titrations
from runner.track_options import TrackSettings
from runner.volumes import PREFIX as VOLUME_PREFIX
from runner.volumes import UNITS as VOLUME_UNITS
from runner.volumes import Balance, volume_balances
from session.editor import SessionEditor
from session.reader import Session

SHORT_EVENT = "soft_short"


def analyse_session(path: Path, holder: HolderRecord | None) -> None:
    """Fit the time base, run the experiment's trackers, and correlate.

    A tracker that does not find its object leaves an event that says why.
    """
    fit_time_base(path)
    if holder is not None:
        put_holder(path, holder)
    for track in _experiment_tracks(path):
        try:
            track_session(path, track.tracker, name=track.name, options=track.options)
        except CannotTrack as error:
            _note(path, "not_tracked", f"{track.name}: {error}")
    correlate_session(path)


def _experiment_tracks(path: Path) -> tuple[TrackSettings, ...]:
    with Session.open(path) as session:
        experiment = experiment_of(session)
        has_frames = any(len(session.frames(camera)) for camera in session.cameras)
    return experiment.tracks if experiment is not None and has_frames else ()


def _note(path: Path, kind: str, message: str) -> None:
    with Session.open(path) as session:
        columns = session.sample_columns()
        t_ns = int(columns["t_ns"][-1]) if len(columns["t_ns"]) else 0
    with SessionEditor.open(path) as editor:
        editor.add_event(t_ns, kind, "analysis", message)


def correlate_session(path: Path) -> None:
    """Write dose, edges, the ledger, the ionic charge, the steps' kinematics, and lag tests."""
    put_dose(path)
    put_edges(path)
    with Session.open(path) as session:
        columns = session.sample_columns()
        if len(columns["t_ns"]) < 2:
            return
        found = _Findings.of(session, columns)
        before_C, before_sigma_C = carried_ionic(session)
        tested = associations(session, columns, found.ledger)
        known = {(e.t_ns, e.kind) for e in session.events()}
    with SessionEditor.open(path) as editor:
        ledger = found.ledger
        editor.put_table(
            "ledger",
            {"t_ns": ledger.t_ns, **ledger.columns},
            {"beam_status": ledger.beam_status},
        )
        editor.update_columns(
            "samples",
            {
                "charge_ionic": before_C + ledger.columns["ionic"],
                "charge_ionic_sigma": np.hypot(before_sigma_C, ledger.columns["ionic_sigma"]),
            },
        )
        shorts = ((t, SHORT_EVENT, text, data) for t, text, data in found.shorts.events())
        for t_ns, kind, text, details in (*shorts, *code_events(found.codes)):
            if (t_ns, kind) not in known:
                editor.add_event(t_ns, kind, "analysis", text, details)
        _put_codes(editor, found.codes)
        if found.steps:
            editor.put_table("correlation/kinematics", found.steps)
        for spectrum in found.spectra:
            name = f"correlation/{PREFIX}{spectrum.step + 1}"
            editor.put_table(name, spectrum.columns(), units=spectrum.units())
        for titration in found.titrations:
            editor.put_table(
                f"correlation/{GITT_PREFIX}{titration.step + 1}",
                titration.columns(),
                units=titration.units(),
            )
        put_associations(editor, *tested)
        if found.faraday:
            editor.put_table("correlation/faraday", *found.faraday, units=FARADAY_UNITS)
        for name, balance in found.volumes.items():
            editor.put_table(f"correlation/{VOLUME_PREFIX}{name}", *balance, units=VOLUME_UNITS)


def ledger_end(session: Session) -> tuple[float, float]:
    """Return the ionic charge at the end of a session by its ledger, with 1 sigma.

    From the first of the sessions that it goes on from; NaN without a calibration.
    """
    columns = session.sample_columns()
    if len(columns["t_ns"]) < 2:
        return math.nan, math.nan
    ledger = _Findings.of(session, columns).ledger.columns
    before_C, before_sigma_C = carried_ionic(session)
    ionic_C, sigma_C = float(ledger["ionic"][-1]), float(ledger["ionic_sigma"][-1])
    return before_C + ionic_C, math.hypot(before_sigma_C, sigma_C)


def _put_codes(editor: SessionEditor, codes: tuple[ReadCode, ...]) -> None:
    if codes:
        rows, units = code_table(codes)
        editor.put_table("correlation/blanking", rows, units=units)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """All that `correlate_session` works out before it writes."""

    ledger: Ledger
    shorts: Shorts
    steps: dict[str, list[float]]
    faraday: Balance | None
    volumes: dict[str, Balance]
    spectra: tuple[Spectrum, ...]
    titrations: tuple[StepTitration, ...]
    codes: tuple[ReadCode, ...]

    @classmethod
    def of(cls, session: Session, columns: Mapping[str, NDArray[np.generic]]) -> "_Findings":
        holder = holder_of(session)
        accuracy = accuracy_of(session, columns)
        change = holder_change_of(session)
        changed_F = 0.0 if change is None else change.capacitance_F
        shorts = find_shorts(columns)
        codes = read_codes(session, columns)
        beam = beam_of(session, codes, np.asarray(columns["t_ns"], np.int64))
        if beam is not None:
            columns = {**columns, BEAM_CHARGE: beam.charge_C, BEAM_SIGMA: beam.sigma_C}
        ledger = ledger_of(columns, accuracy, holder, slice(None), changed_F)
        if beam is not None:
            ledger = replace(ledger, beam_status=beam.status)
        widen(ledger.columns["ionic_sigma"], shorts.charge_C)
        front = session.table("tracks/front") if session.has("tracks/front") else None
        track = None if front is None else dict(front.columns)
        return cls(
            ledger=ledger,
            shorts=shorts,
            steps=step_kinematics(columns, accuracy, holder, track, (changed_F, shorts.charge_C)),
            spectra=_spectra(session, columns, holder, accuracy),
            titrations=_titrations(session, columns, holder, accuracy),
            codes=codes,
            faraday=None if track is None else front_balance(session, ledger, accuracy, track),
            volumes=volume_balances(session, columns, ledger),
        )


def _spectra(
    session: Session,
    columns: Mapping[str, NDArray[np.generic]],
    holder: Holder | None,
    accuracy: Accuracy,
) -> tuple[Spectrum, ...]:
    return spectra(
        session, played_steps(session), columns, holder=holder, gain_ratio=accuracy.gain_ratio
    )


def _titrations(
    session: Session,
    columns: Mapping[str, NDArray[np.generic]],
    holder: Holder | None,
    accuracy: Accuracy,
) -> tuple[StepTitration, ...]:
    return titrations(
        session,
        played_steps(session),
        columns,
        holder=holder,
        accuracy=accuracy,
        ledger_of=lambda held: ledger_of(held, accuracy, holder, slice(None)),
    )
