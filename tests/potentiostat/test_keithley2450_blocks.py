"""Blocks of readings and trigger lines of the 2450 family, against the simulator's truth."""

import math

import numpy as np
import pytest

from mocks.keithley2450 import Keithley2450 as Simulator
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.world import World
from potentiostat.blocks import EDGE_WAIT_S, reply_within_s
from potentiostat.drivers.keithley2450 import Keithley2450
from potentiostat.errors import InstrumentRefused, NoReply
from potentiostat.limits import Envelope
from potentiostat.protocol import NO_LINES, SafeState, Setpoint, TriggerLines
from potentiostat.records import Status
from potentiostat.visa import Reply, VisaLink

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=9e-7, charge_max_C=1e-2)
SMALL = {"height": 48, "width": 220, "pixel_size_m": 4e-9}  # the film's field, quickly drawn


class TappedLink(VisaLink):
    """A link whose questions a test may answer otherwise."""

    answer = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.waited = []

    def query(self, command, **options):
        reply = super().query(command, **options)
        if "TRAC:DATA?" in command:
            self.waited.append(options)
            if isinstance(self.answer, Exception):
                raise self.answer
            if self.answer is not None:
                return Reply(self.answer, reply.sent_ns, reply.received_ns)
        return reply


@pytest.fixture
def simulated(start_bench):
    links = []

    def make(*, block=1, lines=NO_LINES, bench=None, **options):
        bench = bench or start_bench(driver="keithley2450", scenario="lco_thin_film", **options)
        link = TappedLink(bench.resource, now_ns=bench.now_ns)
        link.open()
        links.append(link)
        smu = Keithley2450(link, now_ns=bench.now_ns, block=block, lines=lines)
        smu.connect(ENVELOPE)
        return smu, bench, link

    yield make
    for link in links:
        link.close()


def current(level, clamp=4.3):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=1e-6)


def voltage(level):
    return Setpoint(mode="voltage", level=level, clamp=5e-7, range_A=1e-6)


def true_starts_ns(bench, count, aperture_s=0.04):
    return bench.world.truth()["samples"]["t_ns"][-count:] - round(aperture_s / 2 * 1e9)


def test_a_block_is_readings_each_with_its_own_time_and_bracket(simulated):
    smu, bench, link = simulated(block=20)
    smu.apply(current(2e-7))
    rows = np.concatenate([smu.read() for _ in range(3)])
    assert len(rows) == 60
    began_ns = true_starts_ns(bench, 60)
    assert np.all(rows["read_start_ns"] <= began_ns)
    assert np.all(rows["read_end_ns"] >= began_ns + 40_000_000)
    timer = bench.bench.smu.device_time_s
    assert np.allclose(rows["device_time_s"], [timer(int(t)) for t in began_ns], rtol=0, atol=1e-6)
    settled = rows[rows["status"] == 0][3:]
    assert len(settled) > 50
    assert np.all(np.abs(settled["current_A"] - 2e-7) < 1.5e-9)
    offset_V = rows["voltage_V"][-20:] - bench.world.truth()["samples"]["voltage"][-20:]
    assert np.all(np.abs(offset_V) < 3e-3)
    within_s = reply_within_s(20, 0.04, edge=False)
    assert link.waited == [{"within_s": within_s, "abort": ":ABOR"}] * 3


def test_a_limit_that_holds_is_told_by_each_reading_of_a_block(simulated):
    smu, _, _ = simulated(block=10)
    clamp_V = float(smu.read()["voltage_V"][-1]) + 3e-3
    smu.apply(current(8e-7, clamp=clamp_V))
    status = np.concatenate([smu.read()["status"] for _ in range(3)])
    assert np.all(status[-10:] == Status.COMPLIANCE)


def test_a_held_voltage_senses_the_current_in_blocks_too(simulated):
    smu, bench, _ = simulated(block=5)
    level_V = round(float(smu.read()["voltage_V"][-1]) + 2e-3, 4)
    smu.apply(voltage(level_V))
    rows = np.concatenate([smu.read() for _ in range(4)])
    assert rows.shape == (20,)
    assert np.all(rows["status"] & Status.POTENTIOSTATIC)
    assert rows["voltage_V"][-1] == pytest.approx(level_V, abs=3e-3)
    assert rows["current_A"][-1] == pytest.approx(
        bench.world.truth()["samples"]["current"][-1], abs=2e-9
    )
    asked = smu.exchange_clock()
    assert asked.sent_ns <= true_starts_ns(bench, 1)[0] <= asked.received_ns
    assert smu.read().shape == (5,)
    assert smu.rest_at_end() is SafeState.S2


