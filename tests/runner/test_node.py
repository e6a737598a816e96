"""A camera node with a simulated camera: broker killed, network cut, and no header lost."""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiomqtt
import numpy as np
import pytest

from cameras.drivers.stream import StreamCamera
from cameras.errors import CameraLost
from cameras.open_port import open_port
from mocks.bench import Bench
from mocks.pace import RealPace
from mocks.scenario import load
from mocks.world import World
from runner.bus_commands import CommandSigner
from runner.clock import real_now_ns
from runner.config_node import NodeSettings
from runner.node import CameraNode
from runner.remote_camera import RemoteCamera
from session.reader import Session
from session.recorder import Recorder
from session.records import SessionHeader
from session.validate import validate
from tests.runner.brokers import Proxy, address, broker, free_port, until

RATE_HZ = 50.0
SMALL = {"height": 48, "width": 120, "pixel_size_m": 8e-9, "frame_rate_Hz": RATE_HZ}


@asynccontextmanager
async def filmed(**overrides):
    """A simulated camera behind the frame stream, in real time."""
    world = World(load("lco_lipon_li", **(SMALL | overrides)), seed=3, start_ns=real_now_ns())
    async with Bench(world, RealPace(world, real_now_ns, 1.0)) as bench:
        yield bench


def config(bench, folder, *, bus="", node="", track=""):
    keep = "" if "keep" in node else f'keep = "{folder}"\n'
    return f"""
[camera]
driver = "stream"
port = {bench.camera_port}

[node]
name = "merlin"
frames_port = 0
clock_port = 0
{keep}{node}
{bus}
{track}
"""


def on_bus(port, more=""):
    return f'[bus]\nbroker = "127.0.0.1:{port}"\nlab = "em2"\n{more}\n'


@asynccontextmanager
async def serving(text):
    node = CameraNode(
        await asyncio.to_thread(NodeSettings.loads, text), in_process=True, first_pause_s=0.02
    )
    task = asyncio.create_task(node.run())
    try:
        yield node, task
    finally:
        node.end()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()


def run_header():
    return SessionHeader(
        title="a run",
        experiment_text="",
        start_time=datetime.now(UTC).isoformat(),
        host_start_ns=real_now_ns(),
        simulated=True,
    )


@asynccontextmanager
async def listening(path, served):
    async with (
        Recorder(path, run_header(), in_process=True) as recorder,
        RemoteCamera(
            address(served),
            node="merlin",
            recorder=recorder,
            now_ns=real_now_ns,
            first_pause_s=0.02,
        ) as remote,
    ):
        yield remote


def told_headers(path):
    """All headers in the events of a run's session."""
    with Session.open(path) as session:
        events = [e for e in session.events() if e.kind == "remote_frames"]
    return {
        name: np.concatenate([e.data[name] for e in events])
        for name in ("index", "t_start_ns", "device_start_ns", "exposure_ns")
    }


def node_frames(task):
    (path,) = task.result().recordings
    return path


async def test_no_header_is_lost_when_the_broker_dies_and_the_network_is_cut(tmp_path):
    here = tmp_path / "run.h5"
    async with (
        asyncio.timeout(80),
        broker(tmp_path) as served,
        Proxy(served) as network,
        filmed() as bench,
    ):
        text = config(bench, tmp_path / "frames", bus=on_bus(network.port))
        async with (
            listening(here, served) as remote,
            serving(text) as (node, task),
        ):
            await until(lambda: remote.counters.headers >= 10 and remote.clock_path == "mqtt")
            await served.kill()
            during = node._keeper.frames
            await until(lambda: node._keeper.frames >= during + 15)  # it films on
            await served.start()
            before = remote.counters.headers
            await until(lambda: remote.counters.headers >= before + 15)
            network.cut()
            network.partition()
            during = node._keeper.frames
            await until(lambda: node._keeper.frames >= during + 15)
            network.heal()
            before = remote.counters.headers
            await until(lambda: remote.counters.headers >= before + 15)
            node.end()
            await asyncio.wait([task])
            assert await remote.complete(30)
            assert remote.counters.missing == 0
            assert network.connections >= 3
    with Session.open(node_frames(task)) as kept:
        table = kept.frame_table("camera")
        assert kept.exit_reason == "stopped"
        told = told_headers(here)
        assert told["index"].tolist() == table["index"].tolist()
        assert told["device_start_ns"].tolist() == table["device_start_ns"].tolist()
        exchanges = kept.clock_exchanges("camera")
    assert task.result().frames == len(told["index"]) >= 40
    assert validate(node_frames(task)) == []
    with Session.open(here) as run:
        assert np.array_equal(run.clock_exchanges("merlin.camera"), exchanges)
        clock = run.clock_exchanges("merlin")
    assert len(clock) >= 1
    assert np.all(clock["t1_ns"] > clock["t0_ns"])  # both clocks are this computer's
    assert np.all(clock["t3_ns"] >= clock["t2_ns"])
    assert validate(here) == []


