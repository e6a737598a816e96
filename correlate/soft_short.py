"""Soft shorts: sudden steps of the voltage at a constant current, and slow self-discharge.

A short that closes takes ``V / R`` away from the cell, and the voltage falls by that
current times the cell's own resistance; when it opens the voltage comes back. A step is the
mean of the last readings less the line through those before them. Slower things than the
line can follow (relaxation after a change of the set-point) are no steps, so readings near
a change are left out, and those for a while after a step. False alarms are as rare as
`FALSE_ALARMS_PER_HOUR`, for readings that scatter evenly about a line.
"""

import math
from collections import deque
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from correlate.line import weighted_line

BASE_READINGS = 20  # of the line
STEP_READINGS = 4
HOLD_OFF_S = 5.0  # after a change of what is held
BLIND_S = 2.0  # after a step: the stray capacitance follows it, and is not to be seen again
FALSE_ALARMS_PER_HOUR = 0.01
READINGS_PER_HOUR = 3600 / 0.045  # of a quick instrument: each is a chance for an alarm
THRESHOLD = -NormalDist().inv_cdf(FALSE_ALARMS_PER_HOUR / READINGS_PER_HOUR / 2)
SMALLEST_V = 3e-4  # where relaxation is not told from a step
WINDOW = BASE_READINGS + STEP_READINGS

Array = NDArray[np.float64]


def _kernel() -> Array:
    """Weights of a window's readings that give the size of a step at its end."""
    x = np.arange(BASE_READINGS) - (BASE_READINGS - 1) / 2
    ahead = BASE_READINGS / 2 + STEP_READINGS / 2
    line = 1 / BASE_READINGS + ahead * x / np.sum(x**2)
    return np.concatenate([-line, np.full(STEP_READINGS, 1 / STEP_READINGS)])


KERNEL = _kernel()
KERNEL_NORM = float(np.linalg.norm(KERNEL))


@dataclass(frozen=True, slots=True, kw_only=True)
class VoltageStep:
    """The voltage fell or rose suddenly while nothing was changed.

    Parameters
    ----------
    t_s
        Middle of the readings that show it.
    step_V, sigma_V
        Its size; negative where a short closes.
    voltage_V
        After it.
    significance
        Size by sigma.
    """

    t_s: float
    step_V: float
    sigma_V: float
    voltage_V: float

    @property
    def significance(self) -> float:
        """Size by sigma."""
        return abs(self.step_V) / self.sigma_V

    @property
    def closes(self) -> bool:
        """True where it looks like a short that closes."""
        return self.step_V < 0

    def short_ohm(self, cell_ohm: float) -> float:
        """Return the resistance of the short, for a cell of a resistance."""
        return abs(self.voltage_V * cell_ohm / self.step_V)


class ShortWatch:
    """Looks for steps reading by reading. Pure: it is told times and voltages."""

    def __init__(self) -> None:
        self._began_s = math.nan
        self._blind_until_s = -math.inf
        self._seen: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def changed(self) -> None:
        """Begin anew: what is held has changed."""
        self._began_s = math.nan
        self._seen.clear()

    def take(self, t_s: float, voltage_V: float, sigma_V: float) -> VoltageStep | None:
        """Take a valid reading; return the step that it completes, or None."""
        if math.isnan(self._began_s):
            self._began_s = t_s
        if t_s - self._began_s < HOLD_OFF_S or t_s < self._blind_until_s:
            return None
        self._seen.append((t_s, voltage_V))
        if len(self._seen) < WINDOW:
            return None
        times, voltages = np.array(self._seen).T
        step = _step(times, voltages, sigma_V)
        if step is not None:
            self._seen.clear()  # a line across a step would see it again, upside down
            self._blind_until_s = t_s + BLIND_S
        return step


def _step(t_s: Array, voltage_V: Array, sigma_V: float) -> VoltageStep | None:
    size_V = float(KERNEL @ voltage_V)
    error_V = sigma_V * KERNEL_NORM
    if abs(size_V) < max(THRESHOLD * error_V, SMALLEST_V):
        return None
    return VoltageStep(
        t_s=float(np.mean(t_s[-STEP_READINGS:])),
        step_V=size_V,
        sigma_V=error_V,
        voltage_V=float(voltage_V[-1]),
    )


