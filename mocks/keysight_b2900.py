"""A simulated Keysight B2911A that speaks its SCPI dialect, on channel 1.

Written from the B2900 SCPI Command Reference (Edition 2: status data p. 1-14, error
queue p. 5-2), the B2900 User's Guide (output-off states p. 6-13, settling p. 2-20), the
B2961A SCPI Command Reference (output subsystem p. 4-67, fetch p. 4-17) and the B2900A
data sheet (pp. 16-18). It has the real one's traps: a reading switches the output on
unless told not to, the clamp is 2 V at power-on, NORMAL off passes through 0 V, an
emergency forces 0 V first, and times are told with seven digits in ASCII.

Where the manuals that were read are silent the simulation takes what hurts a cell most: a
change of function with the output on drives the new function's level at once, and an
emergency lasts `EMERGENCY_NS`. Numbers of emergency errors are not confirmed.
"""

import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable  # noqa: TC003 - used when an object is made

from mocks.cell import Source
from mocks.pace import Pace
from mocks.scpi import ScpiError, boolean, number, words
from mocks.smu import OPEN, Measured, Terminals
from mocks.smu_noise import RangeModel, SmuModel
from mocks.world import World

NOT_A_NUMBER = 9.91e37
LINE_HZ = 50.0
OFF_LIMIT_A = 100e-6  # of the 0 V source in NORMAL and ZERO
RELAY_NS = 1_000_000  # not documented: NORMAL opens the relay after setting 0 V
EMERGENCY_NS = 1_000_000  # not documented: 0 V until the relay opens

# Status data: bits 1 and 2 compliance, 5 high temperature, 13 beyond the measuring range.
CURRENT_SOURCE, COMPLIANCE, TOO_HOT, BEYOND_RANGE = 1, 2, 32, 8192

# Data sheet: 10 nA has 0.10 % + 50 pA, and so on; settling to 0.1 % in 10 ms and 0.5 ms.
# The source's zeros and all noise are not yet confirmed: taken as the meter's, and by guess.
_RANGES = tuple(
    RangeModel(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=1e-6 * full,
        settling_tau_s=settling_s / math.log(1000),
    )
    for full, gain, offset, settling_s in (
        (1e-8, 0.0010, 5e-11, 10e-3),
        (1e-7, 0.0006, 1e-10, 10e-3),
        (1e-6, 0.00025, 5e-10, 0.5e-3),
        (1e-5, 0.00025, 1.5e-9, 0.25e-3),
        (1e-4, 0.0002, 2.5e-8, 0.25e-3),
        (1e-3, 0.0002, 2e-7, 80e-6),
    )
)
_VOLT_RANGES = (0.2, 2.0, 20.0, 200.0)


def _model(smallest: int) -> SmuModel:
    return SmuModel(
        ranges=_RANGES[smallest:],
        volt_gain_ratio=0.00015,  # 20 V range
        volt_offset_V=5e-3,
        volt_step_V=1e-5,
        volt_noise_V=2e-5,
        current_noise_A=2e-13,
        input_ohm=1e10,
    )


# Long forms to short ones, and the nodes that may be left out.
_SHORT = {
    "SOURCE": "SOUR", "CURRENT": "CURR", "VOLTAGE": "VOLT", "LEVEL": "LEV", "RANGE": "RANG",
    "FUNCTION": "FUNC", "SENSE": "SENS", "PROTECTION": "PROT", "OUTPUT": "OUTP",
    "SYSTEM": "SYST", "ERROR": "ERR", "FORMAT": "FORM", "ELEMENTS": "ELEM", "STATE": "STAT",
    "LFREQUENCY": "LFR", "NPLCYCLES": "NPLC", "MEASURE": "MEAS", "TRIPPED": "TRIP",
    "RESET": "RES", "IMMEDIATE": "IMM", "AMPLITUDE": "AMPL", "ACQUIRE": "ACQ",
    "INITIATE": "INIT", "FETCH": "FETC", "ARRAY": "ARR", "TRIGGER": "TRIG", "COUNT": "COUN",
    "TIMER": "TIM", "BORDER": "BORD", "ABORT": "ABOR", "REMOTE": "REM",
}  # fmt: skip
_OPTIONAL = {
    "SOUR:CURR:LEV:IMM:AMPL": "SOUR:CURR", "SOUR:CURR:LEV": "SOUR:CURR",
    "SOUR:VOLT:LEV:IMM:AMPL": "SOUR:VOLT", "SOUR:VOLT:LEV": "SOUR:VOLT",
    "SENS:VOLT:PROT:LEV": "SENS:VOLT:PROT", "SENS:CURR:PROT:LEV": "SENS:CURR:PROT",
    "OUTP:STAT": "OUTP", "OUTP:PROT:STAT": "OUTP:PROT", "FORM": "FORM:DATA",
    "SENS:FUNC": "SENS:FUNC:ON", "SYST:ERR:NEXT": "SYST:ERR", "ABOR:ALL": "ABOR",
    "INIT:IMM:ACQ": "INIT:ACQ", "INIT:IMM:ALL": "INIT", "INIT:ALL": "INIT",
}  # fmt: skip

