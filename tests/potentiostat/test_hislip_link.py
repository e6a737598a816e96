"""The link over HiSLIP, with which instruments on a network answer."""

import itertools
import struct
import threading

import pytest

from potentiostat.errors import LinkError, NoReply
from potentiostat.visa import VisaLink
from tests.potentiostat.hislip import HislipInstrument

IDENTITY = "Keysight Technologies,B2912A,MY1,1.0"
PAYLOAD = struct.pack("<4d", 1.5, -3e-12, 2.0, 1e300) + b"\n#0\xff"


@pytest.fixture
def connect():
    opened = []

    def start(answer):
        instrument = HislipInstrument(answer)
        ticks = itertools.count(1000)
        link = VisaLink(instrument.resource, now_ns=lambda: next(ticks), timeout_s=0.3)
        link.open()
        opened.append((link, instrument))
        return link, instrument

    yield start
    for link, instrument in opened:
        link.close()
        instrument.stop()


def plain(line):
    if line == "*IDN?":
        return f"{IDENTITY}\n"
    return f"answer to {line}\n" if line.endswith("?") else None


def test_questions_and_commands(connect):
    link, instrument = connect(plain)
    link.write(":OUTP:OFF:MODE HIZ")
    reply = link.query("A?")
    assert reply.text == "answer to A?"
    assert reply.sent_ns < reply.received_ns
    assert instrument.lines == [":OUTP:OFF:MODE HIZ", "A?"]


@pytest.mark.parametrize("length", [16_383, 16_384, 16_385, 20_480, 100_000])
def test_long_lines(connect, length):
    link, _ = connect(lambda line: "x" * (length - 1) + "\n" if line == "A?" else plain(line))
    assert link.query("A?").text == "x" * (length - 1)
    assert link.query("B?").text == "answer to B?"


@pytest.mark.parametrize("head", [b"#0", f"#2{len(PAYLOAD)}".encode()])
def test_blocks(connect, head):
    link, _ = connect(lambda line: head + PAYLOAD + b"\n" if line == "A?" else plain(line))
    for _ in range(3):
        assert link.query_block("A?", len(PAYLOAD)).data == PAYLOAD
        assert link.query("B?").text == "answer to B?"


def test_a_late_reply_is_never_taken_for_another(connect):
    may_go = threading.Event()

    def answer(line):
        return ("late\n", may_go) if line == "SLOW?" else plain(line)

    link, _ = connect(answer)
    assert link.query("*IDN?").text == IDENTITY
    releasing = threading.Timer(0.5, may_go.set)
    releasing.start()
    with pytest.raises(NoReply):
        link.query("SLOW?")
    assert link.query("A?").text == "answer to A?"
    releasing.join()


def test_an_instrument_that_never_answers_again_fails_the_link(connect):
    link, _ = connect(lambda line: None)
    with pytest.raises(LinkError):
        link.query("A?")
    with pytest.raises(LinkError, match="not used again"):
        link.query("A?")
