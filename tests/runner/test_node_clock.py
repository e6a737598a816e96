"""The clock of a node over UDP and over the bus, and a camera's stamps on it."""

import asyncio
import json
import math
import socket
from datetime import UTC, datetime
from itertools import count

import aiomqtt
import pytest

from cameras.clock_wire import ANSWER, ClockServer
from cameras.errors import CameraLost
from cameras.protocol import ClockExchange
from cameras.records import CameraInfo, FrameInfo, StampClock, StampKind
from runner.bus_link import BusLink
from runner.clock import real_now_ns
from runner.node_clock import BusClock, UdpClock, read_question
from runner.node_time import CameraTime
from runner.remote_camera import RemoteCamera
from session.reader import Session
from session.recorder import Recorder
from session.records import SessionHeader
from tests.runner.brokers import address, broker, until

OFFSET_NS = 7_000_000_000_000  # by which the node's clock is ahead of ours


def node_now_ns():
    return real_now_ns() + OFFSET_NS


def within(answer):
    """Tell whether an exchange allows the true offset: it is certain, whatever the delays."""
    low_ns = answer.t2_ns - answer.t3_ns
    high_ns = answer.t1_ns - answer.t0_ns
    return low_ns <= OFFSET_NS <= high_ns


async def test_udp_bounds_the_true_offset():
    async with asyncio.timeout(30):
        server = await ClockServer.listen("127.0.0.1", 0, node_now_ns)
        asker = await UdpClock.connect("127.0.0.1", server.port, now_ns=real_now_ns)
        for _ in range(5):
            assert within(await asker.exchange())
        asker.close()
        server.close()


async def test_what_is_no_question_or_no_answer_is_left():
    async with asyncio.timeout(30):
        server = await ClockServer.listen("127.0.0.1", 0, node_now_ns)
        asker = await UdpClock.connect("127.0.0.1", server.port, now_ns=real_now_ns)
        asker._client._port.send(b"what time is it?!")
        asker._client._take(b"late", None, None)
        asker._client._take(ANSWER.pack(99, 1, 2, 3), None, None)  # to nobody's question
        assert within(await asker.exchange())
        asker.close()
        server.close()


async def test_a_clock_that_is_silent_or_gone_is_told():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        asker = await UdpClock.connect("127.0.0.1", port, now_ns=real_now_ns, timeout_s=0.02)
        with pytest.raises(CameraLost, match=rf"{port} does not answer: no answer in 0\.02 s"):
            await asker.exchange()
        with pytest.raises(CameraLost, match=f"{port} cannot be had"):
            await ClockServer.listen("127.0.0.1", port, node_now_ns)
        asker.close()


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b'{"nonce": 1}', b'{"nonce": 1, "from": "a/#", "t0_ns": 2}', b"[" * 5000],
)
def test_a_question_that_is_none_is_not_answered(payload):
    assert read_question(payload) is None


