"""What a report shows, gathered from a session: plain data, nothing drawn yet."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.format import in_unit, plain_text, scientific, with_sigma
from runner.holder_record import calibration_from
from runner.plain import plain
from runner.report_associations import (
    associations_content,
    balances_content,
    switching_content,
)
from runner.report_clocks import clocks_content, queues_content
from runner.report_dose import dose_content
from runner.report_frames import camera_of, drift_content, frames_content
from runner.report_methods import methods_text
from runner.report_numbers import axis_unit, largest, numbers, reduce_trace, seconds
from runner.report_stops import stops_content
from runner.report_tracks import marks_content, tracks_content
from runner.summary import LEDGER_TERMS, RunSummary, summarise
from runner.summary_text import charge_text
from runner.temperature_summary import temperature_text
from session.reader import Session

LEDGER_POINTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """All that the page is made of; JSON-ready."""

    content: dict[str, Any]
    reductions: tuple[str, ...]


def gather(path: Path, *, frames_budget_bytes: int) -> ReportData:
    """Collect a report's content.

    Parameters
    ----------
    path
        Session file.
    frames_budget_bytes
        Room for the frames; what had to be left out is said.
    """
    summary = summarise(path)
    with Session.open(path) as session:
        origin_ns, camera = _origin_ns(session), camera_of(session)
        traces, trace_note = _traces(session, origin_ns)
        frames, frame_notes = frames_content(session, camera, origin_ns, frames_budget_bytes)
        content = {
            "title": session.title,
            "start": session.start_time,
            "ended": session.exit_reason,
            "simulated": session.simulated,
            "facts": _facts(session, summary),
            "warnings": list(summary.warnings),
            "steps": _steps(summary),
            "spans": _spans(session, origin_ns),
            "stops": stops_content(session, camera, origin_ns),
            "traces": traces,
            "frames": frames,
            "drift": drift_content(session, camera, origin_ns),
            "tracks": tracks_content(session, origin_ns),
            "marks": marks_content(session, camera, [] if frames is None else frames["row"]),
            "ledger": _ledger(session, origin_ns),
            "ledger_total": _ledger_total(session),
            "associations": associations_content(session),
            "switching": switching_content(session),
            "balances": balances_content(session),
            "spectra": [asdict(spectrum) for spectrum in summary.spectra],
            "titrations": _titrations(summary),
            "dose": dose_content(session),
            "clocks": clocks_content(session, summary, origin_ns),
            "queues": queues_content(session),
            "events": [
                {"t": (e.t_ns - origin_ns) / 1e9, "kind": e.kind, "text": e.message}
                for e in session.events()
            ],
            "methods": methods_text(session, summary),
            "versions": dict(session.provenance.versions),
        }
    notes = [*trace_note, *frame_notes]
    return ReportData(content=content, reductions=tuple(notes))


def page_data(data: ReportData) -> dict[str, Any]:
    """Return the data as one object for the page; a number that is none becomes null."""
    content: dict[str, Any] = plain({**data.content, "reductions": list(data.reductions)})
    return content


def _origin_ns(session: Session) -> int:
    columns = session.sample_columns()
    starts = [int(columns["t_ns"][0])] if len(columns["t_ns"]) else []
    for camera in session.cameras:
        stamps = session.frame_table(camera)["t_start_ns"]
        starts += [int(stamps[0])] if len(stamps) else []
    return min(starts, default=0)


def _traces(session: Session, origin_ns: int) -> tuple[dict[str, Any] | None, list[str]]:
    columns = session.sample_columns()
    n = len(columns["t_ns"])
    if n == 0:
        return None, []
    voltage, current = columns["voltage"], columns["current"]
    rows = reduce_trace([voltage, current])
    note = [] if len(rows) == n else [f"traces: {len(rows)} of {n} readings, extremes kept"]
    factor_A, unit = axis_unit("A", largest(current))
    return {
        "t": seconds(columns["t_ns"][rows], origin_ns),
        "voltage": numbers(voltage[rows]),
        "current": numbers(current[rows] / factor_A),
        "current_unit": unit,
    }, note


def _spans(session: Session, origin_ns: int) -> list[dict[str, Any]]:
    """Begin and end of each step, for shading."""
    spans: dict[Any, dict[str, Any]] = {}
    for event in session.events():
        if event.kind == "step_started":
            spans[event.data["step"]] = {
                "from": (event.t_ns - origin_ns) / 1e9,
                "to": None,
                "name": str(event.data["name"]),
                "held": str(event.data["held"]),
                "rest": event.data["name"] == "ocv",
            }
        elif event.kind == "step_ended" and event.data["step"] in spans:
            spans[event.data["step"]]["to"] = (event.t_ns - origin_ns) / 1e9
    return list(spans.values())


def _ledger(session: Session, origin_ns: int) -> dict[str, Any] | None:
    if not session.has("ledger"):
        return None
    table = session.table("ledger")
    rows = reduce_trace([table["instrument"]], LEDGER_POINTS)
    factor_C, unit = axis_unit("C", largest(*(table[term] for term in LEDGER_TERMS)))
    terms = {
        term: {
            "value": numbers(table[term][rows] / factor_C),
            "low": numbers((table[term] - table[f"{term}_sigma"])[rows] / factor_C),
            "high": numbers((table[term] + table[f"{term}_sigma"])[rows] / factor_C),
        }
        for term in LEDGER_TERMS
    }
    return {"t": seconds(table["t_ns"][rows], origin_ns), "terms": terms, "unit": unit}


def _ledger_total(session: Session) -> list[dict[str, str]]:
    if not session.has("ledger"):
        return []
    table = session.table("ledger")
    status = str(table.attributes.get("beam_status", ""))
    rows = []
    for term in LEDGER_TERMS:
        value, sigma = float(table[term][-1]), float(table[f"{term}_sigma"][-1])
        text = status if term == "beam" and value == 0 else with_sigma(value, sigma, "C")
        rows.append({"term": term, "value": text})
    return rows


def _titrations(summary: RunSummary) -> list[dict[str, Any]]:
    return [
        {
            "step": titration.step + 1,
            "pulses": [
                [
                    f"{number}, {pulse.duration_s:.3g} s",
                    in_unit(pulse.current_A, "A"),
                    scientific(pulse.diffusivity_m2_s, pulse.diffusivity_sigma_m2_s),
                    scientific(pulse.fit_m2_s, pulse.fit_sigma_m2_s),
                    "yes" if pulse.valid else f"no: {pulse.reasons}",
                ]
                for number, pulse in enumerate(titration.pulses, 1)
            ],
        }
        for titration in summary.titrations
    ]


def _facts(session: Session, summary: RunSummary) -> list[dict[str, str]]:
    def fact(name: str, value: str) -> dict[str, str]:
        return {"name": name, "value": value}

    facts = [fact("duration", f"{summary.duration_s:.1f} s")]
    if summary.samples:
        facts.append(fact("readings", f"{summary.samples}"))
    if summary.frames:
        facts.append(fact("frames", f"{summary.frames}, and {summary.frames_dropped} lost"))
    if math.isfinite(summary.frame_time_sigma_ns):
        facts.append(
            fact(
                "time of a frame",
                f"± {in_unit(summary.frame_time_sigma_ns / 1e9, 's', 3)} (1 sigma), "
                f"hard bound ± {in_unit(summary.frame_time_bound_ns / 1e9, 's', 3)}",
            )
        )
    if math.isfinite(summary.drift_px.value):
        drift = summary.drift_px
        facts.append(fact("largest drift", f"{plain_text(drift.value, drift.sigma)} px"))
    facts += [fact("temperature", temperature_text(t)) for t in (summary.temperature,) if t]
    path = "instrument/potentiostat"
    if session.has(path):
        about = session.attributes(path)
        facts.append(fact("instrument", str(about.get("identity", about.get("model")))))
    if session.layers:
        facts.append(fact("cell", " | ".join(session.layers)))
    if session.calibration is not None:
        known = calibration_from(session.calibration.attributes)
        for name, value, sigma, unit in (
            ("stray capacitance", known.capacitance_F, known.capacitance_sigma_F, "F"),
            ("leakage", known.conductance_S, known.conductance_sigma_S, "S"),
        ):
            facts.append(fact(name, with_sigma(value, known.against_truth(value, sigma), unit)))
    return facts


def _steps(summary: RunSummary) -> list[dict[str, Any]]:
    rows = []
    for step in summary.steps:
        charges = {term: charge_text(term, charge) for term, charge in step.charge_C.items()}
        speed = step.front_speed_m_s
        rows.append(
            {
                "name": f"{step.index + 1} {step.name}",
                "held": step.held,
                "lasted": f"{step.duration_s:.1f} s",
                "ended": step.ended,
                "speed": with_sigma(speed.value, speed.sigma, "m/s"),
                "charge": charges,
            }
        )
    return rows
