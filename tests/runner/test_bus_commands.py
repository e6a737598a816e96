"""Signed commands: every way in which one can be wrong, and what the bus answers."""

import asyncio
import json
import string

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.bus_address import BusAddress, BusError
from runner.bus_commands import (
    AHEAD_S,
    LARGEST_BYTES,
    MOST_SENDERS,
    CommandDesk,
    CommandGate,
    CommandSigner,
    RefusedCommand,
    open_desk,
    sign,
)
from runner.bus_feed import BusFeed
from runner.bus_security import BusSecurity
from tests.runner.brokers import address, broker, until

KEY = b"k" * 32
TOPIC = "lamella/em2/day 1/runner/command"
NOON_NS = 1_800_000_000 * 10**9


class Wall:
    """A wall clock that a test sets."""

    def __init__(self):
        self.ns = NOON_NS

    def __call__(self):
        return self.ns

    def wait(self, seconds):
        self.ns += round(seconds * 1e9)


@pytest.fixture
def wall():
    return Wall()


@pytest.fixture
def gate(wall):
    return CommandGate(KEY, TOPIC, wall_ns=wall)


@pytest.fixture
def signer(gate, wall):
    return CommandSigner(KEY, TOPIC, sender="desk", wall_ns=wall)


def sent(message):
    return json.dumps(message).encode()


def test_a_good_command_passes_whole(gate, signer):
    command = gate.judge(sent(signer.write("stop", {"why": "tea"})), retained=False)
    assert (command.word, command.sender, command.arguments) == ("stop", "desk", {"why": "tea"})
    assert len(command.command_id) == 32


def test_the_same_command_passes_once(gate, signer):
    payload = sent(signer.write("stop"))
    first = gate.judge(payload, retained=False)
    with pytest.raises(RefusedCommand, match="replayed") as refusal:
        gate.judge(payload, retained=False)
    assert refusal.value.command_id == first.command_id


def test_an_older_command_does_not_pass_after_a_newer_one(gate, signer):
    older, newer = sent(signer.write("go on")), sent(signer.write("halt"))
    assert gate.judge(newer, retained=False).word == "halt"
    with pytest.raises(RefusedCommand, match="replayed: number"):
        gate.judge(older, retained=False)


def test_numbers_are_counted_for_each_sender(gate, signer, wall):
    other = CommandSigner(KEY, TOPIC, sender="tablet", wall_ns=lambda: wall.ns - 10**8)
    wall.wait(1)
    gate.judge(sent(signer.write("stop")), retained=False)
    assert gate.judge(sent(other.write("abort")), retained=False).sender == "tablet"


def test_a_sender_that_was_started_anew_is_heard(gate, signer, wall):
    for _ in range(5):
        gate.judge(sent(signer.write("go on")), retained=False)
    wall.wait(1)
    again = CommandSigner(KEY, TOPIC, sender="desk", wall_ns=wall)
    assert gate.judge(sent(again.write("stop")), retained=False).word == "stop"


def test_a_stale_command_is_refused(gate, signer, wall):
    payload = sent(signer.write("stop", life_s=5))
    wall.wait(5.1)
    with pytest.raises(RefusedCommand, match=r"stale: it expired 0\.1 s ago"):
        gate.judge(payload, retained=False)


def test_a_command_from_the_future_is_refused_beyond_what_clocks_differ(gate, wall):
    def ahead(seconds):
        early = CommandSigner(KEY, TOPIC, sender="desk", wall_ns=lambda: wall.ns + seconds * 10**9)
        return sent(early.write("stop"))

    assert gate.judge(ahead(int(AHEAD_S)), retained=False)
    with pytest.raises(RefusedCommand, match="from the future"):
        gate.judge(ahead(int(AHEAD_S) + 1), retained=False)


def test_nobody_signs_for_ever(gate, signer):
    with pytest.raises(RefusedCommand, match="61 s"):
        gate.judge(sent(signer.write("stop", life_s=61)), retained=False)


def test_nothing_is_played_again_to_a_program_started_anew(signer, gate, wall):
    payload = sent(signer.write("stop", life_s=50))
    gate.judge(payload, retained=False)
    wall.wait(1)
    anew = CommandGate(KEY, TOPIC, wall_ns=wall)
    with pytest.raises(RefusedCommand, match="before this program began"):
        anew.judge(payload, retained=False)


def test_a_retained_command_is_refused(gate, signer):
    with pytest.raises(RefusedCommand, match="retained"):
        gate.judge(sent(signer.write("stop")), retained=True)


def test_another_key_or_another_topic_signs_for_nothing(gate, wall):
    for key, topic in ((b"x" * 32, TOPIC), (KEY, TOPIC.replace("runner", "merlin"))):
        stranger = CommandSigner(key, topic, sender="desk", wall_ns=wall)
        with pytest.raises(RefusedCommand, match="unsigned"):
            gate.judge(sent(stranger.write("stop")), retained=False)


