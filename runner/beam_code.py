"""What the codes of a session tell: delays of frames and readings, and the beam's current."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from correlate.ledger import Beam
from potentiostat.records import Status
from runner.frame_samples import INSTRUMENT, current_delay_ns
from session.reader import Session
from sync.code_camera import fit_camera
from sync.code_current import beam_charge, fit_current
from sync.code_fit import Agreement, CodeFit, compare_delays, delay_between
from sync.code_search import CodeNotFound

POTENTIOSTAT = "potentiostat"
CHUNK_FRAMES = 32
ROW_GROUPS = 16  # of a rolling shutter
MARGIN = 0.5  # of a code's length, taken on both sides of it
SPREAD_FROM = 2  # codes on, their spread counts for the sigma of the beam's current

Columns = Mapping[str, NDArray[np.generic]]
NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A code as it was played: the middles between the stamps of its commands.

    Parameters
    ----------
    complete
        False for one that ended before its end: its edges count, it is not looked for.
    """

    edges_ns: NDArray[np.int64]
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCode:
    """What camera and meter say of one code; None for what does not show it.

    Parameters
    ----------
    held_voltage
        Whether a voltage was held all along, so that the beam shows in the current.
    agreement
        Of the delay between both with that of the clock fits.
    doubts
        What could not be read, and why.
    """

    played: Played
    camera: CodeFit | None
    current: CodeFit | None
    held_voltage: bool
    agreement: Agreement | None
    doubts: tuple[str, ...]

    @property
    def beam(self) -> tuple[float, float]:
        """Beam-induced current into the positive terminal, and its sigma; NaN where unknown."""
        if self.current is None or not self.held_voltage:
            return NAN, NAN
        # The instrument gives less where the beam gives more.
        return -self.current.amplitude, self.current.amplitude_sigma


def played_codes(session: Session) -> tuple[Played, ...]:
    """Return the codes of a session, in order of time."""
    codes = []
    for event in session.events():
        if event.kind != "beam" or event.source != "blanker":
            continue
        sent_ns, done_ns = (
            np.array(event.data.get(name, []), np.int64).reshape(-1)
            for name in ("sent_ns", "done_ns")
        )
        edges_ns = sent_ns + (done_ns - sent_ns) // 2
        if len(edges_ns):
            codes.append(Played(edges_ns=edges_ns, complete=event.data.get("complete") is True))
    return tuple(sorted(codes, key=lambda code: int(code.edges_ns[0])))


def read_codes(session: Session, columns: Columns) -> tuple[ReadCode, ...]:
    """Find each code in the frames and in the readings, and compare both."""
    codes = played_codes(session)
    return tuple(
        _read(session, columns, code, _window_ns(codes, i)) for i, code in enumerate(codes)
    )


