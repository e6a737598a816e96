"""Edges of trigger lines in a session: the same pulses in two records tie their clocks.

A pulse that both devices have seen needs no network: what the clocks' fits leave between both
records of it is their error, and where there is no fit it is the offset itself.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from session.editor import SessionEditor
from session.reader import Session
from session.records import AttributeValue
from sync.clockfit import ClockFit, to_host
from sync.edges import EdgeMatch, EdgesAmbiguous, match_edges

PATH = "correlation/edges"
SOURCE = "edges"  # of the events
POTENTIOSTAT = "potentiostat"
BY_EDGES = "edges"  # method of a clock's fit that comes from them
LEVEL = 0.0027  # chance below which edges and network disagree
Stamps = NDArray[np.int64]
Edges = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFinding:
    """What the edges of two records tell.

    Parameters
    ----------
    first, second
        Whose records: the second is the potentiostat's.
    match
        None where the edges could not be matched; then the verdict says why.
    difference_s, sigma_s
        Host time of an edge by the second's clock less that by the first's, at the middle.
    network_sigma_s, bound_s
        What the fits of both clocks leave open; NaN where the network fitted neither.
    agrees
        None where there is nothing to compare with.
    """

    first: str
    second: str
    match: EdgeMatch | None
    t_ns: int
    difference_s: float
    sigma_s: float
    network_sigma_s: float
    bound_s: float
    agrees: bool | None
    verdict: str


def match_records(first: Edges, second: Edges, near_ns: tuple[int, int] | None) -> EdgeMatch:
    """Match the edges of one line of one record with those of another's.

    Rising edges alone where both records know their polarity: a pulse's end hangs on its
    length, and on the threshold.

    Raises
    ------
    EdgesAmbiguous
        They fit in no place or in several, or it is not clear which lines belong together.
    """
    lines = [set(edges["line"].tolist()) for edges in (first, second)]
    if lines[0] & lines[1]:
        shared = sorted(lines[0] & lines[1])
        pairs = [(name, name) for name in shared]
    else:
        pairs = [(a, b) for a in sorted(lines[0]) for b in sorted(lines[1])]
    if len(pairs) != 1:
        names = ", ".join(f"{a!r} and {b!r}" for a, b in pairs)
        raise EdgesAmbiguous(f"more than one line may be the same in both records: {names}")
    parts = [edges["line"] == name for edges, name in zip((first, second), pairs[0], strict=True)]
    known = [
        np.asarray(edges["polarity"], np.int32)[part]
        for edges, part in zip((first, second), parts, strict=True)
    ]
    if all(np.all(p != 0) and np.any(p > 0) for p in known):
        parts = [
            part & (np.asarray(edges["polarity"], np.int32) > 0)
            for edges, part in zip((first, second), parts, strict=True)
        ]
    (first_ns, first_sigma_ns), (second_ns, second_sigma_ns) = (
        (
            np.unique(np.asarray(edges["t_ns"], np.int64)[part]),
            float(np.max(np.asarray(edges["device_sigma_ns"], np.float64)[part])),
        )
        for edges, part in zip((first, second), parts, strict=True)
    )
    return match_edges(
        first_ns,
        second_ns,
        first_sigma_ns=first_sigma_ns,
        second_sigma_ns=second_sigma_ns,
        near_ns=near_ns,
    )


def put_edges(path: Path) -> None:
    """Match a session's edges, store what they tell, and leave an event; often there are none."""
    with Session.open(path) as session:
        if not session.has("edges") or not len(session.table("edges")):
            return
        columns = dict(session.table("edges").columns)
        fits = {source: _fits(session, source) for source in sorted(set(columns["source"]))}
        columns["t_ns"], columns["t_sigma_ns"] = _host_times(columns, fits)
        found = _finding(columns, fits)
        known = {(e.t_ns, e.source, e.message) for e in session.events()}
    with SessionEditor.open(path) as editor:
        editor.update_columns("edges", {name: columns[name] for name in ("t_ns", "t_sigma_ns")})
        if found is None:
            return
        row, units, about = _table(found)
        editor.put_table(PATH, row, about, units=units)
        kind = "clock_disagreement" if found.agrees is False else "edges"
        if (found.t_ns, SOURCE, found.verdict) not in known:
            data = {name: values[0] for name, values in row.items()}
            editor.add_event(found.t_ns, kind, SOURCE, found.verdict, data)


def _fits(session: Session, source: str) -> tuple[ClockFit, ...]:
    """Return the network's fits of a clock; those from edges themselves prove nothing."""
    if source not in session.clocks or not (rows := session.clock_fits(source)):
        return ()
    if session.attributes(f"clocks/{source}/fit").get("method") == BY_EDGES:
        return ()
    return tuple(ClockFit(**asdict(row)) for row in rows)


