"""Frames turned so that the electrode out of which something grows is on their left."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from correlate.drift import Shift

Floats = NDArray[np.float64]


class View:
    """Frames turned so that the root is on their left."""

    def __init__(self, root: str, shape: tuple[int, int]) -> None:
        self._root = root
        self._upright = root in ("left", "right")
        self.shape = shape if self._upright else (shape[1], shape[0])

    def turned(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a frame with its root on the left."""
        seen = pixels if self._upright else pixels.T
        return seen[:, ::-1] if self._root in ("right", "bottom") else seen

    def back(self, x_px: Floats, y_px: Floats) -> tuple[Floats, Floats]:
        """Return places (x, y) in the frames as they came."""
        if self._root in ("right", "bottom"):
            x_px = self.shape[1] - 1 - x_px
        return (x_px, y_px) if self._upright else (y_px, x_px)

    def edge_back(self, name: str, x_px: float) -> dict[str, float]:
        """Return an edge of a name in the frames as they came; nothing where there is none."""
        if not math.isfinite(x_px):
            return {}
        x, y = self.back(np.array(x_px), np.array(math.nan))
        return {f"{name}_x_px": float(x)} if self._upright else {f"{name}_y_px": float(y)}

    def shift_back(self, shift: Shift) -> Shift:
        """Return a shift of the frames as they came."""
        dx = -shift.dx_px if self._root in ("right", "bottom") else shift.dx_px
        turned = replace(shift, dx_px=dx)
        if self._upright:
            return turned
        return replace(
            turned,
            dx_px=turned.dy_px,
            dy_px=turned.dx_px,
            sigma_x_px=turned.sigma_y_px,
            sigma_y_px=turned.sigma_x_px,
        )
