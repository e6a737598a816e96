"""Tracks how far a specimen has converted, between how it looks before and after."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from correlate.converted import (
    BLOCK_PX,
    Kind,
    Look,
    Seen,
    WholeChange,
    fraction,
    in_blocks,
    kind_of,
)
from correlate.drift import Shift, why_unusable
from correlate.pattern_of_change import neighbours_alike, segregation
from correlate.steady import SteadyEstimator, brought_back
from correlate.texture import grain_scale, ring_powers
from correlate.trackers.drift import drift_columns
from correlate.trackers.protocol import CannotTrack, Frames, Option, SceneSettings, Track

Float = NDArray[np.float64]
LOOK_FRAMES = 10  # of which a look is the mean
MIN_BLOCKS = 8
FLAT_SIGMAS = 3.0  # of what goes on changing in the last frames
NO_LOOK = "the converted look is not known"
NOTHING = math.nan, math.nan
OPTIONS = {
    "drift": Option(
        kind="word", default="tracked", words=("tracked", "none"), about="none where it is none"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReading:
    """What one frame tells; the reason is empty where it was compared with both looks.

    Parameters
    ----------
    seen
        The comparison.
    segregation, grain_px, level_change, texture
        Each with its sigma: how far blocks are either before or after; the scale of what has
        come; relative change of the brightness, and relative variance of what has come.
    moran, moran_p
        Moran's I of neighbouring blocks, and its p.
    """

    shift: Shift
    seen: Seen | None = None
    segregation: tuple[float, float] = NOTHING
    moran: float = math.nan
    moran_p: float = math.nan
    grain_px: tuple[float, float] = NOTHING
    level_change: tuple[float, float] = NOTHING
    texture: tuple[float, float] = NOTHING
    reason: str = ""


class ConversionTracker:
    """Compares each frame with the looks before and after, pixel by pixel.

    Parameters
    ----------
    settings
        With the pixel size, for the scale of grains in metres.
    converted
        Look after; that of the last frames where None. A live tracker needs it.
    """

    options = OPTIONS
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
        if live.change is None:
            after, settled = _last_look(frames, live)
            live.compare_with(after)
            if int(np.sum(WholeChange(live.before, after, live.gain).used)) < MIN_BLOCKS:
                raise CannotTrack(
                    "nothing has changed from the first frames to the last, by brightness or "
                    "texture; film until the specimen has converted"
                )
        return live.track(frames, settled=settled)

    def begin(self, frames: Frames) -> "LiveConversion":
        """Learn the look before from first frames, and return what goes on from there.

        Raises
        ------
        CannotTrack
            There are too few frames.
        """
        live = self._learn(frames)
        live.track(frames)
        return live

    def _learn(self, frames: Frames) -> "LiveConversion":
        rows, columns = (side // BLOCK_PX for side in self._settings.shape)
        if rows * columns < MIN_BLOCKS:
            raise CannotTrack(f"frames hold fewer than {MIN_BLOCKS} blocks of {BLOCK_PX} px")
        estimator = _estimator(self._settings)
        first: list[Float] = []
        numbers: list[int] = []
        why = ""
        for number, pixels in enumerate(frames()):
            if why_unusable(pixels):
                continue
            shift = estimator.update(pixels)
            if shift.valid:
                first.append(brought_back(pixels, shift)[0])
                numbers.append(number)
            why = shift.reason or why
            if len(first) >= LOOK_FRAMES:
                break
        if len(first) < 2:
            raise CannotTrack(
                "two frames that can be used are needed to learn the pristine look"
                + (f", and most are not: {why}" if why else "")
            )
        live = LiveConversion(
            settings=self._settings,
            estimator=_estimator(self._settings),
            gain=shot_gain(first),
            before=Look(mean=np.mean(first, axis=0), frames=frozenset(numbers)),
        )
        if self._converted is not None:
            live.compare_with(self._converted)
        return live


def _estimator(settings: SceneSettings) -> SteadyEstimator:
    try:
        return SteadyEstimator(settings.shape, still=settings.word("drift", OPTIONS) == "none")
    except ValueError as error:
        raise CannotTrack(str(error)) from error


def shot_gain(frames: Sequence[Float]) -> float:
    """Return variance over mean of counting noise, by the differences of successive frames.

    Parameters
    ----------
    frames
        Brought onto each other. The median over blocks lets no block that changes tell.
    """
    ratios = []
    for a, b in itertools.pairwise(frames):
        both = in_blocks((a + b) / 2).mean(axis=2)
        away = in_blocks(a / a.mean() - b / b.mean()) * (a.mean() + b.mean()) / 2
        ratios.append(np.sum(away**2, axis=2) / (away.shape[2] - 1) / 2 / np.maximum(both, 1e-9))
    return max(float(np.median(np.mean(ratios, axis=0))), 1e-6)


def _last_look(frames: Frames, live: "LiveConversion") -> tuple[Look, float]:
    """Return the look of the last frames, and 1 where it no longer changes, else 0."""
    estimator = _estimator(live.settings)
    last: list[tuple[int, Float]] = []
    for number, pixels in enumerate(frames()):
        if why_unusable(pixels):
            continue
        shift = estimator.update(pixels)
        if shift.valid:
            last = [*last[-2 * LOOK_FRAMES + 1 :], (number, brought_back(pixels, shift)[0])]
    half = len(last) // 2
    earlier, later = (
        Look(mean=np.mean([f for _, f in part], axis=0), frames=frozenset(n for n, _ in part))
        for part in (last[:half] or last, last[half:])
    )
    # Against the whole change: a step between the halves that is beyond its noise.
    change = WholeChange(live.before, later, live.gain)
    share, sigma = change.seen_in(earlier.mean, np.ones(earlier.mean.shape, dtype=bool), -1).slope
    # The noise of a mean of frames, not of one.
    sigma = sigma / math.sqrt(len(earlier.frames)) * math.sqrt(2)
    settled = not math.isfinite(share) or abs(1 - share) < FLAT_SIGMAS * sigma
    return later, float(settled)


@dataclass(slots=True, kw_only=True)
class LiveConversion:
    """Goes on with a look before, frame by frame or chunk by chunk.

    Parameters
    ----------
    gain
        Variance over mean of counting noise.
    before
        The pristine look.
    """

    settings: SceneSettings
    estimator: SteadyEstimator
    gain: float
    before: Look
    change: WholeChange | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)
    _seen: list[Seen] = field(default_factory=list, init=False)

    def compare_with(self, after: Look) -> None:
        """Take the look after."""
        self.change = WholeChange(self.before, after, self.gain)

    def track(self, frames: Frames, *, settled: float = 1.0) -> Track:
        """Go through more frames; each is looked at once."""
        readings = [self.update(pixels) for pixels in frames()]
        return conversion_track(readings, self, settled)

    @property
    def kind(self) -> Kind:
        """What slopes stand for, by all frames so far."""
        return kind_of(self._seen, self.change.grains_share if self.change is not None else 0.0)

    def update(self, pixels: NDArray[np.generic]) -> ConversionReading:
        """Compare a frame with both looks.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        number, self._number = self._number, self._number + 1
        shift = self.estimator.update(pixels)
        if not shift.valid:
            return ConversionReading(shift=shift, reason=shift.reason)
        image, there = brought_back(pixels, shift)
        away = image - self.before.mean
        whole = (in_blocks(there) > 0).all(axis=2)
        if int(whole.sum()) < MIN_BLOCKS:
            return ConversionReading(shift=shift, reason="most of the field has been left")
        level = float(in_blocks(image)[whole].mean())
        first = float(in_blocks(self.before.mean)[whole].mean())
        n = int(whole.sum()) * BLOCK_PX**2
        noise = self.gain * (level + first / len(self.before.frames))
        if number in self.before.frames:
            noise -= 2 * self.gain * level / len(self.before.frames)
        rows, columns = _box(there)
        texture = float(np.mean(np.var(in_blocks(away)[whole], axis=1, ddof=1))) - noise
        own = math.sqrt((2 * noise**2 + 4 * max(texture, 0.0) * noise) / n)
        plain = ConversionReading(
            shift=shift,
            grain_px=grain_scale(*ring_powers(away[rows, columns])),
            level_change=(level / first - 1, math.sqrt(noise / n) / first),
            texture=(texture / first**2, own / first**2),
            reason=NO_LOOK if self.change is None else "",
        )
        if self.change is None:
            return plain
        return self._compared(plain, self.change.seen_in(image, there, number), number)

    def _compared(self, plain: ConversionReading, seen: Seen, number: int) -> ConversionReading:
        self._seen.append(seen)
        used = np.isfinite(seen.share)
        moran, p = neighbours_alike(np.where(used, seen.share, 0.0), used, number)
        return ConversionReading(
            shift=plain.shift,
            seen=seen,
            segregation=segregation(seen.share[used], seen.sigma[used]),
            moran=moran,
            moran_p=p,
            grain_px=plain.grain_px,
            level_change=plain.level_change,
            texture=plain.texture,
            reason="" if math.isfinite(seen.slope[0]) else "too little of it is in the field",
        )


