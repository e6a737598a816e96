"""The 2400: on our simulator, on an independent one, and a peer's driver on ours."""

import asyncio
import inspect
import re

import numpy as np
import pytest

from mocks.scpi import short_form
from potentiostat.drivers.keithley2400 import RANGES, Keithley2400
from potentiostat.errors import ReplyError
from potentiostat.limits import Envelope
from potentiostat.protocol import SafeState, Setpoint
from potentiostat.records import Status
from potentiostat.visa import VisaLink
from tests.potentiostat.independent import IndependentLink

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-6, charge_max_C=1e-3)


def current(level):
    return Setpoint(mode="current", level=level, clamp=4.3, range_A=1e-6)


def voltage(level):
    return Setpoint(mode="voltage", level=level, clamp=9e-7, range_A=1e-6)


def test_ranges_rise_and_the_source_has_a_zero_of_its_own():
    assert [r.full_scale_A for r in RANGES] == [1e-6, 1e-5, 1e-4, 1e-3]
    assert all(r.source_offset_A > r.offset_A for r in RANGES)


# --- our simulator -------------------------------------------------------------------------


@pytest.fixture
def bench(start_bench):
    return start_bench(driver="keithley2400", scenario="lco_thin_film")


@pytest.fixture
def smu(bench):
    link = VisaLink(bench.resource, now_ns=bench.now_ns)
    link.open()
    driver = Keithley2400(link, now_ns=bench.now_ns)
    yield driver
    driver.close()


def readings(smu, count):
    rows = np.concatenate([smu.read() for _ in range(count)])
    assert not np.any(rows["status"] & (Status.INVALID | Status.OVERFLOW))
    return rows


def test_it_charges_holds_and_rests_without_harm(bench, smu):
    world = bench.world
    smu.connect(ENVELOPE)
    resting = readings(smu, 10)
    assert abs(world.source.level) < 7e-10
    before_V = world.cell.voltage_V

    smu.apply(current(8e-7))
    charging = readings(smu, 20)
    assert charging["current_A"][-1] == pytest.approx(8e-7, rel=0.01)
    assert charging["voltage_V"][-1] > resting["voltage_V"][-1] + 0.01

    smu.apply(voltage(before_V + 0.008))
    held = readings(smu, 20)
    assert held["voltage_V"][-1] == pytest.approx(before_V + 0.008, abs=2e-3)
    assert held["current_A"][-1] > 1e-7
    assert np.all(held["status"] & Status.POTENTIOSTATIC)
    for step in range(10):
        smu.apply(voltage(before_V + 0.008 - 0.002 * step))
        row = readings(smu, 1)
    assert row["current_A"][0] < held["current_A"][-1]

    assert smu.ensure_safe() is SafeState.S1
    assert world.source.mode == "current"
    assert smu.rest_at_end() is SafeState.S2
    assert not bench.bench.smu.output_on
    assert world.source.mode == "open"
    truth = world.truth()["cell"]
    connected = truth["voltage"][truth["t_ns"] > 0.2e9]
    assert connected.min() > 3.7
    assert connected.max() < 4.1


def test_a_held_voltage_found_at_connecting_is_left_through_an_open_output(bench, smu):
    smu.connect(ENVELOPE)
    smu.apply(voltage(3.9))
    sources = []
    bench.world.set_source = lambda source, *, output_on, own=bench.world.set_source: (
        sources.append((source.mode, source.level)),
        own(source, output_on=output_on),
    )
    smu.connect(ENVELOPE)
    assert ("open", 0.0) in sources
    assert ("voltage", 0.0) not in sources
    assert bench.world.source.mode == "current"


def test_another_model_is_refused(start_bench):
    other = start_bench()
    link = VisaLink(other.resource, now_ns=other.now_ns)
    link.open()
    try:
        with pytest.raises(ReplyError, match="is no 2400"):
            Keithley2400(link, now_ns=other.now_ns).connect(ENVELOPE)
    finally:
        link.close()


# --- an independent simulator ----------------------------------------------------------------

LEFT_OUT = {
    ":OUTP:SMOD": "it has no off states: its output is off, and nothing more",
    ":SOUR:CLE:AUTO": "it has no automatic clearing",
    ":SOUR:CURR:RANG": "it takes a range and does not tell it",
    ":SENS:CURR:RANG": "its measuring ranges are always automatic",
    ":SENS:VOLT:RANG": "its measuring ranges are always automatic",
    ":SENS:CURR:NPLC": "it takes a number of cycles and does not tell it",
    ":SYST:LFR": "it knows no mains",
    ":SYST:AZER:STAT": "it has no autozero",
    ":SENS:AVER": "it has no filter",
    ":FORM:DATA": "it answers in text only",
    ":SYST:TIME": "it has no clock",
    ":ARM:COUN": "it has no trigger model",
    ":ARM:SOUR": "it has no trigger model",
    ":TRIG:COUN": "it has no trigger model",
    ":TRIG:OUTP": "it has no trigger model",
}


def with_time(command, text):
    """It always tells voltage, current and status: put the missing time between them."""
    if command != ":READ?":
        return text
    voltage_V, current_A, status = text.split(",")
    return f"{voltage_V},{current_A},1.234,{status}"


class Battery:
    """A cell of 3.9 V behind 10 kilohm; a positive current charges it."""

    def current(self, voltage_v):
        return (voltage_v - 3.9) / 1e4

    def voltage(self, current_a):
        return 3.9 + 1e4 * current_a