async def test_a_run_that_is_cut_off_asks_for_what_it_missed(tmp_path):
    here = tmp_path / "run.h5"
    async with (
        asyncio.timeout(80),
        broker(tmp_path) as served,
        Proxy(served) as network,
        filmed() as bench,
    ):
        text = config(bench, tmp_path / "frames", bus=on_bus(served.port))
        async with (
            listening(here, network) as remote,
            serving(text) as (node, task),
        ):
            await until(lambda: remote.counters.headers >= 5)
            network.cut()  # the broker throws away what it cannot deliver
            network.partition()
            during = node._outlet._cursor
            await until(lambda: node._outlet._cursor >= during + 5)
            network.heal()
            before = remote.counters.headers
            await until(lambda: remote.counters.headers >= before + 5)
            assert remote.counters.asked >= 1
            node.end()
            await asyncio.wait([task])
            assert await remote.complete(30)
    with Session.open(node_frames(task)) as kept:
        assert told_headers(here)["index"].tolist() == kept.frame_table("camera")["index"].tolist()
    assert task.result().counters["outlet"]["resends"] >= 1


async def test_what_the_spool_has_forgotten_becomes_a_gap(tmp_path):
    here = tmp_path / "run.h5"
    prefix = "lamella/em2/cameras/merlin"
    async with (
        asyncio.timeout(60),
        broker(tmp_path) as served,
        listening(here, served) as remote,
        aiomqtt.Client("127.0.0.1", served.port) as node,
    ):
        await remote.link.connected()

        async def say(number, oldest=0, epoch="e"):
            header = {name: [number] for name in ("index", "t_start_ns")}
            body = {"epoch": epoch, "number": number, "oldest": oldest, **header}
            await node.publish(f"{prefix}/frames", json.dumps(body), qos=1)

        await say(0)
        await say(1)
        await say(1)  # delivered twice
        await say(9, oldest=7)  # 2 to 6 are gone; 7 and 8 are asked for
        await say(7, oldest=7)
        await say(8, oldest=7)
        await say(9, oldest=7)
        await say(0, epoch="f")  # a new spool
        for nonsense in (b"", b"[]", b"{}", b'{"epoch": "f", "number": "x", "oldest": 0}'):
            await node.publish(f"{prefix}/frames", nonsense, qos=1)
        await until(lambda: remote.counters.unreadable == 4)
        assert remote.counters.missing == 5
        assert (remote.counters.again, remote.counters.out_of_turn) == (1, 1)
        assert remote.counters.asked == 1
    with Session.open(here) as session:
        kinds = [(e.kind, e.data.get("missing")) for e in session.events() if e.kind == "gap"]
        numbers = [e.data["number"] for e in session.events() if e.kind == "remote_frames"]
    assert kinds == [("gap", 5), ("gap", None)]
    assert numbers == [0, 1, 7, 8, 9, 0]


