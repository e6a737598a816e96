"""Open-holder calibration: what the holder draws by itself, and how surely.

A staircase of voltages on the empty holder, limited in current so that each rise is a
ramp. Each reading obeys ``I = offset + G V + C dV/dt + C_d (V - V_s) / tau`` with
``tau dV_s/dt = V - V_s``: leakage, stray capacitance, and one slow branch of dielectric
absorption. The gain error of the current range is not in the uncertainties: it is the
same for holder and cell and belongs to whoever combines them.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from potentiostat.errors import InstrumentError

LEVELS_V = (0.0, 2.0, 4.0, 2.0, 0.0)
HOLD_S = 15.0
LARGEST_STRAY_F = 300e-12  # of holders and cables
KINK_V_S = 0.05  # a change of slope between neighbours that marks a corner
TURNED = 0.6  # of the steeper of two slopes: what their difference is at a corner, at least
CORNER_READINGS = 3
GAP_READINGS = 10
MIN_STRETCH = 6
SLOPE_ORDER = 3
MIN_READINGS = 50
AT_BOUND = 0.02
FIRST_TAU_S = 10.0
TAU_S = (1.0, 200.0)  # bounds
# Residuals by which this is no holder of the model: beyond noise, and a share of the current.
MOST_CHI2 = 100.0
MOST_RESIDUAL_RATIO = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderStep:
    """One level of the staircase."""

    voltage_V: float
    hold_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderCalibration:
    """What an open holder draws; sigmas are standard uncertainties.

    Parameters
    ----------
    capacitance_F, conductance_S
        Stray capacitance and leakage.
    dielectric_F, dielectric_tau_s
        The slow branch.
    offset_A
        The range's own zero: subtract it from every current of that range.
    noise_A
        Spread of the residuals of a single reading.
    chi2
        Reduced, by the readings' own sigmas; the uncertainties are already scaled by it
        where it exceeds 1.
    range_A
        Range in which it was measured.
    gain_sigma_ratio
        Standard uncertainty of the gain of that range, from the data sheet. It is in no
        other sigma, because holder and cell have the same: `against_truth` adds it.
    """

    capacitance_F: float
    capacitance_sigma_F: float
    conductance_S: float
    conductance_sigma_S: float
    dielectric_F: float
    dielectric_sigma_F: float
    dielectric_tau_s: float
    offset_A: float
    offset_sigma_A: float
    noise_A: float
    chi2: float
    range_A: float
    gain_sigma_ratio: float = 0.0

    def against_truth(self, value: float, sigma: float) -> float:
        """Return the sigma of a capacitance or conductance against the true one."""
        return math.hypot(sigma, self.gain_sigma_ratio * value)


def staircase() -> tuple[HolderStep, ...]:
    """Return the levels of a calibration."""
    return tuple(HolderStep(voltage_V=v, hold_s=HOLD_S) for v in LEVELS_V)


class HolderNotCalibrated(InstrumentError):
    """The readings of a staircase tell nothing of the holder; says what to change."""


def fit_holder(
    t_s: NDArray[np.float64],
    voltage_V: NDArray[np.float64],
    current_A: NDArray[np.float64],
    current_sigma_A: NDArray[np.float64],
    *,
    voltage_sigma_V: NDArray[np.float64],
    range_A: float,
    t_sigma_s: float = 0.0,
) -> HolderCalibration:
    """Fit the holder's model to the readings of a staircase.

    Parameters
    ----------
    t_s
        Times of the readings, increasing, shape (n,).
    voltage_V, current_A, current_sigma_A, voltage_sigma_V
        Readings and their random sigmas.
    range_A
        Current range of the readings.
    t_sigma_s
        Of a reading's time, random from reading to reading: on a ramp it is an error of
        the voltage.

    Raises
    ------
    HolderNotCalibrated
        Too few readings, no voltage step in them, a voltage that is never steady, or
        currents that are not those of a capacitance, a leakage and a slow branch.
    """
    good = np.isfinite(voltage_V) & np.isfinite(current_A)
    t, v = t_s[good], voltage_V[good]
    i, sigma = current_A[good], current_sigma_A[good]
    volt_sigma = voltage_sigma_V[good]
    if len(t) < MIN_READINGS or np.ptp(v) < 0.1:
        raise HolderNotCalibrated(
            f"{len(t)} readings over {np.ptp(v) if len(v) else 0.0:.2g} V are no "
            "calibration: at least 50 readings and a step of voltage are needed"
        )
    smooth = _away_from_corners(v, t, volt_sigma)
    slope, slope_modes = _slopes(v, t, smooth, volt_sigma, t_sigma_s)
    if np.count_nonzero(smooth) < MIN_READINGS:
        raise HolderNotCalibrated(
            "the voltage is too unsteady for a calibration: open the holder, and keep it "
            "away from movement and mains"
        )
    weight = 1.0 / sigma[smooth]

    def design(tau_s: float) -> NDArray[np.float64]:
        branch = (v - _slow_voltage(t, v, tau_s)) / tau_s
        return np.stack([np.ones_like(v), v, slope, branch], axis=1)[smooth]

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = p[:4] * scale
        return np.asarray((i[smooth] - design(np.exp(p[4])) @ scaled) * weight)

    scale = np.array([1e-14, 1e-13, 1e-11, 1e-12])
    first = design(FIRST_TAU_S)
    start, *_ = np.linalg.lstsq(first * scale * weight[:, None], i[smooth] * weight, rcond=None)
    fit = optimize.least_squares(
        residual,
        np.append(start, np.log(FIRST_TAU_S)),
        bounds=([-np.inf] * 4 + [np.log(TAU_S[0])], [np.inf] * 4 + [np.log(TAU_S[1])]),
        x_scale="jac",
    )
    freedom = max(len(weight) - 5, 1)
    chi2 = float(2 * fit.cost / freedom)
    residual_A = float(np.std(fit.fun * sigma[smooth]))
    largest_A = float(np.max(np.abs(i[smooth])))
    if chi2 > MOST_CHI2 and residual_A > MOST_RESIDUAL_RATIO * largest_A:
        raise HolderNotCalibrated(
            f"the current is off by {residual_A / largest_A:.0%} of its largest value from that of "
            "a capacitance, a leakage and a slow branch: take the cell out, wait until the holder "
            "is quiet, or let it be measured in a wider current range"
        )
    # Without absorption tau says nothing, nor does it where it ran against a bound: the
    # pseudo-inverse leaves it out.
    slopes = np.array(fit.jac, dtype=np.float64)
    if np.min(np.abs(fit.x[4] - np.log(TAU_S))) < AT_BOUND:
        slopes[:, 4] = 0.0
    covariance = np.linalg.pinv(slopes.T @ slopes, rcond=1e-14) * max(chi2, 1.0)
    # An error of a stretch's slope is common to all of its readings.
    reach = covariance / max(chi2, 1.0) @ slopes.T @ (slope_modes[smooth] * weight[:, None])
    covariance = covariance + (fit.x[2] * scale[2]) ** 2 * reach @ reach.T
    value = fit.x[:4] * scale
    error = np.sqrt(np.diag(covariance)[:4]) * scale
    return HolderCalibration(
        capacitance_F=float(value[2]),
        capacitance_sigma_F=float(error[2]),
        conductance_S=float(value[1]),
        conductance_sigma_S=float(error[1]),
        dielectric_F=float(value[3]),
        dielectric_sigma_F=float(error[3]),
        dielectric_tau_s=float(np.exp(fit.x[4])),
        offset_A=float(value[0]),
        offset_sigma_A=float(error[0]),
        noise_A=residual_A,
        chi2=chi2,
        range_A=range_A,
    )


def _away_from_corners(
    v: NDArray[np.float64], t: NDArray[np.float64], sigma_V: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Keep readings on both sides of which the voltage has the same slope."""
    step = np.diff(v) / np.diff(t)
    noise = 8.0 * float(np.median(sigma_V)) / float(np.median(np.diff(t)))
    corner = np.zeros(len(v), dtype=bool)
    # A ramp that is made of steps has small kinks all along: those are no corners.
    steeper = np.maximum(np.abs(step[1:]), np.abs(step[:-1]))
    corner[1:-1] = np.abs(np.diff(step)) > np.maximum(TURNED * steeper, max(KINK_V_S, noise))
    # Where readings were left out, the voltage may have turned unseen.
    gap = np.diff(t) > GAP_READINGS * float(np.median(np.diff(t)))
    corner[1:] |= gap
    corner[:-1] |= gap
    # The window of a reading reaches into its neighbours' interval, and the range needs
    # a few readings to settle.
    near = ndimage.binary_dilation(corner, iterations=CORNER_READINGS)
    near[[0, -1]] = True
    return np.asarray(~near)


