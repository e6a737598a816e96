"""A listening TCP port: whoever comes to it is gone when it closes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from weakref import WeakSet

LOOPBACK = "127.0.0.1"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one client; when it returns, the client is sent away."""


@asynccontextmanager
async def open_port(serve: Serve, port: int = 0, *, host: str = LOOPBACK) -> AsyncIterator[int]:
    """Serve clients while the context lasts.

    asyncio's own server only stops to listen: who is connected stays, and so do the task
    that serves it and, where it reads no more, what it has not read.

    Parameters
    ----------
    serve
        Run as a task for each client; cancelled at the end.
    port
        0 for a free one.

    Yields
    ------
    int
        The port.

    Raises
    ------
    OSError
        Nothing can listen there.
    """
    tasks: set[asyncio.Task[None]] = set()
    transports: WeakSet[asyncio.WriteTransport] = WeakSet()
    closed = False

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                await serve(reader, writer)
        finally:
            writer.close()

    def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if closed:  # it was let in just before
            writer.transport.abort()
            return
        transports.add(writer.transport)
        task = asyncio.create_task(attend(reader, writer), name="cameras.client")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(welcome, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        closed = True
        server.close()
        for task in (ending := tuple(tasks)):
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        for transport in tuple(transports):
            transport.abort()
        await asyncio.sleep(0)  # in which the aborted are told so
