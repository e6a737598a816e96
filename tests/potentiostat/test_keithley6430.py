"""The driver against a scripted wire and against the simulated instrument."""

import math
import re

import numpy as np
import pytest

from potentiostat.drivers.keithley6430 import RANGES, TICK_RATIO, Keithley6430
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

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=2e-10, charge_max_C=8e-9)
IDENTITY = "KEITHLEY INSTRUMENTS INC.,MODEL 6430,1234567,C32 Oct  4 2010 14:20:11/A02 /D/B"

# Written down once more, apart from the list that the product uses.
HARMFUL = re.compile(
    r"\*RST|\*RCL|SYST\w*:PRES|MEAS|CONF(?!IRM)|CLE\w*:AUTO\s+(ON|1)|SOUR\w*:CLE\w*$"
    r"|OUTP\w*(:STAT\w*)?\s+(OFF|0)",
    re.IGNORECASE,
)


def harmful(lines):
    return [line for line in lines if HARMFUL.search(line)]


@pytest.fixture(autouse=True)
def sent():
    """Every line of every test of this file; none may harm a cell."""
    lines = []
    yield lines
    assert not harmful(lines)


def test_the_scan_of_sent_lines_sees_a_harmful_one():
    assert harmful([":OUTP ON", ":READ?", ":SOUR:CLE:AUTO OFF", "*CLS"]) == []
    for line in ("*RST", ":OUTP OFF", ":OUTPUT:STATE 0", ":SOUR:CLE:AUTO ON", ":MEAS?"):
        assert harmful([line]) == [line]


class ScriptedLink:
    """An instrument that keeps what it is told, but for what a test changes."""

    resource = "scripted"

    def __init__(self, sent, **known):
        self.sent = sent
        self.known = {
            "*IDN": IDENTITY,
            ":OUTP": "0",
            ":SOUR:FUNC": "VOLT",
            ":SOUR:CURR:RANG": "1E-4",
            ":SYST:TIME": "12.345",
            ":READ": "+3.9E+00,+1.0E-11,+4.567,+0.0E+00",
            **known,
        }
        self.errors = []
        self.deaf_to = set()
        self.fail_next = []
        self.now = 0
        self.closed = False

    def now_ns(self):
        return self.now

    def write(self, command):
        for part in command.split(";"):
            self.sent.append(part)
            header, _, value = part.partition(" ")
            if header not in self.deaf_to:
                self.known[header] = {"ON": "1", "OFF": "0"}.get(value, value)

    def query(self, command):
        self.sent.append(command)
        if self.fail_next:
            raise self.fail_next.pop(0)
        if command == ":SYST:ERR?":
            text = self.errors.pop(0) if self.errors else '0,"No error"'
        else:
            text = self.known[command.removesuffix("?")]
        start, self.now = self.now, self.now + 50_000_000
        return Reply(text, start, self.now)

    def resync(self):
        raise AssertionError("the driver leaves that to the link")

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(sent):
    def make(**known):
        link = ScriptedLink(sent, **known)
        return Keithley6430(link, now_ns=link.now_ns), link

    return make


@pytest.fixture
def connected(scripted):
    def make(*, cell_attached=True, **known):
        smu, link = scripted(**known)
        smu.connect(ENVELOPE, cell_attached=cell_attached)
        link.sent.clear()
        return smu, link

    return make


def current(level, clamp=4.3, range_A=1e-10):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=range_A)


def voltage(level, clamp=9e-11, range_A=1e-10):
    return Setpoint(mode="voltage", level=level, clamp=clamp, range_A=range_A)


def test_a_current_that_is_to_stop_stops_before_anything_is_asked(connected):
    smu, link = connected()
    smu.apply(current(2e-11))
    link.sent.clear()
    smu.apply(current(0.0, range_A=1e-9))
    assert link.sent[0] == ":SOUR:CURR 0"


def first(lines, start):
    return next(i for i, line in enumerate(lines) if line.startswith(start))


# --- connecting ----------------------------------------------------------------------------


