"""Shows a run to others over MQTT 5; the only door to aiomqtt.

The bus shows and never steers: no command is read from it, and losing the broker loses
the display only. Messages wait in a bounded queue that drops the oldest.
"""

import asyncio
import json
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

QUEUE_LENGTH = 256
CONNECT_TIMEOUT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
LINGER_S = 2.0
OFFLINE = "offline"


class BusError(Exception):
    """The broker cannot be reached, or refused something."""


class PublishRefused(BusError):
    """The broker took a message and did not accept it."""


class _StrictClient(aiomqtt.Client):
    """aiomqtt's client, with the broker's refusals heard.

    A refused publish comes back as an acknowledgement with a reason code, which aiomqtt
    2.5 drops. Codes are kept by message id, so that two publishes cannot swap blame.
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
            self.last_id = info.mid
            return info

        paho.publish = publish


@dataclass(frozen=True, slots=True, kw_only=True)
class BusAddress:
    """Where a run is shown.

    Parameters
    ----------
    host, port
        Of the broker.
    lab, session, node
        Parts of every topic: ``lamella/<lab>/<session>/<node>/...``.
    """

    host: str
    port: int
    lab: str
    session: str
    node: str = "runner"

    @property
    def prefix(self) -> str:
        """Return what every topic begins with."""
        parts = (self.lab, self.session, self.node)
        return "lamella/" + "/".join(part.translate(_UNSAFE) for part in parts)


# A wildcard or a slash in a name would change the topic.
_UNSAFE = str.maketrans({"/": "_", "+": "_", "#": "_", "\0": "_"})


class Bus:
    """One connection to a broker."""

    def __init__(self, address: BusAddress) -> None:
        self._address = address
        self._publishing = asyncio.Lock()
        self._client = _StrictClient(
            address.host,
            address.port,
            protocol=ProtocolVersion.V5,
            timeout=CONNECT_TIMEOUT_S,
            will=aiomqtt.Will(
                f"{address.prefix}/status", json.dumps({"state": OFFLINE}), qos=1, retain=True
            ),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises
        ------
        BusError
            The broker cannot be reached or refuses us.
        """
        try:
            await self._client.__aenter__()
        except aiomqtt.MqttError as error:
            raise BusError(
                f"the broker at {self._address.host}:{self._address.port} cannot be reached: "
                f"{error}"
            ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""
        with suppress(aiomqtt.MqttError):
            await self._client.__aexit__(kind, error, trace)

    async def publish(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Publish one message at QoS 1.

        Raises
        ------
        PublishRefused
            The broker does not accept it.
        BusError
            The connection is gone.
        """
        async with self._publishing:
            try:
                await self._client.publish(
                    f"{self._address.prefix}/{topic}",
                    json.dumps(message, allow_nan=False, default=str),
                    qos=1,
                    retain=retain,
                )
            except aiomqtt.MqttError as error:
                raise BusError(f"the broker is gone: {error}") from error
            refused = self._client.refusals.pop(self._client.last_id, None)
        if refused is not None:
            raise PublishRefused(f"{self._address.prefix}/{topic}: {refused}")


@dataclass(slots=True)
class BusCounters:
    """What became of the messages."""

    published: int = 0
    dropped: int = 0
    refused: int = 0
    connects: int = 0


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
    """

    def __init__(
        self,
        address: BusAddress,
        *,
        queue_length: int = QUEUE_LENGTH,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._address = address
        self._queue: deque[tuple[str, object, bool]] = deque()
        self._length = queue_length
        self._first_pause_s = first_pause_s
        self._waiting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.counters = BusCounters()

    async def __aenter__(self) -> Self:
        """Begin; the broker need not be there."""
        self._task = asyncio.create_task(self._run(), name="runner.bus")
        self.status("running")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say that it is over, wait a moment for that to leave, and end."""
        self.status("ended")
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._queue and self.counters.connects:  # noqa: ASYNC110 - a moment
                    await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def status(self, state: str) -> None:
        """Show a state; it is retained, and the broker replaces it when we vanish."""
        self.put("status", {"state": state}, retain=True)

    def put(self, topic: str, message: object, *, retain: bool = False) -> None:
        """Queue a message; never waits, and drops the oldest when there is no room."""
        if len(self._queue) >= self._length:
            self._queue.popleft()
            self.counters.dropped += 1
        self._queue.append((topic, message, retain))
        self._waiting.set()

    async def _run(self) -> None:
        pause_s = self._first_pause_s
        while True:
            try:
                async with Bus(self._address) as bus:
                    self.counters.connects += 1
                    pause_s = self._first_pause_s
                    await self._drain(bus)
            except BusError:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _drain(self, bus: Bus) -> None:
        while True:
            while self._queue:
                topic, message, retain = self._queue[0]
                try:
                    await bus.publish(topic, message, retain=retain)
                    self.counters.published += 1
                except PublishRefused:
                    self.counters.refused += 1
                # It may have been dropped for a newer one while we waited.
                if self._queue and self._queue[0] == (topic, message, retain):
                    self._queue.popleft()
            self._waiting.clear()
            await self._waiting.wait()
