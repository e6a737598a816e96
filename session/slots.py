"""Which slots of a ring are free, and who holds the others; from any thread."""

import threading
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from session.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class RingCounters:
    """What a ring went through.

    Parameters
    ----------
    written
        Frames put in.
    waits
        Frames that had to wait for a free slot; none is ever lost here.
    high_water
        Most slots in use at one time.
    unused
        Slots that a source took and gave back without a frame.
    """

    slots: int
    written: int
    waits: int
    high_water: int
    unused: int = 0


class Slots:
    """Slots that are taken, perhaps lent to a source, sent to the recorder, released.

    A slot that was lent and sent has two holders: whoever can still see its pixels, and
    the recorder. It is free when both have let go, so that no frame changes under the
    eyes of somebody who looks at it.

    An array may end anywhere, also within a call to this class from the same thread, so
    what its end calls (`let_go`) takes no lock.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.on_free: Callable[[], None] = _nothing
        self._free: SimpleQueue[int | None] = SimpleQueue()
        for slot in range(count):
            self._free.put(slot)
        # One entry for each holder; who takes the last one, True, frees the slot.
        self._holders: list[list[bool]] = [[] for _ in range(count)]
        self._lent: set[int] = set()
        self._sent: deque[int] = deque()
        self._counting = threading.Lock()
        self._written = 0
        self._waits = 0
        self._high_water = 0
        self._lends = 0
        self._lends_sent = 0
        self._why_closed: SessionError | None = None

    @property
    def none_free(self) -> bool:
        """True when each slot has a holder."""
        return self._free.empty()

    @property
    def in_use(self) -> int:
        """Number of slots that have a holder."""
        return self.count - self._free.qsize()

    def take(self) -> int | None:
        """Return a free slot, or None when there is none."""
        self._check()
        try:
            return self._taken(self._free.get_nowait())
        except Empty:
            return None

    def wait(self) -> int:
        """Return a free slot; block until there is one.

        Raises
        ------
        SessionError
            `close` was called: there will be none.
        """
        slot = self.take()
        if slot is None:
            self.count_wait()
            slot = self._taken(self._free.get())
        return slot

    def lend(self, slot: int) -> None:
        """Note that somebody sees the pixels of a slot that was taken."""
        with self._counting:
            self._lends += 1
        self._lent.add(slot)

    def is_lent(self, slot: int) -> bool:
        """Tell whether a slot is with somebody who may still send it."""
        return slot in self._lent

    def send(self, slot: int) -> None:
        """Note that the recorder holds a slot; from one thread, whose order counts."""
        if slot in self._lent:
            self._lent.discard(slot)
            self._lends_sent += 1
            self._holders[slot].append(False)
        self._sent.append(slot)
        self._written += 1

    def release(self, count: int) -> None:
        """Take back the slots that the recorder has held longest."""
        for _ in range(count):
            self.let_go(self._sent.popleft())

    def let_go(self, slot: int) -> None:
        """Note that a holder of a slot is gone."""
        self._lent.discard(slot)
        if self._holders[slot].pop():
            self._free.put(slot)
            self.on_free()

    def count_wait(self) -> None:
        """Note that a frame had to wait for a slot."""
        with self._counting:
            self._waits += 1

    @property
    def counters(self) -> RingCounters:
        """All that was counted so far."""
        with self._counting:
            return RingCounters(
                slots=self.count,
                written=self._written,
                waits=self._waits,
                high_water=self._high_water,
                unused=self._lends - self._lends_sent - len(self._lent),
            )

    def close(self, why: SessionError) -> None:
        """End every wait for a slot, now and later, with an error; the first one counts."""
        if self._why_closed is None:
            self._why_closed = why
            self._free.put(None)
            self.on_free()

    def _taken(self, slot: int | None) -> int:
        if slot is None:
            self._free.put(None)  # for the next one who waits
            self._check()
            raise AssertionError("woken without a reason")
        self._holders[slot].append(True)
        with self._counting:
            self._high_water = max(self._high_water, self.in_use)
        return slot

    def _check(self) -> None:
        if self._why_closed is not None:
            raise type(self._why_closed)(*self._why_closed.args)


def _nothing() -> None:
    pass
