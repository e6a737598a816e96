"""How much of a specimen has converted, by its brightness and by the power of its grains.

Both go as the converted fraction, whether each place is either before or after (a front, a
mosaic) or all of it changes evenly, so nothing has to be taken for granted of how it
converts. What the grains look like does not: a pattern that comes evenly has an amplitude
that goes as the root of its power.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.grain_band import Banded
from correlate.grain_change import GrainChange, GrainsSeen
from correlate.looks import Look, Noise
from correlate.lost_area import area_of

Float = NDArray[np.float64]
MIN_SIGMAS = 6.0  # of the whole change, against noise
MIN_BLOCKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraction:
    """A converted fraction with its sigma; NaN where it cannot be told."""

    value: float = math.nan
    sigma: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a frame tells.

    Parameters
    ----------
    by_level, by_grains
        The fraction, by each of two witnesses that share no noise.
    grains
        What grains tell of each block; None where they tell nothing.
    lost
        Of both sigmas, what both have in common: a part of the area is not in the frame.
    """

    by_level: Fraction
    by_grains: Fraction
    grains: GrainsSeen | None = None
    lost: float = 0.0

    @property
    def together(self) -> Fraction:
        """The weighted mean of both witnesses."""
        both = ((w.value, self._own(w)) for w in (self.by_level, self.by_grains))
        known = [(value, own) for value, own in both if math.isfinite(own)]
        if not known:
            return Fraction()
        weight = sum(1 / own for _, own in known)
        value = sum(value / own for value, own in known) / weight
        return Fraction(value=value, sigma=math.sqrt(1 / weight + self.lost**2))

    def _own(self, one: Fraction) -> float:
        """Return the variance of one witness that the other does not share."""
        return one.sigma**2 - self.lost**2

    @property
    def apart_sigmas(self) -> float:
        """How far both witnesses are apart, in sigmas; NaN where there is but one."""
        away = self.by_level.value - self.by_grains.value
        return away / math.sqrt(self._own(self.by_level) + self._own(self.by_grains))


def disagreement(seen: Sequence[Converted]) -> float:
    """Return the root mean square by which both witnesses are apart, in sigmas; 1 without two.

    Above 1, it widens sigmas (Birge's ratio): a beam that fades, or what else changes the
    brightness and is no conversion, makes the two differ.
    """
    apart = [s.apart_sigmas for s in seen if math.isfinite(s.apart_sigmas)]
    return math.sqrt(sum(a * a for a in apart) / len(apart)) if apart else 1.0


class WholeChange:
    """What changes from one look to the other, and how much of it a frame shows.

    Parameters
    ----------
    before, after
        Both looks.
    noise
        Of single frames.
    grains
        What changes in the grains; None where none stand out.
    pixels
        In each block, shape (rows, columns).
    """

    def __init__(
        self, before: Look, after: Look, noise: Noise, grains: GrainChange | None, pixels: Float
    ) -> None:
        self._before, self._after, self._noise = before, after, noise
        self.grains = grains
        self._pixels = pixels
        self._there = there = before.seen.whole & after.seen.whole
        step = (after.seen.level - before.seen.level)[there]
        error = noise.of_level(after.seen)[there] / after.count
        error = error + noise.of_level(before.seen)[there] / before.count
        if error.size < MIN_BLOCKS:
            self.level_tells, self._uneven = False, math.nan
            return
        mean = float(step.mean())
        self.level_tells = abs(mean) > MIN_SIGMAS * math.sqrt(float(error.sum())) / error.size
        uneven = max(float(np.var(step)) - float(error.mean()), 0.0)
        # Of the field's mean change, by what blocks change differently.
        self._uneven = uneven / max(mean**2, 1e-30)

    def seen_in(self, seen: Banded, number: int) -> Converted:
        """Return how much of the change is there in a frame.

        Parameters
        ----------
        seen
            The frame, brought onto the reference.
        number
            Of the frame; noise is shared with looks that it is part of.
        """
        grains = None if self.grains is None else self.grains.seen_in(seen, number)
        if grains is None:
            return Converted(by_level=self._by_level(seen, number, None), by_grains=Fraction())
        return Converted(
            by_level=self._by_level(seen, number, grains),
            by_grains=Fraction(value=grains.fraction, sigma=grains.sigma),
            grains=grains,
            lost=grains.lost,
        )

    def _by_level(self, seen: Banded, number: int, grains: GrainsSeen | None) -> Fraction:
        """Return the fraction by the mean brightness."""
        whole = seen.whole & self._there
        size = int(whole.sum())
        if not self.level_tells or size < MIN_BLOCKS:
            return Fraction()
        before, after = self._before, self._after
        area = area_of(self._pixels, seen.pixels, whole, ~whole)
        weight = area.weight
        steps = (after.seen.level - before.seen.level)[whole]
        gone = (seen.level - before.seen.level)[whole]
        step = float(weight @ steps)
        value = float(weight @ gone) / step
        noises = [self._noise.of_level(one)[whole] for one in (seen, before.seen, after.seen)]
        now, start, end = (float(weight**2 @ one) * self._noise.flicker for one in noises)
        rest, in_before, in_after = 1 - value, before.share_of(number), after.share_of(number)
        shared = 2 * rest * in_before + 2 * value * in_after
        variance = (
            now * (1 - shared) + value**2 * end / after.count + rest**2 * start / before.count
        )
        if grains is not None:
            unlike, lost = grains.unlike, grains.lost
        else:
            # Without grains to tell, places may be either before or after.
            unlike = max(value * rest, 0.0)
            in_a_look = in_before + in_after > 0
            lost = 0.0 if in_a_look else area.sigma(gone / step, noises[0] / step**2)
        chance = self._uneven * unlike * float(weight @ weight)
        return Fraction(
            value=value, sigma=math.hypot(math.sqrt(max(variance, 0.0) / step**2 + chance), lost)
        )
