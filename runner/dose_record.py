"""The dose of each frame, and of each part of the specimen, as a session tells it.

Frames bear the running dose of a beam that is always on and always as strong as the experiment
says. Here the time in which it was blanked is taken out, and where the microscope measures its
beam current, the dose follows it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from correlate.dose import DoseMap, dose_map, frame_doses
from runner.beam_code import played_codes
from session.editor import SessionEditor
from session.reader import Session
from session.tables import Table

if TYPE_CHECKING:
    from session.records import AttributeValue

Floats = NDArray[np.float64]
Stamps = NDArray[np.int64]
PATH = "correlation/dose"
MICROSCOPE = "microscope"
CURRENT_STEP = 0.01  # of the beam current: smaller changes are not recorded
NO_RATE = "the session has no dose rate: neither an experiment nor a camera told one"
COMMON = "the told dose rate's own uncertainty is not stated: it is a factor common to all frames"
UNWATCHED = "nobody watched the beam current: its changes are not in dose_sigma"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseRecord:
    """What each frame added; electrons per m^2.

    Parameters
    ----------
    t_ns
        End of each exposure, host clock, shape (n,).
    dose, sigma
        Since the end of the frame before, dropped ones included, and the 1 sigma that stamps
        and beam current leave; NaN where unknown.
    lit
        Share of that time in which the beam was not known to be blanked.
    field
        By place on the specimen; None where no frame's dose is known.
    reasons
        Why a dose is unknown, and what its sigma does not hold.
    drift_known
        False where the map is that of a specimen that stands still.
    """

    t_ns: Stamps
    dose: Floats
    sigma: Floats
    lit: Floats
    field: DoseMap | None
    pixel_size_m: float
    reasons: tuple[str, ...]
    drift_known: bool


def put_dose(path: Path) -> None:
    """Work out the dose of a session's first camera, and store it; without frames nothing."""
    with Session.open(path) as session:
        found = dose_of(session)
    if found is None:
        return
    columns: dict[str, NDArray[np.generic]] = {
        "t_ns": found.t_ns,
        "dose": found.dose,
        "dose_sigma": found.sigma,
        "dose_total": np.where(np.isfinite(found.dose), np.nancumsum(found.dose), np.nan),
        "lit": found.lit,
    }
    about: dict[str, AttributeValue] = {
        "reason": "; ".join(found.reasons),
        "drift_known": found.drift_known,
        "pixel_size": found.pixel_size_m,
    }
    if found.field is not None:
        columns["map"] = found.field.dose_per_m2.astype(np.float32)
        about |= {"map_top": found.field.top, "map_left": found.field.left}
    units = dict.fromkeys(("dose", "dose_sigma", "dose_total", "map"), "1/m^2") | {"t_ns": "ns"}
    with SessionEditor.open(path) as editor:
        editor.put_table(PATH, columns, about, units=units)


def dose_of(session: Session) -> DoseRecord | None:
    """Return the dose of the first camera's frames; None where there are none."""
    camera = next((c for c in session.cameras if len(session.frames(c))), None)
    if camera is None:
        return None
    table, shape = session.frame_table(camera), session.frames(camera).shape
    pixel_m = float(str(table.attributes.get("pixel_size", math.nan)))
    told = np.asarray(table["dose"], np.float64)
    start_ns = np.asarray(table["t_start_ns"], np.int64)
    end_ns = start_ns + np.asarray(table["exposure_ns"], np.int64)
    known = np.isfinite(told)
    from_ns = np.concatenate([start_ns[:1], np.maximum.accumulate(end_ns)[:-1]])
    off_ns = blanked_ns(session, table)
    lit = _lit(from_ns, end_ns, off_ns)
    strength, strength_sigma, watched = _strength(session, end_ns)
    even = np.where(known, frame_doses(told), np.nan)
    dose = even * lit * strength
    reasons = [] if known.all() else [NO_RATE]
    if known.any():
        reasons += [COMMON] if watched else [COMMON, UNWATCHED]
    drift = session.table(f"drift/{camera}") if session.has(f"drift/{camera}") else None
    return DoseRecord(
        t_ns=end_ns,
        dose=dose,
        sigma=_sigma(dose, even, (from_ns, end_ns), table, strength_sigma),
        lit=lit,
        field=_map(dose, drift, shape) if known.any() else None,
        pixel_size_m=pixel_m,
        reasons=tuple(reasons),
        drift_known=drift is not None,
    )


