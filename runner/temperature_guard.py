"""When a guardian asks for the temperature, and what it makes of the answers.

The answers come beside the readings, about once a second. One that cannot be believed is
told. Where a limit or a rule hangs on the temperature, not to know it for some seconds is
as bad as a temperature beyond the limit.
"""

import math

from potentiostat.errors import InstrumentError, NoReply
from potentiostat.limits import Envelope
from potentiostat.thermometer import TemperatureReading, Thermometer
from runner.messages import EndKind

ASK_S = 1.0
STALE_S = 3.0  # without an answer that can be believed: the temperature is not known any more
SELDOM_S = 60.0  # between questions that hold up the readings for nothing
FIRST_TRIES = 3  # before a set-point that must not be put on at an unknown temperature


class TemperatureGuard:
    """Asks a thermometer in time, and judges what it says.

    Parameters
    ----------
    thermometer
        Asked between two readings.
    envelope
        Its limits of the temperature; None where no cell is attached.
    start_ns
        Host time now.
    """

    def __init__(
        self, thermometer: Thermometer, envelope: Envelope | None, *, start_ns: int
    ) -> None:
        self._thermometer = thermometer
        self._envelope = envelope
        self._next_ns = start_ns
        self._known_ns: int | None = None  # of the last answer that could be believed
        self._start_ns = start_ns
        self._fault = "it was not asked for yet"

    def is_due(self, t_ns: int) -> bool:
        """Tell whether it is time to ask."""
        return t_ns >= self._next_ns

    def is_known(self, t_ns: int) -> bool:
        """Tell whether the temperature was known just now."""
        return self._known_ns is not None and t_ns - self._known_ns < STALE_S * 1e9

    def ask(self, now_ns: int, *, needed: bool) -> TemperatureReading:
        """Ask; an instrument that does not answer has told nothing.

        Parameters
        ----------
        needed
            Whether a limit or a rule hangs on it: else one that does not answer at all,
            which takes the time of many readings, is asked seldom.
        """
        silent = False
        try:
            reading = self._thermometer.read_temperature()
        except InstrumentError as error:
            silent = isinstance(error, NoReply)
            reading = TemperatureReading.unknown(
                f"the thermometer does not answer: {error}",
                read_start_ns=now_ns,
                read_end_ns=now_ns,
            )
        interval_s = SELDOM_S if silent and not needed else ASK_S
        self._next_ns = now_ns + int(interval_s * 1e9)
        self._fault = reading.fault
        if not reading.fault:
            self._known_ns = reading.read_end_ns
        return reading

    def broken(
        self, reading: TemperatureReading, *, t_ns: int, needed: bool
    ) -> tuple[EndKind, str] | None:
        """Say why the cell must be made safe by an answer, or None."""
        if reading.fault:
            return self.unknown(t_ns) if needed and not self.is_known(t_ns) else None
        if self._envelope is None:
            return None
        limit = self._envelope.temperature_violation(reading.temperature_K)
        return None if limit is None else (EndKind.LIMIT, limit)

    def unknown(self, t_ns: int) -> tuple[EndKind, str]:
        """Say that the temperature is not known, for how long, and why."""
        since_ns = self._start_ns if self._known_ns is None else self._known_ns
        for_s = math.floor((t_ns - since_ns) / 1e8) / 10
        return EndKind.FAULT, f"the temperature is unknown for {for_s:.1f} s: {self._fault}"