def test_the_identity_is_taken_apart(scripted):
    smu, _ = scripted()
    identity = smu.connect(ENVELOPE)
    assert (identity.maker, identity.model) == ("KEITHLEY INSTRUMENTS INC.", "6430")
    assert (identity.serial, identity.raw) == ("1234567", IDENTITY)
    assert identity.firmware.startswith("C32 Oct")


@pytest.mark.parametrize("text", ["", "KEITHLEY,MODEL 2400,1,A", "6430", "A,6430,1"])
def test_another_model_is_refused_before_anything_is_set(scripted, sent, text):
    smu, _ = scripted(**{"*IDN": text})
    with pytest.raises(ReplyError, match="is no 6430"):
        smu.connect(ENVELOPE)
    assert sent == ["*IDN?"]


def test_the_output_comes_on_only_behind_zero_current_and_a_clamp(scripted, sent):
    smu, link = scripted()
    smu.connect(ENVELOPE)
    on = sent.index(":OUTP ON")
    for before in (":SOUR:FUNC CURR", ":SENS:VOLT:PROT 4.3", ":SOUR:CURR 0"):
        assert first(sent, before) < on
    assert first(sent, ":SOUR:CLE:AUTO OFF") < on
    assert first(sent, ":SENS:VOLT:PROT ") < first(sent, ":SOUR:CURR ")
    assert float(link.known[":SENS:VOLT:PROT"]) == 4.3
    assert float(link.known[":SOUR:CURR"]) == 0.0


def test_a_running_current_source_is_adopted_without_a_break(scripted, sent):
    smu, link = scripted(
        **{":OUTP": "1", ":SOUR:FUNC": "CURR", ":SOUR:CURR": "5E-11", ":SOUR:CURR:RANG": "1E-10"}
    )
    smu.connect(ENVELOPE)
    assert not any(line.startswith((":OUTP ", ":SOUR:FUNC ")) for line in sent)
    assert float(link.known[":SOUR:CURR"]) == 0.0
    # The current is stopped before anything else is changed.
    assert [line for line in sent if "?" not in line][:2] == ["*CLS", f":SOUR:CURR {0.0:.15E}"]


def test_a_running_voltage_source_on_a_cell_is_changed_in_the_smallest_range(scripted, sent):
    smu, link = scripted(**{":OUTP": "1", ":SENS:CURR:RANG": "1E-9"})
    smu.connect(ENVELOPE)
    change = sent.index(":SOUR:FUNC CURR")
    limits = [line for line in sent[:change] if line.startswith(":SENS:CURR:")]
    assert [float(line.split()[1]) for line in limits if "?" not in line] == [1e-12, 1e-12]
    assert sent.index(":SENS:CURR:RANG?") < change  # read back before it counts
    assert link.known[":OUTP"] == "1"
    assert float(link.known[":SOUR:CURR:RANG"]) == float(link.known[":SENS:CURR:RANG"]) == 1e-10


def test_a_running_voltage_source_on_an_open_holder_becomes_a_current_source(scripted, sent):
    smu, link = scripted(**{":OUTP": "1"})
    smu.connect(ENVELOPE, cell_attached=False)
    assert link.known[":SOUR:FUNC"] == "CURR"


def test_an_output_that_stays_off_is_told(scripted):
    smu, link = scripted()
    link.deaf_to.add(":OUTP")
    with pytest.raises(NotApplied, match="stays off"):
        smu.connect(ENVELOPE)


@pytest.mark.parametrize("header", [":SENS:VOLT:PROT", ":SYST:LFR", ":SENS:CURR:NPLC"])
def test_a_setting_that_reads_back_otherwise_is_told(scripted, header):
    smu, link = scripted(**{header: "17"})
    link.deaf_to.add(header)
    link.errors.append('-222,"Parameter data out of range"')
    with pytest.raises(NotApplied, match=rf"{header}.*reads back 17.*-222"):
        smu.connect(ENVELOPE)


def test_a_switch_that_reads_back_otherwise_is_told(scripted):
    smu, link = scripted(**{":SOUR:CLE:AUTO": "1"})
    link.deaf_to.add(":SOUR:CLE:AUTO")
    with pytest.raises(NotApplied, match="CLE:AUTO"):
        smu.connect(ENVELOPE)


