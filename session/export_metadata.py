"""What a session says of itself, as plain values for a file of text beside its tables."""

import math
from typing import Any

from session.export_tables import ExportTable, describe_columns, start_utc_ns
from session.reader import Session
from session.schema import ROOT

_RESULTS = ("calibration", "calibration_after", "contact")
_DESCRIBED = ("sample", *_RESULTS)
SIGN = "a positive current charges the cell; voltage is positive electrode against negative"


def session_metadata(session: Session) -> dict[str, Any]:
    """Return all that describes a session but its tables; unknown numbers are None."""
    described = {path: session.attributes(path) for path in _DESCRIBED if session.has(path)}
    provenance = session.provenance
    found: dict[str, Any] = {
        "title": session.title,
        "start_time": session.start_time,
        "end_time": session.end_time,
        "exit_reason": session.exit_reason,
        "simulated": session.simulated,
        "host_start_ns": session.host_start_ns,
        "session_file": session.path.name,
        "signs": SIGN,
        "wall_clock": _wall_clock(session),
        "instruments": {
            name: session.attributes(f"instrument/{name}") for name in session.instruments
        },
        "cameras": {name: session.attributes(f"frames/{name}") for name in session.cameras},
        "correlation": {
            name: session.attributes(f"correlation/{name}") for name in session.correlations
        },
        "status_flags": session.attributes("samples/status").get("flags", ()),
        "provenance": {
            "versions": dict(provenance.versions),
            "host": dict(provenance.host),
            "files": dict(provenance.files),
        },
        "experiment": session.experiment_text,
        **described,
    }
    cleaned: dict[str, Any] = plain(found)
    return cleaned


def only_described(session: Session) -> tuple[str, ...]:
    """Return what is described by its results alone: its columns are no table of rows."""
    tested = (f"correlation/{name}" for name in session.correlations)
    return tuple(f"columns of {path}" for path in (*filter(session.has, _RESULTS), *tested))


def table_metadata(table: ExportTable, file: str) -> dict[str, Any]:
    """Return what the columns of a file mean."""
    return {
        "file": file,
        "session_path": f"/{ROOT}/{table.path}",
        "rows": len(table),
        "columns": describe_columns(table),
        "left_out": list(table.left_out),
    }


def plain(value: Any) -> Any:
    """Turn attributes into what JSON knows."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wall_clock(session: Session) -> str:
    if start_utc_ns(session) is None:
        return (
            f"the start {session.start_time!r} names no time zone, so no column of UTC is"
            " written; session time counts from the start"
        )
    return (
        "UTC is start_time plus what the host clock counted; the wall clock was read once,"
        " so steps between rows are good to t_sigma and the whole is as good as that clock"
    )
