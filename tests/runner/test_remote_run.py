"""A node that a run orders: started, stopped, ordered again, and refused with the reason."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import aiomqtt
import pytest

from cameras.errors import CameraLost
from cameras.options import CameraOptions
from runner.bus_address import BusAddress
from runner.bus_commands import CommandGate
from runner.bus_link import BusLink
from runner.bus_security import BadCredentials, BusSecurity
from runner.clock import real_now_ns
from runner.instrument_settings import CameraSettings
from runner.remote_camera import RemoteCamera
from runner.remote_numbers import read_status
from runner.remote_orders import NodeOrders
from runner.remote_run import _missing, find_node, node_of_run
from session import Session
from session.recorder import Recorder
from tests.runner.brokers import broker, free_port, until
from tests.runner.test_node import config, filmed, on_bus, run_header, serving

KEY = b"k" * 32
PREFIX = "lamella/em2/cameras/merlin"
READY = {"state": "ready", "epoch": "e", "next": 0, "keeps": True, "on_command": True}


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "commands.key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


def mine(served, key_file, **changes):
    defaults = {"host": "127.0.0.1", "port": served.port, "lab": "em2", "session": "day 1"}
    security = BusSecurity(command_key_file=key_file)
    return BusAddress(**(defaults | {"security": security} | changes))


def camera():
    return CameraSettings(
        driver="node",
        frame_rate_Hz=50.0,
        pixel_size_m=8e-9,
        dose_rate_e_m2_s=1.0,
        height=48,
        width=120,
        options=CameraOptions(node="merlin", host=""),
    )


@asynccontextmanager
async def a_run(path, served, key_file):
    async with (
        Recorder(path, run_header(), in_process=True) as recorder,
        node_of_run(
            mine(served, key_file),
            camera(),
            recorder=recorder,
            now_ns=real_now_ns,
            first_pause_s=0.02,
        ) as node,
    ):
        yield node


class FakeNode:
    """Says what a test wants, and takes orders as a node would."""

    def __init__(self, client):
        self.client = client
        self.gate = CommandGate(KEY, f"{PREFIX}/command", wall_ns=lambda: 0)
        self.words = []
        self.answers = {}  # word to the reason why not; None for no answer

    async def say(self, **status):
        await self.client.publish(f"{PREFIX}/status", json.dumps(status), qos=1, retain=True)

    async def obey(self):
        await self.client.subscribe(f"{PREFIX}/command", qos=1)
        async for message in self.client.messages:
            text = json.loads(json.loads(message.payload)["command"])
            self.words.append(text["word"])
            why = self.answers.get(text["word"], "")
            if why is None:
                continue
            reply = {"id": text["id"], "done": not why, "reason": why}
            await self.client.publish(f"{PREFIX}/reply", json.dumps(reply), qos=1)
            if not why:
                films = text["word"] == "start"
                run = {"run": text["arguments"]["run"]} if films else {"run": ""}
                await self.say(**(READY | run | {"state": "filming" if films else "ready"}))


@asynccontextmanager
async def fake_node(served, **status):
    async with aiomqtt.Client("127.0.0.1", served.port) as client:
        node = FakeNode(client)
        if status:
            await node.say(**status)
        obeying = asyncio.create_task(node.obey())
        try:
            yield node
        finally:
            obeying.cancel()
            with suppress(asyncio.CancelledError):
                await obeying


@asynccontextmanager
async def armed(tmp_path, key_file):
    """A run that films with a node which says what a test wants."""
    status = READY | {"camera": {"model": "fake", "pixel_size_m": None}}
    async with (
        asyncio.timeout(60),
        broker(tmp_path) as served,
        fake_node(served, **status) as fake,
        a_run(tmp_path / "run.h5", served, key_file) as node,
    ):
        await node.arm(lambda *_: None)
        yield served, fake, node


def events_of(path, kind):
    with Session.open(path) as session:
        return [e for e in session.events() if e.kind == kind]


async def test_a_node_films_from_arming_to_the_end_and_tells_every_frame(tmp_path, key_file):
    here, seen = tmp_path / "run.h5", []
    bus = f'command_key_file = "{key_file}"'
    async with asyncio.timeout(80), broker(tmp_path) as served, filmed() as bench:
        text = config(
            bench, tmp_path / "frames", bus=on_bus(served.port, bus), node='begin = "on command"'
        )
        async with serving(text), a_run(here, served, key_file) as node:
            await find_node(mine(served, key_file), camera())
            await node.arm(lambda frames, dropped, lit_ns: seen.append((frames, lit_ns)))
            await until(lambda: sum(frames for frames, _ in seen) >= 10)
            assert await node.finish()
    (kept,) = (tmp_path / "frames").glob("day1-merlin-*.h5")
    with Session.open(kept) as there, Session.open(here) as session:
        told = [i for e in events_of(here, "remote_frames") for i in e.data["index"]]
        assert told == there.frame_table("camera")["index"].tolist()
        assert session.attributes("instrument/merlin")["width"] == 120
        assert session.attributes("queues/node.merlin")["headers"] == len(told)
    lit = [lit_ns for _, lit_ns in seen]
    assert lit == sorted(lit)
    assert lit[-1] > 0  # the dose counts on by the run's clock
    states = [e.data["state"] for e in events_of(here, "node")]
    assert states == ["ready", "filming", "tracking", "ready"]


async def test_a_node_that_was_started_anew_films_again_by_itself(tmp_path, key_file):
    here, seen = tmp_path / "run.h5", []
    bus = f'command_key_file = "{key_file}"'
    async with asyncio.timeout(80), broker(tmp_path) as served, filmed() as bench:
        text = config(
            bench, tmp_path / "frames", bus=on_bus(served.port, bus), node='begin = "on command"'
        )
        async with a_run(here, served, key_file) as run:
            async with serving(text) as (_, first):
                await run.arm(lambda frames, *_: seen.append(frames))
                await until(lambda: sum(seen) >= 5)
                first.cancel()  # without a goodbye
                await asyncio.wait([first])
            async with serving(text):
                before = sum(seen)
                await until(lambda: sum(seen) >= before + 5)
                assert await run.finish()
    told = [
        (e.data["recording"], i) for e in events_of(here, "remote_frames") for i in e.data["index"]
    ]
    assert len(told) == len(set(told)) == sum(seen)
    kept = sorted(path.name for path in (tmp_path / "frames").glob("day1-*.h5"))
    assert sorted({name for name, _ in told}) == kept
    assert len(kept) == 2
    assert any("ordered to film again" in e.message for e in events_of(here, "node"))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (READY | {"keeps": False}, 'driver = "stream"'),
        (READY | {"on_command": False}, 'begin = "on command"'),
        (READY | {"state": "filming", "recording": "a.h5"}, "films already, into a.h5"),
    ],
)
async def test_a_node_that_cannot_be_used_is_told_with_the_reason(tmp_path, key_file, status, says):
    async with asyncio.timeout(60), broker(tmp_path) as served, fake_node(served, **status) as node:
        with pytest.raises(CameraLost, match="merlin") as refused:
            await find_node(mine(served, key_file), camera())
    assert says in str(refused.value)
    assert node.words == []  # nothing was ordered


async def test_a_node_that_is_not_there_is_told_from_a_broker_that_is_not(tmp_path):
    link = BusLink(BusAddress(host="127.0.0.1", port=7, lab="em2", session="day 1"))
    assert "127.0.0.1:7 is away: it was not asked yet" in _missing("a/status", link, None)
    link._up.set()
    assert "nothing was ever said under a/status" in _missing("a/status", link, None)
    assert _missing("a/status", link, "offline") == "it is offline"


async def test_nonsense_for_a_status_is_no_status(tmp_path):
    for nonsense in (b"", b"[]", b"7", b"\xff", b"[" * 100_000):
        assert read_status(nonsense) == {}
    assert read_status(b'{"state": "ready"}') == {"state": "ready"}


async def test_a_start_that_is_refused_or_comes_to_nothing_is_an_error(tmp_path, key_file):
    async with asyncio.timeout(60), broker(tmp_path) as served, fake_node(served, **READY) as fake:
        fake.answers["start"] = "the disk is full"
        with pytest.raises(CameraLost, match="does not film: the disk is full"):
            async with a_run(tmp_path / "a.h5", served, key_file) as node:
                await node.arm(lambda *_: None)
        fake.answers["start"] = ""
        async with a_run(tmp_path / "b.h5", served, key_file) as node:
            await until(lambda: node._camera.status.get("state") == "ready")
            node._start_s = 0.3
            node._films = lambda: False
            with pytest.raises(CameraLost, match="was ordered to film, and does not"):
                await node.arm(lambda *_: None)
        assert fake.words == ["start", "start", "stop"]  # it may film all the same


async def test_a_node_that_lost_the_recording_is_ordered_again_until_it_films(
    tmp_path, key_file, monkeypatch
):
    monkeypatch.setattr("runner.remote_run.RETRY_S", 0.05)
    monkeypatch.setattr("runner.remote_run.LOOK_S", 0.05)
    here = tmp_path / "run.h5"
    async with armed(tmp_path, key_file) as (_, fake, node):
        fake.answers["start"] = "the disk is full"
        await fake.say(**READY)  # it was started anew
        await until(lambda: fake.words.count("start") >= 3)
        fake.answers["start"] = ""
        await until(node._films)
        assert await node.finish(20)
    texts = [e.message for e in events_of(here, "node")]
    assert any("does not film: the disk is full" in text for text in texts)
    assert any("ordered to film again" in text for text in texts)
    assert fake.words[-1] == "stop"


async def test_a_node_that_does_not_come_back_costs_a_gap_and_no_more(
    tmp_path, key_file, monkeypatch
):
    monkeypatch.setattr("runner.remote_run.RETRY_S", 0.05)
    monkeypatch.setattr("runner.remote_run.LOOK_S", 0.05)
    here = tmp_path / "run.h5"
    async with armed(tmp_path, key_file) as (_, fake, node):
        await fake.say(state="offline")
        await until(lambda: node._camera.status["state"] == "offline")
        assert not await node.finish(0.3)
    (gap,) = events_of(here, "gap")
    assert "did not come" in gap.message
    assert gap.data["state"] == "offline"


async def test_tracks_that_do_not_come_in_time_are_told_as_such(tmp_path, key_file):
    here = tmp_path / "run.h5"
    async with armed(tmp_path, key_file) as (_, fake, node):
        await fake.say(**(READY | {"state": "tracking"}))
        await until(lambda: node._camera.status["state"] == "tracking")
        assert not await node.finish(0.3)
    (gap,) = events_of(here, "gap")
    assert "tracks of merlin did not come" in gap.message


async def test_a_run_that_fails_tells_the_node_to_end(tmp_path, key_file):
    words = []

    async def fail():
        async with armed(tmp_path, key_file) as (_, fake, _node):
            words.append(fake.words)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert words == [["start", "stop"]]


async def test_the_last_messages_are_asked_for_until_they_come(tmp_path, key_file, monkeypatch):
    monkeypatch.setattr("runner.remote_camera.ASK_AGAIN_S", 0.05)
    asked = []
    async with (
        armed(tmp_path, key_file) as (served, fake, node),
        aiomqtt.Client("127.0.0.1", served.port) as spy,
    ):
        await spy.subscribe(f"{PREFIX}/resend", qos=1)
        await fake.say(**(READY | {"state": "ended", "next": 1}))
        finishing = asyncio.create_task(node.finish())
        async for message in spy.messages:
            asked.append(json.loads(message.payload))
            if len(asked) == 3:  # the first two were lost
                break
        header = {"epoch": "e", "number": 0, "oldest": 0, "index": [5], "dropped_before": [0]}
        await fake.client.publish(f"{PREFIX}/frames", json.dumps(header), qos=1)
        assert await finishing
    assert asked == [{"epoch": "e", "first": 0}] * 3


async def test_an_order_that_nobody_answers_is_lost(tmp_path, key_file):
    async with asyncio.timeout(60), broker(tmp_path) as served, fake_node(served) as fake:
        fake.answers["start"] = None
        async with Recorder(tmp_path / "a.h5", run_header(), in_process=True) as recorder:
            address = mine(served, key_file)
            async with RemoteCamera(
                address, node="merlin", recorder=recorder, now_ns=real_now_ns
            ) as remote:
                orders = NodeOrders(remote.link, remote.prefix, KEY, answer_s=0.2)
                with pytest.raises(CameraLost, match="'start' on .* is away"):
                    await orders.order("start")
                await remote.link.connected()
                with pytest.raises(CameraLost, match="no answer in 0.2 s"):
                    await orders.order("start")
                for nonsense in (b"", b"[]", b"{}", b'{"id": "who"}'):
                    orders.take(nonsense)


async def test_without_a_key_no_node_is_ordered(tmp_path):
    address = BusAddress(host="127.0.0.1", port=free_port(), lab="em2", session="day 1")
    async with Recorder(tmp_path / "a.h5", run_header(), in_process=True) as recorder:
        with pytest.raises(BadCredentials, match="command_key_file"):
            async with node_of_run(address, camera(), recorder=recorder, now_ns=real_now_ns):
                pass


async def test_a_node_is_stopped_by_the_run_that_started_it_and_no_other(tmp_path, key_file):
    bus = f'command_key_file = "{key_file}"'
    async with asyncio.timeout(60), broker(tmp_path) as served, filmed() as bench:
        text = config(
            bench, tmp_path / "frames", bus=on_bus(served.port, bus), node='begin = "on command"'
        )
        async with serving(text), a_run(tmp_path / "run.h5", served, key_file) as node:
            await node.arm(lambda *_: None)
            assert "another run" in await node._orders.order("stop", {"run": "x"})
            assert "already" in await node._orders.order("start", {"run": "x"})
            assert await node.finish()
