"""Blocks of readings and trigger lines of a B2900, against the simulator's truth."""

import math
import struct

import numpy as np
import pytest

from potentiostat.blocks import EDGE_WAIT_S
from potentiostat.drivers.keysight_b2900 import KeysightB2900
from potentiostat.errors import NoReply, NotApplied, ReplyError
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, SafeState, Setpoint, TriggerLines
from potentiostat.records import Status
from potentiostat.visa import Block, Reply, VisaLink

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=9e-7, charge_max_C=1e-2)
SMALL = {"height": 48, "width": 220, "pixel_size_m": 4e-9}  # the film's field, quickly drawn


@pytest.fixture
def simulated(start_bench):
    links = []

    def make(*, block=1, lines=NO_LINES, bench=None, **options):
        bench = bench or start_bench(driver="keysight_b2900", scenario="lco_thin_film", **options)
        link = VisaLink(bench.resource, now_ns=bench.now_ns)
        link.open()
        links.append(link)
        smu = KeysightB2900(link, now_ns=bench.now_ns, block=block, lines=lines)
        smu.connect(ENVELOPE)
        return smu, bench, link

    yield make
    for link in links:
        link.close()


def current(level):
    return Setpoint(mode="current", level=level, clamp=4.3, range_A=1e-6)


def voltage(level):
    return Setpoint(mode="voltage", level=level, clamp=5e-7, range_A=1e-6)


def true_starts_ns(bench, count, aperture_s=0.04):
    return bench.world.truth()["samples"]["t_ns"][-count:] - round(aperture_s / 2 * 1e9)


def test_a_block_is_readings_each_with_its_own_time_and_bracket(simulated):
    smu, bench, _ = simulated(block=20)
    smu.apply(current(2e-7))
    rows = np.concatenate([smu.read() for _ in range(3)])
    assert len(rows) == 60
    began_ns = true_starts_ns(bench, 60)
    assert np.all(rows["read_start_ns"] <= began_ns)
    assert np.all(rows["read_end_ns"] >= began_ns + 40_000_000)
    timer = bench.bench.smu.device_time_s
    assert rows["device_time_s"].tolist() == [timer(int(t_ns)) for t_ns in began_ns]
    settled = rows[rows["status"] == 0][3:]
    assert len(settled) > 50
    assert np.all(np.abs(settled["current_A"] - 2e-7) < 1.5e-9)
    offset_V = rows["voltage_V"][-20:] - bench.world.truth()["samples"]["voltage"][-20:]
    assert np.all(np.abs(offset_V) < 7e-3)


def test_a_clamp_that_holds_is_told_by_each_reading_of_a_block(simulated):
    smu, _, _ = simulated(block=10)
    clamp_V = float(smu.read()["voltage_V"][-1]) + 3e-3
    smu.apply(Setpoint(mode="current", level=8e-7, clamp=clamp_V, range_A=1e-6))
    status = np.concatenate([smu.read()["status"] for _ in range(3)])
    assert np.all(status[-10:] == Status.COMPLIANCE)


def test_a_voltage_comes_on_a_cell_between_blocks_and_the_clock_is_asked(simulated):
    smu, bench, _ = simulated(block=5)
    smu.read()
    smu.apply(voltage(3.92))
    rows = smu.read()
    assert rows.shape == (5,)
    assert np.all(rows["status"] & Status.POTENTIOSTATIC)
    asked = smu.exchange_clock()
    began_ns = true_starts_ns(bench, 1)[0]
    assert asked.device_time_s == bench.bench.smu.device_time_s(int(began_ns))
    assert asked.sent_ns <= began_ns <= asked.received_ns
    assert smu.read().shape == (5,)
    assert smu.rest_at_end() is SafeState.S2


def test_a_session_one_by_one_after_one_in_blocks_gets_one_reading(simulated):
    smu, bench, link = simulated(block=5, lines=TriggerLines(exposure_in=1))
    smu.read()
    link.close()
    bench.wait_until_unattended()
    after, _, _ = simulated(bench=bench)
    assert after.read().shape == (1,)
    assert math.isfinite(after.read()["voltage_V"][0])


def test_an_output_that_was_lost_makes_a_block_invalid(simulated):
    smu, _, link = simulated(block=3)
    smu.apply(current(2e-7))
    link.write(":OUTP:OFF:MODE HIZ")
    link.write(":OUTP OFF")
    rows = smu.read()
    assert np.all(rows["status"] & Status.INVALID)
    assert np.all(np.isnan(rows["voltage_V"]))
    with pytest.raises(Exception, match="the output is off"):
        smu.apply(current(1e-7))
    assert smu.ensure_safe() is SafeState.S1
    assert np.all(np.isfinite(smu.read()["voltage_V"]))


# --- what the wire may say -----------------------------------------------------------------


