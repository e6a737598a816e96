"""The 2600 driver on its simulated instrument: set-points, readings, blocks, lines, safety."""

import math
import re

import numpy as np
import pytest

from mocks.keithley2600 import Keithley2600 as Simulated2600
from mocks.keithley2600_smu import NOT_A_READING
from potentiostat.drivers.keithley2600 import RANGES, Keithley2600
from potentiostat.errors import (
    InstrumentError,
    InstrumentRefused,
    LinkError,
    NoReply,
    NotApplied,
    ReplyError,
    UnsafeRequest,
)
from potentiostat.limits import Envelope
from potentiostat.protocol import SafeState, TriggerLines
from potentiostat.records import SAMPLE_DTYPE, Status
from potentiostat.tsp import refuse_unsafe_tsp
from potentiostat.visa import VisaLink
from tests.potentiostat.served import Served, world_of
from tests.potentiostat.tsp_bench import (
    ENVELOPE,
    FILM,
    DirectLink,
    current,
    harmful,
    voltage,
)

ZERO_A = 2e-12  # of the current source in the 1 nA range, not yet confirmed
LAMELLA = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=9e-10, charge_max_C=8e-9)


def readings(smu, count):
    rows = np.concatenate([smu.read() for _ in range(count)])
    assert not np.any(rows["status"] & (Status.INVALID | Status.OVERFLOW))
    return rows


def check_unharmed(world):
    voltage_V = world.truth()["cell"]["voltage"]
    assert voltage_V.min() > 2.5
    assert voltage_V.max() < 4.3


@pytest.fixture
def direct():
    """A driver without a socket; afterwards nothing harmful was sent."""
    made = []

    def make(*before, connect=True, cell_attached=True, driver=None, **options):
        link = DirectLink(world_of(**options))
        for line in before:
            link.handle(line)
        smu = Keithley2600(link, now_ns=link.now_ns, **(driver or {}))
        made.append(link)
        if connect:
            smu.connect(ENVELOPE, cell_attached=cell_attached)
            link.sent.clear()
        return smu, link

    yield make
    for link in made:
        assert harmful(link.sent) == []


def test_the_scan_of_sent_lines_sees_a_harmful_one():
    opens = "smua.source.output=0 print(smua.source.output)"
    assert harmful(["timer.reset()", "x smua.source.offmode=2", opens]) == []
    assert harmful(["x", opens]) == [opens]
    for line in ("smua.reset()", "reset()", "*RST", "smua.source.offmode=0", "levelv=0.0E+00"):
        assert harmful([line]) == [line]
    assert harmful(["smua.source.levelv=3.9E+00"]) == []


# --- on the wire ----------------------------------------------------------------------------


@pytest.fixture
def on_wire():
    """A driver on a socket; afterwards the cell is unharmed and no error is left."""
    made = []

    def make(driver=None, link=None, **options):
        served = Served(Simulated2600, **options)
        link = VisaLink(served.resource, now_ns=served.now_ns, **(link or {}))
        link.open()
        made.append((served, link))
        return Keithley2600(link, now_ns=served.now_ns, **(driver or {})), served

    yield make
    for served, link in made:
        link.write("abort")
        assert float(link.query("print(errorqueue.count)").text) == 0
        link.close()
        served.stop()
        check_unharmed(served.world)


def test_it_charges_holds_ramps_and_rests_without_harm(on_wire):
    smu, served = on_wire(**FILM)
    world = served.world
    assert smu.connect(ENVELOPE).model == "2636B"
    assert served.smu.output_on
    assert (world.source.mode, world.source.clamp) == ("current", 4.3)
    assert abs(world.source.level) <= ZERO_A
    resting = readings(smu, 10)
    assert resting["voltage_V"][-1] == pytest.approx(world.cell.voltage_V, abs=6e-3)

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
    assert world.cell.voltage_V == pytest.approx(rest_V + 0.02, abs=2e-3)
    assert 1e-7 < held["current_A"][-1] < 8e-7
    assert np.all(held["status"] & Status.POTENTIOSTATIC)

    ramp = []
    for step in range(10):
        smu.apply(voltage(rest_V + 0.02 - 0.004 * step))
        ramp.append(readings(smu, 1)[0])
    assert np.all(np.abs(np.diff([row["voltage_V"] for row in ramp]) + 0.004) < 5e-4)
    assert ramp[-1]["current_A"] < -1e-8
    assert not ramp[-1]["status"] & Status.SETTLING  # a small step needs no time to settle

    assert smu.ensure_safe() is SafeState.S1
    assert world.source.mode == "current"
    assert smu.rest_at_end() is SafeState.S2
    assert world.source.mode == "open"


