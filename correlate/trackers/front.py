"""Tracks a phase front inside a film: its depth from the electrolyte, with a sigma.

The layers run across the frames, gold to electrolyte from left to right. The column sums
of every frame are kept; the frames themselves are not.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from correlate.blocks import BLOCK_FRAMES, in_blocks
from correlate.drift import DriftEstimator, Shift
from correlate.edge import EdgeFit
from correlate.film import FIRST_WIDTH_PX, find_film, first_place
from correlate.film_texture import interface_sigma
from correlate.front_learn import learn_model
from correlate.front_line import FrontFollower, FrontModel, FrontShape
from correlate.kinematics import windowed_velocity
from correlate.registering import Line, register
from correlate.sums import frame_sums
from correlate.trackers.drift import LONG_REFERENCE, drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, SceneSettings, Track
from correlate.window import Band

TEXTURE_ROUNDS = 2
FIRST_FRAMES = 20
ROUGH_FRAMES = 512  # in which the film is found at first
EDGE_FRAMES = 64  # whose counts hardly hide the texture at the film's edge
LEARNED_FRAMES = 2048  # at most, spread over all
SUMMED_ROWS_PX = 4
LIVE_BIN_PX = 4  # of large frames: quick, and what it loses matters little on a long reference
LIVE_SIDE_PX = 512
NOT_REGISTERED = "not registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontReading:
    """What one frame tells; the reason is empty where the front was found."""

    shift: Shift
    fit: EdgeFit | None = None
    shape: FrontShape = field(default_factory=FrontShape)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What all the frames that were looked at tell."""

    model: FrontModel
    place_px: float  # in the first frames
    lines: list[Line]
    shifts: list[Shift]
    estimator: DriftEstimator


