"""Finds the offset of a movie that shares no clock with the potentiostat: one method after another.

Code, then steps, then rates: the first that is sure is taken. The offset is a time of the movie
less that of the potentiostat.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runner.align_records import Floats, Movie, Samples, Stamps, binned
from sync.code_camera import fit_camera
from sync.code_current import fit_current
from sync.code_fit import delay_between
from sync.code_search import CodeNotFound, Place, chip_of, find_code
from sync.search import OffsetPosterior, Series, offset_by_rates, offset_by_steps

METHODS = ("code", "steps", "rates")
SEED = 20_002
# By how much two clocks of quartz run apart, 1 sigma: recalled, unconfirmed.
CLOCK_RATE_SIGMA = 5e-5
MARGIN_CHIPS = 16  # of the records, before and after a code
BINS_IN_GAP = 150  # between steps
MOST_BINS = 4000  # over what is searched by steps
MOST_RATE_BINS = 2000
RATE_GRID = 700  # bins over what is searched by rates
ROW_GROUPS = 16
BLANK_LAG_S = (-1.0, 5.0)  # of the current behind recorded blanking
FIRST_TAUS = (0.03, 0.3)  # of a chip

Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one method made of a pair of records.

    Parameters
    ----------
    method, evidence
        Which, and what of the records it went by.
    offset_ns, reference_ns
        Time of the movie less that of the potentiostat, at this time of the movie.
    sigma_s
        Of the offset there; the interval is of 95 %.
    rate, rate_sigma
        By how much the offset grows in a second; NaN where nothing is known of it.
    peak_mass, p
        Share of the posterior, and chance without a relation; NaN where not tested.
    posterior
        Offsets in s against `offset_ns`, and their probability.
    refusal
        Why it is not to be trusted; empty where it is.
    """

    method: str
    evidence: str
    refusal: str
    offset_ns: int = 0
    reference_ns: int = 0
    sigma_s: float = math.nan
    low_s: float = math.nan
    high_s: float = math.nan
    rate: float = 0.0
    rate_sigma: float = math.nan
    peak_mass: float = math.nan
    p: float = math.nan
    posterior: tuple[Floats, Floats] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two records to be aligned.

    Parameters
    ----------
    intensity
        Mean of each frame; called where it is needed, as it reads all pixels.
    track
        Name and position.
    edges_ns
        Of a code that the beam was blanked with.
    edges_on_host
        True where these are times of the potentiostat's clock, not counted from anywhere.
    """

    samples: Samples
    movie: Movie
    intensity: Callable[[], Floats]
    track: tuple[str, Series] | None
    edges_ns: Stamps | None
    edges_on_host: bool

    @property
    def base_ns(self) -> int:
        """Beginning of the movie less that of the samples: offsets are counted from it."""
        return self.movie.origin_ns - int(self.samples.t_ns[0])

    def brightness(self) -> Series:
        """Return the mean intensity against the movie's time."""
        return Series(t_s=self.movie.middle_s, value=self.intensity()[self.movie.good])

    def span(self, max_offset_s: float | None) -> Span:
        """Return the offsets, from `base_ns`, at which half of the shorter record overlaps."""
        movie_s, samples_s = float(self.movie.middle_s[-1]), float(self.samples.t_s[-1])
        half_s = 0.5 * min(movie_s, samples_s)
        low_s, high_s = half_s - samples_s, movie_s - half_s
        if max_offset_s is not None:
            base_s = self.base_ns / 1e9
            low_s, high_s = max(low_s, -max_offset_s - base_s), min(high_s, max_offset_s - base_s)
        return low_s, high_s


def search(pair: Pair, methods: tuple[str, ...], max_offset_s: float | None) -> Iterator[Finding]:
    """Yield what each method finds or why it does not, until one is sure."""
    span = pair.span(max_offset_s)
    for method in methods:
        if method != "code" and not span[1] > span[0]:
            yield Finding(
                method=method,
                evidence="",
                refusal="at no offset that is looked at do both records overlap by half of the "
                "shorter one",
            )
            continue
        tries = {"code": _by_code, "steps": _by_steps, "rates": _by_rates}[method]
        for found in tries(pair, span if method != "code" else (0.0, max_offset_s or math.inf)):
            yield found
            if not found.refusal:
                return


# --- code ------------------------------------------------------------------------------


def _by_code(pair: Pair, span: Span) -> Iterator[Finding]:
    edges_ns = pair.edges_ns
    if edges_ns is None:
        yield Finding(
            method="code",
            evidence="",
            refusal="no blanking is recorded; name the code that was played (chip and order)",
        )
        return
    samples = pair.samples
    for name, value in (("current", samples.current_A), ("voltage", samples.voltage_V)):
        evidence = f"mean intensity and {name}"
        try:
            found = _code_delay(pair, edges_ns, value)
        except (CodeNotFound, np.linalg.LinAlgError) as why:
            yield Finding(method="code", evidence=evidence, refusal=str(why))
            continue
        if abs(found.offset_ns) / 1e9 > span[1]:
            found = replace(
                found,
                refusal=f"the code tells an offset of {found.offset_ns / 1e9:.6g} s, which is "
                f"beyond the {span[1]:g} s that are allowed",
            )
        yield replace(found, evidence=evidence)


