"""The B2900 driver against a scripted wire and against the simulated instrument.

There is no independent simulator of this model. Its strings could be checked against three
things: pages of Keysight's SCPI Command References, as named at each header in `KNOWN`;
NOMAD CAMELS' B2912A driver, read at commit 2b77812; and PyMeasure's driver of the sibling
electrometer B298x, which shares the output and trigger subsystems, run over here where it
is installed. What no source says (the function changed with the output on, how long an
emergency holds 0 V, codes of emergency errors) is a guess of the simulator's.
"""

import inspect
import math
import re

import numpy as np
import pytest

from mocks.cell import Source
from mocks.keysight_b2900 import KeysightB2900 as Simulator
from mocks.keysight_b2900 import KeysightB2901 as SmallSimulator
from potentiostat.drivers.keysight_b2900 import ELEMENTS, RANGES, READING, KeysightB2900
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
from tests.potentiostat.served import Served

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=5e-9, charge_max_C=8e-9)
IDENTITY = "Keysight Technologies,B2912A,MY51140001,3.4.2011.5100"
ZERO_OFFSET_A = 5e-11  # of the source, by the data sheet's figure for the meter

# Header: where it was found.
KNOWN = {
    "*IDN?": "IEEE 488.2",
    "*CLS": "B2900 ref. p. 5-2",
    ":SYST:ERR?": "B2900 ref. p. 5-2",
    ":OUTP": "PyMeasure B298x",
    ":OUTP:OFF:MODE": "B2961A ref. p. 4-67",
    ":OUTP:ON:AUTO": "B2961A ref. p. 4-67",
    ":OUTP:OFF:AUTO": "B2961A ref. p. 4-66, by other public drivers",
    ":OUTP:PROT": "B2961A ref. p. 4-67",
    ":ABOR:ACQ": "PyMeasure B298x",
    ":INIT:ACQ": "PyMeasure B298x",
    ":FETC:ARR?": "B2961A ref. p. 4-16",
    ":SOUR:FUNC:MODE": "CAMELS",
    ":SOUR:CURR": "CAMELS",
    ":SOUR:VOLT": "PyMeasure B298x",
    ":SOUR:CURR:MODE": "by other public drivers",
    ":SOUR:VOLT:MODE": "by other public drivers",
    ":SOUR:CURR:RANG": "CAMELS",
    ":SOUR:VOLT:RANG": "PyMeasure B298x",
    ":SOUR:CURR:RANG:AUTO": "B2961A ref. p. 4-132",
    ":SOUR:VOLT:RANG:AUTO": "B2961A ref. p. 4-132",
    ":SENS:FUNC:ON": "by other public drivers: with quotes",
    ":SENS:CURR:RANG": "CAMELS",
    ":SENS:VOLT:RANG": "CAMELS",
    ":SENS:CURR:RANG:AUTO": "B2900 ref. p. 4-77",
    ":SENS:VOLT:RANG:AUTO": "B2900 ref. p. 4-77",
    ":SENS:CURR:PROT": "CAMELS",
    ":SENS:VOLT:PROT": "CAMELS",
    ":SENS:CURR:NPLC": "CAMELS",
    ":SENS:VOLT:NPLC": "CAMELS",
    ":SYST:LFR": "by other public drivers",
    ":TRIG:ACQ:SOUR": "PyMeasure B298x",
    ":TRIG:ACQ:COUN": "PyMeasure B298x",
    ":ARM:ACQ:SOUR": "PyMeasure B298x",
    ":ARM:ACQ:COUN": "PyMeasure B298x",
    ":SYST:TIME:TIM:COUN:RES": "by other public drivers",
    ":SYST:TIME:TIM:COUN:RES:AUTO": "by other public drivers",
    ":FORM": "instruments' list of B2900 commands",
    ":FORM:ELEM:SENS": "B2961A ref. p. 4-21",
}

HARMFUL = re.compile(
    r"\*RST|\*RCL|SYST\w*:PRES|MEAS|CONF|:READ|:OUTP:(ON:AUTO|OFF:AUTO|PROT)\s+(1|ON)"
    r"|:OFF:MODE\s+(NORM|ZERO)|:SOUR:VOLT\s+[+-]?0(\.0*)?(E|$)",
    re.IGNORECASE,
)


