"""The live view: what it costs a run, how quickly it shows it, and whether a page grows.

    python benchmarks/view.py [--minutes 2] [--browsers 1] [--viewers 3]

A plan of pulses is played twice in real time on the simulated bench, filmed at 10 frames a
second of 256 x 256: with nobody looking, and with three viewers, of which so many are pages in
headless Chromium and the others sockets that take all that they are sent. Printed are the
runner's CPU share in both, the blocks of traces and the frames that a viewer sees in a second, the
cut-off latency of the pulses (from the end of the reading to the new set-point), frames lost, how
full the recorder's ring was; and the page's memory after a collection of garbage, at start and end.
Half an hour of it: ``--minutes 30``. CPU shares and memory need Linux.
"""

import argparse
import http.client
import ipaddress
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from session import Session
from session.calibration_file import write_calibration

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.runner.browser import BROWSER, Page, browsed

WARM_S, ENDING_S = 10.0, 6.0

PLAN = """
title = "pulses to look at"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = {{ material = "LiCoO2", thickness = "500 nm" }}
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
nplc = 0.4
calibration = "holder.h5"
[camera]
driver = "mock"
frame_rate = "10 Hz"
pixel_size = "4 nm"
dose_rate = "0.01 e/angstrom^2/s"
height = 256
width = 256
[mock]
seed = 5
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "30 nC"
[[step]]
pulses = {{ current = "20 pA", on = "1 s", off = "1 s", count = {count} }}
until = ["V > 4.2 V"]
[[step]]
ocv = {{ for = "2 s" }}
"""


