"""The recorder's client, for asyncio code: tell it everything, lose nothing."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cameras.protocol import FrameBuffers
from session.attributes import check_attributes
from session.buffers import CameraRing, RingBuffers
from session.errors import (
    RecorderLost,
    SessionError,
    SessionExists,
    SessionRefused,
)
from session.layout import check_header, check_name
from session.messages import (
    Attributes,
    Degraded,
    Event,
    Exchanges,
    Failed,
    Finish,
    Finished,
    Flush,
    Flushed,
    Frame,
    FromRecorder,
    QueueCounters,
    Released,
    Samples,
    Started,
    Temperatures,
    ToRecorder,
)
from session.pipe_client import PipeClient, fail
from session.records import (
    EXCHANGE_DTYPE,
    SESSION_SAMPLE_DTYPE,
    TEMPERATURE_DTYPE,
    AttributeValue,
    FrameHeader,
    SessionHeader,
)
from session.schema import find_group
from session.slots import RingCounters
from session.worker import Worker
from session.writer import event_json


class Recorder:
    """Records a session in a process of its own.

    Each call returns when its message has left this process, so that what it told is
    in the file even if this process is killed at once. Calls may run side by side;
    they are written in the order in which they were made.

    Parameters
    ----------
    path
        The file to create; it must not exist.
    header
        What is known before the first reading.
    in_process
        Record on a thread of this process instead.
    slots
        Frames that the ring of each camera holds; by default half a second of them and
        at least 64, fewer where memory is short: all rings take 768 MiB at most.
    finish_timeout_s
        Longest wait for the file to be closed.
    on_trouble
        Called on the event loop when something is not stored as it should be, and the
        recorder goes on all the same; an event in the session says it, too.
    on_event
        Called on the event loop with each event that is to be recorded.
    """

    def __init__(
        self,
        path: Path | str,
        header: SessionHeader,
        *,
        in_process: bool = False,
        slots: int | None = None,
        finish_timeout_s: float = 60.0,
        on_trouble: Callable[[str], None] = lambda _: None,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.path = Path(path)
        self._header = header
        self._slots = slots
        self._on_trouble = on_trouble
        self._on_event = on_event
        self._finish_timeout_s = finish_timeout_s
        self._cameras: dict[str, CameraRing] = {}
        self._worker = Worker(in_process=in_process)
        self._pipe: PipeClient | None = None
        self._failure: Failed | None = None
        self._finishing = False
        # One future for each reply that a call waits for, oldest first.
        self._expected: dict[type[FromRecorder], list[asyncio.Future[None]]] = {}

    async def __aenter__(self) -> Self:
        """Create the file.

        Raises
        ------
        SessionExists
            The file is there already.
        SessionRefused
            The header or the folder is not acceptable.
        RecorderLost
            The recorder process could not start.
        MemoryError
            Shared memory has no room for the rings of the cameras.
        """
        check_header(self._header)
        try:
            count = len(self._header.cameras)
            for camera in self._header.cameras:
                ring = await asyncio.to_thread(CameraRing, camera, self._slots, count)
                self._cameras[camera.name] = ring
            await self._start()
        except BaseException:
            if self._pipe is not None:
                with suppress(RecorderLost):
                    self._pipe.post(Finish("not started", _now()))
            await self._close(self._finish_timeout_s)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish, unless that was done; on an error the file says which."""
        if self._finishing:
            return
        reason = "done" if error is None else f"error: {type(error).__name__}: {error}"
        try:
            await self.finish(reason)
        except RecorderLost:
            if error is None:
                raise

    @property
    def pid(self) -> int | None:
        """Process number of the recorder; None for a thread."""
        return self._worker.pid

    def ring_counters(self, camera: str) -> RingCounters:
        """Return what the ring of a camera went through so far."""
        return self._camera(camera).ring.counters

    def ring_fill(self, camera: str) -> float:
        """Return what share of a camera's ring waits for the disk, 0 to 1."""
        return self._camera(camera).fill

    def buffers(self, camera: str) -> FrameBuffers:
        """Return memory for the source of a camera to receive frames into.

        Its `take` waits while the ring is full, and raises `SessionError` once this
        recording has ended, `RecorderLost` when the recorder is gone.
        """
        return RingBuffers(self._camera(camera).ring)

    async def samples(self, rows: NDArray[np.void]) -> None:
        """Record readings, shape (n,), of ``SESSION_SAMPLE_DTYPE``."""
        await self._send(Samples(_checked(rows, SESSION_SAMPLE_DTYPE)))

    async def frame(self, camera: str, header: FrameHeader, pixels: NDArray[np.generic]) -> None:
        """Record a frame, shape (height, width), of the camera's pixel type.

        Pixels that fill a buffer of `buffers` stay where they are, and must not be changed
        any more; others are copied. Waits while the ring is full: a frame is never dropped.
        """
        ring = self._camera(camera)
        ring.check(pixels)
        if ring.must_wait(pixels):
            ring.ring.count_wait()
        async with ring.turn:
            self._open_pipe().check()
            slot = await ring.put(pixels)
            sent = self._open_pipe().post(Frame(camera, slot, header))
        await sent

    async def event(
        self,
        t_ns: int,
        kind: str,
        source: str,
        message: str,
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Record an event; ``data`` becomes JSON."""
        event = Event(t_ns, kind, source, message, event_json(data))
        self._on_event(event)
        await self._send(event)

    async def exchanges(self, clock: str, rows: NDArray[np.void]) -> None:
        """Record exchanges with a clock, shape (n,), of ``EXCHANGE_DTYPE``."""
        check_name("clock", clock)
        await self._send(Exchanges(clock, _checked(rows, EXCHANGE_DTYPE)))

    async def temperatures(self, rows: NDArray[np.void]) -> None:
        """Record what a thermometer said, shape (n,), of ``TEMPERATURE_DTYPE``."""
        await self._send(Temperatures(_checked(rows, TEMPERATURE_DTYPE)))

    async def queue_counters(self, queue: str, counters: Mapping[str, int]) -> None:
        """Record the counters of a bounded queue, in place of earlier ones."""
        check_name("queue", queue)
        await self._send(QueueCounters(queue, dict(counters)))

    async def attributes(self, path: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Record attributes of a group, such as ``"instrument/potentiostat"``.

        Raises
        ------
        SessionRefused
            The group takes no further attributes, or a value cannot be stored.
        """
        spec = find_group(path)
        if spec is None or not spec.free_attributes:
            raise SessionRefused(
                f"{path}: no attributes can be added here; 'sample' or 'instrument/<name>' will do"
            )
        check_attributes(path, attributes)
        await self._send(Attributes(path, dict(attributes)))

    async def flush(self) -> None:
        """Return when all that was told before is in the operating system's hands."""
        await self._ask(self._open_pipe(), Flush(), Flushed)

    async def finish(self, exit_reason: str, end_time: str | None = None) -> None:
        """Close the file, once; it says why and when it ended.

        Raises
        ------
        RecorderLost
            The recorder is gone, or did not close the file in time.
        """
        pipe = self._open_pipe()
        self._finishing = True
        self._end_waits(SessionError(f"the recording of {self.path} was finished"))
        patience_s = self._finish_timeout_s
        try:
            # All is in line before the first wait: a cancelled call finishes too.
            for name, camera in self._cameras.items():
                pipe.post(_ring_message(name, camera.ring.counters))
            async with asyncio.timeout(patience_s):
                await self._ask(pipe, Finish(exit_reason, end_time or _now()), Finished)
        except TimeoutError:
            patience_s = 0.0
            raise RecorderLost(
                f"{self.path} was not closed within {self._finish_timeout_s} s; what"
                " was flushed is in the file"
            ) from None
        finally:
            await self._close(patience_s)

    async def _start(self) -> None:
        rings = {name: camera.ring.spec for name, camera in self._cameras.items()}
        started = self._expect(Started)
        connection = await asyncio.to_thread(self._worker.start, self.path, self._header, rings)
        self._pipe = PipeClient(connection, self._on_reply, self._on_lost)
        await started

    async def _close(self, patience_s: float) -> None:
        self._end_waits(SessionError(f"the recording of {self.path} was not started"))
        await asyncio.to_thread(self._worker.join, patience_s)
        if self._pipe is not None:
            await self._pipe.close()
        await asyncio.to_thread(self._drop_rings)

    def _drop_rings(self) -> None:
        for camera in self._cameras.values():
            camera.drop()

    def _end_waits(self, why: SessionError) -> None:
        for camera in self._cameras.values():
            camera.close(why)

    def _open_pipe(self) -> PipeClient:
        if self._pipe is None or self._finishing:
            state = "finished" if self._finishing else "not started"
            raise SessionError(f"the recording of {self.path} was {state}")
        return self._pipe

    async def _send(self, message: ToRecorder) -> None:
        await self._open_pipe().post(message)

    async def _ask(self, pipe: PipeClient, message: ToRecorder, reply: type[FromRecorder]) -> None:
        answered = self._expect(reply)
        # Not awaited: the recorder may have answered and gone before that thread says so.
        pipe.post(message)
        await answered

    def _expect(self, reply: type[FromRecorder]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected.setdefault(reply, []).append(future)
        return future

    def _on_reply(self, reply: FromRecorder) -> None:
        match reply:
            case Released(camera, count):
                self._cameras[camera].ring.release(count)
            case Failed():
                self._failure = reply
            case Degraded(text):
                self._on_trouble(text)
            case _:
                future = self._expected[type(reply)].pop(0)
                if not future.done():
                    future.set_result(None)

    def _on_lost(self, why: str) -> None:
        self._end_waits(RecorderLost(why))
        error: SessionError = RecorderLost(why)
        if self._failure is not None and self._failure.exists:
            error = SessionExists(why)
        elif self._failure is not None and self._failure.refused:
            error = SessionRefused(why)
        for futures in self._expected.values():
            for future in futures:
                fail(future, error)

    def _camera(self, name: str) -> CameraRing:
        if name not in self._cameras:
            known = ", ".join(self._cameras) or "none"
            raise SessionRefused(f"camera {name!r} is not in the header; it has {known}")
        return self._cameras[name]


def _ring_message(camera: str, counters: RingCounters) -> QueueCounters:
    return QueueCounters(f"recorder.{camera}", {**dataclasses.asdict(counters), "dropped": 0})


def _checked(rows: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    if rows.dtype != dtype or rows.ndim != 1:
        raise SessionRefused(
            f"rows of {rows.dtype}, shape {rows.shape}, given; shape (n,) of {dtype} would do"
        )
    return rows


def _now() -> str:
    return datetime.now(UTC).isoformat()
