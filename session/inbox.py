"""What was sent to the recorder and not written yet: readings and events do not wait for frames.

A disk that is slow holds up the thread that writes. Another one goes on taking messages from
the pipe, so that whoever sends readings is not held up, too; what waits here is written even
if the sender dies. Frames are bounded by their ring, all else by a count.
"""

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from session.messages import Finish, Flush, Frame, ToRecorder

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MOST_WAITING = 20_000
_LOOK_S = 0.05  # for the end, where nothing comes


class Inbox:
    """Takes messages from a pipe on a thread of its own.

    Messages are given in the order in which they were sent, but for frames: others pass
    them, and only what ends a stretch (`Flush`, `Finish`) waits for those sent before it.

    Parameters
    ----------
    connection
        Read from here only.
    """

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._frames: deque[tuple[int, Frame]] = deque()
        self._others: deque[tuple[int, ToRecorder]] = deque()
        self._count = 0
        self._high_water = 0
        self._ended = self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder inbox", daemon=True)
        self._thread.start()

    @property
    def counters(self) -> dict[str, int]:
        """Messages taken, lost (none ever is), and most that waited beside the frames."""
        with self._changed:
            return {"written": self._count, "dropped": 0, "high_water": self._high_water}

    def get(self, timeout_s: float) -> ToRecorder | None:
        """Return the next message; None when there was none for a while.

        Raises
        ------
        EOFError
            The pipe has ended and all that came through it was given.
        """
        with self._changed:
            self._changed.wait_for(self._has_something, timeout_s)
            if self._is_others_turn():
                message: ToRecorder = self._others.popleft()[1]
            elif self._frames:
                message = self._frames.popleft()[1]
            elif self._error is not None:
                raise self._error
            elif self._ended:
                raise EOFError
            else:
                return None
            self._changed.notify_all()
            return message

    def close(self) -> None:
        """End the thread; what waits still is given up."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _has_something(self) -> bool:
        return bool(self._frames or self._others or self._ended)

    def _is_others_turn(self) -> bool:
        if not self._others:
            return False
        number, message = self._others[0]
        waits = isinstance(message, Flush | Finish)
        return not (waits and self._frames and self._frames[0][0] < number)

    def _run(self) -> None:
        try:
            while not self._closing:
                if self._connection.poll(_LOOK_S):
                    message: ToRecorder = self._connection.recv()
                    self._put(message)
                    if isinstance(message, Finish):
                        return  # the last one: nobody sends after it
        except (OSError, EOFError):
            pass  # the other end was killed, perhaps in the middle of a message
        except BaseException as error:  # noqa: BLE001 - whoever asks for messages gets it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, message: ToRecorder) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or len(self._others) < MOST_WAITING)
            self._count += 1
            if isinstance(message, Frame):
                self._frames.append((self._count, message))
            else:
                self._others.append((self._count, message))
                self._high_water = max(self._high_water, len(self._others))
            self._changed.notify_all()
