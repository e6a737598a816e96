"""Tracks how a particle or nanowire swells: along, across, and until it cracks."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from correlate.cracks import Crack, CrackWatch
from correlate.drift import DriftEstimator, Shift, no_shift, why_unusable
from correlate.gaps import core_of, without_gaps
from correlate.object_shape import Shape, shape_of
from correlate.outline_follower import Measured, OutlineFollower, stacked
from correlate.sums import frame_sums
from correlate.trackers.drift import drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track

Float = NDArray[np.float64]
FIRST_READINGS = 8  # against which changes count: not more than a live tracker learns from
FIRST_FRAMES = (10, 40)  # of which the outline is learned; more where it does not stand out
BINS_PX = (4, 2)
BIN_EDGE, BIN_DIAMETER_PX = 1.2, 24  # of a sum: width of the edge, and of the object, at least
CRACK_WIDTHS, CRACK_PX = 3.0, 1.0  # on both sides of a crack, of the outline, not looked at
EVENLY = 12**-0.5  # sigma of what lies anywhere in a stretch, over that
NAMES = {"length": 1, "diameter": 1, "area": 2, "volume": 3}
UNITS = {1: "m", 2: "m^2", 3: "m^3"}
OPTIONS = {
    "object": Option(
        kind="word", default="dark", words=("dark", "bright"), about="beside what is around it"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SwellingReading:
    """What one frame tells; the reason is empty where the object was found.

    Parameters
    ----------
    values, sigmas
        Of the object without what is missing in its cracks, px and its powers.
    shared
        Parts of the sigmas that all frames share.
    cracks
        Those that are known.
    places
        (x, y) in the frame of what is drawn of it, px.
    stretched
        Whether the outline of the first frames was only moved and stretched.
    """

    shift: Shift
    values: dict[str, float] = field(default_factory=dict)
    sigmas: dict[str, float] = field(default_factory=dict)
    shared: dict[str, float] = field(default_factory=dict)
    cracks: tuple[Crack, ...] = ()
    places: dict[str, tuple[float, float]] = field(default_factory=dict)
    stretched: bool = False
    reason: str = ""


class SwellingTracker:
    """Follows the outline of the largest object.

    Parameters
    ----------
    settings
        With the pixel size; see ``options``.

    Raises
    ------
    CannotTrack
        The pixel size is unknown.
    """

    options = OPTIONS
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
            There is no usable frame, or no object in the first ones.
        """
        return self._learn(frames).track(frames)

    def begin(self, frames: Frames) -> "LiveSwelling":
        """Learn from first frames, and return what follows the object from there on.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no object in the first ones.
        """
        live = self._learn(frames)
        live.track(frames)
        return live

    def _learn(self, frames: Frames) -> "LiveSwelling":
        dark = self._settings.word("object", OPTIONS) == "dark"
        usable = (pixels for pixels in frames() if not why_unusable(pixels))
        first = [np.array(pixels) for pixels in itertools.islice(usable, FIRST_FRAMES[-1])]
        if not first:
            raise CannotTrack("there is no frame that can be used")
        estimator = self._estimator()
        shifts = [estimator.update(pixels) for pixels in first]
        # Where the field tells no shift, a stage that stands still is the best guess.
        places = [(s.dx_px, s.dy_px) if s.valid else (0.0, 0.0) for s in shifts]
        error: CannotTrack | None = None
        for count in FIRST_FRAMES:
            try:
                follower = OutlineFollower(stacked(first[:count], places[:count]), dark=dark)
            except CannotTrack as failed:
                error = failed
                continue
            bin_px = _bin_for(follower)
            if bin_px > 1:
                # Once more, in squares that hold all that the edge has to tell.
                small = [binned(pixels, bin_px) for pixels in first[:count]]
                moved = [(dx / bin_px, dy / bin_px) for dx, dy in places[:count]]
                follower = OutlineFollower(stacked(small, moved), dark=dark)
            return LiveSwelling(self._settings, follower, self._estimator(bin_px), bin_px)
        raise error or CannotTrack("there is no object")

    def _estimator(self, bin_px: int = 1) -> DriftEstimator:
        height, width = self._settings.shape
        try:
            return DriftEstimator((height // bin_px, width // bin_px))
        except ValueError as error:
            raise CannotTrack(str(error)) from error


def _bin_for(follower: OutlineFollower) -> int:
    """Return how many pixels a side may be summed without a loss for this edge and object."""
    small = shape_of(follower.outline).values["diameter"]
    for bin_px in BINS_PX:
        if follower.width_px >= BIN_EDGE * bin_px and small >= BIN_DIAMETER_PX * bin_px:
            return bin_px
    return 1


def binned(pixels: NDArray[np.generic], bin_px: int) -> NDArray[np.generic]:
    """Return the sums of squares of pixels."""
    return pixels if bin_px == 1 else frame_sums(pixels, bin_px).image(bin_px)


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
    bin_px
        Pixels a side that are summed before.
    """

    def __init__(
        self,
        settings: SceneSettings,
        follower: OutlineFollower,
        estimator: DriftEstimator,
        bin_px: int = 1,
    ) -> None:
        self.bin_px = bin_px
        self._settings, self._follower, self._estimator = settings, follower, estimator
        self._watch = CrackWatch()
        self._number = 0
        self._first: list[SwellingReading] = []
        self._known: tuple[Crack, ...] = ()
        self._last = 0.0, 0.0
        self._grown_px = 0.0, 0.0

    def track(self, frames: Frames) -> Track:
        """Follow the object through more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return swelling_track(readings, self._first, self._settings, self.bin_px)

    def update(self, pixels: NDArray[np.generic]) -> SwellingReading:
        """Fit the outline in a frame.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        number, self._number = self._number, self._number + 1
        known = tuple(self._watch.cracks)
        if reason := why_unusable(pixels):
            return SwellingReading(shift=no_shift(reason), reason=reason, cracks=known)
        pixels = binned(pixels, self.bin_px)
        shift = self._estimator.update(pixels)
        found = self._fit(pixels, shift)
        if isinstance(found, str):
            return SwellingReading(shift=self._in_doubt(shift), reason=found, cracks=known)
        known = self._look_for_cracks(number, pixels, found)
        if len(known) > len(self._known):
            # The outline of this frame has taken a new crack for part of the object.
            again = self._follower.fit(pixels)
            found = found if isinstance(again, str) else again
        self._known = known
        values, sigmas = without_gaps(found, known)
        self._note_growth(found.shape)
        reading = SwellingReading(
            shift=self._in_doubt(shift),
            values=values,
            sigmas=sigmas,
            shared=found.shared,
            cracks=tuple(self._watch.cracks),
            places=found.shape.places(),
            stretched=found.stretched,
        )
        if len(self._first) < FIRST_READINGS:
            self._first.append(reading)
        return reading

    def _note_growth(self, shape: Shape) -> None:
        """Remember by how much the object is longer and wider than at first, along x and y."""
        if not self._first:
            return
        longer, wider = (
            shape.values[name] - _start_of(name, self._first)[0] for name in ("length", "diameter")
        )
        along = np.abs(shape.axis)
        grown = np.hypot(np.nan_to_num(longer) * along, np.nan_to_num(wider) * along[::-1])
        self._grown_px = float(grown[0]), float(grown[1])

    def _in_doubt(self, shift: Shift) -> Shift:
        """Return a shift that may follow any part of the object, from one side to the other."""
        return replace(
            shift,
            sigma_x_px=math.hypot(shift.sigma_x_px, self._grown_px[0] * EVENLY),
            sigma_y_px=math.hypot(shift.sigma_y_px, self._grown_px[1] * EVENLY),
        )

    def _fit(self, pixels: NDArray[np.generic], shift: Shift) -> Measured | str:
        follower = self._follower
        found = follower.fit(pixels)
        if isinstance(found, str) and shift.valid:
            # A jump, perhaps. A shift brings the frame onto the reference: the object moved
            # the other way.
            before = follower.outline
            dx, dy = self._last[0] - shift.dx_px, self._last[1] - shift.dy_px
            follower.outline = before.shifted(dx, dy)
            again = follower.fit(pixels)
            if isinstance(again, str):
                follower.outline = before
            else:
                found = again
        if shift.valid and not isinstance(found, str):
            self._last = shift.dx_px, shift.dy_px
        return found

    def _look_for_cracks(
        self, number: int, pixels: NDArray[np.generic], found: Measured
    ) -> tuple[Crack, ...]:
        """Return the cracks of a frame, with what may be one."""
        self._watch.look(number, core_of(pixels, found, self._follower.excess))
        known = (*self._watch.cracks, *self._watch.pending)
        beside = CRACK_WIDTHS * found.fit.width_px + CRACK_PX
        length = found.shape.values["length"]
        self._follower.without = tuple(
            (crack.place - half, crack.place + half)
            for crack in known
            for half in [((crack.gap_px if crack.gap_px > 0 else 0) / 2 + beside) / length]
        )
        return known


def swelling_track(
    readings: Sequence[SwellingReading],
    first: Sequence[SwellingReading],
    settings: SceneSettings,
    bin_px: int = 1,
) -> Track:
    """Return readings as columns, in SI units; changes are against the first readings."""
    size_m = settings.pixel_size_m * bin_px
    columns: dict[str, Float] = {}
    units: dict[str, str] = {}
    ratios: dict[str, tuple[Float, Float]] = {}
    for name, power in NAMES.items():
        value = np.array([r.values.get(name, math.nan) for r in readings])
        sigma = np.array([r.sigmas.get(name, math.nan) for r in readings])
        columns |= {name: value * size_m**power, f"{name}_sigma": sigma * size_m**power}
        units |= dict.fromkeys([name, f"{name}_sigma"], UNITS[power])
        if first:
            start, own = _start_of(name, first)
            ratio = value / start
            ratios[name] = ratio, np.hypot(sigma / start, ratio * own / start)
    if ratios:
        columns |= _changes(ratios)
    columns |= _cracks(readings, size_m)
    units |= {"gap": "m", "gap_sigma": "m"}
    units |= {name: "1" for name in columns if name not in units}
    places = _places(readings, bin_px)
    columns |= places
    units |= dict.fromkeys(places, "px")
    cracks = readings[-1].cracks if readings else ()
    return Track(
        columns=columns,
        units=units,
        valid=np.array([not r.reason for r in readings], dtype=bool),
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "first_frames": float(len(first)),
            "summed_px": float(bin_px),
            "fracture_frame": float(cracks[0].frame) if cracks else -1.0,
            "fracture_place": cracks[0].place if cracks else math.nan,
            "stretched_frames": float(sum(r.stretched for r in readings)),
        },
        drift=drift_columns([_in_pixels(r.shift, bin_px) for r in readings]),
    )


def _places(readings: Sequence[SwellingReading], bin_px: int) -> dict[str, Float]:
    """Return both ends and both sides of the object, in px of the reference."""
    columns: dict[str, Float] = {}
    shifts = np.nan_to_num([(r.shift.dx_px, r.shift.dy_px) for r in readings]).reshape(-1, 2)
    for name, of, share in (
        ("end_1", "length", math.sqrt(0.5)),  # each has half of its variance
        ("end_2", "length", math.sqrt(0.5)),
        ("side_1", "diameter", 0.5),
        ("side_2", "diameter", 0.5),
    ):
        sigma = share * np.array([r.sigmas.get(of, math.nan) for r in readings])
        at = np.array([r.places.get(name, (math.nan, math.nan)) for r in readings]).reshape(-1, 2)
        at[np.isnan(sigma)] = math.nan
        # A pixel of a sum of squares has its middle between those of its pixels.
        at = (at + shifts + 0.5) * bin_px - 0.5
        for axis, value in zip("xy", at.T, strict=True):
            columns |= {f"{name}_{axis}_px": value, f"{name}_{axis}_px_sigma": sigma * bin_px}
    return columns


def _start_of(name: str, first: Sequence[SwellingReading]) -> tuple[float, float]:
    """Return the mean of the first readings of a number, and its sigma."""
    known = [r for r in first if math.isfinite(r.sigmas[name])]
    if not known:
        return math.nan, math.nan
    alone = sum(r.sigmas[name] ** 2 - r.shared[name] ** 2 for r in known) / len(known) ** 2
    shared = sum(r.shared[name] ** 2 for r in known) / len(known)
    return float(np.mean([r.values[name] for r in known])), math.sqrt(alone + shared)


def _in_pixels(shift: Shift, bin_px: int) -> Shift:
    return replace(
        shift,
        dx_px=shift.dx_px * bin_px,
        dy_px=shift.dy_px * bin_px,
        sigma_x_px=shift.sigma_x_px * bin_px,
        sigma_y_px=shift.sigma_y_px * bin_px,
    )


def _cracks(readings: Sequence[SwellingReading], size_m: float) -> dict[str, Float]:
    """Return how many cracks there are, in how many parts the object is, and all gaps."""
    gaps = np.full((len(readings), 2), math.nan)
    for row, reading in enumerate(readings):
        if reading.cracks and not reading.reason:
            found = np.array([(c.gap_px, c.gap_sigma_px) for c in reading.cracks])
            gaps[row] = found[:, 0].sum(), math.sqrt(float(np.sum(found[:, 1] ** 2)))
    return {
        "cracks": np.array([float(len(r.cracks)) for r in readings]),
        "cracks_sigma": np.full(len(readings), 0.5),  # one may be about to stand out
        "parts": np.array([1.0 + sum(c.apart for c in r.cracks) for r in readings]),
        "parts_sigma": np.full(len(readings), 0.5),
        "gap": gaps[:, 0] * size_m,
        "gap_sigma": gaps[:, 1] * size_m,
    }


def _changes(ratios: dict[str, tuple[Float, Float]]) -> dict[str, Float]:
    """Return relative changes, and what bounds that of the volume.

    The depth along the beam is not seen: it has stayed, or has grown as the width did, or
    as the length did. The volume of revolution is the second of these.
    """
    columns: dict[str, Float] = {}
    for name in NAMES:
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
            # The same outline makes both: their sigmas add up.
            f"volume_change_{name}_sigma": area_sigma * depth + area * own,
        }
    return columns