def test_errors_of_connecting_are_told(scripted):
    smu, link = scripted()
    link.errors.append('-113,"Undefined header"')
    with pytest.raises(InstrumentRefused, match="connecting: -113"):
        smu.connect(ENVELOPE)


# --- set-points ----------------------------------------------------------------------------


def test_a_set_point_is_sent_after_its_clamp_and_read_back(connected, sent):
    smu, link = connected()
    smu.apply(current(5e-11, clamp=4.2))
    assert first(sent, ":SENS:VOLT:PROT ") < first(sent, ":SOUR:CURR ")
    assert sent.index(":SOUR:CURR?") > first(sent, ":SOUR:CURR ")
    assert sent[-1] == ":SYST:ERR?"
    assert float(link.known[":SOUR:CURR"]) == 5e-11


def test_a_range_is_changed_at_zero_current(connected, sent):
    smu, link = connected()
    smu.apply(current(5e-11))
    sent.clear()
    smu.apply(current(-5e-12, range_A=1e-11))
    levels = [line for line in sent if line.startswith((":SOUR:CURR ", ":SOUR:CURR:RANG "))]
    assert [float(line.split()[1]) for line in levels] == [0.0, 1e-11, -5e-12]
    assert float(link.known[":SENS:CURR:RANG"]) == 1e-11


@pytest.mark.parametrize(
    ("setpoint", "why"),
    [
        (current(1e-11, range_A=3e-11), "no range"),
        (current(3e-10, range_A=1e-9), "beyond the limit"),
        (current(2e-10, range_A=1e-10), "beyond the limit or range"),
        (current(-2e-10, range_A=1e-10), "beyond the limit or range"),
        (current(1e-11, clamp=4.4), "clamp of 4.4 V"),
        (current(1e-11, clamp=0.0), "clamp of 0 V"),
        (current(1e-11, clamp=math.nan), "clamp of nan V"),
        (voltage(2.4), "2.4 V is not in the window"),
        (voltage(4.4), "4.4 V is not in the window"),
        (voltage(math.nan), "nan V is not in the window"),
        (voltage(3.9, clamp=3e-10, range_A=1e-9), "clamp of 3e-10 A"),
        (voltage(3.9, clamp=0.0), "clamp of 0 A"),
    ],
)
def test_an_unfit_set_point_sends_nothing(connected, sent, setpoint, why):
    smu, _ = connected()
    with pytest.raises(UnsafeRequest, match=why):
        smu.apply(setpoint)
    assert sent == []


def test_a_level_that_is_no_number_never_reaches_the_wire(connected, sent):
    smu, _ = connected()
    with pytest.raises(UnsafeRequest):
        smu.apply(current(math.nan))
    assert not any("nan" in line.lower() for line in sent)


def test_a_set_point_before_connecting_is_refused(scripted, sent):
    smu, _ = scripted()
    with pytest.raises(LinkError, match="connect first"):
        smu.apply(current(1e-11))
    assert sent == []


def test_an_error_of_a_set_point_is_told(connected):
    smu, link = connected()
    link.errors.append('-222,"Parameter data out of range"')
    with pytest.raises(InstrumentRefused, match="setting 1e-11"):
        smu.apply(current(1e-11))


def test_the_open_holder_may_see_a_voltage(connected, sent):
    smu, link = connected(cell_attached=False)
    smu.apply(voltage(2.0))
    assert link.known[":SOUR:FUNC"] == "VOLT"
    assert first(sent, ":SOUR:CURR ") < sent.index(":SOUR:FUNC VOLT")
    assert first(sent, ":SENS:CURR:PROT ") < sent.index(":OUTP ON")
    sent.clear()
    smu.apply(voltage(4.0))
    assert ":SOUR:FUNC VOLT" not in sent


def test_a_current_after_a_voltage_measures_in_its_own_range(connected):
    smu, link = connected(cell_attached=False)
    smu.apply(voltage(2.0, clamp=9e-10, range_A=1e-9))
    smu.apply(current(1e-11))
    assert float(link.known[":SENS:CURR:RANG"]) == 1e-10
    assert link.known[":OUTP"] == "1"


