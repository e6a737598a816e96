"""Times of the frames that a camera node kept: through two clocks onto the host's.

A stamp of the camera goes onto the node's clock by the exchanges that the node made with its
camera, and from there onto the host's by those that the run made with the node. What comes of
it stands in tables of results; the raw headers stay in the events.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.frame_samples import samples_over
from runner.timebase import (
    MIN_ARRIVALS,
    MIN_EXCHANGES,
    FittedClock,
    fit_exchanges,
    fit_time_base,
    in_order,
)
from session.editor import SessionEditor
from session.reader import Event, Session
from session.records import AttributeValue
from sync.arrivals import counted_stamps, fit_arrivals
from sync.clockfit import Stretch, to_host
from sync.shutter import exposure_starts

HEADERS, TRACK, PATH = "remote_frames", "remote_track", "clock_path"
NUMBERS = ("index", "t_start_ns", "exposure_ns", "device_start_ns", "arrival_ns", "dropped_before")
Column = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFrames:
    """The headers of a node's frames, in the order in which they were taken.

    Parameters
    ----------
    recordings
        Names of the node's files.
    recording
        Which of them each frame is in, shape (n,).
    columns
        As the node told them, shape (n,) each.
    """

    recordings: tuple[str, ...]
    recording: NDArray[np.int64]
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, events: Sequence[Event]) -> "RemoteFrames":
        """Collect the headers of one node's events."""
        recordings: list[str] = []
        parts: list[int] = []
        rows: dict[str, list[Any]] = {name: [] for name in (*NUMBERS, "t_sigma_ns", "blanked")}
        for event in events:
            name = str(event.data.get("recording", ""))
            if name not in recordings:
                recordings.append(name)
            parts += [recordings.index(name)] * len(_list(event.data["index"]))
            for column in rows:
                rows[column] += _list(event.data[column])
        columns: dict[str, Column] = {n: np.array(rows[n], np.int64) for n in NUMBERS}
        columns["t_sigma_ns"] = _floats(rows["t_sigma_ns"], np.inf)
        columns["blanked"] = np.array(rows["blanked"], np.uint8)
        return cls(
            recordings=tuple(recordings), recording=np.array(parts, np.int64), columns=columns
        )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.recording)


def put_remote(path: Path, node: str) -> RemoteFrames:
    """Write when a node's frames were taken, what was read meanwhile, and the node's tracks.

    The frames go to ``tracks/<node>``, readings to ``frame_samples/<node>``, tracks to
    ``tracks/<node>.<name>`` and ``drift/<node>``. Without exchanges with the node's clock
    there are no times on ours: then an event says so, and there are no tables.

    Returns
    -------
    RemoteFrames
        All that the node told of.
    """
    base = fit_time_base(path)
    with Session.open(path) as session:
        events = [e for e in session.events() if e.source == node]
        frames = RemoteFrames.of([e for e in events if e.kind == HEADERS])
        if not len(frames):
            return frames
        times = _host_times(session, node, frames)
        readings: dict[str, NDArray[np.generic]] = {}
        if times is not None:
            stop_ns = times[0] + frames.columns["exposure_ns"]
            readings = samples_over(session, base.t_ns, times[0], stop_ns)
    with SessionEditor.open(path) as editor:
        if times is None:
            why = f"the clock of {node} was never compared with ours: its frames have no times here"
            editor.add_event(events[-1].t_ns, "not_fitted", "analysis", why)
            return frames
        t_ns = times[0] + frames.columns["exposure_ns"] // 2
        editor.put_table(f"tracks/{node}", *_header_table(frames, t_ns, *times))
        editor.put_table(f"frame_samples/{node}", readings)
        for name, columns, units in _tracks([e for e in events if e.kind == TRACK], frames, t_ns):
            where = f"drift/{node}" if name == "drift" else f"tracks/{node}.{name}"
            editor.put_table(where, columns, units=units)
    return frames


