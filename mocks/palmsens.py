"""Simulated PalmSens instruments on the wire: EmStat Pico, EmStat4 LR and HR, Nexus.

After the maker's communication protocols: ``t`` tells the version and ``i`` the serial number,
``e`` begins a script that an empty line ends, ``Y`` ends a measurement loop and ``Z`` the
script. While a script runs, all others are refused. Its lines come unasked.

In virtual time nothing would move while the host waits for such a line. So a question for the
version, which an instrument answers at any time, lets it measure until it has sent the next
package; a host that asks for nothing gets nothing. With the time of others it runs on as in
life, and opens the cell when its script says so.

Not yet confirmed on an instrument: that the turn of an outer loop survives a ``Y``, that no
empty line follows an error, that a mode that is set opens the cell, and which numbers the
loops and ranges have. A potentiostat has no clamp here: it gives what the cell draws.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

from mocks.methodscript import EndLoop, EndScript, Execution, ScriptError, Value, parse
from mocks.pace import Pace
from mocks.smu import OPEN, Terminals
from mocks.smu_noise import RangeModel, SmuModel
from mocks.world import World

SCRIPT_READ_S = 3e-3
LONGEST_LEAVE_NS = 10_000_000_000  # for a package that does not come
OVERLOAD, UNDERLOAD, NEAR_OVERLOAD = 2, 4, 8
POTENTIOSTATS, GALVANOSTAT = (2, 3), 6
MODES = (0, 1, *POTENTIOSTATS, GALVANOSTAT)
READABLE = 1.05  # of a range

NOT_KNOWN, RUNNING = 0x0003, 0x0006
BEYOND_REACH, CELL_IS_ON, NO_SUCH_MODE, OTHER_MODE, CELL_IS_OFF = (
    0x000F, 0x0014, 0x0021, 0x0023, 0x4027,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PalmsensType:
    """One model: how it names itself, what it reaches, and its current ranges by number."""

    version: str
    serial: str
    reach_V: tuple[float, float]
    compliance_V: float
    ranges_A: dict[int, float]
    galvanostat: bool = True


_ES4_RANGES_A = {0x03: 1e-9, 0x06: 1e-8, 0x09: 1e-7, 0x0C: 1e-6, 0x0F: 1e-5, 0x12: 1e-4}

EMSTAT_PICO = PalmsensType(
    version="espico1301#Mar 17 2023 09:48:05",
    serial="ES4A19B0042",
    reach_V=(-1.25, 2.0),
    compliance_V=2.0,
    ranges_A={0: 1e-7, 1: 2e-6, 2: 4e-6, 3: 8e-6, 4: 16e-6, 5: 32e-6, 6: 63e-6, 7: 125e-6},
    galvanostat=False,
)
EMSTAT4_LR = PalmsensType(
    version="es4_lr1301#Nov  4 2024 10:15:20",
    serial="ES4LR23K0017",
    reach_V=(-3.0, 3.0),
    compliance_V=5.0,
    ranges_A=_ES4_RANGES_A,
)
EMSTAT4_HR = PalmsensType(
    version="es4_hr1301#Nov  4 2024 10:15:20",
    serial="ES4HR23K0017",
    reach_V=(-6.0, 6.0),
    compliance_V=8.0,
    ranges_A={number: full for number, full in _ES4_RANGES_A.items() if full >= 1e-7},
)
NEXUS = PalmsensType(
    version="nexus11300#Jan 20 2025 16:02:11",
    serial="NXS24L0003",
    reach_V=(-10.0, 10.0),
    compliance_V=12.0,
    ranges_A={0x00: 1e-10, **_ES4_RANGES_A},
)


_SETTLING_TAU_S = {1e-10: 0.4, 1e-9: 0.2, 1e-8: 0.04, 1e-7: 0.008}


def _smu_model(kind: PalmsensType) -> SmuModel:
    """Not yet confirmed on a data sheet: every figure."""
    return SmuModel(
        ranges=tuple(
            RangeModel(
                full_scale_A=full,
                gain_ratio=0.002,
                offset_A=0.002 * full,
                resolution_A=1e-4 * full,
                settling_tau_s=_SETTLING_TAU_S.get(full, 0.004),
            )
            for full in sorted(kind.ranges_A.values())
        ),
        volt_gain_ratio=0.001,
        volt_offset_V=1e-3,
        volt_step_V=1e-4,
        volt_noise_V=5e-5,
        current_noise_A=1e-14,
        input_ohm=1e12,
        answer_s=1e-3,
    )


class Palmsens:
    """One instrument; it talks through what is given to `attach`."""

    def __init__(self, world: World, pace: Pace, kind: PalmsensType = EMSTAT4_HR) -> None:
        self.kind = kind
        self._world, self._pace = world, pace
        self._front = _Front(Terminals(world, pace, _smu_model(kind)), kind)
        self._terminals = self._front.terminals
        self._tell: Callable[[str], None] | None = None
        self._upload: list[str] | None = None
        self._execution: Execution | None = None
        self._steps: Generator[float] | None = None
        self._wakes = 0
        self._packages = 0

    @property
    def output_on(self) -> bool:
        """True while the cell is on."""
        return self._front.on

    @property
    def running(self) -> bool:
        """True while a script runs."""
        return self._steps is not None

    def attach(self, tell: Callable[[str], None] | None) -> None:
        """Have all lines told there from now on; None when nobody listens any more."""
        self._tell = tell

    def _say(self, line: str) -> None:
        self._packages += line.startswith("P")
        if self._tell is not None:
            self._tell(line)

    # --- what the host says --------------------------------------------------------------

    async def handle(self, line: str) -> None:
        """Obey one line; what it answers goes where all its lines go."""
        line = line.strip("\r\n")
        if self._upload is not None:
            if line:
                self._upload.append(line)
                return
            script, self._upload = self._upload, None
            await self._pace.take(round(SCRIPT_READ_S * 1e9))
            self._start(script)
            return
        if not line:
            return
        await self._terminals.answer_half()
        self._obey(line)
        if line == "t":
            before = self._packages
            await self._pace.let_pass(
                lambda: self._packages > before or not self.running,
                at_most_ns=LONGEST_LEAVE_NS,
            )

    def _obey(self, line: str) -> None:
        match line, self.running:
            case "t", _:
                self._say(f"t{self.kind.version}")
                self._say("R*")
            case "i", False:
                self._say(f"i{self.kind.serial}")
            case "e", False:
                self._upload = []
            case "Y", True:
                self._say("Y")
                if self._execution is not None and self._execution.measuring:
                    self._resume(self._world.now_ns, EndLoop())
            case "Z", True:
                self._say("Z")
                self._resume(self._world.now_ns, EndScript())
            case (("Y" | "Z"), False):
                self._say(f"{line}!{RUNNING:04X}")
            case _:
                code = RUNNING if self.running else NOT_KNOWN
                self._say(f"{line[:1]}!{code:04X}")

    # --- the script ------------------------------------------------------------------------

    def _start(self, lines: list[str]) -> None:
        try:
            script = parse(lines)
        except ScriptError as error:
            self._say(f"e{error.text}")
            return
        self._say("e")
        self._execution = Execution(script, self._front, self._say)
        self._steps = self._execution.steps()
        self._resume(self._world.now_ns)

    def _resume(self, t_ns: int, thrown: Exception | None = None) -> None:
        """Run on at a time, until the script waits for another."""
        self._front.t_ns = t_ns
        self._wakes += 1
        steps, number = self._steps, self._wakes
        if steps is None:
            return
        try:
            wait_s = next(steps) if thrown is None else steps.throw(thrown)
        except StopIteration:
            self._end("")
        except ScriptError as error:
            self._end(error.text)
        else:

            async def wake(due_ns: int) -> None:
                if number == self._wakes:
                    self._resume(due_ns)

            self._pace.at(t_ns + round(wait_s * 1e9), wake)

    def _end(self, line: str) -> None:
        self._steps = self._execution = None
        self._say(line)

    # --- what happens to it ------------------------------------------------------------------

    def fail(self, code: int) -> None:
        """Have the running script fail: it stops at once, and the cell stays as it is."""
        self._wakes += 1
        self._end(ScriptError(code, 1).text)

    def power_cycle(self) -> None:
        """Forget all; the cell is open."""
        self._wakes += 1
        self._steps = self._execution = self._upload = None
        self._front.switch(on=False)


class _Front:
    """The analogue side: source, meter, and what the script may ask of them."""

    def __init__(self, terminals: Terminals, kind: PalmsensType) -> None:
        self.terminals = terminals
        self.kind = kind
        self.on = False
        self.t_ns = terminals.world.now_ns
        self._mode = 0
        self._level = {"set_e": 0.0, "set_i": 0.0}
        self._locked = True
        self._number = max(kind.ranges_A)
        self._since_ns = self.t_ns

    def now_s(self) -> float:
        """Return the time of the instrument's timer."""
        return self.t_ns / 1e9 * (1 + self.terminals.world.scenario.smu.clock_rate_ratio)

    # --- settings --------------------------------------------------------------------------

    def set_up(self, name: str, kind: str, values: tuple[float, ...]) -> None:
        """Set mode, bandwidth, ranges, potential or current."""
        if name == "set_pgstat_mode":
            self._set_mode(round(values[0]))
        elif name in ("set_range", "set_autoranging") and kind in ("ba", "db"):
            self._number = self._number_for(max(map(abs, values)))
            self._locked = name == "set_range" or len(set(values)) == 1
        elif name in ("set_range", "set_range_minmax") and kind == "da":
            self._refuse_beyond(*values)
        elif name in ("set_e", "set_i"):
            self._set_level(name, values[0])

    def _set_mode(self, mode: int) -> None:
        if mode not in MODES or (mode == GALVANOSTAT and not self.kind.galvanostat):
            raise ScriptError(NO_SUCH_MODE)
        self.switch(on=False)
        self._mode = mode
        self._level = {"set_e": 0.0, "set_i": 0.0}

    def _number_for(self, current_A: float) -> int:
        fits = [n for n, full in self.kind.ranges_A.items() if full >= 0.999 * current_A]
        return min(fits, key=self.kind.ranges_A.__getitem__, default=max(self.kind.ranges_A))

    def _refuse_beyond(self, *volts: float) -> None:
        low_V, high_V = self.kind.reach_V
        if not all(low_V <= each <= high_V for each in volts):
            raise ScriptError(BEYOND_REACH)

    def _set_level(self, name: str, level: float) -> None:
        if (name == "set_i") != (self._mode == GALVANOSTAT):
            raise ScriptError(OTHER_MODE)
        if name == "set_e":
            self._refuse_beyond(level)
        self._level[name] = level
        if self.on:
            self._drive()

    # --- the cell ----------------------------------------------------------------------------

    def switch(self, *, on: bool) -> None:
        """Switch the cell."""
        if on and self._mode not in (*POTENTIOSTATS, GALVANOSTAT):
            raise ScriptError(OTHER_MODE)
        self.on = on
        self._drive()

    def _drive(self) -> None:
        source = OPEN
        if self.on and self._mode == GALVANOSTAT:
            source = self.terminals.current_source(
                self._level["set_i"],
                range_A=self.kind.ranges_A[self._number],
                limit_V=self.kind.compliance_V,
            )
        elif self.on:
            source = self.terminals.voltage_source(self._level["set_e"], limit_A=math.inf)
        self.terminals.drive(source, output_on=self.on)

    # --- measuring ---------------------------------------------------------------------------

    def begin(self, loop: str, level: float | None) -> None:
        """Put a loop's level on; None for none."""
        if loop == "meas_loop_ocp":
            if self.on:
                raise ScriptError(CELL_IS_ON)
        elif not self.on:
            raise ScriptError(CELL_IS_OFF)
        else:
            self._set_level("set_i" if loop == "meas_loop_cp" else "set_e", level or 0.0)
        self._since_ns = self.t_ns

    def measure(self, loop: str, level: float | None) -> tuple[Value, Value]:
        """Return potential and current since the last reading."""
        measured = self.terminals.read_between(
            self._since_ns, self.t_ns, range_A=self.kind.ranges_A[self._number]
        )
        self._since_ns = self.t_ns
        potential = self._potential(measured.voltage_V)
        if loop == "meas_loop_cp":
            return potential, Value(value=level or 0.0, kind="db", notes=self._notes(0))
        if loop == "meas_loop_ocp":
            return potential, Value(value=0.0, kind="ba")
        return Value(value=level or 0.0, kind="da"), self._current(measured.current_A)

    def _notes(self, status: int) -> str:
        return f",1{status:X},2{self._number:02X}"

    def _potential(self, read_V: float) -> Value:
        low_V, high_V = self.kind.reach_V
        seen_V = min(max(read_V, 1.02 * low_V), 1.02 * high_V)
        return Value(value=seen_V, kind="ab", notes=f",1{OVERLOAD if seen_V != read_V else 0:X}")

    def _current(self, read_A: float) -> Value:
        full_A = self.kind.ranges_A[self._number]
        status = 0
        if abs(read_A) > READABLE * full_A:
            read_A, status = math.copysign(READABLE * full_A, read_A), OVERLOAD
        elif abs(read_A) > 0.95 * full_A:
            status = NEAR_OVERLOAD
        elif abs(read_A) < 0.01 * full_A and not self._locked:
            status = UNDERLOAD
        found = Value(value=read_A, kind="ba", notes=self._notes(status))
        if not self._locked and status != NEAR_OVERLOAD:
            self._number = self._number_for(abs(read_A) * 1.2)
        return found
