"""The stage under the specimen: a slow random walk with a jump now and then."""

import math

import numpy as np

SECONDS = 200_000  # of walk, made at once; then it starts over
JUMP_RATE_HZ = 1 / 90.0
JUMP_RATIO = 12.0  # of a jump to the walk of a second


class Stage:
    """Where the specimen stands, as a function of time alone.

    Parameters
    ----------
    seed
        Of the walk.
    step_m_per_root_s
        Size of the walk: root mean square after a second.
    """

    def __init__(self, seed: int, step_m_per_root_s: float) -> None:
        rng = np.random.default_rng([seed, 1])
        steps_m = step_m_per_root_s * rng.standard_normal((2, SECONDS))
        jumps = rng.random(SECONDS) < JUMP_RATE_HZ
        steps_m += jumps * JUMP_RATIO * step_m_per_root_s * rng.standard_normal((2, SECONDS))
        self._walk_m = np.cumsum(steps_m, axis=1)

    def position_m(self, t_s: float) -> tuple[float, float]:
        """Return x and y at a time, in m."""
        whole = math.floor(t_s)
        share = t_s - whole
        here = self._walk_m[:, whole % SECONDS]
        there = self._walk_m[:, (whole + 1) % SECONDS]
        x_m, y_m = here + share * (there - here)
        return float(x_m), float(y_m)
