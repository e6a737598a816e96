"""Time of drift plus front on a 1024 x 1024 uint16 frame, one core, beside the peers.

    pip install -e ".[bench]"
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/tracker_speed.py

A film between two strong edges with a moving front, on a drifting specimen with texture,
under a detector with a fixed pattern. Each method registers the same frames onto the first
and finds the front; those that miss the drift by more than half a pixel (root-mean-square)
are no peers in speed. CPU time of the thread is told, as other work on the machine does not
count in it; the machine's limit is one read of the frame. Ours is told twice where numba is
there, compiled and not.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from correlate import edge, edge_search
from correlate.edge import step_shape
from correlate.trackers.front import FrontTracker
from correlate.trackers.protocol import SceneSettings

SIDE, FIRST, FRAMES, DOSE, CONTRAST, PATTERN = 1024, 80, 60, 10.0, 0.2, 0.02
COLLECTOR, INTERFACE, PIXEL_M = 250.0, 800.0, 1e-9
TARGET_MS = 2.5
Image = NDArray[np.uint16]


class Movie:
    """Frames with their true drift and front."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(4)
        grains = ndimage.gaussian_filter(self._rng.standard_normal((SIDE, SIDE)), 4.0, mode="wrap")
        self._texture = 1 + 0.06 * grains / grains.std()
        self._gain = 1 + PATTERN * self._rng.standard_normal((SIDE, SIDE))
        count = FIRST + FRAMES
        self.drift = np.cumsum(self._rng.normal(0, 0.1, (count, 2)), axis=0)
        self.drift[0] = 0
        self.front = 600 - 0.4 * np.arange(count)

    def frame(self, k: int) -> Image:
        """Return frame k."""
        dy, dx = self.drift[k]
        x = np.arange(SIDE) - dx
        film = 0.6 * (1 + CONTRAST * step_shape(x, self.front[k], 2.0))
        collector, interface = (step_shape(x, at, 2.0) for at in (COLLECTOR, INTERFACE))
        profile = 0.3 + (film - 0.3) * collector + (0.95 - film) * interface
        texture = ndimage.shift(self._texture, (dy, dx), order=3, mode="wrap")
        return self._rng.poisson(DOSE * profile * texture * self._gain).astype(np.uint16)


def skimage_none(first: Image, frame: Image) -> tuple[float, float]:
    """Correlate without phase normalisation, mean off, Hann window."""
    hann = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    shift, *_ = phase_cross_correlation(
        (first - first.mean()) * hann,
        (frame - frame.mean()) * hann,
        upsample_factor=20,
        normalization=None,
    )
    return float(shift[0]), float(shift[1])


def skimage_phase(first: Image, frame: Image) -> tuple[float, float]:
    """Correlate with default settings."""
    shift, *_ = phase_cross_correlation(first, frame, upsample_factor=20)
    return float(shift[0]), float(shift[1])


def opencv_phase(first: Image, frame: Image) -> tuple[float, float]:
    """Correlate phases under a Hann window."""
    import cv2  # noqa: PLC0415 - an optional peer

    cv2.setNumThreads(1)
    hann = cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(first.astype(np.float32), frame.astype(np.float32), hann)
    return -y, -x


def opencv_ecc(first: Image, frame: Image) -> tuple[float, float]:
    """Maximise the enhanced correlation coefficient, smoothed by 4 px."""
    import cv2  # noqa: PLC0415 - an optional peer

    a, b = (cv2.GaussianBlur(i.astype(np.float32), (0, 0), 4) for i in (first, frame))
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    _, warp = cv2.findTransformECC(a, b, warp, cv2.MOTION_TRANSLATION, stop, None, 1)
    return -float(warp[1, 2]), -float(warp[0, 2])


PEERS: dict[str, Callable[[Image, Image], tuple[float, float]]] = {
    "scikit-image, default": skimage_phase,
    "scikit-image, no normalisation, Hann": skimage_none,
    "OpenCV phaseCorrelate, Hann": opencv_phase,
    "OpenCV ECC": opencv_ecc,
}


def live_ms(movie: Movie, frames: list[Image], settings: SceneSettings) -> float:
    """Print what ours takes live, and return the median of drift and front."""
    medians = []
    for with_shape in (False, True):
        live = FrontTracker(settings).begin(lambda: frames[:FIRST])
        times, drift, front = [], [], []
        for k, pixels in enumerate(frames[FIRST:], FIRST):
            start = time.thread_time()
            reading = live.update(pixels, with_shape=with_shape)
            times.append(time.thread_time() - start)
            shift = [reading.shift.dy_px, reading.shift.dx_px]
            drift.append(shift + movie.drift[k])
            if reading.fit is not None:
                front.append(reading.fit.position_px - movie.front[k])
        ms = 1e3 * np.array(times)
        label = "ours: drift, front, width, roughness" if with_shape else "ours: drift, front"
        print(
            f"{label:44} ms: median {np.median(ms):.2f}, least {ms.min():.2f} (target "
            f"{TARGET_MS}); drift rms {np.sqrt(np.mean(np.square(drift))):.3f} px; front rms "
            f"{np.sqrt(np.mean(np.square(front))):.3f} px in {len(front)} of {FRAMES}"
        )
        medians.append(float(np.median(ms)))
    return medians[0]


def main() -> None:
    """Print the table."""
    movie = Movie()
    frames = [movie.frame(k) for k in range(FIRST + FRAMES)]
    settings = SceneSettings(
        shape=(SIDE, SIDE),
        pixel_size_m=PIXEL_M,
        film_thickness_m=(INTERFACE - COLLECTOR) * PIXEL_M,
    )
    print("fit of the edges: " + ("compiled" if edge.fast_climb else "NumPy (no numba)"))
    ours = live_ms(movie, frames, settings)
    climb, look = edge.fast_climb, edge_search.fast_look
    edge.fast_climb = edge_search.fast_look = None
    if climb is not None:
        print("the same with NumPy alone:")
        live_ms(movie, frames, settings)
    edge.fast_climb, edge_search.fast_look = climb, look
    start = time.thread_time()
    track = FrontTracker(settings).track(lambda: frames)
    each_ms = 1e3 * (time.thread_time() - start) / len(frames)
    rms = np.nanstd(track.columns["x_front_px"] - movie.front)
    print(
        f"{'ours: a recorded stack, learned and tracked':44} ms: {each_ms:.2f}; front {rms:.3f} px"
    )
    reads = []
    for pixels in frames[FIRST:]:
        start = time.thread_time()
        pixels.max()
        reads.append(time.thread_time() - start)
    print(f"{'one read of a frame (max)':44} ms: {1e3 * np.median(reads):.2f}")
    for name, method in PEERS.items():
        times, errors = [], []
        try:
            for k in range(FIRST, FIRST + FRAMES, 6):
                start = time.thread_time()
                found = method(frames[0], frames[k])
                times.append(time.thread_time() - start)
                errors.append(np.array(found) + movie.drift[k])
        except ImportError:
            print(f"{name:44} absent")
            continue
        ms_peer, rms = 1e3 * np.median(times), float(np.sqrt(np.mean(np.square(errors))))
        verdict = f"{ms_peer / ours:.0f} times ours" if rms < 0.5 else "not the right answer"
        print(f"{name:44} ms: {ms_peer:.1f}, drift alone; rms {rms:.3f} px; {verdict}")


if __name__ == "__main__":
    main()
