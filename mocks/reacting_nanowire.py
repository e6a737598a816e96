"""A SnO2 nanowire with a reaction front: behind it the wire is wider, longer and darker."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mocks.nanowire import WireScene, WireShape
from mocks.scene import Truth
from mocks.scene_parameters import ReactingNanowireParameters

if TYPE_CHECKING:
    from mocks.scenario import Scenario


class ReactingNanowireScene(WireScene):
    """A wire that is eaten by a front, and grows behind it."""

    def __init__(
        self, scenario: "Scenario", parameters: ReactingNanowireParameters, seed: int
    ) -> None:
        super().__init__(scenario, seed)
        self._parameters = parameters
        self._whole_m = scenario.cell.film_thickness_m

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        p, shape = self._parameters, self._shape(front_m)
        x, y = self.field(drift_px)
        reacted = special.ndtr((shape.front_px - x) / shape.taper_px)
        wire = p.wire_transmission + (p.reacted_transmission - p.wire_transmission) * reacted
        return self.seen(self.covered(shape.outside(x, y)), wire, drift_px)

    def truth(self, front_m: float) -> Truth:
        """Return the size of the wire, and how far the front is from its electrode."""
        shape = self._shape(front_m)
        position_m = (shape.front_px - shape.left_px) * self.camera.pixel_size_m
        size = shape.truth(self.camera.pixel_size_m)
        return {"swelling": {**size, "cracks": 0.0, "gap": 0.0}, "front": {"position": position_m}}

    def _shape(self, front_m: float) -> WireShape:
        p, size_m = self._parameters, self.camera.pixel_size_m
        share = min(max(front_m / self._whole_m, 0.0), 1.0)
        left_px = -0.5 * p.length_m * (1 + p.length_growth) / size_m
        reacted_px = share * p.length_m * (1 + p.length_growth) / size_m
        rest_px = (1 - share) * p.length_m / size_m
        return WireShape(
            left_px=left_px,
            right_px=left_px + reacted_px + rest_px,
            radius_px=p.diameter_m / size_m / 2,
            reacted_px=p.diameter_m * (1 + p.diameter_growth) / size_m / 2,
            front_px=left_px + reacted_px,
            taper_px=p.front_width_m / size_m,
        )
