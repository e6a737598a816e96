"""How strongly one rate goes with another, with intervals that know of memory."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from correlate.memory import effective_number

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A straight relation at one lag.

    Parameters
    ----------
    slope, slope_low, slope_high
        Response per unit of the drive, and its interval of 95 %.
    r, r_low, r_high
        Correlation of the pairs, and its interval of 95 %.
    n, n_effective
        Pairs, and the number of independent ones that would fix the slope as well.
    """

    slope: float
    slope_low: float
    slope_high: float
    r: float
    r_low: float
    r_high: float
    n: int
    n_effective: float


def effect_size(response: Floats, drive: Floats, *, fitted: int = 2) -> Effect:
    """Return the effect of a drive on a response that is aligned with it.

    Parameters
    ----------
    response, drive
        Without their nuisances, shape (n,), NaN in gaps.
    fitted
        Parameters that have been fitted: level, slope and further regressors.

    Notes
    -----
    The variance of the slope is that of independent pairs, with Bartlett's effective
    number of residual and drive in place of n, and Student's t with as many degrees of
    freedom less those fitted. The interval of r is Fisher's z with the same number. Both
    are of this lag: that it was chosen for its r makes the effect look larger where it is
    about as large as chance.
    """
    both = np.isfinite(response) & np.isfinite(drive)
    x, y = response[both], drive[both]
    x, y = x - x.mean(), y - y.mean()
    power, product = float(y @ y), float(x @ y)
    if power == 0 or not float(x @ x):
        raise ValueError("a series that does not vary has no effect size")
    slope = product / power
    r = float(np.clip(product / math.sqrt(power * float(x @ x)), -1.0, 1.0))
    residual = np.where(both, response - slope * drive, np.nan)
    number = effective_number(residual, np.where(both, drive, np.nan))
    free = max(number - fitted, 1.0)
    noise = math.sqrt(max(float(x @ x) - slope * product, 0.0) / power / free)
    reach = float(special.stdtrit(free, (1 + LEVEL) / 2)) * noise
    turn = float(special.ndtri((1 + LEVEL) / 2)) / math.sqrt(max(number - fitted - 1, 1.0))
    z = math.atanh(float(np.clip(r, -1 + 1e-12, 1 - 1e-12)))
    return Effect(
        slope=slope,
        slope_low=slope - reach,
        slope_high=slope + reach,
        r=r,
        r_low=math.tanh(z - turn),
        r_high=math.tanh(z + turn),
        n=int(both.sum()),
        n_effective=number,
    )
