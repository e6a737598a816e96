"""The hidden cell: analytic limits, conservation, and what harms it."""

import math
from dataclasses import replace

import pytest

from mocks.cell import Cell, CellParameters, Source, open_circuit_V
from mocks.scenario import load, names

PARAMETERS = load("lco_lipon_li").cell


def run(cell, seconds, source, dt_s=0.01):
    for _ in range(round(seconds / dt_s)):
        cell.step(dt_s, source)
    return cell


def charge(level=20e-12, clamp=4.3):
    return Source(mode="current", level=level, clamp=clamp)


@pytest.mark.parametrize("stray_F", [0.0, 1e-15, 30e-12, 300e-12])
@pytest.mark.parametrize("leak_ohm", [36e9, 1e12, 1e15])
def test_the_ledger_closes_to_round_off(stray_F, leak_ohm):
    cell = Cell(replace(PARAMETERS, stray_F=stray_F, leak_ohm=leak_ohm, beam_current_A=1e-12))
    start_V = cell.voltage_V
    run(cell, 60, charge())
    rest = cell.source_C - (
        cell.ion_C + stray_F * (cell.voltage_V - start_V) + cell.leak_C + cell.slow_C - cell.beam_C
    )
    assert abs(rest) < 1e-11 * cell.source_C + 1e-24


def test_without_parasites_all_charge_is_ionic_and_the_front_obeys_faraday():
    ideal = replace(PARAMETERS, stray_F=0.0, leak_ohm=1e30, dielectric_F=0.0)
    cell = run(Cell(ideal), 30, charge())
    assert cell.ion_C == pytest.approx(600e-12, rel=1e-9)
    speed = (cell.front_m - ideal.front_start_m) / 30
    assert speed == pytest.approx(20e-12 / (96485.33212 * 25750 * 1e-11), rel=1e-9)


def test_the_instrument_is_wrong_by_more_than_five_per_cent():
    cell = run(Cell(PARAMETERS), 120, charge())
    assert cell.source_C / cell.ion_C > 1.05


@pytest.mark.parametrize("dt_s", [0.002, 0.05, 0.1])
def test_the_step_does_not_matter(dt_s):
    fine = run(Cell(PARAMETERS), 20, charge(), 0.01)
    other = run(Cell(PARAMETERS), 20, charge(), dt_s)
    assert other.ion_C == pytest.approx(fine.ion_C, rel=2e-4)
    assert other.voltage_V == pytest.approx(fine.voltage_V, abs=2e-4)


def test_an_open_holder_discharges_through_its_leak():
    holder = replace(PARAMETERS, dielectric_F=0.0)
    cell = Cell(holder, mated=False)
    run(cell, 5, Source(mode="voltage", level=4.0, clamp=1e-6), 0.01)
    assert cell.voltage_V == 4.0
    run(cell, 60, Source(), 0.01)
    tau_s = holder.stray_F * holder.leak_ohm
    assert cell.voltage_V == pytest.approx(4.0 * math.exp(-60 / tau_s), rel=1e-3)
    assert cell.ion_C == 0.0


def test_a_slow_branch_takes_its_charge_with_its_own_time():
    holder = replace(PARAMETERS, leak_ohm=1e30)
    cell = Cell(holder, mated=False)
    run(cell, 15, Source(mode="voltage", level=1.0, clamp=1.0), 0.01)
    assert cell.slow_C == pytest.approx(holder.dielectric_F * (1 - math.exp(-1)), rel=0.01)


def test_the_clamp_holds_the_voltage_and_says_so():
    cell = run(Cell(PARAMETERS), 5, charge(level=2e-9, clamp=4.0))
    assert cell.voltage_V == pytest.approx(4.0)
    assert cell.clamped
    assert cell.source_A < 2e-9
    run(cell, 5, charge(level=-2e-9, clamp=4.0))
    assert cell.voltage_V >= -4.0


def test_a_voltage_source_is_held_by_its_current_clamp():
    cell = run(Cell(PARAMETERS), 1, Source(mode="voltage", level=0.0, clamp=5e-12))
    assert cell.clamped
    assert cell.source_A == pytest.approx(-5e-12)
    assert cell.voltage_V > 3.0


def test_zero_volts_drains_the_cell():
    cell = run(Cell(PARAMETERS), 20, Source(mode="voltage", level=0.0, clamp=1.0))
    assert cell.ion_C < -PARAMETERS.charge_per_m_C * 50e-9


def test_the_open_circuit_voltage_is_finite_everywhere():
    values = [open_circuit_V(f) for f in (-10, 0, 0.05, 0.5, 0.95, 1.0, 10)]
    assert all(math.isfinite(v) for v in values)
    assert values[1] < values[2] < values[3] < values[4] < values[5]


def test_mating_takes_the_voltage_of_the_cell():
    cell = Cell(PARAMETERS, mated=False)
    assert cell.voltage_V == 0.0
    cell.mate()
    assert cell.voltage_V == pytest.approx(cell.equilibrium_V)


def test_scenarios_are_named_and_their_numbers_can_be_replaced():
    assert {"lco_lipon_li", "lco_solid_solution", "lco_thin_film"} <= set(names())
    changed = load("lco_lipon_li", stray_F=1e-12, height=64.0, dropped_ratio=0.5)
    assert changed.cell.stray_F == 1e-12
    assert changed.camera.height == 64
    assert isinstance(changed.cell, CellParameters)
    for wrong, says in (
        ({"name": "lco_lipon"}, "did you mean lco_lipon_li"),
        ({"name": "zzz"}, "there is .*lco_lipon_li"),
        ({"name": "lco_lipon_li", "colour": 1.0}, "has no 'colour'"),
        ({"name": "lco_lipon_li", "stray_F": math.nan}, "must be finite"),
    ):
        with pytest.raises(ValueError, match=says):
            load(**wrong)


@pytest.mark.parametrize("mated", [True, False])
def test_a_voltmeter_in_series_draws_what_its_resistance_lets_through(mated):
    cell = Cell(replace(PARAMETERS, leak_ohm=1e15, dielectric_F=0.0), mated=mated)
    start_V = cell.voltage_V
    run(cell, 10, Source(mode="voltage", level=start_V + 1.0, series_ohm=2e14))
    assert cell.source_A == pytest.approx(5e-15, rel=1e-2)
    assert cell.source_C == pytest.approx(50e-15, rel=1e-2)
    assert cell.voltage_V == pytest.approx(start_V + (0 if mated else 50e-15 / 150e-12), abs=1e-4)
    assert not cell.clamped
