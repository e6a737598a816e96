"""Instruments on loopback: a scripted one, and the simulated bench in its own thread."""

import asyncio
import contextlib
import socket
import threading

import pytest

from mocks.bench import Bench
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

HANG_UP = object()


class WireInstrument:
    """Answers each line as the script says: text, None for silence, or HANG_UP."""

    def __init__(self, answer):
        self._answer = answer
        self.lines = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.resource = f"TCPIP::127.0.0.1::{self.port}::SOCKET"
        self._client = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        try:
            self._client, _ = self._listener.accept()
        except OSError:
            return
        with self._client, self._client.makefile("rb") as lines:
            try:
                for raw in lines:
                    line = raw.decode().rstrip("\n")
                    self.lines.append(line)
                    answer = self._answer(line)
                    if answer is HANG_UP:
                        return
                    if answer is not None:
                        self._client.sendall(
                            answer if isinstance(answer, bytes) else answer.encode()
                        )
            except OSError:
                return

    def stop(self):
        for end in (self._client, self._listener):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


class BenchThread:
    """The simulated bench, served from a thread with its own event loop."""

    def __init__(
        self, *, open_holder=False, driver="keithley6430", scenario="lco_lipon_li", **overrides
    ):
        self.now = 0
        self._driver = driver
        self.world = World(load(scenario, **overrides), seed=1, start_ns=0)
        if open_holder:
            self.world.open_holder()
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
        pace = LockstepPace(self.world, self._publish)
        async with Bench(self.world, pace, driver=self._driver) as bench:
            self.bench = bench
            self._ready.set()
            await self._stop.wait()

    @property
    def resource(self):
        return self.bench.smu_resource

    def wait_until_unattended(self):
        waiting = self.bench.wait_until_unattended(timeout_s=5)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result(10)

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


class Filming:
    """A client of the bench's camera that lets it film, and reads its frames away."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()
        self._socket.sendall(b"START\n")
        assert self._started.wait(10)

    def _drain(self):
        with contextlib.suppress(OSError):
            while piece := self._socket.recv(1 << 16):
                if b"started" in piece:
                    self._started.set()

    def stop(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def film():
    started = []

    def start(bench):
        started.append(Filming(bench.bench.camera_port))
        return started[-1]

    yield start
    for filming in started:
        filming.stop()


@pytest.fixture
def hang_up():
    return HANG_UP


@pytest.fixture
def serve():
    started = []

    def start(answer):
        started.append(WireInstrument(answer))
        return started[-1]

    yield start
    for instrument in started:
        instrument.stop()


@pytest.fixture
def start_bench():
    started = []

    def start(**options):
        started.append(BenchThread(**options))
        return started[-1]

    yield start
    for bench in started:
        bench.stop()