def test_blocks_come_over_the_wire(on_wire):
    smu, served = on_wire(driver={"block": 20}, **FILM)
    smu.connect(ENVELOPE)
    smu.apply(current(4e-7))
    rows = readings(smu, 3)
    assert rows.shape == (60,)
    assert rows["current_A"][-1] == pytest.approx(4e-7, rel=0.01)
    smu.apply(voltage(served.world.cell.voltage_V))
    assert np.all(readings(smu, 1)["status"] & Status.POTENTIOSTATIC)


def test_a_trigger_without_an_answer_is_told_and_the_link_stays_in_order(on_wire):
    smu, served = on_wire(link={"timeout_s": 0.2}, **FILM)
    smu.connect(ENVELOPE)
    smu.apply(current(4e-7))
    served.run(served.smu.handle("abort"))  # as after a loss of power: nothing waits there
    with pytest.raises(NoReply, match=r"no reply to \*TRG within 0.2 s"):
        smu.read()
    assert smu.ensure_safe() is SafeState.S1
    assert abs(served.world.source.level) <= 7e-10
    assert readings(smu, 3)["voltage_V"][-1] == pytest.approx(served.world.cell.voltage_V, abs=6e-3)


# --- connecting ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["2635A", "2636A", "2635B", "2636B"])
def test_the_models_with_picoampere_ranges_are_accepted(direct, model):
    smu, link = direct(connect=False)
    link.smu.identity = f"Keithley Instruments Inc., Model {model}, 1, 3.0.0"
    assert smu.connect(ENVELOPE).model == model


@pytest.mark.parametrize(
    "text", ["", "Keithley Instruments Inc., Model 2602B, 1, 3.0.0", "KEITHLEY,MODEL 2636B,1"]
)
def test_another_model_is_refused_before_anything_is_set(direct, text):
    smu, link = direct(connect=False)
    link.spoil = lambda _n, _text: text
    for attempt in (lambda: smu.connect(ENVELOPE), smu.ensure_safe):
        link.sent.clear()
        with pytest.raises(ReplyError, match="is no 2635A"):
            attempt()
        assert link.sent == ["abort", "*IDN?"]
    assert link.world.source.mode == "open"


def test_off_is_an_open_relay_before_anything_else_is_set(direct):
    smu, link = direct(connect=False)
    smu.connect(ENVELOPE)
    assert link.sent[:2] == ["abort", "*IDN?"]
    assert "smua.source.offmode=2 print(smua.source.offmode)" in link.sent[2]
    sets = [i for i, line in enumerate(link.sent) if re.search(r"smua\.[a-z.]+=[^=]", line)]
    assert sets[0] == 2
    on = next(i for i, line in enumerate(link.sent) if "output=1" in line)
    for before in ("func=0", "limitv=4.3", "leveli=0", "asciiprecision=16", "sense=0"):
        assert any(before in line for line in link.sent[:on]), before
    check_unharmed(link.world)  # off was a 0 V source until then


def test_connecting_puts_next_to_no_charge_into_the_cell(direct):
    _, link = direct()
    source = link.world.truth()["source"]
    on = source["output_on"] == 1
    assert np.all(source["mode"][on] == b"current")
    assert np.all(np.abs(source["level"][on]) <= ZERO_A)
    assert np.all(source["clamp"][on] == 4.3)
    assert abs(link.world.cell.source_C) < 1e-13
    assert set(source["mode"]) == {b"open", b"current"}


def test_an_off_state_that_stays_normal_stops_the_connection(direct):
    smu, link = direct(connect=False)
    link.spoil = lambda n, text: "0.0" if n == 2 else text
    with pytest.raises(NotApplied, match="offmode was set to 2, reads back 0"):
        smu.connect(ENVELOPE)
    assert not any("output=" in line for line in link.sent)
    with pytest.raises(UnsafeRequest, match="not known to open"):
        smu._tsp.do("smua.source.output=0")


