"""Follows what grows in a gap from frame to frame: its free ends, and its area.

Where it is, is learned from a mean of the last frames; how far its ends have come and how
large it is, is measured in each frame alone.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from correlate.deposit import AreaReading, Background, Contrast, Crop, Placed, Region, placed
from correlate.drift import Shift
from correlate.end_in_layer import Layer
from correlate.free_ends import Followed, looked_at_again, lowered, matched, on_their_shafts
from correlate.gap import HALF, Gap, outline, standing_out
from correlate.growth_reading import (
    BEHIND_ONLY,
    GOES_ON,
    JUMPED,
    LEFT,
    NO_LEVEL,
    NOT_FOUND,
    ODD,
    TOUCHES,
    UNSEEN,
    UNSETTLED,
    GrowthReading,
)
from correlate.outgrowth import FIRST_SOFT_PX, find_ends
from correlate.segmentation import EIGHT, Mask
from correlate.shaft import Axis, fit_end
from correlate.two_classes import (
    SMOOTH_PX,
    Split,
    layer_px,
    settled_parts,
    softened,
    strong_part,
    two_levels,
)

RENEW_FRAMES = 8  # after which shape and region are looked for anew
RENEW_PX = 3.0  # or when an end has come so far
LOST_FRAMES = 5
CLEAR_SIGMAS = 5.0  # of noise, in half of the step between classes
SETTLED_FRAMES = 4  # after which a mean of the last frames shows a part of what has come until then
SEEN_SIGNIFICANCE, NEW_SIGNIFICANCE = 4.0, 6.0  # of an end that is followed, and of another
MISFIT_SIGMAS = 5.0
AGREE_SIGMAS, AGREE_PX = 3.0, 1.5  # by which two ways to find an end may differ
JUMP_SIGMAS, JUMP_PX, BLURS = 8.0, 6.0, 3.0
REACH_PX = 24.0  # of the shaft behind its end, and of the background before it
FEWEST_PX = 5.0  # on each side of an end that can be fitted
# Shares of what was not expected by which place and speed follow: of a frame that tells
# much, and of one that tells little.
SHARP_PX, FOLLOW_SHARP, FOLLOW_BLURRED = 1.0, (0.8, 0.4), (0.4, 0.1)
SEARCH_PX, FEW_FRAMES = 24.0, 4.0  # reach for an end that is not followed yet, and memory then
FEWEST_FRAMES = 2.0
CANDIDATES = 8  # ends that are fitted in each frame, the foremost ones
MEMORY_FRAMES = 8.0
START_SHARE = 1 / 3  # of the first frames, that are remembered to begin with
ROOM_PX = 40  # around an object, in which its shape is looked for anew
FASTEST_BLUR_PX = 2.0  # that an end may move within the memory
PATH_SIGMA_RATIO = 0.5  # of the width, by which a curved way is uncertain at least
Floats = NDArray[np.float64]

DISSOLVES_PX = -0.2  # speed of an end, per frame


@dataclass(slots=True)
class GrowthFollower:
    """Follows an object.

    Parameters
    ----------
    gap
        In which it is.
    shape
        Height and width of a frame.
    rises
        +1 for a brighter object, -1 for a darker one.
    classes
        2 where what has grown is divided into two by contrast. Its ends are those of the
        stronger one then, as soon as they are told apart.
    """

    gap: Gap
    shape: tuple[int, int]
    rises: int
    classes: int = 1
    ends: list[Followed] = field(default_factory=list)
    contrast: Contrast = field(default_factory=Contrast)
    _background: Background = field(init=False)
    _recent: Floats = field(init=False)
    _object: Mask = field(init=False)
    _region: Region = field(init=False)
    _contrasts: tuple[Contrast, Contrast] = field(init=False)
    _split: Split | None = field(default=None, init=False)
    _untold: deque[tuple[int, Split]] = field(default_factory=deque, init=False)
    _around: Floats = field(init=False)
    _layer: Layer | None = field(default=None, init=False)
    _layer_px: float = field(default=0.0, init=False)
    _cut: bool = field(default=False, init=False)
    _frames: int = field(default=0, init=False)
    _renewed: int = field(default=-RENEW_FRAMES, init=False)
    _travelled: float = field(default=0.0, init=False)
    _lost: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)
    _found_before: int = field(default=0, init=False)  # the last number given before the last look
    _excess: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        self._background = Background(self.gap)
        self._recent = self.gap.start.copy()
        self._object = np.zeros(self._recent.shape, dtype=bool)
        self._contrasts = Contrast(), Contrast()
        self._around = np.zeros(self._recent.shape)
        self._set_region(self._whole, self._object)

    def update(self, pixels: NDArray[np.generic], shift: Shift) -> GrowthReading:
        """Follow the object through one more frame.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        shift
            What brings the frame onto the reference; valid.
        """
        at = placed(self.gap, shift.dx_px, shift.dy_px)
        beam = self._region.level(pixels, at, self._excess)
        if not beam[0] > 0:
            return GrowthReading(shift=shift, reason=NO_LEVEL)
        self._excess += (beam[2] - self._excess) / min(self._frames + 1, 20)
        beam = (beam[0], beam[1], self._excess)
        self._frames += 1
        self._remember(pixels, at, beam[0])
        if self._is_due():
            self._renew()
        area = None
        if np.any(self._object):
            sigmas = shift.sigma_x_px, shift.sigma_y_px
            # Where it is being dissolved, what was deep inside is so no more.
            steady = not self._lost and all(f.speed_px > DISSOLVES_PX for f in self.ends)
            area = self._area(pixels, at, beam, sigmas, learns=steady)
        if area is not None and area.outgrown:
            self._travelled = math.inf
        reading = self._foremost(pixels, at, beam[0], shift)
        return replace(reading, area=area, branches=self._branches, cut=self._cut)

    def _area(
        self,
        pixels: NDArray[np.generic],
        at: Placed,
        beam: tuple[float, float, float],
        sigmas: tuple[float, float],
        *,
        learns: bool,
    ) -> AreaReading | None:
        told = None
        if self._split is not None:
            told = self._split.measure(pixels, at, beam, self._contrasts, sigmas, learns=learns)
        if told is not None:
            return told
        found = self._region.measure(pixels, at, beam, self.contrast, sigmas, learns=learns)
        if found is None or self._split is None:
            return found
        # Two are seen whose contrasts are not known yet: it may all be of either one.
        strong, weak = self._split.levels
        spread = found.area_px * self.contrast.value * (1 / weak - 1 / strong) / math.sqrt(12)
        return replace(
            found,
            sigma_px=math.hypot(found.sigma_px, spread),
            shared_sigma_px=math.hypot(found.shared_sigma_px, spread),
        )

    # --- where it is -----------------------------------------------------------------------

    @property
    def _whole(self) -> Crop:
        height, width = self._recent.shape
        return slice(0, height), slice(0, width)

    def _crop(self) -> Crop:
        """Return the part of the gap in which the object is, with room around it."""
        rows, columns = (
            np.nonzero(self._object.any(axis=1))[0],
            np.nonzero(self._object.any(axis=0))[0],
        )
        if not self.ends or not len(rows) or self._lost:
            return self._whole
        height, width = self._recent.shape
        room = ROOM_PX + 2 * round(max(f.end.axis.radius_px for f in self.ends))
        return (
            slice(max(int(rows[0]) - room, 0), min(int(rows[-1]) + room, height)),
            slice(0, min(int(columns[-1]) + room, width)),
        )

    @property
    def _branches(self) -> int:
        """Return how many ends there are: one that noise makes is gone at the next look."""
        again = sum(followed.number <= self._found_before for followed in self.ends)
        return again or min(len(self.ends), 1)

    def _is_due(self) -> bool:
        waited = self._frames - self._renewed
        # The sooner it is looked at again, the sooner both contrasts are known.
        untold = self._split is not None and any(math.isnan(c.value) for c in self._contrasts)
        longest = SETTLED_FRAMES if untold else RENEW_FRAMES
        return waited >= longest or (self._travelled > RENEW_PX and waited >= 2)

    def _remember(self, pixels: NDArray[np.generic], at: Placed, level: float) -> None:
        """Let a frame add to the mean of the last ones."""
        speed = max((abs(f.speed_px) for f in self.ends), default=0.0)
        fewest = MEMORY_FRAMES if self._split is None else self._fewest_frames(level)
        memory = min(max(FASTEST_BLUR_PX / max(speed, 1e-3), fewest), 4 * MEMORY_FRAMES)
        blurred = any(f.blur_px > SHARP_PX for f in self.ends)
        if self._lost and (not blurred or self._split is not None):
            memory = FEW_FRAMES if self._split is None else fewest  # it may have gone on meanwhile
        share = 1 / min(self._frames + self.gap.frames * START_SHARE, memory)
        height, width = self._recent.shape
        rows = slice(max(-at.down, 0), min(height, pixels.shape[0] - at.down))
        columns = slice(max(-at.right, 0), min(width, pixels.shape[1] - at.right))
        seen = pixels[
            rows.start + at.down : rows.stop + at.down,
            columns.start + at.right : columns.stop + at.right,
        ]
        part = self._recent[rows, columns]
        part *= 1 - share
        part += (share / level) * seen.astype(np.float64)

    def _fewest_frames(self, level: float) -> float:
        """Return how many frames tell both classes apart, in a mean with a decaying memory.

        A mean of M such frames has the variance of one over ``2 M - 1``, and one that is smoothed
        that of its pixels over ``4 pi`` times the square of the smoothing.
        """
        if self._split is None:
            return MEMORY_FRAMES
        strong, weak = self._split.levels
        counts = level * float(np.median(self.gap.level[::8, ::8]))
        noise = self._excess / counts / (4 * math.pi * SMOOTH_PX**2)
        half = 0.5 * min(strong - weak, weak)
        needed = 0.5 * (1 + CLEAR_SIGMAS**2 * noise / half**2)
        return min(max(needed, FEWEST_FRAMES), MEMORY_FRAMES)

    def _renew(self) -> None:
        """Look for the object anew in the mean of the last frames."""
        self._renewed, self._travelled = self._frames, 0.0
        gap, crop = self.gap, self._crop()
        excess = self.rises * (self._recent[crop] - gap.background[crop]) / gap.level[crop]
        known = self.contrast.value if self.contrast.value > 0 else math.nan
        smooth = ndimage.gaussian_filter(excess, SMOOTH_PX)
        levels = self._levels(smooth, excess, self._object[crop])
        if levels is not None:
            known = levels[1]  # the outline of both is that of the weaker one
        whole, _ = outline(excess, self._object[crop], known, self._object[crop])
        mask = whole
        if levels is not None:
            mask = strong_part(smooth, whole, levels)
            self._layer_px = layer_px(whole, mask)
            excess = self._filled(excess, whole, levels, crop)
        if self._lost >= LOST_FRAMES:
            self.ends = []  # where they were thought to be is no hint any more
        sure = [f.end.axis for f in self.ends if math.isfinite(f.end.axis.radius_sigma_px)]
        radius = sure[0].radius_px if sure else math.nan
        # Of a part that begins farther down, rows are counted from there.
        top = crop[0].start
        found = [lowered(end, top) for end in find_ends(excess, mask, gap.edge_px, radius)]
        if not found and len(self.ends) == 1 and self.ends[0].end.is_straight:
            # Noise hides its outline.
            one = self.ends[0]
            found = [looked_at_again(excess, one, one.place_px, top, gap.edge_px)]
        found = on_their_shafts(found, self.ends, excess, top, gap.edge_px)
        self.ends = matched(found, self.ends, self._count)
        self._found_before, self._count = self._count, self._count + len(found)
        labels, _ = ndimage.label(mask, EIGHT)
        rooted = np.isin(labels, np.unique(labels[:, :3]))
        behind = mask & ~rooted
        if levels is not None:
            behind = settled_parts(behind, smooth, levels)
        above, below = crop[0].start == 0, crop[0].stop == self._recent.shape[0]
        self._cut = bool((above and mask[0].any()) or (below and mask[-1].any()))
        self._object[:] = False
        self._object[crop] = whole
        if levels is None:
            self._set_region(crop, behind)
        else:
            self._set_region(crop, behind, mask, levels, smooth)

    @property
    def _soft_px(self) -> float:
        """Return the softness of an outline: a shaft that is blurred by its motion has more."""
        sure = [f.end.axis for f in self.ends if math.isfinite(f.end.axis.radius_sigma_px)]
        return max(min((axis.wide_px for axis in sure), default=FIRST_SOFT_PX), 1.0)

    def _levels(self, smooth: Floats, excess: Floats, before: Mask) -> tuple[float, float] | None:
        """Return the contrasts of both classes; None where one is asked for, or seen."""
        if self.classes == 1:
            return None
        found = two_levels(smooth, standing_out(excess, before))
        strong, weak = (contrast.value for contrast in self._contrasts)
        if strong > weak > 0:
            return strong, weak
        return found if found is not None or self._split is None else self._split.levels

    def _filled(
        self, excess: Floats, whole: Mask, levels: tuple[float, float], crop: Crop
    ) -> Floats:
        """Return what stands out with the weaker class all around.

        Over a level that is the same everywhere, the shape of the stronger one is that of
        something that stands alone.
        """
        cover, (strong, weak) = softened(whole, self._soft_px), levels
        self._around[:] = 0.0
        self._around[crop] = self.rises * weak * cover
        self._layer = Layer(
            strong=self.rises * strong, weak=self.rises * weak, thick_px=self._layer_px
        )
        return excess + weak * (1 - cover)

    def _set_region(
        self,
        crop: Crop,
        behind: Mask,
        strong: Mask | None = None,
        levels: tuple[float, float] | None = None,
        smooth: Floats | None = None,
    ) -> None:
        whole = self._object[crop]
        cover = whole.astype(np.float64)
        moving = np.zeros(cover.shape, dtype=bool)
        ahead = np.zeros(cover.shape, dtype=bool)
        soft = 1.5
        y, x = np.indices(cover.shape, dtype=np.float64)
        y += crop[0].start
        for followed in self.ends:
            axis, place = followed.end.axis, followed.place_px
            soft = max(axis.wide_px, 1.0)
            further = RENEW_PX + 2 + 2 * abs(followed.speed_px)
            s, t = axis.along(np.asarray(x), np.asarray(y))
            if followed.end.is_straight and len(self.ends) == 1:
                cover = np.maximum(axis.cover(s, t, place), cover)
            begin = place - axis.radius_px
            soon = axis.cover(s, t, place + further) > HALF
            ahead |= (s > begin) & soon
            if strong is None:
                continue
            # A mean of the last frames lags behind an end and what is around it.
            wide = replace(axis, radius_px=axis.radius_px + self._layer_px)
            tip = (s > begin) & (wide.cover(s, t, place + self._layer_px) > HALF)
            whole = whole | tip
            cover = np.maximum(cover, tip)
            on = (s > begin - further) & (axis.cover(s, t, place) > HALF)
            strong = (strong & ~((s > begin) & soon)) | on
            moving |= (s > begin - further) & soon
            ahead |= (s > begin) & (wide.cover(s, t, place + self._layer_px + further) > HALF)
        self._region = Region(
            background=self._background,
            crop=crop,
            cover=cover,
            ahead=ahead,
            behind=behind,
            soft_px=soft,
            rises=self.rises,
        )
        before, self._split = self._split, None
        if strong is None or levels is None or smooth is None:
            return
        self._split = Split(
            region=self._region,
            mask=whole,
            strong=strong,
            moving=moving,
            behind=behind,
            smooth=smooth,
            levels=levels,
            soft_px=self._soft_px,
        )
        while self._untold and self._frames - self._untold[0][0] >= SETTLED_FRAMES:
            self._untold.popleft()[1].followed_by(self._split, self._contrasts)
        if before is not None:
            self._untold.append((self._frames, before))
            both = np.zeros((2, *self._object.shape), dtype=bool)
            both[0][crop], both[1][crop] = strong, whole & ~strong
            self._split.unseen_px = before.changed_px(*both)

    # --- how far it has come -----------------------------------------------------------------

    def _reaches(self, followed: Followed) -> float:
        """Return the column that an end is expected to reach."""
        axis, place = followed.end.axis, followed.place_px
        return axis.place(place - axis.radius_px)[0] + axis.radius_px

    def _foremost(
        self, pixels: NDArray[np.generic], at: Placed, level: float, shift: Shift
    ) -> GrowthReading:
        if not self.ends:
            behind = bool(np.any(self._object))
            return GrowthReading(shift=shift, reason=BEHIND_ONLY if behind else NOT_FOUND)
        first = sorted(self.ends, key=self._reaches, reverse=True)[:CANDIDATES]
        readings = [self._fit(pixels, at, level, shift, followed) for followed in first]
        for followed, told in zip(first, readings, strict=True):
            followed.missed = followed.missed + 1 if told.reason else 0
        # What was not found may be the foremost: nothing is said of another in its place.
        leads = [self._reaches(followed) for followed in first]
        best = int(np.argmax(leads))
        reading = readings[best]
        self._lost = self._lost + 1 if reading.reason else 0
        if self._lost == LOST_FRAMES:
            self._renewed = -RENEW_FRAMES  # look for it everywhere, now
        return reading

    def _fit(  # noqa: C901, PLR0911, PLR0915 - one answer for each way to miss it
        self,
        pixels: NDArray[np.generic],
        at: Placed,
        level: float,
        shift: Shift,
        followed: Followed,
    ) -> GrowthReading:
        gap, axis = self.gap, followed.end.axis
        expected = followed.place_px + followed.speed_px
        reach = SEARCH_PX
        if followed.seen:
            reach = JUMP_PX + abs(followed.speed_px) + BLURS * followed.blur_px
        begin = max(expected - REACH_PX, 2.0 if followed.end.is_straight else -axis.radius_px)
        window = self._window(axis, begin, expected + reach + REACH_PX - JUMP_PX)
        rows, columns = window[0] + at.down, window[1] + at.right
        inside = (rows >= 0) & (rows < self.shape[0])
        inside &= (columns >= 0) & (columns < self.shape[1])
        some = self._background.at(window[0][inside], window[1][inside])
        y = np.asarray(some.rows + at.rest_y_px, np.float64)
        x = np.asarray(some.columns + at.rest_x_px, np.float64)
        s, t = axis.along(x, y)
        if len(s) < 20 or s.max() < expected + FEWEST_PX:
            followed.place_px = expected
            x_px = axis.place(expected + FEWEST_PX)[0]
            touches = x_px > self._recent.shape[1] - 1 and math.isfinite(gap.target.x_px)
            return GrowthReading(
                shift=shift, reason=TOUCHES if touches else LEFT, censored=not touches
            )
        counts = np.asarray(pixels[rows[inside], columns[inside]], dtype=np.float64)
        shade = some.background + at.rest_y_px * some.down + at.rest_x_px * some.right
        shade = level * np.maximum(shade, 1e-6)
        start, near = expected, reach
        if self._layer is not None:
            before = self._around[some.rows, some.columns]
            start = self._layer.likely_end(axis, s, t, counts, shade, before, expected, reach)
            shade = shade * (1 + self._layer.around(axis, s, t, start, before))
            near = JUMP_PX + BLURS * followed.blur_px
        fit = fit_end(axis, s, t, counts, shade, start, rises=self.rises, reach_px=near)
        noise = self._excess * (1 + level / gap.frames)
        hidden = gap.unknown[some.rows, some.columns]
        by_texture = gap.by_texture(some.rows, some.columns, np.where(hidden, fit.weight, 0.0))
        own = math.sqrt(fit.sigma_px**2 * noise + by_texture)
        # Texture that is not known makes steps of its own.
        unknown = gap.texture * float(shade.mean()) * float(hidden.mean())
        least = SEEN_SIGNIFICANCE if followed.seen else NEW_SIGNIFICANCE
        if fit.significance < least * math.sqrt(noise + unknown):
            return GrowthReading(shift=shift, reason=UNSEEN)
        if not fit.converged:
            return GrowthReading(shift=shift, reason=UNSETTLED)
        short = not followed.end.is_straight and math.isnan(axis.radius_sigma_px)
        if short or fit.chi2 > noise + unknown + MISFIT_SIGMAS * math.sqrt(2 / len(s)):
            return GrowthReading(shift=shift, reason=ODD)
        if self.rises * (fit.beside - 1) > HALF * self.rises * (fit.on - 1):
            # What lies before this end stands out as well: the end is farther on.
            followed.place_px, followed.seen = expected + SEARCH_PX / 2, False
            return GrowthReading(shift=shift, reason=GOES_ON)
        if abs(fit.end_px - expected) > max(JUMP_SIGMAS * own, 1.2 * reach):
            return GrowthReading(shift=shift, reason=JUMPED)
        if self._layer is not None and abs(start - fit.end_px) > max(AGREE_SIGMAS * own, AGREE_PX):
            # With levels of its own the fit has found another edge than with those that are known.
            followed.place_px = start
            return GrowthReading(shift=shift, reason=ODD)
        if not followed.seen:
            followed.place_px, followed.seen = expected, True
            expected = fit.end_px
        followed.blur_px = own
        step = fit.end_px - expected
        by_place, by_speed = FOLLOW_SHARP if own < SHARP_PX else FOLLOW_BLURRED
        followed.speed_px += by_speed * step
        self._travelled += abs(expected + by_place * step - followed.place_px)
        followed.place_px = expected + by_place * step
        cosine, sine = abs(math.cos(axis.turn_rad)), abs(math.sin(axis.turn_rad))
        drift = math.hypot(cosine * shift.sigma_x_px, sine * shift.sigma_y_px)
        return self._told(shift, followed, fit.end_px, math.hypot(own, drift), fit.significance)

    def _window(
        self, axis: Axis, begin: float, end: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the pixels of the gap along a shaft."""
        across = axis.radius_px + 3 * axis.wide_px
        (xa, ya), (xb, yb) = axis.place(begin), axis.place(end)
        height, width = self._recent.shape
        y0, y1 = math.floor(min(ya, yb) - across), math.ceil(max(ya, yb) + across) + 1
        x0, x1 = math.floor(min(xa, xb) - across), math.ceil(max(xa, xb) + across) + 1
        rows, columns = np.mgrid[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        s, t = axis.along(columns.astype(np.float64), rows.astype(np.float64))
        on = (s >= begin) & (s <= end) & (np.abs(t) < across)
        return rows[on], columns[on]

    def _told(
        self, shift: Shift, followed: Followed, place: float, sigma: float, significance: float
    ) -> GrowthReading:
        """Return what an end's place comes to."""
        end = followed.end
        gap, axis, r = self.gap, end.axis, end.axis.radius_px
        x, y = axis.place(place)
        # The point of a round end that is nearest to the target.
        foremost = axis.place(place - r)[0] + r + gap.first
        cosine = max(abs(math.cos(axis.turn_rad)), 0.1)
        turned = abs(math.tan(axis.turn_rad)) * axis.turn_sigma_rad * place
        if end.is_straight:
            shared = math.hypot(gap.root.sigma_px / cosine, turned)
        else:
            shared = math.hypot(gap.root.sigma_px, end.path_sigma_px)
        turned_x = abs(math.sin(axis.turn_rad)) * axis.turn_sigma_rad * place
        return GrowthReading(
            shift=shift,
            along_px=end.path_px + place,
            along_sigma_px=sigma,
            length_px=end.path_px + place,
            length_sigma_px=math.hypot(sigma, shared),
            x_px=x + gap.first,
            y_px=y,
            end_sigma_px=sigma,
            distance_px=gap.target.x_px - foremost,
            distance_sigma_px=math.hypot(
                math.hypot(sigma * cosine, turned_x),
                gap.target.sigma_px if math.isfinite(gap.target.x_px) else math.nan,
            ),
            axis=axis,
            number=followed.number,
            significance=significance,
        )
