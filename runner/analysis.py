"""What is worked out from a recorded session, and written back into it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from correlate.faraday import faraday_balance
from correlate.kinematics import mean_velocity
from correlate.ledger import Accuracy, Beam, Counted, Holder, Lagging, Ledger, charge_ledger
from correlate.meter_delay import meter_delay
from correlate.registry import tracker_class
from correlate.trackers.front import with_velocity
from correlate.trackers.growth import with_velocity as with_end_velocity
from correlate.trackers.protocol import CannotTrack, SceneSettings, Track
from potentiostat.records import Status
from potentiostat.segments import Step
from potentiostat.technique_data import step_from_data
from runner.associations import associations, put_associations
from runner.beam_code import ReadCode, beam_of, code_events, code_table, read_codes
from runner.dose_record import put_dose
from runner.edge_record import put_edges
from runner.experiment import Experiment, ExperimentError
from runner.frame_samples import thinned_of
from runner.holder_record import HolderRecord
from runner.impedances import PREFIX, Spectrum, spectra
from runner.session_holder import holder_change_of, holder_of, put_holder
from runner.session_shorts import Shorts, find_shorts
from runner.spread_frames import SessionFrames
from runner.team import ALONE, Team
from runner.timebase import fit_time_base
from runner.titrations import PREFIX as GITT_PREFIX
from runner.titrations import StepTitration, titrations
from runner.track_options import TrackSettings
from runner.volumes import PREFIX as VOLUME_PREFIX
from runner.volumes import UNITS as VOLUME_UNITS
from runner.volumes import Balance, volume_balances
from session.editor import SessionEditor
from session.reader import Session
from session.session_link import LINK

FARADAY_UNITS = {"charge": "C", "position": "m", "position_sigma": "m"}
VELOCITY_WINDOW_S = 10.0
END_WINDOW_S = 2.0  # of an end that grows: what a rule on images looks back over, too
SETTLING_S = 2.0  # left out at the start of a step when its front speed is taken
BRIDGED_READINGS = 5.0  # that have not settled: of more, their own values are integrated
SHORT_EVENT = "soft_short"
BEAM_CHARGE, BEAM_SIGMA = "beam_charge", "beam_charge_sigma"  # beside the samples' columns


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
        experiment = _experiment_of(session)
        has_frames = any(len(session.frames(camera)) for camera in session.cameras)
    return experiment.tracks if experiment is not None and has_frames else ()


def _experiment_of(session: Session) -> Experiment | None:
    """Return the experiment that a session holds; None for an imported one."""
    try:
        return Experiment.loads(session.experiment_text, name=str(session.path))
    except ExperimentError:
        return None


def _note(path: Path, kind: str, message: str) -> None:
    with Session.open(path) as session:
        columns = session.sample_columns()
        t_ns = int(columns["t_ns"][-1]) if len(columns["t_ns"]) else 0
    with SessionEditor.open(path) as editor:
        editor.add_event(t_ns, kind, "analysis", message)


# --- tracking --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSummary:
    """What a tracker made of a session."""

    name: str
    tracker: str
    frames: int
    valid: int
    reasons: Mapping[str, int]
    largest_drift_px: float
    attributes: Mapping[str, float]


def track_session(
    path: Path,
    tracker: str,
    *,
    name: str | None = None,
    options: Mapping[str, float | str] | None = None,
    team: Team = ALONE,
) -> TrackSummary:
    """Run a tracker over the stored frames, and write drift and track.

    Parameters
    ----------
    tracker
        Registered name.
    name
        Of the track; that of the tracker where None.
    options
        What the tracker is told, in SI units.
    team
        Who else looks at frames; the result does not depend on it.

    Raises
    ------
    UnknownTracker
        There is no such tracker.
    WorkersRefused
        A worker does not find the file.
    CannotTrack
        The session has no frames, or the tracker does not find its object in them.
    """
    chosen = tracker_class(tracker)
    track_name = name or tracker
    with Session.open(path) as session:
        if not session.cameras:
            raise CannotTrack(f"{path} has no frames to track")
        camera = session.cameras[0]
        stack, table = session.frames(camera), session.frame_table(camera)
        sample = session.attributes("sample")
        frames = SessionFrames(stack, team)
        settings = SceneSettings(
            shape=(stack.shape[1], stack.shape[2]),
            pixel_size_m=float(str(table.attributes.get("pixel_size", math.nan))),
            film_thickness_m=float(str(sample.get("working_thickness_m", math.nan))),
            depth_m=float(str(sample.get("depth_m", math.nan))),
            options=options or {},
        )
        track: Track = chosen(settings).track(frames)
        t_ns = table["t_start_ns"] + table["exposure_ns"] // 2
    if "position" in track.columns:
        track = with_velocity(track, t_ns, VELOCITY_WINDOW_S)
    elif "along_px" in track.columns:
        track = with_end_velocity(track, t_ns, END_WINDOW_S, settings.pixel_size_m)
    with SessionEditor.open(path) as editor:
        drift: dict[str, NDArray[np.generic]] = {"t_ns": t_ns, **track.drift}
        drift["valid"] = track.drift["valid"].astype(np.uint8)
        units = {name: track.units[name] for name in track.drift if name in track.units}
        editor.put_table(f"drift/{camera}", drift, units=units)
        if tracker != "drift":
            editor.put_table(
                f"tracks/{track_name}",
                {"t_ns": t_ns, **track.columns, "valid": track.valid.astype(np.uint8)},
                {**track.attributes, "tracker": tracker, "reasons": _reasons(track)},
                units=track.units,
            )
    dx = np.asarray(track.drift["dx"], dtype=np.float64)
    dy = np.asarray(track.drift["dy"], dtype=np.float64)
    return TrackSummary(
        name=track_name,
        tracker=tracker,
        frames=len(t_ns),
        valid=int(np.sum(track.valid)),
        reasons=track.reasons,
        largest_drift_px=float(np.nanmax(np.hypot(dx, dy))),
        attributes=track.attributes,
    )


def _reasons(track: Track) -> str:
    """Say why frames are not valid, and how many; empty where all are."""
    return "; ".join(f"{count}: {reason}" for reason, count in track.reasons.items())


def render_track(summary: TrackSummary) -> Table:
    """Return a track's summary for a terminal."""
    table = Table(title=f"track {summary.name}", title_justify="left", show_header=False)
    table.add_row("frames", f"{summary.frames}, {summary.valid} valid")
    for reason, count in summary.reasons.items():
        table.add_row("not valid", f"{count}: {reason}")
    table.add_row("largest drift", f"{summary.largest_drift_px:.2f} px")
    for name, value in summary.attributes.items():
        table.add_row(name, f"{value:.4g}")
    return table


