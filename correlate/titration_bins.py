"""Readings of pulses and rests in groups: close after a change, wider later."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS = 160
COARSE = 160  # times that tell what lies further back
LEAST_SIGMA_V = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Readings of a titration, shape (n,), in order of time.

    Parameters
    ----------
    charge_C
        That has crossed the cell.
    """

    t_s: NDArray[np.float64]
    volts: NDArray[np.float64]
    sigma_V: NDArray[np.float64]
    charge_C: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Means of groups of readings, shape (m,)."""

    t_s: NDArray[np.float64]
    volts: NDArray[np.float64]
    sigma_V: NDArray[np.float64]
    charge_C: NDArray[np.float64]


def binned(readings: Readings, from_s: float, to_s: float) -> Bins:
    """Group the readings of a stretch; the groups widen with the time since its beginning."""
    inside = (readings.t_s > from_s) & (readings.t_s <= to_s)
    after_s = readings.t_s[inside] - from_s
    if len(after_s) == 0:
        none = np.zeros(0)
        return Bins(t_s=none, volts=none, sigma_V=none, charge_C=none)
    edges_s = np.geomspace(max(after_s[0], 1e-4 * after_s[-1]), after_s[-1], GROUPS + 1)
    _, first = np.unique(np.searchsorted(edges_s, after_s), return_index=True)
    size = np.diff(np.append(first, len(after_s)))

    def mean(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(value[inside], first) / size)

    sigma_V = np.sqrt(mean(np.maximum(readings.sigma_V, LEAST_SIGMA_V) ** 2) / size)
    return Bins(
        t_s=mean(readings.t_s),
        volts=mean(readings.volts),
        sigma_V=sigma_V,
        charge_C=mean(readings.charge_C),
    )


def history(
    readings: Readings, switched_s: Sequence[float], parts: Sequence[Bins]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times and charges from the first reading on.

    What lies before ``parts`` is told the more coarsely the longer ago it was: diffusion
    has smoothed it as much.

    Parameters
    ----------
    switched_s
        When the current changed during ``parts``.
    parts
        Groups of which every one is kept.
    """
    own = np.concatenate([part.t_s for part in parts])
    charge_C = np.concatenate([part.charge_C for part in parts])
    first_s = float(readings.t_s[0])
    ago_s = np.geomspace(1e-4, 1.0, COARSE) * (own[0] - first_s)
    extra = np.concatenate([own[0] - ago_s, np.asarray(switched_s)])
    t_s = np.concatenate([extra, own])
    total_C = np.concatenate([np.interp(extra, readings.t_s, readings.charge_C), charge_C])
    _, order = np.unique(t_s, return_index=True)
    return t_s[order], total_C[order]
