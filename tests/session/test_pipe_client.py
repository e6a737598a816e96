"""The client's end of the pipe, with an other end that misbehaves."""

import threading

import pytest

from session.errors import RecorderLost
from session.messages import Failed, Flush, Released
from session.pipe_client import PipeClient


class BrokenPipe:
    """A pipe that takes nothing and, when let, ends."""

    def __init__(self, *replies):
        self.may_end = threading.Event()
        self.replies = list(replies)

    def send(self, _):
        self.may_end.set()
        raise BrokenPipeError

    def recv(self):
        if self.replies:
            return self.replies.pop(0)
        self.may_end.wait()
        raise EOFError

    def close(self):
        self.may_end.set()


async def test_a_send_that_fails_is_told_to_its_caller():
    lost = []
    client = PipeClient(BrokenPipe(), lambda _: None, lost.append)
    with pytest.raises(RecorderLost, match="gone"):
        await client.post(Flush())
    assert lost == ["the recorder process is gone"]
    with pytest.raises(RecorderLost, match="gone"):
        client.post(Flush())
    await client.close()


async def test_the_first_reason_is_kept():
    heard, lost = [], []
    pipe = BrokenPipe(Released("camera", 2), Failed("disk full"))
    client = PipeClient(pipe, heard.append, lost.append)
    with pytest.raises(RecorderLost, match="disk full"):
        await client.post(Flush())
    await client.close()
    assert heard == [Released("camera", 2), Failed("disk full")]
    assert lost == ["disk full"]
