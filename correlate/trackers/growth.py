"""Tracks what grows out of an electrode: whiskers, dendrites, plated and stripped metal.

Its foremost end, the way there, its distance to the other electrode, and the area of all of
it. Live and over a whole recording each frame is looked at once, after the first ones.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.drift import DriftEstimator
from correlate.gap import Edge, Gap, columns_between, find_edge, learn_gap
from correlate.growth_follow import RENEW_FRAMES, GrowthFollower
from correlate.growth_reading import GrowthReading
from correlate.kinematics import windowed_velocity
from correlate.trackers.drift import LONG_REFERENCE, drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track
from correlate.turned_view import View
from correlate.window import Band

FIRST_FRAMES = 24
PART_SHARE = 1 / 3  # of these, that tell where it is at first, and at last
LIVE_BIN_PX, LIVE_SIDE_PX = 4, 512
LEAST_GAP_PX = 40
FEWEST_FRAMES = 8  # that a velocity is taken from
STEP_SIGMAS = 6.0  # of an area from one frame to the next, where a part has come loose
CHANGE_SIGMAS = 2.0  # by which windows differ where the speed changes
BAND_SPARE_PX = 4.0  # of the electrodes beside the gap, in which growth shows, too
# Volume of metal for a coulomb: molar volume over z F, with F = 96 485.332 C/mol.
PER_COULOMB_M3 = {"lithium": 13.02e-6 / 96_485.332, "zinc": 9.16e-6 / (2 * 96_485.332)}
SIDES = ("left", "right", "top", "bottom")
Floats = NDArray[np.float64]
OPTIONS = {
    "root": Option(
        kind="word", default="left", words=SIDES, about="side of the electrode it grows out of"
    ),
    "target": Option(
        kind="word",
        default="opposite",
        words=("opposite", "none"),
        about="electrode to which tip_distance is counted",
    ),
    "contrast": Option(
        kind="word", default="bright", words=("bright", "dark"), about="beside the electrolyte"
    ),
    "root_edge": Option(
        kind="length", default=math.nan, about="where the root's edge is, from the root's side"
    ),
    "target_edge": Option(
        kind="length", default=math.nan, about="where the target's edge is, from the root's side"
    ),
    "classes": Option(
        kind="number", default=1.0, about="2 to divide what has grown into two by contrast"
    ),
    "aspect": Option(
        kind="number", default=1.0, about="thickness along the beam over the width that is seen"
    ),
    "metal": Option(
        kind="word",
        default="lithium",
        words=("lithium", "zinc", "none"),
        about="which volume a charge is compared with",
    ),
}


class GrowthTracker:
    """Follows what grows out of an electrode.

    Parameters
    ----------
    settings
        With the pixel size, and options, see ``options``.

    Raises
    ------
    CannotTrack
        The pixel size is not known, or other classes than one or two are asked for.
    """

    options = OPTIONS
    quantities = ("length", "tip_distance", "velocity", "area", "residual_area", "diameter")

    def __init__(self, settings: SceneSettings) -> None:
        if not math.isfinite(settings.pixel_size_m):
            raise CannotTrack(
                "the growth tracker needs the pixel size; give pixel_size in the experiment file"
            )
        if settings.number("classes", OPTIONS) not in {1, 2}:
            raise CannotTrack(
                "classes can be 1 or 2: what has grown is measured as a whole, or divided into "
                "two by contrast"
            )
        self._settings = settings
        self._view = View(settings.word("root", OPTIONS), settings.shape)

    def track(self, frames: Frames) -> Track:
        """Follow it through all frames.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no electrode where one is looked for.
        """

        def first() -> Iterable[NDArray[np.generic]]:
            return itertools.islice(frames(), FIRST_FRAMES)

        return self._learn(first).track(frames)

    def begin(self, frames: Frames) -> "LiveGrowth":
        """Learn from first frames, and return what follows it from there on.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no electrode where one is looked for.
        """

        def first() -> Iterable[NDArray[np.generic]]:
            return itertools.islice(frames(), FIRST_FRAMES)

        live = self._learn(first)
        live.track(frames)
        return live

    def _learn(self, frames: Frames) -> "LiveGrowth":
        view, shape = self._view, self._view.shape
        bin_px = LIVE_BIN_PX if min(shape) >= LIVE_SIDE_PX else None
        mean, _, count = self._mean(frames, _estimator(shape, None, bin_px))
        if count == 0:
            raise CannotTrack("no frame can be used: all are blank, saturated or not registered")
        edges = self._edges(mean)
        band = Band(left_px=edges[0].x_px - BAND_SPARE_PX, right_px=_far(edges[1], shape[1]))
        rooted = edges[0].x_px > 0 or math.isfinite(edges[1].x_px)
        estimator = _estimator(shape, band if rooted else None, bin_px)
        mean, parts, count = self._mean(frames, estimator)
        edges = self._edges(mean)
        first, last = columns_between(*edges, shape[1])
        if last - first < LEAST_GAP_PX:
            raise CannotTrack(
                f"the gap is {last - first} px wide, and {LEAST_GAP_PX} px are needed; say where "
                "the electrodes are with root_edge and target_edge"
            )
        rises = 1 if self._settings.word("contrast", OPTIONS) == "bright" else -1
        two = self._settings.number("classes", OPTIONS) == 2
        gap = learn_gap(mean, parts, count, edges, rises, faint=two)
        # What was learned is looked at again: onto the same reference.
        return LiveGrowth(self._settings, view, gap, estimator, rises)

    def _mean(
        self, frames: Frames, estimator: DriftEstimator
    ) -> tuple[Floats, tuple[Floats, Floats], int]:
        """Return the mean of the frames on the reference, of the first and last ones, how many."""
        images = []
        for pixels in frames():
            seen = self._view.turned(pixels)
            shift = estimator.update(seen)
            if shift.valid:
                images.append(
                    ndimage.shift(
                        seen.astype(np.float64),
                        (shift.dy_px, shift.dx_px),
                        order=1,
                        mode="nearest",
                    )
                )
        if not images:
            nothing = np.zeros(self._view.shape)
            return nothing, (nothing, nothing), 0
        few = max(int(len(images) * PART_SHARE), 1)
        parts = np.mean(images[:few], axis=0), np.mean(images[-few:], axis=0)
        return np.mean(images, axis=0), parts, len(images)

    def _edges(self, mean: Floats) -> tuple[Edge, Edge]:
        size_m = self._settings.pixel_size_m
        given = {
            name: self._settings.number(name, OPTIONS) / size_m
            for name in ("root_edge", "target_edge")
        }
        root = Edge(x_px=given["root_edge"])
        if math.isnan(root.x_px):
            root = find_edge(mean, right=False)
        if math.isnan(root.x_px):
            root = Edge(x_px=0.0)  # it comes into the field from its border
        if self._settings.word("target", OPTIONS) == "none":
            return root, Edge()
        target = Edge(x_px=given["target_edge"])
        if math.isnan(target.x_px):
            target = find_edge(mean, right=True)
        if math.isnan(target.x_px):
            raise CannotTrack(
                "no edge of another electrode is seen opposite of the root; say where it is with "
                'target_edge, or target = "none"'
            )
        return root, target


def _estimator(shape: tuple[int, int], band: Band | None, bin_px: int | None) -> DriftEstimator:
    try:
        return DriftEstimator(shape, band=band, reference_frames=LONG_REFERENCE, bin_px=bin_px)
    except ValueError as error:
        raise CannotTrack(str(error)) from error


def _far(edge: Edge, width: int) -> float:
    return edge.x_px + BAND_SPARE_PX if math.isfinite(edge.x_px) else width + 100.0


class LiveGrowth:
    """Follows what grows, frame by frame or chunk by chunk."""

    def __init__(
        self,
        settings: SceneSettings,
        view: View,
        gap: Gap,
        estimator: DriftEstimator,
        rises: int,
    ) -> None:
        self._settings, self._view, self._gap = settings, view, gap
        self._estimator = estimator
        classes = int(settings.number("classes", OPTIONS))
        self._follower = GrowthFollower(gap, view.shape, rises, classes)

    def track(self, frames: Frames) -> Track:
        """Follow it through more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return growth_track(readings, self._gap, self._view, self._settings)

    def update(self, pixels: NDArray[np.generic]) -> GrowthReading:
        """Register a frame and measure what grows in it.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        seen = self._view.turned(pixels)
        shift = self._estimator.update(seen)
        if not shift.valid:
            return GrowthReading(shift=shift, reason=shift.reason)
        return self._follower.update(seen, shift)


def growth_track(
    readings: Sequence[GrowthReading], gap: Gap, view: View, settings: SceneSettings
) -> Track:
    """Return readings as columns, in SI units."""
    size_m = settings.pixel_size_m

    def column(name: str) -> Floats:
        return np.array([getattr(r, name) for r in readings], dtype=np.float64)

    def area(name: str) -> Floats:
        return np.array(
            [math.nan if r.area is None else getattr(r.area, name) for r in readings], np.float64
        )

    radius = np.array([math.nan if r.axis is None else r.axis.radius_px for r in readings])
    spread = np.array([math.nan if r.axis is None else r.axis.radius_sigma_px for r in readings])
    x_px, y_px = view.back(column("x_px"), column("y_px"))
    lengths = {
        "length": column("length_px"),
        "length_sigma": column("length_sigma_px"),
        "tip_distance": column("distance_px"),
        "tip_distance_sigma": column("distance_sigma_px"),
        "diameter": np.where(np.isfinite(spread), 2 * radius, math.nan),
        "diameter_sigma": 2 * spread,
    }
    areas = {
        "area": area("area_px"),
        "area_sigma": area("sigma_px"),
        "residual_area": area("behind_px"),
        "residual_area_sigma": area("behind_sigma_px"),
    }
    unknown = _before_steps(areas["residual_area"], areas["residual_area_sigma"])
    for name in ("residual_area", "residual_area_sigma"):
        areas[name] = np.where(unknown, math.nan, areas[name])
    metal = areas["area"], areas["area_sigma"]
    of_classes: dict[str, Floats] = {}
    if settings.number("classes", OPTIONS) == 2:
        classes = [None if r.area is None else r.area.classes for r in readings]
        for name in ("strong", "weak"):
            for end in ("", "_sigma"):
                areas[f"{name}_area{end}"] = np.array(
                    [math.nan if c is None else getattr(c, f"{name}{end}_px") for c in classes]
                )
        told = np.array([c is not None for c in classes], dtype=bool)
        known = np.isfinite(areas["area"])
        of_classes["classes"] = np.where(known, np.where(told, 2.0, 1.0), math.nan)
        of_classes["classes_sigma"] = np.where(known, 0.0, math.nan)
        metal = areas["strong_area"], areas["strong_area_sigma"]
    # There is more of it than is seen.
    cut = np.array([r.cut for r in readings], dtype=bool)
    metal = np.where(cut, math.nan, metal[0]), np.where(cut, math.nan, metal[1])
    volume, volume_sigma = _volume(*metal, radius, spread)
    aspect = settings.number("aspect", OPTIONS)
    volumes = {
        "volume": aspect * volume * size_m**3,
        "volume_sigma": aspect * volume_sigma * size_m**3,
        "volume_slab": metal[0] * size_m**2 * settings.depth_m,
        "volume_slab_sigma": metal[1] * size_m**2 * settings.depth_m,
    }
    pixels = {
        "tip_x_px": x_px,
        "tip_x_px_sigma": column("end_sigma_px"),
        "tip_y_px": y_px,
        "tip_y_px_sigma": column("end_sigma_px"),
        "along_px": column("along_px"),
        "along_px_sigma": column("along_sigma_px"),
    }
    counts = {
        "branches": np.array([float(r.branches) if r.area else math.nan for r in readings]),
        # One may be about to stand out.
        "branches_sigma": np.array([0.5 if r.area else math.nan for r in readings]),
        "end": np.array([float(r.number) if r.axis else math.nan for r in readings]),
        "end_sigma": np.zeros(len(readings)),
        "censored": np.array([float(r.censored) for r in readings]),
        "censored_sigma": np.zeros(len(readings)),
        **of_classes,
    }
    columns = {name: values * size_m for name, values in lengths.items()}
    columns |= {name: values * size_m**2 for name, values in areas.items()}
    columns |= volumes | pixels | counts
    return Track(
        columns=columns,
        units=dict.fromkeys(lengths, "m")
        | dict.fromkeys(areas, "m^2")
        | dict.fromkeys(volumes, "m^3")
        | dict.fromkeys(pixels, "px")
        | dict.fromkeys(counts, "1"),
        valid=np.array([not r.reason for r in readings], dtype=bool),
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "root_px": gap.root.x_px,
            "root_sigma_px": gap.root.sigma_px,
            "target_px": gap.target.x_px,
            "target_sigma_px": gap.target.sigma_px,
            **view.edge_back("root", gap.root.x_px),
            **view.edge_back("target", gap.target.x_px),
            "texture": gap.texture,
            "volume_scale_sigma": _scale_sigma(metal[0], area("shared_sigma_px"), radius, spread),
            "volume_per_charge": PER_COULOMB_M3.get(settings.word("metal", OPTIONS), math.nan),
        },
        drift=drift_columns([view.shift_back(r.shift) for r in readings]),
    )


def _before_steps(area: Floats, sigma: Floats) -> NDArray[np.bool_]:
    """Return in which frames a part may have come loose already that is told later.

    Which parts are loose is looked at anew every `RENEW_FRAMES` frames at the latest.
    """
    found = np.zeros(len(area), dtype=bool)
    steps = np.abs(np.diff(area)) > STEP_SIGMAS * np.hypot(sigma[1:], sigma[:-1])
    for row in np.flatnonzero(steps) + 1:
        found[max(row - RENEW_FRAMES, 0) : row] = True
    return found


def _scale_sigma(area: Floats, shared: Floats, radius: Floats, spread: Floats) -> float:
    """Return what all volumes err by alike, relative, where the object is largest.

    A radius that has wandered since is one that was not known so well, or no constant.
    """
    known = np.isfinite(area) & np.isfinite(spread / radius)
    if not np.any(known):
        return math.nan
    largest = np.flatnonzero(known)[np.argsort(area[known])[-len(area) // 4 :]]
    width = np.hypot(spread[largest], np.std(radius[known])) / radius[largest]
    return float(np.median(np.hypot(shared[largest] / area[largest], width)))


def _volume(area: Floats, sigma: Floats, radius: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Return the volume of what is as thick as it is wide, round, with one round end, px^3.

    A cylinder has ``pi/4 * width * area``; a half-circle's area is that of a half-sphere less.
    """
    cylinder = (area - math.pi * radius**2 / 2) * math.pi * radius / 2
    volume = cylinder + 2 / 3 * math.pi * radius**3
    by_radius = cylinder / np.maximum(radius, 1e-9)
    volume = np.where(np.isfinite(spread), volume, math.nan)
    return volume, np.hypot(math.pi * radius / 2 * sigma, by_radius * spread)


