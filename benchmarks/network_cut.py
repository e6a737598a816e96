"""A whole run with a camera node, a broker that is killed and a network that is cut: no loss.

    python benchmarks/network_cut.py [--cut 60] [--down 10] [--between 10]

A simulated camera, its node and the broker (a real mosquitto) are processes of their own. The
node reaches the broker through a proxy in user space. During the plan of a simulated 6430 in
real time the broker is ended by SIGKILL and started again after ``--down`` s; then every
connection of the node is broken and nothing passes for ``--cut`` s. Printed are the readings
and the frames that are missing in the session, by their numbers and against the node's own
file, the times from the return of broker and network to the node's next word in the session,
the events, and by how much the frames' times differ from the node's.
"""

import argparse
import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from mocks.udp_proxy import Path as NetworkPath
from mocks.udp_proxy import Proxy
from runner import Experiment, remote_run, run
from runner.clock import real_now_ns
from runner.control import Control, Wish
from runner.live_state import LiveState
from session import Session
from session.calibration_file import write_calibration

BROKER = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
LOOK_S = 0.02

PLAN = """
title = "a network that fails"
[cell]
stack = "Au | LiCoO2 | LiPON | Li | Cu"
width = "5 um"
depth = "2 um"
working = {{ material = "LiCoO2", thickness = "500 nm" }}
window = ["2.8 V", "4.2 V"]
[potentiostat]
driver = "keithley6430"
resource = "mock"
calibration = "holder.h5"
[camera]
driver = "node"
node = "far"
frame_rate = "5 Hz"
pixel_size = "0.8 nm"
dose_rate = "0.01 e/angstrom^2/s"
[bus]
broker = "127.0.0.1:{broker}"
command_key_file = "commands.key"
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
[[step]]
cp = {{ current = "5 pA" }}
until = ["V > 4.25 V", "t > 3600 s"]
[[step]]
ocv = {{ for = "1 s" }}
"""

NODE = """
[camera]
driver = "stream"
port = {camera}
[node]
name = "far"
keep = "frames"
frames_port = 0
clock_port = 0
begin = "on command"
[bus]
broker = "127.0.0.1:{network}"
command_key_file = "commands.key"
"""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare(folder: Path) -> None:
    """Write the key, and terms of a holder that nobody measured: to measure one takes minutes."""
    key = folder / "commands.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(32).hex().encode())
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S", "conductance_sigma_S"),
        *("dielectric_F", "dielectric_sigma_F", "dielectric_tau_s", "offset_A"),
        *("offset_sigma_A", "noise_A", "chi2"),
    )
    attributes: dict[str, float | str] = {
        **dict.fromkeys(names, 1e-12),
        "range_A": 1e-10,
        "source": "made up",
    }
    write_calibration(folder / "holder.h5", attributes, {"voltage": np.zeros(3)})


