"""A lattice in high-resolution images: error over the bound and over claimed sigma.

    pip install -e ".[bench]"
    python benchmarks/lattice.py

First single windows of 32 px full of fringes: the error of their frequency over the
Cramer-Rao bound of the window without a taper (Rife and Boorstyn, 1974, in two dimensions),
and of a plain FFT's highest bin beside. Then the simulated recordings: errors beside claimed
sigmas, and for the area the peer that marks each 32 px block whose highest bin in the ring
stands three times out of the ring's mean.
"""

import numpy as np
from numpy.typing import NDArray
from scene_movies import Pulls, errors, heading, movie

from correlate.bragg import Ring
from correlate.trackers.lattice import LatticeTracker

SIDE, SPACING_PX, AMPLITUDE, TRIALS = 32, 4.96, 0.2, 400
SEEDS, FRAMES = 8, 12
SCENES = (
    ("inactive_li_cryo", {}, 2.48e-10, ("area", "spacing")),
    ("inactive_li_cryo", {"carbonate": 1.0}, 2.48e-10, ("area", "spacing")),
    ("layered_to_spinel", {}, 2.87e-10, ("thickness", "spacing", "orientation")),
    ("garnet_beam_damage", {}, 3.24e-10, ("crystalline_fraction", "spacing")),
)
Image = NDArray[np.generic]


def plain(image: Image, spacing_px: float) -> float:
    """Return the frequency of the highest bin of a window's FFT in the ring, cycles per px."""
    power = np.abs(np.fft.fft2(image - np.mean(image))) ** 2
    k = np.fft.fftfreq(len(image))
    size = np.hypot(k[:, None], k[None, :])
    power[np.abs(size - 1 / spacing_px) > 0.25 / spacing_px] = 0
    return float(size.ravel()[np.argmax(power)])


def blocks(image: Image, spacing_px: float) -> float:
    """Return the area of the blocks in which a plain FFT shows the lattice, px^2."""
    found = 0
    k = np.fft.fftfreq(SIDE)
    size = np.hypot(k[:, None], k[None, :])
    ring = np.abs(size - 1 / spacing_px) < 0.15 / spacing_px
    for y in range(20, image.shape[0] - 20 - SIDE + 1, SIDE):
        for x in range(20, image.shape[1] - 20 - SIDE + 1, SIDE):
            part = np.asarray(image[y : y + SIDE, x : x + SIDE], np.float64)
            power = np.abs(np.fft.fft2(part - part.mean()))[ring] ** 2
            found += bool(power.max() > 3 * 3 * power.mean())
    return float(found * SIDE**2)


def windows() -> None:
    """Print the table of single windows."""
    rng, (y, x) = np.random.default_rng(1), np.indices((SIDE, SIDE))
    ring = Ring(SPACING_PX)
    print(f"{'e/px':>5}{'ours/bound':>12}{'pull':>7}{'FFT bin/bound':>15}")
    for dose in (10, 30, 100):
        ours, pulls, peer = [], [], []
        # Of a sinusoid of amplitude A N in noise of variance N, over n pixels.
        spread = (SIDE**2 - 1) / 12
        bound = np.sqrt(2 / (AMPLITUDE**2 * dose * SIDE**2 * spread)) / (2 * np.pi)
        for _ in range(TRIALS):
            turn = rng.uniform(0, np.pi)
            phase = (x * np.cos(turn) + y * np.sin(turn)) / SPACING_PX + rng.uniform()
            image = rng.poisson(dose * (1 + AMPLITUDE * np.cos(2 * np.pi * phase)))
            seen = ring.look(image, 0, 0)
            found = ring.peaks(image, 0, 0, np.zeros((1, 2), np.intp), seen.best.ravel())
            k = found.frequency[0]
            error = float(np.hypot(*k)) - 1 / SPACING_PX
            ours.append(error / bound)
            one = np.zeros(1, np.intp)
            pull = found.pulls(one, (k / np.hypot(*k))[None])
            moved = ring.pull(image.shape, (0, 0), np.zeros((1, 2), np.intp), k[None], pull)
            pulls.append(error / np.sqrt(np.sum(image * moved**2)))
            peer.append((plain(image, SPACING_PX) - 1 / SPACING_PX) / bound)
        a, b, c = (float(np.sqrt(np.mean(np.square(v)))) for v in (ours, pulls, peer))
        print(f"{dose:5d}{a:12.2f}{b:7.2f}{c:15.2f}")


def recordings() -> None:
    """Print the table of simulated recordings."""
    print()
    heading()
    for name, overrides, spacing_m, names in SCENES:
        pulls, by_block, by_us = Pulls(), [], []
        for seed in range(SEEDS):
            seen = movie(
                name,
                seed,
                FRAMES,
                front_m=40e-9,
                options={"spacing": spacing_m},
                frame_s=1.0,
                **overrides,
            )
            track = LatticeTracker(seen.settings).track(lambda seen=seen: seen.frames)
            for column in names:
                pulls.add(column, *errors(track, column, seen.truth[column]))
            if "area" in names:
                size_m = seen.settings.pixel_size_m
                area = seen.truth["area"][0] / size_m**2
                by_block += [blocks(f, spacing_m / size_m) / area - 1 for f in seen.frames]
                by_us += (track.columns["area"] / seen.truth["area"] - 1).tolist()
        pulls.show(f"{name} {'carbonate' if overrides else ''}")
        if by_block:
            a, b = (float(np.sqrt(np.mean(np.square(v)))) for v in (by_us, by_block))
            print(f"{'':4}relative error of the area: ours {a:.4f}, FFT blocks {b:.4f}")


if __name__ == "__main__":
    windows()
    recordings()
