"""Frames a second from a Merlin detector's socket to whoever takes them, without a loss.

    python benchmarks/merlin_400fps.py [--rate 400] [--seconds 15] [--depth 6] [--size 1024]

A process of its own sends frames that it made before, with true headers and a true counter,
at a paced rate; a frame whose time has passed is sent late and never left out. The driver is
what a run uses. What it yields is counted and let go, by the event loop of this process, whose
lag is measured beside it: by how much a sleep of 5 ms is late.

Printed are the rate, the frames lost by the counter, how unevenly they arrive (each against
its place in a perfect row), the lag, what each frame costs this process, and how late the
sender itself was: where that is not small, the machine is too slow to ask this of.
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cameras.drivers.merlin import MerlinCamera
from cameras.records import Frame
from mocks.merlin import PIXELS_OF_DEPTH
from mocks.merlin_wire import framed, mib_header, stamp_text

DIFFERENT = 16  # frames that were made before
LAG_S = 5e-3
START_NS = 1_767_225_600_000_000_000


def noise(size: int) -> Iterator[np.ndarray]:
    """Yield pictures of counted electrons, with nothing to be seen in them."""
    rng = np.random.default_rng(1)
    for _ in range(DIFFERENT):
        yield rng.poisson(8, (size, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the detector does; ``pictures`` makes its frames before, of their size."""

    size: int
    depth: int
    rate_Hz: float
    frames: int
    pictures: Callable[[int], Iterator[np.ndarray]] = noise


def detector(job: Job, ports: "multiprocessing.Queue[object]") -> None:
    """Obey one client, and send what it asks for."""
    control, data = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    ports.put((control.getsockname()[1], data.getsockname()[1]))
    frames = list(_made_before(job))
    stream, _ = data.accept()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)
    client, _ = control.accept()
    variables = {
        "SOFTWAREVERSION": "1.6.1",
        "IMAGEX": str(job.size),
        "IMAGEY": str(job.size),
        "COUNTERDEPTH": str(job.depth),
        "ACQUISITIONPERIOD": f"{1000 / job.rate_Hz:.9g}",
    }
    stopped = threading.Event()
    sender: threading.Thread | None = None
    with client.makefile("rb") as commands:
        while prefix := commands.read(15):
            method, name, value = commands.read(int(prefix[4:14]) - 1).decode().split(",")
            if method == "SET":
                variables[name] = value
            elif name == "STARTACQUISITION":
                stream.sendall(framed(b"HDR,\r\nEnd\t"))
            elif name == "SOFTTRIGGER":
                sender = threading.Thread(target=_send, args=(job, stream, frames, stopped, ports))
                sender.start()
            elif name == "STOPACQUISITION":
                stopped.set()
            told = f",{variables[name]}" if method == "GET" else ""
            client.sendall(framed(f"{method},{name}{told},0".encode()))
    if sender is not None:
        sender.join()
    stream.close()


def _made_before(job: Job) -> Iterator[tuple[bytes, memoryview]]:
    code, dtype = PIXELS_OF_DEPTH[job.depth]
    header = mib_header(
        0,
        height=job.size,
        width=job.size,
        code=code,
        depth=job.depth,
        stamp_ns=START_NS,
        exposure_ns=round(1e9 / job.rate_Hz),
        chips=4,
    )
    for counts in job.pictures(job.size):
        yield header, memoryview(np.ascontiguousarray(counts.astype(dtype))).cast("B")


