"""The B298x driver and its software galvanostat against the simulated instrument.

There is no independent simulator of this family. PyMeasure's driver of it runs unmodified
against ours, and each header that we send is in it, but for those that `FROM_B2900` names.
"""

import inspect
import math
import re
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocks.cell import Source
from mocks.keysight_b298x import INPUT_OHM
from mocks.keysight_b298x import KeysightB298x as Simulator
from mocks.pace import LockstepPace
from mocks.scenario import load
from mocks.thermocouple import Thermocouple
from mocks.world import World
from potentiostat.drivers.keysight_b298x import KeysightB298x
from potentiostat.errors import (
    InstrumentRefused,
    LinkError,
    NoReply,
    NotApplied,
    ReplyError,
    UnsafeRequest,
)
from potentiostat.keysight_electrometer import (
    ACQUIRE,
    ELEMENTS,
    RANGES,
    READING,
    STATE,
    VOLTAGE_STEP_V,
)
from potentiostat.keysight_thermometer import ASK, THERMOCOUPLE, ThermocoupleInput
from potentiostat.limits import Envelope
from potentiostat.protocol import SafeState, Setpoint, TriggerLines
from potentiostat.records import SAMPLE_DTYPE, Status
from potentiostat.visa import Block, Reply, VisaLink

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1.5e-10, charge_max_C=8e-9)
RANGE_A = 2e-10
HARMFUL = re.compile(
    r"\*RST|\*RCL|SYST\w*:PRES|MEAS|CONF|:READ|:OUTP:ON:AUTO\s+(1|ON)|:OFF:MODE\s+(NORM|ZERO)"
    r"|:SOUR:VOLT\s+[+-]?0(\.0*)?(E|$)",
    re.IGNORECASE,
)
FROM_B2900 = {
    *("*IDN?", "*CLS", ":SYST:ERR?", ":SYST:LFR", ":SYST:TIME:TIM:COUN:RES"),
    *(":OUTP:ON:AUTO", ":FETC:ARR?", ":SOUR:VOLT:MODE", ":FORM", ":FORM:BORD"),
    *(":FORM:ELEM:SENS", ":SENS:CURR:NPLC", ":SENS:VOLT:NPLC"),
    *(":SENS:CURR:RANG:AUTO", ":SENS:VOLT:RANG:AUTO"),
}


class DirectLink:
    """The simulated instrument without a socket; answers may be changed or fail."""

    resource = "direct"

    def __init__(self, *, mated=True, **overrides):
        self.now = 0
        self.world = World(load("lco_lipon_li", **overrides), seed=1, start_ns=0)
        if not mated:
            self.world.open_holder()
        self.pace = LockstepPace(self.world, self._publish)
        self.smu = Simulator(self.world, self.pace)
        self.sent = []
        self.replies = {}
        self.deaf_to = ()
        self.fail_next = []
        self.asked = 0
        self.fail_at = None
        self.closed = False

    def now_ns(self):
        return self.now

    def _publish(self, now_ns):
        self.now = now_ns

    def _run(self, work):
        with pytest.raises(StopIteration) as done:
            work.send(None)
        return done.value.value

    def handle(self, line):
        return self._run(self.smu.handle(line))

    def write(self, command):
        self.sent.append(command)
        if not command.startswith(tuple(self.deaf_to) or ("\0",)):
            self.handle(command)

    def _answer(self, command):
        self.sent.append(command)
        self.asked += 1
        sent_ns = self.now
        answer = self.replies.get(command)
        if answer is None:
            answer = self.handle(command)
        if self.fail_next:
            raise self.fail_next.pop(0)
        if self.asked == self.fail_at:
            raise NoReply("late")
        return answer, sent_ns

    def query(self, command):
        answer, sent_ns = self._answer(command)
        return Reply(answer, sent_ns, self.now)

    def query_block(self, command, size_bytes):
        answer, sent_ns = self._answer(command)
        data = answer[2 + int(answer[1:2]) :]
        if len(data) != size_bytes:
            raise ReplyError(f"{len(data)} bytes instead of {size_bytes}")
        return Block(data, sent_ns, self.now)

    def pass_s(self, seconds):
        self._run(self.pace.take(round(seconds * 1e9)))

    def power_cycle(self):
        self.smu.power_cycle()

    def resync(self):
        raise AssertionError("the driver leaves that to the link")

    def close(self):
        self.closed = True


@pytest.fixture
def direct():
    """Connected drivers; afterwards no line may have been harmful, nor the cell harmed."""
    made = []

    def make(*before, connect=True, cell_attached=True, block=1, nplc=1.0, **overrides):
        link = DirectLink(mated=cell_attached, **overrides)
        for line in before:
            link.handle(line)
        smu = KeysightB298x(link, now_ns=link.now_ns, block=block, nplc=nplc)
        if connect:
            smu.connect(ENVELOPE, cell_attached=cell_attached)
            link.sent.clear()
        made.append((link, cell_attached))
        return smu, link

    yield make
    for link, cell_attached in made:
        if cell_attached:
            assert not [line for line in link.sent if HARMFUL.search(line)]


def current(level, clamp=4.3, range_A=RANGE_A):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=range_A)


def voltage(level, clamp=1.4e-10, range_A=RANGE_A):
    return Setpoint(mode="voltage", level=level, clamp=clamp, range_A=range_A)


def read(smu, count):
    return np.concatenate([smu.read() for _ in range(count)])


