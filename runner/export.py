"""`lamella export`: what a session holds, in the formats that others read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from runner.export_bdf import bdf_frame
from runner.export_files import CONTENTS, side_path, staged, staged_folder
from runner.export_hspy import write_hspy
from runner.outputs import OutputRefused
from session.export_metadata import only_described, session_metadata, table_metadata
from session.export_nexus import write_nexus
from session.export_tables import ExportTable, export_table, table_paths
from session.reader import Session

if TYPE_CHECKING:
    import pandas as pd

_PARQUET = ".parquet"
_TABLES = {"csv": ".csv", "parquet": _PARQUET}


class Format(StrEnum):
    """What a session can be exported to."""

    CSV = "csv"
    PARQUET = "parquet"
    BDF = "bdf"
    NEXUS = "nexus"
    HSPY = "hspy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What was written, and what was not.

    Parameters
    ----------
    left_out
        Parts of the session that the format, or what was asked for, has no place for.
    remarks
        What a reader of the files must know.
    """

    session: str
    format: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to take from the session.

    Parameters
    ----------
    table
        One table, such as ``"samples"`` or ``"tracks/front"``.
    camera
        Whose frames; may be left out where there is one.
    frames
        Copy pixels into a NeXus file.
    """

    table: str | None = None
    camera: str | None = None
    frames: bool = False


def export_session(
    session: Path,
    output: Path,
    to: Format | str,
    *,
    wanted: Wanted | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write a session, or a part of it, in another format.

    Parameters
    ----------
    output
        A folder for all tables as CSV or Parquet, a file for everything else.

    Raises
    ------
    OutputRefused
        The output exists, what was asked for does not go with the format, or a package
        is missing. Nothing is left behind.
    SessionRefused
        The session cannot be read, or has no such table or camera.
    """
    to, wanted = Format(to), wanted or Wanted()
    _refuse_options(to, wanted)
    with Session.open(session) as opened:
        try:
            if to is Format.HSPY:
                return _hspy(opened, output, wanted, overwrite=overwrite)
            if to is Format.NEXUS:
                return _nexus(opened, output, wanted, overwrite=overwrite)
            if to is Format.BDF:
                return _bdf(opened, output, overwrite=overwrite)
            return _tables(opened, output, to, wanted, overwrite=overwrite)
        except OSError as error:  # a full disk, a folder that may not be written
            raise OutputRefused(
                f"{output} was not written: {error}; a disk with room and the right to write"
                " there will do"
            ) from error


def render_export(summary: ExportSummary) -> Table:
    """Return the summary for a terminal."""
    table = Table(title=summary.session, title_justify="left", show_header=False)
    for title, lines in (
        ("wrote", summary.files),
        ("left out", summary.left_out),
        ("note", summary.remarks),
    ):
        for line in lines:
            table.add_row(title, line)
    return table


def _refuse_options(to: Format, wanted: Wanted) -> None:
    if wanted.table is not None and to not in (Format.CSV, Format.PARQUET):
        raise OutputRefused(f"--table goes with csv and parquet, not with {to}")
    if wanted.frames and to is not Format.NEXUS:
        raise OutputRefused(
            f"--frames goes with nexus; {to} "
            + ("holds the frames anyway" if to is Format.HSPY else "has no place for pixels")
        )
    if wanted.camera is not None and to is not Format.HSPY:
        raise OutputRefused(f"--camera goes with hspy, not with {to}")


# --- tables ----------------------------------------------------------------------------


def _tables(
    session: Session, output: Path, to: Format, wanted: Wanted, *, overwrite: bool
) -> ExportSummary:
    suffix = _TABLES[to]
    _need_writer(to)
    is_file = output.suffix.lower() == suffix
    if wanted.table is not None or is_file:
        path = "samples" if wanted.table is None else wanted.table
        return _one_table(session, output, to, path, overwrite=overwrite)
    described = session_metadata(session)
    tables: list[dict[str, Any]] = []
    left_out = []
    with staged_folder(output, overwrite=overwrite) as folder:
        for path in table_paths(session):
            table = export_table(session, path)
            file = table.name + suffix
            if (folder / file).exists():  # names may differ in case alone
                raise OutputRefused(f"two tables would be {file} here; take each with --table")
            _write(table.to_pandas(), folder / file, to)
            tables.append(table_metadata(table, file))
            left_out += [f"{path}/{name}" for name in table.left_out]
        _write_json(folder / CONTENTS, {**described, "tables": tables})
    return ExportSummary(
        session=str(session.path),
        format=to,
        files=(*(str(output / t["file"]) for t in tables), str(output / CONTENTS)),
        left_out=(*left_out, *only_described(session), *_pixels(session)),
        remarks=_no_zone(described),
    )


