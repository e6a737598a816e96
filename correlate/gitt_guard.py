"""When the formula of a titration (GITT) is not to be believed, and why."""

import math

from correlate.titration import Titration

LONGEST_SHARE = 0.1  # of L**2 / D that a pulse may last
SHORTEST_REST = 0.4  # of L**2 / D, until a rest is within 5 % of its end
LARGEST_CHANGE = 0.03  # of the slope against the root of time, from 0 to the end
LARGEST_BIAS = 0.05  # of a diffusivity that is called valid
LARGEST_REST = 0.05  # of the step, that may still be to come at the end of a rest
SIGMAS = 2.0  # by which something must stand out of its own uncertainty


def objections(
    found: Titration,
    change: float,
    change_sigma: float,
    bias: tuple[float, float],
    square_m2: float,
) -> tuple[str, ...]:
    """Return what speaks against a diffusivity; nothing when all is well.

    Parameters
    ----------
    change, change_sigma
        Of the slope against the root of time, from the beginning to the end of the pulse.
    bias
        Of the diffusivity as the neighbours' steps tell it, and its sigma.
    square_m2
        Thickness squared.
    """
    moves = found.root_slope * found.current_A > 0 and found.step_V * found.charge_C > 0
    tests = [_not_relaxed(found)]
    if moves:
        tests += [
            _too_long(found, square_m2),
            _not_straight(change, change_sigma),
            _not_small(*bias),
            _not_alike(found),
        ]
    else:
        tests.append("the voltage does not move the way that the current drives it")
    return tuple(reason for reason in tests if reason)


def _too_long(found: Titration, square_m2: float) -> str:
    pairs = (
        (found.diffusivity_m2_s, found.diffusivity_sigma_m2_s),
        (found.fit_m2_s, found.fit_sigma_m2_s),
    )
    least = [d - SIGMAS * sigma for d, sigma in pairs if math.isfinite(d)]
    share = found.duration_s * max(least) / square_m2
    if share <= LONGEST_SHARE * (1 + LARGEST_BIAS):
        return ""
    return (
        f"the pulse lasts {share:.2g} of L2/D, and the far side of the film is felt "
        f"after {LONGEST_SHARE:g}"
    )


def _not_straight(change: float, sigma: float) -> str:
    if sigma > LARGEST_BIAS:
        return "noise or a sharp bend hides whether the voltage is linear in the root of time"
    if abs(change) - SIGMAS * sigma <= LARGEST_CHANGE:
        return ""
    return (
        "the voltage is not linear in the root of time: "
        f"its slope changes by {100 * change:.1f} % over the pulse"
    )


def _not_small(bias: float, sigma: float) -> str:
    if abs(bias) - SIGMAS * sigma <= LARGEST_BIAS:
        return ""
    return (
        "the pulse is too large: by the steps about it the slope of the open-circuit voltage "
        f"changes by {100 * bias:.1f} % over what the surface sees"
    )


def _not_relaxed(found: Titration) -> str:
    share = abs(found.remaining_V / found.step_V)
    if share <= LARGEST_REST:
        return ""
    return f"a rest was too short: {100 * share:.0f} % of the step were still to come at its end"


def _not_alike(found: Titration) -> str:
    if not math.isfinite(found.fit_m2_s):
        return ""
    apart = found.diffusivity_m2_s - found.fit_m2_s
    if abs(apart) + found.fit_sigma_m2_s <= LARGEST_BIAS * found.fit_m2_s:
        return ""
    return (
        f"the fit of the whole transient gives {found.fit_m2_s:.3g} m2/s, "
        f"the formula {found.diffusivity_m2_s:.3g} m2/s"
    )
