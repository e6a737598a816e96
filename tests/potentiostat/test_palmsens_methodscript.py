"""The MethodSCRIPT driver against the simulated instruments, and over a serial line.

Nothing here has met a real instrument. The simulated ones were written after the maker's
manuals by those who wrote the driver; scripts of the driver run on an independent simulator
too, in test_methodscript_oracle.py.
"""

import math
import os
import sys
import threading

import numpy as np
import pytest

import mocks.methodscript
from mocks.palmsens import EMSTAT4_LR, EMSTAT_PICO, NEXUS
from potentiostat.drivers.palmsens_methodscript import PalmsensMethodscript
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
from potentiostat.protocol import SafeState, Setpoint, TriggerLines
from potentiostat.records import SAMPLE_DTYPE, Status
from potentiostat.visa import VisaLink
from tests.potentiostat.methodscript_wire import DirectLink, finish

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.3, current_max_A=9e-7, charge_max_C=1e-3)
INTERVAL_S, LEASE_S = 0.04, 2.0


def current(level, clamp=4.3, range_A=1e-6):
    return Setpoint(mode="current", level=level, clamp=clamp, range_A=range_A)


def voltage(level, clamp=8e-7, range_A=1e-6):
    return Setpoint(mode="voltage", level=level, clamp=clamp, range_A=range_A)


def harmful(sent):
    """Commands that are not known to be harmless, and scripts that could harm a cell."""
    found = []
    for command in sent:
        if command in ("", "t", "i", "Y", "Z"):
            continue
        lines = command.split("\n")
        opens = lines[:2] == ["e", "cell_off"] and lines[-2:] == ["on_finished:", "cell_off"]
        on = [i for i, line in enumerate(lines) if line == "cell_on"]
        # With a cell, whatever is switched on stands inside a block on its voltage, and a
        # potentiostat begins at the voltage that was measured.
        guarded = all(
            any(line.startswith("if p > ") for line in lines[:i])
            and lines[i - 1] in ("set_e p", "set_i 0")
            for i in on
        )
        if not (opens and guarded and len(on) <= 1):
            found.append(command)
    return found


@pytest.fixture
def made():
    """Links of a test; none of what they sent may harm a cell."""
    links = []
    yield links
    for link in links:
        assert harmful(link.sent) == []


@pytest.fixture
def simulated(made):
    def make(**options):
        link = DirectLink(**options)
        made.append(link)
        return PalmsensMethodscript(link, now_ns=link.now_ns), link

    return make


@pytest.fixture
def connected(simulated):
    def make(**options):
        smu, link = simulated(**options)
        smu.connect(ENVELOPE)
        link.sent.clear()
        return smu, link

    return make


def read(smu, count):
    return np.concatenate([smu.read() for _ in range(count)])


def read_to_the_end(smu, why):
    """Return the rows that come until the instrument has opened the cell."""
    rows = []
    with pytest.raises(InstrumentRefused, match=why):
        rows.extend(smu.read()[0] for _ in range(1000))
    return rows


def check_the_cell_was_safe(link):
    assert np.all((link.voltages() > 2.5) & (link.voltages() < 4.3))


def test_the_scan_of_sent_commands_sees_a_harmful_one():
    safe = "e\ncell_off\nif p > 2\nset_e p\ncell_on\nendif\non_finished:\ncell_off"
    assert harmful(["", "t", "Y", safe]) == []
    for command in (
        "l",
        safe.replace("set_e p", "set_e 0"),
        safe.replace("if p > 2\n", ""),
        safe.removesuffix("\ncell_off"),
        safe.replace("e\ncell_off", "e", 1),
    ):
        assert harmful([command]) == [command]


# --- connecting ----------------------------------------------------------------------------


def test_the_cell_is_opened_before_anything_else(simulated):
    smu, link = simulated()
    identity = smu.connect(ENVELOPE)
    assert (identity.maker, identity.model, identity.firmware) == ("PalmSens", "EmStat4 HR", "1301")
    assert identity.serial == "ES4HR23K0017"
    assert link.sent[:6] == ["i", "", "t", "i", "", "Z"]
    assert link.sent[6] == "e\ncell_off\non_finished:\ncell_off"
    assert set(link.modes()) == {"open"}
    assert link.world.cell.source_C == 0.0
    assert link.smu.running
    assert read(smu, 3)["voltage_V"][-1] == pytest.approx(link.world.cell.voltage_V, abs=5e-3)


