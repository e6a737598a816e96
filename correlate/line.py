"""A weighted straight line, with its uncertainties."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """``y = offset + slope * x``; the sigmas are scaled up when the scatter asks for it."""

    offset: float
    slope: float
    offset_sigma: float
    slope_sigma: float
    chi2: float


def weighted_line(
    x: NDArray[np.float64], y: NDArray[np.float64], sigma: NDArray[np.float64]
) -> Line:
    """Fit a line by weighted least squares.

    Raises
    ------
    ValueError
        Fewer than two points.
    """
    if len(x) < 2:
        raise ValueError(f"{len(x)} points make no line")
    weight = 1.0 / sigma**2
    total = weight.sum()
    middle = float(weight @ x) / total
    centred = x - middle
    spread = float(weight @ centred**2)
    level = float(weight @ y) / total
    slope = float(weight @ (centred * y)) / spread if spread > 0 else 0.0
    chi2 = 0.0
    if len(x) > 2:
        residual = (y - level - slope * centred) / sigma
        chi2 = float(residual @ residual) / (len(x) - 2)
    scale = max(chi2, 1.0)
    slope_variance = scale / spread if spread > 0 else np.inf
    offset_variance = scale / total + slope_variance * middle**2
    return Line(
        offset=level - slope * middle,
        slope=slope,
        offset_sigma=float(np.sqrt(offset_variance)),
        slope_sigma=float(np.sqrt(slope_variance)),
        chi2=chi2,
    )
