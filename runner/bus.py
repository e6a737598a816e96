"""Shows a run to others over MQTT, and hears signed commands; the only door to aiomqtt.

Losing the broker loses the display only: nothing here is waited for by whoever guards a
cell. Messages wait in a bounded queue that drops the oldest.
"""

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from runner.bus_address import BusAddress, BusCounters, BusError, BusMessage, PublishRefused
from runner.bus_commands import CommandDesk, CommandGate, Obey
from runner.bus_security import BadCredentials

__all__ = [
    "Bus",
    "BusAddress",
    "BusCounters",
    "BusError",
    "BusFeed",
    "BusLink",
    "BusMessage",
    "PublishRefused",
    "open_desk",
]

QUEUE_LENGTH = 256
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
LINGER_S = 2.0
GOODBYE_S = 1.0
INBOX_LENGTH = 1024  # messages; whoever is flooded hears no more than these
OFFLINE, RUNNING, ENDED = "offline", "running", "ended"


class _StrictClient(aiomqtt.Client):
    """aiomqtt's client, with the broker's refusals heard.

    A refused publish comes back as an acknowledgement with a reason code, which aiomqtt
    2.5 drops. Codes are kept by message id, so that two publishes cannot swap blame. A
    broker that hangs up instead of answering is heard at once, too.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.refusals: dict[int, str] = {}
        self.last_id = 0
        paho: Any = self._client
        heard = paho.on_publish

        def on_publish(
            client: Any,
            userdata: Any,
            mid: int,
            reason: ReasonCode,
            properties: Properties | None,
        ) -> None:
            if reason.is_failure:
                self.refusals[mid] = str(reason)
            if heard is not None:
                heard(client, userdata, mid, reason, properties)

        paho.on_publish = on_publish
        send = paho.publish

        def publish(*args: Any, **kwargs: Any) -> Any:
            info = send(*args, **kwargs)
            if kwargs.get("qos", args[2] if len(args) > 2 else 0):  # the others are not answered
                self.last_id = info.mid
            return info

        paho.publish = publish
        gone = paho.on_disconnect

        def on_disconnect(client: Any, userdata: Any, flags: Any, reason: Any, more: Any) -> None:
            gone(client, userdata, flags, reason, more)
            if not self._connected.done():  # otherwise the answer would be waited for in vain
                self._connected.set_exception(aiomqtt.MqttError(f"it hung up: {reason}"))

        paho.on_disconnect = on_disconnect


class Bus:
    """One connection to a broker."""

    def __init__(self, address: BusAddress) -> None:
        self._address = address
        self._publishing = asyncio.Lock()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises
        ------
        BusError
            The broker cannot be reached or refuses us, or our secrets cannot be used.
        """
        security, broker = self._address.security, self._address.broker
        try:
            security.refuse_unfit(self._address.host)
            password = await asyncio.to_thread(security.password)
            tls_context = await asyncio.to_thread(security.tls_context)
            self._client = self._make_client(password, tls_context)
            await self._client.__aenter__()
        except BadCredentials as error:
            raise BusError(f"the broker at {broker} is not asked: {error}") from error
        except aiomqtt.MqttError as error:
            self._cut()
            raise BusError(f"the broker at {broker} cannot be reached: {error}") from error
        return self

    def _make_client(self, password: str | None, tls_context: Any) -> _StrictClient:
        address = self._address
        return _StrictClient(
            address.host,
            address.port,
            protocol=ProtocolVersion.V5 if address.version == 5 else ProtocolVersion.V311,
            username=address.security.username or None,
            password=password,
            tls_context=tls_context,
            timeout=address.answer_s,
            keepalive=address.keep_alive_s,
            max_queued_incoming_messages=INBOX_LENGTH,
            will=aiomqtt.Will(
                f"{address.prefix}/status", json.dumps({"state": OFFLINE}), qos=1, retain=True
            ),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect; from a broker that does not answer, without its goodbye."""
        with suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._client.__aexit__(kind, error, trace)
        self._cut()

    def _cut(self) -> None:
        """Close a socket that is still open, as a cable would that is cut."""
        if self._client is not None and (wire := self._client._client.socket()) is not None:  # noqa: SLF001
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    async def publish(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Publish one message at QoS 1, under our own prefix.

        Raises
        ------
        PublishRefused
            The broker does not accept it.
        BusError
            The connection is gone.
        """
        await self.publish_to(f"{self._address.prefix}/{topic}", message, retain=retain)

    async def publish_to(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Publish one message at QoS 1 under a whole topic, such as that of another's command."""
        async with self._publishing:
            try:
                await self._client.publish(topic, _dump(message), qos=1, retain=retain)
            except aiomqtt.MqttError as error:
                self._cut()
                raise BusError(f"the broker is gone: {error}") from error
            refused = self._client.refusals.pop(self._client.last_id, None)
        if refused is not None:
            raise PublishRefused(f"{topic}: {refused}")

    async def publish_at_once(self, topic: str, message: object) -> None:
        """Publish at QoS 0 under a whole topic: for stamps, which are worth nothing late."""
        try:
            await self._client.publish(topic, _dump(message), qos=0)
        except aiomqtt.MqttError as error:
            raise BusError(f"the broker is gone: {error}") from error

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for messages; a broker may grant what its rules then hold back.

        Raises
        ------
        BusError
            The broker refuses, or is gone.
        """
        for topic in topics:
            how: dict[str, Any] = {"qos": 1}
            if self._address.version == 5:
                # Otherwise the broker hides that a message was sent to be kept.
                how = {"options": SubscribeOptions(qos=1, retainAsPublished=True)}
            try:
                codes = await self._client.subscribe(topic, **how)
            except aiomqtt.MqttError as error:
                raise BusError(f"the broker is gone: {error}") from error
            if any(getattr(code, "value", code) >= 128 for code in codes):
                raise BusError(f"the broker does not let us hear {topic}")

    async def messages(self) -> AsyncIterator[BusMessage]:
        """Yield what comes, until the connection is gone.

        Raises
        ------
        BusError
            The connection is gone.
        """
        try:
            async for message in self._client.messages:
                payload = message.payload if isinstance(message.payload, bytes) else b""
                yield BusMessage(str(message.topic), payload, message.retain)
        except aiomqtt.MqttError as error:
            raise BusError(f"the broker is gone: {error}") from error


def _dump(message: object) -> str:
    return json.dumps(message, allow_nan=False, default=str)


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


async def open_desk(
    address: BusAddress, obey: Obey, wall_ns: Callable[[], int] = time.time_ns
) -> CommandDesk | None:
    """Return what takes an address's commands; None where it has no key for them.

    Raises
    ------
    BusError
        The key cannot be used, or the protocol hides which messages were kept.
    """
    try:
        key = await asyncio.to_thread(address.security.command_key)
    except BadCredentials as error:
        raise BusError(str(error)) from error
    if key is None:
        return None
    if address.version != 5:
        raise BusError("commands need version 5 of the protocol; leave command_key_file out")
    gate = CommandGate(key, f"{address.prefix}/command", wall_ns=wall_ns)
    return CommandDesk(gate, obey)


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
