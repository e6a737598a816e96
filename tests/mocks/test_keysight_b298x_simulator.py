"""The simulated B298x on its own: its grammar, its traps, its readings, its lag.

Headers, ranges and off states are PyMeasure's driver's; what no source says is listed in
the simulator's module.
"""

import math
import struct

import numpy as np
import pytest

from mocks.cell import Source
from mocks.keysight_b298x import (
    BEYOND_RANGE,
    BURDEN_V,
    INPUT_OHM,
    NOT_A_NUMBER,
    SOURCE_LIMIT_A,
    KeysightB298x,
    LaggedCurrent,
    header_of,
)
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

START_NS = 5_000_000_000
NO_ERROR = '+0,"No error"'


def simulated(*, mated=True, **overrides):
    world = World(load("lco_lipon_li", **overrides), seed=1, start_ns=START_NS)
    if not mated:
        world.open_holder()
    return KeysightB298x(world, LockstepPace(world, lambda _now_ns: None)), world


async def ask(smu, *lines):
    replies = [await smu.handle(line) for line in lines]
    return replies[-1]


async def numbers(smu, line):
    return [float(text) for text in (await ask(smu, line)).split(",")]


def ammeter(level_V, range_A="2E-10"):
    return (
        ":OUTP:ON:AUTO 0",
        ":OUTP:OFF:MODE HIZ",
        f":CURR:RANG {range_A}",
        f":SOUR:VOLT {level_V}",
        ":FORM:ELEM:SENS VOLT,CURR,TIME,STAT,SOUR",
        ":INP 1",
        ":OUTP 1",
    )


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (":SOURce:VOLTage:LEVel:IMMediate:AMPLitude?", "SOUR:VOLT?"),
        (":func", "SENS:FUNC"),
        (":CURR:RANG", "SENS:CURR:RANG"),
        (":SENSe:CURRent:DC:RANGe?", "SENS:CURR:RANG?"),
        (":INPut:STATe", "INP"),
        (":MEAS?", "MEAS:CURR?"),
        (":INITiate:IMMediate:ACQuire", "INIT:ACQ"),
    ],
)
def test_headers_have_long_and_short_forms(text, short):
    assert header_of(text) == short


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (":NONSENSE 1", -113),
        (":NONSENSE?", -113),
        (":FUNC 'TEMP'", -224),
        (":FUNC", -109),
        (":FORM:ELEM:SENS VOLT,COLOUR", -224),
        (":CURR:RANG 1", -222),
        (":SOUR:VOLT 22", -222),
        (":SOUR:VOLT abc", -104),
        (":SYST:LFR 55", -222),
        (":SENS:CURR:NPLC 0", -222),
        (":OUTP maybe", -224),
        (":SOUR:VOLT:RANG 1000;:OUTP:OFF:MODE HIZ", -221),
    ],
)
async def test_what_it_does_not_take_is_queued(line, code):
    smu, _ = simulated()
    assert await ask(smu, line) is None
    assert (await ask(smu, ":SYST:ERR?")).startswith(f"{code:+d},")
    assert await ask(smu, ":SYST:ERR?") == NO_ERROR
    await ask(smu, line, "*CLS")
    assert await ask(smu, ":SYST:ERR?") == NO_ERROR


async def test_at_power_on_every_trap_is_set():
    smu, world = simulated()
    assert (await ask(smu, "*IDN?")).split(",")[1] == "B2987A"
    assert await ask(smu, ":OUTP:OFF:MODE?;:OUTP:ON:AUTO?;:FUNC?") == 'NORM;1;"CURR"'
    assert await ask(smu, ":OUTP?;:INP?;:SYST:BATT?") == "0;0;87"
    assert float(await ask(smu, ":SOUR:VOLT?")) == 0.0
    assert world.source == Source()
    await ask(smu, ":INIT:ACQ")  # switches both on: 0 V through the ammeter
    assert world.source == Source(mode="voltage", level=-BURDEN_V, clamp=SOURCE_LIMIT_A)
    assert world.cell.voltage_V < 1.0


