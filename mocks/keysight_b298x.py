"""A simulated Keysight B2987A electrometer that speaks its SCPI dialect.

Written from PyMeasure's driver of the family (headers, ranges, off states, the source's
step of 700 uV and its 20 mA), the B2980B User's Guide (pp. 44, 92, 215) and the data sheet
of the B2983A (p. 10). Wired in series: source HI to cell +, cell - to the input, common to
source LO. It has the real one's traps: at power-on it is an ammeter, its source at 0 V and
its off state NORMAL, which goes through 0 V; an off state of ZERO is a short by way of the
ammeter; a spot measurement (`:MEAS:CURR?`) changes the function.

Not read anywhere and taken from the B2900, or as what hurts a cell most: reading elements,
status bits, the timer, NPLC; a reading that switches output and input on unless told not
to; settling meant to 10 %; input resistance and noise; which sensor and unit of the
temperature it begins with, and what it says when no thermocouple is there.
"""

import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable  # noqa: TC003 - used when an object is made

from mocks.cell import Source
from mocks.lag import LaggedCurrent
from mocks.pace import Pace
from mocks.scpi import ScpiError, boolean, number, words
from mocks.smu import OPEN, Terminals
from mocks.smu_noise import RangeModel, SmuModel
from mocks.thermocouple import FROM_KELVIN, ROOM_K, Thermocouple
from mocks.world import World

NOT_A_NUMBER = 9.91e37
LINE_HZ = 50.0
INPUT_OHM = 2e14  # of the voltmeter
SOURCE_LIMIT_A = 20e-3  # of the source in its 20 V range
SOURCE_STEP_V = 7e-4
BURDEN_V = 20e-6
RELAY_NS = 1_000_000  # not documented: NORMAL opens the relay after setting 0 V
BEYOND_RANGE = 8192

_RANGES = tuple(
    RangeModel(
        full_scale_A=full,
        gain_ratio=gain,
        offset_A=offset,
        resolution_A=1e-6 * full,
        settling_tau_s=settling_s / math.log(10),
    )
    for full, gain, offset, settling_s in (
        (2e-12, 0.010, 3e-15, 16.0),
        (2e-11, 0.005, 3e-15, 1.4),
        (2e-10, 0.005, 5e-15, 1.4),
        (2e-9, 0.002, 3e-13, 0.013),
        (2e-8, 0.002, 3e-12, 0.013),
        (2e-7, 0.002, 3e-11, 0.013),
        (2e-6, 0.002, 3e-10, 0.013),
        (2e-5, 0.002, 3e-9, 0.013),
        (2e-4, 0.002, 3e-8, 0.013),
        (2e-3, 0.002, 3e-7, 0.013),
        (2e-2, 0.002, 3e-6, 0.013),
    )
)
DATA_SHEET = SmuModel(
    ranges=_RANGES,
    volt_gain_ratio=0.0005,
    volt_offset_V=4e-5,
    volt_step_V=2e-5,
    volt_noise_V=2e-5,
    input_ohm=INPUT_OHM,
    read_overhead_s=4e-3,
)

