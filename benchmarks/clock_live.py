"""Two processes with clocks of their own, over loopback UDP through a proxy that delays.

    pip install -e ".[bench]"
    python benchmarks/clock_live.py [seconds]

The device is a process of its own, and so is the way to it. Both stamp with the computer's clock,
by the kernel where it does so; the device's stamps are then brought onto a virtual clock (20 ppm
fast, swinging), so the truth is known to the nanosecond. Both ways, light and heavy, are asked at
the same time: 8 questions each 2 s. All methods get the same exchanges.

A way whose two directions take unlike times on average, as real ones do, makes an error that
no exchange can see: it is in the bound and not in the sigma. So each way is shown twice, as it
is, and with each method's own constant part taken off.

liblsl's own time service finds its port by itself and cannot be led through the proxy: the real
one is asked on its own exchanges, over loopback without delays, beside ours on the same way. Both
its processes have one clock there, so its true offset is 0.
"""

import asyncio
import multiprocessing
import random
import sys
import time
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from benchmarks.clock_sync import RACED, race, show
from cameras.clock_wire import ClockClient, ClockServer
from mocks.clock_pair import EXCHANGE_DTYPE, VirtualClock
from mocks.udp_proxy import Delay, Path, steady
from mocks.udp_way import Way, carry

SECONDS, PROBES, EVERY_S, APART_S = 60.0, 8, 2.0, 0.064
PATIENCE_S = 0.5
CLOCK = VirtualClock(rate_ppm=20, thermal_ppm=0.25, thermal_s=300)


def bursts(least_s: float, jitter_s: float, queue_s: float, lasting_s: float = 4.0) -> Delay:
    """Return delays with queues that come in bursts, half of the time."""
    until, depth_s = 0.0, 0.0

    def delay(rng: random.Random) -> float:
        nonlocal until, depth_s
        if time.monotonic() > until:
            until = time.monotonic() + rng.expovariate(1 / lasting_s)
            depth_s = rng.expovariate(1 / queue_s) if depth_s == 0 else 0.0
        held_s = rng.expovariate(1 / depth_s) if depth_s > 0 else 0.0
        return least_s + rng.expovariate(1 / jitter_s) + held_s

    return delay


PATHS = {
    "light": lambda: Path(there=steady(0.0005, 0.0002), back=steady(0.0005, 0.0002)),
    "heavy": lambda: Path(there=bursts(0.0005, 0.001, 0.01), back=bursts(0.0005, 0.001, 0.01)),
}


def device(out: Connection) -> None:
    """Answer for as long as the process lives."""

    async def serve() -> None:
        server = await ClockServer.listen("127.0.0.1", 0, time.monotonic_ns)
        out.send(server.port)
        await asyncio.Event().wait()

    asyncio.run(serve())


def delays(out: Connection, port: int) -> None:
    """Delay what goes to the device; say at each word how many left late."""
    ways = tuple(
        Way(("127.0.0.1", port), PATHS[law](), seed=seed) for seed, law in enumerate(PATHS, 1)
    )
    out.send(tuple(way.port for way in ways))
    while not out.poll():
        carry(ways, time.monotonic() + 1.0)
    out.send(tuple((way.late, way.passed) for way in ways))


def lsl_outlet(out: Connection, name: str) -> None:
    """Offer a stream of liblsl, whose time service answers for as long as it is there."""
    import pylsl  # noqa: PLC0415 - its library may be missing

    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Clock", 1, 0, "float32", name))
    out.send(name)
    while True:
        outlet.push_sample([0.0])
        time.sleep(0.5)


async def ask(port: int, seconds: float, origin_ns: int) -> NDArray[np.void]:
    """Ask in waves; return the exchanges with a device whose clock is the virtual one."""
    client = await ClockClient.connect("127.0.0.1", port, time.monotonic_ns)
    rows, began = [], time.monotonic()

    async def once() -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await client.exchange()
        except TimeoutError:
            return
        rows.append((answer.t0_ns, answer.t1_ns, answer.t2_ns, answer.t3_ns))

    waves = 0
    while waves * EVERY_S < seconds:
        for probe in range(PROBES):
            due = began + waves * EVERY_S + probe * APART_S
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            await once()
        waves += 1
    client.close()
    found = np.sort(np.array(rows, EXCHANGE_DTYPE), order="t0_ns")
    for name in ("t0_ns", "t1_ns", "t2_ns", "t3_ns"):
        found[name] -= origin_ns
    for name in ("t1_ns", "t2_ns"):
        found[name] = CLOCK.shows(found[name])
    return found


def lsl_offsets(name: str, seconds: float) -> NDArray[np.float64]:
    """Return what the real liblsl says every 2 s, in ns; the truth is 0."""
    import pylsl  # noqa: PLC0415 - its library may be missing

    found = pylsl.resolve_byprop("source_id", name, 1, 10)
    inlet = pylsl.StreamInlet(found[0])
    inlet.open_stream(10)
    said, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        said.append(inlet.time_correction(10.0) * 1e9)
        time.sleep(EVERY_S)
    return np.array(said)


def start(
    target: object, *args: object
) -> tuple[multiprocessing.process.BaseProcess, object, Connection]:
    """Run a function in a process of its own; return it, the first that it says, and its line."""
    own, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=target,  # type: ignore[arg-type]
        args=(other, *args),
        daemon=True,
    )
    process.start()
    return process, own.recv() if own.poll(20) else None, own


async def gather(ports: tuple[int, ...], seconds: float, origin: int) -> list[NDArray[np.void]]:
    """Ask on all ways at once."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(port, seconds, origin)) for port in ports]
    return [task.result() for task in asked]


def main(seconds: float = SECONDS) -> None:
    """Print the figures of both ways, and of liblsl's own exchanges."""
    origin_ns = time.monotonic_ns()
    server, port, _ = start(device)
    way, ports, line = start(delays, port)
    outlet, name, _ = start(lsl_outlet, f"clock-{origin_ns}")
    try:
        assert isinstance(ports, tuple)
        assert isinstance(port, int)
        light, heavy, direct = asyncio.run(gather((*ports, port), seconds, origin_ns))
        line.send("enough")
        if line.poll(5):
            for law, (late, passed) in zip(PATHS, line.recv(), strict=True):
                print(f"{law}: {late} of {passed} datagrams left more than 50 us too late")
        for law, rows in (("light", light), ("heavy", heavy), ("direct", direct)):
            first, last = rows["t3_ns"][0] / 1e9, rows["t3_ns"][-1] / 1e9
            host_ns = np.round(np.arange(first + 10, last - 1, 0.1) * 1e9).astype(np.int64)
            run = race(rows, CLOCK.shows, host_ns)
            show(f"{law}, two processes, {len(rows)} exchanges", [run], RACED)
            run |= {name: run[name] - np.median(run[name]) for name in RACED}
            show(f"{law}, beside each method's own constant part", [run], RACED)
        if isinstance(name, str):
            said = lsl_offsets(name, min(seconds, 20.0))
            print(
                f"liblsl itself, loopback without delays: {np.sqrt(np.mean(said**2)) / 1e3:.1f} us "
                f"rms of {len(said)} answers (compare with 'direct')"
            )
        else:
            print("liblsl is not here, or does not start")
    finally:
        for process in (server, way, outlet):
            process.terminate()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