def with_velocity(track: Track, t_ns: NDArray[np.int64], window_s: float, size_m: float) -> Track:
    """Return a track with the velocity of the foremost end, on the frames' own times.

    Where the windows before and after a row differ, the speed changes within its own, and its
    slope is no speed of an instant: the distance to the nearer one is a part of the sigma. What
    all frames share, such as the sigma of the electrode's edge, is none.

    Parameters
    ----------
    window_s
        In which a straight line is fitted, at least; `FEWEST_FRAMES` frames where it holds fewer.
    size_m
        Edge of a pixel.
    """
    if len(t_ns) > 1:
        frame_s = float(np.median(np.diff(t_ns))) / 1e9
        window_s = max(window_s, FEWEST_FRAMES * frame_s)
    velocity, sigma = np.full(len(t_ns), math.nan), np.full(len(t_ns), math.nan)
    # Where another end has come to lead, nothing has jumped.
    for number in np.unique(track.columns["end"][np.isfinite(track.columns["end"])]):
        own = track.columns["end"] == number
        along = np.where(own, track.columns["along_px"], math.nan) * size_m
        along_sigma = np.where(own, track.columns["along_px_sigma"], math.nan) * size_m
        here, before, after = (
            windowed_velocity(t_ns, along, along_sigma, window_s, later_s=later)
            for later in (0.0, -window_s / 2, window_s / 2)
        )
        changes = np.abs(after[0] - before[0]) > CHANGE_SIGMAS * np.hypot(before[1], after[1])
        nearer = np.fmin(np.abs(before[0] - here[0]), np.abs(after[0] - here[0]))
        unknown = np.where(changes, nearer, 0.0)
        velocity[own], sigma[own] = here[0][own], np.hypot(here[1], unknown)[own]
    return replace(
        track,
        columns={**track.columns, "velocity": velocity, "velocity_sigma": sigma},
        units={**track.units, "velocity": "m/s", "velocity_sigma": "m/s"},
        attributes={**track.attributes, "velocity_window_s": window_s},
    )
