"""The simulated PalmSens instrument: as strict as the manual, with its traps."""

import asyncio
import math
from collections import deque

import pytest

from mocks.bench import Bench
from mocks.methodscript import ScriptError, parse
from mocks.pace import LockstepPace, RealPace
from mocks.palmsens import EMSTAT4_HR, EMSTAT4_LR, EMSTAT_PICO, NEXUS, Palmsens
from mocks.scenario import load
from mocks.world import World
from potentiostat.methodscript import read_package
from runner.clock import real_now_ns

HOLD = """e
var p
var c
set_pgstat_mode 6
set_range db 1u
cell_on
meas_loop_cp p c 500n 100m 1
pck_start
pck_add p
pck_add c
pck_end
endloop
on_finished:
cell_off
"""


class Instrument:
    """One in virtual time, and what it said."""

    def __init__(self, kind=EMSTAT4_HR):
        self.world = World(load("lco_thin_film"), seed=1, start_ns=0)
        self.pace = LockstepPace(self.world, lambda _: None)
        self.smu = Palmsens(self.world, self.pace, kind)
        self.said = deque()
        self.smu.attach(self.said.append)

    async def ask(self, text):
        for line in text.split("\n"):
            await self.smu.handle(line)
        found, _ = list(self.said), self.said.clear()
        return found

    async def run(self, *lines, seconds=100):
        """Run a script to its end, unless it takes too long; return all that it says."""
        await self.smu.handle("e")
        for line in (*lines, ""):
            await self.smu.handle(line)
        await self.pace.let_pass(lambda: not self.smu.running, at_most_ns=seconds * 10**9)
        found, _ = list(self.said), self.said.clear()
        return found

    def mode(self):
        return self.world.source.mode


async def test_it_says_who_it_is_at_any_time_and_the_rest_only_at_rest():
    instrument = Instrument()
    assert await instrument.ask("t") == ["tes4_hr1301#Nov  4 2024 10:15:20", "R*"]
    assert await instrument.ask("i") == ["iES4HR23K0017"]
    assert await instrument.ask("\nZ\nY\n*IDN?") == ["Z!0006", "Y!0006", "*!0003"]
    await instrument.ask(HOLD)
    assert await instrument.ask("i\ne\nx") == ["i!0006", "e!0006", "x!0006"]
    assert (await instrument.ask("t"))[0].startswith("tes4_hr")


async def test_a_question_lets_it_send_one_package_in_virtual_time():
    instrument = Instrument()
    assert await instrument.ask(HOLD) == ["e", "M0010"]
    before_ns = instrument.world.now_ns
    said = await instrument.ask("t")
    assert [line[0] for line in said] == ["t", "R", "P"]
    assert instrument.world.now_ns == before_ns + 100_000_000
    await instrument.pace.take(250_000_000)  # the time of others
    assert [line[0] for line in instrument.said] == ["P", "P"]


async def test_a_question_does_not_wait_for_ever():
    instrument = Instrument()
    await instrument.ask("e\nwait 1k\n")
    assert [line[0] for line in await instrument.ask("t")] == ["t", "R"]
    await instrument.ask("Z\ne\nwait 2\n")
    assert [line[:1] for line in await instrument.ask("t")] == ["t", "R", ""]


async def test_a_script_runs_to_its_end_and_opens_the_cell():
    instrument = Instrument()
    await instrument.ask(HOLD)
    assert instrument.mode() == "current"
    assert instrument.smu.output_on
    await instrument.pace.take(2_000_000_000)
    said = list(instrument.said)
    assert [line[:1] for line in said] == ["P"] * 10 + ["*", ""]
    assert instrument.mode() == "open"
    assert not instrument.smu.running
    last = read_package(said[9])
    assert last["db"].value == pytest.approx(5e-7)
    assert last["ab"].value == pytest.approx(instrument.world.cell.voltage_V, abs=0.02)


async def test_y_ends_a_loop_and_z_the_script():
    instrument = Instrument()
    twice = HOLD.replace("on_finished:", 'send_string "next"\nwait 5\non_finished:')
    await instrument.ask(twice)
    assert await instrument.ask("Y") == ["Y", "*", "Tnext"]
    assert await instrument.ask("Y") == ["Y"]  # nothing measures any more
    assert instrument.mode() == "current"
    assert await instrument.ask("Z") == ["Z", ""]
    assert instrument.mode() == "open"