# --- readings ------------------------------------------------------------------------------


def test_a_reading_becomes_a_row(connected):
    smu, link = connected()
    smu.apply(current(1e-11))
    link.now += 10**9
    start = link.now
    rows = smu.read()
    assert rows.dtype == SAMPLE_DTYPE
    (row,) = rows
    assert (row["read_start_ns"], row["read_end_ns"]) == (start, start + 50_000_000)
    assert (row["voltage_V"], row["current_A"], row["device_time_s"]) == (3.9, 1e-11, 4.567)
    assert (row["setpoint"], row["range_A"], row["aperture_s"]) == (1e-11, 1e-10, 0.04)
    assert row["status"] == 0
    # Johnson noise of 10 gigaohm, shot noise of 10 pA, both over 20 ms.
    assert row["current_sigma_A"] == pytest.approx(math.hypot(6.42e-15, 8.95e-15), rel=0.01)
    assert row["voltage_sigma_V"] == pytest.approx(5.8e-5, rel=0.05)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("3.9,1E-11,1,8", Status.COMPLIANCE),
        ("3.9,1E-11,1,+1.100000E+01", Status.COMPLIANCE),
        ("3.9,1E-11,1,3", Status(0)),
        ("3.9,9.9E37,1,0", Status.OVERFLOW),
        ("-9.9E37,1E-11,1,8", Status.OVERFLOW | Status.COMPLIANCE),
        ("9.91E37,1E-11,1,0", Status.INVALID),
        ("3.9,9.91E37,1,0", Status.INVALID),
        ("3.9,1E-11,1,9.91E37", Status.INVALID),
        ("3.9,1E-11,1,9.9E37", Status.INVALID),
        ("3.9,1E-11,1", Status.INVALID),
        ("3.9,1E-11,1,0,5", Status.INVALID),
        ("", Status.INVALID),
        ("garbage", Status.INVALID),
    ],
)
def test_a_reply_sets_the_bits_of_its_row(connected, reply, status):
    smu, link = connected()
    link.now += 10**9
    link.known[":READ"] = reply
    (row,) = smu.read()
    assert Status(int(row["status"])) == status
    assert math.isfinite(row["current_sigma_A"])


def test_a_garbage_reply_carries_no_values(connected):
    smu, link = connected()
    link.known[":READ"] = "3.9,x,1,8"
    (row,) = smu.read()
    assert all(math.isnan(row[name]) for name in ("voltage_V", "current_A", "device_time_s"))
    assert not int(row["status"]) & Status.COMPLIANCE


@pytest.mark.parametrize(("range_A", "settling_s"), [(1e-10, 0.05), (1e-11, 2.0)])
def test_readings_soon_after_a_change_are_unsettled(connected, range_A, settling_s):
    smu, link = connected()
    smu.apply(current(1e-12, range_A=range_A))
    changed = link.now
    assert int(smu.read()["status"][0]) == Status.SETTLING
    link.now = changed + round(settling_s * 1e9) - 1
    assert int(smu.read()["status"][0]) == Status.SETTLING
    link.now = changed + round(settling_s * 1e9)
    assert int(smu.read()["status"][0]) == 0


def test_a_reading_before_connecting_has_no_set_point(scripted):
    smu, _ = scripted()
    (row,) = smu.read()
    assert (row["setpoint"], row["range_A"]) == (0.0, 0.0)


def test_a_lost_link_is_not_hidden_by_read(connected):
    smu, link = connected()
    link.fail_next = [LinkError("gone")]
    with pytest.raises(LinkError, match="gone"):
        smu.read()


def test_the_clock_is_asked_between_two_stamps(connected):
    smu, link = connected()
    before = link.now
    found = smu.exchange_clock()
    assert (found.sent_ns, found.received_ns) == (before, before + 50_000_000)
    assert found.device_time_s == 12.345


# --- safety --------------------------------------------------------------------------------