@asynccontextmanager
async def program(
    *words: str, how: int = signal.SIGINT
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for as long as the context lasts."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(how)
        await process.wait()


async def listens(port: int) -> None:
    """Return when something listens at a port."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(LOOK_S)
            continue
        writer.close()
        return


class Watch:
    """Sees the run go on."""

    def __init__(self) -> None:
        self.samples = self.frames = 0
        self._news = asyncio.Event()
        self.control, self.ended = Control(), asyncio.Event()

    def look(self, state: LiveState) -> None:
        """Take the state of the run."""
        self.samples, self.frames = state.samples, state.frames
        self._news.set()

    async def frames_more(self, count: int) -> None:
        """Return when so many more frames were told."""
        wanted = self.frames + count
        while self.frames < wanted:
            self._news.clear()
            await self._news.wait()


async def fail_and_return(
    asked: argparse.Namespace, watch: Watch, network: Proxy, broker: tuple[str, ...], port: int
) -> list[tuple[str, int]]:
    """Kill the broker, then cut the network; return when each was there again."""
    again: list[tuple[str, int]] = []
    async with program(*broker) as first:
        await listens(port)
        await watch.frames_more(1)
        await asyncio.sleep(asked.between)
        first.kill()
    before = watch.samples
    await asyncio.sleep(asked.down)
    print(f"broker killed for {asked.down:g} s: {watch.samples - before} readings meanwhile")
    async with program(*broker):
        await listens(port)
        again.append(("broker", real_now_ns()))
        await watch.frames_more(1)
        await asyncio.sleep(asked.between)
        network.part()
        network.cut()
        before = watch.samples
        await asyncio.sleep(asked.cut)
        print(f"network cut for {asked.cut:g} s: {watch.samples - before} readings meanwhile")
        network.join()
        again.append(("network", real_now_ns()))
        await watch.frames_more(1)
        await asyncio.sleep(asked.between)
        watch.control.ask(Wish.STOP)
        await watch.ended.wait()
    return again


async def show(asked: argparse.Namespace, folder: Path) -> list[tuple[str, int]]:
    """Run it; return when broker and network were there again."""
    prepare(folder)
    remote_run.FIND_S = 60.0  # programs start slowly on a busy machine
    camera, port = free_port(), free_port()
    lamella = (sys.executable, "-m", "runner.cli")
    conf, node_file = folder / "broker.conf", folder / "node.toml"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    watch = Watch()
    async with (
        program(*lamella, "mock", "camera", "--port", str(camera)),
        Proxy("127.0.0.1", port, NetworkPath()) as network,
    ):
        await listens(camera)
        node_file.write_text(NODE.format(camera=camera, network=network.port))
        experiment = Experiment.loads(PLAN.format(broker=port), folder=folder)
        async with (
            program(*lamella, "node", "camera", str(node_file)),
            asyncio.TaskGroup() as group,
        ):
            broker = (BROKER, "-c", str(conf))
            failing = group.create_task(fail_and_return(asked, watch, network, broker, port))
            summary = await run(
                experiment,
                output=folder / "run.h5",
                control=watch.control,
                watcher=watch.look,
            )
            watch.ended.set()
    print(f"the run: {summary.exit_reason}; cell left in {summary.left_in}")
    return failing.result()


def tell(folder: Path, again: list[tuple[str, int]]) -> None:
    """Print what session and node have."""
    (kept,) = (folder / "frames").glob("*.h5")
    with Session.open(folder / "run.h5") as here, Session.open(kept) as there:
        events = here.events()
        rows, table, own = (
            here.sample_columns(),
            here.table("tracks/far"),
            there.frame_table("camera"),
        )
        counters = here.attributes("queues/node.far")
    lost = sum(
        int(str(e.data["missing"])) for e in events if (e.kind, e.source) == ("gap", "guardian")
    )
    gaps_s = np.diff(rows["read_start_ns"]) / 1e9
    print(
        f"readings {len(rows['t_ns'])}, lost {lost}, longest time between two {gaps_s.max():.3f} s"
    )
    missing = set(own["index"].tolist()) - set(table["index"].tolist())
    twice = len(table["index"]) - len(np.unique(table["index"]))
    by_camera = int(own["dropped_before"][1:].sum())
    unseen = int((np.diff(table["index"]) - 1).sum()) - by_camera
    print(f"frames {len(table['index'])}, lost {len(missing)}, twice {twice}")
    print(
        f"frames that the camera itself dropped {by_camera}, numbers missing beside them {unseen}"
    )
    for what, t_ns in again:
        told = next(e.t_ns for e in events if e.kind == "remote_frames" and e.t_ns > t_ns)
        print(
            f"{what} there again: the next headers in the session after {(told - t_ns) / 1e9:.2f} s"
        )
    for event in events:
        if event.kind in ("broker", "node", "gap", "clock_path"):
            print(f"  {(event.t_ns - events[0].t_ns) / 1e9:8.2f} s  {event.kind}: {event.message}")
    print("events", dict(Counter(e.kind for e in events)))
    print("counters", {k: v for k, v in counters.items() if k != "NX_class"})
    # Both clocks are this computer's, so that both files must agree.
    error_us = (table["t_start_ns"] - own["t_start_ns"]) / 1e3
    print(
        f"times here against the node's: rms {np.sqrt(np.mean(error_us**2)):.0f} us, largest "
        f"{np.abs(error_us).max():.0f} us, sigma {np.median(table['t_sigma_ns']) / 1e3:.0f} us"
    )


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cut", type=float, default=60.0, help="length of the cut, s")
    parser.add_argument("--down", type=float, default=10.0, help="time without a broker, s")
    parser.add_argument("--between", type=float, default=10.0, help="time between both, s")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        again = asyncio.run(show(asked, folder))
        tell(folder, again)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
