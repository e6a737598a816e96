"""A simulated Keithley 2450 that speaks its own SCPI (2450 reference manual, section 6).

Strict where the real one is: unknown headers, missing parameters and values out of range
go to the event log. It has the real one's traps: an output-off state for each source
function, which is a 0 V source until somebody changes it (pp. 2-84 and 6-32); one measure
function at a time, the other quantity coming as the source's read-back; a measuring range
that is the source range where both functions are the same (p. 6-53); and a clock that
tells whole seconds, so that fractions are in the readings alone (p. 6-106).

Not yet confirmed on an instrument: that a change of source function switches the output
off, that another off state acts at once on an output that is off, and that a reading with
the output off gives an error and no reply. The voltmeter's load on the cell (10 gigaohm)
is not simulated. The terminals meet the cell with the first command that sets something.
"""

import math
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from mocks.cell import Source
from mocks.pace import Pace
from mocks.scpi import ScpiError, boolean, number, words
from mocks.smu import OPEN, Terminals
from mocks.smu_noise import RangeModel, SmuModel
from mocks.trigger_model import LINES, TriggerModel
from mocks.world import World

OVERFLOW = 9.9e37
LINE_HZ = 50.0
EPOCH_S = 1_700_000_000  # UTC seconds at host time 0
OFF_LIMIT_RATIO = 0.1  # of the range, NORMAL and GUARD (p. 6-32)
SMALLEST_LIMITS = {"SOUR:VOLT:ILIM": 1e-9, "SOUR:CURR:VLIM": 0.02}
LARGEST = {"CURR": 1.05, "VOLT": 210.0}
VOLTAGE_RANGES_V = (0.02, 0.2, 2.0, 20.0, 200.0)
LIMITED, OUTPUT_ON = 32, 128  # bits of the source status (p. 8-29)
FRONT_TERMINALS = 8  # bit of the measure status (p. 8-33)
MOST_ELEMENTS = 14
BUFFER_POINTS = 100_000

# Settling and the two larger ranges are not yet confirmed on a data sheet of ours.
SMU_2450 = SmuModel(
    ranges=tuple(
        RangeModel(
            full_scale_A=full,
            gain_ratio=gain,
            offset_A=offset,
            resolution_A=step,
            settling_tau_s=settling,
        )
        for full, gain, offset, step, settling in (
            (1e-8, 0.0010, 5e-11, 1e-14, 0.01),
            (1e-7, 0.0006, 1e-10, 1e-13, 0.005),
            (1e-6, 0.00025, 3e-10, 1e-12, 0.002),
        )
    ),
    source_offset_A=(1e-10, 1.5e-10, 4e-10),
    volt_gain_ratio=0.00015,
    volt_offset_V=1e-3,
    volt_step_V=1e-5,
    volt_noise_V=5e-5,
    current_noise_A=5e-13,
    input_ohm=1e10,
)

