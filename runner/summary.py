"""What came of a run, in numbers with their uncertainties."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from potentiostat.protocol import SafeState
from runner.edge_record import PATH as EDGES_PATH
from runner.edge_record import SOURCE as EDGES
from runner.impedances import PREFIX
from runner.plan import ExitCode
from runner.temperature_summary import TemperatureSummary, temperature_summary
from runner.titration_summary import TitrationSummary, titration_summaries
from session.reader import Session

DOUBTS = (
    "calibration_doubted",
    "holder_changed",
    "clock_disagreement",
    "code_refused",
    "beam_left",
)
IMPORTED = "imported"  # exit reason of a session that was not run here
LEDGER_TERMS = ("instrument", "capacitive", "leak", "dielectric", "beam", "ionic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A value and its standard uncertainty; NaN where unknown."""

    value: float
    sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """One step: what was held, why it ended, what flowed, how fast the front moved."""

    index: int
    name: str
    held: str
    duration_s: float
    ended: str
    kind: str
    charge_C: Mapping[str, Measured]
    front_speed_m_s: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumSummary:
    """The impedance that one step found, by frequency.

    Parameters
    ----------
    of_cell
        False where no open-holder calibration took the holder out of it.
    """

    step: int
    of_cell: bool
    frequency_Hz: tuple[float, ...]
    real_ohm: tuple[float, ...]
    imag_ohm: tuple[float, ...]
    sigma_ohm: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationSummary:
    """How surely two rates go together.

    Parameters
    ----------
    r, lag_s
        Correlation of largest magnitude within the declared lags, and where it is.
    lag_low_s, lag_high_s
        Interval (95 %) of the lag; NaN where it is not determined.
    slope, slope_low, slope_high
        Effect and its interval (95 %), in ``slope_unit``.
    p, q
        By surrogates, and the false-discovery rate over all tests of the session. All
        numbers are NaN without enough data: the verdict then says what would be enough.
    """

    name: str
    r: float
    lag_s: float
    lag_low_s: float
    lag_high_s: float
    slope: float
    slope_low: float
    slope_high: float
    slope_unit: str
    p: float
    q: float
    null: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSummary:
    """What one code of the beam told.

    Parameters
    ----------
    camera_delay_s, meter_delay_s
        Of frames and readings after the commands to the blanker.
    difference_s, bound_s
        Of both, and what clock fits and instruments permit.
    beam_current_A
        Into the positive terminal while the beam is on.
    """

    camera_delay_s: Measured
    meter_delay_s: Measured
    difference_s: Measured
    bound_s: float
    beam_current_A: Measured
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseSummary:
    """Electrons per m^2 that the frames brought; NaN where unknown.

    Parameters
    ----------
    total_per_m2
        Up to the end of the last frame of which the dose is known.
    largest_per_m2
        Of any part of the specimen, with the drift taken out.
    reason
        Why it is unknown, or what its uncertainty does not hold.
    """

    total_per_m2: float
    largest_per_m2: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSummary:
    """What edges of trigger lines tell of both clocks; see `runner.edge_record`."""

    difference_s: Measured
    matched: int
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What came of a session.

    Parameters
    ----------
    left_in
        Safe state in which the cell was left; None when it is not known.
    frame_time_sigma_ns, frame_time_bound_ns
        Uncertainty of the frames' times, and the hard bound beside it.
    warnings
        What makes the numbers less sure.
    reaction_median_s, reaction_largest_s
        From the end of the reading that met a rule to the new set-point, over all parts of
        the plan that a rule ended; NaN where none did.
    """

    session: str
    title: str
    exit_code: int
    exit_reason: str
    left_in: str | None
    simulated: bool
    duration_s: float
    samples: int
    frames: int
    frames_dropped: int
    frame_time_sigma_ns: float
    frame_time_bound_ns: float
    drift_px: Measured
    steps: tuple[StepSummary, ...]
    correlations: tuple[CorrelationSummary, ...]
    reaction_median_s: float
    reaction_largest_s: float
    spectra: tuple[SpectrumSummary, ...]
    titrations: tuple[TitrationSummary, ...]
    warnings: tuple[str, ...] = ()
    codes: tuple[CodeSummary, ...] = ()
    dose: DoseSummary | None = None
    edges: EdgeSummary | None = None
    temperature: TemperatureSummary | None = None


def summarise(
    path: Path,
    *,
    exit_code: ExitCode = ExitCode.DONE,
    left_in: SafeState | None = None,
) -> RunSummary:
    """Read a session and say what came of it."""
    with Session.open(path) as session:
        samples = session.sample_columns()
        t_ns = samples["t_ns"]
        frames, dropped = _frame_counts(session)
        sigma_ns, bound_ns = _frame_time(session)
        reactions_s = _reactions_s(session)
        return RunSummary(
            session=str(path),
            title=session.title,
            exit_code=int(exit_code),
            exit_reason=session.exit_reason,
            left_in=None if left_in is None else left_in.value,
            simulated=session.simulated,
            duration_s=_duration_s(session),
            samples=len(t_ns),
            frames=frames,
            frames_dropped=dropped,
            frame_time_sigma_ns=sigma_ns,
            frame_time_bound_ns=bound_ns,
            drift_px=_largest_drift(session),
            steps=_steps(session),
            correlations=_correlations(session),
            reaction_median_s=float(np.median(reactions_s)) if reactions_s else math.nan,
            reaction_largest_s=max(reactions_s, default=math.nan),
            spectra=_spectra(session),
            titrations=titration_summaries(session, _numbers(session)),
            warnings=_warnings(session),
            codes=_codes(session),
            dose=_dose(session),
            edges=_edges(session),
            temperature=temperature_summary(session),
        )


def _edges(session: Session) -> EdgeSummary | None:
    if not session.has(EDGES_PATH):
        return None
    table = session.table(EDGES_PATH)
    return EdgeSummary(
        difference_s=Measured(
            value=float(table["difference"][0]), sigma=float(table["difference_sigma"][0])
        ),
        matched=int(table["matched"][0]),
        verdict=str(table.attributes["verdict"]),
    )


def _dose(session: Session) -> DoseSummary | None:
    if not session.has("correlation/dose"):
        return None
    table = session.table("correlation/dose")
    total = table["dose_total"]
    known = total[np.isfinite(total)]
    return DoseSummary(
        total_per_m2=float(known[-1]) if len(known) else math.nan,
        largest_per_m2=float(np.max(table["map"])) if "map" in table else math.nan,
        reason=str(table.attributes["reason"]),
    )


def _warnings(session: Session) -> tuple[str, ...]:
    """Say what makes the numbers less sure: an old calibration, a changed holder, shorts."""
    said = [event.message for event in session.events() if event.kind in DOUBTS]
    shorts = [event for event in session.events() if event.kind == "soft_short"]
    if shorts:
        falls = sum(float(str(event.data["step_V"])) < 0 for event in shorts)
        rises = len(shorts) - falls
        told = [f"fell at once {_times(falls)}"] if falls else []
        told += [f"rose at once {_times(rises)}"] if rises else []
        said.append(
            f"soft shorts: the voltage {' and '.join(told)} at a held current, first: "
            f"{min(shorts, key=lambda event: event.t_ns).message}"
        )
    return tuple(said)


def _times(count: int) -> str:
    return "1 time" if count == 1 else f"{count} times"


def _codes(session: Session) -> tuple[CodeSummary, ...]:
    if not session.has("correlation/blanking"):
        return ()
    table = session.table("correlation/blanking").columns
    told = [
        e
        for e in session.events()
        if e.kind in ("blanking", "clock_disagreement") and e.source != EDGES
    ]
    messages = [e.message for e in sorted(told, key=lambda e: e.t_ns)]

    def measured(name: str, i: int) -> Measured:
        return Measured(value=float(table[name][i]), sigma=float(table[f"{name}_sigma"][i]))

    return tuple(
        CodeSummary(
            camera_delay_s=measured("camera_delay", i),
            meter_delay_s=measured("meter_delay", i),
            difference_s=measured("difference", i),
            bound_s=float(table["difference_bound"][i]),
            beam_current_A=measured("beam_current", i),
            verdict=message,
        )
        for i, message in enumerate(messages)
    )


def _duration_s(session: Session) -> float:
    """From the first reading or exposure to the last."""
    spans = [session.sample_columns()["t_ns"]]
    for camera in session.cameras:
        table = session.frame_table(camera)
        spans += [table["t_start_ns"], table["t_start_ns"] + table["exposure_ns"]]
    known = [span for span in spans if len(span)]
    if not known:
        return 0.0
    return (max(int(s.max()) for s in known) - min(int(s.min()) for s in known)) / 1e9


def _frame_counts(session: Session) -> tuple[int, int]:
    tables = [session.frame_table(camera) for camera in session.cameras]
    return (
        sum(len(table["index"]) for table in tables),
        sum(int(np.sum(table["dropped_before"])) for table in tables),
    )


def _frame_time(session: Session) -> tuple[float, float]:
    for camera in session.cameras:
        sigma_ns = session.frame_table(camera)["t_sigma_ns"]
        fits = session.clock_fits(camera) if camera in session.clocks else ()
        if len(sigma_ns) and fits:
            return float(np.median(sigma_ns)), max(float(f.bound_ns) for f in fits)
    return math.nan, math.nan


def _largest_drift(session: Session) -> Measured:
    for camera in session.cameras:
        if session.has(f"drift/{camera}"):
            drift = session.table(f"drift/{camera}")
            size = np.hypot(drift["dx"], drift["dy"])
            if len(size) and np.any(np.isfinite(size)):
                i = int(np.nanargmax(size))
                return Measured(value=float(size[i]), sigma=float(drift["sigma"][i]))
    return Measured(value=math.nan, sigma=math.nan)


def _steps(session: Session) -> tuple[StepSummary, ...]:
    started = {e.data["step"]: e for e in session.events() if e.kind == "step_started"}
    ended = {e.data["step"]: e for e in session.events() if e.kind == "step_ended"}
    found = (
        session.table("correlation/kinematics").columns
        if session.has("correlation/kinematics")
        else {}
    )
    steps = []
    for index, start in started.items():
        end = ended.get(index)
        steps.append(
            StepSummary(
                index=int(str(index)),
                name=str(start.data["name"]),
                held=str(start.data["held"]),
                duration_s=math.nan if end is None else (end.t_ns - start.t_ns) / 1e9,
                ended="the record ends" if end is None else str(end.data["reason"]),
                kind="unknown" if end is None else str(end.data["kind"]),
                charge_C={term: _at_step(found, term, index) for term in LEDGER_TERMS},
                front_speed_m_s=_at_step(found, "velocity", index),
            )
        )
    return tuple(steps)


def _at_step(columns: Mapping[str, NDArray[np.generic]], name: str, step: object) -> Measured:
    if name in columns:
        rows = np.flatnonzero(columns["step"] == step)
        if len(rows):
            return Measured(
                value=float(columns[name][rows[0]]),
                sigma=float(columns[f"{name}_sigma"][rows[0]]),
            )
    return Measured(value=math.nan, sigma=math.nan)


def _correlations(session: Session) -> tuple[CorrelationSummary, ...]:
    found = []
    for name in session.correlations:
        known = session.attributes(f"correlation/{name}")
        if not {"first", "second", "verdict", "p"} <= set(known):
            continue

        def number(key: str, known: Mapping[str, object] = known) -> float:
            return float(str(known.get(key, math.nan)))

        found.append(
            CorrelationSummary(
                name=f"{known['first']} with {known['second']}",
                r=number("r_max"),
                lag_s=number("lag_at_max_s"),
                lag_low_s=number("lag_low_s"),
                lag_high_s=number("lag_high_s"),
                slope=number("slope"),
                slope_low=number("slope_low"),
                slope_high=number("slope_high"),
                slope_unit=str(known.get("slope_unit", "")),
                p=number("p"),
                q=number("q"),
                null=str(known.get("null", "")),
                verdict=str(known["verdict"]),
            )
        )
    return tuple(found)


def _reactions_s(session: Session) -> list[float]:
    kinds = ("condition", "held", "limit")
    return [
        float(str(e.data["latency_ns"])) / 1e9
        for e in session.events()
        if e.kind == "segment_ended" or (e.kind == "step_ended" and e.data["kind"] in kinds)
    ]


def _numbers(session: Session) -> list[int]:
    """Return the steps that were begun."""
    started = [e.data["step"] for e in session.events() if e.kind == "step_started"]
    return sorted(int(str(number)) for number in started)


def _spectra(session: Session) -> tuple[SpectrumSummary, ...]:
    found = []
    for step in _numbers(session):
        path = f"correlation/{PREFIX}{step + 1}"
        if not session.has(path):
            continue
        columns = session.table(path).columns
        of_cell = "cell_real" in columns
        prefix = "cell_" if of_cell else ""
        found.append(
            SpectrumSummary(
                step=step,
                of_cell=of_cell,
                frequency_Hz=tuple(columns["frequency"].tolist()),
                real_ohm=tuple(columns[f"{prefix}real"].tolist()),
                imag_ohm=tuple(columns[f"{prefix}imag"].tolist()),
                sigma_ohm=tuple(columns[f"{prefix}sigma"].tolist()),
            )
        )
    return tuple(found)
