"""What a node tells others: first to its disk, then to the broker, in order and again if asked."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from runner.bus_address import BusError, PublishRefused
from runner.bus_link import BusLink
from runner.node_spool import Spool, Spooled, SpoolError

PENDING = 4096  # messages on their way to the disk
READ_TOGETHER = 64
LINGER_S = 5.0


@dataclass(slots=True)
class OutletCounters:
    """What became of the messages, beside what bus and spool count."""

    dropped: int = 0  # as the disk was too slow or did not take them
    resends: int = 0


class Outlet:
    """Publishes what is on a spool, and goes on where it was after any interruption.

    Parameters
    ----------
    link
        To the broker.
    spool
        Open.
    """

    def __init__(self, link: BusLink, spool: Spool) -> None:
        self._link = link
        self._spool = spool
        self._disk = asyncio.Lock()
        self._pending: list[tuple[str, Mapping[str, object]]] = []
        self._waiting = asyncio.Event()
        self._more = asyncio.Event()
        self._on_disk, self._still = asyncio.Event(), asyncio.Event()
        self._on_disk.set()
        self._still.set()  # nothing is left to keep or to publish
        self._cursor = spool.next  # what is older is sent again when someone misses it
        self.counters = OutletCounters()
        self.trouble = ""

    def put(self, topic: str, message: Mapping[str, object]) -> None:
        """Take a message; never waits."""
        if len(self._pending) >= PENDING:
            self._pending.pop(0)
            self.counters.dropped += 1
        self._pending.append((topic, message))
        self._on_disk.clear()
        self._still.clear()
        self._waiting.set()

    def resend(self, epoch: str, first: int) -> None:
        """Go back to a number, for someone who missed what came since."""
        if epoch == self._spool.epoch and first < self._cursor:
            self.counters.resends += 1
            self._cursor = max(first, self._spool.oldest)
            self._still.clear()
            self._more.set()

    async def run(self) -> None:
        """Keep and publish; never returns by itself."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="runner.node_keep")
            group.create_task(self._publish(), name="runner.node_publish")

    async def settle(self, timeout_s: float = LINGER_S) -> bool:
        """Wait until all is published, or for a while; return whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._still.wait()
        except TimeoutError:
            return False
        return True

    async def kept(self) -> None:
        """Return when all that was put is on the disk, or given up."""
        await self._on_disk.wait()

    async def _keep(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            async with self._disk:
                batch, self._pending = self._pending, []
                try:
                    await asyncio.to_thread(self._spool.append, batch)
                except SpoolError as error:
                    self.counters.dropped += len(batch)
                    self.trouble = str(error)
                if not self._pending:
                    self._on_disk.set()
            self._more.set()

    async def _read(self) -> list[Spooled]:
        async with self._disk:
            try:
                return await asyncio.to_thread(self._spool.read, self._cursor, READ_TOGETHER)
            except SpoolError as error:
                self.trouble = str(error)
                return []

    async def _publish(self) -> None:
        while True:
            await self._link.connected()
            self._more.clear()
            batch = await self._read()
            if not batch:
                if self._on_disk.is_set():
                    self._still.set()
                await self._more.wait()
                continue
            self._cursor = batch[0].number  # what was asked for may be gone
            for spooled in batch:
                if self._cursor != spooled.number:
                    break  # someone asked for older ones meanwhile
                message = {
                    "epoch": self._spool.epoch,
                    "number": spooled.number,
                    "oldest": self._spool.oldest,
                    **spooled.message,
                }
                try:
                    await self._link.publish(spooled.topic, message)
                except PublishRefused as error:
                    self.trouble = str(error)  # it would be refused again
                except BusError:
                    break
                if self._cursor == spooled.number:
                    self._cursor += 1
