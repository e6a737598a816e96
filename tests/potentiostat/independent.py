"""Links to simulators that other people wrote, for drivers of ours to talk to."""

from potentiostat.visa import Reply


class IndependentLink:
    """Hands lines to a simulator; answers by itself what that one does not know.

    Parameters
    ----------
    simulator
        Has ``handle(line)``, which returns a reply or None.
    left_out
        Headers that the simulator does not know, and why each is left out. The link
        remembers what is set and answers questions from there.
    reply
        Changes a reply before the driver sees it: ``reply(command, text)``.
    """

    resource = "independent simulator"

    def __init__(self, simulator, left_out, *, reply=lambda _command, text: text):
        self.simulator = simulator
        self.left_out = left_out
        self.reply = reply
        self.known = {}
        self.used = set()
        self.now = 0
        self.sent = []

    def now_ns(self):
        return self.now

    def _own(self, command):
        header = command.split(" ")[0].removesuffix("?")
        if header in self.left_out:
            self.used.add(header)
            return header
        return None

    def write(self, command):
        for part in command.split(";"):
            self.sent.append(part)
            if (header := self._own(part)) is not None:
                value = part.partition(" ")[2]
                self.known[header] = {"ON": "1", "OFF": "0"}.get(value, value)
            else:
                assert self.simulator.handle(part) is None, part
        self.now += 1_000_000

    def query(self, command):
        self.sent.append(command)
        start, self.now = self.now, self.now + 50_000_000
        if (header := self._own(command)) is not None:
            text = self.known.get(header, "0")
        else:
            text = self.simulator.handle(command)
            assert text is not None, f"no reply to {command}"
        return Reply(self.reply(command, text), start, self.now)

    def resync(self):
        raise AssertionError("nothing is ever late here")

    def close(self):
        pass
