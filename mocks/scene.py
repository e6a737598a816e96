"""What a counting camera sees: the seam between a simulated world and its images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mocks.scenario import Scenario

GRAIN_PX = 2.5

Truth = Mapping[str, Mapping[str, float]]
"""What was in a frame: quantities by name, by the name of a track."""


class Scene(ABC):
    """One specimen in the field of one counting camera.

    A scene of its own says how much of the beam each pixel lets through; the dose, the
    camera's fixed pattern and its counting are the same for all.

    Parameters
    ----------
    scenario
        All numbers.
    seed
        Of the fixed pattern and of the counting.

    Attributes
    ----------
    dose_e_m2
        What the beam has done to the specimen before a frame; its camera keeps count.
    """

    def __init__(self, scenario: "Scenario", seed: int) -> None:
        self.camera = camera = scenario.camera
        self.dose_e_m2 = 0.0
        self._seed = seed
        self.shape = (camera.height, camera.width)
        rng = np.random.default_rng([seed, 4])
        self._gain = 1 + camera.fixed_pattern_ratio * rng.standard_normal(self.shape)
        self.grains = Grains(rng.standard_normal(self.shape))

    @property
    def dose_e_px(self) -> float:
        """Electrons on a pixel in one exposure, before the specimen."""
        camera = self.camera
        return (
            camera.dose_rate_e_m2_s
            * camera.pixel_size_m**2
            * camera.exposure_ratio
            / camera.frame_rate_Hz
        )

    @abstractmethod
    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width).

        The array is the caller's own.

        Parameters
        ----------
        front_m
            How far the cell has come: the depth of its front, which is its ionic charge
            by the charge of a metre.
        drift_px
            Where the specimen stands in the field, (x, y).
        """

    @abstractmethod
    def truth(self, front_m: float) -> Truth:
        """Return what a perfect tracker would find, in SI units, without drift."""

    def expected(
        self,
        front_m: float,
        drift_px: tuple[float, float],
        beam: float | NDArray[np.float64] = 1.0,
    ) -> NDArray[np.float64]:
        """Return the expected counts of a frame, float64, shape (height, width).

        Parameters
        ----------
        beam
            Share of beam that was on over the exposure: one number, or one of each row.
        """
        lit = np.reshape(np.asarray(beam, np.float64), (-1, 1))
        counts = self.transmission(front_m, drift_px)
        counts *= self.dose_e_px * lit
        counts *= self._gain
        return counts

    def frame(
        self,
        index: int,
        front_m: float,
        drift_px: tuple[float, float],
        beam: float | NDArray[np.float64] = 1.0,
    ) -> NDArray[np.uint8]:
        """Return the counts of frame ``index``: the same for the same seed, always."""
        rng = np.random.default_rng([self._seed, 5, index])
        counts = rng.poisson(self.expected(front_m, drift_px, beam))
        return np.minimum(counts, 255).astype(np.uint8)


class Grains:
    """A periodic band-limited pattern of unit spread, moved by any part of a pixel.

    Parameters
    ----------
    noise
        White, shape (height, width).
    """

    def __init__(self, noise: NDArray[np.float64], size_px: float = GRAIN_PX) -> None:
        self._shape = (noise.shape[0], noise.shape[1])
        self._frequency_y = np.fft.fftfreq(noise.shape[0])[:, None]
        self._frequency_x = np.fft.rfftfreq(noise.shape[1])[None, :]
        blurred = np.fft.rfft2(noise)
        blurred *= _passed(self._frequency_y, size_px) * _passed(self._frequency_x, size_px)
        self._spectrum = blurred / np.fft.irfft2(blurred, s=self._shape).std()

    def moved(self, dx: float, dy: float) -> NDArray[np.float64]:
        """Return the pattern where the specimen stands, shape (height, width)."""
        # A plane of phases is the product of two lines of them, which are quick to make.
        turned = self._spectrum * np.exp(-2j * np.pi * dy * self._frequency_y)
        turned *= np.exp(-2j * np.pi * dx * self._frequency_x)
        return np.asarray(np.fft.irfft2(turned, s=self._shape))


def _passed(frequency: NDArray[np.floating], sigma_px: float) -> NDArray[np.float64]:
    """Return what a Gaussian blur, cut off at four sigma, lets through of each frequency."""
    away = np.arange(1, int(4 * sigma_px + 0.5) + 1)
    weights = np.exp(-0.5 * (away / sigma_px) ** 2)
    waves = np.cos(2 * np.pi * frequency[..., None] * away)
    return np.asarray((1 + 2 * waves @ weights) / (1 + 2 * weights.sum()), dtype=np.float64)
