"""The thread that receives a Merlin detector's frames, and hands them to the event loop."""

import asyncio
import selectors
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from cameras.errors import CameraLost, FramingLost
from cameras.merlin_frames import FrameCount, MerlinFrameInfo
from cameras.merlin_wire import HEAD_BYTES, ConnectionCut, MessageReader
from cameras.mib_header import MibHeader, parse_mib_header
from cameras.protocol import FrameBuffers
from cameras.records import CameraInfo, Frame, FrameFault

AHEAD = 64  # frames that wait for the event loop; then the detector waits
TRIES = 5  # of a connection in a row
RETRY_S = 0.2
LOOKS = 12  # at a detector that was stopped and goes on
HEAD_ROOM = 64 * 1024
LITTLE = sys.byteorder == "little"


class OwnBuffers:
    """Memory for frames where nobody else gives any; used again once nobody holds it."""

    def __init__(self, info: CameraInfo) -> None:
        self._shape, self._dtype = (info.height, info.width), np.dtype(info.dtype)
        self._used: deque[NDArray[np.generic]] = deque()

    def take(self) -> NDArray[np.generic]:
        """Return a buffer that nobody holds."""
        # Views of an array hold the array: without any, a name and the question
        # do. Fresh memory for each frame could cost more than to receive into it.
        if self._used:
            oldest = self._used.popleft()
            if sys.getrefcount(oldest) == 2:
                self._used.append(oldest)
                return oldest[:]
            if len(self._used) < AHEAD:
                self._used.appendleft(oldest)
        fresh: NDArray[np.generic] = np.empty(self._shape, self._dtype)
        self._used.append(fresh)
        return fresh[:]


