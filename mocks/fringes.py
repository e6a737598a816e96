"""Lattice fringes in parts of the field, as high-resolution images show crystals.

One scene for three specimens: grains that stay what they are, a layer that grows from a
surface inwards, and domains that the beam makes amorphous one after the other.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from mocks.scene import Scene, Truth
from mocks.scene_parameters import (
    DamagedParameters,
    FringesParameters,
    GrainsParameters,
    GrowingParameters,
)

if TYPE_CHECKING:
    from mocks.scenario import Scenario

EDGE_PX = 1.5  # how soft crystals end
AMORPHOUS_LEVEL = 0.6
RIM_PX = 20  # of the field, that windows of a tracker do not reach
GRAIN_SEED, DOMAIN_SEED = 9, 10


class FringesScene(Scene):
    """Fringes, where there is a crystal, on amorphous speckle.

    Parameters
    ----------
    scenario, seed
        See `Scene`.
    fringes
        What they are like, and where.
    """

    def __init__(self, scenario: "Scenario", fringes: FringesParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._fringes = fringes
        self._new_m = scenario.cell.front_start_m
        self._first_px: tuple[float, float] | None = None
        rng = np.random.default_rng([seed, GRAIN_SEED])
        height, width = self.shape
        many = 10 if isinstance(fringes, GrainsParameters) and fringes.carbonate else 3
        self.grains_px = _grains(rng, many, height, width, 46.0 if many == 3 else 24.0)
        self._turns = fringes.direction_rad + rng.uniform(-1.2, 1.2, many)
        points, self._life = _domains(self.shape, fringes, seed)
        y, x = np.indices(self.shape)
        if len(points):
            away = (y[None] - points[:, 0, None, None]) ** 2
            self._domain = np.argmin(away + (x[None] - points[:, 1, None, None]) ** 2, axis=0)

    def _alive(self) -> NDArray[np.float64]:
        p = self._fringes
        assert isinstance(p, DamagedParameters)  # noqa: S101 - narrows the type
        return np.asarray(self._life * p.damage_dose_e_m2 > self.dose_e_m2, dtype=np.float64)

    def _crystal(self, drift_px: tuple[float, float], soft_px: float = 0.0) -> NDArray[np.float64]:
        """Return what is crystalline of each pixel of a frame, shape (height, width)."""
        crystal = ndimage.gaussian_filter(self._alive()[self._domain], soft_px)
        moved = ndimage.shift(crystal, drift_px[::-1], order=1, mode="nearest")
        return np.asarray(moved, dtype=np.float64)

    def _waves(
        self, x: NDArray[np.float64], y: NDArray[np.float64], spacing_m: float, turn: float
    ) -> NDArray[np.float64]:
        turns_px = 2 * math.pi * self.camera.pixel_size_m / spacing_m
        phase = turns_px * (x * math.cos(turn) + y * math.sin(turn))
        return np.asarray(self._fringes.fringe_ratio * np.cos(phase))

    def layer_px(self, front_m: float) -> tuple[float, float]:
        """Return where the growing layer begins and ends."""
        p = self._fringes
        assert isinstance(p, GrowingParameters)  # noqa: S101 - narrows the type
        begin = 0.14 * self.shape[1]
        thick_m = p.layer_m + p.grows_ratio * (front_m - self._new_m)
        return begin, begin + thick_m / self.camera.pixel_size_m

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        dx, dy = drift_px
        self._first_px = self._first_px or drift_px
        p = self._fringes
        y, x = np.indices(self.shape, dtype=np.float64)
        x, y = x - dx, y - dy
        spacing_m = p.spacing_m * (1 + p.strained_per_m * (front_m - self._new_m))
        speckle = 1 + p.speckle_ratio * self.grains.moved(dx, dy)
        if isinstance(p, GrowingParameters):
            begin, end = self.layer_px(front_m)
            inside = special.ndtr((x - begin) / EDGE_PX)
            layer = inside * special.ndtr((end - x) / EDGE_PX)
            waves = layer * self._waves(x, y, spacing_m, p.direction_rad)
            waves += (inside - layer) * self._waves(x, y, p.host_spacing_m, 0.0)
            level = 0.9 + (AMORPHOUS_LEVEL - 0.9) * inside
            return np.asarray((level + AMORPHOUS_LEVEL * waves) * speckle)
        if isinstance(p, DamagedParameters):
            waves = self._crystal(drift_px, EDGE_PX) * self._waves(x, y, spacing_m, p.direction_rad)
        else:
            waves = np.zeros(self.shape)
            for (cx, cy, radius), turn in zip(self.grains_px, self._turns, strict=True):
                inside = special.ndtr((radius - np.hypot(x - cx, y - cy)) / EDGE_PX)
                waves += inside * self._waves(x, y, spacing_m, turn)
        return np.asarray(AMORPHOUS_LEVEL * speckle * (1 + waves))

    def truth(self, front_m: float) -> Truth:
        """Return what is crystalline: its area or share of the field (less a rim), its spacing.

        The field is that of the first frame: where the stage stood before, none can tell.
        """
        p, size_m = self._fringes, self.camera.pixel_size_m
        spacing_m = p.spacing_m * (1 + p.strained_per_m * (front_m - self._new_m))
        found = {"spacing": spacing_m}
        if isinstance(p, GrowingParameters):
            begin, end = self.layer_px(front_m)
            found |= {"thickness": (end - begin) * size_m, "orientation": p.direction_rad}
        elif isinstance(p, DamagedParameters):
            middle = self._crystal(self._first_px or (0.0, 0.0))[RIM_PX:-RIM_PX, RIM_PX:-RIM_PX]
            found["crystalline_fraction"] = float(np.mean(middle))
        else:
            area_px = math.pi * sum(radius**2 for _, _, radius in self.grains_px)
            found["area"] = area_px * size_m**2
        return {"lattice": found}


def _grains(
    rng: np.random.Generator, many: int, height: int, width: int, largest_px: float
) -> list[tuple[float, float, float]]:
    """Return x, y and radius of grains that lie in the field and do not touch."""
    found: list[tuple[float, float, float]] = []
    for _ in range(4000):
        radius = largest_px * rng.uniform(0.75, 1.0)
        rim = radius + 20
        if 2 * rim >= min(height, width):
            break
        x, y = rng.uniform(rim, width - rim), rng.uniform(rim, height - rim)
        if all(math.hypot(x - u, y - v) > radius + r + 4 for u, v, r in found):
            found.append((float(x), float(y), float(radius)))
        if len(found) == many:
            break
    return found + [(-1e3, -1e3, 0.0)] * (many - len(found))


def _domains(
    shape: tuple[int, int], fringes: FringesParameters, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the middles of domains, (y, x), and the doses that they bear, of the mean."""
    if not isinstance(fringes, DamagedParameters):
        return np.zeros((0, 2)), np.zeros(0)
    rng = np.random.default_rng([seed, DOMAIN_SEED])
    pitch = fringes.domain_px
    y, x = np.meshgrid(
        *(np.arange(-0.5 * pitch, side + pitch, pitch) for side in shape), indexing="ij"
    )
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    points = points + rng.uniform(-0.25 * pitch, 0.25 * pitch, points.shape)
    return points, rng.exponential(size=len(points))