@pytest.mark.parametrize(
    ("kind", "ranges"),
    [
        (EMSTAT4_LR, [1e-9, 1e-8, 1e-7, 1e-6, 1e-5]),
        (EMSTAT_PICO, [1e-7]),
        (NEXUS, [1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5]),
    ],
)
def test_a_model_has_its_own_ranges(simulated, kind, ranges):
    smu, _ = simulated(kind=kind, holder_open=True)
    smu.connect(ENVELOPE, cell_attached=False)
    assert [r.full_scale_A for r in smu.ranges] == ranges


def test_a_model_that_does_not_reach_the_window_touches_nothing(simulated):
    smu, link = simulated(kind=EMSTAT4_LR)
    with pytest.raises(UnsafeRequest, match="EmStat4 LR reaches -3 to 3 V, not 2.5 to 4.3 V"):
        smu.connect(ENVELOPE)
    assert link.sent == ["i", "", "t"]


def test_another_instrument_is_refused_before_anything_is_set(simulated):
    smu, link = simulated()
    link.change = lambda _, line: line.replace("es4_hr", "sensit")
    for ask in (lambda: smu.connect(ENVELOPE), smu.ensure_safe):
        with pytest.raises(ReplyError, match="is no EmStat Pico, EmStat4 LR"):
            ask()
        assert link.sent == ["i", "", "t"]
        link.sent.clear()


@pytest.mark.parametrize("block", [0, 2])
def test_a_block_or_a_line_is_refused(block):
    link = DirectLink()
    with pytest.raises(UnsafeRequest, match="leave block out"):
        PalmsensMethodscript(link, now_ns=link.now_ns, block=block)
    with pytest.raises(UnsafeRequest, match="has no trigger lines here"):
        PalmsensMethodscript(link, now_ns=link.now_ns, lines=TriggerLines(mark_out=1))


HELD_BY_OTHERS = """e
set_pgstat_mode 6
set_range db 1u
cell_on
set_i 300n
wait 100
"""


@pytest.mark.parametrize("listener", [True, False])
def test_a_script_of_others_is_ended_and_the_cell_opened(simulated, listener):
    """It has no on_finished: so that its end alone would leave the cell on."""
    smu, link = simulated()
    link.write(HELD_BY_OTHERS)
    link.wait(0.5)
    if not listener:
        link.lines.clear()
    assert link.modes()[-1] == "current"
    smu.connect(ENVELOPE)
    assert link.modes()[-1] == "open"
    assert np.all(read(smu, 3)["current_A"] == 0)
    link.sent.remove(HELD_BY_OTHERS)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9, 1.0])
def test_a_script_that_a_host_died_in_does_no_harm(connected, share):
    smu, link = connected()
    smu.apply(current(5e-7))
    whole = next(s for s in link.sent if "meas_loop_cp" in s)
    link.write("Z")
    for line in whole[: round(share * len(whole))].split("\n"):
        if line:
            finish(link.smu.handle(line))
    again = PalmsensMethodscript(link, now_ns=link.now_ns)
    changes = len(link.modes())
    again.connect(ENVELOPE)
    assert set(link.modes(changes)) <= {"open"}
    assert np.all(read(again, 3)["current_A"] == 0)


