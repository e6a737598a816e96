"""Frames a second from a DECTRIS stream: our driver beside a bare loop, in one run.

    pip install -e ".[dev]"
    python benchmarks/dectris_rate.py

A process of its own sends 512 x 512 images of 16 bits, Poisson of mean 2, packed with
bslz4 before the clock starts, as fast as they are taken. The bare loop is pyzmq, cbor2 and
dectris-compression as the maker's page shows them: receive, decode, unpack, one array a
message. The driver does that on its threads and, beside it, stamps each message on receipt,
checks counter, series, times, shape and type, and hands frames to the event loop; once as
they are, and once into buffers that the caller lends. Each is timed from its first frame to
its last, as often as `ROUNDS`; printed are the best and the median, and the processor time
of the receiving process for a frame.
"""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cbor2
import numpy as np
import zmq
from dectris.compression import decompress

from cameras.drivers.dectris import DectrisCamera
from cameras.options import ArmedBy, CameraOptions
from cameras.records import Frame
from mocks.dectris import DectrisServer
from mocks.dectris_wire import array_item, image_message, message
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ROUNDS, IMAGES, SIZE = 5, 1500, 512
BASE_HZ, PERIOD_TICKS = 50_000_000, 25_000

Measured = tuple[float, float]
"""Frames a second, and processor seconds a frame."""


def images(series_id: int) -> list[bytes]:
    """Return the messages of a series."""
    rng = np.random.default_rng(1)
    items = [array_item(rng.poisson(2, (SIZE, SIZE)).astype("<u2"), "bslz4") for _ in range(8)]
    date = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        image_message(
            series_id,
            i,
            (i * PERIOD_TICKS, (i + 1) * PERIOD_TICKS - 5),
            {"threshold_1": items[i % len(items)]},
            base_Hz=BASE_HZ,
            series_date=date,
        )
        for i in range(IMAGES)
    ]


def send(connection: "Connection[Any, Any]") -> None:
    """Serve a detector, and send a series for each word: the sending process."""
    asyncio.run(_send(connection))


async def _send(connection: "Connection[Any, Any]") -> None:
    scenario = load("lco_lipon_li", height=SIZE, width=SIZE, pixel_size_m=4e-9)
    world = World(scenario, seed=1, start_ns=0)
    server = DectrisServer(world, LockstepPace(world, lambda _: None))
    for name, value in (("mode", "enabled"), ("format", "cbor")):
        server.simplon.parameters[f"stream/config/{name}"].value = value
    packed = images(1)
    async with server:
        connection.send((server.port, server.data_port, len(packed[0])))
        while await asyncio.to_thread(connection.recv):
            await asyncio.to_thread(_series, server._push, packed)  # noqa: SLF001


def _series(push: Any, packed: list[bytes]) -> None:
    push.send(message("start", 1, channels=["threshold_1"]))
    for raw in packed:
        push.send(raw)
    push.send(message("end", 1))


def bare(ports: tuple[int, int], go: Callable[[], None]) -> Measured:
    """Receive with the maker's packages and nothing else."""

    def hook(first: Any, second: Any) -> Any:
        tag = first if isinstance(first, cbor2.CBORTag) else second
        if tag.tag == 56500:
            algorithm, size, content = tag.value
            return decompress(content, algorithm, elem_size=size)
        if tag.tag == 69:
            return np.frombuffer(tag.value, "<u2")
        if tag.tag == 40:
            shape, content = tag.value
            return content.reshape(shape)
        return tag

    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.connect(f"tcp://127.0.0.1:{ports[1]}")
        go()
        clock, count, began = Clock(), 0, False
        while True:
            found = cbor2.loads(socket.recv(), tag_hook=hook)
            if found["type"] == "end":
                return clock.measured(count)
            if found["type"] == "image":
                pixels = found["data"]["threshold_1"]
                assert pixels.shape == (SIZE, SIZE)
                count += 1
                if not began:
                    clock, began = Clock(), True


def driver(ports: tuple[int, int], go: Callable[[], None], *, lent: bool) -> Measured:
    """Receive with the driver."""

    class Buffers:
        """As many as a ring has, in turn."""

        def __init__(self) -> None:
            self._all = np.zeros((128, SIZE, SIZE), np.uint16)
            self._next = 0

        def take(self) -> Any:
            self._next += 1
            return self._all[self._next % len(self._all)]

    async def work() -> Measured:
        options = CameraOptions(
            port=ports[0], data_port=ports[1], armed_by=ArmedBy.MICROSCOPE, frame_rate_Hz=2000.0
        )
        camera = DectrisCamera(options, now_ns=time.monotonic_ns)
        buffers = Buffers() if lent else None
        async with camera:
            await camera.start()
            go()
            clock, count = Clock(), 0
            async for item in camera.frames(buffers):
                assert isinstance(item, Frame), item
                assert item.info.index == count
                count += 1
                if count == 1:
                    clock = Clock()
            return clock.measured(count)

    return asyncio.run(work())


class Clock:
    """Real time and the processor's, from now on."""

    def __init__(self) -> None:
        self._real, self._busy = time.perf_counter(), time.process_time()

    def measured(self, count: int) -> Measured:
        """Return what it took for so many frames, the first one being where it began."""
        assert count == IMAGES, count
        real_s = time.perf_counter() - self._real
        return (count - 1) / real_s, (time.process_time() - self._busy) / (count - 1)


def main() -> None:
    """Measure in turn, and print."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sender = context.Process(target=send, args=(theirs,), daemon=True)
    sender.start()
    port, data_port, size = ours.recv()
    ports = (port, data_port)

    def go() -> None:
        ours.send(1)

    ways: dict[str, Callable[[], Measured]] = {
        "pyzmq + cbor2 + dectris-compression": lambda: bare(ports, go),
        "our driver": lambda: driver(ports, go, lent=False),
        "our driver into lent buffers": lambda: driver(ports, go, lent=True),
    }
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            found[name].append(way())
    ours.send(None)
    sender.join(5)
    print(f"{IMAGES} images of {SIZE} x {SIZE} u16, bslz4, {size} bytes a message")
    reference = statistics.median(rate for rate, _ in found["pyzmq + cbor2 + dectris-compression"])
    for name, results in found.items():
        rates = [rate for rate, _ in results]
        busy_ms = statistics.median(busy for _, busy in results) * 1e3
        median = statistics.median(rates)
        print(
            f"{name:36s} best {max(rates):6.0f} fps, median {median:6.0f} fps "
            f"({median / reference:4.2f} of bare), {busy_ms:.2f} ms of processor a frame"
        )


if __name__ == "__main__":
    main()