def test_a_running_current_source_is_adopted_without_a_break(direct):
    smu, link = direct(
        *("smua.source.offmode=2", "smua.source.func=0", "smua.source.limitv=4.2"),
        *("smua.source.leveli=3e-7", "smua.source.output=1"),
        connect=False,
        **FILM,
    )
    changes = len(link.world.truth()["source"]["mode"])
    smu.connect(ENVELOPE)
    source = link.world.truth()["source"]
    assert np.all(source["mode"][changes:] == b"current")
    assert np.all(source["output_on"][changes:] == 1)
    assert link.world.source.clamp == 4.3
    assert abs(link.world.source.level) <= ZERO_A
    check_unharmed(link.world)


def test_a_running_voltage_source_goes_by_high_impedance(direct):
    smu, link = direct(
        *("smua.source.offmode=2", "smua.source.rangev=20", "smua.source.levelv=3.92"),
        *("smua.source.limiti=1e-7", "smua.source.output=1"),
        connect=False,
        **FILM,
    )
    link.handle("smua.source.offmode=0")  # harmless while on, deadly with the next off
    smu.connect(ENVELOPE)
    modes = list(link.world.truth()["source"]["mode"])
    assert modes[-3:] == [b"voltage", b"open", b"current"]
    check_unharmed(link.world)


def test_a_second_connection_ends_the_lease_of_the_first(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    before_ns = link.now
    again = Keithley2600(link, now_ns=link.now_ns)
    again.connect(ENVELOPE)
    assert link.now - before_ns < 0.5e9  # it did not wait for the lease to run out
    assert abs(link.world.source.level) <= 7e-10
    source = link.world.truth()["source"]
    assert np.all(source["output_on"][np.flatnonzero(source["output_on"])[0] :] == 1)
    check_unharmed(link.world)


def test_a_setting_that_reads_back_otherwise_is_told(direct):
    smu, link = direct(connect=False)
    link.spoil = lambda n, text: "1.0\t0.0" if "nplc=" in link.sent[-1] else text
    smu._nplc = 2.0
    with pytest.raises(NotApplied, match="measure.nplc was set to 2 and reads back 1"):
        smu.connect(ENVELOPE)


def test_another_mains_frequency_is_set(direct):
    smu, link = direct(driver={"line_frequency_Hz": 60.0})
    assert link.ask(smu, "localnode.linefreq") == 60


def test_an_output_that_stays_off_is_told(direct):
    smu, link = direct(connect=False)
    link.spoil = lambda _n, text: "0.0\t0.0" if "output=1" in link.sent[-1] else text
    with pytest.raises(NotApplied, match="stays off, at high impedance"):
        smu.connect(ENVELOPE)


# --- set-points ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setpoint", "why"),
    [
        (current(1e-10, range_A=3e-8), "no range"),
        (current(1e-11, range_A=1e-10), "100 pA only measures"),
        (current(2e-6), "beyond the limit"),
        (current(-2e-6), "beyond the limit"),
        (current(math.nan), "beyond the limit"),
        (current(1e-7, clamp=4.4), "clamp of 4.4 V"),
        (current(1e-7, clamp=0.0), "clamp of 0 V"),
        (voltage(2.4), "2.4 V is not in the window"),
        (voltage(0.0), "0 V is not in the window"),
        (voltage(math.nan), "nan V is not in the window"),
        (voltage(3.9, clamp=2e-6), "clamp of 2e-06 A"),
        (voltage(3.9, clamp=5e-11), "clamp of 5e-11 A"),
    ],
)
def test_an_unfit_set_point_sends_nothing(direct, setpoint, why):
    smu, link = direct()
    with pytest.raises(UnsafeRequest, match=why):
        smu.apply(setpoint)
    assert link.sent == []


def test_the_same_kind_of_set_point_is_one_exchange(direct):
    smu, link = direct(**FILM)
    smu.apply(current(1e-7))
    link.sent.clear()
    smu.apply(current(2e-7))
    (line,) = link.sent
    assert f"smua.source.leveli={2e-7:.15E} print(smua.source.leveli, errorqueue.count, " in line
    smu.apply(voltage(3.9))
    link.sent.clear()
    smu.apply(voltage(3.91))
    assert len(link.sent) == 1


