"""Latency of a watched folder: from the file's renaming to the frame in hand.

    python benchmarks/folder_latency.py [files] [rounds]

Another process writes images of 1024 x 1024 pixels (1 MiB) under another name and renames
them, 400 a second. Three who watch take turns: the folder camera, whose frame comes with
its pixels; a bare watchdog handler; and a bare look at the folder every 5 ms. The bare
ones only learn the name, and read nothing.
"""

import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from watchdog.events import FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from cameras.drivers.folder import FolderCamera
from cameras.records import Frame
from mocks.folder_writer import encode

RATE_HZ = 400
SIDE = 1024
LOOK_S = 0.005
Seen = dict[str, int]


def write(folder: str, files: int, pipe: Connection) -> None:
    """Land the files at their times, and tell when each was renamed."""
    content = encode("tif", [np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)])
    renamed: Seen = {}
    pipe.recv()
    start_ns = time.monotonic_ns()
    for number in range(files):
        pause_ns = start_ns + number * 1_000_000_000 // RATE_HZ - time.monotonic_ns()
        time.sleep(max(pause_ns, 0) / 1e9)
        name = f"frame_{number:06}.tif"
        path = Path(folder, name + ".part")
        path.write_bytes(content)
        before_ns = time.monotonic_ns()
        path.replace(Path(folder, name))
        renamed[name] = before_ns
    pipe.send(renamed)


def watched_by_camera(folder: Path, files: int, begin: Callable[[], None]) -> tuple[Seen, Seen]:
    """Return when each frame was in hand, and the arrival that it carries."""
    in_hand: Seen = {}
    arrival: Seen = {}

    async def film() -> None:
        (folder / "test.tif").write_bytes(encode("tif", [np.zeros((SIDE, SIDE), np.uint8)]))
        camera = FolderCamera(folder, "*.tif", now_ns=time.monotonic_ns, frame_rate_Hz=RATE_HZ)
        async with camera, asyncio.timeout(files / RATE_HZ * 5 + 10):
            await camera.start()
            begin()
            async for each in camera.frames():
                if not isinstance(each, Frame):
                    print("  fault:", each.reason)
                    continue
                name = f"frame_{each.info.index:06}.tif"
                in_hand[name] = time.monotonic_ns()
                arrival[name] = each.info.arrival_ns or 0
                if len(in_hand) == files:
                    break

    try:
        asyncio.run(film())
    except TimeoutError:
        print("  some files were not seen in time")
    return in_hand, arrival


class Handler(FileSystemEventHandler):
    """Notes when the name of a file is told."""

    def __init__(self, files: int) -> None:
        self.seen: Seen = {}
        self.all = threading.Event()
        self._files = files

    def on_moved(self, event: FileSystemEvent) -> None:
        """Note one."""
        self.seen[Path(os.fsdecode(event.dest_path)).name] = time.monotonic_ns()
        if len(self.seen) == self._files:
            self.all.set()


def watched_by_watchdog(folder: Path, files: int, begin: Callable[[], None]) -> Seen:
    """Return when a bare handler was told of each file."""
    handler, observer = Handler(files), Observer()
    observer.schedule(handler, str(folder), event_filter=[FileMovedEvent])
    observer.start()
    begin()
    handler.all.wait(files / RATE_HZ * 5 + 10)
    observer.stop()
    observer.join()
    return handler.seen


def watched_by_looking(folder: Path, files: int, begin: Callable[[], None]) -> Seen:
    """Return when a look at the folder found each file."""
    seen: Seen = {}
    begin()
    end_ns = time.monotonic_ns() + round((files / RATE_HZ * 5 + 10) * 1e9)
    while len(seen) < files and time.monotonic_ns() < end_ns:
        time.sleep(LOOK_S)
        names = [each.name for each in os.scandir(folder) if each.name.endswith(".tif")]
        now_ns = time.monotonic_ns()
        for name in names:
            seen.setdefault(name, now_ns)
    return seen


def tell(who: str, seen: Seen, renamed: Seen) -> None:
    """Print one line."""
    found = sorted((seen[name] - at_ns) / 1e6 for name, at_ns in renamed.items() if name in seen)
    if len(found) < 2:
        print(f"  {who:32} saw {len(found)} of {len(renamed)}")
        return
    hundredths = statistics.quantiles(found, n=100)
    print(
        f"  {who:32} {len(found):5} of {len(renamed)}   p50 {hundredths[49]:7.2f}   "
        f"p99 {hundredths[98]:7.2f}   longest {found[-1]:7.2f}"
    )


def one_turn(who: str, files: int) -> None:
    """Let one watcher watch, and print what it saw."""
    with tempfile.TemporaryDirectory() as inside:
        folder = Path(inside)
        ours, theirs = multiprocessing.Pipe()
        writer = multiprocessing.Process(target=write, args=(inside, files, theirs))
        writer.start()

        def begin() -> None:
            ours.send("begin")

        if who == "camera":
            in_hand, arrival = watched_by_camera(folder, files, begin)
            renamed = ours.recv()
            tell("folder camera, frame in hand", in_hand, renamed)
            tell("folder camera, its arrival stamp", arrival, renamed)
        elif who == "watchdog":
            seen = watched_by_watchdog(folder, files, begin)
            renamed = ours.recv()
            tell("bare watchdog handler", seen, renamed)
        else:
            seen = watched_by_looking(folder, files, begin)
            renamed = ours.recv()
            tell("bare look every 5 ms", seen, renamed)
        writer.join()
        took_s = (max(renamed.values()) - min(renamed.values())) / 1e9
        print(f"    written at {(files - 1) / took_s:.0f} files a second")


def main() -> None:
    """Print the distributions, in ms."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    for each in range(rounds):
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(f"round {each + 1}: from renaming, in ms; {os.cpu_count()} cores{load}")
        for who in ("camera", "watchdog", "looking"):
            one_turn(who, files)


if __name__ == "__main__":
    main()
