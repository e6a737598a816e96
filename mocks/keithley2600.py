"""A simulated Keithley 2636B that speaks TSP, with channel A at the cell.

Written from the Series 2600B reference manual, 2600BS-901-01 (command interface triggers
Rev. F p. 4-7, common commands p. 11-4, digital lines p. 9-62). It has the real one's traps:
`offmode` is NORMAL after power-up, which is a 0 V source; numbers are told with six digits
unless asked otherwise; an error is silent until the queue is read; and no line is obeyed
while a chunk is running, but for `abort`, which ends it, and `*TRG`, which `trigger.wait()`
takes out of the queue; and the timer loses its microseconds within minutes.

Not yet confirmed on an instrument: that `abort` leaves no error and drops nothing that comes
after it, that a chunk survives its connection, and the numbers of errors other than -285,
-286, 1101 and 1102. A chunk that waits in `trigger.wait()` is the only one during which
further lines are read here. One that woke up because its time was over may set things and
wait again, but takes no readings.
"""

import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from mocks.keithley2600_smu import CONSTANTS, SMU_2636B, Buffer, Channel
from mocks.pace import Pace
from mocks.smu import Terminals
from mocks.tsp import Interpreter, Values, Waiting, step, suspend, type_name
from mocks.tsp_parser import TspError, parse, runtime_error
from mocks.world import World

EPOCH_S = 1_700_000_000  # UTC seconds at host time 0
ASCII, REAL32, REAL64 = 1.0, 2.0, 3.0
LINES = range(1, 15)
_FORMATS = {
    "format.ASCII": ASCII, "format.REAL32": REAL32, "format.REAL64": REAL64,
    "format.LITTLEENDIAN": 1.0, "format.BIGENDIAN": 0.0,
    "digio.TRIG_BYPASS": 0.0, "digio.TRIG_FALLING": 1.0, "digio.TRIG_RISING": 2.0,
    "digio.TRIG_EITHER": 3.0, "digio.TRIG_RISINGA": 7.0, "digio.TRIG_RISINGM": 8.0,
    "display.SMUA": 0.0, "display.SMUA_SMUB": 2.0, "display.USER": 3.0,
}  # fmt: skip
_SETTINGS = {
    "format.data": (ASCII, (ASCII, REAL32, REAL64)),
    "format.byteorder": (1.0, (0.0, 1.0)),
    "format.asciiprecision": (6.0, tuple(float(n) for n in range(17))),
    "localnode.prompts": (0.0, (0.0, 1.0)),
    "localnode.showerrors": (0.0, (0.0, 1.0)),
    "localnode.linefreq": (50.0, (50.0, 60.0)),
    "localnode.autolinefreq": (1.0, (0.0, 1.0)),
    "display.screen": (2.0, (0.0, 1.0, 2.0, 3.0)),
    **{f"digio.trigger.{n}.mode": (0.0, tuple(map(float, range(9)))) for n in LINES},
}
_INPUT_MODES = (1.0, 3.0, 7.0)


class Branch:
    """A name with names below it, such as ``smua.source``."""

    def __init__(self, instrument: "Keithley2600", path: str) -> None:
        self._instrument = instrument
        self.path = path

    def _below(self, key: Any) -> str:
        return f"{self.path}.{int(key) if isinstance(key, float) else key}"

    def get(self, key: Any) -> Any:
        """Return what stands below."""
        return self._instrument.look_up(self._below(key))

    def set(self, key: Any, value: Any) -> None:
        """Assign to what stands below."""
        self._instrument.assign(self._below(key), value)


