"""The simulated B2900 on its own: its grammar, its traps, its readings.

Checked against the pages that the simulator's module names. That a change of function
takes effect with the output on, how long 0 V lasts, and the numbers of emergency errors
could be checked against nothing.
"""

import math
import struct

import numpy as np
import pytest

from mocks.cell import Source
from mocks.keysight_b2900 import (
    COMPLIANCE,
    CURRENT_SOURCE,
    NOT_A_NUMBER,
    OFF_LIMIT_A,
    TOO_HOT,
    KeysightB2900,
    KeysightB2901,
    header_of,
)
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.scpi import ScpiError
from mocks.world import World

START_NS = 5_000_000_000
NO_ERROR = '+0,"No error"'


def simulated(model=KeysightB2900, **overrides):
    world = World(load("lco_lipon_li", **overrides), seed=1, start_ns=START_NS)
    return model(world, LockstepPace(world, lambda _now_ns: None)), world


async def ask(smu, *lines):
    replies = [await smu.handle(line) for line in lines]
    return replies[-1]


async def numbers(smu, line):
    return [float(text) for text in (await ask(smu, line)).split(",")]


GALVANOSTAT = (
    ":OUTP:ON:AUTO 0",
    ":OUTP:OFF:MODE HIZ",
    ":SOUR:FUNC:MODE CURR",
    ":SOUR:CURR:RANG 1E-8",
    ":SENS:CURR:RANG 1E-8",
    ":SENS:VOLT:PROT 4.3",
    ":SOUR:CURR 2E-10",
    ":FORM:ELEM:SENS VOLT,CURR,TIME,STAT,SOUR",
    ":OUTP ON",
)


# --- the wire ----------------------------------------------------------------------------


def test_headers_have_long_and_short_forms():
    for text in (":SOURce1:CURRent:LEVel:IMMediate:AMPLitude?", "CURR?", ":SOUR:CURR?"):
        assert header_of(text) == "SOUR:CURR?"
    assert header_of(":SENSe:CURRent:DC:PROTection:LEVel") == "SENS:CURR:PROT"
    assert header_of(":FORMat:ELEMents:SENSe") == "FORM:ELEM:SENS"
    assert header_of("INITiate:IMMediate:ACQuire") == "INIT:ACQ"
    with pytest.raises(ScpiError, match="-114"):
        header_of(":SOUR2:CURR?")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (":NONSENSE 1", "-113"),
        (":NONSENSE?", "-113"),
        (":OUTP:SMOD HIMP", "-113"),
        (":SOUR:FUNC CURR", "-113"),  # that is the shape, not the mode
        (":SENS2:CURR:RANG 1", "-114"),
        (":SOUR:CURR", "-109"),
        (":OUTP:OFF:MODE", "-109"),
        (":SOUR:CURR abc", "-104"),
        (":SOUR:CURR:RANG 1E-8;:SOUR:CURR 2E-8", "-222"),
        (":SOUR:VOLT:RANG 1000", "-222"),
        (":SENS:VOLT:PROT 500", "-222"),
        (":SENS:CURR:PROT 0", "-222"),
        (":SENS:CURR:NPLC 1000", "-222"),
        (":SYST:LFR 55", "-222"),
        (":SOUR:CURR 1E-6;:SOUR:CURR:RANG 1E-8", "-221"),
        (":OUTP:OFF:MODE HIMP", "-224"),
        (":FORM:ELEM:SENS VOLT,NONSENSE", "-224"),
        (":OUTP maybe", "-224"),
    ],
)
async def test_what_is_wrong_goes_to_the_error_queue(line, code):
    smu, _ = simulated()
    assert await ask(smu, line) is None
    assert (await ask(smu, ":SYST:ERR?")).startswith(code)
    assert await ask(smu, ":SYST:ERR?") == NO_ERROR


async def test_settings_read_back_as_the_real_ones_do():
    smu, _ = simulated()
    assert (await ask(smu, "*IDN?")).split(",")[1] == "B2911A"
    assert await ask(smu, ":OUTP:ON:AUTO?;:OUTP:OFF:MODE?;:OUTP?") == "1;NORM;0"
    assert await numbers(smu, ":SENS:VOLT:PROT?") == [2.0]
    assert await ask(smu, ":SOUR:CURR:RANG:AUTO?;:SOUR:CURR:RANG 5E-9;*OPC?") == "1;1"
    assert await ask(smu, ":SOUR:CURR:RANG:AUTO?;:SOUR:CURR:RANG?") == "0;+1.000000E-08"
    # A level is rounded to what the range can set.
    assert await ask(smu, ":SOUR:CURR 1.23456E-11", ":SOUR:CURR?") == "+1.235000E-11"
    assert await ask(smu, "*CLS", ":SYST:ERR?") == NO_ERROR


