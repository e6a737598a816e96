"""What the operator may ask of a run, from the keyboard, the view or the bus: the same words."""

import asyncio
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType
from typing import Protocol

from runner.note_text import NOTE, BadNote, said

KEYBOARD = "keyboard"
WORDS = ("pause", "resume", "stop", "abort", "halt", "next", NOTE)
MOST_ORDERS = 64  # that wait to be recorded


class Wish(IntEnum):
    """How much of the run the operator wants to end; a greater wish replaces a smaller."""

    NOTHING = 0
    STOP = 1  # end the step, go on with the plan's ending
    ABORT = 2  # S1, close the session in order
    HALT = 3  # the safest state at once, close afterwards


ENDS = {"stop": Wish.STOP, "abort": Wish.ABORT, "halt": Wish.HALT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A word that is carried out, for the session.

    Parameters
    ----------
    t_ns
        Host time at which it was said; None before the plan began.
    source
        Who said it: ``"keyboard"``, ``"view"``, or ``"bus"`` and a name.
    text
        Of a note.
    """

    t_ns: int | None
    word: str
    source: str
    text: str = ""


class Situation(Protocol):
    """What of a run's state a word hangs on."""

    step: int
    held: str
    waits: bool


class Control:
    """Collects the operator's words; the run looks at them between two readings."""

    def __init__(self) -> None:
        self.wish = Wish.NOTHING
        self.why = ""  # of a wish that is not the operator's
        self.is_paused = False  # as the operator wants it; the run follows
        self._go_on = False
        self._next = False
        self._orders: deque[Order] = deque(maxlen=MOST_ORDERS)
        self._now_ns: Callable[[], int] | None = None
        self._run: Situation | None = None
        self._is_over = False

    def attach(self, run: Situation, now_ns: Callable[[], int]) -> None:
        """Say what the words are about, now that the plan begins."""
        self._run, self._now_ns = run, now_ns

    def conclude(self) -> None:
        """Take no further words: the plan is over."""
        self._is_over = True

    def order(
        self, word: str, *, source: str, step: int | None = None, text: str = ""
    ) -> str | None:
        """Carry out a word; return why not, or None where it is done.

        Parameters
        ----------
        word
            One of `WORDS`.
        step
            Which step a ``next`` means: one that is over by then is not ended twice.
        text
            Of a note.
        """
        refused = self._why_not(word, step, text)
        if refused is None:
            self._do(word)
            self._note(word, source, text.strip())
        return refused

    def _why_not(self, word: str, step: int | None, text: str) -> str | None:
        if word not in WORDS:
            known = ", ".join(WORDS[:-1])
            return f"{word!r} is no command of a run; {known} and {WORDS[-1]} are"
        if self._is_over:
            return "the plan is over"
        if word == NOTE:
            return self._why_no_note(text)
        wished = self.wish.name.lower()
        if word in ENDS:
            return f"{wished} was asked for already" if ENDS[word] <= self.wish else None
        if self.wish > Wish.NOTHING:
            return f"{wished} was asked for: the run ends"
        return self._why_no_resume() if word == "resume" else self._why_goes_on(word, step)

    def _why_no_resume(self) -> str | None:
        waits = self._run is not None and self._run.waits
        return None if self.is_paused or self._is_held or waits else "nothing is paused or held"

    def _why_goes_on(self, word: str, step: int | None) -> str | None:
        if self.is_paused:
            return "the run is paused" if word == "pause" else "the run is paused: resume it first"
        if self._is_held:
            return "the plan is held, at rest: resume goes on with it"
        return None if word == "pause" else self._why_not_next(step)

    def _why_no_note(self, text: str) -> str | None:
        if len(self._orders) >= MOST_ORDERS // 2:  # the other half is for what acts
            return "too many notes at once; try again"
        try:
            said(text)
        except BadNote as error:
            return str(error)
        return None

    def _why_not_next(self, step: int | None) -> str | None:
        if self._run is None or self._run.step < 0:
            return "no step has begun"
        if step is not None and step != self._run.step:
            return f"step {step + 1} is over: step {self._run.step + 1} is on"
        return None

    @property
    def _is_held(self) -> bool:
        return self._run is not None and bool(self._run.held)

    def _do(self, word: str) -> None:
        match word:
            case "pause":
                self.is_paused = True
            case "resume" if self.is_paused:
                self.is_paused = False
            case "resume":
                self._go_on = True
            case "next":
                self._next = True
            case "stop" | "abort" | "halt":
                self.ask(ENDS[word])
            case _:
                pass  # a note is only kept

    def _note(self, word: str, source: str, text: str = "") -> None:
        t_ns = None if self._now_ns is None else self._now_ns()
        self._orders.append(Order(t_ns=t_ns, word=word, source=source, text=text))

    def take_orders(self) -> list[Order]:
        """Return what was carried out and not yet taken, to be recorded."""
        taken = list(self._orders)
        self._orders.clear()
        return taken

    def ask(self, wish: Wish, *, why: str = "") -> None:
        """Ask for a wish; a smaller one than the present is ignored.

        Parameters
        ----------
        why
            Of one that is not the operator's.
        """
        if wish > self.wish:
            self.wish, self.why = wish, why
        if self.wish > Wish.NOTHING:
            self.is_paused = False  # what ends the run is not put off

    def go_on(self) -> None:
        """Go on with the plan, if a rule holds it at this moment."""
        self._go_on = True

    def take_go_on(self) -> bool:
        """Tell whether the operator said to go on since this was last asked."""
        asked, self._go_on = self._go_on, False
        return asked

    def take_next(self) -> bool:
        """Tell whether the operator wants the next step since this was last asked."""
        asked, self._next = self._next, False
        return asked

    def interrupt(self) -> None:
        """One Ctrl-C is a stop, two an abort, three a halt."""
        wish = Wish(min(self.wish + 1, Wish.HALT))
        self.order(wish.name.lower(), source=KEYBOARD)
        self.ask(wish)  # also when the plan is over: a camera node may be waited for

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Turn Ctrl-C into wishes while the context lasts.

        Works on Windows too, where an event loop has no signal handlers. Outside the
        main thread, where Python allows no handler, it does nothing.
        """
        loop = asyncio.get_running_loop()

        def heard(_signal: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.interrupt)

        with replaced_handler(heard):
            yield

    def listen_to_keyboard(self, say: Callable[[str], None]) -> None:
        """Take lines from the terminal as words; an empty one goes on.

        Parameters
        ----------
        say
            Told why a word was not carried out.
        """
        loop = asyncio.get_running_loop()

        def listen() -> None:
            for line in sys.stdin:
                if loop.is_closed():
                    return
                loop.call_soon_threadsafe(self.type_line, line, say)

        if sys.stdin.isatty():
            # A daemon: nobody can take back a read from a terminal.
            threading.Thread(target=listen, name="runner.keyboard", daemon=True).start()

    def type_line(self, line: str, say: Callable[[str], None]) -> None:
        """Carry out a line: a word, ``note`` and its text, or nothing but Enter."""
        word, _, text = line.strip().partition(" ")
        refused = self.order(word or "resume", source=KEYBOARD, text=text)
        if refused is not None and word:  # Enter where nothing waits for it means nothing
            say(refused)


@contextmanager
def replaced_handler(
    handler: Callable[[int, FrameType | None], None],
) -> Iterator[None]:
    """Set a handler for Ctrl-C, and put the old one back."""
    try:
        before = signal.signal(signal.SIGINT, handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