# --- correlating -----------------------------------------------------------------------


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


def carried_ionic(session: Session) -> tuple[float, float]:
    """Return the ionic charge of the sessions that this one goes on from, with 1 sigma."""
    if not session.has(LINK):
        return 0.0, 0.0
    told = session.attributes(LINK)
    return (
        float(str(told.get("charge_ionic_C", math.nan))),
        float(str(told.get("charge_ionic_sigma_C", math.nan))),
    )


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
        ledger = _ledger(columns, accuracy, holder, slice(None), changed_F)
        if beam is not None:
            ledger = replace(ledger, beam_status=beam.status)
        _widen(ledger.columns["ionic_sigma"], shorts.charge_C)
        front = session.table("tracks/front") if session.has("tracks/front") else None
        track = None if front is None else dict(front.columns)
        return cls(
            ledger=ledger,
            shorts=shorts,
            steps=_steps(columns, accuracy, holder, track, (changed_F, shorts.charge_C)),
            spectra=_spectra(session, columns, holder, accuracy),
            titrations=_titrations(session, columns, holder, accuracy),
            codes=codes,
            faraday=None if track is None else _faraday(session, ledger, accuracy, track),
            volumes=volume_balances(session, columns, ledger),
        )


def _widen(sigma_C: NDArray[np.float64], short_C: NDArray[np.float64]) -> None:
    """Add what shorts took to the sigma of the ionic charge; where unknown, so is that."""
    np.hypot(sigma_C, short_C, out=sigma_C)


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


def _ledger(
    columns: Mapping[str, NDArray[np.generic]],
    accuracy: Accuracy,
    holder: Holder | None,
    rows: slice | NDArray[np.int_],
    changed_F: float = 0.0,
) -> Ledger:
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


