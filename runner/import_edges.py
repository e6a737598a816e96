"""Ties imported frames to imported readings by edges of trigger lines that both have seen."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from potentiostat.files.recording import Recording
from runner.edge_files import EdgeFile, EdgeFileError
from runner.edge_record import BY_EDGES, match_records
from runner.frame_times import FrameTimes
from runner.header import CAMERA, POTENTIOSTAT
from session.editor import SessionEditor
from session.records import EDGE_DTYPE
from sync.clockfit import ClockFit
from sync.edges import EdgesAmbiguous

Rows = NDArray[np.void]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """What edges tell of frames and readings.

    Parameters
    ----------
    clock
        From the frames' time, which begins with the first of them, to that of the readings;
        None where it is not known.
    said
        What was found, or why nothing, for the import's list.
    """

    clock: ClockFit | None
    said: tuple[str, ...] = ()


def edge_rows(
    files: Sequence[EdgeFile], recording: Recording | None, times: FrameTimes | None
) -> Rows:
    """Return the edges as rows of a session, each on its own device's time since its start.

    Raises
    ------
    EdgeFileError
        They are on the clock of a device of which nothing is imported.
    """
    origins_ns: dict[str, int] = {}
    if recording is not None:
        origins_ns[POTENTIOSTAT] = round(float(recording.time_s[0]) * 1e9)
    if times is not None and times.origin_ns is not None:
        origins_ns[CAMERA] = times.origin_ns
    parts = []
    for file in files:
        if file.source not in origins_ns:
            raise EdgeFileError(
                f"{file.path}: its times are said to be on the clock of {file.source!r}, but there "
                f"is {' and '.join(map(repr, origins_ns)) or 'none'}: a potentiostat's file, or "
                "frames with stamps of their own, go with them"
            )
        rows = np.zeros(len(file.device_ns), EDGE_DTYPE)
        rows["source"], rows["line"] = file.source, file.line
        rows["device_ns"], rows["polarity"] = file.device_ns, file.polarity
        rows["t_ns"] = file.device_ns - origins_ns[file.source]
        rows["device_sigma_ns"] = rows["t_sigma_ns"] = file.sigma_ns
        parts.append(rows)
    return np.concatenate([np.zeros(0, EDGE_DTYPE), *parts])


def tie_by_edges(rows: Rows) -> Tie:
    """Match the edges of both devices, where both have some."""
    first, second = (rows[rows["source"] == name] for name in (CAMERA, POTENTIOSTAT))
    if not (len(first) and len(second)):
        return Tie(clock=None)
    try:
        match = match_records(_columns(first), _columns(second), None)
    except EdgesAmbiguous as error:
        return Tie(clock=None, said=(f"edges do not tie frames and readings: {error}",))
    clock = match.clock
    said = (
        f"frames are tied to readings by {clock.count} edges, to "
        f"{clock.offset_sigma_ns / 1e9:.2g} s ({match.missing} missing, {match.extra} extra)"
    )
    if not match.fits:
        said += "; they keep to no line, and are so much less sure"
    return Tie(clock=clock, said=(said,))


def _columns(rows: Rows) -> dict[str, NDArray[np.generic]]:
    return {name: rows[name] for name in rows.dtype.names or ()}


def tied(times: FrameTimes, clock: ClockFit) -> FrameTimes:
    """Return the times of frames on the clock of the readings."""
    return replace(
        times,
        start_ns=clock.to_host_ns(times.start_ns),
        sigma_ns=np.hypot(times.sigma_ns, clock.sigma_ns(times.start_ns)),
    )


def moved_edges(rows: Rows, clock: ClockFit | None) -> Rows:
    """Return the edges with those of the camera on the clock of the readings."""
    if clock is None:
        return rows
    moved = rows.copy()
    mine = rows["source"] == CAMERA
    moved["t_ns"][mine] = clock.to_host_ns(rows["t_ns"][mine])
    moved["t_sigma_ns"][mine] = np.hypot(
        rows["device_sigma_ns"][mine], clock.sigma_ns(rows["t_ns"][mine])
    )
    return moved


def put_fit(path: Path, times: FrameTimes, clock: ClockFit) -> None:
    """Store the camera's clock, from its raw stamps to the session's time."""
    origin_ns = times.origin_ns or 0
    raw = replace(
        clock,
        reference_device_ns=clock.reference_device_ns + origin_ns,
        valid_from_ns=clock.valid_from_ns + origin_ns,
        valid_to_ns=clock.valid_to_ns + origin_ns,
    )
    columns = {name: [value] for name, value in asdict(raw).items()}
    with SessionEditor.open(path) as editor:
        editor.put_table(f"clocks/{CAMERA}/fit", columns, {"method": BY_EDGES})
