"""Contact test: a cell between the contacts, nothing, or a short.

From rest, a small current of each sign. Whatever is there answers as a resistance with
the stray capacitance across it, ``V = R g(t) + A exp(-t / tau)`` and a drift, where ``g``
is the current behind a first-order lag ``tau = R C``: a cell holds its voltage and has at most
some 100 gigaohms, an open contact only slews, and a short has no voltage to hold. All
values of ``tau`` are tried, so that what the readings do not tell stays open.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import special

from potentiostat.limits import Condition, Envelope
from potentiostat.records import RangeSpec
from potentiostat.technique import Segment, Step, after, open_circuit

REST_S = 5.0
PROBE_S = 10.0  # for each sign: tells 300 gigaohms from none with 300 pF across
REVERSALS = 3
WINDOW_S = 10.0  # on each side of a reversal
MISFIT = 1.3  # reduced chi square, from which a reversal is disturbed by something else
SMALLEST_PROBE_A = 50e-15
PROBE_ZEROS = 5.0  # times the zero of the source, or its sign would not be known
SETTLE_S = 1.0  # left out: what was there before still runs off
SWING_V = 0.5  # from rest, at which a sign is over
LEAST_SWING_V = 0.1  # where a limit is near: the picocoulombs of a test move no cell so far
LARGEST_CELL_OHM = 3e11
LARGEST_SHORT_OHM = 3e10  # flat, and less than this: a leaking holder has more
SHORTED_SHARE = 0.8  # of the lower limit: a short as good as the cell leaves half its voltage
SURE = 0.99
TAUS_S = np.concatenate([[0.0], np.geomspace(3e-3, 1e5, 61)])
FINE_TAUS = 120
FAR_CHI2 = 50.0  # beyond the best fit: such a time constant is out
STRAY_F = (5e-12, 2e-9)  # of any holder
MIN_READINGS = 20

Array = NDArray[np.float64]


class Contact(StrEnum):
    """What is between the contacts."""

    CELL = "cell"
    OPEN = "open"
    SHORT = "short"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactVerdict:
    """What a contact test found, with its evidence.

    Parameters
    ----------
    confidence
        Probability of the verdict among the three; of the likeliest one where unclear.
    rest_V, rest_sigma_V
        Before the current.
    ohm, ohm_low, ohm_high
        Resistance, and its 95 % interval; infinite where it only slews.
    capacitance_F
        Across it; NaN where the answer is too fast to tell.
    """

    contact: Contact
    confidence: float
    rest_V: float
    rest_sigma_V: float
    ohm: float
    ohm_low: float
    ohm_high: float
    capacitance_F: float
    reason: str


def probe_current_A(spec: RangeSpec) -> float:
    """Return the current of a test in a range: clear of the zero of its source."""
    zero_A = spec.source_offset_A if math.isfinite(spec.source_offset_A) else spec.offset_A
    return max(SMALLEST_PROBE_A, PROBE_ZEROS * zero_A)


def rest_step() -> Step:
    """Return the first part of a test."""
    return open_circuit(REST_S)


def probe_step(current_A: float, rest_V: float, envelope: Envelope) -> Step:
    """Return the second part: a current of each sign, which ends before the limits.

    Parameters
    ----------
    rest_V
        As the first part found it.
    envelope
        Of the cell. A rest voltage outside it is a finding and no error.
    """
    high_V, low_V = rest_V + SWING_V, rest_V - SWING_V
    if rest_V < envelope.voltage_max_V:
        high_V = min(high_V, max(envelope.voltage_max_V, rest_V + LEAST_SWING_V))
    if rest_V > envelope.voltage_min_V:
        low_V = max(low_V, min(envelope.voltage_min_V, rest_V - LEAST_SWING_V))
    ends = (
        Condition(quantity="V", relation=">", value=high_V, text=f"V > {high_V:.4g} V"),
        Condition(quantity="V", relation="<", value=low_V, text=f"V < {low_V:.4g} V"),
        after(PROBE_S),
    )
    return Step(
        name="contact",
        segments=tuple(
            Segment(name=f"sign {k + 1}", current_A=(-1) ** k * abs(current_A), until=ends)
            for k in range(REVERSALS + 1)
        ),
    )


def judge_contact(
    t_s: Array,
    voltage_V: Array,
    applied_A: Array,
    *,
    voltage_sigma_V: Array,
    envelope: Envelope,
) -> ContactVerdict:
    """Tell a cell, an open contact and a short apart.

    Parameters
    ----------
    t_s
        Middles of the voltage's windows, increasing, shape (n,).
    voltage_V, applied_A, voltage_sigma_V
        Readings, the current that was asked for at each, and random sigmas.
    envelope
        A cell rests inside it.

    Raises
    ------
    ValueError
        There are too few readings.
    """
    good = np.isfinite(voltage_V) & (t_s - t_s[:1] >= SETTLE_S)
    t, v, i = t_s[good], voltage_V[good], applied_A[good]
    sigma = voltage_sigma_V[good]
    resting = np.cumsum(i != 0) == 0
    if len(t) < MIN_READINGS or not np.any(resting):
        raise ValueError(f"{len(t)} readings are no contact test: at least {MIN_READINGS} are")
    rest_V = float(np.mean(v[resting][-MIN_READINGS:]))
    rest_sigma_V = float(np.median(sigma) / math.sqrt(min(int(resting.sum()), MIN_READINGS)))
    if np.max(np.abs(v)) >= envelope.voltage_max_V:
        return _slewed_away(rest_V, rest_sigma_V, envelope)
    _, _, coarse, count = _try_all(t, v, i, sigma, TAUS_S)
    taus_s = _finer(coarse, count)
    ohm, ohm_sigma, chi2, count = _try_all(t, v, i, sigma, taus_s)
    best = int(np.argmin(chi2))
    scale = max(float(chi2[best]) / max(count - 5, 1), 1.0)
    weight = np.exp(-0.5 * (chi2 - chi2[best]) / scale)
    weight /= weight.sum()
    spread = ohm_sigma * math.sqrt(scale)

    def share_below(limit_ohm: float) -> float:
        return float(np.sum(weight * special.ndtr((limit_ohm - ohm) / spread)))

    within = float(
        special.ndtr((rest_V - envelope.voltage_min_V) / rest_sigma_V)
        * special.ndtr((envelope.voltage_max_V - rest_V) / rest_sigma_V)
    )
    flat_V = SHORTED_SHARE * envelope.voltage_min_V
    flat = float(special.ndtr((flat_V - abs(rest_V)) / rest_sigma_V))
    conducts = share_below(LARGEST_CELL_OHM)
    chances = {
        Contact.CELL: conducts * within,
        Contact.OPEN: 1.0 - conducts,
        Contact.SHORT: share_below(LARGEST_SHORT_OHM) * flat,
    }
    likeliest = max(chances, key=lambda contact: chances[contact])
    contact = likeliest if chances[likeliest] >= SURE else Contact.UNCLEAR
    low, high = _interval(ohm, spread, weight)
    tau_s = float(taus_s[best])
    return ContactVerdict(
        contact=contact,
        confidence=chances[likeliest],
        rest_V=rest_V,
        rest_sigma_V=rest_sigma_V,
        ohm=float(ohm[best]),
        ohm_low=low,
        ohm_high=high,
        capacitance_F=tau_s / float(ohm[best]) if tau_s > 0 and ohm[best] > 0 else math.nan,
        reason=_reason(contact, rest_V, low, high, envelope),
    )


def _slewed_away(rest_V: float, rest_sigma_V: float, envelope: Envelope) -> ContactVerdict:
    return ContactVerdict(
        contact=Contact.OPEN,
        confidence=SURE,
        rest_V=rest_V,
        rest_sigma_V=rest_sigma_V,
        ohm=math.inf,
        ohm_low=LARGEST_CELL_OHM,
        ohm_high=math.inf,
        capacitance_F=math.nan,
        reason=f"open: the voltage ran to its limit of {envelope.voltage_max_V:g} V",
    )


def _finer(chi2: Array, count: int) -> Array:
    """Return a finer row of time constants where the coarse one is not out."""
    scale = max(float(chi2.min()) / max(count - 5, 1), 1.0)
    near = np.flatnonzero(chi2 - chi2.min() < FAR_CHI2 * scale)
    first, last = max(int(near[0]) - 1, 0), min(int(near[-1]) + 1, len(TAUS_S) - 1)
    fine = np.geomspace(TAUS_S[max(first, 1)], TAUS_S[max(last, 2)], FINE_TAUS)
    return fine if first > 0 else np.concatenate([[0.0], fine])


def _try_all(
    t: Array, v: Array, i: Array, sigma: Array, taus_s: Array
) -> tuple[Array, Array, Array, int]:
    """Fit with each time constant; return resistances, sigmas, chi squares, and freedom.

    Each reversal of the current is looked at by itself, with a drift of its own: what
    happens beside it, such as a cell that empties through a short, spoils one at most.
    """
    turns = np.flatnonzero(np.diff(np.sign(i)) != 0) + 1
    turns = turns[i[turns - 1] != 0] if np.any(i[turns - 1] != 0) else turns
    size_A = float(np.max(np.abs(i))) or 1.0
    answers = [_lagged(t, i / size_A, float(tau_s)) for tau_s in taus_s]
    parts = [
        _Window(t, v, answers, sigma, np.flatnonzero(np.abs(t - t[k]) < WINDOW_S), taus_s)
        for k in turns
    ]
    parts = [p for p in parts if p.count >= MIN_READINGS]
    if not parts:
        raise ValueError("the current was never reversed: this is no contact test")
    best = min(p.misfit for p in parts)
    parts = [p for p in parts if p.misfit <= max(MISFIT, 1.2 * best)]
    square = np.sum([p.square for p in parts], axis=0)
    product = np.sum([p.product for p in parts], axis=0)
    found = product / square / size_A
    ohm_sigma = 1.0 / np.sqrt(square) / size_A
    # No holder has another capacitance: what asks for it is not there.
    most = np.where(taus_s > 0, taus_s / STRAY_F[0], math.inf)
    ohm = np.clip(found, taus_s / STRAY_F[1], most)
    chi2 = np.sum([p.rest for p in parts], axis=0) - product**2 / square
    chi2 = chi2 + ((ohm - found) / ohm_sigma) ** 2
    return ohm, ohm_sigma, chi2, sum(p.count for p in parts)


class _Window:
    """Readings around one reversal: what is left of answer and voltage without the drift.

    Parameters
    ----------
    answers
        The current behind each of the time constants.

    Attributes
    ----------
    square, product, rest
        Of the answer with itself and with the voltage, and of the voltage with itself,
        for each time constant; in units of the readings' sigmas.
    misfit
        Reduced chi square of the best fit.
    """

    def __init__(
        self,
        t: Array,
        v: Array,
        answers: Sequence[Array],
        sigma: Array,
        rows: NDArray[np.intp],
        taus_s: Array,
    ) -> None:
        self.count = len(rows)
        self.square, self.product, self.rest = (np.zeros(len(taus_s)) for _ in range(3))
        if self.count < MIN_READINGS:
            return
        x = (t[rows] - t[rows].mean()) / np.ptp(t[rows])
        for k, tau_s in enumerate(taus_s):
            drift = [np.ones_like(x), x, x**2]
            # How it stood at the beginning of the window; slower ones are parabolas.
            if 0 < tau_s < 2 * WINDOW_S:
                drift.append(np.expm1(-(t[rows] - t[rows[0]]) / tau_s))
                drift[-1] /= max(float(np.max(np.abs(drift[-1]))), 1e-300)
            basis, _ = np.linalg.qr(np.stack(drift, axis=1) / sigma[rows, None])
            answer = answers[k][rows] / sigma[rows]
            voltage = v[rows] / sigma[rows]
            answer = answer - basis @ (basis.T @ answer)
            voltage = voltage - basis @ (basis.T @ voltage)
            self.square[k] = max(float(answer @ answer), 1e-300)
            self.product[k] = float(answer @ voltage)
            self.rest[k] = float(voltage @ voltage)
        left = self.rest - self.product**2 / self.square
        self.misfit = float(np.min(left)) / max(self.count - 5, 1)


def _lagged(t: Array, i: Array, tau_s: float) -> Array:
    """Return a current behind a first-order lag, from no current at the first reading.

    The set-point of a reading has been on since the reading before.
    """
    if tau_s == 0:
        return i
    left = np.exp(-np.diff(t) / tau_s).tolist()
    lagged = [0.0]
    for now, keep in zip(i[1:].tolist(), left, strict=True):  # floats: arrays are ten times slower
        lagged.append(now + (lagged[-1] - now) * keep)
    return np.array(lagged)


def _interval(ohm: Array, spread: Array, weight: Array) -> tuple[float, float]:
    """Return the 95 % interval of a resistance over all time constants."""
    order = np.argsort(ohm)
    share = np.cumsum(weight[order])
    low, high = (order[min(int(np.searchsorted(share, p)), len(order) - 1)] for p in (0.025, 0.975))
    return (
        max(float(ohm[low] - 2 * spread[low]), 0.0),
        max(float(ohm[high] + 2 * spread[high]), 0.0),
    )


def _reason(contact: Contact, rest_V: float, low: float, high: float, envelope: Envelope) -> str:
    found = f"it rests at {rest_V:.4g} V, and has {low:.2g} to {high:.2g} ohm"
    match contact:
        case Contact.CELL:
            return f"a cell: {found}"
        case Contact.OPEN:
            return f"open: the current only moves the voltage; {found}"
        case Contact.SHORT:
            return f"short, or a cell that is empty: {found}"
        case _:
            limits = f"{envelope.voltage_min_V:g} to {envelope.voltage_max_V:g} V"
            return f"unclear: {found}; a cell rests at {limits}"
