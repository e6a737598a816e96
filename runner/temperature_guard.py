"""When a guardian asks for the temperature, and what it makes of the answers.

The answers come beside the readings, about once a second. One that cannot be believed is
told. Where a limit or a rule hangs on the temperature, not to know it for some seconds is
as bad as a temperature beyond the limit.
"""

import math
from collections.abc import Callable

from potentiostat.errors import InstrumentError, NoReply
from potentiostat.limits import Envelope
from potentiostat.segments import Step
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
        Asked between two readings; None where no sensor is wired.
    envelope
        Its limits of the temperature; None where no cell is attached.
    start_ns
        Host time now.

    Attributes
    ----------
    untold
        The answers since `take_untold`.
    """

    def __init__(
        self, thermometer: Thermometer | None, envelope: Envelope | None, *, start_ns: int
    ) -> None:
        self._thermometer = thermometer
        self._envelope = envelope
        self._next_ns = start_ns
        self._known_ns: int | None = None  # of the last answer that could be believed
        self._start_ns = start_ns
        self._fault = "it was not asked for yet"
        self.untold: list[TemperatureReading] = []

    def take_untold(self) -> list[TemperatureReading]:
        """Return the answers since this was asked last."""
        untold, self.untold = self.untold, []
        return untold

    def needs(self, step: Step | None) -> bool:
        """Tell whether a limit, or a rule of a step, hangs on the temperature."""
        limited = self._envelope is not None and self._envelope.limits_temperature
        return limited or (step is not None and step.needs_temperature)

    def is_known(self, t_ns: int) -> bool:
        """Tell whether the temperature was known just now."""
        return self._known_ns is not None and t_ns - self._known_ns < STALE_S * 1e9

    def before(self, step: Step, now_ns: Callable[[], int]) -> tuple[EndKind, str] | None:
        """Ask until the temperature is known, where a step needs it; say why it may not begin."""
        if not self.needs(step):
            return None
        if self._thermometer is None:
            return EndKind.FAULT, "a limit or rule of the temperature, and nobody measures it"
        broken: tuple[EndKind, str] | None = None
        for _ in range(FIRST_TRIES):
            if self.is_known(now_ns()):
                break
            reading = self._ask(self._thermometer, now_ns(), needed=True)
            broken = self.broken(reading, t_ns=now_ns(), needed=True)
        return broken

    def ask_if_due(self, now_ns: int, *, needed: Callable[[], bool]) -> None:
        """Ask where it is time; an instrument that does not answer has told nothing.

        Parameters
        ----------
        needed
            Tells whether a limit or a rule hangs on it: else one that does not answer at all,
            which takes the time of many readings, is asked seldom.
        """
        if self._thermometer is not None and now_ns >= self._next_ns:
            self._ask(self._thermometer, now_ns, needed=needed())

    def _ask(self, thermometer: Thermometer, now_ns: int, *, needed: bool) -> TemperatureReading:
        silent = False
        try:
            reading = thermometer.read_temperature()
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
        self.untold.append(reading)
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
