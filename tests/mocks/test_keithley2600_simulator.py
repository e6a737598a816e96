"""The simulated 2600 by itself: its language, its traps, what it does to a cell."""

import asyncio
import math
import struct

import pytest

from mocks.cell import Source
from mocks.smu import OPEN
from tests.potentiostat.served import world_of
from tests.potentiostat.tsp_bench import FILM, DirectLink


@pytest.fixture
def link():
    return DirectLink(world_of(**FILM))


def errors(link):
    found = []
    while not (text := link.handle("print(errorqueue.next())")).startswith("0.0"):
        code, message, severity, node = text.split("\t")
        assert (severity, node) == ("2.00000e+01", "1.00000e+00")
        found.append((int(float(code)), message))
    return found


# --- the language -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunk", "printed"),
    [
        ("print(1 + 2 * 3 ^ 2 - 4 / 2)", "1.70000e+01"),
        ("print(-2 ^ 2, 7 - 2 - 1, #'abc')", "-4.00000e+00\t4.00000e+00\t3.00000e+00"),
        ("print((1 + 2) * 3)", "9.00000e+00"),
        ("print(1 / 0)", "inf"),
        ("print('a' .. \"b\", nil, true, not true)", "ab\tnil\ttrue\tfalse"),
        ("print(1 == 1, 1 ~= 1, 'a' == 1, 1 < 2, 2 <= 1, 2 > 1, 1 >= 2)",
         "true\tfalse\tfalse\ttrue\tfalse\ttrue\tfalse"),
        ("print(nil or 2, nil and 2, 1 and 2, false or false)",
         "2.00000e+00\tnil\t2.00000e+00\tfalse"),
        ("a, b, c = 1, 2 print(a, b, c)", "1.00000e+00\t2.00000e+00\tnil"),
        ("local t = {5, 6} t.x = 7 t[4] = 8 print(t[1], t[2], t.x, t[4], t[9])",
         "5.00000e+00\t6.00000e+00\t7.00000e+00\t8.00000e+00\tnil"),
        ("function two() return 1, 2 end print(two(), two())",
         "1.00000e+00\t1.00000e+00\t2.00000e+00"),
        ("print((two or 3))", "3.00000e+00"),
        ("function f(n) if n < 1 then return 0 elseif n < 2 then return 1 else return n * f(n - 1) "
         "end end print(f(0), f(1), f(4))", "0.00000e+00\t1.00000e+00\t2.40000e+01"),
        ("local g = function(a) return a end print(g(3), g())", "3.00000e+00\tnil"),
        ("s = 0 for i = 1, 9 do if i > 3 then break end s = s + i end print(s)", "6.00000e+00"),
        ("s = 0 for i = 3, 1, -1 do s = s * 10 + i end print(s)", "3.21000e+02"),
        ("n = 0 while true do n = n + 1 if n == 5 then break end end print(n)", "5.00000e+00"),
        ("n = 3 while n > 0 do n = n - 1 end; print(n)", "0.00000e+00"),
        ("do local x = 1 end print(x)", "nil"),
        ("x = 1 local x = 2 x = 3 print(x)", "3.00000e+00"),
        ("t = {} t.f = 1 function t.g() return 4 end print(t.g())", "4.00000e+00"),
        ("return 5", None),
        ("print(1) -- and so on", "1.00000e+00"),
        ("function nothing() end print(nothing())", ""),
        ("print(print ~= nil)", "true"),
        ("printnumber(1, 2)", "1.00000e+00, 2.00000e+00"),
    ],
)  # fmt: skip
def test_a_chunk_does_what_lua_does(link, chunk, printed):
    assert link.handle(chunk) == printed
    assert errors(link) == []


