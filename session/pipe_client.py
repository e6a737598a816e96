"""The client's end of the recorder's pipe: blocking calls on two threads of its own."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from session.errors import RecorderLost
from session.messages import Failed, FromRecorder, ToRecorder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# The threads end as soon as the recorder has closed its end.
_JOIN_S = 5.0


class PipeClient:
    """Sends to and hears from the recorder without blocking the event loop.

    Parameters
    ----------
    connection
        Our end; closed by `close`.
    on_reply
        Called on the event loop with each message from the recorder.
    on_lost
        Called on the event loop with the reason when the recorder fails or the pipe
        ends; the first call counts.
    """

    def __init__(
        self,
        connection: "Connection[Any, Any]",
        on_reply: Callable[[FromRecorder], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        # Each entry belongs to a caller that waits for it, so callers bound it.
        self._outbox: queue.SimpleQueue[tuple[ToRecorder, asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self._waiting: set[asyncio.Future[None]] = set()
        self._lost: str | None = None
        self._threads = [
            threading.Thread(target=target, name=f"recorder {name}", daemon=True)
            for name, target in (("speak", self._speak), ("listen", self._listen))
        ]
        for thread in self._threads:
            thread.start()

    def post(self, message: ToRecorder) -> asyncio.Future[None]:
        """Put a message in line; the future is done when it has left this process.

        Raises
        ------
        RecorderLost
            The recorder is gone; the future raises it too.
        """
        self.check()
        sent: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(sent)
        sent.add_done_callback(self._waiting.discard)
        self._outbox.put((message, sent))
        return sent

    def check(self) -> None:
        """Raise `RecorderLost` when the recorder is gone."""
        if self._lost is not None:
            raise RecorderLost(self._lost)

    async def close(self) -> None:
        """End both threads and the pipe; the recorder must have closed its end."""
        self._outbox.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _JOIN_S)
        self._connection.close()

    def _speak(self) -> None:
        while (entry := self._outbox.get()) is not None:
            message, sent = entry
            try:
                self._connection.send(message)
            except OSError:
                # The pipe ended. The listening thread learns why, and tells all who
                # wait, this one too.
                continue
            else:
                self._on_loop(_set_done, sent)

    def _listen(self) -> None:
        while True:
            try:
                reply: FromRecorder = self._connection.recv()
            except (EOFError, OSError):
                self._on_loop(self._lose, "the recorder process is gone")
                return
            self._on_loop(self._on_reply, reply)
            if isinstance(reply, Failed):
                self._on_loop(self._lose, reply.text)

    def _on_loop(self, call: Callable[..., None], argument: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, argument)

    def _lose(self, why: str) -> None:
        if self._lost is not None:
            return
        self._lost = why
        for sent in tuple(self._waiting):
            fail(sent, RecorderLost(why))
        self._on_lost(why)


def fail(future: asyncio.Future[None], error: Exception) -> None:
    """End a future with an error that nobody is obliged to fetch."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
