"""The corners of the bus: what a broker refuses, and a connection that goes in mid-sentence."""

import asyncio
import json

import aiomqtt
import pytest

from runner.bus import Bus
from runner.bus_address import BusError
from runner.bus_feed import BusFeed
from runner.bus_link import BusLink
from runner.remote_camera import INBOX_LENGTH, RemoteCamera
from tests.runner.brokers import address, broker, free_port, until

NOWHERE = type("S", (), {"port": 1})


class Broken:
    """A client whose broker refuses, or goes at every word."""

    def __init__(self, codes=None):
        self.codes = codes

    async def subscribe(self, *_, **__):
        if self.codes is None:
            raise aiomqtt.MqttError("gone")
        return self.codes

    async def publish(self, *_, **__):
        raise aiomqtt.MqttError("gone")


async def test_a_subscription_that_is_refused_is_told():
    bus = Bus(address(NOWHERE))
    for codes, why in (((128,), "does not let us hear x"), (None, "the broker is gone")):
        bus._client = Broken(codes)
        with pytest.raises(BusError, match=why):
            await bus.subscribe(["x"])
    bus._client = Broken((1,))
    await bus.subscribe(["x"])


async def test_a_stamp_that_cannot_leave_is_told():
    bus = Bus(address(NOWHERE))
    bus._client = Broken()
    with pytest.raises(BusError, match="gone"):
        await bus.publish_at_once("x", {})


async def test_a_refused_message_is_counted_and_the_next_goes_through(tmp_path):
    rules = "topic read lamella/#\ntopic write lamella/em2/day 1/runner/samples\n"
    async with asyncio.timeout(60), broker(tmp_path, rules=rules) as served:
        async with BusFeed(address(served)) as feed:  # its status is refused
            feed.put("frames", {})
            feed.put("samples", {})
            await until(lambda: feed.counters.published == 1)
        assert feed.counters.refused >= 2
        assert feed.counters.connects == 1


async def test_a_state_replaces_the_one_before(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        here = address(served)
        async with (
            aiomqtt.Client("127.0.0.1", served.port) as viewer,
            BusFeed(here) as feed,
        ):
            await viewer.subscribe(f"{here.prefix}/status")
            feed.status("paused")
            states = []
            async for message in viewer.messages:
                states.append(json.loads(message.payload)["state"])
                if states[-1] == "paused":
                    break
        assert feed._link.status == {"state": "ended"}


async def test_what_was_never_begun_can_be_ended():
    feed = BusFeed(address(NOWHERE))
    await feed.__aexit__(None, None, None)
    feed.status("running")
    link = BusLink(address(NOWHERE))
    await link.__aexit__(None, None, None)


async def test_a_link_without_ears_throws_away_what_it_hears(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        link = BusLink(address(served), topics=["news"])
        async with link:
            await link.connected()
            async with aiomqtt.Client("127.0.0.1", served.port) as speaker:
                await speaker.publish("news", "1", qos=1)
            await link.publish("samples", {})
        assert link.counters.connects == 1


async def test_a_run_that_is_flooded_counts_what_it_could_not_take():
    remote = RemoteCamera(
        address(type("S", (), {"port": free_port()})), node="merlin", recorder=None, now_ns=int
    )
    for topic in ("frames", "clock/answer/somebody"):
        message = type("M", (), {"topic": f"{remote.prefix}/{topic}", "payload": b"{}"})
        for _ in range(INBOX_LENGTH + 2):
            remote._hear(message)
    assert remote.counters.overrun == 2


async def test_a_link_whose_broker_owes_an_answer_is_down_at_once():
    link = BusLink(address(NOWHERE))
    bus = Bus(address(NOWHERE))
    bus._client = Broken()
    bus._client._client = type("Paho", (), {"socket": lambda _: None})()
    link._bus = bus
    link._up.set()
    with pytest.raises(BusError, match="gone"):
        await link.publish("samples", {})
    assert not link.is_up  # otherwise whoever publishes would try again without a pause
    with pytest.raises(BusError, match="is away"):
        await link.publish("samples", {})