_SHORT = {
    "SOURCE": "SOUR", "CURRENT": "CURR", "VOLTAGE": "VOLT", "LEVEL": "LEV", "RANGE": "RANG",
    "FUNCTION": "FUNC", "SENSE": "SENS", "OUTPUT": "OUTP", "INPUT": "INP", "SYSTEM": "SYST",
    "ERROR": "ERR", "FORMAT": "FORM", "ELEMENTS": "ELEM", "STATE": "STAT", "LFREQUENCY": "LFR",
    "NPLCYCLES": "NPLC", "MEASURE": "MEAS", "RESET": "RES", "RESISTANCE": "RES",
    "CHARGE": "CHAR", "IMMEDIATE": "IMM", "AMPLITUDE": "AMPL", "ACQUIRE": "ACQ",
    "INITIATE": "INIT", "FETCH": "FETC", "ARRAY": "ARR", "TRIGGER": "TRIG", "COUNT": "COUN",
    "TIMER": "TIM", "BORDER": "BORD", "ABORT": "ABOR", "ZCORRECT": "ZCOR", "TRANSIENT": "TRAN",
    "BATTERY": "BATT", "SIGNAL": "SIGN", "TOUTPUT": "TOUT", "TEMPERATURE": "TEMP",
    "SELECT": "SEL", "HSENSOR": "HSEN",
}  # fmt: skip
_OPTIONAL = {
    "SOUR:VOLT:LEV:IMM:AMPL": "SOUR:VOLT", "SOUR:VOLT:LEV": "SOUR:VOLT",
    "FUNC": "SENS:FUNC", "FUNC:ON": "SENS:FUNC", "SENS:FUNC:ON": "SENS:FUNC",
    "CURR:RANG": "SENS:CURR:RANG", "VOLT:RANG": "SENS:VOLT:RANG", "CHAR:RANG": "SENS:CHAR:RANG",
    "OUTP:STAT": "OUTP", "INP:STAT": "INP", "FORM": "FORM:DATA", "SYST:ERR:NEXT": "SYST:ERR",
    "ABOR:ALL": "ABOR", "INIT:IMM:ACQ": "INIT:ACQ", "INIT:ALL": "INIT", "MEAS": "MEAS:CURR",
}  # fmt: skip
_CHOICES = {
    "SENS:FUNC": ("CURR", "CHAR", "VOLT", "RES"),
    "OUTP:OFF:MODE": ("NORM", "ZERO", "HIZ"),
    "OUTP:LOW": ("FLO", "COMM"),
    "SOUR:VOLT:MODE": ("FIX", "SWE", "LIST"),
    "TRIG:ACQ:SOUR": ("AINT", "TIM", "TIN", "EXT1"),
    "ARM:ACQ:SOUR": ("AINT", "TIM", "TIN", "EXT1"),
    "TRIG:ACQ:TOUT:SIGN": ("TOUT", "EXT1", "EXT2", "EXT3", "EXT4", "EXT5", "EXT6", "EXT7"),
    "FORM:DATA": ("ASC", "REAL,32", "REAL,64"),
    "FORM:BORD": ("NORM", "SWAP"),
    "SYST:TEMP:SEL": ("HSEN", "TC"),
    "SYST:TEMP:UNIT": ("C", "F", "K"),
}
_LADDERS = {
    "SENS:CURR:RANG": tuple(model.full_scale_A for model in _RANGES),
    "SENS:VOLT:RANG": (2.0, 20.0),
    "SENS:CHAR:RANG": (2e-9, 2e-8, 2e-7, 2e-6),
    "SOUR:VOLT:RANG": (20.0, 1000.0),
}
_ELEMENTS = ("VOLT", "CURR", "CHAR", "RES", "TIME", "STAT", "SOUR")  # told in this order


def header_of(text: str) -> str:
    """Return a header in short form, without what may be left out."""
    query = "?" if text.endswith("?") else ""
    nodes = [_SHORT.get(node, node) for node in text.rstrip("?").lstrip(":").upper().split(":")]
    short = ":".join(node for node in nodes if node != "DC")
    return _OPTIONAL.get(short, short) + query


