"""The 2450: on our simulator, on an independent one, and peers' drivers on ours."""

import asyncio
import math
import time

import numpy as np
import pytest

from mocks.keithley2450 import Keithley2450 as Simulated2450
from mocks.pace import LockstepPace
from potentiostat.drivers.keithley2450 import CLOCK, RANGES, READ, Keithley2450
from potentiostat.errors import (
    InstrumentRefused,
    LinkError,
    NoReply,
    NotApplied,
    ReplyError,
    UnsafeRequest,
)
from potentiostat.limits import Envelope
from potentiostat.protocol import SafeState, Setpoint
from potentiostat.records import SAMPLE_DTYPE, Status
from potentiostat.visa import Reply, VisaLink
from tests.potentiostat.independent import IndependentLink
from tests.potentiostat.served import Served, world_of

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=1e-6, charge_max_C=1e-3)
ZERO_A = 1e-10  # data sheet: of the current source in the 10 nA range
FILM = {"scenario": "lco_thin_film", "electrolyte_ohm": 50e3}


def current(level, clamp=4.3, range_A=1e-6):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=range_A)


def voltage(level, clamp=9e-7, range_A=1e-6):
    return Setpoint(mode="voltage", level=level, clamp=clamp, range_A=range_A)


def readings(smu, count):
    rows = np.concatenate([smu.read() for _ in range(count)])
    assert not np.any(rows["status"] & (Status.INVALID | Status.OVERFLOW))
    return rows


def check_unharmed(world):
    voltage_V = world.truth()["cell"]["voltage"]
    assert voltage_V.min() > 2.5
    assert voltage_V.max() < 4.3


# --- on the wire -------------------------------------------------------------------------


@pytest.fixture
def serve_2450():
    started = []

    def start(**options):
        started.append(Served(Simulated2450, **options))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.fixture
def on_wire(serve_2450):
    """A driver on a socket; afterwards the cell is unharmed and no error is left."""
    made = []

    def make(**options):
        served = serve_2450(**options)
        link = VisaLink(served.resource, now_ns=served.now_ns)
        link.open()
        made.append((served, link))
        return Keithley2450(link, now_ns=served.now_ns), served

    yield make
    for served, link in made:
        assert link.query(":SYST:ERR?").text == '0,"No error;0,0,0"'
        link.close()
        check_unharmed(served.world)


def test_it_charges_holds_ramps_and_rests_without_harm(on_wire):
    smu, served = on_wire(**FILM)
    world = served.world
    assert smu.connect(ENVELOPE).model == "2450"
    assert served.smu.output_on
    assert (world.source.mode, world.source.clamp) == ("current", 4.3)
    assert abs(world.source.level) < ZERO_A
    resting = readings(smu, 10)
    before_V = world.cell.voltage_V
    assert resting["voltage_V"][-1] == pytest.approx(before_V, abs=2e-3)

    smu.apply(current(4e-7))
    charging = readings(smu, 20)
    assert charging["current_A"][-1] == pytest.approx(4e-7, rel=0.01)
    assert charging["voltage_V"][-1] > resting["voltage_V"][-1] + 0.01
    assert not np.any(charging["status"] & (Status.COMPLIANCE | Status.POTENTIOSTATIC))

    smu.ensure_safe()
    readings(smu, 5)
    rest_V = world.cell.voltage_V
    smu.apply(voltage(rest_V + 0.02))
    held = readings(smu, 20)
    assert held["voltage_V"][-1] == pytest.approx(rest_V + 0.02, abs=2e-3)
    assert world.cell.voltage_V == pytest.approx(rest_V + 0.02, abs=1e-3)
    assert 1e-7 < held["current_A"][-1] < 8e-7
    assert np.all(held["status"] & Status.POTENTIOSTATIC)

    ramp = []
    for step in range(10):
        smu.apply(voltage(rest_V + 0.02 - 0.004 * step))
        ramp.append(readings(smu, 1)[0])
    steps_V = np.diff([row["voltage_V"] for row in ramp])
    assert np.all(np.abs(steps_V + 0.004) < 5e-4)
    assert ramp[-1]["current_A"] < -1e-8
    assert not ramp[-1]["status"] & Status.SETTLING  # a small step needs no time to settle

    assert smu.ensure_safe() is SafeState.S1
    assert world.source.mode == "current"
    assert smu.rest_at_end() is SafeState.S2
    assert not served.smu.output_on
    assert world.source.mode == "open"


