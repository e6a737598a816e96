"""Random noise of a source-measure unit's readings, from physics and resolution."""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BOLTZMANN_J_K = 1.380649e-23
ELEMENTARY_C = 1.602176634e-19
ROOM_K = 298.15

Current = TypeVar("Current", float, NDArray[np.float64])


def current_sigma_A(
    current_A: Current,
    *,
    feedback_ohm: float,
    window_s: float,
    resolution_A: float,
    own_A: float = 0.0,
) -> Current:
    """Return the standard deviation of one current reading, or of each of many.

    Shot noise of the current and Johnson noise of the feedback resistor, averaged over
    a boxcar window (equivalent noise bandwidth 1/(2 T)), the reading's last digit, and
    what else the instrument has of its own (``own_A``, of one reading).
    """
    johnson = 4 * BOLTZMANN_J_K * ROOM_K / feedback_ohm
    always = johnson / (2 * window_s) + resolution_A**2 / 12 + own_A**2
    variance = abs(current_A) * (ELEMENTARY_C / window_s) + always
    sigma_A: Current = variance**0.5
    return sigma_A


def voltage_sigma_V(*, noise_V_at_1_plc: float, window_s: float, step_V: float) -> float:
    """Return the standard deviation of one voltage reading."""
    return math.hypot(noise_V_at_1_plc * math.sqrt(0.02 / window_s), step_V / math.sqrt(12))
