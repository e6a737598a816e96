"""Tracks where a lattice of one spacing is seen: its area, thickness, spacing and orientation.

Each window of a frame is asked for fringes of that spacing in any direction. Metallic
lithium by its (110) planes is what is looked for unless another spacing is told.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.bragg import STRIDE_PX, WINDOW_PX, Ring
from correlate.drift import Shift, no_shift, why_unusable
from correlate.lattice_area import Area, area_of
from correlate.lattice_place import PlaceFinder
from correlate.lattice_sight import Sight, look
from correlate.trackers.drift import LONG_REFERENCE, drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track

LI_110_M = 2.48e-10  # of metallic lithium, a = 0.351 nm
FIRST_FRAMES, EVERY_FRAME = 8, 12  # looked at live, and of a whole recording
PAD_PX = 8  # of the field on each side, for windows that follow the specimen
INNER = 0.92  # of the full amplitude, where spacing and direction are measured
ALIKE = 0.5  # of a window's resolution, within which two frequencies are of one crystal
SPREAD = 0.01  # of the amplitude from place to place, before any is seen
Floats = NDArray[np.float64]
OPTIONS = {
    "spacing": Option(kind="length", default=LI_110_M, about="of the lattice that is looked for"),
    "window": Option(kind="number", default=float(WINDOW_PX), about="side of a window in px"),
    "across": Option(
        kind="word", default="x", words=("x", "y"), about="direction in which a layer is thick"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeReading:
    """What one frame tells, in px; the reason is empty where it could be used.

    Parameters
    ----------
    area_px, area_sigma_px
        Of the lattice, in px^2.
    field_px
        Of the field that was looked at.
    spacing_px, spacing_sigma_px, orientation_rad, orientation_sigma_rad
        NaN where no window lies inside of the lattice.
    """

    shift: Shift
    area_px: float = math.nan
    area_sigma_px: float = math.nan
    field_px: tuple[float, float] = (math.nan, math.nan)
    spacing_px: float = math.nan
    spacing_sigma_px: float = math.nan
    orientation_rad: float = math.nan
    orientation_sigma_rad: float = math.nan
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeModel:
    """What was learned of windows that are full of lattice.

    Parameters
    ----------
    amplitude, amplitude_sigma
        Mean Fourier coefficient, by the mean count of a frame.
    spread
        By how much of itself the coefficient differs from place to place.
    spacing_px
        That was told.
    """

    amplitude: float
    amplitude_sigma: float
    spread: float
    spacing_px: float


class LatticeTracker:
    """Looks for a lattice.

    Parameters
    ----------
    settings
        With the pixel size, and options, see ``options``.

    Raises
    ------
    CannotTrack
        The pixel size is not known, or the spacing cannot be seen with it.
    """

    options = OPTIONS
    quantities = ("area", "thickness", "crystalline_fraction", "strain")

    def __init__(self, settings: SceneSettings) -> None:
        if not math.isfinite(settings.pixel_size_m):
            raise CannotTrack(
                "the lattice tracker needs the pixel size; give pixel_size in the experiment file"
            )
        self._settings = settings
        window_px = int(settings.number("window", OPTIONS))
        if window_px < 2 * STRIDE_PX or min(settings.shape) < window_px + 2 * PAD_PX:
            raise CannotTrack(
                f"a window of {window_px} px does not fit: it has {2 * STRIDE_PX} px or more, and "
                f"frames are {2 * PAD_PX} px larger"
            )
        try:
            spacing_px = settings.number("spacing", OPTIONS) / settings.pixel_size_m
            self._ring = Ring(spacing_px, window_px)
        except ValueError as error:
            raise CannotTrack(str(error)) from error

    def track(self, frames: Frames) -> Track:
        """Look for the lattice in all frames.

        Raises
        ------
        CannotTrack
            There is no usable frame, or the lattice in none of those looked at.
        """
        count = sum(1 for _ in frames())
        every = max(count // EVERY_FRAME, 1)

        def some() -> Iterable[NDArray[np.generic]]:
            return itertools.islice(frames(), 0, None, every)

        return LiveLattice(self._settings, self._ring, self._learn(some)).track(frames)

    def begin(self, frames: Frames) -> "LiveLattice":
        """Learn from first frames, and return what looks for the lattice from there on.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no lattice in the first ones.
        """
        live = LiveLattice(self._settings, self._ring, self._learn(frames, FIRST_FRAMES))
        live.track(frames)
        return live

    def _learn(self, frames: Frames, most: int = 2 * EVERY_FRAME) -> LatticeModel:
        inner, top = Means(), Means()
        usable = 0
        for pixels in itertools.islice(frames(), most):
            mean = float(pixels.sum(dtype=np.float64)) / pixels.size
            if not mean > 0 or not np.isfinite(mean):
                continue
            usable += 1
            sight = look(self._ring, pixels, PAD_PX, PAD_PX)
            share = sight.strength / mean
            if np.any(sight.seen):
                half = share > 0.5 * np.percentile(share[sight.seen], 90)
                noise = sight.noise / (2 * mean**2)
                inner.add(share, noise, ndimage.binary_erosion(half, iterations=2))
                top.add(share, noise, share >= np.percentile(share[half], 75))
        found = inner if inner.any() else top
        if not found.any():
            raise CannotTrack(
                f"no lattice of {self._settings.number('spacing', OPTIONS) * 1e10:.2f} angstrom "
                f"stands out in the {usable} frames that were looked at; check spacing and "
                "pixel size"
            )
        amplitude, sigma, spread = found.told(self._ring.overlap())
        return LatticeModel(
            amplitude=amplitude,
            amplitude_sigma=sigma,
            spread=spread,
            spacing_px=self._ring.spacing_px,
        )


class Means:
    """Means of what some windows tell, over frames."""

    def __init__(self) -> None:
        self._sum: Floats = np.zeros((1, 1))
        self._noise: Floats = np.zeros((1, 1))
        self._count: Floats = np.zeros((1, 1))

    def add(self, values: Floats, variances: Floats, where: NDArray[np.bool_]) -> None:
        """Add the windows of one frame that count, shape (rows, columns)."""
        self._sum = self._sum + np.where(where, values, 0.0)
        self._noise = self._noise + np.where(where, variances, 0.0)
        self._count = self._count + where

    def any(self) -> bool:
        """Tell whether any window counted."""
        return bool(self._count.any())

    def told(self, overlap: Floats) -> tuple[float, float, float]:
        """Return mean, its sigma, and by how much of itself the truth differs by window."""
        where = self._count > 0
        each = self._sum[where] / self._count[where]
        mean, n = float(each.mean()), len(each)
        # Windows that overlap tell the same: so many of them are as good as one.
        alone = float(np.sum(ndimage.correlate(where * 1.0, overlap, mode="constant")[where]))
        free = n**2 / alone - 1
        # One window's worth is foreseen, for lattices that show hardly more.
        squares = (float(np.var(each / mean)) * (free + 1) + SPREAD**2) / (free + 1)
        noise = float(np.mean(self._noise[where] / self._count[where] ** 2)) / mean**2
        squares = max(squares, noise)
        return mean, mean * math.sqrt(squares / (free + 1)), math.sqrt(squares - noise)


class LiveLattice:
    """Looks for a lattice that is known, frame by frame or chunk by chunk."""

    def __init__(self, settings: SceneSettings, ring: Ring, model: LatticeModel) -> None:
        self._settings, self._ring, self._model = settings, ring, model
        try:
            self._finder = PlaceFinder(settings.shape, ring.spacing_px, PAD_PX, LONG_REFERENCE)
        except ValueError as error:
            raise CannotTrack(str(error)) from error
        self._overlap = ring.overlap()

    def track(self, frames: Frames) -> Track:
        """Look for the lattice in more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return lattice_track(readings, self._model, self._settings)

    def update(self, pixels: NDArray[np.generic]) -> LatticeReading:
        """Look for the lattice in a frame.

        A frame that cannot be registered is looked at all the same, where the one before
        was, and its sigma holds what may have come into the field.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        if reason := why_unusable(pixels):
            return LatticeReading(shift=no_shift(reason), reason=reason)
        place = self._finder.update(pixels)
        down, right = (min(max(round(v), -PAD_PX), PAD_PX) for v in (place.y_px, place.x_px))
        y0, x0 = PAD_PX + down, PAD_PX + right
        height, width = self._settings.shape
        part = pixels[: y0 + height - 2 * PAD_PX, : x0 + width - 2 * PAD_PX]
        sight = look(self._ring, part, y0, x0)
        full = self._model.amplitude * float(pixels.sum(dtype=np.float64)) / pixels.size
        share = sight.strength / full
        side = self._ring.window_px
        scatter = 0.5 * sight.noise / full**2
        area = area_of(share, scatter, alike(sight, ALIKE / side), side)
        off_x, off_y = place.x_px - right, place.y_px - down
        gained_x, gained_y = area.gained_px
        variances = (
            self._counted(part, sight, area.slope_px, full),
            self._uneven(area, share),
            (float(np.sum(area.slope_px * share)) * self._relative_sigma()) ** 2,
            area.shape_sigma_px**2,
            (gained_x * place.sigma_x_px) ** 2 + (gained_y * place.sigma_y_px) ** 2,
        )
        reading = LatticeReading(
            shift=place.shift,
            area_px=max(area.area_px + off_x * gained_x + off_y * gained_y, 0.0),
            area_sigma_px=math.sqrt(sum(variances)),
            field_px=(share.shape[0] * STRIDE_PX, share.shape[1] * STRIDE_PX),
        )
        return self._measured(reading, part, sight, share)

    def _relative_sigma(self) -> float:
        return self._model.amplitude_sigma / self._model.amplitude

    def _counted(
        self, pixels: NDArray[np.generic], sight: Sight, slope_px: Floats, full: float
    ) -> float:
        """Return the variance of the area by counts."""
        some = (slope_px != 0) & np.isfinite(sight.value)
        value = sight.value[some]
        # Near noise a root errs no more than what it is the root of.
        size = np.maximum(sight.strength[some], 0.5 * np.abs(value))
        pulls = np.zeros((len(value), 3), np.complex128)
        pulls[:, 0] = slope_px[some] * np.conj(value) / size / full
        return self._variance(pixels, sight, np.argwhere(some), sight.frequency[some], pulls)

    def _uneven(self, area: Area, share: Floats) -> float:
        """Return the variance of the area by what the amplitude differs from place to place."""
        each = area.slope_px * self._model.spread * np.sqrt(np.clip(share, 0.0, 1.0))
        return float(np.sum(each * ndimage.correlate(each, self._overlap, mode="constant")))

    def _variance(
        self,
        pixels: NDArray[np.generic],
        sight: Sight,
        at: NDArray[np.intp],
        frequency: Floats,
        pulls: NDArray[np.complex128],
    ) -> float:
        shape = pixels.shape[0], pixels.shape[1]
        pull = self._ring.pull(shape, sight.corner, at, frequency, pulls)
        counts = np.maximum(np.asarray(pixels, dtype=np.float64), 0.0)
        return sight.background * float(np.sum(counts * pull**2))

    def _measured(
        self,
        reading: LatticeReading,
        pixels: NDArray[np.generic],
        sight: Sight,
        share: Floats,
    ) -> LatticeReading:
        """Add spacing and direction, from the windows inside of the lattice."""
        inner = (sight.number >= 0) & (share > INNER)
        if sight.peaks is None or not inner.any():
            return reading
        which, at = sight.number[inner], np.argwhere(inner)
        found = sight.peaks.frequency[which]
        power = share[inner] ** 2
        weight = power / power.sum()
        size = np.hypot(found[:, 0], found[:, 1])
        angle = np.arctan2(found[:, 1], found[:, 0])
        twice = complex(np.sum(weight * np.exp(2j * angle)))
        mean = 0.5 * math.atan2(twice.imag, twice.real)
        frequency = float(weight @ size)
        along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * weight[:, None]
        turns = weight * np.cos(2 * (angle - mean)) / (abs(twice) * size)
        across = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * turns[:, None]
        sigma, turn_sigma = (
            math.sqrt(self._variance(pixels, sight, at, found, sight.peaks.pulls(which, asked)))
            for asked in (along, across)
        )
        return replace(
            reading,
            spacing_px=1 / frequency,
            spacing_sigma_px=sigma / frequency**2,
            orientation_rad=mean,
            orientation_sigma_rad=turn_sigma,
        )


def alike(sight: Sight, within: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether a window and the next see the same crystal: to the right, and below."""

    def same(a: Floats, b: Floats) -> NDArray[np.bool_]:
        # A wave and its mirror image are the same fringes.
        either = [np.hypot(d[..., 0], d[..., 1]) for d in (a - b, a + b)]
        return np.asarray(np.minimum(*either) < within)

    k = sight.frequency
    return same(k[:, 1:], k[:, :-1]), same(k[1:], k[:-1])


