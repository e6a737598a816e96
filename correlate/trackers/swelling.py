"""Tracks how a dark particle or nanowire swells: along, across, and until it cracks."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from correlate.cracks import CrackWatch, rotated
from correlate.drift import DriftEstimator, Shift, why_unusable
from correlate.first_outline import first_outline
from correlate.object_shape import Shape, shape_of
from correlate.outline import Edges, Outline, doubt_px, fit_edges_of, near, sector_weights
from correlate.trackers.drift import drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, SceneSettings, Track

Float = NDArray[np.float64]
FIRST_FRAMES = 10
WIDTHS_PX = np.geomspace(0.5, 6.0, 16)
START_WIDTH_PX = 2.0
SECTOR_PX = 7.0
MAX_SECTORS, MIN_SECTORS = 128, 12
REACH_WIDTHS, REACH_PX = 3.0, 4.0
ROUNDS = 4
CENTRED_PX = 0.7  # the outline is near enough to the edge
FOLLOW = 0.3  # of what a frame says, in where the next begins
LEARN = 0.7  # the same while the outline is rough
EXCESS_MEMORY = 0.05
MAX_MISSING = 0.1  # of the sectors, that may say nothing
NAMES = {"length": 1, "diameter": 1, "area": 2, "volume": 3}
UNITS = {1: "m", 2: "m^2", 3: "m^3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SwellingReading:
    """What one frame tells; the reason is empty where the object was found.

    Parameters
    ----------
    values, sigmas
        Of the outline, px and its powers.
    fractured
        Whether a crack is known.
    missing
        Sectors in which no edge stood out.
    """

    shift: Shift
    values: dict[str, float] = field(default_factory=dict)
    sigmas: dict[str, float] = field(default_factory=dict)
    fractured: bool = False
    missing: int = 0
    reason: str = ""


class SwellingTracker:
    """Follows the outline of the largest dark object.

    Parameters
    ----------
    settings
        With the pixel size.

    Raises
    ------
    CannotTrack
        The pixel size is unknown.
    """

    quantities = ("length", "diameter", "area", "length_change", "diameter_change", "volume_change")

    def __init__(self, settings: SceneSettings) -> None:
        if not math.isfinite(settings.pixel_size_m):
            raise CannotTrack(
                "the swelling tracker needs the pixel size; give pixel_size of the camera"
            )
        self._settings = settings

    def track(self, frames: Frames) -> Track:
        """Follow the object through all frames.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no dark object in the first ones.
        """
        return self._learn(frames).track(frames)

    def begin(self, frames: Frames) -> "LiveSwelling":
        """Learn from first frames, and return what follows the object from there on.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no dark object in the first ones.
        """
        live = self._learn(frames)
        live.track(frames)
        return live

    def _learn(self, frames: Frames) -> "LiveSwelling":
        first: list[Float] = []
        for pixels in frames():
            if not why_unusable(pixels):
                first.append(np.asarray(pixels, dtype=np.float64))
            if len(first) >= FIRST_FRAMES:
                break
        if not first:
            raise CannotTrack("there is no frame that can be used")
        try:
            estimator = DriftEstimator(self._settings.shape)
        except ValueError as error:
            raise CannotTrack(str(error)) from error
        outline = first_outline(np.mean(first, axis=0))
        follower = OutlineFollower(outline, START_WIDTH_PX)
        for image in (*first, *first):
            follower.fit(image, LEARN)
        follower.width_px = _width(first, follower.outline)
        found = OutlineFollower(follower.outline, follower.width_px)
        for image in (*first, *first):
            found.fit(image, LEARN)
        found.outline = follower.outline
        return LiveSwelling(self._settings, found, estimator)


def _width(images: Sequence[Float], outline: Outline) -> float:
    """Return the most likely width of the edge in some frames, of which the same pixels tell."""
    likely = np.zeros(len(WIDTHS_PX))
    for image in images[:: max(len(images) // 3, 1)]:
        follower = OutlineFollower(outline, START_WIDTH_PX)
        follower.fit(image)
        points = len(follower.outline.points)
        reach = follower.reach_px
        at = near(follower.outline, _shape(image), reach)
        if at is not None:
            counts = image[at.rows, at.columns]
            likely += [
                fit_edges_of(counts, at, points, follower.sectors, float(w), reach).log_likelihood
                for w in WIDTHS_PX
            ]
    best = int(np.clip(np.argmax(likely), 1, len(WIDTHS_PX) - 2))
    a, b, c = likely[best - 1 : best + 2]
    curve = a - 2 * b + c
    step = float(np.clip(0.5 * (a - c) / curve, -1, 1)) if curve < 0 else 0.0
    return float(WIDTHS_PX[best] * (WIDTHS_PX[1] / WIDTHS_PX[0]) ** step)


class OutlineFollower:
    """Fits an outline in one frame after the other.

    Parameters
    ----------
    outline
        Where the edge stands at first.
    width_px
        Of the edge, from which follows how far around it pixels are looked at.
    """

    def __init__(self, outline: Outline, width_px: float) -> None:
        self.outline, self.width_px = outline, width_px
        self.reach_px = REACH_WIDTHS * width_px + REACH_PX
        self._excess = math.nan

    @property
    def sectors(self) -> int:
        """How many sectors the outline has now."""
        around_px = float(self.outline.lengths_px.sum())
        return int(np.clip(around_px / SECTOR_PX, MIN_SECTORS, MAX_SECTORS))

    @property
    def excess(self) -> float:
        """By how much sigmas are widened; at least 1."""
        return max(self._excess, 1.0) if math.isfinite(self._excess) else 1.0

    def fit(
        self, image: Float, follow: float = FOLLOW
    ) -> tuple[Shape, Edges, dict[str, float]] | str:
        """Return the shape, its edges and its sigmas in px; or why there is none.

        Parameters
        ----------
        image
            Counts, shape (height, width).
        follow
            Share of what the frame says that goes into where the next begins.
        """
        outline, sectors = self.outline, self.sectors
        left = ROUNDS
        while True:
            left -= 1
            at = near(outline, _shape(image), self.reach_px)
            if at is None:
                return "the object has left the field"
            counts, n = image[at.rows, at.columns], len(outline.points)
            edges = fit_edges_of(counts, at, n, sectors, self.width_px, self.reach_px)
            missing = int(np.sum(~edges.good))
            if missing > MAX_MISSING * sectors:
                return "no edge stands out around the object"
            weights = sector_weights(n, sectors)
            outwards, sigma = _bridged(edges)
            away = weights @ outwards
            if left == 0 or float(np.sqrt(np.mean(away**2))) < CENTRED_PX:
                break
            outline = Outline.through(outline.moved(away).points)
        shape = shape_of(outline.moved(away))
        self._remember(edges)
        # What moved the outline as a whole is drift, and is believed at once.
        normals = outline.normals
        dx, dy = np.linalg.lstsq(normals, away, rcond=None)[0]
        rest = away - normals @ np.array([dx, dy])
        moved = outline.moved(follow * rest).shifted(float(dx), float(dy))
        self.outline = Outline.through(moved.points)
        doubt = doubt_px(edges, self.width_px)
        sigmas = {
            name: math.hypot(
                float(np.sqrt(np.sum((slope @ weights * sigma) ** 2))) * self.excess,
                # All to one side.
                float(np.sum(np.abs(slope @ weights) * doubt)),
            )
            for name, slope in shape.gradients.items()
        }
        return shape, edges, sigmas

    def _remember(self, edges: Edges) -> None:
        known = math.isfinite(self._excess)
        self._excess = (
            math.sqrt((1 - EXCESS_MEMORY) * self._excess**2 + EXCESS_MEMORY * edges.excess**2)
            if known
            else edges.excess
        )


def _bridged(edges: Edges) -> tuple[Float, Float]:
    """Return places and sigmas, with sectors that say nothing between their neighbours.

    Their sigma is the spread of all sectors' places.
    """
    good = edges.good
    if np.all(good):
        return edges.outwards_px, edges.sigma_px
    at, n = np.flatnonzero(good), len(good)
    place = np.interp(np.arange(n), at, edges.outwards_px[at], period=n)
    spread = math.hypot(float(np.std(edges.outwards_px[at])), float(np.max(edges.sigma_px[at])))
    return place, np.where(good, edges.sigma_px, spread)


def _shape(image: NDArray[np.generic]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


class LiveSwelling:
    """Follows an object that is known, frame by frame or chunk by chunk.

    Parameters
    ----------
    settings
        What is known of the scene.
    follower
        The outline.
    estimator
        Registers the frames: where the object jumps out of reach, its shift is tried. Sizes do
        not depend on drift, and where there is nothing else in the field, growth is taken for it.
    """

    def __init__(
        self, settings: SceneSettings, follower: OutlineFollower, estimator: DriftEstimator
    ) -> None:
        self._settings, self._follower, self._estimator = settings, follower, estimator
        self._cracks = CrackWatch()
        self._number = 0
        self._first: list[SwellingReading] = []
        self._last = 0.0, 0.0

    def track(self, frames: Frames) -> Track:
        """Follow the object through more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return swelling_track(readings, self._first, self._follower, self._settings, self._cracks)

    def update(self, pixels: NDArray[np.generic]) -> SwellingReading:
        """Fit the outline in a frame.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        number, self._number = self._number, self._number + 1
        shift = self._estimator.update(pixels)
        if reason := why_unusable(pixels):
            return SwellingReading(shift=shift, reason=reason, fractured=self._cracks.frame >= 0)
        image = np.asarray(pixels, dtype=np.float64)
        fit = self._follower.fit(image)
        if isinstance(fit, str) and shift.valid:
            # A jump, perhaps. A shift brings the frame onto the reference: the object moved
            # the other way.
            dx, dy = self._last[0] - shift.dx_px, self._last[1] - shift.dy_px
            before = self._follower.outline
            self._follower.outline = before.shifted(dx, dy)
            fit = self._follower.fit(image)
            if isinstance(fit, str):
                self._follower.outline = before
        if shift.valid and not isinstance(fit, str):
            self._last = shift.dx_px, shift.dy_px
        if isinstance(fit, str):
            return SwellingReading(shift=shift, reason=fit, fractured=self._cracks.frame >= 0)
        shape, edges, sigmas = fit
        reading = SwellingReading(
            shift=shift,
            values=shape.values,
            sigmas=sigmas,
            fractured=self._look_for_cracks(number, image, shape),
            missing=int(np.sum(~edges.good)),
        )
        if len(self._first) < FIRST_FRAMES:
            self._first.append(reading)
        return reading

    def _look_for_cracks(self, number: int, image: Float, shape: Shape) -> bool:
        length, width = shape.values["length"], shape.values["diameter"]
        rows, columns = _inside(shape, _shape(image))
        x, y = rotated(rows, columns, shape.axis, shape.middle)
        return self._cracks.look(number, x + length / 2, y, image[rows, columns], (length, width))


def _inside(shape: Shape, frame: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pixels of the box around an object."""
    half = math.ceil(shape.values["length"] / 2) + 1
    x, y = round(shape.middle[0]), round(shape.middle[1])
    tall = math.ceil(
        half * abs(shape.axis[1]) + shape.values["diameter"] / 2 * abs(shape.axis[0]) + 1
    )
    wide = math.ceil(
        half * abs(shape.axis[0]) + shape.values["diameter"] / 2 * abs(shape.axis[1]) + 1
    )
    rows, columns = np.mgrid[
        max(y - tall, 0) : min(y + tall + 1, frame[0]),
        max(x - wide, 0) : min(x + wide + 1, frame[1]),
    ]
    return rows.ravel(), columns.ravel()