def _steps(
    columns: Mapping[str, NDArray[np.generic]],
    accuracy: Accuracy,
    holder: Holder | None,
    track: Mapping[str, NDArray[np.generic]] | None,
    doubts: tuple[float, NDArray[np.float64]],
) -> dict[str, list[float]]:
    """Charge by term and front speed of every step.

    The doubts are the change of the stray capacitance, and what soft shorts took.
    """
    changed_F, short_C = doubts
    table: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        table.setdefault(name, []).append(value)

    whole = _ledger(columns, accuracy, holder, slice(None))
    numbers = np.asarray(columns["step"])
    for step in sorted({int(s) for s in numbers if s >= 0}):
        rows = np.flatnonzero(numbers == step)
        if len(rows) < 2:
            continue
        # From the reading before, so that the first interval is counted too.
        rows = np.arange(max(rows[0] - 1, 0), rows[-1] + 1)
        part = _ledger(columns, accuracy, holder, rows, changed_F)
        _widen(part.columns["ionic_sigma"], short_C[rows] - short_C[rows[0]])
        add("step", step)
        add("t_start_ns", float(part.t_ns[0]))
        add("t_end_ns", float(part.t_ns[-1]))
        for term in ("instrument", "capacitive", "leak", "beam"):
            add(term, float(part.columns[term][-1]))
            add(f"{term}_sigma", float(part.columns[f"{term}_sigma"][-1]))
        # The slow branch remembers the steps before.
        slow = whole.columns["dielectric"][rows[[0, -1]]]
        add("dielectric", float(slow[1] - slow[0]))
        add("dielectric_sigma", float(part.columns["dielectric_sigma"][-1]))
        shift = float(slow[1] - slow[0]) - float(part.columns["dielectric"][-1])
        add("ionic", float(part.columns["ionic"][-1]) - shift)
        add("ionic_sigma", float(part.columns["ionic_sigma"][-1]))
        velocity, sigma = (math.nan, math.nan)
        if track is not None:
            velocity, sigma = mean_velocity(
                np.asarray(track["t_ns"]),
                np.asarray(track["position"]),
                np.asarray(track["position_sigma"]),
                from_ns=int(part.t_ns[0]) + int(SETTLING_S * 1e9),
                to_ns=int(part.t_ns[-1]),
            )
        add("velocity", velocity)
        add("velocity_sigma", sigma)
    return table


def _spectra(
    session: Session,
    columns: Mapping[str, NDArray[np.generic]],
    holder: Holder | None,
    accuracy: Accuracy,
) -> tuple[Spectrum, ...]:
    return spectra(
        session, played_steps(session), columns, holder=holder, gain_ratio=accuracy.gain_ratio
    )


def played_steps(session: Session) -> dict[int, Step]:
    """Return the steps of a run by the number with which they were played.

    The events say so. Where one does not, because its step is a long one or the session is
    older, the experiment says so, unless rules have jumped in it.
    """
    experiment = _experiment_of(session)
    written = () if experiment is None else experiment.steps
    jumps = any(condition.goto for step in written for condition in step.until)
    steps = {} if jumps else dict(enumerate(written))
    for event in session.events():
        data = event.data.get("technique") if event.kind == "step_started" else None
        if isinstance(data, Mapping):
            steps[int(str(event.data["step"]))] = step_from_data(data)
    return steps


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
        ledger_of=lambda held: _ledger(held, accuracy, holder, slice(None)),
    )


def _faraday(
    session: Session,
    ledger: Ledger,
    accuracy: Accuracy,
    track: Mapping[str, NDArray[np.generic]],
) -> Balance | None:
    """Front displacement per ionic charge, beside what the geometry expects."""
    experiment = _experiment_of(session)
    ionic = ledger.columns["ionic"]
    if experiment is None or not np.all(np.isfinite(ionic)):
        return None
    t_ns = np.asarray(track["t_ns"])
    origin = int(ledger.t_ns[0])
    at_frame = np.interp((t_ns - origin).astype(float), (ledger.t_ns - origin).astype(float), ionic)
    largest = int(np.argmax(np.abs(ionic)))
    scale = ledger.columns["ionic_sigma"][largest] / max(abs(ionic[largest]), 1e-30)
    position, sigma = np.asarray(track["position"]), np.asarray(track["position_sigma"])
    try:
        balance = faraday_balance(
            at_frame,
            position,
            sigma,
            charge_scale_sigma=float(scale),
            expected_m_C=1.0 / experiment.cell.charge_per_m_C,
        )
    except ValueError:
        return None
    used = np.isfinite(at_frame) & np.isfinite(position) & (sigma > 0)
    points = {"charge": at_frame, "position": position, "position_sigma": sigma}
    return (
        {name: column[used] for name, column in points.items()},
        {name: float(value) for name, value in asdict(balance).items()},
    )