def lattice_track(
    readings: Sequence[LatticeReading], model: LatticeModel, settings: SceneSettings
) -> Track:
    """Return readings as columns, in SI units."""
    size_m = settings.pixel_size_m

    def column(name: str) -> Floats:
        return np.array([getattr(r, name) for r in readings], dtype=np.float64)

    field_px = np.array([r.field_px for r in readings]).reshape(len(readings), 2)
    long = field_px[:, 1 if settings.word("across", OPTIONS) == "y" else 0]
    area, area_sigma = column("area_px"), column("area_sigma_px")
    spacing, spacing_sigma = column("spacing_px"), column("spacing_sigma_px")
    whole = field_px.prod(axis=1)
    columns = {
        "area": area * size_m**2,
        "area_sigma": area_sigma * size_m**2,
        "thickness": area / long * size_m,
        "thickness_sigma": area_sigma / long * size_m,
        "crystalline_fraction": area / whole,
        "crystalline_fraction_sigma": area_sigma / whole,
        "spacing": spacing * size_m,
        "spacing_sigma": spacing_sigma * size_m,
        "strain": spacing / model.spacing_px - 1,
        "strain_sigma": spacing_sigma / model.spacing_px,
        "orientation": column("orientation_rad"),
        "orientation_sigma": column("orientation_sigma_rad"),
    }
    unit = {"area": "m^2", "thickness": "m", "spacing": "m", "orientation": "rad"}
    return Track(
        columns=columns,
        units={name: unit.get(name.removesuffix("_sigma"), "1") for name in columns},
        valid=np.array([not r.reason for r in readings], dtype=bool),
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "spacing_told": model.spacing_px * size_m,
            "full_amplitude": model.amplitude,
            "window": settings.number("window", OPTIONS) * size_m,
        },
        drift=drift_columns([r.shift for r in readings]),
    )
