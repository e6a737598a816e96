"""Rates of what was tracked, tested against current and voltage, as a session keeps them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.change_points import change_points
from correlate.enough import NotEnoughData
from correlate.event_average import event_average
from correlate.false_discovery import adjusted_p, surrogates_needed
from correlate.lag import Declared, LagResult, lag_correlation
from correlate.ledger import Ledger
from correlate.rates import bin_means, binned_rate, even_edges, running_integral
from potentiostat.records import Status
from session.editor import SessionEditor
from session.reader import Session
from session.records import AttributeValue

Floats = NDArray[np.float64]
Stamps = NDArray[np.int64]
Columns = Mapping[str, NDArray[np.generic]]
_Table = tuple[dict[str, NDArray[np.generic]], dict[str, AttributeValue]]

STEP_S = 1.0  # rates are compared in bins of this length, or longer where frames are rare
FRAMES_IN_BIN = 3
MOST_BINS = 5000
MAX_LAG_S = 10.0
MAX_LAG_BINS = 10
SURROGATES = 499  # of each kind
STEP_RECORDS = 99  # simulated for each question about a step
SEED = 20_001
SIGNIFICANCE = 0.05
LEAST_LIT = 0.01  # by which the lit share must vary to be taken out
BEFORE_S, AFTER_S = 5.0, 15.0  # of a switching event
QUANTITIES = ("position", "tip_distance", "length", "area", "volume", "converted_fraction")
METHOD = (
    "largest |r| over the lags against surrogates of the rate (half with random phases, half"
    " IAAFT); intervals of 95 %: slope and r with Bartlett's effective number, lag by the"
    " misfit of whitened residuals, clocks included; q: Benjamini-Hochberg over all tests"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One test, or why there is none.

    Parameters
    ----------
    name
        Of its group below ``correlation``.
    first, second
        What was tested against what.
    """

    name: str
    first: str
    second: str
    slope_unit: str
    given: tuple[str, ...]
    clock_sigma_s: float
    step_s: float
    seed: int
    found: LagResult | NotEnoughData

    @property
    def p(self) -> float:
        """The test's p; NaN without enough data."""
        return math.nan if isinstance(self.found, NotEnoughData) else self.found.p


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Even bins of one track, and what is taken out of both series."""

    edges_ns: Stamps
    step_s: float
    regressors: Floats | None
    given: tuple[str, ...]


def put_associations(
    editor: SessionEditor, tests: tuple[Association, ...], tables: Mapping[str, _Table]
) -> None:
    """Write every test with its false-discovery rate over all, and what goes with them."""
    q = adjusted_p([test.p for test in tests])
    for test, rate in zip(tests, q, strict=True):
        columns, attributes = _table(test, float(rate), len(tests))
        editor.put_table(f"correlation/{test.name}", columns, attributes)
    for name, (data, about) in tables.items():
        editor.put_table(f"correlation/{name}", data, about)


def associations(
    session: Session, columns: Columns, ledger: Ledger
) -> tuple[tuple[Association, ...], dict[str, _Table]]:
    """Test the rates of all tracks against current and voltage.

    Returns
    -------
    tests
        One for each quantity and drive, also those without enough data.
    tables
        Averages over switching events and steps of the rates, by name.
    """
    tests: list[Association] = []
    tables: dict[str, _Table] = {}
    for track in session.tracks:
        seen = session.table(f"tracks/{track}").columns
        known = [name for name in QUANTITIES if name in seen]
        for quantity in known:
            label = track if quantity == known[0] else f"{track}_{quantity}"
            grid = _grid(session, seen, quantity)
            values = _valid(seen, quantity)
            rate = binned_rate(_stamps(seen), values, grid.edges_ns)
            used_ns = _stamps(seen)[np.isfinite(values)]
            what = f"{track} {'velocity' if quantity == 'position' else f'rate of {quantity}'}"
            tests += _against(
                session, columns, ledger, (label, what, quantity), used_ns, rate, grid
            )
            tables |= dict(_beside(columns, label, rate, grid))
    return tuple(tests), tables


def _stamps(columns: Columns) -> Stamps:
    return np.asarray(columns["t_ns"], np.int64)


def _valid(seen: Columns, quantity: str) -> Floats:
    """Return a tracked quantity, NaN where the tracker said that it is not valid."""
    return np.where(np.asarray(seen["valid"]) == 1, np.asarray(seen[quantity], np.float64), np.nan)


def _grid(session: Session, seen: Columns, quantity: str) -> _Grid:
    t_ns = _stamps(seen)[np.isfinite(_valid(seen, quantity))]
    if len(t_ns) < 2:
        return _Grid(edges_ns=np.empty(0, np.int64), step_s=STEP_S, regressors=None, given=())
    frame_s = float(np.median(np.diff(t_ns))) / 1e9
    length_s = float(t_ns[-1] - t_ns[0]) / 1e9
    step_s = max(STEP_S, FRAMES_IN_BIN * frame_s, length_s / MOST_BINS)
    edges_ns = even_edges(int(t_ns[0]), int(t_ns[-1]), step_s)
    given, regressors = [], []
    if session.has("correlation/dose"):
        dose = session.table("correlation/dose").columns
        for name, column, least in (("dose", "dose_total", 0.0), ("beam", "lit", LEAST_LIT)):
            values = np.asarray(dose[column], np.float64)
            means = bin_means(_stamps(dose), values, edges_ns)
            between = (means[1:] + means[:-1]) / 2
            if np.isfinite(between).any() and np.nanmax(between) - np.nanmin(between) > least:
                given.append(name)
                regressors.append(between)
    return _Grid(
        edges_ns=edges_ns,
        step_s=step_s,
        regressors=np.stack(regressors, axis=1) if regressors else None,
        given=tuple(given),
    )


def _against(  # one private step of one function
    session: Session,
    columns: Columns,
    ledger: Ledger,
    named: tuple[str, str, str],
    used_ns: Stamps,
    rate: Floats,
    grid: _Grid,
) -> Iterator[Association]:
    label, what, quantity = named
    t_ns, status = _stamps(columns), np.asarray(columns["status"], np.uint32)
    held = bool(np.any(status & int(Status.POTENTIOSTATIC)))
    ionic = ledger.columns["ionic"]
    charge, drive = ionic, "ionic current"
    if not np.all(np.isfinite(ionic)):
        charge = running_integral(t_ns, np.asarray(columns["current"], np.float64))
        drive = "current"
    voltage = running_integral(t_ns, np.asarray(columns["voltage"], np.float64))
    clock_s = _clock_sigma_s(session, columns)
    for name, second, whole, per, steps in (
        ("current", drive, charge, "C", not held),
        ("voltage", "voltage", voltage, "(V s)", held),
    ):
        seed = SEED + sum(f"{label}_{name}".encode())
        yield Association(
            name=f"{label}_{name}",
            first=what,
            second=second,
            slope_unit=f"{_unit(quantity)}/{per}",
            given=grid.given,
            clock_sigma_s=clock_s,
            step_s=grid.step_s,
            seed=seed,
            found=_tested(
                rate,
                binned_rate(used_ns, _at(used_ns, t_ns, whole), grid.edges_ns),
                grid,
                Declared(
                    step_s=grid.step_s,
                    max_lag_s=max(MAX_LAG_S, MAX_LAG_BINS * grid.step_s),
                    count=SURROGATES,
                    switches=_switches(columns, grid).size if steps else None,
                    clock_sigma_s=clock_s,
                ),
                seed,
            ),
        )


def _at(used_ns: Stamps, t_ns: Stamps, whole: Floats) -> Floats:
    """Return an integral at the frames that were used, so that bins hold the same times."""
    known = np.isfinite(whole)
    if not known.any():
        return np.full(len(used_ns), np.nan)
    frames_s = (used_ns - t_ns[0]).astype(np.float64) / 1e9
    readings_s = (t_ns[known] - t_ns[0]).astype(np.float64) / 1e9
    return np.asarray(np.interp(frames_s, readings_s, whole[known], left=np.nan, right=np.nan))


def _tested(
    rate: Floats, drive: Floats, grid: _Grid, declared: Declared, seed: int
) -> LagResult | NotEnoughData:
    try:
        return lag_correlation(
            rate, drive, declared, rng=np.random.default_rng(seed), regressors=grid.regressors
        )
    except NotEnoughData as error:
        return error


def _unit(quantity: str) -> str:
    known = {"area": "m^2", "volume": "m^3", "converted_fraction": "1"}
    return known.get(quantity, "m")


def _clock_sigma_s(session: Session, columns: Columns) -> float:
    """Return by how much frames and readings may be shifted against each other."""
    sigmas = [np.asarray(columns["t_sigma_ns"], np.float64)]
    if session.cameras:
        table = session.frame_table(session.cameras[0])
        sigmas.append(np.asarray(table["t_sigma_ns"], np.float64))
    known = [float(np.median(s[np.isfinite(s)])) for s in sigmas if np.isfinite(s).any()]
    return math.hypot(*known) / 1e9


def _switches(columns: Columns, grid: _Grid) -> NDArray[np.int64]:
    """Return the bins at whose middle the set-point changes."""
    setpoint = np.asarray(columns["setpoint"], np.float64)
    t_ns = _stamps(columns)[1:]
    changed = np.isfinite(setpoint[1:]) & np.isfinite(setpoint[:-1]) & (np.diff(setpoint) != 0)
    if len(grid.edges_ns) < 3:
        return np.empty(0, np.int64)
    # The rate between two bins stands at the edge between them.
    place = np.searchsorted(grid.edges_ns[1:-1], t_ns[changed])
    return np.asarray(np.unique(place[(place > 0) & (place < len(grid.edges_ns) - 2)]), np.int64)


# --- beside the tests ------------------------------------------------------------------


def _beside(
    columns: Columns, label: str, rate: Floats, grid: _Grid
) -> Iterator[tuple[str, _Table]]:
    """Yield the average over switching events and the steps of a rate, where there are enough."""
    rng = np.random.default_rng(SEED)
    at = _switches(columns, grid)
    setpoint = np.asarray(columns["setpoint"], np.float64)
    means = bin_means(_stamps(columns), setpoint, grid.edges_ns)
    ahead = np.clip(np.stack([at - 1, at + 2]), 0, max(len(means) - 1, 0))
    try:
        signs = np.sign(np.diff(means[ahead], axis=0)[0]) if len(at) else np.empty(0)
        average = event_average(
            rate,
            at,
            signs=np.where(np.isfinite(signs), signs, 0.0),
            before=max(round(BEFORE_S / grid.step_s), 2),
            after=max(round(AFTER_S / grid.step_s), 4),
            step_s=grid.step_s,
            rng=rng,
        )
    except NotEnoughData:
        pass
    else:
        yield (
            f"{label}_switching",
            (
                {
                    "offset_s": average.offset_s,
                    "mean": average.mean,
                    "low": average.low,
                    "high": average.high,
                    "chance_low": average.chance_low,
                    "chance_high": average.chance_high,
                },
                {
                    "what": "rate around changes of the set-point, times the sign of the change",
                    "p": average.p,
                    "smallest_p": average.smallest_p,
                    "events": average.events,
                    "seed": SEED,
                },
            ),
        )
    try:
        found = change_points(rate, rng=rng, count=STEP_RECORDS)
    except NotEnoughData:
        return
    yield (
        f"{label}_steps",
        (
            {
                "t_ns": grid.edges_ns[1:-1][found.index],
                "step": found.step,
                "step_sigma": found.step_sigma,
                "p": found.p,
            },
            {
                "what": "steps of the rate's level that its own memory does not explain",
                "smallest_p": found.smallest_p,
                "seed": SEED,
            },
        ),
    )


# --- as it is stored -------------------------------------------------------------------


def _table(test: Association, q: float, family: int) -> _Table:
    about: dict[str, AttributeValue] = {
        "first": test.first,
        "second": test.second,
        "given": ", ".join(test.given) or "nothing",
        "p": test.p,
        "q": q,
        "family": family,
        "method": METHOD,
        "seed": test.seed,
        "surrogates": SURROGATES,
        "step_s": test.step_s,
        "clock_sigma_s": test.clock_sigma_s,
        "verdict": verdict(test, q, family),
    }
    found = test.found
    if isinstance(found, NotEnoughData):
        return {}, {**about, "reason": found.reason, "enough": found.enough}
    effect = found.effect
    about |= {
        "r_max": found.r_max,
        "lag_at_max_s": found.lag_at_max_s,
        "r": effect.r,
        "r_low": effect.r_low,
        "r_high": effect.r_high,
        "slope": effect.slope,
        "slope_low": effect.slope_low,
        "slope_high": effect.slope_high,
        "slope_unit": test.slope_unit,
        "slope_n_effective": effect.n_effective,
        "best_lag_s": found.best_lag_s,
        "lag_low_s": found.lag_low_s,
        "lag_high_s": found.lag_high_s,
        "p_phase": found.phase.p,
        "p_iaaft": found.iaaft.p,
        "smallest_p": found.smallest_p,
        "n": found.n,
        "n_effective": found.n_effective,
        "null": "surrogates of the rate: random phases and IAAFT",
        "enough_ratio": found.enough_ratio,
    }
    data: dict[str, NDArray[np.generic]] = {
        "lag_s": found.lag_s,
        "r": found.r,
        "p_of_lag": found.p_of_lag,
        "surrogate_band": np.full(len(found.r), found.band),
        "surrogates_phase": found.phase.largest,
        "surrogates_iaaft": found.iaaft.largest,
    }
    return data, about


def verdict(test: Association, q: float, family: int) -> str:
    """Return what a test says, in a sentence."""
    found = test.found
    if isinstance(found, NotEnoughData):
        return f"Not enough data: {found.reason}; {found.enough}."
    if q > SIGNIFICANCE:
        length_s = found.n * test.step_s
        longer_s = length_s * found.enough_ratio
        if surrogates_needed(family) > 2 * SURROGATES:
            return f"{2 * SURROGATES} surrogates are too few for a family of {family} tests."
        more = (
            f" An effect of the size seen would show in about {longer_s:.2g} s."
            if found.enough_ratio > 1
            else ""
        )
        return (
            f"Not more than chance gives: |r| above {found.band:.2f} would have been seen in"
            f" {length_s:.0f} s.{more}"
        )
    where = (
        f"lag between {found.lag_low_s:+.2f} and {found.lag_high_s:+.2f} s (95 %)"
        if math.isfinite(found.lag_low_s)
        else "the lag is not determined"
    )
    held = f", with {' and '.join(test.given)} taken out" if test.given else ""
    return f"The {test.first} follows the {test.second}{held}; {where}."