async def test_the_bus_bounds_the_true_offset_too(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        prefix = address(served, node="merlin").prefix
        late, tasks = [], []

        def answer(message):
            received_ns = node_now_ns()
            nonce, who, t0_ns = read_question(message.payload)
            body = {"nonce": nonce, "t0_ns": t0_ns, "t1_ns": received_ns, "t2_ns": node_now_ns()}
            topic = f"{prefix}/clock/answer/{who}"
            tasks.append(asyncio.create_task(node.publish_at_once(topic, body)))

        node = BusLink(address(served, node="merlin"), topics=[f"{prefix}/clock/ask"], heard=answer)
        ours = BusLink(address(served), topics=[f"{prefix}/clock/answer/+"], heard=late.append)
        asker = BusClock(ours, prefix, now_ns=real_now_ns)
        ours._heard = asker.take
        async with node, ours:
            await node.connected()
            await ours.connected()
            for _ in range(3):
                assert within(await asker.exchange())
        with pytest.raises(CameraLost, match="does not answer: the broker"):
            await asker.exchange()
        for nonsense in (b"", b"{}", b"[1]"):
            asker.take(type("M", (), {"payload": nonsense}))
        await asyncio.wait(tasks)


class Node:
    """Answers for a node over the bus, and over UDP where a test lets it."""

    def __init__(self, served, client):
        self.prefix = address(served, session="cameras", node="merlin").prefix
        self.client = client

    async def answer(self):
        async for message in self.client.messages:
            received_ns = node_now_ns()
            nonce, who, t0_ns = read_question(message.payload)
            body = {"nonce": nonce, "t0_ns": t0_ns, "t1_ns": received_ns, "t2_ns": node_now_ns()}
            await self.client.publish(f"{self.prefix}/clock/answer/{who}", json.dumps(body))


async def test_a_run_asks_over_udp_and_over_the_bus_where_that_is_blocked(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.remote_camera.EXCHANGE_INTERVAL_S", 0.01)
    path = tmp_path / "run.h5"
    header = SessionHeader(
        title="a run",
        experiment_text="",
        start_time=datetime.now(UTC).isoformat(),
        host_start_ns=real_now_ns(),
        simulated=True,
    )
    async with asyncio.timeout(60), broker(tmp_path) as served:
        udp = await ClockServer.listen("127.0.0.1", 0, node_now_ns)
        async with (
            aiomqtt.Client("127.0.0.1", served.port) as client,
            Recorder(path, header, in_process=True) as recorder,
        ):
            node = Node(served, client)
            await client.subscribe(f"{node.prefix}/clock/ask")
            status = json.dumps({"state": "filming", "clock_port": udp.port})
            await client.publish(f"{node.prefix}/status", status, qos=1, retain=True)
            answering = asyncio.create_task(node.answer())
            async with RemoteCamera(
                address(served),
                node="merlin",
                recorder=recorder,
                now_ns=real_now_ns,
                udp_host="127.0.0.1",
                timeout_s=0.2,
            ) as remote:
                await until(lambda: remote.clock_path == "udp")
                udp.close()
                await until(lambda: remote.clock_path == "mqtt")
                answering.cancel()
                await asyncio.wait([answering])
                await until(lambda: remote.counters.unanswered)
                assert not await remote.complete(0.01)  # the node films on
    with Session.open(path) as session:
        rows = session.clock_exchanges("merlin")
        paths = [e.data["path"] for e in session.events() if e.kind == "clock_path"]
        gaps = [e.message for e in session.events() if e.kind == "gap"]
    assert paths[-2:] == ["udp", "mqtt"]
    assert gaps == ["the last messages of merlin did not come; its own file has the frames"]
    assert len(rows) >= 2
    for row in rows:
        stamps = {name: int(row[name]) for name in ("t0_ns", "t1_ns", "t2_ns", "t3_ns")}
        assert within(ClockExchange(**stamps))


# --- a camera's stamps on the node's clock ---------------------------------------------------

INFO = {
    "model": "test",
    "height": 4,
    "width": 4,
    "dtype": "uint8",
    "frame_rate_Hz": 10.0,
    "pixel_size_m": math.nan,
}
CAMERA_NS = 5_000_000_000  # by which the camera's clock is ahead of the node's
EXPOSURE_NS = 40_000_000


def frame(start_ns, stamp):
    marked = EXPOSURE_NS if stamp in (StampKind.EXPOSURE_END, StampKind.ARRIVAL) else 0
    return FrameInfo(
        index=0, device_start_ns=start_ns + marked + CAMERA_NS, exposure_ns=EXPOSURE_NS
    )


@pytest.mark.parametrize("stamp", list(StampKind))
def test_a_fit_puts_every_kind_of_stamp_at_the_start_of_the_exposure(stamp):
    time = CameraTime(CameraInfo(**INFO, stamp=stamp))
    for n in range(8):
        at_ns = n * 1_000_000_000
        row = time.add(
            ClockExchange(
                t0_ns=at_ns,
                t1_ns=at_ns + CAMERA_NS + 100_000,
                t2_ns=at_ns + CAMERA_NS + 110_000,
                t3_ns=at_ns + 210_000,
            )
        )
        assert row["t3_ns"][0] == at_ns + 210_000
    t_ns, sigma_ns = time.stamp(frame(4_000_000_000, stamp), 0)
    assert abs(t_ns - 4_000_000_000) < 1_000
    assert 0 < sigma_ns < 1e6


def test_a_clock_of_this_computer_is_taken_as_it_is():
    time = CameraTime(CameraInfo(**INFO, stamp=StampKind.ARRIVAL, clock=StampClock.HOST))
    info = FrameInfo(index=0, device_start_ns=90, exposure_ns=40)
    assert time.stamp(info, 90) == (50, math.inf)


def test_a_clock_that_cannot_be_asked_is_tied_by_its_quickest_frame():
    time = CameraTime(CameraInfo(**INFO))
    delays = (9_000_000, 2_000_000, 30_000_000, 5_000_000)
    for n, delay_ns in zip(count(), delays):
        start_ns = n * 100_000_000
        arrival_ns = start_ns + EXPOSURE_NS + delay_ns
        t_ns, sigma_ns = time.stamp(frame(start_ns, StampKind.EXPOSURE_START), arrival_ns)
        assert t_ns - start_ns == min(delays[: n + 1])  # late by the smallest delay, never early
        assert sigma_ns == math.inf