def test_a_constant_current_is_followed_by_a_constant_voltage(on_wire):
    smu, served = on_wire(**FILM, film_thickness_m=5e-9, front_start_m=0.6e-9)
    smu.connect(ENVELOPE)
    limit_V = readings(smu, 1)["voltage_V"][0] + 0.035
    smu.apply(current(4e-7))
    rows = [smu.read()[0]]
    while rows[-1]["voltage_V"] < limit_V:
        rows.append(smu.read()[0])
        assert len(rows) < 500
    smu.apply(voltage(limit_V))
    held = readings(smu, 200)
    assert np.allclose(held["voltage_V"], limit_V, atol=2e-3)
    assert held["current_A"][3] == pytest.approx(4e-7, rel=0.15)  # nothing jumps on the way
    assert 0 < held["current_A"][-1] < 0.75 * held["current_A"][3]
    smu.apply(current(0.0))
    assert abs(readings(smu, 5)["current_A"][-1]) < 2e-9
    assert served.world.cell.ion_C > 0


def test_connecting_injects_no_more_than_the_zero_of_the_source(on_wire):
    smu, served = on_wire()
    smu.connect(ENVELOPE)
    injected_C = abs(served.world.truth()["ledger"]["instrument"][-1])
    source = served.world.truth()["source"]
    on_s = (served.now - source["t_ns"][source["output_on"] == 1][0]) / 1e9
    assert 0 < injected_C <= ZERO_A * on_s
    assert injected_C < 1e-11  # of the 6 nC of this block; a lamella of 621 pC loses 2 %
    assert set(source["mode"].tolist()) == {b"open", b"current"}


def test_a_second_connection_brings_a_running_current_to_rest_without_a_break(on_wire):
    smu, served = on_wire(**FILM)
    smu.connect(ENVELOPE)
    smu.apply(current(4e-7))
    readings(smu, 3)
    count = len(served.world.truth()["source"]["t_ns"])
    smu.connect(ENVELOPE)
    changes = served.world.truth()["source"]
    assert np.all(changes["output_on"][count:] == 1)
    assert abs(served.world.source.level) < 4 * ZERO_A


def test_a_voltage_found_on_a_cell_is_left_through_the_open_relay(on_wire):
    smu, served = on_wire(**FILM)
    smu.connect(ENVELOPE)
    smu.apply(voltage(served.world.cell.voltage_V + 0.01))
    count = len(served.world.truth()["source"]["t_ns"])
    smu.connect(ENVELOPE)
    modes = served.world.truth()["source"]["mode"][count:].tolist()
    assert modes[0] == b"open"
    assert set(modes) == {b"open", b"current"}


def test_a_clamp_that_holds_is_told_by_the_reading(on_wire):
    smu, served = on_wire(**FILM)
    smu.connect(ENVELOPE)
    smu.apply(current(5e-7, clamp=served.world.cell.voltage_V + 0.01))
    assert readings(smu, 20)["status"][-1] & Status.COMPLIANCE
    smu.apply(voltage(served.world.cell.voltage_V + 0.05, clamp=2e-7))
    row = readings(smu, 20)[-1]
    assert row["status"] & Status.COMPLIANCE
    assert row["current_A"] == pytest.approx(2e-7, rel=0.01)


def test_an_open_holder_takes_a_voltage_and_zero_volts(serve_2450):
    served = serve_2450(open_holder=True)
    with VisaLink(served.resource, now_ns=served.now_ns) as link:
        smu = Keithley2450(link, now_ns=served.now_ns)
        smu.connect(ENVELOPE, cell_attached=False)
        for level_V in (2.0, 0.0):
            smu.apply(voltage(level_V, clamp=9e-9, range_A=1e-8))
            assert readings(smu, 40)["voltage_V"][-1] == pytest.approx(level_V, abs=5e-3)
        assert smu.ensure_safe() is SafeState.S1
        assert served.world.source.mode == "current"
        assert link.query(":SYST:ERR?").text.startswith("0,")


