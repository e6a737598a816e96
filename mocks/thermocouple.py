"""A thermocouple at the simulated holder, as an instrument's input reads it."""

import math

import numpy as np

from mocks.world import World

ERROR_K = math.hypot(2.5, 1.5)  # of a type K wire of class 2, and of the input
NOISE_K = 0.05
ROOM_K = 296.15  # which another sensor, beside the holder, would tell
_OWN_RANDOM = 0x7E3  # so that nothing else of the world's seed is drawn differently

FROM_KELVIN = {
    "K": lambda kelvin: kelvin,
    "C": lambda kelvin: kelvin - 273.15,
    "F": lambda kelvin: kelvin * 1.8 - 459.67,
}


class Thermocouple:
    """One wire, whose error is drawn once, evenly within its limits.

    Attributes
    ----------
    is_open
        True when it has come off, whatever the scenario says.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = np.random.default_rng([world.seed, _OWN_RANDOM])
        share = world.scenario.smu.share_of_specification
        self._error_K = share * ERROR_K * self._random.uniform(-1.0, 1.0)
        self.is_open = False

    def kelvin(self) -> float:
        """Return what it says now; NaN where it has come off."""
        true_K = self._world.temperature_K
        self._world.record("temperature", t_ns=self._world.now_ns, temperature=true_K)
        off = self._world.mated_s >= self._world.scenario.heat.thermocouple_opens_s
        if self.is_open or off:
            return math.nan
        return true_K + self._error_K + float(self._random.normal(0.0, NOISE_K))