def swelling_track(
    readings: Sequence[SwellingReading],
    first: Sequence[SwellingReading],
    follower: OutlineFollower,
    settings: SceneSettings,
    cracks: CrackWatch,
) -> Track:
    """Return readings as columns, in SI units; changes are against the first readings."""
    size_m = settings.pixel_size_m
    columns: dict[str, Float] = {}
    units: dict[str, str] = {}
    ratios: dict[str, tuple[Float, Float]] = {}
    valid = np.array([not r.reason for r in readings], dtype=bool)
    for name, power in NAMES.items():
        value = np.array([r.values.get(name, math.nan) for r in readings])
        sigma = np.array([r.sigmas.get(name, math.nan) for r in readings])
        columns |= {name: value * size_m**power, f"{name}_sigma": sigma * size_m**power}
        units |= dict.fromkeys([name, f"{name}_sigma"], UNITS[power])
        if first:
            start = float(np.mean([r.values[name] for r in first]))
            own = float(np.sqrt(np.sum([r.sigmas[name] ** 2 for r in first]))) / len(first)
            ratio = value / start
            ratios[name] = ratio, np.hypot(sigma / start, ratio * own / start)
    if ratios:
        columns |= _changes(ratios)
    columns["fractured"] = np.array([float(r.fractured) for r in readings])
    columns["sectors_missing"] = np.where(valid, [float(r.missing) for r in readings], math.nan)
    units |= {name: "1" for name in columns if name not in units}
    return Track(
        columns=columns,
        units=units,
        valid=valid,
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "edge_width_px": follower.width_px,
            "excess": follower.excess,
            "first_frames": float(len(first)),
            "fracture_frame": float(cracks.frame),
            "fracture_place": cracks.place,
        },
        drift=drift_columns([r.shift for r in readings]),
    )


def _changes(ratios: dict[str, tuple[Float, Float]]) -> dict[str, Float]:
    """Return relative changes, and what bounds that of the volume.

    The depth along the beam is not seen: it has stayed, or has grown as the width did, or
    as the length did. The volume of revolution is the second of these.
    """
    columns: dict[str, Float] = {}
    for name in ("length", "diameter", "area", "volume"):
        ratio, sigma = ratios[name]
        columns |= {f"{name}_change": ratio - 1, f"{name}_change_sigma": sigma}
    area, area_sigma = ratios["area"]
    depths = np.array([np.ones(len(area)), ratios["diameter"][0], ratios["length"][0]])
    sigmas = np.array([np.zeros(len(area)), ratios["diameter"][1], ratios["length"][1]])
    for name, which in (("low", np.argmin(depths, axis=0)), ("high", np.argmax(depths, axis=0))):
        rows = np.arange(len(area))
        depth, own = depths[which, rows], sigmas[which, rows]
        columns |= {
            f"volume_change_{name}": area * depth - 1,
            f"volume_change_{name}_sigma": np.hypot(area_sigma * depth, area * own),
        }
    return columns
