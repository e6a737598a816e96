"""The 2600 driver on other projects' simulators, and other projects' drivers on ours."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from mocks.keithley2600 import Keithley2600 as Simulated2600
from potentiostat.drivers.keithley2600 import Keithley2600
from potentiostat.protocol import SafeState
from potentiostat.records import Status
from potentiostat.visa import Reply
from tests.potentiostat.served import Served
from tests.potentiostat.tsp_bench import ENVELOPE, FILM, current, voltage

pytestmark = pytest.mark.peers

READING = "lamella_read()"
READ_PARTS = ("smua.measure.iv()", "lamella_t()", "smua.source.compliance")


class PlainTspLink:
    """Takes chunks apart into single assignments and prints, which is all that others know.

    Parameters
    ----------
    handle
        Obeys a line: a string, or None for no reply.
    left_out
        Names and functions that the other one does not know, and why each is left out. What
        is set is remembered and told from here.
    """

    resource = "independent simulator"

    def __init__(self, handle, left_out, known):
        self.handle = handle
        self.left_out = left_out
        self.known = dict(known)
        self.used = set()
        self.now = 0

    def now_ns(self):
        return self.now

    def resync(self):
        raise AssertionError("nothing is ever late here")

    def close(self):
        pass

    def _is_left_out(self, name):
        found = next((n for n in self.left_out if re.fullmatch(n, name)), None)
        if found is not None:
            self.used.add(found)
        return found is not None

    def write(self, command):
        assert self._is_left_out(command), command

    def query(self, command):
        start, self.now = self.now, self.now + 50_000_000
        if command == "*IDN?":
            return Reply(self.identity(), start, self.now)
        if command == READING:
            return Reply(self.reading(), start, self.now)
        before, _, printed = command.rpartition("print(")
        if "function" in before:
            assert self._is_left_out("function .*")
        else:
            for statement in re.sub(r"\s*=\s*", "=", before).split():
                self._do(statement)
        values = [self._value(name) for name in printed.removesuffix(")").split(", ")]
        return Reply("\t".join(values), start, self.now)

    def _do(self, statement):
        name, _, value = statement.partition("=")
        if self._is_left_out(name):
            self.known[name] = value
        else:
            assert self.handle(statement) is None, statement

    def _value(self, name):
        if self._is_left_out(name):
            return self.known.get(name, "0")
        text = self.handle(f"print({name})")
        assert text is not None, f"no reply to print({name})"
        return text

    def identity(self):
        # Another model of the same command set answers: it says so, and we say ours.
        assert re.search(r"Model 26\d\dB", self.handle("*IDN?"))
        return "Keithley Instruments Inc., Model 2636B, 1, 3.0.0"

    def reading(self):
        both, time_s, held = (self._value(name) for name in READ_PARTS)
        return "\t".join((both, time_s, held, self._value("smua.source.output"), "true"))


UNKNOWN_TO_BOTH = {
    "abort": "neither runs chunks in which something waits",
    "function .*": "neither knows functions",
    r"timer\..*|lamella_t.*": "neither has a timer, or variables",
    r"localnode\.(prompts|showerrors)": "neither has prompts",
    r"format\..*": "neither has another format than text of some digits",
    r"smua\.source\.offmode": "neither has off modes",
    r"smua\.source\.(highc|delay)": "neither has them",
    r"smua\.measure\.(filter\.enable|rel\.enable[iv]|autozero|delay|interval|count)": "as above",
}


# --- labmcp-keithley-smu ------------------------------------------------------------------------

UNKNOWN_TO_LABMCP = {
    **UNKNOWN_TO_BOTH,
    r"errorqueue\.clear\(\)": "it has a queue, but does not clear it",
    r"localnode\.linefreq": "it knows no mains",
    r"smua\.(source|measure)\.range[iv]": "it takes source ranges and does not tell them",
    r"smua\.(source|measure)\.autorange[iv]": "it takes them and does not tell them",
}


class Battery:
    """A cell of 3.9 V behind 10 kilohm; a positive current charges it."""

    def current(self, voltage_v):
        return (voltage_v - 3.9) / 1e4

    def voltage(self, current_a):
        return 3.9 + 1e4 * current_a


def test_it_runs_on_an_independent_simulator_and_leaves_no_error():
    simulator = pytest.importorskip(
        "labmcp_keithley_smu.simulator", reason="labmcp-keithley-smu is not installed"
    )
    core = simulator.SMUCore(Battery(), max_v=40.0, max_i=3.0)
    other = simulator.Keithley2600Simulator({"smua": core})
    link = PlainTspLink(other.handle, UNKNOWN_TO_LABMCP, {"localnode.linefreq": "50"})
    smu = Keithley2600(link, now_ns=link.now_ns, lease_s=0)
    assert smu.connect(ENVELOPE).model == "2636B"
    assert (core.func, core.limit["VOLT"], core.level["CURR"]) == ("CURR", 4.3, 0.0)
    assert (core.output, core.remote_sense, core.nplc) == (True, False, 1.0)
    smu.apply(current(5e-7))
    row = smu.read()[0]
    assert row["current_A"] == pytest.approx(5e-7, rel=1e-3)
    assert row["voltage_V"] == pytest.approx(3.905, abs=1e-3)
    smu.apply(voltage(3.906))
    row = smu.read()[0]
    assert row["current_A"] == pytest.approx(6e-7, rel=0.05)
    assert row["voltage_V"] == pytest.approx(3.906, abs=1e-3)
    smu.apply(voltage(4.2))  # 30 uA are asked for; the limit holds
    row = smu.read()[0]
    assert row["status"] & Status.COMPLIANCE
    assert row["current_A"] == pytest.approx(9e-7, rel=1e-3)
    assert smu.ensure_safe() is SafeState.S1
    assert (core.func, core.level["CURR"], core.output) == ("CURR", 0.0, True)
    assert smu.rest_at_end() is SafeState.S2
    assert not core.output
    assert other.errors == []
    assert link.used == set(UNKNOWN_TO_LABMCP)


# --- QCoDeS' file for pyvisa-sim -----------------------------------------------------------------

UNKNOWN_TO_YAML = {
    **UNKNOWN_TO_BOTH,
    r"errorqueue\..*": "it has no error queue: a line that it does not know sets a bit of *STB?",
    r"smua\.sense": "it has no remote sense",
    r"smua\.measure\.[iv]+\(\)": "it prints readings together with a status register",
    r"smua\.source\.compliance": "it has no limits that act",
}


LEVELS = {
    f"print(smua.source.level{x})": f"print(smua.measure.{x}(), {condition})"
    for condition in ("status.measurement.instrument.smua.condition",)
    for x in "iv"
}


@pytest.fixture
def yaml_instrument():
    pytest.importorskip("pyvisa_sim", reason="pyvisa-sim is not installed")
    sims = pytest.importorskip("qcodes.instrument.sims", reason="QCoDeS is not installed")
    import pyvisa

    file = Path(next(iter(sims.__path__))) / "Keithley_2600.yaml"
    manager = pyvisa.ResourceManager(f"{file}@sim")
    visa = manager.open_resource("GPIB::1::INSTR", read_termination="\n", write_termination="\n")
    yield visa
    visa.close()
    manager.close()


def test_every_line_is_known_to_qcodes_simulated_instrument(yaml_instrument):
    def handle(line):
        if line in LEVELS:  # it tells a level only as the reading of it
            return yaml_instrument.query(LEVELS[line]).split("\t")[0]
        if "?" in line or line.startswith("print("):
            return yaml_instrument.query(line)
        yaml_instrument.write(line)
        return None

    known = {"smua.measure.v()": "3.9", "smua.measure.iv()": "0\t3.9"}
    link = PlainTspLink(handle, UNKNOWN_TO_YAML, known)
    smu = Keithley2600(link, now_ns=link.now_ns, lease_s=0)
    smu.connect(ENVELOPE)
    smu.apply(current(5e-7))
    assert float(handle("print(smua.source.rangei)")) == 1e-6
    assert float(handle("print(smua.source.limitv)")) == 4.3
    assert float(handle("print(smua.source.leveli)")) == 5e-7
    assert smu.read()["voltage_V"][0] == 3.9
    smu.apply(voltage(3.91))
    assert float(handle("print(smua.source.func)")) == 1
    assert float(handle("print(smua.source.limiti)")) == 9e-7
    smu.apply(current(-5e-7))
    assert smu.rest_at_end() is SafeState.S2
    assert float(handle("print(smua.source.output)")) == 0
    assert yaml_instrument.query("*STB?") == "0"
    assert link.used == set(UNKNOWN_TO_YAML)
    yaml_instrument.write("smua.source.nonsense=1")
    assert yaml_instrument.query("*STB?") == "32"  # it would have told


# --- peers' drivers on our simulator -------------------------------------------------------------


@pytest.fixture
def served():
    made = Served(Simulated2600, **FILM)
    yield made
    made.stop()


@pytest.fixture
def qcodes_2636b(served):
    qcodes = pytest.importorskip(
        "qcodes.instrument_drivers.Keithley", reason="QCoDeS is not installed"
    )
    peer = qcodes.Keithley2636B("peer", served.resource, visalib="@py", terminator="\n")
    yield peer
    peer.close()


def test_qcodes_works_on_our_simulator(served, qcodes_2636b):
    peer = qcodes_2636b
    assert peer.get_idn()["model"] == "2636B"
    smua = peer.smua
    smua.mode("current")
    smua.limitv(4.3)
    smua.sourcerange_i(1e-6)
    smua.curr(4e-7)
    smua.measurerange_v(20)
    smua.nplc(1)
    smua.output("on")
    assert smua.volt() == pytest.approx(served.world.cell.voltage_V, abs=6e-3)
    assert smua.curr() == pytest.approx(4e-7, rel=0.01)
    assert served.world.source.level == pytest.approx(4e-7, rel=0.01)
    assert smua.limitv() == 4.3
    assert smua.sourcerange_i() == 1e-6
    assert smua.measurerange_i() == 1e-6
    assert float(peer.ask("errorqueue.count")) == 0
    peer.smub.output("on")
    assert peer.smub.volt() == 0.0
    peer.display_settext("lamella")
    peer.reset()
    assert float(peer.ask("smua.source.offmode")) == 0
    assert float(peer.ask("errorqueue.count")) == 0


class Sweep:
    """What QCoDeS wants of a sweep."""

    def __init__(self, param, points):
        self.param, self._points = param, points
        self.delay, self.num_points = 0.01, len(points)

    def get_setpoints(self):
        return self._points


def test_qcodes_scripts_run_on_our_simulator(served, qcodes_2636b):
    peer = qcodes_2636b
    smua = peer.smua
    smua.mode("current")
    smua.limitv(4.3)
    smua.sourcerange_i(1e-6)
    smua.curr(4e-7)
    smua.measurerange_v(20)
    smua.output("on")
    smua.timetrace_mode("voltage")
    smua.timetrace_dt(0.05)
    smua.timetrace_npts(10)
    trace = smua.timetrace()
    assert trace.shape == (10,)
    assert trace[-1] == pytest.approx(served.world.cell.voltage_V, abs=6e-3)
    smua.setup_fastsweep(Sweep(smua.curr, np.linspace(0, 4e-7, 5)), mode="VI")
    swept = smua.fastsweep()
    assert swept.shape == (5,)
    assert np.all(np.diff(swept) > 0)
    assert float(peer.ask("errorqueue.count")) == 0


@pytest.fixture
def pymeasure_2600(served, monkeypatch):
    keithley = pytest.importorskip(
        "pymeasure.instruments.keithley", reason="PyMeasure is not installed"
    )
    monkeypatch.setattr(time, "sleep", lambda _s: None)  # between the steps of its ramps
    with pytest.warns(FutureWarning, match="SCPI"):
        peer = keithley.Keithley2600(
            served.resource, visa_library="@py", read_termination="\n", write_termination="\n"
        )
    yield peer
    peer.adapter.connection.close()


def test_pymeasure_works_on_our_simulator(served, pymeasure_2600):
    channel = pymeasure_2600.ChA
    channel.apply_current(compliance_voltage=4.3)
    channel.write("source.leveli=4e-7")  # its own writes six digits after the point: 0 A
    channel.measure_voltage(auto_range=False)
    channel.source_output = "ON"
    assert channel.voltage == pytest.approx(served.world.cell.voltage_V, abs=6e-3)
    assert channel.current == pytest.approx(4e-7, rel=0.01)
    assert pymeasure_2600.next_error[0] == 0


def test_pymeasures_set_points_are_too_coarse_for_a_cell(served, pymeasure_2600):
    pymeasure_2600.ChA.source_current = 4e-7
    assert pymeasure_2600.ChA.source_current == 0.0


@pytest.mark.parametrize("mode", ["current", "voltage"])
def test_pymeasures_shutdown_leaves_a_cell_on_a_0_V_source(served, pymeasure_2600, mode):
    world, channel = served.world, pymeasure_2600.ChA
    if mode == "current":
        channel.apply_current(compliance_voltage=4.3)
    else:
        channel.write("source.limiti=1e-6")
        channel.write(f"source.levelv={world.cell.voltage_V:.4f}")
    channel.source_output = "ON"
    before_C = world.cell.ion_C
    channel.shutdown()
    assert pymeasure_2600.ask("*OPC?") == "1"  # all that it sent has been obeyed
    assert not served.smu.output_on
    assert (world.source.mode, world.source.level) == ("voltage", 0.0)
    served.run(served.pace.take(10**9))
    assert world.truth()["cell"]["voltage"].min() < 0.1
    # Off is NORMAL: 0 V with 1 mA, for as long as the cell is attached.
    assert world.cell.ion_C - before_C < -1e-6
