"""One private thread for one instrument, so that many asyncio tasks may ask it things.

A driver blocks and belongs to a single thread. `InstrumentThread` is that thread: it does
one piece of work after the other, in the order of asking. A task that is cancelled or
runs out of time gets no answer, but its exchange with the instrument is finished all the
same: an exchange that is dropped half-way would leave its reply for the next question.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from potentiostat.errors import LinkError

MAX_WAITING = 64  # pieces of work; whoever asks for more waits before it is queued


class Closable(Protocol):
    """What can be let go."""

    def close(self) -> None:
        """Let go."""
        ...


D = TypeVar("D", bound=Closable)
R = TypeVar("R")


@dataclass(slots=True)
class _Work:
    do: Callable[[Any], Any]
    answer: asyncio.Future[Any]


class InstrumentThread(Generic[D]):
    """Owns an instrument while the context lasts.

    Parameters
    ----------
    open_instrument
        Called on the private thread: opens the link and returns the driver.
    name
        Of the thread.

    Examples
    --------
    ::

        async with InstrumentThread(open_6430) as smu:
            rows = await smu.call(lambda driver: driver.read())
    """

    def __init__(self, open_instrument: Callable[[], D], *, name: str = "instrument") -> None:
        self._open = open_instrument
        self._inbox: SimpleQueue[_Work | None] = SimpleQueue()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._ended: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the thread and open the instrument on it.

        Raises
        ------
        InstrumentError
            It cannot be opened; the thread has ended.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        opened = self._loop.create_future()
        self._inbox.put(_Work(lambda _: None, opened))
        self._thread.start()
        try:
            await asyncio.shield(opened)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what was asked, close the instrument, and end the thread."""
        self._closed = True
        self._inbox.put(None)
        if self._ended is not None:
            await asyncio.shield(self._ended)

    async def call(self, do: Callable[[D], R]) -> R:
        """Have something done on the instrument's thread and return what it returns.

        Parameters
        ----------
        do
            Called with the driver. It may block; it runs to its end even if the caller
            is cancelled meanwhile. Work that has not begun by then is left out.

        Raises
        ------
        LinkError
            The instrument is closed.
        """
        if self._loop is None or self._closed:
            raise LinkError("the instrument is not open")
        async with self._room:
            work = _Work(do, self._loop.create_future())
            self._inbox.put(work)
            answer: R = await work.answer
            return answer

    # --- on the private thread ---------------------------------------------------------------

    def _work(self) -> None:
        driver: D | None = None
        failure: BaseException | None = None
        try:
            driver = self._open()
        except Exception as error:  # noqa: BLE001 - told to whoever opens
            failure = error
        while (work := self._inbox.get()) is not None:
            if failure is not None:
                self._tell(work.answer, None, failure)
            elif not work.answer.cancelled():
                self._do(work, driver)
        if driver is not None:
            driver.close()
        self._tell(self._ended, None, None)

    def _do(self, work: _Work, driver: D | None) -> None:
        try:
            found = work.do(driver)
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            self._tell(work.answer, None, error)
        else:
            self._tell(work.answer, found, None)

    def _tell(
        self, answer: asyncio.Future[Any] | None, found: object, error: BaseException | None
    ) -> None:
        def set_it() -> None:
            if answer is None or answer.done():
                return  # nobody waits for it any more
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(set_it)