_ELEMENTS = {
    "READING": "READ",
    "SOURCE": "SOUR",
    "SECONDS": "SEC",
    "FRACTIONAL": "FRAC",
    "RELATIVE": "REL",
    "STATUS": "STAT",
    "SOURSTATUS": "SOURSTAT",
}
# What can be set and asked, by header: [] may be left out, lower case belongs to the long form.
_NUMBERS = {
    "SOURce[1]:CURRent[:LEVel][:IMMediate][:AMPLitude]": 0.0,
    "SOURce[1]:VOLTage[:LEVel][:IMMediate][:AMPLitude]": 0.0,
    "SOURce[1]:CURRent:RANGe": 1e-8,
    "SOURce[1]:VOLTage:RANGe": 0.02,
    "SOURce[1]:CURRent:VLIMit[:LEVel]": 21.0,
    "SOURce[1]:VOLTage:ILIMit[:LEVel]": 1.05e-4,
    "[SENSe[1]:]CURRent[:DC]:RANGe[:UPPer]": 1e-4,
    "[SENSe[1]:]VOLTage[:DC]:RANGe[:UPPer]": 20.0,
    "[SENSe[1]:]CURRent[:DC]:NPLCycles": 1.0,
    "[SENSe[1]:]VOLTage[:DC]:NPLCycles": 1.0,
    "FORMat:ASCii:PRECision": 0.0,
}
_FLAGS = {
    pattern.replace("FUNCTION", function): on
    for function in ("CURRent", "VOLTage")
    for pattern, on in (
        ("SOURce[1]:FUNCTION:RANGe:AUTO", True),
        ("SOURce[1]:FUNCTION:READ:BACK", True),
        ("[SENSe[1]:]FUNCTION[:DC]:RANGe:AUTO", True),
        ("[SENSe[1]:]FUNCTION[:DC]:AZERo[:STATe]", True),
        ("[SENSe[1]:]FUNCTION[:DC]:AVERage[:STATe]", False),
        ("[SENSe[1]:]FUNCTION[:DC]:RSENse", False),
    )
}
_WORDS = {
    pattern.replace("#", str(line)): choices
    for line in LINES
    for pattern, choices in (
        ("DIGital:LINE#:MODE", ("DIG,IN", "DIG,OUT", "TRIG,IN", "TRIG,OUT")),
        ("TRIGger:DIGital#:IN:EDGE", ("FALL", "RIS", "EITH")),
        ("TRIGger:DIGital#:OUT:STIMulus", ("NONE", "COMM")),
    )
}
_SETTINGS = (
    *_NUMBERS,
    *_FLAGS,
    *_WORDS,
    *("SOURce[1]:FUNCtion[:MODE]", "[SENSe[1]:]FUNCtion[:ON]", "ROUTe:TERMinals"),
    *("OUTPut[1][:STATe]", "OUTPut[1]:SMODe"),
    *("OUTPut[1]:CURRent:SMODe", "OUTPut[1]:VOLTage:SMODe"),
)
_OTHERS = (
    *("*IDN?", "*LANG?", "*RST", "*CLS", "*OPC?", "ABORt", "STATus:CLEar", "FORMat[:DATA]"),
    *("SYSTem:ERRor[:NEXT]?", "SYSTem:CLEar", "SYSTem:LFRequency?", "SYSTem:TIME?"),
    *("SOURce[1]:CURRent:VLIMit[:LEVel]:TRIPped?", "SOURce[1]:VOLTage:ILIMit[:LEVel]:TRIPped?"),
    *("TRACe:CLEar", "TRACe:ACTual?", "TRACe:DATA?", "TRACe:FILL:MODE"),
    *("TRIGger:LOAD", "INITiate[:IMMediate]", "*WAI", "*TRG", "TRIGger:BLOCk:BUFFer:CLEar"),
    *("TRIGger:BLOCk:WAIT", "TRIGger:BLOCk:MEASure", "TRIGger:BLOCk:BRANch:COUNter"),
    *("READ?", "MEASure?", "MEASure:CURRent[:DC]?", "MEASure:VOLTage[:DC]?"),
)


def _key(pattern: str) -> str:
    """Return the short form of a header without what may be left out."""
    while (shorter := re.sub(r"\[[^][]*\]", "", pattern)) != pattern:
        pattern = shorter
    return re.sub("[a-z]", "", pattern)


def _regex(pattern: str) -> re.Pattern[str]:
    text = pattern.replace("*", r"\*").replace("?", r"\?")
    text = text.replace("[", "(?:").replace("]", ")?")
    return re.compile(":?" + re.sub("([A-Z]+)([a-z]+)", r"\1(?:\2)?", text), re.IGNORECASE)


_HEADERS = {
    _key(p): _regex(p) for p in (*_SETTINGS, *(f"{header}?" for header in _SETTINGS), *_OTHERS)
}


