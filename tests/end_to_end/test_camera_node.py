"""A whole run that a camera node films from a process of its own: nothing is lost."""

import asyncio
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import numpy as np
import pytest

from cameras.errors import CameraLost
from mocks.udp_proxy import Path as NetworkPath
from mocks.udp_proxy import Proxy
from runner.conduct import run
from runner.control import Control, Wish
from runner.experiment import Experiment
from runner.plan import ExitCode
from session import Session
from session.calibration_file import write_calibration
from session.validate import validate
from tests.runner.brokers import broker, free_port, until
from tests.runner.test_node import config, filmed, on_bus

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

PLAN = """
title = "a run that a node films"
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
node = "merlin"
frame_rate = "50 Hz"
pixel_size = "8 nm"
dose_rate = "0.01 e/angstrom^2/s"
[bus]
broker = "127.0.0.1:{port}"
lab = "em2"
command_key_file = "commands.key"
[limits]
voltage = ["2.5 V", "4.3 V"]
current = "100 pA"
charge = "8 nC"
dose = "{dose} e/angstrom^2"
[[step]]
ocv = {{ for = "1 s" }}
[[step]]
cp = {{ current = "5 pA" }}
until = ["V > 4.25 V", "t > 600 s"]
[[step]]
ocv = {{ for = "0.5 s" }}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "commands.key").write_bytes(b"k" * 32)
    (tmp_path / "commands.key").chmod(0o600)
    names = (
        *("capacitance_F", "capacitance_sigma_F", "conductance_S"),
        *("conductance_sigma_S", "dielectric_F", "dielectric_sigma_F"),
        *("dielectric_tau_s", "offset_A", "offset_sigma_A", "noise_A", "chi2"),
    )
    attributes = {**dict.fromkeys(names, 1e-12), "range_A": 1e-10, "source": "a test"}
    write_calibration(tmp_path / "holder.h5", attributes, {"voltage": np.zeros(3)})
    return tmp_path


def experiment(folder, port, dose=100):
    return Experiment.loads(PLAN.format(port=port, dose=dose), folder=folder)


class NodeProcess:
    """``lamella node camera`` in a process that can be killed and started anew."""

    def __init__(self, folder, bench, port):
        key = f'command_key_file = "{folder / "commands.key"}"'
        text = config(
            bench,
            folder / "frames",
            bus=on_bus(port, key),
            node='begin = "on command"',
            track='[[track]]\nname = "drift"\ntracker = "drift"',
        )
        self.path = folder / "node.toml"
        self.path.write_text(text)
        self.process = None

    async def start(self):
        self.process = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "runner.cli", "node", "camera", str(self.path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    async def end(self, how=signal.SIGINT):
        self.process.send_signal(how)
        await asyncio.to_thread(self.process.wait)


@asynccontextmanager
async def node_of(folder, bench, port):
    node = NodeProcess(folder, bench, port)
    await node.start()
    try:
        yield node
    finally:
        if node.process.poll() is None:
            await node.end()


def node_states(path):
    with Session.open(path) as session:
        return [e.data.get("state") for e in session.events() if e.kind == "node"]


def lost_readings(session):
    """Readings that are missing, and the longest time between two, in s."""
    rows = session.sample_columns()
    missing = sum(
        e.data["missing"] for e in session.events() if e.source == "guardian" and e.kind == "gap"
    )
    return missing, float(np.max(np.diff(rows["read_start_ns"]))) / 1e9


def compare_with_truth(table, truth, bound_ns):
    """Our times are the true ones within what they claim, and what the clocks' bounds allow."""
    true_ns = truth["t_start_ns"][np.searchsorted(truth["index"], table["index"])]
    error_ns = (table["t_start_ns"] - true_ns).astype(float)
    assert np.all(np.abs(error_ns) < 6 * table["t_sigma_ns"] + bound_ns)
    assert np.all(np.isfinite(table["t_sigma_ns"]))


def nothing_is_lost(folder, output, truth):
    assert validate(output) == []
    (kept,) = (folder / "frames").glob("run-merlin-*.h5")
    with Session.open(kept) as there, Session.open(output) as here:
        index = there.frame_table("camera")["index"]
        table = here.table("tracks/merlin")
        events = here.events()
        assert table["index"].tolist() == index.tolist()
        # The simulated camera drops some by itself, and its own counter tells.
        assert np.array_equal(np.diff(index) - 1, table["dropped_before"][1:])
        assert lost_readings(here)[0] == 0
        assert not [e for e in events if e.kind == "gap"]
        assert len(here.table("drift/merlin")) == len(index)
        assert len(here.table("frame_samples/merlin")) == len(index)
        clocks = ("merlin", "merlin.camera")
        bound_ns = sum(max(f.bound_ns for f in here.clock_fits(name)) for name in clocks)
        assert here.attributes("instrument/merlin")["height"] == 48
    # The broker died and came back; then the node was seen to go, and came back.
    broker_states = [e.data["state"] for e in events if e.kind == "broker"]
    assert "away" in broker_states
    assert broker_states[-1] == "back"
    assert "offline" in node_states(output)
    assert node_states(output)[-1] == "ready"
    compare_with_truth(table, truth, bound_ns)


async def test_the_run_goes_on_when_broker_and_network_fail_and_nothing_is_lost(
    folder, monkeypatch
):
    monkeypatch.setattr("runner.remote_run.FIND_S", 60.0)  # a busy machine starts programs slowly
    output, control, seen = folder / "run.h5", Control(), []
    async with (
        asyncio.timeout(280),
        broker(folder) as served,
        Proxy("127.0.0.1", served.port, NetworkPath()) as network,
        filmed() as bench,
        node_of(folder, bench, network.port),
    ):
        running = asyncio.create_task(
            run(
                experiment(folder, served.port),
                output=output,
                control=control,
                watcher=lambda s: seen.append((s.step, s.samples, s.frames)),
            )
        )

        async def more(*, readings=0, frames=0):
            _, before, filmed_before = seen[-1]
            await until(
                lambda: (
                    running.done()
                    or (seen[-1][1] >= before + readings and seen[-1][2] >= filmed_before + frames)
                )
            )

        await until(lambda: running.done() or (seen and seen[-1][0] == 1 and seen[-1][2] >= 10))
        await served.kill()
        await more(readings=20)  # the experiment goes on
        await served.start()
        await more(frames=20)  # and the node has come back by itself
        network.part()
        network.cut()
        await asyncio.sleep(3)
        await more(readings=5)
        network.join()
        await more(frames=20)
        control.ask(Wish.STOP)
        summary = await running
        truth = bench.world.truth()["frames/camera"]
    assert summary.exit_code == ExitCode.INTERRUPTED
    assert summary.left_in == "S1"
    nothing_is_lost(folder, output, truth)


async def test_a_node_that_is_not_there_is_named_before_anything_is_opened(folder, monkeypatch):
    monkeypatch.setattr("runner.remote_run.FIND_S", 0.5)
    async with asyncio.timeout(60), broker(folder) as served:
        with pytest.raises(CameraLost, match="merlin is not there"):
            await run(experiment(folder, served.port), output=folder / "run.h5")
        with pytest.raises(CameraLost, match="the broker at 127.0.0.1:.* is away"):
            await run(experiment(folder, free_port()), output=folder / "run.h5")
    assert not (folder / "run.h5").exists()
