"""The simulated 2450: its grammar, its ranges and limits, and what its off states do."""

import pytest

from mocks.cell import Source
from mocks.keithley2450 import EPOCH_S, SMU_2450, Keithley2450
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World

CLEAN = '0,"No error;0,0,0"'


@pytest.fixture
def world():
    return World(load("lco_thin_film"), seed=1, start_ns=0)


@pytest.fixture
def pace(world):
    return LockstepPace(world, lambda _now_ns: None)


@pytest.fixture
def smu(world, pace):
    return Keithley2450(world, pace)


async def ask(smu, *lines):
    return [await smu.handle(line) for line in lines][-1]


async def source_current(smu):
    await ask(
        smu,
        ":OUTP:SMOD HIMP",
        ":SOUR:FUNC CURR",
        ':SENS:FUNC "VOLT"',
        ":SENS:VOLT:RANG 20",
        ":SOUR:CURR:VLIM 4.3",
        ":SOUR:CURR:RANG 1e-6",
        ":SOUR:CURR 4e-7",
        ":OUTP ON",
    )


# --- grammar ---------------------------------------------------------------------------


async def test_headers_are_long_or_short_and_of_any_case(smu):
    for header in (
        ":SOUR:CURR:VLIM",
        "SOURce1:CURRent:VLIMit:LEVel",
        ":source:CURRENT:vlimit",
        ":SOUR1:CURR:VLIM:LEV",
    ):
        assert await ask(smu, f"{header} 4.25", f"{header}?") == "4.250000E+00"
        await ask(smu, "SOUR:CURR:VLIM 4")
    assert await ask(smu, "SYSTem:ERRor:NEXT?") == CLEAN


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (":BOGUS 1", -113),
        (":SOUR:CURRE 1", -113),
        (":SENS:CURR:PROT 1e-6", -113),  # of the 2400
        (":SYST:AZER:STAT OFF", -113),
        (":SOUR:CURR", -109),
        (":FORM:DATA", -109),
        (":SOUR:CURR x", -104),
        (":SOUR:CURR 2", -222),
        (":SOUR:VOLT 211", -222),
        (":SENS:VOLT:NPLC 11", -222),
        (":SOUR:CURR:VLIM 0.01", -222),
        (":SOUR:VOLT:ILIM 5e-10", -222),
        (":SOUR:FUNC RES", -224),
        (":OUTP:CURR:SMOD OPEN", -224),
        (":ROUT:TERM SIDE", -224),
        (":OUTP:STAT MAYBE", -224),
        (':READ? "nobuffer"', -222),
        (':READ? "defbuffer1",BOGUS', -224),
        (':READ? "defbuffer1",' + ",".join(["READ"] * 15), -224),
        (":READ?", -221),  # with the output off
    ],
)
async def test_a_wrong_line_goes_to_the_event_log_and_has_no_reply(smu, line, code):
    assert await smu.handle(line) is None
    told = await smu.handle(":SYST:ERR?")
    assert told.startswith(f'{code},"')
    assert await smu.handle(":SYST:ERR?") == CLEAN


async def test_the_log_is_cleared(smu):
    assert await ask(smu, ":BOGUS", "*CLS", ":SYST:ERR?") == CLEAN
    assert await ask(smu, ":BOGUS", ":SYST:CLE", ":SYST:ERR?") == CLEAN


async def test_several_commands_come_in_a_line(smu):
    assert await smu.handle("*LANG?;*OPC?") == "SCPI;1"
    assert (await smu.handle("*IDN?")).split(",")[1] == "MODEL 2450"


# --- ranges and limits -----------------------------------------------------------------


async def test_power_on_has_the_real_ones_defaults(smu):
    for query, reply in (
        (":SOUR:FUNC?", "VOLT"),
        (":SENS:FUNC?", '"CURR:DC"'),
        (":OUTP?", "0"),
        (":OUTP:SMOD?", "NORM"),
        (":OUTP:CURR:SMOD?", "NORM"),
        (":OUTP:VOLT:SMOD?", "NORM"),
        (":SOUR:VOLT:ILIM?", "1.050000E-04"),
        (":SOUR:CURR:VLIM?", "2.100000E+01"),
        (":SENS:CURR:RANG:AUTO?", "1"),
        (":SYST:LFR?", "50"),
        (":ROUT:TERM?", "FRON"),
    ):
        assert await smu.handle(query) == reply


