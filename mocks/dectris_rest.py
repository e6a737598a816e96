"""The simulated detector's SIMPLON interface: parameters, commands, and HTTP around them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

API = "1.8.0"
MAX_BODY = 1024 * 1024

Command = Callable[[], Awaitable[dict[str, Any]]]


class Refusal(Exception):
    """A request that the detector does not fulfil; says the HTTP status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Parameter:
    """One parameter, as the interface tells of it."""

    value: Any
    writable: bool = True
    lowest: float | None = None
    highest: float | None = None
    allowed: list[str] | None = None

    def record(self) -> dict[str, Any]:
        """Return what a GET gives."""
        kinds = {str: "string", bool: "bool", int: "uint", float: "float"}
        found: dict[str, Any] = {
            "value": self.value,
            "value_type": kinds.get(type(self.value), "string"),
            "access_mode": "rw" if self.writable else "r",
        }
        limits = {"min": self.lowest, "max": self.highest, "allowed_values": self.allowed}
        return found | {name: value for name, value in limits.items() if value is not None}

    def set(self, value: Any) -> None:
        """Take a new value, or refuse."""
        if not self.writable:
            raise Refusal(403, "parameter is read only")
        if self.allowed is not None and value not in self.allowed:
            raise Refusal(400, f"value must be one of {self.allowed}")
        if isinstance(self.value, int | float):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise Refusal(400, "value must be a number")
            too_low = self.lowest is not None and value < self.lowest
            if too_low or (self.highest is not None and value > self.highest):
                raise Refusal(400, f"value must be within {self.lowest} and {self.highest}")
        self.value = value


@dataclass(slots=True, kw_only=True)
class Simplon:
    """Parameters by module, task and name, and the detector's commands.

    Parameters
    ----------
    refused
        Names of parameters and commands that are refused, with what the detector says.
    asked
        Every request but the readings, in their order.
    """

    parameters: dict[str, Parameter]
    commands: dict[str, Command]
    api: str = API
    refused: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    on_set: Callable[[str], list[str]] = lambda name: [name]

    async def answer(self, method: str, path: str, body: bytes) -> Any:
        """Return what goes into the body of the answer, or refuse."""
        parts = path.strip("/").split("/")
        if parts[1:] == ["api", "version"]:
            return Parameter(value=self.api, writable=False).record()
        if len(parts) < 5 or parts[1:3] != ["api", self.api]:
            raise Refusal(404, "no such path")
        name = "/".join([parts[0], *parts[3:]])
        if method == "PUT":
            self.asked.append(parts[-1])
        if (why := self.refused.get(parts[-1])) is not None:
            raise Refusal(400, why)
        if parts[:1] + parts[3:4] == ["detector", "command"]:
            if method != "PUT" or parts[4] not in self.commands:
                raise Refusal(404, "no such command")
            return await self.commands[parts[4]]()
        if name not in self.parameters:
            raise Refusal(404, "no such parameter")
        if method != "PUT":
            return self.parameters[name].record()
        self.parameters[name].set(_value(body))
        return self.on_set(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request, then hang up, as the request asked."""
        with suppress(asyncio.IncompleteReadError, ValueError):
            method, path, body = await _request(reader)
            try:
                status, answer = 200, await self.answer(method, path, body)
            except Refusal as refusal:
                status, answer = refusal.status, str(refusal)
            content = json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
                + content
            )
            await writer.drain()


def _value(body: bytes) -> Any:
    try:
        return json.loads(body)["value"]
    except (ValueError, TypeError, KeyError):
        raise Refusal(400, "the body must be a JSON object with a value") from None


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    method, path, _ = (await reader.readline()).decode("ascii", "replace").split()
    length = 0
    while line := (await reader.readline()).strip():
        name, _, value = line.decode("ascii", "replace").partition(":")
        if name.lower() == "content-length":
            length = min(int(value), MAX_BODY)
    return method, path, await reader.readexactly(length)
