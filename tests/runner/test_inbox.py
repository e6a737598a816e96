"""What the guardian hears."""

import multiprocessing

import pytest

from runner.inbox import Inbox


def test_messages_come_in_their_order_and_then_the_end():
    ours, theirs = multiprocessing.Pipe()
    inbox = Inbox(theirs)
    assert not inbox.poll()
    assert not inbox.poll(0.001)
    for i in range(100):
        ours.send(i)
    assert inbox.poll(10)
    assert inbox.poll()
    assert [inbox.recv() for _ in range(100)] == list(range(100))
    ours.close()
    for _ in range(2):
        assert inbox.poll(10)
        with pytest.raises(EOFError):
            inbox.recv()
    theirs.close()


def test_a_message_is_waited_for():
    ours, theirs = multiprocessing.Pipe()
    inbox = Inbox(theirs)
    ours.send("now")
    assert inbox.recv() == "now"
    ours.close()
    with pytest.raises(EOFError):
        inbox.recv()
    theirs.close()
