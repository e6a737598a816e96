"""Noise of readings at rest: spectrum, Allan deviation, and what they say of averaging.

The spectrum is one-sided, of the readings as they come: one that integrates for a part of
its interval only folds higher frequencies into it. A gap parts a record into stretches;
no segment of a spectrum and no pair of averages spans one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

CONFIDENCE = 0.683  # of all intervals here, as of one sigma
GAP_INTERVALS = 1.5  # between two readings: more is a gap
MIN_READINGS = 32
SEGMENTS = 8  # that a spectrum has at least, where the record is long enough
MIN_SEGMENT = 16
FIRST_LINE = 2  # the mean of a segment is taken off, and with it a part of line 1
HANN_OVERLAP = 1 / 36  # squared correlation of neighbouring Hann segments that share a half
SHORTEST_SHARE = 4  # the longest average is this part of the record
DRIFT_BLOCKS = 8

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A noise curve with the interval of each of its points, arrays of shape (n,).

    Parameters
    ----------
    at
        Frequencies in Hz, or averaging times in s.
    value, low, high
        Density in A/sqrt(Hz), or Allan deviation in A.
    """

    at: Array
    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRecord:
    """What readings at rest say of their range.

    Parameters
    ----------
    mean_A, mean_sigma_A
        The zero of the range, when nothing flows.
    reading_A, reading_low_A, reading_high_A
        Random part of one reading, from neighbours: no drift is in it.
    stated_A
        The same as the driver states it.
    white_A_rtHz
        Density of the part that averages away.
    floor_A
        Below which no average comes: the flicker part; 0 where none is seen.
    drift_A_s, drift_sigma_A_s
        Slope of the whole record.
    best_s, best_A
        Averaging time of the smallest Allan deviation, and that deviation.
    still_falling
        True where longer averages than this record can tell would be better still.
    """

    range_A: float
    count: int
    interval_s: float
    mean_A: float
    mean_sigma_A: float
    reading_A: float
    reading_low_A: float
    reading_high_A: float
    stated_A: float
    white_A_rtHz: float
    floor_A: float
    drift_A_s: float
    drift_sigma_A_s: float
    best_s: float
    best_A: float
    still_falling: bool
    spectrum: Curve
    allan: Curve

    @property
    def agrees(self) -> bool:
        """True where the driver's sigma lies within three half-widths of what was found."""
        half_A = 1.5 * (self.reading_high_A - self.reading_low_A)
        return abs(self.reading_A - self.stated_A) <= half_A


def noise_record(
    t_s: Array, current_A: Array, *, stated_sigma_A: Array, range_A: float
) -> NoiseRecord:
    """Work out the noise of readings that were taken while nothing changed.

    Parameters
    ----------
    t_s
        Times of the readings, increasing, shape (n,).
    current_A, stated_sigma_A
        Readings, and the random sigma that the driver states.

    Raises
    ------
    ValueError
        There are too few readings.
    """
    good = np.isfinite(current_A) & np.isfinite(t_s)
    t, i = t_s[good], current_A[good]
    if len(t) < MIN_READINGS:
        raise ValueError(
            f"{len(t)} readings tell no noise: at least {MIN_READINGS} are needed; rest longer"
        )
    interval_s = float(np.median(np.diff(t)))
    stretches = _stretches(t, i, interval_s)
    allan, edf = _allan(stretches, interval_s)
    white, flicker, walk = _parts(allan, edf)
    best = int(np.argmin(allan.value))
    duration_s = len(i) * interval_s
    drift_A_s, drift_sigma_A_s = _drift(t, i)
    return NoiseRecord(
        range_A=range_A,
        count=len(i),
        interval_s=interval_s,
        mean_A=float(np.mean(i)),
        mean_sigma_A=math.sqrt(white / duration_s + flicker + walk * duration_s),
        reading_A=float(allan.value[0]),
        reading_low_A=float(allan.low[0]),
        reading_high_A=float(allan.high[0]),
        stated_A=float(np.median(stated_sigma_A[good])),
        white_A_rtHz=math.sqrt(2.0 * white),
        floor_A=math.sqrt(flicker),
        drift_A_s=drift_A_s,
        drift_sigma_A_s=drift_sigma_A_s,
        best_s=float(allan.at[best]),
        best_A=float(allan.value[best]),
        still_falling=best == len(allan.at) - 1,
        spectrum=_spectrum(stretches, interval_s),
        allan=allan,
    )


def _stretches(t: Array, value: Array, interval_s: float) -> list[Array]:
    gaps = np.flatnonzero(np.diff(t) > GAP_INTERVALS * interval_s) + 1
    return np.split(value, gaps)


def _interval(estimate: Array, edf: Array) -> tuple[Array, Array]:
    """Return the interval of a variance with so many degrees of freedom."""
    tail = 0.5 * (1.0 - CONFIDENCE)
    low = estimate * edf / special.chdtri(edf, tail)
    high = estimate * edf / special.chdtri(edf, 1.0 - tail)
    return np.asarray(low), np.asarray(high)