async def test_the_small_model_has_no_10_nA_range():  # noqa: N802
    smu, _ = simulated(KeysightB2901)
    assert await ask(smu, ":SOUR:CURR:RANG 1E-8", ":SOUR:CURR:RANG?") == "+1.000000E-07"


# --- the output ------------------------------------------------------------------------------


async def test_a_reading_switches_the_output_on_unless_told_not_to():
    for header in (":INIT:ACQ", ":READ?", ":MEAS?"):
        smu, world = simulated()
        await ask(smu, ":SENS:CURR:PROT 1E-8", header)
        assert smu.output_on
        assert world.source.mode == "voltage"
        assert world.source.level == 0.0
        assert world.cell.source_A < 0
        smu, world = simulated()
        await ask(smu, ":OUTP:ON:AUTO 0", header)
        assert not smu.output_on
        assert world.source == Source(mode="open")


@pytest.mark.parametrize(
    ("mode", "after"),
    [
        ("HIZ", [Source(mode="open")]),
        ("NORM", [Source(mode="voltage", clamp=OFF_LIMIT_A), Source(mode="open")]),
        ("ZERO", [Source(mode="voltage", clamp=OFF_LIMIT_A)]),
    ],
)
async def test_each_off_state_does_to_the_cell_what_the_guide_says(mode, after):
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, f":OUTP:OFF:MODE {mode}")
    before = len(world.truth()["source"]["mode"])
    await ask(smu, ":OUTP OFF", ":OUTP?")
    assert not smu.output_on
    source = world.truth()["source"]
    assert [m.decode() for m in source["mode"][before:]] == [s.mode for s in after]
    assert np.all(source["level"][before:] == 0)
    assert world.source == after[-1]
    lowest_V = world.truth()["cell"]["voltage"].min()
    assert lowest_V > 3.8 if mode == "HIZ" else lowest_V == 0.0


async def test_automatic_off_follows_a_reading():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, ":OUTP:OFF:AUTO 1", ":INIT:ACQ")
    assert not smu.output_on
    assert world.source == Source(mode="open")


async def test_protection_at_the_clamp_forces_0_V():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, ":SENS:VOLT:PROT 3.95", ":SOUR:CURR 2E-9")
    for _ in range(20):
        await ask(smu, ":INIT:ACQ")
    assert smu.output_on
    await ask(smu, ":OUTP:PROT ON", ":INIT:ACQ")
    assert not smu.output_on
    assert world.truth()["cell"]["voltage"].min() == 0.0
    assert not (await ask(smu, ":SYST:ERR?")).startswith("+0")


async def test_the_clamp_of_power_on_would_empty_a_cell_at_0_A():
    smu, world = simulated()
    await ask(smu, ":SOUR:FUNC:MODE CURR", ":OUTP ON", ":INIT:ACQ")
    assert world.cell.voltage_V == 2.0
    assert world.cell.source_A < -1e-9


async def test_a_reset_with_a_cell_goes_through_0_V_and_sets_the_traps_again():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, "*RST")
    assert world.truth()["cell"]["voltage"].min() == 0.0
    assert await ask(smu, ":OUTP?;:OUTP:OFF:MODE?;:OUTP:ON:AUTO?") == "0;NORM;1"


async def test_over_temperature_forces_0_V_first_whatever_the_off_state():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT)
    before = len(world.truth()["source"]["mode"])
    await smu.trip_over_temperature()
    modes = world.truth()["source"]["mode"][before:]
    assert [m.decode() for m in modes] == ["voltage", "open"]
    assert world.truth()["cell"]["voltage"].min() == 0.0
    assert await ask(smu, ":OUTP ON", ":OUTP?") == "0"
    reading = await numbers(smu, ":INIT:ACQ;:FETC:ARR?")
    assert reading[:2] == [NOT_A_NUMBER] * 2
    assert int(reading[3]) & TOO_HOT
    smu.cool_down()
    assert world.source == Source(mode="open")
    assert await ask(smu, ":OUTP ON", ":OUTP?") == "1"


# --- readings --------------------------------------------------------------------------------


async def test_the_elements_come_in_the_instruments_order():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, ":FORM:ELEM:SENS SOUR,STAT,CURR,VOLT")
    voltage_V, current_A, status, level = await numbers(smu, ":INIT:ACQ;:FETC:ARR?")
    assert 3.9 < voltage_V < world.cell.voltage_V
    assert abs(current_A) < 3e-10
    assert (status, level) == (CURRENT_SOURCE, 2e-10)


async def test_before_the_first_reading_there_is_none():
    smu, _ = simulated()
    assert await numbers(smu, ":FETC:ARR?") == [NOT_A_NUMBER] * 6