def test_the_clock_is_utc_with_fractions(on_wire):
    smu, _ = on_wire()
    smu.connect(ENVELOPE)
    first = smu.exchange_clock()
    row = readings(smu, 100)[-1]
    last = smu.exchange_clock()
    for told_s, from_ns, to_ns in (
        (first.device_time_s, first.sent_ns, first.received_ns),
        (row["device_time_s"], row["read_start_ns"], row["read_end_ns"]),
        (last.device_time_s, last.sent_ns, last.received_ns),
    ):
        # Host time 0 is a whole second of UTC; the oscillator is off by 12e-6.
        assert from_ns < (told_s - 1.7e9) * 1e9 / (1 + 12e-6) < to_ns


# --- a link that can go wrong --------------------------------------------------------------


class Direct:
    """The simulated instrument without a wire, and with what a test makes go wrong."""

    resource = "direct"

    def __init__(self, **options):
        self.world = world_of(**options)
        self.loop = asyncio.new_event_loop()
        self.smu = Simulated2450(self.world, LockstepPace(self.world, lambda _now: None))
        self.sent, self.deaf_to, self.fail_next, self.replies = [], set(), [], {}

    def now_ns(self):
        return self.world.now_ns

    def handle(self, command):
        return self.loop.run_until_complete(self.smu.handle(command))

    def write(self, command):
        self.sent.append(command)
        if command.split(" ")[0] not in self.deaf_to:
            self.handle(command)

    def query(self, command):
        self.sent.append(command)
        if self.fail_next:
            raise self.fail_next.pop(0)
        start = self.now_ns()
        text = self.replies.get(command) or self.handle(command)
        if text is None:
            raise NoReply(f"no reply to {command}")
        return Reply(text, start, self.now_ns())

    def resync(self):
        raise AssertionError("the driver leaves that to the link")

    def close(self):
        self.sent.append("closed")


@pytest.fixture
def direct():
    made = []

    def make(*, connect=True, **options):
        link = Direct(**options)
        made.append(link)
        smu = Keithley2450(link, now_ns=link.now_ns)
        if connect:
            smu.connect(ENVELOPE)
            link.sent.clear()
        return smu, link

    yield make
    for link in made:
        link.loop.close()
        never = ("*RST", "*RCL", ":MEAS", ":CONF")
        assert not [line for line in link.sent if line.upper().startswith(never)]


def sets(lines):
    return [line for line in lines if "?" not in line]


def test_the_off_states_come_before_anything_else_is_set(direct):
    smu, link = direct(connect=False)
    smu.connect(ENVELOPE)
    assert link.sent[:2] == ["*IDN?", "*LANG?"]
    assert link.sent[2:9] == [
        "*CLS",
        ":ABOR",  # which sets nothing
        ":OUTP:SMOD HIMP",
        ":OUTP:CURR:SMOD HIMP",
        ":OUTP:CURR:SMOD?",
        ":OUTP:VOLT:SMOD HIMP",
        ":OUTP:VOLT:SMOD?",
    ]
    on = link.sent.index(":OUTP ON")
    last = {line.split(" ")[0]: i for i, line in enumerate(link.sent[:on])}
    assert last[":SOUR:CURR:VLIM"] < on
    assert last[":SOUR:CURR"] < on
    assert float(link.handle(":SOUR:CURR:VLIM?")) == 4.3
    assert float(link.handle(":SOUR:CURR?")) == 0.0
    assert float(link.handle(":SOUR:CURR:RANG?")) == 1e-8


@pytest.mark.parametrize("header", [":OUTP:CURR:SMOD", ":OUTP:VOLT:SMOD"])
def test_an_off_state_that_is_not_taken_stops_everything(direct, header):
    smu, link = direct(connect=False)
    link.replies[f"{header}?"] = "NORM"
    with pytest.raises(NotApplied, match=f"{header}.*reads back NORM"):
        smu.connect(ENVELOPE)
    assert not link.smu.output_on
    assert not any(line.startswith((":OUTP ON", ":OUTP OFF", ":SOUR")) for line in link.sent)


@pytest.mark.parametrize("model", ["MODEL 2400", "MODEL 2636B", "MODEL 2461"])
def test_another_model_is_refused_before_anything_is_set(direct, model):
    smu, link = direct(connect=False)
    link.replies["*IDN?"] = f"KEITHLEY INSTRUMENTS INC.,{model},1,1.0"
    for attempt in (lambda: smu.connect(ENVELOPE), smu.ensure_safe):
        with pytest.raises(ReplyError, match="is no 2450"):
            attempt()
    assert sets(link.sent) == []