def read_for(smu, link, seconds):
    rows, until = [], link.now + round(seconds * 1e9)
    while link.now < until:
        rows.append(smu.read())
    return np.concatenate(rows)


def first(lines, start):
    return next(i for i, line in enumerate(lines) if line.startswith(start))


def voltages(link):
    return link.world.truth()["cell"]["voltage"]


def check_unharmed(link):
    assert np.all((voltages(link) > 2.5) & (voltages(link) < 4.3))
    assert link.handle(":SYST:ERR?") == '+0,"No error"'


def is_open(link):
    """True when the cell sees an open circuit: a relay, or the voltmeter's input."""
    source = link.world.source
    return source.mode == "open" or source.series_ohm == INPUT_OHM


# --- connecting ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "Keysight Technologies,B2981A,MY1,1.0", "A,B2987A,1"])
def test_another_model_is_refused_before_anything_is_set(direct, text):
    smu, link = direct(connect=False)
    link.replies["*IDN?"] = text
    for call in (lambda: smu.connect(ENVELOPE), smu.ensure_safe):
        with pytest.raises(ReplyError, match="is no B2985A"):
            call()
    assert link.sent == ["*IDN?"] * 2


def test_the_input_is_opened_first_then_off_is_made_an_open_relay(direct):
    smu, link = direct(connect=False)
    assert smu.connect(ENVELOPE).model == "B2987A"
    sent = link.sent
    steps = [
        sent.index("*IDN?"),
        sent.index(":FUNC 'VOLT'"),
        sent.index(":OUTP:OFF:MODE HIZ"),
        sent.index(":OUTP:ON:AUTO OFF"),
        sent.index(":INP ON"),
        first(sent, ":SOUR:VOLT 3.4"),
        sent.index(":OUTP ON"),
    ]
    assert steps == sorted(steps)
    assert sent[steps[1] + 1] == ":FUNC?"
    assert sent[steps[2] + 1] == ":OUTP:OFF:MODE?"
    assert not any("CURR'" in line or "INIT" in line for line in sent)


def test_connecting_and_resting_puts_no_charge_into_the_cell(direct):
    smu, link = direct()
    rows = read_for(smu, link, 2.0)
    assert abs(link.world.cell.source_C) < 1e-13  # 5 fA for each volt beside the cell's
    assert np.all(rows["current_A"] == 0.0)
    assert rows["voltage_V"][-1] == pytest.approx(link.world.cell.voltage_V, abs=3e-3)
    assert np.all(rows["status"][4:] == 0)
    check_unharmed(link)


@pytest.mark.parametrize("off_mode", ["NORM", "ZERO", "HIZ"])
@pytest.mark.parametrize("running", ["ON", "OFF"])
def test_whatever_runs_is_taken_over_by_an_open_input(direct, off_mode, running):
    before = (f":OUTP:OFF:MODE {off_mode}", ":SOUR:VOLT 3.92", ":INP ON", f":OUTP {running}")
    smu, link = direct(*before, connect=False)
    found = link.world.source
    smu.connect(ENVELOPE)
    assert is_open(link)
    link.pass_s(2.0)
    assert smu.read()["voltage_V"][0] == pytest.approx(link.world.cell.voltage_V, abs=3e-3)
    if off_mode == "ZERO" and running == "OFF":
        assert found == Source(mode="voltage", level=-2e-5, clamp=0.02)  # it was shorted
    else:
        check_unharmed(link)


