"""The simulated bench: instruments on loopback sockets in front of one world."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

from mocks.camera_server import CameraServer
from mocks.instruments import Streaming, simulated_smu
from mocks.pace import LockstepPace, RealPace
from mocks.world import World

LOOPBACK = "127.0.0.1"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Bench:
    """Serves the world's instruments while the context lasts.

    Parameters
    ----------
    world
        The truth behind all of them.
    pace
        How time passes.
    driver
        Name of the driver whose instrument stands there.
    ports
        Of the instrument and of the camera; 0 for a free one.
    """

    def __init__(
        self,
        world: World,
        pace: LockstepPace | RealPace,
        *,
        driver: str = "keithley6430",
        ports: tuple[int, int] = (0, 0),
    ) -> None:
        self.world = world
        self._pace = pace
        self.smu = simulated_smu(driver, world, pace)
        self.camera = CameraServer(world, pace)
        self.refused_clients = 0
        self._attended = asyncio.Event()
        self._unattended = asyncio.Event()
        self._unattended.set()
        self._servers: list[asyncio.Server] = []
        self._smu_writer: asyncio.StreamWriter | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.smu_port, self.camera_port = ports

    @property
    def smu_resource(self) -> str:
        """VISA resource name of the source-measure unit."""
        return f"TCPIP::{LOOPBACK}::{self.smu_port}::SOCKET"

    async def __aenter__(self) -> Self:
        """Open all sockets on free ports."""
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _ClockPort(self), local_addr=(LOOPBACK, 0)
        )
        self.camera.clock_port = self._udp.get_extra_info("sockname")[1]
        serve_smu, serve_camera = map(self._attending, (self._serve_smu, self.camera.serve))
        smu = await asyncio.start_server(serve_smu, LOOPBACK, self.smu_port)
        camera = await asyncio.start_server(serve_camera, LOOPBACK, self.camera_port)
        self._servers = [smu, camera]
        self.smu_port = smu.sockets[0].getsockname()[1]
        self.camera_port = camera.sockets[0].getsockname()[1]
        self._spawn(self._pace.run(), "mocks.pace")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all sockets."""
        for server in self._servers:
            server.close()
        if self._udp is not None:
            self._udp.close()
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task

    def _spawn(self, work: Any, name: str) -> None:
        self._keep(asyncio.create_task(work, name=name))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _attending(self, serve: Serve) -> Serve:
        """Return a client's handler that ends with the bench."""

        async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._keep(task)
            await serve(reader, writer)

        return attend

    # --- the source-measure unit: one client at a time -----------------------------------

    async def _serve_smu(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._unattended.is_set():
            self.refused_clients += 1
            writer.close()
            return
        self._unattended.clear()
        self._attended.set()
        self._smu_writer = writer
        if isinstance(self.smu, Streaming):
            self.smu.attach(_teller(writer))
        try:
            with suppress(ConnectionError):
                while line := await reader.readline():
                    reply = await self.smu.handle(line.decode("ascii", "replace"))
                    if reply is not None:
                        raw = reply if isinstance(reply, bytes) else reply.encode()
                        writer.write(raw + b"\n")
                        await writer.drain()
        finally:
            # The source stays as it was: the instrument does not care who listens.
            self._smu_writer = None
            if isinstance(self.smu, Streaming):
                self.smu.attach(None)
            self._unattended.set()
            writer.close()

    async def wait_until_unattended(self, timeout_s: float) -> None:
        """Return when no client holds the source-measure unit, or after a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._unattended.wait()

    def cut_smu(self) -> None:
        """Pull the cable of the source-measure unit; a new connection is possible."""
        if self._smu_writer is not None:
            self._smu_writer.transport.abort()

    # --- what an operator does ---------------------------------------------------------------

    async def mate_cell(self) -> None:
        """Put the cell into the holder."""
        self.world.mate_cell()

    async def open_holder(self) -> None:
        """Take the cell out of the holder."""
        self.world.open_holder()

    # --- clock exchanges ---------------------------------------------------------------------

    def answer_clock(
        self, question: bytes, address: Any, transport: asyncio.DatagramTransport
    ) -> None:
        """Answer a clock exchange when its time has come."""
        self._spawn(self._answer_clock(question, address, transport), "mocks.clock")

    async def _answer_clock(
        self, question: bytes, address: Any, transport: asyncio.DatagramTransport
    ) -> None:
        answer = await self.camera.answer_clock(question)
        if answer is not None and not transport.is_closing():
            transport.sendto(answer, address)


def _teller(writer: asyncio.StreamWriter) -> Callable[[str], None]:
    """Return what sends a line at once, for as long as anybody is there."""

    def tell(line: str) -> None:
        if not writer.is_closing():
            writer.write(line.encode() + b"\n")

    return tell


class _ClockPort(asyncio.DatagramProtocol):
    """The UDP port of the camera's clock."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop's own class does not derive from DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._bench.answer_clock(data, addr, self._transport)
