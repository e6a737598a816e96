"""Aligns a session's movie with its potentiostat after the fact; raw stamps are never touched.

What was before is kept in the session, so that an alignment can be undone, and is what the
next one begins from.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from runner.align_changes import Before, changes_back, changes_for, is_aligned, times_before
from runner.align_records import (
    Movie,
    mean_intensity,
    read_movie,
    read_samples,
    recorded_edges,
    track_position,
)
from runner.align_search import METHODS, Finding, Pair, search, with_prior
from runner.align_summary import AlignSummary, facts_of, summarise_alignment
from runner.timebase import POTENTIOSTAT
from session.editor import SessionEditor
from session.errors import SessionRefused
from session.reader import Session
from sync.code import BlankingCode
from sync.code_fit import CodeDelay, compare_delays

By = Literal["auto", "code", "steps", "rates"]
SOURCE = "align"
ALIGNED, UNDONE = "aligned", "align_undone"
MIN_EXCHANGES = 2


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
        before = times_before(session, present)
        # An alignment does not build on the one before: it begins anew.
        movie = replace(present, start_ns=before.start_ns, sigma_ns=before.sigma_ns)
        stack = session.frames(movie.camera)
        edges_ns = recorded_edges(session) if code is None else code.edges_ns(0)
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
        changes = changes_for(session, movie, found, before) if moves else None
        last_ns = int(samples.t_ns[-1])
    summary = summarise_alignment(path, movie, tried, found, applied=moves, network=judged)
    if changes is not None:
        with SessionEditor.open(path) as editor:
            changes.write(editor)
            text = (
                f"{movie.camera} moved by {-summary.offset_s:.9g} s: it was found to be late by "
                f"{summary.offset_s:.9g} s +- {summary.sigma_s:.2g} s by {found.method}"
            )
            editor.add_event(last_ns, ALIGNED, SOURCE, text, changes.event | facts_of(summary))
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
        if not is_aligned(session, movie):
            raise SessionRefused(
                f"{path}: {movie.camera} is not aligned, or its times were set anew since: "
                "there is nothing to undo"
            )
        changes = changes_back(session, movie)
        last_ns = int(session.sample_columns()["t_ns"][-1])
    with SessionEditor.open(path) as editor:
        changes.write(editor)
        text = f"{movie.camera} has the times again that it had before it was aligned"
        editor.add_event(last_ns, UNDONE, SOURCE, text, changes.event)
    return movie.camera


# --- what clocks say that were compared during the run -----------------------------------


def _network_of(session: Session, movie: Movie, before: Before) -> _Network | None:
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


def _with_rate(found: Finding, movie: Movie) -> Finding:
    """Take the rate with what is known of clocks, unless the times are not a clock's."""
    if found.refusal or not np.all(np.isfinite(movie.sigma_ns[movie.good])):
        return found
    return with_prior(found)
