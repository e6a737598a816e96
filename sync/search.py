"""The time between a potentiostat's record and a movie that share no clock.

Three ways to find it: a code that the beam was blanked with, steps that both have seen, and
rates that go together. Each gives a posterior over the offset; one that is flat, has more
than one peak, or is no better than chance is refused, with the reason.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sync.code_camera import fit_camera
from sync.code_current import fit_current
from sync.code_fit import delay_between
from sync.code_search import CodeNotFound

Floats = NDArray[np.float64]
MIN_MASS = 0.95  # of the posterior, that must lie around its peak
LEVEL = 0.005  # chance of as good a fit without any relation
SURROGATES = 399
WHITENING = 6  # order of the memory that is taken off
BLOCK = 4  # of a rate, that keeps its sign together
MIN_OVERLAP = 0.5  # of the shorter record
CODE_GRID = 401
SHRINK = 25.0  # variance that a step's height may have, in that of its noise


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetPosterior:
    """How likely each offset is: time of the movie less that of the potentiostat.

    Parameters
    ----------
    method
        What it was found by.
    offset_s, probability
        Grid, and the share of each of its points, shape (n,).
    best_s, sigma_s
        Mean and standard deviation of the peak.
    low_s, high_s
        Interval of 95 % of the peak.
    peak_mass
        Share of the posterior in that peak.
    p
        How likely chance fits as well.
    refusal
        Why it is not to be trusted; empty where it is.
    """

    method: str
    offset_s: Floats
    probability: Floats
    best_s: float
    sigma_s: float
    low_s: float
    high_s: float
    peak_mass: float
    p: float
    refusal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A quantity against the time of its own record, in order of time; both of shape (n,)."""

    t_s: Floats
    value: Floats

    def finite(self) -> "Series":
        """Return it without what is not a number."""
        good = np.isfinite(self.value) & np.isfinite(self.t_s)
        return Series(t_s=self.t_s[good], value=self.value[good])


# --- coded blanking ----------------------------------------------------------------------


def offset_by_code(
    start_ns: NDArray[np.int64],
    stop_ns: NDArray[np.int64],
    sums: Floats,
    t_mid_ns: NDArray[np.int64],
    aperture_ns: NDArray[np.int64],
    current_A: Floats,
    edges_ns: NDArray[np.int64],
) -> OffsetPosterior:
    """Find the offset by a code that both records show, wherever its edges were.

    Parameters
    ----------
    start_ns, stop_ns, sums
        Exposures on the movie's clock, and frame sums.
    t_mid_ns, aperture_ns, current_A
        Samples on the potentiostat's clock.
    edges_ns
        The code's edges, counted from anywhere.
    """
    try:
        camera = fit_camera(start_ns, stop_ns, sums, edges_ns)
        current = fit_current(t_mid_ns, aperture_ns, current_A, edges_ns, edges_from=camera)
    except CodeNotFound as why:
        return _refused("code", str(why))
    found = delay_between(camera, current)
    grid = found.delay_s + found.sigma_s * np.linspace(-8, 8, CODE_GRID)
    log = -0.5 * ((grid - found.delay_s) / found.sigma_s) ** 2
    return _judged("code", grid, log, p=0.0)


# --- steps -------------------------------------------------------------------------------