def test_a_second_connection_ends_what_the_first_held(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    again = PalmsensMethodscript(link, now_ns=link.now_ns)
    again.connect(ENVELOPE)
    assert link.modes()[-1] == "open"
    check_the_cell_was_safe(link)


def test_nothing_is_asked_of_an_instrument_that_was_never_connected(simulated):
    smu, _ = simulated()
    with pytest.raises(LinkError, match="connect first"):
        smu.apply(current(1e-8))
    with pytest.raises(LinkError, match="nothing is held"):
        smu.read()
    with pytest.raises(LinkError, match="nothing is held"):
        smu.exchange_clock()


# --- set-points ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setpoint", "why"),
    [
        (current(1e-7, range_A=3e-7), "no range of 3e-07 A"),
        (current(1e-10, range_A=1e-9), "no range of 1e-09 A"),
        (current(9.5e-7), "beyond the limit"),
        (current(-9.5e-7), "beyond the limit"),
        (current(2e-7, range_A=1e-7), "beyond the limit"),
        (current(math.nan), "beyond the limit"),
        (current(1e-7, clamp=4.4), "clamp of 4.4 V"),
        (current(1e-7, clamp=0.0), "clamp of 0 V"),
        (voltage(2.4), "2.4 V is not in the window"),
        (voltage(4.4), "4.4 V is not in the window"),
        (voltage(0.0), "0 V is not in the window"),
        (voltage(math.nan), "nan V is not in the window"),
        (voltage(3.9, clamp=9.5e-7), "clamp of 9.5e-07 A"),
        (voltage(3.9, clamp=0.0), "clamp of 0 A"),
    ],
)
def test_an_unfit_set_point_sends_nothing(connected, setpoint, why):
    smu, link = connected()
    with pytest.raises(UnsafeRequest, match=why):
        smu.apply(setpoint)
    assert link.sent == []
    assert link.smu.running


def test_a_potentiostat_alone_refuses_currents(simulated):
    smu, link = simulated(kind=EMSTAT_PICO, holder_open=True)
    smu.connect(ENVELOPE, cell_attached=False)
    with pytest.raises(UnsafeRequest, match="EmStat Pico is no galvanostat"):
        smu.apply(current(1e-8, clamp=1.5, range_A=1e-7))
    smu.apply(voltage(1.2, range_A=1e-7, clamp=9e-8))
    assert read(smu, 5)["voltage_V"][-1] == pytest.approx(1.2)
    assert link.world.cell.voltage_V == pytest.approx(1.2, rel=1e-3)
    with pytest.raises(UnsafeRequest, match="2.1 V is not in the window"):
        smu.apply(voltage(2.1, range_A=1e-7, clamp=9e-8))
    link.sent.clear()  # an open holder is no cell: the scan would find its script


def test_a_current_charges_the_cell(connected):
    smu, link = connected()
    before_V = link.world.cell.voltage_V
    smu.apply(current(5e-7))
    rows = read(smu, 60)
    assert rows.dtype == SAMPLE_DTYPE
    assert np.all(rows["status"][5:] == Status.TOLD)
    assert np.all(rows["current_A"][5:] == 5e-7)
    assert np.all(rows["setpoint"][5:] == 5e-7)
    assert link.world.cell.source_A == pytest.approx(5e-7, rel=0.01)
    assert rows["voltage_V"][-1] == pytest.approx(link.world.cell.voltage_V, abs=6e-3)
    assert rows["voltage_V"][-1] > before_V + 3e-3
    assert link.world.cell.ion_C > 0
    assert np.all(np.diff(rows["device_time_s"]) > 0)
    assert smu.ensure_safe() is SafeState.S1
    check_the_cell_was_safe(link)


def test_a_voltage_above_the_cells_charges_and_one_below_discharges(connected):
    smu, link = connected()
    rest_V = link.world.cell.voltage_V
    smu.apply(voltage(rest_V + 0.005))
    charging = read(smu, 40)[10:]
    assert link.world.cell.ion_A > 1e-8
    smu.apply(voltage(rest_V - 0.005))
    discharging = read(smu, 40)[10:]
    assert link.world.cell.ion_A < -1e-8
    assert np.all(charging["status"] == Status.POTENTIOSTATIC)
    assert charging["current_A"][-1] - discharging["current_A"][-1] > 1e-7
    check_the_cell_was_safe(link)


def test_a_voltage_comes_on_a_cell_at_what_the_cell_has(connected):
    smu, link = connected()
    rest_V = link.world.cell.voltage_V
    changes = len(link.modes())
    smu.apply(voltage(3.93))
    source = link.world.truth()["source"]
    first = changes + link.modes(changes).index("voltage")
    assert source["level"][first] == pytest.approx(rest_V, abs=5e-3)
    assert source["level"][-1] == pytest.approx(3.93, abs=5e-3)


