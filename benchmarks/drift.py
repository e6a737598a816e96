"""Drift against its bound and against other registrations, on counts and on measured TEM.

    pip install -e ".[bench]"
    python benchmarks/drift.py --pairs 6

1024 x 1024 frames of a band-limited scene (grains of 4 px, contrast 15 %), Poisson counts,
under a fixed pattern like a camera's: a gain for each pixel (2 %) and column (0.5 %) and an
offset for each pixel (2 % of the mean).

Pairs: two noisy frames, the shift up to 12 px; the bound is that of a scene that is known,
for two frames of equal dose, which no method reaches that does not know the scene. Printed
beside it is the bound of a scene of which only the power spectrum is known (Knapp and
Carter, IEEE Trans. ASSP 24, 320 (1976)). Movies:
ours alone, frames 12 to 23 of a drifting scene against the reference that grew from those
before; the bound is that of one frame and the mean of so many, and the common error, which
is where the first frame stands, is taken out. With --frames a folder of the measured Ti
frames, 1733 to 1739 and 1751 to 1756: the largest distance from matched patches.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from scipy import fft, ndimage
from skimage.registration import phase_cross_correlation

from correlate.drift import DriftEstimator

SIDE, GRAIN_PX, CONTRAST = 1024, 4.0, 0.15
DOSES = (0.5, 1.0, 3.0, 10.0, 50.0)
MOVIE, LEARNED = 24, 12
FY, FX = fft.fftfreq(SIDE)[:, None], fft.rfftfreq(SIDE)[None, :]
PATCHES = {
    1733: [
        (8.39, 9.48),
        (9.45, 10.56),
        (10.58, 11.45),
        (11.18, 11.70),
        (12.56, 12.75),
        (10.68, 10.17),
    ],
    1751: [(3.38, 3.72), (3.19, 3.04), (5.39, 5.31), (9.01, 9.04), (7.97, 7.60)],
}
Image = NDArray[np.generic]
Method = Callable[[Image, Image], tuple[float, float]]


class Scene:
    """A periodic scene that can be shifted exactly, and a detector."""

    def __init__(self, seed: int, dose: float) -> None:
        rng = np.random.default_rng([seed, 5])
        grains = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), GRAIN_PX, mode="wrap")
        self._modes = fft.rfft2(CONTRAST * grains / grains.std())
        self._rng, self._dose = rng, dose
        columns = 1 + 0.005 * rng.standard_normal(SIDE)
        self._gain = (1 + 0.02 * rng.standard_normal((SIDE, SIDE))) * columns
        self._offset = 0.02 * dose * rng.standard_normal((SIDE, SIDE))

    def mean(self, y: float, x: float) -> NDArray[np.float64]:
        """Return the scene displaced by (y, x), mean 1."""
        turn = np.exp(-2j * np.pi * (FY * y + FX * x))
        return np.maximum(1 + fft.irfft2(self._modes * turn, s=(SIDE, SIDE)), 0.05)

    def frame(self, y: float, x: float) -> NDArray[np.uint16]:
        """Return counts."""
        mean = self._dose * self.mean(y, x) * self._gain + self._offset
        return self._rng.poisson(np.maximum(mean, 0)).astype(np.uint16)

    def bound_px(self) -> float:
        """Return the bound of one frame of a known scene, along x."""
        slope = fft.irfft2(self._modes * 2j * np.pi * FX, s=(SIDE, SIDE))
        return float(1 / np.sqrt(np.sum(self._dose * slope**2 / self.mean(0, 0))))

    def unknown_bound_px(self) -> float:
        """Return the bound of two frames of a scene whose power spectrum alone is known.

        Each mode with its mirror image tells ``2 (2 pi f)^2 C^2 / (1 - C^2)`` with the
        coherence ``C = S / (S + N)``.
        """
        power = np.abs(self._dose * self._modes) ** 2
        scene = ndimage.gaussian_filter(power, 3.0, mode=("wrap", "nearest"))
        noise = self._dose * SIDE**2
        told = 2 * (2 * np.pi * FX) ** 2 * scene**2 / (noise * (noise + 2 * scene))
        return float(1 / np.sqrt(np.sum(told)))


def ours(first: Image, second: Image) -> tuple[float, float]:
    """Return our shift (y, x)."""
    estimator = DriftEstimator(first.shape)  # type: ignore[arg-type]
    estimator.update(first)
    shift = estimator.update(second)
    return shift.dy_px, shift.dx_px


def skimage(normalization: str | None, *, hann: bool) -> Method:
    """Return scikit-image's registration."""

    def method(first: Image, second: Image) -> tuple[float, float]:
        a, b = first.astype(float), second.astype(float)
        if hann:
            window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
            a, b = (a - a.mean()) * window, (b - b.mean()) * window
        shift, *_ = phase_cross_correlation(a, b, upsample_factor=50, normalization=normalization)
        return float(shift[0]), float(shift[1])

    return method


def opencv_phase() -> Method:
    """Return OpenCV's phase correlation under a Hann window."""
    import cv2  # noqa: PLC0415 - an optional peer

    cv2.setNumThreads(1)

    def method(first: Image, second: Image) -> tuple[float, float]:
        window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_32F)
        (x, y), _ = cv2.phaseCorrelate(*(i.astype(np.float32) for i in (first, second)), window)
        return -y, -x

    return method