async def test_a_node_films_on_command_and_nothing_else_is_obeyed(tmp_path):
    key_file = tmp_path / "commands.key"
    key_file.write_bytes(b"k" * 32)
    key_file.chmod(0o600)
    async with asyncio.timeout(60), broker(tmp_path) as served, filmed() as bench:
        text = config(
            bench,
            tmp_path / "frames",
            bus=on_bus(served.port, f'command_key_file = "{key_file}"'),
            node='begin = "on command"',
        )
        async with (
            serving(text) as (node, task),
            aiomqtt.Client("127.0.0.1", served.port) as desk,
        ):
            await until(lambda: node._link is not None and node._link.is_up)
            topic = f"{node._link.address.prefix}/command"
            signer = CommandSigner(b"k" * 32, topic, sender="run", wall_ns=node._wall_ns)
            await desk.subscribe(f"{node._link.address.prefix}/reply", qos=1)
            answers = aiter(desk.messages)

            async def order(word, **arguments):
                message = json.dumps(signer.write(word, arguments))
                await desk.publish(topic, message, qos=1)
                return json.loads((await anext(answers)).payload)

            assert "does not film" in (await order("stop"))["reason"]
            assert "no command" in (await order("retract"))["reason"]
            assert (await order("start", session="day 1/../x"))["done"]
            await until(lambda: node._keeper is not None and node._keeper.frames >= 3)
            assert "already" in (await order("start"))["reason"]
            assert (await order("stop"))["done"]
            await until(lambda: node._keeper is None)
            await desk.publish(topic, b'{"command": "start", "signature": ""}', qos=1)
            assert "unsigned" in json.loads((await anext(answers)).payload)["reason"]
        (path,) = task.result().recordings
        assert path.startswith(f"{tmp_path / 'frames'}/day1x-merlin-")
        with Session.open(path) as kept:
            assert len(kept.frames("camera")) == task.result().frames >= 3


async def test_a_node_that_waits_for_a_command_ends_without_one(tmp_path):
    key_file = tmp_path / "commands.key"
    key_file.write_bytes(b"k" * 32)
    key_file.chmod(0o600)
    nobody = on_bus(free_port(), f'command_key_file = "{key_file}"')
    async with asyncio.timeout(60), filmed() as bench:
        text = config(bench, tmp_path / "frames", bus=nobody, node='begin = "on command"')
        async with serving(text) as (node, task):
            await until(lambda: node._outlet is not None)
        assert task.result().recordings == ()
        assert task.result().counters["bus"]["connects"] == 0


async def test_it_tracks_live_and_again_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.node_keep.CHUNK_FRAMES", 8)
    here = tmp_path / "run.h5"
    track = '[[track]]\nname = "drift"\ntracker = "drift"\n\n[[track]]\nname = "front"\n'
    async with asyncio.timeout(80), broker(tmp_path) as served, filmed() as bench:
        text = config(
            bench,
            tmp_path / "frames",
            bus=on_bus(served.port),
            track=track + 'tracker = "front"',
            node='film_thickness = "900 nm"',  # that is wrong, and will be said
        )
        async with listening(here, served) as remote, serving(text) as (node, task):
            await until(lambda: remote.counters.tracks >= 2)
            node.end()
            await asyncio.wait([task])
            assert await remote.complete(30)
    with Session.open(here) as run:
        told = [e.data for e in run.events() if e.kind == "remote_track"]
    with Session.open(node_frames(task)) as kept:
        drift = kept.table("drift/camera")
        index = kept.frame_table("camera")["index"]
        assert any("front" in e.message for e in kept.events() if e.kind == "not_tracked")
    final = [t for t in told if not t["provisional"] and "dx" in t]
    live = next(t for t in told if t["provisional"] and "columns" in t)
    assert np.concatenate([t["index"] for t in final]).tolist() == index.tolist()
    assert np.concatenate([t["dx"] for t in final]) == pytest.approx(drift["dx"], nan_ok=True)
    assert any(
        "900" in t.get("not_tracked", "") or "edges" in t.get("not_tracked", "") for t in told
    )
    truth = bench.world.truth()["drift/camera"]
    first = live["index"][0]
    for row, dx in zip(live["index"], live["columns"]["dx"], strict=True):
        moved = truth["dx"][row] - truth["dx"][0]
        assert dx == pytest.approx(moved, abs=0.5), (row, first)


# --- frames handed on --------------------------------------------------------------------


