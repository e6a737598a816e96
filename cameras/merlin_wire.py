"""What a Merlin detector speaks on its two TCP ports.

Every message is ``MPX,``, ten digits, a comma and a body; the digits count the body and the
comma before it. On the control port bodies are ``GET,NAME,0``, ``SET,NAME,VALUE`` and
``CMD,NAME,0`` and their replies; on the data port they are an acquisition header, which begins
with ``HDR,``, or a frame, which begins with ``MQ1,``.
"""

import asyncio
import re
import socket
import time
from contextlib import suppress
from typing import Protocol

from cameras.errors import CameraError, CameraLost, FramingLost

PREFIX_BYTES = 15
MAX_BODY = 256 * 1024 * 1024
MAX_REPLY = 64 * 1024
HEAD_BYTES = 384  # every frame's header is at least that long
WHOLE = getattr(socket, "MSG_WAITALL", 0)
RECEIVE_BUFFER = 8 * 1024 * 1024

_PREFIX = re.compile(rb"MPX,(\d{10}),")
_WHY = {1: "is busy", 2: "does not know", 3: "says out of range to"}


class RefusedCommand(CameraError):
    """The detector heard a command and does not obey it.

    Parameters
    ----------
    code
        1 busy, 2 unrecognised, 3 out of range.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Receives(Protocol):
    """The part of a blocking socket that messages are read with."""

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0, /) -> int:
        """Receive into a buffer; return how many bytes, 0 at the end."""
        ...


class ConnectionCut(CameraLost):
    """The other side is gone.

    Parameters
    ----------
    in_message
        True where it went in the middle of a message.
    """

    def __init__(self, *, in_message: bool) -> None:
        where = "in a message" if in_message else "between messages"
        super().__init__(f"the data connection ended {where}")
        self.in_message = in_message


def message(body: str) -> bytes:
    """Return a message with its length in front."""
    return f"MPX,{len(body) + 1:010d},{body}".encode("ascii")


def body_bytes(prefix: bytes | bytearray, most: int = MAX_BODY) -> int:
    """Return how long the body is that follows a prefix.

    Raises
    ------
    FramingLost
        It is no prefix, or its length cannot be.
    """
    found = _PREFIX.fullmatch(prefix)
    if found is None:
        raise FramingLost(f"{bytes(prefix)!r} is not the beginning of a message")
    length = int(found[1]) - 1
    if not 0 < length <= most:
        raise FramingLost(f"a message of {length} bytes cannot be")
    return length


class MessageReader:
    """Whole messages from a socket, each byte received once, where it belongs.

    Parameters
    ----------
    receives
        A connected socket that blocks.
    """

    def __init__(self, receives: Receives) -> None:
        self._receive_into = receives.recv_into
        self._prefix = bytearray(PREFIX_BYTES)
        self._prefix_view = memoryview(self._prefix)
        self._waste = memoryview(bytearray(64 * 1024))

    def begin(self) -> int:
        """Wait for a message and return the length of its body.

        Raises
        ------
        FramingLost, ConnectionCut
            What came is no message; nothing comes any more.
        """
        self._fill(self._prefix_view, in_message=False)
        return body_bytes(self._prefix)

    def fill(self, view: memoryview) -> None:
        """Receive the next bytes of the body into all of ``view``."""
        self._fill(view, in_message=True)

    def skip(self, count: int) -> None:
        """Let the next bytes of the body pass."""
        while count > 0:
            part = self._waste[: min(count, len(self._waste))]
            self._fill(part, in_message=True)
            count -= len(part)

    def _fill(self, view: memoryview, *, in_message: bool) -> None:
        wanted = len(view)
        if wanted == 0:
            return
        try:
            got = self._receive_into(view, wanted, WHOLE)
            while 0 < got < wanted:
                more = self._receive_into(view[got:], wanted - got, WHOLE)
                if more == 0:
                    raise ConnectionCut(in_message=True)
                got += more
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionCut(in_message=in_message) from error
        if got == 0:
            raise ConnectionCut(in_message=in_message)


def connect_data(host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a socket on the data port that blocks, with room for many frames."""
    connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if _room_is_given():
            # Before connecting: the window that is offered follows from it.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connected.settimeout(timeout_s)
        connected.connect((host, port))
        connected.settimeout(None)
    except BaseException:
        connected.close()
        raise
    return connected


