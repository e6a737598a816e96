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
        # Sums over each strip, plain and by frequency: products of matrices take them at once.
        self._across = _strips(self._columns, m.fx).T.copy()
        self._along = _strips(self._rows, m.fy)
        self._by_fx = np.stack([np.ones_like(m.fx), m.fx])
        self._by_fy = np.stack([np.ones_like(m.fy_along), m.fy_along], axis=1)

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
        ey = np.exp(1j * TAU * dy_px * m.fy).astype(np.complex64)
        cells = (self._along * ey) @ (rest @ (self._across * ex[:, None]))
        in_columns = self._by_fx @ (ex * columns)
        in_rows = (ey[m.count_y + 1 :] * rows) @ self._by_fy
        values, slopes = np.empty(self.count), np.zeros((self.count, 2))
        values[:-2] = cells[:ROWS, :COLUMNS].real.ravel()
        values[-2:] = in_columns[0].real, in_rows[0].real
        slopes[:-2, 0] = cells[:ROWS, COLUMNS:].imag.ravel()
        slopes[:-2, 1] = cells[ROWS:, :COLUMNS].imag.ravel()
        slopes[-2, 0], slopes[-1, 1] = in_columns[1].imag, in_rows[1].imag
        return 2 * values, -2 * TAU * slopes

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
        """Return sums over the squares, row after row."""
        values = np.broadcast_to(values, (2 * self._modes.count_y + 1, self._modes.count_x))
        strips = np.add.reduceat(values, self._columns, axis=1, dtype=np.float64)
        return np.asarray(np.add.reduceat(strips, self._rows, axis=0).ravel())


def _strips(starts: NDArray[np.intp], frequency: Floats) -> NDArray[np.float32]:
    """Return which modes are in which strip, and the same times their frequency."""
    strip = np.searchsorted(starts, np.arange(len(frequency)), side="right") - 1
    inside = strip == np.arange(len(starts))[:, None]
    return np.concatenate([inside, inside * frequency]).astype(np.float32)