class ScriptedLink:
    resource = "scripted"
    deaf_to = ""

    def __init__(self):
        self.known = {"*IDN": "Keysight Technologies,B2912A,MY1,1", ":SOUR:FUNC:MODE": "CURR"}
        self.known |= {":OUTP": "1", ":SOUR:CURR:RANG": "1E-6", ":SENS:CURR:RANG": "1E-6"}
        self.readings = []
        self.now = 10**12

    def now_ns(self):
        return self.now

    def write(self, command):
        header, _, value = command.partition(" ")
        if header == self.deaf_to:
            return
        self.known[header] = {"ON": "1", "OFF": "0"}.get(value, value)

    def query(self, command):
        text = '+0,"No error"' if "ERR" in command else self.known[command.removesuffix("?")]
        return Reply(text, self.now, self.now)

    def query_block(self, command, size_bytes, *, within_s):
        answer = self.readings.pop(0)
        if isinstance(answer, Exception):
            raise answer
        data = struct.pack(
            f"<{5 * len(answer)}d", *(value for reading in answer for value in reading)
        )
        assert len(data) == size_bytes
        assert within_s > 2.0
        start, self.now = self.now, self.now + 10**9
        return Block(data, start, self.now)


GOOD = (3.9, 2e-7, 4.5, 1.0, 2e-7)


def test_each_reading_of_a_block_is_judged_by_itself():
    link = ScriptedLink()
    smu = KeysightB2900(link, now_ns=link.now_ns, block=2)
    smu.connect(ENVELOPE)
    link.now += 10**12
    for readings, status in (
        ((GOOD, GOOD), [0, 0]),
        ((GOOD, (3.9, math.nan, 4.6, 1 + 8192, 2e-7)), [0, Status.OVERFLOW]),
        ((GOOD, (3.9, 2e-7, 4.6, 1 + 2, 2e-7)), [0, Status.COMPLIANCE]),
        ((GOOD, (3.9, 2e-7, 4.6, 1 + 32, 2e-7)), [0, Status.INVALID]),
        ((GOOD, (9.91e37, 2e-7, 4.6, 1, 2e-7)), [0, Status.INVALID]),
        ((GOOD, (3.9, 2e-7, 4.6, math.nan, 2e-7)), [0, Status.INVALID]),
        (ReplyError("a block of 8 bytes came"), [Status.INVALID] * 2),
    ):
        link.readings = [readings]
        assert smu.read()["status"].tolist() == [int(s) for s in status]
    link.readings = [NoReply("late")]
    with pytest.raises(NoReply):
        smu.read()
    link.readings = [[(3.9, 2e-7, math.nan, 1.0, 2e-7)]]
    with pytest.raises(ReplyError, match="without its time"):
        smu.exchange_clock()


def test_a_count_that_is_not_taken_is_told():
    link = ScriptedLink()
    smu = KeysightB2900(link, now_ns=link.now_ns, block=2)
    smu.connect(ENVELOPE)
    link.deaf_to = ":TRIG:ACQ:COUN"
    with pytest.raises(NotApplied, match=":TRIG:ACQ:COUN was set to 2 and reads back 1"):
        smu.read()


# --- lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 3])
def test_a_block_begins_with_an_exposure(simulated, film, block):
    lines = TriggerLines(exposure_in=14)
    smu, bench, _ = simulated(block=block, lines=lines, exposure_line=14, dropped_ratio=0, **SMALL)
    film(bench)
    rows = np.concatenate([smu.read() for _ in range(8)])
    assert np.all(rows["status"] & Status.UNTRIGGERED == 0)
    began_ns = true_starts_ns(bench, 8 * block)[::block]
    assert np.all(rows["read_start_ns"][::block] <= began_ns)
    smu.read()
    exposures_ns = bench.world.truth()["frames/camera"]["t_start_ns"]
    after_ns = began_ns - exposures_ns[np.searchsorted(exposures_ns, began_ns) - 1]
    assert np.all((after_ns >= 0) & (after_ns <= 1e6))
    assert len(np.unique(np.searchsorted(exposures_ns, began_ns))) == 8


@pytest.mark.parametrize("wired", [0, 2])
def test_edges_that_do_not_come_leave_readings_that_say_so(simulated, film, wired):
    lines = TriggerLines(exposure_in=1)
    smu, bench, _ = simulated(block=2, lines=lines, exposure_line=wired, **SMALL)
    film(bench)
    smu.apply(current(2e-7))
    before_ns = bench.now_ns()
    rows = np.concatenate([smu.read(), smu.read()])
    assert np.all(rows["status"] & Status.UNTRIGGERED)
    assert np.all(np.isfinite(rows["voltage_V"]))
    assert bench.now_ns() - before_ns < 2 * (EDGE_WAIT_S + 0.2) * 1e9
    assert smu.ensure_safe() is SafeState.S1


def test_each_change_of_the_set_point_gives_one_pulse(simulated):
    smu, bench, _ = simulated(block=4, lines=TriggerLines(exposure_in=1, mark_out=7))
    shapes = []
    for level in (1e-7, 3e-7):
        smu.apply(current(level))
        shapes += [len(smu.read()), len(smu.read())]
    truth = bench.world.truth()
    assert shapes == [1, 4] * 2
    assert truth["marks"]["line"].tolist() == [7, 7]
    delays_ns = truth["marks"]["t_ns"] - truth["source"]["t_ns"][-2:]
    assert np.all((delays_ns >= 0) & (delays_ns < 50e6))
