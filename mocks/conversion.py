"""A film of FeF2 that turns into fine grains, by a front or everywhere at once."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mocks.scene import Grains, Scene, Truth
from mocks.scene_parameters import ConversionParameters

if TYPE_CHECKING:
    from mocks.scenario import Scenario


class ConversionScene(Scene):
    """A film that fills the field.

    The variance of the texture grows with the converted fraction, as of grains that are
    independent of each other. A new film is pristine, and the front comes in at the left of
    the area that is in the first frame, wherever the stage stands by then: that area is what
    the fraction is of.
    """

    def __init__(self, scenario: "Scenario", parameters: ConversionParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._parameters = parameters
        self._new_m = scenario.cell.front_start_m
        self._room_m = scenario.cell.film_thickness_m - self._new_m
        self._first_px: float | None = None  # where the specimen stood in the first frame
        # A Gaussian of sigma s has an autocorrelation of sigma 2**0.5 s.
        size_px = parameters.grain_m / self.camera.pixel_size_m / (4 * np.log(2) ** 0.5)
        noise = np.random.default_rng([seed, 7]).standard_normal(self.shape)
        self._fine = Grains(noise, float(size_px))

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        p = self._parameters
        if self._first_px is None:
            self._first_px = drift_px[0]
        x = np.arange(self.shape[1], dtype=np.float64) - (drift_px[0] - self._first_px)
        done = self._converted(front_m, x)
        mean = p.pristine_transmission + done * (p.converted_transmission - p.pristine_transmission)
        texture = 1 + p.pristine_texture * self.grains.moved(*drift_px)
        texture = texture + p.grain_ratio * np.sqrt(done) * self._fine.moved(*drift_px)
        return np.asarray(mean * np.maximum(texture, 0.05))

    def truth(self, front_m: float) -> Truth:
        """Return the converted fraction of the area in the first frame, and the grain scale."""
        done = self._converted(front_m, np.arange(self.shape[1], dtype=np.float64))
        return {
            "conversion": {
                "converted_fraction": float(done.mean()),
                "grain_scale": self._parameters.grain_m,
            }
        }

    def _converted(self, front_m: float, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the local converted fraction in columns."""
        p, moved = self._parameters, (front_m - self._new_m) / self._room_m
        share = min(max(moved, 0.0), 1.0)
        if p.by_front < 0.5:
            return np.full(x.shape, share)
        width_px = p.front_width_m / self.camera.pixel_size_m
        # Beyond both ends by three widths: all of the field is pristine, and then converted.
        reach = self.shape[1] + 6 * width_px
        return np.asarray(special.ndtr((share * reach - 3 * width_px - x) / width_px))