def harmful(lines):
    """Lines that could harm a cell, and an output-off without the open relay before it."""
    found = [line for line in lines if HARMFUL.search(line)]
    for i, line in enumerate(lines):
        if line == ":OUTP OFF" and lines[i - 2 : i] != [":OUTP:OFF:MODE HIZ", ":OUTP:OFF:MODE?"]:
            found.append(line)
    return found


@pytest.fixture
def sent():
    """Every line that a test sends; none may harm a cell."""
    lines = []
    yield lines
    assert not harmful(lines)


def test_the_scan_of_sent_lines_sees_a_harmful_one():
    off = [":OUTP:OFF:MODE HIZ", ":OUTP:OFF:MODE?", ":OUTP OFF"]
    assert harmful([READING, ":SOUR:VOLT 3.9E+00", ":OUTP ON", *off]) == []
    for line in ("*RST", ":MEAS?", ":READ?", ":OUTP OFF", ":SOUR:VOLT 0.000E+00"):
        assert harmful([line]) == [line]
    for line in (":OUTP:ON:AUTO ON", ":OUTP:PROT 1", ":OUTP:OFF:MODE NORM"):
        assert harmful([line]) == [line]


class ScriptedLink:
    """An instrument that keeps what it is told, but for what a test changes."""

    resource = "scripted"

    def __init__(self, sent, **known):
        self.sent = sent
        self.known = {
            "*IDN": IDENTITY,
            ":OUTP": "0",
            ":SOUR:FUNC:MODE": "VOLT",
            ":SOUR:CURR:RANG": "+1.000000E-06",
            ":SENS:CURR:RANG": "+1.000000E-06",
            "reading": "+3.900000E+00,+1.000000E-10,+4.567000E+00,+1.000000E+00,+1.000000E-10",
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
        self.sent.append(command)
        header, _, value = command.partition(" ")
        if header not in self.deaf_to:
            self.known[header] = {"ON": "1", "OFF": "0"}.get(value, value)

    def query(self, command):
        self.sent.append(command)
        if self.fail_next:
            raise self.fail_next.pop(0)
        if command == ":SYST:ERR?":
            text = self.errors.pop(0) if self.errors else '+0,"No error"'
        elif command == READING:
            text = f"{self.known['reading']};{self.known[':OUTP']}"
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
        return KeysightB2900(link, now_ns=link.now_ns), link

    return make


@pytest.fixture
def connected(scripted):
    def make(*, cell_attached=True, **known):
        smu, link = scripted(**known)
        smu.connect(ENVELOPE, cell_attached=cell_attached)
        link.sent.clear()
        return smu, link

    return make


def current(level, clamp=4.3, range_A=1e-8):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=range_A)


def voltage(level, clamp=4e-9, range_A=1e-8):
    return Setpoint(mode="voltage", level=level, clamp=clamp, range_A=range_A)


def first(lines, start):
    return next(i for i, line in enumerate(lines) if line.startswith(start))


# --- connecting ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "Keysight Technologies,B2961A,MY1,1.0", "A,B2912A,1"])
def test_another_model_is_refused_before_anything_is_set(scripted, sent, text):
    smu, _ = scripted(**{"*IDN": text})
    with pytest.raises(ReplyError, match="is no B2901A"):
        smu.connect(ENVELOPE)
    assert sent == ["*IDN?"]
    with pytest.raises(ReplyError, match="is no B2901A"):
        smu.ensure_safe()
    assert sent == ["*IDN?"] * 2


def test_the_off_state_is_an_open_relay_before_anything_else(scripted, sent):
    smu, link = scripted()
    assert smu.connect(ENVELOPE).model == "B2912A"
    assert sent[:3] == ["*IDN?", ":OUTP:OFF:MODE HIZ", ":OUTP:OFF:MODE?"]
    on = sent.index(":OUTP ON")
    for before in (":OUTP:ON:AUTO OFF", ":OUTP:OFF:AUTO OFF", ":OUTP:PROT OFF"):
        assert sent.index(before) < on
        assert sent[sent.index(before) + 1] == f"{before.split()[0]}?"
    for before in (":SOUR:FUNC:MODE CURR", ":SENS:VOLT:PROT 4.3", ":SOUR:CURR 0"):
        assert first(sent, before) < on
    assert not any("INIT" in line for line in sent)
    assert (link.known[":OUTP"], float(link.known[":SOUR:CURR"])) == ("1", 0.0)