def test_a_second_connection_takes_over_a_held_current_without_switching_the_output(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read(smu, 100)
    link.sent.clear()
    again = KeysightB298x(link, now_ns=link.now_ns)
    again.connect(ENVELOPE)
    assert not any(line.startswith((":OUTP ", ":SOUR:VOLT ")) for line in link.sent)
    assert is_open(link)
    check_unharmed(link)


def test_a_new_connection_forgets_the_cell_that_was_there(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read_for(smu, link, 15.0)
    learned_A = smu.loop_figures.ripple_A
    smu.apply(current(0.0))
    smu.apply(current(3e-11))
    smu.read()
    assert smu.loop_figures.ripple_A < 2 * learned_A
    smu.connect(ENVELOPE)
    smu.apply(current(3e-11))
    smu.read()
    assert smu.loop_figures.ripple_A > 10 * learned_A


def test_the_thousand_volt_range_is_left_before_off_is_set(direct):
    smu, link = direct(":SOUR:VOLT:RANG 1000", connect=False)
    smu.connect(ENVELOPE)
    assert first(link.sent, ":SOUR:VOLT:RANG 2") < link.sent.index(":OUTP:OFF:MODE HIZ")
    check_unharmed(link)


@pytest.mark.parametrize("header", [":OUTP:OFF:MODE", ":OUTP:ON:AUTO", ":FUNC"])
def test_a_dangerous_default_that_stays_stops_the_connection(direct, header):
    smu, link = direct(connect=False)
    link.deaf_to = (header,)
    with pytest.raises(NotApplied, match=header):
        smu.connect(ENVELOPE)
    with pytest.raises(UnsafeRequest, match="could switch the output on"):
        smu.read()
    assert ":OUTP ON" not in link.sent
    assert link.world.source == Source()


def test_errors_of_connecting_are_told(direct):
    smu, link = direct(connect=False)
    link.replies[":SYST:ERR?"] = '-113,"Undefined header"'
    with pytest.raises(InstrumentRefused, match="connecting: -113"):
        smu.connect(ENVELOPE)
    assert len(smu.read()) == 0  # nothing is known that readings could be compared with
    del link.replies[":SYST:ERR?"]
    assert smu.ensure_safe() is SafeState.S1


def test_an_output_that_stays_off_is_told(direct):
    smu, link = direct(connect=False)
    link.deaf_to = (":OUTP ON",)
    with pytest.raises(NotApplied, match="the output stays off"):
        smu.connect(ENVELOPE)
    assert is_open(link)


# --- set-points ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setpoint", "why"),
    [
        (current(1e-11, range_A=3e-10), "no range"),
        (current(1.6e-10), "beyond the limit"),
        (current(-1.6e-10), "beyond the limit"),
        (current(2.2e-11, range_A=2e-11), "beyond the limit or range"),
        (current(math.nan), "beyond the limit"),
        (current(1e-11, clamp=4.4), "clamp of 4.4 V"),
        (current(1e-11, clamp=0.0), "clamp of 0 V"),
        (voltage(2.4), "2.4 V is not in the window"),
        (voltage(4.4), "4.4 V is not in the window"),
        (voltage(0.0), "0 V is not in the window"),
        (voltage(math.nan), "nan V is not in the window"),
        (voltage(3.9, clamp=1.6e-10), "clamp of 1.6e-10 A"),
        (voltage(3.9, clamp=0.0), "clamp of 0 A"),
    ],
)
def test_an_unfit_set_point_sends_nothing(direct, setpoint, why):
    smu, link = direct()
    with pytest.raises(UnsafeRequest, match=why):
        smu.apply(setpoint)
    assert link.sent == []


def test_current_flows_only_once_the_source_is_where_the_cell_is(direct):
    smu, link = direct()
    cell_V = link.world.cell.voltage_V
    smu.apply(current(3e-11))
    steps = [
        first(link.sent, ":CURR:RANG 2"),
        link.sent.index(READING),
        first(link.sent, ":SOUR:VOLT "),
        link.sent.index(":FUNC 'CURR'"),
    ]
    assert steps == sorted(steps)
    assert float(link.sent[steps[2]].split()[1]) == pytest.approx(cell_V, abs=3e-3)
    # Error of source and voltmeter, a step and the burden stand at the cell, no more.
    assert abs(link.world.source.level - cell_V) < 1.5e-3
    link.pass_s(1.0)
    assert abs(link.world.cell.source_A) < 5e-12  # 0 V would have drawn nanoamperes


@pytest.mark.parametrize("volts", ["+3.40E+00", "-1.00E+00", "+9.91E+37"])
def test_nothing_is_connected_to_a_cell_that_is_not_in_its_window(direct, volts):
    smu, link = direct()
    link.replies[READING] = f"{volts},9.91E+37,1,0,3.4;1;1"
    for setpoint in (current(1e-11), voltage(3.9)):
        with pytest.raises(UnsafeRequest, match="no voltage is put on it"):
            smu.apply(setpoint)
        assert smu.ensure_safe() is SafeState.S1
    assert ":FUNC 'CURR'" not in link.sent
    assert is_open(link)


def test_a_level_outside_the_window_cannot_be_sent(direct):
    smu, _ = direct()
    for level_V in (0.0, 2.49, 4.31, -3.9):
        with pytest.raises(UnsafeRequest, match="not in the window"):
            smu._settings.send(f":SOUR:VOLT {level_V:.15E}")


def test_the_next_level_of_a_sweep_is_cheap(direct):
    smu, link = direct()
    smu.apply(voltage(3.9))
    read_for(smu, link, 1.0)
    link.sent.clear()
    smu.apply(voltage(3.901))
    assert link.sent == [f":SOUR:VOLT {3.901:.15E}", ":SOUR:VOLT?", ":SYST:ERR?"]


def test_a_sweep_of_small_steps_is_followed_without_settling_anew(direct):
    smu, link = direct()
    smu.apply(voltage(3.9))
    read_for(smu, link, 3.0)
    for i in range(1, 21):
        smu.apply(voltage(3.9 + 1e-3 * i))
        assert int(smu.read()["status"][0]) == Status.POTENTIOSTATIC
    assert link.world.cell.voltage_V == pytest.approx(3.92, abs=3e-3)
    smu.apply(voltage(3.95))
    assert int(smu.read()["status"][0]) & Status.SETTLING
    check_unharmed(link)


def test_a_level_that_is_not_taken_is_told(direct):
    smu, link = direct()
    smu.apply(voltage(3.95))
    link.deaf_to = (":SOUR:VOLT ",)
    with pytest.raises(NotApplied, match=":SOUR:VOLT was set to"):
        smu.read()  # a step is made by the readings
    with pytest.raises(NotApplied, match=":SOUR:VOLT was set to"):
        smu.apply(voltage(smu._level_V + 4e-3))
    with pytest.raises(NotApplied, match="make it safe first"):
        smu.apply(voltage(3.9))


def test_another_range_goes_by_the_open_input(direct):
    smu, link = direct()
    smu.apply(voltage(3.9))
    read(smu, 5)
    link.sent.clear()
    smu.apply(voltage(3.9, range_A=2e-9))
    steps = [
        link.sent.index(":FUNC 'VOLT'"),
        first(link.sent, ":CURR:RANG 2"),
        link.sent.index(READING),
        link.sent.index(":FUNC 'CURR'"),
    ]
    assert steps == sorted(steps)
    assert smu.read()["range_A"][0] == 2e-9
    check_unharmed(link)


def test_an_open_holder_may_see_zero_volts_and_is_charged_within_the_clamp(direct):
    smu, link = direct(cell_attached=False, leak_ohm=1e12)
    smu.apply(voltage(0.0, clamp=2e-10))
    read_for(smu, link, 1.0)
    smu.apply(voltage(2.0, clamp=2e-10))
    rows = read_for(smu, link, 10.0)
    assert np.all(np.abs(rows["current_A"]) < 2e-10)
    assert link.world.cell.voltage_V == pytest.approx(2.0, abs=3e-3)
    assert rows["voltage_V"][-1] == pytest.approx(2.0, abs=VOLTAGE_STEP_V)
    assert rows["current_A"][-1] == pytest.approx(2e-12, abs=3e-13)
    assert int(rows["status"][0]) & Status.SETTLING
    assert int(rows["status"][-1]) == Status.POTENTIOSTATIC
    with pytest.raises(UnsafeRequest, match="22 V is not in the window"):
        smu.apply(voltage(22.0, clamp=2e-10))


def test_an_error_of_a_set_point_is_told(direct):
    smu, link = direct()
    link.replies[":SYST:ERR?"] = '-222,"Data out of range"'
    with pytest.raises(InstrumentRefused, match="setting 1e-11"):
        smu.apply(current(1e-11))
    assert smu.ensure_safe() is SafeState.S1
    assert is_open(link)


def test_nothing_is_done_before_connecting(direct):
    smu, link = direct(connect=False)
    for call in (lambda: smu.apply(current(1e-11)), smu.ensure_safe, smu.rest_at_end):
        with pytest.raises(LinkError, match="connect first"):
            call()
    with pytest.raises(UnsafeRequest, match="could switch the output on"):
        smu.read()
    assert link.sent == []


# --- readings ------------------------------------------------------------------------------


def test_an_open_input_tells_the_cells_voltage_and_no_current(direct):
    smu, link = direct()
    link.pass_s(1.0)
    link.replies[READING] = "-5.000000E-01,+9.91E+37,+4.567E+00,0,+3.4E+00;1;1"
    (row,) = smu.read()
    assert row.dtype == SAMPLE_DTYPE
    assert (row["voltage_V"], row["current_A"]) == (pytest.approx(3.9), 0.0)
    assert row["current_sigma_A"] == pytest.approx(0.5 / 2e14, rel=0.1)
    assert (row["device_time_s"], row["aperture_s"], row["status"]) == (4.567, 0.02, 0)


def test_a_closed_input_tells_the_level_and_the_current(direct):
    smu, link = direct()
    smu.apply(voltage(3.9))
    link.pass_s(5.0)
    link.replies[READING] = "+9.91E+37,+1.25E-11,+4.567E+00,0,+3.9004E+00;1;1"
    (row,) = smu.read()
    assert (row["voltage_V"], row["current_A"]) == (3.9004, 1.25e-11)
    assert row["voltage_sigma_V"] == pytest.approx(VOLTAGE_STEP_V / math.sqrt(12), rel=0.02)
    assert (row["setpoint"], row["range_A"]) == (3.9, RANGE_A)
    assert row["status"] == Status.POTENTIOSTATIC


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("9.91E37,1E-11,1,0,3.9;1;1", Status(0)),
        ("9.91E37,9.91E37,1,8192,3.9;1;1", Status.OVERFLOW),
        ("9.91E37,9.91E37,1,0,3.9;1;1", Status.INVALID),
        ("-0.5,9.91E37,1,0,3.4;1;1", Status.INVALID),  # somebody opened the input
        ("9.91E37,1E-11,1,9.91E37,3.9;1;1", Status.INVALID),
        ("9.91E37,1E-11,1,0;1;1", Status.INVALID),
        ("9.91E37,x,1,0,3.9;1;1", Status.INVALID),
        ("9.91E37,1E-11,1,0,3.9", Status.INVALID),
        ("9.91E37,1E-11,1,0,3.9;1;2", Status.INVALID),
        ("", Status.INVALID),
    ],
)
def test_a_reply_sets_the_bits_of_its_row(direct, reply, status):
    smu, link = direct()
    smu.apply(voltage(3.9))
    link.pass_s(5.0)
    link.replies[READING] = reply
    (row,) = smu.read()
    found = Status(int(row["status"])) & (Status.INVALID | Status.OVERFLOW)
    assert found == status
    assert math.isfinite(row["current_A"]) is (status == Status(0))