def offset_by_steps(
    step_s: Floats,
    movie: Series,
    *,
    offsets_s: tuple[float, float],
    rng: np.random.Generator,
    slope: bool = False,
) -> OffsetPosterior:
    """Find the offset by steps of the current or voltage that change something in the movie.

    Parameters
    ----------
    step_s
        When the steps were, on the potentiostat's clock.
    movie
        What changes: mean intensity, or a track.
    offsets_s
        Smallest and largest offset.
    rng
        Of the surrogates: trains of as many steps at times drawn anew.
    slope
        True where a step changes the slope and not the level, as of a front's position.

    Notes
    -----
    A step may change nothing in the movie, and the movie may change without one.
    """
    movie = movie.finite()
    step_s = np.unique(step_s)
    if len(step_s) < 3 or len(movie.t_s) < 30:
        return _refused(
            "steps",
            f"{len(step_s)} steps and {len(movie.t_s)} frames are too few: at least 3 and 30",
        )
    frame_s = float(np.median(np.diff(movie.t_s)))
    half = int(np.clip(0.4 * float(np.median(np.diff(step_s))) / frame_s, 3, 60))
    at_s, score = _change_score(movie, frame_s, half, slope=slope)
    grid = _grid(offsets_s, frame_s / 5)
    log = _steps_likelihood(step_s, at_s, score, grid)
    best = float(np.max(log))
    chance = 0
    for _ in range(SURROGATES):
        # Their own gaps, in another order and a little changed: as even as the steps are.
        gaps = rng.permutation(np.diff(step_s)) * rng.uniform(0.7, 1.3, len(step_s) - 1)
        drawn = step_s[0] + np.concatenate([[0.0], np.cumsum(gaps)])
        drawn = step_s[0] + (drawn - step_s[0]) * np.ptp(step_s) / max(float(np.ptp(drawn)), 1e-12)
        chance += float(np.max(_steps_likelihood(drawn, at_s, score, grid[::3]))) >= best
    # Where in its frame a change was, is not known.
    log = _smeared(log, grid, frame_s / math.sqrt(12))
    return _judged("steps", grid, log, p=(1 + chance) / (1 + SURROGATES), apart_s=2 * frame_s)


def _change_score(
    movie: Series, frame_s: float, half: int, *, slope: bool
) -> tuple[Floats, Floats]:
    """Return how many sigmas a level (or slope) changes by at each time between frames."""
    even_s = np.arange(movie.t_s[0], movie.t_s[-1] + frame_s / 2, frame_s)
    value = np.interp(even_s, movie.t_s, movie.value)
    x = np.arange(-half, half) + 0.5
    wanted = np.maximum(x, 0.0) if slope else (x > 0).astype(np.float64)
    known = np.stack([np.ones_like(x), x], axis=1)
    kernel = wanted - known @ np.linalg.lstsq(known, wanted, rcond=None)[0]
    kernel /= np.linalg.norm(kernel)
    raw = np.correlate(value, kernel, mode="valid")
    spread = 1.4826 * float(np.median(np.abs(raw - np.median(raw)))) or float(np.std(raw)) or 1.0
    # A clean movie scatters less than its own steps: the noise is then that of its frames.
    return even_s[half - 1 : half - 1 + len(raw)] + frame_s / 2, raw / spread


def _steps_likelihood(step_s: Floats, at_s: Floats, score: Floats, grid: Floats) -> Floats:
    """Return the log evidence of steps at each offset: each with a height of its own, or none."""
    total = np.zeros(len(grid))
    gain = SHRINK / (1 + SHRINK)
    evidence = np.minimum(0.5 * gain * score**2, 50.0) - 0.5 * math.log(1 + SHRINK)
    log = np.logaddexp(math.log(0.8) + evidence, math.log(0.2))
    for moment in step_s:
        total += np.interp(moment + grid, at_s, log, left=0.0, right=0.0)
    return total


# --- rates -------------------------------------------------------------------------------


def offset_by_rates(
    drive: Series,
    position: Series,
    *,
    offsets_s: tuple[float, float],
    rng: np.random.Generator,
    bin_s: float | None = None,
) -> OffsetPosterior:
    """Find the offset by a rate in the movie that goes with the current.

    Parameters
    ----------
    drive
        The current, on the potentiostat's clock.
    position
        A track on the movie's clock, whose rate is taken here.
    offsets_s
        Smallest and largest offset.
    rng
        Of the surrogates.
    bin_s
        Over which rates are taken; None for two frames or samples, whichever is longer.
    """
    drive, position = drive.finite(), position.finite()
    if len(drive.t_s) < 30 or len(position.t_s) < 30:
        return _refused("rates", "fewer than 30 samples or frames are too few")
    step_s = max(float(np.median(np.diff(s.t_s))) for s in (drive, position))
    bin_s = 2 * step_s if bin_s is None else bin_s
    edges_s = np.arange(position.t_s[0], position.t_s[-1], bin_s)
    if len(edges_s) < 32 + WHITENING or np.ptp(drive.value) == 0:
        return _refused("rates", "the movie is too short, or the current does not change")
    rate = np.diff(np.interp(edges_s, position.t_s, position.value)) / bin_s
    steps = 0.5 * (drive.value[1:] + drive.value[:-1]) * np.diff(drive.t_s)
    charge = np.concatenate([[0.0], np.cumsum(steps)])
    grid = _grid(offsets_s, bin_s / 10, most=1500)
    moved_s = edges_s[None, :] - grid[:, None]
    moved = np.diff(np.interp(moved_s, drive.t_s, charge), axis=1) / bin_s
    inside = (moved_s[:, :-1] >= drive.t_s[0]) & (moved_s[:, 1:] <= drive.t_s[-1])
    whitener = np.array([1.0])
    log, statistic = _likelihood(rate, moved, inside, whitener)
    if not np.any(np.isfinite(log)):
        return _refused("rates", "at no offset do both records overlap by half of the shorter one")
    for _ in range(2):
        k = int(np.argmax(log))
        whitener = _whitener(_residual(rate[inside[k]], moved[k, inside[k]]))
        log, statistic = _likelihood(rate, moved, inside, whitener)
    white = np.convolve(rate - rate.mean(), whitener, mode="valid")
    chance = _chance(white, moved, inside, whitener, float(np.max(statistic)), rng)
    p = (1 + chance) / (1 + SURROGATES)
    return _judged("rates", grid, log, p=p, apart_s=2 * bin_s)


