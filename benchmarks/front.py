"""Front position against its Cramer-Rao bound: ours beside contour, Sobel and Otsu.

    pip install -e ".[bench]"
    python benchmarks/front.py

A front of 1024 rows, summed: Poisson counts of a diffuse step in a line of 65 px. The bound
has unknown levels, width and position. Ours looks up to 5 px around a place that is wrong
by up to 1 px, as the tracker does from frame to frame; the peers get the same line, smoothed
by 2 px, over the same reach. Printed: root-mean-square error over the bound, the pull of
ours (error over claimed sigma), and the time of one line.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import find_contours

from correlate.edge import fit_edges, step_shape
from correlate.front_line import JUMP_PX

ROWS, REACH, TRIALS, PEER_TRIALS, BLUR_PX = 1024, 32, 1500, 300, 2.0
X = np.arange(-REACH, REACH + 1.0)
NEAR = np.abs(X) <= JUMP_PX + 1
Line = NDArray[np.float64]


def bound_px(width: float, contrast: float, counts: float) -> float:
    """Return the bound with levels, width and position unknown, by differences."""
    at = np.array([0.0, width, counts * (1 - contrast / 2), counts * (1 + contrast / 2)])

    def model(p: Line) -> Line:
        return p[2] + (p[3] - p[2]) * step_shape(X, float(p[0]), float(p[1]))

    steps = np.array([1e-4, 1e-4, counts * 1e-5, counts * 1e-5])
    slope = np.array(
        [
            (model(at + e) - model(at - e)) / (2 * s)
            for e, s in zip(np.diag(steps), steps, strict=True)
        ]
    )
    return float(np.sqrt(np.linalg.inv((slope / model(at)) @ slope.T)[0, 0]))


def crossing(line: Line, level: float) -> float:
    """Return the crossing of a level that is nearest to the middle."""
    image = np.vstack([line, line])
    found = [c[:, 1].mean() - REACH for c in find_contours(image, level)]
    return min(found, key=abs) if found else 0.0


def contour(line: Line) -> float:
    """Cross half the levels of both ends."""
    smooth = ndimage.gaussian_filter1d(line, BLUR_PX)
    return crossing(smooth, float(smooth[:8].mean() + smooth[-8:].mean()) / 2)


def sobel(line: Line) -> float:
    """Take the steepest place, refined by a parabola."""
    slope = ndimage.sobel(ndimage.gaussian_filter1d(line, BLUR_PX))
    slope = np.where(NEAR, slope, -np.inf)
    i = int(np.argmax(slope))
    a, b, c = slope[i - 1], slope[i], slope[i + 1]
    if not np.isfinite(a + c) or a - 2 * b + c == 0:
        return float(X[i])
    return float(X[i] + 0.5 * (a - c) / (a - 2 * b + c))


def otsu(line: Line) -> float:
    """Cross Otsu's threshold."""
    smooth = ndimage.gaussian_filter1d(line, BLUR_PX)
    return crossing(smooth, float(threshold_otsu(smooth)))


PEERS: dict[str, Callable[[Line], float]] = {"contour": contour, "Sobel": sobel, "Otsu": otsu}


def rms(values: Line) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(2)
    names = "".join(f"{name:>9}" for name in PEERS)
    print(f"{'w px':>5}{'e/px':>6}{'step':>6}{'bound px':>10}{'ours':>7}{'pull':>6}{names}")
    ratios, pulls, peers = [], [], {name: [] for name in PEERS}
    spent = dict.fromkeys(["ours", *PEERS], 0.0)
    for width in (1.0, 2.0, 4.0):
        for dose in (1, 3, 10, 30, 100):
            for contrast in (0.05, 0.1, 0.2, 0.4):
                counts, bound = ROWS * dose, bound_px(width, contrast, ROWS * dose)
                true = rng.uniform(-1, 1, TRIALS)
                shape = np.array([step_shape(X, t, width) for t in true])
                lines = rng.poisson(counts * (1 - contrast / 2 + contrast * shape)).astype(float)
                start = time.thread_time()
                fits = fit_edges(X, lines, 0.0, width, sign=1, reach_px=JUMP_PX)
                spent["ours"] += (time.thread_time() - start) / TRIALS
                error = fits.position_px - true
                ratios.append(rms(error) / bound)
                pulls.append(rms(error / fits.sigma_px))
                row = f"{width:5.0f}{dose:6d}{contrast:6.2f}{bound:10.4f}"
                row += f"{ratios[-1]:7.2f}{pulls[-1]:6.2f}"
                for name, method in PEERS.items():
                    start = time.thread_time()
                    found = np.array([method(line) for line in lines[:PEER_TRIALS]])
                    spent[name] += (time.thread_time() - start) / PEER_TRIALS
                    peers[name].append(rms(found - true[:PEER_TRIALS]) / bound)
                    row += f"{peers[name][-1]:9.2f}"
                print(row)
    print(
        f"ours over bound: worst {max(ratios):.2f}, median {np.median(ratios):.2f}; "
        f"pull {min(pulls):.2f} to {max(pulls):.2f}"
    )
    for name, values in peers.items():
        print(f"{name} over bound: {min(values):.2f} to {max(values):.2f}")
    times = {name: 1e6 * value / len(ratios) for name, value in spent.items()}
    print("CPU time of one line, us: " + ", ".join(f"{k} {v:.0f}" for k, v in times.items()))


if __name__ == "__main__":
    main()
