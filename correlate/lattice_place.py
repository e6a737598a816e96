"""Where the specimen stands in a frame that shows a lattice.

Fringes repeat: half of them are as well registered one spacing further. They vanish with the
crystal, and move where it is strained or grows. So the field stays in its place by what else
is seen; its fringes are asked only where nothing else can be registered.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from correlate.drift import DriftEstimator, Shift

WITHOUT_RATIO = 0.15  # of the spacing's frequency, to both sides, that is taken out
CRAMPED_SIGMA_RATIO = 1 / math.sqrt(3)  # of what is evenly spread to both sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the specimen stands in one frame.

    Parameters
    ----------
    shift
        Of the drift.
    x_px, y_px
        Of the specimen against the first frame.
    sigma_x_px, sigma_y_px
        Standard uncertainties of these.
    """

    shift: Shift
    x_px: float
    y_px: float
    sigma_x_px: float
    sigma_y_px: float


class PlaceFinder:
    """Finds the specimen frame by frame.

    Parameters
    ----------
    shape
        Of the frames.
    spacing_px
        Of the lattice.
    reach_px
        By how much a specimen that is not found may have moved.
    reference_frames
        See `DriftEstimator`.

    Raises
    ------
    ValueError
        The frames are too small.
    """

    def __init__(
        self, shape: tuple[int, int], spacing_px: float, reach_px: float, reference_frames: int
    ) -> None:
        self._reach_px = reach_px
        self._with = DriftEstimator(shape, reference_frames=reference_frames)
        self._without = DriftEstimator(shape, reference_frames=reference_frames)
        k = np.hypot(fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None, :])
        self._kept = np.abs(k * spacing_px - 1) > WITHOUT_RATIO
        self._last = 0.0, 0.0

    def update(self, pixels: NDArray[np.generic]) -> Place:
        """Find the specimen in one frame that can be used.

        Where nothing registers, it is said to stand where it stood before, as doubtfully
        as it can move.
        """
        image = np.asarray(pixels, dtype=np.float32)
        plain = np.where(self._kept, fft.rfft2(image), 0)
        told = self._without.update(fft.irfft2(plain, s=image.shape))
        if told.valid:
            self._last = -told.dx_px, -told.dy_px
        if not (told.valid and self._with.has_learned):
            # Half of the fringes are as well registered one spacing further.
            self._with.go_on_from((-self._last[0], -self._last[1]))
            fringed = self._with.update(pixels)
            told = told if told.valid else fringed
        doubt = CRAMPED_SIGMA_RATIO * self._reach_px
        if told.valid:
            self._last = -told.dx_px, -told.dy_px
        return Place(
            shift=told,
            x_px=self._last[0],
            y_px=self._last[1],
            sigma_x_px=told.sigma_x_px if told.valid else doubt,
            sigma_y_px=told.sigma_y_px if told.valid else doubt,
        )