@pytest.mark.parametrize("switches", ["0;1", "1;0", "0;0"])
def test_a_switch_found_off_gives_no_values_and_is_not_switched_on(direct, switches):
    smu, link = direct()
    link.replies[READING] = f"-0.5,9.91E37,1,0,3.4;{switches}"
    for _ in range(3):
        assert int(smu.read()["status"][0]) & Status.INVALID
    with pytest.raises(NotApplied, match="the output is off"):
        smu.apply(current(1e-11))
    assert set(link.sent) == {READING}
    del link.replies[READING]
    assert smu.ensure_safe() is SafeState.S1
    smu.apply(current(1e-11))


def test_the_clock_is_a_timestamp_between_two_stamps(direct):
    smu, link = direct()
    before = link.now
    found = smu.exchange_clock()
    assert before <= found.sent_ns < found.received_ns == link.now
    assert found.device_time_s == pytest.approx(link.smu.device_time_s(found.sent_ns), abs=0.03)
    link.replies[READING] = "-0.5,9.91E37,9.91E37,0,3.4;1;1"
    with pytest.raises(ReplyError, match="without its time"):
        smu.exchange_clock()


# --- the galvanostat -------------------------------------------------------------------------


@pytest.mark.no_cover  # the same lines many times over, which other tests cover
@pytest.mark.parametrize(
    ("target_A", "range_A", "seconds"),
    [(3e-11, 2e-10, 60), (-1e-11, 2e-10, 60), (1e-11, 2e-11, 60), (1.2e-10, 2e-9, 10)],
)
def test_a_current_is_held_within_the_stated_error(direct, target_A, range_A, seconds):
    smu, link = direct()
    before_C = link.world.cell.ion_C
    smu.apply(current(target_A, range_A=range_A))
    rows = read_for(smu, link, seconds)
    figures = smu.loop_figures
    spec = next(r for r in RANGES if r.full_scale_A == range_A)
    settled = rows[(rows["status"] & int(Status.SETTLING)) == 0]
    first_s = (settled["read_start_ns"][0] - rows["read_start_ns"][0]) / 1e9
    assert first_s < figures.settling_s < seconds
    truth = link.world.truth()["cell"]
    after = truth["t_ns"] > settled["read_start_ns"][0]
    true_A = truth["current"][after]
    meter_A = spec.gain_ratio * abs(target_A) + spec.offset_A
    assert abs(np.mean(true_A) - target_A) < figures.error_A + meter_A
    # From reading to reading: a step of the source, and no swinging beyond it.
    assert np.all(np.abs(settled["current_A"] - target_A) < 2.5 * figures.ripple_A)
    assert math.copysign(1.0, link.world.cell.ion_C - before_C) == math.copysign(1.0, target_A)
    assert np.all(rows["setpoint"] == target_A)
    check_unharmed(link)


