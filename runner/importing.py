"""Makes a session from files that other programs wrote, and says what was assumed."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from cameras.files.recording import FrameRecording, read_frames
from potentiostat.files.recording import Recording, read_recording
from runner.edge_files import EdgeFile
from runner.format import in_unit
from runner.frame_times import FrameTimes, time_frames
from runner.header import CAMERA, POTENTIOSTAT
from runner.import_edges import edge_rows, moved_edges, put_fit, tie_by_edges, tied
from runner.import_told import (
    NOTHING_TOLD,
    Assumption,
    Told,
    apply_told,
    assumed,
    assumed_of_recording,
    assumed_pixel_size,
)
from runner.outputs import OutputRefused, refuse_existing
from runner.summary import IMPORTED
from session.provenance import collect_provenance
from session.records import (
    SESSION_SAMPLE_DTYPE,
    AttributeValue,
    CameraHeader,
    FrameHeader,
    InstrumentHeader,
    SessionHeader,
)
from session.writer import SessionWriter
from sync.align import cumulative_charge
from sync.frames import account_for_frames

BLOCK_ROWS = 4096
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What was imported, and what was taken for granted.

    Parameters
    ----------
    assumptions, report
        The sentences alone, and each with what it is about and what would tell it.
    """

    session: str
    samples: int
    charge_C: float
    logged_charge_C: float
    frames: int
    gaps: int
    assumptions: tuple[str, ...]
    report: tuple[Assumption, ...]


