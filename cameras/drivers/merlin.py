"""Quantum Detectors Merlin (Medipix3): frames over TCP, commanded over TCP.

Armed by us, it is set up, started and stopped here. Armed by the microscope, nothing is set
and nothing commanded: what it is set to is read, and its frames are listened to.
"""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import ClassVar, Self

from cameras.errors import CameraError, CameraLost, FramingLost
from cameras.merlin_frames import FrameCount
from cameras.merlin_receiver import MerlinReceiver
from cameras.merlin_wire import (
    HEAD_BYTES,
    ConnectionCut,
    MerlinControl,
    MessageReader,
    RefusedCommand,
    connect_data,
    drain,
)
from cameras.options import ArmedBy, CameraOptions
from cameras.protocol import ClockExchange, FrameBuffers
from cameras.records import CameraInfo, Frame, FrameFault, StampClock, StampKind

CONTROL_PORT, DATA_PORT = 6341, 6342
ADVISED = (1, 6, 1)
PIXEL_TYPE_OF_DEPTH = {1: "uint8", 6: "uint8", 12: "uint16", 24: "uint32"}
CONTINUOUS_DEPTHS = (1, 6, 12)  # with 24 bits both counters of a pixel are in use
MANY_FRAMES = ("100000000", "999999")  # the first that it takes; both in days or minutes
SOFT_TRIGGER = "5"
OUT_OF_RANGE = 3
MAX_EDGE = 16_384
STARTS = 3
QUIET_S, QUIET_PERIODS = 0.25, 1.5
DRAIN_QUIET_S, DRAIN_LONGEST_S = 0.05, 2.0
RATE_TOLERANCE = 0.01


