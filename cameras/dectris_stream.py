"""Receives a DECTRIS stream on threads of its own, and hands what it makes to the loop.

One thread stamps messages as they come, one makes frames of them. What is received and
not yet taken is bounded: behind that, ZeroMQ and the detector's own memory wait.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from cameras.dectris_series import SeriesReader
from cameras.errors import CameraLost
from cameras.protocol import FrameBuffers
from cameras.records import Frame, FrameFault

DEPTH = 64  # messages received and not yet looked at; the same again of frames made of them
LOOK_S = 0.01  # between two looks of a thread at whether it should end
JOIN_S = 2.0


class _End(Enum):
    END = "end"


Item = Frame | FrameFault
Received = tuple[bytes, int] | FrameFault


class StreamLink:
    """A PULL socket, and the thread that empties it.

    Parameters
    ----------
    name
        Of the camera, for messages.
    now_ns
        Host clock; stamps each message on receipt.
    """

    def __init__(self, name: str, host: str, port: int, *, now_ns: Callable[[], int]) -> None:
        self._name = name
        self._endpoint = f"tcp://{f'[{host}]' if ':' in host else host}:{port}"
        self._now_ns = now_ns
        self._context: zmq.Context[Any] | None = None
        self._socket: Any = None
        self._monitor: Any = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self.received: queue.Queue[Received] = queue.Queue(DEPTH)

    def connect(self, timeout_s: float) -> None:
        """Connect, and wait until the other side has greeted; blocks.

        Raises
        ------
        CameraLost
            Nobody there speaks ZeroMQ.
        """
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, DEPTH)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        try:
            self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise CameraLost(f"{self._name}: {self._endpoint} is no address ({error})") from error
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self._monitor.poll(left_s * 1000) and self._happened() == (
                zmq.EVENT_HANDSHAKE_SUCCEEDED
            ):
                return
        self.close()
        raise CameraLost(
            f"{self._name}: its stream at {self._endpoint} cannot be reached; check data_port, "
            "and that nothing blocks the port"
        )

    def start(self) -> None:
        """Receive from now on."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._receive, name="dectris.receive", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Disconnect; blocks until the thread has ended."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._context is not None:
            self._socket.disable_monitor()
            self._context.destroy(linger=0)
            self._context = None

    def _happened(self) -> int:
        event: int = parse_monitor_message(self._monitor.recv_multipart())["event"]
        return event

    def _receive(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll(round(LOOK_S * 1000)))
            if self._socket in ready:
                parts = self._socket.recv_multipart()
                self._pass_on((parts[0] if len(parts) == 1 else b"", self._now_ns()))
            elif self._monitor in ready and self._happened() == zmq.EVENT_DISCONNECTED:
                self._pass_on(
                    FrameFault(
                        index=None,
                        reason=f"the connection to {self._endpoint} is gone; connecting again",
                        arrival_ns=self._now_ns(),
                    )
                )

    def _pass_on(self, what: Received) -> None:
        while not self._closing.is_set():
            with suppress(queue.Full):
                self.received.put(what, timeout=LOOK_S)
                return


class Film:
    """One recording: makes frames of what a link receives, on a thread of its own."""

    def __init__(
        self, link: StreamLink, reader: SeriesReader, *, now_ns: Callable[[], int]
    ) -> None:
        self._link = link
        self._reader = reader
        self._now_ns = now_ns
        self._stop: _Stop | None = None
        self._left = threading.Event()
        self._room = threading.Semaphore(DEPTH)
        self._notes: deque[FrameFault] = deque()
        self._made: deque[Item | _End | BaseException] = deque()

    def stop(self, wait_s: float) -> None:
        """Have the film end.

        Parameters
        ----------
        wait_s
            How long the end of the series may stay away when nothing else comes; 0 to
            end with what has come until now.
        """
        if self._stop is None:
            self._stop = _Stop(wait_s, self._now_ns(), time.monotonic())

    def note(self, reason: str) -> None:
        """Say something in the film that no message says; from any thread."""
        self._notes.append(FrameFault(index=None, reason=reason, arrival_ns=self._now_ns()))

    async def frames(self, buffers: FrameBuffers | None) -> AsyncGenerator[Item, None]:
        """Yield what is made, in its order."""
        loop = asyncio.get_running_loop()
        news = asyncio.Event()

        def tell() -> None:
            # A loop that is closed has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

        thread = threading.Thread(
            target=self._make_all, args=(buffers, tell), name="dectris.decode", daemon=True
        )
        thread.start()
        try:
            while True:
                await news.wait()
                news.clear()
                while self._made:
                    item = self._made.popleft()
                    if isinstance(item, BaseException):
                        raise item
                    if isinstance(item, _End):
                        return
                    self._room.release()
                    yield item
        finally:
            self._left.set()
            # Whoever lends buffers may take them away after this.
            await asyncio.to_thread(thread.join, JOIN_S)

    def _make_all(self, buffers: FrameBuffers | None, tell: Callable[[], None]) -> None:
        last: _End | BaseException = _End.END
        try:
            for item in self._items(buffers):
                while not self._room.acquire(timeout=LOOK_S):
                    if self._left.is_set():
                        return
                self._made.append(item)
                tell()
        except BaseException as error:  # noqa: BLE001 - raised again where frames are taken
            last = error
        self._made.append(last)
        tell()

    def _items(self, buffers: FrameBuffers | None) -> Iterator[Item]:
        heard = time.monotonic()
        while not self._left.is_set() and not self._reader.ended:
            while self._notes:
                yield self._notes.popleft()
            try:
                received = self._link.received.get(timeout=LOOK_S)
            except queue.Empty:
                if (stop := self._stop) is None or not stop.is_over(heard):
                    continue
                if stop.wait_s:
                    yield self._endless(stop)
                return
            heard = time.monotonic()
            if isinstance(received, FrameFault):
                yield received
                continue
            raw, arrival_ns = received
            if (stop := self._stop) is not None and not stop.wait_s and arrival_ns > stop.t_ns:
                return
            yield from self._reader.read(raw, arrival_ns, buffers)

    def _endless(self, stop: "_Stop") -> FrameFault:
        return FrameFault(
            index=None,
            reason=f"the end of the series did not come within {stop.wait_s:g} s after the "
            "stop; images may be missing at the end",
            arrival_ns=self._now_ns(),
        )


@dataclass(frozen=True, slots=True)
class _Stop:
    """When a film was stopped, on the host clock and on the real one."""

    wait_s: float
    t_ns: int
    at: float

    def is_over(self, heard: float) -> bool:
        """Tell whether the end has stayed away for too long."""
        return time.monotonic() - max(self.at, heard) >= self.wait_s
