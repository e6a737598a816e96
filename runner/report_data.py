"""What a report shows, gathered from a session: plain data, nothing drawn yet."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.format import in_unit, prefix_of, with_sigma
from runner.holder_record import calibration_from
from runner.report_dose import dose_content
from runner.summary import LEDGER_TERMS, RunSummary, charge_text, summarise
from runner.temperature_summary import temperature_text
from session.reader import Session

MAX_TRACE_POINTS = 6000
FRAME_SIDE_PX = 560
QUALITIES = (60, 45, 30)
LOW_PERCENT, HIGH_PERCENT = 0.2, 99.8
LEVEL_FRAMES = 12


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
        origin_ns = _origin_ns(session)
        traces, trace_note = _traces(session, origin_ns)
        frames, frame_notes = _frames(session, origin_ns, frames_budget_bytes)
        content = {
            "title": session.title,
            "start": session.start_time,
            "ended": session.exit_reason,
            "simulated": session.simulated,
            "facts": _facts(session, summary),
            "steps": _steps(summary),
            "spans": _spans(session, origin_ns),
            "traces": traces,
            "frames": frames,
            "front": _front(session, origin_ns),
            "ledger": _ledger(session, origin_ns),
            "ledger_total": _ledger_total(session),
            "lag": _lag(session),
            "dose": dose_content(session),
            "faraday": _faraday(session),
            "events": [
                {"t": (e.t_ns - origin_ns) / 1e9, "kind": e.kind, "text": e.message}
                for e in session.events()
            ],
            "versions": dict(session.provenance.versions),
        }
    notes = [*trace_note, *frame_notes]
    return ReportData(content=content, reductions=tuple(notes))


def _origin_ns(session: Session) -> int:
    columns = session.sample_columns()
    starts = [int(columns["t_ns"][0])] if len(columns["t_ns"]) else []
    for camera in session.cameras:
        stamps = session.frame_table(camera)["t_start_ns"]
        starts += [int(stamps[0])] if len(stamps) else []
    return min(starts, default=0)


def numbers(values: NDArray[np.generic] | Sequence[float], digits: int = 7) -> list[Any]:
    """Return numbers for JSON: unknown ones are null, digits beyond use are cut."""
    return [
        float(f"{v:.{digits}g}") if math.isfinite(v) else None
        for v in np.asarray(values, dtype=np.float64).tolist()
    ]


def _seconds(t_ns: NDArray[np.generic], origin_ns: int) -> list[float]:
    return [round(t / 1e9, 6) for t in (np.asarray(t_ns) - origin_ns).tolist()]


def reduce_trace(
    values: Sequence[NDArray[np.float64]], points: int = MAX_TRACE_POINTS
) -> NDArray[np.int_]:
    """Return rows that keep the extremes of every stretch of several traces."""
    n = len(values[0])
    if n <= points:
        return np.arange(n)
    edges = np.linspace(0, n, points // (2 * len(values)) + 1).astype(int)
    keep: set[int] = {0, n - 1}
    for a, b in pairwise(edges.tolist()):
        for value in values:
            part = np.nan_to_num(value[a:b], nan=0.0)
            keep |= {a + int(np.argmin(part)), a + int(np.argmax(part))}
    return np.array(sorted(keep))


def _traces(session: Session, origin_ns: int) -> tuple[dict[str, Any] | None, list[str]]:
    columns = session.sample_columns()
    n = len(columns["t_ns"])
    if n == 0:
        return None, []
    voltage, current = columns["voltage"], columns["current"]
    rows = reduce_trace([voltage, current])
    note = [] if len(rows) == n else [f"traces: {len(rows)} of {n} readings, extremes kept"]
    factor_A, prefix = _axis_prefix(current)
    return {
        "t": _seconds(columns["t_ns"][rows], origin_ns),
        "voltage": numbers(voltage[rows]),
        "current": numbers(current[rows] / factor_A),
        "current_unit": f"{prefix}A",
    }, note


def _axis_prefix(*values: NDArray[np.float64]) -> tuple[float, str]:
    """Return one power of ten and its prefix for an axis that holds all values."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    return prefix_of(float(np.max(np.abs(known), initial=0.0)))


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


# --- frames ----------------------------------------------------------------------------


