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

from correlate.bragg import STRIDE_PX, WINDOW_PX, Ring, nearest, turning
from correlate.drift import DriftEstimator, Shift, why_unusable
from correlate.trackers.drift import LONG_REFERENCE, drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track

LI_110_M = 2.48e-10  # of metallic lithium, a = 0.351 nm
FIRST_FRAMES, EVERY_FRAME = 8, 12  # looked at live, and of a whole recording
PAD_PX = 8  # of the field on each side, for windows that follow the specimen
SOFT = 0.25, 0.75  # shares of the full amplitude between which the edge of a lattice lies
SURE = 0.5  # of the power of the strongest windows
LEVER = 3.0
INNER = 0.92  # of the full amplitude, where spacing and direction are measured
# What is lost of the area of an island, whatever its size, as a share of the window's square:
# a window's average moves an edge inwards by its curvature, which adds up to one turn.
LOST_RATIO, LOST_SIGMA_RATIO = 0.1, 0.012
CORNER_RATIO = 0.25  # of the window: so far from the next, an edge errs by itself
EDGE_DEPTH = 0.27  # of the window, over which an edge is soft
EDGE_PX = 0.45  # by which such a piece of an edge is off, with what lies between windows
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
    """What was learned: the coefficient of a window full of lattice, by the mean count."""

    amplitude: float
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
        inner: list[Floats] = []
        every: list[Floats] = []
        usable = 0
        for pixels in itertools.islice(frames(), most):
            mean = float(pixels.sum(dtype=np.float64)) / pixels.size
            if not mean > 0 or not np.isfinite(mean):
                continue
            usable += 1
            share, seen, _, _ = look(self._ring, pixels, PAD_PX, PAD_PX)
            share = share / mean
            if np.any(seen):
                half = share > 0.5 * np.percentile(share[seen], 90)
                every.append(share[half])
                inner.append(share[ndimage.binary_erosion(half, iterations=2)])
        found = np.concatenate(inner) if inner else np.zeros(0)
        if len(found) == 0 and every:
            top = np.concatenate(every)
            found = top[top >= np.percentile(top, 75)]
        if len(found) == 0:
            raise CannotTrack(
                f"no lattice of {self._settings.number('spacing', OPTIONS) * 1e10:.2f} angstrom "
                f"stands out in the {usable} frames that were looked at; check spacing and "
                "pixel size"
            )
        return LatticeModel(amplitude=float(np.median(found)), spacing_px=self._ring.spacing_px)


