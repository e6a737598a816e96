"""A connection to an MQTT broker that comes back by itself."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from runner.bus import Bus
from runner.bus_address import (
    RUNNING,
    BusAddress,
    BusCounters,
    BusError,
    BusMessage,
    PublishRefused,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

Heard = Callable[[BusMessage], None]
"""Called with each message that came; must return at once."""

Turned = Callable[[], None]
"""Called when the broker has come or gone; must return at once."""


class BusLink:
    """A connection that comes back by itself, and says on each return how we are.

    Parameters
    ----------
    address
        Where to.
    topics
        What is heard: whole topics, with wildcards.
    heard
        Called with what comes.
    first_pause_s
        Before the first attempt to come back; it doubles up to ten seconds.
    turned
        Called when the broker comes and goes.
    """

    def __init__(
        self,
        address: BusAddress,
        *,
        topics: Sequence[str] = (),
        heard: Heard | None = None,
        turned: Turned | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
        counters: BusCounters | None = None,
    ) -> None:
        self.address = address
        self.counters = counters or BusCounters()
        self.why_away = "it was not asked yet"
        self._topics = tuple(topics)
        self._heard = heard
        self._turned = turned
        self._first_pause_s = first_pause_s
        self._status: dict[str, object] = {"state": RUNNING}
        self._bus: Bus | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin; the broker need not be there."""
        self._task = asyncio.create_task(self._run(), name="runner.bus")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; whoever wants a last word said it before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def status(self) -> dict[str, object]:
        """Return what is said of us."""
        return dict(self._status)

    @property
    def is_up(self) -> bool:
        """True while the broker is there, as far as we know."""
        return self._up.is_set()

    async def connected(self) -> None:
        """Return when the broker is there."""
        await self._up.wait()

    async def say(self, state: str, **more: object) -> None:
        """Show a state; it is retained, and said again whenever the broker comes back."""
        self.remember(state, **more)
        await self._tell()

    async def _tell(self) -> None:
        with suppress(BusError):
            await self.publish("status", self._status, retain=True)

    def remember(self, state: str, **more: object) -> None:
        """Take a state for the next time that the broker comes back."""
        self._status = {"state": state, **more}

    async def publish(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Publish at QoS 1 under our prefix, now or not at all.

        Raises
        ------
        PublishRefused, BusError
            The broker does not accept it, or is away.
        """
        await self.publish_to(f"{self.address.prefix}/{topic}", message, retain=retain)

    async def publish_to(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Publish at QoS 1 under a whole topic, now or not at all."""
        bus = self._present()
        try:
            await bus.publish_to(topic, message, retain=retain)
        except PublishRefused:
            self.counters.refused += 1
            raise
        except BusError:
            self._lose(bus)
            raise
        self.counters.published += 1

    async def publish_at_once(self, topic: str, message: object) -> None:
        """Publish at QoS 0 under a whole topic."""
        await self._present().publish_at_once(topic, message)

    def _present(self) -> Bus:
        if self._bus is None:
            raise BusError(f"the broker at {self.address.broker} is away: {self.why_away}")
        return self._bus

    def _lose(self, bus: Bus) -> None:
        if self._bus is bus:
            self._bus = None
            was_up = self._up.is_set()
            self._up.clear()
            if was_up and self._turned is not None:
                self._turned()

    async def _run(self) -> None:
        pause_s = self._first_pause_s
        while True:
            try:
                async with Bus(self.address) as bus:
                    await bus.subscribe(self._topics)
                    self._bus = bus
                    await self._tell()
                    self._present()  # it may have gone in the meantime
                    self.counters.connects += 1
                    self._up.set()
                    if self._turned is not None:
                        self._turned()
                    pause_s = self._first_pause_s
                    try:
                        await self._listen(bus)
                    finally:
                        self._lose(bus)
            except BusError as error:
                self.why_away = str(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _listen(self, bus: Bus) -> None:
        async for message in bus.messages():
            if self._heard is not None:
                self._heard(message)
