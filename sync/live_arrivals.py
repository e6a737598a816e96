"""Frames of a camera whose clock cannot be asked, tied to the host as they arrive."""

import math
from bisect import insort

from sync.arrivals import (
    BREAK_SIGMAS,
    LARGEST_S,
    LASTING,
    LASTING_S,
    LEAST_LATE,
    MIN_NOISE_NS,
    NEIGHBOURS,
    RESET_NS,
    SMALLEST,
)
from sync.wander import FORGET, SKEW_SIGMA, Bank, guesses

COUNTED_SKEW = 1e8  # ns in a s: a nominal frame period may be wrong by a tenth


class LiveArrivals:
    """A camera's clock by its arrivals, while the frames come: each is given a time at once.

    Parameters
    ----------
    period_ns
        Nominal frame period, for a camera without stamps: its counter is taken then.
    min_noise_ns
        Smallest standard deviation of a block's least late frame.
    """

    def __init__(self, *, period_ns: float = 0.0, min_noise_ns: float = MIN_NOISE_NS) -> None:
        self._period_ns = round(period_ns)
        skew_sigma = COUNTED_SKEW if period_ns else SKEW_SIGMA
        self._bank = Bank(
            guesses(min_noise_ns, queues=False),
            one_sided=True,
            forget=FORGET,
            skew_sigma=skew_sigma,
        )
        self._base_ns: int | None = None
        self._begin_stretch(0)
        self._known, self._blocks, self._typical = False, 0, 0.0
        self._offset = self._skew = self._wander = 0.0
        self._p = (0.0, 0.0, 0.0)

    def _begin_stretch(self, stamp_ns: int) -> None:
        self._fresh = True
        self._highest_ns = self._from_ns = self._at_ns = stamp_ns
        self._began_ns = 0
        self._count = self._back = 0
        self._late_since_ns: int | None = None
        self._least: list[tuple[float, int, int]] = []

    def add(self, counter: int, device_ns: int | None, arrival_ns: int) -> tuple[int, float]:
        """Return the host time of a frame's stamp, and its sigma: infinite at first.

        The time is that of the stamp plus the least time that a frame spends on its way,
        which nobody knows: the true time is earlier, by the same for all.

        Parameters
        ----------
        counter
            The camera's own.
        device_ns
            The end of the exposure on the camera's clock; None where it has none.
        arrival_ns
            Host clock when the whole frame was here.
        """
        stamp = counter * self._period_ns if device_ns is None else device_ns
        if device_ns is None and not self._period_ns:
            return arrival_ns, math.inf
        lag = arrival_ns - stamp
        if self._base_ns is None or self._began_anew(stamp, lag):
            self._base_ns = lag
            self._begin_stretch(stamp)
        self._highest_ns = max(self._highest_ns, stamp)
        self._count += 1
        ahead_s = (stamp - self._at_ns) / 1e9
        level = lag - self._base_ns - (self._offset if self._known else 0.0) - self._skew * ahead_s
        insort(self._least, (level, stamp, lag))
        del self._least[LEAST_LATE:]
        if self._count >= SMALLEST and (
            arrival_ns - self._began_ns > LARGEST_S * 1e9 or not self._known
        ):
            self._end_block(arrival_ns)
            ahead_s = (stamp - self._at_ns) / 1e9
        if not self._known:
            return arrival_ns, math.inf
        p00, p01, p11 = self._p
        age = abs(ahead_s)
        variance = p00 + ahead_s * (2 * p01 + ahead_s * p11) + self._wander * age**3 / 3
        host = stamp + self._base_ns + round(self._offset + ahead_s * self._skew)
        return host, math.sqrt(max(variance, 0.0))

    def _began_anew(self, stamp: int, lag: int) -> bool:
        """Tell whether the camera's stamps began anew with this frame."""
        self._back = self._back + 1 if stamp < self._highest_ns - RESET_NS else 0
        ahead_s = (stamp - self._at_ns) / 1e9
        expected = self._offset + self._skew * ahead_s
        early = self._known and lag - (self._base_ns or 0) < expected - RESET_NS
        return self._back >= LASTING or (early and self._back == 0)

    def _end_block(self, arrival_ns: int) -> None:
        """Give the block's least late frame to the filters."""
        level, stamp, lag = self._least[0]
        quicker = (self._least[-1][0] - level) / (len(self._least) - 1)
        share = max(1 / (self._blocks + 1), 1 / NEIGHBOURS)
        self._blocks += 1
        self._typical += (quicker - self._typical) * share
        y = float(lag - (self._base_ns or 0)) - self._typical
        bank = self._bank
        bank.pass_time(0.0 if self._fresh else max(stamp - self._at_ns, 0) / 1e9)
        late_since_ns = self._late_since_ns
        if self._fresh or (
            late_since_ns is not None and arrival_ns - late_since_ns > LASTING_S * 1e9
        ):
            bank.begin_anew(y)
        noise = bank.behaviour.variance_ns2(0.0, self._typical**2)
        late = not self._fresh and y > bank.mean()[0] + BREAK_SIGMAS * math.sqrt(
            bank.mean()[2][0, 0] + noise.min()
        )
        if not late:
            self._late_since_ns = None
        elif late_since_ns is None:
            self._late_since_ns = arrival_ns
        if not late:  # what is late is heard of only if it lasts
            bank.take(y, noise, judge=not self._fresh)
        offset, skew, p = bank.mean()
        self._offset, self._skew = offset, skew
        self._p = float(p[0, 0]), float(p[0, 1]), float(p[1, 1])
        self._wander = float(bank.weights @ bank.behaviour.wander)
        self._fresh, self._known = False, True
        self._at_ns = max(stamp, self._at_ns)
        self._began_ns, self._count = arrival_ns, 0
        self._least = []
