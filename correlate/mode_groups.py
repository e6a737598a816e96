"""Modes of a frame in groups, each of which tells a shift by itself.

Where a scene has only drifted, all groups tell the same. What moves in it by itself, or grows,
or is exchanged, is told by some of them only: a crystal by few modes, layers by the slope of
columns, grains by all.
"""

import math

import numpy as np
from numpy.typing import NDArray

from correlate.modes import TAU, Modes, Powers, Spectrum

ROWS, COLUMNS = 6, 4  # of groups, in the half-plane of modes; and two for the lines
Floats = NDArray[np.float64]


class ModeGroups:
    """Sums over groups of modes: squares of the half-plane, the columns' slope, the rows'.

    Parameters
    ----------
    modes
        That are parted.
    """

    def __init__(self, modes: Modes) -> None:
        self._modes = m = modes
        self.count = ROWS * COLUMNS + 2
        height, width = 2 * m.count_y + 1, m.count_x
        self._rows = np.arange(ROWS) * height // ROWS
        self._columns = np.arange(COLUMNS) * width // COLUMNS
        ends = np.append(self._columns[1:], width)
        self._parts = [slice(a, b) for a, b in zip(self._columns, ends, strict=True)]

    def of(self, cross: Spectrum, dx_px: float, dy_px: float) -> tuple[Floats, Floats]:
        """Return what each group adds to the correlation ``J`` of `Modes.moments`.

        Returns
        -------
        values
            Its share of ``J``, shape (n,).
        slopes
            Its share of the slope of ``J``, along x and y, shape (n, 2).
        """
        m = self._modes
        rest, columns, rows = cross
        ex = np.exp(1j * TAU * dx_px * m.fx).astype(np.complex64)
        ey = np.exp(1j * TAU * dy_px * m.fy).astype(np.complex64)[:, None]
        across = np.stack([ex, ex * m.fx.astype(np.float32)], axis=1)
        strips = np.stack([ey * (rest[:, k] @ across[k]) for k in self._parts])
        plain, by_x = strips[..., 0], strips[..., 1]
        along = ey[m.count_y + 1 :, 0] * rows
        ends = np.array([columns @ across, [along.sum(), along @ m.fy_along]])
        value, fx, fy = (
            np.add.reduceat(part, self._rows, axis=1).ravel()
            for part in (plain, by_x, plain * m.fy)
        )
        values = 2 * np.concatenate([value, ends[:, 0]]).real
        slopes = np.zeros((len(values), 2))
        slopes[:-2, 0], slopes[:-2, 1] = fx.imag, fy.imag
        slopes[-2, 0], slopes[-1, 1] = ends[:, 1].imag
        return values, -2 * TAU * slopes

    def total(self, powers: Powers) -> Floats:
        """Return the sum of powers over each group and its mirror image, shape (n,)."""
        rest, columns, rows = powers
        return 2 * np.concatenate([self._cells(rest), [columns.sum(), rows.sum()]])

    def information(self, powers: Powers, noise: Floats | None = None) -> Floats:
        """Return ``sum(2 (2 pi f) (2 pi f)^T q)`` over each group, x first, shape (n, 2, 2).

        Parameters
        ----------
        powers
            The q of each mode.
        noise
            Of each part (rest, columns, rows) for shifts along x and y, shape (3, 2): by how
            much it scatters more than white noise in independent modes.
        """
        m = self._modes
        rest, columns, rows = powers
        by_x, by_y = np.ones((2, 3)) if noise is None else noise.T
        found = np.zeros((self.count, 2, 2))
        along = m.fy[:, None]
        found[:-2, 0, 0] = self._cells(rest * m.fx**2) * by_x[0]
        found[:-2, 1, 1] = self._cells(rest * along**2) * by_y[0]
        mixed = self._cells(rest * m.fx * along) * math.sqrt(by_x[0] * by_y[0])
        found[:-2, 0, 1] = found[:-2, 1, 0] = mixed
        found[-2, 0, 0] = float(columns @ m.fx**2) * by_x[1]
        found[-1, 1, 1] = float(rows @ m.fy_along**2) * by_y[2]
        return np.asarray(2 * TAU**2 * found)

    def _cells(self, values: NDArray[np.floating]) -> Floats:
        """Return sums over the squares, in the order of ``of``: column after column."""
        values = np.broadcast_to(values, (2 * self._modes.count_y + 1, self._modes.count_x))
        strips = np.add.reduceat(values, self._columns, axis=1, dtype=np.float64)
        return np.asarray(np.add.reduceat(strips, self._rows, axis=0).T.ravel())