async def test_an_error_while_it_runs_does_not_obey_on_finished():
    instrument = Instrument()
    bad = HOLD.replace("endloop", "endloop\nset_e 100m")
    await instrument.ask(bad)
    await instrument.pace.take(2_000_000_000)
    assert instrument.said[-1] == "!0023: Line 12"
    assert not instrument.smu.running
    assert instrument.smu.output_on
    assert instrument.mode() == "current"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cell_of", "!4001: Line 1, Col 8"),
        ("set_e", "!4007: Line 1, Col 6"),
        ("set_e 1 2", "!4007: Line 1, Col 10"),
        ("set_e 1.5", "!4039: Line 1, Col 10"),
        ("set_e x", "!420B: Line 1, Col 8"),
        ("timer_get x", "!420B: Line 1, Col 12"),
        ("var x\nvar x", "!4026: Line 2, Col 6"),
        ("var x\nstore_var x 1 zz", "!4001: Line 2, Col 17"),
        ("var x\nif x ~ 1\nendif", "!4001: Line 2, Col 7"),
        ("if 1 < 2", "!4018: Line 2, Col 1"),
        ("loop 1 < 2\nendif", "!4002: Line 2, Col 1"),
        ("endloop", "!4002: Line 1, Col 1"),
        ("else", "!4002: Line 1, Col 1"),
        ("send_string", "!4007: Line 1, Col 12"),
    ],
)
async def test_an_error_of_the_text_keeps_all_of_it_from_running(text, told):
    instrument, line = Instrument(), int(told.split()[2].rstrip(","))
    assert await instrument.run("set_pgstat_mode 3", "cell_on", "cell_off", *text.split("\n")) == [
        f"e{told.replace(f'Line {line}', f'Line {line + 3}')}"
    ]
    assert set(instrument.world.truth()["source"]["mode"]) == {b"open"}
    with pytest.raises(ScriptError) as caught:
        parse(text.split("\n"))
    assert caught.value.text == told


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["set_pgstat_mode 9"], "0021"),
        (["cell_on"], "0023"),
        (["set_i 1n"], "0023"),
        (["set_pgstat_mode 3", "set_e 7"], "000F"),
        (["set_pgstat_mode 3", "set_range_minmax da 0 7"], "000F"),
        (["var p", "set_pgstat_mode 3", "cell_on", "meas_loop_ocp p 1 1", "endloop"], "0014"),
        (["var p", "var c", "meas_loop_ca p c 1 1 1", "endloop"], "4027"),
        (["var p", "meas_loop_ocp p 0 1", "endloop"], "4204"),
        (["var p", "var c", "meas_loop_lsv p c 1 2 0 1", "endloop"], "4204"),
    ],
)
async def test_what_it_cannot_do_is_an_error(lines, code):
    said = await Instrument().run(*lines)
    assert said[-1].startswith(f"!{code}: Line ")


async def test_a_pico_is_no_galvanostat():
    said = await Instrument(EMSTAT_PICO).run("set_pgstat_mode 6")
    assert said == ["e", "!0021: Line 1"]


async def test_variables_blocks_and_arithmetic():
    instrument = Instrument()
    said = await instrument.run(
        *("var n", "var x", "var y", "store_var n 0i aa", "store_var x 3 ja  # three"),
        *("loop n < 5i", "add_var n 1i", "if n == 2i", 'send_string "two"', "elseif n > 3i"),
        *("breakloop", "else", "mul_var x 2", "endif", "endloop"),
        *("copy_var x y", "sub_var y 500m", "div_var x 4", "pck_start", "pck_add n"),
        *("pck_add x", "pck_add y", "pck_add 7", "pck_end"),
        *("div_var x 0", "pck_start", "pck_add x", "pck_end"),
    )
    assert said[:4] == ["e", "L", "Ttwo", "+"]
    n, x, y, seven = said[4][1:].split(";")
    assert n == "aa8000004i"
    assert read_package(f"P{x}")["ja"].value == 3
    assert read_package(f"P{y}")["ja"].value == pytest.approx(11.5)
    assert read_package(f"P{seven}")["ja"].value == 7
    assert said[5] == "Pja     nan"
    assert said[6] == ""


async def test_a_loop_that_takes_no_time_can_be_ended():
    instrument = Instrument()
    await instrument.ask("e\nvar n\nloop n < 1i\nendloop\n")
    assert instrument.smu.running
    assert await instrument.ask("Z") == ["Z", ""]


async def test_a_timer_and_a_single_measurement():
    instrument = Instrument()
    said = await instrument.run(
        *("var t", "var p", "wait 1", "timer_start", "meas 100m p ab", "timer_get t"),
        *("pck_start", "pck_add t", "pck_add p", "pck_end"),
    )
    found = read_package(said[1])
    assert found["eb"].value == pytest.approx(0.1, rel=1e-4)
    assert found["ab"].value == pytest.approx(instrument.world.cell.voltage_V, abs=6e-3)


SWEEP = ("set_pgstat_mode 3", "set_range ba 1u", "set_e 3900m", "cell_on")
SHOW = ("pck_start", "pck_add p", "pck_add c", "pck_end", "endloop", "on_finished:", "cell_off")