@pytest.mark.parametrize("header", [":OUTP:OFF:MODE", ":OUTP:ON:AUTO", ":OUTP:PROT"])
def test_a_dangerous_default_that_stays_stops_the_connection(scripted, sent, header):
    smu, link = scripted(**{header: {":OUTP:OFF:MODE": "NORM"}.get(header, "1")})
    link.deaf_to.add(header)
    with pytest.raises(NotApplied, match=header):
        smu.connect(ENVELOPE)
    with pytest.raises(UnsafeRequest, match="could switch the output on"):
        smu.read()
    assert not any(line.startswith((":OUTP ", ":SOUR:CURR ")) for line in sent)
    assert not any("INIT" in line for line in sent)


def test_a_running_current_source_is_adopted_without_a_break(scripted, sent):
    smu, link = scripted(
        **{":OUTP": "1", ":SOUR:FUNC:MODE": "CURR", ":SOUR:CURR": "2E-9", ":SOUR:CURR:RANG": "1E-8"}
    )
    smu.connect(ENVELOPE)
    assert not any(line.startswith((":OUTP ", ":SOUR:FUNC:MODE ")) for line in sent)
    assert first(sent, ":SOUR:CURR 0") < first(sent, ":SOUR:CURR:RANG:AUTO ")
    assert float(link.known[":SOUR:CURR"]) == 0.0


def test_a_running_voltage_source_goes_by_high_impedance(scripted, sent):
    smu, link = scripted(**{":OUTP": "1", ":SOUR:VOLT": "3.9"})
    smu.connect(ENVELOPE)
    off, change, on = (sent.index(x) for x in (":OUTP OFF", ":SOUR:FUNC:MODE CURR", ":OUTP ON"))
    assert off < change < first(sent, ":SENS:VOLT:PROT 4.3") < on
    assert not any(line.startswith(":SOUR:VOLT ") for line in sent)
    assert link.known[":OUTP"] == "1"


def test_a_connection_leaves_the_timer_running_from_then_on(scripted, sent):
    smu, _ = scripted()
    smu.connect(ENVELOPE)
    assert ":SYST:TIME:TIM:COUN:RES" in sent
    assert ":SYST:TIME:TIM:COUN:RES:AUTO OFF" in sent


def test_the_small_models_lack_the_smallest_range(scripted):
    smu, _ = scripted(**{"*IDN": "Agilent Technologies,B2901A,MY1,2.1"})
    smu.connect(ENVELOPE)
    assert [r.full_scale_A for r in smu.ranges] == [1e-7, 1e-6]
    assert [r.full_scale_A for r in KeysightB2900.ranges] == [1e-8, 1e-7, 1e-6]
    with pytest.raises(UnsafeRequest, match="no range of 1e-08 A"):
        smu.apply(current(1e-10))


def test_errors_of_connecting_are_told(scripted):
    smu, link = scripted()
    link.errors.append('-113,"Undefined header"')
    with pytest.raises(InstrumentRefused, match="connecting: -113"):
        smu.connect(ENVELOPE)
    assert smu.ensure_safe() is SafeState.S1


@pytest.mark.parametrize("header", [":SYST:LFR", ":SENS:VOLT:PROT", ":FORM:ELEM:SENS"])
def test_a_setting_that_reads_back_otherwise_is_told(scripted, header):
    smu, link = scripted(**{header: "17"})
    link.deaf_to.add(header)
    with pytest.raises(NotApplied, match=f"{header}.*reads back 17"):
        smu.connect(ENVELOPE)


# --- set-points ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setpoint", "why"),
    [
        (current(1e-10, range_A=3e-8), "no range"),
        (current(6e-9), "beyond the limit"),
        (current(-6e-9), "beyond the limit"),
        (current(math.nan), "beyond the limit"),
        (current(1e-10, clamp=4.4), "clamp of 4.4 V"),
        (current(1e-10, clamp=0.0), "clamp of 0 V"),
        (voltage(2.4), "2.4 V is not in the window"),
        (voltage(4.4), "4.4 V is not in the window"),
        (voltage(0.0), "0 V is not in the window"),
        (voltage(math.nan), "nan V is not in the window"),
        (voltage(3.9, clamp=6e-9), "clamp of 6e-09 A"),
        (voltage(3.9, clamp=0.0), "clamp of 0 A"),
    ],
)
def test_an_unfit_set_point_sends_nothing(connected, sent, setpoint, why):
    smu, _ = connected()
    with pytest.raises(UnsafeRequest, match=why):
        smu.apply(setpoint)
    assert sent == []


