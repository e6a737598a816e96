"""Particles that convert one after the other, as a ratio image of two losses shows them."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mocks.scene import Scene, Truth
from mocks.scene_parameters import ParticlesParameters

if TYPE_CHECKING:
    from mocks.scenario import Scenario

EDGE_PX = 0.8  # how soft particles end


class ParticlesScene(Scene):
    """Ellipses whose brightness tells their state of charge.

    They convert in an order drawn by the seed, so that all of them together are as far as
    the cell is.

    Parameters
    ----------
    scenario, seed
        See `Scene`.
    mosaic
        The particles.

    Raises
    ------
    ValueError
        They do not fit into the field.
    """

    def __init__(self, scenario: "Scenario", mosaic: ParticlesParameters, seed: int) -> None:
        super().__init__(scenario, seed)
        self._mosaic = mosaic
        self._new_m = scenario.cell.front_start_m
        self._room_m = scenario.cell.film_thickness_m - self._new_m
        height, width = self.shape
        pitch_x, pitch_y = width / (mosaic.columns + 0.4), height / (mosaic.rows + 0.4)
        if min(pitch_x, pitch_y) < 2.2 * mosaic.radius_px:
            raise ValueError(
                f"{mosaic.columns} by {mosaic.rows} particles of {mosaic.radius_px:.0f} px do not "
                f"fit into a field of {width} x {height} px; take fewer or smaller ones"
            )
        rng = np.random.default_rng([seed, 8])
        n = mosaic.columns * mosaic.rows
        column, row = np.arange(n) % mosaic.columns, np.arange(n) // mosaic.columns
        slack = 0.5 * (min(pitch_x, pitch_y) - 2.2 * mosaic.radius_px)
        x = (column + 0.7) * pitch_x + slack * rng.uniform(-1, 1, n)
        y = (row + 0.7) * pitch_y + slack * rng.uniform(-1, 1, n)
        order = np.argsort(x)
        self.x_px, self.y_px = x[order], y[order]
        self._radii_px = mosaic.radius_px * rng.uniform(0.8, 1.0, (n, 2))
        self._turn = rng.uniform(0, math.pi, n)
        area = self._radii_px.prod(axis=1)
        self.weight = area / area.sum()
        turn = rng.permutation(n)
        begin = np.zeros(n)
        begin[turn] = np.cumsum(self.weight[turn]) - self.weight[turn]
        self._begin = begin
        # All together, by how far the order has come.
        self._come = np.linspace(0, 1 + mosaic.active_ratio, 2001)
        self._whole = np.array([self.weight @ self._state_at(y) for y in self._come])

    def _state_at(self, come: float) -> NDArray[np.float64]:
        return np.clip((come - self._begin) / self._mosaic.active_ratio, 0.0, 1.0)

    def states(self, front_m: float) -> NDArray[np.float64]:
        """Return the converted share of each particle, by their place from left to right."""
        share = (front_m - self._new_m) / self._room_m
        return self._state_at(float(np.interp(share, self._whole, self._come)))

    def transmission(self, front_m: float, drift_px: tuple[float, float]) -> NDArray[np.float64]:
        """Return the share of beam that each pixel lets through, shape (height, width)."""
        dx, dy = drift_px
        m = self._mosaic
        y, x = np.indices(self.shape, dtype=np.float64)
        level = np.full(self.shape, m.support_level)
        levels = m.pristine_level + (m.converted_level - m.pristine_level) * self.states(front_m)
        for number, particle in enumerate(levels):
            away_x, away_y = x - dx - self.x_px[number], y - dy - self.y_px[number]
            cosine, sine = math.cos(self._turn[number]), math.sin(self._turn[number])
            a, b = self._radii_px[number]
            r = np.hypot(
                (away_x * cosine + away_y * sine) / a, (away_y * cosine - away_x * sine) / b
            )
            inside = special.ndtr((1 - r) * math.sqrt(a * b) / EDGE_PX)
            level += (particle - m.support_level) * inside
        texture = 1 + m.particle_texture_ratio * self.grains.moved(dx, dy)
        return np.asarray(level * np.maximum(texture, 0.05))

    def truth(self, front_m: float) -> Truth:
        """Return the state of each particle, and of all of them."""
        states = self.states(front_m)
        mean = float(self.weight @ states)
        found = {
            "mean_state": mean,
            "active_fraction": float(np.mean((states > 0) & (states < 1))),
            "converted_fraction": float(np.mean(states == 1)),
            "spread": float(np.std(states)),
        }
        return {"state_map": found | {f"state_{k + 1}": float(s) for k, s in enumerate(states)}}
