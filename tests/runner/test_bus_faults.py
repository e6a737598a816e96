"""A broker that dies, a network that is cut or silent: nothing waits, and all comes back."""

import asyncio
import json

import aiomqtt
import pytest

from runner.bus import Bus
from runner.bus_address import BusError
from runner.bus_feed import BusFeed
from runner.bus_link import BusLink
from tests.runner.brokers import Proxy, a_broker, address, broker, free_port, running, until


async def states(client, count):
    found = []
    async for message in client.messages:
        found.append(json.loads(message.payload)["state"])
        if len(found) == count:
            return found
    return found


async def test_a_broker_that_forgot_all_is_told_again_how_we_are(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        here = address(served)
        async with BusFeed(here, first_pause_s=0.01) as feed:
            await until(lambda: feed.counters.connects == 1)
            await served.kill()
            await until(lambda: not feed._link.is_up)  # although there was nothing to say
            await served.start()
            async with aiomqtt.Client("127.0.0.1", served.port) as viewer:
                await viewer.subscribe(f"{here.prefix}/status")
                assert await states(viewer, 1) == ["running"]


async def test_our_last_will_is_taken_back_when_we_return(tmp_path):
    async with (
        asyncio.timeout(60),
        broker(tmp_path) as served,
        Proxy(served) as network,
        aiomqtt.Client("127.0.0.1", served.port) as viewer,
    ):
        here = address(served, port=network.port)
        await viewer.subscribe(f"{here.prefix}/status")
        async with BusFeed(here, first_pause_s=0.01):
            assert await states(viewer, 1) == ["running"]
            network.cut()
            assert await states(viewer, 2) == ["offline", "running"]
        assert await states(viewer, 1) == ["ended"]


async def test_a_silent_network_is_noticed_and_nothing_waits_for_it(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served, Proxy(served) as network:
        here = address(served, port=network.port, keep_alive_s=1, answer_s=0.5)
        async with BusFeed(here, queue_length=8, first_pause_s=0.01) as feed:
            await until(lambda: feed.counters.connects == 1)
            network.partition()
            turns = 0
            for i in range(100):
                feed.put("samples", {"n": i})
                turns += 1
                await asyncio.sleep(0)
            assert turns == 100
            assert len(feed._queue) == 8
            assert feed.counters.dropped >= 91
            await until(lambda: not feed._link.is_up)
            network.heal()
            await until(lambda: not feed._queue)
            assert feed.counters.connects >= 2


async def test_a_run_ends_although_the_network_is_silent(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served, Proxy(served) as network:
        here = address(served, port=network.port)
        async with BusFeed(here, first_pause_s=0.01, linger_s=0.2) as feed:
            await until(lambda: feed.counters.connects == 1)
            network.partition()
            feed.put("samples", {})
        assert feed.counters.connects == 1


async def test_messages_of_a_link_are_heard_again_after_its_return(tmp_path):
    heard = []
    async with asyncio.timeout(60), broker(tmp_path) as served:
        link = BusLink(
            address(served), topics=["lamella/+/news"], heard=heard.append, first_pause_s=0.01
        )
        async with link:
            for turn in (1, 2):
                await link.connected()
                async with aiomqtt.Client("127.0.0.1", served.port) as speaker:
                    await speaker.publish("lamella/em2/news", str(turn), qos=1)
                    await until(lambda turn=turn: len(heard) == turn)
                if turn == 1:
                    await served.kill()
                    await until(lambda: not link.is_up)
                    await served.start()
        assert [m.payload for m in heard] == [b"1", b"2"]
        assert [m.topic for m in heard] == ["lamella/em2/news"] * 2


async def test_what_a_link_cannot_say_is_told_to_the_caller():
    nobody = BusLink(address(type("S", (), {"port": free_port()})), first_pause_s=0.01)
    async with asyncio.timeout(60), nobody:
        try:
            await nobody.publish("samples", {})
        except BusError as error:
            assert "is away" in str(error)
        await nobody.say("running")  # a state is remembered instead
        assert nobody.status == {"state": "running"}


@pytest.mark.parametrize("kind", ["any", "mosquitto", "amqtt"])
async def test_any_broker_will_do_for_a_display(tmp_path, kind):
    """On mosquitto, or on amqtt where there is none: it is of version 3 of the protocol."""
    async with asyncio.timeout(60), running(a_broker(tmp_path, kind)) as served:
        here = address(served)
        async with BusFeed(here, first_pause_s=0.05) as feed:
            feed.put("samples", {"voltage": [3.9]})
            await until(lambda: feed.counters.published >= 2)
            async with Bus(address(served, node="viewer")) as viewer:
                await viewer.subscribe([f"{here.prefix}/status"])
                message = await anext(viewer.messages())
                assert json.loads(message.payload)["state"] == "running"
