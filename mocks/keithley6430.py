"""A simulated Keithley 6430 that speaks its SCPI dialect (6430 manual, chapter 17).

Strict where the real one is: unknown headers, missing parameters and readings with the
output off go to the error queue. It has the real one's traps: time that counts 1024
ticks as 1000 ms, ``*RST`` and ``:MEAS?`` that change the output, an output-off state that
is a 0 V source, edges that are latched while nobody waits for one, and deafness while it
does: then it obeys ``:ABOR`` alone. Float32 readings are answered as on GPIB.
"""

import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable  # noqa: TC003 - used when an object is made

from mocks.cell import Source
from mocks.pace import Pace
from mocks.scpi import ScpiError, boolean, number, short_form, words
from mocks.smu import OPEN, Terminals
from mocks.smu_noise import SMU_2400, SMU_6430
from mocks.world import World

OVERFLOW = 9.9e37
NOT_A_NUMBER = 9.91e37
TICKS_PER_S = 1024
LINE_HZ = 50.0
OFF_LIMIT_RATIO = 0.005  # of the range, as a 0 V source
VOLTS_MAX = 21.0

_ON_OFF = {True: "1", False: "0"}
_WORDS = {
    "ARM:SOUR": ("IMM", "TLIN"),
    "TRIG:OUTP": ("NONE", "SOUR"),
    "FORM:DATA": ("ASC", "SRE"),
    "FORM:BORD": ("NORM", "SWAP"),
}
_WHOLE = {  # whole numbers, and the largest of each
    "ARM:COUN": 2500,
    "TRIG:COUN": 2500,
    "ARM:ILIN": 4,
    "TRIG:OLIN": 4,
}