def test_a_voltage_comes_on_a_cell_at_what_the_cell_has(direct):
    smu, link = direct(**FILM)
    before_V = link.world.cell.voltage_V
    changes = len(link.world.truth()["source"]["mode"])
    smu.apply(voltage(before_V + 0.01))
    source = link.world.truth()["source"]
    volts = source["mode"] == b"voltage"
    assert source["level"][volts][0] == pytest.approx(before_V, abs=6e-3)
    assert b"open" in source["mode"][changes:]
    assert abs(link.world.source.level - before_V - 0.01) < 1e-3


@pytest.mark.parametrize("volts", ["0.0", "4.31", f"{NOT_A_READING}"])
def test_no_voltage_is_put_on_a_cell_that_is_not_in_its_window(direct, volts):
    smu, link = direct()
    link.spoil = lambda _n, text: f"{volts}\t1.0" if "measure.v()" in link.sent[-1] else text
    with pytest.raises(UnsafeRequest, match="no voltage is put on it"):
        smu.apply(voltage(3.9))
    assert link.smu.output_on
    assert link.world.source.mode == "current"


def test_a_range_is_changed_at_zero_current(direct):
    smu, link = direct(**FILM)
    smu.apply(current(5e-9, range_A=1e-8))
    changes = len(link.world.truth()["source"]["mode"])
    smu.apply(current(-5e-8, range_A=1e-7))
    levels = link.world.truth()["source"]["level"][changes:]
    assert np.all(np.abs(levels[:-1]) <= 5e-11)
    assert levels[-1] == pytest.approx(-5e-8, rel=0.01)
    assert link.ask(smu, "smua.measure.rangei") == 1e-7  # locked to the source's


def test_limit_and_range_of_a_voltage_are_changed_without_a_break(direct):
    smu, link = direct(**FILM)
    smu.apply(voltage(3.91))
    changes = len(link.world.truth()["source"]["mode"])
    smu.apply(voltage(3.91, clamp=5e-8, range_A=1e-7))
    assert np.all(link.world.truth()["source"]["mode"][changes:] == b"voltage")
    assert link.world.source.clamp == 5e-8
    assert link.ask(smu, "smua.measure.rangei") == 1e-7


def test_an_open_holder_may_see_zero_volts(direct):
    smu, link = direct(cell_attached=False, open_holder=True)
    for level in (1.0, 0.0, -1.0):
        smu.apply(voltage(level))
        assert link.world.source.level == pytest.approx(level, abs=1e-3)
    assert smu.rest_at_end() is SafeState.S2
    link.sent.clear()  # 0 V would be harm on a cell


def test_an_error_of_a_set_point_is_told(direct):
    smu, link = direct(**FILM)
    smu.apply(current(1e-7))
    link.meddle(smu, "smua.source.foo=1")
    with pytest.raises(InstrumentRefused, match=r"leveli=.*: -286 TSP Runtime error"):
        smu.apply(current(2e-7))
    assert smu.ensure_safe() is SafeState.S1


def test_a_silent_line_is_told_with_its_error(direct):
    smu, link = direct()
    with pytest.raises(InstrumentRefused, match="-285 TSP Syntax error"):
        smu._tsp.query("this is no Lua")
    with pytest.raises(InstrumentRefused, match="-286 TSP Runtime error"):
        smu._tsp.number("smua.source.ofmode")
    with pytest.raises(NoReply):
        smu._tsp.query("delay(0)")
    assert smu.ensure_safe() is SafeState.S1
    link.sent.clear()


@pytest.mark.parametrize("reply", ["", "1.0\t2.0\t3.0", "a\tb", "TSP>"])
def test_a_reply_in_another_form_is_told(direct, reply):
    smu, link = direct(**FILM)
    link.spoil = lambda _n, _text: reply
    with pytest.raises(ReplyError):
        smu.apply(current(1e-7))


# --- what is never sent ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunk",
    [
        *("*RST", "*rst", "reset()", "smua.reset()", "x=1 smub.reset ()", "localnode.reset()"),
        *("node[1].reset()", "setup.recall(1)", "smua.source.offmode=0", "smua.source.offmode = 1"),
        *("smua.source.offmode=smua.OUTPUT_NORMAL", "*RCL 1", "x(1) reset ( )"),
    ],
)
@pytest.mark.parametrize("off_is_open", [True, False])
def test_chunks_that_could_harm_a_cell_are_refused(chunk, off_is_open):
    with pytest.raises(UnsafeRequest, match="is never sent"):
        refuse_unsafe_tsp(chunk, off_is_open=off_is_open)