@pytest.mark.parametrize(
    ("chunk", "code", "message"),
    [
        ("foo bar", -285, "`=' expected near `bar'"),
        ("print(1", -285, "`)' expected near `'"),
        ("print(&)", -285, "unexpected symbol near `&)'"),
        ("if x then", -285, "`end' expected near `'"),
        ("1 = 2", -285, "unexpected symbol near `1'"),
        ("local 3", -285, "unexpected symbol near `3'"),
        ("print(1) end", -285, "unexpected symbol near `end'"),
        ("nofunction()", -286, "attempt to call global `nofunction' (a nil value)"),
        ("t = {} t.f()", -286, "attempt to call field `?' (a nil value)"),
        ("print(nothing.x)", -286, "attempt to index global `nothing' (a nil value)"),
        ("t = {} print(t.x.y)", -286, "attempt to index field `x' (a nil value)"),
        ("x = 1 x.y = 2", -286, "attempt to index a number value"),
        ("print(1 + 'a')", -286, "attempt to perform arithmetic on a string value"),
        ("print(1 + true)", -286, "attempt to perform arithmetic on a boolean value"),
        ("print(smua.source.levle)", -286, "attempt to index field `levle' (a nil value)"),
        ("smua.source.levle = 1", -286, "attempt to assign to `smua.source.levle'"),
        ("smua.source = 1", -286, "attempt to assign to `smua.source'"),
        ("smua.source.leveli = true", 1100, "Parameter is not a number"),
        ("smua.source.leveli = 2", 1101, "Parameter too big"),
        ("smua.source.leveli = -2", 1102, "Parameter too small"),
        ("smua.source.limitv = 0", 1102, "Parameter too small"),
        ("smua.source.func = 5", 1101, "Parameter too big"),
        ("smua.source.func = -1", 1102, "Parameter too big"),
        ("format.data = 9", 1101, "Parameter too big"),
        ("smua.nvbuffer1.foo = 1", -286, "cannot modify field `foo'"),
        ("print(smua.nvbuffer1.foo)", -286, "attempt to index field `foo' (a nil value)"),
    ],
)
def test_errors_are_silent_until_somebody_asks(link, chunk, code, message):
    assert link.handle(chunk) is None
    assert float(link.handle("print(errorqueue.count)")) == 1
    ((found, text),) = errors(link)
    assert found == code
    assert message in text


def test_the_queue_is_emptied_in_order_and_at_once(link):
    link.handle("foo()")
    link.handle("bar()")
    assert ["foo" in text for _, text in errors(link)] == [True, False]
    for clear in ("errorqueue.clear()", "*CLS"):
        link.handle("foo()")
        link.handle(clear)
        assert errors(link) == []


def test_numbers_have_six_digits_unless_asked_otherwise(link):
    link.handle("smua.source.leveli=1.23456789e-12")
    assert link.handle("print(smua.source.leveli)") == "1.23457e-12"
    link.handle("format.asciiprecision=16")
    assert link.handle("print(smua.source.leveli)") == "1.234567890000000e-12"


def test_scripts_are_collected_and_run(link):
    for line in ("loadandrunscript", "for i = 1, 2 do", "print(i)"):
        assert link.handle(line) is None
    assert link.handle("end") is None
    assert link.handle("endscript") == "1.00000e+00\n2.00000e+00"


def test_common_commands(link):
    assert link.handle("*IDN?").split(",")[1] == " Model 2636B"
    assert link.handle("*OPC?") == "1"
    assert link.handle("") is None
    assert link.handle("print(localnode.model)") == "2636B"
    assert (
        link.handle("print(smua.OUTPUT_HIGH_Z, smub.OUTPUT_DCVOLTS)") == "2.00000e+00\t1.00000e+00"
    )
    assert link.handle("print(smua)") == "table: 0x1"
    assert link.handle("print(print)") == "function: 0x1"


# --- waiting ------------------------------------------------------------------------------------


def test_a_chunk_that_waits_is_woken_by_a_trigger_or_by_time(link):
    assert link.handle("while trigger.wait(2) do print('on') end print('over')") is None
    for _ in range(3):
        link.pass_time(1.5)
        assert link.handle("*TRG") == "on"
    link.pass_time(2.5)
    assert link.handle("print('next')") == "over\nnext"


