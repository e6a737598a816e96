"""What the runner says to a guardian, heard by a thread: asking whether there is anything is quick.

To ask a pipe takes longer than a reading of a quick instrument.
"""

import queue
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from runner.messages import FromGuardian


class Incoming(Protocol):
    """Where messages come in; a pipe is one, too."""

    def poll(self, timeout: float = 0.0, /) -> bool:
        """Tell whether a message, or the end, is there within so many seconds."""
        ...

    def recv(self) -> object:
        """Return the next message; raise EOFError at the end."""
        ...


class _End:
    """The other side is gone."""


class Inbox:
    """Hears a pipe.

    Parameters
    ----------
    connection
        Only received from here.
    """

    def __init__(self, connection: "Connection[FromGuardian, object]") -> None:
        self._connection = connection
        self._heard: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._next: list[object] = []
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    def poll(self, timeout: float = 0.0, /) -> bool:
        """Tell whether a message, or the end, is there within so many seconds."""
        if not self._next:
            if timeout <= 0 and self._heard.empty():
                return False  # as nearly always
            try:
                self._next.append(self._heard.get(timeout > 0, timeout))
            except queue.Empty:
                return False
        return True

    def recv(self) -> object:
        """Return the next message; wait for it.

        Raises
        ------
        EOFError
            The other side is gone.
        """
        if not self._next:
            self._next.append(self._heard.get())
        if isinstance(self._next[0], _End):
            raise EOFError  # noqa: TRY004 - as a pipe says it
        return self._next.pop()

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._heard.put(_End())
                return
            self._heard.put(message)