async def test_a_stream_camera_receives_what_a_node_streams_on(tmp_path):
    async with asyncio.timeout(60), filmed() as bench:
        async with serving(config(bench, "", node='keep = "stream"')) as (node, _):
            await until(lambda: node.frames_port)
            got = []
            async with StreamCamera("127.0.0.1", node.frames_port, now_ns=real_now_ns) as camera:
                answer = await camera.exchange_clock()
                assert answer.t0_ns <= answer.t1_ns <= answer.t2_ns <= answer.t3_ns
                await camera.start()
                async for frame in camera.frames():
                    got.append(frame)
                    if len(got) == 8:
                        await camera.stop()
                assert camera.info.dtype == "uint8"
                # A second client while one is served is turned away.
            again = StreamCamera("127.0.0.1", node.frames_port, now_ns=real_now_ns)
            await until(lambda: node_is_free(node))
            async with again as camera:
                await camera.start()
                await anext(camera.frames())
        truth = bench.world.truth()["frames/camera"]
        assert [f.info.index for f in got] == list(range(len(got)))
        for frame in got:
            true_ns = truth["t_start_ns"][truth["index"] == frame.info.index][0]
            # The camera's clock is seconds away; the node's is this computer's.
            assert abs(frame.info.device_start_ns - true_ns) < 50_000_000
            assert frame.pixels.shape == (48, 120)


def node_is_free(node):
    return node._server is not None and node._server.is_free


async def test_a_client_that_vanishes_ends_the_exposure_and_the_next_may_come(tmp_path):
    async with asyncio.timeout(60), filmed() as bench:
        async with serving(config(bench, "", node='keep = "stream"')) as (node, task):
            await until(lambda: node.frames_port)
            reader, writer = await asyncio.open_connection("127.0.0.1", node.frames_port)
            await reader.readline()
            writer.write(b"START\n")
            await reader.readline()
            second, busy = await asyncio.open_connection("127.0.0.1", node.frames_port)
            assert await second.read() == b""
            busy.close()
            writer.transport.abort()
            await until(lambda: node_is_free(node))
            assert not bench.camera._filming
        assert task.result().counters["stream"]["clients"] == 1


async def test_a_camera_that_is_not_there_ends_the_node_with_its_name(tmp_path):
    text = config(type("B", (), {"camera_port": free_port()}), tmp_path)
    async with asyncio.timeout(60):
        with pytest.raises(CameraLost, match="cannot be reached"):
            await CameraNode(await asyncio.to_thread(NodeSettings.loads, text)).run()


async def test_a_camera_that_is_lost_closes_the_file_and_is_told(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served, filmed() as bench:
        text = config(bench, tmp_path / "frames", bus=on_bus(served.port))
        async with serving(text) as (node, task):
            await until(lambda: node._keeper is not None and node._keeper.frames >= 3)
            prefix = node._link.address.prefix
            bench.camera._writer.transport.abort()
            await asyncio.wait([task])
            with pytest.raises(CameraLost):
                task.result()
            async with aiomqtt.Client("127.0.0.1", served.port) as viewer:
                await viewer.subscribe(f"{prefix}/status")
                state = json.loads((await anext(aiter(viewer.messages))).payload)
        assert state["state"] == "failed"
    (path,) = (tmp_path / "frames").glob("*.h5")
    with Session.open(path) as kept:
        assert kept.exit_reason.startswith("camera lost")
        assert len(kept.frames("camera")) >= 3


async def test_ports_that_are_taken_are_named(tmp_path):
    async with asyncio.timeout(60), filmed() as bench, open_port(lambda *_: None) as port:
        text = config(bench, "", node='keep = "stream"').replace(
            "frames_port = 0", f"frames_port = {port}"
        )
        with pytest.raises(CameraLost, match=f"{port} cannot be had"):
            await CameraNode(await asyncio.to_thread(NodeSettings.loads, text)).run()


@pytest.mark.slow
async def test_the_command_line_serves_a_node_until_ctrl_c(tmp_path):
    async with asyncio.timeout(80), filmed() as bench:
        path = tmp_path / "node.toml"
        port = free_port()
        text = config(bench, "", node='keep = "stream"')
        path.write_text(text.replace("frames_port = 0", f"frames_port = {port}"))
        process = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "runner.cli", "node", "camera", str(path), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            said = await asyncio.to_thread(process.stderr.readline)
            assert f"port = {port}" in said
            async with StreamCamera("127.0.0.1", port, now_ns=real_now_ns) as camera:
                await camera.start()
                await anext(camera.frames())
                process.send_signal(signal.SIGINT)
                out, err = await asyncio.to_thread(process.communicate)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert json.loads(out.splitlines()[-1])["frames"] >= 1
