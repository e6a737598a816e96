"""What came of a run, in numbers with their uncertainties."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from potentiostat.protocol import SafeState
from runner.edge_record import PATH as EDGES_PATH
from runner.edge_record import SOURCE as EDGES
from runner.format import in_unit, with_sigma
from runner.impedances import PREFIX
from runner.plan import ExitCode
from runner.temperature_summary import (
    TemperatureSummary,
    temperature_summary,
    temperature_text,
)
from runner.titration_summary import TitrationSummary, titration_summaries, titration_table
from session.reader import Session

DOUBTS = (
    "calibration_doubted",
    "holder_changed",
    "clock_disagreement",
    "code_refused",
    "beam_left",
)
IMPORTED = "imported"  # exit reason of a session that was not run here
LEDGER_TERMS = ("instrument", "capacitive", "leak", "dielectric", "beam", "ionic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A value and its standard uncertainty; NaN where unknown."""

    value: float
    sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """One step: what was held, why it ended, what flowed, how fast the front moved."""

    index: int
    name: str
    held: str
    duration_s: float
    ended: str
    kind: str
    charge_C: Mapping[str, Measured]
    front_speed_m_s: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumSummary:
    """The impedance that one step found, by frequency.

    Parameters
    ----------
    of_cell
        False where no open-holder calibration took the holder out of it.
    """

    step: int
    of_cell: bool
    frequency_Hz: tuple[float, ...]
    real_ohm: tuple[float, ...]
    imag_ohm: tuple[float, ...]
    sigma_ohm: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationSummary:
    """How surely two rates go together."""

    name: str
    r: float
    lag_s: float
    p: float
    null: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSummary:
    """What one code of the beam told.

    Parameters
    ----------
    camera_delay_s, meter_delay_s
        Of frames and readings after the commands to the blanker.
    difference_s, bound_s
        Of both, and what clock fits and instruments permit.
    beam_current_A
        Into the positive terminal while the beam is on.
    """

    camera_delay_s: Measured
    meter_delay_s: Measured
    difference_s: Measured
    bound_s: float
    beam_current_A: Measured
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseSummary:
    """Electrons per m^2 that the frames brought; NaN where unknown.

    Parameters
    ----------
    total_per_m2
        Up to the end of the last frame of which the dose is known.
    largest_per_m2
        Of any part of the specimen, with the drift taken out.
    reason
        Why it is unknown, or what its uncertainty does not hold.
    """

    total_per_m2: float
    largest_per_m2: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSummary:
    """What edges of trigger lines tell of both clocks; see `runner.edge_record`."""

    difference_s: Measured
    matched: int
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What came of a session.

    Parameters
    ----------
    left_in
        Safe state in which the cell was left; None when it is not known.
    frame_time_sigma_ns, frame_time_bound_ns
        Uncertainty of the frames' times, and the hard bound beside it.
    warnings
        What makes the numbers less sure.
    reaction_median_s, reaction_largest_s
        From the end of the reading that met a rule to the new set-point, over all parts of
        the plan that a rule ended; NaN where none did.
    """

    session: str
    title: str
    exit_code: int
    exit_reason: str
    left_in: str | None
    simulated: bool
    duration_s: float
    samples: int
    frames: int
    frames_dropped: int
    frame_time_sigma_ns: float
    frame_time_bound_ns: float
    drift_px: Measured
    steps: tuple[StepSummary, ...]
    correlations: tuple[CorrelationSummary, ...]
    reaction_median_s: float
    reaction_largest_s: float
    spectra: tuple[SpectrumSummary, ...]
    titrations: tuple[TitrationSummary, ...]
    warnings: tuple[str, ...] = ()
    codes: tuple[CodeSummary, ...] = ()
    dose: DoseSummary | None = None
    edges: EdgeSummary | None = None
    temperature: TemperatureSummary | None = None


def summarise(
    path: Path,
    *,
    exit_code: ExitCode = ExitCode.DONE,
    left_in: SafeState | None = None,
) -> RunSummary:
    """Read a session and say what came of it."""
    with Session.open(path) as session:
        samples = session.sample_columns()
        t_ns = samples["t_ns"]
        frames, dropped = _frame_counts(session)
        sigma_ns, bound_ns = _frame_time(session)
        reactions_s = _reactions_s(session)
        return RunSummary(
            session=str(path),
            title=session.title,
            exit_code=int(exit_code),
            exit_reason=session.exit_reason,
            left_in=None if left_in is None else left_in.value,
            simulated=session.simulated,
            duration_s=_duration_s(session),
            samples=len(t_ns),
            frames=frames,
            frames_dropped=dropped,
            frame_time_sigma_ns=sigma_ns,
            frame_time_bound_ns=bound_ns,
            drift_px=_largest_drift(session),
            steps=_steps(session),
            correlations=_correlations(session),
            reaction_median_s=float(np.median(reactions_s)) if reactions_s else math.nan,
            reaction_largest_s=max(reactions_s, default=math.nan),
            spectra=_spectra(session),
            titrations=titration_summaries(session, _numbers(session)),
            warnings=_warnings(session),
            codes=_codes(session),
            dose=_dose(session),
            edges=_edges(session),
            temperature=temperature_summary(session),
        )


def _edges(session: Session) -> EdgeSummary | None:
    if not session.has(EDGES_PATH):
        return None
    table = session.table(EDGES_PATH)
    return EdgeSummary(
        difference_s=Measured(
            value=float(table["difference"][0]), sigma=float(table["difference_sigma"][0])
        ),
        matched=int(table["matched"][0]),
        verdict=str(table.attributes["verdict"]),
    )


def _dose(session: Session) -> DoseSummary | None:
    if not session.has("correlation/dose"):
        return None
    table = session.table("correlation/dose")
    total = table["dose_total"]
    known = total[np.isfinite(total)]
    return DoseSummary(
        total_per_m2=float(known[-1]) if len(known) else math.nan,
        largest_per_m2=float(np.max(table["map"])) if "map" in table else math.nan,
        reason=str(table.attributes["reason"]),
    )


def _warnings(session: Session) -> tuple[str, ...]:
    """Say what makes the numbers less sure: an old calibration, a changed holder, shorts."""
    said = [event.message for event in session.events() if event.kind in DOUBTS]
    shorts = [event for event in session.events() if event.kind == "soft_short"]
    if shorts:
        falls = sum(float(str(event.data["step_V"])) < 0 for event in shorts)
        said.append(
            f"soft shorts: the voltage fell at once {falls} times at a held current, first: "
            f"{min(shorts, key=lambda event: event.t_ns).message}"
        )
    return tuple(said)


def _codes(session: Session) -> tuple[CodeSummary, ...]:
    if not session.has("correlation/blanking"):
        return ()
    table = session.table("correlation/blanking").columns
    told = [
        e
        for e in session.events()
        if e.kind in ("blanking", "clock_disagreement") and e.source != EDGES
    ]
    messages = [e.message for e in sorted(told, key=lambda e: e.t_ns)]

    def measured(name: str, i: int) -> Measured:
        return Measured(value=float(table[name][i]), sigma=float(table[f"{name}_sigma"][i]))

    return tuple(
        CodeSummary(
            camera_delay_s=measured("camera_delay", i),
            meter_delay_s=measured("meter_delay", i),
            difference_s=measured("difference", i),
            bound_s=float(table["difference_bound"][i]),
            beam_current_A=measured("beam_current", i),
            verdict=message,
        )
        for i, message in enumerate(messages)
    )


def _duration_s(session: Session) -> float:
    """From the first reading or exposure to the last."""
    spans = [session.sample_columns()["t_ns"]]
    for camera in session.cameras:
        table = session.frame_table(camera)
        spans += [table["t_start_ns"], table["t_start_ns"] + table["exposure_ns"]]
    known = [span for span in spans if len(span)]
    if not known:
        return 0.0
    return (max(int(s.max()) for s in known) - min(int(s.min()) for s in known)) / 1e9


def _frame_counts(session: Session) -> tuple[int, int]:
    tables = [session.frame_table(camera) for camera in session.cameras]
    return (
        sum(len(table["index"]) for table in tables),
        sum(int(np.sum(table["dropped_before"])) for table in tables),
    )


def _frame_time(session: Session) -> tuple[float, float]:
    for camera in session.cameras:
        sigma_ns = session.frame_table(camera)["t_sigma_ns"]
        fits = session.clock_fits(camera) if camera in session.clocks else ()
        if len(sigma_ns) and fits:
            return float(np.median(sigma_ns)), max(float(f.bound_ns) for f in fits)
    return math.nan, math.nan


def _largest_drift(session: Session) -> Measured:
    for camera in session.cameras:
        if session.has(f"drift/{camera}"):
            drift = session.table(f"drift/{camera}")
            size = np.hypot(drift["dx"], drift["dy"])
            if len(size) and np.any(np.isfinite(size)):
                i = int(np.nanargmax(size))
                return Measured(value=float(size[i]), sigma=float(drift["sigma"][i]))
    return Measured(value=math.nan, sigma=math.nan)


def _steps(session: Session) -> tuple[StepSummary, ...]:
    started = {e.data["step"]: e for e in session.events() if e.kind == "step_started"}
    ended = {e.data["step"]: e for e in session.events() if e.kind == "step_ended"}
    found = (
        session.table("correlation/kinematics").columns
        if session.has("correlation/kinematics")
        else {}
    )
    steps = []
    for index, start in started.items():
        end = ended.get(index)
        steps.append(
            StepSummary(
                index=int(str(index)),
                name=str(start.data["name"]),
                held=str(start.data["held"]),
                duration_s=math.nan if end is None else (end.t_ns - start.t_ns) / 1e9,
                ended="the record ends" if end is None else str(end.data["reason"]),
                kind="unknown" if end is None else str(end.data["kind"]),
                charge_C={term: _at_step(found, term, index) for term in LEDGER_TERMS},
                front_speed_m_s=_at_step(found, "velocity", index),
            )
        )
    return tuple(steps)


def _at_step(columns: Mapping[str, NDArray[np.generic]], name: str, step: object) -> Measured:
    if name in columns:
        rows = np.flatnonzero(columns["step"] == step)
        if len(rows):
            return Measured(
                value=float(columns[name][rows[0]]),
                sigma=float(columns[f"{name}_sigma"][rows[0]]),
            )
    return Measured(value=math.nan, sigma=math.nan)


def _correlations(session: Session) -> tuple[CorrelationSummary, ...]:
    path = "correlation/front_current"
    if not session.has(path):
        return ()
    found = session.attributes(path)
    return (
        CorrelationSummary(
            name="front velocity with current",
            r=float(found["r_max"]),  # type: ignore[arg-type]
            lag_s=float(found["lag_at_max_s"]),  # type: ignore[arg-type]
            p=float(found["p"]),  # type: ignore[arg-type]
            null=str(found["null"]),
            verdict=str(found["verdict"]),
        ),
    )


def _reactions_s(session: Session) -> list[float]:
    kinds = ("condition", "held", "limit")
    return [
        float(str(e.data["latency_ns"])) / 1e9
        for e in session.events()
        if e.kind == "segment_ended" or (e.kind == "step_ended" and e.data["kind"] in kinds)
    ]


def _numbers(session: Session) -> list[int]:
    """Return the steps that were begun."""
    started = [e.data["step"] for e in session.events() if e.kind == "step_started"]
    return sorted(int(str(number)) for number in started)


def _spectra(session: Session) -> tuple[SpectrumSummary, ...]:
    found = []
    for step in _numbers(session):
        path = f"correlation/{PREFIX}{step + 1}"
        if not session.has(path):
            continue
        columns = session.table(path).columns
        of_cell = "cell_real" in columns
        prefix = "cell_" if of_cell else ""
        found.append(
            SpectrumSummary(
                step=step,
                of_cell=of_cell,
                frequency_Hz=tuple(columns["frequency"].tolist()),
                real_ohm=tuple(columns[f"{prefix}real"].tolist()),
                imag_ohm=tuple(columns[f"{prefix}imag"].tolist()),
                sigma_ohm=tuple(columns[f"{prefix}sigma"].tolist()),
            )
        )
    return tuple(found)


# --- as a person reads it ----------------------------------------------------------


def render_summary(summary: RunSummary) -> RenderableType:
    """Return the summary for a terminal."""
    parts: list[RenderableType] = [
        Text(f"{summary.title}: {summary.exit_reason}", style="bold"),
        _facts(summary),
    ]
    if summary.steps:
        parts += [_why_table(summary), _charge_table(summary)]
    parts += [_spectrum_table(s) for s in summary.spectra]
    parts += [titration_table(t) for t in summary.titrations]
    parts += [_sentence(c) for c in summary.correlations]
    parts += [_code_sentence(c) for c in summary.codes]
    if summary.edges is not None:
        parts.append(Text(f"edges: {summary.edges.verdict}"))
    parts += [Text(f"Warning: {warning}", style="yellow") for warning in summary.warnings]
    if summary.left_in == SafeState.S1:
        parts.append(
            Text(
                "The cell rests at 0 A with its voltage clamped, and the output is on: "
                "disconnect the cell before anybody switches the instrument off."
            )
        )
    return Group(*parts)


def _facts(summary: RunSummary) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    hardware = "simulated hardware" if summary.simulated else "measured"
    table.add_row("session", f"{summary.session} ({hardware})")
    table.add_row(
        "recorded",
        f"{summary.duration_s:.0f} s, {summary.samples} samples, {summary.frames} "
        f"frames ({summary.frames_dropped} dropped by the camera)",
    )
    if summary.dose is not None:
        table.add_row("dose", dose_text(summary.dose))
    if summary.temperature is not None:
        table.add_row("temperature", temperature_text(summary.temperature))
    if summary.exit_reason == IMPORTED:
        return table
    if summary.frames:
        table.add_row(
            "frame times",
            f"± {in_unit(summary.frame_time_sigma_ns / 1e9, 's', 3)} (1 sigma), hard bound "
            f"± {in_unit(summary.frame_time_bound_ns / 1e9, 's', 3)}",
        )
        table.add_row(
            "largest drift",
            with_sigma(summary.drift_px.value, summary.drift_px.sigma, "px"),
        )
    if math.isfinite(summary.reaction_largest_s):
        table.add_row(
            "rules acted within",
            f"{in_unit(summary.reaction_median_s, 's', 2)} (median), "
            f"{in_unit(summary.reaction_largest_s, 's', 2)} (longest) of the reading",
        )
    left = "not known" if summary.left_in is None else summary.left_in
    table.add_row("cell left in", left)
    return table


def dose_text(dose: DoseSummary) -> str:
    """Return a dose as people read it, or why it is unknown."""
    if not math.isfinite(dose.total_per_m2):
        return f"unknown: {dose.reason}"
    return (
        f"{dose.total_per_m2 / 1e20:.4g} e/angstrom^2, on the specimen at most "
        f"{dose.largest_per_m2 / 1e20:.4g}"
    )


def _why_table(summary: RunSummary) -> Table:
    table = Table(title="steps", title_justify="left")
    for name in ("step", "held", "lasted", "ended because", "front speed"):
        table.add_column(name)
    for step in summary.steps:
        speed = step.front_speed_m_s
        table.add_row(
            f"{step.index + 1} {step.name}",
            step.held,
            f"{step.duration_s:.1f} s",
            step.ended,
            with_sigma(speed.value, speed.sigma, "m/s"),
        )
    return table


def _charge_table(summary: RunSummary) -> Table:
    table = Table(title="charge by ledger term", title_justify="left")
    table.add_column("step")
    for term in LEDGER_TERMS:
        table.add_column(term)
    for step in summary.steps:
        table.add_row(
            f"{step.index + 1} {step.name}",
            *(charge_text(term, step.charge_C[term]) for term in LEDGER_TERMS),
        )
    return table


def _spectrum_table(spectrum: SpectrumSummary) -> Table:
    what = "of the cell" if spectrum.of_cell else "with the holder"
    table = Table(title=f"impedance {what}, step {spectrum.step + 1}", title_justify="left")
    for name in ("frequency", "real", "imaginary"):
        table.add_column(name)
    rows = (spectrum.frequency_Hz, spectrum.real_ohm, spectrum.imag_ohm, spectrum.sigma_ohm)
    for frequency_Hz, real_ohm, imag_ohm, sigma_ohm in zip(*rows, strict=True):
        table.add_row(
            in_unit(frequency_Hz, "Hz"),
            with_sigma(real_ohm, sigma_ohm, "ohm"),
            with_sigma(imag_ohm, sigma_ohm, "ohm"),
        )
    return table


def charge_text(term: str, charge: Measured) -> str:
    """Return a charge as people read it; a beam term that was not measured says so."""
    if term == "beam" and charge.sigma == 0:
        return "not measured"
    return with_sigma(charge.value, charge.sigma, "C")


def _sentence(found: CorrelationSummary) -> Text:
    return Text(
        f"{found.name}: r = {found.r:.3f} at a lag of {found.lag_s:+.2f} s, "
        f"p = {found.p:.3g} ({found.null}). {found.verdict}"
    )


def _code_sentence(code: CodeSummary) -> Text:
    camera, meter, beam = code.camera_delay_s, code.meter_delay_s, code.beam_current_A
    return Text(
        f"coded beam: frames {with_sigma(camera.value, camera.sigma, 's')} and readings "
        f"{with_sigma(meter.value, meter.sigma, 's')} after the commands, beam current "
        f"{with_sigma(beam.value, beam.sigma, 'A')}; {code.verdict}"
    )
