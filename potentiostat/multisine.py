"""A sum of sines that shakes a cell at many frequencies at once, with a known peak."""

import math
from dataclasses import dataclass
from functools import cache

PEAK_POINTS_PER_PERIOD = 16  # of the fastest sine, when the peak is looked for
MOST_HARMONIC = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sines:
    """Sines that all repeat after the period of the slowest.

    Parameters
    ----------
    base_Hz
        Of the slowest.
    harmonics
        Whole multiples of it, rising from 1.
    peak
        Largest magnitude of the sum, in A or V.
    """

    base_Hz: float
    harmonics: tuple[int, ...]
    peak: float

    @property
    def frequencies_Hz(self) -> tuple[float, ...]:
        """The frequencies, rising."""
        return tuple(self.base_Hz * h for h in self.harmonics)

    @property
    def each(self) -> float:
        """Amplitude of each single sine."""
        return self.peak / _shape_peak(self.harmonics)

    def value(self, t_s: float) -> float:
        """Return the sum at a time since its beginning."""
        turns = self.base_Hz * t_s
        return self.peak * _shape(turns, self.harmonics) / _shape_peak(self.harmonics)


def multisine(lowest_Hz: float, highest_Hz: float, *, per_decade: int, peak: float) -> Sines:
    """Return sines spread evenly over the logarithm of frequency, as multiples of the lowest.

    Raises
    ------
    ValueError
        The two are in the wrong order, or too far apart.
    """
    if not 0 < lowest_Hz <= highest_Hz:
        raise ValueError("the lowest frequency stands above nothing and below the highest")
    top = round(highest_Hz / lowest_Hz)
    if top > MOST_HARMONIC:
        raise ValueError(f"the frequencies may span a factor of {MOST_HARMONIC} at most")
    count = math.ceil(per_decade * math.log10(top)) if top > 1 else 0
    harmonics = sorted({round(top ** (i / count)) for i in range(count + 1)} if count else {1})
    return Sines(base_Hz=lowest_Hz, harmonics=tuple(harmonics), peak=peak)


def _shape(turns: float, harmonics: tuple[int, ...]) -> float:
    """Return the sum with sines of 1, with phases that keep its peak low.

    Phases by M. R. Schroeder, IEEE Trans. Inf. Theory 16 (1970) 85 for equal amplitudes.
    """
    n = len(harmonics)
    return sum(
        math.cos(2 * math.pi * h * turns - math.pi * k * (k - 1) / n)
        for k, h in enumerate(harmonics, start=1)
    )


@cache
def _shape_peak(harmonics: tuple[int, ...]) -> float:
    points = PEAK_POINTS_PER_PERIOD * harmonics[-1]
    largest = max(abs(_shape(i / points, harmonics)) for i in range(points))
    # Between two points the sum cannot rise by more than this.
    return largest / math.cos(math.pi / PEAK_POINTS_PER_PERIOD)