GOOD = "2E-7,3.9,1700000001,0.25,128"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (f"{GOOD},{GOOD}", [0, 0]),
        (f"{GOOD},2E-7,9.9E37,1700000001,0.3,128", [0, Status.OVERFLOW]),
        (f"{GOOD},2E-7,3.9,1700000001,0.3,160", [0, Status.COMPLIANCE]),
        (f"{GOOD},2E-7,3.9,1700000001,0.3,x", [0, Status.INVALID]),
        (f"{GOOD},2E-7,x,1700000001,0.3,128", [0, Status.INVALID]),
        (GOOD, [Status.INVALID] * 2),
        ("", [Status.INVALID] * 2),
    ],
)
def test_each_reading_of_a_block_is_judged_by_itself(simulated, reply, status):
    smu, _, link = simulated(block=2)
    for _ in range(3):
        smu.read()  # until it has settled
    link.answer = reply
    assert smu.read()["status"].tolist() == [int(s) for s in status]
    link.answer = NoReply("late")
    with pytest.raises(NoReply):
        smu.read()


@pytest.mark.parametrize("block", [1, 3])
def test_a_block_begins_with_an_exposure(simulated, film, block):
    lines = TriggerLines(exposure_in=6)
    smu, bench, _ = simulated(block=block, lines=lines, exposure_line=6, dropped_ratio=0, **SMALL)
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
@pytest.mark.parametrize("block", [1, 2])
def test_edges_that_do_not_come_leave_readings_that_say_so(simulated, film, block, wired):
    lines = TriggerLines(exposure_in=1)
    smu, bench, _ = simulated(block=block, lines=lines, exposure_line=wired, **SMALL)
    film(bench)
    smu.apply(current(2e-7))
    before_ns = bench.now_ns()
    rows = np.concatenate([smu.read(), smu.read()])
    assert len(rows) == 2 * block
    assert np.all(rows["status"] & Status.UNTRIGGERED)
    assert np.all(np.isfinite(rows["voltage_V"]))
    assert bench.now_ns() - before_ns < 2 * (EDGE_WAIT_S + 0.2) * 1e9
    assert smu.ensure_safe() is SafeState.S1


def test_each_change_of_the_set_point_gives_one_pulse(simulated):
    smu, bench, _ = simulated(block=4, lines=TriggerLines(mark_out=5))
    assert "marks" not in bench.world.truth()
    for level in (1e-7, 3e-7):
        smu.apply(current(level))
        assert smu.read().shape == (4,)
    truth = bench.world.truth()
    assert truth["marks"]["line"].tolist() == [5, 5]
    delays_ns = truth["marks"]["t_ns"] - truth["source"]["t_ns"][-2:]
    assert np.all((delays_ns >= 0) & (delays_ns < 10e6))


def test_who_comes_after_one_that_died_waiting_is_heard(simulated):
    lines = TriggerLines(exposure_in=1)
    _, bench, link = simulated(lines=lines, exposure_line=1)
    link.write(":INIT")
    link.close()
    bench.wait_until_unattended()
    after, _, _ = simulated(bench=bench)
    assert math.isfinite(after.read()["voltage_V"][0])
    bench.bench.smu._model.initiate()  # idle again, or this would be refused


# --- the simulator is as strict as the real one ------------------------------------------------


async def errors_of(*lines):
    world = World(load("lco_thin_film"), seed=1, start_ns=0)
    smu = Simulator(world, LockstepPace(world, lambda _: None))
    for line in lines:
        await smu.handle(line)
    return (await smu.handle(":SYST:ERR?")).partition(",")[0]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((":INIT",), "+2731"),
        ((':TRIG:LOAD "Loop"',), "-224"),
        ((":TRIG:BLOC:MEAS 2",), "-222"),
        ((":TRIG:BLOC:WAIT x,DIG1",), "-222"),
        ((":TRIG:BLOC:WAIT 1,DIG1", ":INIT", ":INIT"), "-213"),
        ((":DIG:LINE1:MODE IN",), "-224"),
        ((':TRAC:DATA? 1,1,"defbuffer1",READ',), "-222"),
        ((':TRAC:DATA? 0,1,"defbuffer1"',), "-222"),
        ((":TRIG:BLOC:WAIT 1,DIG1", ":INIT", ":ABOR", ":INIT"), "0"),
    ],
)
async def test_what_the_trigger_model_cannot_do_is_an_error(lines, code):
    assert await errors_of(*lines) == code


def test_a_model_that_the_instrument_does_not_take_stops_the_connection(simulated, monkeypatch):
    monkeypatch.setattr(
        "mocks.trigger_model.TriggerModel.add", lambda self, kind, argument: self.load("x")
    )
    with pytest.raises(InstrumentRefused, match="connecting: -224"):
        simulated(block=2)
