"""An interpreter of MethodSCRIPT, as far as measurements at a cell need it.

After the MethodSCRIPT manual 1.8: a script is read as a whole first, and an error of its text
keeps all of it from running. One that comes up while it runs stops it at once, without what
stands under ``on_finished:`` (10.1). `Execution.steps` is a generator of waits, in seconds, so
that whoever drives it says how time passes, and may end a loop or the script in a wait.
"""

import math
import operator
import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Protocol

PREFIXES = {
    "a": 1e-18, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0,
    "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "i": 1.0,
}  # fmt: skip
OFFSET = 1 << 27
MOST_PASSES = 10_000  # of a loop that takes no time

# Codes of errors (appendix A of the manual).
UNKNOWN_WORD, MISSING, TOO_EARLY = 0x4001, 0x4007, 0x4018
TWICE, BAD_NUMBER, UNDECLARED = 0x4026, 0x4039, 0x420B
BAD_TIME = 0x4204
MISPLACED = 0x4002  # not yet confirmed

# Command: how its arguments are written. v a variable, n a number or variable, t a type,
# o an operator, s a text; ... further ones that have a name and brackets.
_COMMANDS = {
    "var": "v", "store_var": "vnt", "copy_var": "vv",
    "add_var": "vn", "sub_var": "vn", "mul_var": "vn", "div_var": "vn",
    "if": "non", "elseif": "non", "else": "", "endif": "",
    "loop": "non", "endloop": "", "breakloop": "", "on_finished:": "",
    "meas_loop_ocp": "vnn", "meas_loop_ca": "vvnnn", "meas_loop_cp": "vvnnn",
    "meas_loop_lsv": "vvnnnn", "meas_loop_cv": "vvnnnnn",
    "set_pgstat_chan": "n", "set_pgstat_mode": "n", "set_max_bandwidth": "n",
    "set_acquisition_frac_autoadjust": "n", "set_range": "tn", "set_range_minmax": "tnn",
    "set_autoranging": "tnn", "set_e": "n", "set_i": "n", "cell_on": "", "cell_off": "",
    "wait": "n", "timer_start": "", "timer_get": "v", "send_string": "s",
    "pck_start": "", "pck_add": "n", "pck_end": "", "meas": "nvt",
}  # fmt: skip
_OPENING = ("if", "loop", "meas_loop_ocp", "meas_loop_ca", "meas_loop_cp", "meas_loop_lsv",
            "meas_loop_cv")  # fmt: skip
_LOOP_MARKS = {
    "meas_loop_lsv": "M0000", "meas_loop_cv": "M0005", "meas_loop_ca": "M0007",
    "meas_loop_ocp": "M000B", "meas_loop_cp": "M0010",
}  # fmt: skip
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_NUMBER = re.compile(r"([-+]?\d+)([afpnumkMGTPEi]?)")
_TYPE = re.compile(r"[a-j][a-z]")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class ScriptError(Exception):
    """An error with the place where it is; a column only for one of the text."""

    def __init__(self, code: int, line: int = 0, column: int | None = None) -> None:
        self.code, self.line, self.column = code, line, column
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """As the instrument tells it."""
        where = f"Line {self.line}" + ("" if self.column is None else f", Col {self.column}")
        return f"!{self.code:04X}: {where}"


class EndLoop(Exception):
    """Thrown into a wait: the measurement loop is over."""


class EndScript(Exception):
    """Thrown into a wait: go on with ``on_finished:``."""


class _Break(Exception):
    """Leaves the innermost loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A variable's content: a number, its type, and what is known about it."""

    value: float
    kind: str = "ja"
    whole: bool = False
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A command with its arguments, and the commands inside it."""

    name: str
    arguments: tuple[str, ...]
    line: int
    body: tuple["Statement", ...] = ()
    otherwise: tuple["Statement", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What is done, and what is done at the end whatever happened."""

    body: tuple[Statement, ...]
    finally_: tuple[Statement, ...]


# --- the text -------------------------------------------------------------------------------


def parse(lines: list[str]) -> Script:
    """Read a script.

    Raises
    ------
    ScriptError
        With line and column.
    """
    return _Parser(lines).parse()


