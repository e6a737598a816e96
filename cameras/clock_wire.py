"""Two-way clock exchanges over UDP, for any node that has a clock of its own.

A question is 16 bytes (nonce, time of sending), an answer 32 (both again, and the node's
time of receipt and of reply), all little-endian int64; other lengths are left. On Linux the
kernel stamps what comes in: a busy program, or its event loop, does not make it late.
"""

import asyncio
import itertools
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from cameras.errors import CameraLost
from cameras.protocol import ClockExchange, NowNs

QUESTION, ANSWER = struct.Struct("<qq"), struct.Struct("<qqqq")
STEPPED_NS = 100_000  # a wall clock that moved by more since was set, not slewed
MAX_BYTES = 2048
# Sent just before what is stamped, and left by who gets it: the second datagram goes the same
# way through the program and the system, which then are awake. Without it one direction took
# 13 us longer than the other on a loopback, and no exchange can see that.
WARM = b"\0"
MAX_WAIT_NS = 1_000_000_000  # a question that waited longer was stamped by a clock since set
# Python does not name it. The number is Linux's own, for all processors that we know of.
SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")


class StampSource(StrEnum):
    """Who noted when a message came in."""

    KERNEL = "kernel"
    USER = "user"  # the program, when it was its turn


@dataclass(frozen=True, slots=True, kw_only=True)
class WireExchange(ClockExchange):
    """An exchange, and who stamped the receipt on this side."""

    source: StampSource


@dataclass(frozen=True, slots=True)
class WallPair:
    """The wall clock, read between two looks at the host clock."""

    before_ns: int
    wall_ns: int
    after_ns: int

    @classmethod
    def read(cls, now_ns: NowNs) -> Self | None:
        """Read both; None where ``now_ns`` is not the computer's own steady clock."""
        first = time.monotonic_ns()
        before, wall, after = now_ns(), time.time_ns(), now_ns()
        last = time.monotonic_ns()
        return cls(before, wall, after) if first <= before <= after <= last else None

    @property
    def ahead_ns(self) -> int:
        """By how much the wall clock is ahead of the host clock."""
        return self.wall_ns - (self.before_ns + self.after_ns) // 2

    @property
    def width_ns(self) -> int:
        """How long the reading took: nothing says when within it was read."""
        return self.after_ns - self.before_ns


def kernel_stamp_ns(
    wall_ns: int | None,
    sent: WallPair | None,
    received: WallPair | None,
    *,
    not_before_ns: int,
    not_after_ns: int,
) -> int | None:
    """Bring a kernel's stamp of the wall clock onto the host clock.

    Parameters
    ----------
    wall_ns
        The stamp; None where the kernel gave none.
    sent, received
        The two clocks, as read before sending and after receipt.
    not_before_ns, not_after_ns
        Host times between which the message must have come.

    Returns
    -------
    int or None
        None where it cannot be trusted: the wall clock was set in between, or the stamp
        lies where it cannot.
    """
    if wall_ns is None or sent is None or received is None:
        return None
    if abs(received.ahead_ns - sent.ahead_ns) > STEPPED_NS + sent.width_ns + received.width_ns:
        return None
    sharper = min(sent, received, key=lambda pair: pair.width_ns)
    host_ns = wall_ns - sharper.ahead_ns
    return host_ns if not_before_ns <= host_ns <= not_after_ns else None


class _Port:
    """A UDP socket that hands over each datagram with the kernel's stamp, if there is one."""

    def __init__(self, raw: socket.socket, take: Callable[[bytes, Any, int | None], None]) -> None:
        self._raw, self._take = raw, take
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(
        cls,
        take: Callable[[bytes, Any, int | None], None],
        *,
        local: tuple[str, int] | None = None,
        remote: tuple[str, int] | None = None,
    ) -> "_Port":
        """Bind or connect, and listen from now on."""
        loop = asyncio.get_running_loop()
        host, port = local or remote or ("", 0)
        (family, _, _, _, address), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        raw = socket.socket(family, socket.SOCK_DGRAM)
        try:
            raw.settimeout(0.0)
            if local is None:
                raw.connect(address)
            else:
                raw.bind(address)
            opened = cls(raw, take)
            if ask_for_stamps(raw):
                loop.add_reader(raw, opened._read)
            else:
                await loop.create_datagram_endpoint(lambda: _Plain(opened), sock=raw)
        except BaseException:
            raw.close()
            raise
        return opened

    @property
    def number(self) -> int:
        """The port's number."""
        return int(self._raw.getsockname()[1])

    def _read(self) -> None:
        if (came := receive_stamped(self._raw)) is not None:
            self._take(*came)

    def send(self, data: bytes, address: Any = None) -> None:
        """Send at once; what the system does not take is lost, as datagrams are."""
        try:
            if self._transport is not None:
                self._transport.sendto(data, address)
            elif address is None:
                self._raw.send(data)
            else:
                self._raw.sendto(data, address)
        except OSError:
            return  # nobody listens there now: the caller's time limit says so

    def close(self) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()
        elif self._raw.fileno() >= 0:
            self._loop.remove_reader(self._raw)
            self._raw.close()


class _Plain(asyncio.DatagramProtocol):
    """The same where the system has no stamps."""

    def __init__(self, port: _Port) -> None:
        self._port = port

    def connection_made(self, transport: Any) -> None:
        self._port._transport = transport  # noqa: SLF001 - two halves of one thing

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._port._take(data, addr, None)  # noqa: SLF001

    def error_received(self, exc: Exception) -> None:
        """Leave it to the timeout: a port that is closed may open again."""


