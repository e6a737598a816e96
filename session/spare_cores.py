"""Tells whether work that could be left undone takes cores from somebody who needs them."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Work that waits for a core longer than this part of what it needs, and this, was in the way.
_MOST_WAITED = 0.5
_SLACK_S = 0.0003
_FIRST_REST_S = 0.02
_LONGEST_REST_S = 1.0


class SpareCores:
    """Watches work that is done in threads: when it had to wait for a core, others did, too.

    Then no more is to be begun for a while, which doubles each time up to a second and gets
    shorter with each piece that had a core for itself.

    Parameters
    ----------
    now_s
        Real time.
    spent_s
        What the calling thread has had of a core.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.perf_counter,
        spent_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._now_s, self._spent_s = now_s, spent_s
        self._changing = threading.Lock()
        self._rest_s = 0.0
        self._until_s = now_s()

    @property
    def are_there(self) -> bool:
        """False when the work was in somebody's way a short while ago."""
        return self._now_s() >= self._until_s

    @contextmanager
    def used(self) -> Iterator[None]:
        """Watch a piece of work of the calling thread that waits for nothing but a core."""
        begun_s, before_s = self._now_s(), self._spent_s()
        yield
        needed_s = self._spent_s() - before_s
        now_s = self._now_s()
        waited_s = now_s - begun_s - needed_s
        with self._changing:
            if waited_s <= _MOST_WAITED * needed_s + _SLACK_S:
                self._rest_s /= 2
                return
            self._rest_s = min(max(2 * self._rest_s, _FIRST_REST_S), _LONGEST_REST_S)
            self._until_s = now_s + self._rest_s


def spare_cores() -> SpareCores:
    """Return what watches them; on Windows, whose clock for it ticks 64 times a second, nobody."""
    if os.name == "nt":
        return SpareCores(spent_s=time.perf_counter)
    return SpareCores()