def test_a_trigger_that_came_before_is_remembered_or_forgotten(link):
    link.handle("*TRG")
    assert link.handle("print(trigger.wait(1))") == "true"
    link.handle("*TRG")
    link.handle("trigger.clear()")
    assert link.handle("print(trigger.wait(1))") is None
    link.pass_time(1.5)
    assert link.handle("print(1)") == "false\n1.00000e+00"


def test_lines_wait_for_the_end_of_a_chunk_and_abort_does_not(link):
    link.handle("trigger.wait(2) x = 5")
    began_ns = link.now
    assert link.handle("print(x)") == "5.00000e+00"
    assert link.now - began_ns > 1.9e9
    link.handle("trigger.wait(2) x = 6")
    began_ns = link.now
    assert link.handle("ABORT") is None
    assert link.handle("print(x)") == "5.00000e+00"
    assert link.now - began_ns < 0.1e9
    assert link.handle("abort") is None  # with nothing to end


def test_an_error_of_a_chunk_that_was_woken_is_queued(link):
    link.handle("trigger.wait(1) foo()")
    link.pass_time(2)
    assert errors(link)[0][0] == -286


def test_delays_take_time_even_when_time_alone_has_woken_the_chunk(link):
    began_ns = link.now
    assert link.handle("delay(0.5) print(1)") == "1.00000e+00"
    assert link.now - began_ns > 0.5e9
    link.handle("x = 0 trigger.wait(1) x = 1 delay(0.5) x = 2")
    link.pass_time(1.2)
    began_ns = link.now
    assert link.handle("print(x)") == "2.00000e+00"
    assert 0.2e9 < link.now - began_ns < 0.4e9


async def test_what_goes_wrong_in_the_event_loop_reaches_the_chunk():
    link = DirectLink(world_of())

    class Pace:
        def __init__(self):
            self.release = asyncio.Event()

        async def take(self, _duration_ns):
            await self.release.wait()

        def at(self, _t_ns, _event):
            raise AssertionError("nothing waits for a trigger")

    link.smu._pace = pace = Pace()
    link.smu._terminals.pace = link.pace
    ended = asyncio.create_task(link.smu.handle("delay(1) print(1)"))
    await asyncio.sleep(0)
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    pace.release.set()


# --- what it does to a cell ---------------------------------------------------------------------


def test_nothing_is_at_the_terminals_until_something_is_set(link):
    link.handle("*IDN?")
    link.handle("print(smua.source.offmode)")
    link.handle("format.asciiprecision=16")
    assert link.world.source == OPEN
    link.handle("smua.source.limitv=4.3")
    assert link.world.source == Source(mode="voltage", level=0.0, clamp=1e-3)


@pytest.mark.parametrize(
    ("lines", "source"),
    [
        (["smua.source.offmode=0"], Source(mode="voltage", level=0.0, clamp=1e-3)),
        (["smua.source.offlimiti=1e-6"], Source(mode="voltage", level=0.0, clamp=1e-6)),
        (["smua.source.offfunc=0"], Source(mode="current", level=0.0, clamp=40.0)),
        (["smua.source.offmode=1"], Source(mode="voltage", level=0.0, clamp=0.1)),
        (
            ["smua.source.func=0", "smua.source.rangei=1e-6", "smua.source.offmode=1"],
            Source(mode="voltage", level=0.0, clamp=1e-7),
        ),
        (["smua.source.offmode=2"], OPEN),
        (["smua.source.output=2"], OPEN),
    ],
)
def test_off_is_what_the_manual_says(link, lines, source):
    for line in lines:
        link.handle(line)
    assert link.world.source == source
    assert not link.smu.output_on
    link.pass_time(1.0)
    assert (link.world.cell.source_A < -5e-8) is (source.mode == "voltage")  # it is emptied


