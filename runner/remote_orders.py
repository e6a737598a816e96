"""Orders to a camera node: signed, and each with its answer waited for."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from cameras.errors import CameraLost
from runner.bus_address import BusError
from runner.bus_commands import CommandSigner
from runner.bus_link import BusLink

ANSWER_S = 5.0


class NodeOrders:
    """Orders something of one node.

    Parameters
    ----------
    link
        Hears ``answer_topic`` and hands its messages to `take`.
    prefix
        Of the node's topics.
    key
        Shared with the node.
    answer_s
        Longest wait for an answer.
    """

    def __init__(
        self,
        link: BusLink,
        prefix: str,
        key: bytes,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._link = link
        self._topic = f"{prefix}/command"
        self._answer_s = answer_s
        # One name for all runs of this computer: a node remembers so many and no more.
        self._signer = CommandSigner(
            key, self._topic, sender=f"run@{socket.gethostname()}", wall_ns=wall_ns
        )
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self.answer_topic = f"{prefix}/reply"

    async def order(self, word: str, arguments: Mapping[str, object] | None = None) -> str:
        """Have an order carried out; return why it was not, or "" where it was.

        Raises
        ------
        CameraLost
            Nobody answers; the order may have been carried out all the same.
        """
        message = self._signer.write(word, arguments, life_s=self._answer_s)
        number = str(json.loads(message["command"])["id"])
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(self._answer_s):
                await self._link.publish_to(self._topic, message)
                return await answer
        except (TimeoutError, BusError) as error:
            why = str(error) or f"no answer in {self._answer_s:g} s"
            raise CameraLost(f"the order {word!r} on {self._topic}: {why}") from error
        finally:
            self._waiting.pop(number, None)

    def take(self, payload: bytes) -> None:
        """Take an answer; one to somebody else is left."""
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            body = json.loads(payload)
            waiting = self._waiting.get(str(body["id"]))
            if waiting is not None and not waiting.done():
                waiting.set_result("" if body["done"] is True else str(body["reason"]))
