"""The SCPI dialect of the Keithley 2400 family, which the 6430 speaks too.

Set-points, readings and the rest state of both (6430 instruction manual and 2400 user's
manual, chapters 13 and 17). A model adds its ranges and its off states. The clamp is one
magnitude: the lower side of the cell's window is held by whoever reads. The TIME element
counts 1024 ticks of a second as 1000 ms (6430 manual p. 8-5), which is left raw here:
multiply by `TICK_RATIO`, or fit the clock.

The timer is set to zero when it passes `TIMER_LONGEST_S`: later its milliseconds are lost in
the float32 of a reading. Not at each block, because the clock is fitted over exchanges that
lie seconds apart: each zero begins a new stretch of the fit, and one in two hours costs it
nothing.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import host_brackets, refuse_unknown_block
from potentiostat.errors import LinkError, NoReply, NotApplied, ReplyError, UnsafeRequest
from potentiostat.keithley_trigger import ABORT, ONE_READING, Fetched, KeithleyTrigger
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, ClockExchange, SafeState, Setpoint, TriggerLines
from potentiostat.readings import Raw, ReadingNoise, SingleReadings, sample_rows
from potentiostat.records import VOLTAGE_FIRST, Identity, RangeSpec, Reading, Status, rows_of
from potentiostat.scpi import Link, raise_queued_errors, read_number, read_numbers, refuse_unsafe
from potentiostat.settings import Settings, identify
from potentiostat.thermometer import ThermometerSpec

TICK_RATIO = 1000 / 1024  # true seconds in a second of the TIME element
TIMER_LONGEST_S = 2.0**13  # half of where a float32 loses the milliseconds
HELD_CURRENTS = ("current", "current")
COMPLIANCE_BIT = 8  # bit 3 of the STAT element
LARGEST_VOLTAGE_V = 21.0
VOLTAGE_RANGE_V = 20.0
RAMP_STEP_V = 5e-3
NOISE = ReadingNoise(voltage_V=5e-5, voltage_step_V=1e-4)  # the calibration measures it anew


class KeithleyScpi:
    """An instrument of the family on one link, used by one thread.

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
        What is wired to the trigger link.

    Raises
    ------
    UnsafeRequest
        It has not that block or that line.
    """

    model: str
    models: Mapping[str, tuple[RangeSpec, ...]]
    ranges: tuple[RangeSpec, ...]
    apertures = VOLTAGE_FIRST  # of one conversion pair
    off_states: tuple[SafeState, ...]
    input_ohm: float
    unconfirmed: str = ""
    largest_block = 2500  # of the buffer behind READ?
    trigger_lines: tuple[int, ...] = (1, 2, 3, 4)  # of the trigger link
    thermometer: ThermometerSpec | None = None
    noise: ReadingNoise = NOISE
    off_is_open: bool  # HIMP: the relay opens

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
        self._single: SingleReadings | None = None  # under the present conditions
        self._settings = Settings(link, self._refuse)
        self._trigger = KeithleyTrigger(
            link,
            self._settings,
            now_ns=now_ns,
            block=block,
            lines=lines,
            aperture_s=2 * self._window_s,
        )
        self._plain = self._trigger.plain

    def _refuse(self, command: str) -> None:
        short = self._cell_attached and not self.off_is_open
        refuse_unsafe(command, off_is_short=short)

    # --- connecting --------------------------------------------------------------------

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, adopt the present state, rest at 0 A, lock the settings.

        An output that is on stays on and is brought to 0 A; one that is off is switched
        on only once the set-point is 0 A and the clamp stands above the cell's window.

        Raises
        ------
        InstrumentError
            It does not answer, is another model, or does not take a setting.
        """
        self._envelope, self._cell_attached = envelope, cell_attached
        # Nobody knows yet whether it waits for an edge that somebody else has asked for.
        identity = identify(self._link, (self.model,), abort="" if self._plain else ABORT)
        settings = self._settings
        settings.send("*CLS")
        if self.off_is_open:
            settings.set_word(":OUTP:SMOD", "HIMP")  # before anything else
        output_on = settings.flag(":OUTP?")
        sources_voltage = self._sources_voltage()
        rest = self._rest_setpoint(self.ranges[self._first_range].full_scale_A)
        if output_on and sources_voltage and cell_attached:
            settings.set_flag(":SOUR:CLE:AUTO", on=False)
            self._leave_voltage(rest)
        elif output_on and not sources_voltage:
            settings.set_number(":SOUR:CURR", 0.0)
        settings.set_flag(":SOUR:CLE:AUTO", on=False)
        self._source_current(rest)
        self._prepare_readings(rest)
        self._switch_on()  # a change of function has switched it off, too
        raise_queued_errors(self._link, "connecting")
        self._changed(rest)
        return identity

    @property
    def _first_range(self) -> int:
        """Of the range table: where the instrument waits until a plan says otherwise."""
        return min(2, len(self.ranges) - 1)

    def _prepare_readings(self, setpoint: Setpoint) -> None:
        settings = self._settings
        settings.send(":SENS:FUNC:CONC ON")
        settings.send(":SENS:FUNC 'VOLT:DC','CURR:DC'")
        self._trigger.prepare()
        settings.send(":FORM:ELEM VOLT,CURR,TIME,STAT")
        settings.set_number(":SYST:LFR", self._line_frequency_Hz)
        settings.set_number(":SENS:CURR:NPLC", self._nplc)
        for switch in self._switches_off:
            settings.send(f"{switch} OFF")
        settings.set_number(":SENS:VOLT:RANG", VOLTAGE_RANGE_V)
        settings.set_number(":SENS:CURR:RANG", setpoint.range_A)

    # Autozero triples the time of a reading; the filters would smear it over others.
    _switches_off: tuple[str, ...] = (":SYST:AZER:STAT", ":SENS:AVER")

    # --- sourcing ----------------------------------------------------------------------

    def apply(self, setpoint: Setpoint) -> None:
        """Source ``setpoint``, read it back, and check the error queue.

        Raises
        ------
        UnsafeRequest
            It lies outside the envelope, or has a range or clamp that the model has not.
        NotApplied, InstrumentRefused, LinkError
            The instrument did not take it.
        """
        self._refuse_unfit(setpoint)
        was = self._setpoint
        if setpoint.level == 0 and was is not None and (was.mode, setpoint.mode) == HELD_CURRENTS:
            self._settings.send(":SOUR:CURR 0")  # at once: a limit waits for nothing else
        if setpoint.mode == "current":
            if self._cell_attached and self._sources_voltage():
                self._leave_voltage(self._rest_setpoint(setpoint.range_A))
            self._source_current(setpoint)
        elif self._cell_attached:
            self._source_voltage_on_cell(setpoint)
        else:
            self._source_voltage_on_holder(setpoint)
        raise_queued_errors(self._link, f"setting {setpoint.level:g}")
        self._changed(setpoint)

    def _refuse_unfit(self, setpoint: Setpoint) -> None:
        envelope = self._known_envelope()
        if setpoint.range_A not in {r.full_scale_A for r in self.ranges}:
            raise UnsafeRequest(f"the {self.model} has no range of {setpoint.range_A:g} A here")
        largest_A = min(envelope.current_max_A, 1.05 * setpoint.range_A)
        if setpoint.mode == "current":
            if not abs(setpoint.level) <= largest_A:
                raise UnsafeRequest(f"{setpoint.level:g} A is beyond the limit or range")
            if not 0 < setpoint.clamp <= min(envelope.voltage_max_V, LARGEST_VOLTAGE_V):
                raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} V is not in the window")
        elif self._cell_attached:
            if not envelope.voltage_min_V <= setpoint.level <= envelope.voltage_max_V:
                raise UnsafeRequest(f"{setpoint.level:g} V is not in the window")
            if not 0 < setpoint.clamp <= largest_A:
                raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} A is beyond limit or range")
        elif not abs(setpoint.level) <= LARGEST_VOLTAGE_V:
            raise UnsafeRequest(f"{setpoint.level:g} V is beyond the model")

    def _source_current(self, setpoint: Setpoint) -> None:
        settings = self._settings
        was_voltage = self._sources_voltage()
        if was_voltage:
            settings.send(":SOUR:FUNC CURR")
            settings.send(":SOUR:CURR:MODE FIX")
        # The clamp first: no level ever stands without it.
        settings.set_number(":SENS:VOLT:PROT", setpoint.clamp)
        self._lock_range(setpoint.range_A, changed=was_voltage)
        settings.set_number(":SOUR:CURR", setpoint.level)
        if not self._cell_attached and self._setpoint is not None:
            settings.send(":OUTP ON")  # a change of function has switched it off

    def _lock_range(self, range_A: float, *, changed: bool = False) -> None:
        """Set the range of source and meter, at 0 A, unless it is on already."""
        settings = self._settings
        if changed or not math.isclose(settings.number(":SOUR:CURR:RANG?"), range_A):
            settings.set_number(":SOUR:CURR", 0.0)
            settings.set_number(":SOUR:CURR:RANG", range_A)
            settings.set_number(":SENS:CURR:RANG", range_A)

    def _source_voltage_on_holder(self, setpoint: Setpoint) -> None:
        settings = self._settings
        if not self._sources_voltage():
            settings.set_number(":SOUR:CURR", 0.0)
            settings.send(":SOUR:FUNC VOLT")
            settings.send(":SOUR:VOLT:MODE FIX")
            settings.set_number(":SOUR:VOLT:RANG", VOLTAGE_RANGE_V)
        settings.set_number(":SENS:CURR:PROT", setpoint.clamp)
        settings.set_number(":SENS:CURR:RANG", setpoint.range_A)
        settings.set_number(":SOUR:VOLT", setpoint.level)
        settings.send(":OUTP ON")

    def _source_voltage_on_cell(self, setpoint: Setpoint) -> None:
        settings = self._settings
        was = self._setpoint
        if was is None or was.mode != "voltage":
            self._enter_voltage(setpoint)
        elif (was.clamp, was.range_A) != (setpoint.clamp, setpoint.range_A):
            settings.set_number(":SENS:CURR:RANG", setpoint.range_A)
            settings.set_number(":SENS:CURR:PROT", setpoint.clamp)
        settings.set_number(":SOUR:VOLT", setpoint.level)

    # --- between current and voltage, with a cell attached -------------------------------
    #
    # On this family a change of the source function switches the output off. Where off is
    # an open relay that is harmless. On the 6430 it is a 0 V source with a limit of 0.5 %
    # of the current range: so the change is made in the smallest range, in one message.

    def _enter_voltage(self, setpoint: Setpoint) -> None:
        settings = self._settings
        settings.set_number(":SOUR:CURR", 0.0)
        cell_V = self._cell_voltage_V()
        quiet_A = self._quiet_range_A
        for header in (":SOUR:CURR:RANG", ":SENS:CURR:RANG"):
            settings.set_number(header, quiet_A)
        settings.send(
            f":SOUR:FUNC VOLT;:SOUR:VOLT:MODE FIX;:SOUR:VOLT:RANG {VOLTAGE_RANGE_V:g};"
            f":SENS:CURR:PROT {quiet_A:g};:SOUR:VOLT {cell_V:.6f};:OUTP ON"
        )
        if not self._sources_voltage():
            raise NotApplied(f"{self._link.resource}: the source function was not taken")
        self._switch_on()
        settings.set_number(":SENS:CURR:RANG", setpoint.range_A)
        settings.set_number(":SENS:CURR:PROT", setpoint.clamp)

    def _leave_voltage(self, rest: Setpoint) -> None:
        settings = self._settings
        quiet_A = self._quiet_range_A
        settings.set_number(":SENS:CURR:PROT", quiet_A)
        settings.set_number(":SENS:CURR:RANG", quiet_A)
        settings.send(
            f":SOUR:FUNC CURR;:SOUR:CURR:MODE FIX;:SOUR:CURR:RANG {quiet_A:g};:SOUR:CURR 0;"
            f":SENS:VOLT:PROT {rest.clamp:g};:OUTP ON"
        )
        if self._sources_voltage():
            raise NotApplied(f"{self._link.resource}: the source function was not taken")
        settings.set_number(":SENS:VOLT:PROT", rest.clamp)
        settings.set_number(":SOUR:CURR", 0.0)
        self._switch_on()

    @property
    def _quiet_range_A(self) -> float:
        """The range in which a change of function can do least to a cell."""
        return self.ranges[0].full_scale_A

    def _cell_voltage_V(self) -> float:
        """Measure what the cell has, inside its window.

        Raises
        ------
        UnsafeRequest
            It is outside the window, or was not measured: no voltage is safe to put on.
        """
        envelope = self._known_envelope()
        self._trigger.use(ONE_READING)
        found_V = read_numbers(self._link.query(":READ?").text, 4)[0]
        if not envelope.voltage_min_V <= found_V <= envelope.voltage_max_V:
            raise UnsafeRequest(
                f"the cell is at {found_V:g} V, outside {envelope.voltage_min_V:g} to "
                f"{envelope.voltage_max_V:g} V: no voltage is put on it"
            )
        return found_V

    def _switch_on(self) -> None:
        if not self._settings.flag(":OUTP?"):
            self._settings.send(":OUTP ON")
            if not self._settings.flag(":OUTP?"):
                raise NotApplied(f"{self._link.resource}: the output stays off")

    def _sources_voltage(self) -> bool:
        return self._settings.word(":SOUR:FUNC?").startswith("VOLT")

    def _rest_setpoint(self, range_A: float) -> Setpoint:
        clamp = self._known_envelope().voltage_max_V
        return Setpoint(mode="current", level=0.0, clamp=clamp, range_A=range_A)

    def _known_envelope(self) -> Envelope:
        if self._envelope is None:
            raise LinkError(f"{self._link.resource}: connect first")
        return self._envelope

    def _changed(self, setpoint: Setpoint) -> None:
        """Note a change: readings are unsettled for a while after it."""
        was, self._setpoint = self._setpoint, setpoint
        self._single = None
        self._trigger.mark()
        if was is not None and _is_ramp_step(was, setpoint):
            return
        self._settled_ns = self._now_ns() + round(self._spec(setpoint).settling_s * 1e9)

    def _spec(self, setpoint: Setpoint | None) -> RangeSpec:
        usual = self.ranges[self._first_range]
        if setpoint is None:
            return usual
        for spec in self.ranges:
            if spec.full_scale_A == setpoint.range_A:
                return spec
        return usual

    # --- reading -----------------------------------------------------------------------

    def read(self) -> NDArray[np.void]:
        """Take a block of readings of voltage and current; SAMPLE_DTYPE, shape (block,).

        Shape (1,) for the reading that gives the pulse of a change of set-point.

        Raises
        ------
        LinkError
            The link is gone. A reply that makes no sense gives rows marked INVALID.
        """
        if not self._plain:
            return self._block_rows(self._trigger.read())
        return rows_of([self._read_single()])

    def read_one(self) -> Reading | None:
        """Take the next reading; None where readings come in blocks.

        Raises
        ------
        LinkError
            The link is gone. A reply that makes no sense is marked INVALID.
        """
        return self._read_single() if self._plain else None

    def _read_single(self) -> Reading:
        reply = self._link.query(":READ?")
        try:
            voltage_V, current_A, time_s, bits = read_numbers(reply.text, 4)
        except ReplyError:
            voltage_V = current_A = time_s = bits = math.nan
        if not math.isfinite(bits):
            # Without its flags a reading cannot be trusted.
            voltage_V = voltage_V if math.isinf(voltage_V) else math.nan
            bits = 0.0
        self._keep_timer_short(time_s)
        if self._single is None:
            self._single = SingleReadings(
                setpoint=self._setpoint,
                spec=self._spec(self._setpoint),
                noise=self.noise,
                window_s=self._window_s,
                aperture_s=2 * self._window_s,
                settled_ns=self._settled_ns,
            )
        return self._single.reading(
            reply.sent_ns,
            reply.received_ns,
            voltage_V,
            current_A,
            time_s,
            compliance=bool(int(bits) & COMPLIANCE_BIT),
        )

    def _block_rows(self, found: Fetched) -> NDArray[np.void]:
        voltage_V, current_A, time_s, bits = found.values.T
        start_ns, end_ns = host_brackets(
            time_s,
            sent_ns=found.sent_ns,
            received_ns=found.received_ns,
            seconds_per_tick=TICK_RATIO,
        )
        flagged = np.isfinite(bits)
        raw = Raw(
            read_start_ns=start_ns,
            read_end_ns=end_ns,
            voltage_V=np.where(flagged | np.isinf(voltage_V), voltage_V, math.nan),
            current_A=current_A,
            device_time_s=time_s,
            compliance=np.where(flagged, bits, 0.0).astype(np.int64) & COMPLIANCE_BIT != 0,
        )
        self._keep_timer_short(float(time_s[-1]))
        rows = sample_rows(
            raw,
            setpoint=self._setpoint,
            spec=self._spec(self._setpoint),
            noise=self.noise,
            window_s=self._window_s,
            aperture_s=2 * self._window_s,
            settled_ns=self._settled_ns,
        )
        if found.untriggered:
            rows["status"] |= int(Status.UNTRIGGERED)
        return rows

    def _keep_timer_short(self, time_s: float) -> None:
        if time_s > TIMER_LONGEST_S:
            self._settings.send(":SYST:TIME:RES")

    def exchange_clock(self) -> ClockExchange:
        """Ask for the instrument's time, raw: it runs 2.4 % fast."""
        reply = self._link.query(":SYST:TIME?")
        return ClockExchange(
            sent_ns=reply.sent_ns,
            device_time_s=read_number(reply.text),
            received_ns=reply.received_ns,
        )

    # --- safety ------------------------------------------------------------------------

    def ensure_safe(self) -> SafeState:
        """Bring the cell to S1: 0 A, clamped, output on. At any time, twice if need be.

        Raises
        ------
        InstrumentError
            It could not be confirmed.
        """
        try:
            return self._rest()
        except NoReply:
            return self._rest()

    def _rest(self) -> SafeState:
        settings = self._settings
        was = self._setpoint
        range_A = self._spec(None).full_scale_A if was is None else was.range_A
        if self._sources_voltage():
            rest = self._rest_setpoint(range_A)
            if self._cell_attached:
                self._leave_voltage(rest)
            self._source_current(rest)
        settings.set_number(":SOUR:CURR", 0.0)
        settings.set_number(":SENS:VOLT:PROT", self._known_envelope().voltage_max_V)
        self._lock_range(range_A)  # a change of function may have been cut short
        self._switch_on()
        self._changed(self._rest_setpoint(range_A))
        return SafeState.S1

    def rest_at_end(self) -> SafeState:
        """Go to 0 A, then to high impedance where the model has it.

        A model that has none rests in S1: disconnect the cell, then switch off.
        """
        state = self.ensure_safe()
        if not self.off_is_open:
            return state
        self._settings.set_word(":OUTP:SMOD", "HIMP")
        self._settings.set_flag(":OUTP", on=False)
        raise_queued_errors(self._link, "opening the output")
        return SafeState.S2

    def close(self) -> None:
        """Let go of the link; the source stays as it is."""
        self._link.close()


def _is_ramp_step(was: Setpoint, now: Setpoint) -> bool:
    """Tell whether a change is so small that the meter follows it at once."""
    same = (was.mode, was.range_A, was.clamp) == (now.mode, now.range_A, now.clamp)
    return same and now.mode == "voltage" and abs(now.level - was.level) <= RAMP_STEP_V
