"""Impedance from a multi-sine: complex amplitudes of voltage and current, and their ratio.

Voltage and current are each fitted with a sine and a cosine at every frequency and with a
slow drift on their own times, by least squares.
Each complex amplitude carries the uncertainty of the fit, with the scatter about it
measured near that frequency, so that noise, distortion and drift all count.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRIFT_ORDER = 2
SCATTER_OCTAVES = 1.0  # on each side of a frequency, over which the scatter is taken
MIN_SPARE_READINGS = 8


class TooFewReadings(ValueError):
    """The readings do not determine an amplitude at every frequency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amplitudes:
    """Complex amplitudes, shape (n,): a signal is the real part of ``sum a exp(j w t)``.

    Parameters
    ----------
    sigma
        Standard uncertainty of the real and of the imaginary part, each.
    """

    frequency_Hz: NDArray[np.float64]
    value: NDArray[np.complex128]
    sigma: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Impedance:
    """An impedance spectrum, shape (n,).

    Parameters
    ----------
    z_sigma_ohm
        Standard uncertainty of the real and of the imaginary part, each.
    """

    frequency_Hz: NDArray[np.float64]
    z_ohm: NDArray[np.complex128]
    z_sigma_ohm: NDArray[np.float64]


def fit_amplitudes(
    t_s: NDArray[np.float64],
    value: NDArray[np.float64],
    frequency_Hz: NDArray[np.float64],
) -> Amplitudes:
    """Fit a signal with sines of known frequencies and a slow drift.

    Parameters
    ----------
    t_s, value
        Shape (m,); rows that are not finite are left out.
    frequency_Hz
        Shape (n,).

    Raises
    ------
    TooFewReadings
        There are fewer readings than unknowns and a few to spare.
    """
    good = np.isfinite(t_s) & np.isfinite(value)
    t_s, value = t_s[good], value[good]
    n = len(frequency_Hz)
    unknowns = 2 * n + DRIFT_ORDER + 1
    if len(t_s) < unknowns + MIN_SPARE_READINGS:
        raise TooFewReadings(
            f"{len(t_s)} readings do not determine {n} frequencies; "
            f"{unknowns + MIN_SPARE_READINGS} are needed"
        )
    middle_s, half_s = (t_s[0] + t_s[-1]) / 2, max((t_s[-1] - t_s[0]) / 2, 1e-9)
    phase = 2 * np.pi * np.outer(t_s, frequency_Hz)
    drift = np.polynomial.legendre.legvander((t_s - middle_s) / half_s, DRIFT_ORDER)
    design = np.hstack([np.cos(phase), np.sin(phase), drift])
    found, *_ = np.linalg.lstsq(design, value, rcond=None)
    residual = value - design @ found
    # The variance of a parameter per unit of variance of a reading.
    spread = np.diag(np.linalg.pinv(design.T @ design))
    share = (spread[:n] + spread[n : 2 * n]) / 2
    spare = len(t_s) - unknowns
    white = float(np.sum(residual**2)) / spare
    near = _scatter_near(t_s, residual, frequency_Hz) * len(t_s) / spare
    return Amplitudes(
        frequency_Hz=frequency_Hz,
        value=found[:n] - 1j * found[n : 2 * n],
        sigma=np.sqrt(share * np.maximum(near, white)),
    )


