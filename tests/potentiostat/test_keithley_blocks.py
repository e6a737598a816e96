"""Blocks of readings and trigger lines of the 2400 family, against the simulator's truth."""

import math
import struct
from itertools import pairwise

import numpy as np
import pytest

from potentiostat import keithley_scpi
from potentiostat.blocks import EDGE_WAIT_S, reply_within_s, text_table
from potentiostat.drivers.keithley2400 import Keithley2400
from potentiostat.drivers.keithley6430 import Keithley6430
from potentiostat.errors import NoReply, ReplyError, UnsafeRequest
from potentiostat.keithley_trigger import is_binary
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, SafeState, Setpoint, TriggerLines
from potentiostat.records import Status
from potentiostat.visa import Block, Reply, VisaLink

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=2e-10, charge_max_C=8e-9)
SMALL = {"height": 48, "width": 220, "pixel_size_m": 4e-9}  # the film's field, quickly drawn
TRIGGER_S = 1e-3  # from an exposure's edge to the reading that begins with it, at most


class NamedLink(VisaLink):
    """A link over a socket that calls itself otherwise: a stand-in for GPIB."""

    def __init__(self, resource, *, called=None, **options):
        super().__init__(resource, **options)
        self.called = called
        self.sent = []

    def open(self):
        super().open()
        self.resource = self.called or self.resource

    def write(self, command):
        self.sent.append(command)
        super().write(command)

    def query(self, command, **options):
        self.sent.append(command)
        return super().query(command, **options)

    def query_block(self, command, size_bytes, **options):
        self.sent.append(command)
        return super().query_block(command, size_bytes, **options)


@pytest.fixture
def simulated(start_bench):
    links = []

    def make(*, driver=Keithley6430, called=None, block=1, lines=NO_LINES, bench=None, **options):
        bench = bench or start_bench(**options)
        link = NamedLink(bench.resource, called=called, now_ns=bench.now_ns)
        link.open()
        links.append(link)
        return driver(link, now_ns=bench.now_ns, block=block, lines=lines), bench, link

    yield make
    for link in links:
        link.close()


def current(level, range_A=1e-10):
    return Setpoint(mode="current", level=level, clamp=4.3, range_A=range_A)


def voltage(level, range_A=1e-10):
    return Setpoint(mode="voltage", level=level, clamp=9e-11, range_A=range_A)


def true_starts_ns(bench, count, aperture_s=0.04):
    """Return when the last readings really began."""
    return bench.world.truth()["samples"]["t_ns"][-count:] - round(aperture_s / 2 * 1e9)


# --- blocks --------------------------------------------------------------------------------


@pytest.mark.parametrize("called", [None, "GPIB0::24::INSTR"], ids=["text", "float32"])
def test_a_block_is_readings_each_with_its_own_time_and_bracket(simulated, called):
    smu, bench, link = simulated(called=called, block=20)
    smu.connect(ENVELOPE)
    smu.apply(current(5e-11))
    rows = np.concatenate([smu.read() for _ in range(3)])
    assert len(rows) == 60
    assert (":FORM:DATA SRE" in link.sent) is (called is not None)
    truth = bench.world.truth()["samples"]
    began_ns = true_starts_ns(bench, 60)
    assert np.all(rows["read_start_ns"] <= began_ns)
    assert np.all(rows["read_end_ns"] >= began_ns + 40_000_000)
    # Of a block each bracket is far narrower than the exchange.
    assert np.median(rows["read_end_ns"] - rows["read_start_ns"]) < 0.2e9
    told_ns = (rows["device_time_s"] - rows["device_time_s"][0]) * 1e9 * keithley_scpi.TICK_RATIO
    # The timer's read-out has steps of a tick, 0.977 ms.
    assert np.all(np.abs(told_ns - (began_ns - began_ns[0])) < 1.1e6)
    settled = rows[rows["status"] == 0][3:]
    assert len(settled) > 50
    assert np.all(np.abs(settled["current_A"] - 5e-11) < 4e-13)
    # The truth is the mean over both quantities' windows: compare where it hardly moves.
    offset_V = rows["voltage_V"][-20:] - truth["voltage"][-20:]
    assert np.all(np.abs(offset_V) < 2.5e-3)
    assert np.std(offset_V) < 2e-4


