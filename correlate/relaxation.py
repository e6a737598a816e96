"""What a voltage at rest comes to: from how it still moves near the end of the rest."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from correlate.titration_bins import LEAST_SIGMA_V, Readings

WINDOW = 0.2  # of the rest: three of these at its end are compared
SEEN = 3.0  # sigmas of a change that is not noise
SLOWEST = 0.9  # ratio of two changes from which an end can still be told
DOUBT = 0.2  # of what is extrapolated: a relaxation is no single exponential


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A rest at its end.

    Parameters
    ----------
    t_s, charge_C
        Of the last readings.
    volts, sigma_V
        Relaxed, as extrapolated.
    volts_at_end
        As it was.
    remaining_V
        What was still to come.
    """

    t_s: float
    charge_C: float
    volts: float
    sigma_V: float
    volts_at_end: float
    remaining_V: float


class TooFewReadings(ValueError):
    """There is nothing to extrapolate."""


def relaxed(readings: Readings, from_s: float, to_s: float, slope_V_C: float) -> Rest:
    """Extrapolate a rest.

    Parameters
    ----------
    from_s, to_s
        Beginning and end of the rest.
    slope_V_C
        Of the open-circuit voltage, for what leaks through the cell while it rests.

    Notes
    -----
    Of three equal windows at the end the means change by ``a`` and then by ``b``. What
    decays evenly has ``b r / (1 - r)`` still to go, with ``r = b / a``.

    Raises
    ------
    TooFewReadings
        A window has none.
    """
    edges_s = to_s - WINDOW * (to_s - from_s) * np.arange(3.0, -1.0, -1.0)
    at = np.searchsorted(readings.t_s, edges_s, side="right")
    if np.any(np.diff(at) < 1):
        raise TooFewReadings("the end of a rest has too few readings")
    charge_C = float(readings.charge_C[at[3] - 1])
    means, variances = [], []
    for i, j in pairwise(at):
        volts = readings.volts[i:j] - slope_V_C * (readings.charge_C[i:j] - charge_C)
        sigma_V = np.maximum(readings.sigma_V[i:j], LEAST_SIGMA_V)
        means.append(float(np.mean(volts)))
        variances.append(float(np.sum(sigma_V**2)) / (j - i) ** 2)
    first, second = means[1] - means[0], means[2] - means[1]
    noise_V = math.sqrt(variances[0] + variances[1])
    remaining = remaining_sigma = 0.0
    if abs(first) > SEEN * noise_V:
        r = min(max(second / first, 0.0), SLOWEST)
        remaining = second * r / (1.0 - r)
        gain = math.hypot(r * (2.0 - r), r * r) / (1.0 - r) ** 2
        remaining_sigma = math.hypot(gain * noise_V, DOUBT * remaining)
    return Rest(
        t_s=float(readings.t_s[at[3] - 1]),
        charge_C=charge_C,
        volts=means[2] + remaining,
        sigma_V=math.hypot(math.sqrt(variances[2]), remaining_sigma),
        volts_at_end=means[2],
        remaining_V=remaining,
    )
