"""The film without a front: against closed forms, and what it keeps."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mocks.cell import FARADAY_C_MOL, Cell, Source
from mocks.film import FilmCell, new_cell, solid_solution_V
from mocks.scenario import load
from mocks.world import World

P = load("lco_solid_solution").cell
BARE = replace(P, stray_F=0.0, leak_ohm=1e30, dielectric_F=0.0)
ACROSS_S = P.film_thickness_m**2 / P.diffusivity_m2_s
LEVEL_A = 0.34e-12


def current(level_A=LEVEL_A):
    return Source(mode="current", level=level_A, clamp=5.0)


def run(cell, seconds, source, dt_s):
    for _ in range(round(seconds / dt_s)):
        cell.step(dt_s, source)
    return cell


def series(t_s, level_A=LEVEL_A, terms=20_000):
    """Share removed from the surface of a slab under a constant flux, in closed form."""
    k = np.arange(1, terms + 1)
    flux = level_A / (FARADAY_C_MOL * P.area_m2)
    x = t_s / ACROSS_S
    sum_ = x + 1 / 3 - 2 / np.pi**2 * np.sum(np.exp(-((k * np.pi) ** 2) * x) / k**2)
    scale = flux * P.film_thickness_m / P.diffusivity_m2_s / P.concentration_step_mol_m3
    return scale * sum_


@pytest.mark.parametrize("seconds", [1.0, 25.0, 250.0, 2500.0])
def test_the_surface_is_that_of_the_closed_form(seconds):
    cell = run(FilmCell(BARE), seconds, current(), max(0.05, seconds / 500))
    found = cell.surface_removed - P.front_start_m / P.film_thickness_m
    assert found == pytest.approx(series(seconds), rel=1e-3)


def test_a_short_pulse_sees_no_back_of_the_film():
    cell = run(FilmCell(BARE), 20.0, current(), 0.05)
    found = cell.surface_removed - P.front_start_m / P.film_thickness_m
    flux = LEVEL_A / (FARADAY_C_MOL * P.area_m2 * P.concentration_step_mol_m3)
    assert found == pytest.approx(2 * flux * math.sqrt(20.0 / (math.pi * 1e-16)), rel=1e-3)


def test_after_a_pulse_the_surface_comes_back_to_the_mean_by_superposition():
    cell = run(FilmCell(BARE), 250.0, current(), 0.5)
    run(cell, 250.0, Source(), 0.5)
    begin = P.front_start_m / P.film_thickness_m
    assert cell.surface_removed - begin == pytest.approx(series(500.0) - series(250.0), rel=1e-3)
    run(cell, 4 * ACROSS_S, Source(), 50.0)
    mean = LEVEL_A * 250.0 / (P.charge_per_m_C * P.film_thickness_m)
    assert cell.surface_removed - begin == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("dt_s", [0.01, 1.0])
def test_the_ledger_closes_to_round_off(dt_s):
    cell = FilmCell(replace(P, leak_ohm=1e12, beam_current_A=1e-13))
    start_V = cell.voltage_V
    run(cell, 60.0, current(20e-12), dt_s)
    rest = cell.source_C - (
        cell.ion_C + P.stray_F * (cell.voltage_V - start_V) + cell.leak_C + cell.slow_C
    )
    assert abs(rest + cell.beam_C) < 1e-11 * cell.source_C
    moved_m = cell.front_m - P.front_start_m
    assert moved_m * P.charge_per_m_C == pytest.approx(cell.ion_C, rel=1e-9)


def test_the_step_does_not_matter():
    fine = run(FilmCell(P), 30.0, current(5e-12), 0.01)
    coarse = run(FilmCell(P), 30.0, current(5e-12), 0.1)
    assert coarse.voltage_V == pytest.approx(fine.voltage_V, abs=1e-4)


def test_a_held_voltage_is_held_and_its_current_falls():
    cell = FilmCell(P)
    held = Source(mode="voltage", level=cell.voltage_V + 0.02, clamp=1e-9)
    run(cell, 20.0, held, 0.01)
    early_A = cell.ion_A
    run(cell, 200.0, held, 0.1)
    assert cell.voltage_V == held.level
    assert 0 < cell.ion_A < 0.8 * early_A


def test_the_clamp_holds_a_film_that_is_driven_too_far():
    cell = run(FilmCell(P), 20.0, Source(mode="current", level=5e-10, clamp=4.3), 0.01)
    assert cell.clamped
    assert cell.voltage_V == pytest.approx(4.3)


def test_the_open_circuit_voltage_rises_and_its_slope_is_right():
    removed = np.linspace(0.05, 0.6, 40)
    volts = np.array([solid_solution_V(f)[0] for f in removed])
    assert np.all(np.diff(volts) > 0)
    for f in (0.1, 0.25, 0.5, 0.9, -0.5, 2.0):
        rise = (solid_solution_V(f + 1e-6)[0] - solid_solution_V(f - 1e-6)[0]) / 2e-6
        assert solid_solution_V(f)[1] == pytest.approx(rise, rel=1e-5, abs=1e-6)
    assert 3.8 < solid_solution_V(0.25)[0] < 4.0


def test_a_straight_voltage_starts_where_that_of_the_film_does():
    straight = FilmCell(replace(BARE, straight_V=0.6))
    assert straight.voltage_V == pytest.approx(FilmCell(BARE).voltage_V)
    run(straight, 250.0, current(), 0.5)
    run(straight, 3 * ACROSS_S, Source(), 50.0)
    rise_V = 0.6 * LEVEL_A * 250.0 / (P.charge_per_m_C * P.film_thickness_m)
    assert straight.voltage_V - FilmCell(BARE).voltage_V == pytest.approx(rise_V, rel=1e-6)


def test_the_world_takes_either_cell_and_tells_the_diffusivity_in_the_truth():
    world = World(load("lco_solid_solution", diffusivity_m2_s=3e-15), seed=1, start_ns=0)
    world.set_source(current(20e-12), output_on=True)
    world.advance_to(10**9)
    truth = world.truth()
    assert truth["film"]["diffusivity"] == [3e-15]
    assert truth["cell"]["voltage"][-1] > truth["cell"]["voltage"][0]
    world.open_holder()
    assert world.cell.voltage_V == 0.0
    world.mate_cell()
    assert isinstance(world.cell, FilmCell)
    front = new_cell(load("lco_lipon_li").cell)
    assert type(front) is Cell
    assert "film" not in World(load("lco_lipon_li"), seed=1, start_ns=0).truth()
