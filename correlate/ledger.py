"""The charge ledger: what of the instrument's charge went through the cell.

With charge counted positive on charging (from the node equation of cell and holder)::

    Q_instrument = Q_ionic + C dV + integral(V / R) + Q_dielectric - integral(I_beam)

Each term is a column of its own. Random errors add in quadrature from sample to sample;
errors that are the same in every sample (range gain and zero, the holder's numbers) grow
with the integral and are kept apart until the end.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SWEEP_STEP_V = 2.5e-3  # of a held voltage: takes a millisecond or two to charge the holder
JUMP_SIGMAS = 10.0  # between neighbouring readings: more than noise, a step of the source


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """An open holder's numbers, each with its standard uncertainty."""

    capacitance_F: float
    capacitance_sigma_F: float
    conductance_S: float
    conductance_sigma_S: float
    dielectric_F: float
    dielectric_sigma_F: float
    dielectric_tau_s: float
    offset_A: float
    offset_sigma_A: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Data-sheet limits of the current range: even within them, so sigma is limit/sqrt(3).

    Parameters
    ----------
    delay_s
        Group delay by which a current that is measured is late.
    """

    gain_ratio: float
    offset_A: float
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was counted of readings that are not all there; each of shape (n,).

    Parameters
    ----------
    charge_C
        Up to each reading, of all that were taken.
    thinned
        Where readings before this one are missing: there, the count is taken.
    readings
        That an interval stands for, at least 1.
    single
        Of these, how many share the sigma of the single reading that stands for them.
    """

    charge_C: NDArray[np.float64]
    thinned: NDArray[np.bool_]
    readings: NDArray[np.float64]
    single: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagging:
    """Readings of a current that a range follows late.

    Parameters
    ----------
    held
        Where a voltage is held, shape (n,); elsewhere a current is sourced.
    unsettled
        Those of them within the settling time after a change, shape (n,).
    delay_s
        Group delay of the range, at most: a first-order one is late by anything up to it.
    sourced_s
        Group delay while a current is sourced, and its sigma.
    """

    held: NDArray[np.bool_]
    unsettled: NDArray[np.bool_]
    delay_s: float
    sourced_s: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """What the beam added to the cell, from the first reading on; each of shape (n,).

    Parameters
    ----------
    sigma_C
        Of one number in all of them, the beam's current: it grows with the integral.
    status
        How it was found.
    """

    charge_C: NDArray[np.float64]
    sigma_C: NDArray[np.float64]
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Cumulative charges in C against time, each shape (n,); NaN where unknown.

    Parameters
    ----------
    columns
        ``instrument``, ``capacitive``, ``leak``, ``dielectric``, ``beam``, ``ionic``, each
        with its ``_sigma``.
    beam_status
        How the beam's share was found.
    """

    t_ns: NDArray[np.int64]
    columns: dict[str, NDArray[np.float64]]
    beam_status: str


def _running(step: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integrate by trapezia, from 0."""
    total = np.zeros(len(step))
    total[1:] = np.cumsum(0.5 * (step[1:] + step[:-1]) * np.diff(seconds))
    return total