@pytest.mark.parametrize("called", [None, "GPIB0::24::INSTR"], ids=["text", "float32"])
def test_the_time_of_each_reading_is_the_timers_to_the_millisecond(simulated, called):
    smu, bench, _ = simulated(called=called, block=10)
    smu.connect(ENVELOPE)
    told_s = np.concatenate([smu.read()["device_time_s"] for _ in range(10)])
    timer = bench.bench.smu.device_time_s
    assert told_s.tolist() == [timer(int(t_ns)) for t_ns in true_starts_ns(bench, 100)]


def test_a_clamp_that_holds_is_told_by_each_reading_of_a_block(simulated):
    smu, _, _ = simulated(block=30)
    smu.connect(ENVELOPE)
    smu.apply(Setpoint(mode="current", level=1e-10, clamp=3.95, range_A=1e-10))
    status = np.concatenate([smu.read()["status"] for _ in range(3)])
    assert status[0] & Status.COMPLIANCE == 0
    assert np.all(status[-20:] == Status.COMPLIANCE)
    assert np.sum(np.diff(status & Status.COMPLIANCE != 0)) == 1


def test_the_set_point_may_change_between_blocks_and_a_voltage_comes_on_a_cell(simulated):
    smu, bench, _ = simulated(block=5)
    smu.connect(ENVELOPE)
    smu.read()
    smu.apply(voltage(3.9))
    rows = smu.read()
    assert rows.shape == (5,)
    assert np.all(rows["status"] & Status.POTENTIOSTATIC)
    smu.apply(current(2e-11))
    assert np.all(smu.read()["setpoint"] == 2e-11)
    assert smu.ensure_safe() is SafeState.S1
    assert abs(bench.world.source.level) < 1e-13


def test_a_session_one_by_one_after_one_in_blocks_gets_one_reading(simulated):
    smu, bench, link = simulated(block=5, lines=TriggerLines(exposure_in=1))
    smu.connect(ENVELOPE)
    link.close()
    bench.wait_until_unattended()
    after, _, _ = simulated(bench=bench)
    after.connect(ENVELOPE)
    assert after.read().shape == (1,)
    assert math.isfinite(after.read()["voltage_V"][0])


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        (0, NO_LINES),
        (2501, NO_LINES),
        (1, TriggerLines(exposure_in=5)),
        (1, TriggerLines(mark_out=0)),
        (1, TriggerLines(exposure_in=1, mark_out=1)),
    ],
)
@pytest.mark.parametrize("driver", [Keithley2400, Keithley6430])
def test_what_the_family_has_not_is_refused_before_anything_is_sent(driver, block, lines):
    with pytest.raises(UnsafeRequest):
        driver(object(), now_ns=int, block=block, lines=lines)


def test_the_timer_begins_anew_before_a_float32_loses_its_milliseconds(simulated, monkeypatch):
    monkeypatch.setattr(keithley_scpi, "TIMER_LONGEST_S", 14.0)
    smu, _, link = simulated(block=20)
    smu.connect(ENVELOPE)
    times = [smu.read()["device_time_s"] for _ in range(5)]
    assert ":SYST:TIME:RES" in link.sent
    last = [float(block[-1]) for block in times]
    assert max(last) < 16.0
    assert any(b < a for a, b in pairwise(last))
    # Never inside a block: there the times rise.
    assert all(np.all(np.diff(block) > 0) for block in times)


def test_milliseconds_in_float32_are_exact_until_the_timer_begins_anew():
    ms = np.arange(0, int(1.01 * keithley_scpi.TIMER_LONGEST_S * 1000))
    assert np.array_equal(np.round((ms / 1000).astype("<f4").astype(float), 3), ms / 1000)


