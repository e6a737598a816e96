"""TSP as text: what may be sent, chunks that answer, and the lease that each of them renews.

A 2600 obeys one chunk of Lua after the other, and is silent about errors. So each chunk of
ours ends with a line that it prints: what was set, and how many errors are queued.

With a lease each chunk then stays on the instrument and waits, in `lamella_hold`. Messages
that arrive meanwhile are left in the queue, but for two (2600BS-901-01 Rev. F p. 4-7):
``*TRG``, which the waiting chunk takes out and answers with readings, and ``abort``, which
ends it. When neither comes in time, the chunk itself makes the cell safe.
"""

import math
import re
from collections.abc import Callable

from potentiostat.errors import InstrumentRefused, NoReply, NotApplied, ReplyError, UnsafeRequest
from potentiostat.scpi import Link, read_number, write_number
from potentiostat.visa import Block, Reply

MAX_QUEUED_ERRORS = 20
TRIGGER = "*TRG"
END_CHUNK = "abort"

_NEVER = (
    (r"\*(RST|RCL)\b", "it restores the NORMAL output-off state, a 0 V source"),
    (r"(?<![\w.])reset\s*\(", "it restores the NORMAL output-off state, a 0 V source"),
    (r"\b(smu[ab]|localnode|node\s*\[[^]]*\])\.reset\b", "it restores NORMAL off, a 0 V source"),
    (r"\bsetup\s*\.\s*recall\b", "it restores a stored setup"),
    (r"\boffmode\s*=(?!=)(?!\s*2\b)", "any off state but high impedance drives the cell"),
)  # fmt: skip
_OUTPUT_OFF = re.compile(r"\boutput\s*=(?!=)\s*(?!1\b)", re.IGNORECASE)


def refuse_unsafe_tsp(chunk: str, *, off_is_open: bool) -> None:
    """Raise UnsafeRequest for a chunk that could harm a cell.

    Parameters
    ----------
    off_is_open
        True once the off state was read back as high impedance.
    """
    for pattern, why in _NEVER:
        if re.search(pattern, chunk, re.IGNORECASE):
            raise UnsafeRequest(f"{chunk} is never sent: {why}")
    if not off_is_open and _OUTPUT_OFF.search(chunk):
        raise UnsafeRequest(f"{chunk} is not sent: the output is not known to open when off")


