"""Tracks a phase front inside a film: its depth from the electrolyte, with a sigma.

The layers run across the frames, gold to electrolyte from left to right. The column sums
of every frame are kept; the frames themselves are not.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from correlate.drift import DriftEstimator, Shift
from correlate.edge import EdgeFit, fit_edge, step_shape
from correlate.kinematics import windowed_velocity
from correlate.trackers.drift import (
    FIXED_PATTERN_LIMIT,
    LONG_REFERENCE,
    drift_columns,
    fixed_pattern_of,
)
from correlate.trackers.protocol import CannotTrack, Frames, SceneSettings, Track
from correlate.window import Band

REACH_PX = 32.0  # of the line on each side of the front
CLEAR_PX = 10.0  # kept free of the film's own edges
EDGE_REACH_PX = 14.0
FIRST_WIDTH_PX = 2.5
TEXTURE_ROUNDS = 2
MIN_SIGNIFICANCE = 8.0  # of the step in the mean of the first frames
FIRST_FRAMES = 20
MAX_JUMP_SIGMAS = 8.0
MAX_JUMP_PX = 6.0
GRAIN_PX = 5.0  # residuals of a mean profile are correlated over a grain


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Where the film stands, in reference coordinates."""

    collector_px: float
    interface_px: float
    interface_sigma_px: float


class FrontTracker:
    """Follows the front in the working film.

    Parameters
    ----------
    settings
        With pixel size and film thickness, which tell where the film is.
    """

    def __init__(self, settings: SceneSettings) -> None:
        known = np.isfinite([settings.pixel_size_m, settings.film_thickness_m])
        if not np.all(known):
            raise CannotTrack(
                "the front tracker needs the pixel size and the film's thickness; "
                "give pixel_size and the working film in the experiment file"
            )
        self._settings = settings
        self._film_px = settings.film_thickness_m / settings.pixel_size_m

    def track(self, frames: Frames) -> Track:
        """Follow the front through all frames.

        Raises
        ------
        CannotTrack
            The film or a front in it cannot be found.
        """
        lines, rough = self._first_pass(frames)
        film = self._find_film(lines, rough)
        band = Band(left_px=film.collector_px + CLEAR_PX, right_px=film.interface_px - CLEAR_PX)
        shifts = _register(frames, self._settings.shape, band)
        film = self._find_film(lines, shifts)
        dx = np.array([s.dx_px for s in shifts])
        usable = np.array([s.valid for s in shifts])
        texture, width_px = np.ones(lines.shape[1]), FIRST_WIDTH_PX
        fits = _follow(lines, dx, usable, film, texture, width_px)
        for _ in range(TEXTURE_ROUNDS):
            texture, width_px = _learn(lines, dx, usable, fits, film)
            fits = _follow(lines, dx, usable, film, texture, width_px)
        return self._result(fits, shifts, film, width_px)

    def _first_pass(self, frames: Frames) -> tuple[NDArray[np.float64], list[Shift]]:
        """Return the column sums of all frames, and a drift that knows no band."""
        estimator = DriftEstimator(self._settings.shape)
        lines, shifts = [], []
        for pixels in frames():
            lines.append(np.asarray(pixels, dtype=np.float64).sum(axis=0))
            shifts.append(estimator.update(pixels))
        if not lines:
            raise CannotTrack("there is no frame")
        return np.array(lines), shifts

    def _find_film(self, lines: NDArray[np.float64], shifts: list[Shift]) -> Film:
        """Find the two strong edges that stand one film apart."""
        dx = np.array([s.dx_px for s in shifts])
        usable = np.isfinite(dx)
        if not np.any(usable):
            raise CannotTrack("no frame could be registered")
        mean = _mean_profile(lines[usable], dx[usable])
        slope = ndimage.gaussian_filter1d(mean, 2.0, order=1, mode="nearest")
        slope[: int(EDGE_REACH_PX)] = slope[-int(EDGE_REACH_PX) :] = 0.0
        tolerance = max(0.05 * self._film_px, 4.0)
        best: tuple[float, int, int] | None = None
        for left in _peaks(slope):
            for right in _peaks(slope):
                if abs(right - left - self._film_px) > tolerance:
                    continue
                score = min(abs(slope[left]), abs(slope[right]))
                if best is None or score > best[0]:
                    best = (score, left, right)
        if best is None:
            raise CannotTrack(
                f"no two edges stand {self._film_px:.0f} px apart; check the pixel size, "
                "the film's thickness, and that the whole film is in the field"
            )
        collector, _ = _edge_in_mean(mean, best[1])
        interface, sigma = _edge_in_mean(mean, best[2])
        return Film(collector_px=collector, interface_px=interface, interface_sigma_px=sigma)

    def _result(
        self,
        fits: list[EdgeFit | str],
        shifts: list[Shift],
        film: Film,
        width_px: float,
    ) -> Track:
        size_m = self._settings.pixel_size_m
        valid = np.array([isinstance(fit, EdgeFit) for fit in fits])
        x_px = np.array([f.position_px if isinstance(f, EdgeFit) else np.nan for f in fits])
        own_px = np.array([f.sigma_px if isinstance(f, EdgeFit) else np.nan for f in fits])
        chi2 = np.array([f.chi2 if isinstance(f, EdgeFit) else np.nan for f in fits])
        # Grey levels are no counts: the residuals tell how much noise a level carries.
        excess = max(float(np.nanmedian(chi2)), 1.0)
        own_px = own_px * np.sqrt(excess)
        drift_px = np.array([s.sigma_x_px for s in shifts])
        sigma_px = np.sqrt(own_px**2 + drift_px**2 + film.interface_sigma_px**2)
        return Track(
            columns={
                "position": (film.interface_px - x_px) * size_m,
                "position_sigma": sigma_px * size_m,
                "x_front_px": x_px,
                "x_front_sigma_px": np.hypot(own_px, drift_px),
            },
            units={
                "position": "m",
                "position_sigma": "m",
                "x_front_px": "px",
                "x_front_sigma_px": "px",
            },
            valid=valid,
            reasons=Counter(fit for fit in fits if isinstance(fit, str)),
            attributes={
                "x_interface_px": film.interface_px,
                "x_interface_sigma_px": film.interface_sigma_px,
                "x_collector_px": film.collector_px,
                "width_px": width_px,
                "chi2": float(np.nanmedian(chi2)),
            },
            drift=drift_columns(shifts),
        )


