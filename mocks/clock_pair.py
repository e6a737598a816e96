"""Two clocks and the way between them, with the truth: rates, wander, steps and queues."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

EXCHANGE_DTYPE = np.dtype([(name, "<i8") for name in ("t0_ns", "t1_ns", "t2_ns", "t3_ns")])

LATE = ("t1_ns", "t3_ns")  # stamps of what has come

Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualClock:
    """What a device's clock shows at each host time.

    Parameters
    ----------
    offset_ns
        What it shows at host time 0.
    rate_ppm
        By how much it runs fast.
    thermal_ppm, thermal_s
        Swing of its rate, and the period of that; the phase is ``thermal_phase``.
    steps
        Host time in s and step in ns, each a jump of the clock.
    resets
        Host time in s and reading in ns, from which on the clock begins anew.
    step_ns
        In which it is read out, cut off.
    """

    offset_ns: int = 4_217_000_000
    rate_ppm: float = 0.0
    thermal_ppm: float = 0.0
    thermal_s: float = 1200.0
    thermal_phase: float = 0.0
    steps: tuple[tuple[float, int], ...] = ()
    resets: tuple[tuple[float, int], ...] = ()
    step_ns: int = 1

    def shows(self, host_ns: Stamps) -> Stamps:
        """Return device times of host times, int64, same shape."""
        host = np.asarray(host_ns, np.int64)
        shown = self.offset_ns + host + self._lead_ns(host)
        for at_s, by_ns in self.steps:
            shown = shown + np.where(host >= round(at_s * 1e9), by_ns, 0)
        for at_s, reading_ns in self.resets:
            at_ns = np.int64(round(at_s * 1e9))
            anew = reading_ns + host - at_ns + self._lead_ns(host) - self._lead_ns(at_ns)
            shown = np.where(host >= at_ns, anew, shown)
        return np.asarray(shown // self.step_ns * self.step_ns, dtype=np.int64)

    def _lead_ns(self, host_ns: Stamps | np.int64) -> Stamps:
        t = np.asarray(host_ns, np.float64) / 1e9
        turn = 2 * np.pi / self.thermal_s
        swing = np.cos(self.thermal_phase) - np.cos(turn * t + self.thermal_phase)
        lead_us = self.rate_ppm * t + self.thermal_ppm * swing / turn
        return np.asarray(np.round(1e3 * lead_us), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How long messages take in one direction.

    Parameters
    ----------
    least_ns
        Of any message.
    jitter_ns
        Mean of what is added to each.
    queue_ns, queue_share, queue_s
        Mean delay in a queue, the share of the time that there is one, and how long one
        lasts on average. A queue holds all messages in it up for about as long.
    heavy_tail
        True for delays without an end to their tail (Pareto, exponent 2.5).
    """

    least_ns: int = 100_000
    jitter_ns: float = 20_000.0
    queue_ns: float = 0.0
    queue_share: float = 0.0
    queue_s: float = 5.0
    heavy_tail: bool = False

    def delays(self, sent_s: NDArray[np.float64], rng: np.random.Generator) -> Stamps:
        """Return the delay of each message, int64 ns; ``sent_s`` rises."""
        n = len(sent_s)
        extra = self.jitter_ns * _long(rng, n, heavy=self.heavy_tail)
        if self.queue_share > 0 and n:
            between_s = self.queue_s * (1 / self.queue_share - 1)
            count = int(4 + 3 * np.ptp(sent_s) / (between_s + self.queue_s))
            spans = rng.exponential([between_s, self.queue_s], (count, 2))
            edges = sent_s[0] - self.queue_s + np.cumsum(spans.ravel())
            which = np.searchsorted(edges, sent_s)
            depth = self.queue_ns * rng.exponential(size=len(edges) + 1)[which]
            held = depth * _long(rng, n, heavy=self.heavy_tail)
            extra = extra + np.where(which % 2 == 1, held, 0.0)
        return np.asarray(self.least_ns + np.round(extra), dtype=np.int64)


def _long(rng: np.random.Generator, n: int, *, heavy: bool) -> NDArray[np.float64]:
    """Draw with mean 1."""
    return 1.5 * rng.pareto(2.5, n) if heavy else rng.exponential(size=n)


LIGHT = Way()
HEAVY = Way(jitter_ns=60_000.0, queue_ns=1_500_000.0, queue_share=0.5, queue_s=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockPair:
    """A host that asks a device for the time, over two ways.

    Parameters
    ----------
    device
        Its clock.
    there, back
        The ways; make them different for an asymmetry that nobody can see.
    held_ns
        How long the device takes to answer.
    stamp_ns
        By how much each of the four stamps is taken too early, before sending, or too
        late, after receipt: half a normal distribution of this width.
    lost, doubled, swapped
        Shares of exchanges that are lost, that come twice, and that are written down
        after the one that followed.
    suspended
        Host time in s and length in s, for which the host slept: its clock stood still,
        so all later device times are ahead by that.
    """

    device: VirtualClock = field(default_factory=VirtualClock)
    there: Way = LIGHT
    back: Way = LIGHT
    held_ns: int = 20_000
    stamp_ns: float = 1_500.0
    lost: float = 0.0
    doubled: float = 0.0
    swapped: float = 0.0
    suspended: tuple[tuple[float, float], ...] = ()

    def shows(self, host_ns: Stamps) -> Stamps:
        """Return what the device shows at times of the host's clock."""
        return self.device.shows(self._awake(np.asarray(host_ns, np.int64)))

    def _awake(self, host_ns: Stamps) -> Stamps:
        slept = np.zeros_like(host_ns)
        for at_s, for_s in self.suspended:
            slept += np.where(host_ns >= round(at_s * 1e9), round(for_s * 1e9), 0)
        return host_ns + slept

    def exchange(
        self, asked_s: Sequence[float] | NDArray[np.float64], seed: int
    ) -> NDArray[np.void]:
        """Return the stamps of exchanges that were begun at these host times."""
        rng = np.random.default_rng([seed, 11])
        t_s = np.asarray(asked_s, np.float64)
        rows = np.zeros(len(t_s), EXCHANGE_DTYPE)
        rows["t0_ns"] = np.round(t_s * 1e9).astype(np.int64)
        came = rows["t0_ns"] + self.there.delays(t_s, rng)
        left = came + self.held_ns
        rows["t1_ns"], rows["t2_ns"] = self.shows(came), self.shows(left)
        rows["t3_ns"] = left + self.back.delays(t_s, rng)
        for name in rows.dtype.names or ():
            noise = np.abs(rng.normal(0.0, self.stamp_ns, len(rows)))
            # A stamp before sending is early, one after receipt is late.
            rows[name] += np.round(noise).astype(np.int64) * (1 if name in LATE else -1)
        rows = rows[rng.random(len(rows)) >= self.lost]
        rows = np.repeat(rows, 1 + (rng.random(len(rows)) < self.doubled))
        order = np.arange(len(rows), dtype=np.float64)
        order += 1.5 * (rng.random(len(rows)) < self.swapped)
        return rows[np.argsort(order, kind="stable")]


def waves(duration_s: float, *, every_s: float = 2.0, probes: int = 8) -> NDArray[np.float64]:
    """Return when to ask, as LSL does: waves of probes 64 ms apart."""
    starts = np.arange(0.0, duration_s, every_s)
    return np.asarray((starts[:, None] + 0.064 * np.arange(probes)).ravel(), dtype=np.float64)
