"""Samples averaged over exposures, and charge from irregular samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureMeans:
    """A sampled quantity over each exposure; all of shape (n_frames,).

    Parameters
    ----------
    mean
        Mean weighted by overlap; NaN where no sample overlaps the exposure.
    std
        Weighted spread of the samples, 0 for a single one, NaN without any.
    count
        Effective number of samples, ``sum(w)**2 / sum(w**2)``.
    coverage
        Share of the exposure that the samples' apertures cover, 0 to 1.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    count: NDArray[np.float64]
    coverage: NDArray[np.float64]


def average_over_exposures(
    t_mid_ns: NDArray[np.int64],
    aperture_ns: NDArray[np.int64],
    value: NDArray[np.float64],
    frame_start_ns: NDArray[np.int64],
    frame_stop_ns: NDArray[np.int64],
) -> ExposureMeans:
    """Average samples over exposures, each weighted by the overlap of its aperture.

    Parameters
    ----------
    t_mid_ns, aperture_ns
        Middle and length of each sample's aperture, host clock, shape (n_samples,),
        in order of time.
    value
        The samples; NaN values are left out.
    frame_start_ns, frame_stop_ns
        Exposure of each frame, host clock, shape (n_frames,).

    Raises
    ------
    ValueError
        Samples are not in order of time.
    """
    exposure_ns = (frame_stop_ns - frame_start_ns).astype(np.float64)
    sums = _overlaps(t_mid_ns, aperture_ns, value, frame_start_ns, frame_stop_ns)
    return _means([sums], exposure_ns)


def average_with_delays(
    t_mid_ns: NDArray[np.int64],
    aperture_ns: NDArray[np.int64],
    value: NDArray[np.float64],
    delay_ns: NDArray[np.int64],
    frame_start_ns: NDArray[np.int64],
    frame_stop_ns: NDArray[np.int64],
) -> ExposureMeans:
    """Average samples over exposures as `average_over_exposures`, each before its delay.

    Parameters
    ----------
    delay_ns
        By which each sample lags what it measures, shape (n_samples,): a few different
        values, one for each range of an instrument.
    """
    exposure_ns = (frame_stop_ns - frame_start_ns).astype(np.float64)
    parts = []
    for delay in np.unique(delay_ns) if len(delay_ns) else (0,):
        mine = delay_ns == delay
        parts.append(
            _overlaps(
                t_mid_ns[mine],
                aperture_ns[mine],
                value[mine],
                frame_start_ns + delay,
                frame_stop_ns + delay,
            )
        )
    return _means(parts, exposure_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Overlaps:
    """Sums over the samples of each frame, shape (n_frames,), weighted by overlap in ns.

    Parameters
    ----------
    total, squares
        Of the weights, and of their squares.
    mean, spread
        Weighted mean, NaN without a sample, and weighted sum of squares about it.
    """

    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


def _overlaps(
    t_mid_ns: NDArray[np.int64],
    aperture_ns: NDArray[np.int64],
    value: NDArray[np.float64],
    frame_start_ns: NDArray[np.int64],
    frame_stop_ns: NDArray[np.int64],
) -> _Overlaps:
    good = np.isfinite(value)
    middle, aperture, value = t_mid_ns[good], aperture_ns[good], value[good]
    start = middle - aperture // 2
    stop = start + aperture
    if np.any(np.diff(start) < 0) or np.any(np.diff(stop) < 0):
        raise ValueError("samples must be in order of time to be averaged")
    # Sorted starts and stops: the samples of a frame are one run of neighbours.
    first = np.searchsorted(stop, frame_start_ns, side="right")
    last = np.searchsorted(start, frame_stop_ns, side="left")
    lengths = np.maximum(last - first, 0)
    frame = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths)
    sample = np.arange(len(frame)) - np.repeat(ends - lengths, lengths) + first[frame]
    overlap = np.minimum(stop[sample], frame_stop_ns[frame]) - np.maximum(
        start[sample], frame_start_ns[frame]
    )
    weight = np.maximum(overlap, 0).astype(np.float64)
    n = len(frame_start_ns)

    def by_frame(each: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(frame, each, n).astype(np.float64)

    total = by_frame(weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = by_frame(weight * value[sample]) / total
    return _Overlaps(
        total=total,
        squares=by_frame(weight**2),
        mean=mean,
        spread=by_frame(weight * (value[sample] - mean[frame]) ** 2),
    )


def _means(parts: list[_Overlaps], exposure_ns: NDArray[np.float64]) -> ExposureMeans:
    """Put parts together that share no sample."""
    weight = np.stack([part.total for part in parts])
    means = np.stack([np.where(part.total > 0, part.mean, 0.0) for part in parts])
    spread = np.stack([part.spread for part in parts]).sum(axis=0)
    squares = np.stack([part.squares for part in parts]).sum(axis=0)
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weight * means).sum(axis=0) / total
        spread += (weight * (means - mean) ** 2).sum(axis=0)
        return ExposureMeans(
            mean=mean,
            std=np.sqrt(spread / total),
            count=np.where(total > 0, total**2 / squares, 0.0),
            coverage=np.minimum(np.where(exposure_ns > 0, total / exposure_ns, 0.0), 1.0),
        )


def thinned_intervals(
    averaged: NDArray[np.generic], left_out: NDArray[np.generic]
) -> NDArray[np.bool_]:
    """Tell before which samples readings were taken that are no samples, shape (n,).

    Parameters
    ----------
    averaged
        Readings whose mean each sample is; 0 and 1 for a single one.
    left_out
        Readings that were not stored since the sample before.
    """
    mean = np.asarray(averaged, np.int64) > 1
    thinned = mean | (np.asarray(left_out, np.int64) > 0)
    thinned[1:] |= mean[:-1]
    return thinned


def cumulative_charge(
    t_ns: NDArray[np.int64],
    current_A: NDArray[np.float64],
    *,
    counted_C: NDArray[np.float64] | None = None,
    thinned: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Integrate a current by trapezia, in C, shape (n,); 0 at the first sample.

    Samples that are not numbers are bridged by their neighbours.

    Parameters
    ----------
    counted_C
        What was counted up to each sample, of all readings.
    thinned
        From `thinned_intervals`: there, what was counted is taken. None for nowhere.
    """
    charge = np.zeros(len(t_ns))
    good = np.flatnonzero(np.isfinite(current_A))
    if len(good) < 2:
        return charge
    seconds = (t_ns - t_ns[0]).astype(np.float64) / 1e9
    step = 0.5 * (current_A[good][1:] + current_A[good][:-1]) * np.diff(seconds[good])
    if counted_C is not None and thinned is not None:
        marks = np.cumsum(thinned)
        missing = marks[good[1:]] > marks[good[:-1]]
        step = np.where(missing, counted_C[good[1:]] - counted_C[good[:-1]], step)
    charge[good[1:]] = np.cumsum(step)
    return np.asarray(np.interp(seconds, seconds[good], charge[good]), dtype=np.float64)