@pytest.mark.peers
def test_it_runs_on_an_independent_simulator_and_leaves_no_error():
    simulator = pytest.importorskip(
        "labmcp_keithley_smu.simulator", reason="labmcp-keithley-smu is not installed"
    )
    core = simulator.SMUCore(Battery(), max_v=210.0, max_i=1.05)
    link = IndependentLink(simulator.Keithley2400Simulator(core), LEFT_OUT, reply=with_time)
    link.known[":SOUR:CURR:RANG"] = "1E-4"
    smu = Keithley2400(link, now_ns=link.now_ns)
    assert smu.connect(ENVELOPE).model == "2400"
    assert core.output
    smu.apply(current(5e-7))
    row = readings(smu, 5)[-1]
    assert row["current_A"] == pytest.approx(5e-7, rel=1e-3)
    assert row["voltage_V"] == pytest.approx(3.905, abs=1e-3)
    smu.apply(voltage(3.906))
    row = readings(smu, 5)[-1]
    assert row["current_A"] == pytest.approx(6e-7, rel=1e-2)
    smu.apply(voltage(4.2))  # 30 uA are asked for; the clamp holds
    row = readings(smu, 1)[0]
    assert row["status"] & Status.COMPLIANCE
    assert row["current_A"] == pytest.approx(9e-7, rel=1e-3)
    assert smu.ensure_safe() is SafeState.S1
    assert core.level["CURR"] == 0.0
    assert smu.rest_at_end() is SafeState.S2
    assert not core.output
    assert simulator is not None
    assert link.query(":SYST:ERR?").text.startswith("0,")
    assert link.used == set(LEFT_OUT) - {":SYST:TIME"}


# --- a peer's driver on our simulator ----------------------------------------------------------


@pytest.mark.peers
def test_a_peers_driver_works_on_our_simulator_and_drains_the_cell_when_it_ends(start_bench):
    keithley = pytest.importorskip(
        "pymeasure.instruments.keithley", reason="PyMeasure is not installed"
    )
    bench = start_bench(driver="keithley2400", scenario="lco_thin_film")
    world = bench.world
    peer = keithley.Keithley2400(
        bench.resource, visa_library="@py", read_termination="\n", write_termination="\n"
    )
    try:
        peer.write(":SOUR:FUNC CURR")
        peer.source_current_range = 1e-6
        peer.source_current = 5e-7
        peer.compliance_voltage = 4.3
        peer.enable_source()
        assert peer.ask(":READ?").split(",")[1].startswith("+")
        assert peer.ask(":SYST:ERR?").startswith("0,")
        peer.shutdown()
        assert peer.ask(":OUTP?") == "0"
        before_C = world.cell.ion_C
        # Let a simulated second pass with the output as the peer has left it.
        asyncio.run_coroutine_threadsafe(bench.bench._pace.take(10**9), bench._loop).result(10)
    finally:
        peer.adapter.connection.close()
    assert not bench.bench.smu.output_on
    assert world.source.mode == "voltage"
    assert world.source.level == 0.0
    # Off is a short circuit with 0.5 % of the larger range, 100 uA, as its limit.
    assert world.cell.ion_C - before_C == pytest.approx(-5e-7, rel=0.05)


@pytest.mark.peers
def test_qcodes_works_on_our_simulator(start_bench):
    qcodes = pytest.importorskip(
        "qcodes.instrument_drivers.Keithley", reason="QCoDeS is not installed"
    )
    bench = start_bench(driver="keithley2400", scenario="lco_thin_film")
    peer = qcodes.Keithley2400("peer2400", bench.resource, visalib="@py")
    try:
        assert peer.get_idn()["model"] == "2400"
        peer.mode("CURR")
        peer.compliancev(4.3)
        peer.rangei(1e-6)  # it sends six decimals: no smaller range can be asked for
        peer.curr(1e-6)
        peer.output(1)
        assert peer.volt() == pytest.approx(bench.world.cell.voltage_V, abs=5e-3)
        assert bench.world.source.mode == "current"
        assert bench.world.source.level == pytest.approx(1e-6, rel=0.01)
        assert peer.compliancev() == 4.3
        assert peer.ask(":SYST:ERR?").startswith("0,")
    finally:
        peer.close()


# What PyMeasure's driver does not send, by the chapters of the 6430's manual.
CITED = {
    "SENS:FUNC:CONC": "17, SENSe1: voltage and current in one reading",
    "SOUR:CURR:MODE": "17, SOURce1: fixed, and no sweep",
    "SOUR:VOLT:MODE": "17, SOURce1: fixed, and no sweep",
    "SYST:TIME": "17, SYSTem, and 8-5: the instrument's time",
}
COMMON = {"*IDN", "*CLS", "*ESR", "SYST:ERR"}  # of every SCPI instrument


@pytest.mark.peers
def test_each_string_is_in_a_peers_driver_or_in_the_manual(bench, smu, monkeypatch):
    keithley = pytest.importorskip(
        "pymeasure.instruments.keithley.keithley2400", reason="PyMeasure is not installed"
    )
    sent, link = [], smu._link
    for name in ("write", "query"):
        own = getattr(link, name)

        def recorded(command, *rest, own=own, **named):
            sent.append(command)
            return own(command, *rest, **named)

        monkeypatch.setattr(link, name, recorded)
    smu.connect(ENVELOPE)
    for setpoint in (current(5e-7), voltage(3.9)):
        smu.apply(setpoint)
        readings(smu, 2)
    smu.exchange_clock()
    smu.ensure_safe()
    smu.rest_at_end()
    text = inspect.getsource(keithley)
    written = re.findall(r":?[A-Za-z]+(?::[A-Za-z]+)*", text)
    theirs = {short_form(header) for header in written}
    ours = {
        short_form(part.split()[0].removesuffix("?")) for line in sent for part in line.split(";")
    }
    assert len(ours) > 20
    assert ours - theirs - COMMON == set(CITED)
