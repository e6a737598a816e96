"""What a microscope does during a run stands in its session, once for each change."""

import asyncio
from datetime import UTC, datetime

import pytest

from cameras.microscope import MicroscopeLost, MicroscopeState, StagePosition
from cameras.microscopes.temscript import TemscriptMicroscope
from mocks.temscript_server import TemscriptServer
from runner.clock import ClockSpec, RunningClock, real_now_ns
from runner.microscope_watch import set_beam_blanked, watch_microscope
from session.reader import Session
from session.recorder import Recorder
from session.records import SessionHeader
from tests.runner.brokers import until

STATES = (
    MicroscopeState(magnification=1000.0, beam_blanked=False),
    MicroscopeState(magnification=1000.0, beam_blanked=False),  # nothing new
    MicroscopeState(magnification=1000.0, beam_blanked=True),
    MicroscopeState(magnification=1000.0, beam_blanked=True, stage=StagePosition(x_m=0.0)),
    MicroscopeState(magnification=1000.0, beam_blanked=True, stage=StagePosition(x_m=4e-10)),
    MicroscopeState(magnification=1000.0, beam_blanked=True, stage=StagePosition(x_m=8e-10)),
    MicroscopeState(magnification=1000.0, beam_blanked=True, stage=StagePosition(x_m=12e-10)),
    MicroscopeLost("gone"),
    MicroscopeLost("gone"),
    MicroscopeState(magnification=1000.0, beam_blanked=True, stage=StagePosition(x_m=12e-10)),
    MicroscopeState(magnification=2000.0, beam_blanked=True, stage=StagePosition(x_m=12e-10)),
)


class Scripted:
    """Says one state after another."""

    def __init__(self):
        self.states = iter(STATES)
        self.done = asyncio.Event()

    async def state(self):
        try:
            state = next(self.states)
        except StopIteration:
            self.done.set()
            await asyncio.Event().wait()
        if isinstance(state, Exception):
            raise state
        return state


def recorder(path):
    header = SessionHeader(
        title="a run",
        experiment_text="",
        start_time=datetime.now(UTC).isoformat(),
        host_start_ns=real_now_ns(),
        simulated=True,
    )
    return Recorder(path, header, in_process=True)


@pytest.fixture
def clock():
    return RunningClock(ClockSpec(origin_ns=real_now_ns()))


async def watched(microscope, path, clock, enough):
    async with recorder(path) as recording:
        watching = asyncio.create_task(
            watch_microscope(recording, microscope, clock, interval_s=0.001)
        )
        await enough(recording)
        watching.cancel()
        await asyncio.wait([watching])


def events(path, kind):
    with Session.open(path) as session:
        return [e for e in session.events() if e.kind == kind]


async def test_each_change_is_told_once(tmp_path, clock):
    microscope = Scripted()
    path = tmp_path / "run.h5"
    async with asyncio.timeout(60):
        await watched(microscope, path, clock, lambda _: microscope.done.wait())
    found = events(path, "microscope")
    assert [e.message for e in found] == [
        "the microscope answers",
        "beam_blanked: False to True",
        "x_m: unknown to 0",
        "x_m: 0 to 1.2e-09",  # of many small steps, the first that is one
        "gone",
        "the microscope answers again",
        "magnification: 1000 to 2000",
    ]
    assert found[0].data["magnification"] == 1000.0
    assert found[0].data["x_m"] is None
    assert found[4].data == {"lost": True}
    for event in (found[0], found[1]):
        assert event.data["read_start_ns"] <= event.data["read_end_ns"] == event.t_ns


async def test_a_blanked_beam_stands_in_the_session_with_its_stamps(tmp_path, clock):
    path = tmp_path / "run.h5"
    async with (
        asyncio.timeout(60),
        TemscriptServer(now_ns=clock.now_ns) as server,
        TemscriptMicroscope.at("127.0.0.1", server.port, now_ns=clock.now_ns) as microscope,
    ):
        seen = []

        async def enough(recording):
            seen.append(await set_beam_blanked(recording, microscope, blanked=True))
            seen.append(await set_beam_blanked(recording, microscope, blanked=False))
            server.values["screen_position"] = "DOWN"
            server.values["screen_current"] = 2e-9
            asked = server.asked
            await until(lambda: server.asked >= asked + 14)  # two whole readings at least

        await watched(microscope, path, clock, enough)
        moved = [t_ns for t_ns, _ in server.blanks]
    found = events(path, "beam_blank")
    assert [e.message for e in found] == ["beam blanked", "beam on"]
    for event, command, moved_ns in zip(found, seen, moved, strict=True):
        assert event.data["sent_ns"] == command.sent_ns < moved_ns < event.data["done_ns"]
    assert events(path, "microscope")[-1].data["beam_current_A"] == 2e-9


async def test_a_refused_blank_is_no_event(tmp_path, clock):
    path = tmp_path / "run.h5"
    async with (
        TemscriptServer(now_ns=clock.now_ns) as server,
        TemscriptMicroscope.at("127.0.0.1", server.port, now_ns=clock.now_ns) as microscope,
    ):
        server.refused = {"beam_blanked"}
        async with recorder(path) as recording:
            with pytest.raises(MicroscopeLost):
                await set_beam_blanked(recording, microscope, blanked=True)
    assert events(path, "beam_blank") == []
