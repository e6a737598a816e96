"""The paragraph that a paper's methods section begins with, from what a session says of itself."""

import math
from collections.abc import Iterator

from runner.format import in_unit, with_sigma
from runner.holder_record import calibration_from
from runner.report_tracks import quantities_of
from runner.summary import RunSummary
from session.reader import Session


def methods_text(session: Session, summary: RunSummary) -> str:
    """Return a few sentences in which every number is the session's own."""
    sentences = [
        *_cell(session, summary),
        *_frames(session, summary),
        *_ledger(session),
        *_tracks(session),
        *_tests(session),
    ]
    versions = session.provenance.versions
    lamella = versions.get("lamella")
    others = ", ".join(f"{k} {v}" for k, v in versions.items() if k != "lamella")
    if lamella is not None:
        sentences.append(f"Recorded and evaluated with Lamella {lamella} ({others}).")
    sentences.append("Uncertainties are one standard deviation unless said otherwise.")
    return " ".join(sentences)


def _cell(session: Session, summary: RunSummary) -> Iterator[str]:
    cell = f"A cell {' | '.join(session.layers)}" if session.layers else "A cell"
    path, driven = "instrument/potentiostat", ""
    if session.has(path):
        about = session.attributes(path)
        driven = f" with a {str(about.get('identity', about.get('model'))).strip()}"
    simulated = " (simulated hardware)" if session.simulated else ""
    if not summary.samples:
        return
    yield (
        f"{cell} was measured{driven}{simulated}: {summary.samples} readings in "
        f"{summary.duration_s:.0f} s."
    )
    if summary.steps:
        steps = "; ".join(
            f"{s.name} at {s.held} for {s.duration_s:.3g} s" for s in summary.steps[:8]
        )
        more = len(summary.steps) - 8
        yield f"Steps: {steps}{f'; and {more} more' if more > 0 else ''}."


def _frames(session: Session, summary: RunSummary) -> Iterator[str]:
    for camera in session.cameras:
        stack, table = session.frames(camera), session.frame_table(camera)
        if not len(stack):
            continue
        about = table.attributes
        size_m = float(str(about.get("pixel_size", math.nan)))
        rate_Hz = float(str(about.get("frame_rate", math.nan)))
        pixel = f", {in_unit(size_m, 'm')} each" if math.isfinite(size_m) else ""
        rate = f" at {rate_Hz:.4g} frames/s" if math.isfinite(rate_Hz) else ""
        lost = int(table["dropped_before"].sum())
        yield (
            f"{len(stack)} frames of {stack.shape[2]} x {stack.shape[1]} px{pixel} were taken"
            f"{rate} ({str(about.get('model', camera)).strip()}); {lost} were lost."
        )
    if math.isfinite(summary.frame_time_sigma_ns):
        yield (
            "All times are on the clock of the recording computer, to which the device clocks "
            "were fitted by round trips: the time of a frame is known to "
            f"± {in_unit(summary.frame_time_sigma_ns / 1e9, 's', 3)} (1 sigma; hard bound "
            f"± {in_unit(summary.frame_time_bound_ns / 1e9, 's', 3)})."
        )
    if summary.dose is not None and math.isfinite(summary.dose.total_per_m2):
        yield f"The specimen received {summary.dose.total_per_m2 / 1e20:.4g} e/Å²."


def _ledger(session: Session) -> Iterator[str]:
    if session.calibration is None or not session.has("ledger"):
        return
    known = calibration_from(session.calibration.attributes)
    holder = (
        (known.capacitance_F, known.capacitance_sigma_F, "F"),
        (known.conductance_S, known.conductance_sigma_S, "S"),
    )
    terms = ", ".join(with_sigma(v, known.against_truth(v, s), unit) for v, s, unit in holder)
    yield (
        f"The ionic charge is that of the instrument less what the open holder takes ({terms} and "
        "its dielectric absorption), less the beam's where that was measured; gain and zero of the "
        "instrument are in its uncertainty."
    )


def _tracks(session: Session) -> Iterator[str]:
    for name in session.tracks:
        table = session.table(f"tracks/{name}")
        tracker = str(table.attributes.get("tracker", ""))
        if "valid" not in table or not tracker:
            continue
        names = ", ".join(q.replace("_", " ") for q in quantities_of(table, tracker))
        yield (
            f"The track {name!r} was made by the {tracker} tracker ({names}), in "
            f"{int(table['valid'].sum())} of {len(table['valid'])} frames."
        )


def _tests(session: Session) -> Iterator[str]:
    for name in session.correlations:
        known = session.attributes(f"correlation/{name}")
        if "method" in known and "family" in known:
            yield (
                f"Rates were compared with current and voltage in {known['family']} tests: "
                f"{known['method']}."
            )
            return