@pytest.mark.parametrize(
    ("off_mode", "lowest_V", "left"),
    [("NORM", 0.0, "open"), ("ZERO", 0.0, "voltage"), ("HIZ", 3.9002, "open")],
)
async def test_off_states_differ_in_what_the_cell_sees(off_mode, lowest_V, left):
    smu, world = simulated()
    await ask(smu, *ammeter(3.9), f":OUTP:OFF:MODE {off_mode}", ":OUTP 0", "*OPC?")
    assert world.source.mode == left
    assert world.truth()["cell"]["voltage"].min() == pytest.approx(lowest_V, abs=3e-3)


async def test_a_closed_input_carries_the_source_to_the_cell_and_an_open_one_does_not():
    smu, world = simulated()
    await ask(smu, *ammeter(3.95))
    assert world.source.mode == "voltage"
    assert abs(world.source.level - 3.95) < 3e-3
    await ask(smu, ":FUNC 'VOLT'")
    assert world.source.series_ohm == INPUT_OHM
    await ask(smu, ":INP 0")
    assert world.source == Source()


async def test_an_open_input_reads_the_level_less_the_cell():
    smu, world = simulated()
    await ask(smu, *ammeter(3.5), ":FUNC 'VOLT'", ":INIT:ACQ")
    volt_V, current_A, _, status, level_V = await numbers(smu, ":FETC:ARR?")
    assert level_V - volt_V == pytest.approx(world.cell.voltage_V, abs=3e-3)
    assert (current_A, status) == (NOT_A_NUMBER, 0)
    assert abs(world.cell.source_A) < 3e-15


async def test_a_positive_current_charges_and_is_shown_after_the_lag():
    smu, world = simulated()
    await ask(smu, *ammeter(3.95))
    seen = []
    for _ in range(100):
        await ask(smu, ":INIT:ACQ")
        seen.append((await numbers(smu, ":FETC:ARR?"))[1])
    assert world.cell.ion_C > 0
    assert 0 < seen[2] < 0.5 * seen[-1]
    assert seen[-1] == pytest.approx(world.cell.source_A, rel=0.05)


async def test_beyond_its_range_it_says_so():
    smu, _ = simulated()
    await ask(smu, *ammeter(4.2, "2E-11"))
    for _ in range(40):
        await ask(smu, ":INIT:ACQ")
    volt_V, current_A, _, status, _ = await numbers(smu, ":FETC:ARR?")
    assert (volt_V, current_A, status) == (NOT_A_NUMBER, NOT_A_NUMBER, BEYOND_RANGE)


async def test_without_source_or_input_nothing_is_measured():
    smu, _ = simulated()
    await ask(smu, *ammeter(3.9), ":INP 0", ":INIT:ACQ")
    assert (await numbers(smu, ":FETC:ARR?"))[:2] == [NOT_A_NUMBER] * 2


@pytest.mark.parametrize("function", ["CURR", "VOLT"])
async def test_a_spot_measurement_changes_the_function(function):
    smu, _ = simulated()
    await ask(smu, *ammeter(3.9), f":MEAS:{function}?")
    assert await ask(smu, ":FUNC?") == f'"{function}"'


async def test_levels_are_rounded_to_the_sources_step():
    smu, _ = simulated()
    await ask(smu, ":SOUR:VOLT 3.90012")
    assert float(await ask(smu, ":SOUR:VOLT?")) == pytest.approx(3.8997 + 7e-4, abs=1e-9)


@pytest.mark.parametrize(("kind", "code", "width"), [("REAL,64", "d", 8), ("REAL,32", "f", 4)])
@pytest.mark.parametrize("order", ["NORM", "SWAP"])
async def test_blocks_are_binary(kind, code, width, order):
    smu, _ = simulated()
    await ask(smu, *ammeter(3.9), f":FORM {kind}", f":FORM:BORD {order}", ":TRIG:ACQ:COUN 3")
    block = await ask(smu, ":INIT:ACQ;:FETC:ARR?")
    size = str(15 * width)
    assert block.startswith(f"#{len(size)}{size}".encode())
    values = struct.unpack(("<" if order == "SWAP" else ">") + "15" + code, block[2 + len(size) :])
    assert math.isnan(values[0])
    assert values[4::5] == pytest.approx([3.9002] * 3, abs=1e-3)
    both = await ask(smu, ":OUTP?;:FETC:ARR?")
    assert both.startswith(b"1;#")