class Keithley6430:
    """The instrument's state and its interpreter.

    Parameters
    ----------
    world
        What its terminals are connected to.
    pace
        How time passes while it works.
    """

    identity = "KEITHLEY INSTRUMENTS INC.,MODEL 6430,1234567,C32 Oct  4 2010 14:20:11/A02 /D/B"
    data_sheet = SMU_6430
    off_modes: tuple[str, ...] = ("NORM", "ZERO", "GUAR")  # no high impedance on this model

    def __init__(self, world: World, pace: Pace) -> None:
        self._world = world
        self._terminals = Terminals(world, pace, self.data_sheet)
        self._queue: deque[str] = deque(maxlen=10)
        self._time_zero_ns = world.now_ns - 12_345_678_901
        self.output_on = False
        self._set_defaults()
        self._readings: list[dict[str, float]] = []
        self._commands: dict[str, Callable[[str], Awaitable[str | bytes | None]]] = {
            "*IDN?": self._identify,
            "*RST": self._reset,
            "*CLS": self._clear_errors,
            "*OPC?": self._complete,
            "SYST:ERR?": self._next_error,
            "SYST:TIME?": self._tell_time,
            "SYST:TIME:RES": self._reset_time,
            "INIT": self._acquire,
            "FETC?": self._fetch,
            "ABOR": self._abort,
            "TRIG:CLE": self._forget_edges,
            "READ?": self._read,
            "MEAS?": self._measure,
            "MEAS:CURR?": self._measure,
            "MEAS:VOLT?": self._measure,
            "OUTP": self._set_output,
            "OUTP?": self._get_output,
            "OUTP:SMOD?": self._get_off_mode,
            "OUTP:SMOD": self._set_off_mode,
            "SENS:VOLT:PROT:TRIP?": self._tripped,
            "SENS:CURR:PROT:TRIP?": self._tripped,
        }

    def _set_defaults(self) -> None:
        self._settings: dict[str, str] = {
            "SOUR:FUNC": "VOLT",
            "SOUR:CURR:MODE": "FIX",
            "SOUR:VOLT:MODE": "FIX",
            "SOUR:CLE:AUTO": "0",
            "OUTP:SMOD": "NORM",
            "SENS:FUNC:CONC": "1",
            "SENS:FUNC": '"CURR:DC"',
            "SYST:AZER:STAT": "1",
            "SYST:RSEN": "0",
            "SENS:AVER": "1",
            "SENS:MED": "1",
            "FORM:ELEM": "VOLT,CURR,RES,TIME,STAT",
            "FORM:DATA": "ASC",
            "FORM:BORD": "NORM",
            "ARM:SOUR": "IMM",
            "TRIG:OUTP": "NONE",
        }
        self._numbers: dict[str, float] = {
            "SOUR:CURR": 0.0,
            "SOUR:VOLT": 0.0,
            "SOUR:CURR:RANG": 1e-4,
            "SOUR:VOLT:RANG": 20.0,
            "SENS:CURR:RANG": 1e-4,
            "SENS:VOLT:RANG": 20.0,
            "SENS:CURR:PROT": 1.05e-4,
            "SENS:VOLT:PROT": 21.0,
            "SENS:CURR:NPLC": 1.0,
            "SENS:VOLT:NPLC": 1.0,
            "SYST:LFR": LINE_HZ,
            "SOUR:DEL": 0.0,
            "ARM:COUN": 1,
            "ARM:ILIN": 1,
            "TRIG:COUN": 1,
            "TRIG:OLIN": 2,
        }

    def power_cycle(self) -> None:
        """Lose the mains for a moment: all settings are the defaults, the output is off."""
        self.output_on = False
        self._set_defaults()
        self._queue.clear()
        self._time_zero_ns = self._world.now_ns
        self._drive()

    # --- the wire ----------------------------------------------------------------------

    @property
    def waits_for_edges(self) -> bool:
        """True while an edge begins its readings."""
        return self._settings["ARM:SOUR"] == "TLIN"

    def abort(self) -> None:
        """End the waiting for an edge."""
        self._terminals.abort()

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
        header, argument = short_form(head), argument.strip()
        if (action := self._commands.get(header)) is not None:
            return await action(argument)
        if header.endswith("?"):
            return await self._query(header[:-1])
        self._assign(header, argument)
        return None

    async def _query(self, header: str) -> str:
        await self._terminals.answer_time()
        if header in self._numbers:
            return f"{self._numbers[header]:+.9E}"
        if header in self._settings:
            return self._settings[header]
        raise ScpiError(-113, "Undefined header")

    def _assign(self, header: str, argument: str) -> None:
        if header in self._numbers:
            self._set_number(header, argument)
        elif header in self._settings:
            self._set_word(header, argument)
        else:
            raise ScpiError(-113, "Undefined header")
        if header.startswith(("SOUR", "SENS:VOLT:PROT", "SENS:CURR:PROT")):
            self._drive()

    def _set_number(self, header: str, argument: str) -> None:
        value = number(argument)
        allowed = {
            "SOUR:CURR": 1.05 * self._numbers["SOUR:CURR:RANG"],
            "SOUR:VOLT": VOLTS_MAX,
            "SENS:VOLT:PROT": VOLTS_MAX,
            "SENS:CURR:PROT": 0.105,
        }.get(header, math.inf)
        if abs(value) > allowed * (1 + 1e-9):
            raise ScpiError(-222, "Parameter data out of range")
        if header == "SOUR:CURR:RANG":
            value = self._range_value(value)
            if abs(self._numbers["SOUR:CURR"]) > value:
                self._numbers["SOUR:CURR"] = 0.0
        elif header == "SENS:CURR:RANG":
            value = self._range_value(value)
        elif header in ("SENS:CURR:NPLC", "SENS:VOLT:NPLC"):
            if not 0.01 <= value <= 10:
                raise ScpiError(-222, "Parameter data out of range")
            # NPLC is global on this family.
            self._numbers["SENS:CURR:NPLC"] = self._numbers["SENS:VOLT:NPLC"] = value
        elif (largest := _WHOLE.get(header)) is not None and not 1 <= value <= largest:
            raise ScpiError(-222, "Parameter data out of range")
        self._numbers[header] = value

    def _range_value(self, value: float) -> float:
        return self.data_sheet.range_for(abs(value) / 1.05).full_scale_A

    def _set_word(self, header: str, argument: str) -> None:
        if not argument:
            raise ScpiError(-109, "Missing parameter")
        word = argument.upper()
        if header in (
            "SOUR:CLE:AUTO",
            "SENS:FUNC:CONC",
            "SYST:AZER:STAT",
            "SYST:RSEN",
            "SENS:AVER",
            "SENS:MED",
        ):
            word = _ON_OFF[boolean(word)]
        if header == "FORM:ELEM":
            word = _elements(word)
        if header in _WORDS:
            word = word[:4] if word[:4] in _WORDS[header] else word[:3]
            if word not in _WORDS[header]:
                raise ScpiError(-224, "Illegal parameter value")
        if header == "SOUR:FUNC":
            word = short_form(word)
            if word not in ("CURR", "VOLT"):
                raise ScpiError(-224, "Illegal parameter value")
            # A change of function switches the output off, as on the real one.
            if word != self._settings[header]:
                self.output_on = False
        self._settings[header] = word

    # --- what is simple ------------------------------------------------------------------

    async def _identify(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return self.identity

    async def _complete(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return "1"

    async def _reset(self, _argument: str) -> None:
        """Do what makes ``*RST`` dangerous: NORMAL off, that is, a 0 V source."""
        self.output_on = False
        self._set_defaults()
        self._drive()

    async def _clear_errors(self, _argument: str) -> None:
        self._queue.clear()

    async def _next_error(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return self._queue.popleft() if self._queue else '0,"No error"'

    async def _tripped(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return _ON_OFF[self._terminals.in_compliance and self.output_on]

    async def _set_output(self, argument: str) -> None:
        self.output_on = boolean(argument)
        self._drive()

    async def _get_output(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return _ON_OFF[self.output_on]

    async def _get_off_mode(self, _argument: str) -> str:
        await self._terminals.answer_time()
        return self._settings["OUTP:SMOD"]

    async def _set_off_mode(self, argument: str) -> None:
        mode = argument.upper()[:4]
        if mode not in self.off_modes:
            raise ScpiError(-224, "Illegal parameter value")
        self._settings["OUTP:SMOD"] = mode
        self._drive()

    # --- time ----------------------------------------------------------------------------

    def device_time_s(self, host_ns: int) -> float:
        """Return what the instrument's clock shows: 1024 ticks told as 1000 ms."""
        oscillator = 1 + self._world.scenario.smu.clock_rate_ratio
        ticks = math.floor((host_ns - self._time_zero_ns) / 1e9 * oscillator * TICKS_PER_S)
        return ticks / 1000

    async def _tell_time(self, _argument: str) -> str:
        await self._terminals.answer_half()
        shown_s = self.device_time_s(self._world.now_ns)
        await self._terminals.answer_half()
        return f"{shown_s:.3f}"

    async def _reset_time(self, _argument: str) -> None:
        self._time_zero_ns = self._world.now_ns

    # --- readings ------------------------------------------------------------------------

    async def _measure(self, _argument: str) -> str | bytes | None:
        """Do what makes ``:MEAS?`` dangerous: defaults, and the output on."""
        self._set_defaults()
        self.output_on = True
        self._drive()
        return await self._read("")

    async def _read(self, argument: str) -> str | bytes | None:
        await self._acquire(argument)
        return await self._fetch(argument)

    async def _acquire(self, _argument: str) -> None:
        """Take the readings of one initiation."""
        if not self.output_on:
            raise ScpiError(803, "Not permitted with OUTPUT off")
        self._readings = []
        edge_ns = None
        if self.waits_for_edges:
            edge_ns = await self._terminals.wait_for_edge(round(self._numbers["ARM:ILIN"]))
            if edge_ns is None:
                return  # aborted
        for _ in range(round(self._numbers["ARM:COUN"] * self._numbers["TRIG:COUN"])):
            if self._settings["TRIG:OUTP"] == "SOUR":
                self._terminals.pulse(round(self._numbers["TRIG:OLIN"]))
            got = await self._terminals.measure(
                window_s=self._numbers["SENS:CURR:NPLC"] / LINE_HZ,
                range_A=self._numbers["SENS:CURR:RANG"],
                edge_ns=edge_ns,
            )
            edge_ns = None
            self._readings.append(
                {
                    "VOLT": got.voltage_V,
                    "CURR": _shown(got.current_A),
                    "RES": NOT_A_NUMBER,
                    "TIME": self.device_time_s(got.start_ns),
                    "STAT": float(8 * got.compliance),
                }
            )

    async def _fetch(self, _argument: str) -> str | bytes | None:
        """Tell the last readings; after an abort there are none, and no reply."""
        if not self._readings:
            return None
        # The instrument tells its elements in its own order, whatever was asked.
        chosen = self._settings["FORM:ELEM"].replace(" ", "").split(",")
        told = [(n, v) for reading in self._readings for n, v in reading.items() if n in chosen]
        if self._settings["FORM:DATA"] == "SRE":
            order = "<" if self._settings["FORM:BORD"] == "SWAP" else ">"
            return b"#0" + struct.pack(f"{order}{len(told)}f", *(value for _, value in told))
        return ",".join(f"{v:.3f}" if n == "TIME" else f"{v:+.6E}" for n, v in told)

    async def _abort(self, _argument: str) -> None:
        """Go to idle, where it is already: while it waits, `abort` is called."""

    async def _forget_edges(self, _argument: str) -> None:
        self._terminals.forget_edges()

    # --- the terminals ---------------------------------------------------------------------

    def _drive(self) -> None:
        """Put on the terminals what the settings say."""
        self._terminals.drive(self._source(), output_on=self.output_on)

    def _source(self) -> Source:
        if not self.output_on:
            return self._off_source()
        if self._settings["SOUR:FUNC"] == "CURR":
            return self._terminals.current_source(
                self._numbers["SOUR:CURR"],
                range_A=self._numbers["SOUR:CURR:RANG"],
                limit_V=self._numbers["SENS:VOLT:PROT"],
            )
        return self._terminals.voltage_source(
            self._numbers["SOUR:VOLT"], limit_A=self._numbers["SENS:CURR:PROT"]
        )

    def _off_source(self) -> Source:
        """Output off: a short circuit with a limit, or 0 A that pulls the cell down."""
        mode = self._settings["OUTP:SMOD"]
        if mode == "HIMP":
            return OPEN
        if mode == "GUAR":
            return Source(mode="current", level=0.0, clamp=OFF_LIMIT_RATIO * 20.0)
        if mode == "ZERO":
            return Source(mode="voltage", level=0.0, clamp=self._numbers["SENS:CURR:PROT"])
        # The larger of both ranges: the manual says only 'the present current range'.
        range_A = max(self._numbers["SOUR:CURR:RANG"], self._numbers["SENS:CURR:RANG"])
        return Source(mode="voltage", level=0.0, clamp=OFF_LIMIT_RATIO * range_A)


def _elements(text: str) -> str:
    """Read the names of elements, in short or long form."""
    known = {
        "VOLTAGE": "VOLT",
        "CURRENT": "CURR",
        "RESISTANCE": "RES",
        "TIME": "TIME",
        "STATUS": "STAT",
    }
    known |= {short: short for short in known.values()}
    names = [part.strip() for part in text.split(",")]
    if not all(name in known for name in names):
        raise ScpiError(-224, "Illegal parameter value")
    return ",".join(known[name] for name in names)


def _shown(current_A: float) -> float:
    return math.copysign(OVERFLOW, current_A) if math.isinf(current_A) else current_A


class Keithley2400(Keithley6430):
    """The same dialect on a coarser instrument that can open its output relay."""

    identity = "KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234568,C30   Mar 17 2006 09:29:29/A02  /K/J"
    data_sheet = SMU_2400
    off_modes: tuple[str, ...] = ("NORM", "ZERO", "GUAR", "HIMP")
