"""Keysight B2985 and B2987 electrometers (A or B) with a galvanostat in software, over SCPI.

They measure picoamperes and have a voltage source, but no current source and no limit of
the current that could be set. Wiring: source HI to cell +, cell - to the ammeter's input,
the ammeter's common to source LO. What the terminals see then hangs on the function:

* CURR: the ammeter's input is at the level of its common to 20 uV. The cell has the level
  of the source, and a positive reading charges it.
* VOLT: the input is open but for 200 Tohm, and reads the level of the source less the
  voltage of the cell. That is S1 here: open circuit, and still measuring.

So the function VOLT comes before everything else, and CURR only once the source has been
brought to what the cell has. A current is held by `galvanostat`: each `read` makes one
correction. A host that falls silent leaves a voltage on, inside the window; the guardian's
lease opens the input. A held voltage whose current goes beyond its clamp opens it, too.

Commands: PyMeasure's driver of this family; B2980B User's Guide p. 92 for the common
terminal. HIGH Z as the off state needs the 20 V range of the source. The B2900's reading
elements, status bits and timer are taken to hold here.
"""

import math
import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import refuse_unknown_block
from potentiostat.errors import LinkError, NoReply, NotApplied, ReplyError, UnsafeRequest
from potentiostat.galvanostat import LARGEST_STRAY_F, Galvanostat, LoopFigures, Plant
from potentiostat.keysight_electrometer import (
    ELEMENTS,
    INPUT_OHM,
    RANGES,
    READING,
    VOLTAGE_STEP_V,
    Taken,
    lag_s,
    rows_of,
    take,
)
from potentiostat.keysight_thermometer import THERMOCOUPLE, ThermocoupleInput
from potentiostat.limits import Envelope
from potentiostat.noise import current_sigma_A
from potentiostat.protocol import NO_LINES, ClockExchange, SafeState, Setpoint, TriggerLines
from potentiostat.records import SAMPLE_DTYPE, TOGETHER, Identity, RangeSpec, Status
from potentiostat.scpi import Link, raise_queued_errors, refuse_unsafe
from potentiostat.settings import Settings, identify
from potentiostat.thermometer import TemperatureReading, ThermometerSpec

MODELS = ("B2985A", "B2985B", "B2987A", "B2987B")
VOLTAGE_RANGE_V = 20.0
LARGEST_VOLTAGE_V = 21.0
RAMP_STEP_V = 5e-3
MOVE_STEPS = 0.6  # of the source: a smaller correction is kept for the next one
OPEN_SETTLING_NS = 50_000_000
LONGEST_BLOCK_S = 1.5  # of integration: its reply must come within the link's 2 s
_STARTS_READING = re.compile(r"(^|;)\s*:?(INIT|READ)", re.IGNORECASE)
_LEVEL = re.compile(r"^:SOUR:VOLT\s+(\S+)$")