def test_the_same_kind_of_set_point_is_cheap(connected, sent):
    smu, _ = connected()
    smu.apply(current(1e-10))
    assert sent == [f":SOUR:CURR {1e-10:.15E}", ":SOUR:CURR?", ":SYST:ERR?"]
    smu.apply(voltage(3.91))
    sent.clear()
    smu.apply(voltage(3.92))
    assert sent == [f":SOUR:VOLT {3.92:.15E}", ":SOUR:VOLT?", ":SYST:ERR?"]


def test_a_voltage_comes_on_a_cell_at_what_the_cell_has(connected, sent):
    smu, _ = connected()
    smu.apply(current(1e-10))
    sent.clear()
    smu.apply(voltage(4.0))
    steps = [
        first(sent, ":SOUR:CURR 0"),
        sent.index(READING),
        sent.index(":OUTP OFF"),
        sent.index(":SOUR:FUNC:MODE VOLT"),
        first(sent, ":SENS:CURR:PROT "),
        first(sent, ":SOUR:VOLT 3.9000"),
        sent.index(":OUTP ON"),
        first(sent, ":SOUR:VOLT 4.0000"),
    ]
    assert steps == sorted(steps)


@pytest.mark.parametrize("volts", ["0.0", "4.31", "9.91E37"])
def test_no_voltage_is_put_on_a_cell_that_is_not_in_its_window(connected, sent, volts):
    smu, link = connected()
    link.known["reading"] = f"{volts},0,1,1,0"
    with pytest.raises(UnsafeRequest, match="no voltage is put on it"):
        smu.apply(voltage(3.9))
    assert not any(line.startswith((":SOUR:FUNC:MODE ", ":OUTP OFF")) for line in sent)
    assert link.known[":OUTP"] == "1"


def test_a_current_after_a_voltage_goes_by_high_impedance(connected, sent):
    smu, link = connected()
    smu.apply(voltage(4.0))
    sent.clear()
    smu.apply(current(1e-10, range_A=1e-7))
    steps = [sent.index(":OUTP OFF"), sent.index(":SOUR:FUNC:MODE CURR"), sent.index(":OUTP ON")]
    assert steps == sorted(steps)
    assert sent.index(":OUTP ON") < first(sent, f":SOUR:CURR {1e-10:.15E}")
    assert float(link.known[":SENS:CURR:RANG"]) == 1e-7


def test_a_range_is_changed_at_zero_current(connected, sent):
    smu, _ = connected()
    smu.apply(current(1e-9))
    sent.clear()
    smu.apply(current(-2e-9, range_A=1e-7))
    levels = [line for line in sent if line.startswith((":SOUR:CURR ", ":SOUR:CURR:RANG "))]
    assert [float(line.split()[1]) for line in levels] == [0.0, 1e-7, -2e-9]


def test_another_limit_of_a_voltage_is_set_without_a_break(connected, sent):
    smu, link = connected()
    smu.apply(voltage(3.9))
    sent.clear()
    smu.apply(voltage(3.9, clamp=1e-9))
    assert float(link.known[":SENS:CURR:PROT"]) == 1e-9
    assert not any(line.startswith((":OUTP ", ":SOUR:FUNC:MODE ")) for line in sent)


def test_an_open_holder_may_see_zero_volts(connected):
    smu, link = connected(cell_attached=False)
    smu.apply(voltage(1.0, clamp=9e-9))
    smu.apply(voltage(0.0, clamp=9e-9))
    assert float(link.known[":SOUR:VOLT"]) == 0.0
    link.sent.clear()  # 0 V would be harm on a cell


def test_a_level_may_be_rounded_to_its_step_but_no_more(connected):
    smu, link = connected()
    link.deaf_to.add(":SOUR:CURR")
    link.known[":SOUR:CURR"] = "+1.233000E-11"  # of 12.336 pA, by steps of 10 fA
    with pytest.raises(NotApplied, match="reads back 1.233e-11"):
        smu.apply(current(1.2336e-11))
    link.known[":SOUR:CURR"] = "+1.234000E-11"
    smu.apply(current(1.2336e-11))


def test_an_error_of_a_set_point_is_told(connected):
    smu, link = connected()
    link.errors.append('-222,"Data out of range"')
    with pytest.raises(InstrumentRefused, match="setting 1e-10"):
        smu.apply(current(1e-10))