async def test_a_range_is_the_smallest_that_fits_and_is_no_longer_automatic(smu):
    assert await ask(smu, ":SOUR:CURR:RANG 3e-8", ":SOUR:CURR:RANG?") == "1.000000E-07"
    assert await ask(smu, ":SOUR:CURR:RANG:AUTO?") == "0"
    assert await ask(smu, ":SOUR:VOLT:RANG 4", ":SOUR:VOLT:RANG?") == "2.000000E+01"
    assert (await ask(smu, ":SOUR:CURR 2e-7", ":SYST:ERR?")).startswith("-222")
    assert await ask(smu, ":SOUR:CURR 1.04e-7", ":SYST:ERR?") == CLEAN
    assert (await ask(smu, ":SOUR:CURR:RANG 1e-8", ":SYST:ERR?")).startswith("-221")
    assert await ask(smu, ":SOUR:CURR:RANG?") == "1.000000E-07"


async def test_an_automatic_range_follows_the_level(smu):
    assert await ask(smu, ":SOUR:VOLT 3.9", ":SOUR:VOLT:RANG?") == "2.000000E+01"
    assert await ask(smu, ":SOUR:CURR 5e-8", ":SOUR:CURR:RANG?") == "1.000000E-07"


async def test_a_measuring_range_is_the_source_range_where_the_functions_are_the_same(smu):
    await ask(smu, ":SOUR:FUNC CURR", ":SOUR:CURR:RANG 1e-8", ":SENS:CURR:RANG 1e-6")
    assert await ask(smu, ":SENS:CURR:RANG?") == "1.000000E-08"
    assert await ask(smu, ":SOUR:FUNC VOLT", ":SENS:CURR:RANG?") == "1.000000E-06"


async def test_a_limit_must_suit_its_range_and_is_changed_with_it(smu):
    await ask(smu, ":SOUR:VOLT:ILIM 1e-6", ":SENS:CURR:RANG 1e-8")
    assert await ask(smu, ":SOUR:VOLT:ILIM?") == "1.050000E-08"
    assert (await ask(smu, ":SOUR:VOLT:ILIM 1e-7", ":SYST:ERR?")).startswith("-222")
    await ask(smu, ":SENS:CURR:RANG 1e-5")
    assert (await ask(smu, ":SOUR:VOLT:ILIM 9e-9", ":SYST:ERR?")).startswith("-222")


# --- readings --------------------------------------------------------------------------


async def test_one_quantity_is_measured_and_the_other_is_read_back(smu, world):
    await source_current(smu)
    sourced, sensed = (await ask(smu, ':READ? "defbuffer1",SOUR,READ')).split(",")
    assert float(sourced) == pytest.approx(4e-7, rel=0.02)
    assert float(sensed) == pytest.approx(world.cell.voltage_V, abs=3e-3)
    assert await ask(smu, ":SENS:FUNC 'CURR'", ":READ?") != sensed
    await ask(smu, ":SOUR:CURR:READ:BACK OFF")
    assert await smu.handle(":READ? SOURce") == "4.000000E-07"
    assert float(await smu.handle(":MEAS:VOLT?")) == pytest.approx(world.cell.voltage_V, abs=3e-3)
    assert await smu.handle(":SENS:FUNC?") == '"VOLT:DC"'


async def test_times_are_utc_with_fractions_in_readings_only(smu, world):
    await source_current(smu)
    world.advance_to(12_300_000_000)
    assert await smu.handle(":SYST:TIME?") == str(EPOCH_S + 12)
    elements = ':READ? "defbuffer1",SEC,FRAC,REL'
    seconds, fraction, relative = (await smu.handle(elements)).split(",")
    assert (seconds, relative) == (str(EPOCH_S + 12), "0.000000000")
    assert 0.3 < float(fraction) < 0.35
    assert float((await smu.handle(elements)).split(",")[2]) > 0.04
    assert await smu.handle(":TRAC:ACT? 'defbuffer1'") == "2"
    assert await ask(smu, ":TRAC:CLE 'defbuffer1'", ":TRAC:ACT?") == "0"


