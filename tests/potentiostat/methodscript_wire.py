"""A simulated PalmSens instrument without a wire: lines in, lines out, in virtual time."""

from collections import deque
from functools import cache
from unittest.mock import patch

from mocks.pace import LockstepPace
from mocks.palmsens import EMSTAT4_HR, Palmsens
from mocks.scenario import load
from mocks.stage import Stage
from mocks.world import World
from potentiostat.errors import NoReply
from potentiostat.visa import Reply

same_stage = cache(Stage)  # it takes longer to make than all the rest, and nobody looks


def finish(work):
    """Run what never waits: in virtual time nothing here does."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("waits for something")


class DirectLink:
    """A link to an instrument in the same thread.

    Parameters
    ----------
    change
        Called with the number and text of each line that the instrument says; returns what
        arrives of it, or None where it is lost.
    """

    resource = "simulated instrument"

    def __init__(self, *, kind=EMSTAT4_HR, scenario="lco_thin_film", holder_open=False):
        with patch("mocks.world.Stage", same_stage):
            self.world = World(load(scenario), seed=1, start_ns=0)
        if holder_open:
            self.world.open_holder()
        self.pace = LockstepPace(self.world, lambda _: None)
        self.smu = Palmsens(self.world, self.pace, kind)
        self.smu.attach(self._said)
        self.change = lambda _number, line: line
        self.heard = 0
        self.lines = deque()
        self.sent = []
        self.closed = False

    def now_ns(self):
        return self.world.now_ns

    def _said(self, line):
        self.heard += 1
        if (line := self.change(self.heard, line)) is not None:
            self.lines.append(line)

    def write(self, command):
        self.sent.append(command)
        for line in command.split("\n"):
            finish(self.smu.handle(line))

    def listen(self):
        if not self.lines:
            finish(self.pace.take(10_000_000))  # a while passes
        if not self.lines:
            raise NoReply(f"{self.resource}: silent")
        return Reply(self.lines.popleft(), self.world.now_ns, self.world.now_ns)

    def wait(self, seconds):
        """Let time pass in which the host does nothing."""
        finish(self.pace.take(round(seconds * 1e9)))

    def close(self):
        self.closed = True

    # --- the truth -----------------------------------------------------------------------

    def modes(self, since=0):
        return [mode.decode() for mode in self.world.truth()["source"]["mode"][since:]]

    def voltages(self):
        return self.world.truth()["cell"]["voltage"]
