"""The low modes of a frame under a window that moves with the specimen.

A frame is parted into the slope of its column means (layers that run along y), the slope
of its row means, and the rest. A window on a uniform layer would look like a feature that
stands where the window stands; the slope of a uniform layer is nothing.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from correlate.sensor import Parts
from correlate.window import Band, taper, without_band

REACH = 0.4  # cycles per binned pixel: beyond, the bins' own shape is in the way
REACH_UNBINNED = 0.25
SOFT_PX = 10.0
TAU = 2 * math.pi
Block = NDArray[np.complexfloating]
Power = NDArray[np.floating]
Spectrum = tuple[Block, Block, Block]
"""Modes of the rest (n_y, n_x), of the columns' slope (n_x,), of the rows' (n_along,)."""
Powers = tuple[Power, Power, Power]


class Modes:
    """Which modes of a frame are looked at, and under what window.

    All are modes with a mirror image, so that each stands for two.

    Parameters
    ----------
    shape
        Height and width of the frame in px.
    bin_px
        Pixels a side that are summed before.
    margin_px
        Kept free at the border, so that the window can move.
    band
        Columns that take no part.
    highest
        Frequency in cycles per px beyond which no mode is looked at.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        bin_px: int,
        margin_px: float,
        band: Band | None,
        highest: float = math.inf,
    ) -> None:
        self.shape, self.bin_px, self.margin_px, self.band = shape, bin_px, margin_px, band
        self._n = shape[0] // bin_px, shape[1] // bin_px
        reach = min(REACH if bin_px > 1 else REACH_UNBINNED, highest * bin_px)
        self.count_y, self.count_x = (max(int(reach * n), 8) for n in self._n)
        self.fy = np.arange(-self.count_y, self.count_y + 1) / (self._n[0] * bin_px)
        self.fx = np.arange(1, self.count_x + 1) / (self._n[1] * bin_px)
        self._powers_x = np.stack([self.fx**k for k in range(3)])
        self._powers_y = np.stack([self.fy**k for k in range(3)])
        self.fy_along = self.fy[self.count_y + 1 :]
        self.highest = float(max(self.fx[-1], self.fy[-1]))
        across, along = (window.astype(np.float64) ** 2 for window in self.window(0.0, 0.0))
        self._gain = float(across.sum()), float(along.sum())
        # Under a window neighbouring modes tell the same, so there is less to be known
        # than independent modes would tell.
        crowd_x = float(np.mean(across**2) / np.mean(across) ** 2)
        crowd_y = float(np.mean(along**2) / np.mean(along) ** 2)
        self._crowd = crowd_x, crowd_y
        self.crowding = crowd_x * crowd_y, crowd_x, crowd_y

    def window(self, dx_px: float, dy_px: float) -> tuple[Power, Power]:
        """Return the window across and along, moved with the specimen."""
        b, (n_y, n_x) = self.bin_px, self._n
        across = taper(n_x * b, dx_px, self.margin_px, b)
        if self.band is not None:
            across = across * without_band(n_x * b, self.band, dx_px, SOFT_PX, b)
        along = taper(n_y * b, dy_px, self.margin_px, b)
        return across.astype(np.float32), along.astype(np.float32)

    def of(self, image: Power, dx_px: float, dy_px: float) -> Spectrum:
        """Return the modes of an image, under a window moved by (dx, dy).

        Parameters
        ----------
        image
            Sums over squares of ``bin_px``, shape (height // bin_px, width // bin_px).
        """
        across, along = self.window(dx_px, dy_px)
        by_y, by_x = along**2 / np.sum(along**2), across**2 / np.sum(across**2)
        columns = by_y @ image
        rest = image - columns
        rows = rest @ by_x
        rest -= rows[:, None]
        rest *= along[:, None]
        rest *= across
        half = fft.rfft(rest, axis=1)[:, 1 : self.count_x + 1]
        # Transposed, so that the second transform runs along memory.
        full = fft.fft(np.ascontiguousarray(half.T), axis=1, overwrite_x=True)
        low = np.concatenate([full[:, -self.count_y :], full[:, : self.count_y + 1]], axis=1)
        return (
            np.ascontiguousarray(low.T),
            fft.rfft(_slope(columns) * across)[1 : self.count_x + 1],
            fft.rfft(_slope(rows) * along)[1 : self.count_y + 1],
        )

    def noise(self, variances: Parts) -> tuple[float, Power, Power]:
        """Return the power of white noise in each mode.

        Parameters
        ----------
        variances
            Of a pixel, of a column's mean, of a row's mean.
        """
        b, (gain_x, gain_y) = self.bin_px, self._gain
        slope_x = np.sin(TAU * self.fx * b) ** 2  # of the central difference
        slope_y = np.sin(TAU * self.fy_along * b) ** 2
        return (
            float(variances[0]) * b**2 * gain_x * gain_y,
            (variances[1] * b**3 * self._crowd[1] * gain_x * slope_x).astype(np.float32),
            (variances[2] * b**3 * self._crowd[0] * gain_y * slope_y).astype(np.float32),
        )

    def turn(self, dx_px: float, dy_px: float) -> Spectrum:
        """Return the phases that move a scene by (dx, dy)."""
        x = np.exp(-1j * TAU * self.fx * dx_px).astype(np.complex64)
        y = np.exp(-1j * TAU * self.fy * dy_px).astype(np.complex64)
        return y[:, None] * x[None, :], x, y[self.count_y + 1 :]

    def moments(
        self, cross: Spectrum, dx_px: float, dy_px: float
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Return ``J = Re sum(X exp(2 pi i f d))`` over all modes, its slope and curvature."""
        rest, columns, rows = cross
        ex = (np.exp(1j * TAU * dx_px * self.fx) * self._powers_x).astype(np.complex64).T
        ey = (np.exp(1j * TAU * dy_px * self.fy) * self._powers_y).astype(np.complex64)
        m = (ey @ (rest @ ex)).astype(np.complex128)
        m[0] += columns @ ex
        m[:, 0] += ey[:, self.count_y + 1 :] @ rows
        value = 2 * float(m[0, 0].real)
        slope = -2 * TAU * np.array([m[0, 1].imag, m[1, 0].imag])
        curve = -2 * TAU**2 * np.array([[m[0, 2].real, m[1, 1].real], [m[1, 1].real, m[2, 0].real]])
        return value, slope, curve

    def brightness(self, image: Power, weighted: Spectrum) -> NDArray[np.float64]:
        """Return how bright it is where a shift is told, against the mean of the image.

        Counts scatter by their number, so a shift that is told by dark grains beside a bright
        film has less noise than the frame's mean.

        Parameters
        ----------
        image
            Sums over squares of ``bin_px``.
        weighted
            Modes of the reference, times their weights.

        Returns
        -------
        ratio
            Of each part (rest, columns, rows), for shifts along x and y, shape (3, 2).
        """
        across, along = (w.astype(np.float64) for w in self.window(0.0, 0.0))
        level = np.maximum(image / max(float(np.mean(image)), 1e-30), 0.0)
        rest, columns, rows = weighted
        half = np.zeros((self._n[0], self._n[1] // 2 + 1), dtype=np.complex128)
        ratio = np.ones((3, 2))
        for axis, turned in enumerate((rest * self.fx, rest * self.fy[:, None])):
            half[: self.count_y + 1, 1 : self.count_x + 1] = 1j * turned[self.count_y :]
            half[-self.count_y :, 1 : self.count_x + 1] = 1j * turned[: self.count_y]
            pull = fft.irfft2(half, s=self._n) * along[:, None] * across
            ratio[0, axis] = _mean_level(level, pull)
        by_y, by_x = along**4, across**4
        columns_level, rows_level = by_y @ level / by_y.sum(), level @ by_x / by_x.sum()
        for part, (told, f, window, seen) in enumerate(
            ((columns, self.fx, across, columns_level), (rows, self.fy_along, along, rows_level)),
            start=1,
        ):
            line = np.zeros(len(window) // 2 + 1, dtype=np.complex128)
            line[1 : len(f) + 1] = 1j * told * f
            ratio[part, part - 1] = _mean_level(
                seen, _slope(np.asarray(fft.irfft(line, n=len(window)) * window))
            )
        return ratio

    def surface(self, cross: Spectrum) -> tuple[NDArray[np.floating], float, float]:
        """Return the correlation surface, and the pitch of its rows and columns in px."""
        rest, columns, rows = cross
        grid_y, grid_x = (
            fft.next_fast_len(4 * n + 2, real=True) for n in (self.count_y, self.count_x)
        )
        half = np.zeros((grid_y, grid_x // 2 + 1), dtype=np.complex64)
        half[: self.count_y + 1, 1 : self.count_x + 1] = rest[self.count_y :]
        half[-self.count_y :, 1 : self.count_x + 1] = rest[: self.count_y]
        half[0, 1 : self.count_x + 1] += columns
        half[1 : self.count_y + 1, 0] += rows
        half[-self.count_y :, 0] += np.conj(rows[::-1])
        b = self.bin_px
        found = fft.irfft2(half, s=(grid_y, grid_x))
        return found, self._n[0] * b / grid_y, self._n[1] * b / grid_x


def _slope(profile: Power) -> Power:
    """Return the central difference; 0 at both ends, where the window is closed."""
    slope = np.zeros_like(profile)
    np.subtract(profile[2:], profile[:-2], out=slope[1:-1])
    slope *= np.float32(0.5)
    return slope


def _mean_level(level: Power, pull: Power) -> float:
    """Return the mean of a level, weighted by the squares of a pull; 1 where nothing pulls."""
    total = float(np.sum(pull**2))
    return float(np.sum(level * pull**2)) / total if total > 0 else 1.0