@pytest.mark.parametrize("language", ["TSP", "SCPI2400"])
def test_another_command_set_is_refused_and_how_to_change_it_is_said(direct, language):
    smu, link = direct(connect=False)
    link.smu.language = language
    with pytest.raises(ReplyError, match=f"{language}, not SCPI.*MENU, System, Settings"):
        smu.connect(ENVELOPE)
    assert link.sent == ["*IDN?", "*LANG?"]


def test_a_2460_rests_in_its_own_smallest_range(direct):
    smu, link = direct(connect=False)
    link.replies["*IDN?"] = "KEITHLEY INSTRUMENTS,MODEL 2460,04012345,1.7.12b"
    assert smu.connect(ENVELOPE).model == "2460"
    assert float(link.handle(":SOUR:CURR:RANG?")) == 1e-6
    with pytest.raises(UnsafeRequest, match="no range"):
        smu.apply(current(1e-9, range_A=1e-8))


def test_other_mains_are_told(direct):
    _, link = direct(connect=False)
    with pytest.raises(NotApplied, match="mains of 50 Hz, not of 60 Hz"):
        Keithley2450(link, now_ns=link.now_ns, line_frequency_Hz=60.0).connect(ENVELOPE)


def test_an_error_of_connecting_is_told(direct):
    smu, link = direct(connect=False)
    link.handle("*CLS")
    link.deaf_to.add("*CLS")
    link.handle(":BOGUS")
    with pytest.raises(InstrumentRefused, match="connecting: -113"):
        smu.connect(ENVELOPE)


def test_remote_sense_is_switched_off(direct):
    smu, link = direct(connect=False)
    link.handle(":SENS:VOLT:RSEN ON")
    smu.connect(ENVELOPE)
    assert link.handle(":SENS:VOLT:RSEN?") == "0"


@pytest.mark.parametrize(
    ("setpoint", "why"),
    [
        (current(1e-7, range_A=3e-7), "no range"),
        (current(1.2e-6), "beyond the limit"),
        (current(1.2e-8, range_A=1e-8), "beyond the limit or range"),
        (current(math.nan), "beyond the limit or range"),
        (current(1e-7, clamp=4.4), "clamp of 4.4 V"),
        (current(1e-7, clamp=0.0), "clamp of 0 V"),
        (voltage(2.4), "2.4 V is not in the window"),
        (voltage(0.0), "0 V is not in the window"),
        (voltage(math.nan), "nan V is not in the window"),
        (voltage(3.9, clamp=1.04e-6), "clamp of 1.04e-06 A"),
        (voltage(3.9, clamp=9e-10), "smallest that there is, 1e-09 A"),
        (voltage(3.9, clamp=0.0), "clamp of 0 A"),
    ],
)
def test_an_unfit_set_point_sends_nothing(direct, setpoint, why):
    smu, link = direct()
    with pytest.raises(UnsafeRequest, match=why):
        smu.apply(setpoint)
    assert link.sent == []


def test_a_voltage_beyond_the_model_is_refused_without_a_cell_too(direct):
    smu, _ = direct(connect=False, open_holder=True)
    smu.connect(ENVELOPE, cell_attached=False)
    with pytest.raises(UnsafeRequest, match="beyond the model"):
        smu.apply(voltage(22.0))


def test_a_set_point_before_connecting_is_refused(direct):
    smu, link = direct(connect=False)
    with pytest.raises(LinkError, match="connect first"):
        smu.apply(current(1e-9))
    assert link.sent == []


def test_the_next_level_is_cheap(direct):
    smu, link = direct(**FILM)
    for first, second in ((current(1e-7), current(2e-7)), (voltage(3.92), voltage(3.921))):
        smu.apply(first)
        link.sent.clear()
        smu.apply(second)
        header = ":SOUR:CURR" if first.mode == "current" else ":SOUR:VOLT"
        assert link.sent == [f"{header} {second.level:.15E}", f"{header}?", ":SYST:ERR?"]


