"""A clock followed exchange by exchange, while the run goes on."""

import math

import numpy as np
from numpy.typing import NDArray

from sync.pairs import round_trip_ns
from sync.smoother import BOUND_SIGMAS, MIN_NOISE_NS, wider_for
from sync.wander import FORGET, Bank, guesses

STEP_SIGMAS = 6.0
STEP_EXCHANGES = 4  # in a row that must agree on a step of the clock
RESET_NS = 50_000_000
SKEW_SIGMA = 5e7  # ns in a s: clocks that count in other steps are off by a twentieth
ALIKE = 1 / 100  # share of the newest exchange in how alike errors are that follow each other


class LiveClock:
    """What the exchanges so far say of a device's clock.

    It knows nothing of the future, so it is less sharp than `smooth_clock`; its sigma says
    by how much. An exchange costs about a tenth of a millisecond.

    Parameters
    ----------
    min_noise_ns
        Smallest standard deviation of a single exchange that is thought possible.
    step_ns
        In which the device's clock is read out.
    """

    def __init__(self, *, min_noise_ns: float = MIN_NOISE_NS, step_ns: int = 1) -> None:
        self._bank = Bank(guesses(min_noise_ns), forget=FORGET, skew_sigma=SKEW_SIGMA)
        self._step_ns2 = step_ns**2 / 12
        self._base_ns = self._at_ns = self._host_ns = self._began_ns = 0
        self._least_trip_ns = math.inf
        self._offset = self._skew = self._wander = 0.0
        self._covariance = np.zeros((2, 2))
        self._bound_ns = math.inf
        self._strange: list[float] = []
        self._last_pull = self._alike = self._product = 0.0
        self._power = 1.0
        self._weights = np.zeros(2)  # roots and sum, to know how many exchanges count
        self.count = 0

    def add(self, exchange: NDArray[np.void]) -> None:
        """Take an exchange, EXCHANGE_DTYPE, shape (1,)."""
        (row,) = exchange
        host = int(row["t0_ns"]) + (int(row["t3_ns"]) - int(row["t0_ns"])) // 2
        device = int(row["t1_ns"]) + (int(row["t2_ns"]) - int(row["t1_ns"])) // 2
        trip = max(float(round_trip_ns(exchange, 1 + self._skew / 1e9)[0]), 0.0)
        if trip < self._least_trip_ns:
            self._note_quicker(self._least_trip_ns - trip, host)
            self._least_trip_ns = trip
        expected = self._offset + self._skew * (device - self._at_ns) / 1e9
        apart = host - device - self._base_ns - expected
        reset = self.count > 0 and (device < self._at_ns or abs(apart) > RESET_NS + trip / 2)
        if self.count == 0 or reset:
            self._base_ns = host - device
        passed_ns = host - self._host_ns if reset else device - self._at_ns
        self._bank.pass_time(0.0 if self.count == 0 else max(passed_ns, 0) / 1e9)
        self._take(float(host - device - self._base_ns), trip, fresh=self.count == 0 or reset)
        self._at_ns, self._host_ns = device, host
        self.count += 1
        old = self._bound_ns + BOUND_SIGMAS * math.sqrt(self._covariance[1, 1]) * passed_ns / 1e9
        own = trip / 2 + abs(host - device - self._base_ns - self._offset)
        self._bound_ns = own if reset else min(own, old)

    def _note_quicker(self, by_ns: float, host_ns: int) -> None:
        """Trust what was learnt so far less: all of it was held up, by so much."""
        if self.count == 0:
            self._began_ns = host_ns
            return
        bank = self._bank
        wrong = bank.behaviour.queue_ratio * by_ns
        since_s = max((host_ns - self._began_ns) / 1e9, 1.0)
        bank.p00 = bank.p00 + wrong**2
        bank.p11 = bank.p11 + (wrong / since_s) ** 2

    def _take(self, y_ns: float, trip_ns: float, *, fresh: bool) -> None:
        bank = self._bank
        excess = trip_ns - self._least_trip_ns
        together = max((1 + self._alike) / (1 - self._alike), 1.0)
        noise = bank.behaviour.variance_ns2(excess * together**0.5, self._step_ns2)
        if not fresh:
            fresh = self._stepped(y_ns, float(bank.weights @ noise))
        if fresh:
            bank.begin_anew(y_ns)
            self._strange = []
            self._bound_ns = math.inf
        bank.take(y_ns, noise, judge=not fresh)
        weight = 1 / float(bank.weights @ noise)
        self._weights += np.array([math.sqrt(weight), weight])
        self._offset, self._skew, covariance = bank.mean()
        self._covariance = covariance * wider_for(self._weights[0] ** 2 / self._weights[1])
        self._wander = float(bank.weights @ bank.behaviour.wander)

    def _stepped(self, y_ns: float, noise_ns2: float) -> bool:
        """Tell whether this and the ones before it agree that the clock stepped."""
        offset, _, covariance = self._bank.mean()
        sigma = math.sqrt(covariance[0, 0] + noise_ns2)
        pull = (y_ns - offset) / sigma
        small = max(min(pull, 3.0), -3.0)
        share = max(1 / (self.count + 1), ALIKE)
        self._product += share * (small * self._last_pull - self._product)
        self._power += share * (small**2 - self._power)
        self._alike = min(max(self._product / self._power, 0.0), 0.9)
        self._last_pull = small
        if abs(pull) < STEP_SIGMAS:
            self._strange = []
            return False
        if self._strange and abs(y_ns - self._strange[-1]) > 0.5 * abs(y_ns - offset):
            self._strange = []
        self._strange.append(y_ns)
        return len(self._strange) >= STEP_EXCHANGES

    @property
    def offset_sigma_ns(self) -> float:
        """Standard uncertainty at the last exchange; infinite before the second."""
        return math.sqrt(self._covariance[0, 0]) if self.count > 1 else math.inf

    def to_host_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return host times of device times, int64, same shape."""
        stamps = np.asarray(device_ns, np.int64)
        offset = self._offset + self._skew * (stamps - self._at_ns) / 1e9
        return np.asarray(stamps + self._base_ns + np.round(offset).astype(np.int64))

    def sigma_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the standard uncertainty of `to_host_ns`, in ns, same shape."""
        age = (np.asarray(device_ns, np.int64) - self._at_ns) / 1e9
        (p00, p01), (_, p11) = self._covariance
        variance = p00 + 2 * p01 * age + p11 * age**2 + self._wander * np.abs(age) ** 3 / 3
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)

    def bound_ns(self, device_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the hard bound on the error, which grows with the age of the exchanges."""
        age = np.abs(np.asarray(device_ns, np.int64) - self._at_ns) / 1e9
        skew = math.sqrt(self._covariance[1, 1])
        grown = skew * age + math.sqrt(self._wander) * age**1.5 * (2 / 3)
        return np.asarray(self._bound_ns + BOUND_SIGMAS * grown, dtype=np.float64)