@lru_cache(maxsize=256)
def _known_key(header: str) -> str:
    for key, regex in _HEADERS.items():
        if regex.fullmatch(header):
            return key
    raise ScpiError(-113, "Undefined header")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A reading in the buffer."""

    elapsed_s: float
    sourced: float
    sensed: float
    limited: bool


class Keithley2450:
    """The instrument's state and its interpreter.

    Parameters
    ----------
    world
        What its terminals are connected to.
    pace
        How time passes while it works.
    """

    identity = "KEITHLEY INSTRUMENTS INC.,MODEL 2450,01234567,1.7.12b"

    def __init__(self, world: World, pace: Pace) -> None:
        self._world = world
        self._terminals = Terminals(world, pace, SMU_2450)
        self._events: deque[str] = deque(maxlen=100)
        self._stored: deque[_Stored] = deque(maxlen=BUFFER_POINTS)  # in defbuffer1
        self._model = TriggerModel(world, self._measure, self._is_trigger_input)
        self.language = "SCPI"
        self.output_on = False
        self._set_defaults()
        self._actions: dict[str, Callable[[str], Awaitable[str | None]]] = {
            "*RST": self._reset,
            "*CLS": self._clear_events,
            "SYST:CLE": self._clear_events,
            "SYST:ERR?": self._next_event,
            "SOUR:FUNC": self._set_source_function,
            "FUNC": self._set_sense_function,
            "OUTP": self._set_output,
            "OUTP:SMOD": self._set_off_mode,
            "OUTP:CURR:SMOD": lambda word: self._set_off_mode(word, "CURR"),
            "OUTP:VOLT:SMOD": lambda word: self._set_off_mode(word, "VOLT"),
            "ROUT:TERM": self._set_terminals,
            "TRAC:CLE": self._clear_buffer,
            "TRAC:ACT?": self._tell_stored,
            "TRAC:DATA?": self._tell_data,
            "TRIG:LOAD": self._load_model,
            "TRIG:BLOC:BUFF:CLE": lambda block: self._add_block("CLE", block),
            "TRIG:BLOC:WAIT": lambda block: self._add_block("WAIT", block),
            "TRIG:BLOC:MEAS": lambda block: self._add_block("MEAS", block),
            "TRIG:BLOC:BRAN:COUN": lambda block: self._add_block("COUN", block),
            "INIT": self._initiate,
            "ABOR": self._abort,
            "*WAI": self._wait,
            "*TRG": self._command_event,
            "READ?": self._read,
            "MEAS?": self._read,
            "MEAS:CURR?": lambda buffer: self._read(buffer, "CURR"),
            "MEAS:VOLT?": lambda buffer: self._read(buffer, "VOLT"),
        }

    def _set_defaults(self) -> None:
        self._numbers = {_key(pattern): value for pattern, value in _NUMBERS.items()}
        self._flags = {_key(pattern): on for pattern, on in _FLAGS.items()}
        self._words = {_key(pattern): choices[0] for pattern, choices in _WORDS.items()}
        self._off_modes = {"CURR": "NORM", "VOLT": "NORM"}
        self._source_function = "VOLT"
        self._sense_function = "CURR"
        self._front = True
        self._stored.clear()

    def power_cycle(self) -> None:
        """Lose the mains for a moment: all settings are the defaults, the output is off."""
        self.output_on = False
        self._set_defaults()
        self._events.clear()
        self._drive()

    # --- the wire ----------------------------------------------------------------------

    async def handle(self, line: str) -> str | None:
        """Obey one line; return the reply, or None."""
        replies = []
        for part in words(line):
            try:
                reply = await self._obey(part)
            except ScpiError as error:
                self._events.append(str(error))
                continue
            if reply is not None:
                replies.append(reply)
        return ";".join(replies) if replies else None

    async def _obey(self, command: str) -> str | None:
        header, _, argument = command.partition(" ")
        key = _known_key(header)
        if (action := self._actions.get(key)) is not None:
            return await action(argument.strip())
        if key.endswith("?"):
            await self._terminals.answer_time()
            return self._answer(key.removesuffix("?"))
        self._assign(key, argument.strip())
        return None

    def _answer(self, key: str) -> str:
        if key in self._numbers:
            return f"{self._shown_number(key):.6E}"
        if key in self._flags:
            return "1" if self._flags[key] else "0"
        if key in self._words:
            return self._words[key]
        simple: dict[str, Callable[[], str]] = {
            "*IDN": lambda: self.identity,
            "*LANG": lambda: self.language,
            "*OPC": lambda: "1",
            "SYST:LFR": lambda: f"{LINE_HZ:.0f}",
            "SYST:TIME": lambda: f"{self.device_time_s(self._world.now_ns):.0f}",
            "SOUR:FUNC": lambda: self._source_function,
            "FUNC": lambda: f'"{self._sense_function}:DC"',
            "OUTP": lambda: "1" if self.output_on else "0",
            "OUTP:SMOD": lambda: self._off_modes[self._source_function],
            "OUTP:CURR:SMOD": lambda: self._off_modes["CURR"],
            "OUTP:VOLT:SMOD": lambda: self._off_modes["VOLT"],
            "ROUT:TERM": lambda: "FRON" if self._front else "REAR",
            "SOUR:CURR:VLIM:TRIP": lambda: self._tripped("CURR"),
            "SOUR:VOLT:ILIM:TRIP": lambda: self._tripped("VOLT"),
        }
        return simple[key]()

    def _assign(self, key: str, argument: str) -> None:
        if key in self._numbers:
            self._set_number(key, number(argument))
        elif key in self._flags:
            self._flags[key] = boolean(argument)
        elif key in self._words:
            self._set_word(key, argument)
        elif not argument and key in ("FORM", "TRAC:FILL:MODE"):
            raise ScpiError(-109, "Missing parameter")
        self._drive()

    def _set_word(self, key: str, argument: str) -> None:
        word = argument.upper().replace(" ", "")
        known = {_key(pattern): choices for pattern, choices in _WORDS.items()}[key]
        if word not in known:
            raise ScpiError(-224, "Illegal parameter value")
        self._words[key] = word

    # --- numbers -------------------------------------------------------------------------

    def _shown_number(self, key: str) -> float:
        """Return a number as it is told: a measuring range may be the source's."""
        if key in ("CURR:RANG", "VOLT:RANG") and key.startswith(self._source_function):
            return self._numbers[f"SOUR:{key}"]
        return self._numbers[key]

    def _set_number(self, key: str, value: float) -> None:
        if key in ("SOUR:CURR", "SOUR:VOLT"):
            self._set_level(key, value)
        elif key.endswith(":RANG"):
            self._set_range(key, abs(value))
        elif key in SMALLEST_LIMITS:
            self._set_limit(key, abs(value))
        elif key.endswith(":NPLC") and not 0.01 <= value <= 10:
            raise ScpiError(-222, "Parameter data out of range")
        else:
            self._numbers[key] = value

    def _set_level(self, key: str, value: float) -> None:
        if abs(value) > LARGEST[key[-4:]]:
            raise ScpiError(-222, "Parameter data out of range")
        if self._flags[f"{key}:RANG:AUTO"]:
            self._numbers[f"{key}:RANG"] = _full_scale(key[-4:], abs(value))
        elif abs(value) > 1.05 * self._numbers[f"{key}:RANG"]:
            raise ScpiError(-222, "Parameter data out of range")
        self._numbers[key] = value

    def _set_range(self, key: str, value: float) -> None:
        function = key[-9:-5]
        if value > LARGEST[function]:
            raise ScpiError(-222, "Parameter data out of range")
        full = _full_scale(function, value)
        if key.startswith("SOUR") and abs(self._numbers[f"SOUR:{function}"]) > 1.05 * full:
            raise ScpiError(-221, "Settings conflict")  # and the change is ignored, p. 6-75
        self._flags[f"{key}:AUTO"] = False
        self._numbers[key] = full
        if not key.startswith("SOUR"):
            # A limit that does not suit the range is changed, with a warning only, p. 6-71.
            limit = "SOUR:VOLT:ILIM" if function == "CURR" else "SOUR:CURR:VLIM"
            self._numbers[limit] = min(self._numbers[limit], 1.05 * full)

    def _set_limit(self, key: str, value: float) -> None:
        function = "CURR" if key.endswith("ILIM") else "VOLT"
        smallest, largest = SMALLEST_LIMITS[key], LARGEST[function]
        if not self._flags[f"{function}:RANG:AUTO"]:
            full = self._numbers[f"{function}:RANG"]
            smallest, largest = max(smallest, 1e-3 * full), min(largest, 1.05 * full)
        if not smallest <= value <= largest * (1 + 1e-9):
            raise ScpiError(-222, "Parameter data out of range")
        self._numbers[key] = value

    # --- what has effects of its own -------------------------------------------------------

    async def _reset(self, _argument: str) -> None:
        """Do what makes ``*RST`` dangerous: NORMAL off, that is, a 0 V source."""
        self.output_on = False
        self._set_defaults()
        self._drive()

    async def _clear_events(self, _argument: str) -> None:
        self._events.clear()

    async def _next_event(self, _argument: str) -> str:
        await self._terminals.answer_time()
        if not self._events:
            return '0,"No error;0,0,0"'
        code, _, text = self._events.popleft().partition(",")
        return f'{code},"{text.strip(chr(34))};1;2023/11/14 22:13:20.000"'

    async def _set_source_function(self, argument: str) -> None:
        function = _function(argument)
        if function != self._source_function:
            self._source_function, self.output_on = function, False
            self._drive()

    async def _set_sense_function(self, argument: str) -> None:
        self._sense_function = _function(argument)

    async def _set_output(self, argument: str) -> None:
        self.output_on = boolean(argument)
        self._drive()

    async def _set_off_mode(self, argument: str, function: str = "") -> None:
        """Set what off means, for one source function or for both (p. 6-32)."""
        mode = argument.upper()[:4]
        if mode not in ("NORM", "ZERO", "GUAR", "HIMP"):
            raise ScpiError(-224, "Illegal parameter value")
        for each in (function,) if function else ("CURR", "VOLT"):
            self._off_modes[each] = mode
        self._drive()

    async def _set_terminals(self, argument: str) -> None:
        word = argument.upper()[:4]
        if word not in ("FRON", "REAR"):
            raise ScpiError(-224, "Illegal parameter value")
        self._front = word == "FRON"

    async def _clear_buffer(self, argument: str) -> None:
        _check_buffer(argument)
        self._stored.clear()

    # --- the trigger model ---------------------------------------------------------------

    def _is_trigger_input(self, line: int) -> bool:
        # A rising edge is the beginning of an exposure, a falling one its end.
        rising = self._words[f"TRIG:DIG{line}:IN:EDGE"] in ("RIS", "EITH")
        return rising and self._words[f"DIG:LINE{line}:MODE"] == "TRIG,IN"

    async def _load_model(self, argument: str) -> None:
        self._model.load(argument)

    async def _add_block(self, kind: str, argument: str) -> None:
        self._model.add(kind, argument)

    async def _initiate(self, _argument: str) -> None:
        self._model.initiate()

    async def _abort(self, _argument: str) -> None:
        self._model.abort()

    async def _wait(self, _argument: str) -> None:
        await self._model.go_on()

    async def _command_event(self, _argument: str) -> None:
        """Do what each line does that repeats a trigger from the interface."""
        for line in LINES:
            repeats = self._words[f"TRIG:DIG{line}:OUT:STIM"] == "COMM"
            if repeats and self._words[f"DIG:LINE{line}:MODE"] == "TRIG,OUT":
                self._terminals.pulse(line)

    async def _tell_stored(self, argument: str) -> str:
        _check_buffer(argument)
        await self._terminals.answer_time()
        await self._model.go_on()
        return str(len(self._stored))

    async def _tell_data(self, argument: str) -> str:
        first, last, rest = ([*argument.split(",", 2), ""])[:3]
        elements = _elements(rest)
        await self._terminals.answer_time()
        if not 1 <= number(first) <= number(last) <= len(self._stored):
            raise ScpiError(-222, "Parameter data out of range")
        chosen = [self._stored[i] for i in range(int(first) - 1, int(last))]
        return ",".join(told[e]() for told in map(self._told, chosen) for e in elements)

    def _tripped(self, function: str) -> str:
        held = self.output_on and self._terminals.in_compliance
        return "1" if held and function == self._source_function else "0"

    # --- readings --------------------------------------------------------------------------

    def device_time_s(self, host_ns: int) -> float:
        """Return what the instrument's clock shows, in seconds of UTC."""
        return EPOCH_S + self._elapsed_s(host_ns)

    def _elapsed_s(self, host_ns: int) -> float:
        return host_ns / 1e9 * (1 + self._world.scenario.smu.clock_rate_ratio)

    async def _read(self, argument: str, function: str = "") -> str:
        elements = _elements(argument)
        if function:
            self._sense_function = function
        if not self.output_on:
            raise ScpiError(-221, "Settings conflict")
        await self._measure(None)
        told = self._told(self._stored[-1])
        return ",".join(told[element]() for element in elements)

    async def _measure(self, edge_ns: int | None) -> None:
        """Take a reading into the buffer."""
        got = await self._terminals.measure(
            window_s=self._numbers[f"{self._sense_function}:NPLC"] / LINE_HZ,
            range_A=self._measuring_range_A(),
            edge_ns=edge_ns,
            current_first=self._source_function == "CURR",  # what is sourced comes first
        )
        measured = {"VOLT": got.voltage_V, "CURR": got.current_A}
        source = self._source_function
        level = self._numbers[f"SOUR:{source}"]
        self._stored.append(
            _Stored(
                elapsed_s=self._elapsed_s(got.start_ns),
                sourced=measured[source] if self._flags[f"SOUR:{source}:READ:BACK"] else level,
                sensed=measured[self._sense_function],
                limited=got.compliance,
            )
        )

    def _told(self, stored: _Stored) -> dict[str, Callable[[], str]]:
        seconds, nanoseconds = divmod(round(stored.elapsed_s * 1e9), 10**9)
        return {
            "READ": lambda: f"{_shown(stored.sensed):.6E}",
            "SOUR": lambda: f"{_shown(stored.sourced):.6E}",
            "SEC": lambda: str(EPOCH_S + seconds),
            "FRAC": lambda: f"{nanoseconds / 1e9:.9f}",
            "REL": lambda: f"{stored.elapsed_s - self._stored[0].elapsed_s:.9f}",
            "STAT": lambda: str(FRONT_TERMINALS if self._front else 0),
            "SOURSTAT": lambda: str(OUTPUT_ON | (LIMITED if stored.limited else 0)),
        }

    def _measuring_range_A(self) -> float:
        """Return the range in which the current is measured."""
        if self._source_function == "CURR" or not self._flags["CURR:RANG:AUTO"]:
            return self._shown_number("CURR:RANG")
        return _full_scale("CURR", self._numbers["SOUR:VOLT:ILIM"])  # no current is above it

    # --- the terminals ---------------------------------------------------------------------

    def _drive(self) -> None:
        """Put on the terminals what the settings say."""
        self._terminals.drive(self._source(), output_on=self.output_on)

    def _source(self) -> Source:
        if not self.output_on:
            return self._off_source()
        if self._source_function == "CURR":
            return self._terminals.current_source(
                self._numbers["SOUR:CURR"],
                range_A=self._numbers["SOUR:CURR:RANG"],
                limit_V=self._numbers["SOUR:CURR:VLIM"],
            )
        return self._terminals.voltage_source(
            self._numbers["SOUR:VOLT"], limit_A=self._numbers["SOUR:VOLT:ILIM"]
        )

    def _off_source(self) -> Source:
        """Output off, in the way that belongs to the source function (p. 6-32)."""
        mode = self._off_modes[self._source_function]
        if mode == "HIMP":
            return OPEN
        if mode == "GUAR":
            limit_V = OFF_LIMIT_RATIO * self._shown_number("VOLT:RANG")
            return Source(mode="current", level=0.0, clamp=limit_V)
        range_A = self._shown_number("CURR:RANG")
        limit_A = range_A if mode == "ZERO" else OFF_LIMIT_RATIO * range_A
        return Source(mode="voltage", level=0.0, clamp=limit_A)