def _register(frames: Frames, shape: tuple[int, int], band: Band) -> list[Shift]:
    few = abs(fixed_pattern_of(frames)) > FIXED_PATTERN_LIMIT
    estimator = DriftEstimator(shape, band=band, reference_frames=1 if few else LONG_REFERENCE)
    return [estimator.update(pixels) for pixels in frames()]


def _mean_profile(lines: NDArray[np.float64], dx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average lines in reference coordinates, sharing counts between two neighbours."""
    n, width = lines.shape
    total, weight = np.zeros(width + 1), np.zeros(width + 1)
    for line, shift in zip(lines, dx, strict=True):
        at = np.arange(width) + shift
        low = np.floor(at).astype(int)
        share = at - low
        for index, part in ((low, 1 - share), (low + 1, share)):
            ok = (index >= 0) & (index < width)
            total[index[ok]] += (line * part)[ok]
            weight[index[ok]] += part[ok]
    with np.errstate(invalid="ignore"):
        mean = total[:-1] / weight[:-1]
    return np.asarray(np.where(weight[:-1] > 0.25 * n, mean, np.nanmean(lines)))


def _peaks(slope: NDArray[np.float64]) -> list[int]:
    """Return the strongest extrema of a slope, at most eight."""
    size = np.abs(slope)
    top = size == ndimage.maximum_filter1d(size, 9)
    candidates = np.flatnonzero(top & (size > 0.1 * size.max()))
    order = np.argsort(size[candidates])[::-1][:8]
    return [int(i) for i in candidates[order]]


def _edge_in_mean(mean: NDArray[np.float64], near: int) -> tuple[float, float]:
    """Return position and sigma of an edge of a mean profile; texture sets the sigma."""
    low, high = max(near - int(EDGE_REACH_PX), 0), near + int(EDGE_REACH_PX) + 1
    x, y = np.arange(low, min(high, len(mean)), dtype=float), mean[low:high]

    def model(
        x: NDArray[np.float64], x0: float, w: float, a: float, b: float, /
    ) -> NDArray[np.float64]:
        return a + (b - a) * step_shape(x, x0, abs(w))

    start = (float(near), FIRST_WIDTH_PX, float(y[:4].mean()), float(y[-4:].mean()))
    try:
        found, covariance = optimize.curve_fit(model, x, y, p0=start, maxfev=2000)
    except RuntimeError as error:
        raise CannotTrack(f"the film's edge near column {near} has no shape") from error
    x0, width, left, right = (float(value) for value in found)
    # The specimen's own texture sets the limit: neighbours within a grain are off
    # together, so a step is located to sqrt(grain * variance / sum(bell**2)) / height.
    texture = max(_roughness(mean, near, -1), _roughness(mean, near, +1))
    bell = 1 / (2 * np.sqrt(np.pi) * max(abs(width), 0.5))
    sigma = np.sqrt(GRAIN_PX * texture**2 / bell) / max(abs(right - left), 1e-12)
    return x0, float(np.hypot(sigma, np.sqrt(covariance[0, 0])))


def _roughness(mean: NDArray[np.float64], near: int, side: int) -> float:
    """Return the spread of a mean profile beside an edge, about its own trend."""
    low, high = sorted((near + side * 8, near + side * 28))
    part = mean[max(low, 0) : max(high, 0)]
    if len(part) < 6:
        return 0.0
    x = np.arange(len(part))
    return float(np.std(part - np.polyval(np.polyfit(x, part, 1), x), ddof=2))


# --- following the front -------------------------------------------------------------


def _follow(
    lines: NDArray[np.float64],
    dx: NDArray[np.float64],
    usable: NDArray[np.bool_],
    film: Film,
    texture: NDArray[np.float64],
    width_px: float,
) -> list[EdgeFit | str]:
    """Fit the front in every line, each beginning where the last was found."""
    first = np.flatnonzero(usable)[:FIRST_FRAMES]
    place = _first_place(lines[first], dx[first], film, width_px)
    fits: list[EdgeFit | str] = []
    for line, shift, ok in zip(lines, dx, usable, strict=True):
        if not ok:
            fits.append("not registered")
            continue
        fit = _fit_line(line, float(shift), place, film, texture, width_px)
        reach = max(MAX_JUMP_SIGMAS * fit.sigma_px, MAX_JUMP_PX)
        if not fit.converged:
            fits.append("the fit did not settle")
        elif abs(fit.position_px - place) > reach:
            fits.append("a jump beyond what the front can move")
        else:
            fits.append(fit)
            # A weighted step: one noisy frame must not lead the next one astray.
            place += 0.3 * (fit.position_px - place)
    return fits


def _fit_line(
    line: NDArray[np.float64],
    shift: float,
    place: float,
    film: Film,
    texture: NDArray[np.float64],
    width_px: float,
) -> EdgeFit:
    """Fit one line in reference coordinates; its counts stay where they were counted."""
    at = np.arange(len(line)) + shift
    low = max(place - REACH_PX, film.collector_px + CLEAR_PX)
    high = min(place + REACH_PX, film.interface_px - CLEAR_PX)
    part = np.flatnonzero((at >= low) & (at <= high))
    shade = np.asarray(np.interp(at[part], np.arange(len(texture)), texture), dtype=np.float64)
    return fit_edge(at[part], line[part], place, width_px, texture=shade)


def _first_place(
    lines: NDArray[np.float64], dx: NDArray[np.float64], film: Film, width_px: float
) -> float:
    """Return where the front stands at first: the most significant step in the film."""
    mean = _mean_profile(lines, dx)
    counts = mean * len(lines)
    low, high = film.collector_px + CLEAR_PX, film.interface_px - CLEAR_PX
    best, place = 0.0, np.nan
    for x0 in np.arange(low + 6, high - 6):
        reach = min(REACH_PX, x0 - low, high - x0)
        x = np.arange(int(np.ceil(x0 - reach)), int(x0 + reach) + 1)
        shape = step_shape(x.astype(float), float(x0), width_px)
        design = np.stack([np.ones_like(shape), shape], axis=1)
        y = counts[x]
        coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
        sigma = np.sqrt(np.linalg.inv(design.T @ design)[1, 1] * max(float(y.mean()), 1))
        significance = abs(float(coefficients[1])) / sigma
        if significance > best:
            best, place = significance, float(x0)
    if best < MIN_SIGNIFICANCE:
        raise CannotTrack(
            f"no front stands out in the film (best step {best:.1f} sigma, "
            f"{MIN_SIGNIFICANCE:.0f} are asked)"
        )
    return place


def _learn(
    lines: NDArray[np.float64],
    dx: NDArray[np.float64],
    usable: NDArray[np.bool_],
    fits: list[EdgeFit | str],
    film: Film,
) -> tuple[NDArray[np.float64], float]:
    """Learn the specimen's own texture and the front's width from all frames."""
    width = lines.shape[1]
    position = np.arange(width, dtype=np.float64)
    seen, expected = np.zeros(width), np.zeros(width)
    aligned, weight = np.zeros(81), np.zeros(81)
    offsets = np.arange(-40, 41)
    for line, shift, ok, fit in zip(lines, dx, usable, fits, strict=True):
        if not ok or not isinstance(fit, EdgeFit):
            continue
        at = np.arange(width) + shift
        inside = (at > film.collector_px + CLEAR_PX) & (at < film.interface_px - CLEAR_PX)
        shape = step_shape(at, fit.position_px, FIRST_WIDTH_PX)
        model = fit.left + (fit.right - fit.left) * shape
        seen += np.interp(position, at, np.where(inside, line, 0.0))
        expected += np.interp(position, at, np.where(inside, model, 0.0))
        scaled = (line - fit.left) / (fit.right - fit.left)
        near = inside & (np.abs(at - fit.position_px) < 40)
        if near.sum() > 40:
            there = np.interp(offsets, at[near] - fit.position_px, scaled[near])
            aligned += there
            weight += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        texture = np.where(expected > 0.2 * expected.max(), seen / expected, 1.0)
    return texture, _width_of(aligned / np.maximum(weight, 1), offsets)


def _width_of(profile: NDArray[np.float64], offsets: NDArray[np.int_]) -> float:
    near = np.abs(offsets) <= 15
    x, y = offsets[near].astype(float), profile[near]

    def model(
        x: NDArray[np.float64], x0: float, w: float, a: float, b: float, /
    ) -> NDArray[np.float64]:
        return a + (b - a) * step_shape(x, x0, abs(w))

    try:
        found, _ = optimize.curve_fit(model, x, y, p0=(0.0, FIRST_WIDTH_PX, 0.0, 1.0))
    except RuntimeError:
        return FIRST_WIDTH_PX
    return float(np.clip(abs(found[1]), 0.3, 8.0))


def with_velocity(track: Track, t_ns: NDArray[np.int64], window_s: float) -> Track:
    """Return a front's track with its velocity on the frames' own times."""
    velocity, sigma = windowed_velocity(
        t_ns, track.columns["position"], track.columns["position_sigma"], window_s
    )
    return Track(
        columns={**track.columns, "velocity": velocity, "velocity_sigma": sigma},
        units={**track.units, "velocity": "m/s", "velocity_sigma": "m/s"},
        valid=track.valid,
        reasons=track.reasons,
        attributes={**track.attributes, "velocity_window_s": window_s},
        drift=track.drift,
    )
