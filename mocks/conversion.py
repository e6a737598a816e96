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
    independent of each other.
    """

    def __init__(self, scenario: "Scenario", parameters: ConversionParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._parameters = parameters
        self._whole_m = scenario.cell.film_thickness_m
        # A Gaussian of sigma s has an autocorrelation of sigma 2**0.5 s.
        size_px = parameters.grain_m / self.camera.pixel_size_m / (4 * np.log(2) ** 0.5)
        noise = np.random.default_rng([seed, 7]).standard_normal(self.shape)
        self._fine = Grains(noise, float(size_px))

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        p = self._parameters
        x = np.arange(self.shape[1], dtype=np.float64) - drift_px[0]
        done = self._converted(front_m, x)
        mean = p.pristine_transmission + done * (p.converted_transmission - p.pristine_transmission)
        texture = 1 + p.pristine_texture * self.grains.moved(*drift_px)
        texture = texture + p.grain_ratio * np.sqrt(done) * self._fine.moved(*drift_px)
        return np.asarray(mean * np.maximum(texture, 0.05))

    def truth(self, front_m: float) -> Truth:
        """Return the converted fraction of the field, and the grain scale."""
        done = self._converted(front_m, np.arange(self.shape[1], dtype=np.float64))
        return {
            "conversion": {
                "converted_fraction": float(done.mean()),
                "grain_scale": self._parameters.grain_m,
            }
        }

    def _converted(self, front_m: float, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the local converted fraction in columns."""
        p, share = self._parameters, min(max(front_m / self._whole_m, 0.0), 1.0)
        if p.by_front < 0.5:
            return np.full(x.shape, share)
        width_px = p.front_width_m / self.camera.pixel_size_m
        # Beyond both ends by three widths: all of the field is pristine, and then converted.
        reach = self.shape[1] + 6 * width_px
        return np.asarray(special.ndtr((share * reach - 3 * width_px - x) / width_px))