def _send(
    job: Job,
    stream: socket.socket,
    frames: list[tuple[bytes, memoryview]],
    stopped: threading.Event,
    told: "multiprocessing.Queue[object]",
) -> None:
    period_ns = round(1e9 / job.rate_Hz)
    begun_ns, late_ns, sent = time.monotonic_ns(), [], 0
    first = stamp_text(START_NS).replace(" ", "T").encode()
    for counter in range(1, job.frames + 1):
        due_ns = begun_ns + counter * period_ns
        if (wait_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(wait_ns / 1e9)
        if stopped.is_set():
            break
        late_ns.append(time.monotonic_ns() - due_ns)
        header, pixels = frames[counter % len(frames)]
        stamp = stamp_text(START_NS + counter * period_ns).replace(" ", "T").encode()
        head = (b"MQ1,%06d" % counter) + header[10:].replace(first, stamp)
        size = len(head) + len(pixels)
        parts = [b"MPX,%010d," % (size + 1), head, pixels]
        gone = stream.sendmsg(parts)
        if gone < size + 15:
            rest = memoryview(b"".join(parts))[gone:]
            stream.sendall(rest)
        sent += 1
    used = os.times()
    late_ms = np.percentile(late_ns, [50, 99, 100]) / 1e6
    told.put((sent, late_ms, used.user + used.system, begun_ns))


async def lag(lags_s: list[float]) -> None:
    """Measure how late the event loop is, until cancelled."""
    while True:
        begun_s = time.monotonic()
        await asyncio.sleep(LAG_S)
        lags_s.append(time.monotonic() - begun_s - LAG_S)


async def take(job: Job, ports: tuple[int, int]) -> None:
    """Take the frames, and print what was found."""
    camera = MerlinCamera(
        "127.0.0.1", now_ns=time.monotonic_ns, control_port=ports[0], data_port=ports[1]
    )
    index, arrival_ns, dropped, faults, lags_s = [], [], 0, [], []
    wrong_pixels = 0
    async with camera:
        measuring = asyncio.create_task(lag(lags_s))
        await camera.start()
        before = os.times()
        async for item in camera.frames():
            if not isinstance(item, Frame):
                faults.append(item.reason)
                continue
            index.append(item.info.index)
            arrival_ns.append(item.info.arrival_ns)
            dropped += item.info.dropped_before
            wrong_pixels += int(not 0 < int(item.pixels[0, 0]) + int(item.pixels[-1, -1]) < 80)
            if len(index) == job.frames:
                break
        after = os.times()
        measuring.cancel()
    cpu_s = after.user + after.system - before.user - before.system
    seconds = (arrival_ns[-1] - arrival_ns[0]) / 1e9
    place = np.array(index)
    arrival = np.array(arrival_ns, float)
    early = arrival - place * 1e9 / job.rate_Hz
    early_ms = (early - early.min()) / 1e6
    print(f"frames {len(index)} of {job.frames}, lost by the counter {dropped}, faults {faults}")
    print(f"pixels beyond what was sent: {wrong_pixels}")
    print(f"rate {(len(index) - 1) / seconds:.1f} /s over {seconds:.1f} s")
    say_in_ms("arrival after a perfect row", np.percentile(early_ms, [50, 99, 100]))
    say_in_ms("event loop late", np.percentile(np.array(lags_s) * 1e3, [50, 99, 100]))
    print(f"CPU {cpu_s / len(index) * 1e3:.2f} ms a frame, {cpu_s / seconds:.2f} of a core")


def asked_of(parser: argparse.ArgumentParser, *, seconds: float) -> tuple[argparse.Namespace, Job]:
    """Read the command line; return it, and what the detector shall do."""
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--depth", type=int, default=6, choices=(1, 6, 12))
    parser.add_argument("--size", type=int, default=1024)
    asked = parser.parse_args()
    frames = round(asked.rate * asked.seconds)
    return asked, Job(size=asked.size, depth=asked.depth, rate_Hz=asked.rate, frames=frames)


def say_in_ms(what: str, values_ms: np.ndarray) -> None:
    """Print three percentiles."""
    print("{}, ms: p50 {:.2f}, p99 {:.2f}, max {:.2f}".format(what, *values_ms))


def main() -> None:
    """Run it once."""
    _, job = asked_of(argparse.ArgumentParser(description=__doc__), seconds=15.0)
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[object] = context.Queue()
    process = context.Process(target=detector, args=(job, told))
    process.start()
    ports = told.get()
    before = os.getloadavg()[0]
    asyncio.run(take(job, ports))
    sent, late_ms, cpu_s, _ = told.get()
    process.join()
    say_in_ms(f"sent {sent}, the sender late", late_ms)
    print(f"sender CPU {cpu_s:.1f} s; load before {before:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
