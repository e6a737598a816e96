"""A way for datagrams: as late as it says, and what vanishes on it is counted."""

import socket
import threading
import time

import pytest

from mocks.udp_proxy import Path, steady
from mocks.udp_way import Way, carry


@pytest.fixture
def server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(10.0)
        yield made


@pytest.fixture
def client():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(10.0)
        yield made


def echoed(client, server, path, count, until_s=0.3):
    """Send datagrams through a way, and back; return those that came and the way."""
    way = Way(server.getsockname(), path, seed=4)
    carrying = threading.Thread(target=carry, args=((way,), time.monotonic() + until_s))
    client.connect(("127.0.0.1", way.port))
    for number in range(count):
        client.send(bytes([number]))
    carrying.start()
    try:
        first, other = server.recvfrom(64)
        server.sendto(first, other)
        came = [first, client.recv(64)]
    finally:
        carrying.join()
        way.close()
    return came, way


def test_each_way_takes_at_least_as_long_as_it_says(client, server):
    began = time.monotonic()
    came, way = echoed(client, server, Path(there=steady(0.03), back=steady(0.02)), 1)
    assert time.monotonic() - began >= 0.05
    assert came == [b"\0", b"\0"]
    assert way.passed == 2


def test_the_quicker_overtakes_the_slower(client, server):
    delays = iter([0.2, 0.01, 0.0])
    path = Path(there=lambda _: next(delays), back=steady(0.0))
    came, _ = echoed(client, server, path, 2)
    assert came == [b"\1", b"\1"]


def test_what_is_lost_and_doubled_is_counted(client, server):
    _, way = echoed(client, server, Path(lost=0.3, doubled=0.5), 100)
    assert 15 < way.dropped < 45
    assert way.passed > 1.2 * (100 - way.dropped)


def test_a_way_that_is_parted_carries_nothing(client, server):
    way = Way(server.getsockname(), Path(parted=True))
    client.sendto(b"?", ("127.0.0.1", way.port))
    carry((way,), time.monotonic() + 0.02)
    way.close()
    assert (way.passed, way.dropped) == (0, 1)