def test_safe_is_zero_current_behind_the_clamp_with_the_output_on(connected, sent):
    smu, link = connected()
    smu.apply(current(5e-11, clamp=4.0))
    sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert float(link.known[":SOUR:CURR"]) == 0.0
    assert float(link.known[":SENS:VOLT:PROT"]) == 4.3
    assert link.known[":OUTP"] == "1"
    assert not any(line.startswith(":OUTP ") for line in sent)
    once = list(sent)
    sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert sent == once


def test_safe_keeps_the_range(connected, sent):
    smu, link = connected()
    smu.apply(current(5e-12, range_A=1e-11))
    smu.ensure_safe()
    link.now += 5 * 10**9
    (row,) = smu.read()
    assert (row["setpoint"], row["range_A"]) == (0.0, 1e-11)
    assert float(link.known[":SENS:CURR:RANG"]) == 1e-11


def test_an_output_found_off_comes_on_at_zero_current(connected, sent):
    smu, link = connected()
    link.known[":OUTP"] = "0"
    smu.ensure_safe()
    assert link.known[":OUTP"] == "1"
    assert first(sent, ":SOUR:CURR ") < sent.index(":OUTP ON")
    assert first(sent, ":SENS:VOLT:PROT ") < sent.index(":OUTP ON")


def test_an_output_that_does_not_come_on_is_not_called_safe(connected):
    smu, link = connected()
    link.known[":OUTP"] = "0"
    link.deaf_to.add(":OUTP")
    with pytest.raises(NotApplied, match="stays off"):
        smu.ensure_safe()


def test_one_missing_reply_does_not_keep_the_cell_from_safety(connected):
    smu, link = connected()
    smu.apply(current(5e-11))
    link.fail_next = [NoReply("late")]
    assert smu.ensure_safe() is SafeState.S1
    assert float(link.known[":SOUR:CURR"]) == 0.0


def test_two_missing_replies_are_told(connected):
    smu, link = connected()
    link.fail_next = [NoReply("late"), NoReply("late again")]
    with pytest.raises(NoReply, match="late again"):
        smu.ensure_safe()


def test_a_voltage_source_found_on_a_cell_comes_to_rest_by_the_smallest_range(connected, sent):
    smu, link = connected()
    link.known[":SOUR:FUNC"] = "VOLT"
    assert smu.ensure_safe() is SafeState.S1
    assert link.known[":SOUR:FUNC"] == "CURR"
    change = sent.index(":SOUR:FUNC CURR")
    assert first(sent, ":SENS:CURR:RANG 1.0") < change
    assert float(link.known[":SENS:CURR:RANG"]) == 1e-10
    assert float(link.known[":SOUR:CURR"]) == 0.0


def test_a_voltage_comes_on_a_cell_at_what_the_cell_has(connected, sent):
    smu, link = connected()
    smu.apply(voltage(4.0))
    change = sent.index(":SOUR:FUNC VOLT")
    for header in (":SOUR:CURR:RANG ", ":SENS:CURR:RANG "):
        assert float(sent[first(sent, header)].split()[1]) == 1e-12
        assert first(sent, header) < change
    assert sent[change : change + 6] == [
        ":SOUR:FUNC VOLT",
        ":SOUR:VOLT:MODE FIX",
        ":SOUR:VOLT:RANG 20",
        ":SENS:CURR:PROT 1e-12",
        ":SOUR:VOLT 3.900000",
        ":OUTP ON",
    ]
    assert float(link.known[":SOUR:VOLT"]) == 4.0
    assert float(link.known[":SENS:CURR:PROT"]) == 9e-11
    assert float(link.known[":SENS:CURR:RANG"]) == 1e-10
    sent.clear()
    smu.apply(voltage(4.01))
    assert [line for line in sent if "?" not in line] == [f":SOUR:VOLT {4.01:.15E}"]