def _one_table(
    session: Session, output: Path, to: Format, path: str, *, overwrite: bool
) -> ExportSummary:
    table = export_table(session, path)
    rest = [other for other in table_paths(session) if other != path]
    files = _write_with_side(session, output, to, table, table.to_pandas(), overwrite=overwrite)
    return ExportSummary(
        session=str(session.path),
        format=to,
        files=files,
        left_out=(*(f"{path}/{name}" for name in table.left_out), *rest, *_pixels(session)),
        remarks=_no_zone(session_metadata(session)),
    )


def _bdf(session: Session, output: Path, *, overwrite: bool) -> ExportSummary:
    to = Format.PARQUET if output.suffix.lower() == _PARQUET else Format.CSV
    _need_writer(to)
    frame, table = bdf_frame(session), export_table(session, "samples")
    files = _write_with_side(session, output, to, table, frame, overwrite=overwrite)
    return ExportSummary(
        session=str(session.path),
        format=Format.BDF,
        files=files,
        left_out=(*(p for p in table_paths(session) if p != "samples"), *_pixels(session)),
        remarks=_no_zone(session_metadata(session)),
    )


def _write_with_side(
    session: Session,
    output: Path,
    to: Format,
    table: ExportTable,
    frame: "pd.DataFrame",
    *,
    overwrite: bool,
) -> tuple[str, ...]:
    outputs = [output, side_path(output)]
    with staged(session.path, outputs, overwrite=overwrite) as (part, side):
        _write(frame, part, to)
        described = table_metadata(table, output.name)
        labels = set(frame.columns)
        if labels != {c["label"] for c in described["columns"]}:
            described["columns"] = [{"label": label} for label in frame.columns]
        _write_json(side, {**session_metadata(session), "tables": [described]})
    return tuple(map(str, outputs))


def _write(frame: "pd.DataFrame", path: Path, to: Format) -> None:
    if to is Format.PARQUET:
        frame.to_parquet(path, engine="pyarrow", index=False)
        return
    for name in frame.columns[[t.kind == "M" for t in frame.dtypes]]:
        stamps = frame[name].dt.tz_localize(None).to_numpy("datetime64[ns]")
        text = np.char.add(np.datetime_as_string(stamps, unit="ns"), "Z")
        frame[name] = np.where(np.isnat(stamps), "", text)
    # The shortest text that gives the same double: picoamperes and microseconds survive.
    frame.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), "utf-8")


def _need_writer(to: Format) -> None:
    if to is Format.PARQUET and find_spec("pyarrow") is None:
        raise OutputRefused(
            "pyarrow is not installed, which writes Parquet; pip install 'lamella[export]'"
            " brings it, or choose csv"
        )


# --- files of one kind -------------------------------------------------------------------


def _nexus(session: Session, output: Path, wanted: Wanted, *, overwrite: bool) -> ExportSummary:
    with staged(session.path, [output], overwrite=overwrite) as (part,):
        write_nexus(session, part, frames=wanted.frames)
    pixels = () if wanted.frames else _pixels(session, "; --frames copies them")
    return ExportSummary(
        session=str(session.path),
        format=Format.NEXUS,
        files=(str(output),),
        left_out=(*only_described(session), *pixels),
    )


def _hspy(session: Session, output: Path, wanted: Wanted, *, overwrite: bool) -> ExportSummary:
    if output.suffix.lower() != ".hspy":
        raise OutputRefused(f"{output}: HyperSpy opens files by their ending; .hspy will do")
    camera = _camera(session, wanted.camera)
    with staged(session.path, [output], overwrite=overwrite) as (part,):
        remarks = write_hspy(session, camera, part)
    return ExportSummary(
        session=str(session.path),
        format=Format.HSPY,
        files=(str(output),),
        left_out=tuple(p for p in table_paths(session) if not p.endswith(f"/{camera}")),
        remarks=remarks,
    )


def _camera(session: Session, asked: str | None) -> str:
    cameras = session.cameras
    if asked is None and len(cameras) == 1:
        return cameras[0]
    if asked in cameras:
        return str(asked)
    known = ", ".join(cameras) or "none"
    what = "which camera?" if asked is None else f"no camera {asked!r};"
    raise OutputRefused(f"{session.path}: {what} name one with --camera; there is {known}")


def _pixels(session: Session, how: str = "") -> tuple[str, ...]:
    return tuple(f"pixels of {camera}{how}" for camera in session.cameras)


def _no_zone(described: Mapping[str, Any]) -> tuple[str, ...]:
    text = str(described["wall_clock"])
    return (text,) if "no time zone" in text else ()
