"""Simulated lithium follows the charge of its cell."""

import numpy as np
import pytest

from mocks.camera import new_scene
from mocks.scenario import load


def truth(name, charges_C, **overrides):
    scenario = load(name, **overrides)
    scene = new_scene(scenario, 3)
    start_m, per_m = scenario.cell.front_start_m, scenario.cell.charge_per_m_C
    return scene, [
        next(iter(scene.truth(start_m + charge / per_m).values())) for charge in charges_C
    ]


def test_five_picoamperes_are_sixty_nanometres_per_second():
    _, (before, after) = truth("li_whisker_solid", (0.0, 50e-12))
    assert after["length"] - before["length"] == pytest.approx(10 * 59.66e-9, rel=1e-3)
    assert after["volume"] - before["volume"] == pytest.approx(50e-12 * 1.3494e-10, rel=1e-4)
    came = before["tip_distance"] - after["tip_distance"]
    assert came == pytest.approx((after["length"] - before["length"]) * np.cos(0.12), rel=1e-6)


def test_what_is_covered_is_the_area():
    scene, (found,) = truth("li_whisker_solid", (40e-12,))
    front_m = load("li_whisker_solid").cell.front_start_m
    front_m += 40e-12 / load("li_whisker_solid").cell.charge_per_m_C
    seen = scene.coverage(front_m, (0.0, 0.0))[:, int(scene.root_px) :].sum() * 16e-18
    assert seen == pytest.approx(found["area"], rel=0.01)


def test_a_dendrite_that_is_stripped_leaves_branches_behind():
    _, rows = truth("li_dendrite_liquid", (0.0, 100e-12, 98.9e-12, 60e-12))
    assert rows[1]["branches"] > rows[0]["branches"] == 1
    assert rows[1]["residual_area"] == rows[2]["residual_area"] == 0
    assert 0 < rows[3]["residual_area"] < rows[3]["area"] < rows[1]["area"]
    assert rows[3]["length"] < rows[1]["length"]


def test_a_dendrite_loses_contact_without_a_jump():
    charge_C = np.linspace(100e-12, 60e-12, 81)
    _, rows = truth("li_dendrite_liquid", charge_C)
    length = np.array([row["length"] for row in rows])
    # What 0.5 pC are of the trunk alone is the most that it can lose.
    assert np.all(np.diff(length) < 1e-12)
    assert np.diff(length).min() > -0.5e-12 * 1.3494e-10 / (np.pi / 4 * 100e-9**2) * 1.01


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit into a field"):
        new_scene(load("li_whisker_solid", diameter_m=400e-9), 1)
