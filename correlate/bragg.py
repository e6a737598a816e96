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

    @property
    def frequency_gain(self) -> float:
        """Return the variance of a frequency, times its squared signal-to-noise ratio.

        For a coefficient of amplitude a in noise of mean square n the variance is this times
        ``n / a^2``, for each axis, in cycles per px.
        """
        moment = float(np.sum(self._w2**2 * self._u**2))
        slope = float(np.sum(self._w2 * self._u**2))
        whole = float(self._w2.sum())
        return moment * whole**2 / (8 * math.pi**2 * slope**2 * self.noise_gain)

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
        """Return how much more than counts alone the ring scatters, away from peaks."""
        k = windows.best.ravel()
        power = np.abs(windows.coefficients.reshape(len(k), -1)) ** 2
        away = np.hypot(
            self.kx[None, :] - self.kx[k][:, None], self.ky[None, :] - self.ky[k][:, None]
        )
        clear = away > 2.5 / self.window_px
        share = power / windows.noise.reshape(-1, 1)
        return float(np.median(share[clear]) / math.log(2)) if np.any(clear) else 1.0

    def overlap(self) -> Floats:
        """Return how the noise of neighbouring windows goes together, by their distance."""
        own, _ = self._correlations()
        return np.outer(own, own)

    def frequency_variance(self, weighted: Floats, direction_rad: Floats) -> float:
        """Return the variance of a weighted mean of frequencies, along given directions.

        Windows that overlap err against each other: what moves the phase at the end of one
        moves it at the beginning of the next.

        Parameters
        ----------
        weighted
            Sigma of each window's frequency times its weight, 0 for those that take no
            part, shape (rows, columns).
        direction_rad
            Of each window's frequency that counts.
        """
        own, bent = self._correlations()
        along_x, along_y = weighted * np.cos(direction_rad), weighted * np.sin(direction_rad)
        return sum(
            float(np.sum(part * ndimage.correlate(part, kernel, mode="constant")))
            for part, kernel in (
                (along_x, np.outer(own, bent)),
                (along_y, np.outer(bent, own)),
            )
        )

    def _correlations(self) -> tuple[Floats, Floats]:
        """Return the noise correlations of the window, and of it times its coordinate."""
        reach = self.window_px // STRIDE_PX - 1
        found = []
        for shape in (self._hann, self._hann * self._u):
            line = [
                float(shape[lag:] @ shape[: self.window_px - lag])
                for lag in np.abs(np.arange(-reach, reach + 1)) * STRIDE_PX
            ]
            found.append(np.array(line) / float(shape @ shape))
        return found[0], found[1]

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
    ) -> Floats:
        """Return the frequency (kx, ky) of the peak in some windows, shape (n, 2).

        Parameters
        ----------
        at
            Rows and columns of the windows, shape (n, 2).
        k
            Index of the frequency nearest to each peak, shape (n,).
        """
        kx, ky = self.kx[k].copy(), self.ky[k].copy()
        stack = self._stack(pixels, y0, x0, at)
        u, step = self._u, 1 / (FINE * self.window_px)
        for _ in range(4):
            ex = np.exp(-2j * np.pi * kx[:, None] * u)
            ey = np.exp(-2j * np.pi * ky[:, None] * u)
            waves = np.stack([ex, ex * u, ex * u * u], axis=2).astype(np.complex64)
            rows, rows_u, rows_uu = np.moveaxis(np.matmul(stack, waves), 2, 0)
            z = np.einsum("ny,ny->n", rows, ey)
            zx, zxx = (np.einsum("ny,ny->n", part, ey) for part in (rows_u, rows_uu))
            zy, zyy = (np.einsum("ny,ny->n", rows, ey * f) for f in (u, u * u))
            zxy = np.einsum("ny,ny->n", rows_u, ey * u)
            power = np.maximum(np.abs(z) ** 2, 1e-12)
            # Newton on the power of each peak.
            gx, gy = (4 * np.pi * np.imag(np.conj(z) * d) / power for d in (zx, zy))
            scale = 8 * np.pi**2 / power
            hxx = scale * (np.abs(zx) ** 2 - np.real(np.conj(z) * zxx))
            hyy = scale * (np.abs(zy) ** 2 - np.real(np.conj(z) * zyy))
            hxy = scale * (np.real(np.conj(zx) * zy) - np.real(np.conj(z) * zxy))
            flat = hxx * hyy - hxy**2
            top = (hxx < 0) & (flat > 0)
            with np.errstate(invalid="ignore", divide="ignore"):
                mx = np.where(top, -(hyy * gx - hxy * gy) / flat, 0.0)
                my = np.where(top, -(hxx * gy - hxy * gx) / flat, 0.0)
            kx += np.clip(mx, -step, step)
            ky += np.clip(my, -step, step)
        return np.stack([kx, ky], axis=1)


def nearest(seen: NDArray[np.bool_], reach: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the windows near some, and which of those is the nearest to each.

    Parameters
    ----------
    seen
        Which windows, shape (rows, columns).
    reach
        Farthest distance, in windows.

    Returns
    -------
    at, which
        Rows and columns, shape (n, 2), and the number of the nearest among those that are
        seen, in the order of `numpy.argwhere`, shape (n,).
    """
    if not np.any(seen):
        return np.zeros((0, 2), np.intp), np.zeros(0, np.intp)
    distance, index = ndimage.distance_transform_edt(~seen, return_indices=True)
    number = np.cumsum(seen.ravel()).reshape(seen.shape) - 1
    at = np.argwhere(distance <= reach)
    row, column = (part[at[:, 0], at[:, 1]] for part in index)
    return at, number[row, column]


def turning(inside: NDArray[np.bool_]) -> float:
    """Return by how many full turns the edges of some windows bend, outwards counted positive.

    An island turns once, a hole once back, a strip from side to side not at all: the Euler
    number, less what the sides of the field cut off.
    """
    if not np.any(inside):
        return 0.0
    whole = np.ones((3, 3), dtype=bool)
    parts = int(np.asarray(ndimage.label(inside)[1]))
    # Gaps at the side of the field are no holes.
    labels = np.asarray(ndimage.label(~inside, structure=whole)[0])
    rim = np.concatenate([labels[0], labels[1:, -1], labels[-1, -2::-1], labels[-2:0:-1, 0]])
    holes = len(np.setdiff1d(np.unique(labels), np.append(np.unique(rim), 0)))
    cut = rim == 0
    runs = int(np.count_nonzero(cut & ~np.roll(cut, 1)))
    corners = int(np.sum(inside[[0, 0, -1, -1], [0, -1, 0, -1]]))
    return parts - holes - 0.5 * runs - 0.25 * corners
