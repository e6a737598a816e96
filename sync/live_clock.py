"""A clock followed exchange by exchange, while the run goes on."""

import math

import numpy as np
from numpy.typing import NDArray

from sync.clockfit import granularity_ns
from sync.envelope import quickest
from sync.pairs import EXCHANGE_DTYPE, round_trip_ns
from sync.smoother import BOUND_SIGMAS, MIN_NOISE_NS, wider_for
from sync.wander import Bank, Behaviour, Measurements, follow, guesses

STEP_SIGMAS = 6.0
STEP_EXCHANGES = 4  # in a row that must agree on a step of the clock
RESET_NS = 50_000_000
SKEW_SIGMA = 2e5  # ns in a s, that is 200 ppm
OTHER_STEPS_SIGMA = 5e7  # of clocks that count in other steps: they are off by a twentieth
WINDOW_S, WINDOW_EXCHANGES = 200.0, 2_000  # looked at again
BLOCK_S, BLOCKS = 4.0, 12  # of a block, and how many there shall be at least
MOST_BLOCKS = 100
EACH, SHARE = 16, 50  # so many are looked at one by one; then at each so manieth of all
SURE = 0.1  # of the smallest trip: by so much may a block be off for not knowing the skew
PASSES = 4  # until the skew is known by which exchanges of a block are compared

Floats = NDArray[np.float64]