def test_a_voltage_comes_on_behind_its_limit_at_what_the_cell_has(direct):
    smu, link = direct(**FILM)
    cell_V = link.world.cell.voltage_V
    smu.apply(voltage(3.93, clamp=5e-7))
    sent = sets(link.sent)
    off, on = sent.index(":OUTP OFF"), sent.index(":OUTP ON")
    assert sent.index(f":SOUR:CURR {0.0:.15E}") < link.sent.index(READ) < link.sent.index(sent[off])
    assert sent[off + 1 : off + 3] == [":SOUR:FUNC VOLT", ':SENS:FUNC "CURR"']
    between = sent[off:on]
    limit = max(i for i, line in enumerate(between) if line.startswith(":SOUR:VOLT:ILIM "))
    level = next(i for i, line in enumerate(between) if line.startswith(":SOUR:VOLT "))
    assert limit < level
    assert float(between[level].split()[1]) == pytest.approx(cell_V, abs=2e-3)
    assert sent[on + 1 :] == [f":SOUR:VOLT {3.93:.15E}"]


def test_another_limit_of_a_held_voltage_needs_no_break(direct):
    smu, link = direct(**FILM)
    smu.apply(voltage(3.92))
    link.sent.clear()
    smu.apply(voltage(3.92, clamp=5e-7))
    assert sets(link.sent) == [f":SOUR:VOLT:ILIM {5e-7:.15E}", f":SOUR:VOLT {3.92:.15E}"]


def test_another_range_of_a_held_voltage_goes_through_the_open_relay(direct):
    smu, link = direct(**FILM)
    smu.apply(voltage(3.92))
    link.sent.clear()
    smu.apply(voltage(3.92, clamp=9e-8, range_A=1e-7))
    assert ":OUTP OFF" in link.sent
    assert float(link.handle(":SENS:CURR:RANG?")) == 1e-7
    assert float(link.handle(":SOUR:VOLT:ILIM?")) == 9e-8
    check_unharmed(link.world)


@pytest.mark.parametrize("measured_V", ["0.0", "4.31", "9.91E37"])
def test_no_voltage_is_put_on_a_cell_that_is_not_in_its_window(direct, measured_V):
    smu, link = direct()
    link.replies[READ] = f"0,{measured_V},1,0,128"
    with pytest.raises(UnsafeRequest, match="no voltage is put on it"):
        smu.apply(voltage(3.9))
    assert ":SOUR:FUNC VOLT" not in link.sent
    assert ":OUTP OFF" not in link.sent


def test_a_level_that_is_not_taken_is_told(direct):
    smu, link = direct()
    link.deaf_to.add(":SOUR:CURR")
    with pytest.raises(NotApplied, match=":SOUR:CURR was set to 5e-09"):
        smu.apply(current(5e-9, range_A=1e-8))


def test_after_a_change_that_failed_nothing_is_taken_for_granted(direct):
    smu, link = direct(**FILM)
    link.replies[":SOUR:VOLT:ILIM?"] = "1.05E-04"
    with pytest.raises(NotApplied, match="ILIM"):
        smu.apply(voltage(3.92))
    assert link.world.source.mode == "open"  # half-way, the relay is open
    smu.apply(current(0.0, range_A=1e-8))  # what was held before
    assert link.smu.output_on
    assert link.world.source.mode == "current"


def test_an_error_of_a_set_point_is_told(direct):
    smu, link = direct()
    link.handle(":BOGUS")
    with pytest.raises(InstrumentRefused, match="setting 1e-09: -113"):
        smu.apply(current(1e-9))


def test_a_reading_becomes_a_row(direct):
    smu, link = direct()
    link.replies[READ] = "1.5E-09,3.9E+00,1700000012,0.250000000,128"
    link.world.advance_to(link.world.now_ns + 10**9)
    rows = smu.read()
    assert rows.dtype == SAMPLE_DTYPE
    (row,) = rows
    assert (row["voltage_V"], row["current_A"]) == (3.9, 1.5e-9)
    assert row["device_time_s"] == 1_700_000_012.25
    assert (row["setpoint"], row["range_A"], row["aperture_s"]) == (0.0, 1e-8, 0.04)
    assert row["status"] == 0
    # 500 fA of the data sheet, shot noise of 1.5 nA, Johnson noise of 100 megohm, over 20 ms.
    noise_A = math.hypot(5e-13, 1.1e-13, 6.4e-14)
    assert row["current_sigma_A"] == pytest.approx(noise_A, rel=0.01)


