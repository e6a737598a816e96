"""Drift from all pairs of frames, made to add up, beside drift against a growing reference.

    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/pairs.py

256 x 256 px, grains of 4 px, contrast 15 %, Poisson counts, 24 drifting frames, two seeds; in
the last row the scene has changed to another one, but for a seventh, by the end. Printed:
root-mean-square error over the bound of one frame of a known scene, with the mean error
taken out, and the error over the sigma that `correlate.pairs` claims against the first frame.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from correlate.drift import DriftEstimator, Shift
from correlate.pairs import PairSolution, solve_pairs

SIDE, FRAMES, SEEDS, GRAIN_PX, CONTRAST = 256, 24, 2, 4.0, 0.15
CASES = ((1.0, 0.0), (5.0, 0.0), (30.0, 0.0), (30.0, 0.9))
FY, FX = fft.fftfreq(SIDE)[:, None], fft.rfftfreq(SIDE)[None, :]
Float = NDArray[np.float64]


def movie(seed: int, dose: float, change: float) -> tuple[list[NDArray[np.uint16]], Float, float]:
    """Return frames, where the scene stands (x, y), and the bound of one frame in px."""
    rng = np.random.default_rng([seed, 5])

    def scene() -> NDArray[np.complex128]:
        grains = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), GRAIN_PX, mode="wrap")
        return np.asarray(fft.rfft2(CONTRAST * grains / grains.std()))

    first, second = scene(), scene()
    path = np.cumsum(rng.normal(0, 0.4, (FRAMES, 2)), axis=0)
    path -= path[0]
    frames = []
    for k, (x, y) in enumerate(path):
        turn = change * k / (FRAMES - 1) * np.pi / 2
        modes = first * np.cos(turn) + second * np.sin(turn)
        moved = fft.irfft2(modes * np.exp(-2j * np.pi * (FY * y + FX * x)), s=(SIDE, SIDE))
        frames.append(rng.poisson(dose * np.maximum(1 + moved, 0.05)).astype(np.uint16))
    slope = fft.irfft2(first * 2j * np.pi * FX, s=(SIDE, SIDE))
    return frames, path, float(1 / np.sqrt(dose * np.sum(slope**2)))


def from_pairs(frames: list[NDArray[np.uint16]]) -> PairSolution:
    """Register every pair, and make the shifts add up."""
    pairs = np.array(list(itertools.combinations(range(len(frames)), 2)), dtype=np.intp)
    shift, sigma = np.full((len(pairs), 2), np.nan), np.ones((len(pairs), 2))
    for i, (j, k) in enumerate(pairs):
        estimator = DriftEstimator((SIDE, SIDE))
        estimator.update(frames[j])
        found = estimator.update(frames[k])
        if found.valid:
            shift[i], sigma[i] = place(found), (found.sigma_x_px, found.sigma_y_px)
    return solve_pairs(len(frames), pairs, shift, sigma)


def place(shift: Shift) -> tuple[float, float]:
    """Return a shift, x first."""
    return shift.dx_px, shift.dy_px


def rms(values: list[Float]) -> float:
    """Return the root of the mean square of what is known."""
    return float(np.sqrt(np.nanmean(np.square(np.concatenate(values)))))


def main() -> None:
    """Print the table."""
    heads = f"{'e/px':>5}{'changed':>9}{'reference':>11}{'pairs':>8}"
    print(f"{heads}{'pull of pairs':>15}{'repaired':>10}")
    for dose, change in CASES:
        reference, pairs, pulls, repaired = [], [], [], 0
        for seed in range(SEEDS):
            frames, path, bound_px = movie(seed, dose, change)
            estimator = DriftEstimator((SIDE, SIDE), reference_frames=64)
            seen = np.array([place(estimator.update(f)) for f in frames]) + path
            solution = from_pairs(frames)
            solved = solution.shift_px + path
            reference.append((seen - np.nanmean(seen, axis=0)) / bound_px)
            pairs.append((solved - np.nanmean(solved, axis=0)) / bound_px)
            pulls.append(solved[1:] / solution.sigma_px[1:])
            repaired += int(solution.outliers.sum())
        row = f"{dose:5.0f}{change:9.1f}{rms(reference):11.2f}{rms(pairs):8.2f}"
        print(f"{row}{rms(pulls):15.1f}{repaired:10d}", flush=True)


if __name__ == "__main__":
    main()