def _sigma(
    dose: Floats,
    even: Floats,
    between_ns: tuple[Stamps, Stamps],
    table: Table,
    strength_sigma: float,
) -> Floats:
    """Return what the times of both ends leave, and the steps of the beam current."""
    length_ns = np.maximum(between_ns[1] - between_ns[0], 1).astype(np.float64)
    end_sigma_ns = np.asarray(table["t_sigma_ns"], np.float64)
    # The first frame has both ends of its own exposure, which is as long as it is told.
    before_ns = np.concatenate([[0.0], end_sigma_ns[:-1]])
    of_time = np.abs(even) / length_ns * np.hypot(end_sigma_ns, before_ns)
    of_time[0] = 0.0 if math.isfinite(float(even[0])) else math.nan
    return np.asarray(np.hypot(of_time, np.abs(dose) * strength_sigma), dtype=np.float64)


def _map(dose: Floats, drift: Table | None, shape: tuple[int, ...]) -> DoseMap:
    right_px = down_px = np.zeros(len(dose))
    if drift is not None and len(drift["dx"]) == len(dose):
        good = np.asarray(drift["valid"], np.uint8) == 1
        # The session holds what to add to a frame's coordinates: the specimen moved against it.
        right_px, down_px = (np.where(good, -drift[name], np.nan) for name in ("dx", "dy"))
    return dose_map(
        np.nan_to_num(dose, nan=0.0), right_px, down_px, height=shape[1], width=shape[2]
    )


# --- the beam -------------------------------------------------------------------------------


def blanked_ns(session: Session, table: Table) -> NDArray[np.int64]:
    """Return from when to when the beam was off, in order and apart, shape (k, 2).

    By the codes that were played, by what the microscope said (to a second), and by the
    camera's own mark.
    """
    spans: list[tuple[int, int]] = []
    for code in played_codes(session):
        edges = code.edges_ns.tolist()
        # A code that was cut short with the beam off: nobody knows for how long.
        spans += list(zip(edges[::2], edges[1::2], strict=False))
    spans += _said_blanked(session)
    blanked = np.flatnonzero(np.asarray(table["blanked"]) == 1)
    start_ns, exposure_ns = table["t_start_ns"], table["exposure_ns"]
    spans += [(int(start_ns[i]), int(start_ns[i] + exposure_ns[i])) for i in blanked]
    merged: list[list[int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged, np.int64).reshape(-1, 2)


def _said_blanked(session: Session) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    since: int | None = None
    for event in session.events():
        blanked = event.data.get("beam_blanked")
        if event.kind != MICROSCOPE or not isinstance(blanked, bool):
            continue
        if blanked and since is None:
            since = event.t_ns
        elif not blanked and since is not None:
            spans.append((since, event.t_ns))
            since = None
    # Blanked to the end of the record, as far as anybody knows.
    return spans if since is None else [*spans, (since, 2**62)]


def _lit(from_ns: Stamps, to_ns: Stamps, off_ns: NDArray[np.int64]) -> Floats:
    """Return the share of each stretch in which the beam was on."""
    if not len(off_ns):
        return np.ones(len(from_ns))
    origin = int(from_ns[0])
    edges = (off_ns - origin).astype(np.float64).ravel()
    total = np.concatenate([[0.0], np.cumsum(np.diff(off_ns, axis=1).ravel())])
    at_edges = np.repeat(total, 2)[1:-1]
    dark = [np.interp((t - origin).astype(np.float64), edges, at_edges) for t in (from_ns, to_ns)]
    length = (to_ns - from_ns).astype(np.float64)
    return np.where(length > 0, 1 - (dark[1] - dark[0]) / np.maximum(length, 1), 1.0)


def _strength(session: Session, t_ns: Stamps) -> tuple[Floats, float, bool]:
    """Return the beam current over its first value at each time, and its relative sigma."""
    said = [
        (event.t_ns, float(current))
        for event in session.events()
        if event.kind == MICROSCOPE
        and isinstance(current := event.data.get("beam_current_A"), float)
        and current > 0
    ]
    if not said:
        return np.ones(len(t_ns)), 0.0, False
    times, currents = (np.array(column) for column in zip(*said, strict=True))
    at = np.clip(np.searchsorted(times, t_ns, side="right") - 1, 0, None)
    return currents[at] / currents[0], CURRENT_STEP / math.sqrt(3), True
