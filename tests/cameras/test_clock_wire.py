"""Clock exchanges on real sockets: who stamps, and which stamps are not believed."""

import asyncio
import socket
import struct
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from cameras import clock_wire
from cameras.clock_wire import (
    ClockClient,
    ClockServer,
    StampSource,
    WallPair,
    kernel_stamp_ns,
)
from cameras.errors import CameraLost
from cameras.open_port import LOOPBACK, open_port
from mocks.udp_proxy import Path, Proxy, steady

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel stamps here")


def shifted():
    return time.monotonic_ns() + 5_000_000_000


async def asked(count, client_clock, server_clock):
    server = await ClockServer.listen("127.0.0.1", 0, server_clock)
    client = await ClockClient.connect("127.0.0.1", server.port, client_clock)
    try:
        async with asyncio.timeout(20):
            return [await client.exchange() for _ in range(count)]
    finally:
        client.close()
        server.close()


@LINUX
async def test_the_kernel_stamps_on_both_sides_where_both_clocks_are_the_computers():
    found = await asked(50, time.monotonic_ns, time.monotonic_ns)
    assert sum(each.source is StampSource.KERNEL for each in found) > 40
    for each in found:
        assert each.t0_ns <= each.t1_ns <= each.t2_ns <= each.t3_ns
    # One clock on both sides: what is found is the error, and it lies within its bound.
    for each in found:
        error = (each.t1_ns - each.t0_ns + each.t2_ns - each.t3_ns) / 2
        trip = each.t3_ns - each.t0_ns - (each.t2_ns - each.t1_ns)
        assert abs(error) <= trip / 2


async def test_another_clock_is_stamped_by_the_program():
    found = await asked(5, shifted, shifted)
    assert {each.source for each in found} == {StampSource.USER}
    assert all(each.t0_ns <= each.t1_ns <= each.t2_ns <= each.t3_ns for each in found)


@LINUX
async def test_a_busy_program_does_not_make_the_kernels_stamp_late():
    server = await ClockServer.listen("127.0.0.1", 0, time.monotonic_ns)
    client = await ClockClient.connect("127.0.0.1", server.port, time.monotonic_ns)
    exchange = asyncio.create_task(client.exchange())
    await asyncio.sleep(0)
    busy_until = time.monotonic_ns() + 30_000_000
    while time.monotonic_ns() < busy_until:  # the answer waits, and the question before it
        pass
    found = await exchange
    client.close()
    server.close()
    if found.source is StampSource.KERNEL:
        assert found.t1_ns < busy_until
    assert found.t2_ns >= busy_until


async def test_without_the_systems_stamps_the_program_takes_them(monkeypatch):
    monkeypatch.setattr(clock_wire.sys, "platform", "other")
    found = await asked(3, time.monotonic_ns, time.monotonic_ns)
    assert {each.source for each in found} == {StampSource.USER}


async def test_what_is_no_question_is_not_answered():
    server = await ClockServer.listen("127.0.0.1", 0, time.monotonic_ns)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.settimeout(0.0)
        raw.connect(("127.0.0.1", server.port))
        for data in (b"", b"hello", struct.pack("<qqq", 1, 2, 3), struct.pack("<qq", 7, 8)):
            raw.send(data)
        async with asyncio.timeout(5):
            answer = clock_wire.WARM
            while answer == clock_wire.WARM:
                answer = await loop.sock_recv(raw, 100)
    assert struct.unpack("<qqqq", answer)[:2] == (7, 8)
    assert server.answered == 1
    server.close()


async def test_a_closed_port_says_so():
    server = await ClockServer.listen("127.0.0.1", 0, time.monotonic_ns)
    client = await ClockClient.connect("127.0.0.1", server.port, time.monotonic_ns)
    server.close()
    server.close()
    with pytest.raises(CameraLost, match="clock port is closed"):
        _ = server.port
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.exchange()
    client.close()
    with pytest.raises(CameraLost, match="clock port is closed"):
        await client.exchange()