def opencv_ecc() -> Method:
    """Return OpenCV's enhanced correlation, smoothed by 4 px."""
    import cv2  # noqa: PLC0415 - an optional peer

    def method(first: Image, second: Image) -> tuple[float, float]:
        a, b = (cv2.GaussianBlur(i.astype(np.float32), (0, 0), 4) for i in (first, second))
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
        warp = np.eye(2, 3, dtype=np.float32)
        try:
            _, warp = cv2.findTransformECC(a, b, warp, cv2.MOTION_TRANSLATION, stop, None, 1)
        except cv2.error:
            return np.nan, np.nan
        return -float(warp[1, 2]), -float(warp[0, 2])

    return method


def stackreg() -> Method:
    """Return pystackreg's translation."""
    from pystackreg import StackReg  # noqa: PLC0415 - an optional peer

    def method(first: Image, second: Image) -> tuple[float, float]:
        matrix = StackReg(StackReg.TRANSLATION).register(first.astype(float), second.astype(float))
        return -float(matrix[1, 2]), -float(matrix[0, 2])

    return method


def hyperspy() -> Method:
    """Return HyperSpy's registration at a tenth of a pixel."""
    import hyperspy.api as hs  # noqa: PLC0415 - an optional peer

    def method(first: Image, second: Image) -> tuple[float, float]:
        stack = hs.signals.Signal2D(np.stack([first, second]).astype(float))
        shift = stack.estimate_shift2D(sub_pixel_factor=10, show_progressbar=False)[1]
        return -float(shift[0]), -float(shift[1])

    return method


PEERS: dict[str, Callable[[], Method]] = {
    "scikit-image, default": lambda: skimage("phase", hann=False),
    "scikit-image, phase, Hann": lambda: skimage("phase", hann=True),
    "scikit-image, no normalisation": lambda: skimage(None, hann=False),
    "scikit-image, no normalisation, Hann": lambda: skimage(None, hann=True),
    "OpenCV phaseCorrelate, Hann": opencv_phase,
    "OpenCV ECC, Gaussian 4 px": opencv_ecc,
    "pystackreg": stackreg,
    "HyperSpy": hyperspy,
}


def available() -> dict[str, Method]:
    """Return ours and the peers that are installed."""
    methods: dict[str, Method] = {"ours": ours}
    for name, make in PEERS.items():
        try:
            methods[name] = make()
        except ImportError:
            print(f"{name}: absent")
    return methods


def rms(values: object) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def movies() -> None:
    """Print ours on movies."""
    print(f"movies, frames {LEARNED} to {MOVIE - 1}: rms over bound, pull of the claimed sigma")
    for dose in DOSES:
        ratios, pulls = [], []
        for seed in range(2):
            scene = Scene(seed, dose)
            path = np.cumsum(np.random.default_rng(seed).normal(0, 0.7, (MOVIE, 2)), axis=0)
            path[0] = 0
            estimator = DriftEstimator((SIDE, SIDE), reference_frames=64)
            found = [estimator.update(scene.frame(*place)) for place in path]
            error = np.array([[s.dy_px, s.dx_px] for s in found]) + path
            sigma = np.array([[s.sigma_y_px, s.sigma_x_px] for s in found])[LEARNED:]
            late = error[LEARNED:] - error[LEARNED:].mean(axis=0)
            late *= np.sqrt(len(late) / (len(late) - 1))
            before = np.arange(LEARNED, MOVIE)[:, None]
            ratios.append(late / (scene.bound_px() * np.sqrt(1 + 1 / before)))
            pulls.append(late / sigma)
        print(f"  {dose:5.1f} e/px: {rms(ratios):.2f} times the bound, pull {rms(pulls):.2f}")


def pairs(count: int, methods: dict[str, Method]) -> None:
    """Print all methods on pairs."""
    print(f"pairs, {count} each: rms per axis in px (over the bound)")
    for dose in DOSES:
        sets = []
        for seed in range(count):
            scene = Scene(seed, dose)
            y, x = np.random.default_rng([seed, 9]).uniform(-12, 12, 2)
            sets.append((scene.frame(0, 0), scene.frame(y, x), (-y, -x)))
        bound = scene.bound_px() * np.sqrt(2)
        unknown = scene.unknown_bound_px() / bound
        print(f" {dose} e/px, bound {bound:.4f} px; of an unknown scene {unknown:.2f} times it")
        for name, method in methods.items():
            few = sets[:2] if name in {"HyperSpy", "pystackreg"} else sets
            errors, times = [], []
            for first, second, true in few:
                start = time.thread_time()
                found = method(first, second)
                times.append(time.thread_time() - start)
                errors.append(np.subtract(found, true))
            print(
                f"  {name:38}{rms(errors):10.4f} ({rms(errors) / bound:7.1f})"
                f"{1e3 * statistics.median(times):9.1f} ms"
            )


def measured(folder: Path, methods: dict[str, Method]) -> None:
    """Print all methods on the measured frames."""
    print("measured Ti frames, 11 pairs: largest and rms distance from matched patches, px")
    for name, method in methods.items():
        errors, times = [], []
        for first, truth in PATCHES.items():
            reference = np.asarray(Pictures.open(folder / f"{first}.png"))
            for k, true in enumerate(truth, 1):
                frame = np.asarray(Pictures.open(folder / f"{first + k}.png"))
                start = time.thread_time()
                found = method(reference, frame)
                times.append(time.thread_time() - start)
                errors.append(np.subtract(found, true))
        worst = float(np.max(np.abs(errors)))
        print(f"  {name:38}{worst:8.2f}{rms(errors):8.2f}{1e3 * statistics.median(times):9.1f} ms")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6, help="pairs at each dose")
    parser.add_argument("--frames", type=Path, help="folder of the measured Ti frames")
    given = parser.parse_args()
    movies()
    methods = available()
    if given.frames is not None:
        measured(given.frames, methods)
    pairs(given.pairs, methods)


if __name__ == "__main__":
    main()
