"""PalmSens instruments that speak MethodSCRIPT: EmStat Pico, EmStat4 and Nexus.

After the MethodSCRIPT manual 1.8 (dev.palmsens.com/methodscript/latest) and the maker's
communication protocols for EmStat Pico 1.6 and EmStat4 1.3. What is unlike a source-measure
unit:

* The instrument obeys no single settings. It runs one script at a time, which streams; a
  set-point is a script (`potentiostat.methodscript_scripts`). What is set reads back in its
  packages: the level, and the number of the current range.
* Rest is the open cell (`cell_off`), its voltage measured on: no current at all flows, so
  S1 needs no clamp. S2 is the same with no script.
* From one script to the next the cell is open, for some tens of milliseconds. A set-point that
  moves in equal steps, as a ramp does, is one script, and the cell stays on; steps that are
  further apart than half a lease, or unequal, are a script each.
* There is no clamp. A reading beyond it opens the cell: a voltage at once, a current when the
  third reading in a row is beyond. `read` then raises after the row that shows it.
* A held level ends by itself in an open cell when the host is silent for `lease_s`.
* A galvanostat tells the current that it applies, a potentiostat the voltage.

Not yet confirmed on an instrument: all of the above that the manual leaves open, above all
that ``Y`` begins the next turn without a break; that a reading integrates over the whole
interval; and that the timer begins anew with each script, so that its times are counted on
here from the host's stamp of the script's beginning. An EmStat Pico on its own serial port
needs 230400 baud; over USB the rate does not matter. The digital lines are not used: a script
can set and read them between readings, but none begins a reading.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from potentiostat.blocks import refuse_unknown_block
from potentiostat.errors import (
    InstrumentError,
    InstrumentRefused,
    LinkError,
    NoReply,
    NotApplied,
    ReplyError,
    UnsafeRequest,
)
from potentiostat.limits import Envelope
from potentiostat.methodscript import CURRENTS, TIME, WHOLE, Variable
from potentiostat.methodscript_rows import first_of, row_of, spec_of, variables_of
from potentiostat.methodscript_scripts import Terms, Why, hold_script, rest_script
from potentiostat.methodscript_stream import Package, Stream, StreamLink
from potentiostat.palmsens_models import (
    INPUT_OHM,
    MODELS,
    RANGES,
    UNCONFIRMED,
    PalmsensModel,
)
from potentiostat.protocol import (
    NO_LINES,
    ClockExchange,
    SafeState,
    Setpoint,
    TriggerLines,
)
from potentiostat.records import UNKNOWN_ORDER, Identity, RangeSpec
from potentiostat.thermometer import ThermometerSpec

LEVEL_STEP_V = 1e-3  # a level reads back to this
LEVEL_STEP_RATIO = 1e-3  # or to this share of the current range
RAMP_STEP_V = 5e-3
MOST_PACKAGES = 5  # until a level must have been told


@dataclass(slots=True, kw_only=True)
class _Held:
    """What the running script holds: rest, where no level is on."""

    setpoint: Setpoint
    begun_s: float  # of the instrument's timer, on the time scale of all scripts
    changed_ns: int
    renewed_ns: int
    step: float = 0.0
    rests: bool = False


class PalmsensMethodscript:
    """An EmStat Pico, EmStat4 or Nexus on one link, used by one thread.

    Parameters
    ----------
    link
        Open, and able to `listen`; owned by the calling thread from now on.
    now_ns
        Host clock.
    line_frequency_Hz
        Of the mains.
    nplc
        Half the interval between readings, in power-line cycles.
    lease_s
        The instrument opens the cell by itself when the host is silent for so long; for no
        less than ten readings, though.
    block, lines
        One reading at a time, and no trigger lines: anything else is refused.
    """

    model = "MethodSCRIPT"
    models: Mapping[str, tuple[RangeSpec, ...]] = {
        model.name: tuple(r for r in RANGES if r.full_scale_A in model.range_numbers)
        for model in MODELS.values()
    }
    ranges = RANGES
    apertures = UNKNOWN_ORDER
    off_states: tuple[SafeState, ...] = (SafeState.S1, SafeState.S2)
    input_ohm = INPUT_OHM
    unconfirmed = UNCONFIRMED
    largest_block = 1
    trigger_lines: tuple[int, ...] = ()
    thermometer: ThermometerSpec | None = None
    identity_query = "t"
    serial_baud = 230_400  # of an EmStat Pico's own port; a virtual one over USB ignores it

    def __init__(
        self,
        link: StreamLink,
        *,
        now_ns: Callable[[], int],
        line_frequency_Hz: float = 50.0,
        nplc: float = 1.0,
        lease_s: float = 2.0,
        block: int = 1,
        lines: TriggerLines = NO_LINES,
    ) -> None:
        refuse_unknown_block(
            f"PalmSens {self.model}", block=block, largest=self.largest_block, lines=lines, known=()
        )
        self._link = link
        self._now_ns = now_ns
        self._line_frequency_Hz = line_frequency_Hz
        self._interval_s = 2 * nplc / line_frequency_Hz
        self._lease_s = max(lease_s, 10 * self._interval_s)
        self._zero_ns = now_ns()
        self._stream = Stream(link, now_ns)
        self._envelope: Envelope | None = None
        self._cell_attached = True
        self._known: PalmsensModel | None = None
        self._held: _Held | None = None
        self._settled_ns = 0
        self._rows: deque[NDArray[np.void]] = deque()

    # --- connecting --------------------------------------------------------------------

    def connect(self, envelope: Envelope, *, cell_attached: bool = True) -> Identity:
        """Identify, open the cell and see it done, then rest.

        Whatever script runs is ended: what it holds cannot be asked.

        Raises
        ------
        InstrumentError
            It does not answer, is another instrument, cannot reach the cell's window, or
            does not open the cell.
        """
        self._envelope, self._cell_attached = envelope, cell_attached
        self._held, self._known = None, None
        raw = self._stream.greet()
        model = self._model_of(raw)
        self._refuse_window(model, envelope)
        self._stream.open_cell()
        self._know(model)
        serial = self._stream.serial()
        self._rest(None)
        return Identity(
            maker="PalmSens",
            model=model.name,
            serial=serial,
            firmware=raw[7:].partition("#")[0],
            raw=raw,
        )

    def _model_of(self, version: str) -> PalmsensModel:
        if (model := MODELS.get(version[1:7])) is None:
            names = ", ".join(model.name for model in MODELS.values())
            raise ReplyError(
                f"{self._link.resource}: is no {names}, it says {version!r}; "
                "name the driver of that model instead"
            )
        return model

    def _refuse_window(self, model: PalmsensModel, envelope: Envelope) -> None:
        low_V, high_V = model.reach_V
        reached = low_V <= envelope.voltage_min_V and envelope.voltage_max_V <= high_V
        if self._cell_attached and not reached:
            raise UnsafeRequest(
                f"{self._link.resource}: an {model.name} reaches {low_V:g} to {high_V:g} V, not "
                f"{envelope.voltage_min_V:g} to {envelope.voltage_max_V:g} V: nothing was set"
            )

    def _know(self, model: PalmsensModel) -> PalmsensModel:
        self._known = model
        self.ranges = tuple(r for r in RANGES if r.full_scale_A in model.range_numbers)
        return model

    def _identified(self) -> PalmsensModel:
        return self._known or self._know(self._model_of(self._stream.greet()))

    def _terms(self) -> Terms:
        model, envelope = self._identified(), self._envelope
        window_V = None
        if self._cell_attached and envelope is not None:
            window_V = (envelope.voltage_min_V, envelope.voltage_max_V)
        return Terms(
            interval_s=self._interval_s,
            lease_s=self._lease_s,
            reach_V=model.reach_V,
            window_V=window_V,
            mains_Hz=self._line_frequency_Hz if model.mains_filter else None,
        )

    # --- sourcing ----------------------------------------------------------------------

    def apply(self, setpoint: Setpoint) -> None:
        """Hold ``setpoint``, and see in a reading that the instrument does.

        Raises
        ------
        UnsafeRequest
            It lies outside the envelope, the model has no such range or no galvanostat, or
            the cell's voltage is not in its window. Nothing is on the cell then.
        NotApplied, InstrumentRefused, LinkError
            The instrument did not take it.
        """
        self._refuse_unfit(setpoint)
        held = self._held
        if setpoint.mode == "current" and setpoint.level == 0:
            self._rest(setpoint)
        elif held is not None and self._is_next_of(held, setpoint):
            self._take_step(held, setpoint)
        else:
            self._hold(setpoint, step=self._likely_step(setpoint))

    def _refuse_unfit(self, setpoint: Setpoint) -> None:
        envelope, model = self._envelope, self._identified()
        if envelope is None:
            raise LinkError(f"{self._link.resource}: connect first")
        if setpoint.range_A not in model.range_numbers:
            raise UnsafeRequest(f"an {model.name} has no range of {setpoint.range_A:g} A here")
        largest_A = setpoint.range_A
        if setpoint.mode == "current" or self._cell_attached:
            largest_A = min(envelope.current_max_A, largest_A)
        if setpoint.mode == "voltage":
            self._refuse_voltage(setpoint, largest_A)
            return
        if not abs(setpoint.level) <= largest_A:
            raise UnsafeRequest(f"{setpoint.level:g} A is beyond the limit or range")
        if setpoint.level != 0 and not model.galvanostat:
            raise UnsafeRequest(f"an {model.name} is no galvanostat: it holds voltages, or 0 A")
        if not 0 < setpoint.clamp <= min(envelope.voltage_max_V, model.reach_V[1]):
            raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} V is not in the window")

    def _refuse_voltage(self, setpoint: Setpoint, largest_A: float) -> None:
        if not 0 < setpoint.clamp <= largest_A:
            raise UnsafeRequest(f"a clamp of {setpoint.clamp:g} A is beyond limit or range")
        low_V, high_V = self._terms().window_V or self._identified().reach_V
        if not low_V <= setpoint.level <= high_V:
            raise UnsafeRequest(f"{setpoint.level:g} V is not in the window")

    def _is_next_of(self, held: _Held, setpoint: Setpoint) -> bool:
        """Tell whether the running script comes to ``setpoint`` with its next turn."""
        if not (self._stream.running and not held.rests and _differ_in_level(held, setpoint)):
            return False
        next_level = held.setpoint.level + held.step
        return abs(next_level - setpoint.level) <= 1e-6 * max(abs(held.step), abs(next_level))

    def _likely_step(self, setpoint: Setpoint) -> float:
        """Return how far a ramp moves on, from its last two levels; 0 where none is likely."""
        held = self._held
        if held is None or held.rests or not _differ_in_level(held, setpoint):
            return 0.0
        if self._now_ns() - held.changed_ns > 0.5e9 * self._lease_s:
            return 0.0
        return setpoint.level - held.setpoint.level

    def _hold(self, setpoint: Setpoint, *, step: float = 0.0) -> None:
        """Hold a level with a script of its own, by way of the open cell."""
        self._run(hold_script(self._terms(), setpoint, step=step), setpoint, step=step)
        self._settled_ns += round(self._interval_s * 1e9)  # in which the open cell is measured
        self._await_level()

    def _take_step(self, held: _Held, setpoint: Setpoint) -> None:
        """Go on to the next turn of a script that moves in steps."""
        self._turn(held)
        small = setpoint.mode == "voltage" and abs(held.step) <= RAMP_STEP_V
        held.setpoint, held.changed_ns = setpoint, self._now_ns()
        if not small:
            self._unsettle(setpoint)
        self._await_level()

    def _turn(self, held: _Held) -> None:
        try:
            self._stream.next_turn()
        except InstrumentRefused:
            if (why := self._why_of(self._stream.packages)) is not None:
                raise self._opened(why) from None
            raise
        finally:
            self._keep_rows()  # what was heard belongs to the turn that has ended
        held.renewed_ns = self._now_ns()

    def _run(
        self, script: str, setpoint: Setpoint, *, step: float = 0.0, rests: bool = False
    ) -> None:
        """Have another script run in place of the present one."""
        try:
            self._stream.stop()
        finally:
            self._keep_rows()
            self._held = None  # nothing counts until the next has begun
        begun = self._stream.start(script)
        self._held = _Held(
            setpoint=setpoint,
            begun_s=(begun.received_ns - self._zero_ns) / 1e9,
            changed_ns=begun.received_ns,
            renewed_ns=begun.received_ns,
            step=step,
            rests=rests,
        )
        self._unsettle(setpoint)

    def _unsettle(self, setpoint: Setpoint) -> None:
        self._settled_ns = self._now_ns() + round(spec_of(setpoint.range_A).settling_s * 1e9)

    def _await_level(self) -> None:
        """Read until the level is told, and see that it is the one that was asked for."""
        for _ in range(MOST_PACKAGES):
            package = self._next_package()
            self._rows.append(self._row(package))
            found = variables_of(package)
            if first_of(found, CURRENTS) is not None:
                self._compare(found)
                return
        raise NotApplied(f"{self._link.resource}: does not tell what it applies")

    def _compare(self, found: dict[str, Variable]) -> None:
        setpoint = self._holding().setpoint
        current = setpoint.mode == "current"
        told = found.get("db" if current else "da")
        near = LEVEL_STEP_RATIO * setpoint.range_A if current else LEVEL_STEP_V
        if told is not None and not abs(told.value - setpoint.level) <= near:
            raise NotApplied(
                f"{self._link.resource}: was set to {setpoint.level:g} and applies {told.value:g}"
            )
        number = self._identified().range_numbers[setpoint.range_A]
        measured = first_of(found, CURRENTS)
        if number is None or measured is None or measured.range_index is None:
            return
        if measured.range_index != number:
            raise NotApplied(
                f"{self._link.resource}: the range of {setpoint.range_A:g} A is its number "
                f"{number}, and it uses {measured.range_index}"
            )

    def _holding(self) -> _Held:
        if self._held is None:
            raise LinkError(f"{self._link.resource}: nothing is held; connect, or make it safe")
        return self._held

    # --- reading -----------------------------------------------------------------------

    def read(self) -> NDArray[np.void]:
        """Return the next reading; SAMPLE_DTYPE, shape (1,).

        Raises
        ------
        InstrumentRefused
            The instrument has opened the cell by itself, or its script failed.
        LinkError
            The link is gone or silent. A line that makes no sense is a row marked INVALID.
        """
        self._renew()
        if not self._rows:
            self._rows.append(self._row(self._next_package()))
        return self._rows.popleft()

    def exchange_clock(self) -> ClockExchange:
        """Take the time of the next package; its row is kept for `read`.

        A package is sent when its reading is done: its time is that of the exchange's end,
        and is told here for the middle, as of any other exchange.
        """
        self._keep_rows()
        for _ in range(MOST_PACKAGES):
            package = self._next_package()
            self._rows.append(self._row(package))
            time = variables_of(package).get(TIME)
            if time is not None and math.isfinite(time.value):
                waited_s = (package.received_ns - package.asked_ns) / 1e9
                return ClockExchange(
                    sent_ns=package.asked_ns,
                    device_time_s=self._holding().begun_s + time.value - 0.5 * waited_s,
                    received_ns=package.received_ns,
                )
        raise ReplyError(f"{self._link.resource}: does not tell its time")

    def _renew(self) -> None:
        """Tell the instrument that the host is there, well before its lease is over."""
        held = self._holding()
        if held.rests or self._now_ns() - held.renewed_ns < 0.5e9 * self._lease_s:
            return
        if held.step == 0:
            self._turn(held)
        else:
            self._hold(held.setpoint)  # the ramp has stopped

    def _next_package(self) -> Package:
        """Return the next reading of the running script.

        Raises
        ------
        InstrumentRefused, UnsafeRequest
            There is none: the instrument has opened the cell.
        """
        held = self._holding()
        package = self._stream.next_package()
        if package is None and held.rests:
            self._rest(held.setpoint)  # the longest script comes to an end
            package = self._stream.next_package()
        if package is None:
            raise self._opened(None)
        if (why := self._why_of((package,))) is not None:
            raise self._opened(why)
        return package

    def _why_of(self, packages: Iterable[Package]) -> Variable | None:
        """Return why a script has opened the cell, where one of its packages says so."""
        return next((f[WHOLE] for p in packages if WHOLE in (f := variables_of(p))), None)

    def _opened(self, why: Variable | None) -> InstrumentError:
        resource = self._link.resource
        match None if why is None else round(why.value):
            case Why.LIMIT:
                return InstrumentRefused(
                    f"{resource}: the instrument has opened the cell: a reading was beyond the "
                    "clamp or the window"
                )
            case Why.LEASE:
                return InstrumentRefused(
                    f"{resource}: the instrument has opened the cell: nothing was heard of the "
                    f"host for {self._lease_s:g} s"
                )
            case Why.WINDOW:
                return UnsafeRequest(
                    f"{resource}: the cell's voltage is not in its window: nothing is put on it"
                )
        return InstrumentRefused(f"{resource}: the script has ended; the cell is open")

    def _keep_rows(self) -> None:
        """Make rows of what was heard so far, while it is known what it belongs to."""
        while self._stream.packages:
            package = self._stream.packages.popleft()
            if WHOLE not in variables_of(package):
                self._rows.append(self._row(package))

    def _row(self, package: Package) -> NDArray[np.void]:
        held = self._held
        return row_of(
            package,
            setpoint=None if held is None else held.setpoint,
            begun_s=math.nan if held is None else held.begun_s,
            zero_ns=self._zero_ns,
            interval_s=self._interval_s,
            settled_ns=self._settled_ns,
        )

    # --- safety ------------------------------------------------------------------------

    def ensure_safe(self) -> SafeState:
        """Open the cell and measure its voltage. At any time, twice if need be.

        Raises
        ------
        InstrumentError
            It could not be confirmed.
        """
        try:
            self._rest(None)
        except NoReply:
            self._rest(None)
        return SafeState.S1

    def _rest(self, setpoint: Setpoint | None) -> None:
        """Rest in the range of a set-point, of what was held, or in the smallest."""
        model = self._identified()
        if setpoint is None:
            clamp_V = model.reach_V[1] if self._envelope is None else self._envelope.voltage_max_V
            held_A = None if self._held is None else self._held.setpoint.range_A
            range_A = min(model.range_numbers) if held_A is None else held_A
            setpoint = Setpoint(mode="current", level=0.0, clamp=clamp_V, range_A=range_A)
        self._run(rest_script(self._terms()), setpoint, rests=True)

    def rest_at_end(self) -> SafeState:
        """Open the cell, see it done, and leave no script behind."""
        self._stream.stop()
        self._keep_rows()
        self._held = None
        self._stream.open_cell()
        return SafeState.S2

    def close(self) -> None:
        """Let go of the link; the script goes on, to the end of its lease."""
        self._link.close()


def _differ_in_level(held: _Held, setpoint: Setpoint) -> bool:
    """Tell whether nothing but the level is another."""
    return replace(held.setpoint, level=setpoint.level) == setpoint
