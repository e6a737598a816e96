"""Random noise of a source-measure unit's readings, from physics and resolution."""

import math

BOLTZMANN_J_K = 1.380649e-23
ELEMENTARY_C = 1.602176634e-19
ROOM_K = 298.15


def current_sigma_A(
    current_A: float, *, feedback_ohm: float, window_s: float, resolution_A: float
) -> float:
    """Return the standard deviation of one current reading.

    Shot noise of the current and Johnson noise of the feedback resistor, averaged over
    a boxcar window (equivalent noise bandwidth 1/(2 T)), and the reading's last digit.
    """
    density = 2 * ELEMENTARY_C * abs(current_A) + 4 * BOLTZMANN_J_K * ROOM_K / feedback_ohm
    return math.sqrt(density / (2 * window_s) + resolution_A**2 / 12)


def voltage_sigma_V(*, noise_V_at_1_plc: float, window_s: float, step_V: float) -> float:
    """Return the standard deviation of one voltage reading."""
    return math.hypot(noise_V_at_1_plc * math.sqrt(0.02 / window_s), step_V / math.sqrt(12))