def charge_ledger(  # noqa: PLR0913 - one for each thing that it joins
    t_ns: NDArray[np.int64],
    current_A: NDArray[np.float64],
    voltage_V: NDArray[np.float64],
    *,
    current_sigma_A: NDArray[np.float64],
    voltage_sigma_V: NDArray[np.float64],
    accuracy: Accuracy,
    holder: Holder | None,
    moved_V: NDArray[np.float64] | None = None,
    counted: Counted | None = None,
    told: NDArray[np.bool_] | None = None,
    changed_F: float = 0.0,
    beam: Beam | None = None,
    lagging: Lagging | None = None,
) -> Ledger:
    """Part the instrument's charge into its terms.

    Parameters
    ----------
    t_ns
        Middle of each reading on the host clock, increasing, shape (n,).
    current_A, voltage_V, current_sigma_A, voltage_sigma_V
        Readings and their random sigmas; readings that are not numbers are bridged.
    accuracy
        Of the current range.
    holder
        From the open-holder calibration; None makes every term but the instrument's NaN.
    moved_V
        By how much a held voltage was moved since the reading before, shape (n,); 0
        where a current was held. None for all zero.
    counted
        Of a record that has not all readings; None for one that has.
    told
        Where no meter read the current, shape (n,): it is what the source gives, true within
        the data sheet, or exactly none of an open cell. None for nowhere.
    changed_F
        By how much the stray capacitance differed after the run.
    beam
        What the beam added; None where it was not measured, and then it is taken as none.
    lagging
        Which readings a range delays; None for none.

    Notes
    -----
    A first-order range that is late by T has read, of any current, ``T dI`` less than
    flowed, where ``dI`` is by how much its reading has risen. So readings that have not
    settled are integrated like others; half of that at most is added, and the other half is
    the limit of an even spread. Of the charge of a stray capacitance they have seen
    anything between none and all. The delay is the same at every step, so what it leaves
    adds up one by one. While a current is sourced, its steps tell the delay (`meter_delay`).

    A held voltage that is moved charges the stray capacitance within milliseconds,
    between two readings. That charge is added to the instrument's, which really gave it.

    A capacitance that changes under a voltage takes ``V dC`` with it. Whether it changed
    while the readings were taken, or while the holder was handled, is not known: none of
    it is booked, and its sigma is the root mean square of all and nothing,
    ``abs(V dC) / sqrt(2)``.
    """
    seconds = (t_ns - t_ns[0]).astype(np.float64) / 1e9 if len(t_ns) else np.zeros(0)
    current = _bridged(seconds, current_A)
    voltage = _bridged(seconds, voltage_V)
    n = len(seconds)
    # The holder's calibration has measured the zero of this range; without it the zero
    # is only known within the data sheet.
    zero_A, zero_sigma_A = _zero_of(current, accuracy, holder, told)
    zero_sigma_C = _running(zero_sigma_A, seconds)
    gain_sigma = accuracy.gain_ratio / math.sqrt(3)
    instrument = _running(current - zero_A, seconds)
    readings = np.ones(n) if counted is None else counted.readings
    if counted is not None:
        instrument = _with_counted(instrument, seconds, zero_A, counted)
    random_C = _random_of_integral(seconds, current, current_sigma_A, counted)
    if lagging is not None:
        late_C, late_sigma_C = _still_to_come(current, lagging)
        instrument, random_C = instrument + late_C, np.hypot(random_C, late_sigma_C)
    if moved_V is not None and holder is not None:
        unseen_C = holder.capacitance_F * moved_V
        if lagging is not None:
            seen_C = np.where(lagging.unsettled, 0.5 * unseen_C, 0.0)
            instrument = instrument - np.cumsum(seen_C)
            # An even spread of as much to both sides.
            random_C = np.hypot(random_C, np.cumsum(np.abs(seen_C)) / math.sqrt(3.0))
        instrument = instrument + np.cumsum(unseen_C)
        random_C = np.hypot(random_C, _partly_seen(unseen_C, moved_V / readings))
        random_C = np.hypot(random_C, _late_seen(seconds, current, moved_V, readings))
    instrument_sigma = np.sqrt((gain_sigma * instrument) ** 2 + zero_sigma_C**2 + random_C**2)
    columns = {"instrument": instrument, "instrument_sigma": instrument_sigma}
    unknown = np.full(n, np.nan)
    beam_C = np.zeros(n) if beam is None else beam.charge_C - beam.charge_C[:1]
    beam_sigma_C = np.zeros(n) if beam is None else np.abs(beam.sigma_C - beam.sigma_C[:1])
    if holder is None:
        for term in ("capacitive", "leak", "dielectric", "ionic"):
            columns[term], columns[f"{term}_sigma"] = unknown, unknown
    else:
        columns |= _holder_terms(
            seconds,
            voltage,
            voltage_sigma_V,
            holder,
            instrument + beam_C,
            np.sqrt(random_C**2 + zero_sigma_C**2 + beam_sigma_C**2),
            gain_sigma,
            changed_F,
        )
    columns["beam"] = beam_C
    # The same range has measured the beam's current, with the same error of its gain.
    columns["beam_sigma"] = np.hypot(beam_sigma_C, gain_sigma * beam_C)
    status = "not measured, taken as zero" if beam is None else beam.status
    return Ledger(t_ns=t_ns, columns=columns, beam_status=status)