def _host_times(
    session: Session, node: str, frames: RemoteFrames
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Return the starts of the exposures on our clock and their sigma; None where unknown."""
    ours = _fit(session, node)
    if ours is None:
        return None
    about = session.attributes(f"instrument/{node}")
    camera = _fit(session, f"{node}.camera")
    there_ns, there_sigma_ns = _on_node(frames, None if camera is None else camera.stretches, about)
    start_ns, sigma_ns = to_host(ours.stretches, there_ns)
    sigma_ns = np.hypot(sigma_ns, there_sigma_ns)
    sigma_ns = np.hypot(sigma_ns, _asymmetry_ns(session, node, ours))
    for k in range(len(frames.recordings)):
        mine = frames.recording == k
        start_ns[mine], sigma_ns[mine] = in_order(start_ns[mine], sigma_ns[mine])
    return start_ns, sigma_ns


def _fit(session: Session, clock: str) -> FittedClock | None:
    if not session.has(f"clocks/{clock}/exchanges"):
        return None
    exchanges = session.clock_exchanges(clock)
    return fit_exchanges(exchanges) if len(exchanges) >= MIN_EXCHANGES else None


def _asymmetry_ns(session: Session, node: str, ours: FittedClock) -> float:
    """Return what both ways to a node may differ by, 1 sigma; 0 where it was asked over UDP.

    Two programs and a broker stand in the way over MQTT, and the way back is another one: all
    that is known is that the error lies within the bound, anywhere.
    """
    paths = {e.data.get("path") for e in session.events() if (e.kind, e.source) == (PATH, node)}
    return max(row.bound_ns for row in ours.rows) / math.sqrt(3.0) if "mqtt" in paths else 0.0


def _on_node(
    frames: RemoteFrames, camera: tuple[Stretch, ...] | None, about: Mapping[str, AttributeValue]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the starts of the exposures on the node's clock, and their sigma."""
    columns, marks = frames.columns, str(about.get("stamp", "exposure_start"))
    if camera is not None:
        stamps_ns, sigma_ns = to_host(camera, columns["device_start_ns"])
        starts = exposure_starts(stamps_ns, columns["exposure_ns"], marks)
        return starts.start_ns, np.hypot(sigma_ns, starts.sigma_ns)
    start_ns, sigma_ns = columns["t_start_ns"].copy(), columns["t_sigma_ns"].copy()
    for k in range(len(frames.recordings)):
        mine = frames.recording == k
        if int(mine.sum()) < MIN_ARRIVALS:
            continue
        part = {name: column[mine] for name, column in columns.items()}
        try:
            ends_ns = _ends(part, marks, str(about.get("clock", "camera")))
            record = fit_arrivals(ends_ns, part["arrival_ns"])
        except ValueError:  # neither stamps nor counter go on: they tell nothing
            continue
        end_ns, sigma_ns[mine] = record.to_host_ns(ends_ns)
        start_ns[mine] = end_ns - part["exposure_ns"]
    return start_ns, sigma_ns


def _ends(part: Mapping[str, Column], marks: str, clock: str) -> NDArray[np.int64]:
    """Return the ends of the exposures on the camera's clock, or by its counter."""
    stamps = part["device_start_ns"]
    if clock == "host" or marks == "arrival" or np.ptp(stamps) == 0:
        return counted_stamps(part["index"], part["arrival_ns"])
    if marks == "exposure_start":
        return np.asarray(stamps + part["exposure_ns"], np.int64)
    return np.asarray(stamps, np.int64)


def _header_table(
    frames: RemoteFrames,
    t_ns: NDArray[np.int64],
    start_ns: NDArray[np.int64],
    sigma_ns: NDArray[np.float64],
) -> tuple[dict[str, Column], dict[str, AttributeValue]]:
    columns = frames.columns
    table: dict[str, Column] = {
        "t_ns": t_ns,
        "valid": np.ones(len(frames), np.uint8),
        "index": columns["index"],  # first: a plot of it over time shows the gaps
        "t_start_ns": start_ns,
        "t_sigma_ns": sigma_ns,
        "recording": frames.recording,
        **{n: columns[n] for n in ("exposure_ns", "device_start_ns", "dropped_before")},
        "blanked": columns["blanked"],
    }
    return table, {"recordings": frames.recordings}


def _tracks(
    events: Sequence[Event], frames: RemoteFrames, t_ns: NDArray[np.int64]
) -> Iterator[tuple[str, dict[str, Column], dict[str, str]]]:
    """Yield the final tracks by name, on the times of their frames."""
    row_of = {
        (frames.recordings[k], int(index)): row
        for row, (k, index) in enumerate(
            zip(frames.recording, frames.columns["index"], strict=True)
        )
    }
    found: dict[str, dict[str, list[Any]]] = {}
    units: dict[str, dict[str, str]] = {}
    for event in events:
        body = event.data
        if body.get("provisional") is not False or "not_tracked" in body:
            continue
        name = str(body["topic"]).removeprefix("tracks/")
        table = {n: v for n, v in body.items() if isinstance(v, list)}
        rows = [row_of.get((str(body["recording"]), int(i)), -1) for i in table["index"]]
        if "dx" in table:
            name = "drift"
        columns = found.setdefault(name, {n: [] for n in ("row", *table)})
        for n, values in ({"row": rows} | table).items():
            columns[n] += values
        units.setdefault(name, {}).update(_units(body))
    for name, columns in found.items():
        row = np.array(columns.pop("row"), np.int64)
        known = row >= 0  # of a frame whose header was lost, the time is not known
        arrays = {n: _column(v)[known] for n, v in columns.items() if n != "t_ns"}
        arrays["t_ns"] = t_ns[row[known]]
        yield name, arrays, {n: u for n, u in units[name].items() if n in arrays}


def _units(body: Mapping[str, Any]) -> dict[str, str]:
    units = body.get("units")
    return {str(n): str(u) for n, u in units.items()} if isinstance(units, dict) else {}


def _column(values: list[Any]) -> Column:
    if all(isinstance(v, int) for v in values):
        return np.array(values, np.int64)
    return _floats(values, np.nan)


def _floats(values: list[Any], unknown: float) -> NDArray[np.float64]:
    return np.array([unknown if v is None else v for v in values], np.float64)


def _list(values: object) -> list[Any]:
    return list(values) if isinstance(values, list) else []
