"""Aligns a session's movie with its potentiostat after the fact; raw stamps are never touched.

What was before is kept in the session, so that an alignment can be undone, and is what the
next one begins from.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as RichTable

from runner.align_records import (
    Floats,
    Movie,
    Stamps,
    mean_intensity,
    read_movie,
    read_samples,
    track_position,
)
from runner.align_search import METHODS, Finding, Pair, search, with_prior
from runner.format import scientific, with_sigma
from runner.frame_samples import frame_samples
from runner.timebase import POTENTIOSTAT
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.reader import Session
from session.records import AttributeValue
from session.tables import Table
from sync.code import BlankingCode
from sync.code_fit import CodeDelay, compare_delays
from sync.shutter import exposure_starts

By = Literal["auto", "code", "steps", "rates"]
SOURCE = "align"
ALIGNED, UNDONE = "aligned", "align_undone"
BLANK, CODE = "beam_blank", "beam"
METHOD_PREFIX = "align: "
MIN_EXCHANGES = 2

Columns = dict[str, NDArray[np.generic]]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """Times and fit of a camera as they were before any alignment."""

    start_ns: Stamps
    sigma_ns: Floats
    fit: Columns
    fit_notes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """How well clocks are tied that were compared during the run."""

    sigma_s: float
    bound_s: float


def align_session(
    path: Path,
    *,
    by: By = "auto",
    track: str | None = None,
    camera: str | None = None,
    max_offset_s: float | None = None,
    code: BlankingCode | None = None,
    apply: bool = True,
    force: bool = False,
) -> AlignSummary:
    """Find the offset of a movie that shares no clock with the potentiostat, and remove it.

    Parameters
    ----------
    by
        One method; ``"auto"`` for code, steps, rates in this order, until one is sure.
    track
        Whose position is compared with the current; None for the front, or another that has
        one, or the mean intensity.
    camera
        Whose frames; None for the first.
    max_offset_s
        Largest offset that is looked at; None for all at which half of the shorter record
        overlaps.
    code
        That the beam was blanked with; None for the blanking that the session recorded.
    apply
        Move the camera's times. A refusal moves nothing.
    force
        Also where clocks were compared during the run, which is otherwise only judged.

    Raises
    ------
    SessionRefused
        The file is no session, or has not both records, or no such track or camera.
    """
    methods: tuple[str, ...] = METHODS if by == "auto" else (by,)
    with Session.open(path) as session:
        samples, present = read_samples(session), read_movie(session, camera)
        before = _before(session, present)
        # An alignment does not build on the one before: it begins anew.
        movie = replace(present, start_ns=before.start_ns, sigma_ns=before.sigma_ns)
        stack = session.frames(movie.camera)
        edges_ns = _recorded_edges(session) if code is None else code.edges_ns(0)
        pair = Pair(
            samples=samples,
            movie=movie,
            intensity=cache(lambda: mean_intensity(stack)),
            track=track_position(session, track, movie),
            edges_ns=edges_ns,
            edges_on_host=code is None,
        )
        if by == "auto" and edges_ns is None:
            methods = tuple(method for method in methods if method != "code")
        tried = tuple(search(pair, methods, max_offset_s))
        found = _with_rate(tried[-1], movie)
        network = _network_of(session, movie, before)
        judged = "" if network is None or found.refusal else _judge(found, network)
        moves = apply and not found.refusal and (network is None or force)
        changes = _changes(session, movie, found, before) if moves else None
        last_ns = int(samples.t_ns[-1])
    summary = _summary(path, movie, tried, found, applied=moves, network=judged)
    if changes is not None:
        with SessionEditor.open(path) as editor:
            changes.write(editor)
            text = (
                f"{movie.camera} moved by {-summary.offset_s:.9g} s: it was found to be late by "
                f"{summary.offset_s:.9g} s +- {summary.sigma_s:.2g} s by {found.method}"
            )
            editor.add_event(last_ns, ALIGNED, SOURCE, text, changes.event | _facts(summary))
    return summary


def undo_alignment(path: Path, camera: str | None = None) -> str:
    """Give a camera the times and the fit back that it had before it was aligned.

    Returns
    -------
    str
        The camera.

    Raises
    ------
    SessionRefused
        It was not aligned, or its times were set by something else since.
    """
    with Session.open(path) as session:
        movie = read_movie(session, camera)
        if not _is_aligned(session, movie):
            raise SessionRefused(
                f"{path}: {movie.camera} is not aligned, or its times were set anew since: "
                "there is nothing to undo"
            )
        before = _before(session, movie)
        changes = _Changes(
            camera=movie.camera,
            start_ns=before.start_ns,
            sigma_ns=before.sigma_ns,
            fit=before.fit or {name: np.zeros(0) for name in _FIT_COLUMNS},
            fit_notes=before.fit_notes or {"method": "none"},
            record=dict(session.table(_record_path(movie.camera)).columns),
            record_notes={"applied": False},
            tables=_moved_tables(session, replace(movie, start_ns=before.start_ns)),
            averages=frame_samples(
                session, movie.camera, session.sample_columns()["t_ns"], before.start_ns
            ),
            event={"camera": movie.camera},
        )
        last_ns = int(session.sample_columns()["t_ns"][-1])
    with SessionEditor.open(path) as editor:
        changes.write(editor)
        text = f"{movie.camera} has the times again that it had before it was aligned"
        editor.add_event(last_ns, UNDONE, SOURCE, text, changes.event)
    return movie.camera


# --- what is known before --------------------------------------------------------------


def _record_path(camera: str) -> str:
    return f"correlation/alignment_{camera}"


def _is_aligned(session: Session, movie: Movie) -> bool:
    """Tell whether the times are those that the last alignment left."""
    path = _record_path(movie.camera)
    if not session.has(path):
        return False
    record = session.table(path)
    after_ns = record["t_start_after_ns"]
    return bool(record.attributes["applied"]) and np.array_equal(after_ns, movie.start_ns)


def _before(session: Session, movie: Movie) -> _Before:
    if _is_aligned(session, movie):
        record = session.table(_record_path(movie.camera))
        fit = {
            name.removeprefix(_FIT): values
            for name, values in record.columns.items()
            if name.startswith(_FIT)
        }
        return _Before(
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
    return _Before(start_ns=movie.start_ns, sigma_ns=movie.sigma_ns, fit=fit, fit_notes=notes)


def _network_of(session: Session, movie: Movie, before: _Before) -> _Network | None:
    """Return how well the camera is tied already; None where it shares no clock."""
    exchanges = f"clocks/{movie.camera}/exchanges"
    compared = session.has(exchanges) and (
        len(session.clock_exchanges(movie.camera)) >= MIN_EXCHANGES
    )
    if not compared and not before.fit:
        return None
    bounds_ns = [*before.fit.get("bound_ns", np.zeros(0))]
    bounds_ns += [fit.bound_ns for fit in session.clock_fits(POTENTIOSTAT)]
    sigmas_ns = (before.sigma_ns, session.sample_columns()["t_sigma_ns"])
    known = [float(np.nanmedian(s)) for s in sigmas_ns if np.any(np.isfinite(s))]
    return _Network(sigma_s=math.hypot(*known) / 1e9, bound_s=sum(map(float, bounds_ns)) / 1e9)


def _judge(found: Finding, network: _Network) -> str:
    """Compare what was found with clocks that say that there is no offset."""
    delay = CodeDelay(
        delay_s=found.offset_ns / 1e9,
        sigma_s=found.sigma_s,
        rate=found.rate,
        rate_sigma=found.rate_sigma,
        jitter_s=0.0,
        misfit=1.0,
        middle_ns=found.reference_ns,
        length_s=0.0,
    )
    return compare_delays(
        delay, network_sigma_s=network.sigma_s, network_bound_s=network.bound_s
    ).text


def _recorded_edges(session: Session) -> Stamps | None:
    """Return when the beam was blanked and let on by turns; None where it was not."""
    edges_ns: list[int] = []
    for event in session.events():
        sent, done, off = (event.data.get(k) for k in ("sent_ns", "done_ns", "blanked"))
        if event.kind == CODE and isinstance(sent, list) and isinstance(done, list):
            # The edges of a whole code; one that was cut short is let on again, too.
            edges_ns += [a + (b - a) // 2 for a, b in zip(sent, done, strict=False)]
            edges_ns = edges_ns[: len(edges_ns) // 2 * 2]
            continue
        if event.kind != BLANK or not (isinstance(sent, int) and isinstance(done, int)):
            continue
        # A command that changes nothing is no edge; the first takes the beam off.
        if bool(off) == (len(edges_ns) % 2 == 0):
            edges_ns.append(sent + (done - sent) // 2)
    edges_ns = edges_ns[: len(edges_ns) // 2 * 2]
    return np.array(edges_ns, np.int64) if edges_ns else None


def _with_rate(found: Finding, movie: Movie) -> Finding:
    """Take the rate with what is known of clocks, unless the times are not a clock's."""
    if found.refusal or not np.all(np.isfinite(movie.sigma_ns[movie.good])):
        return found
    return with_prior(found)