@pytest.mark.parametrize("reply", ["0.0,0,1,0", "4.31,0,1,0", "9.91E37,0,1,0"])
def test_no_voltage_is_put_on_a_cell_that_is_not_in_its_window(connected, sent, reply):
    smu, link = connected()
    link.known[":READ"] = reply
    with pytest.raises(UnsafeRequest, match="no voltage is put on it"):
        smu.apply(voltage(3.9))
    assert not any(line.startswith(":SOUR:FUNC ") for line in sent)


@pytest.mark.parametrize("mode", ["enter", "leave"])
def test_a_source_function_that_is_not_taken_is_told(connected, mode):
    smu, link = connected()
    if mode == "leave":
        smu.apply(voltage(3.9))
    link.deaf_to.add(":SOUR:FUNC")
    with pytest.raises(NotApplied, match="source function"):
        smu.apply(voltage(3.9) if mode == "enter" else current(1e-11))


def test_another_limit_of_a_voltage_is_set_with_its_range(connected, sent):
    smu, link = connected()
    smu.apply(voltage(3.9))
    sent.clear()
    smu.apply(voltage(3.9, clamp=5e-12, range_A=1e-11))
    assert first(sent, ":SENS:CURR:RANG ") < first(sent, ":SENS:CURR:PROT ")
    assert float(link.known[":SENS:CURR:PROT"]) == 5e-12


def test_safe_before_connecting_still_stops_the_current(scripted):
    smu, link = scripted(**{":SOUR:FUNC": "CURR", ":SOUR:CURR": "5E-11"})
    with pytest.raises(LinkError, match="connect first"):
        smu.ensure_safe()
    assert float(link.known[":SOUR:CURR"]) == 0.0


def test_safe_after_a_connection_that_broke_off(scripted):
    smu, link = scripted()
    link.errors.append('-113,"Undefined header"')
    with pytest.raises(InstrumentRefused):
        smu.connect(ENVELOPE)
    assert smu.ensure_safe() is SafeState.S1


@pytest.mark.parametrize("before_A", [1e-9, 1e-10])
def test_an_open_holder_is_brought_back_to_zero_current(connected, before_A):
    smu, link = connected(cell_attached=False)
    smu.apply(current(1e-11, range_A=before_A))
    smu.apply(voltage(2.0, clamp=9e-12, range_A=1e-11))
    assert smu.ensure_safe() is SafeState.S1
    assert link.known[":SOUR:FUNC"] == "CURR"
    assert link.known[":OUTP"] == "1"
    # What the rows say is the range in which the instrument measures.
    range_A = float(smu.read()["range_A"][0])
    assert float(link.known[":SENS:CURR:RANG"]) == range_A
    assert float(link.known[":SOUR:CURR:RANG"]) == range_A


def test_the_last_state_of_a_run_is_zero_current(connected):
    smu, link = connected()
    smu.apply(current(5e-11))
    assert smu.rest_at_end() is SafeState.S1
    assert link.known[":OUTP"] == "1"


def test_close_lets_go_and_says_nothing(connected, sent):
    smu, link = connected()
    smu.close()
    assert link.closed
    assert sent == []


# --- the simulated instrument ----------------------------------------------------------------


class TappedLink(VisaLink):
    """A real link that remembers what went over it."""

    def __init__(self, sent, resource, *, now_ns):
        super().__init__(resource, now_ns=now_ns)
        self._sent = sent

    def write(self, command):
        self._sent.append(command)
        super().write(command)

    def query(self, command):
        self._sent.append(command)
        return super().query(command)


@pytest.fixture
def simulated(start_bench, sent):
    links = []

    def make(**options):
        bench = start_bench(**options)
        link = TappedLink(sent, bench.resource, now_ns=bench.now_ns)
        link.open()
        links.append(link)
        return Keithley6430(link, now_ns=bench.now_ns), bench, link

    yield make
    for link in links:
        link.close()


def test_the_simulated_instrument_is_connected_and_rests(simulated):
    smu, bench, _ = simulated()
    assert smu.connect(ENVELOPE).model == "6430"
    truth = bench.bench.smu
    assert truth.output_on
    assert bench.world.source.mode == "current"
    assert abs(bench.world.source.level) < 1e-13
    assert bench.world.source.clamp == 4.3


