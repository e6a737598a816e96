"""Many tasks and one instrument: each gets its own reply, whatever else is cancelled."""

import asyncio
import contextlib
import random
import threading
import time

import pytest

from potentiostat.errors import LinkError, NoReply, UnknownInstrument
from potentiostat.owner import InstrumentThread
from potentiostat.visa import VisaLink

pytestmark = pytest.mark.timeout(600)


class Echo:
    """Answers a question with what was asked, sometimes later than anybody waits."""

    def __init__(self, seed, slow_s=0.08, share=0.01):
        self._rng, self._slow_s, self._share = random.Random(seed), slow_s, share
        self.late = 0

    def __call__(self, line):
        if line == "*IDN?":
            return "ECHO,MODEL 1,1,1\n"
        if self._rng.random() < self._share:
            self.late += 1
            time.sleep(self._slow_s)
        return f"{line.rstrip('?')}\n"


async def test_a_thousand_questions_with_cancels_and_late_replies_get_no_wrong_one(serve):
    echo = Echo(seed=4)
    instrument = serve(echo)
    rng = random.Random(5)

    def open_link():
        link = VisaLink(instrument.resource, now_ns=time.monotonic_ns, timeout_s=0.05)
        link.open()
        link.query("*IDN?")
        return link

    wrong, right, cancelled, late = [], 0, 0, 0

    async def ask(number, patience_s):
        nonlocal right, cancelled, late
        try:
            async with asyncio.timeout(patience_s):
                reply = await owner.call(lambda link: link.query(f"Q{number}?").text)
        except TimeoutError:
            cancelled += 1
        except NoReply:
            late += 1
        else:
            if reply == f"Q{number}":
                right += 1
            else:
                wrong.append((number, reply))

    async with InstrumentThread(open_link) as owner, asyncio.TaskGroup() as group:
        for number in range(1000):
            patience_s = rng.uniform(0.0, 0.05) if rng.random() < 0.2 else 30.0
            group.create_task(ask(number, patience_s), name=f"test.ask.{number}")
    assert wrong == []
    assert right + cancelled + late == 1000
    assert cancelled > 20
    assert echo.late > 0
    assert late > 0
    assert right > 500


async def test_work_is_done_in_order_on_one_thread_of_its_own():
    class Driver:
        closed = False

        def close(self):
            self.closed = threading.current_thread().name

    driver, seen = Driver(), []
    async with InstrumentThread(lambda: driver, name="smu") as owner:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(
                    owner.call(lambda _, n=number: seen.append(n)), name=f"test.{number}"
                )
        name = await owner.call(lambda _: threading.current_thread().name)
    assert seen == list(range(100))
    assert (name, driver.closed) == ("smu", "smu")


async def test_a_task_that_is_cancelled_leaves_its_exchange_whole():
    started, go_on, done = threading.Event(), threading.Event(), []

    class Driver:
        def close(self):
            done.append("closed")

    def slow(_driver):
        started.set()
        go_on.wait(10)
        done.append("exchange")

    async with InstrumentThread(Driver) as owner:
        task = asyncio.create_task(owner.call(slow), name="test.slow")
        while not started.is_set():
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(owner.call(lambda _: done.append("never")), name="test.w")
        await asyncio.sleep(0)
        for each in (task, waiting):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
        go_on.set()
        await owner.call(lambda _: done.append("next"))
    assert done == ["exchange", "next", "closed"]


async def test_an_error_reaches_the_one_who_asked():
    class Driver:
        def close(self):
            pass

    def broken(_driver):
        raise NoReply("late")

    async with InstrumentThread(Driver) as owner:
        with pytest.raises(NoReply, match="late"):
            await owner.call(broken)
        assert await owner.call(lambda _: 1) == 1
    with pytest.raises(LinkError, match="not open"):
        await owner.call(lambda _: 1)


async def test_what_cannot_be_opened_says_so_and_ends_its_thread():
    def refuse():
        raise UnknownInstrument("nobody listens")

    owner = InstrumentThread(refuse)
    with pytest.raises(UnknownInstrument, match="nobody listens"):
        async with owner:
            raise AssertionError("it was not opened")
    owner._thread.join(5)
    assert not owner._thread.is_alive()
