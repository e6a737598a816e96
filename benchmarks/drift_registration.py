"""Drift of noisy frame pairs: ours beside scikit-image, in one run.

    pip install -e ".[bench]"
    python benchmarks/drift_registration.py

Frames are Poisson counts of one band-limited scene with a fixed pattern of the detector
on top; the true shift is drawn anew for each pair. Printed: root-mean-square error per
axis and the median time of a pair, after one warm-up.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from skimage.registration import phase_cross_correlation

from correlate.drift import DriftEstimator

SIDE, PAIRS, CONTRAST, PATTERN = 512, 12, 0.15, 0.02
Image = NDArray[np.int64]
Method = Callable[[Image, Image], tuple[float, float]]


def scene(seed: int) -> NDArray[np.complex128]:
    """Return the modes of a scene."""
    rng = np.random.default_rng(seed)
    grains = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 4.0, mode="wrap")
    return np.asarray(fft.rfft2(CONTRAST * grains / grains.std()))


def frames(seed: int, dose: float) -> tuple[Image, Image, tuple[float, float]]:
    """Return a pair and the shift that brings the second back onto the first."""
    rng = np.random.default_rng([seed, 1])
    modes, (dy, dx) = scene(seed), rng.uniform(-12, 12, 2)
    fy, fx = fft.fftfreq(SIDE)[:, None], fft.rfftfreq(SIDE)[None, :]
    gain = 1 + PATTERN * rng.standard_normal((SIDE, SIDE))

    def picture(y: float, x: float) -> Image:
        turn = np.exp(-2j * np.pi * (fy * y + fx * x))
        mean = 1 + fft.irfft2(modes * turn, s=(SIDE, SIDE))
        return rng.poisson(dose * np.maximum(mean, 0.05) * gain)

    return picture(0, 0), picture(dy, dx), (-dy, -dx)


def ours(first: Image, second: Image) -> tuple[float, float]:
    """Return our shift (y, x)."""
    estimator = DriftEstimator((SIDE, SIDE))
    estimator.update(first)
    shift = estimator.update(second)
    return shift.dy_px, shift.dx_px


def skimage_default(first: Image, second: Image) -> tuple[float, float]:
    """Return scikit-image's shift with its default settings, at a hundredth of a pixel."""
    shift, *_ = phase_cross_correlation(first, second, upsample_factor=100)
    return float(shift[0]), float(shift[1])


def skimage_windowed(first: Image, second: Image) -> tuple[float, float]:
    """Return scikit-image's shift without phase normalisation, mean off, Hann window."""
    hann = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    shift, *_ = phase_cross_correlation(
        (first - first.mean()) * hann,
        (second - second.mean()) * hann,
        upsample_factor=100,
        normalization=None,
    )
    return float(shift[0]), float(shift[1])


METHODS: dict[str, Method] = {
    "ours": ours,
    "scikit-image, default": skimage_default,
    "scikit-image, no normalisation, Hann": skimage_windowed,
}


def main() -> None:
    """Print the table."""
    print(f"{SIDE} x {SIDE} px, {PAIRS} pairs, contrast {CONTRAST}, fixed pattern {PATTERN}")
    print(f"{'method':40}{'e/px':>6}{'rms px':>10}{'ms':>9}")
    for dose in (1.0, 5.0, 30.0):
        pairs = [frames(seed, dose) for seed in range(PAIRS)]
        for name, method in METHODS.items():
            method(pairs[0][0], pairs[0][1])
            errors, times = [], []
            for first, second, true in pairs:
                start = time.perf_counter()
                found = method(first, second)
                times.append(time.perf_counter() - start)
                errors += [found[0] - true[0], found[1] - true[1]]
            rms = float(np.sqrt(np.mean(np.square(errors))))
            print(f"{name:40}{dose:6.0f}{rms:10.3f}{1e3 * statistics.median(times):9.1f}")


if __name__ == "__main__":
    main()
