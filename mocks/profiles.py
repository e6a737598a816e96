"""An interface across the field, as a map of a concentration or of a potential shows it."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mocks.scene import Scene, Truth
from mocks.scene_parameters import ProfilesParameters

if TYPE_CHECKING:
    from mocks.scenario import Scenario


class ProfilesScene(Scene):
    """Two levels and an error function between them.

    Parameters
    ----------
    scenario, seed
        See `Scene`.
    profile
        The interface.
    """

    def __init__(self, scenario: "Scenario", profile: ProfilesParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._profile = profile
        self._new_m = scenario.cell.front_start_m

    def interface(self, front_m: float) -> tuple[float, float, float]:
        """Return position and width of the interface in m, and the right level."""
        p, moved_m = self._profile, front_m - self._new_m
        place_m = p.place_ratio * self.camera.width * self.camera.pixel_size_m
        square_m2 = p.interface_width_m**2 + p.broadens_m * moved_m
        return (
            place_m + p.moves_ratio * moved_m,
            math.sqrt(max(square_m2, self.camera.pixel_size_m**2 / 100)),
            max(p.right_level - p.drops_per_m * moved_m, 0.0),
        )

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        dx, dy = drift_px
        size_m = self.camera.pixel_size_m
        place_m, width_m, right = self.interface(front_m)
        left = self._profile.left_level
        wide_px = math.hypot(width_m / size_m, math.sqrt(1 / 12))
        x = np.arange(self.camera.width) - dx
        z = (x - place_m / size_m) / wide_px
        level = left + (right - left) * special.ndtr(z)
        edge_px = self.camera.width / 8
        contact = special.expit((edge_px - x) / 2) + special.expit(
            (x - self.camera.width + edge_px) / 2
        )
        coarse = self._profile.map_texture_ratio + self._profile.contact_texture_ratio * contact
        texture = 1 + coarse * self.grains.moved(dx, dy)
        return np.asarray(level * np.maximum(texture, 0.05))

    def truth(self, front_m: float) -> Truth:
        """Return place and shape of the interface; levels in counts of a pixel."""
        place_m, width_m, right = self.interface(front_m)
        drop = (self._profile.left_level - right) * self.dose_e_px
        return {
            "profile": {
                "position": place_m,
                "width": width_m,
                "drop": drop,
                "gradient": -drop / (math.sqrt(2 * math.pi) * width_m),
            }
        }
