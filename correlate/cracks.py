"""Finds cracks across an object: lines as bright as its surroundings, that were not there.

The object's own lines are remembered, so that a crack is what comes at once. Lines are looked
for in some widths and directions, and a crack's width is told by how much of the object is
missing along its axis, however narrow it is against the edge's own width.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
LINES_PX = (3, 8, 20)  # looked for
SLANTS = (-0.6, -0.3, 0.0, 0.3, 0.6)  # px along for each px across
APART_PX, SIDE_PX = 3, 8  # of what a line is compared with, on both sides
CORE = 0.6  # of the half width, that is looked at
PLACES = 200  # along the object, at which its own lines are remembered
MEMORY = 0.1  # of a frame, in what is remembered
MIN_SIGMAS = 8.0
MIN_CONTRAST = 0.1  # of the object's own contrast
CONFIRM_FRAMES = 2
SAME_PLACE = 0.06  # of the length
THROUGH = 0.8  # of the contrast, missing in the middle of two parts that are apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Crack:
    """A crack.

    Parameters
    ----------
    frame
        The first that shows it.
    place
        Along the object, 0 to 1.
    slant
        Px along for each px across.
    gap_px, gap_sigma_px
        How wide it is, along the axis.
    apart
        Whether nothing of the object is left in its middle.
    """

    frame: int
    place: float
    slant: float
    gap_px: float = math.nan
    gap_sigma_px: float = math.nan
    apart: bool = False

    def reach(self, length_px: float) -> float:
        """Return how far along the object this crack is what is seen, on both sides."""
        wide = self.gap_px if math.isfinite(self.gap_px) else 0.0
        return max(SAME_PLACE, (0.5 * wide + SIDE_PX + APART_PX) / length_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Pixels in the middle of an object.

    Parameters
    ----------
    x, y
        Along the axis from one end, and across it from the middle; px, shape (n,).
    counts
        Of these pixels.
    length_px, width_px
        Of the object.
    outside
        Level around it, counts.
    excess
        Spread of the counts over that of Poisson's.
    """

    x: Float
    y: Float
    counts: Float
    length_px: float
    width_px: float
    outside: float
    excess: float = 1.0

    def profile(self, slant: float) -> tuple[Float, Float]:
        """Return sums of counts and pixels along lines of a slant, by px along the axis."""
        n = math.floor(self.length_px)
        k = np.floor(self.x - slant * self.y).astype(int)
        used = (np.abs(self.y) < CORE * self.width_px / 2) & (k >= 0) & (k < n)
        total = np.bincount(k[used], self.counts[used], n)
        pixels = np.bincount(k[used], minlength=n)
        return np.asarray(total, np.float64), np.asarray(pixels, np.float64)


@dataclass(slots=True)
class CrackWatch:
    """Looks at one frame after the other.

    Attributes
    ----------
    cracks
        Those that are there, by the frame in which they came.
    pending
        What looks like one in this frame, and has not been confirmed.
    """

    cracks: list[Crack] = field(default_factory=list)
    pending: tuple[Crack, ...] = ()
    _seen: list[Crack] = field(default_factory=list)
    _own: dict[tuple[int, float], Float] = field(default_factory=dict)

    def look(self, number: int, core: Core) -> None:
        """Look at a frame.

        Parameters
        ----------
        number
            Of the frame.
        core
            Of the object in it.
        """
        self.cracks = [measured(crack, core) for crack in self.cracks]
        best, best_sigmas = None, MIN_SIGMAS
        for slant in SLANTS:
            total, pixels = core.profile(slant)
            for line_px in LINES_PX:
                at, contrast, sigma = _lines(total, pixels, line_px, core)
                if not len(at):
                    continue
                found = self._new(
                    number, (line_px, slant), at / core.length_px, contrast, sigma, core.length_px
                )
                if found is not None and found[1] > best_sigmas:
                    best, best_sigmas = found
        self.pending = ()
        if best is None:
            self._seen.clear()
            return
        self._seen = [s for s in self._seen if abs(s.place - best.place) < SAME_PLACE]
        self._seen.append(best)
        if len(self._seen) >= CONFIRM_FRAMES:
            crack = replace(best, frame=self._seen[0].frame)
            self.cracks = [*self.cracks, measured(crack, core)]
            self._seen.clear()
        else:
            self.pending = (measured(best, core),)

    def _new(
        self,
        number: int,
        kind: tuple[int, float],
        place: Float,
        contrast: Float,
        sigma: Float,
        length_px: float,
    ) -> tuple[Crack, float] | None:
        """Return the line that stands out most against those remembered, and its sigmas."""
        places = (np.arange(PLACES) + 0.5) / PLACES
        own = self._own.get(kind)
        if own is None:
            self._own[kind] = np.interp(places, place, contrast)
            return None
        # A dark line that was there and has gone leaves none that is bright.
        new = contrast - np.maximum(np.interp(place, places, own), 0.0)
        for crack in self.cracks:
            new = np.where(np.abs(place - crack.place) < crack.reach(length_px), 0.0, new)
        i = int(np.argmax(new / sigma))
        if new[i] > max(MIN_SIGMAS * sigma[i], MIN_CONTRAST):
            return Crack(frame=number, place=float(place[i]), slant=kind[1]), float(
                new[i] / sigma[i]
            )
        self._own[kind] = own + MEMORY * (np.interp(places, place, contrast) - own)
        return None


