"""Tracks the state of charge of every particle in ratio images, and of all of them together.

Particles are found once, in the mean of the first frames, in which each is at state 0. From
then on the brightness of each, against its own in those frames and against the support
between the particles, tells how far it has come to that of a converted one.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.drift import DriftEstimator, Shift
from correlate.mosaic import converted_change, mosaic
from correlate.particles import Particles, find_particles
from correlate.trackers.drift import LONG_REFERENCE, drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track

FIRST_FRAMES = 20
MOST_CHANGES = 3000  # that are looked at for the change of a converted particle
FEWEST_SUPPORT = 0.05  # of the field, that can tell how bright the beam is
SEEN_SHARE = 0.5  # of the particles' area, that a valid frame shows
Floats = NDArray[np.float64]
OPTIONS = {
    "converted_change": Option(
        kind="number",
        default=math.nan,
        about="relative change of brightness of a particle that converts; found where not given",
    ),
    "particles": Option(
        kind="word", default="bright", words=("bright", "dark"), about="beside their support"
    ),
    "smallest": Option(
        kind="length", default=math.nan, about="diameter of the smallest particle that counts"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StateReading:
    """What one frame tells; the reason is empty where particles were read.

    Parameters
    ----------
    changes, sigmas
        Of the brightness of each particle against its first, relative, shape (n,); NaN for
        those that are not in the field.
    common_sigma
        Of the changes, the same for all of them: how well the beam is known.
    """

    shift: Shift
    changes: Floats
    sigmas: Floats
    common_sigma: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateModel:
    """What was learned from the first frames.

    Parameters
    ----------
    particles
        Where they stand.
    first
        Counts per pixel of support and particles in the first frames, shape (n + 1,).
    first_counts
        Counts that these were taken from.
    excess
        Standard deviation of a sum of counts over that of Poisson.
    """

    particles: Particles
    first: Floats
    first_counts: Floats
    excess: float = 1.0


class StateMapTracker:
    """Reads the state of charge of each particle.

    Parameters
    ----------
    settings
        See ``options``; the pixel size only serves ``smallest``.
    """

    options = OPTIONS
    quantities = ("mean_state", "active_fraction", "converted_fraction")

    def __init__(self, settings: SceneSettings) -> None:
        self._settings = settings
        diameter_m = settings.number("smallest", OPTIONS)
        diameter_px = diameter_m / settings.pixel_size_m
        self._smallest_px = math.pi / 4 * diameter_px**2 if math.isfinite(diameter_px) else 80.0

    def track(self, frames: Frames) -> Track:
        """Read the particles in all frames.

        Raises
        ------
        CannotTrack
            There is no usable frame or no particle, or nothing tells how bright a converted
            one is.
        """

        def first_frames() -> Iterable[NDArray[np.generic]]:
            return itertools.islice(frames(), FIRST_FRAMES)

        model = self._model(first_frames)
        reader = StateReader(model, self._estimator())
        readings = [reader.update(pixels) for pixels in frames()]
        return state_track(readings, model, self._change(readings))

    def begin(self, frames: Frames) -> "LiveStateMap":
        """Learn from first frames, and return what reads the particles from there on.

        Raises
        ------
        CannotTrack
            There is no usable frame or no particle, or nothing tells how bright a converted
            one is: it must be given.
        """
        model = self._model(frames)
        reader = StateReader(model, self._estimator())
        readings = [reader.update(pixels) for pixels in frames()]
        return LiveStateMap(reader, self._change(readings))

    def _estimator(self) -> DriftEstimator:
        try:
            return DriftEstimator(self._settings.shape, reference_frames=LONG_REFERENCE)
        except ValueError as error:
            raise CannotTrack(str(error)) from error

    def _model(self, frames: Frames) -> StateModel:
        estimator = self._estimator()
        total, seen = np.zeros(self._settings.shape), np.zeros(self._settings.shape)
        shifts = []
        for pixels in frames():
            shift = estimator.update(pixels)
            shifts.append(shift)
            if shift.valid:
                _add_moved(total, pixels, shift)
                _add_moved(seen, np.ones(pixels.shape), shift)
        if not np.any(seen):
            why = shifts[0].reason if shifts else "there is no frame"
            raise CannotTrack(f"no frame can be used: {why}")
        mean = np.where(seen > 0, total / np.maximum(seen, 1), total.sum() / seen.sum())
        dark = self._settings.word("particles", OPTIONS) == "dark"
        particles = find_particles(mean, smallest_px=self._smallest_px, dark=dark)
        if particles.count == 0:
            raise CannotTrack(
                "no particle stands out from its support in the first frames; say whether they "
                "are bright or dark with particles, and how small with smallest"
            )
        return _first_counts(particles, frames, shifts)

    def _change(self, readings: Sequence[StateReading]) -> tuple[float, float]:
        """Return by how much a particle changes when it converts, and its sigma."""
        given = self._settings.number("converted_change", OPTIONS)
        if math.isfinite(given):
            return given, 0.0
        changes = np.concatenate([r.changes for r in readings] or [np.zeros(0)])
        sigmas = np.concatenate([r.sigmas for r in readings] or [np.zeros(0)])
        every = max(len(changes) // MOST_CHANGES, 1)
        change, sigma = converted_change(changes[::every], sigmas[::every])
        if not math.isfinite(change):
            raise CannotTrack(
                "no particle changes, so that nothing tells how bright a converted one is; "
                "give converted_change, such as 0.4 for one that is 40 % brighter"
            )
        return change, sigma


def _add_moved(total: Floats, pixels: NDArray[np.generic], shift: Shift) -> None:
    """Add a frame where the reference stands, by whole pixels."""
    down, right = round(shift.dy_px), round(shift.dx_px)
    height, width = total.shape
    part = pixels[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    there = total[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    there += part.astype(np.float64)


def _first_counts(particles: Particles, frames: Frames, shifts: Sequence[Shift]) -> StateModel:
    """Read the first frames: how bright each particle is, and how its counts scatter."""
    read = [
        particles.read(pixels, shift.dx_px, shift.dy_px)
        for pixels, shift in zip(frames(), shifts, strict=True)
        if shift.valid
    ]
    sums, size = np.array([r[0] for r in read]), np.array([r[1] for r in read])
    counts = np.nansum(sums, axis=0)
    area = np.nansum(np.where(np.isfinite(sums), size, np.nan), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        first = counts / area
        # From frame to frame, so that what changes slowly takes no part.
        step = np.diff(sums[:, 1:], axis=0) ** 2 / (sums[1:, 1:] + sums[:-1, 1:])
    known = step[np.isfinite(step)]
    excess = math.sqrt(float(known.mean())) if len(known) else 1.0
    return StateModel(
        particles=particles, first=first, first_counts=counts, excess=max(excess, 1e-3)
    )


class StateReader:
    """Reads the brightness of particles that are known, frame by frame."""

    def __init__(self, model: StateModel, estimator: DriftEstimator) -> None:
        self.model, self._estimator = model, estimator
        support = float(np.mean(model.particles.labels < 0))
        self._has_support = support > FEWEST_SUPPORT and model.first_counts[0] > 0

    def update(self, pixels: NDArray[np.generic]) -> StateReading:
        """Register a frame and read the particles in it.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        model = self.model
        nothing = np.full(model.particles.count, np.nan)
        shift = self._estimator.update(pixels)
        if not shift.valid:
            return StateReading(shift=shift, changes=nothing, sigmas=nothing, reason=shift.reason)
        sums, size = model.particles.read(pixels, shift.dx_px, shift.dy_px)
        with np.errstate(invalid="ignore", divide="ignore"):
            bright = sums / size / model.first
            variance = model.excess**2 * (1 / np.maximum(sums, 1.0) + 1 / model.first_counts)
        beam, beam_variance = (bright[0], variance[0]) if self._has_support else (1.0, 0.0)
        if not beam > 0:
            reason = "the support between the particles is dark"
            return StateReading(shift=shift, changes=nothing, sigmas=nothing, reason=reason)
        share = bright[1:] / beam
        area = model.particles.area_px
        reason = ""
        if area[np.isfinite(share)].sum() < SEEN_SHARE * area.sum():
            reason, share = "most particles have left the field", nothing
        return StateReading(
            shift=shift,
            changes=share - 1,
            sigmas=share * np.sqrt(variance[1:]),
            common_sigma=math.sqrt(beam_variance),
            reason=reason,
        )


