"""Tracks the profile across an interface: where it stands, how wide it is, how far it drops.

The counts are summed along the interface, which runs up and down the frames; with
``across = "y"`` it runs from side to side. Serves concentration maps and potential maps
alike: what a count stands for is told by ``per_count``.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.drift import DriftEstimator, Shift, why_unusable
from correlate.profile_line import (
    FEWEST_PX,
    ProfileFit,
    ProfileNoise,
    derivatives,
    excess_of,
    fit_profile,
    reach_px,
    step_ratio,
    texture_of,
)
from correlate.trackers.drift import LONG_REFERENCE, drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track
from correlate.window import Band

FIRST_FRAMES = 20
FIRST_WIDTHS_PX = (2.0, 6.0, 18.0)
BLOCKS = 10
MIN_SIGNIFICANCE = 12.0  # of the step in the first frames
SEEN_SIGNIFICANCE = 12.0  # in one frame: below, place and width are not told together
JUMP_SIGMAS, JUMP_PX = 8.0, 6.0
LOST_FRAMES = 5  # without the interface before it is looked for everywhere
BAND_WIDTHS = 3.0  # of the interface, that take no part in registration
OPTIONS = {
    "across": Option(
        kind="word", default="x", words=("x", "y"), about="direction that crosses the interface"
    ),
    "drift": Option(
        kind="word",
        default="tracked",
        words=("tracked", "none"),
        about="none for maps that are aligned already, or too small to be registered",
    ),
    "near": Option(
        kind="length", default=math.nan, about="where the interface stands, from the left or top"
    ),
    "per_count": Option(
        kind="number", default=1.0, about="what a count of a pixel stands for, such as volts"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReading:
    """What one frame tells; the reason is empty where the interface was found."""

    shift: Shift
    fit: ProfileFit | None = None
    reason: str = ""


class ProfileTracker:
    """Follows an interface by the step in a line profile across it.

    Parameters
    ----------
    settings
        With the pixel size, and options, see ``options``.

    Raises
    ------
    CannotTrack
        The pixel size is not known.
    """

    options = OPTIONS
    quantities = ("position", "velocity", "width")

    def __init__(self, settings: SceneSettings) -> None:
        if not math.isfinite(settings.pixel_size_m):
            raise CannotTrack(
                "the profile tracker needs the pixel size; give pixel_size in the experiment file"
            )
        self._settings = settings
        self._flipped = settings.word("across", OPTIONS) == "y"
        height, width = settings.shape
        self._shape = (width, height) if self._flipped else (height, width)
        self._registered = settings.word("drift", OPTIONS) == "tracked"

    def track(self, frames: Frames) -> Track:
        """Follow the interface through all frames.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no step stands out in the first ones.
        """

        def first_frames() -> Iterable[NDArray[np.generic]]:
            return itertools.islice(frames(), FIRST_FRAMES)

        first = self._place(first_frames)
        noise = self._learned(first, first_frames).noise
        # Afresh from the first frame: none is registered onto a reference that it is in.
        live = LiveProfile(self._settings, first, noise, self._registrar(_band(first)))
        track = live.track(frames)
        if self._registered and np.any(track.valid):
            # Where the interface has been takes no part in registration.
            band = _union(_band(first), live.seen)
            live = LiveProfile(self._settings, first, noise, self._registrar(band))
            track = live.track(frames)
        return track

    def begin(self, frames: Frames) -> "LiveProfile":
        """Learn from first frames, and return what follows the interface from there on.

        Raises
        ------
        CannotTrack
            There is no usable frame, or no step stands out.
        """
        return self._learned(self._place(frames), frames)

    def _learned(self, first: ProfileFit, frames: Frames) -> "LiveProfile":
        live = LiveProfile(self._settings, first, ProfileNoise(), self._registrar(_band(first)))
        live.learn(frames)
        return live

    def _place(self, frames: Frames) -> ProfileFit:
        """Find the most significant step in the mean of the first frames."""
        total, count, why = np.zeros(self._shape[1]), 0, "there is no frame"
        for pixels in frames():
            why = why_unusable(pixels) or why
            if not why_unusable(pixels):
                total += (pixels.T if self._flipped else pixels).sum(axis=0, dtype=np.float64)
                count += 1
        if count == 0:
            raise CannotTrack(f"no frame can be used: {why}")
        x = np.arange(self._shape[1], dtype=np.float64)
        near = self._settings.number("near", OPTIONS) / self._settings.pixel_size_m
        found = [_search(x, total, width, near) for width in FIRST_WIDTHS_PX]
        fits = [fit for fit in found if fit is not None and fit.converged]
        best = max(fits, key=lambda fit: fit.significance, default=None)
        seen = max((fit.significance for fit in found if fit is not None), default=0.0)
        if best is None or best.significance < MIN_SIGNIFICANCE:
            raise CannotTrack(
                f"no interface stands out in the profile (best step {seen:.1f} sigma, "
                f"{MIN_SIGNIFICANCE:.0f} are asked); if it runs the other way, say so with "
                "across, and where it stands with near"
            )
        return best

    def _registrar(self, band: Band) -> DriftEstimator | None:
        if not self._registered:
            return None
        try:
            return DriftEstimator(self._shape, band=band, reference_frames=LONG_REFERENCE)
        except ValueError as error:
            raise CannotTrack(f'{error}; with drift = "none" they are taken as they are') from error


def _band(fit: ProfileFit) -> Band:
    """Return the columns in which an interface is seen."""
    half = max(BAND_WIDTHS * fit.width_px, JUMP_PX)
    return Band(left_px=fit.position_px - half, right_px=fit.position_px + half)


def _union(a: Band, b: Band) -> Band:
    return Band(left_px=min(a.left_px, b.left_px), right_px=max(a.right_px, b.right_px))


def _search(
    x: NDArray[np.float64], total: NDArray[np.float64], width: float, near: float
) -> ProfileFit | None:
    """Look for a step of about a width, everywhere or around a place."""
    part = np.ones(len(x), dtype=bool)
    if math.isfinite(near):
        part = np.abs(x - near) <= reach_px(width)
    if part.sum() < FEWEST_PX:
        return None
    rough = fit_profile(x[part], total[part], None, width)
    close = np.abs(x - rough.position_px) <= reach_px(rough.width_px)
    if close.sum() < FEWEST_PX:
        return None
    return fit_profile(x[close], total[close], rough.position_px, rough.width_px)


class LiveProfile:
    """Follows an interface that is known, frame by frame or chunk by chunk.

    Parameters
    ----------
    settings
        What is known of the scene.
    first
        The interface in the first frames.
    noise
        What moves it beside counts.
    estimator
        Registers the frames; None for frames that are taken as they are.

    Attributes
    ----------
    noise
        As given, or as learned.
    seen
        Columns in which the interface has been.
    """

    def __init__(
        self,
        settings: SceneSettings,
        first: ProfileFit,
        noise: ProfileNoise,
        estimator: DriftEstimator | None,
    ) -> None:
        self._settings, self.noise, self._estimator = settings, noise, estimator
        self._flipped = settings.word("across", OPTIONS) == "y"
        self._place_px, self._width_px = first.position_px, first.width_px
        self.seen = _band(first)
        self._lost = 0

    def learn(self, frames: Frames) -> None:
        """Learn from first frames how noisy counts and specimen are."""
        lines: list[NDArray[np.float64]] = []
        models: list[NDArray[np.float64]] = []
        blocks = np.zeros((1, 1))
        at = _columns(self._place_px, self._width_px, self._shape[1])
        for pixels in frames():
            reading = self.update(pixels)
            if reading.fit is None:
                continue
            image = np.asarray(pixels.T if self._flipped else pixels, dtype=np.float64)
            moved = _moved(_blocks(image), at - reading.shift.dx_px)
            _, model = _model(at, reading.fit)
            lines.append(moved.sum(axis=0))
            models.append(model)
            blocks = moved + blocks
        if not lines:
            raise CannotTrack("the interface was found in none of the first frames")
        excess = excess_of(lines, models)
        total = fit_profile(at, np.sum(lines, axis=0), self._place_px, self._width_px)
        texture = texture_of(at, blocks, total, excess)
        self.noise = ProfileNoise(
            excess=excess,
            texture=texture,
            width_px=total.width_px,
            step_ratio=step_ratio(total),
        )

    @property
    def _shape(self) -> tuple[int, int]:
        height, width = self._settings.shape
        return (width, height) if self._flipped else (height, width)

    def track(self, frames: Frames) -> Track:
        """Follow the interface through more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return profile_track(readings, self.noise, self._settings)

    def update(self, pixels: NDArray[np.generic]) -> ProfileReading:
        """Register a frame and fit the interface in it.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        turned = pixels.T if self._flipped else pixels
        shift = self._register(np.ascontiguousarray(turned))
        if not shift.valid:
            return ProfileReading(shift=shift, reason=shift.reason)
        line = turned.sum(axis=0, dtype=np.float64)
        fit = self._fit(line, shift.dx_px)
        if isinstance(fit, str):
            self._miss(line, shift.dx_px)
            return ProfileReading(shift=shift, reason=fit)
        self._lost, self._place_px, self._width_px = 0, fit.position_px, fit.width_px
        self.seen = _union(self.seen, _band(fit))
        return ProfileReading(shift=shift, fit=fit)

    def _register(self, pixels: NDArray[np.generic]) -> Shift:
        if self._estimator is not None:
            return self._estimator.update(pixels)
        reason, nan = why_unusable(pixels), math.nan
        still = nan if reason else 0.0
        return Shift(
            dx_px=still,
            dy_px=still,
            sigma_x_px=still,
            sigma_y_px=still,
            quality=nan,
            valid=not reason,
            reason=reason,
        )

    def _fit(self, line: NDArray[np.float64], shift_px: float) -> ProfileFit | str:
        at = np.arange(len(line)) + shift_px
        close = np.abs(at - self._place_px) <= reach_px(self._width_px)
        if not 0 < self._place_px - shift_px < len(line) - 1 or close.sum() < FEWEST_PX:
            return "the interface has left the field"
        fit = fit_profile(at[close], line[close], self._place_px, self._width_px)
        if fit.significance < SEEN_SIGNIFICANCE * self.noise.excess:
            return "no step stands out where the interface should be"
        sigma = math.sqrt(fit.covariance[0, 0]) * self.noise.excess
        if not fit.converged or not math.isfinite(sigma):
            return "the fit did not settle"
        if abs(fit.position_px - self._place_px) > max(JUMP_SIGMAS * sigma, JUMP_PX):
            return "a jump beyond what the interface can move"
        return fit

    def _miss(self, line: NDArray[np.float64], shift_px: float) -> None:
        """Note a frame without the interface; after some, look for it everywhere."""
        self._lost += 1
        if self._lost < LOST_FRAMES:
            return
        fit = _search(
            np.arange(len(line), dtype=np.float64) + shift_px, line, self._width_px, math.nan
        )
        if (
            fit is not None
            and fit.converged
            and fit.significance > MIN_SIGNIFICANCE * self.noise.excess
        ):
            self._place_px, self._width_px, self._lost = fit.position_px, fit.width_px, 0


def _columns(place_px: float, width_px: float, size: int) -> NDArray[np.float64]:
    reach = reach_px(width_px)
    low, high = max(math.ceil(place_px - reach), 0), min(math.floor(place_px + reach), size - 1)
    return np.arange(low, high + 1, dtype=np.float64)


def _blocks(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the column sums of stretches of equal height; rows left over take no part."""
    count = min(BLOCKS, image.shape[0])
    each = image.shape[0] // count
    return np.asarray(image[: count * each].reshape(count, each, -1).sum(axis=1))