class _Parser:
    def __init__(self, lines: list[str]) -> None:
        self._count = len(lines)
        self._declared: set[str] = set()
        self._flat = [s for number, text in enumerate(lines, 1) if (s := self._read(number, text))]
        self._at = 0

    def parse(self) -> Script:
        body = self._block(("on_finished:", None))
        last: tuple[Statement, ...] = ()
        if self._take("on_finished:") is not None:
            last = self._block((None,))
        return Script(body=body, finally_=last)

    def _read(self, number: int, text: str) -> Statement | None:
        text = text.split("#", 1)[0]
        words = text.split()
        if not words:
            return None
        name, arguments = words[0], words[1:]
        if name not in _COMMANDS:
            raise ScriptError(UNKNOWN_WORD, number, text.index(name) + len(name) + 1)
        if name == "send_string":
            arguments = [text.split(None, 1)[1].strip().strip('"')] if arguments else []
        plain = [a for a in arguments if name == "send_string" or "(" not in a]
        wanted = _COMMANDS[name]
        if len(plain) != len(wanted):
            raise ScriptError(MISSING, number, len(text.rstrip()) + 1)
        for kind, argument in zip(wanted, plain, strict=True):
            self._check(kind, argument, declares=name == "var", place=(number, text))
        return Statement(name=name, arguments=tuple(plain), line=number)

    def _check(self, kind: str, argument: str, *, declares: bool, place: tuple[int, str]) -> None:
        number, text = place
        column = text.index(argument) + len(argument) + 1
        if declares:
            if argument in self._declared:
                raise ScriptError(TWICE, number, column)
            self._declared.add(argument)
        elif kind == "v" or (kind == "n" and _NAME.fullmatch(argument)):
            if argument not in self._declared:
                raise ScriptError(UNDECLARED, number, column)
        elif kind == "n" and not _NUMBER.fullmatch(argument):
            raise ScriptError(BAD_NUMBER, number, column)
        elif (kind == "t" and not _TYPE.fullmatch(argument)) or (
            kind == "o" and argument not in _COMPARE
        ):
            raise ScriptError(UNKNOWN_WORD, number, column)

    def _peek(self) -> str | None:
        return self._flat[self._at].name if self._at < len(self._flat) else None

    def _take(self, name: str) -> Statement | None:
        if self._peek() != name:
            return None
        self._at += 1
        return self._flat[self._at - 1]

    def _block(self, ends: tuple[str | None, ...]) -> tuple[Statement, ...]:
        """Return statements up to one of the ends, which is left to be taken."""
        found: list[Statement] = []
        while (name := self._peek()) not in ends:
            if name is None:
                raise ScriptError(TOO_EARLY, self._count + 1, 1)
            statement = self._flat[self._at]
            if name in ("else", "elseif", "endif", "endloop", "on_finished:"):
                raise ScriptError(MISPLACED, statement.line, 1)
            self._at += 1
            found.append(self._opened(statement))
        return tuple(found)

    def _opened(self, statement: Statement) -> Statement:
        if statement.name in ("if", "elseif"):
            body = self._block(("else", "elseif", "endif"))
            otherwise: tuple[Statement, ...] = ()
            if (other := self._take("elseif")) is not None:
                return replace(statement, body=body, otherwise=(self._opened(other),))
            if self._take("else") is not None:
                otherwise = self._block(("endif",))
            self._take("endif")
            return replace(statement, body=body, otherwise=otherwise)
        if statement.name in _OPENING:
            body = self._block(("endloop",))
            self._take("endloop")
            return replace(statement, body=body)
        return statement


# --- running it -----------------------------------------------------------------------------


class Pgstat(Protocol):
    """The analogue side, which raises ScriptError for what it cannot do."""

    def now_s(self) -> float:
        """Return the time of the instrument's timer."""
        ...

    def set_up(self, name: str, kind: str, values: tuple[float, ...]) -> None:
        """Set mode, bandwidth, ranges, potential or current."""
        ...

    def switch(self, *, on: bool) -> None:
        """Switch the cell."""
        ...

    def begin(self, loop: str, level: float | None) -> None:
        """Put a loop's level on; None for none."""
        ...

    def measure(self, loop: str, level: float | None) -> tuple[Value, Value]:
        """Return potential and current since the last reading."""
        ...