def _room_is_given() -> bool:
    """Tell whether the system grants the buffer: a smaller one is worse than none asked for.

    Linux caps it at ``net.core.rmem_max``, and a size that was asked for no longer grows.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= RECEIVE_BUFFER


def drain(connected: socket.socket, *, quiet_s: float, longest_s: float) -> int:
    """Throw away what is there already; return how many bytes.

    Raises
    ------
    CameraError
        It goes on and on: somebody else's acquisition runs.
    """
    waste, drained = bytearray(1024 * 1024), 0
    until_s = time.monotonic() + longest_s
    connected.settimeout(quiet_s)
    try:
        while time.monotonic() < until_s:
            count = connected.recv_into(waste)
            if count == 0:
                raise ConnectionCut(in_message=False)
            drained += count
    except TimeoutError:
        return drained
    finally:
        connected.settimeout(None)
    raise CameraError(
        "frames come although nothing was started: an acquisition runs already; stop it, "
        'or listen to it with armed_by = "microscope"'
    )


class MerlinControl:
    """The control port: one command at a time, each with its reply.

    Parameters
    ----------
    name
        What error messages call the detector.
    timeout_s
        For connecting and for each reply.
    """

    def __init__(self, name: str, *, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._turn = asyncio.Lock()

    async def connect(self, host: str, port: int) -> None:
        """Connect.

        Raises
        ------
        CameraLost
            Nobody listens there.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            raise CameraLost(
                f"{self._name}: the control port {port} cannot be reached "
                f"({str(error) or 'no answer in time'}); check the address, that the Merlin "
                "software runs, and that no other program holds the port"
            ) from error

    async def close(self) -> None:
        """Disconnect."""
        if self._writer is not None:
            writer, self._writer, self._reader = self._writer, None, None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def get(self, variable: str) -> str:
        """Return the value of a variable."""
        return await self._ask("GET", variable, "0")

    async def set(self, variable: str, value: str) -> None:
        """Set a variable."""
        await self._ask("SET", variable, value)

    async def command(self, name: str) -> None:
        """Have something done."""
        await self._ask("CMD", name, "0")

    async def _ask(self, method: str, name: str, value: str) -> str:
        asked = f"{method} {name} {value}" if method == "SET" else f"{method} {name}"
        async with self._turn:
            reader, writer = self._reader, self._writer
            if reader is None or writer is None:
                raise CameraLost(f"{self._name}: is not connected")
            try:
                async with asyncio.timeout(self._timeout_s):
                    writer.write(message(f"{method},{name},{value}"))
                    await writer.drain()
                    reply = await self._reply(reader)
            except TimeoutError as error:
                await self.close()  # a late reply would be taken for the next one
                raise CameraLost(
                    f"{self._name}: no reply to {asked} in {self._timeout_s:g} s"
                ) from error
            except (OSError, asyncio.IncompleteReadError) as error:
                raise CameraLost(
                    f"{self._name}: the control connection ended at {asked}"
                ) from error
        return self._understand(reply, method, name, asked)

    async def _reply(self, reader: asyncio.StreamReader) -> list[str]:
        prefix = await reader.readexactly(PREFIX_BYTES)
        try:
            body = await reader.readexactly(body_bytes(prefix, MAX_REPLY))
        except FramingLost as error:
            raise FramingLost(f"{self._name}: the control port says {error}") from error
        return body.decode("ascii", "replace").split(",")

    def _understand(self, reply: list[str], method: str, name: str, asked: str) -> str:
        least = 4 if method == "GET" else 3
        if reply[:2] != [method, name] or len(reply) < least or not reply[-1].strip().isdigit():
            raise FramingLost(f"{self._name}: answered {asked} with {','.join(reply)[:60]!r}")
        code = int(reply[-1])
        if code == 0:
            return ",".join(reply[2:-1])
        why = _WHY.get(code, "refuses")
        advice = {1: "; an acquisition runs: stop it first"}.get(code, "")
        raise RefusedCommand(f"{self._name}: {why} {asked} (code {code}){advice}", code)