def _with_counted(
    running_C: NDArray[np.float64],
    seconds: NDArray[np.float64],
    zero_A: NDArray[np.float64],
    counted: Counted,
) -> NDArray[np.float64]:
    """Replace what was integrated by what was counted, where readings are missing."""
    step_C = np.diff(running_C, prepend=0.0)
    counted_C = np.diff(counted.charge_C, prepend=counted.charge_C[:1])
    counted_C = counted_C - zero_A * np.diff(seconds, prepend=seconds[:1])
    use = counted.thinned & np.isfinite(counted_C)
    use[:1] = False
    total: NDArray[np.float64] = np.cumsum(np.where(use, counted_C, step_C))
    return total


def _zero_of(
    current: NDArray[np.float64],
    accuracy: Accuracy,
    holder: Holder | None,
    told: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the zero of each reading's current, and its sigma, shape (n,)."""
    within_A = accuracy.offset_A / math.sqrt(3)
    zero_A = np.full(len(current), 0.0 if holder is None else holder.offset_A)
    sigma_A = np.full(len(current), within_A if holder is None else holder.offset_sigma_A)
    if told is not None:
        zero_A[told] = 0.0
        sigma_A[told] = np.where(current[told] == 0, 0.0, within_A)
    return zero_A, sigma_A


def _still_to_come(
    current: NDArray[np.float64], lagging: Lagging
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what had flowed and was not read yet, up to each reading, and its sigma."""
    by_voltage_A, by_current_A = (_risen(current, where) for where in (lagging.held, ~lagging.held))
    # Of a held voltage anything up to the delay: the middle, and an even spread.
    half_C = 0.5 * lagging.delay_s * by_voltage_A
    delay_s, sigma_s = lagging.sourced_s
    late_C = half_C + delay_s * by_current_A
    return late_C, np.hypot(np.abs(half_C) / math.sqrt(3.0), sigma_s * by_current_A)


def _risen(current: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return by how much readings have risen in all stretches of a kind so far, shape (n,)."""
    risen_A = np.zeros(len(current))
    edges = np.diff(np.concatenate([[False], where, [False]]).astype(np.int8))
    for first, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        risen = current[first:end] - current[max(int(first) - 1, 0)]
        risen_A[first:end] += risen
        risen_A[end:] += risen[-1]
    return risen_A


def _partly_seen(
    unseen_C: NDArray[np.float64], moved_V: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the running sigma of charges that a reading may have seen in part.

    The steps of a sweep are over before the next reading; a large one may not be: an
    even spread between none and all.
    """
    large = np.abs(moved_V) > SWEEP_STEP_V
    variance: NDArray[np.float64] = np.cumsum(np.where(large, unseen_C**2 / 12, 0.0))
    return np.sqrt(variance)


def _late_seen(
    seconds: NDArray[np.float64],
    current: NDArray[np.float64],
    moved_V: NDArray[np.float64],
    readings: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the running sigma of currents that changed at an unknown time between readings.

    Each move of a held voltage changes the current somewhere between two readings, and in
    a sweep always on the same side: these errors add up one by one, not in quadrature.
    """
    late_C = np.zeros(len(seconds))
    late_C[1:] = np.abs(np.diff(current)) * np.diff(seconds) / math.sqrt(12.0)
    # Of n readings of which one is stored, each has a share of 1/n^2.
    total: NDArray[np.float64] = np.cumsum(np.where(moved_V != 0, late_C / readings, 0.0))
    return total


def _holder_terms(
    seconds: NDArray[np.float64],
    voltage: NDArray[np.float64],
    voltage_sigma_V: NDArray[np.float64],
    holder: Holder,
    given: NDArray[np.float64],
    given_sigma_C: NDArray[np.float64],
    gain_sigma: float,
    changed_F: float,
) -> dict[str, NDArray[np.float64]]:
    rise = voltage - voltage[:1]
    rise_sigma = np.hypot(voltage_sigma_V, voltage_sigma_V[:1])
    volt_seconds = _running(voltage, seconds)
    slow = slow_voltage(seconds, voltage, holder.dielectric_tau_s, None)
    slow_rise = slow - slow[:1]
    capacitive = holder.capacitance_F * rise
    leak = holder.conductance_S * volt_seconds
    dielectric = holder.dielectric_F * slow_rise
    capacitive_sigma = np.hypot(
        holder.capacitance_sigma_F * rise, holder.capacitance_F * rise_sigma
    )
    taken_C = changed_F * 0.5 * (voltage + voltage[:1]) / math.sqrt(2.0)
    taken_C[:1] = 0.0
    capacitive_sigma = np.hypot(capacitive_sigma, taken_C)
    leak_sigma = np.abs(holder.conductance_sigma_S * volt_seconds)
    dielectric_sigma = np.abs(holder.dielectric_sigma_F * slow_rise)
    ionic = given - capacitive - leak - dielectric
    # The same range measured holder and cell: a gain error scales all terms alike, so
    # the ionic charge carries it once. The zero of the range and the leakage were found
    # together; their errors are combined as if independent, which is on the safe side.
    ionic_sigma = np.sqrt(
        (gain_sigma * ionic) ** 2
        + given_sigma_C**2
        + capacitive_sigma**2
        + leak_sigma**2
        + dielectric_sigma**2
    )
    return {
        "capacitive": capacitive,
        "capacitive_sigma": np.hypot(capacitive_sigma, gain_sigma * capacitive),
        "leak": leak,
        "leak_sigma": np.hypot(leak_sigma, gain_sigma * leak),
        "dielectric": dielectric,
        "dielectric_sigma": np.hypot(dielectric_sigma, gain_sigma * dielectric),
        "ionic": ionic,
        "ionic_sigma": ionic_sigma,
    }


def _bridged(seconds: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    good = np.isfinite(value)
    if not np.any(good):
        return np.full(len(value), np.nan)
    return np.interp(seconds, seconds[good], value[good])


def _random_of_integral(
    seconds: NDArray[np.float64],
    current: NDArray[np.float64],
    sigma_A: NDArray[np.float64],
    counted: Counted | None = None,
) -> NDArray[np.float64]:
    """Return the random sigma of a running trapezoid sum.

    Readings are independent. Where the current jumps, the jump stands anywhere between
    two readings: an even spread, ``(jump * interval)**2 / 12``.
    """
    if len(seconds) < 2:
        return np.zeros(len(seconds))
    step = np.diff(seconds)
    weight = np.zeros(len(seconds))
    weight[:-1] += step / 2
    weight[1:] += step / 2
    clean = np.nan_to_num(sigma_A, nan=0.0)
    variance = (weight * clean) ** 2
    jump = np.abs(np.diff(current))
    sudden = jump > JUMP_SIGMAS * np.maximum(clean[1:], clean[:-1])
    if counted is not None:  # the readings between were seen, and their noise is that of a mean
        sudden &= ~counted.thinned[1:]
        variance = variance / counted.single
    variance[1:] += np.where(sudden, (jump * step) ** 2 / 12, 0.0)
    return np.sqrt(np.cumsum(variance))


def slow_voltage(
    seconds: NDArray[np.float64],
    voltage_V: NDArray[np.float64],
    tau_s: float,
    start_V: float | None,
) -> NDArray[np.float64]:
    """Return the voltage on a slow branch, ``tau dVs/dt = V - Vs``, shape (n,)."""
    slow = np.empty(len(voltage_V))
    if len(slow) == 0:
        return slow
    slow[0] = voltage_V[0] if start_V is None else start_V
    decay = np.exp(-np.diff(seconds) / tau_s)
    for k, keep in enumerate(decay):
        middle = 0.5 * (voltage_V[k] + voltage_V[k + 1])
        slow[k + 1] = middle + (slow[k] - middle) * keep
    return slow