def test_an_output_that_may_be_a_short_is_not_switched_off():
    for chunk in ("smua.source.output=0", "smua.source.output = smua.OUTPUT_OFF", "output=2"):
        with pytest.raises(UnsafeRequest, match="not known to open"):
            refuse_unsafe_tsp(chunk, off_is_open=False)
        refuse_unsafe_tsp(chunk, off_is_open=True)


@pytest.mark.parametrize(
    "chunk",
    [
        *("timer.reset()", "smua.source.output=1", "smua.source.offmode=2"),
        *("digio.trigger[3].reset()", "print(smua.source.output)", "if output == 0 then end"),
    ],
)
def test_harmless_chunks_are_sent(chunk):
    refuse_unsafe_tsp(chunk, off_is_open=False)


# --- readings ----------------------------------------------------------------------------------


def test_a_reading_becomes_a_row(direct):
    smu, link = direct()
    link.pass_time(1.0)
    link.spoil = lambda _n, _text: "1.5e-10\t3.9\t12.25\tfalse\t1.0\ttrue"
    rows = smu.read()
    assert rows.dtype == SAMPLE_DTYPE
    (row,) = rows
    assert (row["voltage_V"], row["current_A"], row["device_time_s"]) == (3.9, 1.5e-10, 12.25)
    assert (row["setpoint"], row["range_A"], row["aperture_s"]) == (0.0, 1e-9, 0.04)
    assert row["status"] == 0
    assert link.sent == ["*TRG"]
    noise_A = math.hypot(2e-14, 3.5e-14, 2e-14)  # own, shot, and Johnson noise of a gigaohm
    assert row["current_sigma_A"] == pytest.approx(noise_A, rel=0.05)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("1e-10\t3.9\t1\ttrue\t1\ttrue", Status.COMPLIANCE),
        ("1e-10\t3.9\t1\tfalse\t1\tfalse", Status.UNTRIGGERED),
        ("9.91e37\t3.9\t1\tfalse\t1\ttrue", Status.OVERFLOW),
        ("1e-10\t9.91e37\t1\tfalse\t1\ttrue", Status.INVALID),
        ("nan\t3.9\t1\tfalse\t1\ttrue", Status.INVALID),
        ("1e-10\t3.9\t1\tfalse\t0\ttrue", Status.INVALID),
        ("1e-10\t3.9\t1\tfalse\t1", Status.INVALID),
        ("1e-10\t3.9\t1\tmaybe\t1\ttrue", Status.INVALID),
        ("garbage", Status.INVALID),
    ],
)
def test_a_reply_sets_the_bits_of_its_row(direct, reply, status):
    smu, link = direct()
    link.pass_time(1.0)
    link.spoil = lambda _n, _text: reply
    assert Status(int(smu.read()["status"][0])) == status


def test_readings_soon_after_a_change_are_unsettled(direct):
    smu, _ = direct()
    smu.apply(current(5e-10, range_A=1e-9))
    assert smu.read()["status"][0] & Status.SETTLING
    readings(smu, 5)
    assert not smu.read()["status"][0] & Status.SETTLING


def test_readings_have_all_their_digits(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4.00012345e-7))
    assert link.ask(smu, "smua.source.leveli") == 4.00012345e-7
    smu.ensure_safe()
    times = readings(smu, 20)["device_time_s"]
    assert np.all(np.diff(times) > 0.03)
    assert np.any(np.abs(times * 1e3 - np.round(times * 1e3)) > 1e-3)  # microseconds are there


def test_a_clamp_that_holds_is_told(direct):
    smu, link = direct(**FILM)
    smu.apply(current(8e-7, clamp=link.world.cell.voltage_V + 0.01))
    assert readings(smu, 5)["status"][-1] & Status.COMPLIANCE


