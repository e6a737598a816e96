"""What an alignment changes in a session, and what was before, by which it is undone."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runner.align_records import Floats, Movie, Stamps
from runner.align_search import Finding
from runner.frame_samples import frame_samples
from runner.timebase import FIT_COLUMNS
from session.editor import SessionEditor
from session.reader import Session
from session.records import AttributeValue
from session.tables import Table
from sync.shutter import exposure_starts

METHOD_PREFIX = "align: "
_FIT = "fit_before_"
_OWN_ATTRIBUTES = ("NX_class", "axes", "signal", "t_ns_indices")

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """Times and fit of a camera as they were before any alignment."""

    start_ns: Stamps
    sigma_ns: Floats
    fit: Columns
    fit_notes: Mapping[str, AttributeValue]


def _record_path(camera: str) -> str:
    return f"correlation/alignment_{camera}"


def is_aligned(session: Session, movie: Movie) -> bool:
    """Tell whether the times are those that the last alignment left."""
    path = _record_path(movie.camera)
    if not session.has(path):
        return False
    record = session.table(path)
    after_ns = record["t_start_after_ns"]
    return bool(record.attributes["applied"]) and np.array_equal(after_ns, movie.start_ns)


def times_before(session: Session, movie: Movie) -> Before:
    """Return what an alignment begins from, and what undoing it leads back to."""
    if is_aligned(session, movie):
        record = session.table(_record_path(movie.camera))
        fit = {
            name.removeprefix(_FIT): values
            for name, values in record.columns.items()
            if name.startswith(_FIT)
        }
        return Before(
            start_ns=record["t_start_before_ns"],
            sigma_ns=record["t_sigma_before_ns"],
            fit=fit,
            fit_notes=json.loads(str(record.attributes["fit_notes_before"])),
        )
    fit, notes = {}, {}
    if session.clock_fits(movie.camera):
        table = session.table(f"clocks/{movie.camera}/fit")
        fit = dict(table.columns)
        notes = {k: v for k, v in table.attributes.items() if k not in ("NX_class",)}
    return Before(start_ns=movie.start_ns, sigma_ns=movie.sigma_ns, fit=fit, fit_notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All that an alignment, or taking it back, writes."""

    camera: str
    start_ns: Stamps
    sigma_ns: Floats
    fit: Columns
    fit_notes: Mapping[str, AttributeValue]
    record: Columns
    record_notes: Mapping[str, AttributeValue]
    tables: Mapping[str, Table]
    averages: Columns
    event: dict[str, object]

    def write(self, editor: SessionEditor) -> None:
        """Write first what was before, so that it is never lost."""
        editor.put_table(_record_path(self.camera), self.record, self.record_notes)
        editor.update_columns(
            f"frames/{self.camera}", {"t_start_ns": self.start_ns, "t_sigma_ns": self.sigma_ns}
        )
        editor.put_table(f"clocks/{self.camera}/fit", self.fit, self.fit_notes)
        editor.put_table(f"frame_samples/{self.camera}", self.averages)
        for path, table in self.tables.items():
            attributes = {k: v for k, v in table.attributes.items() if k not in _OWN_ATTRIBUTES}
            editor.put_table(path, table.columns, attributes, units=table.units)


