"""Tracks how far a specimen has converted, by its brightness and its texture."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from correlate.drift import DriftEstimator, Shift, why_unusable
from correlate.pattern_of_change import neighbours_alike, segregation
from correlate.texture import Blocks, blocks_of, grain_scale, ring_powers
from correlate.trackers.drift import drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, SceneSettings, Track

Float = NDArray[np.float64]
LOOK_FRAMES = 10  # of which a look is the mean
BLOCK_PX = 16
MIN_BLOCKS = 8
MIN_SIGMAS = 6.0  # of what a block has changed by, from the first look to the last
FLAT_SIGMAS = 3.0  # of what goes on changing in the last frames
NO_LOOK = "the converted look is not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How blocks look, the mean of some frames; shapes (rows, columns).

    Parameters
    ----------
    level
        Mean count over that of the whole frame's beam: the sum of what is compared.
    texture
        Relative variance without shot noise.
    level_variance, texture_variance
        Of these means.
    """

    level: Float
    texture: Float
    level_variance: Float
    texture_variance: Float


def look_of(frames: Sequence[Blocks]) -> Look:
    """Return the mean look of some frames."""
    n = len(frames)
    return Look(
        level=np.mean([b.level for b in frames], axis=0),
        texture=np.mean([b.texture for b in frames], axis=0),
        level_variance=np.mean([b.level_variance for b in frames], axis=0) / n,
        texture_variance=np.mean([b.texture_variance for b in frames], axis=0) / n,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReading:
    """What one frame tells; the reason is empty where a fraction was found.

    Parameters
    ----------
    fraction, segregation, grain_px
        Each with its sigma.
    moran, moran_p
        Moran's I of neighbouring blocks, and its p.
    level_change, texture
        Relative change of the brightness, and relative variance of the texture.
    """

    shift: Shift
    fraction: tuple[float, float] = (math.nan, math.nan)
    segregation: tuple[float, float] = (math.nan, math.nan)
    moran: float = math.nan
    moran_p: float = math.nan
    grain_px: tuple[float, float] = (math.nan, math.nan)
    level_change: tuple[float, float] = (math.nan, math.nan)
    texture: tuple[float, float] = (math.nan, math.nan)
    reason: str = ""


class ConversionTracker:
    """Compares each block of a frame with its pristine and its converted look.

    Parameters
    ----------
    settings
        With the pixel size, for the scale of grains in metres.
    converted
        Converted look; that of the last frames where None. A live tracker needs it.
    """

    quantities = ("converted_fraction", "grain_scale")

    def __init__(self, settings: SceneSettings, *, converted: Look | None = None) -> None:
        self._settings, self._converted = settings, converted

    def track(self, frames: Frames) -> Track:
        """Go through all frames; the last are the converted look where none was given.

        Raises
        ------
        CannotTrack
            There are too few frames, or nothing has changed.
        """
        live = self._learn(frames)
        settled = 1.0
        if live.converted is None:
            live.converted, settled = _last_look(frames, live)
            if int(np.sum(live.changed())) < MIN_BLOCKS:
                raise CannotTrack(
                    "nothing has changed from the first frames to the last, by brightness or "
                    "texture; film until the specimen has converted"
                )
        return live.track(frames, settled=settled)

    def begin(self, frames: Frames) -> "LiveConversion":
        """Learn the pristine look from first frames, and return what goes on from there.

        Raises
        ------
        CannotTrack
            There are too few frames.
        """
        live = self._learn(frames)
        live.track(frames)
        return live

    def _learn(self, frames: Frames) -> "LiveConversion":
        try:
            estimator = DriftEstimator(self._settings.shape)
        except ValueError as error:
            raise CannotTrack(str(error)) from error
        if (self._settings.shape[0] // BLOCK_PX) * (self._settings.shape[1] // BLOCK_PX) < (
            MIN_BLOCKS
        ):
            raise CannotTrack(f"frames hold fewer than {MIN_BLOCKS} blocks of {BLOCK_PX} px")
        first: list[Float] = []
        for pixels in frames():
            if not why_unusable(pixels):
                first.append(np.asarray(pixels, dtype=np.float64))
            if len(first) >= LOOK_FRAMES:
                break
        if len(first) < 2:
            raise CannotTrack("two frames that can be used are needed to learn the pristine look")
        gain = shot_gain(first)
        return LiveConversion(
            settings=self._settings,
            estimator=estimator,
            gain=gain,
            pristine=look_of([blocks_of(image, BLOCK_PX, gain) for image in first]),
            rings=np.mean([ring_powers(image)[1] for image in first], axis=0),
            converted=self._converted,
        )


def shot_gain(frames: Sequence[Float]) -> float:
    """Return variance over mean of shot noise, by the differences of successive frames.

    A drift between them adds little as long as it is a small part of the texture's scale. The
    median over blocks lets no block that moves tell.
    """
    ratios = []
    for a, b in itertools.pairwise(frames):
        mean = blocks_of((a + b) / 2, BLOCK_PX, 0.0).level
        spread = blocks_of(a - b * (a.mean() / b.mean()) + mean.max(), BLOCK_PX, 0.0)
        ratios.append(spread.texture * spread.level**2 / 2 / mean)
    gain = float(np.median(ratios))
    # Counts are Poisson: a gain that is 1 within a twentieth is 1.
    return 1.0 if abs(gain - 1) < 0.05 else max(gain, 1e-6)


def _last_look(frames: Frames, live: "LiveConversion") -> tuple[Look, float]:
    """Return the look of the last frames, and 1 where it no longer changes, else 0."""
    last: list[Float] = []
    for pixels in frames():
        if not why_unusable(pixels):
            last = [*last[-2 * LOOK_FRAMES + 1 :], np.array(pixels, dtype=np.float64)]
    blocks = [blocks_of(image, BLOCK_PX, live.gain) for image in last]
    half = max(len(blocks) // 2, 1)
    before, after = look_of(blocks[:half]), look_of(blocks[half:] or blocks)
    level, texture = _significance(before, after)
    n = level.size
    moves = max(abs(float(level.sum())), abs(float(texture.sum()))) / math.sqrt(n)
    return after, float(moves < FLAT_SIGMAS)


def _significance(a: Look, b: Look) -> tuple[Float, Float]:
    """Return by how many sigmas two looks differ, in level and in texture."""
    level = (b.level - a.level) / np.sqrt(a.level_variance + b.level_variance)
    texture = (b.texture - a.texture) / np.sqrt(a.texture_variance + b.texture_variance)
    return level, texture


@dataclass(slots=True, kw_only=True)
class LiveConversion:
    """Goes on with a pristine look, frame by frame or chunk by chunk.

    Parameters
    ----------
    gain
        Variance over mean of shot noise.
    pristine, converted
        Looks; without the second there is no fraction.
    rings
        Power of the pristine specimen.
    """

    settings: SceneSettings
    estimator: DriftEstimator
    gain: float
    pristine: Look
    rings: Float
    converted: Look | None = None
    _number: int = field(default=0, init=False)

    def changed(self) -> NDArray[np.bool_]:
        """Return the blocks that differ between both looks."""
        if self.converted is None:
            return np.zeros(self.pristine.level.shape, dtype=bool)
        level, texture = _significance(self.pristine, self.converted)
        return np.asarray(np.hypot(level, texture) > MIN_SIGMAS)

    def track(self, frames: Frames, *, settled: float = 1.0) -> Track:
        """Go through more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return conversion_track(readings, self, settled)

    def update(self, pixels: NDArray[np.generic]) -> ConversionReading:
        """Compare a frame with both looks.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        number, self._number = self._number, self._number + 1
        shift = self.estimator.update(pixels)
        if reason := why_unusable(pixels):
            return ConversionReading(shift=shift, reason=reason)
        image = np.asarray(pixels, dtype=np.float64)
        blocks = blocks_of(_shifted(image, shift), BLOCK_PX, self.gain)
        at, power, modes = ring_powers(image)
        grain = grain_scale(at, power, modes, self.rings)
        level = blocks.level / self.pristine.level - 1
        n = level.size
        level_sigma = math.sqrt(float(np.sum(blocks.level_variance / self.pristine.level**2))) / n
        texture_sigma = math.sqrt(float(np.sum(blocks.texture_variance))) / n
        plain = ConversionReading(
            shift=shift,
            grain_px=grain,
            level_change=(float(level.mean()), level_sigma),
            texture=(float(blocks.texture.mean()), texture_sigma),
            reason=NO_LOOK if self.converted is None else "",
        )
        if self.converted is None:
            return plain
        return self._with_fraction(plain, blocks, self.converted, number)

    def _with_fraction(
        self, plain: ConversionReading, blocks: Blocks, converted: Look, number: int
    ) -> ConversionReading:
        used = self.changed()
        local, sigma = fractions(blocks, self.pristine, converted)
        summed = summed_fraction(blocks, self.pristine, converted, used)
        parted = segregation(local[used], sigma[used])
        moran, p = neighbours_alike(local, used, number)
        return ConversionReading(
            shift=plain.shift,
            fraction=whole_fraction((local[used], sigma[used]), summed, parted[0]),
            segregation=parted,
            moran=moran,
            moran_p=p,
            grain_px=plain.grain_px,
            level_change=plain.level_change,
            texture=plain.texture,
        )


def _shifted(image: Float, shift: Shift) -> Float:
    """Return a frame moved by whole pixels onto the reference: counts stay counts."""
    if not shift.valid:
        return image
    whole = round(shift.dy_px), round(shift.dx_px)
    return image if whole == (0, 0) else np.roll(image, whole, axis=(0, 1))


def fractions(blocks: Blocks, pristine: Look, converted: Look) -> tuple[Float, Float]:
    """Return the converted fraction of each block and its sigma.

    Level and texture each give one, and count by the inverse of their variance: that of a
    frame and of both looks.
    """
    total, weight = np.zeros(blocks.level.shape), np.zeros(blocks.level.shape)
    for name in ("level", "texture"):
        value, own = getattr(blocks, name), getattr(blocks, f"{name}_variance")
        first, last = getattr(pristine, name), getattr(converted, name)
        step = last - first
        fraction = (value - first) / np.where(step == 0, np.inf, step)
        share = np.clip(fraction, 0.0, 1.0)
        # Weights by what is expected, not by what was seen, which would favour low counts.
        looks = getattr(pristine, f"{name}_variance") * (1 - share) ** 2
        looks = looks + getattr(converted, f"{name}_variance") * share**2
        w = step**2 / (own + looks)
        total, weight = total + w * fraction, weight + w
    weight = np.maximum(weight, 1e-12)
    return total / weight, 1 / np.sqrt(weight)


def whole_fraction(
    local: tuple[Float, Float], summed: tuple[float, float], parted: float
) -> tuple[float, float]:
    """Return the converted fraction of all blocks, and its sigma.

    Where each block is pristine or converted, the mean of their own fractions is right
    whatever each has changed by. Where all are on the way, it is led by those that change
    little and whose grains do not grow evenly, and their sums are right. The segregation
    tells how much of each there is; what lies between both is doubt where it is neither.

    Parameters
    ----------
    local
        Fractions of blocks and their sigmas, shape (n,).
    summed
        By `summed_fraction`.
    parted
        Segregation; NaN near both ends.
    """
    fraction, sigma = local
    mean, own = float(fraction.mean()), float(np.sqrt(np.sum(sigma**2))) / len(fraction)
    share = min(max(parted, 0.0), 1.0) if math.isfinite(parted) else 0.5
    doubt = math.sqrt(share * (1 - share)) * (mean - summed[0])
    # The same counts make both: their sigmas add up.
    sigma_both = share * own + (1 - share) * summed[1]
    return share * mean + (1 - share) * summed[0], math.hypot(sigma_both, doubt)


def summed_fraction(
    blocks: Blocks, pristine: Look, converted: Look, used: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the converted fraction by the sums of level and texture, and its sigma.

    Both count by the inverse of their variance; where they disagree, the sigma is widened
    by as much (Birge's ratio).
    """
    found: list[tuple[float, float]] = []
    for name in ("level", "texture"):
        first, last = getattr(pristine, name)[used], getattr(converted, name)[used]
        step = float(np.sum(last - first))
        if step == 0:
            continue
        fraction = float(np.sum(getattr(blocks, name)[used] - first)) / step
        share = min(max(fraction, 0.0), 1.0)
        variances = [getattr(b, f"{name}_variance")[used] for b in (blocks, pristine, converted)]
        own = variances[0] + variances[1] * (1 - share) ** 2 + variances[2] * share**2
        found.append((fraction, float(np.sum(own)) / step**2))
    if not found:
        return math.nan, math.nan
    weight = sum(1 / v for _, v in found)
    mean = sum(f / v for f, v in found) / weight
    birge = sum((f - mean) ** 2 / v for f, v in found) / max(len(found) - 1, 1)
    return mean, math.sqrt(max(birge, 1.0) / weight)


def conversion_track(
    readings: Sequence[ConversionReading], live: LiveConversion, settled: float
) -> Track:
    """Return readings as columns."""
    size_m = live.settings.pixel_size_m
    columns: dict[str, Float] = {}
    pairs = {
        "converted_fraction": ("fraction", 1.0),
        "segregation": ("segregation", 1.0),
        "grain_scale": ("grain_px", size_m),
        "level_change": ("level_change", 1.0),
        "texture": ("texture", 1.0),
    }
    for name, (key, factor) in pairs.items():
        both = np.array([getattr(r, key) for r in readings]).reshape(-1, 2) * factor
        columns |= {name: both[:, 0], f"{name}_sigma": both[:, 1]}
    columns["moran"] = np.array([r.moran for r in readings])
    columns["moran_p"] = np.array([r.moran_p for r in readings])
    units = dict.fromkeys(columns, "1") | {"grain_scale": "m", "grain_scale_sigma": "m"}
    seg, own = columns["segregation"], columns["segregation_sigma"]
    told = np.isfinite(seg)
    return Track(
        columns=columns,
        units=units,
        valid=np.array([not r.reason for r in readings], dtype=bool),
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "blocks": float(np.sum(live.changed())),
            "block_px": float(BLOCK_PX),
            "shot_gain": live.gain,
            "end_settled": settled,
            "segregation": float(np.mean(seg[told])) if np.any(told) else math.nan,
            "segregation_sigma": float(np.sqrt(np.mean(own[told] ** 2)) / np.sqrt(told.sum()))
            if np.any(told)
            else math.nan,
        },
        drift=drift_columns([r.shift for r in readings]),
    )
