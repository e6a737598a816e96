"""By how much a meter is late, told by steps of a current that its instrument sources itself.

Behind any linear filter a step ``dI`` of the current is read with ``T dI`` missing, once it has
settled, where ``T`` is the filter's group delay. A sourced current is level after its step, so
what is missing is the area between its settled level and its readings.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SETTLED_DELAYS = 5.0  # of the longest delay, after which a reading is level
FEWEST_LEVEL = 5  # readings
CLEAR = 20.0  # a step stands out of the noise of its levels by so much

Floats = NDArray[np.float64]


def meter_delay(
    seconds: Floats,
    current_A: Floats,
    setpoint_A: Floats,
    sourced: NDArray[np.bool_],
    *,
    longest_s: float,
) -> tuple[float, float] | None:
    """Return the group delay of a meter in s, and its sigma; None where no step tells.

    Parameters
    ----------
    seconds
        Middle of each reading, increasing, shape (n,).
    current_A, setpoint_A
        What was read and what was asked for, shape (n,).
    sourced
        Where a current was sourced and read by a meter, shape (n,).
    longest_s
        That the delay can be, by the data sheet.

    Notes
    -----
    A step falls between two readings, anywhere: the time of one reading over ``sqrt(12)`` is the
    uncertainty that each step has of its own.
    """
    found = [
        delay
        for before, after in pairwise(_levels(setpoint_A, sourced, current_A))
        if (delay := _delay(seconds, current_A, before, after, longest_s)) is not None
    ]
    if not found:
        return None
    delay_s, sigma_s = np.array(found).T
    weight = sigma_s**-2.0
    mean_s = float(np.average(delay_s, weights=weight))
    chi2 = float(weight @ (delay_s - mean_s) ** 2) / max(len(found) - 1, 1)
    sigma = float(np.sum(weight)) ** -0.5 * math.sqrt(max(chi2, 1.0))
    return min(max(mean_s, 0.0), longest_s), sigma


def _levels(
    setpoint_A: Floats, sourced: NDArray[np.bool_], current_A: Floats
) -> Iterator[tuple[int, int]]:
    """Yield the rows of each stretch of one set-point, first and end; a gap parts them."""
    usable = sourced & np.isfinite(current_A) & np.isfinite(setpoint_A)
    changes = np.flatnonzero((np.diff(setpoint_A) != 0) | (np.diff(usable.astype(np.int8)) != 0))
    bounds = [0, *(changes + 1).tolist(), len(setpoint_A)]
    for first, end in pairwise(bounds):
        yield (first, end) if usable[first:end].all() else (end, end)


def _delay(
    seconds: Floats,
    current_A: Floats,
    before: tuple[int, int],
    after: tuple[int, int],
    longest_s: float,
) -> tuple[float, float] | None:
    """Return the delay that one step tells, and its sigma."""
    if before[0] == before[1] or after[0] == after[1] or before[1] != after[0]:
        return None
    was = _level(seconds, current_A, before, longest_s)
    is_ = _level(seconds, current_A, after, longest_s)
    if was is None or is_ is None:
        return None
    step_A = is_[0] - was[0]
    noise_A = math.hypot(was[1], is_[1])
    if not abs(step_A) > CLEAR * noise_A:
        return None
    first, settled_s = after[0], seconds[after[0]] + SETTLED_DELAYS * longest_s
    rows = np.arange(first, after[1])[seconds[after[0] : after[1]] <= settled_s]
    missing_A = is_[0] - current_A[rows]
    apart_s = float(seconds[first] - seconds[first - 1])
    area = float(np.trapezoid(missing_A, seconds[rows])) if len(rows) > 1 else 0.0
    area += 0.5 * apart_s * 0.5 * (step_A + float(missing_A[0]))
    each_s = float(np.median(np.diff(seconds[rows]))) if len(rows) > 1 else apart_s
    spread_A = float(np.std(current_A[rows[-1] : after[1]])) if after[1] - rows[-1] > 1 else noise_A
    lasted_s = float(seconds[rows[-1]] - seconds[first])
    noise_C = math.hypot(is_[1] * lasted_s, spread_A * math.sqrt(each_s * max(lasted_s, each_s)))
    return area / step_A, math.hypot(apart_s / math.sqrt(12.0), noise_C / step_A)


def _level(
    seconds: Floats, current_A: Floats, rows: tuple[int, int], longest_s: float
) -> tuple[float, float] | None:
    """Return the settled level of a stretch, and its sigma; None where it did not settle."""
    first, end = rows
    level = current_A[first:end][seconds[first:end] > seconds[first] + SETTLED_DELAYS * longest_s]
    if len(level) < FEWEST_LEVEL:
        return None
    return float(np.mean(level)), float(np.std(level, ddof=1)) / math.sqrt(len(level))
