"""A clock that wanders: filters over noisy offsets, and the smoother behind them.

The state is the offset (ns) and the skew (ns in a second), which walks at random. How it
walks, and how noisy the way is, is not known: many guesses are followed side by side, and
what each had expected of the measurements says how much it counts.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

GATE = 3.0  # beyond this many sigmas a measurement counts less, the further the less
SKEW_SIGMA = 2e5  # ns in a s, that is 200 ppm: what two crystals differ by
OTHER_STEPS_SIGMA = 5e7  # of clocks that count in other steps: they are off by a twentieth
BREAK_SIGMA_NS = 1e9  # of the offset after a step of the clock
FORGET = 1 - 1 / 1000  # by exchange, in judging online how a clock has behaved so far
# The rate of a crystal walks by 0.003 to 30 ppm in an hour, or not at all.
WANDERS = np.array([1e-9, *10.0 ** np.arange(-2.5, 5.6, 0.6)])
QUEUE_RATIOS = np.array([0.1, 0.2, 0.29, 0.4, 0.5])  # uniform within the excess: 0.29
NOISES, NOISE_STEP = 9, 2.5
MAX_GUESSES, MAX_NUMBERS = 128, 2_000_000  # that the smoother keeps
LEAST_WEIGHT = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a clock wanders and how noisy the way to it is: numbers, or arrays of guesses.

    Parameters
    ----------
    wander
        Variance by which the skew changes in a second, (ns/s)**2/s.
    noise_ns
        Standard deviation of an exchange that was not held up at all.
    queue_ratio
        Standard deviation for each ns that an exchange was held up.
    """

    wander: Floats
    noise_ns: Floats
    queue_ratio: Floats

    def __getitem__(self, chosen: NDArray[np.intp]) -> "Behaviour":
        """Return some of the guesses."""
        return Behaviour(
            wander=self.wander[chosen],
            noise_ns=self.noise_ns[chosen],
            queue_ratio=self.queue_ratio[chosen],
        )

    def variance_ns2(self, excess_ns: Floats | float, known_ns2: Floats | float) -> Floats:
        """Return the variance of a measurement."""
        held = self.queue_ratio * excess_ns
        return np.asarray(self.noise_ns**2 + known_ns2 + held**2, dtype=np.float64)