def test_who_can_send_float32():
    assert is_binary("GPIB0::24::INSTR")
    assert is_binary("gpib::5")
    assert not is_binary("TCPIP::192.168.0.5::1394::SOCKET")
    assert not is_binary("ASRL/dev/ttyUSB0::INSTR")


# --- what the wire may say -----------------------------------------------------------------


class ScriptedLink:
    """An instrument that keeps what it is told; its readings come from a test."""

    def __init__(self, resource="scripted"):
        self.resource = resource
        self.sent = []
        self.known = {"*IDN": "A,MODEL 6430,1,B", ":OUTP": "1"}
        self.known |= {":SOUR:FUNC": "CURR", ":SOUR:CURR:RANG": "1E-10"}
        self.readings = []
        self.waited = []
        self.now = 0

    def now_ns(self):
        return self.now

    def write(self, command):
        for part in command.split(";"):
            self.sent.append(part)
            header, _, value = part.partition(" ")
            self.known[header] = {"ON": "1", "OFF": "0"}.get(value, value)

    def _answer(self, command, options):
        self.sent.append(command)
        if command.endswith(":READ?"):
            self.waited.append(options)
            answer = self.readings.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return '0,"No error"' if "ERR" in command else self.known[command.removesuffix("?")]

    def query(self, command, **options):
        text = self._answer(command, options)
        start, self.now = self.now, self.now + 1_000_000_000
        return Reply(text, start, self.now)

    def query_block(self, command, size_bytes, **options):
        data = self._answer(command, options)
        assert len(data) == size_bytes
        start, self.now = self.now, self.now + 1_000_000_000
        return Block(data, start, self.now)


def scripted(*readings, resource="scripted", block=2, lines=NO_LINES):
    link = ScriptedLink(resource)
    smu = Keithley6430(link, now_ns=link.now_ns, block=block, lines=lines)
    smu.connect(ENVELOPE)
    link.readings = list(readings)
    link.sent.clear()
    return smu, link


GOOD = "+3.9E+00,+1.0E-11,+4.5,+0.0E+00"


@pytest.mark.parametrize(
    ("reply", "status", "voltages"),
    [
        (f"{GOOD},{GOOD}", [0, 0], [3.9, 3.9]),
        (f"{GOOD},+9.9E+37,+1.0E-11,+4.6,0", [0, Status.OVERFLOW], [3.9, math.inf]),
        (f"{GOOD},+9.91E+37,+1.0E-11,+4.6,0", [0, Status.INVALID], [3.9, math.nan]),
        (f"{GOOD},+3.9,+1.0E-11,+4.6,8", [0, Status.COMPLIANCE], [3.9, 3.9]),
        (f"{GOOD},+3.9,+1.0E-11,+4.6,junk", [0, Status.INVALID], [3.9, math.nan]),
        (f"{GOOD},+3.9,?,+4.6,0", [0, Status.INVALID], [3.9, 3.9]),
        (f"{GOOD},+9.9E37,-9.9E37,+4.6,9.91E37", [0, Status.OVERFLOW], [3.9, math.inf]),
        (GOOD, [Status.INVALID] * 2, [math.nan] * 2),
        (f"{GOOD},{GOOD},1", [Status.INVALID] * 2, [math.nan] * 2),
        ("", [Status.INVALID] * 2, [math.nan] * 2),
    ],
)
def test_each_reading_of_a_block_is_judged_by_itself(reply, status, voltages):
    smu, link = scripted(reply)
    link.now = 10**11  # long settled
    rows = smu.read()
    assert rows["status"].tolist() == [int(s) for s in status]
    np.testing.assert_array_equal(rows["voltage_V"], voltages)


def packed(*readings):
    return struct.pack(f"<{4 * len(readings)}f", *(value for r in readings for value in r))