def _window_ns(codes: Sequence[Played], i: int) -> tuple[int, int]:
    """Return the stretch about a code that holds no other one."""
    first, last = int(codes[i].edges_ns[0]), int(codes[i].edges_ns[-1])
    margin = int(MARGIN * (last - first))
    begin, end = first - margin, last + margin
    if i > 0:
        begin = max(begin, (first + int(codes[i - 1].edges_ns[-1])) // 2)
    if i + 1 < len(codes):
        end = min(end, (last + int(codes[i + 1].edges_ns[0])) // 2)
    return begin, end


def _read(session: Session, columns: Columns, code: Played, window_ns: tuple[int, int]) -> ReadCode:
    doubts: list[str] = []
    camera = current = None
    rows, held = _readings(columns, code, window_ns)
    if not code.complete:
        return ReadCode(
            played=code,
            camera=None,
            current=None,
            held_voltage=held,
            agreement=None,
            doubts=("the code was not played to its end",),
        )
    try:
        camera = _fit_frames(session, code, window_ns)
    except (CodeNotFound, ValueError) as error:
        doubts.append(f"camera: {error}")
    try:
        current = fit_current(
            np.asarray(columns["t_ns"], np.int64)[rows],
            _apertures_ns(session, columns)[0][rows],
            np.asarray(columns["current" if held else "voltage"], np.float64)[rows],
            code.edges_ns,
            edges_from=camera,
        )
    except (CodeNotFound, ValueError) as error:
        doubts.append(f"{'current' if held else 'voltage'}: {error}")
    if current is not None and not held:
        doubts.append("a current was held, so the beam's own current shows in no reading of it")
    agreement = None
    if camera is not None and current is not None:
        sigma_s, bound_s = _network(session, rows)
        agreement = compare_delays(
            delay_between(camera, current), network_sigma_s=sigma_s, network_bound_s=bound_s
        )
    return ReadCode(
        played=code,
        camera=camera,
        current=current,
        held_voltage=held,
        agreement=agreement,
        doubts=tuple(doubts),
    )


def _readings(
    columns: Columns, code: Played, window_ns: tuple[int, int]
) -> tuple[NDArray[np.intp], bool]:
    """Return the readings about a code that held what was held in it, and if a voltage was.

    Where both a voltage and a current were held in it, no voltage was held all along.
    """
    t_ns = np.asarray(columns["t_ns"], np.int64)
    inside = _rows_in(t_ns, (int(code.edges_ns[0]), int(code.edges_ns[-1])))
    mode = (np.asarray(columns["status"], np.uint32) & int(Status.POTENTIOSTATIC)) != 0
    level = np.asarray(columns["setpoint"], np.float64)
    about = _rows_in(t_ns, window_ns)
    rows = np.arange(about.start, about.stop)
    held = bool(np.all(mode[inside])) and inside.stop > inside.start
    same = (mode[rows] == held) & np.isin(level[rows], level[inside])
    return rows[same], held


def _rows_in(t_ns: NDArray[np.int64], window_ns: tuple[int, int]) -> slice:
    begin, end = np.searchsorted(t_ns, window_ns)
    return slice(int(begin), int(end))


def _fit_frames(session: Session, code: Played, window_ns: tuple[int, int]) -> CodeFit:
    """Fit the brightness of the frames about a code; of a rolling shutter, by groups of rows.

    Raises
    ------
    CodeNotFound
        The frames do not show the code.
    """
    if not session.cameras:
        raise CodeNotFound("the session has no frames")
    name = session.cameras[0]
    table, stack = session.frame_table(name), session.frames(name)
    start_ns = np.asarray(table["t_start_ns"], np.int64)
    rows = _rows_in(start_ns, window_ns)
    row_time_ns = float(str(table.attributes.get("row_time", 0.0)))
    groups = min(ROW_GROUPS, stack.shape[1]) if row_time_ns > 0 else 1
    sums = [
        np.stack([np.mean(part, axis=(1, 2)) for part in np.array_split(chunk, groups, axis=1)], 1)
        for first in range(rows.start, rows.stop, CHUNK_FRAMES)
        for chunk in [stack[first : min(first + CHUNK_FRAMES, rows.stop)]]
    ]
    if not sums:
        raise CodeNotFound("no frames were taken about the code")
    bright = np.concatenate(sums).astype(np.float64)
    start_ns = start_ns[rows]
    stop_ns = start_ns + np.asarray(table["exposure_ns"], np.int64)[rows]
    if groups == 1:
        return fit_camera(start_ns, stop_ns, bright[:, 0], code.edges_ns)
    middles = [float(np.mean(part)) for part in np.array_split(np.arange(stack.shape[1]), groups)]
    later_ns = np.round(np.array(middles) * row_time_ns).astype(np.int64)
    return fit_camera(start_ns, stop_ns, bright, code.edges_ns, row_offset_ns=later_ns)


def _apertures_ns(
    session: Session, columns: Columns
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how long each reading integrated the current, and by how much it may stand aside.

    An instrument that integrates voltage and current in turn does each in half of a
    reading; which one comes first is not recorded.
    """
    whole_s = np.asarray(columns["aperture_s"], np.float64)
    attributes = session.attributes(INSTRUMENT) if session.has(INSTRUMENT) else {}
    nplc, line_Hz = (
        float(str(attributes.get(name, NAN))) for name in ("nplc", "line_frequency_Hz")
    )
    in_turn = np.abs(whole_s - 2 * nplc / line_Hz) < 0.1 * whole_s
    own_s = np.where(in_turn, 0.5 * whole_s, whole_s)
    aside_s = 0.5 * (whole_s - own_s)
    own_ns, aside_ns = (np.round(s * 1e9).astype(np.int64) for s in (own_s, aside_s))
    return own_ns, aside_ns


def _network(session: Session, rows: NDArray[np.intp]) -> tuple[float, float]:
    """Return sigma and hard bound of the delay between both clocks, in s.

    What the range of the current lags by is in the fitted time constant, or hidden beside it:
    its limit counts to the bound, and so does where in a reading the current stands.
    """
    columns = session.sample_columns()
    bound_ns = float(np.max(current_delay_ns(session)[rows], initial=0))
    bound_ns += float(np.max(_apertures_ns(session, columns)[1][rows], initial=0))
    variance_ns2 = 0.0
    for clock in (POTENTIOSTAT, *session.cameras[:1]):
        fits = session.clock_fits(clock) if clock in session.clocks else ()
        if fits:
            variance_ns2 += max(float(fit.offset_sigma_ns) for fit in fits) ** 2
            bound_ns += max(float(fit.bound_ns) for fit in fits)
        elif clock == POTENTIOSTAT:
            # A reading lies anywhere between the host's stamps about it.
            width_ns = np.asarray(columns["read_end_ns"] - columns["read_start_ns"], np.float64)
            slack_ns = width_ns[rows] - columns["aperture_s"][rows] * 1e9
            bound_ns += 0.5 * float(np.max(slack_ns, initial=0.0))
        else:
            variance_ns2 += float(np.median(session.frame_table(clock)["t_sigma_ns"])) ** 2
    return math.sqrt(variance_ns2) / 1e9, bound_ns / 1e9


# --- the beam's charge ----------------------------------------------------------------------


def beam_of(session: Session, codes: Sequence[ReadCode], t_ns: NDArray[np.int64]) -> Beam | None:
    """Return what the beam added to the cell by each time; None where no code tells it.

    The beam's current is the mean of what the codes found, taken as the same in the whole
    session. Where they differ by more than their sigmas, their spread widens it.
    """
    known = [code.current for code in codes if code.current is not None and code.held_voltage]
    if not known or len(t_ns) == 0:
        return None
    value = np.array([-fit.amplitude for fit in known])
    sigma = np.array([fit.amplitude_sigma for fit in known])
    weight = 1 / sigma**2
    beam_A = float(np.sum(weight * value) / np.sum(weight))
    sigma_A = 1 / math.sqrt(float(np.sum(weight)))
    if len(known) >= SPREAD_FROM:
        misfit = float(np.sum(weight * (value - beam_A) ** 2)) / (len(known) - 1)
        sigma_A *= math.sqrt(max(1.0, misfit))
    edges_ns, others = _all_edges(session, codes, int(t_ns[0]))
    fit = replace(known[0], seen_ns=edges_ns, amplitude=-beam_A, amplitude_sigma=sigma_A)
    charge = beam_charge(fit, t_ns)
    status = f"measured by {len(known)} code{'s' if len(known) > 1 else ''}, taken as constant"
    if others:
        status += "; when others blanked the beam is known to a second"
    return Beam(charge_C=charge.charge_C, sigma_C=charge.sigma_C, status=status)


def _all_edges(
    session: Session, codes: Sequence[ReadCode], begin_ns: int
) -> tuple[NDArray[np.int64], int]:
    """Return when the beam went off and on by turns, and how often others did that."""
    changes: list[tuple[int, bool, bool]] = []
    for code in codes:
        edges_ns = code.played.edges_ns if code.current is None else code.current.seen_ns
        changes += [(int(t), i % 2 == 0, False) for i, t in enumerate(edges_ns)]
    changes += _blanked_by_others(session, begin_ns)
    changes.sort()
    edges, others = [], 0
    off = False
    for t_ns, blanked, by_others in changes:
        if blanked != off:
            edges.append(t_ns)
            others += by_others
            off = blanked
    return np.maximum.accumulate(np.array(edges, np.int64)), others


def _blanked_by_others(session: Session, begin_ns: int) -> list[tuple[int, bool, bool]]:
    """Return what the microscope said of its beam, by turns; it was asked each second."""
    said = [
        ((int(str(e.data["read_start_ns"])) + int(str(e.data["read_end_ns"]))) // 2, blanked)
        for e in session.events()
        if e.kind == "microscope" and isinstance(blanked := e.data.get("beam_blanked"), bool)
    ]
    if not said:
        return []
    # It was in the first state since before the first reading.
    first = [(min(begin_ns, said[0][0]) - 60_000_000_000, said[0][1])]
    turns = [b for a, b in itertools.pairwise([*first, *said]) if a[1] != b[1]]
    return [(t_ns, blanked, True) for t_ns, blanked in (first if said[0][1] else []) + turns]


# --- as it is told --------------------------------------------------------------------------


def code_table(codes: Sequence[ReadCode]) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return a table with a row for each code, and its units."""
    rows = [_row(code) for code in codes]
    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    units = {"start_ns": "ns"}
    for name in columns:
        if name not in units and name not in ("agrees", "sigmas"):
            units[name] = "A" if name.startswith("beam") else "s"
    return columns, units


def _row(code: ReadCode) -> dict[str, float]:
    camera, current, agreement = code.camera, code.current, code.agreement
    beam_A, beam_sigma_A = code.beam
    return {
        "start_ns": int(code.played.edges_ns[0]),
        "camera_delay": NAN if camera is None else camera.delay_s,
        "camera_delay_sigma": NAN if camera is None else camera.delay_sigma_s,
        "meter_delay": NAN if current is None else current.delay_s,
        "meter_delay_sigma": NAN if current is None else current.delay_sigma_s,
        "difference": NAN if agreement is None else agreement.difference_s,
        "difference_sigma": NAN if agreement is None else agreement.sigma_s,
        "difference_bound": NAN if agreement is None else agreement.bound_s,
        "sigmas": NAN if agreement is None else agreement.sigmas,
        "agrees": NAN if agreement is None else float(agreement.agrees),
        "jitter": NAN if camera is None else camera.jitter_s,
        "time_constant": NAN if current is None else current.response_s,
        "time_constant_sigma": NAN if current is None else current.response_sigma_s,
        "beam_current": beam_A,
        "beam_current_sigma": beam_sigma_A,
    }


def code_events(
    codes: Sequence[ReadCode],
) -> tuple[tuple[int, str, str, dict[str, object]], ...]:
    """Return an event for each code: its time, kind, message and data."""
    found = []
    for code in codes:
        wrong = code.agreement is not None and not code.agreement.agrees
        told = [] if code.agreement is None else [code.agreement.text]
        told += code.doubts
        data: dict[str, object] = {
            name: value if math.isfinite(value) else None for name, value in _row(code).items()
        }
        found.append(
            (
                int(code.played.edges_ns[-1]),
                "clock_disagreement" if wrong else "blanking",
                "; ".join(told),
                data,
            )
        )
    return tuple(found)
