"""A proxy in user space: delays, asymmetry, loss and partition between real programs."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from cameras.open_port import LOOPBACK, open_port

Delay = Callable[[random.Random], float]
"""Draws the delay of a message, in s."""

CHUNK = 65_536
BUFFERED = 8 * 1024 * 1024
MAX_CLIENTS = 64


def steady(delay_s: float, jitter_s: float = 0.0) -> Delay:
    """Return a fixed delay with an exponential one on top."""
    return lambda rng: delay_s + (rng.expovariate(1 / jitter_s) if jitter_s > 0 else 0.0)


@dataclass(slots=True, kw_only=True)
class Path:
    """What happens to messages; may be changed while they pass.

    Parameters
    ----------
    there, back
        Delays from the client to the server, and back.
    lost, doubled
        Shares of datagrams that vanish and that come twice; TCP loses nothing.
    parted
        True while nothing passes: datagrams vanish, TCP bytes wait, and new TCP
        connections get no word.
    """

    there: Delay = field(default_factory=lambda: steady(0.0))
    back: Delay = field(default_factory=lambda: steady(0.0))
    lost: float = 0.0
    doubled: float = 0.0
    parted: bool = False


class Proxy:
    """Stands in front of a server, for UDP and for TCP on the same port number.

    Parameters
    ----------
    host, port
        Of the server.
    path
        What happens on the way.
    seed
        Of the delays and losses.
    """

    def __init__(self, host: str, port: int, path: Path, *, seed: int = 0) -> None:
        self.path = path
        self.passed = self.dropped = 0
        self.port = 0
        self._target = (host, port)
        self._rng = random.Random(seed)  # noqa: S311 - a simulation
        self._listening = AsyncExitStack()
        self._udp: asyncio.DatagramTransport | None = None
        self._back: dict[Any, asyncio.DatagramTransport] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of loopback."""
        loop = asyncio.get_running_loop()
        self.port = await self._listening.enter_async_context(open_port(self._serve))
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._go), local_addr=(LOOPBACK, self.port)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all."""
        for transport in (self._udp, *self._back.values()):
            if transport is not None:
                transport.close()
        self.cut()
        await self._listening.aclose()
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, OSError):
                await task

    def part(self) -> None:
        """Let nothing pass from now on; connections stay open, and silent."""
        self.path.parted = True
        self._open.clear()

    def join(self) -> None:
        """Let messages pass again."""
        self.path.parted = False
        self._open.set()

    def cut(self) -> None:
        """Break every TCP connection, as when a cable's switch loses its power."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    # --- datagrams -------------------------------------------------------------------------

    def _go(self, data: bytes, client: Any) -> None:
        self._spawn(self._there(data, client))

    async def _there(self, data: bytes, client: Any) -> None:
        for _ in range(self._copies()):
            await asyncio.sleep(self.path.there(self._rng))
            out = await self._outlet(client)
            if out is not None and not self.path.parted:
                out.sendto(data)
                self.passed += 1

    async def _outlet(self, client: Any) -> asyncio.DatagramTransport | None:
        if client not in self._back:
            if len(self._back) >= MAX_CLIENTS:
                return None
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(lambda data, _: self._spawn(self._home(data, client))),
                remote_addr=self._target,
            )
            if client in self._back:  # made while we waited
                transport.close()
            else:
                self._back[client] = transport
        return self._back[client]

    async def _home(self, data: bytes, client: Any) -> None:
        for _ in range(self._copies()):
            await asyncio.sleep(self.path.back(self._rng))
            if self._udp is not None and not self.path.parted:
                self._udp.sendto(data, client)
                self.passed += 1

    def _copies(self) -> int:
        if self.path.parted or self._rng.random() < self.path.lost:
            self.dropped += 1
            return 0
        return 2 if self._rng.random() < self.path.doubled else 1

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name="mocks.proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- streams ---------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._open.wait()
            far_reader, far = await asyncio.open_connection(*self._target)
            self._writers.add(far)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far, lambda: self.path.there))
                group.create_task(self._pump(far_reader, writer, lambda: self.path.back))
        except* OSError:
            pass  # either side went: so does the other
        finally:
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    end.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: Callable[[], Delay]
    ) -> None:
        """Carry bytes in their order, each chunk as late as the path says."""
        loop = asyncio.get_running_loop()
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(BUFFERED // CHUNK)

        async def read() -> None:
            data = b"-"
            while data:
                data = await source.read(CHUNK)
                await due.put((loop.time() + delay()(self._rng), data))

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while True:
                at_s, data = await due.get()
                await asyncio.sleep(at_s - loop.time())
                await self._open.wait()
                if not data:
                    break
                sink.write(data)
                await sink.drain()
                self.passed += 1
            if sink.can_write_eof():
                sink.write_eof()


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on."""

    def __init__(self, take: Callable[[bytes, Any], None]) -> None:
        self._take = take

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._take(data, addr)

    def error_received(self, exc: Exception) -> None:
        """Leave it to the client: a port that is closed may open again."""
