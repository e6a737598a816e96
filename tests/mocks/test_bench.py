"""The bench on the wire: an instrument and a camera that can be wrong as real ones are."""

import asyncio
import json
import struct

import numpy as np
import pytest

from mocks.bench import Bench
from mocks.camera import camera_time_ns
from mocks.cell import Source
from mocks.keithley6430 import Keithley6430
from mocks.layers import LayersScene
from mocks.pace import LockstepPace, RealPace
from mocks.scenario import load
from mocks.scpi import ScpiError, boolean, number, short_form
from mocks.smu_noise import SMU_6430
from mocks.world import World
from runner.clock import real_now_ns

START_NS = 5_000_000_000


class Stamp:
    """What a lockstep world publishes."""

    def __init__(self):
        self.times = []

    def __call__(self, t_ns):
        self.times.append(t_ns)


def lockstep(seed=1, **overrides):
    world = World(load("lco_lipon_li", **overrides), seed=seed, start_ns=START_NS)
    stamp = Stamp()
    return world, LockstepPace(world, stamp), stamp


async def ask(smu, *lines):
    replies = [await smu.handle(line) for line in lines]
    return replies[-1] if len(replies) == 1 else replies


async def galvanostat(smu, level=2e-11, range_A=1e-10):
    for line in (
        ":SOUR:FUNC CURR",
        f":SOUR:CURR:RANG {range_A}",
        f":SENS:CURR:RANG {range_A}",
        ":SENS:VOLT:PROT 4.3",
        f":SOUR:CURR {level}",
        ":FORM:ELEM VOLT,CURR,TIME,STAT",
        ":OUTP ON",
    ):
        await smu.handle(line)


# --- SCPI ------------------------------------------------------------------------------


async def test_long_and_short_forms_are_one_and_errors_are_queued():
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await ask(smu, ":source:CURRent:LEVel:IMMediate:AMPLitude 5e-12; :SENSE:VOLTAGE:PROTECTION 4.2")
    assert float(await ask(smu, "SOUR:CURR?")) == 5e-12
    assert float(await ask(smu, ":SENS:VOLT:PROT:LEV?")) == 4.2
    assert (await ask(smu, "*IDN?")).startswith("KEITHLEY INSTRUMENTS INC.,MODEL 6430")
    for line, code in (
        (":NONSENSE 1", "-113"),
        (":NONSENSE?", "-113"),
        (":SOUR:CURR", "-109"),
        (":SOUR:CURR abc", "-104"),
        (":SOUR:CURR inf", "-222"),
        (":SENS:VOLT:PROT 500", "-222"),
        (":SENS:CURR:NPLC 99", "-222"),
        (":OUTP:SMOD HIMP", "-224"),
        (":OUTP maybe", "-224"),
        (":SOUR:FUNC LIGHT", "-224"),
        (":SOUR:FUNC", "-109"),
        (":READ?", "+803"),
    ):
        await smu.handle(line)
        assert (await ask(smu, ":SYST:ERR?")).startswith(code), line
    assert await ask(smu, ":SYST:ERR?") == '0,"No error"'
    await ask(smu, ":NONSENSE 1", "*CLS")
    assert await ask(smu, ":SYST:ERR?") == '0,"No error"'
    assert await ask(smu, "*OPC?;:OUTP?") == "1;0"


def test_the_grammar():
    assert short_form(":SYSTem:AZERo:STATe?") == "SYST:AZER:STAT?"
    assert number("1e-3") == 1e-3
    assert boolean("on")
    with pytest.raises(ScpiError):
        boolean("")
    assert SMU_6430.range_for(1e-4).full_scale_A == pytest.approx(1e-4)


async def test_time_is_told_by_1024_ticks_as_1000_ms():
    world, pace, _ = lockstep(clock_rate_ratio=0.0)
    smu = Keithley6430(world, pace)
    await ask(smu, ":SYST:TIME:RES")
    first, start = float(await ask(smu, ":SYST:TIME?")), world.now_ns
    await pace.take(100_000_000_000)
    second, stop = float(await ask(smu, ":SYST:TIME?")), world.now_ns
    assert (second - first) / ((stop - start) / 1e9) == pytest.approx(1.024, rel=1e-4)


