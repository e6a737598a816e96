"""Image drift by an information-weighted cross-correlation, with its covariance.

Each mode of the cross-power is weighted by what it can tell, ``S / (S (N1 + N2) + N1 N2)``
for a scene of power S in two noises (the maximum-likelihood processor of Hannan and
Thomson, 1973), never by its phase alone: a detector's fixed pattern and shot noise fill
most modes and would outvote the scene. The pattern's own share is measured where the scene
has gone, and taken out. The window moves with the specimen, so it adds no preference for
zero; what it tells by itself, beside a crystal that fills the field, is taken out, too. Groups of
modes that go on to disagree tell of something that moves in the scene: see `witnesses`.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.mode_groups import ModeGroups
from correlate.modes import REACH, Modes, Power, Spectrum
from correlate.sensor import HighModes, Parts, high_modes
from correlate.sums import FrameSums, frame_sums
from correlate.weighing import Reference, Weighing, Weights, times
from correlate.window import Band
from correlate.witnesses import Memory, Witnesses, agree

NEWTON_STEPS = 8
REACH_TURNS = 0.25  # of the finest mode: the most that a step goes
NEWTON_STEP_PX = 1e-3  # the next would be its square
WINDOW_ROUNDS = 4
WINDOW_MOVE_PX = 1.0  # to both sides, by which it is tried what follows the window
WINDOW_STEP_PX = 0.3  # a smaller move of the window changes nothing that could be seen
MIN_QUALITY = 0.5  # of the correlation with a perfect copy: below, look everywhere
MIN_SIGNIFICANCE = 6.0  # of a peak among all places, in sigmas of noise
MOST_BYTES = 2**27  # of frames that are kept for a window that must move further
PATTERN_FRAMES = 8  # after the first, from which the fixed pattern is learned
BINS_PX = (4, 2, 1)
REACH_LOSS = 0.02  # of the information, that may lie beyond the modes that are looked at
BIN_LOSS = 0.06  # that a larger bin may cost
SPARE = 1.5  # a longer reference tells of higher modes, too
SURE_SIGMAS = 6.0  # the same where the highest mode is asked for
MIN_BINNED_SIDE = 96
MIN_SIDE_PX = 48
SATURATED_RATIO = 0.2
LEVEL_STEP = 0.1  # a change of brightness that asks for new weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What brings a frame back onto the reference.

    Parameters
    ----------
    dx_px, dy_px
        To be added to coordinates in the frame; NaN when not valid.
    sigma_x_px, sigma_y_px
        Standard uncertainties.
    quality
        Correlation with the reference over that of a perfect copy: near 1 for a scene that
        has only drifted, less where it changed.
    valid
        False for a frame that cannot be registered.
    reason
        Why not; empty when valid.
    """

    dx_px: float
    dy_px: float
    sigma_x_px: float
    sigma_y_px: float
    quality: float
    valid: bool
    reason: str = ""


def no_shift(reason: str) -> Shift:
    """Return what is said of a frame that is not registered."""
    nan = math.nan
    return Shift(
        dx_px=nan,
        dy_px=nan,
        sigma_x_px=nan,
        sigma_y_px=nan,
        quality=nan,
        valid=False,
        reason=reason,
    )


def why_unusable(pixels: NDArray[np.generic]) -> str:
    """Say why a frame cannot be used, or return an empty text."""
    return _why_unusable(frame_sums(pixels, 1), pixels)


def _why_unusable(sums: FrameSums, pixels: NDArray[np.generic]) -> str:
    if not math.isfinite(sums.low + sums.high):
        return "pixels that are not numbers"
    if sums.low == sums.high:
        return "blank: all pixels are alike"
    if np.issubdtype(pixels.dtype, np.integer):
        top = np.iinfo(str(pixels.dtype)).max
        if sums.high == top and np.mean(pixels == top) > SATURATED_RATIO:
            return "saturated"
    return ""


@dataclass(frozen=True, slots=True)
class _Climbed:
    """Where a frame was registered by all modes together.

    Parameters
    ----------
    spectrum, window
        Modes of the frame, and the shift (dx, dy) along with which the window stood.
    cross
        Their weighted cross-power with the reference.
    dx_px, dy_px, quality
        Of the top; the quality is 0 where there is none.
    """

    spectrum: Spectrum
    window: tuple[float, float]
    cross: Spectrum
    dx_px: float
    dy_px: float
    quality: float


