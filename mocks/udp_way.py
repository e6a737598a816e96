"""A way for datagrams that is as late as it says, to a few microseconds.

An event loop wakes to the millisecond, and so does what it delays. Where clocks are compared the
delay must be the one that was drawn: here the kernel stamps what comes in, and the last moment
before something is due is waited for by looking at the clock, not by sleeping.
"""

import heapq
import itertools
import random
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from cameras.clock_wire import ask_for_stamps, receive_stamped
from mocks.udp_proxy import Path

SPIN_S = 0.0008  # a sleep that is longer than this may end late by that much
IDLE_S = 0.2
MAX_HELD = 4096
LATE_S = 0.000_05


@dataclass(slots=True)
class Way:
    """Stands in front of a UDP server, for one client; :meth:`carry` does the work.

    Parameters
    ----------
    server
        Address of the server.
    path
        What happens to datagrams.
    seed
        Of the delays and losses.
    """

    server: tuple[str, int]
    path: Path
    seed: int = 0
    passed: int = 0
    dropped: int = 0
    late: int = 0
    """How many left more than 50 us after they were due: the computer had other things to do."""
    near: socket.socket = field(init=False)
    _far: socket.socket = field(init=False)
    _client: Any = None
    _held: list[tuple[float, int, bytes, bool]] = field(default_factory=list)
    _count: "itertools.count[int]" = field(default_factory=itertools.count)
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)  # noqa: S311 - a simulation
        self.near = _socket()
        self.near.bind(("127.0.0.1", 0))
        self._far = _socket()
        self._far.connect(self.server)

    @property
    def port(self) -> int:
        """Where the client sends to."""
        return int(self.near.getsockname()[1])

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """What to wait for."""
        return self.near, self._far

    @property
    def due_s(self) -> float:
        """When the next datagram leaves, on the monotonic clock; infinity without one."""
        return self._held[0][0] if self._held else float("inf")

    def take(self) -> None:
        """Take in what has come, on both sides."""
        for end, there in ((self.near, True), (self._far, False)):
            while (got := receive_stamped(end)) is not None:
                data, address, wall_ns = got
                if there:
                    self._client = address
                if self.path.parted or self._rng.random() < self.path.lost:
                    self.dropped += 1
                    continue
                waited_s = 0.0 if wall_ns is None else (time.time_ns() - wall_ns) / 1e9
                came_s = time.monotonic() - min(max(waited_s, 0.0), IDLE_S)
                for _ in range(2 if self._rng.random() < self.path.doubled else 1):
                    delay = (self.path.there if there else self.path.back)(self._rng)
                    if len(self._held) < MAX_HELD:
                        heapq.heappush(self._held, (came_s + delay, next(self._count), data, there))

    def give(self) -> None:
        """Send what is due."""
        while self._held and (now_s := time.monotonic()) >= self._held[0][0]:
            due_s, _, data, there = heapq.heappop(self._held)
            self.late += now_s - due_s > LATE_S
            try:
                if there:
                    self._far.send(data)
                else:
                    self.near.sendto(data, self._client)
                self.passed += 1
            except OSError:
                self.dropped += 1  # nobody listens there

    def close(self) -> None:
        """Close both sides."""
        self.near.close()
        self._far.close()


def carry(ways: tuple[Way, ...], until_s: float) -> None:
    """Carry datagrams on all ways until a time on the monotonic clock.

    Parameters
    ----------
    ways
        All are served by the thread that calls.
    until_s
        When to return.
    """
    sockets = [end for way in ways for end in way.sockets]
    while (now_s := time.monotonic()) < until_s:
        due_s = min(way.due_s for way in ways)
        wait_s = min(due_s - SPIN_S - now_s, until_s - now_s, IDLE_S)
        if wait_s > 0:
            select.select(sockets, [], [], wait_s)
        for way in ways:
            way.take()
            way.give()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(0.0)
    ask_for_stamps(made)
    return made