async def test_readings_carry_the_noise_and_errors_of_the_data_sheet():
    world, pace, _ = lockstep(dielectric_F=0.0)
    smu = Keithley6430(world, pace)
    await galvanostat(smu)
    rows = np.array([[float(x) for x in (await ask(smu, ":READ?")).split(",")] for _ in range(400)])
    current = rows[10:, 1]
    model = SMU_6430.ranges[2]
    assert abs(current.mean() - 2e-11) < 2 * (0.0015 * 2e-11 + 3e-14)
    expected = np.sqrt(
        (2 * 1.602e-19 * 2e-11 + 4 * 1.381e-23 * 298.15 / model.feedback_ohm) * 25
        + model.resolution_A**2 / 12
    )
    assert current.std() == pytest.approx(expected, rel=0.15)
    truth = world.truth()["samples"]
    assert len(truth["t_ns"]) == 400
    step = np.diff(truth["t_ns"]) / 1e9
    assert 0.045 < np.median(step) < 0.05
    assert np.allclose(rows[:, 0], truth["voltage"], atol=2.5e-3)


async def test_readings_settle_after_a_step():
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await galvanostat(smu, level=0.0, range_A=1e-11)
    for _ in range(3):
        await ask(smu, ":READ?")
    await ask(smu, ":SOUR:CURR 5e-12")
    seen = [float((await ask(smu, ":READ?")).split(",")[1]) for _ in range(90)]
    assert seen[0] < 2e-12
    assert seen[-1] == pytest.approx(5e-12, rel=0.03)


async def test_compliance_overflow_and_their_bits():
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await galvanostat(smu)
    await ask(smu, ":SENS:VOLT:PROT 3.0")
    for _ in range(30):
        reply = await ask(smu, ":READ?")
    assert int(float(reply.split(",")[3])) & 8
    assert await ask(smu, ":SENS:VOLT:PROT:TRIP?") == "1"
    await ask(smu, ":SENS:VOLT:PROT 4.3", ":SENS:CURR:RANG 1e-12", ":SOUR:CURR 9e-11")
    for _ in range(200):
        reply = await ask(smu, ":READ?")
    assert abs(float(reply.split(",")[1])) > 9e37


@pytest.mark.parametrize("line", ["*RST", ":OUTP OFF"])
async def test_what_others_send_drains_the_cell(line):
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await galvanostat(smu, level=0.0)
    await ask(smu, ":READ?", line)
    before_C = world.cell.ion_C
    await pace.take(20_000_000_000)
    lost_C = before_C - world.cell.ion_C
    assert lost_C > 0.4e-12 * 20  # at least 0.5 % of the 100 pA range, less what it leaks
    assert not smu.output_on


async def test_measure_restores_defaults_and_switches_the_output_on():
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await ask(smu, ":MEAS?")
    assert smu.output_on
    assert world.source == Source(mode="voltage", level=0.0, clamp=1.05e-4)


async def test_a_change_of_function_switches_the_output_off():
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await galvanostat(smu)
    await ask(smu, ":SOUR:FUNC VOLT")
    assert not smu.output_on
    await ask(smu, ":SOUR:VOLT 1.0", ":SENS:CURR:PROT 1e-10", ":OUTP ON")
    assert world.source.mode == "voltage"


async def test_a_smaller_range_resets_a_level_that_does_not_fit():
    world, pace, _ = lockstep()
    smu = Keithley6430(world, pace)
    await galvanostat(smu)
    await ask(smu, ":SOUR:CURR:RANG 1e-12")
    assert float(await ask(smu, ":SOUR:CURR?")) == 0.0
    await ask(smu, ":SOUR:CURR:RANG 3e-6")
    assert float(await ask(smu, ":SOUR:CURR:RANG?")) == pytest.approx(1e-5)


# --- world ---------------------------------------------------------------------------------