_CHOICES = {
    "SOUR:FUNC:MODE": ("CURR", "VOLT"),
    "OUTP:OFF:MODE": ("NORM", "ZERO", "HIZ"),
    "SOUR:CURR:MODE": ("FIX", "SWE", "LIST"),
    "SOUR:VOLT:MODE": ("FIX", "SWE", "LIST"),
    "TRIG:ACQ:SOUR": ("AINT", "TIM"),
    "ARM:ACQ:SOUR": ("AINT",),
    "FORM:DATA": ("ASC", "REAL,32", "REAL,64"),
    "FORM:BORD": ("NORM", "SWAP"),
}
_ELEMENTS = ("VOLT", "CURR", "RES", "TIME", "STAT", "SOUR")  # told in this order, always
NOTHING_READ: tuple[float, ...] = (NOT_A_NUMBER,) * len(_ELEMENTS)


def header_of(text: str) -> str:
    """Return a header in short form; raise for a channel that is not there."""
    query = "?" if text.endswith("?") else ""
    nodes = []
    for node in text.rstrip("?").lstrip(":").upper().split(":"):
        name = node.rstrip("0123456789")
        if name != node and int(node[len(name) :]) != 1:
            raise ScpiError(-114, "Header suffix out of range")
        nodes.append(_SHORT.get(name, name))
    if nodes[0] in ("CURR", "VOLT", "FUNC"):
        nodes.insert(0, "SOUR")
    short = ":".join(node for node in nodes if node != "DC")
    return _OPTIONAL.get(short, short) + query


