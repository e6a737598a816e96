"""Where a lattice of one spacing is seen: power spectra of windows, at frequencies of a ring.

A window's Fourier coefficient at the frequency of a lattice that fills it is the fringes'
amplitude; where the lattice fills a part of it, a part of that. Half the amplitude is the
lattice's edge. Counts scatter it by ``sum(w^2) * counts``, which is known.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
WINDOW_PX = 32
STRIDE_PX = 8
RING_RATIO = 0.06  # of the spacing, to both sides, that is looked at
FALSE_ALARM = 1e-4  # of a window without a lattice
FINE = 2.5  # frequencies looked at in one resolution of the window
WHOLE = 0.7  # of the power of the strongest windows, in one that is full of lattice
NEWTON_STEPS = 4
AT_ONCE = 512  # windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What a frame's windows tell, shape (rows, columns) each.

    Parameters
    ----------
    power
        Largest squared Fourier coefficient in the ring.
    noise
        Mean of that of counts alone.
    coefficients
        At all frequencies of the ring, shape (rows, columns, n).
    best
        Index of the frequency of the largest.
    """

    power: Floats
    noise: Floats
    coefficients: NDArray[np.complex64]
    best: NDArray[np.intp]

    def seen(self, background: float) -> NDArray[np.bool_]:
        """Return where a lattice stands out of noise that is so many times that of counts."""
        tries = max(self.coefficients.shape[2] / FINE**2, 1.0)
        limit = background * math.log(tries / FALSE_ALARM)
        return np.asarray(self.power > self.noise * limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """What is known at the tops of the power of n windows.

    Parameters
    ----------
    frequency
        (kx, ky) in cycles per px, shape (n, 2).
    value
        Fourier coefficient, shape (n,).
    lever
        The same of the window times its coordinates (x, y), shape (n, 2).
    bend
        Second derivatives of the power by the frequency, over the power, shape (n, 2, 2).
    """

    frequency: Floats
    value: NDArray[np.complex128]
    lever: NDArray[np.complex128]
    bend: Floats

    def pulls(self, which: NDArray[np.intp], asked: Floats) -> NDArray[np.complex128]:
        """Return how pixels pull at a sum of frequencies, for `Ring.pull`.

        Parameters
        ----------
        which
            Windows that take part, shape (m,).
        asked
            What the sum takes of each one's kx and ky, shape (m, 2).
        """
        z, lever = np.conj(self.value[which]), np.conj(self.lever[which])
        # A top moves by the slope that noise adds, over the bend.
        moved = -np.linalg.solve(self.bend[which], asked[:, :, None])[:, :, 0]
        scale = -4j * np.pi / np.abs(z) ** 2
        own = -np.sum(moved * lever, axis=1)
        return np.asarray(
            scale[:, None] * np.stack([own, z * moved[:, 0], z * moved[:, 1]], axis=1)
        )


class Ring:
    """Looks for one spacing in the windows of a frame.

    Parameters
    ----------
    spacing_px
        From fringe to fringe.
    window_px
        Side of a window.

    Raises
    ------
    ValueError
        The spacing is too fine for the pixels, or too coarse for the window.
    """

    def __init__(self, spacing_px: float, window_px: int = WINDOW_PX) -> None:
        if spacing_px < 2.2 or spacing_px > window_px / 3:
            raise ValueError(
                f"a spacing of {spacing_px:.2f} px cannot be seen: it lies between 2.2 px and a "
                f"third of a window of {window_px} px; take other pixels or another window"
            )
        self.window_px, self.spacing_px = window_px, spacing_px
        step = 1 / (FINE * window_px)
        reach = np.arange(-0.5, 0.5 + step, step)
        ky, kx = np.meshgrid(reach, reach, indexing="ij")
        k = np.hypot(kx, ky)
        width = max(RING_RATIO / spacing_px, 0.5 * step)
        half = (kx > 0) | ((kx == 0) & (ky > 0))
        ring = half & (np.abs(k - 1 / spacing_px) <= width)
        self.kx, self.ky = kx[ring], ky[ring]
        u = np.arange(window_px) - (window_px - 1) / 2
        hann = 0.5 + 0.5 * np.cos(2 * np.pi * u / window_px)
        self._w2 = np.outer(hann, hann)
        self._hann, self._u = hann, u
        self._y = np.exp(-2j * np.pi * np.outer(u, self.ky)) * hann[:, None]
        self._x = np.exp(-2j * np.pi * np.outer(u, self.kx)) * hann[:, None]
        flat = np.einsum("yk,xk->yxk", self._y, self._x).reshape(window_px**2, -1)
        flat = np.concatenate([flat, self._w2.reshape(-1, 1) ** 2], axis=1)
        self._waves = np.concatenate([flat.real, flat.imag], axis=1).astype(np.float32)

    @property
    def noise_gain(self) -> float:
        """Return the sum of the squared window."""
        return float(np.sum(self._w2**2))

    def look(self, pixels: NDArray[np.generic], y0: int, x0: int) -> Windows:
        """Look at all windows of a frame on a grid that begins at a place."""
        image = np.asarray(pixels, dtype=np.float32)
        side = self.window_px
        view = np.lib.stride_tricks.sliding_window_view(image, (side, side))
        view = view[y0::STRIDE_PX, x0::STRIDE_PX]
        rows, columns = view.shape[:2]
        flat = view.reshape(rows * columns, side * side)
        mean = flat.mean(axis=1, keepdims=True)
        n = len(self.kx)
        # Counts less their mean, but the last wave weighs the counts themselves.
        found = (flat - mean) @ self._waves
        noise = found[:, n] + mean[:, 0] * self.noise_gain
        values = found[:, :n] + 1j * found[:, n + 1 : 2 * n + 1]
        power = np.abs(values) ** 2
        best = np.argmax(power, axis=1)
        top = power[np.arange(len(best)), best]
        return Windows(
            power=top.reshape(rows, columns).astype(np.float64),
            noise=np.maximum(noise, 1e-9).reshape(rows, columns).astype(np.float64),
            coefficients=values.reshape(rows, columns, n),
            best=best.reshape(rows, columns),
        )

    def background(self, windows: Windows) -> float:
        """Return how much more than counts alone the ring scatters, away from a lattice."""
        k = windows.best.ravel()
        power = np.abs(windows.coefficients.reshape(len(k), -1)) ** 2
        away = np.hypot(
            self.kx[None, :] - self.kx[k][:, None], self.ky[None, :] - self.ky[k][:, None]
        )
        clear = away > 2.5 / self.window_px
        share = power / windows.noise.reshape(-1, 1)
        if not np.any(clear):
            return 1.0
        found = float(np.median(share[clear])) / math.log(2)
        # Where there is no lattice, the largest of noise is a part of it; a window with an edge
        # of a lattice shows that at all frequencies.
        seen = windows.seen(found)
        none = np.ones(seen.shape, dtype=bool)
        if seen.any():
            none = ndimage.distance_transform_edt(~seen) > self.window_px / STRIDE_PX
            seen &= windows.power > WHOLE * np.percentile(windows.power[seen], 90)
        sure = (clear & seen.reshape(-1, 1)) | none.reshape(-1, 1)
        return float(np.median(share[sure])) / math.log(2) if np.any(sure) else found

    def overlap(self) -> Floats:
        """Return how the noise of neighbouring windows goes together, by their distance."""
        line, _ = self._alike()
        line = np.concatenate([line[:0:-1], line])
        return np.outer(line, line)

    def frequency_noise(self, offset: NDArray[np.intp], ratio: Floats) -> Floats:
        """Return what the power of windows gains by the noise of a frequency, over theirs.

        At its own peak a window has the noise that drew the peak to itself; at that of a
        window far away it loses what a frequency beside the right one loses.

        Parameters
        ----------
        offset
            Rows and columns from the window whose peak was taken, shape (n, 2).
        ratio
            Power, over that window's, shape (n,).
        """
        own, bent = (np.append(line, 0.0) for line in self._alike())
        y, x = np.minimum(np.abs(offset), len(own) - 1).T
        together = 0.5 * (own[y] * bent[x] + bent[y] * own[x])
        # Two axes of u^2, under the squared window against under the window.
        moment = self._w2**2 @ self._u**2 / np.sum(self._w2**2, axis=1)
        slope = self._w2 @ self._u**2 / np.sum(self._w2, axis=1)
        gain = float(moment[self.window_px // 2] / slope[self.window_px // 2])
        return np.asarray(gain * (2 * together * np.sqrt(ratio) - ratio))

    def _alike(self) -> tuple[Floats, Floats]:
        """Return how noise goes together by distance: of the window, and times its coordinate."""
        found = []
        for shape in (self._hann, self._hann * self._u):
            lags = range(0, self.window_px, STRIDE_PX)
            line = [float(shape[lag:] @ shape[: self.window_px - lag]) for lag in lags]
            found.append(np.array(line) / line[0])
        return found[0], found[1]

    def pull(
        self,
        shape: tuple[int, int],
        corner: tuple[int, int],
        at: NDArray[np.intp],
        frequency: Floats,
        pulls: NDArray[np.complex128],
    ) -> Floats:
        """Return by how much a count in each pixel moves a sum over windows.

        What windows share, and what of them a lattice fills, is in it: summed with the
        variance of each pixel, its square is the variance of the sum.

        Parameters
        ----------
        shape
            Of the frame.
        corner
            Row and column where the grid of windows begins.
        at
            Rows and columns of windows, shape (n, 2).
        frequency
            Of each, shape (n, 2).
        pulls
            By which the window's wave counts in the sum, alone and times x and y: shape
            (n, 3), of which the real part is taken.
        """
        image, side = np.zeros(shape), self.window_px
        w2 = self._w2.astype(np.float32)
        for first in range(0, len(at), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            ex = np.exp(-2j * np.pi * frequency[some, :1] * self._u)
            ey = np.exp(-2j * np.pi * frequency[some, 1:] * self._u)
            own, by_x, by_y = (part[:, None] for part in pulls[some].T)
            left = np.stack([ey * (own + by_y * self._u), ey * by_x], axis=2)
            right = np.stack([ex, ex * self._u], axis=1)
            patches = np.matmul(left.astype(np.complex64), right.astype(np.complex64)).real * w2
            for (row, column), patch in zip(at[some].tolist(), patches, strict=True):
                y, x = corner[0] + STRIDE_PX * row, corner[1] + STRIDE_PX * column
                image[y : y + side, x : x + side] += patch
        return image

    def coefficients(
        self,
        pixels: NDArray[np.generic],
        y0: int,
        x0: int,
        at: NDArray[np.intp],
        frequency: Floats,
    ) -> NDArray[np.complex128]:
        """Return the Fourier coefficient of some windows, each at a frequency, shape (n,)."""
        stack = self._stack(pixels, y0, x0, at)
        ex = np.exp(-2j * np.pi * frequency[:, :1] * self._u)
        ey = np.exp(-2j * np.pi * frequency[:, 1:] * self._u)
        rows = np.matmul(stack, ex[:, :, None].astype(np.complex64))[:, :, 0]
        return np.asarray(np.sum(rows * ey, axis=1))

    def _stack(
        self, pixels: NDArray[np.generic], y0: int, x0: int, at: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return some windows without their means, tapered, shape (n, side, side)."""
        image, side = np.asarray(pixels, dtype=np.float32), self.window_px
        view = np.lib.stride_tricks.sliding_window_view(image, (side, side))
        stack = view[y0 + STRIDE_PX * at[:, 0], x0 + STRIDE_PX * at[:, 1]].copy()
        stack -= stack.mean(axis=(1, 2), keepdims=True)
        stack *= self._w2.astype(np.float32)
        return stack

    def peaks(
        self,
        pixels: NDArray[np.generic],
        y0: int,
        x0: int,
        at: NDArray[np.intp],
        k: NDArray[np.intp],
    ) -> Peaks:
        """Return the peak in some windows.

        Parameters
        ----------
        at
            Rows and columns of the windows, shape (n, 2).
        k
            Index of the frequency nearest to each peak, shape (n,).
        """
        frequency = np.stack([self.kx[k], self.ky[k]], axis=1)
        stack, step = self._stack(pixels, y0, x0, at), 1 / (FINE * self.window_px)
        found, slope = self._near(stack, frequency)
        for _ in range(NEWTON_STEPS):
            (xx, xy), (_, yy) = np.moveaxis(found.bend, 0, 2)
            flat = xx * yy - xy**2
            top = (xx < 0) & (flat > 0)
            with np.errstate(invalid="ignore", divide="ignore"):
                mx = np.where(top, -(yy * slope[:, 0] - xy * slope[:, 1]) / flat, 0.0)
                my = np.where(top, -(xx * slope[:, 1] - xy * slope[:, 0]) / flat, 0.0)
            frequency = frequency + np.clip(np.stack([mx, my], axis=1), -step, step)
            found, slope = self._near(stack, frequency)
        return found

    def _near(self, stack: NDArray[np.float32], frequency: Floats) -> tuple[Peaks, Floats]:
        """Return what some tapered windows tell at a frequency, and the slope of their power.

        The slope is by the frequency, over the power, shape (n, 2).
        """
        u = self._u
        ex = np.exp(-2j * np.pi * frequency[:, :1] * u)
        ey = np.exp(-2j * np.pi * frequency[:, 1:] * u)
        waves = np.stack([ex, ex * u, ex * u * u], axis=2).astype(np.complex64)
        rows, rows_u, rows_uu = np.moveaxis(np.matmul(stack, waves), 2, 0)
        z = np.einsum("ny,ny->n", rows, ey)
        zx, zxx = (np.einsum("ny,ny->n", part, ey) for part in (rows_u, rows_uu))
        zy, zyy = (np.einsum("ny,ny->n", rows, ey * f) for f in (u, u * u))
        zxy = np.einsum("ny,ny->n", rows_u, ey * u)
        power = np.maximum(np.abs(z) ** 2, 1e-12)
        lever = np.stack([zx, zy], axis=1)
        slope = 4 * np.pi * np.imag(np.conj(z)[:, None] * lever) / power[:, None]
        xx = np.abs(zx) ** 2 - np.real(np.conj(z) * zxx)
        yy = np.abs(zy) ** 2 - np.real(np.conj(z) * zyy)
        xy = np.real(np.conj(zx) * zy) - np.real(np.conj(z) * zxy)
        bend = 8 * np.pi**2 * np.stack([xx, xy, xy, yy], axis=1) / power[:, None]
        return Peaks(
            frequency=frequency, value=z, lever=lever, bend=bend.reshape(-1, 2, 2)
        ), np.asarray(slope)