async def test_a_block_of_readings_is_timed_by_the_timer():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, ":SYST:TIME:TIM:COUN:RES", ":FORM:ELEM:SENS TIME")
    await ask(smu, ":TRIG:ACQ:SOUR TIM;:TRIG:ACQ:TIM 0.1;:TRIG:ACQ:COUN 10")
    start_ns = world.now_ns
    times = np.array(await numbers(smu, ":INIT:ACQ;:FETC:ARR?"))
    assert np.all(np.abs(np.diff(times) - 0.1) < 0.02)
    assert world.now_ns - start_ns > 900_000_000


@pytest.mark.parametrize(("order", "sign"), [("NORM", ">"), ("SWAP", "<")])
@pytest.mark.parametrize(("kind", "letter"), [("REAL,64", "d"), ("REAL,32", "f")])
async def test_a_binary_block_says_its_length(order, sign, kind, letter):
    smu, _ = simulated()
    await ask(smu, *GALVANOSTAT, f":FORM {kind}", f":FORM:BORD {order}", ":TRIG:ACQ:COUN 30")
    block = await ask(smu, ":INIT:ACQ;:FETC:ARR?")
    assert isinstance(block, bytes)
    digits = int(block[1:2])
    size = int(block[2 : 2 + digits])
    assert block[:1] == b"#"
    assert len(block) == 2 + digits + size
    assert size == 30 * 5 * struct.calcsize(letter)
    table = np.array(struct.unpack(f"{sign}150{letter}", block[2 + digits :])).reshape(30, 5)
    assert np.all((table[:, 0] > 3.8) & (table[:, 0] < 4.3))
    assert np.all(np.diff(table[:, 2]) > 0)
    await ask(smu, ":OUTP OFF")
    block = await ask(smu, ":INIT:ACQ;:FETC:ARR?;:OUTP?")
    assert block.endswith(b";0")
    start = 2 + int(block[1:2])
    size = struct.calcsize(letter)
    assert math.isnan(struct.unpack(f"{sign}{letter}", block[start : start + size])[0])


async def test_ascii_times_lose_their_microseconds():
    smu, world = simulated()
    await ask(smu, *GALVANOSTAT, ":FORM:ELEM:SENS TIME")
    smu._time_zero_ns = world.now_ns - 20_000 * 1_000_000_000
    (time_s,) = await numbers(smu, ":INIT:ACQ;:FETC:ARR?")
    assert time_s == pytest.approx(20_000, abs=0.5)
    assert round(time_s, 2) == time_s  # seven digits: 10 ms
    assert smu.device_time_s(world.now_ns) != round(smu.device_time_s(world.now_ns), 4)


async def test_the_timer_may_start_anew_with_each_reading():
    smu, _ = simulated()
    await ask(smu, *GALVANOSTAT, ":FORM:ELEM:SENS TIME", ":SYST:TIME:TIM:COUN:RES:AUTO ON")
    for _ in range(3):
        assert (await numbers(smu, ":INIT:ACQ;:FETC:ARR?"))[0] < 0.1


async def test_the_clamp_is_told_by_status_and_by_its_own_query():
    smu, _ = simulated()
    await ask(smu, *GALVANOSTAT)
    assert await ask(smu, ":SENS:VOLT:PROT:TRIP?") == "0"
    await ask(smu, ":SENS:VOLT:PROT 3.95", ":SOUR:CURR 2E-9")
    for _ in range(10):
        *_, status, _level = await numbers(smu, ":INIT:ACQ;:FETC:ARR?")
    assert int(status) == COMPLIANCE | CURRENT_SOURCE
    assert await ask(smu, ":SENS:VOLT:PROT:TRIP?") == "1"


async def test_a_current_beyond_the_range_is_no_number_and_says_so():
    smu, _ = simulated()
    await ask(smu, *GALVANOSTAT, ":SOUR:CURR:RANG 1E-7", ":SENS:VOLT:PROT 20")
    await ask(smu, ":SOUR:CURR 2E-8", ":INIT:ACQ")
    _, current_A, _, status, _ = await numbers(smu, ":INIT:ACQ;:FETC:ARR?")
    assert current_A == NOT_A_NUMBER
    assert int(status) & 8192


async def test_readings_carry_the_zero_of_the_data_sheet():
    smu, _ = simulated(dielectric_F=0.0)
    await ask(smu, *GALVANOSTAT, ":FORM:ELEM:SENS CURR", ":TRIG:ACQ:COUN 200")
    current_A = np.array(await numbers(smu, ":INIT:ACQ;:FETC:ARR?"))[5:]
    assert abs(current_A.mean() - 2e-10) < 2 * (5e-11 + 0.001 * 2e-10)
    assert 1e-13 < current_A.std() < 1e-12
