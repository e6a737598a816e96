"""The film and its titration against PyBaMM, which solves the same equations by itself."""

import os
import warnings
from dataclasses import replace

import numpy as np
import pytest

from correlate.gitt import titrate
from correlate.titration import Pulse, Setting
from correlate.titration_bins import Readings
from mocks.cell import THERMAL_V, Source
from mocks.film import FilmCell
from mocks.scenario import load
from tests.correlate.slabs import ALL_C, PER_HOUR_A, THICKNESS_M

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

FILM = load("lco_solid_solution").cell
BARE = replace(FILM, stray_F=0.0, leak_ohm=1e30, dielectric_F=0.0)
ACROSS_S = THICKNESS_M**2 / FILM.diffusivity_m2_s
CELLS = 300
NOISE_V = 1e-6  # a step of the relaxed voltage is 30 uV at C/100


@pytest.fixture(scope="module")
def pybamm():
    os.environ["PYBAMM_DISABLE_TELEMETRY"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("pybamm", reason="PyBaMM is not installed")


def lco_ocp(pybamm, x):
    """Open-circuit voltage of LiCoO2 as PyBaMM's own parameter set has it."""
    from pybamm.input.parameters.lithium_ion.Marquis2019 import lico2_ocp_Dualfoil1998

    return lico2_ocp_Dualfoil1998(x)


class Slab:
    """1-D Fick in a slab, Butler-Volmer, and a resistor, in finite volumes."""

    def __init__(self, pybamm, straight_V=None):
        model = pybamm.BaseModel()
        removed = pybamm.Variable("removed", domain="film")
        z = pybamm.SpatialVariable("z", domain="film")
        current_A = pybamm.InputParameter("I")
        flux = -pybamm.grad(removed) / ACROSS_S
        model.rhs = {removed: -pybamm.div(flux)}
        model.boundary_conditions = {
            removed: {
                "left": (-current_A * ACROSS_S / ALL_C, "Neumann"),
                "right": (pybamm.Scalar(0.0), "Neumann"),
            }
        }
        begin = FILM.front_start_m / FILM.film_thickness_m
        model.initial_conditions = {removed: pybamm.Scalar(begin)}
        surface = pybamm.BoundaryValue(removed, "left")
        if straight_V is None:
            rest_V = lco_ocp(pybamm, 1.0 - surface)
        else:
            rest_V = 3.9 + straight_V * surface
        charge_transfer = current_A / (2 * FILM.exchange_current_A)
        polarised_V = current_A * FILM.electrolyte_ohm
        polarised_V += 2 * THERMAL_V * pybamm.arcsinh(charge_transfer)
        model.variables = {"V": rest_V + polarised_V}
        geometry = {"film": {z: {"min": pybamm.Scalar(0.0), "max": pybamm.Scalar(1.0)}}}
        mesh = pybamm.Mesh(geometry, {"film": pybamm.Uniform1DSubMesh}, {z: CELLS})
        discretisation = pybamm.Discretisation(mesh, {"film": pybamm.FiniteVolume()})
        discretisation.process_model(model)
        self._model = model
        self._solver = pybamm.IDAKLUSolver(rtol=1e-8, atol=1e-10)

    def play(self, spans):
        """Hold currents one after the other; return times, voltages and charges.

        Each span is a current, how long, and how many readings.
        """
        solution, start_s, charge_C = None, 0.0, 0.0
        rows = []
        for current_A, seconds, points in spans:
            at_s = np.linspace(0.0, seconds, points + 1)
            solution = self._solver.step(
                solution, self._model, seconds, t_eval=at_s, inputs={"I": current_A}, save=False
            )
            volts = solution["V"](start_s + at_s[1:])
            rows.append((start_s + at_s[1:], volts, charge_C + current_A * at_s[1:]))
            start_s, charge_C = start_s + seconds, charge_C + current_A * seconds
        return (np.concatenate(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("rate", [0.1, -0.1, -1.0, 1.0])
def test_the_simulated_film_has_the_voltage_of_an_independent_solver(pybamm, rate):
    spans = [(rate * PER_HOUR_A, 250.0, 500), (0.0, 500.0, 1000), (-rate * PER_HOUR_A, 100.0, 200)]
    t_s, volts, charge_C = Slab(pybamm).play(spans)
    cell, own_V = FilmCell(BARE), []
    for current_A, seconds, points in spans:
        for _ in range(points):
            cell.step(seconds / points, Source(mode="current", level=current_A, clamp=5.0))
            own_V.append(cell.voltage_V)
    assert np.ptp(volts) > 5e-3
    assert np.max(np.abs(np.array(own_V) - volts)) < 1e-4
    # Where nothing has just changed they are much closer.
    assert abs(own_V[499] - volts[499]) < 1e-4
    assert cell.ion_C == pytest.approx(charge_C[-1], rel=1e-9)
    assert t_s[-1] == pytest.approx(850.0)


def titrated(pybamm, level_A, share, *, pulses, straight_V=None):
    tau_s, rest_s = share * ACROSS_S, 1.2 * ACROSS_S
    pulse, rest = (level_A, tau_s, 400), (0.0, rest_s, 3000)
    t_s, volts, charge_C = Slab(pybamm, straight_V).play([rest, *([pulse, rest] * pulses)])
    noise_V = NOISE_V * np.random.default_rng(7).standard_normal(len(t_s))
    begins = [rest_s + i * (tau_s + rest_s) for i in range(pulses)]
    return titrate(
        Readings(
            t_s=t_s, volts=volts + noise_V, sigma_V=np.full(len(t_s), NOISE_V), charge_C=charge_C
        ),
        [
            Pulse(rest_s=b - rest_s, begin_s=b, end_s=b + tau_s, rest_end_s=b + tau_s + rest_s)
            for b in begins
        ],
        Setting(thickness_m=THICKNESS_M, settling_s=0.05 * tau_s),
    )


@pytest.mark.parametrize(
    ("rate", "share", "straight_V"), [(-0.01, 0.04, None), (0.01, 0.08, None), (0.1, 0.04, 0.5)]
)
def test_the_diffusivity_of_an_independent_film_is_found(pybamm, rate, share, straight_V):
    found = titrated(pybamm, rate * PER_HOUR_A, share, pulses=2, straight_V=straight_V)
    for pulse in found:
        assert pulse.valid, pulse.reasons
        assert pulse.diffusivity_m2_s == pytest.approx(FILM.diffusivity_m2_s, rel=0.05)
        assert pulse.fit_m2_s == pytest.approx(FILM.diffusivity_m2_s, rel=0.05)


@pytest.mark.parametrize(("rate", "share"), [(-0.1, 0.04), (-1.0, 0.004), (-1.0, 0.1)])
def test_the_guard_says_no_where_the_formula_fails_on_it(pybamm, rate, share):
    (found,) = titrated(pybamm, rate * PER_HOUR_A, share, pulses=1)
    assert not found.valid
    assert abs(found.diffusivity_m2_s / FILM.diffusivity_m2_s - 1) > 0.05