def test_float32_readings_carry_the_same_flags():
    smu, link = scripted(
        packed((3.9, 1e-11, 4.501, 0), (3.9, 9.9e37, 4.551, 8)),
        packed((9.91e37, 1e-11, 4.6, 0), (3.9, 1e-11, 4.65, 9.91e37)),
        ReplyError("a block of 30 bytes came"),
        resource="GPIB0::24::INSTR",
    )
    link.now = 10**11
    rows = smu.read()
    assert rows["status"].tolist() == [0, Status.OVERFLOW | Status.COMPLIANCE]
    assert rows["current_A"][1] == math.inf
    assert rows["device_time_s"].tolist() == [4.501, 4.551]
    assert smu.read()["status"].tolist() == [Status.INVALID] * 2
    rows = smu.read()
    assert rows["status"].tolist() == [Status.INVALID] * 2
    assert np.all(np.isnan(rows["device_time_s"]))


def test_a_block_is_waited_for_as_long_as_it_takes():
    smu, link = scripted(",".join([GOOD] * 100), block=100)
    smu.read()
    (waited,) = link.waited
    assert waited == {"within_s": reply_within_s(100, 0.04, edge=False), "abort": ":ABOR"}
    assert 100 * 0.04 + 2.0 < waited["within_s"] < 10


def test_a_block_that_does_not_come_is_told():
    smu, _ = scripted(NoReply("late"))
    with pytest.raises(NoReply, match="late"):
        smu.read()


def test_only_what_changes_in_the_trigger_model_is_sent():
    smu, link = scripted(*[f"{GOOD},{GOOD}"] * 3)
    smu.read()
    assert [line for line in link.sent if "?" not in line] == [":TRIG:COUN 2.000000000000000E+00"]
    link.sent.clear()
    smu.read()
    assert link.sent == [":READ?"]


def test_a_table_of_text_needs_every_value():
    assert text_table("1,2,3,4", rows=2, columns=2).tolist() == [[1, 2], [3, 4]]
    assert np.all(np.isnan(text_table("1,2,3", rows=2, columns=2)))
    found = text_table("1,-9.9E37,x,nan", rows=2, columns=2)
    assert found[0].tolist() == [1, -math.inf]
    assert np.all(np.isnan(found[1]))


# --- the exposure's edge -------------------------------------------------------------------


@pytest.mark.parametrize("driver", [Keithley2400, Keithley6430])
@pytest.mark.parametrize("block", [1, 3])
def test_a_block_begins_with_an_exposure(simulated, start_bench, film, block, driver):
    name = driver.__name__.lower()
    bench = start_bench(driver=name, exposure_line=3, dropped_ratio=0.0, **SMALL)
    lines = TriggerLines(exposure_in=3)
    smu, _, _ = simulated(driver=driver, bench=bench, block=block, lines=lines)
    smu.connect(ENVELOPE)
    film(bench)
    rows = np.concatenate([smu.read() for _ in range(8)])
    assert np.all(rows["status"] & Status.UNTRIGGERED == 0)
    began_ns = true_starts_ns(bench, 8 * block)[::block]
    smu.read()  # so that the exposure of the last is over, and in the truth
    exposures_ns = bench.world.truth()["frames/camera"]["t_start_ns"]
    after_ns = began_ns - exposures_ns[np.searchsorted(exposures_ns, began_ns) - 1]
    assert np.all((after_ns >= 0) & (after_ns <= TRIGGER_S * 1e9))
    assert len(np.unique(np.searchsorted(exposures_ns, began_ns))) == 8  # each its own


def test_an_edge_from_before_does_not_begin_a_reading(simulated, film):
    smu, bench, link = simulated(lines=TriggerLines(exposure_in=1), exposure_line=1, **SMALL)
    smu.connect(ENVELOPE)
    film(bench)
    smu.read()
    for _ in range(300):  # most of two exposures go by
        link.query(":SYST:TIME?")
    smu.read()
    began_ns = true_starts_ns(bench, 1)[0]
    assert began_ns - bench.world.exposures.last_ns < TRIGGER_S * 1e9