def test_one_clock_fit_holds_for_readings_and_exchanges(direct):
    smu, link = direct()
    rate = 1 + link.world.scenario.smu.clock_rate_ratio
    first = smu.exchange_clock()
    rows = readings(smu, 200)
    last = smu.exchange_clock()
    host_s = np.array([(x.sent_ns + x.received_ns) / 2e9 for x in (first, last)])
    device_s = np.array([first.device_time_s, last.device_time_s])
    found = np.diff(device_s)[0] / np.diff(host_s)[0]
    assert found == pytest.approx(rate, abs=3e-4)
    start_s = host_s[0] + (rows["device_time_s"] - device_s[0]) / rate
    assert np.all(start_s > rows["read_start_ns"] / 1e9 - 2e-3)
    assert np.all(start_s + 0.04 < rows["read_end_ns"] / 1e9 + 2e-3)


def test_microseconds_last_for_longer_than_the_timers(direct):
    smu, link = direct()
    before = smu.exchange_clock()
    link.smu.timer_zero_s -= 5 * 3600  # five hours pass, for the timer
    steps = link.ask(smu, "timer.measure.t()") * 2**9
    assert steps == round(steps)  # two milliseconds are left of them
    times = readings(smu, 20)["device_time_s"] - before.device_time_s - 5 * 3600
    assert np.all((times > 0) & (times < 2))
    micro = np.round(times[1:] * 1e6) % 1000
    assert len(set(micro)) > 10
    assert np.allclose(np.diff(times[1:]), np.diff(times[1:]).mean(), atol=5e-3)


# --- blocks ------------------------------------------------------------------------------------


def test_a_block_has_its_own_stamps_and_flags(direct):
    smu, link = direct(driver={"block": 20}, **FILM)
    smu.apply(current(4e-7))
    readings(smu, 1)
    link.sent.clear()
    truth_before = len(link.world.truth()["samples"]["t_ns"])
    rows = readings(smu, 2)
    assert rows.shape == (40,)
    samples = link.world.truth()["samples"]
    true_ns = samples["t_ns"][truth_before:] - 20_000_000  # from the middle to the beginning
    assert np.all(rows["read_start_ns"] <= true_ns)
    assert np.all(true_ns + 40_000_000 <= rows["read_end_ns"])
    assert np.all(rows["read_end_ns"] - rows["read_start_ns"] < 0.08e9)  # each has its own
    rate = 1 + link.world.scenario.smu.clock_rate_ratio
    device_s = np.diff(rows["device_time_s"][:20]) / rate
    assert np.allclose(device_s, np.diff(true_ns[:20]) / 1e9, atol=3e-6)
    true_V = samples["voltage"][truth_before:]
    assert np.allclose(rows["voltage_V"], true_V, atol=6e-3)
    assert [line for line in link.sent if line == "*TRG"] == ["*TRG"] * 2

    smu.apply(current(8e-7, clamp=link.world.cell.voltage_V + 0.01))
    assert np.all(readings(smu, 1)["status"][-5:] & Status.COMPLIANCE)


def test_blocks_and_single_readings_share_one_clock(direct):
    smu, _ = direct(driver={"block": 10})
    exchange = smu.exchange_clock()
    rows = readings(smu, 1)
    ahead_s = exchange.device_time_s - exchange.received_ns / 1e9
    assert rows["device_time_s"][0] == pytest.approx(
        rows["read_start_ns"][0] / 1e9 + ahead_s, abs=5e-3
    )


def test_a_block_of_an_output_that_is_off_is_invalid(direct):
    smu, link = direct(driver={"block": 5})
    link.pass_time(3.0)
    assert np.all(smu.read()["status"] & Status.INVALID)


def test_readings_beyond_the_range_of_a_block_are_told(direct):
    smu, link = direct(driver={"block": 5}, **FILM)
    smu.apply(voltage(link.world.cell.voltage_V + 0.02, clamp=9e-7))
    link.meddle(smu, "smua.measure.rangei=1e-9")
    assert np.all(smu.read()["status"] & Status.OVERFLOW)


def test_a_block_in_another_form_is_told_and_the_link_is_put_in_order(direct):
    smu, link = direct(driver={"block": 5})
    link.spoil = lambda _n, data: data[:26] + b"XXX" + data[29:]
    with pytest.raises(ReplyError, match="in another form"):
        smu.read()
    assert link.resynced == 1


