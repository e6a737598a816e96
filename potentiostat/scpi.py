"""SCPI as text: what may be sent, how numbers are written, and how replies are read."""

import math
import re
from typing import Protocol

from potentiostat.errors import InstrumentRefused, ReplyError, UnsafeRequest
from potentiostat.visa import Block, Reply

OVERFLOW = 9.9e37
NOT_A_NUMBER = 9.91e37
LEAST_SPECIAL = 9e37  # below it a number is what it says
MAX_QUEUED_ERRORS = 20

# Each of these can put 0 V or defaults on a cell (6430 manual, chapters 13 and 17).
_NEVER = (
    (r"^\*RST\b", "it restores the NORMAL output-off state, a 0 V source"),
    (r"^\*RCL\b", "it restores a stored setup and switches the output off"),
    (r"^:?SYST\w*:PRES", "it restores defaults"),
    (r"^:?MEAS", "it restores defaults and switches the output on"),
    (r"^:?CONF", "it restores defaults and switches the output on"),
    (r"^:?SOUR\w*:CLE\w*:AUTO\s+(ON|1)", "the output would drop after each reading"),
    (r"^:?SOUR\w*:CLE\w*(:IMM\w*)?$", "it switches the output off"),
)
_OUTPUT_OFF = re.compile(r"^:?OUTP\w*(:STAT\w*)?\s+(OFF|0)", re.IGNORECASE)


class Link(Protocol):
    """What a driver needs of a link."""

    resource: str

    def write(self, command: str) -> None:
        """Send a command without a reply."""
        ...

    def query(self, command: str, *, within_s: float | None = None, abort: str = "") -> Reply:
        """Send a question and return its reply.

        It is waited for as long as the link says, or for ``within_s``; when it does not
        come, ``abort`` is sent before the link is brought in order.
        """
        ...

    def query_block(
        self, command: str, size_bytes: int, *, within_s: float | None = None, abort: str = ""
    ) -> Block:
        """Send a question whose reply is a block of known size; waits as `query` does."""
        ...

    def resync(self) -> None:
        """Bring the link in order after a timeout."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


def refuse_unsafe(command: str, *, off_is_short: bool) -> None:
    """Raise UnsafeRequest for a command that could harm a cell.

    Parameters
    ----------
    off_is_short
        True when switching the output off puts a source on the cell's terminals, and a
        cell is attached.
    """
    for part in re.split(r"[;\r\n]", command):
        text = part.strip()
        for pattern, why in _NEVER:
            if re.match(pattern, text, re.IGNORECASE):
                raise UnsafeRequest(f"{text} is never sent: {why}")
        if off_is_short and _OUTPUT_OFF.match(text):
            raise UnsafeRequest(
                f"{text} is not sent with a cell attached: this model's output-off is a "
                "0 V source; it rests at 0 A instead"
            )


def write_number(value: float) -> str:
    """Return a number with all its digits.

    Raises
    ------
    UnsafeRequest
        It is not finite.
    """
    if not math.isfinite(value):
        raise UnsafeRequest(f"{value} is no set-point")
    return f"{value:.15E}"


def read_number(text: str) -> float:
    """Read one number; overflow is infinite and 'not a number' is NaN.

    Raises
    ------
    ReplyError
        It is no number.
    """
    try:
        value = float(text)
    except ValueError:
        raise ReplyError(f"{text!r} is no number") from None
    if math.isclose(value, NOT_A_NUMBER, rel_tol=1e-6) or math.isnan(value):
        return math.nan
    if abs(value) >= OVERFLOW * (1 - 1e-6):
        return math.copysign(math.inf, value)
    return value


def read_numbers(text: str, count: int) -> tuple[float, ...]:
    """Read exactly ``count`` numbers, parted by commas.

    Raises
    ------
    ReplyError
        There are more or fewer, or one is no number.
    """
    parts = text.split(",")
    if len(parts) != count:
        raise ReplyError(f"{text!r} holds {len(parts)} values instead of {count}")
    try:
        values = tuple(map(float, parts))
    except ValueError:
        values = (math.inf,)
    if max(values) < LEAST_SPECIAL and min(values) > -LEAST_SPECIAL:
        return values  # numbers that mean nothing else, as nearly always
    return tuple(read_number(part) for part in parts)


def raise_queued_errors(link: Link, after: str) -> None:
    """Empty the error queue, and raise if there was anything in it.

    Raises
    ------
    InstrumentRefused
        The instrument refused something.
    """
    errors = []
    for _ in range(MAX_QUEUED_ERRORS):
        text = link.query(":SYST:ERR?").text
        code = text.partition(",")[0]
        if read_number(code) == 0:
            break
        errors.append(text)
    if errors:
        raise InstrumentRefused(f"{link.resource}: after {after}: {'; '.join(errors)}")
