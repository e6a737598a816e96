"""A camera behind the frame stream: frames over TCP, its clock over UDP.

The server greets with a JSON line that says who it is. After ``START`` it sends, for
each frame, a JSON line and the pixels (C order, little endian); after ``STOP`` an end
line. Its UDP port answers clock exchanges (`cameras.clock_wire`).
"""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from cameras.clock_wire import ClockClient
from cameras.errors import CameraLost, FramingLost
from cameras.options import CameraOptions
from cameras.protocol import ClockExchange, FrameBuffers
from cameras.records import CameraInfo, Frame, FrameInfo, StampKind

DTYPES = ("uint8", "uint16", "uint32", "float32")
MAX_PIXELS = 64 * 1024 * 1024
MAX_LINE = 64 * 1024
CLOCK_TRIES = 3


class StreamCamera:
    """A frame stream as a frame source.

    Parameters
    ----------
    host, port
        Where the server listens.
    now_ns
        Host clock.
    timeout_s
        For connecting and for a clock exchange. Frames are waited for without limit:
        a slow frame rate is no fault.
    """

    needs: ClassVar[tuple[str, ...]] = ("port",)
    has_clock: ClassVar[bool] = True

    def __init__(
        self,
        host: str,
        port: int,
        *,
        now_ns: Callable[[], int],
        timeout_s: float = 5.0,
    ) -> None:
        self._name = f"camera at {host}:{port}"
        self._host = host
        self._port = port
        self._now_ns = now_ns
        self._timeout_s = timeout_s
        self._info: CameraInfo | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._clock: ClockClient | None = None

    @classmethod
    def from_options(cls, options: CameraOptions, *, now_ns: Callable[[], int]) -> Self:
        """Make one; it connects when it is entered."""
        return cls(options.host, options.port, now_ns=now_ns)

    async def __aenter__(self) -> Self:
        """Connect and read the greeting.

        Raises
        ------
        CameraLost, FramingLost
            Nobody listens there, or it is no frame stream.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await asyncio.open_connection(
                    self._host, self._port, limit=MAX_LINE
                )
                raw = self._writer.get_extra_info("socket")
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                greeting = await self._line()
        except (OSError, TimeoutError) as error:
            await self._hang_up()
            raise CameraLost(
                f"{self._name}: cannot be reached ({str(error) or 'no greeting in time'}); "
                "check the address and that the server runs"
            ) from error
        except BaseException:
            await self._hang_up()
            raise
        try:
            self._info, clock_port = self._understand(greeting)
            self._clock = await ClockClient.connect(self._host, clock_port, self._now_ns)
        except BaseException:
            await self._hang_up()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and disconnect."""
        with suppress(CameraLost):
            await self.stop()
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._clock is not None:
            self._clock.close()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    @property
    def info(self) -> CameraInfo:
        """What the camera said of itself on connecting."""
        if self._info is None:
            raise CameraLost(f"{self._name}: is not connected")
        return self._info

    def _understand(self, greeting: dict[str, Any]) -> tuple[CameraInfo, int]:
        try:
            if greeting["lamella_frames"] != 1:
                raise FramingLost(
                    f"{self._name}: speaks version {greeting['lamella_frames']!r} of the "
                    "frame stream; this side knows version 1"
                )
            info = CameraInfo(
                model=str(greeting["model"]),
                height=int(greeting["height"]),
                width=int(greeting["width"]),
                dtype=str(greeting["dtype"]),
                frame_rate_Hz=float(greeting["frame_rate_Hz"]),
                pixel_size_m=float(greeting["pixel_size_m"] or math.nan),
                stamp=StampKind(greeting.get("stamp", StampKind.EXPOSURE_START)),
                row_time_ns=_row_time_ns(greeting.get("row_time_ns", 0.0)),
            )
            port = int(greeting["clock_port"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FramingLost(
                f"{self._name}: is no frame stream; its greeting lacks {error}"
            ) from error
        if info.dtype not in DTYPES:
            raise FramingLost(
                f"{self._name}: pixel type {info.dtype!r}; known are {', '.join(DTYPES)}"
            )
        if not (info.height > 0 and 0 < info.width <= MAX_PIXELS // info.height):
            raise FramingLost(f"{self._name}: {info.height} x {info.width} pixels cannot be")
        if not 0 < port < 65536:
            raise FramingLost(f"{self._name}: {port} is no clock port")
        return info, port

    # --- frames --------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to expose; returns when the camera says that it does.

        Raises
        ------
        CameraLost
            No word from the camera within the time limit.
        FramingLost
            The camera answers something else.
        """
        await self._command(b"START\n")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._line()
        except TimeoutError as error:
            raise CameraLost(f"{self._name}: did not start in {self._timeout_s:g} s") from error
        if answer.get("type") != "started":
            raise FramingLost(f"{self._name}: answered START with {answer.get('type')!r}")

    async def stop(self) -> None:
        """End after the present frame; `frames` then ends by itself."""
        await self._command(b"STOP\n")

    async def _command(self, command: bytes) -> None:
        if self._writer is None:
            raise CameraLost(f"{self._name}: is not connected")
        try:
            self._writer.write(command)
            await self._writer.drain()
        except OSError as error:
            raise CameraLost(f"{self._name}: the connection is gone") from error

    async def frames(self, buffers: FrameBuffers | None = None) -> AsyncIterator[Frame]:
        """Yield each frame in the order of arrival, until the server ends.

        They are received on the event loop, so that no buffers are filled.

        Raises
        ------
        CameraLost
            The connection ended without an end message.
        FramingLost
            What came is no frame.
        """
        last_index: int | None = None
        while True:
            header = await self._line()
            if header.get("type") == "end":
                return
            info = self._frame_info(header, last_index)
            last_index = info.index if last_index is None else max(last_index, info.index)
            yield Frame(info, await self._pixels(header))

    def _frame_info(self, header: dict[str, Any], last_index: int | None) -> FrameInfo:
        try:
            if header["type"] != "frame":
                raise FramingLost(f"{self._name}: message {header['type']!r} is unknown")
            index = int(header["index"])
            lost = 0 if last_index is None else max(index - last_index - 1, 0)
            info = FrameInfo(
                index=index,
                device_start_ns=int(header["start_ns"]),
                exposure_ns=int(header["exposure_ns"]),
                dropped_before=lost,
                blanked=bool(header["blanked"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FramingLost(f"{self._name}: a frame lacks {error}") from error
        if info.exposure_ns <= 0:
            raise FramingLost(f"{self._name}: an exposure of {info.exposure_ns} ns")
        return info

    async def _pixels(self, header: dict[str, Any]) -> np.ndarray[Any, Any]:
        info = self.info
        dtype = np.dtype(info.dtype).newbyteorder("<")
        expected = info.height * info.width * dtype.itemsize
        if header.get("bytes") != expected:
            raise FramingLost(
                f"{self._name}: a frame of {header.get('bytes')} bytes instead of {expected}"
            )
        data = await self._exactly(expected)
        return np.frombuffer(data, dtype).reshape(info.height, info.width)

    async def _line(self) -> dict[str, Any]:
        if self._reader is None:
            raise CameraLost(f"{self._name}: is not connected")
        try:
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise CameraLost(f"{self._name}: the connection ended") from error
        except asyncio.LimitOverrunError as error:
            raise FramingLost(f"{self._name}: a header without an end") from error
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FramingLost(f"{self._name}: {line[:40]!r} is no header") from error
        if not isinstance(message, dict):
            raise FramingLost(f"{self._name}: {line[:40]!r} is no header")
        return message

    async def _exactly(self, count: int) -> bytes:
        if self._reader is None:
            raise CameraLost(f"{self._name}: is not connected")
        try:
            return await self._reader.readexactly(count)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise CameraLost(f"{self._name}: the connection ended in a frame") from error

    # --- its clock -----------------------------------------------------------------------

    async def exchange_clock(self) -> ClockExchange:
        """Compare the camera's clock with the host's.

        Raises
        ------
        CameraLost
            No answer, several times.
        """
        if self._clock is None:
            raise CameraLost(f"{self._name}: is not connected")
        for _ in range(CLOCK_TRIES):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    return await self._clock.exchange()
        raise CameraLost(f"{self._name}: its clock does not answer")


def _row_time_ns(said: float | None) -> float:
    return math.nan if said is None else float(said)