def test_the_charge_that_is_read_is_the_charge_that_flowed(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    before_C, began_ns = link.world.cell.source_C, link.now
    rows = read_for(smu, link, 60.0)
    middle_s = (rows["read_start_ns"] + rows["read_end_ns"] - 2 * began_ns) / 2e9
    read_C = np.trapezoid(rows["current_A"], middle_s)
    lag_C = 3e-11 * 1.4 / math.log(10)  # what the meter has not shown yet
    assert read_C == pytest.approx(link.world.cell.source_C - before_C, abs=lag_C + 0.005 * read_C)
    check_unharmed(link)


def test_the_window_stops_the_loop_and_is_told(direct):
    smu, link = direct()
    rest_V = link.world.cell.voltage_V
    smu.apply(current(1.4e-10, clamp=rest_V + 0.02))
    rows = read_for(smu, link, 30.0)
    assert int(rows["status"][-1]) & Status.COMPLIANCE
    assert int(rows["status"][-1]) & Status.SETTLING
    assert voltages(link).max() < rest_V + 0.02
    check_unharmed(link)


def test_a_host_that_falls_silent_leaves_a_voltage_inside_the_window(direct):
    smu, link = direct()
    smu.apply(current(1e-10))
    read_for(smu, link, 10.0)
    level_V = link.world.source.level
    link.pass_s(600.0)
    assert link.world.source.level == level_V
    assert abs(link.world.cell.source_A) < 1.1e-10  # it falls as the cell charges up to it
    check_unharmed(link)
    assert smu.ensure_safe() is SafeState.S1
    assert is_open(link)


def test_an_overflow_is_taken_for_a_full_range(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read_for(smu, link, 20.0)
    before_V = link.world.source.level
    link.replies[READING] = f"9.91E37,9.91E37,1,8192,{before_V:.6E};1;1"
    link.pass_s(0.03)
    for _ in range(3):
        link.pass_s(0.05)
        assert int(smu.read()["status"][0]) & Status.OVERFLOW
    assert link.world.source.level < before_V


def test_a_reading_that_is_no_number_leaves_the_level(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read(smu, 100)
    link.sent.clear()
    link.replies[READING] = "garbage;1;1"
    for _ in range(20):
        link.pass_s(1.0)
        smu.read()
    assert set(link.sent) == {READING}


def test_another_current_goes_on_from_the_level_that_stands(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read_for(smu, link, 30.0)
    level_V, link.sent[:] = link.world.source.level, []
    smu.apply(current(2e-11))
    assert link.sent == [":SYST:ERR?"]
    assert link.world.source.level == level_V
    rows = read_for(smu, link, 30.0)
    assert rows["current_A"].max() < 3.2e-11
    assert not int(rows["status"][-1]) & Status.SETTLING


def test_charge_to_a_voltage_hold_it_and_rest(direct):
    smu, link = direct()
    smu.apply(current(6e-11))
    for _ in range(2000):
        row = smu.read()[0]
        if row["voltage_V"] > 3.96:
            break
    else:
        pytest.fail("the voltage was not reached")
    link.sent.clear()
    smu.apply(voltage(3.96))
    assert ":FUNC 'VOLT'" not in link.sent
    held = read_for(smu, link, 20.0)
    assert np.all(np.abs(held["voltage_V"][10:] - 3.96) < 2 * VOLTAGE_STEP_V)
    assert held["current_A"][-1] < held["current_A"][100]
    smu.apply(current(0.0))
    assert is_open(link)
    rest = read_for(smu, link, 3.0)
    assert rest["voltage_V"][-1] < 3.95
    assert smu.loop_figures is None
    assert smu.rest_at_end() is SafeState.S2
    assert link.world.source == Source()
    check_unharmed(link)


def test_a_current_beyond_the_clamp_of_a_voltage_opens_the_input(direct):
    smu, link = direct()
    smu.apply(voltage(3.95, clamp=5e-12))
    rows = read_for(smu, link, 5.0)
    assert is_open(link)
    assert int(rows["status"][-1]) & Status.COMPLIANCE
    assert rows["current_A"][-1] == 0.0
    assert np.max(np.abs(rows["current_A"])) < 1e-11
    with pytest.raises(NotApplied, match="beyond its clamp of 5e-12 A"):
        smu.apply(voltage(3.951, clamp=5e-12))
    smu.apply(current(0.0))
    assert not int(smu.read()["status"][0]) & Status.COMPLIANCE
    smu.apply(voltage(3.91))
    check_unharmed(link)


# --- blocks ----------------------------------------------------------------------------------


def test_a_block_holds_as_many_readings_as_were_asked_for(direct):
    smu, link = direct(block=20)
    link.pass_s(1.0)
    rows = smu.read()
    assert rows.shape == (20,)
    assert link.sent[-2:] == [ACQUIRE, STATE]
    assert np.all(rows["status"] == 0)
    assert np.all(np.diff(rows["device_time_s"]) > 0.019)
    assert np.all(np.diff(rows["read_start_ns"]) > 19_000_000)
    assert np.all(np.abs(rows["voltage_V"] - link.world.cell.voltage_V) < 3e-3)
    smu.apply(voltage(3.9))
    held = np.concatenate([smu.read() for _ in range(10)])
    assert held["current_A"][-1] == pytest.approx(link.world.cell.source_A, abs=1e-12)
    assert smu.exchange_clock().device_time_s > held["device_time_s"][-1]
    check_unharmed(link)


def test_a_block_whose_output_was_lost_is_invalid(direct):
    smu, link = direct(block=5)
    link.replies[STATE] = "0;1"
    assert np.all(smu.read()["status"] & int(Status.INVALID))
    del link.replies[STATE]
    values = struct.pack("<25d", *([-0.5, 9.91e37, 1.0, 0.0, 3.4] * 5))
    smu.ensure_safe()
    link.replies[ACQUIRE] = b"#3200" + values
    assert np.all(smu.read()["current_A"] == 0.0)
    link.replies[STATE] = "what"
    with pytest.raises(ReplyError, match="not the state of output and input"):
        smu.read()


def test_a_block_is_not_for_a_current(direct):
    smu, link = direct(block=2)
    with pytest.raises(UnsafeRequest, match="one correction for each reading, not for 2"):
        smu.apply(current(3e-11))
    assert link.sent == []
    smu.apply(current(0.0))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"block": 51}, "1 to 50 readings"),
        ({"block": 0}, "1 to 50 readings"),
        ({"block": 20, "nplc": 10}, "take longer than 1.5 s"),
        ({"lines": TriggerLines(exposure_in=1)}, "no trigger lines here"),
    ],
)
def test_what_it_has_not_is_refused(options, why):
    with pytest.raises(UnsafeRequest, match=why):
        KeysightB298x(DirectLink(), now_ns=lambda: 0, **options)


