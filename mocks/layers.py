"""The lamella as layers across the field: gold, film with its front, electrolyte."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mocks.scene import Scene, Truth

if TYPE_CHECKING:
    from mocks.scenario import Scenario

SIGMAS_THAT_COUNT = 8.5  # what is beyond rounds to 0 or 1
MARGIN_PX = 75  # of electrolyte on the right of the film, at 400 px width


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How one layer looks: its transmission, and how coarse its grains stand out."""

    transmission: float
    texture_ratio: float


GOLD = Layer(transmission=0.28, texture_ratio=0.20)
FILM = Layer(transmission=0.60, texture_ratio=0.008)
ELECTROLYTE = Layer(transmission=0.85, texture_ratio=0.015)


class LayersScene(Scene):
    """Gold, film and electrolyte, left to right, and a front in the film.

    Edges are error functions and are evaluated where the specimen stands, so a drift of
    a fraction of a pixel is exact. Grains are shifted in Fourier space.

    Raises
    ------
    ValueError
        The film does not fit into the field.
    """

    def __init__(self, scenario: "Scenario", seed: int) -> None:
        super().__init__(scenario, seed)
        camera = self.camera
        film_px = scenario.cell.film_thickness_m / camera.pixel_size_m
        self.interface_px = camera.width - MARGIN_PX * camera.width / 400
        self.collector_px = self.interface_px - film_px
        if self.collector_px < 20:
            raise ValueError(
                f"the film is {film_px:.0f} px thick and does not fit into a field of "
                f"{camera.width} px; take larger pixels or a wider field"
            )

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        camera = self.camera
        dx, dy = drift_px
        x = np.arange(camera.width) - dx
        width_px = np.hypot(camera.edge_width_m / camera.pixel_size_m, np.sqrt(1 / 12))

        def right_of(edge_px: float) -> NDArray[np.float64]:
            return _risen((x - edge_px) / width_px)

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
        through = self.grains.moved(dx, dy)
        through *= coarse
        through += 1
        np.maximum(through, 0.05, out=through)
        through *= profile
        return through

    def truth(self, front_m: float) -> Truth:
        """Return the depth of the front from the electrolyte."""
        return {"front": {"position": front_m}}


def _risen(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normal distribution's share below each place, where few are near its middle.

    Without `scipy.special`, whose import takes as long as many frames.
    """
    share = (z > 0).astype(np.float64)
    near = np.abs(z) < SIGMAS_THAT_COUNT
    share[near] = [0.5 * (1 + math.erf(place)) for place in (z[near] / math.sqrt(2)).tolist()]
    return share