def test_a_binary_format_of_somebody_elses_does_no_harm(direct):
    smu, link = direct(**FILM)
    for work in (lambda: smu.apply(current(1e-7)), smu.ensure_safe, smu.read, smu.rest_at_end):
        link.meddle(smu, "format.data=format.REAL32")
        work()
    assert link.world.source.mode == "open"


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        ({"block": 0}, "gives 1 to 500 readings"),
        ({"block": 501}, "gives 1 to 500 readings"),
        ({"block": 100}, "may take 4.3 s"),
        ({"nplc": 25.0, "block": 2}, "may take 2.1 s"),
        ({"lease_s": 0.05}, "may take 0.14 s"),
        ({"lines": TriggerLines(exposure_in=15)}, "not a line 15"),
        ({"lines": TriggerLines(exposure_in=0)}, "not a line 0"),
        ({"lines": TriggerLines(exposure_in=2, mark_out=2)}, "input and an output"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(direct, driver, why):
    with pytest.raises(UnsafeRequest, match=why):
        direct(driver=driver)


# --- lines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 5])
def test_readings_begin_with_the_edge_of_an_exposure(direct, block):
    smu, link = direct(driver={"block": block, "lines": TriggerLines(exposure_in=3)})
    link.smu.edge_every_ns = 400_000_000
    for _ in range(4):
        link.pass_time(0.5)  # an edge passes that nobody waited for
        rows = readings(smu, 1)
        assert not np.any(rows["status"] & Status.UNTRIGGERED)
        began_ns = link.world.truth()["samples"]["t_ns"][-block] - 20_000_000
        assert began_ns % 400_000_000 < 3_000_000
    assert len(link.world.truth()["samples"]["t_ns"]) == 4 * block


@pytest.mark.parametrize("block", [1, 5])
def test_an_edge_that_does_not_come_is_waited_for_in_vain_only_for_a_while(direct, block):
    smu, link = direct(driver={"block": block, "lines": TriggerLines(exposure_in=3)})
    began_ns = link.now
    rows = readings(smu, 1)
    assert np.all(rows["status"] & Status.UNTRIGGERED)
    assert (link.now - began_ns) / 1e9 < 0.8
    assert rows["voltage_V"][0] == pytest.approx(link.world.cell.voltage_V, abs=6e-3)


def test_each_change_of_the_set_point_gives_a_pulse(direct):
    smu, link = direct(driver={"lines": TriggerLines(mark_out=7)}, **FILM)
    link.smu.pulses.clear()
    moments = []
    for level in (1e-7, 2e-7, 0.0):
        smu.apply(current(level))
        moments.append(link.now)
        readings(smu, 2)
    assert {line for _, line in link.smu.pulses} == {7}
    # The change of range and the first level come at once, and one pulse each after that.
    assert [t for t, _ in link.smu.pulses][-3:] == moments


# --- safety ------------------------------------------------------------------------------------


@pytest.mark.parametrize("setpoint", [current(4e-7), current(-4e-7), voltage(3.93)])
def test_rest_is_reached_from_every_state_and_stays(direct, setpoint):
    smu, link = direct(**FILM)
    smu.apply(setpoint)
    readings(smu, 3)
    assert smu.ensure_safe() is SafeState.S1
    assert link.world.source.mode == "current"
    assert abs(link.world.source.level) <= 7e-10
    assert (smu.read()["setpoint"][0], smu.read()["range_A"][0]) == (0.0, 1e-6)
    before = link.world.source
    assert smu.ensure_safe() is SafeState.S1
    assert link.world.source == before
    assert link.ask(smu, "errorqueue.count") == 0
    check_unharmed(link.world)


def test_the_level_is_the_first_thing_that_is_made_safe(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    link.sent.clear()
    smu.ensure_safe()
    first = next(line for line in link.sent if re.search(r"smua\.[a-z.]+=[^=]", line))
    assert "smua.source.leveli=0 " in first


def test_rest_follows_a_connection_that_failed(direct):
    smu, link = direct(connect=False)

    def lose(n, text):
        if n == 1:
            raise NoReply("late")
        return text

    link.spoil = lose
    with pytest.raises(NoReply):
        smu.connect(ENVELOPE)
    assert smu.ensure_safe() is SafeState.S1
    assert link.smu.output_on
    check_unharmed(link.world)


def test_before_connecting_nothing_is_sent(direct):
    smu, link = direct(connect=False)
    for work in (smu.ensure_safe, smu.rest_at_end, lambda: smu.apply(current(1e-9))):
        with pytest.raises(LinkError, match="connect first"):
            work()
    assert link.sent == []


def test_one_missing_reply_does_not_keep_the_cell_from_rest(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    lost = []

    def lose(_n, text):
        if len(lost) < most:
            lost.append(text)
            raise NoReply("late")
        return text

    link.spoil, most = lose, 1
    assert smu.ensure_safe() is SafeState.S1
    lost.clear()
    most = 100
    with pytest.raises(NoReply):
        smu.ensure_safe()


def test_the_end_is_an_open_relay_and_stays_one(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    for _ in range(2):
        assert smu.rest_at_end() is SafeState.S2
        assert link.world.source.mode == "open"
    with pytest.raises(NotApplied, match="make it safe first"):
        smu.apply(current(4e-7))
    assert smu.ensure_safe() is SafeState.S1
    smu.apply(current(4e-7))
    check_unharmed(link.world)


def test_a_restarted_instrument_is_noticed_and_not_armed_by_itself(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    link.smu.power_cycle()  # NORMAL again: a 0 V source on the cell, the hazard of the model
    assert (link.world.source.mode, link.world.source.level) == ("voltage", 0.0)
    # Nobody answers the trigger: what the driver had put there is gone.
    with pytest.raises(NoReply):
        smu.read()
    with pytest.raises(NotApplied, match="the output is off"):
        smu.apply(current(3e-7))
    with pytest.raises(NotApplied, match="make it safe first"):
        smu.apply(current(2e-7))
    assert not link.smu.output_on
    assert smu.ensure_safe() is SafeState.S1
    assert link.ask(smu, "smua.source.offmode") == 2
    assert abs(link.world.source.level) <= 7e-10
    assert readings(smu, 2)["status"][-1] == 0


def test_the_end_after_a_restart_is_an_open_relay_at_once(direct):
    smu, link = direct(**FILM)
    smu.apply(current(4e-7))
    link.smu.power_cycle()
    assert smu.rest_at_end() is SafeState.S2
    assert link.world.source.mode == "open"


def test_closing_lets_go_of_the_link_alone(direct):
    smu, link = direct()
    smu.close()
    assert link.closed
    assert link.sent == []
    assert link.smu.output_on


def test_ranges_are_those_that_source():
    assert [r.full_scale_A for r in RANGES] == [1e-9, 1e-8, 1e-7, 1e-6]
    assert RANGES[0].source_offset_A == ZERO_A
    assert all(r.sources for r in RANGES)
    assert "accuracy" in Keithley2600.unconfirmed


# --- the n-th reply fails, for all n -------------------------------------------------------------


def play(smu, link):
    """Connect, hold a current and a voltage, read, and rest; by exchanges that may fail."""
    smu.connect(LAMELLA)
    smu.apply(current(3e-10, range_A=1e-9))
    smu.read()
    smu.exchange_clock()
    smu.apply(voltage(3.93, clamp=5e-10, range_A=1e-9))
    smu.read()
    smu.apply(current(-3e-10, range_A=1e-9))
    smu.read()
    smu.rest_at_end()


def exchanges_of_a_run():
    link = DirectLink(world_of())
    play(Keithley2600(link, now_ns=link.now_ns), link)
    return link.exchanges


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["lost", "garbage", "short", "not a number"])
def test_whatever_reply_fails_the_cell_comes_to_rest(fault):
    count = exchanges_of_a_run()
    assert count > 60
    told = 0
    for failing in range(1, count + 1):

        def spoil(n, text, failing=failing):
            if n != failing:
                return text
            if fault == "lost":
                raise NoReply("lost")
            return {"garbage": "#!?", "short": text[:3], "not a number": "9.91e37"}[fault]

        link = DirectLink(world_of(), spoil=spoil)
        smu = Keithley2600(link, now_ns=link.now_ns)
        try:
            play(smu, link)
        except InstrumentError:
            told += 1
            if smu._identified:
                assert smu.ensure_safe() is SafeState.S1, failing
                assert abs(link.world.source.level) <= ZERO_A
                assert link.world.source.clamp == 4.3
                assert smu.rest_at_end() is SafeState.S2
        assert link.world.source.mode == "open", failing
        assert harmful(link.sent) == []
        check_unharmed(link.world)
        # Each reading of 40 ms moves 12 pC; no fault may add more than a lease of 2 s.
        assert abs(link.world.cell.source_C) < 3 * 3e-10 * 2.5
    assert told > count // 2
