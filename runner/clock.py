"""The host clock: real, scaled, or virtual and moved by the simulated world.

One object is handed to everything that waits or stamps. A `ClockSpec` crosses to
other processes, where ``spec.reader()`` reads the same clock.
"""

import asyncio
import heapq
import itertools
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NowNs = Callable[[], int]

# On Windows the monotonic clock of Python before 3.13 steps by milliseconds.
real_now_ns: NowNs = time.perf_counter_ns if sys.platform == "win32" else time.monotonic_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSpec:
    """How to read the host clock of a run, in any of its processes.

    Parameters
    ----------
    origin_ns
        Real and virtual time agree at this stamp.
    speed
        Virtual seconds in a real one. 1 is the real clock.
    path
        File through which the simulated world publishes its time; None unless the
        clock is virtual.
    """

    origin_ns: int
    speed: float = 1.0
    path: str | None = None

    @property
    def lockstep(self) -> bool:
        """True when the simulated world moves the time."""
        return self.path is not None

    def reader(self) -> NowNs:
        """Return a function that reads this clock, in ns."""
        if self.path is not None:
            return SharedTime(Path(self.path)).now_ns
        if self.speed == 1.0:
            return real_now_ns
        origin_ns, speed = self.origin_ns, self.speed
        return lambda: origin_ns + int((real_now_ns() - origin_ns) * speed)


class SharedTime:
    """One integer in a small mapped file: the virtual time, for all processes."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        # A cast view moves all eight bytes at once; a reader never sees half a stamp.
        self._cell = memoryview(self._map).cast("q")

    @classmethod
    def create(cls, start_ns: int) -> tuple["SharedTime", Path]:
        """Make the file, set it to ``start_ns``, and return both."""
        handle, name = tempfile.mkstemp(prefix="lamella-clock-")
        with os.fdopen(handle, "wb") as file:
            file.write(b"\0" * 8)
        shared = cls(Path(name))
        shared.publish(start_ns)
        return shared, Path(name)

    def now_ns(self) -> int:
        """Read the virtual time."""
        return self._cell[0]

    def publish(self, t_ns: int) -> None:
        """Set the virtual time; the simulated world alone does this."""
        self._cell[0] = t_ns

    def close(self) -> None:
        """Let go of the mapping, so that Windows can delete the file."""
        self._cell.release()
        self._map.close()


class HostClock(Protocol):
    """What waits and stamps in the runner."""

    @property
    def spec(self) -> ClockSpec:
        """How other processes read this clock."""
        ...

    def now_ns(self) -> int:
        """Read the clock, in ns."""
        ...

    async def sleep_until(self, t_ns: int) -> None:
        """Wait until the clock shows ``t_ns``."""
        ...

    async def settle(self) -> None:
        """Return when every party that was due has gone on and waits again."""
        ...

    def party(self) -> AbstractContextManager[None]:
        """Announce a task whose waits hold virtual time."""
        ...


class RunningClock:
    """Time that passes by itself, at any finite speed."""

    def __init__(self, spec: ClockSpec) -> None:
        self._spec = spec
        self._read = spec.reader()

    @property
    def spec(self) -> ClockSpec:
        """How other processes read this clock."""
        return self._spec

    def now_ns(self) -> int:
        """Read the clock, in ns."""
        return self._read()

    async def sleep_until(self, t_ns: int) -> None:
        """Wait until the clock shows ``t_ns``."""
        while (left_ns := t_ns - self._read()) > 0:  # noqa: ASYNC110 - a clock, not an event
            await asyncio.sleep(left_ns / 1e9 / self._spec.speed)

    async def settle(self) -> None:
        """Return at once: nobody has to wait for a clock that runs by itself."""

    @contextmanager
    def party(self) -> Iterator[None]:
        """Do nothing: a clock that runs by itself waits for nobody."""
        yield


class LockstepClock:
    """Virtual time: it stands still until every party of the runner waits.

    The simulated world moves it while the instrument link waits for a reply. Between
    two readings the runner calls `settle`, which wakes the sleepers that are due and
    returns when all of them sleep again.
    """

    def __init__(self, spec: ClockSpec, shared: SharedTime) -> None:
        self._spec = spec
        self._shared = shared
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._awake = 0
        self._changed = asyncio.Event()

    @property
    def spec(self) -> ClockSpec:
        """How other processes read this clock."""
        return self._spec

    def now_ns(self) -> int:
        """Read the virtual time, in ns."""
        return self._shared.now_ns()

    @contextmanager
    def party(self) -> Iterator[None]:
        """Announce a task: while it is awake, time stands still."""
        self._count(+1)
        try:
            yield
        finally:
            self._count(-1)

    async def sleep_until(self, t_ns: int) -> None:
        """Wait until the world has moved to ``t_ns`` and `settle` is called."""
        if t_ns <= self.now_ns():
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (t_ns, next(self._order), woken))
        self._count(-1)
        try:
            await woken
        except asyncio.CancelledError:
            # Not woken by settle: this party is awake again only to leave.
            if woken.cancelled():
                self._count(+1)
            raise

    async def settle(self) -> None:
        """Wake whoever is due, and return when everybody sleeps again."""
        while True:
            while self._awake > 0:
                self._changed.clear()
                await self._changed.wait()
            due = False
            while self._sleepers and self._sleepers[0][0] <= self.now_ns():
                _, _, woken = heapq.heappop(self._sleepers)
                if not woken.cancelled():
                    self._count(+1)
                    woken.set_result(None)
                    due = True
            if not due:
                return

    def _count(self, change: int) -> None:
        self._awake += change
        self._changed.set()
