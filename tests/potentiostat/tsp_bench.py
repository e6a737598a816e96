"""A driver of the 2600 and its simulated instrument, without a socket and on one."""

import re

from mocks.keithley2600 import Keithley2600 as Simulated2600
from mocks.pace import LockstepPace
from potentiostat.errors import NoReply, ReplyError
from potentiostat.limits import Envelope
from potentiostat.protocol import Setpoint
from potentiostat.visa import Block, Reply

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-6, charge_max_C=1e-3)
FILM = {"scenario": "lco_thin_film", "electrolyte_ohm": 50e3}
SECOND_NS = 10**9

_HARMFUL = re.compile(
    r"\*RST|\*RCL|(?<!timer\.)\breset\s*\(|setup\.recall|offmode\s*=(?!=)\s*(?![\s2])"
    r"|levelv\s*=\s*[+-]?0(\.0*)?(E[+-]?\d+)?\b",
    re.IGNORECASE,
)
_OPENS = re.compile(r"(?<!function lamella_safe\(\) )smua\.source\.output=0")


def harmful(lines):
    """Lines that could harm a cell, and an output-off without the open relay before it."""
    found = [line for line in lines if _HARMFUL.search(line)]
    for i, line in enumerate(lines):
        if _OPENS.search(line) and (i == 0 or "smua.source.offmode=2" not in lines[i - 1]):
            found.append(line)
    return found


def current(level, clamp=4.3, range_A=1e-6):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=range_A)


def voltage(level, clamp=9e-7, range_A=1e-6):
    return Setpoint(mode="voltage", level=level, clamp=clamp, range_A=range_A)


class DirectLink:
    """Hands messages to the simulated instrument; a test may change or lose a reply.

    Parameters
    ----------
    spoil
        Changes replies: ``spoil(n, text)`` for the n-th of all; it may raise.
    """

    resource = "direct"

    def __init__(self, world, *, spoil=lambda _n, text: text):
        self.now = 0
        self.world = world
        self.pace = LockstepPace(world, self._publish)
        self.smu = Simulated2600(world, self.pace)
        self.spoil = spoil
        self.sent = []
        self.exchanges = 0
        self.last_sent_ns = 0
        self.resynced = 0
        self.closed = False

    def _publish(self, now_ns):
        self.now = now_ns

    def now_ns(self):
        return self.now

    def run(self, work):
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("nothing waits in virtual time")

    def handle(self, line):
        return self.run(self.smu.handle(line))

    def meddle(self, smu, *lines):
        """Send lines as somebody else would, once what is running is ended."""
        self.handle("abort")
        smu._tsp._held_until_ns = None  # the driver would know, had it sent them
        return [self.handle(line) for line in lines][-1]

    def ask(self, smu, expression):
        return float(self.meddle(smu, f"print({expression})"))

    def pass_time(self, duration_s):
        self.run(self.pace.take(round(duration_s * 1e9)))

    def write(self, command):
        self.sent.append(command)
        for line in command.split("\n"):
            assert self.handle(line) is None

    def _exchange(self, command):
        self.sent.append(command)
        self.last_sent_ns = sent_ns = self.now
        replies = [
            reply for line in command.split("\n") if (reply := self.handle(line)) is not None
        ]
        self.exchanges += 1
        replies = [self.spoil(self.exchanges, reply) for reply in replies[:1]]
        if not replies:
            self.pass_time(2.0)
            self.resync()
            raise NoReply(f"no reply to {command}")
        return replies[0], sent_ns

    def query(self, command):
        text, sent_ns = self._exchange(command)
        return Reply(text, sent_ns, self.now)

    def query_block(self, command, size_bytes):
        data, sent_ns = self._exchange(command)
        if not isinstance(data, bytes) or len(data) != size_bytes + 2:
            raise ReplyError(f"{data!r} is no block of {size_bytes} bytes")
        return Block(data[2:], sent_ns, self.now)

    def resync(self):
        self.resynced += 1
        assert self.handle("*IDN?").endswith(self.smu.identity)

    def close(self):
        self.closed = True
