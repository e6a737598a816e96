"""Hands a camera's frames on as a frame stream, on the clock of this computer."""

import asyncio
import json
import math
import socket
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from cameras.errors import CameraError, CameraLost
from cameras.protocol import FrameSource, NowNs
from cameras.records import CameraInfo, Frame, FrameFault, StampKind
from runner.node_time import CameraTime

DTYPES = ("uint8", "uint16", "uint32", "float32")
FIRST_EXCHANGES = 8
EXCHANGE_INTERVAL_S = 1.0
MOVED = (StampKind.EXPOSURE_START, StampKind.EXPOSURE_END)


@dataclass(slots=True)
class StreamCounters:
    """What went by."""

    clients: int = 0
    produced: int = 0
    sent: int = 0
    faults: int = 0


class FrameServer:
    """Serves one client at a time, as `docs/frame-stream.md` says.

    A client that goes ends the exposure: frames that nobody takes would be lost unseen.

    Parameters
    ----------
    camera
        Entered but not started.
    clock_port
        Where this computer's clock answers.
    """

    def __init__(self, camera: FrameSource, *, clock_port: int, now_ns: NowNs) -> None:
        refuse_pixels(camera.info)
        self._camera = camera
        self._clock_port = clock_port
        self._now_ns = now_ns
        self._time = CameraTime(camera.info)
        self._writer: asyncio.StreamWriter | None = None
        self._filming: asyncio.Task[None] | None = None
        self.counters = StreamCounters()
        self._idle = asyncio.Event()
        self._idle.set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client until it goes; a second one at the same time is turned away."""
        if self._writer is not None:
            writer.close()
            return
        self._writer = writer
        self._idle.clear()
        self.counters.clients += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with suppress(ConnectionError):
                writer.write(_line(self._greeting()))
                while command := await reader.readline():
                    await self._obey(command.strip())
        except CameraError as error:
            self._fail(error)
        finally:
            writer.close()  # first: nobody waits for one who has gone to make room
            await self._end()
            self._writer = None
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._idle.set()

    @property
    def is_free(self) -> bool:
        """True while there is no client."""
        return self._idle.is_set()

    async def hang_up(self) -> None:
        """Send the present client away, and end the exposure."""
        if self._writer is not None:
            self._writer.close()
        await self._idle.wait()

    def _greeting(self) -> dict[str, object]:
        info = self._camera.info
        moved = info.stamp in MOVED
        return {
            "lamella_frames": 1,
            "model": info.model,
            "height": info.height,
            "width": info.width,
            "dtype": info.dtype,
            "frame_rate_Hz": info.frame_rate_Hz,
            "pixel_size_m": info.pixel_size_m if math.isfinite(info.pixel_size_m) else None,
            "clock_port": self._clock_port,
            "stamp": (StampKind.EXPOSURE_START if moved else info.stamp).value,
            "row_time_ns": info.row_time_ns if math.isfinite(info.row_time_ns) else None,
        }

    async def _obey(self, command: bytes) -> None:
        if command == b"START" and self._filming is None:
            if self._camera.has_clock:
                for _ in range(FIRST_EXCHANGES):
                    self._time.add(await self._camera.exchange_clock())
            await self._camera.start()
            self._say(_line({"type": "started"}))
            self._filming = asyncio.create_task(self._film(), name="runner.node_film")
        elif command == b"STOP" and self._filming is not None:
            await self._camera.stop()

    async def _end(self) -> None:
        """Stop the exposure of a client that has gone."""
        if self._filming is None:
            return
        with suppress(CameraError):
            await self._camera.stop()
        # Frames that still come are taken out of the camera's way.
        await self._filming

    async def _film(self) -> None:
        keeper = None
        if self._camera.has_clock:
            keeper = asyncio.create_task(self._keep_time(), name="runner.node_clock")
        produced, sent = self.counters.produced, self.counters.sent
        try:
            async for frame in self._camera.frames():
                self.counters.produced += 1
                if isinstance(frame, FrameFault):
                    self.counters.faults += 1  # its number is missing, which the client sees
                    continue
                await self._send(frame)
            counts = {
                "produced": self.counters.produced - produced,
                "sent": self.counters.sent - sent,
            }
            self._say(_line({"type": "end", **counts}))
        except CameraError as error:
            self._fail(error)
        finally:
            self._filming = None
            if keeper is not None:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper

    async def _send(self, frame: Frame) -> None:
        info, writer = frame.info, self._writer
        arrival_ns = self._now_ns() if info.arrival_ns is None else info.arrival_ns
        t_ns, sigma_ns = self._time.stamp(info, arrival_ns)
        pixels = np.ascontiguousarray(frame.pixels, frame.pixels.dtype.newbyteorder("<"))
        header = {
            "type": "frame",
            "index": info.index,
            "start_ns": t_ns,
            "sigma_ns": sigma_ns if math.isfinite(sigma_ns) else None,
            "exposure_ns": info.exposure_ns,
            "device_start_ns": info.device_start_ns,
            "blanked": info.blanked,
            "bytes": pixels.nbytes,
        }
        if writer is None or writer.is_closing():
            return
        writer.write(_line(header) + pixels.tobytes())
        # A slow client holds the camera, not our memory.
        with suppress(ConnectionError):
            await writer.drain()
            self.counters.sent += 1

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(EXCHANGE_INTERVAL_S)
            with suppress(CameraLost):  # a single answer that does not come is no loss
                self._time.add(await self._camera.exchange_clock())

    def _say(self, data: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    def _fail(self, error: CameraError) -> None:
        """End the stream without an end message, and tell the node."""
        if not self.failed.done():
            self.failed.set_exception(error)
        if self._writer is not None:
            self._writer.close()


def refuse_pixels(info: CameraInfo) -> None:
    """Raise CameraError where the frame stream has no such pixels."""
    if info.dtype not in DTYPES:
        raise CameraError(
            f"{info.model}: pixels of {info.dtype} cannot be streamed, only "
            f"{', '.join(DTYPES)}; let the node keep them in a folder"
        )


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\n"
