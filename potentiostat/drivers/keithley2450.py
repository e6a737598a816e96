"""Keithley 2450, 2460 and 2470 source-measure units, over their own SCPI command set.

Pages are of the 2450 reference manual, 2450-901-01 Rev. B. What the family does otherwise
than a 2400:

* Output off is a 0 V source until it is set otherwise, for each source function by itself
  (pp. 2-84, 6-32): here both open the relay, and both are read back before anything else.
* One function is measured at a time. The other quantity is the source's read-back, so a
  current source senses the voltage and a voltage source the current.
* Where both functions are the same, the measuring range is the source range, whatever was
  set (p. 6-53): a range is read back only where it counts.
* A limit that does not suit a new measuring range is changed without an error (p. 6-71):
  the range comes first, then the limit.
* The clock tells whole seconds (p. 6-106); readings carry fractions, in UTC (p. 6-6).
* The source status of a reading says whether the source was limited (p. 8-29).

For cells of nanoamperes and more: the current source is off by up to 100 pA at 0 A, its
voltmeter may draw hundreds of picoamperes, and no current limit is below 1 nA.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import host_brackets, refuse_unknown_block
from potentiostat.errors import LinkError, NoReply, NotApplied, ReplyError, UnsafeRequest
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, ClockExchange, SafeState, Setpoint, TriggerLines
from potentiostat.readings import Raw, ReadingNoise, sample_rows
from potentiostat.records import SOURCE_FIRST, Identity, RangeSpec, Status
from potentiostat.scpi import Link, raise_queued_errors, read_numbers, refuse_unsafe
from potentiostat.settings import Settings, identify
from potentiostat.thermometer import ThermometerSpec
from potentiostat.trigger_model import Fetched, TriggerModel

LIMITED_BIT = 32  # of the source status: bit 5, STAT_LIMIT
LARGEST_VOLTAGE_V = 21.0
VOLTAGE_RANGE_V = 20.0
SMALLEST_LIMIT_A = 1e-9
RAMP_STEP_V = 5e-3
BUFFER = '"defbuffer1"'  # of style standard: a compact one truncates its timestamps
ELEMENTS = "SOUR,READ,SEC,FRAC,SOURSTAT"
READ = f":READ? {BUFFER},{ELEMENTS}"
CLOCK = f":READ? {BUFFER},SEC,FRAC"
SMALLEST_RANGE_A = {"2450": 1e-8, "2460": 1e-6, "2470": 1e-8}

# Data sheet SPEC-2450 pp. 2 and 4 for 10 nA and the measuring side of 100 nA. Not yet
# confirmed: the source zero of 100 nA, all of 1 uA, every settling time, and that the
# figures hold for a 2460 and a 2470 too.
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_s=0.05,
        source_gain_ratio=gain,
        source_offset_A=source_offset,
    )
    for full, gain, offset, step, source_offset in (
        (1e-8, 0.0010, 5e-11, 1e-14, 1e-10),
        (1e-7, 0.0006, 1e-10, 1e-13, 1.5e-10),
        (1e-6, 0.00025, 3e-10, 1e-12, 4e-10),
    )
)
# 500 fA rms on 10 nA (SPEC-2450); the voltmeter's is not yet confirmed.
NOISE = ReadingNoise(voltage_V=5e-5, voltage_step_V=1e-5, current_A=5e-13)


class Keithley2450:
    """A 2450, 2460 or 2470 on one link, used by one thread.

    It has both rest states, but S1 rests on the zero of the current source: up to 100 pA
    flow at 0 A in the 10 nA range, which empties a lamella of 621 pC in 6 s. With such a
    cell only S2, the open relay, is rest.

    Parameters
    ----------
    link
        Open; owned by the calling thread from now on.
    now_ns
        Host clock.
    line_frequency_Hz
        Of the mains; the instrument finds its own, and must agree.
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
    """

    model = "2450"
    models: Mapping[str, tuple[RangeSpec, ...]] = {
        name: tuple(r for r in RANGES if r.full_scale_A >= least)
        for name, least in SMALLEST_RANGE_A.items()
    }
    ranges = RANGES
    apertures = SOURCE_FIRST  # source read-back comes immediately before the measurement
    off_states: tuple[SafeState, ...] = (SafeState.S1, SafeState.S2)
    input_ohm = 1e10
    noise = NOISE
    unconfirmed = "source zero of 100 nA, all of 1 uA, settling; all figures of 2460 and 2470"
    largest_block = 100_000  # of the buffer, as it comes from the factory
    trigger_lines: tuple[int, ...] = (1, 2, 3, 4, 5, 6)  # of the digital port
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
        self._identity: Identity | None = None
        self._cell_attached = True
        self._off_is_open = False  # until both off states were read back
        self._senses_current = False
        self._setpoint: Setpoint | None = None
        self._settled_ns = 0
        self._settings = Settings(link, self._refuse)
        self._trigger = TriggerModel(
            link,
            self._settings,
            now_ns=now_ns,
            buffer=BUFFER,
            elements=ELEMENTS,
            block=block,
            lines=lines,
            aperture_s=2 * self._window_s,
        )
        self._plain = self._trigger.plain

    def _refuse(self, command: str) -> None:
        refuse_unsafe(command, off_is_short=self._cell_attached and not self._off_is_open)

    # --- connecting --------------------------------------------------------------------

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, make off an open relay, adopt the present state, rest at 0 A.

        A running current source is brought to 0 A without a break; a running voltage
        source is left through the open relay.

        Raises
        ------
        InstrumentError
            It does not answer, is another model, speaks another command set, or does not
            take a setting.
        """
        self._envelope, self._cell_attached = envelope, cell_attached
        self._off_is_open, self._setpoint = False, None
        self._identity = None
        identity = self._identified()
        self._settings.send("*CLS")
        self._settings.send(":ABOR")  # a trigger model of who was here before may still wait
        self._open_when_off()  # before anything else
        self._rest(None)
        self._prepare_readings()
        raise_queued_errors(self._link, "connecting")
        return identity

    def _identified(self) -> Identity:
        """Return who is there, once it is known to be one of the family, in SCPI."""
        if self._identity is None:
            identity = identify(self._link, tuple(SMALLEST_RANGE_A))
            language = self._settings.word("*LANG?")
            if language != "SCPI":
                raise ReplyError(
                    f"{self._link.resource}: its command set is {language}, not SCPI; on the "
                    "front panel choose MENU, System, Settings, Command Set, SCPI, and let it "
                    "restart without the cell: a restarted instrument is a 0 V source"
                )
            self._identity = identity
            self.ranges = self.models[identity.model]
        return self._identity

    @property
    def _smallest_range_A(self) -> float:
        return SMALLEST_RANGE_A[self._identified().model]

    def _prepare_readings(self) -> None:
        settings = self._settings
        found_Hz = settings.number(":SYST:LFR?")
        if found_Hz != self._line_frequency_Hz:
            raise NotApplied(
                f"{self._link.resource}: finds mains of {found_Hz:g} Hz, not of "
                f"{self._line_frequency_Hz:g} Hz; say line_frequency_Hz={found_Hz:g}"
            )
        settings.send(":FORM:DATA ASC")
        settings.set_number(":FORM:ASC:PREC", 0)  # automatic: all digits of the seconds
        settings.send(f":TRAC:CLE {BUFFER}")
        settings.send(f":TRAC:FILL:MODE CONT,{BUFFER}")
        self._trigger.prepare()
        for function in ("VOLT", "CURR"):
            settings.set_number(f":SENS:{function}:NPLC", self._nplc)
            settings.set_flag(f":SOUR:{function}:READ:BACK", on=True)
            # Autozero triples the time of a reading; the filter would smear it over others.
            settings.set_flag(f":SENS:{function}:AZER", on=False)
            settings.set_flag(f":SENS:{function}:AVER", on=False)

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
        if was is None or (was.mode, was.range_A, was.clamp) != (
            setpoint.mode,
            setpoint.range_A,
            setpoint.clamp,
        ):
            self._prepare(setpoint)
        header = ":SOUR:CURR" if setpoint.mode == "current" else ":SOUR:VOLT"
        self._settings.set_number(header, setpoint.level)
        raise_queued_errors(self._link, f"setting {setpoint.level:g}")
        self._changed(setpoint)

    def _prepare(self, setpoint: Setpoint) -> None:
        """Set function, range and clamp; the output is on afterwards."""
        was, self._setpoint = self._setpoint, None  # none of it counts until all is done
        if setpoint.mode == "current":
            self._source_current(range_A=setpoint.range_A, clamp_V=setpoint.clamp)
        elif was is not None and (was.mode, was.range_A) == ("voltage", setpoint.range_A):
            self._settings.set_number(":SOUR:VOLT:ILIM", setpoint.clamp)
        else:
            self._source_voltage(setpoint)

    def _refuse_unfit(self, setpoint: Setpoint) -> None:
        envelope = self._known_envelope()
        usable = [r.full_scale_A for r in self.ranges if r.full_scale_A >= self._smallest_range_A]
        if setpoint.range_A not in usable:
            raise UnsafeRequest(f"the instrument has no range of {setpoint.range_A:g} A here")
        largest_A = 1.05 * setpoint.range_A
        if setpoint.mode == "current" or self._cell_attached:
            largest_A = min(envelope.current_max_A, largest_A)
        if setpoint.mode == "current":
            if not abs(setpoint.level) <= largest_A:
                raise UnsafeRequest(f"{setpoint.level:g} A is beyond the limit or range")
            if not 0 < setpoint.clamp <= min(envelope.voltage_max_V, LARGEST_VOLTAGE_V):
                raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} V is not in the window")
            return
        if not SMALLEST_LIMIT_A <= setpoint.clamp <= largest_A:
            raise UnsafeRequest(
                f"a clamp of {setpoint.clamp:g} A is beyond limit or range, or below the "
                f"smallest that there is, {SMALLEST_LIMIT_A:g} A"
            )
        if self._cell_attached:
            if not envelope.voltage_min_V <= setpoint.level <= envelope.voltage_max_V:
                raise UnsafeRequest(f"{setpoint.level:g} V is not in the window")
        elif not abs(setpoint.level) <= LARGEST_VOLTAGE_V:
            raise UnsafeRequest(f"{setpoint.level:g} V is beyond the model")

    def _source_current(self, *, range_A: float, clamp_V: float) -> None:
        """Source 0 A behind a clamp, output on; from a voltage through the open relay."""
        settings = self._settings
        if self._sources_voltage():
            self._open_output()
            settings.set_word(":SOUR:FUNC", "CURR")
        settings.set_number(":SOUR:CURR", 0.0)
        self._open_when_off()
        settings.set_word(":SENS:FUNC", '"VOLT"')
        self._senses_current = False
        settings.set_number(":SENS:VOLT:RANG", VOLTAGE_RANGE_V)
        # The clamp before and after: a range that changes may change it, silently.
        settings.set_number(":SOUR:CURR:VLIM", clamp_V)
        if not math.isclose(settings.number(":SOUR:CURR:RANG?"), range_A):
            settings.set_number(":SOUR:CURR:RANG", range_A)
            settings.set_number(":SOUR:CURR:VLIM", clamp_V)
        settings.set_flag(":SOUR:CURR:RANG:AUTO", on=False)
        self._two_wires()
        self._switch_on()

    def _source_voltage(self, setpoint: Setpoint) -> None:
        """Source what the cell has behind a clamp, output on, through the open relay."""
        settings = self._settings
        if not (self._sources_voltage() and settings.flag(":OUTP?")):
            self._source_current(
                range_A=setpoint.range_A, clamp_V=self._known_envelope().voltage_max_V
            )
        start_V = self._cell_voltage_V() if self._cell_attached else setpoint.level
        self._open_output()
        settings.set_word(":SOUR:FUNC", "VOLT")
        settings.set_word(":SENS:FUNC", '"CURR"')
        self._senses_current = True
        settings.set_number(":SENS:CURR:RANG", setpoint.range_A)
        settings.set_number(":SOUR:VOLT:ILIM", setpoint.clamp)
        settings.set_number(":SOUR:VOLT:RANG", VOLTAGE_RANGE_V)
        settings.set_number(":SOUR:VOLT:ILIM", setpoint.clamp)
        settings.set_number(":SOUR:VOLT", start_V)
        self._two_wires()
        self._switch_on()

    def _open_when_off(self) -> None:
        """Make the output-off state of both source functions an open relay."""
        self._off_is_open = False
        self._settings.send(":OUTP:SMOD HIMP")  # of both at once, then each for certain
        for function in ("CURR", "VOLT"):
            self._settings.set_word(f":OUTP:{function}:SMOD", "HIMP")
        self._off_is_open = True

    def _open_output(self) -> None:
        self._open_when_off()  # an instrument that was switched off and on has forgotten it
        self._settings.set_flag(":OUTP", on=False)

    def _two_wires(self) -> None:
        """See to it that no source is regulated by sense leads that are not there."""
        for function in ("VOLT", "CURR"):
            if self._settings.flag(f":SENS:{function}:RSEN?"):
                self._settings.set_flag(f":SENS:{function}:RSEN", on=False)

    def _cell_voltage_V(self) -> float:
        """Measure what the cell has, inside its window.

        Raises
        ------
        UnsafeRequest
            It is outside the window, or was not measured: no voltage is safe to put on.
        """
        envelope = self._known_envelope()
        sourced, sensed = read_numbers(self._link.query(READ).text, 5)[:2]
        found_V = sourced if self._senses_current else sensed
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

    def _known_envelope(self) -> Envelope:
        if self._envelope is None:
            raise LinkError(f"{self._link.resource}: connect first")
        return self._envelope

    def _changed(self, setpoint: Setpoint) -> None:
        """Note a change: readings are unsettled for a while after it."""
        was, self._setpoint = self._setpoint, setpoint
        self._trigger.mark()
        if was is None or not _is_ramp_step(was, setpoint):
            self._settled_ns = self._now_ns() + round(self._spec(setpoint).settling_s * 1e9)

    def _spec(self, setpoint: Setpoint | None) -> RangeSpec:
        known = {r.full_scale_A: r for r in self.ranges}
        return self.ranges[0] if setpoint is None else known[setpoint.range_A]

    # --- reading -----------------------------------------------------------------------

    def read(self) -> NDArray[np.void]:
        """Take a block of readings of voltage and current; SAMPLE_DTYPE, shape (block,).

        Raises
        ------
        LinkError
            The link is gone. A reply that makes no sense gives rows marked INVALID.
        """
        if self._plain:
            return self._read_one()
        found = self._trigger.read()
        if found is not None:
            return self._block_rows(found)
        rows = np.concatenate([self._read_one() for _ in range(self._trigger.block)])
        rows["status"] |= int(Status.UNTRIGGERED)
        return rows

    def _block_rows(self, found: Fetched) -> NDArray[np.void]:
        sourced, sensed, seconds, fraction, bits = found.values.T
        flagged = np.isfinite(bits)
        sourced, sensed = (np.where(flagged, each, math.nan) for each in (sourced, sensed))
        voltage_V, current_A = (sourced, sensed) if self._senses_current else (sensed, sourced)
        time_s = seconds + fraction
        start_ns, end_ns = host_brackets(
            time_s, sent_ns=found.sent_ns, received_ns=found.received_ns
        )
        return self._rows(
            Raw(
                read_start_ns=start_ns,
                read_end_ns=end_ns,
                voltage_V=voltage_V,
                current_A=current_A,
                device_time_s=time_s,
                compliance=np.where(flagged, bits, 0.0).astype(np.int64) & LIMITED_BIT != 0,
            )
        )

    def _read_one(self) -> NDArray[np.void]:
        reply = self._link.query(READ)
        try:
            sourced, sensed, seconds, fraction, bits = read_numbers(reply.text, 5)
        except ReplyError:
            sourced = sensed = seconds = fraction = bits = math.nan
        if not math.isfinite(bits):
            # Without its flags a reading cannot be trusted.
            sourced, sensed, bits = math.nan, math.nan, 0.0
        voltage_V, current_A = (sourced, sensed) if self._senses_current else (sensed, sourced)
        raw = Raw(
            read_start_ns=np.array([reply.sent_ns]),
            read_end_ns=np.array([reply.received_ns]),
            voltage_V=np.array([voltage_V]),
            current_A=np.array([current_A]),
            device_time_s=np.array([seconds + fraction]),
            compliance=np.array([bool(int(bits) & LIMITED_BIT)]),
        )
        return self._rows(raw)

    def _rows(self, raw: Raw) -> NDArray[np.void]:
        return sample_rows(
            raw,
            setpoint=self._setpoint,
            spec=self._spec(self._setpoint),
            noise=self.noise,
            window_s=self._window_s,
            aperture_s=2 * self._window_s,
            settled_ns=self._settled_ns,
        )

    def exchange_clock(self) -> ClockExchange:
        """Ask for the time of a reading, in seconds of UTC: the clock tells no fractions.

        The time is of its beginning, so it was over before the reply by an aperture at least.
        """
        reply = self._link.query(CLOCK)
        seconds, fraction = read_numbers(reply.text, 2)
        return ClockExchange(
            sent_ns=reply.sent_ns,
            device_time_s=seconds + fraction,
            received_ns=max(reply.sent_ns, reply.received_ns - round(2 * self._window_s * 1e9)),
        )

    # --- safety ------------------------------------------------------------------------

    def ensure_safe(self) -> SafeState:
        """Bring the cell to S1: 0 A, clamped, output on. At any time, twice if need be.

        Raises
        ------
        InstrumentError
            It could not be confirmed.
        """
        was = self._setpoint
        try:
            return self._rest(was)
        except NoReply:
            return self._rest(was)

    def _rest(self, was: Setpoint | None) -> SafeState:
        """Go to S1 in the range of what was held, or in the smallest."""
        range_A = self._smallest_range_A if was is None else was.range_A
        self._setpoint = None
        if not self._sources_voltage():
            self._settings.set_number(":SOUR:CURR", 0.0)  # at once, whatever else fails
        clamp_V = self._known_envelope().voltage_max_V
        self._source_current(range_A=range_A, clamp_V=clamp_V)
        self._changed(Setpoint(mode="current", level=0.0, clamp=clamp_V, range_A=range_A))
        return SafeState.S1

    def rest_at_end(self) -> SafeState:
        """Go to 0 A, then open the output relay."""
        self.ensure_safe()
        self._open_output()
        raise_queued_errors(self._link, "opening the output")
        self._setpoint = None
        return SafeState.S2

    def close(self) -> None:
        """Let go of the link; the source stays as it is."""
        self._link.close()


def _is_ramp_step(was: Setpoint, now: Setpoint) -> bool:
    """Tell whether a change is so small that the meter follows it at once."""
    same = (was.mode, was.range_A, was.clamp) == (now.mode, now.range_A, now.clamp)
    return same and now.mode == "voltage" and abs(now.level - was.level) <= RAMP_STEP_V