class Chunks:
    """Exchanges chunks with one instrument, on one link.

    Parameters
    ----------
    link
        Open; owned by the calling thread.
    now_ns
        Host clock.
    refuse
        Asked before each chunk.
    hold_s
        How long the instrument waits for the next message before it makes the cell safe;
        None for no lease.
    """

    def __init__(
        self,
        link: Link,
        *,
        now_ns: Callable[[], int],
        refuse: Callable[[str], None],
        hold_s: float | None,
    ) -> None:
        self._link = link
        self._now_ns = now_ns
        self._refuse = refuse
        self._hold_s = hold_s
        self._held_until_ns: int | None = None  # by our clock; None when nothing waits there

    @property
    def has_lease(self) -> bool:
        """True when the instrument makes the cell safe by itself."""
        return self._hold_s is not None

    # --- messages ----------------------------------------------------------------------

    def text(self, chunk: str) -> str:
        """Return a chunk as it is sent: what waits is ended, and the lease begins anew.

        Both lines go in one message, so that no moment is without a lease. Triggers are
        forgotten before anything is printed, while none of ours can be on its way.
        """
        if self._hold_s is None:
            return chunk
        hold = f"if lamella_hold then lamella_hold({self._hold_s:.6f}) end"
        return f"{END_CHUNK}\ntrigger.clear() {chunk} {hold}"

    def query(self, chunk: str) -> Reply:
        """Send a chunk that prints one line.

        Raises
        ------
        InstrumentRefused
            It printed nothing, and there is an error in the queue instead.
        LinkError
            The link is gone, or nothing came in time.
        """
        self._refuse(chunk)
        self._held_until_ns = None
        try:
            reply = self._link.query(self.text(chunk))
        except NoReply:
            self._raise_silent_errors(chunk)
            raise
        return self._heard(reply)

    def read_line(self) -> Reply:
        """Have ``lamella_read`` print one line, by a trigger where a chunk waits for it."""
        if self._holds():
            self._held_until_ns = None
            return self._heard(self._link.query(TRIGGER))
        return self.query("lamella_read()")

    def read_block(self, size_bytes: int) -> Block:
        """Have ``lamella_read`` print a block of known size."""
        command = TRIGGER if self._holds() else self.text("lamella_read()")
        self._held_until_ns = None
        block = self._link.query_block(command, size_bytes)
        self._hold(block.received_ns)
        return block

    def _holds(self) -> bool:
        return self._held_until_ns is not None and self._now_ns() < self._held_until_ns

    def _heard(self, reply: Reply) -> Reply:
        self._hold(reply.received_ns)
        return reply

    def _hold(self, from_ns: int) -> None:
        """Note that a chunk waits there, for a little less than it really does."""
        if self._hold_s is not None:
            self._held_until_ns = from_ns + round(0.75 * self._hold_s * 1e9)

    # --- values ------------------------------------------------------------------------

    def ask(self, *expressions: str, after: str = "") -> tuple[float, ...]:
        """Return the values of expressions, once a chunk is done; true is 1 and false 0.

        Raises
        ------
        ReplyError
            What is printed is no such list of values.
        """
        chunk = f"{after} print({', '.join(expressions)})".strip()
        return read_values(self.query(chunk).text, len(expressions))

    def number(self, name: str) -> float:
        """Return one value."""
        return self.ask(name)[0]

    def do(self, chunk: str) -> None:
        """Have a chunk done, and see that it left no error."""
        (count,) = self.ask("errorqueue.count", after=chunk)
        self.raise_errors(count, chunk)

    def set_number(
        self,
        name: str,
        value: float,
        *,
        rel_tol: float = 1e-6,
        then: str = "",
        also: tuple[str, ...] = (),
    ) -> tuple[float, ...]:
        """Assign a number, read it back, and see that there is no error.

        Parameters
        ----------
        then
            Done after the assignment.
        also
            Expressions to return the values of.

        Raises
        ------
        NotApplied
            It reads back otherwise.
        InstrumentRefused
            There are errors in the queue.
        """
        text = f"{value:g}" if value == round(value) and abs(value) < 100 else write_number(value)
        chunk = f"{name}={text}"
        found, count, *others = self.ask(
            name, "errorqueue.count", *also, after=f"{chunk} {then}".strip()
        )
        self.raise_errors(count, chunk)
        if not math.isclose(found, value, rel_tol=rel_tol, abs_tol=1e-18):
            raise NotApplied(
                f"{self._link.resource}: {name} was set to {value:g} and reads back {found:g}"
            )
        return tuple(others)

    # --- errors ------------------------------------------------------------------------

    def raise_errors(self, count: float, after: str) -> None:
        """Empty the error queue, and raise if there was anything in it.

        Raises
        ------
        InstrumentRefused
            The instrument refused something.
        """
        errors: list[str] = []
        while count > 0 and len(errors) < MAX_QUEUED_ERRORS:
            code, text, *_ = f"{self.query('print(errorqueue.next())').text}\t".split("\t")
            if read_number(code) == 0:
                break
            errors.append(f"{read_number(code):g} {text}")
        if errors:
            raise InstrumentRefused(f"{self._link.resource}: after {after}: {'; '.join(errors)}")

    def _raise_silent_errors(self, chunk: str) -> None:
        """Tell why a chunk printed nothing, where the instrument knows why."""
        (count,) = read_values(self._link.query(self.text("print(errorqueue.count)")).text, 1)
        self.raise_errors(count, chunk)


def read_values(text: str, count: int) -> tuple[float, ...]:
    """Read exactly ``count`` values of a printed line; true is 1 and false 0.

    Raises
    ------
    ReplyError
        There are more or fewer, or one is no value.
    """
    parts = [part.strip() for part in text.split("\t")]
    if len(parts) != count:
        raise ReplyError(f"{text!r} holds {len(parts)} values instead of {count}")
    words = {"true": 1.0, "false": 0.0}
    return tuple(words[part] if part in words else read_number(part) for part in parts)
