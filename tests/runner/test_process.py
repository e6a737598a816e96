"""A helper process behind a pipe: talk, death, and a listener that does not listen."""

import asyncio
import contextlib
import os
import signal
import time

import pytest

from runner.process import INBOX_LENGTH, PipedProcess, ProcessLost


def echo(connection, greeting):
    """Answer each message until told to go."""
    connection.send(greeting)
    while (message := connection.recv()) != "go":
        connection.send(message)


def never_listen(connection):
    time.sleep(30)


@pytest.fixture(params=[False, True], ids=["process", "thread"])
async def echoing(request):
    process = PipedProcess("echo", echo, "hello", in_thread=request.param)
    await process.start()
    yield process
    with contextlib.suppress(ProcessLost):
        process.send("go")
    await process.join(5)


async def test_messages_go_both_ways_in_order(echoing):
    assert await echoing.receive() == "hello"
    for i in range(20):
        echoing.send(i)
    assert [await echoing.receive() for _ in range(20)] == list(range(20))


async def test_its_end_is_heard_by_everyone_who_asks(echoing):
    await echoing.receive()
    echoing.send("go")
    for _ in range(2):
        with pytest.raises(ProcessLost, match="echo process is gone"):
            await echoing.receive()


async def test_a_killed_process_is_lost():
    process = PipedProcess("echo", echo, "hello")
    await process.start()
    await process.receive()
    os.kill(process.pid, signal.SIGTERM)
    with pytest.raises(ProcessLost):
        await process.receive()
    async with asyncio.timeout(10):
        while True:
            try:
                process.send("anyone?")
            except ProcessLost:
                break
            await asyncio.sleep(0.01)
    await process.join(5)


async def test_a_process_that_was_not_started_cannot_be_sent_to():
    with pytest.raises(ProcessLost, match="not started"):
        PipedProcess("echo", echo, "hello").send("x")
    await PipedProcess("echo", echo, "hello").join(0.1)


async def test_a_process_that_does_not_listen_is_ended_and_its_queue_is_bounded():
    process = PipedProcess("deaf", never_listen)
    await process.start()

    def flood():
        for _ in range(3000):
            process.send("x" * 1000)

    with pytest.raises(ProcessLost, match="does not listen"):
        flood()
    await process.join(0.1)
    assert process.pid is not None
    with pytest.raises(ProcessLost):
        await process.receive()


def talk_on(connection):
    for i in range(3 * INBOX_LENGTH):
        connection.send(i)


async def test_one_that_talks_on_waits_for_us_and_leaves_no_task_behind():
    process = PipedProcess("talker", talk_on)
    await process.start()
    for i in range(3 * INBOX_LENGTH):
        assert await process.receive() == i
        assert process._inbox.qsize() <= INBOX_LENGTH
        assert len(asyncio.all_tasks()) == 1
    with pytest.raises(ProcessLost):
        await process.receive()
    await process.join(5)