def _host_times(
    columns: Edges, fits: Mapping[str, tuple[ClockFit, ...]]
) -> tuple[Stamps, NDArray[np.float64]]:
    """Return the edges on the host clock; those of a clock without a fit keep their times."""
    t_ns = np.array(columns["t_ns"], np.int64)
    sigma_ns = np.array(columns["t_sigma_ns"], np.float64)
    for source, pieces in fits.items():
        mine = np.flatnonzero(columns["source"] == source)
        if pieces:
            device_ns = np.asarray(columns["device_ns"], np.int64)[mine]
            t_ns[mine], of_fit_ns = to_host(pieces, device_ns)
            own_ns = np.asarray(columns["device_sigma_ns"], np.float64)[mine]
            sigma_ns[mine] = np.hypot(of_fit_ns, own_ns)
    return t_ns, sigma_ns


def _finding(columns: Edges, fits: Mapping[str, tuple[ClockFit, ...]]) -> EdgeFinding | None:
    cameras = [source for source in fits if source != POTENTIOSTAT]
    if POTENTIOSTAT not in fits or not cameras:
        return None
    first = cameras[0]
    parts = [
        {name: column[columns["source"] == source] for name, column in columns.items()}
        for source in (first, POTENTIOSTAT)
    ]
    both = (fits[first], fits[POTENTIOSTAT])
    network = both if all(both) else None
    try:
        try:
            match = match_records(parts[0], parts[1], None)
        except EdgesAmbiguous:
            if network is None:
                raise
            # The network knows about when they came: within half of the shortest interval.
            gaps = np.diff(np.unique(np.asarray(parts[1]["t_ns"], np.int64)))
            match = match_records(parts[0], parts[1], (0, int(gaps.min(initial=10**9)) // 2))
    except EdgesAmbiguous as error:
        return _unmatched(first, int(np.max(np.asarray(columns["t_ns"]))), str(error))
    return _compared(first, match, network)


def _unmatched(first: str, t_ns: int, why: str) -> EdgeFinding:
    return EdgeFinding(
        first=first,
        second=POTENTIOSTAT,
        match=None,
        t_ns=t_ns,
        difference_s=math.nan,
        sigma_s=math.nan,
        network_sigma_s=math.nan,
        bound_s=math.nan,
        agrees=None,
        verdict=f"edges of {first} and {POTENTIOSTAT} are not matched: {why}",
    )


def _compared(
    first: str, match: EdgeMatch, network: tuple[tuple[ClockFit, ...], ...] | None
) -> EdgeFinding:
    clock = match.clock
    difference_s = (clock.reference_host_ns - clock.reference_device_ns) / 1e9
    sigma_s = clock.offset_sigma_ns / 1e9
    network_s = bound_s = math.nan
    agrees: bool | None = None
    count = f"{clock.count} edges of {first} and {POTENTIOSTAT}"
    if not match.fits:
        count += " (which keep to no line)"
    if network is None:
        verdict = f"{count} tie both records to {sigma_s:.2g} s"
    else:
        sigmas_ns = [max(piece.offset_sigma_ns for piece in fit) for fit in network]
        network_s = math.hypot(*sigmas_ns) / 1e9
        bound_s = sum(max(piece.bound_ns for piece in fit) for fit in network) / 1e9
        both_s = math.hypot(sigma_s, network_s)
        beyond = max(abs(difference_s) - bound_s, 0.0) / max(both_s, 1e-15)
        agrees = math.erfc(beyond / math.sqrt(2)) >= LEVEL
        told = f"{difference_s:.3g} s, {sigma_s:.2g} s by the edges alone"
        verdict = (
            f"{count} and the network agree ({told})"
            if agrees
            else f"{count} and the network disagree by {told}: {beyond:.1f} sigma beyond what "
            "asymmetric ways can hide"
        )
    return EdgeFinding(
        first=first,
        second=POTENTIOSTAT,
        match=match,
        t_ns=clock.reference_host_ns,
        difference_s=difference_s,
        sigma_s=sigma_s,
        network_sigma_s=network_s,
        bound_s=bound_s,
        agrees=agrees,
        verdict=verdict,
    )


def _table(
    found: EdgeFinding,
) -> tuple[dict[str, list[float]], dict[str, str], dict[str, AttributeValue]]:
    """Return one row, its units, and its attributes."""
    match = found.match
    row: dict[str, list[float]] = {
        "t_ns": [found.t_ns],
        "difference": [found.difference_s],
        "difference_sigma": [found.sigma_s],
        "network_sigma": [found.network_sigma_s],
        "difference_bound": [found.bound_s],
        "agrees": [math.nan if found.agrees is None else float(found.agrees)],
        "rate": [math.nan if match is None else match.clock.rate],
        "rate_sigma": [math.nan if match is None else match.clock.rate_sigma],
        "matched": [0 if match is None else match.clock.count],
        "missing": [0 if match is None else match.missing],
        "extra": [0 if match is None else match.extra],
    }
    seconds = ("difference", "difference_sigma", "network_sigma", "difference_bound")
    units = {"t_ns": "ns", **dict.fromkeys(seconds, "s")}
    return row, units, {"first": found.first, "second": found.second, "verdict": found.verdict}