class MerlinReceiver:
    """Receives until it is ended, and never drops a frame by itself.

    Parameters
    ----------
    name
        What errors call the detector.
    connected
        The data connection, which becomes this one's own.
    connect
        Makes another; blocks.
    reconnects
        Whether to connect again when the other side has gone.
    count
        Numbers the frames.
    buffers
        Where to put pixels.
    """

    def __init__(
        self,
        name: str,
        info: CameraInfo,
        *,
        connected: socket.socket,
        connect: Callable[[], socket.socket],
        reconnects: bool,
        count: FrameCount,
        buffers: FrameBuffers | None,
        now_ns: Callable[[], int],
    ) -> None:
        self._name = name
        self._socket = connected
        self._connect = connect
        self._reconnects = reconnects
        self._count = count
        self._buffers = buffers or OwnBuffers(info)
        self._now_ns = now_ns
        self._swaps = LITTLE and np.dtype(info.dtype).itemsize > 1
        self._frame_bytes = info.height * info.width * np.dtype(info.dtype).itemsize
        self._reader = MessageReader(connected)
        self._head = memoryview(bytearray(HEAD_ROOM))
        self._spare: NDArray[np.generic] | None = None
        self._failed = 0  # connections in a row without a whole message
        self.framing_lost = 0
        # Handed over: the thread appends and wakes the loop once, however many there are.
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Frame | FrameFault | BaseException | None] = deque()
        self._came = asyncio.Event()
        self._woken = False
        self._room = threading.Semaphore(AHEAD)
        # Ended: soon, when nothing comes for a while; or closed at once.
        self._quiet_s: float | None = None
        self._closed = threading.Event()
        self._messages = self._messages_then = 0
        self._taking = False
        self._look: asyncio.TimerHandle | None = None
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._selector.register(connected, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="cameras.merlin", daemon=True)

    # --- on the event loop -----------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    async def next(self) -> Frame | FrameFault | None:
        """Return the next frame or fault; None at the end.

        Raises
        ------
        CameraError
            What ended it.
        """
        while not self._ready:
            self._came.clear()
            await self._came.wait()
        item = self._ready.popleft()
        self._room.release()
        if isinstance(item, BaseException):
            raise item
        return item

    def end(self, quiet_s: float, patience_s: float) -> None:
        """End between two messages, once nothing came for a while; 0 for at once.

        Parameters
        ----------
        patience_s
            For how long a message may stand still before it is given up.
        """
        self._quiet_s = quiet_s
        self._wake()
        self._look_later(patience_s, LOOKS)

    def _look_later(self, patience_s: float, looks: int) -> None:
        self._messages_then = self._messages
        self._look = self._loop.call_later(patience_s, self._look_at_end, patience_s, looks)

    def _look_at_end(self, patience_s: float, looks: int) -> None:
        stands = self._messages == self._messages_then and not self._taking and not self._ready
        if looks and not stands:
            self._look_later(patience_s, looks - 1)
            return
        what = "a frame stands still" if stands else "it goes on sending"
        self._put(self._as_fault(f"{what} after it was stopped; it is given up"))
        self.give_up()

    def give_up(self) -> None:
        """End now, wherever it is."""
        if self._look is not None:
            self._look.cancel()
        self._closed.set()
        self._room.release()
        self._wake()
        with suppress(OSError):  # it may be gone
            self._socket.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """End now and wait for the thread."""
        self.give_up()
        # A buffer that it waits for may never come: then the thread is left behind.
        await asyncio.to_thread(self._thread.join, 2.0)

    def _wake(self) -> None:
        with suppress(OSError):  # the thread has ended
            self._wake_in.send(b"\0")

    # --- on the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._receive():
                pass
        except Exception as error:  # noqa: BLE001 - it is raised where the frames are awaited
            self._put(error)
        finally:
            self._put(None)
            for each in (self._selector, self._socket, self._wake_out, self._wake_in):
                each.close()

    def _put(self, item: Frame | FrameFault | BaseException | None) -> None:
        self._ready.append(item)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False  # first: what is appended from here on wakes again
        self._came.set()

    def _take_room(self) -> None:
        self._room.acquire()
        if self._closed.is_set():
            self._room.release()  # nobody makes room any more: never wait again

    def _fault(self, reason: str, index: int | None = None) -> None:
        self._take_room()
        self._put(self._as_fault(reason, index))

    def _as_fault(self, reason: str, index: int | None = None) -> FrameFault:
        return FrameFault(index=index, reason=f"{self._name}: {reason}", arrival_ns=self._now_ns())

    def _receive(self) -> bool:
        """Receive one message; False when it is over."""
        if not self._message_comes():
            return False
        try:
            self._message()
        except (ConnectionCut, FramingLost) as error:
            return self._mend(error)
        self._failed = 0
        self._messages += 1
        return not self._closed.is_set()

    def _message_comes(self) -> bool:
        while not self._closed.is_set() and self._quiet_s != 0:
            ready = self._selector.select(self._quiet_s)
            for key, _ in ready:
                if key.fileobj is self._socket:
                    return True
                self._wake_out.recv(64)
            if not ready:
                return False
        return False

    def _message(self) -> None:
        length = self._reader.begin()
        head = self._head[: min(length, HEAD_BYTES)]
        self._reader.fill(head)
        kind = bytes(head[:4])
        if kind == b"MQ1,":
            self._frame(length)
        elif kind == b"HDR,":
            self._reader.skip(length - len(head))
            if (told := self._count.begin_acquisition()) is not None:
                self._fault(told)
        else:
            raise FramingLost(f"a message that begins with {kind!r}")

    def _frame(self, length: int) -> None:
        header = self._header(length)
        if header is None:
            return
        place = self._count.place(header)
        for problem in place.problems:
            self._fault(problem, place.index)
        rest = length - header.header_bytes
        if place.usable and rest != self._frame_bytes:
            self._count.take_back()
            self._fault(
                f"frame {place.index} has {rest} bytes of pixels where its header says "
                f"{self._frame_bytes}; it is left out",
                place.index,
            )
        elif place.usable:
            self._take_room()
            pixels = self._pixels()
            arrival_ns = self._now_ns()
            if self._swaps:
                # In place, as ndarray.byteswap, but several times as fast.
                np.copyto(pixels, pixels.view(pixels.dtype.newbyteorder(">")))
            self._put(
                Frame(
                    MerlinFrameInfo(
                        index=place.index,
                        device_start_ns=header.stamp_ns,
                        exposure_ns=header.exposure_ns,
                        dropped_before=place.dropped_before,
                        arrival_ns=arrival_ns,
                        header=header,
                    ),
                    pixels,
                )
            )
            return
        self._reader.skip(rest)

    def _header(self, length: int) -> MibHeader | None:
        """Return a frame's header, received whole; None for one that makes no sense."""
        have = min(length, HEAD_BYTES)
        try:
            size = int(bytes(self._head[: min(have, 40)]).split(b",", 3)[2])
            if not HEAD_BYTES <= size <= min(length, HEAD_ROOM):
                raise FramingLost(f"a header of {size} bytes in a message of {length}")  # noqa: TRY301
        except (ValueError, IndexError, FramingLost) as error:
            self._leave_out(error, length - have)
            return None
        self._reader.fill(self._head[have:size])
        try:
            return parse_mib_header(self._head[:size])
        except FramingLost as error:
            self._leave_out(error, length - size)
            return None

    def _leave_out(self, error: Exception, rest: int) -> None:
        self._reader.skip(rest)  # the message itself was whole
        self._fault(f"a frame that cannot be read is left out: {error}")

    def _pixels(self) -> NDArray[np.generic]:
        if self._spare is None:
            # Buffers come back in their order: that of a frame that is cut is the next one's.
            self._taking = True
            self._spare = self._buffers.take()
            self._taking = False
        pixels = self._spare
        try:
            self._reader.fill(pixels.reshape(-1).view(np.uint8).data)
        except ConnectionCut:
            self._count.take_back()  # it is lost, as the next one will say
            raise
        self._spare = None
        return pixels

    # --- what goes wrong ------------------------------------------------------------------------

    def _mend(self, error: ConnectionCut | FramingLost) -> bool:
        """Connect anew where that may help; False when it is over."""
        if self._closed.is_set():
            return False
        at = f"after frame {self._count.index or 0}"
        if isinstance(error, ConnectionCut) and self._quiet_s is not None:
            if error.in_message:
                self._fault(f"the last frame, {at}, was cut and is lost")
            return False
        if isinstance(error, ConnectionCut) and not self._reconnects:
            raise CameraLost(
                f"{self._name}: {error} {at}; the Merlin software or the network between has "
                "gone. All frames until then are recorded"
            ) from error
        if isinstance(error, FramingLost):
            self.framing_lost += 1
        self._failed += 1
        if self._failed > TRIES:
            lost = FramingLost if isinstance(error, FramingLost) else CameraLost
            raise lost(f"{self._name}: {error} {at}, {TRIES} connections in a row") from error
        self._fault(f"{error} {at}; connecting again: what was on its way is lost")
        return self._connect_again(at)

    def _connect_again(self, at: str) -> bool:
        self._selector.unregister(self._socket)
        self._socket.close()
        for attempt in range(TRIES):
            # Not a wait for luck: a detector's PC takes a moment to listen again.
            if self._closed.wait(RETRY_S * attempt):
                return False
            with suppress(OSError):
                self._socket = self._connect()
                self._reader = MessageReader(self._socket)
                self._selector.register(self._socket, selectors.EVENT_READ)
                return True
        raise CameraLost(
            f"{self._name}: the data port cannot be reached any more, {at}, {TRIES} times"
        )