async def test_a_limit_that_holds_is_told_in_the_source_status(smu, world):
    await source_current(smu)
    status = ':READ? "defbuffer1",SOURSTAT,STAT'
    assert await smu.handle(status) == "128,8"
    await ask(smu, f":SOUR:CURR:VLIM {world.cell.voltage_V - 1e-3}", ":ROUT:TERM REAR")
    assert await smu.handle(status) == "160,0"
    assert await smu.handle(":SOUR:CURR:VLIM:TRIP?") == "1"
    assert await smu.handle(":SOUR:VOLT:ILIM:TRIPped?") == "0"


async def test_beyond_the_range_a_reading_is_the_overflow_number(smu):
    await source_current(smu)
    await ask(smu, ":OUTP OFF", ":SOUR:FUNC VOLT", ":SENS:FUNC 'CURR'", ":SOUR:VOLT 4.1")
    await ask(smu, ":SENS:CURR:RANG:AUTO OFF", ":SOUR:VOLT:ILIM 5e-6")
    await ask(smu, ":SENS:CURR:RANG:AUTO ON", ":OUTP ON")
    assert 1e-6 < float(await smu.handle(":READ?")) < 6e-6
    smu._numbers["CURR:RANG"], smu._flags["CURR:RANG:AUTO"] = 1e-8, False
    assert await smu.handle(":READ?") == "9.900000E+37"


# --- off states ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "source"),
    [
        ("NORM", Source(mode="voltage", level=0.0, clamp=1e-7)),
        ("ZERO", Source(mode="voltage", level=0.0, clamp=1e-6)),
        ("GUAR", Source(mode="current", level=0.0, clamp=2.0)),
        ("HIMP", Source(mode="open")),
    ],
)
async def test_off_puts_on_the_terminals_what_its_state_says(smu, world, mode, source):
    await source_current(smu)
    await ask(smu, f":OUTP:CURR:SMOD {mode}", ":OUTP OFF")
    assert world.source.mode == source.mode
    assert world.source.level == source.level
    assert world.source.clamp == pytest.approx(source.clamp)


async def test_normal_off_empties_the_cell_by_its_limit(smu, world, pace):
    await source_current(smu)
    await ask(smu, ":OUTP:CURR:SMOD NORM", ":OUTP OFF")
    before_C = world.cell.ion_C
    await pace.take(5 * 10**9)
    assert world.cell.ion_C - before_C == pytest.approx(-5e-7, rel=0.02)


async def test_the_off_state_belongs_to_the_source_function(smu, world):
    await ask(smu, ":OUTP:CURR:SMOD HIMP", ":SOUR:FUNC CURR", ":OUTP ON", ":OUTP OFF")
    assert world.source.mode == "open"
    await ask(smu, ":SOUR:FUNC VOLT")
    assert (world.source.mode, world.source.level) == ("voltage", 0.0)
    assert await smu.handle(":OUTP:SMOD?") == "NORM"
    await ask(smu, ":OUTP:VOLT:SMOD HIMP")
    assert world.source.mode == "open"


async def test_a_change_of_function_switches_the_output_off(smu, world):
    await source_current(smu)
    await ask(smu, ":SOUR:FUNC VOLT")
    assert not smu.output_on
    assert world.source.mode == "open"


async def test_a_reset_forgets_the_off_states(smu, world):
    await source_current(smu)
    await ask(smu, "*RST")
    assert not smu.output_on
    assert (world.source.mode, world.source.level) == ("voltage", 0.0)


def test_the_data_sheet_has_the_zero_and_the_noise_of_10_nanoamperes():
    assert SMU_2450.ranges[0].full_scale_A == 1e-8
    assert SMU_2450.source_offset_A[0] == 1e-10
    assert SMU_2450.current_noise_A == 5e-13
    assert SMU_2450.input_ohm == 1e10
