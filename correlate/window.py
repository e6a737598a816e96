"""Smooth windows that move with the specimen, so that they add no drift of their own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAPER_RATIO = 1 / 32  # of a side, over which the window rises


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Columns in which something really moves; they take no part in registration.

    Parameters
    ----------
    left_px, right_px
        Edges in reference coordinates.
    """

    left_px: float
    right_px: float


def ramp(x: NDArray[np.floating], start: float, width: float) -> NDArray[np.float64]:
    """Rise smoothly from 0 at ``start`` to 1 at ``start + width``."""
    share = np.clip((x - start) / width, 0.0, 1.0)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * share))


def taper(size: int, shift_px: float, margin_px: float, bin_px: int = 1) -> NDArray[np.float64]:
    """Return a window over a side, moved by ``shift_px`` with the specimen.

    It is 0 within ``margin_px`` of both ends, so that it stays inside the frame for
    shifts up to the margin. One value stands for ``bin_px`` pixels.
    """
    x = (np.arange(size // bin_px) + 0.5) * bin_px
    width = max(size * TAPER_RATIO, 4.0)
    from_start, from_end = x - margin_px - shift_px, size - x - margin_px + shift_px
    # At most one end is near.
    return ramp(np.minimum(from_start, from_end), 0.0, width)


def without_band(
    size: int, band: Band | None, shift_px: float, soft_px: float, bin_px: int = 1
) -> NDArray[np.float64]:
    """Return 1 outside a band and 0 inside it, with soft edges, moved with the specimen."""
    if band is None:
        return np.ones(size // bin_px)
    x = np.arange(size // bin_px) * float(bin_px) + (bin_px - 1) / 2 - shift_px
    inside = ramp(x, band.left_px, soft_px) * ramp(-x, -band.right_px, soft_px)
    return 1.0 - inside