class KeysightB298x:
    """The instrument's state and its interpreter.

    Parameters
    ----------
    world
        What its terminals are connected to.
    pace
        How time passes while it works.

    Attributes
    ----------
    output_on, input_on
        The relays of source and input.
    """

    identity = "Keysight Technologies,B2987A,MY54321071,1.0.1427.1"

    def __init__(self, world: World, pace: Pace) -> None:
        self._world, self._pace = world, pace
        self._terminals = Terminals(world, pace, DATA_SHEET)
        self._lag = LaggedCurrent(world)
        self.thermocouple = Thermocouple(world)
        self._queue: deque[str] = deque(maxlen=20)
        self._time_zero_ns = world.now_ns - 12_345_678_901
        self._readings: list[tuple[float, ...]] = [(NOT_A_NUMBER,) * len(_ELEMENTS)]
        self.output_on = self.input_on = False
        self._set_defaults()
        self._actions: dict[str, Callable[[str], Awaitable[str | bytes | None]]] = {
            "*IDN?": self._identify,
            "*RST": self._reset,
            "*CLS": self._clear_errors,
            "*OPC?": self._complete,
            "SYST:ERR?": self._next_error,
            "SYST:BATT?": self._battery,
            "SYST:TEMP?": self._temperature,
            "SYST:TIME:TIM:COUN:RES": self._reset_time,
            "OUTP": self._set_output,
            "INP": self._set_input,
            "ABOR": self._abort,
            "ABOR:ACQ": self._abort,
            "IDLE:ACQ?": self._complete,
            "INIT:ACQ": self._acquire,
            "INIT": self._acquire,
            "FETC:ARR?": self._fetch,
            "MEAS:CURR?": self._spot_current,
            "MEAS:VOLT?": self._spot_voltage,
        }

    def _set_defaults(self) -> None:
        self._words = {name: choices[0] for name, choices in _CHOICES.items()}
        self._words["FORM:ELEM:SENS"] = ",".join(_ELEMENTS)
        self._flags = {
            "OUTP:ON:AUTO": True,
            "INP:ZCOR": False,
            "SENS:CURR:RANG:AUTO": True,
            "SENS:VOLT:RANG:AUTO": True,
            "TRIG:ACQ:TOUT": False,
        }
        self._numbers = {
            "SOUR:VOLT": 0.0,
            "SOUR:VOLT:RANG": 20.0,
            "SENS:CURR:RANG": 2e-2,
            "SENS:VOLT:RANG": 20.0,
            "SENS:CHAR:RANG": 2e-6,
            "SENS:CURR:NPLC": 1.0,
            "SENS:VOLT:NPLC": 1.0,
            "SYST:LFR": LINE_HZ,
            "TRIG:ACQ:COUN": 1.0,
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
        switches = {"OUTP": self.output_on, "INP": self.input_on, **self._flags}
        if header in switches:
            return str(int(switches[header]))
        if header in self._numbers:
            return f"{self._numbers[header]:+.6E}"
        if header == "SENS:FUNC":
            return f'"{self._words[header]}"'
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
        self._drive()

    def _set_word(self, header: str, argument: str) -> None:
        parts = [part.strip().strip("\"'") for part in argument.upper().split(",")]
        word = ",".join(_SHORT.get(part, part) for part in parts)
        if not word:
            raise ScpiError(-109, "Missing parameter")
        known = _CHOICES.get(header)
        if known is not None and word not in known:
            raise ScpiError(-224, "Illegal parameter value")
        if header == "FORM:ELEM:SENS" and not set(word.split(",")) <= set(_ELEMENTS):
            raise ScpiError(-224, "Illegal parameter value")
        if word == "HIZ" and self._numbers["SOUR:VOLT:RANG"] != 20.0:
            raise ScpiError(-221, "Settings conflict")
        if header == "SENS:FUNC" and word != self._words[header]:
            self._lag.restart()
        self._words[header] = word

    def _set_number(self, header: str, value: float) -> None:
        if header in _LADDERS:
            found = next((r for r in _LADDERS[header] if abs(value) <= r * (1 + 1e-9)), None)
            if found is None:
                raise ScpiError(-222, "Data out of range")
            value = found
            if f"{header}:AUTO" in self._flags:
                self._flags[f"{header}:AUTO"] = False
        elif header == "SOUR:VOLT":
            if abs(value) > 1.05 * self._numbers["SOUR:VOLT:RANG"]:
                raise ScpiError(-222, "Data out of range")
            value = round(value / SOURCE_STEP_V) * SOURCE_STEP_V
        elif header == "SYST:LFR":
            if value not in (50, 60):
                raise ScpiError(-222, "Data out of range")
        elif not 1e-4 <= value <= 1e5:
            raise ScpiError(-222, "Data out of range")
        self._numbers[header] = value

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

    async def _battery(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return "87"

    async def _temperature(self, _argument: str) -> str:
        await self._terminals.answer_time()
        kelvin = self.thermocouple.kelvin() if self._words["SYST:TEMP:SEL"] == "TC" else ROOM_K
        value = FROM_KELVIN[self._words["SYST:TEMP:UNIT"]](kelvin)
        return f"{NOT_A_NUMBER if math.isnan(value) else value:+.6E}"

    async def _reset(self, _argument: str) -> None:
        """Do what makes ``*RST`` dangerous: off by way of 0 V, and all traps set again."""
        self._words["OUTP:OFF:MODE"] = "NORM"
        await self._set_output("0")
        self.input_on = False
        self._set_defaults()
        self._drive()

    def power_cycle(self) -> None:
        """Lose the power and come back: open relays, and all traps set again."""
        self.output_on = self.input_on = False
        self._set_defaults()
        self._queue.clear()
        self._time_zero_ns = self._world.now_ns
        self._drive()

    async def _reset_time(self, _argument: str) -> None:
        self._time_zero_ns = self._world.now_ns

    async def _abort(self, _argument: str) -> None:
        """Stop an acquisition; here none outlives its line."""

    # --- terminals -----------------------------------------------------------------------

    async def _set_output(self, argument: str) -> None:
        on = boolean(argument)
        if on == self.output_on:
            return
        self.output_on = on
        if not on and self._words["OUTP:OFF:MODE"] == "NORM":
            self._terminals.drive(self._source(0.0), output_on=False)
            await self._pace.take(RELAY_NS)
        self._drive()

    async def _set_input(self, argument: str) -> None:
        self.input_on = boolean(argument)
        self._drive()

    def _source(self, level_V: float) -> Source:
        """Return what a level of the source is to cell and holder, through the input."""
        if not self.input_on:
            return OPEN
        true_V = self._terminals.errors.sourced_V(level_V)
        if self._words["SENS:FUNC"] == "VOLT":
            return Source(mode="voltage", level=true_V, series_ohm=INPUT_OHM)
        return Source(mode="voltage", level=true_V - BURDEN_V, clamp=SOURCE_LIMIT_A)

    def _drive(self) -> None:
        """Put on the terminals what the settings say."""
        level_V = self._numbers["SOUR:VOLT"]
        source = self._source(level_V)
        if not self.output_on:
            source = self._source(0.0) if self._words["OUTP:OFF:MODE"] == "ZERO" else OPEN
        self._terminals.drive(source, output_on=self.output_on)

    # --- readings ------------------------------------------------------------------------

    def device_time_s(self, host_ns: int) -> float:
        """Return what the instrument's timer shows, in whole microseconds."""
        oscillator = 1 + self._world.scenario.smu.clock_rate_ratio
        return math.floor((host_ns - self._time_zero_ns) / 1e3 * oscillator) / 1e6

    async def _spot_current(self, _argument: str) -> str:
        return await self._spot("CURR")

    async def _spot_voltage(self, _argument: str) -> str:
        return await self._spot("VOLT")

    async def _spot(self, function: str) -> str:
        """Change the function and read once: the trap is the input that becomes an ammeter."""
        self._assign("SENS:FUNC", function)
        await self._acquire("")
        return f"{self._readings[-1][_ELEMENTS.index(function)]:+.6E}"

    async def _acquire(self, _argument: str) -> None:
        """Take the readings of one initiation; the trap are the relays that close."""
        if self._flags["OUTP:ON:AUTO"]:
            self.input_on = True
            await self._set_output("1")
            self._drive()
        count = round(self._numbers["TRIG:ACQ:COUN"] * self._numbers["ARM:ACQ:COUN"])
        self._readings = [await self._measure() for _ in range(count)]

    async def _measure(self) -> tuple[float, ...]:
        errors, world = self._terminals.errors, self._world
        function = self._words["SENS:FUNC"]
        nplc = self._numbers["SENS:VOLT:NPLC" if function == "VOLT" else "SENS:CURR:NPLC"]
        window_s = nplc / self._numbers["SYST:LFR"]
        await self._pace.take(round(errors.latency_s(DATA_SHEET.read_overhead_s) * 1e9))
        start_ns = world.now_ns
        await self._pace.take(round(window_s * 1e9))
        end_ns = world.now_ns
        means = {name: world.mean(name, start_ns, end_ns) for name in ("voltage", "current", "ion")}
        world.record(
            "samples",
            t_ns=(start_ns + end_ns) // 2,
            voltage=means["voltage"],
            current=means["current"],
            current_ionic=means["ion"],
        )
        model = DATA_SHEET.range_for(self._numbers["SENS:CURR:RANG"] / 1.05)
        seen_A = self._lag.mean_A(start_ns, end_ns, model.settling_tau_s)
        level_V = self._numbers["SOUR:VOLT"]
        volt_V = current_A = NOT_A_NUMBER
        status = 0
        if not (self.output_on and self.input_on):
            pass
        elif function == "VOLT":
            true_V = errors.sourced_V(level_V)
            volt_V = errors.voltage_V(true_V - means["voltage"], window_s)
        elif abs(seen_A) > 1.05 * model.full_scale_A:
            status = BEYOND_RANGE
        else:
            current_A = errors.current_A(model, seen_A, window_s)
        time_s = self.device_time_s(start_ns)
        return (volt_V, current_A, NOT_A_NUMBER, NOT_A_NUMBER, time_s, status, level_V)

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