def _spectrum(stretches: list[Array], interval_s: float) -> Curve:
    """Return the density by Welch's method: Hann segments that overlap by half."""
    longest = max(len(s) for s in stretches)
    length = max(2 * (longest // (SEGMENTS + 1)), min(MIN_SEGMENT, longest))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    powers: list[Array] = []
    pairs = 0
    for stretch in stretches:
        starts = range(0, len(stretch) - length + 1, length // 2)
        for start in starts:
            part = stretch[start : start + length]
            powers.append(np.abs(np.fft.rfft(window * (part - part.mean()))) ** 2)
        pairs += max(len(starts) - 1, 0)
    lines = slice(FIRST_LINE, (length + 1) // 2)  # the last line of an even length is apart
    scale = 2.0 * interval_s / float(np.sum(window**2))
    power = scale * np.mean(powers, axis=0)[lines]
    count = len(powers)
    degrees = 2.0 * count / (1.0 + 2.0 * HANN_OVERLAP * pairs / count)
    low, high = _interval(power, np.full(len(power), degrees))
    frequency_Hz = np.fft.rfftfreq(length, interval_s)[lines].astype(np.float64)
    return Curve(at=frequency_Hz, value=np.sqrt(power), low=np.sqrt(low), high=np.sqrt(high))


def _allan(stretches: list[Array], interval_s: float) -> tuple[Curve, Array]:
    """Return the overlapping Allan deviation by octaves, and its degrees of freedom."""
    longest = max(len(s) for s in stretches)
    times: list[float] = []
    variances: list[float] = []
    degrees: list[float] = []
    m = 1
    while m <= max(longest // SHORTEST_SHARE, 1):
        total, terms, edf = 0.0, 0, 0.0
        for stretch in stretches:
            if len(stretch) < max(SHORTEST_SHARE * m, SHORTEST_SHARE):
                continue
            phase = np.concatenate([[0.0], np.cumsum(stretch - stretch.mean())])
            second = phase[2 * m :] - 2 * phase[m:-m] + phase[: -2 * m]
            total += float(np.sum(second**2))
            terms += len(second)
            edf += degrees_of_freedom(len(phase), m)
        times.append(m * interval_s)
        variances.append(total / (2.0 * m**2 * terms))
        degrees.append(edf)
        m *= 2
    variance, edf_of = np.array(variances), np.array(degrees)
    low, high = _interval(variance, edf_of)
    curve = Curve(at=np.array(times), value=np.sqrt(variance), low=np.sqrt(low), high=np.sqrt(high))
    return curve, edf_of


def degrees_of_freedom(n: int, m: int) -> float:
    """Return those of an overlapping Allan variance: the fewest of three laws of noise.

    Parameters
    ----------
    n
        Points of the sum of the readings: one more than readings.
    m
        Readings in an average.

    Notes
    -----
    Approximations for white, flicker and random-walk noise of the readings (the frequency
    noises of the handbook of clocks, NIST SP 1065). Which law holds is not known before,
    so intervals are rather too wide than too narrow.
    """
    white = (3 * (n - 1) / (2 * m) - 2 * (n - 2) / n) * 4 * m**2 / (4 * m**2 + 5)
    flicker = 5 * n**2 / (4 * m * (n + 3 * m))
    if m == 1:
        flicker = 2 * (n - 2) ** 2 / (2.3 * n - 4.9)
    walk = (n - 2) / m * ((n - 1) ** 2 - 3 * m * (n - 1) + 4 * m**2) / (n - 3) ** 2
    return max(min(white, flicker, walk), 1.0)


def _parts(allan: Curve, edf: Array) -> tuple[float, float, float]:
    """Part an Allan variance into ``white / tau + flicker + walk tau``, none negative."""
    tau = allan.at
    design = np.stack([1.0 / tau, np.ones_like(tau), tau], axis=1)
    variance = allan.value**2
    if not np.any(variance > 0):
        return 0.0, 0.0, 0.0
    expected = np.maximum(variance, 1e-6 * variance.max())
    part = np.zeros(3)
    for _ in range(3):
        weight = np.sqrt(0.5 * edf) / expected
        scale = np.array([variance[0] * tau[0], variance[0], variance[0] / tau[0]])
        part, _ = optimize.nnls(design * scale * weight[:, None], variance * weight)
        part = part * scale
        expected = np.maximum(design @ part, 1e-6 * variance.max())
    return float(part[0]), float(part[1]), float(part[2])


def _drift(t: Array, i: Array) -> tuple[float, float]:
    """Return the slope; its sigma comes from means of blocks, for noise with a memory."""
    blocks = np.array_split(np.arange(len(t)), DRIFT_BLOCKS)
    x = np.array([t[b].mean() for b in blocks])
    y = np.array([i[b].mean() for b in blocks])
    x -= x.mean()
    spread = float(np.sum(x**2))
    slope = float(np.sum(x * y) / spread)
    rest = y - y.mean() - slope * x
    variance = float(np.sum(rest**2)) / (DRIFT_BLOCKS - 2)
    return slope, math.sqrt(variance / spread)
