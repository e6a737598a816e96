"""Diffusion in a slab with a tight back: the surface under any current, and a fit to it.

Concentrations are told as charge: ``surface_charge`` is the charge that would have to be
in the film for its mean to be what the surface is. A voltage that follows the surface is
then a function of it: ``V = E0 + R I + s q + k q**2 / 2 + ...``, with the slope s and the bend
k of the open-circuit voltage, and a term of third order. Only ``L**2 / D`` is not linear in it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import erfc

from correlate.scatter import excess

SHORT = 0.3  # of L**2 / D, up to which a few reflections tell the response
REFLECTIONS = 2
COSINES = 6
DECADES = 1.5  # on each side of a first guess of L**2 / D that are searched
GRID = 13
PARAMETERS = 6
FLOOR = 5e-4  # of L**2 / D: what grouping the readings does to it


class CannotFit(ValueError):
    """The readings do not determine the model."""


def step_response(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the surface after a constant flux for ``x = D t / L**2``; 0 before it.

    Notes
    -----
    ``x + 1/3 - 2/pi**2 sum(exp(-k**2 pi**2 x) / k**2)``, for short times in the form of
    reflections at the back, which needs few terms there.
    """
    known = np.maximum(x, 0.0)
    early = np.minimum(known, SHORT)
    root = np.sqrt(early)
    found = 2.0 * root / math.sqrt(math.pi)
    safe = np.maximum(root, 1e-3)
    for n in range(1, REFLECTIONS + 1):
        z = n / safe
        found += 4.0 * root * (np.exp(-(z**2)) / math.sqrt(math.pi) - z * erfc(z))
    late = known > SHORT
    if np.any(late):
        order = np.arange(1, COSINES + 1)[:, None]
        part = known[late]
        decay = np.exp(-((order * math.pi) ** 2) * part) / order**2
        found[late] = part + 1.0 / 3.0 - 2.0 / math.pi**2 * decay.sum(axis=0)
    return found


def surface_charge(
    at_s: NDArray[np.float64],
    edges_s: NDArray[np.float64],
    charge_C: NDArray[np.float64],
    across_s: float,
) -> NDArray[np.float64]:
    """Return the charge that the surface stands for, shape (m,).

    Parameters
    ----------
    at_s
        When, shape (m,).
    edges_s, charge_C
        Charge that has flowed, and when, shape (n,); the current between two of them is
        taken as constant.
    across_s
        ``L**2 / D``.
    """
    current_A = np.diff(charge_C) / np.diff(edges_s)
    answered = step_response((at_s[:, None] - edges_s[None, :]) / across_s)
    return across_s * ((answered[:, :-1] - answered[:, 1:]) @ current_A)