def test_connecting_never_drives_more_than_an_offset_through_the_cell(simulated):
    smu, bench, _ = simulated()
    smu.connect(ENVELOPE)
    source = bench.world.truth()["source"]
    on = source["output_on"] == 1
    assert on.any()
    assert np.all(source["mode"][on] == b"current")
    assert np.all(np.abs(source["level"][on]) < 1e-13)
    assert np.all(source["clamp"][on] == 4.3)


def test_the_simulated_instrument_takes_a_level_and_reads_it(simulated):
    smu, _, _ = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(5e-11))
    rows = np.concatenate([smu.read() for _ in range(20)])
    # The data sheet's settling time is to 10 %; the rest dies away in a few readings.
    settled = rows[rows["status"] == 0][3:]
    assert len(settled) >= 15
    assert np.all(np.abs(settled["current_A"] - 5e-11) < 4e-13)
    assert np.all((settled["voltage_V"] > 3.5) & (settled["voltage_V"] < 4.3))
    assert np.all(np.diff(rows["read_start_ns"]) > 0)
    assert np.all(rows["read_end_ns"] - rows["read_start_ns"] > 40_000_000)


def test_a_second_connection_adopts_the_output_that_is_on(simulated, sent):
    smu, bench, link = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(5e-11))
    sent.clear()
    again = Keithley6430(link, now_ns=bench.now_ns)
    again.connect(ENVELOPE)
    assert ":OUTP ON" not in sent
    source = bench.world.truth()["source"]
    switched_on = np.flatnonzero(source["output_on"] == 1)[0]
    assert np.all(source["output_on"][switched_on:] == 1)
    assert abs(bench.world.source.level) < 1e-13


def test_a_clamp_that_holds_is_told_by_the_reading(simulated):
    smu, _, _ = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(1e-10, clamp=3.95))
    status = [int(smu.read()["status"][0]) for _ in range(60)]
    assert status[-1] == Status.COMPLIANCE


def test_the_simulated_output_stays_on_through_safety(simulated):
    smu, bench, _ = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(-5e-11))
    assert smu.ensure_safe() is smu.ensure_safe() is smu.rest_at_end()
    assert bench.bench.smu.output_on
    assert abs(bench.world.source.level) < 1e-13


def test_the_instruments_clock_runs_fast_by_its_ticks(simulated):
    smu, _, _ = simulated()
    smu.connect(ENVELOPE)
    first_exchange = smu.exchange_clock()
    for _ in range(100):
        smu.read()
    last = smu.exchange_clock()
    middle = [(e.sent_ns + e.received_ns) / 2e9 for e in (first_exchange, last)]
    rate = (last.device_time_s - first_exchange.device_time_s) / (middle[1] - middle[0])
    assert rate == pytest.approx(1.024, abs=1e-3)
    assert rate * TICK_RATIO == pytest.approx(1.0, abs=1e-3)


def test_an_open_holder_takes_a_voltage_and_returns_to_rest(simulated):
    smu, bench, _ = simulated(open_holder=True)
    smu.connect(ENVELOPE, cell_attached=False)
    smu.apply(voltage(2.0))
    for _ in range(80):
        smu.read()
    (row,) = smu.read()
    assert row["voltage_V"] == pytest.approx(2.0, abs=5e-3)
    assert smu.ensure_safe() is SafeState.S1
    assert bench.bench.smu.output_on
    assert bench.world.source.mode == "current"


def test_a_connection_to_an_open_holder_under_voltage_reads_afterwards(simulated):
    smu, bench, link = simulated(open_holder=True)
    smu.connect(ENVELOPE, cell_attached=False)
    smu.apply(voltage(2.0))
    again = Keithley6430(link, now_ns=bench.now_ns)
    again.connect(ENVELOPE, cell_attached=False)
    assert bench.bench.smu.output_on
    assert math.isfinite(again.read()["voltage_V"][0])


def test_ranges_are_the_data_sheets():
    assert [r.full_scale_A for r in RANGES] == [1e-12, 1e-11, 1e-10, 1e-9, 1e-8]
    assert SafeState.S2 not in Keithley6430.off_states
