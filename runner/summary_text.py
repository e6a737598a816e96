"""A run's summary as a person reads it in a terminal."""

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from potentiostat.protocol import SafeState
from runner.format import in_unit, plain_text, with_sigma
from runner.summary import (
    IMPORTED,
    LEDGER_TERMS,
    CodeSummary,
    CorrelationSummary,
    DoseSummary,
    Measured,
    RunSummary,
    SpectrumSummary,
)
from runner.temperature_summary import temperature_text
from runner.titration_summary import titration_table


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
            f"{plain_text(summary.drift_px.value, summary.drift_px.sigma)} px",
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
    if not math.isfinite(found.p):
        return Text(f"{found.name}: {found.verdict}")
    return Text(
        f"{found.name}: r = {found.r:.3f} at a lag of {found.lag_s:+.2f} s, "
        f"p = {found.p:.3g} ({found.null}), false-discovery rate {found.q:.3g}. {found.verdict}"
    )


def _code_sentence(code: CodeSummary) -> Text:
    camera, meter, beam = code.camera_delay_s, code.meter_delay_s, code.beam_current_A
    return Text(
        f"coded beam: frames {with_sigma(camera.value, camera.sigma, 's')} and readings "
        f"{with_sigma(meter.value, meter.sigma, 's')} after the commands, beam current "
        f"{with_sigma(beam.value, beam.sigma, 'A')}; {code.verdict}"
    )
