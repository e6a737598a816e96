"""Where the uncertainty of pairing a sample with a frame comes from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingBudget:
    """Standard uncertainties in ns, by cause, and the hard bound beside them.

    Parameters
    ----------
    sample_clock_ns, frame_clock_ns
        Of the two clock fits at the stamps.
    sample_step_ns
        Of the instrument's time read-out (its step over the square root of 12).
    sample_bound_ns, frame_bound_ns
        Half the smallest round trip of each clock: no fit can see inside it.
    """

    sample_clock_ns: float
    frame_clock_ns: float
    sample_step_ns: float
    sample_bound_ns: float
    frame_bound_ns: float

    @property
    def sigma_ns(self) -> float:
        """Standard uncertainty of a sample-to-frame time difference."""
        return float(
            np.sqrt(self.sample_clock_ns**2 + self.frame_clock_ns**2 + self.sample_step_ns**2)
        )

    @property
    def bound_ns(self) -> float:
        """Largest error that asymmetric delays could hide."""
        return self.sample_bound_ns + self.frame_bound_ns
