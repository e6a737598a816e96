"""The clock of a camera node: asked over UDP, or over the bus where UDP is blocked.

Both ways carry the four stamps of a two-way exchange; the datagrams are those of the frame
stream, so that a stream camera can ask too.
"""

import asyncio
import itertools
import json
import secrets
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from cameras.errors import CameraLost
from cameras.protocol import ClockExchange
from runner.bus import BusError, BusLink, BusMessage

QUESTION, ANSWER = struct.Struct("<qq"), struct.Struct("<qqqq")
TIMEOUT_S = 2.0

NowNs = Callable[[], int]


class ClockServer(asyncio.DatagramProtocol):
    """Answers over UDP with the host clock of this computer."""

    def __init__(self, now_ns: NowNs) -> None:
        self._now_ns = now_ns
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def listen(cls, host: str, port: int, now_ns: NowNs) -> "ClockServer":
        """Listen at an address; port 0 for any.

        Raises
        ------
        CameraLost
            The port cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            _, server = await loop.create_datagram_endpoint(
                lambda: cls(now_ns), local_addr=(host, port)
            )
        except OSError as error:
            raise CameraLost(
                f"the clock port {host}:{port} cannot be had ({error.strerror}); name another"
            ) from error
        return server

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._transport is None:
            return 0
        return int(self._transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers are sent with."""
        # The event loop's own class does not derive from DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer a question; what is none is not answered."""
        received_ns = self._now_ns()  # first of all
        if self._transport is not None and len(data) == QUESTION.size:
            nonce, t0_ns = QUESTION.unpack(data)
            self._transport.sendto(ANSWER.pack(nonce, t0_ns, received_ns, self._now_ns()), addr)

    def error_received(self, exc: Exception) -> None:
        """Leave it: whoever asked has gone."""

    def close(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()


class _Asking:
    """Questions that wait for their answers, each by its number."""

    def __init__(self, now_ns: NowNs, timeout_s: float) -> None:
        self._now_ns = now_ns
        self._timeout_s = timeout_s
        self._nonces = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[ClockExchange]] = {}

    async def ask(self, name: str, send: Callable[[int], Awaitable[None]]) -> ClockExchange:
        nonce = next(self._nonces)
        answer: asyncio.Future[ClockExchange] = asyncio.get_running_loop().create_future()
        self._waiting[nonce] = answer
        try:
            async with asyncio.timeout(self._timeout_s):
                await send(nonce)
                return await answer
        except (TimeoutError, BusError, OSError) as error:
            why = str(error) or f"no answer in {self._timeout_s:g} s"
            raise CameraLost(f"the clock of {name} does not answer: {why}") from error
        finally:
            self._waiting.pop(nonce, None)

    def take(self, nonce: int, stamps: tuple[int, int, int], received_ns: int) -> None:
        waiting = self._waiting.pop(nonce, None)
        if waiting is not None and not waiting.done():
            t0_ns, t1_ns, t2_ns = stamps
            waiting.set_result(
                ClockExchange(t0_ns=t0_ns, t1_ns=t1_ns, t2_ns=t2_ns, t3_ns=received_ns)
            )


class UdpClock(asyncio.DatagramProtocol):
    """Asks over UDP."""

    def __init__(self, name: str, now_ns: NowNs, timeout_s: float) -> None:
        self._name = name
        self._now_ns = now_ns
        self._asking = _Asking(now_ns, timeout_s)
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def connect(
        cls, host: str, port: int, *, now_ns: NowNs, timeout_s: float = TIMEOUT_S
    ) -> "UdpClock":
        """Make one; nothing is sent yet."""
        loop = asyncio.get_running_loop()
        _, asker = await loop.create_datagram_endpoint(
            lambda: cls(f"{host}:{port}", now_ns, timeout_s), remote_addr=(host, port)
        )
        return asker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what questions are sent with."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take the answer to our own question."""
        received_ns = self._now_ns()  # first of all
        if len(data) == ANSWER.size:
            nonce, *stamps = ANSWER.unpack(data)
            self._asking.take(nonce, (stamps[0], stamps[1], stamps[2]), received_ns)

    def error_received(self, exc: Exception) -> None:
        """Leave it to the timeout: a port that is closed may open again."""

    async def exchange(self) -> ClockExchange:
        """Return the stamps of one exchange."""

        async def send(nonce: int) -> None:
            if self._transport is not None:
                self._transport.sendto(QUESTION.pack(nonce, self._now_ns()))

        return await self._asking.ask(self._name, send)

    def close(self) -> None:
        """Stop asking."""
        if self._transport is not None:
            self._transport.close()


class BusClock:
    """Asks over the bus: several times worse than UDP, and better than nothing.

    Parameters
    ----------
    link
        Hears ``answer_topic`` and hands its messages to `take`.
    prefix
        Of the node's topics.
    """

    def __init__(
        self, link: BusLink, prefix: str, *, now_ns: NowNs, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._now_ns = now_ns
        self._asking = _Asking(now_ns, timeout_s)
        self._who = secrets.token_hex(6)
        self.answer_topic = f"{prefix}/clock/answer/{self._who}"

    async def exchange(self) -> ClockExchange:
        """Return the stamps of one exchange."""

        async def send(nonce: int) -> None:
            question = {"nonce": nonce, "from": self._who, "t0_ns": self._now_ns()}
            await self._link.publish_at_once(f"{self._prefix}/clock/ask", question)

        return await self._asking.ask(self._prefix, send)

    def take(self, message: BusMessage) -> None:
        """Take an answer; what is none is left."""
        received_ns = self._now_ns()  # first of all
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            body = json.loads(message.payload)
            stamps = (int(body["t0_ns"]), int(body["t1_ns"]), int(body["t2_ns"]))
            self._asking.take(int(body["nonce"]), stamps, received_ns)


def read_question(payload: bytes) -> tuple[int, str, int] | None:
    """Return number, asker and t0 of a question over the bus; None for what is none."""
    try:
        body = json.loads(payload)
        nonce, who, t0_ns = int(body["nonce"]), str(body["from"]), int(body["t0_ns"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    # It becomes a part of a topic.
    return (nonce, who, t0_ns) if who.isalnum() and len(who) <= 32 else None
