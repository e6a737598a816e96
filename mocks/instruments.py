"""Which simulated instrument stands behind which driver's name."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from mocks.keithley2450 import Keithley2450
from mocks.keithley2600 import Keithley2600
from mocks.keithley6430 import Keithley2400, Keithley6430
from mocks.keysight_b298x import KeysightB298x
from mocks.keysight_b2900 import KeysightB2900
from mocks.pace import Pace
from mocks.palmsens import Palmsens
from mocks.world import World


class SimulatedSmu(Protocol):
    """An instrument on the wire: lines in, lines out."""

    @property
    def output_on(self) -> bool:
        """True while it may drive what is connected."""
        ...

    async def handle(self, line: str) -> str | bytes | None:
        """Obey one line; return the reply without its line end, or None."""
        ...

    def power_cycle(self) -> None:
        """Lose the mains for a moment: all settings are the defaults, the output is off."""
        ...


@runtime_checkable
class Triggered(Protocol):
    """An instrument that may wait for an edge, deaf to everything but an abort."""

    @property
    def waits_for_edges(self) -> bool:
        """True while an edge begins its readings."""
        ...

    def abort(self) -> None:
        """End the waiting for an edge."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """An instrument whose lines come unasked."""

    def attach(self, tell: Callable[[str], None] | None) -> None:
        """Have all lines told there from now on; None when nobody listens any more."""
        ...


_MODELS: dict[str, Callable[[World, Pace], SimulatedSmu]] = {
    "keithley2400": Keithley2400,
    "keithley2450": Keithley2450,
    "keithley2600": Keithley2600,
    "keithley6430": Keithley6430,
    "keysight_b2900": KeysightB2900,
    "keysight_b298x": KeysightB298x,
    "palmsens_methodscript": Palmsens,
}


# Which model of its driver's family each one is: what it answers when it is asked.
_IS = {
    "keithley2400": "2400",
    "keithley2450": "2450",
    "keithley2600": "2636B",
    "keithley6430": "6430",
    "keysight_b2900": "B2911A",
    "keysight_b298x": "B2987A",
    "palmsens_methodscript": "EmStat4 HR",
}


def simulated_models() -> dict[str, str]:
    """Return the model that stands behind each driver's name."""
    return {name: _IS[name] for name in driver_names()}


def driver_names() -> tuple[str, ...]:
    """Return the drivers that have a simulated instrument."""
    return tuple(sorted(_MODELS))


def refuse_unknown(driver: str) -> None:
    """Raise ValueError for a driver that has no simulated instrument."""
    if driver not in _MODELS:
        raise ValueError(
            f"there is no simulated instrument for the driver {driver!r}; "
            f"there is {', '.join(driver_names())}"
        )


def simulated_smu(driver: str, world: World, pace: Pace) -> SimulatedSmu:
    """Return the simulated instrument of a driver.

    Raises
    ------
    ValueError
        There is none.
    """
    refuse_unknown(driver)
    return _MODELS[driver](world, pace)