def test_means_over_windows_are_integrals_of_the_path():
    world, _, _ = lockstep()
    world.set_source(Source(mode="current", level=2e-11, clamp=4.3), output_on=True)
    world.advance_to(START_NS + 1_000_000_000)
    assert world.mean("current", START_NS, START_NS + 10**9) == pytest.approx(2e-11)
    half = START_NS + 505_000_000
    whole = world.mean("voltage", START_NS, START_NS + 10**9)
    parts = 0.505 * world.mean("voltage", START_NS, half) + 0.495 * world.mean(
        "voltage", half, START_NS + 10**9
    )
    assert whole == pytest.approx(parts, rel=1e-12)
    assert world.mean("current", half, half) == pytest.approx(2e-11)
    assert world.mean("current", START_NS - 10, START_NS - 5) == 0.0
    assert world.mean("current", START_NS + 2 * 10**9, START_NS + 3 * 10**9) == 0.0
    world.advance_to(START_NS)  # the past changes nothing
    assert world.now_ns == START_NS + 10**9


def test_the_truth_counts_from_when_the_cell_was_mated():
    world, _, _ = lockstep()
    world.open_holder()
    world.advance_to(START_NS + 10**9)
    world.mate_cell()
    world.advance_to(START_NS + 2 * 10**9)
    truth = world.truth()
    assert truth["cell"]["t_ns"][0] == START_NS + 10**9
    assert truth["ledger"]["capacitive"][0] == 0.0
    assert len({len(column) for column in truth["ledger"].values()}) == 1


# --- camera --------------------------------------------------------------------------------


def test_frames_are_poisson_with_the_right_mean_and_shift_exactly():
    scenario = load("lco_lipon_li", dose_rate_e_m2_s=1e20, fixed_pattern_ratio=0.0)
    scene = LayersScene(scenario, 4)
    mean = scene.expected(100e-9, (0.0, 0.0))
    frames = np.array([scene.frame(i, 100e-9, (0.0, 0.0)) for i in range(40)], float)
    assert frames.mean() == pytest.approx(mean.mean(), rel=0.002)
    assert (frames.var(axis=0, ddof=1) / mean).mean() == pytest.approx(1.0, rel=0.02)
    whole = scene.expected(100e-9, (3.0, 0.0))
    inner = slice(100, 300)
    assert np.allclose(whole[:, 103:303], mean[:, inner], rtol=1e-6)
    assert np.array_equal(scene.frame(7, 1e-7, (0, 0)), scene.frame(7, 1e-7, (0, 0)))


def test_the_front_stands_where_the_truth_says():
    scene = LayersScene(load("lco_lipon_li", edge_width_m=1e-9), 4)
    profile = [scene.expected(d, (0.0, 0.0)).mean(axis=0) for d in (100e-9, 140e-9)]
    change = profile[1] - profile[0]
    changed = np.flatnonzero(change > 0.5 * change.max())
    left = scene.interface_px - 140e-9 / 2e-9
    right = scene.interface_px - 100e-9 / 2e-9
    assert abs(changed[0] - left) <= 1
    assert abs(changed[-1] - right) <= 1


def test_a_film_that_does_not_fit_is_told():
    with pytest.raises(ValueError, match="does not fit"):
        LayersScene(load("lco_lipon_li", width=200.0), 1)


def test_the_camera_clock_has_an_offset_and_a_rate():
    camera = load("lco_lipon_li").camera
    a, b = (camera_time_ns(camera, 0, t) for t in (0, 10**12))
    assert a == round(camera.clock_offset_s * 1e9)
    assert b - a - 10**12 == 50_000_000


async def _greeted(bench):
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.camera_port)
    return reader, writer, json.loads(await reader.readline())


def test_a_world_does_not_depend_on_when_it_begins():
    def states(start_ns):
        world = World(load("lco_lipon_li"), seed=1, start_ns=start_ns)
        world.set_source(Source(mode="current", level=3e-11, clamp=4.2), output_on=True)
        for step in (7_000_000, 31_000_000, 500_000_000):
            world.advance_to(world.now_ns + step)
        return world.truth()["cell"]["voltage"]

    assert np.array_equal(states(0), states(14_470_363_558_239))