def find_steps(
    t_s: Array, voltage_V: Array, sigma_V: Array, held: NDArray[np.int_]
) -> list[VoltageStep]:
    """Return the sudden steps of a record.

    Parameters
    ----------
    t_s, voltage_V, sigma_V
        Readings, shape (n,); those that are not numbers are left out.
    held
        A number for each reading that changes with what is held; negative where no
        steps are sought.
    """
    found: list[VoltageStep] = []
    good = np.isfinite(voltage_V)
    t, v, sigma, same = t_s[good], voltage_V[good], sigma_V[good], held[good]
    bounds = np.flatnonzero(np.diff(same)) + 1
    for rows in np.split(np.arange(len(t)), bounds):
        if len(rows) == 0 or same[rows[0]] < 0:
            continue
        found += _in_stretch(*(x[rows] for x in (t, v, sigma)))
    return found


def _in_stretch(t: Array, v: Array, sigma: Array) -> list[VoltageStep]:
    """Return the steps while one thing is held."""
    late = t - t[0] >= HOLD_OFF_S
    t, v = t[late], v[late]
    if len(t) < WINDOW:
        return []
    found: list[VoltageStep] = []
    error_V = float(np.median(sigma))
    sizes = np.convolve(v, KERNEL[::-1], mode="valid")
    hits = np.flatnonzero(np.abs(sizes) >= max(THRESHOLD * error_V * KERNEL_NORM, SMALLEST_V))
    begin = 0
    while len(hits := hits[hits >= begin]):
        # The step is where the readings of its end are all beyond it.
        near = hits[0] + np.arange(min(STEP_READINGS, len(sizes) - hits[0]))
        at = int(near[np.argmax(np.abs(sizes[near]))])
        step = _step(t[at : at + WINDOW], v[at : at + WINDOW], error_V)
        if step is not None:
            found.append(_settled(step, t, v, at, error_V))
        begin = int(np.searchsorted(t, t[at + WINDOW - 1] + BLIND_S))
    return found


def _settled(step: VoltageStep, t: Array, v: Array, at: int, error_V: float) -> VoltageStep:
    """Return a step with its size once the stray capacitance has followed."""
    late = slice(at + WINDOW + STEP_READINGS, at + WINDOW + STEP_READINGS + BASE_READINGS // 2)
    if len(t[late]) < BASE_READINGS // 2:
        return step
    base = slice(at, at + BASE_READINGS)
    line = weighted_line(t[base], v[base], np.full(BASE_READINGS, error_V))
    t_late, v_late = float(np.mean(t[late])), float(np.mean(v[late]))
    size_V = float(v_late - (line.offset + line.slope * t_late))
    if size_V * step.step_V < step.step_V**2:
        return step  # it has changed again, or does not settle
    far_s = t_late - float(np.mean(t[base]))
    variance = error_V**2 * (1 / len(t[late]) + 1 / BASE_READINGS)
    return replace(
        step,
        step_V=size_V,
        sigma_V=math.sqrt(variance + (line.slope_sigma * far_s) ** 2),
        voltage_V=v_late,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfDischarge:
    """How fast a resting cell loses its voltage, and what resistance would do that.

    Parameters
    ----------
    ohm, sigma_ohm
        Resistance across the cell; NaN where the voltage does not surely fall.
    at_least_ohm
        What it has at least (95 %).
    """

    rate_V_s: float
    rate_sigma_V_s: float
    ohm: float
    sigma_ohm: float
    at_least_ohm: float


def self_discharge(
    t_s: Array, voltage_V: Array, sigma_V: Array, *, capacitance_F: float
) -> SelfDischarge:
    """Return what a record at open circuit says of the resistance across a cell.

    ``dV/dt = -V / (R C)``.

    Parameters
    ----------
    capacitance_F
        Stray capacitance, and the cell's own ``dQ/dV`` where it rests.

    Raises
    ------
    ValueError
        There are fewer than two readings, or the voltage is not positive.
    """
    mean_V = float(np.mean(voltage_V))
    if mean_V <= 0:
        raise ValueError(f"a cell at {mean_V:.3g} V has nothing to discharge")
    # An exponential is a line in its logarithm.
    line = weighted_line(t_s - np.mean(t_s), np.log(voltage_V / mean_V), sigma_V / mean_V)
    rate, sigma = line.slope * mean_V, line.slope_sigma * mean_V
    fastest = max(-rate, 0.0) + 1.645 * sigma
    sure = rate < -2.0 * sigma
    ohm = -mean_V / (rate * capacitance_F) if sure else math.nan
    return SelfDischarge(
        rate_V_s=rate,
        rate_sigma_V_s=sigma,
        ohm=ohm,
        sigma_ohm=ohm * sigma / abs(rate) if sure else math.nan,
        at_least_ohm=mean_V / (fastest * capacitance_F),
    )