def _frames(
    session: Session, origin_ns: int, budget: int
) -> tuple[dict[str, Any] | None, list[str]]:
    camera = next((c for c in session.cameras if len(session.frames(c))), None)
    if camera is None:
        return None, []
    stack, table = session.frames(camera), session.frame_table(camera)
    low, high = _levels(stack)
    chosen = np.arange(len(stack))
    binned = max(1, math.ceil(max(stack.shape[1:]) / FRAME_SIDE_PX))
    notes = [f"frames: binned {binned} x {binned} for this page"] if binned > 1 else []
    # A few frames tell how large all will be: first lower the quality, then leave
    # frames out.
    probe = [stack[int(i)] for i in np.unique(np.linspace(0, len(stack) - 1, 6).astype(int))]
    sizes = {
        q: float(np.mean([len(_jpeg(p, binned, low, high, q)) for p in probe])) for q in QUALITIES
    }
    quality = next((q for q in QUALITIES if sizes[q] * len(chosen) <= budget), QUALITIES[-1])
    if sizes[quality] * len(chosen) > budget:
        every = math.ceil(sizes[quality] * len(chosen) / budget)
        chosen = chosen[::every]
        notes.append(f"frames: every {every}. of {len(stack)} is shown")
    if quality != QUALITIES[0]:
        notes.append(f"frames: JPEG quality {quality}")
    jpegs = [_jpeg(stack[int(i)], binned, low, high, quality) for i in chosen]
    middle = table["t_start_ns"] + table["exposure_ns"] // 2
    drift = session.table(f"drift/{camera}") if session.has(f"drift/{camera}") else None
    pixel_m = float(str(table.attributes.get("pixel_size", math.nan)))
    return {
        "t": _seconds(middle[chosen], origin_ns),
        "index": [int(i) for i in table["index"][chosen]],
        "dropped": int(np.sum(table["dropped_before"])),
        "dose": numbers(table["dose"][chosen] / 1e20, 5),
        "row": [int(i) for i in chosen],
        "dx": numbers(np.zeros(len(chosen)) if drift is None else drift["dx"][chosen], 6),
        "dy": numbers(np.zeros(len(chosen)) if drift is None else drift["dy"][chosen], 6),
        "drift_known": drift is not None,
        "width": int(stack.shape[2]),
        "height": int(stack.shape[1]),
        "pixel_nm": pixel_m * 1e9 if math.isfinite(pixel_m) else None,
        "offsets": [0, *np.cumsum([len(j) for j in jpegs]).tolist()],
        "data": base64.b64encode(b"".join(jpegs)).decode("ascii"),
    }, notes


def _levels(stack: Any) -> tuple[float, float]:
    """Return one black and one white level for the whole stack."""
    probe = np.unique(np.linspace(0, len(stack) - 1, LEVEL_FRAMES).astype(int))
    parts = [np.asarray(stack[int(i)]).ravel()[::7] for i in probe]
    low, high = np.percentile(np.concatenate(parts), [LOW_PERCENT, HIGH_PERCENT])
    return float(low), float(high) if high > low else float(low) + 1.0


def _jpeg(pixels: NDArray[np.generic], binned: int, low: float, high: float, quality: int) -> bytes:
    image = np.asarray(pixels, dtype=np.float32)
    if binned > 1:
        height, width = (side - side % binned for side in image.shape)
        cut = image[:height, :width]
        rows = np.sum([cut[k::binned] for k in range(binned)], axis=0)
        image = np.sum([rows[:, k::binned] for k in range(binned)], axis=0) / binned**2
    grey = np.clip((image - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "JPEG", quality=quality)
    return out.getvalue()


# --- results ---------------------------------------------------------------------------


def _front(session: Session, origin_ns: int) -> dict[str, Any] | None:
    name = next((t for t in session.tracks if "position" in session.table(f"tracks/{t}")), None)
    if name is None:
        return None
    table = session.table(f"tracks/{name}")
    position, sigma = table["position"], table["position_sigma"]
    found: dict[str, Any] = {
        "name": name,
        "t": _seconds(table["t_ns"], origin_ns),
        "position": numbers(position * 1e9),
        "low": numbers((position - sigma) * 1e9),
        "high": numbers((position + sigma) * 1e9),
        "valid": int(np.sum(table["valid"])),
        "count": len(table["valid"]),
    }
    if "x_front_px" in table:
        found["x"] = numbers(table["x_front_px"], 6)
        found["x_sigma"] = numbers(table["x_front_sigma_px"], 4)
        found["x_interface"] = float(str(table.attributes["x_interface_px"]))
    return found


def _ledger(session: Session, origin_ns: int) -> dict[str, Any] | None:
    if not session.has("ledger"):
        return None
    table = session.table("ledger")
    rows = reduce_trace([table["instrument"]], 2000)
    factor_C, prefix = _axis_prefix(*(table[term] for term in LEDGER_TERMS))
    terms = {
        term: {
            "value": numbers(table[term][rows] / factor_C),
            "low": numbers((table[term] - table[f"{term}_sigma"])[rows] / factor_C),
            "high": numbers((table[term] + table[f"{term}_sigma"])[rows] / factor_C),
        }
        for term in LEDGER_TERMS
    }
    return {
        "t": _seconds(table["t_ns"][rows], origin_ns),
        "terms": terms,
        "unit": f"{prefix}C",
    }


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


def _lag(session: Session) -> dict[str, Any] | None:
    path = "correlation/front_current"
    if not session.has(path):
        return None
    table = session.table(path)
    known = dict(table.attributes)
    return {
        "lag": numbers(table["lag_s"]),
        "r": numbers(table["r"], 5),
        "band": float(table["surrogate_band"][0]),
        "p": float(str(known["p"])),
        "n": int(str(known["n"])),
        "n_effective": float(str(known["n_effective"])),
        "null": str(known["null"]),
        "verdict": str(known["verdict"]),
        "r_max": float(str(known["r_max"])),
        "lag_at_max": float(str(known["lag_at_max_s"])),
    }


def _faraday(session: Session) -> dict[str, Any] | None:
    path = "correlation/faraday"
    if not session.has(path):
        return None
    a = session.attributes(path)
    value = {k: float(str(a[k])) for k in ("ratio", "ratio_sigma", "slope_m_C")}
    return {
        "ratio": f"{value['ratio']:.4f} ± {value['ratio_sigma']:.4f}",
        "slope": f"{value['slope_m_C']:.4g} nm/nC",
    }


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
        facts.append(fact("largest drift", with_sigma(drift.value, drift.sigma, "px")))
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


def plain(data: ReportData) -> dict[str, Any]:
    """Return the data as one object for the page."""
    return {**data.content, "reductions": list(asdict(data)["reductions"])}