def _full_scale(function: str, value: float) -> float:
    """Return the smallest range that holds a value with 5 % beyond."""
    if function == "CURR":
        return SMU_2450.range_for(value).full_scale_A
    return next(full for full in VOLTAGE_RANGES_V if value <= 1.05 * full)


def _function(text: str) -> str:
    word = text.strip().strip("\"'").upper().removesuffix(":DC")
    known = {"VOLT": "VOLT", "VOLTAGE": "VOLT", "CURR": "CURR", "CURRENT": "CURR"}
    if word not in known:
        raise ScpiError(-224, "Illegal parameter value")
    return known[word]


def _check_buffer(text: str) -> None:
    if text and text.strip().strip("\"'").lower() != "defbuffer1":
        raise ScpiError(-222, "Parameter data out of range")


def _elements(argument: str) -> list[str]:
    """Read the buffer and the elements that are asked for; the reading alone by default."""
    parts = [part.strip() for part in argument.split(",")] if argument else []
    if not parts or parts[0].startswith(("'", '"')):
        _check_buffer(parts.pop(0) if parts else "")
    names = [_ELEMENTS.get(part.upper(), part.upper()) for part in parts] or ["READ"]
    if len(names) > MOST_ELEMENTS or not set(_ELEMENTS.values()).issuperset(names):
        raise ScpiError(-224, "Illegal parameter value")
    return names


def _shown(value: float) -> float:
    return math.copysign(OVERFLOW, value) if math.isinf(value) else value
