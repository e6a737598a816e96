"""A run to look at: real guardian, session file and server, on a thread of its own."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np

from potentiostat.technique import chronopotentiometry, open_circuit
from runner.acquisition import Acquisition
from runner.audience import Shielded
from runner.control import Control
from runner.messages import Carried, EndStep, PauseStep
from runner.plan import Plan
from runner.view import facts
from runner.view_server import serve
from runner.view_state import ViewState
from session.messages import Event
from session.reader import Session
from session.records import FrameHeader
from session.writer import SessionWriter, event_json
from tests.runner.test_position import (
    EXPERIMENT,
    RANGE_A,
    CellInstrument,
    SteppedCell,
    StillClock,
    Written,
    rule,
)
from tests.session.conftest import make_header

PACE_S = 0.005  # between two blocks, which are 50 ms of the instrument's time
LONG = chronopotentiometry(1e-12, (rule("t", ">", 1e5),))
PLAN = (open_circuit(0.3), LONG, LONG, open_circuit(0.3))


class PacedCell(SteppedCell):
    """A guardian that takes a turn every few milliseconds."""

    async def receive(self):
        if not self._heard:
            await asyncio.sleep(PACE_S)
        return await super().receive()

    def pause_step(self):
        self._said.append(PauseStep())

    def end_step(self, reason):
        self._said.append(EndStep(reason=reason))


class Shown(Written):
    """A recorder whose events are shown, as those of the real one."""

    def __init__(self, writer, audience):
        super().__init__(writer)
        self._audience = audience

    async def event(self, t_ns, kind, source, message, data=None):
        self._audience.event(Event(t_ns, kind, source, message, event_json(data)))
        await super().event(t_ns, kind, source, message, data)


class LiveRun:
    """A plan that is played and shown while the context lasts."""

    def __init__(self, path, steps=PLAN, *, frames=True, port=0):
        self.path = path
        self.control = Control()
        self.told = []
        self._steps, self._frames, self._port = steps, frames, port
        self._ready, self._leave = threading.Event(), None
        self._thread = threading.Thread(target=self._main, name="live run")
        self.error = None

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(30)
        if self.error is not None:
            self._thread.join()
            raise self.error
        return self

    def __exit__(self, *_error):
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._end)
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def _end(self):
        self.control.order("halt", source="test")
        self._leave.set()

    def _main(self):
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
                loop.run(self._run())
        except BaseException as error:  # noqa: BLE001 - raised again where the test is
            self.error = error
        finally:
            self._ready.set()

    async def _run(self):
        self.loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        about = {**facts(EXPERIMENT), "camera": "mock", "pixel_m": 2e-9, "dose_max_e_A2": 500.0}
        self.view = ViewState("a run to look at", self.control, facts=about)
        instrument = CellInstrument()
        header = replace(make_header(), cameras=(), clocks=(), host_start_ns=0)
        audience = Shielded(self.view, self.told.append)
        served = serve(self.view, self.control, port=self._port, say=self.told.append)
        async with served as (self.address, self.look):
            with SessionWriter(self.path, header) as writer:
                self.acquisition = Acquisition(
                    EXPERIMENT,
                    cell=PacedCell(instrument, Carried(), -1),
                    camera=None,
                    recorder=Shown(writer, audience),
                    plan=Plan(self._steps, range_A=RANGE_A),
                    clock=StillClock(instrument),
                    control=self.control,
                    watcher=lambda _state: None,
                    show=lambda _topic, _message: None,
                    audience=audience,
                )
                self._ready.set()
                async with asyncio.TaskGroup() as group:
                    filming = group.create_task(self._film(instrument.clock))
                    ending = await self.acquisition.run()
                    filming.cancel()
                writer.finish(ending.reason, "")
            self.view.end(ending.reason)
            await self._leave.wait()

    async def _film(self, now_ns):
        y, x = np.mgrid[:96, :128]
        for index in range(10**6):
            if self._frames:
                stamps = FrameHeader(
                    t_start_ns=now_ns(),
                    exposure_ns=40_000_000,
                    t_sigma_ns=2e4,
                    index=index,
                    device_start_ns=0,
                    dose_per_m2=1e20,
                )
                self.acquisition.state.frames += 1
                frame = 200 + 20 * np.sin((x + 2 * index) / 9) + y
                self.view.frame(stamps, frame.astype(np.uint16))
            await asyncio.sleep(0.05)

    def events(self):
        """Return what the session holds; after the context."""
        with Session.open(self.path) as session:
            return session.events()