class Keithley2600:
    """The instrument's state, and the chunk that it runs.

    Parameters
    ----------
    world
        What the terminals of channel A are connected to.
    pace
        How time passes while it works.

    Attributes
    ----------
    edge_every_ns
        An edge comes in at every digital line each time that this has passed; None
        for none.
    timer_zero_s
        Time since power-up at which the timer was last set to zero.
    pulses
        What went out at digital lines: host time and line.
    """

    identity = "Keithley Instruments Inc., Model 2636B, 4012345, 3.2.2"

    def __init__(self, world: World, pace: Pace) -> None:
        self._world, self._pace = world, pace
        self._terminals = Terminals(world, pace, SMU_2636B)
        self.channels = {"smua": Channel(self._terminals), "smub": Channel(None)}
        self.edge_every_ns: int | None = None
        self.pulses: list[tuple[int, int]] = []
        self._looked_ns: dict[int, int] = {}  # when the edges of a line were last looked for
        self._functions = self._all_functions()
        self._readers = self._all_readers()
        self._set_defaults()
        names = (*self._functions, *self._readers, *_SETTINGS, *_FORMATS, *self._channel_names())
        self._branches = {
            path.rsplit(".", depth)[0] for path in names for depth in range(1, path.count(".") + 1)
        }
        self._power_up()

    def _channel_names(self) -> list[str]:
        return [f"{channel}.{name}" for channel in self.channels for name in Channel.names()]

    def _set_defaults(self) -> None:
        self._values = {name: default for name, (default, _) in _SETTINGS.items()}
        for channel in self.channels.values():
            channel.set_defaults()

    def _power_up(self) -> None:
        self._errors: deque[tuple[int, str]] = deque(maxlen=100)
        self._powered_ns = self._world.now_ns - 12_345_678_901
        self.timer_zero_s = 0.0
        self._chunk: Coroutine[Any, Any, None] | None = None
        self._waiting: Waiting | None = None
        self._triggered = False
        self._collecting: list[str] | None = None
        self._out: list[str | bytes] = []
        roots = {path.split(".")[0] for path in self._branches}
        builtins: dict[str, Any] = {name: Branch(self, name) for name in sorted(roots)}
        builtins |= {name: f for name, f in self._functions.items() if "." not in name}
        self._interpreter = Interpreter(builtins)

    def power_cycle(self) -> None:
        """Lose all settings and functions, and be off as after power-up: a 0 V source."""
        self._set_defaults()
        self._power_up()
        for channel in self.channels.values():
            channel.drive()

    @property
    def output_on(self) -> bool:
        """The output switch of channel A."""
        return self.channels["smua"].on

    # --- the wire ------------------------------------------------------------------------------

    async def handle(self, line: str) -> str | bytes | None:
        """Obey one line; return what is printed meanwhile, or None."""
        command = line.strip()
        if command.lower() == "abort":
            self._end_chunk()
        elif command.upper() == "*TRG":
            await self._terminals.answer_time()
            self._triggered = True
            if self._waiting is not None and self._waiting.for_trigger:
                await self._go_on(told=True)
        elif command:
            await self._wait_for_chunk()
            await self._terminals.answer_time()
            await self._obey(command)
        return self._printed()

    def _printed(self) -> str | bytes | None:
        out, self._out = self._out, []
        if not out:
            return None
        if any(isinstance(part, bytes) for part in out):
            return b"\n".join(part if isinstance(part, bytes) else part.encode() for part in out)
        return "\n".join(str(part) for part in out)

    async def _obey(self, command: str) -> None:
        common: dict[str, Callable[[], str | None]] = {
            "*IDN?": lambda: self.identity,
            "*OPC?": lambda: "1",
            "*CLS": self._errors.clear,
            "*RST": self._reset_all,
        }
        if command in ("loadscript", "loadandrunscript"):
            self._collecting = []
        elif self._collecting is not None and command != "endscript":
            self._collecting.append(command)
        elif self._collecting is not None:
            text, self._collecting = "\n".join(self._collecting), None
            await self._start(text)
        elif command.upper() in common:
            if (answer := common[command.upper()]()) is not None:
                self._out.append(answer)
        else:
            await self._start(command)

    def _reset_all(self) -> None:
        self._set_defaults()
        for channel in self.channels.values():
            channel.drive()

    # --- the chunk -------------------------------------------------------------------------------

    async def _start(self, text: str) -> None:
        try:
            block = parse(text)
        except TspError as error:
            self._errors.append((error.code, str(error)))
            return
        self._chunk = self._interpreter.run(block)
        await self._go_on(told=None)

    async def _go_on(self, *, told: bool | None, woken: bool = False) -> None:
        """Run the chunk until it waits for a trigger, or is over.

        One that was woken by time alone is woken by time again: nobody else waits for it.
        """
        while self._chunk is not None:
            self._waiting = None
            try:
                waiting = await step(self._chunk, told)
            except TspError as error:
                self._errors.append((error.code, str(error)))
                waiting = None
            if waiting is None:
                self._chunk = None
                return
            self._waiting = waiting
            if waiting.for_trigger or woken:
                self._pace.at(waiting.until_ns, self._time_over(waiting))
                return
            await self._pace.take(waiting.until_ns - self._world.now_ns)
            told = False

    def _time_over(self, waiting: Waiting) -> Callable[[int], Awaitable[None]]:
        async def over(_due_ns: int) -> None:
            if self._waiting is waiting:
                await self._go_on(told=False, woken=True)

        return over

    async def _wait_for_chunk(self) -> None:
        """Stay in the queue while a chunk is running."""
        while (waiting := self._waiting) is not None:
            await self._pace.take(max(0, waiting.until_ns - self._world.now_ns))
            if self._waiting is waiting:
                await self._go_on(told=False)

    def _end_chunk(self) -> None:
        if self._chunk is not None:
            self._chunk.close()
        self._chunk = self._waiting = None

    async def _trigger_wait(self, arguments: Values) -> Values:
        if not self._triggered:
            until_ns = self._world.now_ns + round(float(arguments[0]) * 1e9)
            await suspend(Waiting(until_ns=until_ns, for_trigger=True))
        found, self._triggered = self._triggered, False
        return [found]

    async def _trigger_clear(self, _arguments: Values) -> Values:
        self._triggered = False
        return []

    async def _delay(self, arguments: Values) -> Values:
        until_ns = self._world.now_ns + round(float(arguments[0]) * 1e9)
        await suspend(Waiting(until_ns=until_ns, for_trigger=False))
        return []

    # --- names -------------------------------------------------------------------------------

    def look_up(self, path: str) -> Any:
        """Return what a name stands for; raise TspError where there is none."""
        root, _, name = path.partition(".")
        if root in self.channels and (found := self._of_channel(root, name)) is not None:
            return found
        tables: tuple[Mapping[str, Any], ...] = (self._functions, self._values, _FORMATS)
        for known in tables:
            if path in known:
                return known[path]
        if path in self._readers:
            return self._readers[path]()
        if path in self._branches:
            return Branch(self, path)
        raise runtime_error(
            f"attempt to index field `{path.rsplit('.', maxsplit=1)[-1]}' (a nil value)"
        )

    def _all_readers(self) -> dict[str, Callable[[], Any]]:
        found: dict[str, Callable[[], Any]] = {
            "errorqueue.count": lambda: float(len(self._errors)),
            "localnode.model": lambda: self.identity.split(",")[1].split()[-1],
        }
        for name, channel in self.channels.items():
            path = f"status.measurement.instrument.{name}.condition"
            found[path] = partial(getattr, channel, "condition")
        return found

    def _of_channel(self, root: str, name: str) -> Any:
        channel = self.channels[root]
        if name in channel.values:
            return channel.read(name)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in channel.buffers:
            return channel.buffers[name]
        return channel.in_compliance if name == "source.compliance" else None

    def assign(self, path: str, value: Any) -> None:
        """Change a setting; raise TspError where there is none."""
        root, _, name = path.partition(".")
        if root in self.channels and name in self.channels[root].values:
            self.channels[root].write(name, value)
        elif path in _SETTINGS:
            if value not in _SETTINGS[path][1]:
                raise TspError(1101, "Parameter too big")
            self._values[path] = value
        else:
            raise runtime_error(f"attempt to assign to `{path}'")

    def _all_functions(self) -> dict[str, Callable[[Values], Awaitable[Values]]]:
        found: dict[str, Callable[[Values], Awaitable[Values]]] = {
            "print": self._print,
            "printnumber": self._print_numbers,
            "printbuffer": self._print_buffers,
            "delay": self._delay,
            "waitcomplete": self._nothing,
            "reset": self._reset,
            "trigger.wait": self._trigger_wait,
            "trigger.clear": self._trigger_clear,
            "timer.reset": self._reset_timer,
            "timer.measure.t": self._time,
            "errorqueue.next": self._next_error,
            "errorqueue.clear": self._clear_errors,
            **{f"display.{name}": self._nothing for name in ("settext", "clear", "sendkey")},
        }
        for name, channel in self.channels.items():
            found[f"{name}.reset"] = self._resetter(channel)
            for what in ("i", "v", "iv", "r"):
                for way in ("", "overlapped"):
                    found[f"{name}.measure.{way}{what}"] = self._measurer(channel, what)
        for line in LINES:
            found[f"digio.trigger.{line}.wait"] = self._edge_waiter(line)
            found[f"digio.trigger.{line}.assert"] = self._pulser(line)
            found[f"digio.trigger.{line}.clear"] = self._edge_clearer(line)
        return found

    async def _nothing(self, _arguments: Values) -> Values:
        return []

    async def _reset(self, _arguments: Values) -> Values:
        self._reset_all()
        return []

    def _resetter(self, channel: Channel) -> Callable[[Values], Awaitable[Values]]:
        async def reset(_arguments: Values) -> Values:
            channel.set_defaults()
            channel.drive()
            return []

        return reset

    # --- printing ----------------------------------------------------------------------------

    def _text(self, value: Any) -> str:
        if isinstance(value, bool) or value is None:
            return {True: "true", False: "false", None: "nil"}[value]
        if isinstance(value, float):
            digits = int(self._values["format.asciiprecision"]) or 6
            return f"{value:.{digits - 1}e}"
        return value if isinstance(value, str) else f"{type_name(value)}: 0x1"

    def _emit(self, numbers: list[float]) -> None:
        """Print numbers in the format that is set; `print` heeds it not (Rev. F p. 9-102)."""
        if self._values["format.data"] == ASCII:
            self._out.append(", ".join(self._text(number) for number in numbers))
            return
        order = "<" if self._values["format.byteorder"] else ">"
        kind = "d" if self._values["format.data"] == REAL64 else "f"
        self._out.append(b"#0" + struct.pack(f"{order}{len(numbers)}{kind}", *numbers))

    async def _print(self, arguments: Values) -> Values:
        self._out.append("\t".join(self._text(a) for a in arguments))
        return []

    async def _print_numbers(self, arguments: Values) -> Values:
        self._emit([float(a) for a in arguments])
        return []

    async def _print_buffers(self, arguments: Values) -> Values:
        first, last, *columns = arguments
        tables = [c.get("readings") if isinstance(c, Buffer) else c for c in columns]
        self._emit(
            [
                float(table.get(float(i), math.nan))
                for i in range(int(first), int(last) + 1)
                for table in tables
            ]
        )
        return []

    async def _next_error(self, _arguments: Values) -> Values:
        if not self._errors:
            return [0.0, "Queue Is Empty", 0.0, 1.0]
        code, text = self._errors.popleft()
        return [float(code), text, 20.0, 1.0]

    async def _clear_errors(self, _arguments: Values) -> Values:
        self._errors.clear()
        return []

    # --- time, lines and readings ------------------------------------------------------------

    def device_time_s(self, host_ns: int) -> float:
        """Return the time since power-up by the instrument's oscillator, in microseconds."""
        oscillator = 1 + self._world.scenario.smu.clock_rate_ratio
        return math.floor((host_ns - self._powered_ns) / 1e3 * oscillator) / 1e6

    async def _reset_timer(self, _arguments: Values) -> Values:
        self.timer_zero_s = self.device_time_s(self._world.now_ns)
        return []

    async def _time(self, _arguments: Values) -> Values:
        """Return the timer, which loses resolution within minutes: taken as 24 bits."""
        elapsed_s = self.device_time_s(self._world.now_ns) - self.timer_zero_s
        step_s = max(1e-6, 2.0 ** (math.frexp(elapsed_s)[1] - 24))
        return [math.floor(elapsed_s / step_s + 1e-6) * step_s]

    def _edge_waiter(self, line: int) -> Callable[[Values], Awaitable[Values]]:
        async def wait(arguments: Values) -> Values:
            left_ns = round(float(arguments[0]) * 1e9)
            found = False
            if self._values[f"digio.trigger.{line}.mode"] in _INPUT_MODES and self.edge_every_ns:
                every_ns = self.edge_every_ns
                next_ns = (self._looked_ns.get(line, 0) // every_ns + 1) * every_ns
                found = next_ns - self._world.now_ns <= left_ns
                left_ns = max(0, next_ns - self._world.now_ns) if found else left_ns
            await self._pace.take(left_ns)
            self._looked_ns[line] = self._world.now_ns
            return [found]

        return wait

    def _edge_clearer(self, line: int) -> Callable[[Values], Awaitable[Values]]:
        async def clear(_arguments: Values) -> Values:
            self._looked_ns[line] = self._world.now_ns
            return []

        return clear

    def _pulser(self, line: int) -> Callable[[Values], Awaitable[Values]]:
        async def pulse(_arguments: Values) -> Values:
            if self._values[f"digio.trigger.{line}.mode"]:
                self.pulses.append((self._world.now_ns, line))
            return []

        return pulse

    def _measurer(self, channel: Channel, what: str) -> Callable[[Values], Awaitable[Values]]:
        async def measure(buffers: Values) -> Values:
            for buffer in buffers:
                if not buffer.settings["appendmode"]:
                    await buffer.clear([])
            values = [0.0]
            first_ns = self._world.now_ns
            for i in range(int(channel.values["measure.count"])):
                due_ns = first_ns + round(i * channel.values["measure.interval"] * 1e9)
                await self._pace.take(max(0, due_ns - self._world.now_ns))
                values = await self._take(channel, what, buffers)
            return list(values)

        return measure

    async def _take(self, channel: Channel, what: str, buffers: list[Buffer]) -> list[float]:
        start_ns, current_A, voltage_V, status = await channel.measure(
            self._values["localnode.linefreq"]
        )
        ohm = voltage_V / current_A if current_A else math.inf
        values = {"i": [current_A], "v": [voltage_V], "iv": [current_A, voltage_V], "r": [ohm]}
        source = channel.values["source.leveli" if channel.sources_current else "source.levelv"]
        for buffer, value in zip(buffers, values[what], strict=False):
            at_s = EPOCH_S + self.device_time_s(start_ns)
            buffer.add(value, at_s=at_s, status=status, source=source)
        return values[what]
