"""Keithley 2635 and 2636 (A or B) source-measure units, channel A, over TSP.

Series 2600B Reference Manual, 2600BS-901-01: output-off states section 2, buffers Rev. C
pp. 7-20 to 7-35, triggers of the command interface Rev. F p. 4-7, digital lines p. 9-55.

The off state is NORMAL after power-up, a 0 V source with a limit of 1 mA: high impedance is
set and read back before anything else. With the output on, the source function is never
changed: what the terminals see then is not documented. While a current is sourced the meter
is locked to the source's range, so the 100 pA range, which only measures, is of no use
here. Numbers are asked for with 16 digits; the instrument would print six.

The instrument makes the cell safe by itself when it hears nothing for ``lease_s``: a
function waits there between two messages, and then goes to 0 A and high impedance. It is a
promise of the instrument's alone, also at rest, where the source may be off by 2 pA.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import refuse_unknown_block
from potentiostat.errors import LinkError, NoReply, NotApplied, ReplyError, UnsafeRequest
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, ClockExchange, SafeState, Setpoint, TriggerLines
from potentiostat.readings import ReadingNoise, sample_rows
from potentiostat.records import UNKNOWN_ORDER, Identity, RangeSpec, Status
from potentiostat.scpi import Link, read_number
from potentiostat.settings import identify
from potentiostat.thermometer import ThermometerSpec
from potentiostat.tsp import END_CHUNK, Chunks, refuse_unsafe_tsp
from potentiostat.tsp_readings import (
    CLOCK,
    CLOCK_START,
    EDGE_WAIT_S,
    VOLTAGE_RANGE_V,
    Taken,
    block_bytes,
    lock_readings,
    parse_block,
    parse_line,
)

MODELS = ("2635A", "2636A", "2635B", "2636B")
DCAMPS, DCVOLTS = 0, 1
HIGH_Z = 2
VOLTAGE_STEP_V = 5e-4  # of the source in its 20 V range
SMALLEST_LIMIT_A = 1e-10
RAMP_STEP_V = 5e-3
LINES = tuple(range(1, 15))
LARGEST_BLOCK = 500
LONGEST_BUSY_S = 1.5  # a reply must come before the link gives up, and the lease be renewed
OVERHEAD_S = 2e-3  # of a reading beside its integration
MESSAGE_S = 0.1  # of a message on its way, and of a chunk until it waits

# All of this is not yet confirmed on a data sheet of ours.
RANGES = tuple(
    RangeSpec(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=step,
        settling_s=settling,
        source_gain_ratio=source_gain,
        source_offset_A=source_offset,
    )
    for full, gain, offset, step, settling, source_gain, source_offset in (
        (1e-9, 0.0015, 2.4e-13, 1e-15, 0.15, 0.0015, 2e-12),
        (1e-8, 0.0015, 3e-12, 1e-14, 0.15, 0.0015, 5e-12),
        (1e-7, 0.0006, 4e-11, 1e-13, 0.02, 0.0006, 5e-11),
        (1e-6, 0.00025, 4e-10, 1e-12, 2.5e-3, 0.0003, 7e-10),
    )
)
NOISE = ReadingNoise(voltage_V=3e-5, voltage_step_V=1e-5, current_A=2e-14)


class Keithley2600:
    """Channel A of a 2635 or 2636 on one link, used by one thread.

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
        What is wired to the digital lines: rising edges in, short high pulses out.
    lease_s
        Time without a message after which the instrument goes to high impedance by
        itself; 0 for never.

    Notes
    -----
    After `close` the lease runs out, too: the source does not stay as it is.
    """

    model = "2636B"
    models: Mapping[str, tuple[RangeSpec, ...]] = dict.fromkeys(MODELS, RANGES)
    ranges: tuple[RangeSpec, ...] = RANGES
    apertures = UNKNOWN_ORDER
    off_states: tuple[SafeState, ...] = (SafeState.S1, SafeState.S2)
    input_ohm = 1e14
    unconfirmed = "accuracy, voltmeter, settling, noise"
    largest_block = LARGEST_BLOCK
    trigger_lines: tuple[int, ...] = LINES
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
        lease_s: float = 2.0,
    ) -> None:
        refuse_unknown_block(
            self.model, block=block, largest=self.largest_block, lines=lines, known=LINES
        )
        self._link = link
        self._now_ns = now_ns
        self._window_s = nplc / line_frequency_Hz
        self._nplc = nplc
        self._line_frequency_Hz = line_frequency_Hz
        self._block = block
        self._lines = lines
        self._envelope: Envelope | None = None
        self._cell_attached = True
        self._setpoint: Setpoint | None = None
        self._settled_ns = 0
        self._identified = False
        self._off_is_open = False  # HIGH_Z was read back
        self._locked = False  # all settings are known to be ours
        hold_s = self._hold_s(lease_s)
        self._tsp = Chunks(link, now_ns=now_ns, refuse=self._refuse, hold_s=hold_s)

    def _hold_s(self, lease_s: float) -> float | None:
        """Return how long the instrument may wait, so that all silence is within the lease."""
        busy_s = MESSAGE_S + self._block * (2 * self._window_s + OVERHEAD_S)
        busy_s += EDGE_WAIT_S if self._lines.exposure_in is not None else 0.0
        longest_s = min(LONGEST_BUSY_S, 0.75 * lease_s) if lease_s else LONGEST_BUSY_S
        if busy_s > longest_s:
            raise UnsafeRequest(
                f"{self._block} readings at {self._nplc:g} power-line cycles may take "
                f"{busy_s:.2g} s, more than the {longest_s:.2g} s in which the lease can be "
                "renewed; take fewer at once"
            )
        return lease_s - busy_s if lease_s else None

    def _refuse(self, chunk: str) -> None:
        refuse_unsafe_tsp(chunk, off_is_open=self._off_is_open or not self._cell_attached)

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
        self._locked = False
        identity = self._identify()
        self._open_when_off()  # before anything else is set
        self._rest(self._rest_setpoint(self.ranges[0].full_scale_A))
        self._tsp.do(CLOCK_START)
        return identity

    def _identify(self) -> Identity:
        self._identified = False
        self._link.write(END_CHUNK)  # a lease that was left running would keep it silent
        identity = identify(self._link, MODELS)
        self._identified = True
        return identity

    def _open_when_off(self) -> None:
        """Have the relay open when off, whatever an earlier user has left in the queue."""
        self._off_is_open = False
        name = "smua.source.offmode"
        (found,) = self._tsp.ask(name, after=f"localnode.prompts=0 {name}={HIGH_Z}")
        if found != HIGH_Z:
            raise NotApplied(f"{self._link.resource}: {name} was set to 2, reads back {found:g}")
        self._off_is_open = True

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
        if not (self._locked and was is not None and _kind(was) == _kind(setpoint)):
            self._change(setpoint)
        if not self._set_level(setpoint):
            raise self._is_off()
        self._changed(setpoint)

    def _is_off(self) -> NotApplied:
        self._locked = False
        return NotApplied(f"{self._link.resource}: the output is off; make it safe first")

    def _refuse_unfit(self, setpoint: Setpoint) -> None:
        envelope = self._known_envelope()
        if setpoint.range_A not in {r.full_scale_A for r in self.ranges}:
            why = "; the range of 100 pA only measures" if setpoint.range_A < 1e-9 else ""
            raise UnsafeRequest(
                f"the {self.model} has no range of {setpoint.range_A:g} A here{why}"
            )
        largest_A = 1.01 * setpoint.range_A
        if self._cell_attached or setpoint.mode == "current":
            largest_A = min(envelope.current_max_A, largest_A)
        if setpoint.mode == "current":
            if not abs(setpoint.level) <= largest_A:
                raise UnsafeRequest(f"{setpoint.level:g} A is beyond the limit or range")
            if not 0 < setpoint.clamp <= min(envelope.voltage_max_V, VOLTAGE_RANGE_V):
                raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} V is not in the window")
            return
        low_V, high_V = -VOLTAGE_RANGE_V, VOLTAGE_RANGE_V
        if self._cell_attached:
            low_V, high_V = envelope.voltage_min_V, envelope.voltage_max_V
        if not low_V <= setpoint.level <= high_V:
            raise UnsafeRequest(f"{setpoint.level:g} V is not in the window")
        if not SMALLEST_LIMIT_A <= setpoint.clamp <= largest_A:
            raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} A is beyond limit or range")

    def _change(self, setpoint: Setpoint) -> None:
        """Bring mode, range and clamp to those of a set-point; the level comes after."""
        self._locked = False
        source, output = self._tsp.ask("smua.source.func", "smua.source.output")
        if output != 1:
            raise self._is_off()
        sources_voltage = source == DCVOLTS
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

    def _start(self, setpoint: Setpoint) -> None:
        """Source a set-point on an output that is off: the clamp first, then the level."""
        voltage = setpoint.mode == "voltage"
        self._tsp.set_number("smua.source.func", DCVOLTS if voltage else DCAMPS)
        self._set_clamp(setpoint)
        self._lock_range(setpoint)
        self._set_level(setpoint)
        # A level that does not fit its range is told only now.
        on, count = self._tsp.ask(
            "smua.source.output", "errorqueue.count", after="smua.source.output=1"
        )
        self._tsp.raise_errors(count, "switching the output on")
        if on != 1:
            raise NotApplied(f"{self._link.resource}: the output stays off, at high impedance")

    def _stop_current(self) -> None:
        self._tsp.set_number("smua.source.leveli", 0.0)
        if self._setpoint is not None:
            self._setpoint = self._rest_setpoint(self._setpoint.range_A)

    def _lock_range(self, setpoint: Setpoint) -> None:
        """Set the range of source or meter, unless it is on already."""
        tsp, range_A = self._tsp, setpoint.range_A
        if setpoint.mode == "voltage":
            if not _equal(tsp.number("smua.measure.rangei"), range_A):
                tsp.set_number("smua.measure.rangei", range_A)
        elif not _equal(tsp.number("smua.source.rangei"), range_A):
            tsp.set_number("smua.source.leveli", 0.0)
            tsp.set_number("smua.source.rangei", range_A)

    def _set_clamp(self, setpoint: Setpoint) -> None:
        name = "smua.source.limitv" if setpoint.mode == "current" else "smua.source.limiti"
        self._tsp.set_number(name, setpoint.clamp, rel_tol=1e-3)

    def _set_level(self, setpoint: Setpoint) -> bool:
        """Set the level, and tell whether the output is on."""
        current = setpoint.mode == "current"
        step = self._spec(setpoint).resolution_A if current else VOLTAGE_STEP_V
        value, line = setpoint.level, self._lines.mark_out
        (output,) = self._tsp.set_number(
            f"smua.source.level{'i' if current else 'v'}",
            value,
            rel_tol=max(1e-6, 0.51 * step / max(abs(value), step)),
            then="" if line is None else f"digio.trigger[{line}].assert()",
            also=("smua.source.output",),
        )
        return output == 1

    def _switch_off(self) -> None:
        """Open the relay, sure that it opens and is no 0 V source."""
        self._open_when_off()
        self._tsp.set_number("smua.source.output", 0.0)

    def _cell_voltage_V(self) -> float:
        """Measure what the cell has; outside its window no voltage is safe to put on."""
        envelope = self._known_envelope()
        found_V, output_on = self._tsp.ask("smua.measure.v()", "smua.source.output")
        if not (output_on and envelope.voltage_min_V <= found_V <= envelope.voltage_max_V):
            raise UnsafeRequest(
                f"the cell is at {found_V:g} V, outside {envelope.voltage_min_V:g} to "
                f"{envelope.voltage_max_V:g} V: no voltage is put on it"
            )
        return found_V

    def _output_is_on(self) -> bool:
        return self._tsp.number("smua.source.output") == 1

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
        if was is None or not _is_ramp_step(was, setpoint):
            self._settled_ns = self._now_ns() + round(self._spec(setpoint).settling_s * 1e9)

    def _spec(self, setpoint: Setpoint | None) -> RangeSpec:
        usual = self.ranges[0]
        if setpoint is None:
            return usual
        return next((r for r in self.ranges if r.full_scale_A == setpoint.range_A), usual)

    # --- reading -----------------------------------------------------------------------

    def read(self) -> NDArray[np.void]:
        """Take readings of voltage and current; SAMPLE_DTYPE, shape (block,).

        Raises
        ------
        LinkError
            The link is gone. A reply that makes no sense, or a reading with the output
            off, as after a lease that ran out, gives rows marked INVALID.
        """
        took = self._take()
        rows = sample_rows(
            took.raw,
            setpoint=self._setpoint,
            spec=self._spec(self._setpoint),
            noise=NOISE,
            window_s=self._window_s,
            aperture_s=2 * self._window_s,  # not yet confirmed: one after the other
            settled_ns=self._settled_ns,
        )
        if not took.triggered:
            rows["status"] |= int(Status.UNTRIGGERED)
        return rows

    def _take(self) -> Taken:
        if self._block == 1:
            return parse_line(self._tsp.read_line())
        got = self._tsp.read_block(block_bytes(self._block))
        try:
            return parse_block(got)
        except ReplyError as error:
            self._link.resync()
            raise ReplyError(f"{self._link.resource}: {error}") from None

    def exchange_clock(self) -> ClockExchange:
        """Ask for the instrument's timer, which the readings are stamped with."""
        reply = self._tsp.query(f"print({CLOCK})")
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
        sources, output = self._tsp.ask(
            "smua.source.func", "smua.source.output", after="errorqueue.clear()"
        )
        running = output == 1 and sources == DCAMPS
        if running:
            self._stop_current()
            self._set_clamp(rest)
        self._open_when_off()
        if output == 1 and not running:
            self._switch_off()
        if not self._locked or output != 1:
            self._locked = False
            lock_readings(
                self._tsp,
                nplc=self._nplc,
                line_frequency_Hz=self._line_frequency_Hz,
                block=self._block,
                lines=self._lines,
            )
        if running:
            self._lock_range(rest)
        else:
            self._start(rest)
        self._changed(rest)

    def rest_at_end(self) -> SafeState:
        """Go to 0 A, then to high impedance; an output that is off already stays off."""
        self._known_envelope()
        if self._output_is_on():
            self.ensure_safe()
        self._locked = False
        self._tsp.do("errorqueue.clear()")
        self._switch_off()
        return SafeState.S2

    def close(self) -> None:
        """Let go of the link; with a lease the source goes to high impedance after it."""
        self._link.close()


def _equal(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=1e-6)


def _kind(setpoint: Setpoint) -> tuple[str, float, float]:
    """All of a set-point but its level."""
    return setpoint.mode, setpoint.range_A, setpoint.clamp


def _is_ramp_step(was: Setpoint, now: Setpoint) -> bool:
    """Tell whether a change is so small that the meter follows it at once."""
    small = now.mode == "voltage" and abs(now.level - was.level) <= RAMP_STEP_V
    return small and _kind(was) == _kind(now)