class KeysightB298x:
    """A B2985 or B2987 on one link, used by one thread.

    Parameters
    ----------
    link
        Open; owned by the calling thread from now on.
    now_ns
        Host clock.
    line_frequency_Hz
        Of the mains: a wrong one lets hum into every reading.
    nplc
        Integration time of a reading, in power-line cycles.
    block
        Readings at once. A current is held one reading at a time: more than one is for
        open circuit and held voltages only.
    lines
        None are known yet.
    """

    model = "B298x"
    models: Mapping[str, tuple[RangeSpec, ...]] = dict.fromkeys(MODELS, RANGES)
    ranges: tuple[RangeSpec, ...] = RANGES
    apertures = TOGETHER  # one quantity is read, the other told
    off_states: tuple[SafeState, ...] = (SafeState.S1, SafeState.S2)
    input_ohm = INPUT_OHM
    unconfirmed = (
        "input resistance, polarity, noise, figures above 2 nA, what settling means, "
        "reading elements and NPLC as on a B2900, span and error of the thermocouple's input"
    )
    largest_block = 50
    trigger_lines: tuple[int, ...] = ()
    thermometer: ThermometerSpec | None = THERMOCOUPLE

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
        if block > 1 and block * self._window_s > LONGEST_BLOCK_S:
            raise UnsafeRequest(
                f"{block} readings of {self._window_s:g} s take longer than "
                f"{LONGEST_BLOCK_S:g} s; ask for fewer, or for a smaller nplc"
            )
        self._nplc = nplc
        self._line_frequency_Hz = line_frequency_Hz
        self._block = block
        self._envelope: Envelope | None = None
        self._cell_attached = True
        self._setpoint: Setpoint | None = None
        self._settled_ns = 0
        self._identified = False
        self._off_is_open = False  # HIZ was read back
        self._reads_safely = False  # a reading does not switch the output on
        self._locked = False  # all settings are known to be ours
        self._lost = False  # output or input found off though we had switched it on
        self._closed = False  # the input is an ammeter: current may flow
        self._beyond_clamp = False  # opened because of it
        self._level_V = math.nan  # as it was asked for
        self._loop: Galvanostat | None = None
        self._known_ohm: float | None = None  # of the cell, by the last loop
        self._last_A = 0.0
        self._moved_ns = 0  # of the last correction, or of the set-point
        self._pace_s = block * self._window_s  # of readings, about
        self._settings = Settings(link, self._refuse)
        self._thermocouple = ThermocoupleInput(link, self._settings)

    def _refuse(self, command: str) -> None:
        refuse_unsafe(command, off_is_short=self._cell_attached and not self._off_is_open)
        if _STARTS_READING.search(command) and not self._reads_safely:
            raise UnsafeRequest(f"{command} is not sent yet: it could switch the output on")
        if found := _LEVEL.match(command):
            low_V, high_V = self._levels_V()
            if not low_V <= float(found[1]) <= high_V:
                raise UnsafeRequest(f"{float(found[1]):g} V is not in the window")

    def _levels_V(self) -> tuple[float, float]:
        if not self._cell_attached:
            return -LARGEST_VOLTAGE_V, LARGEST_VOLTAGE_V
        envelope = self._known_envelope()
        return envelope.voltage_min_V, min(envelope.voltage_max_V, LARGEST_VOLTAGE_V)

    # --- connecting --------------------------------------------------------------------

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, open the input, make off an open relay, and measure the open circuit.

        Raises
        ------
        InstrumentError
            It does not answer, is another model, or does not take a setting.
        """
        self._envelope, self._cell_attached = envelope, cell_attached
        self._reads_safely = self._locked = self._off_is_open = False
        self._known_ohm = None  # another cell, perhaps
        identity = self._identify()
        self._open_input()  # ends a short, too: by a source that is off in the state ZERO
        self._settings.send("*CLS")
        self._settings.send(":SYST:TIME:TIM:COUN:RES")  # a young timer has the finer digits
        self._arm()
        raise_queued_errors(self._link, "connecting")
        self._changed(self._rest_setpoint(self.ranges[0].full_scale_A))
        return identity

    def _identify(self) -> Identity:
        self._identified = False
        identity = identify(self._link, MODELS)
        self._identified = True
        return identity

    def _open_input(self) -> None:
        """Make the input a voltmeter: no current flows, whatever the source does."""
        self._loop = None
        self._settings.set_word(":FUNC", "'VOLT'")
        self._closed = False

    def _open_when_off(self) -> None:
        self._off_is_open = False
        if not _equal(self._settings.number(":SOUR:VOLT:RANG?"), VOLTAGE_RANGE_V):
            self._settings.set_number(":SOUR:VOLT:RANG", VOLTAGE_RANGE_V)
        self._settings.set_word(":OUTP:OFF:MODE", "HIZ")
        self._off_is_open = True

    def _arm(self) -> None:
        """Bring an instrument with an open input to S1, whatever had been set before."""
        settings, (low_V, high_V) = self._settings, self._levels_V()
        self._open_when_off()
        self._reads_safely = False
        settings.set_flag(":OUTP:ON:AUTO", on=False)
        self._reads_safely = True
        self._lock_readings()
        settings.set_flag(":INP", on=True)
        level_V = settings.number(":SOUR:VOLT?")
        if not settings.flag(":OUTP?") or not low_V <= level_V <= high_V:
            self._set_level((low_V + high_V) / 2)
            settings.send(":OUTP ON")
            if not settings.flag(":OUTP?"):
                raise NotApplied(f"{self._link.resource}: the output stays off")
        self._lost, self._locked = False, True

    def _lock_readings(self) -> None:
        settings = self._settings
        settings.send(":ABOR:ACQ")
        settings.set_word(":SOUR:VOLT:MODE", "FIX")
        for quantity in ("CURR", "VOLT"):
            settings.set_flag(f":SENS:{quantity}:RANG:AUTO", on=False)
            settings.set_number(f":SENS:{quantity}:NPLC", self._nplc)
        settings.set_number(":VOLT:RANG", VOLTAGE_RANGE_V)
        settings.set_number(":SYST:LFR", self._line_frequency_Hz)
        for layer, count in ((":TRIG:ACQ", self._block), (":ARM:ACQ", 1)):
            settings.set_word(f"{layer}:SOUR", "AINT")
            settings.set_number(f"{layer}:COUN", count)
        settings.set_word(":FORM", "ASC" if self._block == 1 else "REAL,64")
        settings.set_word(":FORM:BORD", "SWAP")
        settings.set_word(":FORM:ELEM:SENS", ELEMENTS)

    # --- sourcing ----------------------------------------------------------------------

    def apply(self, setpoint: Setpoint) -> None:
        """Hold ``setpoint`` from now on: 0 A by an open input, any other current by a loop.

        Raises
        ------
        UnsafeRequest
            It lies outside the envelope, or has a range or clamp that the model has not.
        NotApplied, InstrumentRefused, LinkError
            The instrument did not take it, has lost its output, or had opened its input.
        """
        self._refuse_unfit(setpoint)
        if self._lost or not self._locked:
            raise NotApplied(f"{self._link.resource}: the output is off; make it safe first")
        if self._beyond_clamp and setpoint.mode == "voltage" and self._same_kind(setpoint):
            raise NotApplied(
                f"{self._link.resource}: the current went beyond its clamp of "
                f"{setpoint.clamp:g} A, and the input was opened"
            )
        self._locked = False
        if setpoint.mode == "current" and setpoint.level == 0.0:
            self._open_input()
            self._lock_range(setpoint.range_A)
        else:
            self._close_input(setpoint)
            self._loop = None
            if setpoint.mode == "current":
                self._loop = self._new_loop(setpoint)
            elif abs(setpoint.level - self._level_V) <= RAMP_STEP_V:
                self._set_level(setpoint.level)  # a larger step is made by the readings
        raise_queued_errors(self._link, f"setting {setpoint.level:g}")
        self._changed(setpoint)

    def _same_kind(self, setpoint: Setpoint) -> bool:
        return self._setpoint is not None and _kind(self._setpoint) == _kind(setpoint)

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
            if setpoint.level != 0.0 and self._block > 1:
                raise UnsafeRequest(
                    f"a current is held by one correction for each reading, not for "
                    f"{self._block}; leave block out, or hold voltages only"
                )
            return
        low_V, high_V = self._levels_V()
        if not low_V <= setpoint.level <= high_V:
            raise UnsafeRequest(f"{setpoint.level:g} V is not in the window")
        if not 0 < setpoint.clamp <= largest_A:
            raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} A is beyond limit or range")

    def _close_input(self, setpoint: Setpoint) -> None:
        """Let the input be an ammeter, with the source where the cell is already."""
        same_range = self._setpoint is not None and self._setpoint.range_A == setpoint.range_A
        if self._closed and same_range:
            return
        if self._closed:
            self._open_input()  # a range is never changed on a cell
        if not same_range:
            self._known_ohm = None
        self._lock_range(setpoint.range_A)
        if self._cell_attached:
            self._set_level(self._cell_voltage_V())
        self._settings.set_word(":FUNC", "'CURR'")
        self._closed, self._last_A = True, 0.0

    def _lock_range(self, range_A: float) -> None:
        if not _equal(self._settings.number(":CURR:RANG?"), range_A):
            self._settings.set_number(":CURR:RANG", range_A)

    def _new_loop(self, setpoint: Setpoint) -> Galvanostat:
        spec = self._spec(setpoint.range_A)
        low_V, high_V = self._levels_V()
        noise_A = current_sigma_A(
            setpoint.level,
            feedback_ohm=1.0 / spec.full_scale_A,
            window_s=self._window_s,
            resolution_A=spec.resolution_A,
        )
        return Galvanostat(
            Plant(lag_s=lag_s(spec), noise_A=noise_A, step_V=VOLTAGE_STEP_V),
            target_A=setpoint.level,
            window_V=(low_V + VOLTAGE_STEP_V, min(high_V, setpoint.clamp) - VOLTAGE_STEP_V),
            level_V=self._level_V,
            current_A=self._last_A,
            estimate_ohm=self._known_ohm,
        )

    def _set_level(self, level_V: float) -> None:
        """Set the source; it rounds to a step of its range."""
        tolerance = 0.51 * VOLTAGE_STEP_V / max(abs(level_V), VOLTAGE_STEP_V)
        self._settings.set_number(":SOUR:VOLT", level_V, rel_tol=tolerance)
        self._level_V = level_V

    def _cell_voltage_V(self) -> float:
        """Measure what the cell has; outside its window nothing is connected to it."""
        envelope = self._known_envelope()
        taken = self._take()
        found_V = float(np.mean(taken.cell_V))
        if not (taken.live and envelope.voltage_min_V <= found_V <= envelope.voltage_max_V):
            raise UnsafeRequest(
                f"the cell is at {found_V:g} V, outside {envelope.voltage_min_V:g} to "
                f"{envelope.voltage_max_V:g} V: no voltage is put on it"
            )
        return found_V

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
        self._locked, self._beyond_clamp = True, False
        if was is None or not _is_ramp_step(was, setpoint):
            self._moved_ns = self._now_ns()
            self._unsettle(setpoint)

    def _unsettle(self, setpoint: Setpoint) -> None:
        settling_ns = round(self._spec(setpoint.range_A).settling_s * 1e9)
        self._settled_ns = self._now_ns() + (settling_ns if self._closed else OPEN_SETTLING_NS)

    def _spec(self, range_A: float) -> RangeSpec:
        return next(r for r in self.ranges if r.full_scale_A == range_A)

    # --- reading -----------------------------------------------------------------------

    def _take(self) -> Taken:
        self._refuse(READING)
        return take(self._link, self._block)

    def read(self) -> NDArray[np.void]:
        """Take readings, and correct the level of the source where a current is held.

        Raises
        ------
        LinkError, NotApplied
            The link is gone, or a correction was not taken. A reply that makes no sense, or
            a reading with the output or the input off, gives rows marked INVALID.
        UnsafeRequest
            Not connected: a reading could switch the output on.
        """
        taken, setpoint = self._take(), self._setpoint
        self._lost = self._lost or taken.live is False
        if self._lost:
            taken.values[:, (0, 1)] = math.nan
        if setpoint is None:  # a connection that was cut short: there is nothing to compare
            return np.empty(0, SAMPLE_DTYPE)
        rows = rows_of(
            taken,
            closed=self._closed,
            setpoint=setpoint,
            spec=self._spec(setpoint.range_A),
            window_s=self._window_s,
            settled_ns=self._settled_ns,
        )
        if self._loop is not None:
            self._correct(self._loop, float(rows["current_A"][-1]), taken, setpoint)
            rows["status"] |= int(Status.SETTLING) * (not self._loop.settled)
            rows["status"] |= int(Status.COMPLIANCE) * self._loop.limited
        elif self._closed:
            self._watch_clamp(rows, setpoint)
            self._approach(taken, setpoint)
        rows["status"] |= int(Status.COMPLIANCE) * self._beyond_clamp
        return rows

    def _correct(
        self, loop: Galvanostat, current_A: float, taken: Taken, setpoint: Setpoint
    ) -> None:
        """Take one turn of the loop; a reading that is no number leaves the level."""
        if math.isnan(current_A):
            return
        if math.isinf(current_A):
            current_A = math.copysign(1.05 * setpoint.range_A, current_A)
        passed_s = max((taken.received_ns - self._moved_ns) / 1e9, 1e-3)
        self._moved_ns, self._last_A = taken.received_ns, current_A
        level_V = loop.correct(current_A, reading_s=passed_s, held_V=float(taken.values[-1, 4]))
        self._known_ohm = loop.estimate_ohm
        if abs(level_V - self._level_V) >= MOVE_STEPS * VOLTAGE_STEP_V:
            self._set_level(level_V)

    def _watch_clamp(self, rows: NDArray[np.void], setpoint: Setpoint) -> None:
        """Open the input when the current of a held voltage goes beyond its clamp."""
        self._last_A = float(rows["current_A"][-1])
        if self._cell_attached and bool((np.abs(rows["current_A"]) > setpoint.clamp).any()):
            self._open_input()
            self._beyond_clamp = True

    def _approach(self, taken: Taken, setpoint: Setpoint) -> None:
        """Move a held voltage on, no faster than its clamp charges the stray capacitance.

        There is no limit of the current in the source: this is what takes its place.
        """
        left_V = setpoint.level - self._level_V
        if not self._closed or left_V == 0.0:
            return
        passed_s = (taken.received_ns - self._moved_ns) / 1e9
        self._moved_ns = taken.received_ns
        # Even steps, though a question for the time may come between two readings.
        self._pace_s += 0.2 * (min(passed_s, 1.5 * self._pace_s) - self._pace_s)
        step_V = max(setpoint.clamp / LARGEST_STRAY_F * self._pace_s, VOLTAGE_STEP_V)
        if abs(left_V) > step_V:
            self._set_level(self._level_V + math.copysign(step_V, left_V))
            return
        self._set_level(setpoint.level)
        self._unsettle(setpoint)

    @property
    def loop_figures(self) -> LoopFigures | None:
        """What the loop promises for the current that is held; None where none is."""
        return None if self._loop is None else self._loop.figures

    def exchange_clock(self) -> ClockExchange:
        """Take the timestamp of a reading: the unit of the timer's own reply is not known."""
        taken = self._take()
        time_s = float(taken.values[0, 2])
        if not math.isfinite(time_s):
            raise ReplyError(f"{self._link.resource}: a reading without its time")
        return ClockExchange(
            sent_ns=taken.sent_ns, device_time_s=time_s, received_ns=taken.received_ns
        )

    def read_temperature(self) -> TemperatureReading:
        """Ask for what the thermocouple says; source and readings stay as they are.

        Raises
        ------
        InstrumentError
            There was no answer, or the instrument refuses the question.
        """
        return self._thermocouple.read()

    # --- safety ------------------------------------------------------------------------

    def ensure_safe(self) -> SafeState:
        """Bring the cell to S1: input open, voltage measured. At any time, twice if need be.

        Raises
        ------
        InstrumentError
            It could not be confirmed.
        """
        self._known_envelope()
        try:
            return self._make_safe()
        except NoReply:
            return self._make_safe()

    def _make_safe(self) -> SafeState:
        if not self._identified:
            self._identify()
        self._open_input()
        was = self._setpoint
        switched_on = self._settings.flag(":OUTP?") and self._settings.flag(":INP?")
        if not (self._locked and switched_on) or self._lost:
            self._locked = False
            self._arm()
        range_A = self.ranges[0].full_scale_A if was is None else was.range_A
        self._changed(self._rest_setpoint(range_A))
        return SafeState.S1

    def rest_at_end(self) -> SafeState:
        """Open the input, then the relay of the output, then the relay of the input."""
        self._known_envelope()
        if self._settings.flag(":OUTP?") or not self._reads_safely:
            self.ensure_safe()
        self._locked = False
        self._settings.send("*CLS")
        self._open_input()
        self._open_when_off()
        self._settings.set_flag(":OUTP", on=False)
        self._settings.set_flag(":INP", on=False)
        raise_queued_errors(self._link, "opening the output")
        return SafeState.S2

    def close(self) -> None:
        """Let go of the link; the source stays as it is."""
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