def test_nothing_is_done_before_connecting(scripted, sent):
    smu, _ = scripted()
    for call in (lambda: smu.apply(current(1e-10)), smu.ensure_safe, smu.rest_at_end):
        with pytest.raises(LinkError, match="connect first"):
            call()
    with pytest.raises(UnsafeRequest, match="could switch the output on"):
        smu.read()
    assert sent == []


# --- readings ------------------------------------------------------------------------------


def test_a_reading_becomes_a_row(connected):
    smu, link = connected()
    smu.apply(current(1e-10))
    link.now += 10**9
    start = link.now
    rows = smu.read()
    assert rows.dtype == SAMPLE_DTYPE
    (row,) = rows
    assert (row["read_start_ns"], row["read_end_ns"]) == (start, start + 50_000_000)
    assert (row["voltage_V"], row["current_A"], row["device_time_s"]) == (3.9, 1e-10, 4.567)
    assert (row["setpoint"], row["range_A"], row["status"]) == (1e-10, 1e-8, 0)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("3.9,1E-10,1,+3.000000E+00,1E-10", Status.COMPLIANCE),
        ("3.9,1E-10,1,5,1E-10", Status.COMPLIANCE),
        ("3.9,1E-10,1,0,1E-10", Status(0)),
        ("3.9,1E-10,1,16385,1E-10", Status(0)),
        ("3.9,9.91E37,1,8193,1E-10", Status.OVERFLOW),
        ("3.9,1E-10,1,33,1E-10", Status.INVALID),
        ("3.9,1E-10,1,9,1E-10", Status.INVALID),
        ("9.91E37,1E-10,1,1,1E-10", Status.INVALID),
        ("3.9,1E-10,1,9.91E37,1E-10", Status.INVALID),
        ("3.9,1E-10,1,1", Status.INVALID),
        ("3.9,1E-10,1,1,1E-10,7", Status.INVALID),
        ("3.9,x,1,3,1E-10", Status.INVALID),
        ("", Status.INVALID),
    ],
)
def test_a_reply_sets_the_bits_of_its_row(connected, reply, status):
    smu, link = connected()
    link.now += 10**9
    link.known["reading"] = reply
    (row,) = smu.read()
    assert Status(int(row["status"])) == status
    if status & Status.INVALID:
        assert math.isnan(row["voltage_V"]) or math.isnan(row["current_A"])
    smu.apply(current(1e-10))  # a reply that makes no sense says nothing of the output


def test_an_output_found_off_gives_no_values_and_is_not_switched_on(connected, sent):
    smu, link = connected()
    link.known[":OUTP"] = "0"
    for _ in range(3):
        assert int(smu.read()["status"][0]) & Status.INVALID
    with pytest.raises(NotApplied, match="the output is off"):
        smu.apply(current(1e-10))
    assert set(sent) == {READING}
    assert smu.ensure_safe() is SafeState.S1
    smu.apply(current(1e-10))
    # Somebody at the front panel may have switched it on again: at rest it is ours.
    link.known[":OUTP"] = "0"
    smu.read()
    link.known[":OUTP"] = "1"
    smu.ensure_safe()
    smu.apply(current(1e-10))


def test_the_clock_is_a_timestamp_between_two_stamps(connected):
    smu, link = connected()
    before = link.now
    found = smu.exchange_clock()
    # It began an aperture before its reply at the latest.
    assert (found.sent_ns, found.received_ns) == (before, before + 50_000_000 - 40_000_000)
    assert found.device_time_s == 4.567
    link.known["reading"] = "3.9,0,9.91E37,1,0"
    with pytest.raises(ReplyError, match="without its time"):
        smu.exchange_clock()


# --- safety --------------------------------------------------------------------------------


def test_safe_stops_a_current_before_anything_else(connected, sent):
    smu, link = connected()
    smu.apply(current(1e-9, clamp=4.1))
    sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert next(line for line in sent if "?" not in line) == f":SOUR:CURR {0.0:.15E}"
    assert float(link.known[":SENS:VOLT:PROT"]) == 4.3
    assert not any(line.startswith(":OUTP ") for line in sent)
    once = list(sent)
    sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert sent == once


def test_one_missing_reply_does_not_keep_the_cell_from_safety(connected):
    smu, link = connected()
    smu.apply(current(1e-9))
    link.fail_next = [NoReply("late")]
    assert smu.ensure_safe() is SafeState.S1
    assert float(link.known[":SOUR:CURR"]) == 0.0
    link.fail_next = [NoReply("late"), NoReply("late again")]
    with pytest.raises(NoReply, match="late again"):
        smu.ensure_safe()