def _box(there: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def conversion_track(
    readings: Sequence[ConversionReading], live: LiveConversion, settled: float
) -> Track:
    """Return readings as columns."""
    size_m = live.settings.pixel_size_m
    kind = live.kind
    fractions = [
        NOTHING if r.seen is None or r.reason else fraction(r.seen, kind) for r in readings
    ]
    pairs: dict[str, list[tuple[float, float]]] = {
        "converted_fraction": fractions,
        "segregation": [r.segregation for r in readings],
        "grain_scale": [(r.grain_px[0] * size_m, r.grain_px[1] * size_m) for r in readings],
        "level_change": [r.level_change for r in readings],
        "texture": [r.texture for r in readings],
    }
    columns: dict[str, Float] = {}
    for name, values in pairs.items():
        both = np.array(values, dtype=np.float64).reshape(-1, 2)
        columns |= {name: both[:, 0], f"{name}_sigma": both[:, 1]}
    columns["moran"] = np.array([r.moran for r in readings], dtype=np.float64)
    columns["moran_p"] = np.array([r.moran_p for r in readings], dtype=np.float64)
    units = dict.fromkeys(columns, "1") | {"grain_scale": "m", "grain_scale_sigma": "m"}
    return Track(
        columns=columns,
        units=units,
        valid=np.array([not r.reason for r in readings], dtype=bool),
        reasons=Counter(r.reason for r in readings if r.reason),
        attributes={
            "blocks": float(np.sum(live.change.used)) if live.change is not None else 0.0,
            "block_px": float(BLOCK_PX),
            "shot_gain": live.gain,
            "end_settled": settled,
            "patchwork": kind.patchwork,
            "patchwork_sigma": kind.sigma / max(live.change.grains_share, 1e-3)
            if live.change is not None
            else math.nan,
        },
        drift=drift_columns([r.shift for r in readings]),
    )
