"""Limits, noise, hazards, names and techniques."""

import importlib.metadata
import math
from dataclasses import replace

import pytest

from potentiostat.drivers.keithley6430 import Keithley6430
from potentiostat.errors import UnknownInstrument
from potentiostat.limits import Condition, Envelope, Seen
from potentiostat.noise import current_sigma_A, voltage_sigma_V
from potentiostat.protocol import SafeState
from potentiostat.registry import potentiostat_class, potentiostat_names
from potentiostat.safety import HAZARDS, biases_cell_when_off, hazards_of
from potentiostat.technique import chronopotentiometry

ENVELOPE = Envelope(voltage_min_V=2.5, voltage_max_V=4.2, current_max_A=1e-10, charge_max_C=8e-9)

# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voltage_V", "current_A", "charge_C", "what"),
    [
        (4.2001, 0, 0, "voltage 4.2001 V is above the limit 4.2 V"),
        (2.4999, 0, 0, "voltage 2.4999 V is below the limit 2.5 V"),
        (-3.0, 0, 0, "below"),
        (3.9, 1.01e-10, 0, "current 1.01e-10 A is beyond"),
        (3.9, -1.01e-10, 0, "current -1.01e-10 A is beyond"),
        (3.9, 0, 8.1e-9, "charge 8.1e-09 C is beyond"),
        (3.9, 0, -8.1e-9, "charge"),
        (math.inf, 0, 0, "above"),
        (3.9, -math.inf, 0, "current"),
        (5.0, 1e-9, 1e-7, "voltage"),
    ],
)
def test_a_broken_limit_is_named(voltage_V, current_A, charge_C, what):
    said = ENVELOPE.violation(voltage_V=voltage_V, current_A=current_A, charge_C=charge_C)
    assert said is not None
    assert what in said


def test_limits_of_ionic_charge_and_time_are_named_and_hold_only_where_both_are_known():
    limits = replace(ENVELOPE, charge_ionic_max_C=5e-9, time_max_s=60.0)
    now = {"voltage_V": 3.9, "current_A": 0.0, "charge_C": 6e-9}
    assert "ionic charge -5.1e-09 C" in str(limits.violation(**now, charge_ionic_C=-5.1e-9))
    assert "time 60.1 s is beyond" in str(limits.violation(**now, elapsed_s=60.1))
    assert limits.violation(**now, charge_ionic_C=5e-9, elapsed_s=60.0) is None
    assert limits.violation(**now) is None


@pytest.mark.parametrize(
    ("voltage_V", "current_A", "charge_C"),
    [
        (4.2, 1e-10, 8e-9),
        (2.5, -1e-10, -8e-9),
        (3.9, 0, 0),
        (math.nan, math.nan, math.nan),
    ],
)
def test_values_on_the_limit_and_no_numbers_break_none(voltage_V, current_A, charge_C):
    said = ENVELOPE.violation(voltage_V=voltage_V, current_A=current_A, charge_C=charge_C)
    assert said is None


NOW = {"voltage_V": 4.0, "current_A": -5e-11, "charge_C": 2e-9, "elapsed_s": 60.0}


@pytest.mark.parametrize(
    ("quantity", "value"), [("V", 4.0), ("I", -5e-11), ("Q", 2e-9), ("t", 60.0)]
)
def test_a_condition_looks_at_its_own_quantity(quantity, value):
    def met(relation, limit):
        condition = Condition(quantity=quantity, relation=relation, value=limit, text="")
        return condition.met(Seen(**NOW))

    above, below = value + abs(value) / 10, value - abs(value) / 10
    assert met(">", below)
    assert not met(">", above)
    assert met("<", above)
    assert not met("<", below)
    assert not met(">", value)
    assert not met("<", value)


@pytest.mark.parametrize("relation", [">", "<"])
def test_a_condition_is_never_met_by_what_is_no_number(relation):
    condition = Condition(quantity="V", relation=relation, value=0.0, text="")
    assert not condition.met(Seen(**{**NOW, "voltage_V": math.nan}))


# --- noise -----------------------------------------------------------------------------------