def test_the_current_before_a_level_is_the_open_cells_none(connected):
    smu, _ = connected()
    smu.apply(voltage(3.91))
    rows = read(smu, 3)
    held = (rows["status"] & int(Status.POTENTIOSTATIC)) != 0
    assert list((rows["status"] & int(Status.TOLD)) != 0) == [True, *[False] * 2]
    assert rows["current_A"][0] == 0
    assert np.all(held[1:])


def test_a_set_point_is_held_over_many_leases(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    changes = len(link.modes())
    rows = read(smu, 250)  # ten seconds
    assert link.sent.count("Y") == 9
    assert set(link.modes(changes)) <= {"current"}
    assert np.all(np.diff(rows["device_time_s"]) < 1.5 * INTERVAL_S)
    smu.apply(current(5e-7))  # the same once more is but another turn
    assert link.modes()[-1] == "current"
    assert set(link.modes(changes)) <= {"current"}


def test_a_ramp_is_one_script(connected):
    smu, link = connected()
    start_V = round(link.world.cell.voltage_V, 3)
    smu.apply(voltage(start_V))
    smu.apply(voltage(start_V + 1e-3))
    read(smu, 5)
    changes = len(link.modes())
    link.sent.clear()
    for i in range(2, 8):
        smu.apply(voltage(start_V + 1e-3 * i))
        row = smu.read()[0]
        assert int(row["status"]) & ~int(Status.SETTLING) == Status.POTENTIOSTATIC
    assert [s for s in link.sent if s != "t"] == ["Y"] * 6
    assert set(link.modes(changes)) == {"voltage"}
    assert link.world.cell.voltage_V == pytest.approx(start_V + 7e-3, abs=6e-3)
    # The ramp stops: another script holds what it came to.
    rows = read(smu, 40)
    assert rows["setpoint"][-1] == pytest.approx(start_V + 7e-3, abs=1e-9)
    assert np.sum(rows["setpoint"] == 0) == 1  # the cell was open for a reading
    assert "add_var s 0" in next(s for s in link.sent if s.startswith("e"))
    check_the_cell_was_safe(link)


def test_large_steps_settle_anew(connected):
    smu, link = connected()
    rest_V = link.world.cell.voltage_V
    for i in range(3):
        smu.apply(voltage(rest_V - 0.008 + 0.006 * i))
        rows = read(smu, 2)
        assert int(rows["status"][-1]) & Status.POTENTIOSTATIC
    assert link.sent.count("Y") == 1


def test_a_slow_second_step_is_no_ramp(connected):
    smu, link = connected()
    smu.apply(voltage(3.9))
    read(smu, 40)
    smu.apply(voltage(3.901))
    assert "add_var s 0" in [s for s in link.sent if s.startswith("e")][-1]
    assert link.world.source.level == pytest.approx(3.901, abs=5e-3)


def test_rest_is_an_open_cell_that_is_measured(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    read(smu, 5)
    smu.apply(current(0.0))
    assert link.modes()[-1] == "open"
    rows = read(smu, 5)
    assert np.all(rows["current_A"][1:] == 0)
    assert np.all(rows["status"][2:] & int(Status.TOLD))
    assert rows["range_A"][-1] == 1e-6


# --- limits on the instrument ----------------------------------------------------------------


def test_a_clamp_opens_the_cell_at_once_and_read_says_so(connected):
    smu, link = connected()
    rest_V = link.world.cell.voltage_V
    smu.apply(current(4e-7, clamp=rest_V + 3e-3))
    rows = read_to_the_end(smu, "beyond the clamp or the window")
    assert rows[-1]["voltage_V"] > rest_V + 3e-3
    assert int(rows[-1]["status"]) & Status.COMPLIANCE
    assert not int(rows[-2]["status"]) & Status.COMPLIANCE
    assert link.modes()[-1] == "open"
    with pytest.raises(InstrumentRefused, match="the script has ended; the cell is open"):
        smu.read()
    assert smu.ensure_safe() is SafeState.S1
    assert np.all(read(smu, 3)["current_A"] == 0)
    check_the_cell_was_safe(link)


def test_a_reading_below_the_window_opens_the_cell(simulated):
    smu, link = simulated()
    low_V = link.world.cell.voltage_V - 7e-3
    smu.connect(
        Envelope(voltage_min_V=low_V, voltage_max_V=4.3, current_max_A=9e-7, charge_max_C=1e-3)
    )
    smu.apply(current(-4e-7))
    rows = read_to_the_end(smu, "beyond the clamp or the window")
    assert [row["voltage_V"] < low_V for row in rows[-2:]] == [False, True]
    assert link.modes()[-1] == "open"


def test_the_third_reading_of_a_current_beyond_the_clamp_opens_the_cell(connected):
    smu, link = connected()
    smu.apply(voltage(link.world.cell.voltage_V + 0.005, clamp=2e-8))
    rows = read_to_the_end(smu, "beyond the clamp")
    held = [row for row in rows if int(row["status"]) & Status.POTENTIOSTATIC]
    assert len(held) == 3
    assert all(int(row["status"]) & Status.COMPLIANCE for row in held)
    assert link.modes()[-1] == "open"


def test_an_overloaded_range_is_no_number_and_opens_the_cell(connected):
    smu, link = connected()
    smu.apply(voltage(link.world.cell.voltage_V + 0.05))
    rows = read_to_the_end(smu, "beyond the clamp")
    assert math.isinf(rows[-1]["current_A"])
    assert int(rows[-1]["status"]) & Status.OVERFLOW
    check_the_cell_was_safe(link)


def test_the_limit_of_a_ramp_is_told_by_its_next_step(connected):
    smu, link = connected()
    start_V = link.world.cell.voltage_V
    levels = iter(voltage(start_V + 3e-3 * i, clamp=2e-7) for i in range(20))
    with pytest.raises(InstrumentRefused, match="beyond the clamp"):
        for_each(levels, smu)
    assert next(levels).level < start_V + 0.05
    assert link.modes()[-1] == "open"


def for_each(setpoints, smu):
    for setpoint in setpoints:
        smu.apply(setpoint)
        read(smu, 2)


@pytest.mark.parametrize("setpoint", [voltage(3.0), current(1e-8, clamp=3.4)])
def test_nothing_is_put_on_a_cell_that_is_not_in_its_window(simulated, setpoint):
    smu, link = simulated()
    window = Envelope(voltage_min_V=2.5, voltage_max_V=3.5, current_max_A=9e-7, charge_max_C=1e-3)
    smu.connect(window)
    with pytest.raises(UnsafeRequest, match="not in its window: nothing is put on it"):
        smu.apply(setpoint)
    assert set(link.modes()) == {"open"}
    assert smu.ensure_safe() is SafeState.S1


@pytest.mark.parametrize("setpoint", [current(5e-7), voltage(3.91)])
def test_an_instrument_whose_host_is_silent_opens_the_cell_by_itself(connected, setpoint):
    smu, link = connected()
    smu.apply(setpoint)
    read(smu, 40)
    renewed_ns = link.world.now_ns  # not before the last word
    charge_C = link.world.cell.source_C
    link.wait(10 * LEASE_S)
    source = link.world.truth()["source"]
    assert source["mode"][-1] == b"open"
    assert (source["t_ns"][-1] - renewed_ns) / 1e9 <= LEASE_S + INTERVAL_S
    assert abs(link.world.cell.source_C - charge_C) < 1e-6 * (LEASE_S + INTERVAL_S)
    with pytest.raises(InstrumentRefused, match="nothing was heard of the host for 2 s"):
        read(smu, 1000)
    check_the_cell_was_safe(link)


def test_a_turn_that_is_asked_for_too_late_tells_of_the_lease(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    link.wait(3.0)
    with pytest.raises(InstrumentRefused, match="nothing was heard of the host"):
        smu.apply(current(5e-7))
    assert link.modes()[-1] == "open"


def test_a_crash_costs_no_more_than_a_lease(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    before_C = link.world.cell.source_C
    smu.close()
    assert link.closed
    link.smu.attach(None)  # nobody listens any more
    link.wait(60.0)
    assert link.modes()[-1] == "open"
    assert link.world.cell.source_C - before_C < 5.1e-7 * (LEASE_S + INTERVAL_S)


def test_a_stop_takes_milliseconds(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    read(smu, 10)
    before_C = link.world.cell.source_C
    smu.ensure_safe()
    assert link.world.cell.source_C - before_C < 5.1e-7 * 0.01
    assert smu.rest_at_end() is SafeState.S2
    assert not link.smu.running
    assert smu.rest_at_end() is SafeState.S2


# --- what goes wrong -------------------------------------------------------------------------


def test_an_error_leaves_the_cell_on_and_the_driver_opens_it(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    link.smu.fail(0x0032)
    assert link.smu.output_on  # on_finished was not obeyed
    with pytest.raises(InstrumentRefused, match=r"overload of the cell.*; the cell was opened"):
        read(smu, 20)
    assert not link.smu.output_on
    assert link.modes()[-1] == "open"
    assert smu.ensure_safe() is SafeState.S1


def test_an_error_whose_cell_cannot_be_opened_says_so(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    link.smu.fail(0x7FFF)
    link.change = lambda _, line: None
    with pytest.raises(InstrumentRefused, match="and the cell could not be opened"):
        read(smu, 20)


def test_a_script_that_is_not_understood_is_refused(connected, monkeypatch):
    smu, link = connected()
    monkeypatch.delitem(mocks.methodscript._COMMANDS, "meas_loop_cp")
    with pytest.raises(InstrumentRefused, match=r"e!4001: Line \d+, Col \d+ \(it does not know a"):
        smu.apply(current(5e-7))
    assert link.modes()[-1] == "open"
    assert smu.ensure_safe() is SafeState.S1


def test_a_cell_that_cannot_be_opened_is_not_called_safe(connected, monkeypatch):
    smu, _ = connected()
    smu.apply(current(5e-7))
    monkeypatch.delitem(mocks.methodscript._COMMANDS, "cell_off")
    with pytest.raises(InstrumentRefused, match="could not be opened"):
        smu.ensure_safe()


def test_no_response_that_fails_keeps_the_cell_from_safety(made):
    """The n-th line of the instrument is lost, or garbled, for all n."""

    def play(spoil, count):
        link = DirectLink()
        made.append(link)
        link.change = lambda number, line: spoil(line) if number == count else line
        smu = PalmsensMethodscript(link, now_ns=link.now_ns)
        try:
            smu.connect(ENVELOPE)
            smu.apply(current(5e-7))
            read(smu, 3)
            smu.apply(voltage(3.905))
            smu.apply(voltage(3.906))
            smu.apply(voltage(3.907))
            read(smu, 3)
            smu.exchange_clock()
            smu.apply(current(0.0))
        except InstrumentError:
            pass
        if link.heard < count:
            return False
        link.change = lambda _, line: line
        assert smu.ensure_safe() is SafeState.S1
        assert link.modes()[-1] == "open"
        assert read(smu, 20)["current_A"][-1] == 0
        assert smu.rest_at_end() is SafeState.S2
        check_the_cell_was_safe(link)
        return True

    for spoil in (lambda _: None, lambda line: "%" + line[1:], lambda line: line[:-3]):
        count = 1
        while play(spoil, count):
            count += 1
        assert count > 60


def test_one_lost_line_does_not_keep_the_cell_from_its_rest(connected):
    for rest, wanted in (("ensure_safe", SafeState.S1), ("rest_at_end", SafeState.S2)):
        lost = 0
        while True:
            smu, link = connected()
            smu.apply(current(5e-7))
            before, lost = link.heard, lost + 1
            link.change = lambda n, line, k=before + lost: None if n == k else line
            if rest == "rest_at_end" and lost > 2:
                break  # that the open cell is told again, `ensure_safe` sees to
            assert getattr(smu, rest)() is wanted
            assert link.modes()[-1] == "open"
            if link.heard < before + lost:
                break
        assert lost > 2


def test_a_line_that_makes_no_sense_is_an_invalid_row(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    read(smu, 3)
    link.change = lambda _, line: line.replace(";ab8", ";ab") if line.startswith("P") else line
    row = smu.read()[0]
    assert int(row["status"]) & Status.INVALID
    assert not int(row["status"]) & Status.TOLD
    assert math.isnan(row["voltage_V"])
    with pytest.raises(ReplyError, match="does not tell its time"):
        smu.exchange_clock()
    link.change = lambda _, line: line
    assert int(read(smu, 10)["status"][-1]) == Status.TOLD


def test_a_silent_instrument_is_not_called_safe(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    link.change = lambda _, line: None
    with pytest.raises(NoReply, match="does not say that its script has ended"):
        smu.ensure_safe()
    with pytest.raises(LinkError):
        read(smu, 10)  # beside what was heard before
    with pytest.raises(NoReply):
        smu.rest_at_end()


def test_a_stream_that_goes_on_and_on_is_no_answer(connected):
    """The line to the instrument is cut, not the one from it."""
    smu, link = connected()
    smu.apply(current(5e-7))
    link.write = lambda _: None
    talk = iter(range(10**6))

    def listen():
        link.wait(0.05)
        return type("R", (), {"text": f"T{next(talk)}", "received_ns": link.now_ns()})()

    link.listen = listen
    for ask in (smu.ensure_safe, smu._stream.version, smu._stream.next_turn, smu._stream.open_cell):
        with pytest.raises(NoReply):
            ask()
    with pytest.raises(NoReply, match="does not tell whether it takes the script"):
        smu._stream._accept("e")


def test_a_script_that_somebody_else_has_ended_is_told(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    link.write("Z")
    with pytest.raises(InstrumentRefused, match="the script ended before M"):
        smu.apply(current(5e-7))
    assert smu.ensure_safe() is SafeState.S1


def test_a_question_that_must_wait_for_the_script_is_refused(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    with pytest.raises(InstrumentRefused, match="i!0006; the cell was opened"):
        smu._stream.serial()
    assert link.modes()[-1] == "open"


def test_packages_that_came_unasked_are_taken_without_a_question(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    read(smu, 2)
    link.wait(0.4)
    link.sent.clear()
    rows = read(smu, 10)
    assert link.sent == ["t"]
    assert np.all(np.diff(rows["device_time_s"]) == pytest.approx(INTERVAL_S, rel=1e-3))


def test_a_power_cycle_is_noticed(connected):
    smu, link = connected()
    smu.apply(current(5e-7))
    link.smu.power_cycle()
    with pytest.raises(NoReply):
        read(smu, 5)
    assert link.modes()[-1] == "open"
    assert smu.ensure_safe() is SafeState.S1


def test_a_longest_rest_goes_on(connected, monkeypatch):
    monkeypatch.setattr("potentiostat.methodscript_scripts.LONGEST_REST_S", 0.2)
    smu, link = connected()
    smu.ensure_safe()
    assert np.all(read(smu, 20)["current_A"] == 0)
    assert sum("meas_loop_ocp p 40m 200m" in s for s in link.sent) > 2


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda line: line.replace(",20C", ",209"), "is its number 12, and it uses 9"),
        (lambda line: line.replace("db807A120p", "db807A121n"), "was set to 5e-07 and applies"),
        (lambda line: line.split(";db")[0], "does not tell what it applies"),
    ],
)
def test_what_is_not_applied_is_told(connected, spoil, why):
    smu, link = connected()
    link.change = lambda _, line: spoil(line)
    with pytest.raises(NotApplied, match=why):
        smu.apply(current(5e-7))
    link.change = lambda _, line: line
    assert smu.ensure_safe() is SafeState.S1
    assert link.modes()[-1] == "open"


def test_a_range_without_a_known_number_is_not_compared(simulated):
    smu, _ = simulated(kind=NEXUS)
    smu.connect(ENVELOPE)
    smu.apply(current(5e-7))
    assert smu.read()["range_A"][0] == 1e-6


# --- time --------------------------------------------------------------------------------------


def test_a_reading_lies_between_its_host_stamps(connected):
    smu, link = connected()
    smu.apply(voltage(3.905))
    rows = []
    for _ in range(40):
        link.wait(0.013)  # the question comes when the reading has long begun
        rows.append(smu.read()[0])
    middle_ns = link.world.truth()["samples"]["t_ns"]
    began_ns = middle_ns - round(INTERVAL_S * 5e8)
    for row in rows[5:]:
        truth = np.argmin(np.abs(began_ns / 1e9 - row["device_time_s"]))
        assert began_ns[truth] / 1e9 == pytest.approx(row["device_time_s"], abs=2e-3)
        assert row["read_start_ns"] <= began_ns[truth]
        assert row["read_end_ns"] >= began_ns[truth] + INTERVAL_S * 1e9


def test_the_clock_of_an_exchange_is_the_hosts(connected):
    smu, _ = connected()
    for setpoint in (current(5e-7), voltage(3.905), current(0.0)):
        smu.apply(setpoint)
        for _ in range(3):
            found = smu.exchange_clock()
            middle_s = (found.sent_ns + found.received_ns) / 2e9
            assert found.device_time_s == pytest.approx(middle_s, abs=2e-3)
        assert len(read(smu, 3)) == 3


# --- over real links -------------------------------------------------------------------------


def test_over_a_socket(start_bench):
    bench = start_bench(driver="palmsens_methodscript", scenario="lco_thin_film")
    link = VisaLink(bench.resource, now_ns=bench.now_ns, identity_query="t", serial_baud=230_400)
    with link:
        smu = PalmsensMethodscript(link, now_ns=bench.now_ns)
        assert smu.connect(ENVELOPE).model == "EmStat4 HR"
        smu.apply(current(5e-7))
        rows = read(smu, 60)
        assert rows["voltage_V"][-1] == pytest.approx(bench.world.cell.voltage_V, abs=6e-3)
        for level_V in (3.9, 3.901, 3.902, 3.903):
            smu.apply(voltage(level_V))
        smu.apply(voltage(3.89))
        smu.apply(voltage(3.896))
        smu.apply(voltage(3.902))  # a large step settles anew
        rows = read(smu, 30)
        new = rows["status"][rows["setpoint"] == 3.902]
        assert new[0] == Status.POTENTIOSTATIC  # of the ramp, a while ago
        assert Status.POTENTIOSTATIC | Status.SETTLING in new
        assert new[-1] == Status.POTENTIOSTATIC
        assert bench.world.source.level == pytest.approx(3.902, abs=6e-3)
        assert smu.rest_at_end() is SafeState.S2
        assert bench.world.source.mode == "open"


class SerialInstrument:
    """The simulated instrument at the far end of a pseudo-terminal, in virtual time."""

    def __init__(self):
        import tty

        self.link = DirectLink()
        self.near, far = os.openpty()
        tty.setraw(far)
        self._far = far
        self.resource = f"ASRL{os.ttyname(far)}::INSTR"
        self.link.smu.attach(lambda line: os.write(self.near, line.encode() + b"\n"))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        rest = b""
        while True:
            try:
                more = os.read(self.near, 4096)
            except OSError:
                return
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                if line == b"stop":
                    return
                finish(self.link.smu.handle(line.decode()))

    def stop(self):
        os.write(self._far, b"stop\n")
        self._thread.join(5)
        assert not self._thread.is_alive()
        os.close(self._far)
        os.close(self.near)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_over_a_serial_line():
    pytest.importorskip("serial", reason="pyserial is not installed (the dev extra brings it)")
    instrument = SerialInstrument()
    link = VisaLink(
        instrument.resource,
        now_ns=instrument.link.now_ns,
        identity_query=PalmsensMethodscript.identity_query,
        serial_baud=PalmsensMethodscript.serial_baud,
    )
    try:
        with link:
            assert link._visa.baud_rate == 230_400
            smu = PalmsensMethodscript(link, now_ns=instrument.link.now_ns)
            assert smu.connect(ENVELOPE).serial == "ES4HR23K0017"
            smu.apply(current(5e-7))
            assert read(smu, 60)["current_A"][-1] == 5e-7
            assert instrument.link.modes()[-1] == "current"
            assert smu.rest_at_end() is SafeState.S2
            assert instrument.link.modes()[-1] == "open"
            check_the_cell_was_safe(instrument.link)
    finally:
        instrument.stop()
