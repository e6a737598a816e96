"""The door to pyvisa: one link, one owner's thread, and never the wrong reply."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyvisa
from pyvisa.errors import VisaIOError

from potentiostat.errors import LinkError, NoReply, ReplyError, UnknownInstrument
from potentiostat.socket_lines import NoLine, SocketLines

FENCE_TRIES = 3
DRAIN_TIMEOUT_MS = 50
MAX_STALE_REPLIES = 1000
IDENTITY_QUERY = "*IDN?"
LINE_BYTES = 20 * 1024  # of one read; a longer line takes several
GOES_ON = pyvisa.constants.StatusCode.success_max_count_read


class Reply(NamedTuple):
    """A reply with the host stamps around its exchange."""

    text: str
    sent_ns: int
    received_ns: int


@dataclass(frozen=True, slots=True)
class Block:
    """The bytes of a binary reply, without header and line end."""

    data: bytes
    sent_ns: int
    received_ns: int


class VisaLink:
    """A message-based VISA resource, used by one thread alone.

    pyvisa gives a reply to whichever thread reads first, and after a timeout hands the
    late reply to the next question. So the first thread that uses the link owns it, and
    after a timeout nothing is asked before the link has been brought in order: stale
    replies are read away, and the instrument must answer `*IDN?` as it did before.

    Parameters
    ----------
    resource
        VISA resource name, such as ``TCPIP::192.168.0.5::1394::SOCKET``.
    now_ns
        Host clock.
    timeout_s
        For a single reply. The way to the safe state takes one of these at worst, so
        keep it at 2 s or less.
    backend
        ``"@py"`` for pyvisa-py, ``""`` for the system's VISA library.
    identity_query
        What makes the instrument say who it is, always in the same words.
    serial_baud
        Of a serial resource (``ASRL...``); of no meaning for others.
    """

    def __init__(
        self,
        resource: str,
        *,
        now_ns: Callable[[], int],
        timeout_s: float = 2.0,
        backend: str = "@py",
        identity_query: str = IDENTITY_QUERY,
        serial_baud: int | None = None,
    ) -> None:
        self.resource = resource
        self._now_ns = now_ns
        self._timeout_ms = round(timeout_s * 1000)
        self._patience_s = timeout_s
        self._backend = backend
        self._identity_query = identity_query
        self._serial_baud = serial_baud
        self._visa: Any = None
        self._lines: SocketLines | None = None
        self._owner: int | None = None
        self._identity: str | None = None
        self._failed: str | None = None

    # --- life ------------------------------------------------------------------------

    def open(self) -> None:
        """Open the resource; nothing is sent.

        Raises
        ------
        UnknownInstrument
            The name is no resource, or nobody listens there.
        """
        try:
            manager = pyvisa.ResourceManager(self._backend)
            self._visa = manager.open_resource(
                self.resource,
                read_termination="\n",
                write_termination="\n",
                timeout=self._timeout_ms,
                **self._line_settings(),
            )
            # A long line comes in parts, of which we know: no need to be warned each time.
            self._visa.visalib.issue_warning_on.discard(GOES_ON)
            self._prepare_socket()
            self._lock()
        except Exception as error:
            self.close()
            raise UnknownInstrument(
                f"{self.resource}: cannot be opened ({_first_line(error)}); check the "
                "resource name, the cable, and that no other program holds the link"
            ) from error

    def _line_settings(self) -> dict[str, Any]:
        if self._serial_baud is None or not self.resource.upper().startswith("ASRL"):
            return {}
        return {"baud_rate": self._serial_baud}

    def _prepare_socket(self) -> None:
        """Make sure of the peer, and send small commands at once.

        pyvisa-py opens a refused connection too, and leaves Nagle's algorithm on.
        """
        session = getattr(self._visa.visalib, "sessions", {}).get(self._visa.session)
        raw = getattr(session, "interface", None)
        if isinstance(raw, socket.socket):
            raw.getpeername()
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lines = SocketLines.of(session)

    def _lock(self) -> None:
        """Lock the resource against other programs, where the link has locks.

        Raises
        ------
        VisaIOError
            Another program holds the lock.
        """
        try:
            self._visa.lock_excl(timeout=self._timeout_ms)
        except VisaIOError as error:
            if error.error_code == pyvisa.constants.StatusCode.error_resource_locked:
                raise
        except NotImplementedError:
            pass  # this library has no locks on this link

    def close(self) -> None:
        """Let go of the resource; the instrument stays as it is."""
        if self._visa is not None:
            visa, self._visa, self._lines = self._visa, None, None
            visa.close()

    def __enter__(self) -> Self:
        """Open the resource."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the resource."""
        self.close()

    # --- talk ------------------------------------------------------------------------

    def write(self, command: str) -> None:
        """Send a command that has no reply.

        Raises
        ------
        LinkError
            The link is gone.
        """
        self._check()
        try:
            self._visa.write(command)
        except (VisaIOError, OSError) as error:
            raise self._fail(command, error) from error

    def query(self, command: str, *, within_s: float | None = None, abort: str = "") -> Reply:
        """Send a question and return its own reply.

        Parameters
        ----------
        within_s
            Time for this reply alone, as of an instrument that works before it answers.
        abort
            Sent when nothing came in time, before the link is brought in order: it makes
            an instrument listen again that waits for something else.

        Raises
        ------
        NoReply
            Nothing came in time; the link has been brought in order again.
        LinkError
            The link is gone, or cannot be trusted any more.
        """
        self._check()
        try:
            sent_ns = self._now_ns()
            text = self._ask(command) if within_s is None else self._wait(command, within_s)
            reply = Reply(text.strip(), sent_ns, self._now_ns())
        except VisaIOError as error:
            raise self._no_reply(command, error, within_s, abort) from error
        except (OSError, UnicodeDecodeError) as error:
            raise self._fail(command, error) from error
        if command == self._identity_query and self._identity is None:
            self._identity = reply.text
        return reply

    def _ask(self, command: str) -> str:
        """Write a line and read one: over the socket itself, or by the library's own calls.

        `pyvisa` wraps each of these in a dozen of others, which take longer than the exchange.
        """
        if self._lines is not None and self._lines.is_clear:
            try:
                return self._lines.ask(command.encode("ascii"), self._patience_s).decode("ascii")
            except NoLine:
                raise VisaIOError(pyvisa.constants.StatusCode.error_timeout) from None
        library, session = self._visa.visalib, self._visa.session
        library.write(session, command.encode("ascii") + b"\n")
        data, status = library.read(session, LINE_BYTES)
        while status == GOES_ON:
            more, status = library.read(session, LINE_BYTES)
            data += more
        line: str = data.decode("ascii")
        return line

    def _wait(self, command: str, within_s: float) -> str:
        with self._patience(within_s):
            return self._ask(command)

    @contextmanager
    def _patience(self, within_s: float | None) -> Iterator[None]:
        """Give one reply another time."""
        if within_s is not None:
            self._visa.timeout = round(within_s * 1000)
            self._patience_s = within_s
        try:
            yield
        finally:
            if within_s is not None:
                self._visa.timeout = self._timeout_ms
                self._patience_s = self._timeout_ms / 1000

    def query_block(
        self, command: str, size_bytes: int, *, within_s: float | None = None, abort: str = ""
    ) -> Block:
        """Send a question whose reply is a block of known size.

        The block may be of definite length (``#3128...``) or of indefinite (``#0...``):
        the size is known beforehand, so a payload that holds a line end does no harm, and
        a block that is cut short is never taken for a whole one.

        Parameters
        ----------
        within_s, abort
            As of `query`.

        Raises
        ------
        NoReply
            It did not all come in time; the link has been brought in order again.
        ReplyError
            It is no block, or one of another size; the link has been brought in order.
        LinkError
            The link is gone, or cannot be trusted any more.
        """
        self._check()
        try:
            sent_ns = self._now_ns()
            self._visa.write(command)
            with self._patience(within_s), self._no_line_ends():
                data = self._read_block(size_bytes)
            block = Block(data, sent_ns, self._now_ns())
        except VisaIOError as error:
            raise self._no_reply(command, error, within_s, abort) from error
        except OSError as error:
            raise self._fail(command, error) from error
        except ReplyError as error:
            self.resync()
            raise ReplyError(f"{self.resource}: {command}: {error}") from None
        return block

    def listen(self) -> Reply:
        """Return the next line that comes unasked, as of an instrument that streams.

        Raises
        ------
        NoReply
            None came in time. Nothing was asked, so nothing is out of step. A cable that was
            cut may be silent too: the next question finds out.
        LinkError
            The link is gone, or cannot be trusted any more.
        """
        self._check()
        try:
            began_ns = self._now_ns()
            text = self._visa.read()
            return Reply(text.strip(), began_ns, self._now_ns())
        except VisaIOError as error:
            if error.error_code != pyvisa.constants.StatusCode.error_timeout:
                raise self._fail("listening", error) from error
            raise NoReply(f"{self.resource}: silent for {self._timeout_ms / 1000:g} s") from error
        except (OSError, UnicodeDecodeError) as error:
            raise self._fail("listening", error) from error

    def _no_reply(
        self, command: str, error: VisaIOError, within_s: float | None, abort: str
    ) -> LinkError | NoReply:
        """Bring the link in order after a timeout, and return what to raise."""
        if error.error_code != pyvisa.constants.StatusCode.error_timeout:
            return self._fail(command, error)
        if abort:
            self.write(abort)
        self.resync()
        waited_s = self._timeout_ms / 1000 if within_s is None else within_s
        return NoReply(f"{self.resource}: no reply to {command} within {waited_s:g} s")

    def _read_block(self, size_bytes: int) -> bytes:
        read: Callable[[int], bytes] = self._visa.read_bytes
        head = read(2)
        if head[:1] != b"#" or not head[1:].isdigit():
            raise ReplyError(f"the reply begins with {head!r}, which is no block")
        if digits := int(head[1:]):
            length = read(digits)
            if not length.isdigit() or int(length) != size_bytes:
                raise ReplyError(f"a block of {length!r} bytes came instead of {size_bytes}")
        data = read(size_bytes)
        if (end := read(1)) != b"\n":
            raise ReplyError(f"the block of {size_bytes} bytes goes on with {end!r}")
        return data

    @contextmanager
    def _no_line_ends(self) -> Iterator[None]:
        """Read by number: a byte of a block may look like a line end."""
        attribute = pyvisa.constants.ResourceAttribute.termchar_enabled
        self._visa.set_visa_attribute(attribute, pyvisa.constants.VI_FALSE)
        try:
            yield
        finally:
            self._visa.set_visa_attribute(attribute, pyvisa.constants.VI_TRUE)

    def resync(self) -> None:
        """Bring the link in order after a timeout.

        Raises
        ------
        LinkError
            The instrument does not answer as itself; the link is not used again.
        """
        self._check()
        try:
            for _ in range(FENCE_TRIES):
                self._drain()
                self._visa.write(self._identity_query)
                if self._answers_as_itself():
                    self._drain()
                    return
        except (VisaIOError, OSError) as error:
            raise self._fail("resynchronising", error) from error
        raise self._fail("resynchronising", "the replies stay out of step")

    def _answers_as_itself(self) -> bool:
        """Read replies until one is the known identity; the stale ones are dropped."""
        for _ in range(MAX_STALE_REPLIES):
            try:
                text = self._visa.read().strip()
            except VisaIOError as error:
                if error.error_code == pyvisa.constants.StatusCode.error_timeout:
                    return False
                raise
            except UnicodeDecodeError:
                continue
            if self._identity is None:
                self._identity = text
            if text == self._identity:
                return True
        return False

    def _drain(self) -> None:
        """Read away what is already on the way."""
        self._visa.timeout = DRAIN_TIMEOUT_MS
        try:
            for _ in range(MAX_STALE_REPLIES):
                try:
                    self._visa.read_raw()
                except VisaIOError as error:
                    if error.error_code == pyvisa.constants.StatusCode.error_timeout:
                        return
                    raise
        finally:
            self._visa.timeout = self._timeout_ms

    # --- guards ------------------------------------------------------------------------

    def _check(self) -> None:
        me = threading.get_ident()
        if self._owner is None:
            self._owner = me
        if self._owner != me:
            raise LinkError(f"{self.resource}: used from a second thread; a link has one owner")
        if self._failed is not None:
            raise LinkError(f"{self.resource}: not used again: {self._failed}")
        if self._visa is None:
            raise LinkError(f"{self.resource}: is not open")

    def _fail(self, command: str, reason: object) -> LinkError:
        self._failed = f"{command}: {_first_line(reason)}"
        return LinkError(f"{self.resource}: {self._failed}")


def _first_line(reason: object) -> str:
    text = str(reason).strip() or type(reason).__name__
    return text.splitlines()[0]
