"""Shows a run to others over MQTT, and hears signed commands.

Losing the broker loses the display only: nothing here is waited for by whoever guards a
cell. Messages wait in a bounded queue that drops the oldest.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from runner.bus_address import (
    ENDED,
    BusAddress,
    BusCounters,
    BusError,
    BusMessage,
    PublishRefused,
)
from runner.bus_commands import CommandDesk, Obey, open_desk
from runner.bus_link import FIRST_PAUSE_S, BusLink

QUEUE_LENGTH = 256
LINGER_S = 2.0


class BusFeed:
    """Publishes in the background, and comes back by itself when the broker does.

    Parameters
    ----------
    address
        Where to.
    queue_length
        Messages kept while the broker is away; the oldest are dropped.
    first_pause_s
        Before the first attempt to come back; it doubles up to ten seconds.
    linger_s
        Longest wait at the end for what is still in the queue.
    obey
        Carries out commands that are signed with the key of ``address.security``. Each is
        answered under ``reply``, refused ones with the reason.
    """

    def __init__(
        self,
        address: BusAddress,
        *,
        queue_length: int = QUEUE_LENGTH,
        first_pause_s: float = FIRST_PAUSE_S,
        linger_s: float = LINGER_S,
        obey: Obey | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._address = address
        self._queue: deque[tuple[str, object, bool]] = deque()
        self._length = queue_length
        self._linger_s = linger_s
        self._waiting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._obey = obey
        self._wall_ns = wall_ns
        self._desk: CommandDesk | None = None
        self.counters = BusCounters()
        self._first_pause_s = first_pause_s
        self._link: BusLink | None = None

    async def __aenter__(self) -> Self:
        """Begin; the broker need not be there.

        Raises
        ------
        BusError
            The key of the commands cannot be used.
        """
        topic = f"{self._address.prefix}/command"
        if self._obey is not None:
            self._desk = await open_desk(self._address, self._obey, self._wall_ns)
        self._link = BusLink(
            self._address,
            topics=() if self._desk is None else (topic,),
            heard=self._hear,
            first_pause_s=self._first_pause_s,
            counters=self.counters,
        )
        await self._link.__aenter__()
        self._task = asyncio.create_task(self._drain(self._link), name="runner.bus_feed")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say that it is over, wait a moment for that to leave, and end."""
        if self._link is None or self._task is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                while self._queue and self._link.is_up:  # noqa: ASYNC110 - a moment
                    await asyncio.sleep(0.01)
                await self._link.say(ENDED)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._link.__aexit__(kind, error, trace)

    def status(self, state: str) -> None:
        """Show a state; it is retained, and the broker replaces it when we vanish."""
        if self._link is not None:
            self._link.remember(state)
        self.put("status", {"state": state}, retain=True)

    def put(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Queue a message; never waits, and drops the oldest when there is no room."""
        if len(self._queue) >= self._length:
            self._queue.popleft()
            self.counters.dropped += 1
        self._queue.append((topic, message, retain))
        self._waiting.set()

    async def _drain(self, link: BusLink) -> None:
        while True:
            await link.connected()
            while self._queue:
                topic, message, retain = self._queue[0]
                try:
                    await link.publish(topic, message, retain=retain)
                except PublishRefused:
                    pass  # it is counted, and would be refused again
                except BusError:
                    break
                # It may have been dropped for a newer one while we waited.
                if self._queue and self._queue[0] == (topic, message, retain):
                    self._queue.popleft()
            else:
                self._waiting.clear()
                await self._waiting.wait()

    def _hear(self, message: BusMessage) -> None:
        if self._desk is not None:
            done, reply = self._desk.take(message.payload, retained=message.retained)
            self.counters.commands += done
            self.counters.commands_refused += not done
            self.put("reply", reply)
