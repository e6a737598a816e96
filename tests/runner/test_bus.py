"""The bus against a real broker: will, refusals, and a broker that dies."""

import asyncio
import json
import shutil
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from runner.bus import Bus
from runner.bus_address import BusAddress, BusError, PublishRefused
from runner.bus_feed import BusFeed

BROKER = shutil.which("mosquitto") or (
    "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else None
)
pytestmark = pytest.mark.skipif(BROKER is None, reason="the broker mosquitto is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    def __init__(self, folder, *, rules=None):
        self.port = free_port()
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true"]
        lines += ["persistence false", "set_tcp_nodelay true"]
        if rules is not None:
            (folder / "acl").write_text(rules)
            (folder / "acl").chmod(0o644)
            lines.append(f"acl_file {folder / 'acl'}")
        self.config = folder / "mosquitto.conf"
        self.config.write_text("\n".join(lines) + "\n")
        self.process = None

    async def start(self):
        self.process = await asyncio.to_thread(
            subprocess.Popen,
            [BROKER, "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            while True:
                assert self.process.poll() is None, "the broker ended at once"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    async def kill(self):
        self.process.kill()
        await asyncio.to_thread(self.process.wait)


@asynccontextmanager
async def broker(folder, **options):
    folder.chmod(0o755)
    # A broker that is started by root gives up its rights before it reads its files.
    for parent in folder.parents:
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)
    served = Broker(folder, **options)
    await served.start()
    try:
        yield served
    finally:
        await served.kill()


def address(served, **changes):
    return BusAddress(host="127.0.0.1", port=served.port, lab="em2", session="day 1", **changes)


async def next_message(client, wanted):
    async for message in client.messages:
        content = json.loads(message.payload)
        if wanted(content):
            return message, content
    return None


async def test_a_vanished_controller_is_offline_by_its_will(tmp_path):
    async with (
        asyncio.timeout(60),
        broker(tmp_path) as served,
        aiomqtt.Client("127.0.0.1", served.port) as viewer,
    ):
        await viewer.subscribe("lamella/em2/day 1/runner/status")
        bus = Bus(address(served))
        await bus.__aenter__()
        await bus.publish("status", {"state": "running"}, retain=True)
        await next_message(viewer, lambda m: m["state"] == "running")
        bus._client._client.socket().shutdown(socket.SHUT_RDWR)  # the cable is cut
        message, _ = await next_message(viewer, lambda m: m["state"] == "offline")
        assert message.topic.value == "lamella/em2/day 1/runner/status"
        await bus.__aexit__(None, None, None)


async def test_a_late_viewer_sees_the_retained_state(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        async with BusFeed(address(served)) as feed:
            feed.put("samples", {"voltage_V": [3.9, 3.91]})
            while feed.counters.published < 2:
                await asyncio.sleep(0.01)
            async with aiomqtt.Client("127.0.0.1", served.port) as late:
                await late.subscribe("lamella/em2/+/+/status")
                message, content = await next_message(late, lambda _: True)
                assert content["state"] == "running"
                assert message.retain
        assert feed.counters.dropped == 0


async def test_a_refused_publish_is_heard(tmp_path):
    rules = "topic read lamella/#\ntopic write lamella/em2/day 1/runner/status\n"
    async with (
        asyncio.timeout(60),
        broker(tmp_path, rules=rules) as served,
        Bus(address(served)) as bus,
    ):
        await bus.publish("status", {"state": "running"})
        with pytest.raises(PublishRefused, match="samples"):
            await bus.publish("samples", {"voltage_V": 1})
        await bus.publish("status", {"state": "running"})


async def test_a_broker_that_dies_disturbs_nobody_and_is_found_again(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        async with BusFeed(address(served), queue_length=8, first_pause_s=0.02) as feed:
            while feed.counters.published < 1:
                await asyncio.sleep(0.01)
            await served.kill()
            for i in range(30):
                feed.put("samples", {"n": i})
                await asyncio.sleep(0.005)
            assert feed.counters.dropped >= 20
            await served.start()
            while feed.counters.connects < 2 or feed._queue:
                await asyncio.sleep(0.02)
            feed.put("samples", {"n": 99})
        assert feed.counters.published >= 8


async def test_no_broker_at_all_is_told_and_a_feed_lives_without():
    nobody = BusAddress(host="127.0.0.1", port=free_port(), lab="a", session="b")
    async with asyncio.timeout(60):
        with pytest.raises(BusError, match="cannot be reached"):
            async with Bus(nobody):
                pass
        async with BusFeed(nobody, first_pause_s=0.01) as feed:
            feed.put("samples", {})
        assert feed.counters.connects == 0


def test_names_cannot_change_the_topic():
    odd = BusAddress(host="h", port=1, lab="a/b", session="+", node="#")
    assert odd.prefix == "lamella/a_b/_/_"
