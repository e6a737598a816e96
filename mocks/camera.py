"""The image view of the truth: frames of the lamella as a counting camera sees them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special

from mocks.scenario import CameraSettings, Scenario

MARGIN_PX = 75  # of electrolyte on the right of the film, at 400 px width
GRAIN_PX = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How one layer looks: its transmission, and how coarse its grains stand out."""

    transmission: float
    texture_ratio: float


GOLD = Layer(transmission=0.28, texture_ratio=0.20)
FILM = Layer(transmission=0.60, texture_ratio=0.008)
ELECTROLYTE = Layer(transmission=0.85, texture_ratio=0.015)


class Scene:
    """The lamella in the field: gold, film with its front, electrolyte, left to right.

    Edges are error functions and are evaluated where the specimen stands, so a drift of
    a fraction of a pixel is exact. Grains are one periodic band-limited pattern that is
    shifted in Fourier space.

    Raises
    ------
    ValueError
        The film does not fit into the field.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._camera = scenario.camera
        self._seed = seed
        camera = self._camera
        film_px = scenario.cell.film_thickness_m / camera.pixel_size_m
        self.interface_px = camera.width - MARGIN_PX * camera.width / 400
        self.collector_px = self.interface_px - film_px
        if self.collector_px < 20:
            raise ValueError(
                f"the film is {film_px:.0f} px thick and does not fit into a field of "
                f"{camera.width} px; take larger pixels or a wider field"
            )
        rng = np.random.default_rng([seed, 4])
        shape = (camera.height, camera.width)
        self._gain = 1 + camera.fixed_pattern_ratio * rng.standard_normal(shape)
        grains = ndimage.gaussian_filter(rng.standard_normal(shape), GRAIN_PX, mode="wrap")
        self._grains = fft.rfft2(grains / grains.std())
        self._frequency_y = fft.fftfreq(camera.height)[:, None]
        self._frequency_x = fft.rfftfreq(camera.width)[None, :]

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
        camera = self._camera
        dx, dy = drift_px
        x = np.arange(camera.width) - dx
        width_px = np.hypot(camera.edge_width_m / camera.pixel_size_m, np.sqrt(1 / 12))

        def right_of(edge_px: float) -> NDArray[np.float64]:
            return np.asarray(0.5 * (1 + special.erf((x - edge_px) / width_px / 2**0.5)))

        in_film = right_of(self.collector_px)
        in_electrolyte = right_of(self.interface_px)
        converted = right_of(self.interface_px - front_m / camera.pixel_size_m)
        film = FILM.transmission * (1 + camera.front_contrast * converted)
        profile = (
            GOLD.transmission * (1 - in_film)
            + film * (in_film - in_electrolyte)
            + ELECTROLYTE.transmission * in_electrolyte
        )
        coarse = (
            GOLD.texture_ratio * (1 - in_film)
            + FILM.texture_ratio * (in_film - in_electrolyte)
            + ELECTROLYTE.texture_ratio * in_electrolyte
        )
        dose_e = (
            camera.dose_rate_e_m2_s
            * camera.pixel_size_m**2
            * camera.exposure_ratio
            / camera.frame_rate_Hz
        )
        texture = 1 + coarse * self._shifted_grains(dx, dy)
        lit = np.reshape(np.asarray(beam, np.float64), (-1, 1))
        return np.asarray(dose_e * profile * np.maximum(texture, 0.05) * self._gain * lit)

    def _shifted_grains(self, dx: float, dy: float) -> NDArray[np.float64]:
        turn = np.exp(-2j * np.pi * (self._frequency_y * dy + self._frequency_x * dx))
        shape = (self._camera.height, self._camera.width)
        return np.asarray(fft.irfft2(self._grains * turn, s=shape))

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


def camera_time_ns(camera: CameraSettings, start_ns: int, host_ns: int) -> int:
    """Return what the camera's clock shows at a host time."""
    elapsed = host_ns - start_ns
    return round(camera.clock_offset_s * 1e9) + elapsed + round(elapsed * camera.clock_rate_ratio)


def is_dropped(camera: CameraSettings, seed: int, index: int) -> bool:
    """Tell whether a frame is lost before it is sent; the very first is not."""
    chance = float(np.random.default_rng([seed, 6, index]).random())
    return index > 0 and chance < camera.dropped_ratio