def test_the_quantities_change_places_with_the_source(direct):
    smu, link = direct(**FILM)
    smu.apply(voltage(3.92))
    link.replies[READ] = "3.9E+00,1.5E-07,1700000012,0.25,160"
    (row,) = smu.read()
    assert (row["voltage_V"], row["current_A"]) == (3.9, 1.5e-7)
    assert Status(int(row["status"])) & Status.COMPLIANCE


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("1E-9,3.9,1,0.5,160", Status.COMPLIANCE),
        ("1E-9,3.9,1,0.5,223", Status(0)),
        ("9.9E37,3.9,1,0.5,128", Status.OVERFLOW),
        ("1E-9,-9.9E37,1,0.5,128", Status.OVERFLOW),
        ("9.91E37,3.9,1,0.5,128", Status.INVALID),
        ("1E-9,3.9,1,0.5,9.91E37", Status.INVALID),
        ("1E-9,3.9,1,0.5", Status.INVALID),
        ("1E-9,x,1,0.5,128", Status.INVALID),
        ("garbage", Status.INVALID),
    ],
)
def test_a_reply_sets_the_bits_of_its_row(direct, reply, status):
    smu, link = direct()
    link.world.advance_to(link.world.now_ns + 10**9)
    link.replies[READ] = reply
    (row,) = smu.read()
    assert Status(int(row["status"])) == status


def test_readings_soon_after_a_change_are_unsettled(direct):
    smu, _ = direct()
    smu.apply(current(1e-9))
    assert smu.read()["status"][0] & Status.SETTLING
    readings(smu, 2)
    assert not smu.read()["status"][0] & Status.SETTLING


# --- safety --------------------------------------------------------------------------------


@pytest.mark.parametrize("setpoint", [current(4e-7), current(-4e-7), voltage(3.93)])
def test_rest_is_reached_from_every_state_and_stays(direct, setpoint):
    smu, link = direct(**FILM)
    smu.apply(setpoint)
    readings(smu, 3)
    link.sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert (":OUTP OFF" in link.sent) is (setpoint.mode == "voltage")
    assert link.world.source.mode == "current"
    assert abs(link.world.source.level) <= 4e-10
    assert (smu.read()["setpoint"][0], smu.read()["range_A"][0]) == (0.0, 1e-6)
    before = link.world.source
    assert smu.ensure_safe() is SafeState.S1
    assert link.world.source == before
    assert link.handle(":SYST:ERR?").startswith("0,")
    check_unharmed(link.world)


def test_rest_follows_a_connection_that_failed(direct):
    smu, link = direct(connect=False)
    link.fail_next = [NoReply("late")]
    with pytest.raises(NoReply):
        smu.connect(ENVELOPE)
    assert sets(link.sent) == []
    assert smu.ensure_safe() is SafeState.S1
    assert link.smu.output_on
    assert abs(link.world.source.level) <= ZERO_A
    check_unharmed(link.world)