async def test_a_power_cycle_and_a_reset_set_all_traps_again():
    smu, world = simulated()
    await ask(smu, *ammeter(3.9))
    smu.power_cycle()
    assert world.source == Source()
    assert await ask(smu, ":OUTP:OFF:MODE?") == "NORM"
    assert world.truth()["cell"]["voltage"].min() > 3.8
    await ask(smu, *ammeter(3.9), "*RST", ":ABOR:ACQ", ":SYST:TIME:TIM:COUN:RES")
    assert await ask(smu, ":OUTP:ON:AUTO?") == "1"
    assert world.truth()["cell"]["voltage"].min() < 0.1  # off by way of 0 V


def test_the_lag_keeps_the_charge():
    _, world = simulated(mated=False, leak_ohm=1e12)
    lag = LaggedCurrent(world)
    world.set_source(Source(mode="voltage", level=1.0, clamp=1.0), output_on=True)
    seen_C, tau_s, step_ns = 0.0, 0.05, 20_000_000
    for k in range(100):
        world.advance_to(START_NS + (k + 1) * step_ns)
        seen_C += lag.mean_A(START_NS + k * step_ns, START_NS + (k + 1) * step_ns, tau_s) * 0.02
    assert seen_C == pytest.approx(world.cell.source_C, rel=1e-3)
    assert lag.mean_A(world.now_ns, world.now_ns, tau_s) == pytest.approx(1e-12, rel=0.3)
    lag.restart()
    assert lag.mean_A(world.now_ns, world.now_ns, tau_s) == 0.0


def test_readings_are_repeatable_from_the_seed():
    first, second = (simulated()[0] for _ in range(2))
    draws = [[smu._terminals.errors.latency_s(1e-3) for _ in range(5)] for smu in (first, second)]
    assert np.array_equal(*draws)


# --- the thermocouple --------------------------------------------------------------------------


async def test_the_temperature_of_the_holder_in_the_unit_that_was_set():
    smu, world = simulated(holder_K=330.0, share_of_specification=0.0)
    assert await ask(smu, ":SYSTem:TEMPerature:SELect?") == "HSEN"
    assert float(await ask(smu, ":SYST:TEMP?")) == pytest.approx(23.0, abs=1.0)  # of the room
    for unit, value in (("C", 56.85), ("F", 134.33), ("K", 330.0)):
        told = await ask(smu, ":SYST:TEMP:SEL TC", f":SYST:TEMP:UNIT {unit}", ":SYST:TEMP?")
        assert float(told) == pytest.approx(value, abs=0.5)
    assert await ask(smu, ":SYST:TEMP:UNIT R") is None
    assert (await ask(smu, ":SYST:ERR?")).startswith("-224")
    assert world.truth()["temperature"]["temperature"].tolist() == [330.0] * 3


async def test_a_heated_holder_and_a_thermocouple_that_comes_off():
    smu, world = simulated(
        holder_K=300.0,
        heating_K_s=2.0,
        heating_after_s=5.0,
        heated_by_K=30.0,
        thermocouple_opens_s=40.0,
    )
    await ask(smu, ":SYST:TEMP:SEL TC", ":SYST:TEMP:UNIT K")
    warm = []
    for at_s in (4, 10, 30, 39, 41):
        world.advance_to(START_NS + at_s * 1_000_000_000)
        warm.append((world.temperature_K, float(await ask(smu, ":SYST:TEMP?"))))
    true_K, told_K = np.array(warm).T
    assert true_K[:4] == pytest.approx([300.0, 310.0, 330.0, 330.0], abs=0.1)
    assert np.ptp(told_K[:4] - true_K[:4]) < 0.5  # one error for all
    assert told_K[4] == NOT_A_NUMBER
    world.mate_cell()  # another day
    assert world.temperature_K == 300.0
    assert float(await ask(smu, ":SYST:TEMP?")) == pytest.approx(300.0, abs=3.5)
