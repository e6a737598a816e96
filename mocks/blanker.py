"""The simulated beam blanker: it obeys late, never equally late, and its plates take time.

Commands come as edges by turns, the first of which takes the beam off. What really happened
is kept as the truth.
"""

import bisect

import numpy as np
from numpy.typing import NDArray


class Blanker:
    """When the beam is on.

    Parameters
    ----------
    seed
        Of its jitter.

    Attributes
    ----------
    commanded_ns, edges_ns
        When each edge was asked for, and when it was half done.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 8])
        self.commanded_ns: list[int] = []
        self.edges_ns: list[int] = []
        self._rise_ns: list[int] = []
        self._longest_ns = 0

    def play(
        self,
        edges_ns: NDArray[np.int64],
        *,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        rise_s: float = 0.0,
    ) -> None:
        """Switch the beam at some times, off first.

        Parameters
        ----------
        edges_ns
            Commands on the host clock, increasing, an even number: the beam ends on.
        latency_s, jitter_s
            How late it obeys: always, and at random (its standard deviation).
        rise_s
            How long it takes from one state to the other, in a straight line.

        Raises
        ------
        ValueError
            Edges that leave the beam off, are in no order, or come before the last one was done.
        """
        if len(edges_ns) % 2 or np.any(np.diff(edges_ns) <= 0):
            raise ValueError("edges must increase, and an even number of them leaves the beam on")
        late_s = latency_s + jitter_s * self._rng.standard_normal(len(edges_ns))
        real = [int(t) for t in edges_ns + np.round(late_s * 1e9).astype(np.int64)]
        rise_ns = round(rise_s * 1e9)
        before = [self.edges_ns[-1] + self._rise_ns[-1]] if self.edges_ns else []
        # One that would overtake the one before it comes just after it.
        for i in range(1, len(real)):
            real[i] = max(real[i], real[i - 1] + rise_ns + 1)
        if before and real and real[0] <= before[0]:
            raise ValueError("the blanker still plays: wait until the beam is on again")
        self.commanded_ns += [int(t) for t in edges_ns]
        self.edges_ns += real
        self._rise_ns += [rise_ns] * len(real)
        self._longest_ns = max(self._longest_ns, rise_ns)

    @property
    def blanked(self) -> bool:
        """Whether the last command was to take the beam off."""
        return len(self.edges_ns) % 2 == 1

    def switch(
        self,
        t_ns: int,
        *,
        blanked: bool,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        rise_s: float = 0.0,
    ) -> None:
        """Obey one command, late and in its own order; one that changes nothing is none.

        Parameters
        ----------
        t_ns
            Host time of the command; no edge comes before its command.
        """
        if blanked == self.blanked:
            return
        late_s = max(latency_s + jitter_s * self._rng.standard_normal(), 0.0)
        real_ns, rise_ns = t_ns + round(late_s * 1e9), round(rise_s * 1e9)
        if self.edges_ns:
            real_ns = max(real_ns, self.edges_ns[-1] + rise_ns + 1)
        self.commanded_ns.append(t_ns)
        self.edges_ns.append(real_ns)
        self._rise_ns.append(rise_ns)
        self._longest_ns = max(self._longest_ns, rise_ns)

    def mean(self, from_ns: int, to_ns: int) -> float:
        """Return the share of beam that is on, mean over a window; at a moment if it is empty."""
        if not self.edges_ns:
            return 1.0
        if to_ns <= from_ns:
            to_ns = from_ns + 1
        total = float(to_ns - from_ns)
        first = bisect.bisect_left(self.edges_ns, from_ns - self._longest_ns)
        share = 1.0 if first % 2 == 0 else 0.0
        for i in range(first, len(self.edges_ns)):
            edge_ns, rise_ns = self.edges_ns[i], self._rise_ns[i]
            if edge_ns - rise_ns // 2 >= to_ns:
                break
            done = _risen(to_ns - edge_ns, rise_ns) - _risen(from_ns - edge_ns, rise_ns)
            share += (-1.0 if i % 2 == 0 else 1.0) * done / total
        return min(max(share, 0.0), 1.0)

    def next_change_ns(self, t_ns: int) -> int | None:
        """Return when the beam next begins or ends to change, after a time."""
        if not self.edges_ns:
            return None
        first = bisect.bisect_left(self.edges_ns, t_ns - self._longest_ns)
        for i in range(first, len(self.edges_ns)):
            edge_ns, rise_ns = self.edges_ns[i], self._rise_ns[i]
            for change_ns in (edge_ns - rise_ns // 2, edge_ns + rise_ns - rise_ns // 2):
                if change_ns > t_ns:
                    return change_ns
        return None


def _risen(since_ns: int, rise_ns: int) -> float:
    """Return the integral of a ramp whose middle stands at 0."""
    if rise_ns == 0:
        return float(max(since_ns, 0))
    into = min(max(since_ns + rise_ns / 2, 0.0), float(rise_ns))
    return into * into / (2 * rise_ns) + max(since_ns - rise_ns / 2, 0.0)