@given(st.integers(0, 10_000), st.sampled_from(string.printable))
def test_a_command_that_was_touched_anywhere_is_refused(place, new):
    wall = Wall()
    gate = CommandGate(KEY, TOPIC, wall_ns=wall)
    message = CommandSigner(KEY, TOPIC, sender="desk", wall_ns=wall).write("stop", {"n": 1})
    text = message["command"]
    place %= len(text)
    touched = text[:place] + new + text[place + 1 :]
    if touched == text:
        return
    with pytest.raises(RefusedCommand, match="unsigned"):
        gate.judge(sent(message | {"command": touched}), retained=False)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "unreadable"),
        (b"stop", "unreadable"),
        (b"[1]", "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (b"[" * 5000, "unreadable"),
        (b"x" * (LARGEST_BYTES + 1), "more than"),
        (b'{"command": "{}"}', "unsigned: it has no 'signature'"),
        (b'{"signature": "00"}', "unsigned: it has no 'command'"),
        (b'{"command": {}, "signature": "00"}', "are texts"),
        (b'{"command": "{}", "signature": 5}', "are texts"),
        (b'{"command": "\\ud800", "signature": "\\ud800"}', "unsigned"),
    ],
)
def test_what_is_no_command_is_refused_with_a_reason(gate, payload, why):
    with pytest.raises(RefusedCommand, match=why) as refusal:
        gate.judge(payload, retained=False)
    assert refusal.value.command_id == ""


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"id": "1", "sequence": "x"}'])
def test_signed_nonsense_is_refused(gate, text):
    with pytest.raises(RefusedCommand, match="unreadable"):
        gate.judge(sent({"command": text, "signature": sign(KEY, TOPIC, text)}), retained=False)


def test_no_sender_is_forgotten_for_a_new_one(gate, wall):
    for n in range(MOST_SENDERS):
        one = CommandSigner(KEY, TOPIC, sender=f"s{n}", wall_ns=wall)
        gate.judge(sent(one.write("go on")), retained=False)
    late = CommandSigner(KEY, TOPIC, sender="late", wall_ns=wall)
    with pytest.raises(RefusedCommand, match="senders are known"):
        gate.judge(sent(late.write("stop")), retained=False)


def test_the_desk_says_what_became_of_a_command(gate, signer):
    desk = CommandDesk(gate, lambda command: None if command.word == "stop" else "not now")
    done, reply = desk.take(sent(signer.write("stop")), retained=False)
    assert (done, reply["done"], reply["reason"]) == (True, True, "")
    done, reply = desk.take(sent(signer.write("halt")), retained=False)
    assert (done, reply["done"], reply["reason"]) == (False, False, "not now")
    assert len(reply["id"]) == 32


# --- over a real broker ------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "commands.key"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    return path


async def replies(client, count):
    found = []
    async for message in client.messages:
        found.append(json.loads(message.payload))
        if len(found) == count:
            return found
    return found


async def test_a_run_obeys_signed_commands_and_answers_all_others(tmp_path, key_file):
    heard = []
    async with asyncio.timeout(60), broker(tmp_path) as served:
        here = address(served, security=BusSecurity(command_key_file=key_file))
        client = aiomqtt.Client("127.0.0.1", served.port, protocol=aiomqtt.ProtocolVersion.V5)
        async with (
            client,
            BusFeed(here, obey=lambda command: heard.append(command.word)) as feed,
        ):
            await until(lambda: feed.counters.connects)
            signer = CommandSigner(
                KEY, f"{here.prefix}/command", sender="desk", wall_ns=feed._wall_ns
            )
            await client.subscribe(f"{here.prefix}/reply", qos=1)
            stop = sent(signer.write("stop"))
            for payload, retain in (
                (stop, False),
                (stop, False),  # delivered twice
                (sent(signer.write("halt")), True),
                (b'{"command": "halt", "signature": ""}', False),
                (sent(signer.write("go on", life_s=-1)), False),
            ):
                await client.publish(f"{here.prefix}/command", payload, qos=1, retain=retain)
            answers = await replies(client, 5)
        assert heard == ["stop"]
        assert [a["done"] for a in answers] == [True, False, False, False, False]
        for answer, reason in zip(
            answers[1:], ("replayed", "retained", "unsigned", "stale"), strict=True
        ):
            assert answer["reason"].startswith(reason)
        assert (feed.counters.commands, feed.counters.commands_refused) == (1, 4)


async def test_a_command_that_the_broker_kept_is_refused_after_every_return(tmp_path, key_file):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        here = address(served, security=BusSecurity(command_key_file=key_file))
        async with aiomqtt.Client("127.0.0.1", served.port) as client:
            signer = CommandSigner(KEY, f"{here.prefix}/command", sender="x", wall_ns=Wall())
            payload = sent(signer.write("halt"))
            await client.publish(f"{here.prefix}/command", payload, qos=1, retain=True)
            heard = []
            async with BusFeed(here, obey=lambda command: heard.append(command.word)) as feed:
                await until(lambda: feed.counters.commands_refused)
            assert heard == []


async def test_without_a_key_no_command_is_heard(tmp_path):
    async with asyncio.timeout(60), broker(tmp_path) as served:
        heard = []
        async with (
            aiomqtt.Client("127.0.0.1", served.port) as client,
            BusFeed(address(served), obey=lambda command: heard.append(command.word)) as feed,
        ):
            await until(lambda: feed.counters.connects)
            await client.publish(f"{address(served).prefix}/command", b"halt", qos=1)
            feed.put("samples", {})
            await until(lambda: feed.counters.published >= 2)
        assert heard == []
        assert feed.counters.commands_refused == 0


async def test_commands_need_a_protocol_that_tells_what_was_kept(key_file, tmp_path):
    old = BusAddress(
        host="127.0.0.1",
        port=1,
        lab="a",
        session="b",
        version=3,
        security=BusSecurity(command_key_file=key_file),
    )
    with pytest.raises(BusError, match="version 5"):
        await open_desk(old, lambda _: None)
    gone = BusSecurity(command_key_file=tmp_path / "none")
    with pytest.raises(BusError, match="cannot be read"):
        await open_desk(address(old, version=5, security=gone), lambda _: None)
