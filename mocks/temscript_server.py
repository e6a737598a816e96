"""A simulated microscope behind temscript's protocol, for programs that ask it over HTTP."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

from cameras.open_port import open_port

NowNs = Callable[[], int]

READ_ONLY = ("version", "family", "screen_current", "indicated_magnification", "stage_limits")


class TemscriptServer:
    """Serves what a microscope is set to, and remembers when its blanker really moved.

    Parameters
    ----------
    now_ns
        The true host time.
    latency_s
        From the arrival of a command to the movement of the blanker, and again to the
        answer.
    move
        Told of each command to the blanker, as that of a simulated world; None for nobody.
    """

    def __init__(
        self,
        *,
        now_ns: NowNs,
        latency_s: float = 0.0,
        move: Callable[[bool], None] | None = None,
    ) -> None:
        self._now_ns = now_ns
        self._move = move
        self.latency_s = latency_s
        self.values: dict[str, Any] = {
            "version": "2.1.0",
            "family": "SIMULATED",
            "instrument_mode": "TEM",
            "indicated_magnification": 20_000.0,
            "stem_magnification": 100_000.0,
            "stage_position": {"x": 1.25e-5, "y": -3e-6, "z": 0.0, "a": 0.01, "b": -0.02},
            "screen_position": "UP",
            "screen_current": 1.5e-9,
            "beam_blanked": False,
        }
        self.refused: set[str] = set()
        """Names to which the microscope answers with an error."""
        self.silent = False
        self.asked = 0
        self.raw_answer: bytes | None = None
        """Sent in place of any answer, where a test wants nonsense."""
        self.blanks: list[tuple[int, bool]] = []
        """True times at which the blanker moved, and to what."""
        self.port = 0
        """Where it listens."""
        self._listening = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Listen on a free port of loopback."""
        self.port = await self._listening.enter_async_context(open_port(self._serve))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and drop who is still waiting."""
        await self._listening.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split("\r\n", 1)[0].split(" ")
            body = await reader.readexactly(_length(head))
            self.asked += 1
            if self.silent:
                await asyncio.Event().wait()
            writer.write(self.raw_answer or await self._answer(method, path, body))
            await writer.drain()

    async def _answer(self, method: str, path: str, body: bytes) -> bytes:
        name = path.removeprefix("/v1/")
        if name not in self.values or (method == "PUT" and name in READ_ONLY):
            return _http(404, "Unknown endpoint")
        if name in self.refused:
            return _http(500, "Error handling request")
        if method == "GET":
            return _http(200, "OK", json.dumps(self.values[name]).encode())
        await self._set(name, json.loads(body))
        return _http(204, "No Content")

    async def _set(self, name: str, value: Any) -> None:
        if name != "beam_blanked":
            self.values[name] = value
            return
        await asyncio.sleep(self.latency_s)
        self.values[name] = bool(value)
        self.blanks.append((self._now_ns(), bool(value)))
        if self._move is not None:
            self._move(bool(value))
        await asyncio.sleep(self.latency_s)


def _length(head: str) -> int:
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.lower() == "content-length":
            return int(value)
    return 0


def _http(status: int, reason: str, body: bytes = b"") -> bytes:
    head = f"HTTP/1.0 {status} {reason}\r\nServer: simulated\r\n"
    if status == 200:
        head += f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"\r\n" + body