def _residual(rate: Floats, drive: Floats) -> Floats:
    design = np.stack([np.ones_like(drive), drive], axis=1)
    return np.asarray(rate - design @ np.linalg.lstsq(design, rate, rcond=None)[0])


def _whitener(residual: Floats) -> Floats:
    """Return the filter that takes the memory off a series (Yule-Walker)."""
    n = len(residual)
    own = np.correlate(residual, residual, mode="full")[n - 1 : n + WHITENING] / n
    index = np.abs(np.subtract.outer(np.arange(WHITENING), np.arange(WHITENING)))
    matrix = own[index] + 1e-6 * own[0] * np.eye(WHITENING)
    return np.concatenate([[1.0], -np.linalg.solve(matrix, own[1:])])


def _filtered(
    moved: Floats, inside: NDArray[np.bool_], whitener: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the drive through the whitener, and where all that it needs is there."""
    order = len(whitener)
    n = moved.shape[1] - order + 1
    out, whole = np.zeros((len(moved), n)), np.ones((len(moved), n), np.bool_)
    for k, weight in enumerate(whitener):
        part = slice(order - 1 - k, order - 1 - k + n)
        out += weight * moved[:, part]
        whole &= inside[:, part]
    return out, whole


def _likelihood(
    rate: Floats, moved: Floats, inside: NDArray[np.bool_], whitener: Floats
) -> tuple[Floats, Floats]:
    """Return log likelihood at each offset, and what is compared with chance."""
    drive, whole = _filtered(moved, inside, whitener)
    white = np.convolve(rate - rate.mean(), whitener, mode="valid")
    statistic = _statistic(white[None, :], *_projector(drive, whole))[0]
    return np.where(np.isfinite(statistic), statistic, -np.inf), np.nan_to_num(
        statistic, neginf=0.0
    )


def _projector(drive: Floats, whole: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return the drive as unit vectors, where it is known, and how much of it is."""
    mask = whole.astype(np.float64)
    count = mask.sum(axis=1)
    mean = (drive * mask).sum(axis=1) / np.maximum(count, 1)
    unit = (drive - mean[:, None]) * mask
    norm = np.linalg.norm(unit, axis=1)
    least = 0.3 * float(np.median(norm[norm > 0])) if np.any(norm > 0) else 1.0
    usable = (count >= MIN_OVERLAP * count.max()) & (count >= 20) & (norm > least)
    unit = np.where(usable[:, None], unit / np.maximum(norm, 1e-300)[:, None], 0.0)
    return unit, mask, np.where(usable, count, 0.0)


def _statistic(series: Floats, unit: Floats, mask: Floats, count: Floats) -> Floats:
    """Return ``-n/2 log(1 - r^2)`` of each series at each offset; -inf where not known."""
    known = np.maximum(count, 1)
    total = series**2 @ mask.T - (series @ mask.T) ** 2 / known
    r2 = np.clip((series @ unit.T) ** 2 / np.maximum(total, 1e-300), 0.0, 1 - 1e-12)
    return np.where(count > 0, -0.5 * (known - 3) * np.log1p(-r2), -np.inf)


def _chance(
    white: Floats,
    moved: Floats,
    inside: NDArray[np.bool_],
    whitener: Floats,
    found: float,
    rng: np.random.Generator,
) -> int:
    """Return how many series without a relation fit as well somewhere.

    Two kinds, of which the less favourable counts: those of the same spectrum with random
    phases, and those whose changes stand where they stood, with signs drawn anew (a rate that
    jumps now and then is not stationary, and jumps by chance where the current does).
    """
    size = np.abs(np.fft.rfft(white))
    phase = rng.uniform(0, 2 * np.pi, (SURROGATES, len(size)))
    drawn = np.fft.irfft(size * np.exp(1j * phase), len(white), axis=1)
    block = (np.arange(len(white)) + int(rng.integers(BLOCK))) // BLOCK
    sign = rng.choice([-1.0, 1.0], (SURROGATES, int(block[-1]) + 1))
    projector = _projector(*_filtered(moved, inside, whitener))
    most = 0
    for series in (drawn, white * sign[:, block]):
        best = np.max(_statistic(series, *projector), axis=1)
        most = max(most, int(np.sum(best >= found)))
    return most


# --- what all have in common -----------------------------------------------------------


def _grid(offsets_s: tuple[float, float], step_s: float, most: int = 20_000) -> Floats:
    count = int(np.clip((offsets_s[1] - offsets_s[0]) / step_s, 50, most)) + 1
    return np.linspace(offsets_s[0], offsets_s[1], count)


def _smeared(log: Floats, grid: Floats, sigma_s: float) -> Floats:
    step_s = float(grid[1] - grid[0])
    reach = max(1, int(4 * sigma_s / step_s))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step_s / sigma_s) ** 2)
    density = np.convolve(np.exp(log - log.max()), kernel / kernel.sum(), mode="same")
    return np.log(np.maximum(density, 1e-300))