class LiveClock:
    """What the exchanges so far say of a device's clock.

    The last minutes are looked at again and again, because a quicker exchange tells how
    much those before it had been held up. It knows nothing of the future, so it is less
    sharp than `smooth_clock`; its sigma says by how much. A look costs a few milliseconds,
    and comes at each of the first exchanges and later at every few.

    Parameters
    ----------
    min_noise_ns
        Smallest standard deviation of a single exchange that is thought possible.
    """

    def __init__(self, *, min_noise_ns: float = MIN_NOISE_NS) -> None:
        self._guesses = _some(guesses(min_noise_ns))
        self._step_ns2 = 0.0  # of the read-out
        self._rows = np.zeros(2 * WINDOW_EXCHANGES, EXCHANGE_DTYPE)
        self._odd = np.zeros(len(self._rows), np.bool_)  # not believed, or not yet
        self._kept = self._unseen = 0
        self._base_ns = self._at_ns = self._last_ns = 0
        self._least_half_ns = math.inf  # before the clock stepped
        self._least_now_ns = 0.0
        self._offset = self._skew = self._wander = 0.0
        self._skew_sigma = math.inf  # known beforehand, from before a step
        self._covariance = np.zeros((2, 2))
        self._noise = (min_noise_ns, 0.5)
        self._narrow: tuple[int, int, float] | None = None  # device, host, half a trip
        self._strange: list[int] = []
        self._since_strange = 0
        self.count = 0

    def add(self, exchange: NDArray[np.void]) -> None:
        """Take an exchange, EXCHANGE_DTYPE, shape (1,)."""
        (row,) = exchange
        host = int(row["t0_ns"]) + (int(row["t3_ns"]) - int(row["t0_ns"])) // 2
        device = int(row["t1_ns"]) + (int(row["t2_ns"]) - int(row["t1_ns"])) // 2
        half = max(float(round_trip_ns(exchange, 1 + self._skew / 1e9)[0]), 0.0) / 2
        apart = host - int(self.to_host_ns(np.array([device]))[0])
        reset = self.count > 0 and (device < self._last_ns or abs(apart) > RESET_NS + half)
        if self._kept == len(self._rows):
            self._keep(WINDOW_EXCHANGES)
        self._rows[self._kept] = row
        strange = not reset and self.count > 1 and self._is_strange(device, apart, half)
        self._odd[self._kept] = strange
        self._kept += 1
        self._unseen += 1
        stepped = reset or len(self._strange) >= STEP_EXCHANGES
        if stepped:
            self._begin_anew(1 if reset else self._since_strange)
        if stepped or self._unseen >= (1 if self._kept < EACH else max(self._kept // SHARE, 1)):
            self._look(host, device)
        if self.count == 0:  # one exchange says nothing of the rate
            self._covariance[1, 1] = OTHER_STEPS_SIGMA**2
        self._last_ns = device
        self._tighten(host, device, half)
        self.count += 1

    def _keep(self, last: int) -> None:
        """Forget all but the last exchanges."""
        last = min(last, self._kept)
        part = slice(self._kept - last, self._kept)
        self._rows[:last], self._odd[:last] = self._rows[part].copy(), self._odd[part].copy()
        self._kept = last

    def _begin_anew(self, exchanges: int) -> None:
        """Forget the offset after a step of the clock, and keep the skew and the trips."""
        if self.count > 1:
            skew_sigma = math.sqrt(self._covariance[1, 1])
            self._skew_sigma = max(skew_sigma, self._noise[0])
        halves = round_trip_ns(self._rows[: self._kept], 1 + self._skew / 1e9) / 2
        self._least_half_ns = min(self._least_half_ns, float(halves.min()))
        self._keep(exchanges)
        self._odd[: self._kept] = False
        self._strange, self._narrow = [], None

    def _look(self, host: int, device: int) -> None:
        """Look at the last minutes again; what is found holds at this exchange."""
        self._unseen = 0
        rows = self._rows[: self._kept]
        device_ns = rows["t1_ns"] + (rows["t2_ns"] - rows["t1_ns"]) // 2
        begins = int(np.argmax(device_ns >= device - WINDOW_S * 1e9))
        if begins > 0:
            self._keep(self._kept - begins)
            self._skew_sigma, self._least_half_ns = math.inf, math.inf
        believed = ~self._odd[: self._kept]
        rows, device_ns = self._rows[: self._kept][believed], device_ns[begins:][believed]
        host_ns = rows["t0_ns"] + (rows["t3_ns"] - rows["t0_ns"]) // 2
        if len(rows) > 1:
            self._step_ns2 = granularity_ns(rows["t1_ns"]) ** 2 / 12
        self._base_ns, self._at_ns = host - device, device
        y_ns = (host_ns - device_ns - self._base_ns).astype(np.float64)
        t_s = (device_ns - device) / 1e9
        half = round_trip_ns(rows, 1 + self._skew / 1e9) / 2
        prior = self._skew, min(self._skew_sigma, _possible_skew(t_s, y_ns, half))
        if self._skew_sigma >= SKEW_SIGMA:
            prior = 0.0, prior[1]
        for _ in range(PASSES):
            before = self._skew
            unsure = max(self._covariance[1, 1], 0.0) ** 0.5 if self.count > 1 else prior[1]
            half = round_trip_ns(rows, 1 + before / 1e9) / 2
            self._pass(t_s, y_ns, half, unsure, prior)
            now = max(self._covariance[1, 1], 0.0) ** 0.5
            if abs(self._skew - before) * BLOCK_S < self._noise[0] and now > 0.7 * unsure:
                break

    def _pass(
        self, t_s: Floats, y_ns: Floats, half: Floats, unsure: float, prior: tuple[float, float]
    ) -> None:
        """Follow the window once, its blocks compared by the skew as it is known."""
        span_s = float(t_s[-1] - t_s[0])
        length_s = min(BLOCK_S, span_s / BLOCKS, SURE * max(half.min(), 1e3) / max(unsure, 1e-3))
        length_s = max(length_s, span_s / MOST_BLOCKS, 1e-9)
        block = np.floor((t_s - t_s[0]) / length_s).astype(np.int64)
        joined = quickest(t_s, y_ns, half, self._skew, block)
        when = t_s[joined.at]
        excess = 2 * (joined.half_trip_ns - min(joined.half_trip_ns.min(), self._least_half_ns))
        given = Measurements(
            dt_s=np.diff(when, prepend=when[:1]),
            y_ns=joined.y_ns - self._skew * when,
            excess_ns=excess,
            variance_ns2=np.full(len(when), self._step_ns2),
            fresh=np.arange(len(when)) == 0,
        )
        bank = Bank(self._guesses, skew_sigma=prior[1])
        bank.skew = bank.skew + (prior[0] - self._skew)
        follow(bank, given)
        bank.pass_time(-float(when[-1]))
        likely = bank.likeliest()
        noise = np.sqrt(likely.variance_ns2(excess, self._step_ns2))
        good = float(np.sum(1 / noise) ** 2 / np.sum(1 / noise**2))
        self._offset, skew, covariance = bank.mean()
        self._skew += skew
        self._covariance = covariance * wider_for(good)
        self._wander = float(likely.wander[0])
        self._noise = float(likely.noise_ns[0]), float(likely.queue_ratio[0])
        self._least_now_ns = float(joined.half_trip_ns.min())

    def _is_strange(self, device: int, apart: int, half: float) -> bool:
        """Tell whether an exchange is beyond belief; several that agree are a step."""
        excess = max(half - self._least_now_ns, 0.0)
        sigma = math.hypot(float(self.sigma_ns(np.array([device]))[0]), self._noise[0])
        sigma = math.sqrt(sigma**2 + self._step_ns2)
        self._since_strange += 1
        if abs(apart) - excess < STEP_SIGMAS * sigma:
            # Held up so long that it may belong to either, it tells nothing.
            if self._strange and excess < abs(self._strange[-1]) / 2:
                self._strange = []
            return False
        if self._strange and abs(apart - self._strange[-1]) > 0.5 * abs(apart):
            self._strange = []
        if not self._strange:
            self._since_strange = 1
        self._strange.append(apart)
        return True

    def _tighten(self, host: int, device: int, half: float) -> None:
        """Keep the exchange that bounds the error most closely now."""
        if self._narrow is None or half < self._narrow[2] + self._growth(device - self._narrow[0]):
            self._narrow = device, host, half

    def _growth(self, age_ns: NDArray[np.int64] | int) -> Floats:
        age = np.abs(age_ns) / 1e9
        skew = math.sqrt(max(self._covariance[1, 1], 0.0))
        grown = skew * age + math.sqrt(self._wander) * age**1.5 * (2 / 3)
        return np.asarray(BOUND_SIGMAS * grown, dtype=np.float64)

    @property
    def offset_sigma_ns(self) -> float:
        """Standard uncertainty at the last exchange; infinite before the second."""
        if self.count < 2:
            return math.inf
        return float(self.sigma_ns(np.array([self._last_ns], np.int64))[0])

    def to_host_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return host times of device times, int64, same shape."""
        stamps = np.asarray(device_ns, np.int64)
        offset = self._offset + self._skew * (stamps - self._at_ns) / 1e9
        return np.asarray(stamps + self._base_ns + np.round(offset).astype(np.int64))

    def sigma_ns(self, device_ns: NDArray[np.int64]) -> Floats:
        """Return the standard uncertainty of `to_host_ns`, in ns, same shape."""
        age = (np.asarray(device_ns, np.int64) - self._at_ns) / 1e9
        (p00, p01), (_, p11) = self._covariance
        variance = p00 + 2 * p01 * age + p11 * age**2 + self._wander * np.abs(age) ** 3 / 3
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)

    def bound_ns(self, device_ns: NDArray[np.int64]) -> Floats:
        """Return the hard bound on the error, which grows with the age of the exchanges."""
        stamps = np.asarray(device_ns, np.int64)
        if self._narrow is None:
            return np.full(stamps.shape, math.inf)
        device, host, half = self._narrow
        off_ns = abs(int(self.to_host_ns(np.array([device]))[0]) - host)
        return np.asarray(half + off_ns + self._growth(stamps - device), dtype=np.float64)


def _possible_skew(t_s: Floats, y_ns: Floats, half: Floats) -> float:
    """Return sigma of the first guess: wide where no trip explains how much it gains."""
    gained = np.abs(y_ns - y_ns[0]) - half - half[0]
    beyond = np.any(gained > 5 * SKEW_SIGMA * np.maximum(t_s - t_s[0], 1e-3))
    return OTHER_STEPS_SIGMA if beyond else SKEW_SIGMA


def _some(all_guesses: Behaviour) -> Behaviour:
    """Return every second guess of the wander: few are enough to go on with."""
    kept = np.isin(all_guesses.wander, np.unique(all_guesses.wander)[::2])
    return all_guesses[np.flatnonzero(kept)]
