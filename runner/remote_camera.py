"""The run's side of a camera node that keeps its pixels: what it tells goes into the session.

Messages of a node are numbered. One that is missing is asked for again, so that a broker
that died or a cut network costs nothing as long as the node's spool holds it; what the
spool no longer holds becomes a gap in the session's events.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cameras.errors import CameraLost
from cameras.protocol import ClockExchange, NowNs
from runner.bus import GOODBYE_S
from runner.bus_address import ENDED, BusAddress, BusError, BusMessage
from runner.bus_link import FIRST_PAUSE_S, BusLink
from runner.node_clock import TIMEOUT_S, BusClock, UdpClock
from runner.node_resend import write_resend
from runner.remote_numbers import Numbers
from session.recorder import Recorder
from session.records import EXCHANGE_DTYPE

if TYPE_CHECKING:
    from runner.remote_orders import NodeOrders

BROKER = "/broker"  # no topic: what the link says of itself
INBOX_LENGTH = 1024  # messages; what does not fit is asked for again
EXCHANGE_INTERVAL_S = 1.0
AWAY = (None, "offline", "ended", "failed")
OVER = ("ended", "ready", "failed")
ALL_TOLD = (*OVER, "tracking")  # all headers
ASK_AGAIN_S = 3.0  # at the end, before a question that may be lost is put again

Seen = Callable[[int, int], None]
"""Told how many frames a node has, and how many were lost before them; must return at once."""


def _see_nothing(_frames: int, _dropped: int) -> None:
    """Take no notice."""


@dataclass(slots=True)
class RemoteCounters:
    """What came from a node."""

    messages: int = 0
    headers: int = 0
    tracks: int = 0
    again: int = 0  # came twice
    out_of_turn: int = 0
    asked: int = 0
    missing: int = 0
    unreadable: int = 0
    overrun: int = 0
    unanswered: int = 0  # clock exchanges


class RemoteCamera:
    """Records what a camera node says. A context manager that lives as long as a run.

    Parameters
    ----------
    mine
        Broker and names of this run.
    node, session
        Names in the node's own topics.
    recorder
        Open.
    now_ns
        Host clock of the run.
    udp_host
        The node's computer, to ask its clock over UDP; empty to ask over MQTT alone.
    timeout_s
        For an exchange with the node's clock.
    first_pause_s
        Before the first attempt to come back to a broker.

    Attributes
    ----------
    seen
        Called with each message of headers.
    orders
        Told the answers to orders; None where none are given.
    """

    def __init__(
        self,
        mine: BusAddress,
        *,
        node: str,
        session: str = "cameras",
        recorder: Recorder,
        now_ns: NowNs,
        udp_host: str = "",
        timeout_s: float = TIMEOUT_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self.node = node
        self.seen: Seen = _see_nothing
        self.prefix = replace(mine, node=node, session=session).prefix
        self._recorder = recorder
        self._now_ns = now_ns
        self._udp_host = udp_host
        self._timeout_s = timeout_s
        # A name of its own, so that our last will is not taken for the node's.
        self.link = BusLink(
            replace(mine, node=f"{mine.node}-{node}"),
            topics=(
                *(f"{self.prefix}/{t}" for t in ("status", "frames", "faults", "clock", "reply")),
                f"{self.prefix}/tracks/+",
                f"{self.prefix}/clock/answer/+",
            ),
            heard=self._hear,
            turned=self._turn,
            first_pause_s=first_pause_s,
        )
        self._bus_clock = BusClock(self.link, self.prefix, now_ns=now_ns, timeout_s=self._timeout_s)
        self.orders: NodeOrders | None = None
        self._udp_clock: UdpClock | None = None
        self._inbox: asyncio.Queue[tuple[str, bytes, int]] = asyncio.Queue(INBOX_LENGTH)
        self._numbers = Numbers()
        self._tasks: list[asyncio.Task[None]] = []
        self._away_ns: int | None = None
        self._news = asyncio.Event()
        self.status: dict[str, Any] = {}
        self.clock_path = ""
        self.counters = RemoteCounters()

    async def __aenter__(self) -> Self:
        """Begin to listen; neither broker nor node need be there."""
        await self.link.__aenter__()
        self._tasks = [
            asyncio.create_task(self._record(), name="runner.remote_record"),
            asyncio.create_task(self._keep_time(), name="runner.remote_clock"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._udp_clock is not None:
            self._udp_clock.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self.link.say(ENDED)
        await self.link.__aexit__(kind, error, trace)

    async def news(self) -> None:
        """Return when something has come from the node, or its clock was asked."""
        self._news.clear()
        await self._news.wait()

    def count_from_here(self) -> None:
        """Take what the node says next for the first that is wanted of it."""
        self._numbers = Numbers(epoch=str(self.status["epoch"]), next=int(self.status["next"]))

    async def complete(self, timeout_s: float) -> bool:
        """Wait until the node has ended its recording and all of it is here.

        Returns
        -------
        bool
            False where it did not come in time; the session's events say so too.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_complete():
                    await self._news_or_ask()
        except TimeoutError:
            lacking = max(int(self.status.get("next", 0)) - self._numbers.next, 0)
            state = self.status.get("state")
            text = f"the last messages of {self.node} did not come; its own file has the frames"
            if state in ALL_TOLD and not lacking:
                text = f"the tracks of {self.node} did not come in time; its own file has them"
            data = {"state": state, "missing": lacking}
            await self._recorder.event(self._now_ns(), "gap", self.node, text, data)
            return False
        return True

    async def _news_or_ask(self) -> None:
        """Wait for news; when none come, what was asked for or sent may be lost."""
        try:
            async with asyncio.timeout(ASK_AGAIN_S):
                await self.news()
        except TimeoutError:
            if self._lacks_last(self.status):
                await self._ask_again(self._numbers.epoch, self._numbers.next)

    def _lacks_last(self, body: dict[str, Any]) -> bool:
        """Tell whether messages lack after which no other comes."""
        # While it films, the next message tells; after the last one, only this does.
        return body.get("state") in ALL_TOLD and self._numbers.lacks(body) is not None

    def _is_complete(self) -> bool:
        return (
            self.status.get("state") in OVER
            and self._inbox.empty()
            and self._numbers.lacks(self.status) is None
        )

    # --- what comes -------------------------------------------------------------------

    def _hear(self, message: BusMessage) -> None:
        received_ns = self._now_ns()  # first of all
        if message.topic == self._bus_clock.answer_topic:
            self._bus_clock.take(message)
            return
        topic = message.topic.removeprefix(f"{self.prefix}/")
        if topic == "reply":
            if self.orders is not None:
                self.orders.take(message.payload)
            return
        if topic.startswith("clock/"):
            return  # the answer to somebody else
        try:
            self._inbox.put_nowait((topic, message.payload, received_ns))
        except asyncio.QueueFull:
            self.counters.overrun += 1

    def _turn(self) -> None:
        """Note that the broker has come or gone, in the order of what is heard."""
        with suppress(asyncio.QueueFull):
            self._inbox.put_nowait(
                (BROKER, b"back" if self.link.is_up else b"away", self._now_ns())
            )

    async def _note_broker(self, state: str, t_ns: int) -> None:
        broker = self.link.address.broker
        text = f"the broker at {broker} is {'there' if state == 'back' else 'away'}"
        data: dict[str, object] = {"state": state}
        if state == "away":
            self._away_ns = t_ns
        elif self._away_ns is not None:
            data["away_s"] = (t_ns - self._away_ns) / 1e9
        await self._recorder.event(t_ns, "broker", self.node, text, data)

    async def _record(self) -> None:
        while True:
            topic, payload, received_ns = await self._inbox.get()
            if topic == BROKER:
                await self._note_broker(payload.decode(), received_ns)
                self._news.set()
                continue
            try:
                body = json.loads(payload)
                if not isinstance(body, dict):
                    raise TypeError  # noqa: TRY301 - the same as any other nonsense
                if topic == "status":
                    await self._take_status(body, received_ns)
                else:
                    await self._take(topic, body, received_ns)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                self.counters.unreadable += 1
            self._news.set()

    async def _take_status(self, body: dict[str, Any], received_ns: int) -> None:
        before, self.status = self.status.get("state"), self.status | body
        if body.get("state") != before:
            await self._recorder.event(
                received_ns, "node", self.node, f"{self.node} is {body.get('state')}", body
            )
        if self._lacks_last(body):
            await self._ask_again(self._numbers.epoch, self._numbers.next)

    async def _take(self, topic: str, body: dict[str, Any], received_ns: int) -> None:
        epoch, number = str(body["epoch"]), int(body["number"])
        if epoch != self._numbers.epoch:
            await self._begin_row(epoch, number, received_ns)
        await self._skip_lost(int(body["oldest"]), received_ns)
        if number < self._numbers.next:
            self.counters.again += 1
            return
        if number > self._numbers.next:
            self.counters.out_of_turn += 1
            if self._numbers.may_ask():
                await self._ask_again(epoch, self._numbers.next)
            return
        self._numbers.next += 1
        self.counters.messages += 1
        await self._store(topic, body, received_ns)

    async def _begin_row(self, epoch: str, number: int, received_ns: int) -> None:
        """Take the numbers of a node that is new to us, or whose spool is."""
        if self._numbers.epoch:
            text = f"{self.node} counts anew; what it said before and did not come is not known"
            await self._recorder.event(received_ns, "gap", self.node, text, {"epoch": epoch})
        self._numbers = Numbers(epoch=epoch, next=number)

    async def _skip_lost(self, oldest: int, received_ns: int) -> None:
        """Note what the node's spool no longer has."""
        first, missing = self._numbers.next, oldest - self._numbers.next
        if missing <= 0:
            return
        self._numbers.next = oldest
        self.counters.missing += missing
        await self._recorder.event(
            received_ns,
            "gap",
            self.node,
            f"{missing} messages of {self.node} are lost; the node's own file has the frames",
            {"epoch": self._numbers.epoch, "first": first, "missing": missing},
        )

    async def _ask_again(self, epoch: str, first: int) -> None:
        self.counters.asked += 1
        with suppress(BusError):  # a link that is away brings the next message after it is back
            await self.link.publish_to(f"{self.prefix}/resend", write_resend(epoch, first))

    async def _store(self, topic: str, body: dict[str, Any], received_ns: int) -> None:
        if topic == "clock":
            rows = _rows(body["exchanges"])
            await self._recorder.exchanges(f"{self.node}.{body['clock']}", rows)
            return
        if topic == "frames":
            self.counters.headers += len(body["index"])
            kind, text = "remote_frames", f"{len(body['index'])} frames of {self.node}"
            self.seen(len(body["index"]), sum(body.get("dropped_before", ())))
        elif topic == "faults":
            kind, text = "frame_fault", str(body["reason"])
        else:
            self.counters.tracks += 1
            kind, text = "remote_track", f"{topic.removeprefix('tracks/')} by {self.node}"
        await self._recorder.event(received_ns, kind, self.node, text, {"topic": topic} | body)

    # --- time -------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Compare the node's clock with ours, over UDP or, where that is blocked, the bus."""
        while True:
            await self.link.connected()
            while self.status.get("state") in AWAY:  # nobody is there to answer
                await self.news()
            try:
                path, answer = await self._exchange()
            except CameraLost:
                self.counters.unanswered += 1
            else:
                stamps = [[answer.t0_ns, answer.t1_ns, answer.t2_ns, answer.t3_ns]]
                await self._recorder.exchanges(self.node, _rows(stamps))
                if path != self.clock_path:
                    self.clock_path = path
                    text = f"the clock of {self.node} is asked over {path}"
                    await self._recorder.event(
                        answer.t3_ns, "clock_path", self.node, text, {"path": path}
                    )
            self._news.set()
            await asyncio.sleep(EXCHANGE_INTERVAL_S)

    async def _exchange(self) -> tuple[str, ClockExchange]:
        port = self.status.get("clock_port")
        if self._udp_host and isinstance(port, int) and port > 0:
            if self._udp_clock is None:
                self._udp_clock = await UdpClock.connect(
                    self._udp_host, port, now_ns=self._now_ns, timeout_s=self._timeout_s
                )
            try:
                return "udp", await self._udp_clock.exchange()
            except CameraLost:
                self._udp_clock.close()  # the node may listen elsewhere when it is back
                self._udp_clock = None
        return "mqtt", await self._bus_clock.exchange()


def _rows(stamps: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.void]]:
    rows = np.zeros(len(stamps), EXCHANGE_DTYPE)
    for row, (t0_ns, t1_ns, t2_ns, t3_ns) in zip(rows, stamps, strict=True):
        row["t0_ns"], row["t1_ns"], row["t2_ns"], row["t3_ns"] = t0_ns, t1_ns, t2_ns, t3_ns
    return rows
