"""A voltage against the root of time: slope, intercept, and how far it is from a line."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from correlate.scatter import excess


@dataclass(frozen=True, slots=True, kw_only=True)
class RootLine:
    """``V = base + slope root``.

    Parameters
    ----------
    change, change_sigma
        Of the slope, from 0 to the end of the pulse, over the slope.
    """

    slope: float
    slope_sigma: float
    base_V: float
    base_sigma_V: float
    change: float
    change_sigma: float


def root_line(
    root: NDArray[np.float64],
    volts: NDArray[np.float64],
    sigma_V: NDArray[np.float64],
    doubt_V: NDArray[np.float64],
    *,
    end: float,
) -> RootLine:
    """Regress a voltage on the root of time.

    Parameters
    ----------
    root, volts, sigma_V
        Shape (n,).
    doubt_V
        What may be added to all readings, once, as likely as a sigma of it, shape (n,).
    end
        Root of time at the end of the pulse.
    """
    ones = np.ones(len(root))
    line, covariance = _fit([ones, root], volts, sigma_V, doubt_V)
    bent, bent_covariance = _fit([ones, root, root**2], volts, sigma_V, doubt_V)
    slope = float(line[1])
    return RootLine(
        slope=slope,
        slope_sigma=math.sqrt(covariance[1, 1]),
        base_V=float(line[0]),
        base_sigma_V=math.sqrt(covariance[0, 0]),
        change=2.0 * end * float(bent[2]) / slope,
        change_sigma=abs(2.0 * end * math.sqrt(bent_covariance[2, 2]) / slope),
    )


def _fit(
    shapes: list[NDArray[np.float64]],
    volts: NDArray[np.float64],
    sigma_V: NDArray[np.float64],
    doubt_V: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return parameters and covariance, by the scatter where that is more than the noise."""
    design = np.stack([*shapes, doubt_V], axis=1) / sigma_V[:, None]
    prior = np.zeros((1, design.shape[1]))
    prior[0, -1] = 1.0
    rows, wanted = np.vstack([design, prior]), np.append(volts / sigma_V, 0.0)
    found, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    residual = (wanted - rows @ found)[: len(volts)]
    _, factor = excess(residual, len(volts) - len(shapes))
    known = np.vstack([design / factor, prior])
    return np.asarray(found), np.asarray(np.linalg.pinv(known.T @ known))
