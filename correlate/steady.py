"""Brings frames of a scene that changes altogether onto its first frame."""

import math

import numpy as np
from numpy.typing import NDArray

from correlate.drift import DriftEstimator, Shift, why_unusable

REFERENCE_FRAMES = 16  # averaged, until the scene has changed
CHANGED = 0.7  # of the correlation with a perfect copy: below, a later frame is the reference


class SteadyEstimator:
    """Registers frames; where the scene has changed too much, onto a frame of later on.

    Shifts then add up, and their sigmas with them.

    Parameters
    ----------
    shape
        Height and width of the frames.
    still
        Take all frames for registered as they are.
    """

    def __init__(self, shape: tuple[int, int], *, still: bool = False) -> None:
        self._shape, self._still = shape, still
        self._estimator = DriftEstimator(shape, reference_frames=REFERENCE_FRAMES)
        self._offset = np.zeros(2)
        self._variance = np.zeros(2)
        self._last: tuple[NDArray[np.generic], Shift] | None = None

    def update(self, pixels: NDArray[np.generic]) -> Shift:
        """Register a frame onto the first.

        Parameters
        ----------
        pixels
            Counts or grey levels, shape (height, width).
        """
        if self._still:
            return _still(why_unusable(pixels))
        shift = self._estimator.update(pixels)
        if self._last is not None and not shift.valid and not why_unusable(pixels):
            self._restart(*self._last)
            shift = self._estimator.update(pixels)
        if not shift.valid:
            return shift
        total = Shift(
            dx_px=shift.dx_px + float(self._offset[0]),
            dy_px=shift.dy_px + float(self._offset[1]),
            sigma_x_px=math.hypot(shift.sigma_x_px, math.sqrt(self._variance[0])),
            sigma_y_px=math.hypot(shift.sigma_y_px, math.sqrt(self._variance[1])),
            quality=shift.quality,
            valid=True,
        )
        self._last = np.array(pixels), total
        if shift.quality < CHANGED:
            self._restart(*self._last)
        return total

    def _restart(self, pixels: NDArray[np.generic], shift: Shift) -> None:
        self._estimator = DriftEstimator(self._shape, reference_frames=REFERENCE_FRAMES)
        self._estimator.update(pixels)
        self._offset = np.array([shift.dx_px, shift.dy_px])
        self._variance = np.array([shift.sigma_x_px, shift.sigma_y_px]) ** 2


def _still(reason: str) -> Shift:
    at = math.nan if reason else 0.0
    return Shift(
        dx_px=at,
        dy_px=at,
        sigma_x_px=at,
        sigma_y_px=at,
        quality=math.nan,
        valid=not reason,
        reason=reason,
    )