def test_an_output_that_stays_off_is_not_called_safe(connected):
    smu, link = connected()
    link.known[":OUTP"] = "0"
    link.deaf_to.add(":OUTP")
    with pytest.raises(NotApplied, match="stays off, at high impedance"):
        smu.ensure_safe()
    assert smu.rest_at_end() is SafeState.S2


def test_the_settings_that_a_power_cycle_loses_come_back_with_safety(connected, sent):
    smu, link = connected()
    smu.apply(current(1e-9))
    link.known |= {":OUTP": "0", ":SOUR:FUNC:MODE": "VOLT", ":SOUR:VOLT": "0"}
    link.known |= {":OUTP:OFF:MODE": "NORM", ":OUTP:ON:AUTO": "1", ":FORM:ELEM:SENS": "VOLT"}
    sent.clear()
    assert smu.ensure_safe() is SafeState.S1
    assert sent.index(":OUTP:OFF:MODE HIZ") < sent.index(":OUTP ON")
    assert (link.known[":OUTP:ON:AUTO"], link.known[":FORM:ELEM:SENS"]) == ("0", ELEMENTS)


def test_the_last_state_of_a_run_is_an_open_relay(connected, sent):
    smu, link = connected()
    smu.apply(current(1e-9))
    sent.clear()
    assert smu.rest_at_end() is SafeState.S2
    assert first(sent, ":SOUR:CURR 0") < sent.index(":OUTP OFF")
    assert (link.known[":OUTP"], link.known[":OUTP:OFF:MODE"]) == ("0", "HIZ")
    sent.clear()
    assert smu.rest_at_end() is SafeState.S2
    assert ":OUTP ON" not in sent
    with pytest.raises(NotApplied, match="the output is off"):
        smu.apply(current(1e-9))


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
def simulated(sent):
    made = []

    def make(*before, simulator=Simulator, **overrides):
        served = Served(simulator, **overrides)
        for line in before:
            served.run(served.smu.handle(line))
        link = TappedLink(sent, served.resource, now_ns=served.now_ns)
        link.open()
        made.append((served, link))
        return KeysightB2900(link, now_ns=served.now_ns), served

    yield make
    for served, link in made:
        link.close()
        served.stop()


def read(smu, count):
    return np.concatenate([smu.read() for _ in range(count)])


def errors_of(served):
    return served.run(served.smu.handle(":SYST:ERR?"))


def voltages(served):
    return served.world.truth()["cell"]["voltage"]


def check_the_cell_was_safe(served):
    assert np.all((voltages(served) > 2.5) & (voltages(served) < 4.3))
    assert errors_of(served) == '+0,"No error"'


