"""What the operator may ask of a run, from the keyboard or elsewhere."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType


class Wish(IntEnum):
    """How much of the run the operator wants to end; a greater wish replaces a smaller."""

    NOTHING = 0
    STOP = 1  # end the step, go on with the plan's ending
    ABORT = 2  # S1, close the session in order
    HALT = 3  # the safest state at once, close afterwards


class Control:
    """Collects the operator's wishes; the run looks at them between two readings."""

    def __init__(self) -> None:
        self.wish = Wish.NOTHING
        self._wished = asyncio.Event()
        self._go_on = False

    def ask(self, wish: Wish) -> None:
        """Ask for a wish; a smaller one than the present is ignored."""
        self.wish = max(self.wish, wish)
        self._wished.set()

    def go_on(self) -> None:
        """Go on with the plan, if a rule holds it at this moment."""
        self._go_on = True

    def take_go_on(self) -> bool:
        """Tell whether the operator said to go on since this was last asked."""
        asked, self._go_on = self._go_on, False
        return asked

    def interrupt(self) -> None:
        """One Ctrl-C is a stop, two an abort, three a halt."""
        self.ask(Wish(min(self.wish + 1, Wish.HALT)))

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

    def listen_for_enter(self) -> None:
        """Take a line from the terminal as the word to go on."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            for _ in sys.stdin:
                if loop.is_closed():
                    return
                loop.call_soon_threadsafe(self.go_on)

        if sys.stdin.isatty():
            # A daemon: nobody can take back a read from a terminal.
            threading.Thread(target=listen, name="runner.enter", daemon=True).start()


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