def import_session(  # noqa: PLR0913 - one argument for each thing that is told
    output: Path,
    *,
    echem: Path | None = None,
    frames: Sequence[Path] = (),
    edges: Sequence[EdgeFile] = (),
    frame_interval_s: float | None = None,
    pixel_size_m: float | None = None,
    title: str | None = None,
    told: Told = NOTHING_TOLD,
    overwrite: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> ImportSummary:
    """Build a session from a potentiostat's file, a series of frames, or both.

    Parameters
    ----------
    output
        Session file to write.
    echem, frames
        What to read.
    edges
        What each device has seen of the same trigger lines; where both have, they tie the
        frames to the readings.
    frame_interval_s
        Time from frame to frame, where the files carry no stamps of their own.
    pixel_size_m
        Edge of a pixel; unknown where None.
    told
        What is known of the potentiostat's file and is not in it.
    overwrite
        Replace a file that exists.
    progress
        Called with frames done and their number.

    Raises
    ------
    OutputRefused
        The file exists, or nothing was named to be read.
    RecordingError, FrameFileError, EdgeFileError
        A file is not what it should be. No session is left behind.
    """
    refuse_existing(output, overwrite=overwrite)
    if echem is None and not frames:
        raise OutputRefused("nothing to import; name a file with --echem or --frames")
    if pixel_size_m is not None and not 0 < pixel_size_m < math.inf:
        raise OutputRefused("--pixel-size must be more than nothing, such as 0.2554 nm")
    if echem is None and told != NOTHING_TOLD:
        raise OutputRefused(
            "--columns, --sign and --time-zone tell of a potentiostat's file; name it with --echem"
        )
    recording = None if echem is None else apply_told(read_recording(echem, told.columns), told)
    series = read_frames(frames) if frames else None
    times = None if series is None else time_frames(series, frame_interval_s)
    rows = edge_rows(edges, recording, times)
    tie = tie_by_edges(rows)
    if times is not None and tie.clock is not None:
        times = tied(times, tie.clock)
    shared = tie.clock is not None
    report = (
        *_report(recording, series, times, told=told, shared=shared, pixel_size_m=pixel_size_m),
        *map(assumed, tie.said),
    )
    header = _header(recording, series, times, pixel_size_m, title, echem)
    unfinished = output.with_name(output.name + ".importing")
    unfinished.unlink(missing_ok=True)
    try:
        with SessionWriter(unfinished, header) as writer:
            for what in report:
                details = {"about": what.about, "option": what.option, "told": what.told}
                writer.append_event(0, "import", "importer", what.text, json.dumps(details))
            if recording is not None:
                _write_samples(writer, recording)
            if series is not None and times is not None:
                _write_frames(writer, series, times, progress)
            if len(rows):
                writer.append_edges(moved_edges(rows, tie.clock))
            writer.finish(IMPORTED, datetime.now(UTC).isoformat())
        if times is not None and tie.clock is not None:
            put_fit(unfinished, times, tie.clock)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return _summary(output, recording, series, report)


def _report(
    recording: Recording | None,
    series: FrameRecording | None,
    times: FrameTimes | None,
    *,
    told: Told,
    shared: bool,
    pixel_size_m: float | None,
) -> list[Assumption]:
    found: list[Assumption] = []
    if recording is not None:
        found += assumed_of_recording(recording, told)
        found.append(assumed("no open-holder calibration: the ionic charge is unknown"))
    if series is not None and times is not None:
        found += map(assumed, (*series.assumptions, *times.assumptions))
        found.append(assumed_pixel_size(pixel_size_m))
    if recording is not None and series is not None and not shared:
        found.append(
            assumed("readings and frames share no clock: both start at 0, with unknown error")
        )
    return found


def _header(
    recording: Recording | None,
    series: FrameRecording | None,
    times: FrameTimes | None,
    pixel_size_m: float | None,
    title: str | None,
    echem: Path | None,
) -> SessionHeader:
    read = [*([] if echem is None else [echem]), *([] if series is None else series.paths)]
    sources = {path.name: path for path in read}
    cameras: tuple[CameraHeader, ...] = ()
    start = "" if recording is None else recording.start_time
    if series is not None and times is not None:
        start = start or times.start_time
        cameras = (
            CameraHeader(
                name=CAMERA,
                model=series.model,
                height=series.height,
                width=series.width,
                dtype=series.dtype,
                frame_rate_Hz=times.rate_Hz,
                pixel_size_m=math.nan if pixel_size_m is None else pixel_size_m,
                stamp=times.kind.value,
                row_time_ns=times.row_time_ns,
            ),
        )
    instruments: tuple[InstrumentHeader, ...] = ()
    if recording is not None:
        attributes: dict[str, AttributeValue] = {
            "model": recording.model,
            "serial": recording.serial,
            "technique": recording.technique,
            **dict(recording.details),
        }
        instruments = (InstrumentHeader(name=POTENTIOSTAT, attributes=attributes),)
    return SessionHeader(
        title=title or f"imported from {', '.join(list(sources)[:3])}",
        experiment_text="",
        start_time=_first_reading(start, recording) or datetime.now(UTC).isoformat(),
        host_start_ns=0,
        simulated=False,
        instruments=instruments,
        cameras=cameras,
        provenance=collect_provenance(sources),
    )


def _first_reading(start: str, recording: Recording | None) -> str:
    """Return when the first reading was taken: a file's own time need not begin at 0."""
    if not start or recording is None:
        return start
    try:
        began = datetime.fromisoformat(start)
        return (began + timedelta(seconds=float(recording.time_s[0]))).isoformat()
    except (ValueError, OverflowError):  # no date, or beyond the year 9999
        return start


def _charge(t_ns: NDArray[np.int64], current_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the running charge; NaN throughout where no current is known."""
    if not np.any(np.isfinite(current_A)):
        return np.full(len(t_ns), np.nan)
    return cumulative_charge(t_ns, current_A)


def _write_samples(writer: SessionWriter, recording: Recording) -> None:
    t_ns = np.round((recording.time_s - recording.time_s[0]) * 1e9).astype(np.int64)
    rows = np.zeros(len(t_ns), SESSION_SAMPLE_DTYPE)
    for name in SESSION_SAMPLE_DTYPE.names or ():
        if SESSION_SAMPLE_DTYPE[name].kind == "f":
            rows[name] = np.nan
    rows["t_ns"] = rows["read_start_ns"] = rows["read_end_ns"] = t_ns
    rows["device_time_s"] = recording.time_s
    rows["aperture_s"] = 0.0
    rows["voltage"], rows["current"] = recording.voltage_V, recording.current_A
    rows["step"] = 0
    rows["charge"] = _charge(t_ns, recording.current_A)
    for start in range(0, len(rows), BLOCK_ROWS):
        writer.append_samples(rows[start : start + BLOCK_ROWS])


def _write_frames(
    writer: SessionWriter, series: FrameRecording, times: FrameTimes, progress: Progress
) -> None:
    # A frame that came late goes where its number says: there its place and time are known.
    order = np.argsort(series.index, kind="stable")
    index = series.index[order]
    account = account_for_frames(index)
    late = series.index < np.maximum.accumulate(series.index)
    for row, number in enumerate(order.tolist()):
        start_ns, frame = int(times.start_ns[number]), int(index[row])
        dropped = int(account.dropped_before[row])
        if dropped:
            _note(writer, start_ns, "gap", f"{dropped} frames are missing before", frame, dropped)
        if row and frame == index[row - 1]:
            _note(writer, start_ns, "frame_order", "the frame before comes again as", frame)
        if late[number]:
            text = f"number {number} (from 0) of the files comes late and was put in order as"
            _note(writer, start_ns, "frame_order", text, frame)
        writer.append_frame(
            CAMERA,
            FrameHeader(
                t_start_ns=start_ns,
                exposure_ns=int(times.exposure_ns[number]),
                t_sigma_ns=float(times.sigma_ns[number]),
                index=frame,
                device_start_ns=int(times.device_ns[number]),
                dropped_before=dropped,
            ),
            series.load(number),
        )
        progress(row + 1, len(series))


def _note(
    writer: SessionWriter, t_ns: int, kind: str, text: str, index: int, missing: int = 0
) -> None:
    data = json.dumps({"index": index, "missing": missing})
    writer.append_event(t_ns, kind, CAMERA, f"{text} frame {index}", data)


def _summary(
    output: Path,
    recording: Recording | None,
    series: FrameRecording | None,
    report: tuple[Assumption, ...],
) -> ImportSummary:
    charge_C = logged_C = math.nan
    if recording is not None:
        t_ns = np.round(recording.time_s * 1e9).astype(np.int64)
        charge_C = float(_charge(t_ns, recording.current_A)[-1])
        if recording.logged_charge_C is not None:
            logged_C = float(recording.logged_charge_C[-1])
    gaps = 0 if series is None else account_for_frames(np.sort(series.index)).dropped
    return ImportSummary(
        session=str(output),
        samples=0 if recording is None else len(recording.time_s),
        charge_C=charge_C,
        logged_charge_C=logged_C,
        frames=0 if series is None else len(series),
        gaps=gaps,
        assumptions=tuple(what.text for what in report),
        report=report,
    )


def render_import(summary: ImportSummary) -> Table:
    """Return an import's summary for a terminal."""
    table = Table(title=summary.session, title_justify="left", show_header=False)
    facts: Mapping[str, str] = {
        "samples": f"{summary.samples}",
        "charge": f"{in_unit(summary.charge_C, 'C', 8)} by trapezia, "
        f"{in_unit(summary.logged_charge_C, 'C', 8)} in the file",
        "frames": f"{summary.frames}, {summary.gaps} missing between them",
    }
    for name, text in facts.items():
        table.add_row(name, text)
    for what in summary.report:
        hint = f" [dim]({what.option})[/dim]" if what.option and not what.told else ""
        table.add_row("told" if what.told else "assumed", escape(what.text) + hint)
    return table
