"""Trigger lines of the simulated bench: edges of exposures, and what a 6430 makes of them."""

import asyncio
import struct

import numpy as np
import pytest

from mocks.bench import Bench
from mocks.keithley6430 import Keithley6430
from mocks.pace import LockstepPace, RealPace
from mocks.scenario import load
from mocks.world import Exposures, World
from runner.clock import real_now_ns

FIELD = {"height": 48, "width": 220, "pixel_size_m": 4e-9}
READY = (
    *(":SOUR:FUNC CURR", ":SENS:VOLT:PROT 4.3", ":SOUR:CURR:RANG 1e-10", ":SENS:CURR:RANG 1e-10"),
    *(":FORM:ELEM VOLT,CURR,TIME,STAT", ":OUTP ON"),
)


def world_of(start_ns=0, **overrides):
    return World(
        load("lco_lipon_li", exposure_line=1, **FIELD, **overrides), seed=1, start_ns=start_ns
    )


async def ready(world, pace, *lines):
    smu = Keithley6430(world, pace)
    for line in (*READY, *lines):
        await smu.handle(line)
    return smu


@pytest.fixture
def world():
    return world_of()


@pytest.fixture
def pace(world):
    return LockstepPace(world, lambda _: None)


async def begin_exposure(world, t_ns):
    world.exposures.begin(t_ns)


def last_start_ns(world):
    return int(world.truth()["samples"]["t_ns"][-1]) - 20_000_000


def test_an_edge_is_on_its_line_alone():
    exposures = Exposures(2, start_ns=100)
    assert exposures.first_after(0, 2) is None
    exposures.begin(150)
    exposures.begin(250)
    assert exposures.first_after(0, 2) == 150
    assert exposures.first_after(150, 2) == 250
    assert exposures.first_after(250, 2) is None
    assert exposures.first_after(0, 1) is None


async def test_in_virtual_time_a_reading_begins_with_the_edge_that_is_on_the_way(world, pace):
    smu = await ready(world, pace, ":ARM:SOUR TLIN")
    due_ns = world.now_ns + 300_000_000
    pace.at(due_ns, lambda t_ns: begin_exposure(world, t_ns))
    await smu.handle(":TRIG:CLE;:READ?")
    assert last_start_ns(world) == due_ns + 300_000


async def test_an_edge_is_latched_unless_it_is_cleared(world, pace):
    smu = await ready(world, pace, ":ARM:SOUR TLIN")
    pace.at(world.now_ns + 10_000_000, lambda t_ns: begin_exposure(world, t_ns))
    await pace.take(200_000_000)
    asked_ns = world.now_ns
    await smu.handle(":READ?")  # begins at once, with an exposure that is long over
    assert last_start_ns(world) == asked_ns + 300_000
    pace.at(world.now_ns + 10_000_000, lambda t_ns: begin_exposure(world, t_ns))
    await pace.take(200_000_000)
    due_ns = world.now_ns + 100_000_000
    pace.at(due_ns, lambda t_ns: begin_exposure(world, t_ns))
    await smu.handle(":TRIG:CLE;:READ?")
    assert last_start_ns(world) == due_ns + 300_000


async def test_when_no_edge_comes_time_stands_still_until_it_is_aborted(world, pace):
    smu = await ready(world, pace, ":ARM:SOUR TLIN")
    asked_ns = world.now_ns
    reading = asyncio.create_task(smu.handle(":READ?"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not reading.done()
    assert world.now_ns == asked_ns + 500_000_000
    smu.abort()
    assert await reading is None
    assert world.now_ns == asked_ns + 500_000_000
    assert await smu.handle(":FETC?") is None


async def test_in_real_time_a_reading_begins_with_the_edge_however_late_it_is_noticed():
    start_ns = real_now_ns()
    world = world_of(start_ns)
    pace = RealPace(world, lambda: start_ns + 20 * (real_now_ns() - start_ns), 20.0)
    running = asyncio.create_task(pace.run())
    smu = await ready(world, pace, ":ARM:SOUR TLIN", ":TRIG:CLE")
    due_ns = world.now_ns + 400_000_000
    pace.at(due_ns, lambda t_ns: begin_exposure(world, t_ns))
    assert await smu.handle(":READ?") is not None
    assert last_start_ns(world) == due_ns + 300_000
    running.cancel()
    await asyncio.wait({running})


async def test_the_camera_raises_an_edge_at_each_true_start_of_an_exposure(world, pace):
    edges = []
    world.exposures.begin = edges.append
    async with Bench(world, pace) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.camera_port)
        await reader.readline()
        writer.write(b"START\n")
        await reader.readline()
        # Somebody reads the frames while the time passes.
        draining = asyncio.create_task(reader.read())
        await pace.take(2_000_000_000)
        writer.write(b"STOP\n")
        await writer.drain()
        writer.close()
        await draining
        count = len(edges)
        await pace.take(1_000_000_000)
    assert len(edges) <= count + 1
    starts_ns = world.truth()["frames/camera"]["t_start_ns"]
    assert set(starts_ns.tolist()) <= set(edges)
    assert len(edges) >= 10
    assert np.all(np.diff(edges) == np.diff(edges)[0])


@pytest.mark.parametrize("order", ["NORM", "SWAP"])
async def test_float32_readings_have_a_header_without_a_size(world, pace, order):
    smu = await ready(world, pace, ":TRIG:COUN 3", ":FORM:DATA SRE", f":FORM:BORD {order}")
    reply = await smu.handle(":READ?")
    assert reply[:2] == b"#0"
    assert len(reply) == 2 + 3 * 4 * 4
    values = np.array(struct.unpack(f"{'<' if order == 'SWAP' else '>'}12f", reply[2:]))
    voltage_V, current_A, time_s, status = values.reshape(3, 4).T
    assert np.all((voltage_V > 3.5) & (voltage_V < 4.1))
    assert np.all(np.abs(current_A) < 1e-12)
    assert np.all(np.diff(time_s) > 0.04)
    assert np.all(status == 0)
    again = await smu.handle(":FETC?;*OPC?")
    assert again == reply + b";1"


async def test_readings_may_be_initiated_and_fetched(world, pace):
    smu = await ready(world, pace, ":TRIG:COUN 2")
    assert await smu.handle(":INIT") is None
    told = await smu.handle(":FETC?")
    assert len(told.split(",")) == 8
    assert await smu.handle(":FETC?") == told
    assert await smu.handle(":ABOR") is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (":TRIG:COUN 0", "-222"),
        (":TRIG:COUN 2501", "-222"),
        (":ARM:ILIN 5", "-222"),
        (":ARM:SOUR BEAM", "-224"),
        (":TRIG:OUTP LOUD", "-224"),
        (":FORM:DATA REAL", "-224"),
    ],
)
async def test_what_the_trigger_model_has_not_is_an_error(world, pace, line, code):
    smu = await ready(world, pace, line)
    assert (await smu.handle(":SYST:ERR?")).startswith(code)


async def test_a_pulse_is_in_the_truth(world, pace):
    smu = await ready(world, pace, ":TRIG:OUTP SOUR", ":TRIG:OLIN 4", ":TRIG:COUN 2")
    await smu.handle(":READ?")
    marks = world.truth()["marks"]
    assert marks["line"].tolist() == [4, 4]
    assert np.all(np.diff(marks["t_ns"]) > 40_000_000)
