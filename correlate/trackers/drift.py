"""Tracks the drift of the whole field."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from correlate.drift import (
    DriftEstimator,
    Shift,
    fixed_pattern_correlation,
    why_unusable,
)
from correlate.registering import register
from correlate.trackers.protocol import CannotTrack, Frames, SceneSettings, Track
from correlate.turning import Turns, find_turns
from correlate.window import Band

LONG_REFERENCE = 64


class DriftTracker:
    """Registers every frame onto the first.

    Parameters
    ----------
    settings
        Only the shape is needed.
    band
        Columns in which the specimen itself changes.
    """

    quantities: tuple[str, ...] = ()

    def __init__(self, settings: SceneSettings, *, band: Band | None = None) -> None:
        self._settings = settings
        self._band = band

    def track(self, frames: Frames) -> Track:
        """Register all frames.

        Raises
        ------
        CannotTrack
            There is no usable frame, or the frames are too small.
        """
        shifts, _ = self._register(frames)
        turns = find_turns(frames, shifts, self._settings.shape)
        return _with_turns(drift_track(shifts, fixed_pattern_of(frames)), turns)

    def begin(self, frames: Frames) -> "LiveDrift":
        """Learn a reference from first frames, and return what registers more onto it.

        Raises
        ------
        CannotTrack
            There is no usable frame, or the frames are too small.
        """
        _, estimator = self._register(frames)
        return LiveDrift(estimator, fixed_pattern_of(frames))

    def _register(self, frames: Frames) -> tuple[list[Shift], DriftEstimator]:
        found, estimator = register(frames, self._estimator())
        if not any(shift.valid for shift in found.shifts):
            raise CannotTrack("no frame could be registered")
        return found.shifts, estimator

    def _estimator(self) -> DriftEstimator:
        try:
            return DriftEstimator(
                self._settings.shape, band=self._band, reference_frames=LONG_REFERENCE
            )
        except ValueError as error:
            raise CannotTrack(str(error)) from error


class LiveDrift:
    """Registers more frames onto a reference that is there.

    Parameters
    ----------
    estimator
        With its reference.
    pattern
        Fixed-pattern correlation of the first frames.
    """

    def __init__(self, estimator: DriftEstimator, pattern: float) -> None:
        self._estimator, self._pattern = estimator, pattern

    def track(self, frames: Frames) -> Track:
        """Register more frames; each is looked at once."""
        return drift_track([self._estimator.update(p) for p in frames()], self._pattern)


def drift_track(shifts: list[Shift], pattern: float) -> Track:
    """Return shifts as a track, with the fixed-pattern correlation of the frames."""
    drift = drift_columns(shifts)
    return Track(
        columns={
            "dx": drift["dx"],
            "dx_sigma": drift["sigma_x"],
            "dy": drift["dy"],
            "dy_sigma": drift["sigma_y"],
        },
        units={"dx": "px", "dx_sigma": "px", "dy": "px", "dy_sigma": "px"},
        valid=np.array([shift.valid for shift in shifts]),
        reasons=Counter(shift.reason for shift in shifts if not shift.valid),
        attributes={"fixed_pattern_correlation": pattern},
        drift=drift,
    )


def _with_turns(track: Track, turns: Turns) -> Track:
    """Return a track with rotation and magnification, which nothing is corrected by."""
    columns = {
        "rotation": turns.rotation_rad,
        "rotation_sigma": turns.rotation_sigma_rad,
        "magnification": turns.magnification,
        "magnification_sigma": turns.magnification_sigma,
    }
    looked = np.flatnonzero(np.isfinite(turns.rotation_rad))
    last = (
        {f"last_{name}": float(values[looked[-1]]) for name, values in columns.items()}
        if len(looked)
        else {}
    )
    return replace(
        track,
        columns={**track.columns, **columns},
        units={
            **track.units,
            "rotation": "rad",
            "rotation_sigma": "rad",
            "magnification": "",
            "magnification_sigma": "",
        },
        attributes={**track.attributes, **last},
        drift={**track.drift, **columns},
    )


def fixed_pattern_of(frames: Frames) -> float:
    """Return the fixed-pattern correlation of the first two usable frames; 0 with fewer."""
    usable = (pixels for pixels in frames() if not why_unusable(pixels))
    pair = [np.array(pixels) for pixels in itertools.islice(usable, 2)]
    return fixed_pattern_correlation(*pair) if len(pair) == 2 else 0.0


def drift_columns(shifts: list[Shift]) -> dict[str, NDArray[np.float64]]:
    """Return shifts as columns of the session's drift table."""
    columns = {
        "dx": np.array([s.dx_px for s in shifts]),
        "dy": np.array([s.dy_px for s in shifts]),
        "sigma_x": np.array([s.sigma_x_px for s in shifts]),
        "sigma_y": np.array([s.sigma_y_px for s in shifts]),
        "quality": np.array([s.quality for s in shifts]),
        "valid": np.array([float(s.valid) for s in shifts]),
    }
    columns["sigma"] = np.hypot(columns["sigma_x"], columns["sigma_y"])
    return columns
