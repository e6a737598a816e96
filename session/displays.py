"""How sessions and tables look in a notebook: short, all text escaped, nothing that runs."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from session.errors import SessionRefused

if TYPE_CHECKING:
    from session.reader import Session
    from session.tables import Table

LONGEST = 200  # of a text; what is longer is cut
MOST_COLUMNS, FIRST_ROWS, LAST_ROWS = 10, 3, 2
_LEFT = ' style="text-align: left"'
_SCROLLS, _ONE_LINE = ' style="overflow-x: auto"', ' style="white-space: nowrap"'


def session_html(session: "Session") -> str:
    """Return what a session is, and what is in it, as a small table in HTML."""
    simulated = _told(lambda: "yes" if session.simulated else "")
    facts = [
        ("file", session.path.name),
        ("began", _told(lambda: session.start_time)),
        ("ended", _told(lambda: session.end_time)),
        ("because", _told(lambda: session.exit_reason)),
        ("simulated", simulated),
        ("cell", _told(lambda: " | ".join(session.layers))),
        ("samples", _told(lambda: f"{session.count('samples')} readings")),
        ("frames", _told(lambda: "; ".join(_frames(session, name) for name in session.cameras))),
        ("tracks", _told(lambda: "; ".join(_rows(session, name) for name in session.tracks))),
        ("correlations", _told(lambda: ", ".join(session.correlations))),
    ]
    rows = "".join(
        f"<tr><th{_LEFT}>{name}</th><td{_LEFT}>{_safe(text)}</td></tr>"
        for name, text in facts
        if text
    )
    return (
        f"<p><b>{_safe(_told(lambda: session.title))}</b></p><table><tbody>{rows}</tbody></table>"
    )


def closed_html(path: Path) -> str:
    """Return what there is to say of a session that was closed."""
    return f"<p>{_safe(path.name)}: closed</p>"


def table_html(table: "Table") -> str:
    """Return the first and last rows of a table with its units, in HTML."""
    count = len(table)
    shown = list(table.columns)[:MOST_COLUMNS]
    left_out = len(table.columns) - len(shown)
    head = "".join(
        f"<th>{_safe(name)}<br><small>{_safe(table.units.get(name, ' '))}</small></th>"
        for name in shown
    )
    places: Sequence[int | None] = range(count)
    if count > FIRST_ROWS + LAST_ROWS:
        places = [*range(FIRST_ROWS), None, *range(count - LAST_ROWS, count)]
    columns = [table.columns[name] for name in shown]
    body = "".join(
        f"<tr>{_cells('...' if i is None else _value(column, i) for column in columns)}</tr>"
        for i in places
    )
    more = f", {left_out} more columns" if left_out else ""
    return (
        f"<p><b>{_safe(table.path)}</b>: {count} rows{more}</p><div{_SCROLLS}>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _told(tell: Callable[[], str]) -> str:
    """Return what is told; of a file that is damaged or closed, why it is not."""
    try:
        return tell()
    except SessionRefused as error:
        return f"({error})"


def _frames(session: "Session", camera: str) -> str:
    frames = session.frames(camera)
    count, height, width = frames.shape
    return f"{camera}: {count} of {height} x {width}, {frames.dtype}"


def _rows(session: "Session", track: str) -> str:
    return f"{track}: {session.count(f'tracks/{track}')} rows"


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td{_ONE_LINE}>{_safe(text)}</td>" for text in texts)


def _value(column: NDArray[Any], row: int) -> str:
    value = column[row] if column.ndim else column[()]
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _safe(text: str) -> str:
    """Return a text as HTML shows it, whoever wrote it."""
    return escape(text if len(text) <= LONGEST else text[:LONGEST] + "...")
