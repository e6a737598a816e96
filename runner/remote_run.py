"""A camera node's part in a run: found before it, armed with it, and heard out at its end.

The node keeps the pixels. It touches neither the cell nor the plan: a node that goes away is
an event, and one that comes back without our recording is ordered to film again.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from cameras.errors import CameraLost
from cameras.protocol import NowNs
from runner.bus_address import BusAddress, BusMessage
from runner.bus_link import FIRST_PAUSE_S, BusLink
from runner.bus_security import BadCredentials
from runner.instrument_settings import CameraSettings
from runner.remote_camera import AWAY, OVER, RemoteCamera
from runner.remote_numbers import read_status
from runner.remote_orders import NodeOrders
from session.errors import SessionError
from session.recorder import Recorder

READY, FILMING = "ready", "filming"
Plain = str | int | float  # what an attribute of the session may be
FIND_S = 20.0  # until a node is taken for missing; one that was cut off tries every 10 s
START_S = 30.0  # from an order to the first exposure
FINISH_S, HURRY_S = 120.0, 10.0  # for the last messages; the short one where a person waits
RETRY_S, LOOK_S, GOODBYE_S = 3.0, 1.0, 1.0

Film = Callable[[int, int, int], None]
"""Told of new frames, of those lost before them, and for how long the beam may have been on, ns."""


async def find_node(mine: BusAddress, camera: CameraSettings) -> None:
    """Look whether the node is there and waits for an order.

    Raises
    ------
    CameraLost
        It is not, and why; nothing was ordered.
    """
    name = camera.options.node
    topic = f"{replace(mine, node=name, session=camera.node_session).prefix}/status"
    status: dict[str, Any] = {}
    come = asyncio.Event()

    def hear(message: BusMessage) -> None:
        status.update(read_status(message.payload))
        come.set()

    async def news() -> None:
        come.clear()
        await come.wait()

    async with BusLink(
        replace(mine, node=f"{mine.node}-{name}"), topics=(topic,), heard=hear
    ) as link:
        await _until_ready(name, topic, link, lambda: status, news, FIND_S)


async def _until_ready(
    name: str,
    topic: str,
    link: BusLink,
    status: Callable[[], Mapping[str, Any]],
    news: Callable[[], Awaitable[None]],
    patience_s: float,
) -> None:
    try:
        async with asyncio.timeout(patience_s):
            while not _waits_for_order(status()):
                if (why := _unfit(status())) is not None:
                    raise CameraLost(f"the camera node {name} cannot be used: {why}")
                await news()
    except TimeoutError as error:
        why = _missing(topic, link, status().get("state"))
        raise CameraLost(f"the camera node {name} is not there: {why}") from error


def _waits_for_order(status: Mapping[str, Any]) -> bool:
    # The first word of a node comes before it knows its numbers.
    told = status.get("state") == READY and "epoch" in status
    return told and status.get("on_command") is True and status.get("keeps") is True


def _unfit(status: Mapping[str, Any]) -> str | None:
    """Return what will not change by itself."""
    if status.get("state") in AWAY:
        return None
    if status.get("keeps") is not True:
        return 'it hands its frames on; write driver = "stream" with its host and port'
    if status.get("on_command") is not True:
        return 'it films by itself; write begin = "on command" under [node] in its file'
    if status.get("state") == FILMING:
        return f"it films already, into {status.get('recording')}; end that first"
    return None


def _missing(topic: str, link: BusLink, state: str | None) -> str:
    if not link.is_up:
        return f"the broker at {link.address.broker} is away: {link.why_away}"
    if state is None:
        return (
            f"nothing was ever said under {topic}; start it with lamella node camera, and compare "
            "lab, session and name with its file"
        )
    return f"it is {state}"


class NodeRun:
    """Films with a node for as long as a run lasts.

    Parameters
    ----------
    camera
        Listening.
    key
        That signs the orders.
    session
        Name of the run's session; becomes a part of the name of the node's file.
    start_s
        Longest time from an order to the first exposure.
    """

    def __init__(
        self,
        camera: RemoteCamera,
        key: bytes,
        *,
        session: str,
        recorder: Recorder,
        now_ns: NowNs,
        start_s: float = START_S,
    ) -> None:
        self._camera = camera
        self._orders = camera.orders = NodeOrders(camera.link, camera.prefix, key)
        self._session = session
        self._recorder = recorder
        self._now_ns = now_ns
        self._start_s = start_s
        self._run = secrets.token_hex(8)
        self._ordered = False  # to film, and not seen to have ended
        self._since_ns: int | None = None
        self._watching: asyncio.Task[None] | None = None

    async def arm(self, film: Film) -> None:
        """Have the node film.

        Raises
        ------
        CameraLost
            It does not.
        """
        camera = self._camera
        topic = f"{camera.prefix}/status"
        await _until_ready(
            camera.node, topic, camera.link, lambda: camera.status, camera.news, self._start_s
        )
        camera.count_from_here()
        said = camera.status.get("camera")
        about = {k: v for k, v in said.items() if isinstance(v, Plain)} if said else {}
        await self._recorder.attributes(f"instrument/{camera.node}", about)
        await self._start()
        self._since_ns = self._now_ns()
        camera.seen = lambda frames, dropped: film(frames, dropped, self._lit_ns())
        self._watching = asyncio.create_task(self._watch(film), name="runner.remote_watch")

    async def finish(self, patience_s: float = FINISH_S) -> bool:
        """End the recording, and wait for all that the node has to tell of it.

        Returns
        -------
        bool
            False where it did not come in time; the session's events say so too.
        """
        await self._end_watch()
        until_s = asyncio.get_running_loop().time() + patience_s
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._stop()
        left_s = until_s - asyncio.get_running_loop().time()
        return await self._camera.complete(max(left_s, 0.0))

    async def close(self) -> None:
        """Let go of the node; where it may still film, it is told to end, without waiting."""
        await self._end_watch()
        if self._ordered:
            with suppress(TimeoutError, CameraLost):
                async with asyncio.timeout(GOODBYE_S):
                    await self._orders.order("stop", {"run": self._run})
        counters = asdict(self._camera.counters)
        with suppress(SessionError):  # whoever lost the recorder says so
            await self._recorder.queue_counters(f"node.{self._camera.node}", counters)

    def _films(self) -> bool:
        status = self._camera.status
        return status.get("state") == FILMING and status.get("run") == self._run

    def _lit_ns(self) -> int:
        # By the run's clock: the beam stays on while headers are late or the node is away.
        return 0 if self._since_ns is None else self._now_ns() - self._since_ns

    async def _end_watch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def _start(self) -> None:
        order = {"session": self._session, "run": self._run}
        self._ordered = True
        why = await self._orders.order("start", order)
        if why and not self._films():
            self._ordered = False
            raise CameraLost(f"the camera node {self._camera.node} does not film: {why}")
        try:
            async with asyncio.timeout(self._start_s):
                while not self._films():
                    await self._camera.news()
        except TimeoutError as error:
            raise CameraLost(
                f"the camera node {self._camera.node} was ordered to film, and does not; it is "
                f"{self._camera.status.get('state')}"
            ) from error

    async def _watch(self, film: Film) -> None:
        """Have it film again when it comes back without our recording; count the dose on."""
        while True:
            film(0, 0, self._lit_ns())
            if _waits_for_order(self._camera.status):
                await self._start_again()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._camera.news()

    async def _start_again(self) -> None:
        node = self._camera.node
        text = f"{node} has ended its recording, and is ordered to film again"
        await self._recorder.event(self._now_ns(), "node", node, text, {"run": self._run})
        try:
            await self._start()
        except CameraLost as error:
            await self._recorder.event(self._now_ns(), "node", node, str(error), {"run": self._run})
            await asyncio.sleep(RETRY_S)

    async def _stop(self) -> None:
        """Order it to end until it has; one that is away is waited for."""
        while self._camera.status.get("state") not in (*OVER, "tracking"):
            if self._films():
                try:
                    await self._orders.order("stop", {"run": self._run})
                except CameraLost:
                    await asyncio.sleep(RETRY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._camera.news()
        self._ordered = False


@asynccontextmanager
async def node_of_run(
    mine: BusAddress,
    camera: CameraSettings,
    *,
    recorder: Recorder,
    now_ns: NowNs,
    first_pause_s: float = FIRST_PAUSE_S,
) -> AsyncIterator[NodeRun]:
    """Listen to the node of an experiment while the context lasts."""
    key = await asyncio.to_thread(mine.security.command_key)
    if key is None:
        raise BadCredentials("no command_key_file is named; a camera node obeys none without")
    async with RemoteCamera(
        mine,
        node=camera.options.node,
        session=camera.node_session,
        recorder=recorder,
        now_ns=now_ns,
        udp_host=camera.options.host,
        first_pause_s=first_pause_s,
    ) as remote:
        node = NodeRun(remote, key, session=mine.session, recorder=recorder, now_ns=now_ns)
        try:
            yield node
        finally:
            await node.close()