# --- what is written -------------------------------------------------------------------

_FIT = "fit_before_"
_FIT_COLUMNS = (
    "reference_device_ns",
    "reference_host_ns",
    "rate",
    "rate_sigma",
    "offset_sigma_ns",
    "covariance_ns",
    "bound_ns",
    "valid_from_ns",
    "valid_to_ns",
    "count",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
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


_OWN_ATTRIBUTES = ("NX_class", "axes", "signal", "t_ns_indices")


def _changes(session: Session, movie: Movie, found: Finding, before: _Before) -> _Changes:
    """Work out what an alignment writes."""
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
    return _Changes(
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
    return {name: np.array([value]) for name, value in zip(_FIT_COLUMNS, values, strict=True)}


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


def _facts(summary: AlignSummary) -> dict[str, object]:
    names = ("offset_s", "sigma_s", "low_s", "high_s", "rate", "rate_sigma", "peak_mass", "p")
    numbers = {name: float(getattr(summary, name)) for name in names}
    return {
        "camera": summary.camera,
        "method": summary.method,
        "evidence": summary.evidence,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }


def _summary(
    path: Path,
    movie: Movie,
    tried: tuple[Finding, ...],
    found: Finding,
    *,
    applied: bool,
    network: str,
) -> AlignSummary:
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
