"""A listening port: nobody who came to it stays."""

import asyncio
import socket

import pytest

from cameras.open_port import LOOPBACK, open_port


async def closed(reader):
    """Tell that the other end of a connection is closed: in order, or by force."""
    try:
        async with asyncio.timeout(10):
            while await reader.read(65536):
                pass
    except ConnectionError:
        pass
    return True


async def test_clients_are_served_and_sent_away_when_that_is_done():
    async def once(reader, writer):
        writer.write(await reader.readline())

    async with open_port(once) as port:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(b"word\n")
        assert await reader.read() == b"word\n"
        writer.close()


async def test_who_waits_and_who_does_not_read_are_gone_when_it_closes():
    transports = []

    async def serve(reader, writer):
        transports.append(writer.transport)
        writer.write(bytes(int(await reader.readline())))  # more than any socket takes
        if await reader.readline() == b"done\n":
            writer.close()
            return
        pytest.fail("it was not cancelled")

    async with open_port(serve) as port:
        ends = [await asyncio.open_connection(LOOPBACK, port) for _ in range(2)]
        ends[0][1].write(b"10\n")
        ends[1][1].write(b"100000000\ndone\n")
        assert await ends[0][0].readexactly(10) == bytes(10)
        await ends[1][0].readexactly(10)
    assert [transport._sock for transport in transports] == [None, None]
    for reader, writer in ends:
        assert await closed(reader)
        writer.close()


async def test_a_client_that_was_let_in_just_before_is_not_served():
    served = []

    async def serve(reader, writer):
        served.append(writer)

    async with open_port(serve) as port:
        client = socket.create_connection((LOOPBACK, port))  # nothing here has seen it yet
        client.setblocking(False)
        await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection(sock=client)
    assert await closed(reader)
    assert not served
    writer.close()


async def test_a_port_that_is_taken_is_an_error():
    async with open_port(lambda *_: None) as port:
        with pytest.raises(OSError, match="bind"):
            async with open_port(lambda *_: None, port):
                pytest.fail("opened")
