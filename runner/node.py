"""A camera node: runs a frame source on the detector's PC, and hands on what others need.

It streams the frames on, or keeps the pixels there and tells over the bus what it has: the
headers, the exchanges with the camera's clock, and what trackers found.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from cameras.clock_wire import ClockServer
from cameras.errors import CameraLost
from cameras.open_port import open_port
from cameras.protocol import FrameSource
from runner.bus_address import BusError, BusMessage
from runner.bus_commands import Command, CommandDesk, open_desk
from runner.bus_link import FIRST_PAUSE_S, BusLink
from runner.clock import NowNs, real_now_ns
from runner.config_node import NodeSettings
from runner.control import replaced_handler
from runner.devices import open_camera
from runner.node_clock import read_question
from runner.node_keep import Keeper
from runner.node_outlet import Outlet
from runner.node_resend import read_resend
from runner.node_spool import Spool
from runner.node_stream import FrameServer

READY, FILMING, TRACKING = "ready", "filming", "tracking"
GOODBYE_S = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSummary:
    """What a node did until it was ended."""

    name: str
    recordings: tuple[str, ...]
    frames: int
    counters: dict[str, dict[str, int]]


class CameraNode:
    """Serves one camera until it is told to end.

    Parameters
    ----------
    settings
        From the node's file.
    now_ns
        Clock of this computer, to which all stamps are brought.
    wall_ns
        Time of day, for commands.
    say
        Told what a person wants to know.
    in_process
        Record on a thread of this process instead of another process.
    first_pause_s
        Before the first attempt to come back to a broker.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        now_ns: NowNs = real_now_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        say: Say = lambda _: None,
        in_process: bool = False,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        self._say = say
        self._in_process = in_process
        self._first_pause_s = first_pause_s
        self._end = asyncio.Event()
        self._wanted = asyncio.Event()
        self._link: BusLink | None = None
        self._desk: CommandDesk | None = None
        self._outlet: Outlet | None = None
        self._keeper: Keeper | None = None
        self._server: FrameServer | None = None
        self._session = self._run = ""  # of the run that ordered the recording
        self._answers: set[asyncio.Task[None]] = set()
        self._spool: Spool | None = None
        self.frames_port = 0
        self.clock_port = 0

    def end(self) -> None:
        """End in order: the exposure, the file, and a last word to the bus."""
        self._end.set()
        self._wanted.set()
        if self._keeper is not None:
            self._keeper.stop()

    async def run(self) -> NodeSummary:
        """Serve until `end`.

        Raises
        ------
        CameraError
            The camera cannot be had or was lost.
        BusError
            A secret cannot be used. A broker that is away is waited for.
        SpoolError, session.errors.SessionError
            The folder cannot be written to.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            clock = await ClockServer.listen(settings.listen, settings.clock_port, self._now_ns)
            stack.callback(clock.close)
            self.clock_port = clock.port
            camera = await asyncio.to_thread(
                open_camera, settings.driver, settings.options, now_ns=self._now_ns
            )
            await stack.enter_async_context(camera)
            await stack.enter_async_context(self._on_bus(camera))
            if settings.keep is None:
                return await self._stream(camera)
            return await self._keep(camera)

    # --- frames -----------------------------------------------------------------------

    async def _stream(self, camera: FrameSource) -> NodeSummary:
        settings = self._settings
        server = FrameServer(camera, clock_port=self.clock_port, now_ns=self._now_ns)
        self._server = server
        async with AsyncExitStack() as stack:
            port = open_port(server.serve, settings.frames_port, host=settings.listen)
            try:
                self.frames_port = await stack.enter_async_context(port)
            except OSError as error:
                raise CameraLost(
                    f"the frames port {settings.listen}:{settings.frames_port} cannot be had "
                    f"({error.strerror}); name another"
                ) from error
            stack.push_async_callback(server.hang_up)
            self._say(
                f'streams: driver = "stream", host = "{settings.listen}", port = {self.frames_port}'
            )
            await self._tell(READY)
            ended = asyncio.create_task(self._end.wait(), name="runner.node_end")
            stack.callback(ended.cancel)
            await asyncio.wait((ended, server.failed), return_when=asyncio.FIRST_COMPLETED)
        if server.failed.done():
            server.failed.result()
        return NodeSummary(
            name=settings.name,
            recordings=(),
            frames=server.counters.sent,
            counters={"stream": asdict(server.counters)},
        )

    async def _keep(self, camera: FrameSource) -> NodeSummary:
        recordings: list[str] = []
        frames, counters = 0, {}
        while not self._end.is_set():
            if self._settings.on_command:
                await self._tell(READY, run="", recording="")
                await self._wanted.wait()
                self._wanted.clear()
                if self._end.is_set():
                    break
            keeper = Keeper(
                self._settings,
                camera,
                now_ns=self._now_ns,
                put=self._put,
                session=self._session,
                in_process=self._in_process,
            )
            self._keeper = keeper
            self._say(f"keeps its frames in {keeper.path}")
            try:
                await keeper.record(
                    started=self._tell_of(FILMING, keeper), ended=self._tell_of(TRACKING, keeper)
                )
            finally:
                self._keeper = None
            recordings.append(str(keeper.path))
            frames += keeper.frames
            counters["tracks"] = asdict(keeper.tracks.counters)
            if not self._settings.on_command:
                break  # a camera that ends by itself has said all
        return NodeSummary(
            name=self._settings.name,
            recordings=tuple(recordings),
            frames=frames,
            counters=counters | self._bus_counters(),
        )

    def _tell_of(self, state: str, keeper: Keeper) -> Callable[[], Awaitable[None]]:
        """Return what tells a state of a recording, and for which run it is."""
        return lambda: self._tell(state, run=self._run, recording=keeper.path.name)

    def _put(self, topic: str, message: dict[str, object]) -> None:
        if self._outlet is not None:
            self._outlet.put(topic, message)

    # --- the bus ----------------------------------------------------------------------

    @asynccontextmanager
    async def _on_bus(self, camera: FrameSource) -> AsyncIterator[None]:
        """Be on the bus while the context lasts, where the settings name one."""
        settings = self._settings
        if settings.bus is None:
            yield
            return
        prefix = settings.bus.prefix
        self._desk = await open_desk(settings.bus, self._obey, self._wall_ns)
        topics = [f"{prefix}/clock/ask", f"{prefix}/resend"]
        topics += [f"{prefix}/command"] if self._desk is not None else []
        self._link = BusLink(
            settings.bus, topics=topics, heard=self._hear, first_pause_s=self._first_pause_s
        )
        self._link.remember(READY, **self._about(camera))
        async with self._link:
            sending = await self._open_outlet(self._link)
            try:
                yield
                await self._goodbye("ended")
            except Exception as error:
                await self._goodbye("failed", why=str(error))
                raise
            finally:
                for task in (*sending, *self._answers):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                if self._spool is not None:
                    await asyncio.to_thread(self._spool.close)

    async def _open_outlet(self, link: BusLink) -> list[asyncio.Task[None]]:
        settings = self._settings
        if settings.spool is None:
            return []
        self._spool = await asyncio.to_thread(
            Spool.open, settings.spool, max_bytes=settings.spool_bytes
        )
        self._outlet = Outlet(link, self._spool)
        return [asyncio.create_task(self._outlet.run(), name="runner.node_outlet")]

    async def _goodbye(self, state: str, **more: object) -> None:
        if self._outlet is not None and self._link is not None:
            await self._outlet.kept()
            if self._link.is_up:
                await self._outlet.settle()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._tell(state, **more)

    def _about(self, camera: FrameSource) -> dict[str, object]:
        info = camera.info
        return {
            "camera": {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in asdict(info).items()
            },
            "clock_port": self.clock_port,
            "keeps": self._settings.keep is not None,
            "on_command": self._settings.on_command,
        }

    async def _tell(self, state: str, **news: object) -> None:
        if self._link is None:
            return
        more = {k: v for k, v in self._link.status.items() if k != "state"} | news
        if self._spool is not None and self._outlet is not None:
            await self._outlet.kept()
            more |= self._spool.state()
        await self._link.say(state, **more)

    def _bus_counters(self) -> dict[str, dict[str, int]]:
        if self._link is None or self._outlet is None or self._spool is None:
            return {}
        return {
            "bus": asdict(self._link.counters),
            "outlet": asdict(self._outlet.counters),
            "spool": asdict(self._spool.counters),
        }

    def _hear(self, message: BusMessage) -> None:
        received_ns = self._now_ns()  # first of all
        match message.topic.rpartition("/")[2]:
            case "ask":
                if (question := read_question(message.payload)) is not None:
                    self._later(self._answer(question, received_ns))
            case "resend":
                wanted = read_resend(message.payload)
                if wanted is not None and self._outlet is not None:
                    self._outlet.resend(*wanted)
            case "command" if self._desk is not None and self._link is not None:
                done, reply = self._desk.take(message.payload, retained=message.retained)
                self._link.counters.commands += done
                self._link.counters.commands_refused += not done
                self._later(self._reply(reply))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="runner.node_answer")
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, question: tuple[int, str, int], received_ns: int) -> None:
        if self._link is None:
            return
        nonce, who, t0_ns = question
        answer = {"nonce": nonce, "t0_ns": t0_ns, "t1_ns": received_ns, "t2_ns": self._now_ns()}
        with suppress(BusError):  # whoever asked asks again
            await self._link.publish_at_once(
                f"{self._link.address.prefix}/clock/answer/{who}", answer
            )

    async def _reply(self, reply: dict[str, object]) -> None:
        if self._link is not None:
            with suppress(BusError):
                await self._link.publish("reply", reply)

    def _obey(self, command: Command) -> str | None:
        """Carry out a command; return why not."""
        match command.word:
            case "start":
                if self._keeper is not None or self._wanted.is_set():
                    return "it films already"
                self._session = str(command.arguments.get("session", ""))
                self._run = str(command.arguments.get("run", ""))
                self._wanted.set()
            case "stop":
                if self._keeper is None:
                    return "it does not film"
                if command.arguments.get("run", self._run) != self._run:
                    return "it films for another run"
                self._keeper.stop()
            case word:
                return f"{word!r} is no command of a camera node; there are start and stop"
        return None


async def run_node(settings: NodeSettings, *, say: Say) -> NodeSummary:
    """Serve a camera until Ctrl-C, which ends it in order."""
    node = CameraNode(settings, say=say)
    loop = asyncio.get_running_loop()

    def heard(_signal: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(node.end)

    with replaced_handler(heard):
        return await node.run()