class KeysightB2900:
    """The instrument's state and its interpreter.

    Parameters
    ----------
    world
        What its terminals are connected to.
    pace
        How time passes while it works.

    Attributes
    ----------
    output_on
        The output switch.
    """

    identity = "Keysight Technologies,B2911A,MY51141631,3.4.2011.5100"
    data_sheet = _model(0)

    def __init__(self, world: World, pace: Pace) -> None:
        self._world, self._pace = world, pace
        self._terminals = Terminals(world, pace, self.data_sheet)
        self._queue: deque[str] = deque(maxlen=20)
        self._time_zero_ns = world.now_ns - 12_345_678_901
        self._hot = False
        self._readings = [NOTHING_READ]
        self.output_on = False
        self._set_defaults()
        self._actions: dict[str, Callable[[str], Awaitable[str | bytes | None]]] = {
            "*IDN?": self._identify,
            "*RST": self._reset,
            "*CLS": self._clear_errors,
            "*OPC?": self._complete,
            "SYST:ERR?": self._next_error,
            "SYST:TIME:TIM:COUN:RES": self._reset_time,
            "OUTP": self._set_output,
            "ABOR": self._abort,
            "ABOR:ACQ": self._abort,
            "INIT:ACQ": self._acquire,
            "INIT": self._acquire,
            "FETC:ARR?": self._fetch,
            "READ:ARR?": self._read,
            "READ?": self._read,
            "MEAS?": self._read,
            "SENS:VOLT:PROT:TRIP?": self._tripped,
            "SENS:CURR:PROT:TRIP?": self._tripped,
        }

    def _set_defaults(self) -> None:
        self._words = {name: choices[0] for name, choices in _CHOICES.items()}
        self._words["SOUR:FUNC:MODE"] = "VOLT"
        self._words["FORM:ELEM:SENS"] = ",".join(_ELEMENTS)
        self._words["SENS:FUNC:ON"] = '"VOLT","CURR","RES"'
        self._flags = {
            "OUTP:ON:AUTO": True,
            "OUTP:OFF:AUTO": False,
            "OUTP:PROT": False,
            "SOUR:CURR:RANG:AUTO": True,
            "SOUR:VOLT:RANG:AUTO": True,
            "SENS:CURR:RANG:AUTO": True,
            "SENS:VOLT:RANG:AUTO": True,
            "SENS:REM": False,
            "SYST:TIME:TIM:COUN:RES:AUTO": False,
        }
        self._numbers = {
            "SOUR:CURR": 0.0,
            "SOUR:VOLT": 0.0,
            "SOUR:CURR:RANG": 1e-6,
            "SOUR:VOLT:RANG": 2.0,
            "SENS:CURR:RANG": 1e-6,
            "SENS:VOLT:RANG": 2.0,
            "SENS:CURR:PROT": 100e-6,
            "SENS:VOLT:PROT": 2.0,
            "SENS:CURR:NPLC": 1.0,
            "SENS:VOLT:NPLC": 1.0,
            "SYST:LFR": LINE_HZ,
            "TRIG:ACQ:COUN": 1.0,
            "TRIG:ACQ:TIM": 1e-5,
            "ARM:ACQ:COUN": 1.0,
        }

    # --- the wire ----------------------------------------------------------------------

    async def handle(self, line: str) -> str | bytes | None:
        """Obey one line; return the reply, or None."""
        replies: list[str | bytes] = []
        for part in words(line):
            try:
                reply = await self._obey(part)
            except ScpiError as error:
                self._queue.append(str(error))
                continue
            if reply is not None:
                replies.append(reply)
        if not replies:
            return None
        if any(isinstance(reply, bytes) for reply in replies):
            return b";".join(r if isinstance(r, bytes) else r.encode() for r in replies)
        return ";".join(str(reply) for reply in replies)

    async def _obey(self, command: str) -> str | bytes | None:
        head, _, argument = command.partition(" ")
        header, argument = header_of(head), argument.strip()
        if (action := self._actions.get(header)) is not None:
            return await action(argument)
        if header.endswith("?"):
            await self._terminals.answer_time()
            return self._answer(header[:-1])
        self._assign(header, argument)
        return None

    def _answer(self, header: str) -> str:
        if header == "OUTP":
            return str(int(self.output_on))
        if header in self._flags:
            return str(int(self._flags[header]))
        if header in self._numbers:
            return f"{self._numbers[header]:+.6E}"
        if header in self._words:
            return self._words[header]
        raise ScpiError(-113, "Undefined header")

    def _assign(self, header: str, argument: str) -> None:
        if header in self._flags:
            self._flags[header] = boolean(argument)
        elif header in self._numbers:
            self._set_number(header, number(argument))
        elif header in self._words:
            self._set_word(header, argument)
        else:
            raise ScpiError(-113, "Undefined header")
        if self.output_on and header.startswith(("SOUR", "SENS")):
            self._drive()

    def _set_word(self, header: str, argument: str) -> None:
        if not argument:
            raise ScpiError(-109, "Missing parameter")
        parts = [part.strip() for part in argument.upper().split(",")]
        word = ",".join(_SHORT.get(part, part) for part in parts)
        if header in _CHOICES and word not in _CHOICES[header]:
            raise ScpiError(-224, "Illegal parameter value")
        if header == "FORM:ELEM:SENS" and not set(word.split(",")) <= set(_ELEMENTS):
            raise ScpiError(-224, "Illegal parameter value")
        self._words[header] = word

    def _set_number(self, header: str, value: float) -> None:
        if header.endswith("RANG"):
            value = self._range_value(header, value)
            self._flags[f"{header}:AUTO"] = False
        elif header in ("SOUR:CURR", "SOUR:VOLT"):
            value = self._level_value(header, value)
        elif not self._is_allowed(header, value):
            raise ScpiError(-222, "Data out of range")
        self._numbers[header] = value

    def _is_allowed(self, header: str, value: float) -> bool:
        if header.endswith("NPLC"):
            return 4e-4 <= value <= 100
        if header == "SYST:LFR":
            return value in (50, 60)
        largest = {"SENS:VOLT:PROT": 210.0, "SENS:CURR:PROT": 3.03}.get(header, 1e5)
        return 0 < value <= largest

    def _range_value(self, header: str, value: float) -> float:
        ladder: tuple[float, ...] = _VOLT_RANGES
        if "CURR" in header:
            ladder = tuple(model.full_scale_A for model in self.data_sheet.ranges)
        found = next((r for r in ladder if abs(value) <= r * (1 + 1e-9)), None)
        if found is None:
            raise ScpiError(-222, "Data out of range")
        if header.startswith("SOUR") and abs(self._numbers[header[:9]]) > 1.05 * found:
            raise ScpiError(-221, "Settings conflict")
        return found

    def _level_value(self, header: str, value: float) -> float:
        """Round a level to what the range can set."""
        range_name = f"{header}:RANG"
        if self._flags[f"{range_name}:AUTO"]:
            self._numbers[range_name] = self._range_value(range_name, value / 1.05)
        full = self._numbers[range_name]
        if abs(value) > 1.05 * full * (1 + 1e-9):
            raise ScpiError(-222, "Data out of range")
        step = full * (1e-6 if header == "SOUR:CURR" else 5e-7)
        return round(value / step) * step

    # --- what is simple ------------------------------------------------------------------

    async def _identify(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return self.identity

    async def _complete(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return "1"

    async def _clear_errors(self, _argument: str) -> None:
        self._queue.clear()

    async def _next_error(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return self._queue.popleft() if self._queue else '+0,"No error"'

    async def _reset(self, _argument: str) -> None:
        """Do what makes ``*RST`` dangerous: off by way of 0 V, and all traps set again."""
        self._words["OUTP:OFF:MODE"] = "NORM"
        if self.output_on:
            await self._set_output("0")
        self._set_defaults()

    async def _tripped(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return str(int(self.output_on and self._terminals.in_compliance))

    async def _reset_time(self, _argument: str) -> None:
        self._time_zero_ns = self._world.now_ns

    async def _abort(self, _argument: str) -> None:
        """Stop an acquisition; here none outlives its line."""

    # --- output --------------------------------------------------------------------------

    def power_cycle(self) -> None:
        """Lose the mains for a moment: the relay opens, and all settings are the defaults."""
        self.output_on = self._hot = False
        self._set_defaults()
        self._queue.clear()
        self._time_zero_ns = self._world.now_ns
        self._terminals.drive(OPEN, output_on=False)

    async def _set_output(self, argument: str) -> None:
        on = boolean(argument)
        if on and self._hot:
            raise ScpiError(-221, "Settings conflict")
        if on:
            self.output_on = True
            self._drive()
        elif self.output_on:
            self.output_on = False
            await self._go_off()

    async def _go_off(self) -> None:
        mode = self._words["OUTP:OFF:MODE"]
        if mode != "HIZ":
            self._terminals.drive(
                Source(mode="voltage", level=0.0, clamp=OFF_LIMIT_A), output_on=False
            )
            await self._pace.take(RELAY_NS)
        if mode != "ZERO":
            self._terminals.drive(OPEN, output_on=False)

    async def trip_over_temperature(self) -> None:
        """Do as when it is too hot: 0 V first, then off, whatever ``OUTP:OFF:MODE`` says."""
        self._hot = True
        await self._emergency(303, "Emergency; over temperature")

    def cool_down(self) -> None:
        """End the over-temperature; the output stays off until somebody switches it on."""
        self._hot = False

    async def _emergency(self, code: int, text: str) -> None:
        self.output_on = False
        self._terminals.drive(Source(mode="voltage", level=0.0, clamp=OFF_LIMIT_A), output_on=False)
        await self._pace.take(EMERGENCY_NS)
        self._terminals.drive(OPEN, output_on=False)
        self._queue.append(str(ScpiError(code, text)))

    def _drive(self) -> None:
        """Put on the terminals what the settings say."""
        if self._words["SOUR:FUNC:MODE"] == "CURR":
            source = self._terminals.current_source(
                self._numbers["SOUR:CURR"],
                range_A=self._numbers["SOUR:CURR:RANG"],
                limit_V=self._numbers["SENS:VOLT:PROT"],
            )
        else:
            source = self._terminals.voltage_source(
                self._numbers["SOUR:VOLT"], limit_A=self._numbers["SENS:CURR:PROT"]
            )
        self._terminals.drive(source, output_on=True)

    # --- readings ------------------------------------------------------------------------

    def device_time_s(self, host_ns: int) -> float:
        """Return what the instrument's timer shows, in whole microseconds."""
        oscillator = 1 + self._world.scenario.smu.clock_rate_ratio
        return math.floor((host_ns - self._time_zero_ns) / 1e3 * oscillator) / 1e6

    async def _acquire(self, _argument: str) -> None:
        """Take the readings of one initiation; the trap is the output that comes on."""
        if self._flags["SYST:TIME:TIM:COUN:RES:AUTO"]:
            self._time_zero_ns = self._world.now_ns
        if self._flags["OUTP:ON:AUTO"] and not self.output_on:
            await self._set_output("1")
        self._readings = []
        first_ns = self._world.now_ns
        count = round(self._numbers["TRIG:ACQ:COUN"] * self._numbers["ARM:ACQ:COUN"])
        for i in range(count):
            if self._words["TRIG:ACQ:SOUR"] == "TIM":
                due_ns = first_ns + round(i * self._numbers["TRIG:ACQ:TIM"] * 1e9)
                await self._pace.take(max(0, due_ns - self._world.now_ns))
            got = await self._terminals.measure(
                window_s=self._numbers["SENS:CURR:NPLC"] / self._numbers["SYST:LFR"],
                range_A=self._numbers["SENS:CURR:RANG"],
            )
            self._readings.append(self._elements(got))
            if self._flags["OUTP:PROT"] and self.output_on and got.compliance:
                await self._emergency(301, "Emergency; over voltage or current")
        if self._flags["OUTP:OFF:AUTO"] and self.output_on:
            await self._set_output("0")

    def _elements(self, got: Measured) -> tuple[float, ...]:
        sources_A = self._words["SOUR:FUNC:MODE"] == "CURR"
        time_s = self.device_time_s(got.start_ns)
        level = self._numbers["SOUR:CURR" if sources_A else "SOUR:VOLT"]
        status = CURRENT_SOURCE * sources_A | TOO_HOT * self._hot
        if not self.output_on:
            return (NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, time_s, status, level)
        beyond = math.isinf(got.current_A)
        status |= COMPLIANCE * got.compliance | BEYOND_RANGE * beyond
        known_A = NOT_A_NUMBER if beyond else got.current_A
        return (got.voltage_V, known_A, NOT_A_NUMBER, time_s, status, level)

    async def _read(self, argument: str) -> str | bytes:
        await self._acquire(argument)
        return await self._fetch(argument)

    async def _fetch(self, _argument: str) -> str | bytes:
        await self._terminals.answer_time()
        chosen = self._words["FORM:ELEM:SENS"].split(",")
        values = [
            value
            for reading in self._readings
            for name, value in zip(_ELEMENTS, reading, strict=True)
            if name in chosen
        ]
        kind = self._words["FORM:DATA"]
        if kind == "ASC":
            return ",".join(f"{value:+.6E}" for value in values)
        order = "<" if self._words["FORM:BORD"] == "SWAP" else ">"
        known = [math.nan if value == NOT_A_NUMBER else value for value in values]
        block = struct.pack(f"{order}{len(known)}{'d' if kind == 'REAL,64' else 'f'}", *known)
        size = str(len(block))
        return f"#{len(size)}{size}".encode() + block


class KeysightB2901(KeysightB2900):
    """The same dialect on the model that has no 10 nA range."""

    identity = "Agilent Technologies,B2901A,MY51140001,2.1.1225.2707"
    data_sheet = _model(1)
