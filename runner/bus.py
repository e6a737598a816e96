"""One connection to an MQTT broker; the only door to aiomqtt."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import aiomqtt
from aiomqtt import ProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from runner.bus_address import (
    OFFLINE,
    BusAddress,
    BusError,
    BusMessage,
    PublishRefused,
)
from runner.bus_security import BadCredentials

GOODBYE_S = 1.0
INBOX_LENGTH = 1024  # messages; whoever is flooded hears no more than these


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
