"""A Thermo Fisher or FEI microscope behind temscript's server: JSON over HTTP.

``temscript-server`` runs on the microscope's PC. ``GET /v1/<name>`` answers with JSON,
``PUT /v1/<name>`` takes JSON and answers 204; 404 is a name that the server does not know,
500 a request that the microscope refused.
"""

import asyncio
import json
import math
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, ClassVar, Self

from cameras.microscope import (
    TIMEOUT_S,
    BlankCommand,
    MicroscopeLost,
    MicroscopeState,
    StagePosition,
)
from cameras.protocol import NowNs

MAX_ANSWER = 64 * 1024
OLDEST_VERSION = 2  # before that, the paths were others


class _Refused(Exception):
    """The server answered, and not with what was asked."""


class TemscriptMicroscope:
    """A microscope behind temscript's server.

    Parameters
    ----------
    host, port
        Where the server listens.
    now_ns
        Host clock.
    timeout_s
        For one request.
    """

    default_port: ClassVar[int] = 8080

    def __init__(
        self, host: str, port: int, *, now_ns: NowNs, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._name = f"temscript at {host}:{port}"
        self._host = host
        self._port = port
        self._now_ns = now_ns
        self._timeout_s = timeout_s

    @classmethod
    def at(cls, host: str, port: int = 0, *, now_ns: NowNs, timeout_s: float = TIMEOUT_S) -> Self:
        """Make one; port 0 for the default."""
        return cls(host, port or cls.default_port, now_ns=now_ns, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        """Ask for the server's version.

        Raises
        ------
        MicroscopeLost
            Nobody answers, or it is no such server, or too old a one.
        """
        try:
            version = await self._get("version")
            major = int(str(version).partition(".")[0])
        except (_Refused, ValueError) as error:
            raise MicroscopeLost(f"{self._name}: is no temscript server ({error})") from error
        if major < OLDEST_VERSION:
            raise MicroscopeLost(
                f"{self._name}: version {version} is too old; {OLDEST_VERSION}.0 or newer will do"
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the beam as it is; each request had a connection of its own."""

    async def state(self) -> MicroscopeState:
        """Read what it is set to.

        The beam current is that on the fluorescent screen, and so is known only while the
        screen is down; the specimen stands before it. The size of a pixel is not known here.

        Raises
        ------
        MicroscopeLost
            It does not answer.
        """
        stem = await self._ask("instrument_mode") == "STEM"
        magnification = _number(
            await self._ask("stem_magnification" if stem else "indicated_magnification")
        )
        stage = await self._ask("stage_position")
        blanked = await self._ask("beam_blanked")
        down = await self._ask("screen_position") == "DOWN"
        return MicroscopeState(
            # Some versions, and diffraction, answer 0 for what they do not know.
            magnification=magnification if magnification > 0 else math.nan,
            stage=_stage(stage if isinstance(stage, dict) else {}),
            beam_current_A=_number(await self._ask("screen_current")) if down else math.nan,
            beam_blanked=blanked if isinstance(blanked, bool) else None,
        )

    async def blank(self, *, on: bool) -> BlankCommand:
        """Keep the beam off the specimen, or let it on.

        Raises
        ------
        MicroscopeLost
            It does not answer or refuses: the beam may be either.
        """
        try:
            _, sent_ns, done_ns = await self._request("PUT", "beam_blanked", json.dumps(on))
        except _Refused as error:
            raise MicroscopeLost(f"{self._name}: the blanker refuses ({error})") from error
        return BlankCommand(sent_ns=sent_ns, done_ns=done_ns, blanked=on)

    # --- the wire ------------------------------------------------------------------------

    async def _ask(self, name: str) -> Any:
        """Return a value; None where this microscope does not have it."""
        with suppress(_Refused):
            return await self._get(name)
        return None

    async def _get(self, name: str) -> Any:
        text, _, _ = await self._request("GET", name)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Refused(f"{name} is answered with {text[:40]!r}") from error

    async def _request(self, method: str, name: str, body: str = "") -> tuple[bytes, int, int]:
        """Return the answer's body, and the host clock before the request and after it."""
        lines = [f"{method} /v1/{name} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += ["Accept: application/json", "Connection: close"]
        if method == "PUT":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        request = ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, limit=MAX_ANSWER
                )
                sent_ns = self._now_ns()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                status, length = _read_head(head)
                text = await _read_body(reader, status, length)
                done_ns = self._now_ns()
        except (
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as error:
            why = str(error) or f"no answer in {self._timeout_s:g} s"
            raise MicroscopeLost(f"{self._name}: {method} {name}: {why}") from error
        finally:
            if writer is not None:
                writer.close()
        if status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise _Refused(f"{name}: HTTP {status}")
        return text, sent_ns, done_ns


def _read_head(head: bytes) -> tuple[int, int | None]:
    """Return the status and the length of what follows; None where it ends with the connection.

    Raises
    ------
    OSError
        It is no HTTP.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise OSError(f"{first[:40]!r} is no HTTP")
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-length" and value.strip().isdigit():
            return int(words[1]), int(value)
    return int(words[1]), None


async def _read_body(reader: asyncio.StreamReader, status: int, length: int | None) -> bytes:
    if status == HTTPStatus.NO_CONTENT:
        return b""
    if length is None:
        return await reader.read(MAX_ANSWER)
    if length > MAX_ANSWER:
        raise OSError(f"an answer of {length} bytes")
    return await reader.readexactly(length)


def _number(value: Any) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else math.nan


def _stage(axes: dict[str, Any]) -> StagePosition:
    return StagePosition(
        x_m=_number(axes.get("x")),
        y_m=_number(axes.get("y")),
        z_m=_number(axes.get("z")),
        a_rad=_number(axes.get("a")),
        b_rad=_number(axes.get("b")),
    )
