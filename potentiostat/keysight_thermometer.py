"""The thermocouple input of the Keysight B2985 and B2987.

Commands: PyMeasure's driver of this family. Sensor and unit are asked for together with
the value: whoever turns them at the front panel changes what a bare number means. What an
input says that nothing is connected to has not been read in a manual: here, any answer that
is no number, or lies outside of what the input can measure, is none.
"""

import math

from potentiostat.errors import NoReply, ReplyError
from potentiostat.scpi import Link, raise_queued_errors, read_number
from potentiostat.settings import Settings
from potentiostat.thermometer import TemperatureReading, ThermometerSpec
from potentiostat.visa import Reply

WIRE_ERROR_K = 2.5  # type K, class 2 of IEC 60584-1, from -40 to 333 degC
INPUT_ERROR_K = 1.5  # not yet confirmed, as the span is
THERMOCOUPLE = ThermometerSpec(
    sensor="type K thermocouple",
    low_K=248.15,
    high_K=423.15,
    error_K=math.hypot(WIRE_ERROR_K, INPUT_ERROR_K),
)
ASK = ":SYST:TEMP:SEL?;:SYST:TEMP:UNIT?;:SYST:TEMP?"
SENSOR, UNIT = "TC", "K"


class ThermocoupleInput:
    """The input of one instrument.

    Parameters
    ----------
    link
        Open; owned by the calling thread.
    settings
        Of the same link.
    """

    def __init__(self, link: Link, settings: Settings) -> None:
        self._link = link
        self._settings = settings

    def read(self) -> TemperatureReading:
        """Ask once, or twice where sensor or unit were not ours.

        Raises
        ------
        InstrumentError
            There was no answer, or a setting is not taken.
        """
        reply = self._ask()
        sensor, unit, value = _parts(reply)
        if value and (sensor, unit) != (SENSOR, UNIT):
            self._settings.set_word(":SYST:TEMP:SEL", SENSOR)
            self._settings.set_word(":SYST:TEMP:UNIT", UNIT)
            reply = self._ask()
            sensor, unit, value = _parts(reply)
        kelvin, fault = math.nan, f"{self._link.resource} answered {reply.text!r}"
        if value and (sensor, unit) == (SENSOR, UNIT):
            kelvin, fault = _judged(value)
        if fault:
            return TemperatureReading.unknown(
                fault, read_start_ns=reply.sent_ns, read_end_ns=reply.received_ns
            )
        return TemperatureReading(
            read_start_ns=reply.sent_ns,
            read_end_ns=reply.received_ns,
            temperature_K=kelvin,
            sigma_K=THERMOCOUPLE.sigma_K,
        )

    def _ask(self) -> Reply:
        try:
            return self._link.query(ASK)
        except NoReply:
            # It may have refused: then the queue says so, and must not say so later on.
            raise_queued_errors(self._link, "asking for the temperature")
            raise


def _parts(reply: Reply) -> tuple[str, str, str]:
    """Return sensor, unit and value; empty where the answer has other parts."""
    parts = [part.strip().strip("\"'").upper() for part in reply.text.split(";")]
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")


def _judged(text: str) -> tuple[float, str]:
    """Return the temperature in K, and why it is none; "" where it is one."""
    try:
        value = read_number(text)
    except ReplyError as error:
        return math.nan, f"the thermocouple cannot be read: {error}"
    if not math.isfinite(value):
        return math.nan, f"the thermocouple is open or beyond its range: {text} is no number"
    if not THERMOCOUPLE.holds(value):
        return math.nan, (
            f"the thermocouple says {value:.5g} K, outside the {THERMOCOUPLE.low_K:g} to "
            f"{THERMOCOUPLE.high_K:g} K that its input can measure"
        )
    return value, ""