@pytest.mark.parametrize("reset", ["*RST", "reset()", "smua.reset()"])
def test_a_reset_puts_0_V_on_the_cell(link, reset):
    link.handle("smua.source.offmode=2")
    link.handle(reset)
    assert link.world.source == Source(mode="voltage", level=0.0, clamp=1e-3)


def test_a_level_beyond_its_range_is_told_when_the_output_goes_on(link):
    link.handle("smua.source.offmode=2 smua.source.func=0 smua.source.rangei=1e-9")
    link.handle("smua.source.leveli=1e-6")
    assert errors(link) == []
    link.handle("smua.source.output=1")
    assert errors(link)[0][0] == 5069
    assert not link.smu.output_on
    link.handle("smua.source.leveli=5e-10 smua.source.output=1")
    link.handle("smua.source.leveli=1e-6")
    assert errors(link)[0][0] == 5069
    assert float(link.handle("print(smua.source.leveli)")) == 5e-10


def test_the_smallest_range_only_measures(link):
    link.handle("smua.source.rangei=1e-10 smua.measure.rangei=1e-10")
    assert link.handle("print(smua.source.rangei, smua.measure.rangei)") == (
        "1.00000e-09\t1.00000e-10"
    )
    link.handle("smua.source.func=0")
    assert float(link.handle("print(smua.measure.rangei)")) == 1e-9  # locked to the source's


def test_source_ranges_follow_levels_until_they_are_fixed(link):
    link.handle("smua.source.leveli=3e-8")
    assert float(link.handle("print(smua.source.rangei)")) == 1e-7
    link.handle("smua.source.rangei=1e-6")
    assert float(link.handle("print(smua.source.autorangei)")) == 0


def test_measuring_ranges_follow_the_current_of_a_voltage_source(link):
    cell_V = link.world.cell.voltage_V
    link.handle(
        f"smua.source.offmode=2 smua.source.levelv={cell_V + 0.005} smua.source.limiti=1e-6"
    )
    link.handle("smua.source.output=1")
    link.pass_time(1.0)
    true_A = link.world.cell.source_A
    assert float(link.handle("print(smua.measure.i())")) == pytest.approx(true_A, rel=0.02)
    assert float(link.handle("print(smua.measure.r())")) > 0
    link.handle("smua.measure.rangei=1e-9")
    assert float(link.handle("print(smua.measure.i())")) == pytest.approx(9.91e37)


def test_a_meter_behind_an_open_relay_sees_nothing(link):
    link.handle("smua.source.offmode=2")
    assert link.handle("print(smua.measure.iv())") == "0.00000e+00\t0.00000e+00"
    assert link.handle("print(smub.measure.iv())") == "0.00000e+00\t0.00000e+00"
    assert link.handle("print(smua.measure.r())") == "inf"


def test_compliance_is_in_the_attribute_the_register_and_the_buffer(link):
    cell_V = link.world.cell.voltage_V
    link.handle(
        "smua.source.offmode=2 smua.source.func=0 smua.source.leveli=8e-7 smua.sense=1 "
        f"smua.source.limitv={cell_V + 0.005} smua.source.output=1"
    )
    link.pass_time(1.0)
    link.handle("smua.measure.i(smua.nvbuffer1)")
    condition = "status.measurement.instrument.smua.condition"
    assert link.handle(f"print(smua.source.compliance, {condition})") == "true\t1.00000e+00"
    assert link.handle("printbuffer(1, 1, smua.nvbuffer1.statuses)") == "8.00000e+01"
    link.handle("smua.source.func=1 smua.source.levelv=3.9")
    assert link.handle(f"print({condition} > 1 or not smua.source.compliance)") == "true"


# --- buffers ------------------------------------------------------------------------------------