@pytest.mark.parametrize("block", [1, 4])
def test_edges_that_do_not_come_leave_readings_that_say_so(simulated, block):
    lines = TriggerLines(exposure_in=1)
    smu, bench, _ = simulated(block=block, lines=lines, exposure_line=1)
    smu.connect(ENVELOPE)
    smu.apply(current(5e-11))
    before_ns = bench.now_ns()
    rows = np.concatenate([smu.read(), smu.read()])
    assert len(rows) == 2 * block
    assert np.all(rows["status"] & Status.UNTRIGGERED)
    assert np.all(np.isfinite(rows["voltage_V"]))
    # No longer without a reading than was said, on the simulated clock.
    blind_s = EDGE_WAIT_S + block * 0.06
    assert bench.now_ns() - before_ns < 2 * blind_s * 1e9
    smu.apply(current(1e-11))  # and the link is in order
    assert smu.ensure_safe() is SafeState.S1


def test_edges_that_come_again_begin_readings_again(simulated, film):
    smu, bench, _ = simulated(lines=TriggerLines(exposure_in=1), exposure_line=1, **SMALL)
    smu.connect(ENVELOPE)
    assert smu.read()["status"][0] & Status.UNTRIGGERED
    film(bench)
    assert not smu.read()["status"][0] & Status.UNTRIGGERED


def test_a_wire_on_another_line_brings_nothing(simulated, film):
    smu, bench, _ = simulated(lines=TriggerLines(exposure_in=2), exposure_line=1, **SMALL)
    smu.connect(ENVELOPE)
    film(bench)
    assert smu.read()["status"][0] & Status.UNTRIGGERED


def test_who_comes_after_one_that_died_waiting_is_heard(simulated):
    lines = TriggerLines(exposure_in=1)
    smu, bench, link = simulated(lines=lines, exposure_line=1)
    smu.connect(ENVELOPE)
    smu.apply(current(5e-11))
    link.write(":ARM:SOUR TLIN")
    link.write(":READ?")
    link.close()
    bench.wait_until_unattended()
    after, _, _ = simulated(bench=bench, lines=lines)
    assert after.connect(ENVELOPE).model == "6430"
    assert abs(bench.world.source.level) < 1e-13


# --- marks ---------------------------------------------------------------------------------


def test_each_change_of_the_set_point_gives_one_pulse(simulated):
    smu, bench, _ = simulated(block=4, lines=TriggerLines(mark_out=2))
    smu.connect(ENVELOPE)
    shapes = []
    for level in (1e-11, 5e-11, -2e-11):
        smu.apply(current(level))
        shapes += [len(smu.read()), len(smu.read())]
    truth = bench.world.truth()
    marks = truth["marks"]
    assert shapes == [1, 4] * 3
    assert np.all(marks["line"] == 2)
    changes_ns = truth["source"]["t_ns"][-3:]
    assert len(marks["t_ns"]) == 3
    assert np.all((marks["t_ns"] - changes_ns >= 0) & (marks["t_ns"] - changes_ns < 30e6))
    smu.ensure_safe()
    smu.read()
    assert len(bench.world.truth()["marks"]["t_ns"]) == 4


def test_a_mark_does_not_wait_for_an_exposure(simulated, film):
    lines = TriggerLines(exposure_in=1, mark_out=2)
    smu, bench, _ = simulated(block=2, lines=lines, exposure_line=1, **SMALL)
    smu.connect(ENVELOPE)
    smu.read()
    film(bench)
    smu.apply(current(1e-11))
    first, then = smu.read(), smu.read()
    assert len(first) == 1
    assert np.all(first["status"] & Status.UNTRIGGERED)
    assert len(then) == 2
    assert not np.any(then["status"] & Status.UNTRIGGERED)
