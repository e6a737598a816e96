"""What goes into a titration (GITT), and what comes out of it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """When the current flowed, and from when to when it rested about it, in s.

    Parameters
    ----------
    clock_sigma_s
        Of the beginning: between which readings the source changed is all that is known.
    """

    rest_s: float
    begin_s: float
    end_s: float
    rest_end_s: float
    clock_sigma_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known beside the readings.

    Parameters
    ----------
    thickness_m, thickness_sigma_m
        Of the film.
    stray_F
        Across the cell: it delays the ionic current by ``R C``.
    settling_s
        Of the current range.
    offset_sigma_A
        By how much the ionic current may be wrong all the time.
    gain_sigma
        Of the current, over the current: the diffusivity does not feel it.
    ionic
        False when the charge is the instrument's, for want of a calibration.
    """

    thickness_m: float
    thickness_sigma_m: float = 0.0
    stray_F: float = 0.0
    settling_s: float = 0.0
    offset_sigma_A: float = 0.0
    gain_sigma: float = 0.0
    ionic: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Titration:
    """What one pulse tells; NaN where it tells nothing.

    Parameters
    ----------
    begin_s, duration_s
        Of the pulse.
    current_A
        Ionic, by which pulse and rest differ.
    step_V, step_sigma_V
        Of the relaxed voltage, from rest to rest.
    remaining_V
        Of the relaxation, after the end of the rests.
    charge_C
        Ionic, from rest to rest.
    root_slope, root_slope_sigma
        ``dE / dsqrt(t)`` in V/s^0.5.
    ohm, ohm_sigma
        From the intercept.
    diffusivity_m2_s, diffusivity_sigma_m2_s
        By the formula.
    fit_m2_s, fit_sigma_m2_s, fit_scatter
        By the fit of the whole transient; scatter is 1 when noise explains all of it.
    reasons
        Why the formula is not to be believed here.
    """

    begin_s: float
    duration_s: float
    current_A: float = math.nan
    step_V: float = math.nan
    step_sigma_V: float = math.nan
    remaining_V: float = math.nan
    charge_C: float = math.nan
    root_slope: float = math.nan
    root_slope_sigma: float = math.nan
    ohm: float = math.nan
    ohm_sigma: float = math.nan
    diffusivity_m2_s: float = math.nan
    diffusivity_sigma_m2_s: float = math.nan
    fit_m2_s: float = math.nan
    fit_sigma_m2_s: float = math.nan
    fit_scatter: float = math.nan
    reasons: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """True when nothing speaks against the diffusivity."""
        return not self.reasons
