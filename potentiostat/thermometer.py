"""What some potentiostats measure beside voltage and current: the temperature of the holder."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermometerSpec:
    """What a model's input for a sensor can measure.

    Parameters
    ----------
    sensor
        In words, as it is wired.
    low_K, high_K
        Outside of these it says nothing that can be believed.
    error_K
        Largest error of sensor and input together; it does not average away.
    """

    sensor: str
    low_K: float
    high_K: float
    error_K: float

    @property
    def sigma_K(self) -> float:
        """Standard uncertainty: an error that may lie anywhere within its limits."""
        return self.error_K / math.sqrt(3.0)

    def holds(self, temperature_K: float) -> bool:
        """Tell whether a temperature can be measured; never one that is not a number."""
        return self.low_K <= temperature_K <= self.high_K


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureReading:
    """One answer of a thermometer, with the host stamps around the question.

    Parameters
    ----------
    temperature_K, sigma_K
        NaN where the answer is none that can be believed.
    fault
        Why it cannot be believed; "" for a good one.
    """

    read_start_ns: int
    read_end_ns: int
    temperature_K: float
    sigma_K: float
    fault: str = ""

    @classmethod
    def unknown(cls, fault: str, *, read_start_ns: int, read_end_ns: int) -> "TemperatureReading":
        """Return an answer that tells nothing, and why."""
        return cls(
            read_start_ns=read_start_ns,
            read_end_ns=read_end_ns,
            temperature_K=math.nan,
            sigma_K=math.nan,
            fault=fault,
        )


@runtime_checkable
class Thermometer(Protocol):
    """A potentiostat whose `thermometer` is not None has this, too."""

    def read_temperature(self) -> TemperatureReading:
        """Ask for the temperature between two readings; changes nothing of the source.

        An answer that makes no sense comes back with its fault.

        Raises
        ------
        InstrumentError
            There was no answer, or the instrument refuses the question.
        """
        ...