@pytest.mark.parametrize(
    ("loop", "mark", "levels"),
    [
        ("meas_loop_lsv p c 3900m 3904m 1m 10m", "M0000", [3.9, 3.901, 3.902, 3.903, 3.904]),
        ("meas_loop_cv p c 3900m 3902m 3899m 1m 10m", "M0005",
         [3.9, 3.901, 3.902, 3.901, 3.9, 3.899, 3.9]),
        ("meas_loop_ca p c 3901m 100m 300m", "M0007", [3.901] * 3),
    ],
)  # fmt: skip
async def test_sweeps_and_steps_of_potential(loop, mark, levels):
    instrument = Instrument()
    said = await instrument.run("var p", "var c", *SWEEP, loop, *SHOW)
    assert said[1] == mark
    assert [read_package(line)["da"].value for line in said[2:-2]] == pytest.approx(levels)
    assert instrument.mode() == "open"


async def test_currents_carry_their_range_and_what_is_wrong_with_them():
    instrument = Instrument()
    rest_V = instrument.world.cell.voltage_V
    said = await instrument.run(
        *("var p", "var c", *SWEEP),
        f"meas_loop_ca p c {round(rest_V * 1e3 + 5)}m 100m 200m",
        *SHOW,
    )
    last = read_package(said[3])["ba"]
    assert (last.range_index, last.status) == (0x0C, 0)
    assert last.value == pytest.approx(instrument.world.truth()["samples"]["current"][-1], rel=0.02)
    said = await instrument.run("var p", "var c", *SWEEP, "meas_loop_ca p c 4 100m 200m", *SHOW)
    assert read_package(said[3])["ba"].status == 2


@pytest.mark.parametrize(
    ("read_A", "locked", "status"),
    [(5e-7, True, 0), (9.7e-7, True, 8), (2e-6, True, 2), (5e-9, True, 0), (5e-9, False, 4)],
)
async def test_the_status_of_a_current(read_A, locked, status):
    instrument = Instrument()
    await instrument.run("set_range ba 1u", f"set_autoranging ba {'1u' if locked else '100n'} 1u")
    found = instrument.smu._front._current(read_A)
    assert found.notes == f",1{status},20C"
    assert abs(found.value) <= 1.05e-6


async def test_autoranging_follows_the_current():
    instrument = Instrument()
    rest_V = instrument.world.cell.voltage_V
    said = await instrument.run(
        *("var p", "var c", *SWEEP, "set_autoranging ba 100n 10u"),
        f"meas_loop_ca p c {round(rest_V * 1e3)}m 100m 1",
        *SHOW,
    )
    numbers = [read_package(line)["ba"].range_index for line in said[2:-2]]
    assert numbers[0] == 0x0F
    assert numbers[-1] in (0x09, 0x0C)


async def test_a_level_moves_while_the_cell_is_on_and_a_mode_opens_it():
    instrument = Instrument()
    await instrument.ask("e\nset_pgstat_mode 3\nset_e 3900m\ncell_on\nset_e 3905m\nwait 9\n")
    assert instrument.world.source.level == pytest.approx(3.905, rel=1e-3)
    assert instrument.world.source.clamp == math.inf
    await instrument.ask("Z\ne\nset_pgstat_mode 3\nset_e 3900m\ncell_on\nset_pgstat_mode 6\n")
    assert instrument.mode() == "open"


async def test_a_voltage_beyond_its_reach_is_an_overload():
    instrument = Instrument(EMSTAT4_LR)
    said = await instrument.run(
        *("var p", "meas_loop_ocp p 100m 100m", "pck_start", "pck_add p", "pck_end", "endloop")
    )
    assert read_package(said[2])["ab"].status == 2
    assert read_package(said[2])["ab"].value == pytest.approx(3.06)


async def test_a_power_cycle_forgets_the_script():
    instrument = Instrument(NEXUS)
    await instrument.ask(HOLD)
    instrument.smu.power_cycle()
    assert instrument.mode() == "open"
    await instrument.pace.take(10**9)
    assert not instrument.said
    assert not instrument.smu.running


async def test_in_real_time_it_streams_unasked_and_survives_a_pulled_cable():
    world = World(load("lco_thin_film"), seed=1, start_ns=real_now_ns())
    pace = RealPace(world, real_now_ns, 1.0)
    async with Bench(world, pace, driver="palmsens_methodscript") as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.smu_port)
        writer.write(HOLD.replace("100m 1\n", "10m 600m\n").encode() + b"\n")
        said = [await reader.readline() for _ in range(5)]
        assert said[:2] == [b"e\n", b"M0010\n"]
        assert all(line.startswith(b"P") for line in said[2:])
        bench.cut_smu()
        await bench.wait_until_unattended(5)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.smu_port)
        said = []
        while b"\n" not in said:  # the end of the script, whoever began it
            said.append(await reader.readline())
        writer.close()
    assert world.source.mode == "open"
    assert not bench.smu.output_on