def root_time(
    at_s: NDArray[np.float64], edges_s: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what stands for the root of time when a current is not quite constant, (m,).

    Parameters
    ----------
    share
        Current between the edges over that of the pulse, shape (n - 1,): all ones give
        the root of the time since the first edge.
    """
    root = np.sqrt(np.maximum(at_s[:, None] - edges_s[None, :], 0.0))
    return (root[:, :-1] - root[:, 1:]) @ share


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabFit:
    """A slab whose surface the voltage follows.

    Parameters
    ----------
    across_s, across_sigma_s
        ``L**2 / D``.
    ohm
        All that follows the current at once.
    slope_V_C, bend_V_C2
        Of the open-circuit voltage against charge.
    scatter
        Of the readings about the fit over what their noise explains; 1 when all is well.
    """

    across_s: float
    across_sigma_s: float
    ohm: float
    slope_V_C: float
    bend_V_C2: float
    scatter: float


def fit_slab(
    at_s: NDArray[np.float64],
    voltage_V: NDArray[np.float64],
    sigma_V: NDArray[np.float64],
    current_A: NDArray[np.float64],
    history: tuple[NDArray[np.float64], NDArray[np.float64]],
    doubts_V: NDArray[np.float64],
    *,
    guess_s: float,
) -> SlabFit:
    """Fit the model to readings of pulse and rests.

    Parameters
    ----------
    at_s, voltage_V, sigma_V, current_A
        Readings that have settled, shape (m,).
    history
        Times and charges from when the film was at rest on.
    doubts_V
        What may be added to all readings, each once and as likely as a sigma of it,
        shape (m, k).
    guess_s
        Of ``L**2 / D``.

    Raises
    ------
    CannotFit
        There are too few readings, or no ``L**2 / D`` near the guess fits best.
    """
    if len(at_s) < 2 * PARAMETERS or not guess_s > 0 or not np.all(np.isfinite(voltage_V)):
        raise CannotFit(f"{len(at_s)} readings do not determine a slab")
    model = _Model(at_s, voltage_V, sigma_V, current_A, history, doubts_V)
    grid = math.log(guess_s) + np.linspace(-DECADES, DECADES, GRID) * math.log(10.0)
    costs = [model.cost(float(g)) for g in grid]
    best = int(np.argmin(costs))
    if best in (0, GRID - 1):
        raise CannotFit("no diffusivity near the one from the slope fits best")
    bounds = (grid[best - 1], grid[best + 1])
    log_s = float(
        minimize_scalar(
            lambda g: model.cost(float(g)),
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-5},
        ).x
    )
    found = model.solve(log_s)
    scatter, factor = excess(model.residual(log_s)[: len(at_s)], len(at_s) - PARAMETERS)
    across_s = math.exp(log_s)
    return SlabFit(
        across_s=across_s,
        across_sigma_s=across_s * math.hypot(model.log_sigma(log_s, factor), FLOOR),
        ohm=float(found[1]) / model.scale_A,
        slope_V_C=float(found[2]) / model.scale_C,
        bend_V_C2=float(found[3]) / model.scale_C**2,
        scatter=scatter,
    )


class _Model:
    """All but ``L**2 / D`` is linear in it, and so is found at once for each."""

    def __init__(
        self,
        at_s: NDArray[np.float64],
        voltage_V: NDArray[np.float64],
        sigma_V: NDArray[np.float64],
        current_A: NDArray[np.float64],
        history: tuple[NDArray[np.float64], NDArray[np.float64]],
        doubts_V: NDArray[np.float64],
    ) -> None:
        self._at_s, self._sigma_V, self._doubts_V = at_s, sigma_V, doubts_V
        self._edges_s, self._charge_C = history
        self.scale_C = max(float(np.ptp(self._charge_C)), 1e-30)
        self.scale_A = max(float(np.max(np.abs(current_A))), 1e-30)
        self._current = current_A / self.scale_A
        doubts = doubts_V.shape[1]
        self._prior = np.hstack([np.zeros((doubts, PARAMETERS - 1)), np.eye(doubts)])
        self._wanted = np.append((voltage_V - voltage_V[0]) / sigma_V, np.zeros(doubts))

    def _design(self, log_s: float) -> NDArray[np.float64]:
        charge = surface_charge(self._at_s, self._edges_s, self._charge_C, math.exp(log_s))
        charge = (charge - charge[0]) / self.scale_C
        shapes = [np.ones(len(charge)), self._current, charge, charge**2 / 2, charge**3 / 6]
        columns = np.column_stack([*shapes, self._doubts_V])
        return np.asarray(columns / self._sigma_V[:, None])

    def solve(self, log_s: float) -> NDArray[np.float64]:
        rows = np.vstack([self._design(log_s), self._prior])
        return np.asarray(np.linalg.lstsq(rows, self._wanted, rcond=1e-13)[0])

    def residual(self, log_s: float) -> NDArray[np.float64]:
        """Return what the best fit leaves, over the noise, and then what the doubts took."""
        rows = np.vstack([self._design(log_s), self._prior])
        found = np.linalg.lstsq(rows, self._wanted, rcond=1e-13)[0]
        return np.asarray(self._wanted - rows @ found)

    def cost(self, log_s: float) -> float:
        return float(np.sum(self.residual(log_s) ** 2))

    def log_sigma(self, log_s: float, factor: float) -> float:
        """Return the standard uncertainty of ``log_s``."""
        found, step = self.solve(log_s), 1e-4
        moved = (self._design(log_s + step) - self._design(log_s - step)) @ found / (2 * step)
        known = np.column_stack([self._design(log_s), moved]) / factor
        prior = np.hstack([self._prior, np.zeros((len(self._prior), 1))])
        jacobian = np.vstack([known, prior])
        return math.sqrt(max(float(np.linalg.pinv(jacobian.T @ jacobian)[-1, -1]), 0.0))