class MerlinCamera:
    """A Merlin detector as a frame source.

    Parameters
    ----------
    host, control_port, data_port
        Where the Merlin software listens.
    armed_by
        Who begins and ends the exposures.
    frame_rate_Hz, exposure_s
        Asked for when armed by us; NaN leaves what the detector has. Without an exposure it
        is the whole period.
    counter_depth
        Bits of a pixel's counter: 1, 6 or 12; None leaves what the detector has, or takes
        12 where that cannot be read without a pause.
    now_ns
        Host clock.
    timeout_s
        For connecting, for each reply, and for the acquisition header. Frames are waited
        for without limit: a slow frame rate is no fault.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    has_clock: ClassVar[bool] = False  # its stamps are tied to the host by arrival
    unconfirmed: ClassVar[str] = (
        "which moment of the exposure a stamp marks, the largest number of frames, what follows "
        "the counter 999999, whether the ports serve a second client; never run on hardware"
    )

    def __init__(  # noqa: PLR0913 - the options of a camera
        self,
        host: str,
        *,
        now_ns: Callable[[], int],
        control_port: int = CONTROL_PORT,
        data_port: int = DATA_PORT,
        armed_by: ArmedBy = ArmedBy.LAMELLA,
        frame_rate_Hz: float = math.nan,
        exposure_s: float = math.nan,
        pixel_size_m: float = math.nan,
        counter_depth: int | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._name = f"Merlin at {host}:{control_port}"
        self._host, self._control_port, self._data_port = host, control_port, data_port
        self._ours = armed_by is ArmedBy.LAMELLA
        self._asked_rate_Hz, self._asked_exposure_s = frame_rate_Hz, exposure_s
        self._pixel_size_m = pixel_size_m
        self._depth = counter_depth
        self._now_ns = now_ns
        self._timeout_s = timeout_s
        self._control = MerlinControl(self._name, timeout_s=timeout_s)
        self._data: socket.socket | None = None
        self._info: CameraInfo | None = None
        self._count: FrameCount | None = None
        self._receiver: MerlinReceiver | None = None
        self._notes: list[FrameFault] = []
        self._exposing = self._stopped = False

    @classmethod
    def from_options(cls, options: CameraOptions, *, now_ns: Callable[[], int]) -> Self:
        """Make one; it connects when it is entered."""
        return cls(
            options.host,
            now_ns=now_ns,
            control_port=options.control_port or CONTROL_PORT,
            data_port=options.data_port or DATA_PORT,
            armed_by=options.armed_by,
            frame_rate_Hz=options.frame_rate_Hz,
            exposure_s=options.exposure_s,
            pixel_size_m=options.pixel_size_m,
        )

    async def __aenter__(self) -> Self:
        """Connect, set up what is ours to set, and ask what its frames are like.

        Raises
        ------
        CameraError
            Nobody listens there, it is no Merlin, or it does not take a setting.
        """
        try:
            # Data first: what it sends from now on is not missed.
            self._data = await asyncio.to_thread(self._connect_data)
            await self._control.connect(self._host, self._control_port)
            version = await self._check_version()
            if self._ours:
                await self._set_up()
            self._info = await self._ask_info(version)
        except BaseException:
            await self._hang_up()
            raise
        info = self._info
        self._count = FrameCount(height=info.height, width=info.width, dtype=info.dtype)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and disconnect."""
        if self._exposing:
            with suppress(CameraError):
                await self.stop()
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            await receiver.close()
        if self._data is not None:
            self._data.close()
            self._data = None
        await self._control.close()

    def _connect_data(self) -> socket.socket:
        try:
            return connect_data(self._host, self._data_port, self._timeout_s)
        except OSError as error:
            raise CameraLost(
                f"{self._name}: the data port {self._data_port} cannot be reached "
                f"({error}); check the address and that the Merlin software runs"
            ) from error

    @property
    def info(self) -> CameraInfo:
        """What the detector said of its frames on connecting."""
        if self._info is None:
            raise CameraLost(f"{self._name}: is not connected")
        return self._info

    # --- what it is, and what it is set to --------------------------------------------------

    def _note(self, reason: str) -> None:
        self._notes.append(
            FrameFault(index=None, reason=f"{self._name}: {reason}", arrival_ns=self._now_ns())
        )

    async def _check_version(self) -> str:
        try:
            text = await self._control.get("SOFTWAREVERSION")
        except RefusedCommand:
            text = ""
        parts = text.strip().split(".")
        if not all(part.isdigit() for part in parts):
            self._note(f"its software version is not known ({text!r}); 1.6.1 or later is advised")
        elif tuple(map(int, parts)) < ADVISED:
            self._note(
                f"its software is version {text}; 1.6.1 or later is advised, because older ones "
                "may send what is left of an earlier acquisition, which is thrown away here"
            )
        return text.strip()

    async def _set_up(self) -> None:
        depth = self._depth
        if depth is None:
            depth = await self._ask_number("COUNTERDEPTH")
            depth = depth if depth in CONTINUOUS_DEPTHS else 12
        settings = {"CONTINUOUSRW": "1", "COUNTERDEPTH": str(depth)}
        period_s, exposure_s = 1 / self._asked_rate_Hz, self._asked_exposure_s
        if math.isnan(exposure_s):
            exposure_s = period_s
        if not math.isnan(exposure_s):
            settings["ACQUISITIONTIME"] = _in_ms(exposure_s)
        if not math.isnan(period_s):
            settings["ACQUISITIONPERIOD"] = _in_ms(period_s)
        settings |= {
            "TRIGGERSTART": SOFT_TRIGGER,
            "RUNHEADLESS": "1",
            "FILEENABLE": "0",
            "FILEFORMAT": "0",
            "USETIMESTAMPING": "0",
        }
        for variable, value in settings.items():
            await self._control.set(variable, value)
        await self._ask_many_frames()
        await self._check_rate()

    async def _ask_many_frames(self) -> None:
        """Have it go on for as long as it can: until it is stopped."""
        for variable in ("NUMFRAMESTOACQUIRE", "NUMFRAMESPERTRIGGER"):
            for value in MANY_FRAMES:
                try:
                    await self._control.set(variable, value)
                    break
                except RefusedCommand as error:
                    if error.code != OUT_OF_RANGE or value == MANY_FRAMES[-1]:
                        raise

    async def _check_rate(self) -> None:
        found_Hz, asked_Hz = await self._ask_rate(), self._asked_rate_Hz
        if abs(found_Hz / asked_Hz - 1) > RATE_TOLERANCE:
            self._note(f"it takes {found_Hz:.6g} frames a second where {asked_Hz:.6g} were asked")

    async def _ask_rate(self) -> float:
        with suppress(RefusedCommand, ValueError):
            period_ms = float(await self._control.get("ACQUISITIONPERIOD"))
            if period_ms > 0:
                return 1000 / period_ms
        return self._asked_rate_Hz

    async def _ask_number(self, variable: str) -> int:
        text = await self._control.get(variable)
        try:
            return int(float(text))
        except (ValueError, OverflowError) as error:
            raise FramingLost(f"{self._name}: says {variable} is {text!r}, no number") from error

    async def _ask_info(self, version: str) -> CameraInfo:
        width = await self._ask_number("IMAGEX")
        height = await self._ask_number("IMAGEY")
        depth = await self._ask_number("COUNTERDEPTH")
        if not (0 < width <= MAX_EDGE and 0 < height <= MAX_EDGE):
            raise FramingLost(f"{self._name}: says {height} x {width} pixels, which cannot be")
        if depth not in PIXEL_TYPE_OF_DEPTH:
            raise FramingLost(
                f"{self._name}: says a counter depth of {depth}; known are "
                + ", ".join(map(str, PIXEL_TYPE_OF_DEPTH))
            )
        return CameraInfo(
            model="Quantum Detectors Merlin" + (f", software {version}" if version else ""),
            height=height,
            width=width,
            dtype=PIXEL_TYPE_OF_DEPTH[depth],
            frame_rate_Hz=await self._ask_rate(),
            pixel_size_m=self._pixel_size_m,
            stamp=StampKind.UNKNOWN,
            clock=StampClock.CAMERA,
        )

    # --- frames ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to expose; does nothing where the microscope does.

        Raises
        ------
        CameraError
            It does not start, or another acquisition runs.
        """
        if self._data is None or self._count is None:
            raise CameraLost(f"{self._name}: is not connected")
        self._stopped = False
        if not self._ours:
            return
        stale = 0
        for attempt in range(STARTS):
            try:
                stale += await self._begin()
                break
            except (FramingLost, ConnectionCut) as error:
                await self._control.command("STOPACQUISITION")
                self._exposing = False
                if attempt == STARTS - 1:
                    raise FramingLost(
                        f"{self._name}: {error} instead of the acquisition header, "
                        f"{STARTS} times; restart the Merlin software"
                    ) from error
                await self._connect_data_again()
        if stale:
            self._note(f"{stale} bytes of an earlier acquisition were thrown away")
        self._count.begin_acquisition()
        await self._control.command("SOFTTRIGGER")

    async def _connect_data_again(self) -> socket.socket:
        if self._data is not None:
            self._data.close()
        self._data = await asyncio.to_thread(self._connect_data)
        return self._data

    async def _begin(self) -> int:
        """Arm it; return how many bytes of another acquisition were thrown away."""
        if (data := self._data) is None:
            raise CameraLost(f"{self._name}: is not connected")
        stale = 0
        try:
            stale = await asyncio.to_thread(
                drain, data, quiet_s=DRAIN_QUIET_S, longest_s=DRAIN_LONGEST_S
            )
        except ConnectionCut:
            # An end that came while nobody exposed costs nothing.
            data = await self._connect_data_again()
        except CameraError as error:
            raise CameraError(f"{self._name}: {error}") from error
        await self._control.command("STARTACQUISITION")
        self._exposing = True
        return stale + await asyncio.to_thread(self._await_header, data)

    def _await_header(self, data: socket.socket) -> int:
        """Read up to the acquisition header; return how many bytes of frames came before."""
        reader, stale = MessageReader(data), 0
        data.settimeout(self._timeout_s)
        try:
            while True:
                length = reader.begin()
                head = bytearray(min(length, HEAD_BYTES))
                reader.fill(memoryview(head))
                reader.skip(length - len(head))
                if head.startswith(b"HDR,"):
                    return stale
                if not head.startswith(b"MQ1,"):
                    raise FramingLost(f"a message that begins with {bytes(head[:4])!r}")
                stale += length
        except TimeoutError as error:
            raise CameraLost(
                f"{self._name}: no acquisition header within {self._timeout_s:g} s of "
                "STARTACQUISITION"
            ) from error
        finally:
            data.settimeout(None)

    async def stop(self) -> None:
        """End after the present frame; `frames` then ends by itself.

        It ends once nothing came for longer than a frame takes, because the detector does
        not say which frame is its last. Where the microscope arms, it ends at once.
        """
        if self._info is None:
            raise CameraLost(f"{self._name}: is not connected")
        self._stopped = True
        try:
            if self._exposing:
                self._exposing = False
                await self._control.command("STOPACQUISITION")
        finally:
            if self._receiver is not None:
                self._end(self._receiver)

    def _end(self, receiver: MerlinReceiver) -> None:
        if not self._ours:
            receiver.end(0, self._timeout_s)
            return
        rate_Hz = self.info.frame_rate_Hz
        quiet_s = QUIET_S if math.isnan(rate_Hz) else max(QUIET_S, QUIET_PERIODS / rate_Hz)
        receiver.end(quiet_s, self._timeout_s)

    async def frames(
        self, buffers: FrameBuffers | None = None
    ) -> AsyncIterator[Frame | FrameFault]:
        """Yield each frame in the order of arrival, until it is stopped.

        They are received on a thread of their own, into ``buffers`` where there are any.
        Each frame's info is a `MerlinFrameInfo`, with its header.

        Raises
        ------
        CameraLost, FramingLost
            The detector is gone, or sends what makes no sense, again and again.
        """
        if self._data is None or self._count is None:
            raise CameraLost(f"{self._name}: is not connected")
        data, self._data = self._data, None
        receiver = self._receiver = MerlinReceiver(
            self._name,
            self.info,
            connected=data,
            connect=self._connect_data,
            reconnects=not self._ours,
            count=self._count,
            buffers=buffers,
            now_ns=self._now_ns,
        )
        receiver.start()
        if self._stopped:
            self._end(receiver)
        try:
            for note in self._notes:
                yield note
            self._notes.clear()
            while (item := await receiver.next()) is not None:
                yield item
        finally:
            await receiver.close()

    # --- its clock ----------------------------------------------------------------------------

    async def exchange_clock(self) -> ClockExchange:
        """Say that it cannot be asked.

        Raises
        ------
        CameraLost
            Always: its stamps are tied to the host by the arrival of its frames.
        """
        raise CameraLost(f"{self._name}: has no clock that can be asked")


def _in_ms(duration_s: float) -> str:
    return f"{duration_s * 1000:.9g}"
