"""The report: one page that explains itself and asks for nothing."""

import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from runner.outputs import refuse_existing
from runner.report_data import ReportData, gather, page_data

SIZE_LIMIT_BYTES = 20_000_000
FRAMES_SHARE = 0.68  # of the limit, in bytes before base64
SCRIPTS = ("report_charts.js", "report_frames.js", "report.js")
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSummary:
    """What was written."""

    path: str
    size_bytes: int
    reductions: tuple[str, ...]


def write_report(
    session: Path,
    output: Path,
    *,
    size_limit_bytes: int = SIZE_LIMIT_BYTES,
    overwrite: bool = False,
) -> ReportSummary:
    """Write the report of a session as one HTML file.

    Parameters
    ----------
    size_limit_bytes
        Frames are binned, then coarser, then fewer until the page is smaller; the page
        says so.

    Raises
    ------
    OutputRefused
        The file exists and ``overwrite`` is False.
    SessionRefused
        The session cannot be read.
    """
    refuse_existing(output, overwrite=overwrite)
    budget = int(size_limit_bytes * FRAMES_SHARE)
    data = gather(session, frames_budget_bytes=budget)
    page = render(data)
    output.write_text(page, "utf-8")
    return ReportSummary(
        path=str(output), size_bytes=len(page.encode()), reductions=data.reductions
    )


def render(data: ReportData) -> str:
    """Return the page."""
    parts = {
        "policy": POLICY,
        "title": escape(str(data.content["title"])),
        "style": _asset("uPlot.min.css") + _asset("report.css"),
        "charts": _asset("uPlot.iife.min.js"),
        "script": "".join(map(_asset, SCRIPTS)),
        # A closing tag inside the data would end the script that holds it.
        "data": json.dumps(page_data(data), allow_nan=False).replace("<", "\\u003c"),
    }
    page = _asset("report.html")
    for name, text in parts.items():
        page = page.replace(f"@@{name}@@", text)
    return page


def _asset(name: str) -> str:
    return (files("runner") / "static" / name).read_text("utf-8")