def _slopes(
    v: NDArray[np.float64],
    t: NDArray[np.float64],
    smooth: NDArray[np.bool_],
    sigma_V: NDArray[np.float64],
    t_sigma_s: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return dV/dt from a cubic over each stretch between corners, and its error modes.

    Differences of neighbouring readings are noisy, and the stray capacitance would turn
    that noise into current. A leaking holder bends its ramps, so a parabola is too stiff.
    The slopes' covariance is the modes, shape (n, modes), times their transpose.
    """
    slope = np.zeros(len(v))
    stretches, count = ndimage.label(smooth)
    modes = np.zeros((len(v), count * (SLOPE_ORDER + 1)))
    for k in range(count):
        rows = np.flatnonzero(stretches == k + 1)
        if len(rows) < MIN_STRETCH:
            smooth[rows] = False
            continue
        half_s = 0.5 * float(np.ptp(t[rows]))
        x = (t[rows] - t[rows].mean()) / half_s
        powers = np.arange(SLOPE_ORDER + 1)
        # Orthonormal columns: each carries the readings' noise, and none of the others'.
        basis, mix = np.linalg.qr(x[:, None] ** powers)
        derived = powers * x[:, None] ** np.maximum(powers - 1, 0) / half_s
        rise = np.linalg.solve(mix.T, derived.T).T
        slope[rows] = rise @ (basis.T @ v[rows])
        # On a ramp, an error of the time is one of the voltage.
        noise_V = math.hypot(
            float(np.median(sigma_V[rows])), t_sigma_s * float(np.median(np.abs(slope[rows])))
        )
        modes[rows, k * len(powers) : (k + 1) * len(powers)] = noise_V * rise
    return slope, modes


def _slow_voltage(
    t: NDArray[np.float64], v: NDArray[np.float64], tau_s: float
) -> NDArray[np.float64]:
    """Voltage on the slow branch, at rest at the first reading."""
    decay = np.exp(-np.diff(t) / tau_s).tolist()
    slow = [float(v[0])]
    for middle, keep in zip((0.5 * (v[:-1] + v[1:])).tolist(), decay, strict=True):
        slow.append(middle + (slow[-1] - middle) * keep)
    return np.array(slow)
