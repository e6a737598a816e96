"""What an alignment found, as it is returned, recorded as an event, and shown."""

import math
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as RichTable

from runner.align_records import Movie
from runner.align_search import Finding
from runner.format import scientific, with_sigma


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignSummary:
    """What was found, and whether the camera's times were moved by it.

    Parameters
    ----------
    offset_s, sigma_s, low_s, high_s
        Time of the movie less that of the potentiostat, its standard uncertainty and its
        interval of 95 %; NaN where refused.
    rate, rate_sigma
        By how much that grows in a second.
    peak_mass, p
        Share of the posterior in the peak, and how likely chance fits as well; NaN where
        the method does not tell.
    refusal
        Why there is no answer; empty where there is one.
    tried
        What each method said.
    network
        The same against clocks that were compared during the run; empty without.
    """

    session: str
    camera: str
    applied: bool
    method: str
    evidence: str
    offset_s: float
    sigma_s: float
    low_s: float
    high_s: float
    rate: float
    rate_sigma: float
    peak_mass: float
    p: float
    refusal: str
    tried: tuple[str, ...]
    network: str


def summarise_alignment(
    path: Path,
    movie: Movie,
    tried: tuple[Finding, ...],
    found: Finding,
    *,
    applied: bool,
    network: str,
) -> AlignSummary:
    """Return what was found in a session's file.

    Parameters
    ----------
    tried
        What each method that was asked has found, the last of them taken.
    applied
        The camera's times were moved by it.
    network
        What clocks that were compared during the run say of it; empty without.
    """
    said = tuple(
        f"{t.method}{f' ({t.evidence})' if t.evidence else ''}: {t.refusal or 'found'}"
        for t in tried
    )
    sure = not found.refusal
    return AlignSummary(
        session=str(path),
        camera=movie.camera,
        applied=applied,
        method=found.method if sure else "",
        evidence=found.evidence if sure else "",
        offset_s=found.offset_ns / 1e9 if sure else math.nan,
        sigma_s=found.sigma_s,
        low_s=found.low_s,
        high_s=found.high_s,
        rate=found.rate if sure else math.nan,
        rate_sigma=found.rate_sigma,
        peak_mass=found.peak_mass,
        p=found.p,
        refusal="" if sure else "; ".join(said),
        tried=said,
        network=network,
    )


def facts_of(summary: AlignSummary) -> dict[str, object]:
    """Return what an event keeps of it."""
    names = ("offset_s", "sigma_s", "low_s", "high_s", "rate", "rate_sigma", "peak_mass", "p")
    numbers = {name: float(getattr(summary, name)) for name in names}
    return {
        "camera": summary.camera,
        "method": summary.method,
        "evidence": summary.evidence,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }


def render_align(summary: AlignSummary) -> RichTable:
    """Return what was found for a terminal."""
    table = RichTable(title=summary.session, title_justify="left", show_header=False)
    for text in summary.tried:
        table.add_row("tried", text)
    if summary.refusal:
        table.add_row("offset", "none that is sure; nothing was changed")
        return table
    table.add_row("offset", f"{with_sigma(summary.offset_s, summary.sigma_s, 's')}, movie late")
    table.add_row("95 %", f"{summary.low_s:.9g} s to {summary.high_s:.9g} s")
    table.add_row("rate", f"{scientific(summary.rate, summary.rate_sigma)} s/s")
    table.add_row("posterior", f"{summary.peak_mass:.1%} in this peak; chance p = {summary.p:.2g}")
    if summary.network:
        table.add_row("clocks of the run", summary.network)
    table.add_row(
        summary.camera,
        "moved; now: lamella correlate; back: lamella align --undo"
        if summary.applied
        else "not moved",
    )
    return table