def _scatter_near(
    t_s: NDArray[np.float64], residual: NDArray[np.float64], frequency_Hz: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the variance that white noise with the scatter near each frequency would have.

    The fit has taken what lies at the frequencies themselves, so the scatter is asked at
    the multiples of the slowest that fit into the record and lie between them.
    """
    length_s = t_s[-1] - t_s[0]
    step_Hz = 1.0 / length_s
    grid_Hz = np.arange(1, int(frequency_Hz.max() * 2**SCATTER_OCTAVES / step_Hz) + 1) * step_Hz
    apart = np.min(np.abs(grid_Hz[:, None] - frequency_Hz[None, :]), axis=1) > 0.75 * step_Hz
    grid_Hz = grid_Hz[apart]
    power = np.abs(np.exp(-2j * np.pi * np.outer(grid_Hz, t_s)) @ residual) ** 2 / len(t_s)
    factor = 2.0**SCATTER_OCTAVES
    return np.array(
        [
            float(np.mean(power[near])) if np.any(near) else 0.0
            for near in ((grid_Hz >= f / factor) & (grid_Hz <= f * factor) for f in frequency_Hz)
        ]
    )


def impedance(voltage: Amplitudes, current: Amplitudes) -> Impedance:
    """Return the ratio of two sets of amplitudes with the same frequencies.

    Notes
    -----
    A current whose amplitude is not three times its own uncertainty gives NaN: the ratio
    of two noises says nothing.
    """
    size_A, size_V = np.abs(current.value), np.abs(voltage.value)
    known = size_A > 3 * current.sigma
    with np.errstate(divide="ignore", invalid="ignore"):
        z_ohm = np.where(known, voltage.value / current.value, np.nan)
        ratio = np.hypot(voltage.sigma / size_V, current.sigma / size_A)
        sigma = np.abs(z_ohm) * ratio
    return Impedance(
        frequency_Hz=voltage.frequency_Hz, z_ohm=z_ohm, z_sigma_ohm=np.where(known, sigma, np.nan)
    )


def with_lag(found: Impedance, bound_s: float) -> Impedance:
    """Carry along that voltage and current may be apart in time, by ``bound_s`` at most.

    Anything up to the bound is as likely: its standard uncertainty is ``bound / sqrt(3)``.
    """
    turn = 2 * np.pi * found.frequency_Hz * bound_s / np.sqrt(3.0)
    sigma_ohm = np.hypot(found.z_sigma_ohm, np.abs(found.z_ohm) * turn)
    return Impedance(frequency_Hz=found.frequency_Hz, z_ohm=found.z_ohm, z_sigma_ohm=sigma_ohm)


def without_delay(found: Impedance, delay_s: float, delay_sigma_s: float) -> Impedance:
    """Take out that the current was read by ``delay_s`` later than the voltage.

    A delay turns the phase of the current by ``-w delay``, and so that of the impedance by
    the same the other way; the uncertainty of the delay is carried along.
    """
    omega = 2 * np.pi * found.frequency_Hz
    z_ohm = found.z_ohm * np.exp(-1j * omega * delay_s)
    sigma_ohm = np.hypot(found.z_sigma_ohm, np.abs(z_ohm) * omega * delay_sigma_s)
    return Impedance(frequency_Hz=found.frequency_Hz, z_ohm=z_ohm, z_sigma_ohm=sigma_ohm)


def with_gain(found: Impedance, limit_ratio: float) -> Impedance:
    """Carry along a gain error of the meter, as likely anywhere within its limit."""
    own_ohm = np.abs(found.z_ohm) * limit_ratio / np.sqrt(3.0)
    sigma_ohm = np.hypot(found.z_sigma_ohm, own_ohm)
    return Impedance(frequency_Hz=found.frequency_Hz, z_ohm=found.z_ohm, z_sigma_ohm=sigma_ohm)


def without_holder(
    found: Impedance,
    *,
    capacitance_F: float,
    capacitance_sigma_F: float,
    conductance_S: float,
    conductance_sigma_S: float,
) -> Impedance:
    """Take stray capacitance and leakage, which lie across the cell, out of a spectrum.

    Notes
    -----
    ``Y = 1 / Z - G - j w C``; the uncertainties of C and G are carried along.
    """
    omega = 2 * np.pi * found.frequency_Hz
    with np.errstate(divide="ignore", invalid="ignore"):
        measured_S = 1 / found.z_ohm
        cell_S = measured_S - conductance_S - 1j * omega * capacitance_F
        sigma_S = np.sqrt(
            (found.z_sigma_ohm * np.abs(measured_S) ** 2) ** 2
            + conductance_sigma_S**2
            + (omega * capacitance_sigma_F) ** 2
        )
        known = np.abs(cell_S) > 3 * sigma_S
        z_ohm = np.where(known, 1 / cell_S, np.nan)
        sigma_ohm = np.where(known, sigma_S / np.abs(cell_S) ** 2, np.nan)
    return Impedance(frequency_Hz=found.frequency_Hz, z_ohm=z_ohm, z_sigma_ohm=sigma_ohm)
