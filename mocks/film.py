"""A film of one solid solution: lithium diffuses through it, no front moves.

Fick's second law in a slab that is tight at its back, with D the same everywhere. Its
solution under a constant current is a sum of cosines across the film, each of which
decays at its own rate, so a step of any length is exact for the current of that step.
What the cosines beyond the last one would add is taken as settled: they do so within
``film**2 / (pi**2 D MODES**2)``, 25 ms for 500 nm and 1e-16 m2/s.

The current of a step is unknown until the node equation has been solved with the surface
at the end of that step, so the coupling is implicit as in `mocks.cell`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mocks.cell import Cell, CellParameters

MODES = 100
_ORDER = np.arange(1, MODES + 1, dtype=np.float64)
_SHARE = 2.0 / (math.pi * _ORDER) ** 2  # of a settled cosine in the surface
_REST = 1.0 / 3.0 - float(np.sum(_SHARE))  # of all cosines beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmParameters(CellParameters):
    """A film without a front.

    The share of lithium that has left the film stands where a front would: it starts at
    ``front_start_m / film_thickness_m``, and ``concentration_step_mol_m3`` is all that the
    film can hold.

    Parameters
    ----------
    diffusivity_m2_s
        Of lithium in the film.
    straight_V
        Rise of a straight open-circuit voltage over the whole film; 0 for that of LiCoO2.
    """

    diffusivity_m2_s: float
    straight_V: float = 0.0


# Slopes and places of the steps of the curve for LiCoO2 in Dualfoil, against x in LixCoO2.
_TANH = (
    (0.07645, 30.834, -54.4806),
    (2.1581, 52.294, -50.294),
    (-0.14169, 11.0923, -19.8543),
    (0.2051, 1.4684, -5.4888),
    (0.2531, 0.56478 / 0.1316, -1 / 0.1316),
    (-0.02167, -0.525 / 0.006, 1 / 0.006),
)
_STRETCH = 1.062


def solid_solution_V(removed: float) -> tuple[float, float]:
    """Return the voltage of LiCoO2 at a share of lithium removed, and its slope."""
    x = _STRETCH * (1.0 - removed)
    volts, slope = 2.16216, 0.0
    for height, place, steepness in _TANH:
        tanh = math.tanh(place + steepness * x)
        volts += height * tanh
        slope += height * steepness * (1.0 - tanh * tanh)
    return volts, -_STRETCH * slope


class FilmCell(Cell):
    """A cell whose voltage follows the surface of a film.

    Parameters
    ----------
    parameters
        Of film, electrolyte and holder.
    """

    def __init__(
        self,
        parameters: FilmParameters,
        *,
        mated: bool = True,
        now_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.film = parameters
        self._modes = np.zeros(MODES)  # of the removed share, at the surface
        self._free = self._per_A = 0.0
        self._kept: dict[float, NDArray[np.float64]] = {}
        super().__init__(parameters, mated=mated, now_s=now_s, seed=seed)

    @property
    def surface_removed(self) -> float:
        """Share of lithium removed from the surface; what is quicker than a step has settled."""
        p = self.film
        return float(
            self.front_m / p.film_thickness_m
            + np.sum(self._modes)
            + _REST * self._settled_per_A * self.ion_A
        )

    @property
    def equilibrium_V(self) -> float:
        """Voltage without a current, as the surface stands."""
        return self._open_circuit(self.front_m / self.film.film_thickness_m + self._modes.sum())[0]

    @property
    def _settled_per_A(self) -> float:
        """Three times what a settled gradient adds to the surface, per ampere."""
        p = self.film
        return p.film_thickness_m / (p.diffusivity_m2_s * p.charge_per_m_C)

    def _open_circuit(self, removed: float) -> tuple[float, float]:
        p = self.film
        if p.straight_V == 0.0:
            return solid_solution_V(removed)
        begin = p.front_start_m / p.film_thickness_m
        return solid_solution_V(begin)[0] + p.straight_V * (removed - begin), p.straight_V

    def _decay(self, dt_s: float) -> NDArray[np.float64]:
        known = self._kept.get(dt_s)
        if known is None:
            p = self.film
            rate_Hz = p.diffusivity_m2_s * (math.pi * _ORDER / p.film_thickness_m) ** 2
            known = np.exp(-rate_Hz * dt_s)
            if len(self._kept) < 8:  # the world's own step is among them
                self._kept[dt_s] = known
        return known

    def _look_ahead(self, dt_s: float) -> None:
        p, decay = self.film, self._decay(dt_s)
        gradient = self._settled_per_A * (_REST + float(np.dot(_SHARE, 1.0 - decay)))
        self._per_A = gradient + dt_s / (p.charge_per_m_C * p.film_thickness_m)
        self._free = self.front_m / p.film_thickness_m + float(np.dot(self._modes, decay))

    def _move(self, dt_s: float, ion_A: float) -> None:
        decay = self._decay(dt_s)
        self._modes = self._modes * decay + self._settled_per_A * ion_A * _SHARE * (1.0 - decay)
        super()._move(dt_s, ion_A)

    def _polarised_V(self, rest_V: float, ion_A: float) -> float:
        """Return the voltage at the end of the step that was looked ahead to."""
        surface_V, _ = self._open_circuit(self._free + self._per_A * ion_A)
        return super()._polarised_V(surface_V, ion_A)

    def _slope_ohm(self, ion_A: float) -> float:
        _, slope_V = self._open_circuit(self._free + self._per_A * ion_A)
        return super()._slope_ohm(ion_A) + slope_V * self._per_A


def new_cell(
    parameters: CellParameters, *, mated: bool = True, now_s: float = 0.0, seed: int = 0
) -> Cell:
    """Return the cell that some parameters describe."""
    if isinstance(parameters, FilmParameters):
        return FilmCell(parameters, mated=mated, now_s=now_s, seed=seed)
    return Cell(parameters, mated=mated, now_s=now_s, seed=seed)


def film_tables(cell: Cell) -> dict[str, dict[str, NDArray[np.generic]]]:
    """Return the hidden numbers of a film without a front, as tables of the truth."""
    if not isinstance(cell, FilmCell):
        return {}
    p = cell.film
    return {
        "film": {
            "diffusivity": np.array([p.diffusivity_m2_s]),
            "thickness": np.array([p.film_thickness_m]),
        }
    }