def test_connecting_puts_next_to_no_charge_into_the_cell(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    source = served.world.truth()["source"]
    on = source["output_on"] == 1
    assert on.any()
    assert np.all(source["mode"][on] == b"current")
    assert np.all(np.abs(source["level"][on]) <= ZERO_OFFSET_A)
    assert np.all(source["clamp"][on] == 4.3)
    # The output is on for the last two exchanges only.
    on_s = (served.now - source["t_ns"][on][0]) / 1e9
    assert 0 < on_s < 0.05
    assert abs(served.world.cell.source_C) <= ZERO_OFFSET_A * on_s < 2.5e-12
    check_the_cell_was_safe(served)


def test_a_current_charges_the_cell(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    before_V = served.world.cell.voltage_V
    smu.apply(current(2e-10))
    rows = read(smu, 40)
    assert np.all(rows["status"][2:] == 0)
    assert np.all(np.abs(rows["current_A"][2:] - 2e-10) < 2 * ZERO_OFFSET_A)
    assert rows["voltage_V"][-1] > before_V + 0.1
    assert rows["voltage_V"][-1] == pytest.approx(served.world.cell.voltage_V, abs=6e-3)
    assert served.world.cell.ion_C > 0
    assert np.all(np.diff(rows["device_time_s"]) > 0)
    assert smu.ensure_safe() is SafeState.S1
    assert abs(served.world.source.level) <= ZERO_OFFSET_A
    check_the_cell_was_safe(served)


def test_a_voltage_above_the_cells_charges_and_one_below_discharges(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    rest_V = float(np.mean(read(smu, 5)["voltage_V"]))
    smu.apply(voltage(rest_V + 0.02))
    charging = read(smu, 60)[20:]
    assert np.all(np.abs(charging["voltage_V"] - rest_V - 0.02) < 6e-3)
    assert served.world.cell.ion_A > 1e-12
    smu.apply(voltage(rest_V - 0.02))
    discharging = read(smu, 60)[20:]
    assert served.world.cell.ion_A < -1e-12
    # The meter's zero may be off by 50 pA, but it is the same for both.
    assert np.mean(charging["current_A"]) - np.mean(discharging["current_A"]) > 1e-11
    assert np.all(charging["status"] == Status.POTENTIOSTATIC)
    assert smu.ensure_safe() is SafeState.S1
    assert served.world.source.mode == "current"
    check_the_cell_was_safe(served)


def test_a_ramp_of_small_steps_never_breaks_off(simulated, sent):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    start_V = float(np.mean(read(smu, 5)["voltage_V"]))
    smu.apply(voltage(start_V))
    read(smu, 20)
    changes = len(served.world.truth()["source"]["mode"])
    sent.clear()
    for i in range(1, 11):
        smu.apply(voltage(start_V + 2e-3 * i))
        assert int(smu.read()["status"][0]) == Status.POTENTIOSTATIC
    assert len(sent) == 40
    assert np.all(served.world.truth()["source"]["mode"][changes:] == b"voltage")
    assert served.world.cell.voltage_V == pytest.approx(start_V + 0.02, abs=1e-3)
    check_the_cell_was_safe(served)


def test_charge_to_a_voltage_hold_it_and_rest(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(2e-10))
    for _ in range(200):
        if smu.read()["voltage_V"][0] > 4.05:
            break
    else:
        pytest.fail("the voltage was not reached")
    smu.apply(voltage(4.05))
    held = read(smu, 400)
    assert np.all(np.abs(held["voltage_V"][30:] - 4.05) < 6e-3)
    assert np.mean(held["current_A"][-50:]) < np.mean(held["current_A"][30:80])
    smu.apply(current(0.0))
    rest = read(smu, 60)
    assert rest["voltage_V"][-1] < 4.0
    assert smu.rest_at_end() is SafeState.S2
    assert not served.smu.output_on
    assert served.world.source.mode == "open"
    check_the_cell_was_safe(served)


def test_every_string_is_known_from_somewhere(simulated, sent):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(2e-10, range_A=1e-7))
    smu.apply(voltage(3.95))
    smu.apply(current(-2e-10))
    smu.exchange_clock()
    smu.rest_at_end()
    headers = {part.partition(" ")[0] for line in sent for part in line.split(";")}
    unknown = {h for h in headers if h not in KNOWN and h.removesuffix("?") not in KNOWN}
    assert not unknown
    assert errors_of(served) == '+0,"No error"'


def test_pymeasures_sibling_driver_has_the_shared_strings():
    pytest.importorskip("pymeasure", reason="the peer is not installed")
    from pymeasure.instruments.agilent import agilentB298x

    text = inspect.getsource(agilentB298x)
    for header in (h for h, where in KNOWN.items() if where == "PyMeasure B298x"):
        assert re.search(rf'"{re.escape(header)}[?" ]', text), header
    assert "HIZ" in text
    assert "AINT" in text


@pytest.mark.parametrize("off_mode", ["NORM", "ZERO", "HIZ"])
def test_a_running_voltage_source_is_taken_over_whatever_its_off_state(simulated, off_mode):
    smu, served = simulated(
        f":OUTP:OFF:MODE {off_mode}", ":SOUR:VOLT:RANG 20", ":SOUR:VOLT 3.92", ":OUTP ON"
    )
    smu.connect(ENVELOPE)
    assert served.world.source.mode == "current"
    modes = served.world.truth()["source"]["mode"]
    assert list(modes[-3:]) == [b"voltage", b"open", b"current"]
    check_the_cell_was_safe(served)


def test_a_running_sweep_with_every_trap_set_is_taken_over(simulated):
    smu, served = simulated(
        *(":OUTP:OFF:AUTO 1", ":OUTP:PROT 1", ":TRIG:ACQ:COUN 100", ":FORM REAL,64"),
        *(":SYST:TIME:TIM:COUN:RES:AUTO ON", ":SOUR:FUNC:MODE CURR", ":SENS:VOLT:PROT 4.2"),
        *(":SOUR:CURR 1E-10", ":SOUR:CURR:MODE SWE", ":OUTP ON"),
    )
    smu.connect(ENVELOPE)
    assert np.all(read(smu, 5)["status"][2:] == 0)
    assert served.smu.output_on
    check_the_cell_was_safe(served)


def test_a_second_connection_adopts_the_output_that_is_on(simulated, sent):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(2e-10))
    sent.clear()
    again = KeysightB2900(smu._link, now_ns=served.now_ns)
    again.connect(ENVELOPE)
    assert not any(line.startswith(":OUTP ") for line in sent)
    source = served.world.truth()["source"]
    assert np.all(source["output_on"][np.flatnonzero(source["output_on"])[0] :] == 1)
    check_the_cell_was_safe(served)


def test_a_clamp_that_holds_is_told_by_the_reading_and_does_not_switch_off(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(1e-9, clamp=4.1))
    rows = read(smu, 20)
    assert rows["status"][-1] == Status.COMPLIANCE
    assert served.smu.output_on
    check_the_cell_was_safe(served)


def test_an_over_temperature_is_noticed_and_read_does_not_switch_on_again(simulated, sent):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(2e-10))
    read(smu, 5)
    served.run(served.smu.trip_over_temperature())
    assert voltages(served).min() == 0.0  # the hazard that no setting takes away
    assert served.world.source == Source(mode="open")
    sent.clear()
    rows = read(smu, 5)
    assert np.all(rows["status"] & int(Status.INVALID))
    assert np.all(np.isnan(rows["voltage_V"]))
    with pytest.raises(NotApplied, match="the output is off"):
        smu.apply(current(2e-10))
    assert set(sent) == {READING}
    assert served.world.source == Source(mode="open")
    # Too hot to switch on: no S1, and it is said why.
    with pytest.raises(NotApplied, match=r"stays off, at high impedance \(\+303"):
        smu.ensure_safe()
    assert served.world.source == Source(mode="open")
    served.smu.cool_down()
    read(smu, 2)
    assert not served.smu.output_on  # still nobody asked for it
    assert smu.ensure_safe() is SafeState.S1
    assert served.world.source.mode == "current"
    assert served.world.source.clamp == 4.3