@dataclass(slots=True)
class Execution:
    """One run of a script."""

    script: Script
    pgstat: Pgstat
    say: Callable[[str], None]
    measuring: bool = False
    _values: dict[str, Value] = field(default_factory=dict)
    _package: list[str] = field(default_factory=list)
    _timer_s: float = 0.0
    _waits: int = 0

    def steps(self) -> Generator[float]:
        """Run; yields the seconds until it wants to go on.

        Raises
        ------
        ScriptError
            It failed; nothing more is done.
        """
        try:
            yield from self._block(self.script.body)
        except (EndScript, _Break):
            self.measuring = False
        yield from self._block(self.script.finally_)

    def _block(self, body: tuple[Statement, ...]) -> Generator[float]:
        for statement in body:
            try:
                yield from self._obey(statement)
            except ScriptError as error:
                error.line = error.line or statement.line
                raise

    def _obey(self, statement: Statement) -> Generator[float]:
        name = statement.name
        if name == "breakloop":
            raise _Break
        if name in ("if", "elseif"):
            yield from self._block(
                statement.body if self._holds(statement) else statement.otherwise
            )
        elif name == "loop":
            yield from self._loop(statement)
        elif name in _LOOP_MARKS:
            yield from self._measuring(statement)
        elif name in ("wait", "meas"):
            yield from self._wait(self._numbers(statement)[0])
            if name == "meas":
                potential, _ = self.pgstat.measure("meas_loop_ocp", None)
                self._values[statement.arguments[1]] = potential
        else:
            self._do(statement)

    def _wait(self, seconds: float) -> Generator[float]:
        self._waits += 1
        yield max(seconds, 0.0)

    def _loop(self, statement: Statement) -> Generator[float]:
        self.say("L")
        idle = 0
        while self._holds(statement):
            waits = self._waits
            try:
                yield from self._block(statement.body)
            except _Break:
                break
            idle = idle + 1 if waits == self._waits else 0
            if idle > MOST_PASSES:
                yield from self._wait(1e-3)
        self.say("+")

    def _measuring(self, statement: Statement) -> Generator[float]:
        name = statement.name
        outputs = statement.arguments[: 1 if name == "meas_loop_ocp" else 2]
        first, levels, interval_s = self._levels(statement)
        self.pgstat.begin(name, first)
        self.say(_LOOP_MARKS[name])
        self.measuring = True
        try:
            for level in levels:
                self.pgstat.begin(name, level)
                yield from self._wait(interval_s)
                found = self.pgstat.measure(name, level)
                self._values.update(zip(outputs, found, strict=False))
                yield from self._block(statement.body)
        except (EndLoop, _Break):
            pass
        self.measuring = False
        self.say("*")

    def _levels(self, statement: Statement) -> tuple[float | None, Iterable[float | None], float]:
        """Return a loop's first level, all of them, and the time for each."""
        name, numbers = statement.name, self._numbers(statement)
        if name in ("meas_loop_lsv", "meas_loop_cv"):
            *corners, step_V, rate_V_s = numbers
            if not (step_V > 0 and rate_V_s > 0):
                raise ScriptError(BAD_TIME)
            if name == "meas_loop_cv":
                corners.append(corners[0])
            return corners[0], _staircase(corners, step_V), step_V / rate_V_s
        interval_s, run_s = numbers[-2:]
        if not interval_s > 0:
            raise ScriptError(BAD_TIME)
        level = None if name == "meas_loop_ocp" else numbers[0]
        return level, repeat(level, max(1, round(run_s / interval_s))), interval_s

    def _do(self, statement: Statement) -> None:
        name, arguments = statement.name, statement.arguments
        match name:
            case "store_var" | "copy_var" | "add_var" | "sub_var" | "mul_var" | "div_var":
                self._calculate(name, arguments)
            case "cell_on" | "cell_off":
                self.pgstat.switch(on=name == "cell_on")
            case "timer_start":
                self._timer_s = self.pgstat.now_s()
            case "timer_get":
                passed_s = self.pgstat.now_s() - self._timer_s
                self._values[arguments[0]] = Value(value=passed_s, kind="eb")
            case "send_string":
                self.say(f"T{arguments[0]}")
            case "pck_start":
                self._package = []
            case "pck_add":
                self._package.append(_encode(self._value(arguments[0])))
            case "pck_end":
                self.say("P" + ";".join(self._package))
            case _ if name.startswith("set_"):
                kind = arguments[0] if _COMMANDS[name][:1] == "t" else ""
                self.pgstat.set_up(name, kind, self._numbers(statement))

    def _calculate(self, name: str, arguments: tuple[str, ...]) -> None:
        target, other = arguments[:2]
        if name == "store_var":
            self._values[target] = replace(self._value(other), kind=arguments[2], notes="")
            return
        if name == "copy_var":  # from the first to the second
            self._values[other] = self._value(target)
            return
        old, by = self._value(target), self._value(other).value
        work = {"add_var": operator.add, "sub_var": operator.sub, "mul_var": operator.mul}
        if name == "div_var":
            new = old.value / by if by else math.nan
        else:
            new = work[name](old.value, by)
        self._values[target] = replace(old, value=new)

    def _holds(self, statement: Statement) -> bool:
        left, sign, right = statement.arguments
        return _COMPARE[sign](self._value(left).value, self._value(right).value)

    def _numbers(self, statement: Statement) -> tuple[float, ...]:
        kinds = zip(_COMMANDS[statement.name], statement.arguments, strict=True)
        return tuple(self._value(text).value for kind, text in kinds if kind == "n")

    def _value(self, text: str) -> Value:
        if match := _NUMBER.fullmatch(text):
            return Value(value=int(match[1]) * PREFIXES[match[2]], whole=match[2] == "i")
        return self._values.get(text, Value(value=0.0, kind="aa"))


def _staircase(corners: list[float], step_V: float) -> list[float]:
    levels = [corners[0]]
    for corner in corners[1:]:
        count = math.floor(abs(corner - levels[-1]) / step_V + 1e-9)
        way = math.copysign(step_V, corner - levels[-1])
        levels += [levels[-1] + way * (i + 1) for i in range(count)]
    return levels


def _encode(value: Value) -> str:
    """Return a value as a package has it (chapter 5)."""
    if value.whole:
        return f"{value.kind}{int(value.value) + OFFSET:07X}i{value.notes}"
    for letter, factor in PREFIXES.items():
        if letter == "i" or not math.isfinite(value.value):
            break
        if value.value == 0:
            return f"{value.kind}{OFFSET:07X} {value.notes}"
        if abs(digits := round(value.value / factor)) < OFFSET - 1:
            return f"{value.kind}{digits + OFFSET:07X}{letter or ' '}{value.notes}"
    return f"{value.kind}     nan{value.notes}"
