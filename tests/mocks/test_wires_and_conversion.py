"""What simulated nanowires and a converting film are, when they are new and in the end."""

import numpy as np
import pytest

from mocks.camera import new_scene
from mocks.scenario import load


def ends(name, track, **overrides):
    scenario = load(name, **overrides)
    scene = new_scene(scenario, 1)
    whole_m = scenario.cell.film_thickness_m
    return scene, whole_m, *(scene.truth(share * whole_m)[track] for share in (0.0, 1.0))


def test_a_silicon_wire_swells_by_280_percent_and_across_more_than_along():
    scene, whole_m, new, full = ends("si_nanowire", "swelling")
    pristine_m, long_m = new["diameter"], new["length"]
    assert pristine_m == pytest.approx(60e-9)
    assert full["length"] / long_m == pytest.approx(1.03)
    assert (full["diameter"] / pristine_m) ** 2 * 1.03 == pytest.approx(3.8, rel=1e-6)
    # What it hides of the beam is as large as its projection.
    dark = 1 - scene.transmission(0.0, (0.0, 0.0))
    size_m2 = scene.camera.pixel_size_m**2
    assert dark.sum() / (1 - 0.45) * size_m2 == pytest.approx(new["area"], rel=0.01)
    assert whole_m == pytest.approx(long_m)


def test_a_crack_opens_where_it_is_told_and_the_wire_keeps_its_length():
    scene, whole_m, new, full = ends(
        "si_nanowire", "swelling", fracture_share=0.5, opening_m=40e-9, length_growth=0.0
    )
    assert (new["cracks"], new["gap"]) == (0.0, 0.0)
    assert full["gap"] == pytest.approx(48e-9)
    assert scene.truth(0.49 * whole_m)["swelling"]["cracks"] == 0
    assert full["length"] == pytest.approx(new["length"])


def test_a_reacted_wire_of_tin_oxide_is_longer_and_wider():
    _, _, new, full = ends("sno2_nanowire", "swelling")
    assert full["length"] / new["length"] == pytest.approx(1.6)
    assert full["diameter"] / new["diameter"] == pytest.approx(1.45, rel=0.01)


@pytest.mark.parametrize("by_front", [0.0, 1.0])
def test_a_film_converts_from_nothing_to_all(by_front):
    scene, whole_m, new, full = ends("fef2_conversion", "conversion", by_front=by_front)
    new_m = load("fef2_conversion").cell.front_start_m
    assert scene.truth(new_m) == {"conversion": new}
    assert new["converted_fraction"] == pytest.approx(0.0, abs=1e-4)
    assert full["converted_fraction"] == pytest.approx(1.0, abs=1e-4)
    half = scene.truth(0.5 * (new_m + whole_m))["conversion"]["converted_fraction"]
    assert half == pytest.approx(0.5, abs=0.01)
    seen = scene.transmission(whole_m, (0.0, 0.0))
    assert seen.mean() == pytest.approx(0.52, abs=0.01)
    assert np.std(seen / seen.mean()) == pytest.approx(0.15, abs=0.02)


def test_a_film_s_fraction_is_of_the_area_in_the_first_frame_wherever_the_stage_stands():
    bare = {"grain_ratio": 0.0, "pristine_texture": 0.0}
    scenario = load("fef2_conversion", **bare)
    scene, cell = new_scene(scenario, 1), scenario.cell
    stands = (-15.0, 4.0)
    before = scene.transmission(cell.front_start_m, stands)
    half = scene.transmission(0.5 * cell.film_thickness_m, stands)
    drifted = scene.transmission(0.5 * cell.film_thickness_m, (-12.0, 4.0))
    true = scene.truth(0.5 * cell.film_thickness_m)["conversion"]["converted_fraction"]
    assert (half - before).mean() / (0.52 - 0.60) == pytest.approx(true, abs=1e-4)
    # The specimen moves with the stage from there on.
    np.testing.assert_allclose(drifted[:, 3:], half[:, :-3])