def _code_delay(pair: Pair, edges_ns: Stamps, value: Floats) -> Finding:
    movie, samples = pair.movie, pair.samples
    sums = pair.intensity()[movie.good]
    start_ns = movie.start_ns[movie.good]
    stop_ns = start_ns + movie.exposure_ns[movie.good]
    chip_s = chip_of((edges_ns - edges_ns[0]) / 1e9)
    later_ns = int(movie.row_delay_ns.max()) // 2
    middle_ns = start_ns + (stop_ns - start_ns) // 2 + later_ns
    seen = _cut(middle_ns, sums, edges_ns, either_sign=False)
    rows = _row_groups(movie.row_delay_ns)
    camera = fit_camera(
        start_ns[seen],
        stop_ns[seen],
        sums[seen],
        edges_ns,
        row_offset_ns=rows,
        row_weight=None if rows is None else np.full(len(rows), 1 / len(rows)),
        with_rate=True,
    )
    search_s = BLANK_LAG_S if pair.edges_on_host else None
    kept = _cut(samples.t_ns, value, edges_ns, either_sign=True, search_s=search_s)
    current = fit_current(
        samples.t_ns[kept],
        samples.aperture_ns[kept],
        value[kept],
        edges_ns,
        edges_from=camera,
        search_s=search_s,
        with_rate=True,
    )
    found = delay_between(camera, current)
    # A reading of which nobody says when it began may be early or late by its interval.
    blur_s = 0.0 if samples.aperture_known else samples.interval_s / math.sqrt(12)
    sigma_s = math.hypot(found.sigma_s, blur_s)
    offset_s = np.linspace(-8, 8, 401) * sigma_s
    probability = np.exp(-0.5 * (offset_s / sigma_s) ** 2)
    seen_ns = camera.seen_ns
    if not sigma_s < chip_s:
        raise CodeNotFound(f"the code tells the offset to {sigma_s:.3g} s only, more than a chip")
    return Finding(
        method="code",
        evidence="",
        refusal="",
        offset_ns=round(found.delay_s * 1e9),
        reference_ns=int(seen_ns[0] + (seen_ns[-1] - seen_ns[0]) // 2),
        sigma_s=sigma_s,
        low_s=found.delay_s - 1.96 * sigma_s,
        high_s=found.delay_s + 1.96 * sigma_s,
        rate=found.rate,
        rate_sigma=found.rate_sigma,
        peak_mass=1.0,
        posterior=(offset_s, probability / probability.sum()),
    )


def _cut(
    t_ns: Stamps,
    value: Floats,
    edges_ns: Stamps,
    *,
    either_sign: bool,
    search_s: Span | None = None,
) -> NDArray[np.bool_]:
    """Tell which part of a record is about the code, shape (n,)."""
    t_s, edges_s = (t_ns - edges_ns[0]) / 1e9, (edges_ns - edges_ns[0]) / 1e9
    chip_s = chip_of(edges_s)
    places: list[Place] = []
    refused: CodeNotFound | None = None
    for tau in FIRST_TAUS if either_sign else (0.0,):
        try:
            places.append(
                find_code(
                    t_s,
                    value,
                    edges_s,
                    tau_s=tau * chip_s,
                    search_s=search_s,
                    either_sign=either_sign,
                )
            )
        except CodeNotFound as why:
            refused = why
    if not places:
        raise refused or CodeNotFound("the record shows nothing of the code")
    delay_s = max(places, key=lambda place: place.likeness).delay_s
    margin_s = MARGIN_CHIPS * chip_s
    return np.asarray((t_s >= delay_s - margin_s) & (t_s <= edges_s[-1] + delay_s + margin_s))


def _row_groups(row_delay_ns: Stamps) -> Stamps | None:
    """Return delays of a few groups of rows; None where all are exposed at once."""
    if not row_delay_ns.any():
        return None
    groups = np.array_split(np.sort(row_delay_ns), min(ROW_GROUPS, len(row_delay_ns)))
    return np.array([int(group.mean()) for group in groups], dtype=np.int64)


# --- steps and rates -------------------------------------------------------------------


def _by_steps(pair: Pair, span: Span) -> Iterator[Finding]:
    name, step_s = pair.samples.steps()
    views = [("mean intensity", pair.brightness, False)]
    if pair.track is not None:
        track, position = pair.track
        views.append((f"kinks of {track}", lambda: position, True))
    for text, series, slope in views:
        gap_s = float(np.median(np.diff(step_s))) if len(step_s) > 1 else 0.0
        movie = binned(series(), max(gap_s / BINS_IN_GAP, (span[1] - span[0]) / MOST_BINS))

        def estimate(part: Series, offsets_s: Span, slope: bool = slope) -> OffsetPosterior:  # noqa: FBT001
            # Steps outside of what may be seen only make chance look larger.
            near = (step_s >= part.t_s[0] - offsets_s[1]) & (step_s <= part.t_s[-1] - offsets_s[0])
            return offset_by_steps(
                step_s[near],
                part,
                offsets_s=offsets_s,
                rng=np.random.default_rng(SEED),
                slope=slope,
            )

        # Between which samples a step came is all that is known of it.
        blur_s = pair.samples.interval_s / math.sqrt(12)
        evidence = f"{len(step_s)} steps of the {name} and {text}"
        yield _finding(pair, movie, span, estimate, (evidence, blur_s))


def _by_rates(pair: Pair, span: Span) -> Iterator[Finding]:
    drive = Series(t_s=pair.samples.t_s, value=pair.samples.current_A)
    name, position = pair.track or ("mean intensity", pair.brightness())
    movie = position.finite()

    def estimate(part: Series, offsets_s: Span) -> OffsetPosterior:
        usual_s = 2 * max(pair.samples.interval_s, pair.movie.frame_s)
        length_s = float(part.t_s[-1] - part.t_s[0]) if len(part.t_s) else 0.0
        bin_s = max(usual_s, length_s / MOST_RATE_BINS, (offsets_s[1] - offsets_s[0]) / RATE_GRID)
        return offset_by_rates(
            drive, part, offsets_s=offsets_s, rng=np.random.default_rng(SEED), bin_s=bin_s
        )

    yield _finding(pair, movie, span, estimate, (f"current and rate of {name}", 0.0))


Estimator = Callable[[Series, Span], OffsetPosterior]


def _finding(
    pair: Pair, movie: Series, span: Span, estimate: Estimator, about: tuple[str, float]
) -> Finding:
    """Estimate over the whole movie, then how much its halves are apart."""
    evidence, blur_s = about
    if len(movie.t_s) < 2:
        method = "rates" if "rate of" in evidence else "steps"
        return Finding(
            method=method, evidence=evidence, refusal="no frame has a value that can be used"
        )
    found = estimate(movie, span)
    if found.refusal:
        return Finding(
            method=found.method,
            evidence=evidence,
            refusal=found.refusal,
            p=found.p,
            peak_mass=found.peak_mass,
        )
    sigma_s = math.hypot(found.sigma_s, blur_s)
    wider = sigma_s / found.sigma_s
    offset_ns = round(found.best_s * 1e9) + pair.base_ns
    base_s, best_s = pair.base_ns / 1e9, found.best_s
    samples_s = float(pair.samples.t_s[-1])
    begin_s = max(float(movie.t_s[0]), best_s)
    middle_s = 0.5 * (begin_s + min(float(movie.t_s[-1]), samples_s + best_s))
    rate, rate_sigma = _rate(movie, middle_s, found, estimate)
    return Finding(
        method=found.method,
        evidence=evidence,
        refusal="",
        offset_ns=offset_ns,
        reference_ns=pair.movie.origin_ns + round(middle_s * 1e9),
        sigma_s=sigma_s,
        low_s=base_s + best_s - wider * (best_s - found.low_s),
        high_s=base_s + best_s + wider * (found.high_s - best_s),
        rate=rate,
        rate_sigma=rate_sigma,
        peak_mass=found.peak_mass,
        p=found.p,
        posterior=(found.offset_s - best_s, found.probability),
    )


def _rate(
    movie: Series, middle_s: float, found: OffsetPosterior, estimate: Estimator
) -> tuple[float, float]:
    """Return how fast the offset grows, from both halves of the movie; NaN sigma for unknown."""
    reach_s = 10 * found.sigma_s + 0.01 * float(np.ptp(movie.t_s))
    near = (found.best_s - reach_s, found.best_s + reach_s)
    halves = [movie.t_s < middle_s, movie.t_s >= middle_s]
    if min(int(half.sum()) for half in halves) < 30:
        return 0.0, math.nan
    parts = [Series(t_s=movie.t_s[half], value=movie.value[half]) for half in halves]
    early, late = (estimate(part, near) for part in parts)
    if early.refusal or late.refusal:
        return 0.0, math.nan
    apart_s = float(np.mean(parts[1].t_s) - np.mean(parts[0].t_s))
    rate = (late.best_s - early.best_s) / apart_s
    return rate, math.hypot(early.sigma_s, late.sigma_s) / apart_s


def with_prior(found: Finding) -> Finding:
    """Combine the rate with what is known of clocks before: they run nearly alike."""
    prior = CLOCK_RATE_SIGMA
    if not math.isfinite(found.rate_sigma):
        return replace(found, rate=0.0, rate_sigma=prior)
    share = prior**2 / (prior**2 + found.rate_sigma**2)
    return replace(found, rate=share * found.rate, rate_sigma=math.sqrt(share) * found.rate_sigma)