def test_current_noise_is_johnsons_at_zero_current():
    found = current_sigma_A(0.0, feedback_ohm=1e10, window_s=0.02, resolution_A=0.0)
    assert found == pytest.approx(math.sqrt(4 * 1.380649e-23 * 298.15 / 1e10 / 0.04))


def test_current_noise_is_schottkys_in_a_large_resistor():
    found = current_sigma_A(-1e-10, feedback_ohm=1e20, window_s=0.02, resolution_A=0.0)
    assert found == pytest.approx(math.sqrt(2 * 1.602176634e-19 * 1e-10 / 0.04), rel=1e-6)


def test_the_last_digit_limits_what_averaging_gains():
    found = current_sigma_A(0.0, feedback_ohm=1e10, window_s=1e9, resolution_A=1e-15)
    assert found == pytest.approx(1e-15 / math.sqrt(12), rel=1e-3)


def test_voltage_noise_falls_with_the_root_of_the_window():
    one, four = (
        voltage_sigma_V(noise_V_at_1_plc=5e-5, window_s=w, step_V=0.0) for w in (0.02, 0.08)
    )
    assert one == pytest.approx(5e-5)
    assert four == pytest.approx(2.5e-5)
    coarse = voltage_sigma_V(noise_V_at_1_plc=3e-5, window_s=0.02, step_V=4e-5 * math.sqrt(12))
    assert coarse == pytest.approx(5e-5)


# --- hazards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["NORM", "NORMAL", "normal", "ZERO", "GUAR", "guard", "HIMP", ""])
def test_every_off_state_of_the_6430_counts_as_harmful(state):
    assert biases_cell_when_off("6430", state)


def test_high_impedance_is_harmless_where_the_model_has_it():
    assert not biases_cell_when_off("2400", "HIMPedance")
    assert biases_cell_when_off("2400", "NORM")
    assert biases_cell_when_off("2400", "whatever")


def test_an_unknown_model_counts_as_harmful():
    assert hazards_of("9999") is None
    assert biases_cell_when_off("9999", "HIMP")


@pytest.mark.parametrize("row", HAZARDS, ids=lambda row: row.model)
def test_each_row_of_hazards_is_consistent(row):
    assert hazards_of(row.model) is row
    assert row.default in {state.name for state in row.off_states}
    # Rest at high impedance is offered exactly where an off state leaves the cell alone.
    harmless = any(not state.biases_cell for state in row.off_states)
    assert (SafeState.S2 in row.rest_states) == harmless
    assert row.source


# --- names -------------------------------------------------------------------------------------


def test_a_registered_driver_is_found_by_its_name():
    assert "keithley6430" in potentiostat_names()
    assert potentiostat_class("keithley6430") is Keithley6430


def test_a_misspelt_name_gets_a_hint():
    with pytest.raises(UnknownInstrument, match="did you mean 'keithley6430'"):
        potentiostat_class("keithly6430")


def test_a_strange_name_gets_the_list():
    with pytest.raises(UnknownInstrument, match="known are .*keithley6430"):
        potentiostat_class("zzz")


def test_names_come_once_and_sorted(monkeypatch):
    def entry(name):
        return importlib.metadata.EntryPoint(name, "x:y", "lamella.potentiostats")

    monkeypatch.setattr(
        "potentiostat.registry.entry_points", lambda group: [entry("b"), entry("a"), entry("b")]
    )
    assert potentiostat_names() == ("a", "b")


# --- techniques --------------------------------------------------------------------------------


def condition(quantity, relation, value):
    return Condition(quantity=quantity, relation=relation, value=value, text="")


def test_a_step_becomes_a_clamped_current():
    (segment,) = chronopotentiometry(-2e-11, ()).segments
    setpoint = segment.setpoint(ENVELOPE, 1e-10, math.nan)
    assert (setpoint.mode, setpoint.level) == ("current", -2e-11)
    assert (setpoint.clamp, setpoint.range_A) == (4.2, 1e-10)


def test_the_longest_duration_is_the_earliest_end_in_time():
    until = (
        condition("t", ">", 600.0),
        condition("t", ">", 60.0),
        condition("t", "<", 5.0),
        condition("V", ">", 4.0),
    )
    assert chronopotentiometry(1e-11, until).longest_s == 60.0
    assert chronopotentiometry(1e-11, until[2:]).longest_s == math.inf
