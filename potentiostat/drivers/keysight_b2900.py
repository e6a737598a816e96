"""Keysight B2901/B2902/B2911/B2912 (A or B) source-measure units, channel 1, over SCPI.

B2900 SCPI Command Reference, Edition 2: status data p. 1-14, error queue p. 5-2. User's
Guide: output-off states p. 6-13. B2961A SCPI Command Reference: output p. 4-67, fetch
p. 4-17, clamp p. 4-91. Data sheet pp. 16-18.

Three settings would hurt a cell, and are changed before anything that reads: NORMAL off
goes through a 0 V source, so off is made HIZ; `:INIT` switches the output on by itself, so
each reading says that it must not; at its clamp the output would go to 0 V and off, so
that protection is switched off. An emergency of the instrument (interlock, temperature,
over-voltage) still forces 0 V first, whatever the off state is: `read` tells it as an
INVALID row, `apply` refuses from then on, and only `ensure_safe` switches on again.

Readings are ASCII with seven digits, the TIME element too: it resolves 10 us within 100 s
of the timer's zero, and 100 ms after 28 hours. The timer starts anew with each connection.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import host_brackets, refuse_unknown_block
from potentiostat.errors import LinkError, NoReply, NotApplied, ReplyError, UnsafeRequest
from potentiostat.keysight_trigger import Fetched, KeysightTrigger
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, ClockExchange, SafeState, Setpoint, TriggerLines
from potentiostat.readings import Raw, ReadingNoise, sample_rows
from potentiostat.records import UNKNOWN_ORDER, Identity, RangeSpec, Status
from potentiostat.scpi import Link, raise_queued_errors, read_numbers, refuse_unsafe
from potentiostat.settings import Settings, identify
from potentiostat.thermometer import ThermometerSpec
from potentiostat.visa import Reply

COMPLIANCE_BITS = 2 | 4  # of the STAT element
EMERGENCY_BITS = 8 | 16 | 32  # over voltage, over current, high temperature
OVERFLOW_BIT = 8192
VOLTAGE_RANGE_V = 20.0
VOLTAGE_STEP_V = 1e-5  # of the source in its 20 V range
LARGEST_VOLTAGE_V = 21.0
RAMP_STEP_V = 5e-3
ELEMENTS = "VOLT,CURR,TIME,STAT,SOUR"

# One message, so that not even a power cycle gets between the order and the reading.
READING = ":OUTP:ON:AUTO 0;:INIT:ACQ;:FETC:ARR?;:OUTP?"
_STARTS_READING = re.compile(r"(^|;)\s*:?(INIT|READ)", re.IGNORECASE)

MODELS = tuple(f"B29{number}{suffix}" for number in ("01", "02", "11", "12") for suffix in "AB")
WITHOUT_10_NA = ("B2901", "B2902")

# Data sheet p. 16: accuracy within a year and resolution; settling to 0.1 % in the user's
# guide, p. 2-20. The source's accuracy is not yet confirmed: taken as the meter's.
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_s=settling,
        source_gain_ratio=gain,
        source_offset_A=offset,
    )
    for full, gain, offset, step, settling in (
        (1e-8, 0.0010, 5e-11, 1e-14, 0.01),
        (1e-7, 0.0006, 1e-10, 1e-13, 0.01),
        (1e-6, 0.00025, 5e-10, 1e-12, 5e-4),
    )
)
# Not yet confirmed: the data sheet gives no noise of readings; the calibration measures it.
NOISE = ReadingNoise(voltage_V=2e-5, voltage_step_V=1e-5, current_A=2e-13)


class KeysightB2900:
    """Channel 1 of a B2900 on one link, used by one thread.

    Parameters
    ----------
    link
        Open; owned by the calling thread from now on.
    now_ns
        Host clock.
    line_frequency_Hz
        Of the mains: a wrong one lets hum into every reading.
    nplc
        Integration time of each of voltage and current, in power-line cycles.
    block
        Readings that `read` returns at once.
    lines
        What is wired to the digital port.

    Raises
    ------
    UnsafeRequest
        It has not that block or that line.

    Notes
    -----
    Its current source may be off by 50 pA at 0 A, and its voltmeter may draw 0.4 nA: for
    a small cell the high-impedance state is the better rest.
    """

    model = "B2900"
    models: Mapping[str, tuple[RangeSpec, ...]] = {
        name: RANGES[1:] if name.startswith(WITHOUT_10_NA) else RANGES for name in MODELS
    }
    ranges: tuple[RangeSpec, ...] = RANGES  # less 10 nA once a B2901 or B2902 has answered
    apertures = UNKNOWN_ORDER
    off_states: tuple[SafeState, ...] = (SafeState.S1, SafeState.S2)
    input_ohm = 1e10
    noise = NOISE
    unconfirmed = "accuracy of the source, noise"
    largest_block = 100_000  # of the trace buffer, data sheet
    trigger_lines: tuple[int, ...] = tuple(range(1, 15))  # of the digital port
    thermometer: ThermometerSpec | None = None

    def __init__(
        self,
        link: Link,
        *,
        now_ns: Callable[[], int],
        line_frequency_Hz: float = 50.0,
        nplc: float = 1.0,
        block: int = 1,
        lines: TriggerLines = NO_LINES,
    ) -> None:
        refuse_unknown_block(
            self.model,
            block=block,
            largest=self.largest_block,
            lines=lines,
            known=self.trigger_lines,
        )
        self._link = link
        self._now_ns = now_ns
        self._window_s = nplc / line_frequency_Hz
        self._nplc = nplc
        self._line_frequency_Hz = line_frequency_Hz
        self._envelope: Envelope | None = None
        self._cell_attached = True
        self._setpoint: Setpoint | None = None
        self._settled_ns = 0
        self._identified = False
        self._off_is_open = False  # HIZ was read back
        self._reads_safely = False  # a reading does not switch the output on or off
        self._locked = False  # all settings are known to be ours
        self._output_lost = False  # found off though we had switched it on
        self._settings = Settings(link, self._refuse)
        self._trigger = KeysightTrigger(
            link,
            self._settings,
            now_ns=now_ns,
            columns=len(ELEMENTS.split(",")),
            block=block,
            lines=lines,
            aperture_s=2 * self._window_s,
        )
        self._plain = self._trigger.plain

    def _refuse(self, command: str) -> None:
        refuse_unsafe(command, off_is_short=self._cell_attached and not self._off_is_open)
        if _STARTS_READING.search(command) and not self._reads_safely:
            raise UnsafeRequest(f"{command} is not sent yet: it could switch the output on")

    # --- connecting --------------------------------------------------------------------

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, make off an open relay, adopt the present state, rest at 0 A.

        A current source that is on stays on and is brought to 0 A; a voltage source on a
        cell goes to high impedance and comes back as a current source.

        Raises
        ------
        InstrumentError
            It does not answer, is another model, or does not take a setting.
        """
        self._envelope, self._cell_attached = envelope, cell_attached
        self._reads_safely = self._locked = False
        identity = self._identify()
        self._open_when_off()  # before anything else is set
        self._settings.send("*CLS")
        self._settings.send(":SYST:TIME:TIM:COUN:RES")  # a young timer has the finer digits
        self._rest(self._rest_setpoint(self.ranges[0].full_scale_A))
        raise_queued_errors(self._link, "connecting")
        return identity

    def _identify(self) -> Identity:
        self._identified = False
        identity = identify(self._link, MODELS)
        if identity.model.startswith(WITHOUT_10_NA):
            self.ranges = RANGES[1:]
        self._identified = True
        return identity

    def _open_when_off(self) -> None:
        self._off_is_open = False
        self._settings.set_word(":OUTP:OFF:MODE", "HIZ")
        self._off_is_open = True

    def _guard_output(self) -> None:
        """Leave the output switch to us alone."""
        self._reads_safely = False
        self._open_when_off()
        for switch in (":OUTP:ON:AUTO", ":OUTP:OFF:AUTO", ":OUTP:PROT"):
            self._settings.set_flag(switch, on=False)
        self._reads_safely = True

    def _lock_readings(self) -> None:
        settings = self._settings
        settings.send(":ABOR:ACQ")
        # A sweep or a list of somebody else would move the level at a trigger.
        for header in (":SOUR:CURR:MODE", ":SOUR:VOLT:MODE"):
            settings.set_word(header, "FIX")
        for quantity in ("SOUR:CURR", "SOUR:VOLT", "SENS:CURR", "SENS:VOLT"):
            settings.set_flag(f":{quantity}:RANG:AUTO", on=False)
        settings.send(':SENS:FUNC:ON "VOLT","CURR"')
        settings.set_number(":SENS:VOLT:RANG", VOLTAGE_RANGE_V)
        self._set_plain(":SYST:LFR", self._line_frequency_Hz)
        for header in (":SENS:CURR:NPLC", ":SENS:VOLT:NPLC"):
            settings.set_number(header, self._nplc)
        for layer in (":TRIG:ACQ", ":ARM:ACQ"):
            settings.set_word(f"{layer}:SOUR", "AINT")
            self._set_plain(f"{layer}:COUN", 1)
        settings.set_flag(":SYST:TIME:TIM:COUN:RES:AUTO", on=False)
        settings.set_word(":FORM", "ASC")
        settings.set_word(":FORM:ELEM:SENS", ELEMENTS)
        if not self._plain:
            self._trigger.prepare()

    # --- sourcing ----------------------------------------------------------------------

    def apply(self, setpoint: Setpoint) -> None:
        """Source ``setpoint``, read it back, and check the error queue.

        Raises
        ------
        UnsafeRequest
            It lies outside the envelope, or has a range or clamp that the model has not.
        NotApplied, InstrumentRefused, LinkError
            The instrument did not take it, or has switched its output off.
        """
        self._refuse_unfit(setpoint)
        was = self._setpoint
        if self._output_lost or (not self._locked and not self._settings.flag(":OUTP?")):
            raise NotApplied(f"{self._link.resource}: the output is off; make it safe first")
        same = was is not None and _kind(was) == _kind(setpoint)
        if not (self._locked and same):
            self._locked = False
            self._change(setpoint)
        self._set_level(setpoint)
        raise_queued_errors(self._link, f"setting {setpoint.level:g}")
        self._changed(setpoint)

    def _refuse_unfit(self, setpoint: Setpoint) -> None:
        envelope = self._known_envelope()
        if setpoint.range_A not in {r.full_scale_A for r in self.ranges}:
            raise UnsafeRequest(f"the {self.model} has no range of {setpoint.range_A:g} A here")
        largest_A = 1.05 * setpoint.range_A
        if self._cell_attached or setpoint.mode == "current":
            largest_A = min(envelope.current_max_A, largest_A)
        if setpoint.mode == "current":
            if not abs(setpoint.level) <= largest_A:
                raise UnsafeRequest(f"{setpoint.level:g} A is beyond the limit or range")
            if not 0 < setpoint.clamp <= min(envelope.voltage_max_V, LARGEST_VOLTAGE_V):
                raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} V is not in the window")
            return
        low_V, high_V = -LARGEST_VOLTAGE_V, LARGEST_VOLTAGE_V
        if self._cell_attached:
            low_V, high_V = envelope.voltage_min_V, envelope.voltage_max_V
        if not low_V <= setpoint.level <= high_V:
            raise UnsafeRequest(f"{setpoint.level:g} V is not in the window")
        if not 0 < setpoint.clamp <= largest_A:
            raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} A is beyond limit or range")

    def _change(self, setpoint: Setpoint) -> None:
        """Bring mode, range and clamp to those of a set-point; the level comes after."""
        sources_voltage = self._sources_voltage()
        if setpoint.mode == "current" and sources_voltage:
            self._switch_off()
            self._start(replace(setpoint, level=0.0))
        elif setpoint.mode == "current":
            self._set_clamp(setpoint)
            self._lock_range(setpoint)
        elif not sources_voltage:
            self._stop_current()
            start_V = self._cell_voltage_V() if self._cell_attached else setpoint.level
            self._switch_off()
            self._start(replace(setpoint, level=start_V))
        else:
            self._lock_range(setpoint)
            self._set_clamp(setpoint)

    # The source function is changed with the relay open, whether or not a cell is there:
    # the manuals do not say what the terminals see otherwise.

    def _start(self, setpoint: Setpoint) -> None:
        """Source a set-point on an output that is off: the clamp first, then the level."""
        voltage = setpoint.mode == "voltage"
        self._settings.set_word(":SOUR:FUNC:MODE", "VOLT" if voltage else "CURR")
        if voltage:
            self._settings.set_number(":SOUR:VOLT:RANG", VOLTAGE_RANGE_V)
        self._set_clamp(setpoint)  # of a current it is 2 V at power-on: less than a cell has
        self._lock_range(setpoint)
        self._set_level(setpoint)
        self._settings.send(":OUTP ON")
        if not self._settings.flag(":OUTP?"):
            raise NotApplied(
                f"{self._link.resource}: the output stays off, at high impedance "
                f"({self._link.query(':SYST:ERR?').text})"
            )

    def _stop_current(self) -> None:
        self._settings.set_number(":SOUR:CURR", 0.0)
        if self._setpoint is not None:
            self._setpoint = self._rest_setpoint(self._setpoint.range_A)

    def _lock_range(self, setpoint: Setpoint) -> None:
        """Set the range of source and meter, unless it is on already."""
        settings, range_A = self._settings, setpoint.range_A
        if setpoint.mode == "current" and not _equal(settings.number(":SOUR:CURR:RANG?"), range_A):
            settings.set_number(":SOUR:CURR", 0.0)
            settings.set_number(":SOUR:CURR:RANG", range_A)
        if not _equal(settings.number(":SENS:CURR:RANG?"), range_A):
            settings.set_number(":SENS:CURR:RANG", range_A)

    def _set_clamp(self, setpoint: Setpoint) -> None:
        header = ":SENS:VOLT:PROT" if setpoint.mode == "current" else ":SENS:CURR:PROT"
        self._set_stepped(header, setpoint.clamp, setpoint)

    def _set_level(self, setpoint: Setpoint) -> None:
        header = ":SOUR:CURR" if setpoint.mode == "current" else ":SOUR:VOLT"
        self._set_stepped(header, setpoint.level, setpoint)

    def _set_stepped(self, header: str, value: float, setpoint: Setpoint) -> None:
        """Set a number that the instrument rounds to a step of its range."""
        step = VOLTAGE_STEP_V if "VOLT" in header else self._spec(setpoint).resolution_A
        tolerance = 0.51 * step / max(abs(value), step)
        self._settings.set_number(header, value, rel_tol=max(1e-6, tolerance))

    def _set_plain(self, header: str, value: float) -> None:
        """Set one of a few numbers, without a point or an exponent."""
        self._settings.send(f"{header} {value:g}")
        found = self._settings.number(f"{header}?")
        if not _equal(found, value):
            raise NotApplied(f"{self._link.resource}: {header} {value:g} reads back {found:g}")

    def _switch_off(self) -> None:
        """Open the relay, sure that it opens and is no 0 V source."""
        self._open_when_off()
        self._settings.set_flag(":OUTP", on=False)

    def _cell_voltage_V(self) -> float:
        """Measure what the cell has; outside its window no voltage is safe to put on."""
        envelope = self._known_envelope()
        (found_V, *_), output_on, _ = self._one_reading()
        if not (output_on and envelope.voltage_min_V <= found_V <= envelope.voltage_max_V):
            raise UnsafeRequest(
                f"the cell is at {found_V:g} V, outside {envelope.voltage_min_V:g} to "
                f"{envelope.voltage_max_V:g} V: no voltage is put on it"
            )
        return found_V

    def _sources_voltage(self) -> bool:
        return self._settings.word(":SOUR:FUNC:MODE?").startswith("VOLT")

    def _rest_setpoint(self, range_A: float) -> Setpoint:
        clamp = self._known_envelope().voltage_max_V
        return Setpoint(mode="current", level=0.0, clamp=clamp, range_A=range_A)

    def _known_envelope(self) -> Envelope:
        if self._envelope is None:
            raise LinkError(f"{self._link.resource}: connect first")
        return self._envelope

    def _changed(self, setpoint: Setpoint) -> None:
        """Note a change: readings are unsettled for a while after it."""
        was, self._setpoint, self._locked = self._setpoint, setpoint, True
        self._trigger.mark()
        if was is None or not _is_ramp_step(was, setpoint):
            self._settled_ns = self._now_ns() + round(self._spec(setpoint).settling_s * 1e9)

    def _spec(self, setpoint: Setpoint | None) -> RangeSpec:
        usual = self.ranges[0]
        if setpoint is None:
            return usual
        return next((r for r in self.ranges if r.full_scale_A == setpoint.range_A), usual)

    # --- reading -----------------------------------------------------------------------

    def _ask_reading(self) -> Reply:
        self._refuse(READING)
        return self._link.query(READING)

    def _one_reading(self) -> tuple[tuple[float, ...], bool, tuple[int, int]]:
        """Take one reading at once: its elements, whether the output was on, host stamps."""
        if self._plain:
            reply = self._ask_reading()
            return *_parse(reply.text), (reply.sent_ns, reply.received_ns)
        found = self._trigger.read_one()
        stamps = found.sent_ns, found.received_ns
        return tuple(float(value) for value in found.values[0]), found.output_on, stamps

    def read(self) -> NDArray[np.void]:
        """Take a block of readings of voltage and current; SAMPLE_DTYPE, shape (block,).

        Shape (1,) for the reading that gives the pulse of a change of set-point.

        Raises
        ------
        LinkError
            The link is gone. A reply that makes no sense, or a reading with the output
            off or in an emergency, gives a row marked INVALID.
        UnsafeRequest
            Not connected: a reading could switch the output on.
        """
        if not self._plain:
            return self._block_rows(self._trigger.read())
        reply = self._ask_reading()
        try:
            (voltage_V, current_A, time_s, status, _), output_on = _parse(reply.text)
        except ReplyError:  # nothing is known, of the output neither
            voltage_V = current_A = time_s = status = math.nan
            output_on = True
        self._output_lost = self._output_lost or not output_on
        bits = int(status) if math.isfinite(status) else EMERGENCY_BITS
        if not output_on or bits & EMERGENCY_BITS:
            voltage_V = current_A = math.nan
        elif bits & OVERFLOW_BIT:
            current_A = math.inf
        raw = Raw(
            read_start_ns=np.array([reply.sent_ns]),
            read_end_ns=np.array([reply.received_ns]),
            voltage_V=np.array([voltage_V]),
            current_A=np.array([current_A]),
            device_time_s=np.array([time_s]),
            compliance=np.array([bool(bits & COMPLIANCE_BITS)]),
        )
        return self._rows(raw)

    def _block_rows(self, found: Fetched) -> NDArray[np.void]:
        voltage_V, current_A, time_s, status, _ = found.values.T
        self._output_lost = self._output_lost or not found.output_on
        known = np.isfinite(status)
        bits = np.where(known, status, EMERGENCY_BITS).astype(np.int64)
        bad = (bits & EMERGENCY_BITS != 0) | (not found.output_on)
        beyond = bits & OVERFLOW_BIT != 0
        start_ns, end_ns = host_brackets(
            time_s, sent_ns=found.sent_ns, received_ns=found.received_ns
        )
        rows = self._rows(
            Raw(
                read_start_ns=start_ns,
                read_end_ns=end_ns,
                voltage_V=np.where(bad, math.nan, voltage_V),
                current_A=np.where(bad, math.nan, np.where(beyond, math.inf, current_A)),
                device_time_s=time_s,
                compliance=bits & COMPLIANCE_BITS != 0,
            )
        )
        if found.untriggered:
            rows["status"] |= int(Status.UNTRIGGERED)
        return rows

    def _rows(self, raw: Raw) -> NDArray[np.void]:
        return sample_rows(
            raw,
            setpoint=self._setpoint,
            spec=self._spec(self._setpoint),
            noise=self.noise,
            window_s=self._window_s,
            aperture_s=2 * self._window_s,  # not yet confirmed: one after the other
            settled_ns=self._settled_ns,
        )

    def exchange_clock(self) -> ClockExchange:
        """Take the timestamp of a reading: the unit of the timer's own reply is not known.

        The time is of its beginning, so it was over before the reply by an aperture at least.
        """
        (_, _, time_s, _, _), _, (sent_ns, received_ns) = self._one_reading()
        if not math.isfinite(time_s):
            raise ReplyError(f"{self._link.resource}: a reading without its time")
        return ClockExchange(
            sent_ns=sent_ns,
            device_time_s=time_s,
            received_ns=max(sent_ns, received_ns - round(2 * self._window_s * 1e9)),
        )

    # --- safety ------------------------------------------------------------------------

    def ensure_safe(self) -> SafeState:
        """Bring the cell to S1: 0 A, clamped, output on. At any time, twice if need be.

        Raises
        ------
        InstrumentError
            It could not be confirmed. An output that stays off is at high impedance.
        """
        self._known_envelope()
        try:
            return self._make_safe()
        except NoReply:
            return self._make_safe()

    def _make_safe(self) -> SafeState:
        if not self._identified:
            self._identify()
        was = self._setpoint
        range_A = self.ranges[0].full_scale_A if was is None else was.range_A
        self._rest(self._rest_setpoint(range_A))
        return SafeState.S1

    def _rest(self, rest: Setpoint) -> None:
        """Bring whatever stands at the terminals to 0 A behind the clamp."""
        sources_voltage, output_on = self._sources_voltage(), self._settings.flag(":OUTP?")
        running = output_on and not sources_voltage
        if running:
            self._stop_current()
            self._set_clamp(rest)
        self._guard_output()
        if output_on and sources_voltage:
            self._switch_off()
        if not self._locked or not output_on:
            self._lock_readings()
        if running:
            self._lock_range(rest)
        else:
            self._start(rest)
        self._output_lost = False
        self._changed(rest)

    def rest_at_end(self) -> SafeState:
        """Go to 0 A, then to high impedance; an output that is off already stays off."""
        self._known_envelope()
        if self._settings.flag(":OUTP?") or not self._reads_safely:
            self.ensure_safe()
        self._locked = False
        self._settings.send("*CLS")  # what an emergency left must not call for a new start
        self._switch_off()
        raise_queued_errors(self._link, "opening the output")
        return SafeState.S2

    def close(self) -> None:
        """Let go of the link; the source stays as it is."""
        self._link.close()


def _parse(text: str) -> tuple[tuple[float, ...], bool]:
    """Return the elements of a reading, and whether the output was on after it."""
    elements, _, output = text.rpartition(";")
    if output.strip() not in ("0", "1"):
        raise ReplyError(f"{text!r} does not end with the state of the output")
    return read_numbers(elements, 5), output.strip() == "1"


def _equal(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=1e-6)


def _kind(setpoint: Setpoint) -> tuple[str, float, float]:
    """All of a set-point but its level."""
    return setpoint.mode, setpoint.range_A, setpoint.clamp


def _is_ramp_step(was: Setpoint, now: Setpoint) -> bool:
    """Tell whether a change is so small that the meter follows it at once."""
    small = now.mode == "voltage" and abs(now.level - was.level) <= RAMP_STEP_V
    return small and _kind(was) == _kind(now)