def ask_for_stamps(raw: socket.socket) -> bool:
    """Ask the kernel to stamp what comes in; False where it does not."""
    if sys.platform != "linux":
        return False
    raw.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return True


def receive_stamped(raw: socket.socket) -> tuple[bytes, Any, int | None] | None:
    """Take a datagram from a socket that does not block.

    Returns
    -------
    tuple of bytes, address and int, or None
        The last is the kernel's stamp on the wall clock in ns, None where it gave none. None in
        all where there is no datagram, or nobody listens where the last one went.
    """
    if sys.platform == "win32":  # it has no recvmsg
        try:
            return *raw.recvfrom(MAX_BYTES), None
        except OSError:
            return None
    try:
        data, extra, _, address = raw.recvmsg(MAX_BYTES, 256)
    except OSError:
        return None  # a port that is closed may open again
    return data, address, _stamp_of(extra)


def _stamp_of(extra: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in extra:
        known = level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS
        if known and len(data) >= _TIMESPEC.size:
            seconds, rest = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + rest)
    return None


class ClockClient:
    """Asks for the time, and takes only the answer to its own question.

    Parameters
    ----------
    now_ns
        Host clock. Kernel stamps are used where it is the computer's own.
    """

    def __init__(self, now_ns: NowNs) -> None:
        self._now_ns = now_ns
        self._nonces = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[WireExchange], WallPair | None]] = {}
        self._port: _Port | None = None

    @classmethod
    async def connect(cls, host: str, port: int, now_ns: NowNs) -> "ClockClient":
        """Make one that asks this port."""
        client = cls(now_ns)
        client._port = await _Port.open(client._take, remote=(host, port))
        return client

    def _take(self, data: bytes, _: Any, wall_ns: int | None) -> None:
        received_ns = self._now_ns()  # first of all
        if len(data) != ANSWER.size:
            return
        nonce, t0_ns, t1_ns, t2_ns = ANSWER.unpack(data)
        answer, pair = self._waiting.pop(nonce, (None, None))
        if answer is None or answer.done():
            return
        stamp = kernel_stamp_ns(
            wall_ns,
            pair,
            None if pair is None else WallPair.read(self._now_ns),
            not_before_ns=t0_ns,
            not_after_ns=received_ns,
        )
        answer.set_result(
            WireExchange(
                t0_ns=t0_ns,
                t1_ns=t1_ns,
                t2_ns=t2_ns,
                t3_ns=received_ns if stamp is None else stamp,
                source=StampSource.USER if stamp is None else StampSource.KERNEL,
            )
        )

    async def exchange(self) -> WireExchange:
        """Ask once; waits without limit.

        Raises
        ------
        CameraLost
            It is closed, or was never connected.
        """
        if self._port is None:
            raise CameraLost("the clock port is closed")
        nonce = next(self._nonces)
        answer: asyncio.Future[WireExchange] = asyncio.get_running_loop().create_future()
        self._waiting[nonce] = answer, WallPair.read(self._now_ns)
        try:
            self._port.send(WARM)
            self._port.send(QUESTION.pack(nonce, self._now_ns()))
            return await answer
        finally:
            self._waiting.pop(nonce, None)

    def close(self) -> None:
        """Ask no more."""
        if self._port is not None:
            self._port.close()
            self._port = None


class ClockServer:
    """Answers with a clock: the node's half of an exchange.

    Parameters
    ----------
    now_ns
        The node's clock.
    """

    def __init__(self, now_ns: NowNs) -> None:
        self._now_ns = now_ns
        self._port: _Port | None = None
        self.answered = 0

    @classmethod
    async def listen(cls, host: str, port: int, now_ns: NowNs) -> "ClockServer":
        """Make one that answers at this port; 0 for a free one.

        Raises
        ------
        CameraLost
            The port cannot be had.
        """
        server = cls(now_ns)
        try:
            server._port = await _Port.open(server._answer, local=(host, port))
        except OSError as error:
            raise CameraLost(
                f"the clock port {host}:{port} cannot be had ({error.strerror}); name another"
            ) from error
        return server

    @property
    def port(self) -> int:
        """Where it listens.

        Raises
        ------
        CameraLost
            It is closed.
        """
        if self._port is None:
            raise CameraLost("the clock port is closed")
        return self._port.number

    def _answer(self, data: bytes, address: Any, wall_ns: int | None) -> None:
        received_ns = self._now_ns()  # first of all
        if len(data) != QUESTION.size or self._port is None:
            return
        nonce, t0_ns = QUESTION.unpack(data)
        pair = None if wall_ns is None else WallPair.read(self._now_ns)
        # The wall clock is read a moment after the stamp: nothing else could tell a step.
        stamp = kernel_stamp_ns(
            wall_ns,
            pair,
            pair,
            not_before_ns=received_ns - MAX_WAIT_NS,
            not_after_ns=received_ns,
        )
        t1_ns = received_ns if stamp is None else stamp
        self._port.send(WARM, address)
        self._port.send(ANSWER.pack(nonce, t0_ns, t1_ns, self._now_ns()), address)
        self.answered += 1

    def close(self) -> None:
        """Answer no more."""
        if self._port is not None:
            self._port.close()
            self._port = None