class DriftEstimator:
    """Registers frames onto a reference that grows from the frames themselves.

    Parameters
    ----------
    shape
        Height and width of the frames, at least 48 px each.
    band
        Columns in which the specimen itself changes.
    max_shift_px
        Larger shifts are not looked for; an eighth of the smaller side by default.
    reference_frames
        Frames that are averaged into the reference.
    bin_px
        Pixels a side that are summed before; what loses nothing where None. A larger one
        is quicker.
    margin_px
        Room for the window to move, at first; a sixty-fourth of the smaller side by default.

    Raises
    ------
    ValueError
        The frames are too small.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        band: Band | None = None,
        max_shift_px: float | None = None,
        reference_frames: int = 1,
        bin_px: int | None = None,
        margin_px: float | None = None,
    ) -> None:
        if min(shape) < MIN_SIDE_PX:
            raise ValueError(
                f"frames of {shape[1]} x {shape[0]} px are too small to be registered; "
                f"{MIN_SIDE_PX} px a side are needed"
            )
        self._shape = shape
        self._band = band
        self._reference_frames = reference_frames
        side = min(shape)
        self.max_shift_px = max_shift_px or max(side / 8, 16.0)
        self._bins = [b for b in BINS_PX if side // b >= MIN_BINNED_SIDE] or [1]
        if bin_px is not None:
            self._bins = [bin_px]
        self.bin_px = self._bins[0]
        self._first_margin_px = margin_px or max(side / 64, 2.0)
        self._modes = Modes(shape, self.bin_px, self._first_margin_px, band)
        self._highest = math.inf  # cycles per px, of the modes that are looked at
        self._first: Power | None = None
        self._averaged: list[tuple[Power, float, float]] = []  # beside it, and where they stood
        self._is_whole = reference_frames <= 1
        self._bright = np.ones((3, 2))  # of what tells a shift, by parts, against the mean
        self._high: HighModes | None = None
        self._noise: Parts = np.zeros(3)
        self._pattern: list[Parts] = []
        self._reference: Reference | None = None
        self._weights: Weights | None = None
        self._groups = ModeGroups(self._modes)
        self._witnesses: tuple[Weights, Witnesses] | None = None
        self._memory = Memory.of_nothing(self._groups.count)
        self._last = 0.0, 0.0
        self._is_frozen = False
        self._ready: tuple[Reference, Weights, Spectrum, Spectrum | None] | None = None

    @property
    def pattern_ratio(self) -> float:
        """Share of a pixel's variance, without the scene, that is a fixed pattern."""
        shared = self._shared()
        return float(shared[0] / self._noise[0]) if self._noise[0] > 0 else 0.0

    @property
    def has_learned(self) -> bool:
        """True when neither the reference nor the pattern grows any more."""
        return (
            self._reference is not None and self._is_whole and len(self._pattern) >= PATTERN_FRAMES
        )

    def frozen(self) -> Self:
        """Return a copy whose reference stays, to register frames apart from all others."""
        other = copy.copy(self)
        other._first = other._high = other._ready = None  # noqa: SLF001 - of this very class
        other._averaged = []  # noqa: SLF001
        other._is_frozen = True  # noqa: SLF001
        return other

    def go_on_from(self, last: tuple[float, float]) -> None:
        """Follow the next frame from a shift (dx, dy) that was found elsewhere."""
        self._last = last

    def acquaint(self, frames: Iterable[NDArray[np.generic]]) -> None:
        """Look at frames that are to come, to know which parts of the scene move in them.

        The estimator is frozen, and its next frame is the first of these.
        """
        last = self._last
        for pixels in frames:
            self.update(pixels)
        self._last, self._memory = last, self._memory.begun_anew()

    def is_too_narrow_for(self, shift_px: float) -> bool:
        """Tell whether such a shift asks for a window with more room."""
        return self._modes.margin_px < min(shift_px, self.max_shift_px)

    def wider(self, shift_px: float) -> "DriftEstimator":
        """Return an estimator that has yet to learn, with room for such a shift and more."""
        return DriftEstimator(
            self._shape,
            band=self._band,
            max_shift_px=self.max_shift_px,
            reference_frames=self._reference_frames,
            bin_px=self._bins[0] if len(self._bins) == 1 else None,
            margin_px=min(2 * shift_px, self.max_shift_px),
        )

    def update(self, pixels: NDArray[np.generic]) -> Shift:
        """Register one frame, and let it improve the reference.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).

        Raises
        ------
        ValueError
            The frame has another shape.
        """
        if pixels.shape != self._shape:
            raise ValueError(f"a frame of {pixels.shape}, not of {self._shape}")
        return self.update_sums(frame_sums(pixels, self.bin_px), pixels)

    def update_sums(self, sums: FrameSums, pixels: NDArray[np.generic]) -> Shift:
        """Register one frame of which the sums over ``bin_px`` rows are there already."""
        if reason := _why_unusable(sums, pixels):
            return no_shift(reason)
        if self._reference is None:
            return self._begin(pixels)
        image = sums.image(self.bin_px) if sums.bin_px <= self.bin_px else None
        if image is None:
            image = frame_sums(pixels, self.bin_px).image(self.bin_px)
        self._learn_pattern(pixels)
        return self._register(image)

    # --- the reference ---------------------------------------------------------------------

    def _begin(self, pixels: NDArray[np.generic]) -> Shift:
        """Take the first frame: it tells the noise, and how far the frames may be binned."""
        self._high = high_modes(pixels)
        self._noise = self._high.power()
        self.bin_px, self._highest = self._choose(pixels)
        self._first = frame_sums(pixels, self.bin_px).image(self.bin_px)
        self._restart(self._first_margin_px)
        covariance = self._known_weights(self._known_reference().level).covariance_px2
        return Shift(
            dx_px=0.0,
            dy_px=0.0,
            sigma_x_px=math.sqrt(covariance[0, 0]),
            sigma_y_px=math.sqrt(covariance[1, 1]),
            quality=math.nan,  # the reference itself
            valid=True,
        )

    def _choose(self, pixels: NDArray[np.generic]) -> tuple[int, float]:
        """Return the largest bin that loses little of what the scene has to tell, and how far.

        Lost are the modes beyond a bin's reach, and contrast to the bin's own width.
        """
        possible = self._bins
        finest = min(2, possible[0]) if len(possible) > 1 else possible[0]
        self._set(frame_sums(pixels, finest).image(finest), finest, math.inf, 0.0)
        reference, m = self._known_reference(), self._modes
        weighing = self._weighing()
        noise = weighing.powers(self._noise, reference.level, reference)
        scene = weighing.scene(reference, SURE_SIGMAS)
        none = np.zeros(1)
        places = (m.fy[:, None], m.fx[None, :]), (none, m.fx), (m.fy_along, none)

        def told(bin_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            heights, information = [], []
            for power, n, (fy, fx) in zip(scene, noise, places, strict=True):
                left = power * np.square(_binned(fy, fx, bin_px) / _binned(fy, fx, finest))
                height = np.maximum(np.abs(fy), fx) + np.zeros(power.shape)
                each = left**2 / (n * (2 * left + n)) * (np.square(fx) + np.square(fy))
                heights.append(height.ravel())
                information.append(np.ravel(each))
            return np.concatenate(heights), np.concatenate(information)

        height, information = told(finest)
        total = float(information.sum())
        if total <= 0:
            return finest, math.inf
        order = np.argsort(height)
        share = np.cumsum(information[order]) / total
        needed = float(height[order][np.searchsorted(share, 1 - REACH_LOSS)])

        def loses_little(bin_px: int) -> bool:
            height, information = told(bin_px)
            return float(information[height * bin_px <= REACH].sum()) >= (1 - BIN_LOSS) * total

        return next((b for b in possible if loses_little(b)), finest), SPARE * needed

    def _set(self, image: Power, bin_px: int, highest: float, margin_px: float) -> None:
        self._modes = Modes(self._shape, bin_px, margin_px, self._band, highest)
        modes = self._modes.of(image, 0.0, 0.0)
        self._reference = Reference(modes, None, float(image.mean()) / bin_px**2)
        self._weights, self._witnesses = None, None
        self._groups = ModeGroups(self._modes)
        self._memory = Memory.of_nothing(self._groups.count)

    def _restart(self, margin_px: float) -> None:
        """Look at the frames of the reference under a window that may move further.

        Never at later ones: the specimen may have changed since.
        """
        if self._first is None:
            return
        self._set(self._first, self.bin_px, self._highest, margin_px)
        for image, dx, dy in self._averaged:
            self._average(self._modes.of(image, -dx, -dy), dx, dy)

    def _known_reference(self) -> Reference:
        if self._reference is None:
            raise ValueError("there is no reference yet: register a first frame")
        return self._reference

    def _learn_pattern(self, pixels: NDArray[np.generic]) -> None:
        """Measure what a frame has in common with the first where the scene has gone."""
        if self._high is None or len(self._pattern) >= PATTERN_FRAMES:
            return
        self._pattern.append(self._high.shared_with(high_modes(pixels)))
        self._weights = None

    def _shared(self) -> Parts:
        if not self._pattern:
            return np.zeros(3)
        return np.asarray(np.clip(np.mean(self._pattern, axis=0), 0.0, 0.9 * self._noise))

    def _learn(self, image: Power, spectrum: Spectrum, dx: float, dy: float) -> None:
        """Average a registered frame into the reference, until that holds enough."""
        if self._is_whole:
            return
        if self._first is not None and (len(self._averaged) + 1) * image.nbytes <= MOST_BYTES:
            self._averaged.append((image, dx, dy))
        self._average(spectrum, dx, dy)
        self._is_whole = self._known_reference().count >= self._reference_frames

    def _average(self, spectrum: Spectrum, dx: float, dy: float) -> None:
        turn, still = self._modes.turn(dx, dy), self._modes.turn(0.0, 0.0)
        self._reference = self._known_reference().with_frame(spectrum, turn, still)

    # --- the weights -----------------------------------------------------------------------

    def _weighing(self) -> Weighing:
        return Weighing(self._modes, self._noise, self._shared())

    def _known_weights(self, level: float) -> Weights:
        """Return the weights, renewed where the reference has become twice as good."""
        known, reference = self._weights, self._known_reference()
        if (
            known is not None
            and reference.count < 2 * known.count
            and abs(level - known.level) <= LEVEL_STEP * abs(known.level)
        ):
            return known
        found = self._weighing().weigh(reference, level, self._first, self._bright)
        self._weights, self._bright = found, found.bright
        return found

    def _known_witnesses(self, image: Power, weights: Weights, at: _Climbed) -> Witnesses:
        """Return what groups of modes can tell, measured anew for new weights.

        How a score follows the window is seen where that moves over a frame that stays.
        """
        if self._witnesses is not None and self._witnesses[0] is weights:
            return self._witnesses[1]
        follows = np.zeros_like(weights.information)
        for axis, (x, y) in enumerate(((WINDOW_MOVE_PX, 0.0), (0.0, WINDOW_MOVE_PX))):
            after, before = (
                self._groups.of(
                    self._cross(
                        self._modes.of(image, way * x - at.dx_px, way * y - at.dy_px), weights
                    ),
                    at.dx_px,
                    at.dy_px,
                )[1]
                for way in (-1, 1)
            )
            follows[:, :, axis] = (after - before) / (2 * WINDOW_MOVE_PX)
        found = Witnesses.of(
            weights.information,
            follows,
            weights.scatter,
            weights.values,
            1 / (1 + weights.count),
        )
        if self._witnesses is not None:
            self._memory = self._memory.scaled(self._witnesses[1], found)
        self._witnesses = weights, found
        return found

    # --- a frame ---------------------------------------------------------------------------

    def _register(self, image: Power) -> Shift:
        weights = self._known_weights(float(image.mean()) / self.bin_px**2)
        if not np.all(np.isfinite(weights.covariance_px2)):
            return no_shift("there is too little contrast to tell a shift")
        found = self._follow(image, weights, *self._last)
        if found.quality < MIN_QUALITY:
            cross = self._cross(self._modes.of(image, 0.0, 0.0), weights)
            dx, dy, significance = self._look_everywhere(cross)
            if significance < MIN_SIGNIFICANCE:
                return no_shift("the correlation has no clear peak")
            found = self._follow(image, weights, dx, dy)
            if found.quality < MIN_QUALITY:
                return no_shift("what is seen is no longer what the reference shows")
        far = max(abs(found.dx_px), abs(found.dy_px))
        if self.is_too_narrow_for(far) and not self._is_frozen:
            self._restart(min(2 * far, self.max_shift_px))
            self._last = found.dx_px, found.dy_px
            return self._register(image)
        return self._weigh_up(image, found, self._known_witnesses(image, weights, found))

    def _weigh_up(self, image: Power, found: _Climbed, witnesses: Witnesses) -> Shift:
        """Ask the groups of modes at the top that all of them have together."""
        values, scores = self._groups.of(found.cross, found.dx_px, found.dy_px)
        beside = np.subtract(found.window, (found.dx_px, found.dy_px))
        agreed = agree(witnesses, self._memory, scores - witnesses.window @ beside, values)
        self._memory = agreed.memory
        variance = np.diag(agreed.covariance_px2)
        if not np.all((variance > 0) & (variance < self.max_shift_px**2)):
            return no_shift("there is too little contrast to tell a shift")
        reach = REACH_TURNS / self._modes.highest
        step_x, step_y = np.clip(agreed.step_px, -reach, reach).tolist()
        dx, dy = found.dx_px + step_x, found.dy_px + step_y
        self._last = dx, dy
        self._learn(image, found.spectrum, dx, dy)
        return Shift(
            dx_px=dx,
            dy_px=dy,
            sigma_x_px=math.sqrt(variance[0]),
            sigma_y_px=math.sqrt(variance[1]),
            quality=found.quality,
            valid=True,
        )

    def _follow(self, image: Power, weights: Weights, dx: float, dy: float) -> _Climbed:
        """Climb from a place to the peak beside it, the window along with the specimen."""
        found = self._climbed(image, weights, dx, dy)
        for _ in range(WINDOW_ROUNDS - 1):
            place = found.dx_px, found.dy_px
            if found.quality < MIN_QUALITY or _near(found.window, place):
                break
            found = self._climbed(image, weights, *place)
        return found

    def _climbed(self, image: Power, weights: Weights, dx: float, dy: float) -> _Climbed:
        window, spectrum = (dx, dy), self._modes.of(image, -dx, -dy)
        cross = self._cross(spectrum, weights)
        dx, dy, value = self._climb(cross, dx, dy)
        quality = value / weights.expected if weights.expected > 0 else 0.0
        return _Climbed(spectrum, window, cross, dx, dy, quality)

    def _cross(self, spectrum: Spectrum, weights: Weights) -> Spectrum:
        """Return the weighted cross-power, without the detector's own."""
        reference = self._known_reference()
        if self._ready is None or self._ready[0] is not reference or self._ready[1] is not weights:
            still = self._modes.turn(0.0, 0.0)
            own = times(reference.turns or still, weights.pattern) if self._pattern else None
            self._ready = reference, weights, times(reference.modes, weights.weight), own
        weighted, own = self._ready[2:]
        parts = [a * np.conj(b) for a, b in zip(weighted, spectrum, strict=True)]
        if own is not None:
            parts = [part - o for part, o in zip(parts, own, strict=True)]
        return parts[0], parts[1], parts[2]

    def _climb(self, cross: Spectrum, dx: float, dy: float) -> tuple[float, float, float]:
        """Climb to a top of the correlation by Newton's method; 0 where it is none."""
        reach = REACH_TURNS / self._modes.highest
        start, value = (dx, dy), 0.0
        for _ in range(NEWTON_STEPS):
            value, slope, curve = self._modes.moments(cross, dx, dy)
            (xx, xy), (_, yy) = curve.tolist()
            determinant = xx * yy - xy * xy
            if xx >= 0 or determinant <= 0:
                return start[0], start[1], 0.0
            step_x = (xy * slope[1] - yy * slope[0]) / determinant
            step_y = (xy * slope[0] - xx * slope[1]) / determinant
            dx += min(max(float(step_x), -reach), reach)
            dy += min(max(float(step_y), -reach), reach)
            if abs(step_x) + abs(step_y) < NEWTON_STEP_PX:
                break
        return dx, dy, value

    def _look_everywhere(self, cross: Spectrum) -> tuple[float, float, float]:
        """Return the highest peak within reach, in sigmas of what noise would make."""
        surface, pitch_y, pitch_x = self._modes.surface(cross)
        reach_y = min(math.ceil(self.max_shift_px / pitch_y), surface.shape[0] // 2 - 1)
        reach_x = min(math.ceil(self.max_shift_px / pitch_x), surface.shape[1] // 2 - 1)
        y, x = np.arange(-reach_y, reach_y + 1), np.arange(-reach_x, reach_x + 1)
        near = surface[np.ix_(y % surface.shape[0], x % surface.shape[1])]
        row, column = np.unravel_index(int(np.argmax(near)), near.shape)
        scale = 0.5 * surface.size  # the transform's own, and each mode's mirror image
        noise = sum(
            2 * c * float(np.sum(np.abs(part) ** 2, dtype=np.float64))
            for c, part in zip(self._modes.crowding, cross, strict=True)
        )
        peak = float(near[row, column]) * 2 * scale
        significance = peak / math.sqrt(noise) if noise > 0 else 0.0
        return float(x[column]) * pitch_x, float(y[row]) * pitch_y, significance


def _binned(fy: NDArray[np.float64], fx: NDArray[np.float64], bin_px: int) -> NDArray[np.float64]:
    """Return what is left of a wave's contrast in sums over squares."""
    return np.asarray(np.sinc(fy * bin_px) * np.sinc(fx * bin_px))


def _near(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return math.hypot(a[0] - b[0], a[1] - b[1]) < WINDOW_STEP_PX


def fixed_pattern_correlation(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Return the zero-lag correlation of two frames' finest detail.

    Far from zero for frames of a drifting specimen, it tells of a pattern that belongs
    to the detector, which defeats phase correlation.
    """

    def detail(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
        image = np.asarray(pixels, dtype=np.float64)
        return np.asarray(image - ndimage.gaussian_filter(image, 1.0))

    return float(np.corrcoef(detail(first).ravel(), detail(second).ravel())[0, 1])