def guesses(min_noise_ns: float, *, queues: bool = True) -> Behaviour:
    """Return all combinations of wander, noise and queues that are thought possible."""
    noise = min_noise_ns * NOISE_STEP ** np.arange(NOISES)
    ratios = QUEUE_RATIOS if queues else QUEUE_RATIOS[-1:]
    wander, noise_ns, ratio = np.meshgrid(WANDERS, noise, ratios, indexing="ij")
    return Behaviour(wander=wander.ravel(), noise_ns=noise_ns.ravel(), queue_ratio=ratio.ravel())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Offsets in the order of time, each shape (n,).

    Parameters
    ----------
    dt_s
        Time since the one before; 0 for the first.
    y_ns
        The offset that was measured.
    excess_ns
        How long it was held up on its way.
    variance_ns2
        What is known of its variance beforehand, such as a read-out's step.
    fresh
        True where the offset has nothing to do with that before: a step of the clock.
    skew_sigma
        By how much the skew may differ from 0, in ns/s, as is known beforehand.
    """

    dt_s: Floats
    y_ns: Floats
    excess_ns: Floats
    variance_ns2: Floats
    fresh: NDArray[np.bool_]
    skew_sigma: float = SKEW_SIGMA

    def backwards(self) -> "Measurements":
        """Return the same as if time ran backwards: then the skew has the other sign."""
        return Measurements(
            dt_s=np.concatenate([[0.0], self.dt_s[:0:-1]]),
            y_ns=self.y_ns[::-1],
            excess_ns=self.excess_ns[::-1],
            variance_ns2=self.variance_ns2[::-1],
            fresh=np.concatenate([[True], self.fresh[:0:-1]]),
            skew_sigma=self.skew_sigma,
        )

    def with_break(self, at: int) -> "Measurements":
        """Return the same with a step of the clock before measurement ``at``."""
        fresh = self.fresh.copy()
        fresh[at] = True
        return replace(self, fresh=fresh)


class Bank:
    """Filters side by side, one for each guess of a clock's behaviour.

    Parameters
    ----------
    behaviour
        The guesses.
    one_sided
        True where only a late measurement counts less when it is far off.
    forget
        What remains of the past at each measurement, in judging the guesses.
    skew_sigma
        By how much the first guess of the skew, 0, may be wrong, in ns/s.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        one_sided: bool = False,
        forget: float = 1.0,
        skew_sigma: float = SKEW_SIGMA,
    ) -> None:
        self.behaviour = behaviour
        self._late_only, self._forget = one_sided, forget
        n = len(behaviour.wander)
        self.log_likelihood = np.zeros(n)
        self.offset, self.skew = np.zeros(n), np.zeros(n)
        self.p00, self.p01, self.p11 = np.zeros(n), np.zeros(n), np.full(n, skew_sigma**2)
        self.gain0 = self.gain1 = self.spread = self.surprise = np.zeros(n)

    def pass_time(self, dt_s: float) -> None:
        """Let the clocks run on without a measurement."""
        q = self.behaviour.wander
        self.offset = self.offset + dt_s * self.skew
        self.p00 = self.p00 + dt_s * (2 * self.p01 + dt_s * (self.p11 + q * (dt_s / 3)))
        self.p01 = self.p01 + dt_s * (self.p11 + q * (dt_s / 2))
        self.p11 = self.p11 + q * dt_s

    def begin_anew(self, y_ns: float) -> None:
        """Forget the offset, as after a step of the clock, and keep the skew."""
        self.offset = np.full_like(self.offset, y_ns)
        self.p00 = np.full_like(self.p00, BREAK_SIGMA_NS**2)
        self.p01 = np.zeros_like(self.p01)

    def take(self, y_ns: float, noise_ns2: Floats, *, judge: bool = True) -> None:
        """Take a measurement with its variance by each guess."""
        spread = self.p00 + noise_ns2
        surprise = y_ns - self.offset
        pull = surprise**2 / spread
        far = pull > GATE**2
        if self._late_only:
            far &= surprise > 0
        if far.any():
            ratio = np.where(far, pull / GATE**2, 1.0)
            pull = np.where(far, GATE**2 * (1 + np.log(ratio)), pull)
            likely = np.log(spread) + pull
            spread = spread + noise_ns2 * (ratio - 1)
        else:
            likely = np.log(spread) + pull
        if judge:
            self.log_likelihood = self._forget * self.log_likelihood - 0.5 * likely
        self.gain0, self.gain1 = self.p00 / spread, self.p01 / spread
        self.spread, self.surprise = spread, surprise
        self.offset = self.offset + self.gain0 * surprise
        self.skew = self.skew + self.gain1 * surprise
        self.p11 = self.p11 - self.gain1 * self.p01
        left = (spread - self.p00) / spread  # never below 0, unlike 1 - gain
        self.p00, self.p01 = self.p00 * left, self.p01 * left

    @property
    def weights(self) -> Floats:
        """How likely each guess is; their sum is 1."""
        weight = np.exp(self.log_likelihood - self.log_likelihood.max())
        return np.asarray(weight / weight.sum(), dtype=np.float64)

    def mean(self) -> tuple[float, float, Floats]:
        """Return offset, skew and their covariance, shape (2, 2), over all guesses."""
        w = self.weights
        offset, skew = float(w @ self.offset), float(w @ self.skew)
        d0, d1 = self.offset - offset, self.skew - skew
        c00, c01 = w @ (self.p00 + d0**2), w @ (self.p01 + d0 * d1)
        return offset, skew, np.array([[c00, c01], [c01, w @ (self.p11 + d1**2)]])

    def likeliest(self) -> Behaviour:
        """Return the behaviour in the middle of the likely ones, as arrays of length 1."""
        w, guess = self.weights, self.behaviour
        return Behaviour(
            wander=np.array([w @ guess.wander]),
            noise_ns=np.array([w @ guess.noise_ns]),
            queue_ratio=np.array([w @ guess.queue_ratio]),
        )

    def wander_statistic(self) -> float:
        """Return twice the log of how much likelier wander is than a straight line."""
        steady = self.behaviour.wander == self.behaviour.wander.min()
        return float(2 * (self.log_likelihood.max() - self.log_likelihood[steady].max()))

    def few(self, measurements: int) -> tuple[Behaviour, Floats]:
        """Return the likeliest guesses, few enough to smooth with, and their weights."""
        w = self.weights
        most = int(np.clip(MAX_NUMBERS // max(measurements, 1), 4, MAX_GUESSES))
        chosen = np.argsort(w)[::-1][:most]
        chosen = chosen[w[chosen] > LEAST_WEIGHT * w[chosen[0]]]
        return self.behaviour[chosen], w[chosen] / w[chosen].sum()


def follow(bank: Bank, given: Measurements) -> None:
    """Give all measurements to a bank."""
    for k in range(len(given.y_ns)):
        bank.pass_time(float(given.dt_s[k]))
        look(bank, given, k)


def look(bank: Bank, given: Measurements, k: int, together: float = 1.0) -> None:
    """Give a bank measurement ``k``, once its time has come."""
    if given.fresh[k]:
        bank.begin_anew(float(given.y_ns[k]))
    excess_ns = float(given.excess_ns[k]) * together**0.5
    noise = bank.behaviour.variance_ns2(excess_ns, float(given.variance_ns2[k]))
    # The first of a stretch tells nothing of how the clock behaves.
    bank.take(float(given.y_ns[k]), noise, judge=not given.fresh[k])


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed:
    """What all measurements together say at each of them.

    Parameters
    ----------
    state
        Offset and skew, shape (n, 2), and the covariance (n, 2, 2).
    lag
        Covariance of each state with the next, shape (n - 1, 2, 2).
    wander
        That of the guesses in the mean.
    """

    state: Floats
    covariance: Floats
    lag: Floats
    wander: float


def smooth(  # noqa: PLR0915 - one recursion there and one back
    given: Measurements,
    behaviour: Behaviour,
    weights: Floats,
    *,
    together: float = 1.0,
    one_sided: bool = False,
) -> Smoothed:
    """Look at each measurement with all others (modified Bryson-Frazier, all guesses).

    Parameters
    ----------
    weights
        How likely each guess is: their means and their differences are joined.
    together
        How many that are held up in a row are wrong in the same way, and worth only one.
    """
    n, h = len(given.y_ns), len(weights)
    bank = Bank(behaviour, one_sided=one_sided, skew_sigma=given.skew_sigma)
    before, after = np.empty((n, 3, h)), np.empty((n, 5, h))
    looked = np.empty((n, 4, h))
    for k in range(n):
        bank.pass_time(float(given.dt_s[k]))
        if given.fresh[k]:
            bank.begin_anew(float(given.y_ns[k]))
        before[k] = bank.p00, bank.p01, bank.p11
        look(bank, given, k, together)
        after[k] = bank.offset, bank.skew, bank.p00, bank.p01, bank.p11
        looked[k] = bank.gain0, bank.gain1, bank.spread, bank.surprise
    state, cov, lag = np.empty((n, 2)), np.empty((n, 2, 2)), np.empty((max(n - 1, 0), 2, 2))
    u0, u1, f00, f01, f11 = np.zeros((5, h))  # the adjoint: what the future still asks for
    means = np.zeros((2, h))
    for k in range(n - 1, -1, -1):
        x0, x1, a00, a01, a11 = after[k]
        s0, s1 = x0 - a00 * u0 - a01 * u1, x1 - a01 * u0 - a11 * u1
        g00, g01 = a00 * f00 + a01 * f01, a00 * f01 + a01 * f11
        g10, g11 = a01 * f00 + a11 * f01, a01 * f01 + a11 * f11
        c00 = a00 - g00 * a00 - g01 * a01
        c01 = a01 - g00 * a01 - g01 * a11
        c11 = a11 - g10 * a01 - g11 * a11
        m0, m1 = weights @ s0, weights @ s1
        d0, d1 = s0 - m0, s1 - m1
        state[k] = m0, m1
        cross = weights @ (c01 + d0 * d1)
        cov[k] = [[weights @ (c00 + d0**2), cross], [cross, weights @ (c11 + d1**2)]]
        if k < n - 1:
            lag[k] += [
                [weights @ (d0 * means[0]), weights @ (d0 * means[1])],
                [weights @ (d1 * means[0]), weights @ (d1 * means[1])],
            ]
        means = np.stack([d0, d1])
        # Back over the measurement.
        k0, k1, spread, surprise = looked[k]
        r00, r10 = 1 - k0, -k1
        u0 = r00 * u0 + r10 * u1 - surprise / spread
        n00 = r00 * (r00 * f00 + r10 * f01) + r10 * (r00 * f01 + r10 * f11) + 1 / spread
        n01 = r00 * f01 + r10 * f11
        f00, f01 = n00, n01
        if k == 0:
            break
        # Back over the time before it; the lag needs the adjoint at this point.
        dt, keep = float(given.dt_s[k]), float(not given.fresh[k])
        b00, b01, b11 = before[k]
        i00, i01 = 1 - f00 * b00 - f01 * b01, -(f00 * b01 + f01 * b11)
        i10, i11 = -(f01 * b00 + f11 * b01), 1 - f01 * b01 - f11 * b11
        _, _, a00, a01, a11 = after[k - 1]
        t00, t10 = keep * (a00 + dt * a01), keep * (a01 + dt * a11)
        lag[k - 1] = [
            [weights @ (t00 * i00 + a01 * i10), weights @ (t00 * i01 + a01 * i11)],
            [weights @ (t10 * i00 + a11 * i10), weights @ (t10 * i01 + a11 * i11)],
        ]
        u0, u1 = keep * u0, keep * dt * u0 + u1
        f00, f01, f11 = keep * f00, keep * (dt * f00 + f01), f11 + keep * dt * (dt * f00 + 2 * f01)
    return Smoothed(state=state, covariance=cov, lag=lag, wander=float(weights @ behaviour.wander))


def find_break(
    given: Measurements,
    behaviour: Behaviour,
    *,
    sigmas: float,
    one_sided: bool = False,
    most_ns: Floats | None = None,
) -> int | None:
    """Return where the clock stepped most clearly, as all before and all after it say.

    Parameters
    ----------
    behaviour
        One guess.
    sigmas
        A difference of less than this is no step.
    most_ns
        By how much the clock can have stepped before each measurement, shape (n,).
    """
    before, _ = _one_way(given, behaviour, one_sided=one_sided)
    _, after = _one_way(given.backwards(), behaviour, one_sided=one_sided)
    # Both sides of each gap know nothing of each other.
    gap = after[-2::-1, 0] - before[1:, 0]
    size = np.abs(gap) if most_ns is None else np.minimum(np.abs(gap), most_ns[1:])
    clear = size / np.sqrt(after[-2::-1, 1] + before[1:, 1])
    clear[given.fresh[1:]] = 0.0
    if len(clear) == 0 or clear.max() < sigmas:
        return None
    return int(np.argmax(clear)) + 1


def _one_way(
    given: Measurements, behaviour: Behaviour, *, one_sided: bool
) -> tuple[Floats, Floats]:
    """Return offset and variance before and after each measurement, each shape (n, 2)."""
    bank = Bank(behaviour, one_sided=one_sided, skew_sigma=given.skew_sigma)
    before, after = np.empty((len(given.y_ns), 2)), np.empty((len(given.y_ns), 2))
    for k in range(len(given.y_ns)):
        bank.pass_time(float(given.dt_s[k]))
        before[k] = bank.offset[0], bank.p00[0]
        look(bank, given, k)
        after[k] = bank.offset[0], bank.p00[0]
    return before, after