def test_a_buffer_keeps_what_it_was_told_to_collect(link):
    link.handle("smua.source.offmode=2 smua.source.func=0 smua.source.leveli=1e-7")
    link.handle("smua.source.limitv=4.3 smua.source.output=1 smua.measure.count=3")
    link.handle("smua.measure.overlappediv(smua.nvbuffer1, smua.nvbuffer2) waitcomplete()")
    assert float(link.handle("print(smua.nvbuffer1.n)")) == 3
    assert float(link.handle("printbuffer(1, 1, smua.nvbuffer1.timestamps)")) == 9.91e37
    link.handle("smua.nvbuffer1.collecttimestamps=1")
    assert errors(link)[0][0] == 5020  # not empty
    link.handle("smua.nvbuffer1.clear()")
    for name in ("collecttimestamps", "collectsourcevalues"):
        link.handle(f"smua.nvbuffer1.{name}=1")
    link.handle("smua.nvbuffer1.timestampresolution=1e-3 smua.measure.interval=0.1")
    link.handle("smua.measure.iv(smua.nvbuffer1, smua.nvbuffer2)")
    text = link.handle(
        "printbuffer(1, 3, smua.nvbuffer1, smua.nvbuffer1.timestamps, smua.nvbuffer1.sourcevalues)"
    )
    values = [float(v) for v in text.split(", ")]
    assert values[1::3] == pytest.approx([0.0, 0.1, 0.2], abs=3e-3)
    assert all(abs(t * 1e3 - round(t * 1e3)) < 1e-6 for t in values[1::3])
    assert values[2::3] == [1e-7] * 3
    assert values[0::3] == pytest.approx([1e-7] * 3, rel=0.02)
    assert float(link.handle("print(smua.nvbuffer1.basetimestamp)")) == 1.7e9
    assert float(link.handle("print(smua.nvbuffer1.collecttimestamps)")) == 1
    link.handle("smua.nvbuffer1.appendmode=1 smua.measure.i(smua.nvbuffer1)")
    assert float(link.handle("print(smua.nvbuffer1.n)")) == 6


@pytest.mark.parametrize(
    ("lines", "layout"),
    [
        ("format.data=format.REAL64", "<2d"),
        ("format.data=format.REAL32", "<2f"),
        ("format.data=format.REAL64 format.byteorder=format.BIGENDIAN", ">2d"),
    ],
)
def test_blocks_of_unknown_length_come_in_the_format_that_is_set(link, lines, layout):
    link.handle(lines)
    assert link.handle("printnumber(1.5, -2)") == b"#0" + struct.pack(layout, 1.5, -2)
    assert link.handle("print(1.5)") == "1.50000e+00"  # text, whatever the format
    assert link.handle("print(7) printnumber(1.5, 1)") == b"7.00000e+00\n#0" + struct.pack(
        layout, 1.5, 1
    )
    block = link.handle("printbuffer(1, 2, smua.nvbuffer1)")
    assert all(math.isnan(v) for v in struct.unpack(layout, block[2:]))


# --- lines --------------------------------------------------------------------------------------


def test_edges_are_remembered_until_they_are_looked_for(link):
    link.smu.edge_every_ns = 10**9
    link.handle("digio.trigger[3].mode=digio.TRIG_RISINGA digio.trigger[3].clear()")
    link.pass_time(1.3)
    began_ns = link.now
    assert link.handle("print(digio.trigger[3].wait(5))") == "true"
    assert link.now - began_ns < 0.1e9
    assert link.handle("print(digio.trigger[3].wait(5))") == "true"
    assert link.now % 10**9 < 0.01e9
    assert link.handle("print(digio.trigger[3].wait(0.2))") == "false"
    assert link.handle("print(digio.trigger[4].wait(0.2))") == "false"  # not an input


def test_pulses_come_from_lines_that_are_in_use(link):
    link.handle("digio.trigger[2].assert()")
    assert link.smu.pulses == []
    link.handle("digio.trigger[2].mode=digio.TRIG_RISINGM digio.trigger[2].assert()")
    assert link.smu.pulses == [(link.now, 2)]
    link.handle("digio.trigger[15].assert()")
    assert errors(link)[0][0] == -286
