"""The clock of a camera node: asked over UDP, or over the bus where UDP is blocked.

Both ways carry the four stamps of a two-way exchange; over UDP they are those of
`cameras.clock_wire`, so that a stream camera can ask too.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cameras.clock_wire import ClockClient
from cameras.errors import CameraLost
from cameras.protocol import ClockExchange
from runner.bus_address import BusError, BusMessage
from runner.bus_link import BusLink

TIMEOUT_S = 2.0

NowNs = Callable[[], int]


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


class UdpClock:
    """Asks over UDP, with a time limit.

    Parameters
    ----------
    client
        Asks without one.
    name
        Of whom it asks, for errors.
    """

    def __init__(self, client: ClockClient, name: str, timeout_s: float) -> None:
        self._client = client
        self._name = name
        self._timeout_s = timeout_s

    @classmethod
    async def connect(
        cls, host: str, port: int, *, now_ns: NowNs, timeout_s: float = TIMEOUT_S
    ) -> "UdpClock":
        """Make one; nothing is sent yet.

        Raises
        ------
        OSError
            The name of the host is not known.
        """
        return cls(await ClockClient.connect(host, port, now_ns), f"{host}:{port}", timeout_s)

    async def exchange(self) -> ClockExchange:
        """Return the stamps of one exchange.

        Raises
        ------
        CameraLost
            No answer came in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._client.exchange()
        except TimeoutError as error:
            why = f"no answer in {self._timeout_s:g} s"
            raise CameraLost(f"the clock of {self._name} does not answer: {why}") from error

    def close(self) -> None:
        """Stop asking."""
        self._client.close()


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