class FrontTracker:
    """Follows the front in the working film.

    Parameters
    ----------
    settings
        With pixel size and film thickness, which tell where the film is.
    """

    quantities = ("position", "velocity", "width", "roughness", "area_swept")

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
        learned = self._learn(frames)
        # Followed as far as blocks are asked for: others look at shapes meanwhile.
        placed, readings = _placed(learned), list[FrontReading]()

        def shapes_of(_: int) -> _Shapes:
            block = list(itertools.islice(placed, BLOCK_FRAMES))
            readings.extend(reading for reading, _ in block)
            return _Shapes(learned.model, np.array([_told(*p) for p in block]))

        shapes = np.concatenate(list(in_blocks(frames, shapes_of)))
        return front_track(readings, shapes, learned.model, self._settings)

    def begin(self, frames: Frames) -> "LiveFront":
        """Learn from first frames, and return what follows the front from there on.

        Raises
        ------
        CannotTrack
            The film or a front in it cannot be found.
        """
        side = min(self._settings.shape)
        learned = self._learn(frames, LIVE_BIN_PX if side >= LIVE_SIDE_PX else None)
        follower = FrontFollower(learned.model, learned.place_px)
        for line, shift in zip(learned.lines, learned.shifts, strict=True):
            if shift.valid:
                follower.fit(_counts(line), shift.dx_px)
        return LiveFront(self._settings, learned.model, follower.place_px, learned.estimator)

    def _learn(self, frames: Frames, bin_px: int | None = None) -> _Learned:
        def first_frames() -> Iterable[NDArray[np.generic]]:
            return itertools.islice(frames(), ROUGH_FRAMES)

        rough, _ = register(first_frames, DriftEstimator(self._settings.shape), with_lines=True)
        if not rough.lines:
            raise CannotTrack("there is no frame")
        dx = np.array([s.dx_px for s in rough.shifts])
        film = find_film(np.array(rough.lines, np.float64), dx, self._film_px)
        band = Band(left_px=film.first_px, right_px=film.last_px)
        estimator = DriftEstimator(
            self._settings.shape, band=band, reference_frames=LONG_REFERENCE, bin_px=bin_px
        )
        seen, estimator = register(frames, estimator, with_lines=True)
        # The film's edges, its texture and the front's width ask for some frames of all.
        count = len(seen.lines)
        some = np.linspace(0, count - 1, min(count, LEARNED_FRAMES)).round().astype(np.intp)
        lines = np.array([seen.lines[i] for i in some], np.float64)
        dx = np.array([seen.shifts[i].dx_px for i in some])
        film = find_film(lines, dx, self._film_px)
        few = itertools.islice(frames(), EDGE_FRAMES)
        film = replace(film, interface_sigma_px=interface_sigma(few, seen.shifts, film))
        usable = [i for i, s in enumerate(seen.shifts) if s.valid]
        first = usable[:FIRST_FRAMES]
        place, rises = first_place(
            np.array([seen.lines[i] for i in first], np.float64),
            np.array([seen.shifts[i].dx_px for i in first]),
            film,
            FIRST_WIDTH_PX,
        )
        model = FrontModel(
            film=film,
            texture=np.ones(lines.shape[1]),
            width_px=FIRST_WIDTH_PX,
            rises=rises,
        )
        for _ in range(TEXTURE_ROUNDS):
            model = learn_model(model, lines, dx, _follow(lines, dx, model, place))
        return _Learned(
            model=model,
            place_px=place,
            lines=seen.lines,
            shifts=seen.shifts,
            estimator=estimator,
        )


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Tells the shape of fronts whose places were found in a block of frames.

    Rows of numbers go to where that is done, and come back: objects take as long to send as
    to look at.
    """

    model: FrontModel
    told: NDArray[np.float64]  # (n, 4), of `_told`

    def __call__(self, frames: Iterable[NDArray[np.generic]]) -> NDArray[np.float64]:
        shapes = np.full((len(self.told), 4), np.nan)
        for pixels, told, shape in zip(frames, self.told, shapes, strict=True):
            place, dx, position, significance = told.tolist()
            if math.isfinite(position):
                follower = FrontFollower(self.model, place)
                sums = frame_sums(pixels, SUMMED_ROWS_PX)
                shape[:] = _row(follower.shape(sums, (position, significance), dx))
        return shapes


class LiveFront:
    """Follows a front that is known, frame by frame or chunk by chunk.

    Parameters
    ----------
    settings
        What is known of the scene.
    model
        The front, as learned from the first frames.
    place_px
        Where it stands.
    estimator
        Registers the frames; its reference is that of the model.
    """

    def __init__(
        self,
        settings: SceneSettings,
        model: FrontModel,
        place_px: float,
        estimator: DriftEstimator,
    ) -> None:
        self._settings, self._model = settings, model
        self._estimator = estimator
        self._follower = FrontFollower(model, place_px)
        self._begun: FrontReading | None = None  # where the front was found first

    def track(self, frames: Frames) -> Track:
        """Follow the front through more frames; each is looked at once.

        The area is swept since the first frame in which the front was found, in whatever
        chunks the frames come.
        """
        readings = [self.update(pixels) for pixels in frames()]
        if self._begun is None:
            self._begun = next((r for r in readings if r.fit is not None), None)
        shapes = np.array([_row(r.shape) for r in readings]).reshape(-1, 4)
        return front_track(readings, shapes, self._model, self._settings, begun=self._begun)

    def update(self, pixels: NDArray[np.generic], *, with_shape: bool = True) -> FrontReading:
        """Register a frame and fit the front in it.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        with_shape
            Tell width and roughness, too.
        """
        sums = frame_sums(pixels, self._estimator.bin_px)
        shift = self._estimator.update_sums(sums, pixels)
        if not shift.valid:
            return FrontReading(shift=shift, reason=NOT_REGISTERED)
        place = self._follower.columns(shift.dx_px)
        line = np.zeros(pixels.shape[1])
        line[place] = sums.line(place)
        fit = self._follower.fit(line, shift.dx_px)
        if isinstance(fit, str):
            return FrontReading(shift=shift, reason=fit)
        found = fit.position_px, fit.significance
        shape = self._follower.shape(sums, found, shift.dx_px) if with_shape else FrontShape()
        return FrontReading(shift=shift, fit=fit, shape=shape)


def front_track(
    readings: Sequence[FrontReading],
    shapes: NDArray[np.float64],
    model: FrontModel,
    settings: SceneSettings,
    *,
    begun: FrontReading | None = None,
) -> Track:
    """Return readings as columns, in SI units.

    Parameters
    ----------
    shapes
        Width, its sigma, roughness and its sigma in each frame, in px; shape (n_frames, 4).
    begun
        From which the area is swept; by default the first in which the front was found.
    """
    size_m, film = settings.pixel_size_m, model.film
    fits = [r.fit for r in readings]
    x_px = np.array([math.nan if f is None else f.position_px for f in fits])
    own_px = np.array([math.nan if f is None else f.sigma_px for f in fits])
    chi2 = np.array([math.nan if f is None else f.chi2 for f in fits])
    drift_px = np.array([r.shift.sigma_x_px for r in readings])
    x_sigma_px = np.hypot(own_px, drift_px)
    valid = np.isfinite(x_px)
    begun = begun or next((r for r in readings if r.fit is not None), None)
    height_m = settings.shape[0] * size_m
    begun_px, begun_sigma_px = math.nan, math.nan
    if begun is not None and begun.fit is not None:
        begun_px = begun.fit.position_px
        begun_sigma_px = math.hypot(begun.fit.sigma_px, begun.shift.sigma_x_px)
    swept_px = begun_px - x_px
    swept_sigma_px = np.hypot(x_sigma_px, begun_sigma_px)
    metres = {
        "position": film.interface_px - x_px,
        "position_sigma": np.hypot(x_sigma_px, film.interface_sigma_px),
        "width": shapes[:, 0],
        "width_sigma": shapes[:, 1],
        "roughness": shapes[:, 2],
        "roughness_sigma": shapes[:, 3],
    }
    areas = {
        "area_swept": swept_px * size_m * height_m,
        "area_swept_sigma": swept_sigma_px * size_m * height_m,
    }
    pixels = {"x_front_px": x_px, "x_front_sigma_px": x_sigma_px}
    return Track(
        columns={name: values * size_m for name, values in metres.items()} | areas | pixels,
        units=dict.fromkeys(metres, "m")
        | dict.fromkeys(areas, "m^2")
        | dict.fromkeys(pixels, "px"),
        valid=valid,
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "x_interface_px": film.interface_px,
            "x_interface_sigma_px": film.interface_sigma_px,
            "x_collector_px": film.collector_px,
            "width_px": model.width_px,
            "chi2": float(np.nanmedian(chi2)) if np.any(valid) else math.nan,
        },
        drift=drift_columns([r.shift for r in readings]),
    )


def _placed(learned: _Learned) -> Iterator[tuple[FrontReading, float]]:
    """Find the front in one frame after the other, and where it is looked for after that."""
    follower = FrontFollower(learned.model, learned.place_px)
    for line, shift in zip(learned.lines, learned.shifts, strict=True):
        fit = follower.fit(_counts(line), shift.dx_px) if shift.valid else NOT_REGISTERED
        if isinstance(fit, str):
            reading = FrontReading(shift=shift, reason=fit)
        else:
            reading = FrontReading(shift=shift, fit=fit)
        yield reading, follower.place_px


def _told(reading: FrontReading, place_px: float) -> tuple[float, float, float, float]:
    """Return what a shape asks for: place, shift, position and significance of the step."""
    fit, dx_px = reading.fit, reading.shift.dx_px
    if fit is None:
        return place_px, dx_px, math.nan, math.nan
    return place_px, dx_px, fit.position_px, fit.significance


def _row(shape: FrontShape) -> tuple[float, float, float, float]:
    return shape.width_px, shape.width_sigma_px, shape.roughness_px, shape.roughness_sigma_px


def _counts(line: Line) -> NDArray[np.float64]:
    return np.asarray(line, dtype=np.float64)


def _follow(
    lines: NDArray[np.float64], dx: NDArray[np.float64], model: FrontModel, place: float
) -> list[EdgeFit | str]:
    """Fit the front in every line, each beginning where the last was found."""
    follower = FrontFollower(model, place)
    return [
        follower.fit(line, float(shift)) if math.isfinite(shift) else NOT_REGISTERED
        for line, shift in zip(lines, dx, strict=True)
    ]


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
