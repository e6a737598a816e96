"""How time passes on the simulated bench: by itself, or only when an instrument works."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from typing import Protocol

from mocks.world import World

LOOK_S = 1e-3  # real seconds between two looks of who waits for something

Event = Callable[[int], Awaitable[None]]
"""Called with the time that it was due, when the world stands exactly there."""


class Pace(Protocol):
    """Time on the bench."""

    def now_ns(self) -> int:
        """Return what time it is, which the world may not have reached yet."""
        ...

    async def take(self, duration_ns: int) -> None:
        """Let an instrument work for a while."""
        ...

    async def take_until(self, reached: Callable[[], bool], longest_ns: int) -> None:
        """Let an instrument wait until something is so, or for a while."""
        ...

    def at(self, t_ns: int, event: Event) -> None:
        """Have an event when the world reaches ``t_ns``."""
        ...

    async def let_pass(self, enough: Callable[[], bool], *, at_most_ns: int) -> None:
        """Let an instrument that streams work until it is enough."""
        ...


class _Agenda:
    """Events in order of time."""

    def __init__(self) -> None:
        self._events: list[tuple[int, int, Event]] = []
        self._order = itertools.count()

    def add(self, t_ns: int, event: Event) -> None:
        heapq.heappush(self._events, (t_ns, next(self._order), event))

    def next_ns(self) -> int | None:
        return self._events[0][0] if self._events else None

    def pop_due(self, t_ns: int) -> tuple[int, Event] | None:
        if self._events and self._events[0][0] <= t_ns:
            due_ns, _, event = heapq.heappop(self._events)
            return due_ns, event
        return None


class LockstepPace:
    """Virtual time: it moves only while an instrument works.

    Parameters
    ----------
    world
        Moved by this pace alone.
    publish
        Told the new time whenever it moved, before anybody gets an answer.
    """

    def __init__(self, world: World, publish: Callable[[int], None]) -> None:
        self._world = world
        self._publish = publish
        self._agenda = _Agenda()
        self._moving = asyncio.Lock()
        publish(world.now_ns)

    def now_ns(self) -> int:
        """Return what time it is."""
        return self._world.now_ns

    def at(self, t_ns: int, event: Event) -> None:
        """Have an event when the world reaches ``t_ns``."""
        self._agenda.add(t_ns, event)

    async def take(self, duration_ns: int) -> None:
        """Move the world, with all events on the way in their order."""
        async with self._moving:
            await self._move(lambda: False, self._world.now_ns + duration_ns)

    async def take_until(self, reached: Callable[[], bool], longest_ns: int) -> None:
        """Move the world from event to event until one of them has done it."""
        async with self._moving:
            await self._move(reached, self._world.now_ns + longest_ns)

    async def _move(self, reached: Callable[[], bool], target_ns: int) -> None:
        while not reached():
            if (due := self._agenda.pop_due(target_ns)) is None:
                self._world.advance_to(target_ns)
                self._publish(self._world.now_ns)
                return
            due_ns, event = due
            self._world.advance_to(due_ns)
            self._publish(self._world.now_ns)
            await event(due_ns)

    async def let_pass(self, enough: Callable[[], bool], *, at_most_ns: int) -> None:
        """Move the world from event to event until it is enough."""
        end_ns = self._world.now_ns + at_most_ns
        while not enough():
            next_ns = self._agenda.next_ns()
            if next_ns is None or next_ns > end_ns:
                return
            await self.take(max(0, next_ns - self._world.now_ns))

    async def run(self) -> None:
        """Do nothing: virtual time has no time of its own."""


class RealPace:
    """Time that passes by itself, perhaps faster.

    Parameters
    ----------
    now_ns
        Host clock, already scaled.
    speed
        Virtual seconds in a real one.
    """

    def __init__(self, world: World, now_ns: Callable[[], int], speed: float) -> None:
        self._world = world
        self._now_ns = now_ns
        self._speed = speed
        self._agenda = _Agenda()
        self._added = asyncio.Event()

    def now_ns(self) -> int:
        """Return what time it is, which the world may not have reached yet."""
        return self._now_ns()

    def at(self, t_ns: int, event: Event) -> None:
        """Have an event when the world reaches ``t_ns``."""
        self._agenda.add(t_ns, event)
        self._added.set()

    async def take(self, duration_ns: int) -> None:
        """Wait, and bring the world to the present."""
        # Work is counted from where the world stands, which a late event has moved on.
        self._world.advance_to(self._now_ns())
        target_ns = self._world.now_ns + duration_ns
        while (left_ns := target_ns - self._now_ns()) > 0:  # noqa: ASYNC110 - a clock, not an event
            await asyncio.sleep(left_ns / 1e9 / self._speed)
        self._world.advance_to(self._now_ns())

    async def take_until(self, reached: Callable[[], bool], longest_ns: int) -> None:
        """Wait, looking now and then, and bring the world to the present."""
        until_ns = self._now_ns() + longest_ns
        while not reached() and self._now_ns() < until_ns:  # noqa: ASYNC110 - a clock, not an event
            await asyncio.sleep(LOOK_S)
        self._world.advance_to(self._now_ns())

    async def let_pass(self, enough: Callable[[], bool], *, at_most_ns: int) -> None:
        """Do nothing: this time passes without anybody's leave."""

    async def run(self) -> None:
        """Have each event when its time has come; never returns."""
        while True:
            next_ns = self._agenda.next_ns()
            now_ns = self._now_ns()
            if next_ns is not None and next_ns <= now_ns:
                due = self._agenda.pop_due(now_ns)
                if due is not None:
                    self._world.advance_to(now_ns)
                    await due[1](due[0])
                continue
            self._added.clear()
            wait_s = None if next_ns is None else (next_ns - now_ns) / 1e9 / self._speed
            try:
                async with asyncio.timeout(wait_s):
                    await self._added.wait()
            except TimeoutError:
                continue