def changes_for(session: Session, movie: Movie, found: Finding, before: Before) -> Changes:
    """Return what moves a camera by what was found."""
    since_ns = (movie.start_ns - found.reference_ns).astype(np.float64)
    grown_ns = np.round(found.rate * since_ns).astype(np.int64)
    start_ns = np.where(
        movie.good, movie.start_ns - found.offset_ns - grown_ns, movie.start_ns
    ).astype(np.int64)
    away_ns = found.rate_sigma * since_ns
    # How well a stamp is read stays; how well a run tied it to the host is of no account now.
    own_ns = np.zeros(len(start_ns)) if before.fit else np.asarray(movie.sigma_ns)
    if math.isfinite(found.rate_sigma):
        own_ns = np.nan_to_num(own_ns)
    sigma_ns = np.sqrt((found.sigma_s * 1e9) ** 2 + away_ns**2 + own_ns**2)
    moved = replace(movie, start_ns=start_ns)
    record: Columns = {
        "t_start_before_ns": before.start_ns,
        "t_sigma_before_ns": before.sigma_ns,
        "t_start_after_ns": start_ns,
        **{f"{_FIT}{name}": values for name, values in before.fit.items()},
    }
    if found.posterior is not None:
        record["offset"], record["probability"] = found.posterior
    first_ns = {
        "t_start_before_ns": int(before.start_ns[movie.good][0]),
        "t_start_after_ns": int(start_ns[movie.good][0]),
        "before": f"{_record_path(movie.camera)}: t_start_before_ns, t_sigma_before_ns",
    }
    return Changes(
        camera=movie.camera,
        start_ns=start_ns,
        sigma_ns=sigma_ns,
        fit=_relation(moved, found),
        fit_notes={"method": METHOD_PREFIX + found.method},
        record=record,
        record_notes={
            "applied": True,
            "method": found.method,
            "evidence": found.evidence,
            "offset_ns": found.offset_ns,
            "reference_ns": found.reference_ns,
            "fit_notes_before": json.dumps(dict(before.fit_notes)),
        },
        tables=_moved_tables(session, moved),
        averages=frame_samples(session, movie.camera, session.sample_columns()["t_ns"], start_ns),
        event=first_ns,
    )


def changes_back(session: Session, movie: Movie) -> Changes:
    """Return what gives a camera that is aligned its times and fit of before back."""
    before = times_before(session, movie)
    return Changes(
        camera=movie.camera,
        start_ns=before.start_ns,
        sigma_ns=before.sigma_ns,
        fit=before.fit or {name: np.zeros(0) for name in FIT_COLUMNS},
        fit_notes=before.fit_notes or {"method": "none"},
        record=dict(session.table(_record_path(movie.camera)).columns),
        record_notes={"applied": False},
        tables=_moved_tables(session, replace(movie, start_ns=before.start_ns)),
        averages=frame_samples(
            session, movie.camera, session.sample_columns()["t_ns"], before.start_ns
        ),
        event={"camera": movie.camera},
    )


def _relation(moved: Movie, found: Finding) -> Columns:
    """Return the line from the camera's raw stamps to the host, as a table of one row."""
    device_ns = moved.device_ns[moved.good]
    exposure_ns = moved.exposure_ns[moved.good]
    starts_ns = exposure_starts(device_ns, exposure_ns, moved.marks).start_ns
    # A stamp need not mark the start of the exposure that was moved.
    stamped_ns = moved.start_ns[moved.good] + (device_ns - starts_ns)
    i = len(device_ns) // 2
    x = (device_ns - device_ns[i]).astype(np.float64)
    excess = (stamped_ns - stamped_ns[i]).astype(np.float64) - x
    rate = 1 + float(np.sum(x * excess) / np.sum(x**2)) if np.any(x) else math.nan
    values = (
        int(device_ns[i]),
        int(stamped_ns[i]),
        rate,
        found.rate_sigma,
        found.sigma_s * 1e9,
        0.0,
        0.0,
        int(device_ns.min()),
        int(device_ns.max()),
        0,
    )
    return {name: np.array([value]) for name, value in zip(FIT_COLUMNS, values, strict=True)}


def _moved_tables(session: Session, moved: Movie) -> dict[str, Table]:
    """Return tracks and drift of these frames with the times that the frames have now."""
    shift_ns = moved.start_ns - session.frame_table(moved.camera)["t_start_ns"]
    # A track does not say whose frames it is of: with several cameras it stays.
    paths = [f"tracks/{name}" for name in session.tracks] if len(session.cameras) == 1 else []
    paths += [path for path in (f"drift/{moved.camera}",) if session.has(path)]
    tables = {}
    for path in paths:
        table = session.table(path)
        if len(table) == len(shift_ns):
            columns = {**table.columns, "t_ns": table["t_ns"] + shift_ns}
            tables[path] = replace(table, columns=columns)
    return tables
