"""Lines over a VISA socket, in a third of the time that pyvisa-py takes.

pyvisa-py opens the socket, and all else goes through it. Its own read looks up attributes,
copies its buffer and counts its waiting time anew for every line, which takes longer than
the exchange; and where the other side has hung up, it is busy until the time is over.
"""

import select
import socket
import time
from typing import Any, Self

READ_BYTES = 64 * 1024
LOOK_OUT_NS = 150_000
END = b"\n"


class NoLine(Exception):
    """No whole line came in time."""


class SocketLines:
    """Asks lines over the socket of a session of pyvisa-py.

    Parameters
    ----------
    session
        Of pyvisa-py; what is read too much goes into its buffer, as if it had read it.
    link
        Its socket.
    """

    def __init__(self, session: Any, link: socket.socket) -> None:
        self._session, self._link = session, link
        self._quick = True  # the last reply was

    @classmethod
    def of(cls, session: Any) -> Self | None:
        """Return the lines of a session; None where it has no socket with a buffer of its own."""
        link = getattr(session, "interface", None)
        if isinstance(link, socket.socket) and hasattr(session, "_pending_buffer"):
            return cls(session, link)
        return None

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits that was read before: then a line may be asked here."""
        return not self._session._pending_buffer  # noqa: SLF001 - the library has no other door

    def ask(self, line: bytes, within_s: float) -> bytes:
        """Send a line and return the next one that comes, without its end.

        Raises
        ------
        NoLine
            Nothing, or only a part of a line, came in time; the part is dropped.
        OSError
            The link is gone.
        """
        self._link.sendall(line + END)
        asked_ns = time.perf_counter_ns()
        if self._quick:
            _look_out(self._link, asked_ns + LOOK_OUT_NS)
        found = self._next(within_s)
        self._quick = time.perf_counter_ns() - asked_ns < 2 * LOOK_OUT_NS
        while END not in found:
            found += self._next(within_s - (time.perf_counter_ns() - asked_ns) / 1e9)
        reply, _, more = found.partition(END)
        if more:
            self._session._pending_buffer.extend(more)  # noqa: SLF001
        return reply

    def _next(self, within_s: float) -> bytes:
        if not select.select((self._link,), (), (), max(within_s, 0.0))[0]:
            raise NoLine
        if not (data := self._link.recv(READ_BYTES)):
            raise ConnectionResetError("the instrument has hung up")
        return data


def _look_out(link: socket.socket, until_ns: int) -> None:
    """Look for a reply that comes at once: a thread that sleeps would be woken later."""
    while not select.select((link,), (), (), 0)[0]:
        if time.perf_counter_ns() >= until_ns:
            return
