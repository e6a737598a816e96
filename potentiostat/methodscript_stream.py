"""An instrument that runs one script at a time and streams: start, stop, and what it says.

After "Communication protocol for EmStat4" 1.3 and "for EmStat Pico" 1.6. While a script runs,
``t`` asks for the version, ``Y`` ends the measurement loop, and ``Z`` ends the script, which
then obeys its `on_finished:`. Not yet confirmed on an instrument: that ``t`` is answered in
the order of the stream, which is what tells old packages from new ones here.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from potentiostat.errors import InstrumentError, InstrumentRefused, NoReply
from potentiostat.methodscript import explain_error
from potentiostat.methodscript_scripts import STARTED, open_script
from potentiostat.visa import Reply

STOP_TRIES = 2
PATIENCE_S = 2.0  # with an instrument that talks, but not of what it was asked
NOT_RUNNING = "Z!"
# First letters of all that is no package: of commands, marks of loops, and texts.
_KNOWN = tuple("MLC+*-TtRieZY")


class StreamLink(Protocol):
    """What this needs of a link."""

    resource: str

    def write(self, command: str) -> None:
        """Send a line."""
        ...

    def listen(self) -> Reply:
        """Return the next line that comes."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package line, or one that makes no sense.

    Parameters
    ----------
    asked_ns
        Host time of a question that the instrument answered before it sent the package.
    received_ns
        Host time at which it was in.
    """

    text: str
    asked_ns: int
    received_ns: int


class Stream:
    """The one script that an instrument runs, and what comes of it.

    Parameters
    ----------
    link
        Open; owned by the calling thread.
    now_ns
        Host clock.

    Attributes
    ----------
    running
        True while a script of ours runs, as far as has been heard.
    packages
        Heard, but not taken yet.
    """

    def __init__(self, link: StreamLink, now_ns: Callable[[], int]) -> None:
        self._link = link
        self._now_ns = now_ns
        self._asked_ns = now_ns()
        self._opening = False
        self.running = False
        self.packages: deque[Package] = deque()

    # --- questions -------------------------------------------------------------------------

    def greet(self) -> str:
        """End what another host may have begun to send, and ask for model and version."""
        self._end_upload()
        return self.version()

    def version(self) -> str:
        """Ask for model and version; answered at any time."""
        asked_ns = self._now_ns()
        self._link.write("t")
        answer = self._hear_until("t")
        self._asked_ns = asked_ns
        return answer.text

    def serial(self) -> str:
        """Ask for the serial number; answered while no script runs."""
        self._link.write("i")
        return self._hear_until("i").text.removeprefix("i")

    def next_package(self) -> Package | None:
        """Return the next package, or None once the script has ended.

        Raises
        ------
        InstrumentRefused
            The script failed; the cell was opened.
        LinkError
            Nothing comes.
        """
        if not self.packages:
            self.version()
        while not self.packages and self.running:
            self._hear()
        return self.packages.popleft() if self.packages else None

    # --- scripts ---------------------------------------------------------------------------

    def start(self, script: str) -> Reply:
        """Have a script run where none does; return the line that says that it measures.

        Raises
        ------
        InstrumentRefused
            It was not accepted, or it failed; the cell was opened.
        """
        self._accept(script)
        return self._hear_until(f"T{STARTED}")

    def open_cell(self) -> None:
        """Open the cell, and see the script that does so come to its end.

        Raises
        ------
        InstrumentError
            It could not be confirmed.
        """
        self.stop()
        self._accept(open_script())
        while self.running:
            self._hear()

    def next_turn(self) -> None:
        """End the turn of the script, and wait until the next has begun.

        Raises
        ------
        InstrumentRefused
            The script has ended instead.
        """
        asked_ns = self._now_ns()
        self._link.write("Y")
        self._hear_until("M")
        self._asked_ns = asked_ns

    def stop(self) -> None:
        """End whatever runs; it opens the cell on its way.

        Raises
        ------
        NoReply
            The instrument does not say that it has ended.
        """
        for _ in range(STOP_TRIES):
            self._end_upload()
            self._link.write("Z")
            with suppress(NoReply):
                self._hear_the_end()
                return
        raise NoReply(f"{self._link.resource}: does not say that its script has ended")

    def _end_upload(self) -> None:
        """Have a script refused that was cut short, wherever: none has a line ``i``."""
        self._link.write("i")
        self._link.write("")

    def _hear_the_end(self) -> None:
        heard, began_ns = False, self._now_ns()
        while True:
            reply = self._listen()
            heard = heard or reply.text == "Z"
            failed = reply.text.startswith("!")
            if reply.text.startswith(NOT_RUNNING) or (heard and (not reply.text or failed)):
                self.running = False
                return
            self._give_up_after(began_ns, "its end")

    def _give_up_after(self, began_ns: int, wanted: str) -> None:
        """Raise NoReply for a stream that goes on and on: what was asked did not arrive."""
        if self._now_ns() - began_ns > PATIENCE_S * 1e9:
            raise NoReply(f"{self._link.resource}: talks, but does not tell {wanted}")

    def _accept(self, script: str) -> None:
        asked_ns = self._now_ns()
        self._link.write(script)
        self._link.write("")
        while True:
            text = self._listen().text
            if text == "e":
                self.running, self._asked_ns = True, asked_ns
                return
            if text.startswith("e!"):
                raise self._failed(text)
            self._give_up_after(asked_ns, "whether it takes the script")

    # --- lines -----------------------------------------------------------------------------

    def _hear_until(self, start: str) -> Reply:
        began_ns = self._now_ns()
        while True:
            was_running = self.running
            reply = self._hear()
            if reply.text.startswith(start):
                if "!" in reply.text:
                    raise self._failed(reply.text)
                return reply
            if was_running and not self.running and start not in ("t", "i"):
                raise InstrumentRefused(f"{self._link.resource}: the script ended before {start}")
            self._give_up_after(began_ns, start)

    def _hear(self) -> Reply:
        reply = self._listen()
        if reply.text.startswith(("!", "Y!")):
            raise self._failed(reply.text)
        if not reply.text:
            self.running = False
        return reply

    def _listen(self) -> Reply:
        """Return the next line; a package is kept, and so is what nobody understands."""
        reply = self._link.listen()
        text = reply.text
        if text and not text.startswith((*_KNOWN, "!")):
            self.packages.append(
                Package(text=text, asked_ns=self._asked_ns, received_ns=reply.received_ns)
            )
        return reply

    def _failed(self, text: str) -> InstrumentRefused:
        """Open the cell after an error: `on_finished:` was not obeyed. Return what to raise."""
        self.running = False
        told = f"{self._link.resource}: {explain_error(text) or text}"
        if self._opening:
            return InstrumentRefused(told)
        self._opening = True
        try:
            self.open_cell()
        except InstrumentError as error:
            return InstrumentRefused(f"{told}; and the cell could not be opened: {error}")
        finally:
            self._opening = False
        return InstrumentRefused(f"{told}; the cell was opened")