# --- safety --------------------------------------------------------------------------------


@pytest.mark.parametrize("setpoint", [current(3e-11), current(-3e-11), voltage(3.92)])
def test_rest_is_reached_from_every_state_at_once(direct, setpoint):
    smu, link = direct()
    smu.apply(setpoint)
    read(smu, 50)
    link.sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert link.sent[0] == ":FUNC 'VOLT'"
    assert is_open(link)
    once = list(link.sent)
    link.sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert link.sent == once
    assert smu.read()["setpoint"][0] == 0.0
    check_unharmed(link)


@pytest.mark.parametrize("fail_at", range(1, 80))
def test_whichever_answer_fails_the_cell_is_brought_to_rest(direct, fail_at):
    smu, link = direct(connect=False)
    link.fail_at = fail_at
    steps = (
        lambda: smu.connect(ENVELOPE),
        lambda: smu.apply(current(3e-11)),
        lambda: read(smu, 12),
        lambda: smu.apply(voltage(3.92)),
        lambda: read(smu, 3),
        lambda: smu.apply(current(0.0)),
        lambda: read(smu, 3),
        smu.rest_at_end,
    )
    try:
        for step in steps:
            step()
    except NoReply:
        assert smu.ensure_safe() is SafeState.S1
    assert is_open(link)
    link.pass_s(1.0)
    assert abs(link.world.cell.source_A) < 1e-14
    link.fail_at = None
    assert smu.rest_at_end() is SafeState.S2
    check_unharmed(link)


