"""Sums of neighbouring pixels: the one pass over a frame that drift and front share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALL_UNSIGNED = 2  # bytes, whose sums fit into 32 bits
UINT16_MAX = 65535
ALL = slice(None)
Sums = NDArray[np.integer] | NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSums:
    """A frame, summed.

    Parameters
    ----------
    rows
        Sums over ``bin_px`` rows, shape (height // bin_px, width); rows that are left over
        at the bottom take no part.
    bin_px
        Rows in one.
    low, high
        Of the pixels.
    """

    rows: Sums
    bin_px: int
    low: float
    high: float

    def image(self, bin_px: int) -> NDArray[np.float32]:
        """Return the sums over squares of ``bin_px``, a multiple of the rows' own."""
        further = bin_px // self.bin_px
        rows = self.rows if further == 1 else _add_rows(self.rows, further, self.high * self.bin_px)
        width = rows.shape[1] // bin_px * bin_px
        total = rows[:, 0:width:bin_px].astype(np.float32)
        for k in range(1, bin_px):
            np.add(total, rows[:, k:width:bin_px], out=total, casting="same_kind")
        return total

    def line(self, columns: slice = ALL) -> NDArray[np.float64]:
        """Return the column sums over all rows."""
        part = self.rows[:, columns]
        return np.asarray(part.sum(axis=0, dtype=_wide(part.dtype)), dtype=np.float64)

    def lines(self, count: int, columns: slice = ALL) -> NDArray[np.float64]:
        """Return the column sums of ``count`` stretches of equal height, top to bottom."""
        each = max(self.rows.shape[0] // count, 1)
        part = self.rows[: each * count, columns]
        stretches = part.reshape(-1, each, part.shape[1])
        return np.asarray(stretches.sum(axis=1, dtype=_wide(part.dtype)), dtype=np.float64)


def frame_sums(pixels: NDArray[np.generic], bin_px: int) -> FrameSums:
    """Sum a frame over rows.

    Parameters
    ----------
    pixels
        Counts or grey levels, shape (height, width).
    bin_px
        How many rows make one.
    """
    low, high = float(pixels.min()), float(pixels.max())
    return FrameSums(rows=_add_rows(pixels, bin_px, high), bin_px=bin_px, low=low, high=high)


def _add_rows(
    pixels: NDArray[np.generic], bin_px: int, high: float
) -> NDArray[np.integer] | NDArray[np.floating]:
    """Add neighbouring rows, in the smallest type that holds the sums."""
    wide: type[np.number] = np.float64
    if pixels.dtype.kind in "bu" and pixels.dtype.itemsize <= SMALL_UNSIGNED:
        wide = np.uint16 if high * bin_px <= UINT16_MAX else np.uint32
    height = pixels.shape[0] // bin_px * bin_px
    parts = pixels[:height].reshape(-1, bin_px, pixels.shape[1])
    if bin_px == 1:
        return parts[:, 0].astype(wide)
    total = np.add(parts[:, 0], parts[:, 1], dtype=wide)
    for k in range(2, bin_px):
        np.add(total, parts[:, k], out=total)
    return np.asarray(total)


def _wide(dtype: np.dtype[np.generic]) -> type[np.generic]:
    """Return a type that holds sums over a whole column."""
    return np.uint64 if dtype.kind in "bu" else np.float64