# --- which stamps are believed ------------------------------------------------------------------

PAIR = WallPair(1_000, 50_001_050, 1_100)  # the wall clock is ahead by 50 ms


def stamp(wall_ns=50_002_000, sent=PAIR, received=PAIR, first=1_000, last=9_000):
    return kernel_stamp_ns(wall_ns, sent, received, not_before_ns=first, not_after_ns=last)


def test_a_wall_stamp_comes_onto_the_host_clock():
    assert stamp() == 2_000
    sharper = WallPair(3_000, 50_003_010, 3_010)
    assert stamp(received=sharper) == 50_002_000 - sharper.ahead_ns


def test_a_wall_clock_that_was_set_in_between_is_not_believed():
    slewed = WallPair(5_000, 50_005_050 + 90_000, 5_100)
    stepped = WallPair(5_000, 50_005_050 + 110_000, 5_100)
    assert stamp(received=slewed) is not None
    assert stamp(received=stepped) is None


@pytest.mark.parametrize("changes", [{"wall_ns": None}, {"sent": None}, {"received": None}])
def test_what_is_missing_makes_no_stamp(changes):
    assert stamp(**changes) is None


@pytest.mark.parametrize("changes", [{"first": 2_001}, {"last": 1_999}])
def test_a_stamp_where_the_message_cannot_have_come_is_not_believed(changes):
    assert stamp(**changes) is None


def test_a_clock_that_is_not_the_computers_has_no_pair():
    assert WallPair.read(time.monotonic_ns) is not None
    assert WallPair.read(lambda: 5) is None
    assert WallPair.read(shifted) is None


# --- the proxy ------------------------------------------------------------------------------------


async def test_a_proxy_delays_asymmetrically_and_the_bound_still_holds():
    server = await ClockServer.listen("127.0.0.1", 0, time.monotonic_ns)
    path = Path(there=steady(0.004), back=steady(0.0, 0.0005))
    async with Proxy("127.0.0.1", server.port, path) as proxy:
        client = await ClockClient.connect("127.0.0.1", proxy.port, time.monotonic_ns)
        found = [await client.exchange() for _ in range(10)]
        client.close()
    server.close()
    error = np.array([(e.t1_ns - e.t0_ns + e.t2_ns - e.t3_ns) / 2 for e in found])
    trip = np.array([e.t3_ns - e.t0_ns - (e.t2_ns - e.t1_ns) for e in found])
    assert np.all(np.abs(error) <= trip / 2)
    assert trip.min() >= 4_000_000
    assert proxy.passed >= 39  # ten questions and answers, and as many datagrams before them


async def test_a_proxy_loses_doubles_and_parts():
    server = await ClockServer.listen("127.0.0.1", 0, time.monotonic_ns)
    async with Proxy("127.0.0.1", server.port, Path(doubled=1.0)) as proxy:
        client = await ClockClient.connect("127.0.0.1", proxy.port, time.monotonic_ns)
        await client.exchange()
        proxy.path.lost = 1.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.exchange()
        proxy.path.lost = 0.0
        dropped = proxy.dropped
        proxy.part()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.exchange()
        assert proxy.dropped > dropped >= 1
        proxy.join()
        async with asyncio.timeout(5):
            await client.exchange()
        client.close()
    server.close()


async def test_a_proxy_carries_streams_holds_them_while_parted_and_cuts_them():
    async def echo(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)

    async with (
        asyncio.timeout(10),
        open_port(echo) as port,
        Proxy(LOOPBACK, port, Path(there=steady(0.001))) as proxy,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        proxy.part()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.readexactly(3)
        proxy.join()
        assert await reader.readexactly(3) == b"two"
        proxy.cut()
        with suppress(ConnectionError):
            assert await reader.read(10) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"last")
        writer.write_eof()
        assert await reader.read() == b"last"
        writer.close()


async def test_a_proxy_before_nobody_hangs_up():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with asyncio.timeout(10), Proxy("127.0.0.1", port, Path()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await reader.read() == b""
        writer.close()