def test_one_missing_reply_does_not_keep_the_cell_from_safety(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    link.fail_next = [NoReply("late")]
    assert smu.ensure_safe() is SafeState.S1
    link.fail_next = [NoReply("late"), NoReply("late again")]
    with pytest.raises(NoReply, match="late again"):
        smu.ensure_safe()
    assert is_open(link)  # what could not be confirmed was done all the same


def test_a_power_cycle_is_noticed_and_nothing_is_switched_on_by_reading(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read(smu, 50)
    link.power_cycle()
    link.sent.clear()
    rows = read(smu, 5)
    assert np.all(rows["status"] & int(Status.INVALID))
    assert not link.smu.output_on
    assert not link.smu.input_on
    assert set(link.sent) == {READING}
    with pytest.raises(NotApplied, match="make it safe first"):
        smu.apply(current(3e-11))
    assert smu.ensure_safe() is SafeState.S1
    assert link.sent.index(":OUTP:OFF:MODE HIZ") < link.sent.index(":OUTP ON")
    assert is_open(link)
    smu.apply(current(3e-11))
    read(smu, 20)
    check_unharmed(link)


def test_a_power_cycle_that_nobody_read_is_noticed_by_safety(direct):
    smu, link = direct()
    link.power_cycle()
    assert smu.ensure_safe() is SafeState.S1
    assert link.handle(":OUTP:OFF:MODE?") == "HIZ"
    assert link.handle(":FORM:ELEM:SENS?") == ELEMENTS
    assert is_open(link)
    check_unharmed(link)


def test_the_last_state_of_a_run_is_all_relays_open(direct):
    smu, link = direct()
    smu.apply(current(3e-11))
    read(smu, 20)
    link.sent.clear()
    assert smu.rest_at_end() is SafeState.S2
    steps = [link.sent.index(x) for x in (":FUNC 'VOLT'", ":OUTP OFF", ":INP OFF")]
    assert steps == sorted(steps)
    assert link.world.source == Source()
    link.sent.clear()
    assert smu.rest_at_end() is SafeState.S2
    assert ":OUTP ON" not in link.sent
    with pytest.raises(NotApplied, match="the output is off"):
        smu.apply(current(3e-11))
    assert int(smu.read()["status"][0]) & Status.INVALID
    check_unharmed(link)


def test_close_lets_go_and_says_nothing(direct):
    smu, link = direct()
    smu.close()
    assert link.closed
    assert link.sent == []


def test_ranges_are_the_data_sheets():
    found = [(r.full_scale_A, r.gain_ratio, r.offset_A, r.settling_s) for r in RANGES[:4]]
    assert found == [
        (2e-12, 0.010, 3e-15, 16.0),
        (2e-11, 0.005, 3e-15, 1.4),
        (2e-10, 0.005, 5e-15, 1.4),
        (2e-9, 0.002, 3e-13, 0.013),
    ]
    assert RANGES[0].resolution_A == pytest.approx(1e-18)
    assert KeysightB298x.off_states == (SafeState.S1, SafeState.S2)


# --- over a socket, and the peer ---------------------------------------------------------------


def test_readings_and_blocks_come_over_a_socket(start_bench):
    bench = start_bench(driver="keysight_b298x")
    link = VisaLink(bench.resource, now_ns=bench.now_ns)
    link.open()
    try:
        smu = KeysightB298x(link, now_ns=bench.now_ns)
        smu.connect(ENVELOPE)
        smu.apply(current(3e-11))
        assert read(smu, 200)["current_A"][-1] > 1e-12
        blocks = KeysightB298x(link, now_ns=bench.now_ns, block=25)
        blocks.connect(ENVELOPE)
        rows = read(blocks, 4)
        assert len(rows) == 100
        assert np.all((rows["status"] & int(Status.INVALID)) == 0)
        assert blocks.rest_at_end() is SafeState.S2
        assert bench.world.source.mode == "open"
    finally:
        link.close()


def test_every_header_is_the_peers_or_named_as_the_b2900s(direct):
    agilent = pytest.importorskip(
        "pymeasure.instruments.agilent.agilentB298x", reason="the peer is not installed"
    )
    smu, link = direct(connect=False)
    smu.connect(ENVELOPE)
    smu.apply(current(3e-11))
    read(smu, 30)
    smu.apply(voltage(3.92))
    smu.read_temperature()
    smu.rest_at_end()
    headers = {part.partition(" ")[0] for line in link.sent for part in line.split(";")}
    text = inspect.getsource(agilent)
    for header in headers:
        if header not in FROM_B2900 and header.removesuffix("?") not in FROM_B2900:
            assert re.search(rf'"{re.escape(header.removesuffix("?"))}[?" ]', text), header


@pytest.mark.peers
def test_pymeasures_driver_works_on_our_simulator(start_bench):
    agilent = pytest.importorskip(
        "pymeasure.instruments.agilent", reason="PyMeasure is not installed"
    )
    bench = start_bench(driver="keysight_b298x")
    peer = agilent.AgilentB2987(
        bench.resource, visa_library="@py", read_termination="\n", write_termination="\n"
    )
    try:
        peer.source_voltage_range = 20
        peer.source_off_state = "HIZ"
        peer.source_low_state = "COMM"
        peer.function = "VOLT"
        assert (peer.source_off_state, peer.source_low_state) == ("HIZ", "COMM")
        assert peer.function == "VOLT"
        peer.voltage_range = 20
        peer.source_voltage = 3.9
        assert peer.source_voltage == pytest.approx(3.9, abs=4e-4)
        peer.input_enabled = True
        peer.source_enabled = True
        assert peer.input_enabled
        assert peer.source_enabled
        read_V = peer.voltage
        assert 3.9 - read_V == pytest.approx(bench.world.cell.voltage_V, abs=3e-3)
        peer.current_range = 2e-10
        assert peer.current_range == 2e-10
        peer.trigger_acquisition_count = 3
        assert peer.trigger_acquisition_count == 3
        peer.init_acquisition()
        assert peer.trigger_acquisition_is_idle
        assert 0 <= peer.battery_level <= 100
        peer.temperature_sensor, peer.temperature_unit = "TC", "K"
        assert (peer.temperature_sensor, peer.temperature_unit) == ("TC", "K")
        assert peer.temperature == pytest.approx(bench.world.temperature_K, abs=3.5)
        # Reading its property `current` makes the input an ammeter, whatever it was.
        assert abs(peer.current) < 2e-11
        assert peer.function == "CURR"
        assert peer.ask(":SYST:ERR?").startswith('+0,"No error"')
    finally:
        peer.adapter.connection.close()


# --- the thermocouple --------------------------------------------------------------------------


def test_the_temperature_is_told_beside_the_readings_and_nothing_is_set(direct):
    smu, link = direct(holder_K=330.0)
    smu.apply(current(3e-11))
    read(smu, 3)
    smu.read_temperature()
    level_V, link.sent[:] = smu._level_V, []
    found = smu.read_temperature()
    assert link.sent == [ASK]
    assert not found.fault
    assert abs(found.temperature_K - 330.0) < THERMOCOUPLE.error_K + 0.3
    assert found.sigma_K == THERMOCOUPLE.sigma_K
    assert found.read_start_ns < found.read_end_ns == link.now
    assert smu._level_V == level_V
    assert not int(smu.read()["status"][0]) & Status.INVALID
    check_unharmed(link)


def test_the_stated_sigma_is_that_of_many_wires():
    pulls = []
    for seed in range(400):
        world = SimpleNamespace(
            seed=seed,
            scenario=load("lco_lipon_li"),
            temperature_K=300.0,
            mated_s=0.0,
            now_ns=0,
            record=lambda *_, **__: None,
        )
        pulls.append((Thermocouple(world).kelvin() - 300.0) / THERMOCOUPLE.sigma_K)
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1.0, abs=0.1)
    assert np.max(np.abs(pulls)) < math.sqrt(3.0) + 0.2


@pytest.mark.parametrize(
    "line", [":SYST:TEMP:UNIT C", ":SYST:TEMP:UNIT F", ":SYST:TEMP:SEL HSEN", "*CLS"]
)
def test_sensor_and_unit_that_somebody_has_turned_are_put_right(direct, line):
    smu, link = direct(holder_K=330.0)
    smu.read_temperature()
    link.handle(line)
    assert smu.read_temperature().temperature_K == pytest.approx(330.0, abs=3.5)
    assert link.handle(":SYST:TEMP:SEL?;:SYST:TEMP:UNIT?") == "TC;K"


def test_a_unit_that_is_not_taken_is_no_temperature(direct):
    smu, link = direct()
    link.deaf_to = (":SYST:TEMP:UNIT",)
    with pytest.raises(NotApplied, match=":SYST:TEMP:UNIT was set to K and reads back C"):
        smu.read_temperature()


def test_an_open_thermocouple_is_no_temperature_until_it_is_back(direct):
    smu, link = direct()
    link.smu.thermocouple.is_open = True
    found = smu.read_temperature()
    assert math.isnan(found.temperature_K)
    assert math.isnan(found.sigma_K)
    assert found.fault == (
        "the thermocouple is open or beyond its range: +9.910000E+37 is no number"
    )
    link.smu.thermocouple.is_open = False
    assert not smu.read_temperature().fault


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("TC;K;+9.91E+37", "is open or beyond its range"),
        ("TC;K;-9.9E+37", "is open or beyond its range"),
        ("TC;K;NaN", "is open or beyond its range"),
        ("TC;K;INF", "is open or beyond its range"),
        ("TC;K;+2.5", "says 2.5 K, outside the 248.15 to 423.15 K"),
        ("TC;K;+1200", "says 1200 K, outside"),
        ("TC;K;warm", "cannot be read: 'WARM' is no number"),
        ("TC;K;", "answered 'TC;K;'"),
        ("+3.0E+02", "answered '+3.0E+02'"),
        ("", "answered ''"),
        ("TC;C;+2.5E+01", "answered 'TC;C;+2.5E+01'"),
        ("HSEN;K;+3.0E+02", "answered 'HSEN;K;+3.0E+02'"),
    ],
)
def test_an_answer_that_is_no_temperature_says_why(direct, answer, says):
    smu, link = direct()
    link.replies[ASK] = answer
    found = smu.read_temperature()
    assert math.isnan(found.temperature_K)
    assert says in found.fault


@given(answer=st.one_of(st.text(max_size=30), st.builds("TC;K;{}".format, st.floats())))
def test_any_answer_is_a_temperature_in_the_span_or_has_a_fault(answer):
    link = SimpleNamespace(
        resource="any",
        query=lambda _command: Reply(answer, 1, 2),
    )
    settings = SimpleNamespace(set_word=lambda *_: None)
    found = ThermocoupleInput(link, settings).read()
    if found.fault:
        assert math.isnan(found.temperature_K)
    else:
        assert THERMOCOUPLE.holds(found.temperature_K)


def test_an_instrument_that_refuses_the_question_does_not_end_the_run_later(direct):
    smu, link = direct()
    link.fail_next = [NoReply("late")]
    link.handle(":SYST:NONSENSE?")  # what an instrument without the input would queue
    with pytest.raises(InstrumentRefused, match="asking for the temperature: -113"):
        smu.read_temperature()
    link.fail_next = [NoReply("late")]
    with pytest.raises(NoReply):
        smu.read_temperature()
    smu.apply(current(3e-11))  # reads the queue
    assert not smu.read_temperature().fault