class LiveLattice:
    """Looks for a lattice that is known, frame by frame or chunk by chunk."""

    def __init__(self, settings: SceneSettings, ring: Ring, model: LatticeModel) -> None:
        self._settings, self._ring, self._model = settings, ring, model
        try:
            self._estimator = DriftEstimator(settings.shape, reference_frames=LONG_REFERENCE)
        except ValueError as error:
            raise CannotTrack(str(error)) from error
        self._at = 0, 0
        self._overlap = ring.overlap()

    def track(self, frames: Frames) -> Track:
        """Look for the lattice in more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return lattice_track(readings, self._model, self._settings)

    def update(self, pixels: NDArray[np.generic]) -> LatticeReading:
        """Look for the lattice in a frame.

        A frame that cannot be registered is looked at all the same, where the one before
        was: what is seen does not hang on it.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        shift = self._estimator.update(pixels)
        if not shift.valid and why_unusable(pixels):
            return LatticeReading(shift=shift, reason=shift.reason)
        if shift.valid:
            self._at = -round(shift.dy_px), -round(shift.dx_px)
        down, right = (min(max(v, -PAD_PX), PAD_PX) for v in self._at)
        y0, x0 = PAD_PX + down, PAD_PX + right
        height, width = self._settings.shape
        part = pixels[: y0 + height - 2 * PAD_PX, : x0 + width - 2 * PAD_PX]
        strength, _, noise, peaks = look(self._ring, part, y0, x0)
        full = self._model.amplitude * float(pixels.sum(dtype=np.float64)) / pixels.size
        share = strength / full
        low, high = SOFT
        # Of the windows at the edge alone: the others are sure.
        edge = (share > low) & (share < high)
        each = edge * np.sqrt(noise / 2) / full / (high - low)
        variance = float(np.sum(each * ndimage.correlate(each, self._overlap, mode="constant")))
        cell, window2 = float(STRIDE_PX**2), float(self._ring.window_px**2)
        turns = turning(share > 0.5)
        length_px = np.count_nonzero(edge) * cell / (EDGE_DEPTH * self._ring.window_px)
        pieces = length_px / (CORNER_RATIO * self._ring.window_px)
        unseen = EDGE_PX * length_px / math.sqrt(max(pieces, 1.0))
        islands = ndimage.label(share > 0.5)[1] + ndimage.label(share <= 0.5)[1]
        lost = LOST_SIGMA_RATIO * window2 * math.sqrt(islands)
        area = cell * float(np.clip((share - low) / (high - low), 0.0, 1.0).sum())
        reading = LatticeReading(
            shift=shift,
            area_px=max(area + LOST_RATIO * window2 * turns, 0.0),
            area_sigma_px=math.sqrt(cell**2 * max(variance, 0.0) + unseen**2 + lost**2),
            field_px=(share.shape[0] * STRIDE_PX, share.shape[1] * STRIDE_PX),
        )
        inner = np.isfinite(peaks[..., 0]) & (share > INNER)
        return (
            self._measured(reading, inner, share, noise / full**2, peaks)
            if inner.any()
            else reading
        )

    def _measured(
        self,
        reading: LatticeReading,
        inner: NDArray[np.bool_],
        share: Floats,
        noise: Floats,
        peaks: Floats,
    ) -> LatticeReading:
        """Add spacing and direction, from the windows inside of the lattice."""
        kx, ky = peaks[inner].T
        power = share[inner] ** 2
        weight = power / power.sum()
        twice = complex(np.sum(weight * np.exp(2j * np.arctan2(ky, kx))))
        angle = 0.5 * math.atan2(twice.imag, twice.real)
        frequency = float(weight @ np.hypot(kx, ky))
        each, direction = np.zeros(noise.shape), np.zeros(noise.shape)
        direction[inner] = np.arctan2(ky, kx)
        # What a window lacks is far from its middle, where it would tell most.
        lever = np.clip(1 - LEVER * (1 - share[inner]), 0.5, 1.0)
        each[inner] = weight * np.sqrt(self._ring.frequency_gain * noise[inner] / power) / lever
        along, across = (
            math.sqrt(max(self._ring.frequency_variance(each, turn), 0.0))
            for turn in (direction, direction + math.pi / 2)
        )
        return replace(
            reading,
            spacing_px=1 / frequency,
            spacing_sigma_px=along / frequency**2,
            orientation_rad=angle,
            orientation_sigma_rad=across / frequency,
        )


def look(
    ring: Ring, pixels: NDArray[np.generic], y0: int, x0: int
) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
    """Look for a lattice in a frame.

    Returns
    -------
    strength
        Root of the squared Fourier coefficient of each window less its noise, at the
        frequency of the nearest window that shows a lattice; 0 far from all of them.
    seen
        Which windows show one by themselves.
    noise
        Mean squared coefficient of noise.
    peaks
        Frequency (kx, ky) in the windows that show one, NaN elsewhere.
    """
    windows = ring.look(pixels, y0, x0)
    background = ring.background(windows)
    noise, seen = windows.noise * background, windows.seen(background)
    strength, peaks = np.zeros(seen.shape), np.full((*seen.shape, 2), math.nan)
    reach = ring.window_px / STRIDE_PX
    sure = (
        seen & (windows.power > SURE * np.percentile(windows.power[seen], 90))
        if seen.any()
        else seen
    )
    # A window that shows a part of a lattice takes the frequency from one that is full of it:
    # its own would be where noise adds most.
    alone = seen & (ndimage.distance_transform_edt(~sure) > reach) if sure.any() else seen
    sources = sure | alone
    at, which = nearest(sources, reach)
    if len(at):
        found = ring.peaks(pixels, y0, x0, np.argwhere(sources), windows.best[sources])
        peaks[sources] = found
        values = ring.coefficients(pixels, y0, x0, at, found[which])
        # At a peak that was fitted in a window, its noise counts twice: two unknowns more.
        times = 1.0 + sources[at[:, 0], at[:, 1]]
        own = np.abs(values) ** 2 - times * noise[at[:, 0], at[:, 1]]
        strength[at[:, 0], at[:, 1]] = np.sqrt(np.maximum(own, 0.0))
    return strength, seen, noise, peaks


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