def test_rest_before_connecting_stops_the_current_at_least(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    again = Keithley2450(link, now_ns=link.now_ns)
    with pytest.raises(LinkError, match="connect first"):
        again.ensure_safe()
    assert float(link.handle(":SOUR:CURR?")) == 0.0


def test_one_missing_reply_does_not_keep_the_cell_from_rest(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    link.fail_next = [NoReply("late")]
    assert smu.ensure_safe() is SafeState.S1
    link.fail_next = [NoReply("late"), NoReply("late again")]
    with pytest.raises(NoReply, match="late again"):
        smu.ensure_safe()


def test_a_current_stops_even_if_an_off_state_is_not_taken(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    link.replies[":OUTP:VOLT:SMOD?"] = "NORM"
    with pytest.raises(NotApplied):
        smu.ensure_safe()
    assert float(link.handle(":SOUR:CURR?")) == 0.0
    with pytest.raises(UnsafeRequest, match="0 V source"):
        smu._settings.send(":OUTP OFF")


def test_a_restarted_instrument_gets_its_off_states_again(direct):
    smu, link = direct(**FILM)
    link.handle("*RST")  # as after a power cycle: NORMAL, which is 0 V
    assert (link.world.source.mode, link.world.source.level) == ("voltage", 0.0)
    assert smu.rest_at_end() is SafeState.S2
    assert link.world.source.mode == "open"
    assert link.handle(":OUTP:CURR:SMOD?") == link.handle(":OUTP:VOLT:SMOD?") == "HIMP"


def test_after_the_end_a_voltage_still_begins_at_rest(direct):
    smu, link = direct(**FILM)
    assert smu.rest_at_end() is SafeState.S2
    assert link.world.source.mode == "open"
    smu.apply(voltage(link.world.cell.voltage_V + 0.01))
    assert link.world.source.mode == "voltage"
    assert smu.rest_at_end() is SafeState.S2
    smu.apply(current(1e-7))
    assert link.smu.output_on
    check_unharmed(link.world)


def test_an_output_that_stays_off_is_told(direct):
    smu, link = direct(connect=False)
    link.deaf_to.add(":OUTP")
    with pytest.raises(NotApplied, match="stays off"):
        smu.connect(ENVELOPE)


def test_closing_lets_go_of_the_link_alone(direct):
    smu, link = direct()
    smu.close()
    assert link.sent == ["closed"]
    assert link.smu.output_on


def test_ranges_are_the_data_sheets():
    assert [r.full_scale_A for r in RANGES] == [1e-8, 1e-7, 1e-6]
    assert RANGES[0].source_offset_A == ZERO_A
    assert Keithley2450.off_states == (SafeState.S1, SafeState.S2)


# --- an independent simulator ----------------------------------------------------------------

LEFT_OUT = {
    ":OUTP:SMOD": "it has no off states: its output is off, and nothing more",
    ":OUTP:CURR:SMOD": "it has no off states",
    ":OUTP:VOLT:SMOD": "it has no off states",
    ":SOUR:CURR:RANG": "it takes a range and does not tell it",
    ":SOUR:VOLT:RANG": "it takes a range and does not tell it",
    ":SOUR:CURR:RANG:AUTO": "it tells automatic, as the range above never reaches it",
    ":SENS:CURR:RANG": "its measuring ranges are always automatic",
    ":SENS:VOLT:RANG": "its measuring ranges are always automatic",
    ":SENS:CURR:NPLC": "it takes a number of cycles and does not tell it",
    ":SENS:VOLT:NPLC": "it takes a number of cycles and does not tell it",
    ":SOUR:CURR:READ:BACK": "it takes the read-back and does not tell it",
    ":SOUR:VOLT:READ:BACK": "it takes the read-back and does not tell it",
    ":SENS:CURR:AZER": "it has no autozero",
    ":SENS:VOLT:AZER": "it has no autozero",
    ":SENS:CURR:AVER": "it has no filter",
    ":SENS:VOLT:AVER": "it has no filter",
    ":SYST:LFR": "it knows no mains",
    ":FORM:DATA": "it answers in text only",
    ":FORM:ASC:PREC": "it answers with a fixed number of digits",
    ":ABOR": "it has no trigger model",
    ":TRAC:CLE": "it has no buffer",
    ":TRAC:FILL:MODE": "it has no buffer",
}


class IndependentLink2450(IndependentLink):
    """It has no time and no source status: they are asked or made here."""

    def query(self, command):
        if command not in (READ, CLOCK):
            return super().query(command)
        seconds = f"1700000000,{self.now / 1e9:.9f}"
        if command == CLOCK:
            return self._reply(seconds)
        values = self.simulator.handle(':READ? "defbuffer1",SOUR,READ')
        limit = "CURR:VLIM" if self.simulator.core.func == "CURR" else "VOLT:ILIM"
        tripped = int(self.simulator.handle(f":SOUR:{limit}:TRIP?"))
        return self._reply(f"{values},{seconds},{128 + 32 * tripped}")

    def _reply(self, text):
        start, self.now = self.now, self.now + 50_000_000
        return Reply(text, start, self.now)


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
    link = IndependentLink2450(simulator.Keithley2450Simulator(core), LEFT_OUT)
    link.known |= {":SOUR:CURR:RANG": "1E-4", ":SYST:LFR": "50"}
    smu = Keithley2450(link, now_ns=link.now_ns)
    assert smu.connect(ENVELOPE).model == "2450"
    assert core.output
    assert (core.func, core.limit["VOLT"], core.level["CURR"]) == ("CURR", 4.3, 0.0)
    smu.apply(current(5e-7))
    row = readings(smu, 5)[-1]
    assert row["current_A"] == pytest.approx(5e-7, rel=1e-3)
    assert row["voltage_V"] == pytest.approx(3.905, abs=1e-3)
    smu.apply(voltage(3.906))
    row = readings(smu, 5)[-1]
    assert row["current_A"] == pytest.approx(6e-7, rel=0.05)
    assert row["voltage_V"] == pytest.approx(3.906, abs=1e-3)
    smu.apply(voltage(4.2))  # 30 uA are asked for; the limit holds
    row = readings(smu, 1)[0]
    assert row["status"] & Status.COMPLIANCE
    assert row["current_A"] == pytest.approx(9e-7, rel=1e-3)
    assert smu.exchange_clock().device_time_s > 1.6e9
    assert smu.ensure_safe() is SafeState.S1
    assert (core.func, core.level["CURR"], core.output) == ("CURR", 0.0, True)
    assert smu.rest_at_end() is SafeState.S2
    assert not core.output
    assert link.query(":SYST:ERR?").text == '0,"No error;0,0,0"'
    assert link.used == set(LEFT_OUT)


# --- peers' drivers on our simulator ---------------------------------------------------------


@pytest.mark.peers
def test_qcodes_works_on_our_simulator(serve_2450):
    qcodes = pytest.importorskip(
        "qcodes.instrument_drivers.Keithley", reason="QCoDeS is not installed"
    )
    served = serve_2450(**FILM)
    peer = qcodes.Keithley2450("peer", served.resource, visalib="@py")
    try:
        assert peer.get_idn()["model"] == "2450"
        peer.source_function("current")
        peer.sense_function("voltage")
        peer.source.limit(4.3)
        peer.source.range(1e-6)
        peer.source.current(4e-7)
        peer.sense.range(20)
        peer.sense.nplc(1)
        peer.output_enabled(True)
        assert peer.sense.voltage() == pytest.approx(served.world.cell.voltage_V, abs=3e-3)
        assert served.world.source.level == pytest.approx(4e-7, rel=0.01)
        assert peer.source.limit() == 4.3
        assert peer.ask(":SYST:ERR?") == '0,"No error;0,0,0"'
    finally:
        peer.close()


def pymeasure_2450(served, monkeypatch):
    keithley = pytest.importorskip(
        "pymeasure.instruments.keithley", reason="PyMeasure is not installed"
    )
    monkeypatch.setattr(time, "sleep", lambda _s: None)  # between the steps of its ramps
    return keithley.Keithley2450(
        served.resource, visa_library="@py", read_termination="\n", write_termination="\n"
    )


@pytest.mark.peers
def test_pymeasure_works_on_our_simulator(serve_2450, monkeypatch):
    served = serve_2450(**FILM)
    peer = pymeasure_2450(served, monkeypatch)
    try:
        peer.apply_current(current_range=1e-6, compliance_voltage=4.3)
        peer.source_current = 4e-7
        peer.measure_voltage(auto_range=False)
        peer.enable_source()
        assert peer.voltage == pytest.approx(served.world.cell.voltage_V, abs=3e-3)
        assert served.world.source.level == pytest.approx(4e-7, rel=0.01)
        assert peer.ask(":SYST:ERR?") == '0,"No error;0,0,0"'
    finally:
        peer.adapter.connection.close()


@pytest.mark.peers
@pytest.mark.parametrize("mode", ["current", "voltage"])
def test_pymeasures_shutdown_leaves_a_cell_on_a_0_V_source(serve_2450, monkeypatch, mode):
    served = serve_2450(**FILM)
    world = served.world
    cell_V = world.cell.voltage_V
    peer = pymeasure_2450(served, monkeypatch)
    try:
        if mode == "current":
            peer.apply_current(current_range=1e-6, compliance_voltage=4.3)
            peer.source_current = 0.0
        else:
            peer.apply_voltage(voltage_range=20, compliance_current=1e-6)
            peer.source_voltage = cell_V
            peer.measure_current(current=1e-6, auto_range=False)
        peer.enable_source()
        before_C = world.cell.ion_C
        peer.shutdown()
        assert peer.ask("*OPC?") == "1"  # all that it sent has been obeyed
        assert not served.smu.output_on
        assert (world.source.mode, world.source.level) == ("voltage", 0.0)
        served.run(served.pace.take(10 * 10**9))
    finally:
        peer.adapter.connection.close()
    # Off is NORMAL: 0 V with 10 % of the 1 uA range, for as long as the cell is attached.
    assert world.cell.ion_C - before_C == pytest.approx(-1e-6, rel=0.05)