def test_an_emergency_at_the_end_of_a_run_ends_in_high_impedance(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.apply(current(2e-10))
    served.run(served.smu.trip_over_temperature())
    assert smu.rest_at_end() is SafeState.S2
    assert served.world.source == Source(mode="open")


def test_a_power_cycle_does_not_make_a_reading_drive_the_cell(simulated):
    smu, served = simulated()
    smu.connect(ENVELOPE)
    smu.rest_at_end()
    served.run(served.smu.handle("*RST"))  # forgets all that was set, as a power cycle does
    before = len(served.world.truth()["source"]["mode"])
    assert int(smu.read()["status"][0]) & Status.INVALID
    assert len(served.world.truth()["source"]["mode"]) == before
    assert smu.ensure_safe() is SafeState.S1
    assert int(read(smu, 5)["status"][-1]) == 0
    check_the_cell_was_safe(served)


def test_the_timestamps_run_with_the_hosts_clock(simulated):
    smu, _ = simulated()
    smu.connect(ENVELOPE)
    found = [smu.exchange_clock()]
    rows = read(smu, 100)
    found.append(smu.exchange_clock())
    # The timer began with the connection, a few exchanges after the host's clock.
    behind_s = [e.sent_ns / 1e9 - e.device_time_s for e in found]
    assert np.all(np.abs(behind_s) < 0.01)
    assert abs(behind_s[1] - behind_s[0]) < 0.01
    assert np.all(np.abs(rows["read_start_ns"] / 1e9 - rows["device_time_s"]) < 0.01)
    assert np.all(rows["device_time_s"] < rows["read_end_ns"] / 1e9)


def test_the_small_model_works_in_its_smallest_range(simulated):
    smu, served = simulated(simulator=SmallSimulator)
    assert smu.connect(ENVELOPE).model == "B2901A"
    smu.apply(current(2e-10, range_A=1e-7))
    assert read(smu, 10)["range_A"][-1] == 1e-7
    check_the_cell_was_safe(served)


def test_ranges_are_the_data_sheets():
    assert [(r.full_scale_A, r.gain_ratio, r.offset_A) for r in RANGES] == [
        (1e-8, 0.0010, 5e-11),
        (1e-7, 0.0006, 1e-10),
        (1e-6, 0.00025, 5e-10),
    ]
    assert KeysightB2900.off_states == (SafeState.S1, SafeState.S2)