def _holder(path: Path) -> None:
    """Write terms of a holder that nobody measured: to measure one takes minutes."""
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S", "conductance_sigma_S"),
        *("dielectric_F", "dielectric_sigma_F", "dielectric_tau_s", "offset_A"),
        *("offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-15), "range_A": 1e-10, "source": "made up"}
    write_calibration(path, attributes, {"voltage": np.zeros(3)})


@contextmanager
def _running(folder: Path, name: str, minutes: float) -> Iterator[tuple[Any, str]]:
    """Run a plan; yield its process and the address of its view."""
    plan = folder / f"{name}.toml"
    plan.write_text(PLAN.format(count=round(30 * minutes + (WARM_S + ENDING_S) / 2)), "utf-8")
    words = ("run", plan.name, "-o", f"{name}.h5", "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "runner.cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stderr:
            if line.startswith("live view: "):
                break
        else:
            raise SystemExit(f"the run did not begin: {process.stdout.read()}")
        # What it says from here on must not fill its pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, line.split()[-1]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- who is answered, and whom the browser talks to ---------------------------------------


def _status(address: str, *, host: str = "") -> int:
    """Return how a request for a page is answered."""
    parts = urlsplit(address)
    link = http.client.HTTPConnection(parts.netloc, timeout=10)
    link.request("GET", parts.path, headers={"Host": host or parts.netloc})
    try:
        return link.getresponse().status
    finally:
        link.close()


def _socket_status(address: str, origin: str) -> int:
    """Return how a socket is answered; 101 for one that is taken."""
    parts = urlsplit(address)
    try:
        with connect(f"ws://{parts.netloc}{parts.path}live", origin=origin):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def _tell_refusals(address: str) -> None:
    parts = urlsplit(address)
    own = f"http://{parts.netloc}"
    wrong = f"{own}/{'x' * (len(parts.path) - 2)}/"
    told = {
        "right token": _status(address),
        "wrong token": _status(wrong),
        "no token": _status(f"{own}/"),
        "another host": _status(address, host="lamella.example"),
        "socket": _socket_status(address, own),
        "its wrong token": _socket_status(wrong, own),
        "its other origin": _socket_status(address, "http://lamella.example"),
    }
    print("  answers: " + ", ".join(f"{name} {status}" for name, status in told.items()))


def _sockets_of(profile: Path) -> set[str]:
    """Return the inodes of all sockets of the browser that has a profile."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(profile).encode() not in (folder / "cmdline").read_bytes():
                continue
            links = [str(fd.readlink()) for fd in (folder / "fd").iterdir()]
        except OSError:
            continue  # it has ended
        found |= {link[8:-1] for link in links if link.startswith("socket:[")}
    return found


def _beyond_loopback(profile: Path) -> set[str]:
    """Return the remote addresses of a browser's sockets that are not this computer."""
    inodes, found = _sockets_of(profile), set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            raw = bytes.fromhex(fields[2].partition(":")[0])
            # Words of four bytes, each in the order of this computer.
            words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
            remote = ipaddress.ip_address(b"".join(words))
            mapped = getattr(remote, "ipv4_mapped", None) or remote
            if fields[9] in inodes and not (mapped.is_loopback or mapped.is_unspecified):
                found.add(str(mapped))
    return found


def _has_ended(pages: list[Page]) -> bool:
    """Tell whether the run has ended before its time, as far as a page knows."""
    ended = [
        bool(page.value("lamella.status.ended || lamella.status.wish !== 'nothing'"))
        for page in pages
    ]
    for page in pages:
        page.events.clear()
    return any(ended)


@dataclass
class Watcher:
    """A viewer without a page: counts what it is sent."""

    address: str
    blocks: int = 0
    frames: int = 0
    status: int = 0

    def run(self) -> None:
        """Take all, to the end."""
        parts = urlsplit(self.address)
        url, origin = f"ws://{parts.netloc}{parts.path}live", f"http://{parts.netloc}"
        try:
            with connect(url, origin=origin, max_size=None) as wire:
                for message in wire:
                    is_text = isinstance(message, str)
                    self.frames += not is_text and message[0] == 3
                    self.blocks += not is_text and message[0] != 3
                    self.status += is_text and message.startswith('{"kind": "status"')
        except (ConnectionClosed, OSError):
            pass


def _memory(page: Page) -> dict[str, float]:
    """Return heap in MB, nodes and listeners of a page, after a collection of garbage."""
    page.call("HeapProfiler.collectGarbage")
    page.call("Performance.enable")
    told = {m["name"]: m["value"] for m in page.call("Performance.getMetrics")["metrics"]}
    page.events.clear()
    names = ("Nodes", "JSEventListeners")
    return {"heap_MB": told["JSHeapUsedSize"] / 1e6, **{name: told[name] for name in names}}


def _counted(page: Page) -> dict[str, float]:
    counted: dict[str, float] = page.value(
        "({blocks: lamella.blocks, frames: lamella.frames, drawn: lamella.drawn,"
        " charts: lamella.draws, points: lamella.points, now: performance.now() / 1000})"
    )
    return counted


def _rates(before: dict[str, float], after: dict[str, float]) -> str:
    lasted_s = after["now"] - before["now"]
    names = ("blocks", "charts", "frames", "drawn")
    return ", ".join(f"{name} {(after[name] - before[name]) / lasted_s:.1f}/s" for name in names)


@dataclass
class PageRecord:
    """What is taken of one page, before and half-way."""

    page: Page
    profile: Path
    memory: dict[str, float]
    counted: dict[str, float]
    half_way: tuple[float, float] = (0.0, 0.0)  # when, and heap in MB
    beyond: set[str] = field(default_factory=set)

    def look(self, *, is_half_way: bool) -> None:
        """Take note of its sockets, and once of its memory."""
        self.beyond |= _beyond_loopback(self.profile)
        if is_half_way and not self.half_way[0]:
            self.half_way = time.monotonic(), _memory(self.page)["heap_MB"]

    def tell(self, origin: str) -> None:
        """Print what it saw, how it grew, and where it asked."""
        print(f"  a page saw {_rates(self.counted, _counted(self.page))}")
        now, (half_s, heap) = _memory(self.page), self.half_way
        print(f"    memory before {_said(self.memory)}; after {_said(now)}")
        if half_s:
            per_hour = (now["heap_MB"] - heap) / (time.monotonic() - half_s) * 3600
            print(f"    heap grew by {per_hour:+.2f} MB an hour in the second half")
        urls = self.page.value("performance.getEntriesByType('resource').map(e => e.name)")
        strange = [url for url in urls if not url.startswith(f"{origin}/")]
        print(f"    fetched {len(urls)} files, from elsewhere: {', '.join(strange) or 'none'}")
        told = ", ".join(sorted(self.beyond)) or "none"
        print(f"    addresses beyond loopback that it had a socket to: {told}")


def play(folder: Path, name: str, *, minutes: float, viewers: int, browsers: int) -> None:
    """Play the plan with some viewers, and print what was seen."""
    load = os.getloadavg()[0]
    with _running(folder, name, minutes) as (process, address), ExitStack() as stack:
        if browsers:
            _tell_refusals(address)
        watchers = [Watcher(address) for _ in range(viewers - browsers)]
        threads = [threading.Thread(target=w.run, daemon=True) for w in watchers]
        for thread in threads:
            thread.start()
        profiles = [folder / f"{name}-{n}" for n in range(browsers)]
        pages = [stack.enter_context(browsed(address, profile)) for profile in profiles]
        for page in pages:
            page.call("Network.disable")  # which would be told of each message that is sent
        time.sleep(WARM_S)
        began_s, cpu_s, rss_mb = time.monotonic(), _cpu_s(process.pid), _resident_mb(process.pid)
        counts = [(w.blocks, w.frames) for w in watchers]
        records = [
            PageRecord(page, profile, _memory(page), _counted(page))
            for page, profile in zip(pages, profiles, strict=True)
        ]
        until_s = began_s + 60 * minutes - WARM_S
        while time.monotonic() < until_s and process.poll() is None and not _has_ended(pages):
            time.sleep(2.0)
            for record in records:
                record.look(is_half_way=time.monotonic() > (began_s + until_s) / 2)
        lasted_s = time.monotonic() - began_s
        share = 100 * (_cpu_s(process.pid) - cpu_s) / lasted_s
        print(f"{name}: {lasted_s:.0f} s, load before {load:.1f} on {os.cpu_count()} cores")
        grown = f"memory {rss_mb:.0f} MB, then {_resident_mb(process.pid):.0f} MB"
        print(f"  runner: {share:.1f} % of a core; {grown}")
        for watcher, (blocks, frames) in zip(watchers, counts, strict=True):
            seen = (watcher.blocks - blocks) / lasted_s, (watcher.frames - frames) / lasted_s
            print(f"  a socket saw {seen[0]:.1f} blocks/s, {seen[1]:.1f} frames/s")
        for record in records:
            record.tell(f"http://{urlsplit(address).netloc}")
        stack.close()
        summary = json.loads(process.communicate()[0].splitlines()[-1])
    _tell(folder / f"{name}.h5", summary)


def _said(memory: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in memory.items())


def _tell(path: Path, summary: dict[str, Any]) -> None:
    """Print what the session holds."""
    with Session.open(path) as session:
        kinds = ("segment_ended", "step_ended")
        found = [e.data["latency_ns"] / 1e6 for e in session.events() if e.kind in kinds]
        ring = session.attributes("queues/recorder.camera")
        gaps = [e.message for e in session.events() if e.kind in ("gap", "disk", "fault")]
    cuts = statistics.quantiles(found, n=100)
    print(f"  cut-offs {len(found)}: p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms")
    lost = f"{summary['frames']} stored, {summary['frames_dropped']} dropped by the camera"
    ring_text = f"ring: most in use {ring['high_water']} of {ring['slots']}, waits {ring['waits']}"
    print(f"  frames: {lost}; {ring_text}; gaps {gaps}")
    print(f"  readings {summary['samples']}; ended: {summary['exit_reason']}")


def main() -> None:
    """Play it without viewers and with some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--viewers", type=int, default=3)
    parser.add_argument("--browsers", type=int, default=1)
    parser.add_argument("--only-seen", action="store_true", help="leave the run alone out")
    asked = parser.parse_args()
    browsers = min(asked.browsers, asked.viewers) if BROWSER else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _holder(folder / "holder.h5")
        if not asked.only_seen:
            play(folder, "alone", minutes=asked.minutes, viewers=0, browsers=0)
        play(folder, "seen", minutes=asked.minutes, viewers=asked.viewers, browsers=browsers)


if __name__ == "__main__":
    main()
