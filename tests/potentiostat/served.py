"""A simulated instrument behind a socket, in a thread of its own."""

import asyncio
import threading

from cameras.open_port import open_port
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World


def world_of(*, scenario="lco_lipon_li", open_holder=False, **overrides):
    """Return a simulated cell at time zero, with what a test wants otherwise."""
    world = World(load(scenario, **overrides), seed=1, start_ns=0)
    if open_holder:
        world.open_holder()
    return world


class Served:
    """Serves ``simulator(world, pace)`` until ``stop``; the clock is where the cell has come to."""

    def __init__(self, simulator, **options):
        self.now = 0
        self.world = world_of(**options)
        self.pace = LockstepPace(self.world, self._publish)
        self.smu = simulator(self.world, self.pace)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def now_ns(self):
        return self.now

    def _publish(self, now_ns):
        self.now = now_ns

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with open_port(self._attend) as port:
            self.resource = f"TCPIP::127.0.0.1::{port}::SOCKET"
            self._ready.set()
            await self._stop.wait()

    async def _attend(self, reader, writer):
        while line := await reader.readline():
            reply = await self.smu.handle(line.decode().strip())
            if reply is not None:
                writer.write((reply if isinstance(reply, bytes) else reply.encode()) + b"\n")

    def run(self, work):
        """Run something at the instrument, such as what an operator does."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