def _moved(blocks: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the columns nearest to some places; counts stay what they were."""
    nearest = np.clip(np.rint(at).astype(int), 0, blocks.shape[1] - 1)
    return np.asarray(blocks[:, nearest])


def _model(
    at: NDArray[np.float64], fit: ProfileFit
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return derivatives(at, fit.position_px, fit.width_px, fit.left, fit.right)


def profile_track(
    readings: Sequence[ProfileReading], noise: ProfileNoise, settings: SceneSettings
) -> Track:
    """Return readings as columns, in SI units."""
    size_m = settings.pixel_size_m
    flipped = settings.word("across", OPTIONS) == "y"
    rows = settings.shape[1] if flipped else settings.shape[0]
    value = settings.number("per_count", OPTIONS) / rows  # of a column's count
    drop_by = np.array([0.0, 0.0, 1.0, -1.0])
    names = ("position", "width", "gradient", "drop")
    table = np.full((len(readings), len(names), 2), math.nan)
    for row, reading in zip(table, readings, strict=True):
        fit = reading.fit
        if fit is None:
            continue
        covariance = noise.covariance(fit)
        steep = fit.gradient_slope
        row[0] = fit.position_px, math.hypot(math.sqrt(covariance[0, 0]), reading.shift.sigma_x_px)
        row[1] = fit.width_px, math.sqrt(covariance[1, 1])
        row[2] = fit.gradient, math.sqrt(steep @ covariance @ steep)
        row[3] = fit.left - fit.right, math.sqrt(drop_by @ covariance @ drop_by)
    scale = {"position": size_m, "width": size_m, "gradient": value / size_m, "drop": value}
    columns: dict[str, NDArray[np.float64]] = {}
    for number, name in enumerate(names):
        columns[name] = table[:, number, 0] * scale[name]
        columns[f"{name}_sigma"] = table[:, number, 1] * abs(scale[name])
    place = "interface_y_px" if flipped else "interface_x_px"
    columns[place], columns[f"{place}_sigma"] = table[:, 0, 0], table[:, 0, 1]
    units = {"position": "m", "width": "m", "gradient": "1/m", "drop": "1", place: "px"}
    valid = np.isfinite(table[:, 0, 0])
    return Track(
        columns=columns,
        units=units | {f"{name}_sigma": unit for name, unit in units.items()},
        valid=valid,
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "per_count": settings.number("per_count", OPTIONS),
            "excess": noise.excess,
            "texture_position_sigma": math.sqrt(noise.texture[0, 0]) * size_m,
            "texture_width_sigma": math.sqrt(noise.texture[1, 1]) * size_m,
        },
        drift=_upright(drift_columns([r.shift for r in readings]), flipped=flipped),
    )


def _upright(
    drift: dict[str, NDArray[np.float64]], *, flipped: bool
) -> dict[str, NDArray[np.float64]]:
    """Return the drift of turned frames as that of the frames themselves."""
    if not flipped:
        return drift
    swapped = {"dx": "dy", "dy": "dx", "sigma_x": "sigma_y", "sigma_y": "sigma_x"}
    return {swapped.get(name, name): values for name, values in drift.items()}
