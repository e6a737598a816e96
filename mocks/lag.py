"""An ammeter that follows the current as its range lets it."""

import math

from mocks.world import World

LAG_STEP_NS = 5_000_000
FORGOTTEN = 30.0  # time constants after which nothing of the past is seen


class LaggedCurrent:
    """What the ammeter sees of the current: a first-order lag, by the range.

    Parameters
    ----------
    world
        Whose current it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._at_ns = world.now_ns
        self._seen_A = 0.0

    def restart(self, seen_A: float = 0.0) -> None:
        """Begin anew, with a current that is seen now."""
        self._at_ns, self._seen_A = self._world.now_ns, seen_A

    def mean_A(self, from_ns: int, to_ns: int, tau_s: float) -> float:
        """Move on to the end of a window; return the mean over it."""
        self._follow(from_ns, tau_s)
        return self._follow(max(to_ns, self._at_ns), tau_s)

    def _follow(self, until_ns: int, tau_s: float) -> float:
        self._at_ns = max(self._at_ns, until_ns - round(FORGOTTEN * tau_s * 1e9))
        total, start_ns = 0.0, self._at_ns
        while self._at_ns < until_ns:
            next_ns = min(self._at_ns + LAG_STEP_NS, until_ns)
            dt_s = (next_ns - self._at_ns) / 1e9
            true_A = self._world.mean("current", self._at_ns, next_ns)
            left = math.exp(-dt_s / tau_s)
            behind_A = self._seen_A - true_A
            total += true_A * dt_s + behind_A * tau_s * (1 - left)
            self._seen_A = true_A + behind_A * left
            self._at_ns = next_ns
        passed_s = (until_ns - start_ns) / 1e9
        return total / passed_s if passed_s > 0 else self._seen_A