def _lines(total: Float, pixels: Float, line_px: int, core: Core) -> tuple[Float, Float, Float]:
    """Return places along an object, the share that is missing in a line there, and its sigma.

    A line is compared with that of its two sides which is more like it: a step is no line.
    """
    n, half = len(total), line_px // 2
    reach = half + APART_PX + SIDE_PX
    first = int(core.width_px / 2)  # without round ends
    middle: NDArray[np.intp] = np.arange(max(first, reach), n - max(first, reach))
    if not len(middle):
        return np.empty(0), np.empty(0), np.empty(0)
    counts, area = (np.concatenate([[0.0], np.cumsum(v)]) for v in (total, pixels))

    def between(low: int, high: int) -> tuple[Float, Float]:
        size = np.maximum(area[middle + high] - area[middle + low], 1.0)
        mean = (counts[middle + high] - counts[middle + low]) / size
        return mean, core.excess**2 * np.maximum(mean, 1e-6) / size

    line = between(-half, line_px - half)
    left, right = between(-reach, -half - APART_PX), between(half + APART_PX + 1, reach + 1)
    sign = 1.0 if core.outside > float(np.median(total / np.maximum(pixels, 1))) else -1.0
    nearer = sign * left[0] > sign * right[0]
    base, own = np.where(nearer, left[0], right[0]), np.where(nearer, left[1], right[1])
    room = np.where(np.abs(core.outside - base) > 1e-6, core.outside - base, np.inf)
    contrast = (line[0] - base) / room
    sigma = np.sqrt(line[1] + own * (1 - contrast) ** 2) / np.abs(room)
    good = np.isfinite(room) & (sign * room > 0.2 * np.abs(core.outside - np.median(base)))
    return middle[good] + 0.5, contrast[good], np.maximum(sigma[good], 1e-9)


def measured(crack: Crack, core: Core) -> Crack:
    """Return a crack as a frame shows it: its place, and how much is missing there."""
    total, pixels = core.profile(crack.slant)
    level = total / np.maximum(pixels, 1)
    n, at = len(total), crack.place * core.length_px
    near = int(np.clip(at, 0, n - 1))
    base = float(np.median(level[pixels > 0])) if np.any(pixels) else core.outside
    room = core.outside - base
    if room == 0:
        return crack
    missing = (level - base) / room
    width = max(SAME_PLACE * core.length_px, crack.gap_px if crack.gap_px > 0 else 0.0)
    low, high = max(int(near - width), 0), min(int(near + width) + 1, n)
    if high - low < 3:
        return crack
    box = np.convolve(missing, np.ones(3) / 3, "same")
    top = low + int(np.argmax(box[low:high]))
    # From the top down to where the object is whole again, then a little further.
    left, right = top, top
    while left > 0 and box[left - 1] > 0.25 * box[top]:
        left -= 1
    while right < n - 1 and box[right + 1] > 0.25 * box[top]:
        right += 1
    left, right = left - 2 * APART_PX, right + 1 + 2 * APART_PX
    beside = [(left - SIDE_PX, left), (right, right + SIDE_PX)]
    if beside[0][0] < 0 or beside[1][1] > n:
        return crack
    sums = [(float(total[a:b].sum()), float(pixels[a:b].sum())) for a, b in beside]
    means = [counts / max(size, 1) for counts, size in sums]
    base = 0.5 * (means[0] + means[1])
    room = core.outside - base
    size = right - left
    mean = float(total[left:right].sum()) / max(float(pixels[left:right].sum()), 1)
    gap = size * (mean - base) / room
    own = mean / max(float(pixels[left:right].sum()), 1)
    sides = sum(m / max(s, 1) for m, (_, s) in zip(means, sums, strict=True)) / 4
    # The sides differ: a level that bends in between errs by a sixth of that.
    uneven = (means[0] - means[1]) / 6
    share = gap / size
    sigma = size * math.sqrt(core.excess**2 * (own + (1 - share) ** 2 * sides) + uneven**2)
    middle = float(np.sum(np.arange(left, right) * np.maximum(missing[left:right], 0)))
    weight = float(np.sum(np.maximum(missing[left:right], 0)))
    place = (middle / weight + 0.5) / core.length_px if weight > 0 else crack.place
    return replace(
        crack,
        place=float(np.clip(place, 0.0, 1.0)),
        gap_px=gap,
        gap_sigma_px=sigma / abs(room),
        apart=crack.apart or bool(box[top] > THROUGH),
    )
