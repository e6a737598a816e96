"""Series whose coupling is known."""

import numpy as np
from scipy import signal


def ar1(rng, n, memory):
    """Return a stationary autoregression of one term, spread 1."""
    start = memory * rng.standard_normal(1)
    push = np.sqrt(1 - memory**2) * rng.standard_normal(n)
    return signal.lfilter([1.0], [1.0, -memory], push, zi=start)[0]


def protocol(n):
    """Return rest, charge, rest, discharge, rest."""
    ends = np.round(np.cumsum([20, 120, 30, 80, 20]) / 270 * n).astype(int)
    return np.repeat([0.0, 1.0, 0.0, -1.0, 0.0], np.diff(ends, prepend=0))
