"""Puts what a thermometer says into the session, and makes events of what matters."""

from collections.abc import Sequence

import numpy as np

from potentiostat.limits import Envelope
from potentiostat.thermometer import TemperatureReading
from session.recorder import Recorder
from session.records import TEMPERATURE_DTYPE

KIND = "temperature"


class TemperatureRecord:
    """Records each answer, and an event when it becomes known, unknown, or beyond a limit.

    Parameters
    ----------
    envelope
        With the limits of the temperature, if there are any.
    """

    def __init__(self, recorder: Recorder, envelope: Envelope) -> None:
        self._recorder = recorder
        self._envelope = envelope
        self._state: str | None = None  # what was said last

    async def take(self, readings: Sequence[TemperatureReading]) -> None:
        """Record some answers, in their order."""
        rows = np.zeros(len(readings), TEMPERATURE_DTYPE)
        for row, reading in zip(rows, readings, strict=True):
            row["t_ns"] = (reading.read_start_ns + reading.read_end_ns) // 2
            row["read_start_ns"], row["read_end_ns"] = reading.read_start_ns, reading.read_end_ns
            row["temperature"], row["temperature_sigma"] = reading.temperature_K, reading.sigma_K
        await self._recorder.temperatures(rows)
        for reading in readings:
            await self._tell(reading)

    async def _tell(self, reading: TemperatureReading) -> None:
        """Make an event of an answer that is not as the one before."""
        beyond = self._envelope.temperature_violation(reading.temperature_K)
        state = "unknown" if reading.fault else "beyond" if beyond else "known"
        if state == self._state:
            return
        self._state = state
        known = f"{reading.temperature_K:.5g} K ± {reading.sigma_K:.2g} K (1 sigma)"
        await self._recorder.event(
            reading.read_end_ns,
            KIND,
            "guardian",
            reading.fault or beyond or f"the temperature is {known}",
            {
                "state": state,
                "temperature_K": reading.temperature_K,
                "sigma_K": reading.sigma_K,
                "fault": reading.fault,
            },
        )