async def test_the_camera_films_in_lockstep_and_accounts_for_every_frame():
    world, pace, stamp = lockstep(
        frame_rate_Hz=20.0, dropped_ratio=0.2, width=200.0, height=64.0, pixel_size_m=4e-9
    )
    async with Bench(world, pace) as bench:
        reader, writer, greeting = await _greeted(bench)
        assert greeting["lamella_frames"] == 1
        second = await asyncio.open_connection("127.0.0.1", bench.camera_port)
        assert await second[0].read() == b""  # one client at a time
        second[1].close()
        writer.write(b"START\nnonsense\n")
        assert json.loads(await reader.readline()) == {"type": "started"}
        moving = asyncio.create_task(pace.take(2_010_000_000))
        indices = []
        await moving
        writer.write(b"STOP\n")
        while (header := json.loads(await reader.readline()))["type"] == "frame":
            pixels = await reader.readexactly(header["bytes"])
            assert len(pixels) == 200 * 64
            indices.append(header["index"])
        writer.close()
        assert header == {"type": "end", "produced": 40, "sent": len(indices)}
        assert indices[0] == 0
        assert 25 <= len(indices) < 40
        truth = world.truth()
        assert truth["frames/camera"]["index"].tolist() == indices
        assert truth["drift/camera"]["dx"][0] == 0.0
        assert stamp.times == sorted(stamp.times)


async def test_clock_exchanges_hold_the_truth_between_their_stamps():
    world, pace, _ = lockstep()
    async with Bench(world, pace) as bench:
        before = world.now_ns
        answer = await bench.camera.answer_clock(struct.pack("<qq", 3, before))
        nonce, t0, t1, t2 = struct.unpack("<qqqq", answer)
        assert (nonce, t0) == (3, before)
        low = camera_time_ns(world.scenario.camera, START_NS, before)
        high = camera_time_ns(world.scenario.camera, START_NS, world.now_ns)
        assert low < t1 < t2 < high
        assert await bench.camera.answer_clock(b"short") is None


async def test_a_bench_that_closes_parts_from_its_clients_without_a_word(caplog):
    world, pace, _ = lockstep()
    async with Bench(world, pace) as bench:
        camera, camera_writer, _ = await _greeted(bench)
        smu, smu_writer = await asyncio.open_connection("127.0.0.1", bench.smu_port)
        smu_writer.write(b"*IDN?\n")
        assert b"6430" in await smu.readline()
    assert await camera.read() == await smu.read() == b""
    for writer in (camera_writer, smu_writer):
        writer.close()
    await asyncio.sleep(0)
    assert not caplog.records


async def test_one_client_owns_the_instrument_and_the_source_outlives_it():
    world, pace, _ = lockstep()
    async with Bench(world, pace) as bench:
        assert bench.smu_resource.endswith("::SOCKET")
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.smu_port)
        writer.write(b"*IDN?\n")
        assert b"6430" in await reader.readline()
        other, other_writer = await asyncio.open_connection("127.0.0.1", bench.smu_port)
        assert await other.read() == b""
        other_writer.close()
        assert bench.refused_clients == 1
        writer.write(b":SOUR:FUNC CURR\n:SENS:VOLT:PROT 4.3\n:OUTP ON\n:OUTP?\n")
        assert await reader.readline() == b"1\n"
        writer.close()
        await bench.wait_until_unattended(5.0)
        assert world.source.mode == "current"
        await bench.open_holder()
        assert not world.cell.mated
        await bench.mate_cell()
        assert world.cell.mated


async def test_real_pace_follows_the_clock_and_has_its_events_on_time():
    speed = 200.0
    origin = real_now_ns()

    def now_ns():
        return origin + int((real_now_ns() - origin) * speed)

    world = World(load("lco_lipon_li"), seed=1, start_ns=now_ns())
    pace = RealPace(world, now_ns, speed)
    seen = asyncio.Event()
    late = []

    async def event(due_ns):
        late.append(world.now_ns - due_ns)
        seen.set()

    running = asyncio.create_task(pace.run())
    pace.at(world.now_ns + 200_000_000, event)
    start = now_ns()
    await pace.take(400_000_000)
    assert now_ns() - start >= 400_000_000
    async with asyncio.timeout(5):
        await seen.wait()
    assert late[0] >= 0
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_same_seed_is_the_same_day():
    async def day(seed):
        world, pace, _ = lockstep(seed)
        smu = Keithley6430(world, pace)
        await galvanostat(smu)
        return [await ask(smu, ":READ?") for _ in range(20)]

    assert await day(3) == await day(3)
    assert await day(3) != await day(4)