class LiveStateMap:
    """Reads particles that are known, frame by frame or chunk by chunk.

    Parameters
    ----------
    reader
        With what was learned from the first frames.
    change
        By how much a particle changes when it converts, and its sigma.
    """

    def __init__(self, reader: StateReader, change: tuple[float, float]) -> None:
        self._reader, self._change_of = reader, change

    def update(self, pixels: NDArray[np.generic]) -> StateReading:
        """Register a frame and read the particles in it."""
        return self._reader.update(pixels)

    def track(self, frames: Frames) -> Track:
        """Read the particles in more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return state_track(readings, self._reader.model, self._change_of)


SUMMARY = ("mean_state", "active_fraction", "converted_fraction", "spread", "bimodality")


def state_track(
    readings: Sequence[StateReading], model: StateModel, change: tuple[float, float]
) -> Track:
    """Return readings as columns: all particles together, then each.

    Parameters
    ----------
    change
        By how much a particle changes when it converts, and its sigma.
    """
    particles = model.particles
    shape = (len(readings), particles.count)
    states = np.array([r.changes for r in readings]).reshape(shape) / change[0]
    own = np.array([r.sigmas for r in readings]).reshape(shape) / abs(change[0])
    common = np.array([r.common_sigma for r in readings])[:, None]
    level = 1 + np.where(np.isfinite(states), states, 0.0) * change[0]
    shared = np.hypot(level * common, states * change[1]) / abs(change[0])
    valid = np.array([not r.reason for r in readings], dtype=bool)
    table = np.full((len(readings), len(SUMMARY), 2), math.nan)
    for row in np.flatnonzero(valid):
        table[row] = _together(states[row], own[row], shared[row], particles.area_px)
    columns: dict[str, Floats] = {}
    for number, name in enumerate(SUMMARY):
        columns[name] = table[:, number, 0]
        columns[f"{name}_sigma"] = table[:, number, 1]
    for k in range(particles.count):
        columns[f"state_{k + 1}"] = states[:, k]
        columns[f"state_{k + 1}_sigma"] = np.hypot(own[:, k], shared[:, k])
    places = {
        f"{name}_{k + 1}": float(values[k])
        for name, values in (
            ("x_px", particles.x_px),
            ("y_px", particles.y_px),
            ("area_px", particles.area_px),
        )
        for k in range(particles.count)
    }
    return Track(
        columns=columns,
        units=dict.fromkeys(columns, "1"),
        valid=valid,
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "particles": float(particles.count),
            "converted_change": change[0],
            "converted_change_sigma": change[1],
            "excess": model.excess,
            **places,
        },
        drift=drift_columns([r.shift for r in readings]),
    )


def _together(states: Floats, own: Floats, shared: Floats, area_px: Floats) -> Floats:
    """Return all particles' numbers in one frame, each with its sigma, shape (5, 2)."""
    seen = np.isfinite(states)
    s, sigma, both = states[seen], own[seen], shared[seen]
    weight = area_px[seen] / area_px[seen].sum()
    mean = float(weight @ s)
    mean_sigma = math.hypot(math.sqrt(float(weight**2 @ sigma**2)), float(weight @ both))
    found = mosaic(s, np.hypot(sigma, both))
    n = len(s)
    away = s - s.mean()
    variance = float(np.mean(away**2)) - (1 - 1 / n) * float(np.mean(sigma**2))
    doubt = math.sqrt(float(np.sum(4 * away**2 * sigma**2 + 2 * sigma**4))) / n
    # What all share stretches the states, and moves them all.
    stretch = abs(float(away @ both)) / n
    doubt = math.hypot(doubt, 2 * stretch)
    spread = math.sqrt(max(variance, 0.0))
    spread_sigma = min(doubt / max(2 * spread, 1e-12), math.sqrt(doubt))
    # Of the largest variance for this mean, which is that of particles at 0 and at 1 alone.
    room = float(s.mean()) * (1 - float(s.mean()))
    told = room > max(0.02, 3 * mean_sigma)
    return np.array(
        [
            (mean, mean_sigma),
            (found.active, found.active_sigma),
            (found.converted, found.converted_sigma),
            (spread, spread_sigma),
            (variance / room, doubt / room) if told else (math.nan, math.nan),
        ]
    )