def _judged(
    method: str, grid: Floats, log: Floats, *, p: float, apart_s: float = 0.0
) -> OffsetPosterior:
    probability = np.exp(log - np.max(log))
    probability /= probability.sum()
    best = int(np.argmax(probability))
    # The peak goes on until the posterior has fallen to nothing, or to a valley.
    near = _peak(probability, best, max(1, round(apart_s / (grid[1] - grid[0]))))
    share = probability * near
    mass = float(share.sum())
    share /= mass
    mean = float(np.sum(share * grid))
    sigma = math.sqrt(float(np.sum(share * (grid - mean) ** 2)) + (grid[1] - grid[0]) ** 2 / 12)
    low, high = np.interp([0.025, 0.975], np.cumsum(share), grid)
    half = float(grid[1] - grid[0]) / 2
    if p > LEVEL:
        refusal = f"chance fits as well with p = {p:.3f}: the records show too little in common"
    elif mass < MIN_MASS:
        refusal = f"more than one offset fits: the best one has {mass:.0%} of the likelihood"
    elif near[0] or near[-1]:
        refusal = "the best offset stands at the end of what was looked at: look further"
    else:
        refusal = ""
    return OffsetPosterior(
        method=method,
        offset_s=grid,
        probability=probability,
        best_s=mean,
        sigma_s=sigma,
        low_s=float(low) - half,
        high_s=float(high) + half,
        peak_mass=mass,
        p=p,
        refusal="" if method == "code" else refusal,
    )


def _peak(probability: Floats, best: int, gap: int) -> NDArray[np.bool_]:
    """Return the run of likely points around the best, over gaps of a given length."""
    likely = np.flatnonzero(probability > 1e-4 * probability[best])
    breaks = np.flatnonzero(np.diff(likely) > gap)
    at = int(np.searchsorted(likely, best))
    low = likely[breaks[breaks < at][-1] + 1] if np.any(breaks < at) else likely[0]
    high = likely[breaks[breaks >= at][0]] if np.any(breaks >= at) else likely[-1]
    index = np.arange(len(probability))
    return np.asarray((index >= low) & (index <= high))


def _refused(method: str, why: str) -> OffsetPosterior:
    nothing = np.zeros(0)
    return OffsetPosterior(
        method=method,
        offset_s=nothing,
        probability=nothing,
        best_s=math.nan,
        sigma_s=math.nan,
        low_s=math.nan,
        high_s=math.nan,
        peak_mass=0.0,
        p=1.0,
        refusal=why,
    )
