"""A helper process with a pipe, seen from asyncio."""

import asyncio
import multiprocessing
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


Entry = Callable[..., None]
INBOX_LENGTH = 256  # messages; whoever sends more than we take waits


class ProcessLost(Exception):
    """The other end of a pipe is gone."""


class PipedProcess:
    """One process and the pipe to it.

    Parameters
    ----------
    name
        For messages and for the process list.
    entry
        Module-level function, called as ``entry(connection, *arguments)``.
    arguments
        Picklable; no secrets.
    in_thread
        Run the entry in a thread of this process instead, where a machine or a test
        wants fewer processes.
    """

    def __init__(
        self, name: str, entry: Entry, *arguments: object, in_thread: bool = False
    ) -> None:
        self.name = name
        self._entry = entry
        self._arguments = arguments
        self._in_thread = in_thread
        self._worker: Any = None
        self._connection: Connection[Any, Any] | None = None
        self._inbox: asyncio.Queue[object] = asyncio.Queue()
        self._room = threading.Semaphore(INBOX_LENGTH)  # what bounds it
        # Writing to a pipe blocks, so a thread of its own does it.
        self._outbox: queue.Queue[object] = queue.Queue(maxsize=1024)
        self._lost = False

    async def start(self) -> None:
        """Start the process and begin to listen to it."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        if self._in_thread:
            self._worker = threading.Thread(
                target=self._run_in_thread, args=(theirs,), name=self.name, daemon=True
            )
            self._worker.start()
        else:
            self._worker = context.Process(
                target=self._entry, args=(theirs, *self._arguments), name=self.name
            )
            await asyncio.to_thread(self._worker.start)
            # Ours must be the only other end, or its death would go unnoticed.
            theirs.close()
        self._connection = ours
        loop = asyncio.get_running_loop()
        for target, arguments in ((self._listen, (loop, ours)), (self._speak, (ours,))):
            threading.Thread(
                target=target, args=arguments, name=f"{self.name} pipe", daemon=True
            ).start()

    @property
    def pid(self) -> int | None:
        """Process number; None for a thread."""
        return getattr(self._worker, "pid", None)

    def _run_in_thread(self, connection: "Connection[Any, Any]") -> None:
        with connection:
            self._entry(connection, *self._arguments)

    def _listen(self, loop: asyncio.AbstractEventLoop, connection: "Connection[Any, Any]") -> None:
        with suppress(RuntimeError):  # the loop may be closed while we wait
            while True:
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    message = ProcessLost(f"the {self.name} process is gone")
                self._room.acquire()
                loop.call_soon_threadsafe(self._inbox.put_nowait, message)
                if isinstance(message, ProcessLost):
                    return

    def _speak(self, connection: "Connection[Any, Any]") -> None:
        while (message := self._outbox.get()) is not None:
            try:
                connection.send(message)
            except OSError:
                self._lost = True
                return

    def send(self, message: object) -> None:
        """Send a small message, without waiting.

        Raises
        ------
        ProcessLost
            The process is gone, or does not listen any more.
        """
        if self._connection is None:
            raise ProcessLost(f"the {self.name} process was not started")
        if self._lost:
            raise ProcessLost(f"the {self.name} process is gone")
        try:
            self._outbox.put_nowait(message)
        except queue.Full:
            raise ProcessLost(f"the {self.name} process does not listen") from None

    async def receive(self) -> object:
        """Return the next message.

        Raises
        ------
        ProcessLost
            The process is gone and has nothing more to say.
        """
        message = await self._inbox.get()
        if isinstance(message, ProcessLost):
            self._inbox.put_nowait(message)  # for the next one who asks
            raise message
        self._room.release()
        return message

    def kill(self) -> None:
        """End the process at once, even one that was stopped; a thread goes on."""
        if not self._in_thread and self._worker is not None:
            self._worker.kill()

    async def join(self, timeout_s: float) -> None:
        """Wait for the end of the process; end it when it does not come."""
        if self._worker is None:
            return
        await asyncio.to_thread(self._worker.join, timeout_s)
        if not self._in_thread and self._worker.is_alive():
            self._worker.kill()
            await asyncio.to_thread(self._worker.join, timeout_s)
        with suppress(queue.Full):
            self._outbox.put_nowait(None)
