"""Tracks how far a specimen has converted, between how it looks before and after."""

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from correlate.converted import Converted, Fraction, WholeChange, disagreement
from correlate.drift import Shift
from correlate.grain_band import GrainBand, Modes
from correlate.grain_change import GrainChange, GrainsSeen
from correlate.looks import Look, Noise, noise_in_band, noise_of, shot_gain
from correlate.pattern_of_change import Pattern, pattern_of
from correlate.steady import SteadyEstimator
from correlate.texture import HALF_WIDTH, GrainRings, filled_part
from correlate.trackers.drift import drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track

Float = NDArray[np.float64]
LOOK_FRAMES = 10  # of which a look is the mean
MIN_BLOCKS = 4
DISAGREE = 1.5  # root mean square, in sigmas, from which two witnesses differ by no chance
SETTLED_SIGMAS = 4.0
PLAIN_GRAIN_PX = 1.8  # sigma, of blocks where no grains stand out
NOTHING = math.nan, math.nan
OPTIONS = {
    "drift": Option(
        kind="word", default="tracked", words=("tracked", "none"), about="none where it is none"
    ),
    "converted_change": Option(
        kind="number",
        default=math.nan,
        about="relative change of brightness of what has converted; found in a recording",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReading:
    """What one frame tells; the reason is empty where it was compared.

    Parameters
    ----------
    seen
        Against both looks; None where that after is not known.
    level_change
        Relative change of the brightness, with its sigma.
    grain_px
        Scale of what has come, and its sigma.
    pattern
        How it is spread.
    """

    shift: Shift
    seen: Converted | None = None
    level_change: tuple[float, float] = NOTHING
    grain_px: tuple[float, float] = NOTHING
    pattern: Pattern = field(default_factory=Pattern)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A frame on the reference."""

    number: int
    pixels: NDArray[np.generic]
    shift: Shift


class ConversionTracker:
    """Compares each frame with the looks before and after.

    Parameters
    ----------
    settings
        With the pixel size, for the scale of grains in metres; see ``options``.
    """

    options = OPTIONS
    quantities = ("converted_fraction", "grain_scale", "level_change")

    def __init__(self, settings: SceneSettings) -> None:
        self._settings = settings

    def track(self, frames: Frames) -> Track:
        """Go through all frames; the last are the converted look.

        Raises
        ------
        CannotTrack
            There are too few frames, or nothing has changed.
        """
        estimator = _estimator(self._settings)
        first: list[_Frame] = []
        last: deque[_Frame] = deque(maxlen=LOOK_FRAMES)
        shifts: list[Shift] = []
        for number, pixels in enumerate(frames()):
            shifts.append(shift := estimator.update(pixels))
            if shift.valid:
                frame = _Frame(number=number, pixels=np.array(pixels), shift=shift)
                last.append(frame)
                if len(first) < LOOK_FRAMES:
                    first.append(frame)
        live = LiveConversion(self._settings, first, _why(shifts))
        live.compare_with(list(last))
        readings = [
            live.compared(number, pixels, shift)
            for number, (pixels, shift) in enumerate(zip(frames(), shifts, strict=True))
        ]
        return conversion_track(readings, live)

    def begin(self, frames: Frames) -> "LiveConversion":
        """Learn the look before from first frames, and return what goes on from there.

        Raises
        ------
        CannotTrack
            There are too few frames.
        """
        estimator = _estimator(self._settings)
        first: list[_Frame] = []
        shifts: list[Shift] = []
        for number, pixels in enumerate(frames()):
            shifts.append(shift := estimator.update(pixels))
            if shift.valid:
                first.append(_Frame(number=number, pixels=np.array(pixels), shift=shift))
            if len(first) >= LOOK_FRAMES:
                break
        live = LiveConversion(self._settings, first, _why(shifts))
        live.track(frames)
        return live


def _estimator(settings: SceneSettings) -> SteadyEstimator:
    try:
        return SteadyEstimator(settings.shape, still=settings.word("drift", OPTIONS) == "none")
    except ValueError as error:
        raise CannotTrack(str(error)) from error


def _why(shifts: Sequence[Shift]) -> str:
    """Return the most frequent reason why frames could not be used."""
    reasons = Counter(s.reason for s in shifts if s.reason)
    return reasons.most_common(1)[0][0] if reasons else ""


class LiveConversion:
    """Goes on with a look before, frame by frame or chunk by chunk.

    Parameters
    ----------
    settings
        What is known of the scene.
    first
        Frames of the look before.
    why
        Why others could not be used.

    Raises
    ------
    CannotTrack
        There are fewer than two.
    """

    def __init__(self, settings: SceneSettings, first: Sequence[_Frame], why: str = "") -> None:
        if len(first) < 2:
            raise CannotTrack(
                "two frames that can be used are needed to learn the pristine look"
                + (f", and most are not: {why}" if why else "")
            )
        self.settings = settings
        self.change: WholeChange | None = None
        self.settled = 1.0
        self._estimator = _estimator(settings)
        self._rings = GrainRings(settings.shape)
        self._first = list(first)
        self._number = 0
        self._take(GrainBand(settings.shape, PLAIN_GRAIN_PX), grains=False)
        if self._band.blocks.pixels.size < MIN_BLOCKS:
            raise CannotTrack(f"frames hold fewer than {MIN_BLOCKS} blocks")

    @property
    def block_px(self) -> float:
        """Side of a block, in the mean."""
        return math.sqrt(float(self._band.blocks.pixels.mean()))

    def _take(self, band: GrainBand, *, grains: bool) -> None:
        """Look at the first frames between the frequencies of a band."""
        self._band, weight = band, self._rings.weight
        self._ring_weights = band.blocks.total(weight), band.blocks.total(weight**2)
        seen = [band.seen(f.pixels, f.shift, band.modes(f.pixels, f.shift)) for f in self._first]
        gain = shot_gain([f.pixels for f in self._first], band.blocks)
        levels = [float(np.asarray(f.pixels, dtype=np.float64).mean()) for f in self._first]
        self.noise: Noise = noise_of(gain, levels, self._first[0].pixels.size)
        if grains:
            self.noise = noise_in_band(self.noise, seen, band)
        self.before, self._before_modes = self._look(self._first)

    def _filled(self, grains: GrainsSeen | None) -> float:
        """Return in what part of the field grains have come."""
        if grains is None:
            return 1.0
        used = np.isfinite(grains.shares)
        variance = grains.share_sigma[used] ** 2
        weight, square = (one[used] for one in self._ring_weights)
        return filled_part(grains.shares[used], variance, weight, square)

    def _look(self, frames: Sequence[_Frame]) -> tuple[Look, Modes]:
        return look_of(
            self._band,
            [(f.number, f.pixels, f.shift) for f in frames],
        )

    def compare_with(self, last: Sequence[_Frame]) -> None:
        """Take the look after.

        Raises
        ------
        CannotTrack
            It is as that before.
        """
        _, modes = self._look(last)
        scale, sigma = self._rings.scale(modes - self._before_modes)
        stands = math.isfinite(sigma)
        size = scale / HALF_WIDTH if stands else PLAIN_GRAIN_PX
        self._take(GrainBand(self.settings.shape, size), grains=stands)
        after, _ = self._look(last)
        grains = GrainChange(self.before, after, self._band, self.noise) if stands else None
        self.change = WholeChange(self.before, after, self.noise, grains, self._band.blocks.pixels)
        if not self.change.level_tells and (grains is None or not np.any(grains.used)):
            raise CannotTrack(
                "nothing has changed from the first frames to the last, by brightness or "
                "grains; film until the specimen has converted"
            )

    def learn_after(self, frames: Sequence[NDArray[np.generic]]) -> None:
        """Take frames of the same specimen, all of it converted, for the look after.

        Raises
        ------
        CannotTrack
            None can be used, or they look as before.
        """
        seen = []
        for number, pixels in enumerate(frames):
            shift = self._estimator.update(pixels)
            if shift.valid:
                # Numbers of no frame that is compared.
                seen.append(_Frame(number=-1 - number, pixels=np.array(pixels), shift=shift))
        if not seen:
            raise CannotTrack("no frame of the converted specimen can be used")
        self.compare_with(seen)

    def track(self, frames: Frames) -> Track:
        """Go through more frames; each is looked at once."""
        return conversion_track([self.update(pixels) for pixels in frames()], self)

    def update(self, pixels: NDArray[np.generic]) -> ConversionReading:
        """Register a frame and compare it.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        number, self._number = self._number, self._number + 1
        return self.compared(number, pixels, self._estimator.update(pixels))

    def compared(self, number: int, pixels: NDArray[np.generic], shift: Shift) -> ConversionReading:
        """Compare a registered frame, the so-and-so-many-th of the recording."""
        if not shift.valid:
            return ConversionReading(shift=shift, reason=shift.reason)
        modes = self._band.modes(pixels, shift)
        seen = self._band.seen(pixels, shift, modes)
        whole = seen.whole
        if int(whole.sum()) < MIN_BLOCKS:
            return ConversionReading(shift=shift, reason="most of the field has been left")
        found = None if self.change is None else self.change.seen_in(seen, number)
        weight = self._band.blocks.pixels[whole]
        start, now = (
            float(np.average(one.level[whole], weights=weight)) for one in (self.before.seen, seen)
        )
        own = self.noise.gain * self.noise.flicker / float(seen.pixels[whole].sum())
        share = self.before.share_of(number)
        variance = own * now * (1 - 2 * share) / start**2
        variance += own * now**2 / start**3 / self.before.count
        reason = ""
        if found is not None and not math.isfinite(found.together.sigma):
            reason = "too little of what changes is in the field"
        grains = None if found is None else found.grains
        return ConversionReading(
            shift=shift,
            seen=found,
            level_change=(now / start - 1, math.sqrt(max(variance, 0.0))),
            grain_px=self._rings.scale(modes - self._before_modes, self._filled(grains)),
            pattern=Pattern() if grains is None else pattern_of(grains.shares, grains.share_sigma),
            reason=reason,
        )


def look_of(
    band: GrainBand, frames: Sequence[tuple[int, NDArray[np.generic], Shift]]
) -> tuple[Look, Modes]:
    """Return the mean of frames, and its modes."""
    modes = [band.modes(pixels, shift) for _, pixels, shift in frames]
    seen = [
        band.seen(pixels, shift, mode)
        for (_, pixels, shift), mode in zip(frames, modes, strict=True)
    ]
    mean: Modes = np.mean(modes, axis=0)
    return (
        Look(seen=band.mean(seen, mean), frames=frozenset(number for number, _, _ in frames)),
        mean,
    )


def _fractions(
    readings: Sequence[ConversionReading], live: LiveConversion
) -> tuple[list[Fraction], float]:
    """Return the fraction of each frame, and by how much both witnesses disagree."""
    seen = [r.seen for r in readings if r.seen is not None]
    apart = disagreement(seen)
    wider = apart if apart > DISAGREE else 1.0
    told = live.settings.number("converted_change", OPTIONS)
    fractions = []
    for reading in readings:
        if reading.reason:
            fractions.append(Fraction())
        elif reading.seen is not None:
            both = reading.seen.together
            fractions.append(Fraction(value=both.value, sigma=both.sigma * wider))
        else:
            value, sigma = reading.level_change
            fractions.append(Fraction(value=value / told, sigma=abs(sigma / told)))
    return fractions, apart


def _settled(fractions: Sequence[Fraction]) -> float:
    """Return 1 where the last frames no longer change beyond their noise, else 0."""
    last = [f for f in fractions if math.isfinite(f.sigma)][-2 * LOOK_FRAMES :]
    half = len(last) // 2
    if half < 2:
        return math.nan
    parts = np.array([f.value for f in last[:half]]), np.array([f.value for f in last[half:]])
    # By what the fractions scatter; their sigmas hold what all err by alike.
    own = math.sqrt(sum(float(np.var(p, ddof=1)) / len(p) for p in parts))
    return float(abs(parts[1].mean() - parts[0].mean()) <= SETTLED_SIGMAS * own)


def conversion_track(readings: Sequence[ConversionReading], live: LiveConversion) -> Track:
    """Return readings as columns."""
    size_m = live.settings.pixel_size_m
    fractions, apart = _fractions(readings, live)
    nothing = Fraction()
    level = [nothing if r.seen is None or r.reason else r.seen.by_level for r in readings]
    grains = [nothing if r.seen is None or r.reason else r.seen.by_grains for r in readings]
    pairs: dict[str, list[tuple[float, float]]] = {
        "converted_fraction": [(f.value, f.sigma) for f in fractions],
        "fraction_by_level": [(f.value, f.sigma) for f in level],
        "fraction_by_grains": [(f.value, f.sigma) for f in grains],
        "segregation": [r.pattern.segregation for r in readings],
        "clustering": [r.pattern.clustering for r in readings],
        "grain_scale": [(r.grain_px[0] * size_m, r.grain_px[1] * size_m) for r in readings],
        "level_change": [r.level_change for r in readings],
    }
    columns: dict[str, Float] = {}
    for name, values in pairs.items():
        both = np.array(values, dtype=np.float64).reshape(-1, 2)
        columns |= {name: both[:, 0], f"{name}_sigma": both[:, 1]}
    return Track(
        columns=columns,
        units=dict.fromkeys(columns, "1") | {"grain_scale": "m", "grain_scale_sigma": "m"},
        valid=np.array([not r.reason for r in readings], dtype=bool),
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "block_px": live.block_px,
            "shot_gain": live.noise.gain,
            "flicker": live.noise.flicker,
            "witnesses_apart_sigmas": apart,
            "end_settled": _settled(fractions) if live.change is not None else math.nan,
        },
        drift=drift_columns([r.shift for r in readings]),
    )
