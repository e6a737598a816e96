"""The simulated bench: instruments on loopback sockets in front of one world."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self, cast

from cameras.open_port import LOOPBACK, open_port
from mocks.camera_server import CameraServer
from mocks.instruments import Streaming, Triggered, simulated_smu
from mocks.pace import LockstepPace, RealPace
from mocks.temscript_server import TemscriptServer
from mocks.world import World


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
        self._triggered = self.smu if isinstance(self.smu, Triggered) else None
        self.camera = CameraServer(world, pace)
        self.microscope = TemscriptServer(now_ns=pace.now_ns, move=self._move_blanker)
        self.refused_clients = 0
        self._attended = asyncio.Event()
        self._unattended = asyncio.Event()
        self._unattended.set()
        self._ports = AsyncExitStack()
        self._smu_writer: asyncio.StreamWriter | None = None
        self._handling: asyncio.Task[str | bytes | None] | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
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
        enter = self._ports.enter_async_context
        self.smu_port = await enter(open_port(self._serve_smu, self.smu_port))
        self.camera_port = await enter(open_port(self.camera.serve, self.camera_port))
        await enter(self.microscope)
        self._spawn(self._pace.run(), "mocks.pace")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all sockets."""
        await self._ports.aclose()
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

    # --- the source-measure unit: one client at a time -----------------------------------

    async def _serve_smu(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._unattended.is_set():
            self.refused_clients += 1
            return
        self._unattended.clear()
        self._attended.set()
        self._smu_writer = writer
        if isinstance(self.smu, Streaming):
            self.smu.attach(_teller(writer))
        lines = _Lines(reader)
        try:
            await self._finish_waiting(lines)
            while line := await lines.next():
                reply = await self._handle(line.decode("ascii", "replace"), lines)
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

    async def _handle(self, line: str, lines: "_Lines") -> str | bytes | None:
        """Let the instrument obey a line; while it waits for an edge it hears an abort."""
        if self._triggered is None or not self._triggered.waits_for_edges:
            return await self.smu.handle(line)
        self._handling = asyncio.create_task(self.smu.handle(line), name="mocks.handling")
        self._tasks.add(self._handling)
        return await self._finish_waiting(lines)

    async def _finish_waiting(self, lines: "_Lines") -> str | bytes | None:
        """Let the instrument come to an end, perhaps with what another client had asked for."""
        if (handling := self._handling) is None:
            return None
        while not handling.done():
            line = await lines.next_while(handling)
            if line == b"":
                raise ConnectionResetError  # the instrument waits on, for nobody
            if self._triggered is not None and line is not None and _is_abort(line):
                self._triggered.abort()
            elif line is not None:
                lines.keep(line)
        self._tasks.discard(handling)
        self._handling = None
        return handling.result()

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

    def _move_blanker(self, blanked: bool) -> None:  # noqa: FBT001 - what the wire says
        late = self.world.scenario.blanker
        self.world.blanker.switch(
            self._pace.now_ns(),
            blanked=blanked,
            latency_s=late.blanker_latency_s,
            jitter_s=late.blanker_jitter_s,
            rise_s=late.blanker_rise_s,
        )

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


def _is_abort(line: bytes) -> bool:
    return line.strip().lstrip(b":").upper() in (b"ABOR", b"ABORT", b"ABOR:ACQ")


class _Lines:
    """A client's lines; some may be read while the instrument is still at work."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._ahead: deque[bytes] = deque()

    async def next(self) -> bytes:
        """Return the next line."""
        return self._ahead.popleft() if self._ahead else await self._reader.readline()

    async def next_while(self, work: asyncio.Task[Any]) -> bytes | None:
        """Return the next line, or None where work is done before it comes."""
        reading = asyncio.create_task(self._reader.readline(), name="mocks.reading")
        try:
            await asyncio.wait({work, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        return None if reading.cancelled() else reading.result()

    def keep(self, line: bytes) -> None:
        """Put a line aside until the instrument is ready for it."""
        self._ahead.append(line)


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
