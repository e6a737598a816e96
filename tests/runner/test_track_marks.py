"""What names of columns draw, in the view and in the report."""

import math

import pytest

from runner.image_rules import parse_image_rule
from runner.track_marks import Mark, marks_of
from runner.tracking import Found, Seen
from runner.view_marks import marks, track_lines

PIXEL_M = 2e-9
FRONT = {
    "position": 60e-9,
    "position_sigma": 1e-9,
    "x_front_px": 270.0,
    "x_front_sigma_px": 0.5,
    "x_interface_px": 300.0,
    "x_interface_sigma_px": 0.1,
    "drift_dx": 4.0,
    "drift_dy": 1.0,
}
WHISKER = {
    "tip_distance": 400e-9,
    "tip_distance_sigma": 2e-9,
    "tip_x_px": 100.0,
    "tip_y_px": 40.0,
    "root_x_px": 30.0,
    "target_x_px": 300.0,
    "drift_dx": 0.0,
    "drift_dy": -2.0,
}


def seen(name, values, *attributes, valid=True, reason=""):
    found = Found(valid=valid, values=values, reason=reason, attributes=attributes)
    return Seen(7, 10**9, {name: found}, 10**6)


def test_names_make_lines_places_and_circles():
    assert marks_of(["position", "along_px", "x_front_px", "x_front_sigma_px"]) == (
        Mark(thing="front", x="x_front_px", sigma="x_front_sigma_px"),
    )
    assert marks_of(["tip_x_px", "tip_x_px_sigma", "tip_y_px", "level_y_px"]) == (
        Mark(thing="tip", x="tip_x_px", y="tip_y_px", sigma="tip_x_px_sigma"),
        Mark(thing="level", y="level_y_px"),
    )
    assert marks_of(["state_2", "x_px_2", "y_px_2", "area_px_2", "mean_state"]) == (
        Mark(thing="2", x="x_px_2", y="y_px_2", area="area_px_2", state="state_2"),
    )


def test_a_rule_on_a_front_stands_where_the_front_will_have_to_be():
    rule = parse_image_rule("front.position > 90 nm, 3 of 5 frames, then hold")
    front = seen("front", FRONT, "x_interface_px", "x_interface_sigma_px")
    assert marks(front, [rule], PIXEL_M) == [
        {"what": "seen", "thing": "front", "x_px": 266.0},
        {"what": "edge", "thing": "interface", "x_px": 296.0},
        {"what": "rule", "x_px": 251.0, "text": "front.position > 90 nm"},
    ]
    assert track_lines(front, [rule]) == ["front.position 60.0 ± 1.0 nm"]


@pytest.mark.parametrize(("tip", "line"), [(100.0, 175.0), (400.0, 425.0)])
def test_a_rule_on_a_distance_stands_before_the_edge_on_the_side_of_the_tip(tip, line):
    rule = parse_image_rule("distance(whisker.tip, cathode.edge) < 250 nm, then hold")
    drawn = marks(seen("whisker", WHISKER | {"tip_x_px": tip}, "root_x_px"), [rule], PIXEL_M)
    assert {"what": "seen", "thing": "tip", "x_px": tip, "y_px": 42.0} in drawn
    assert {"what": "edge", "thing": "root", "x_px": 30.0} in drawn
    assert drawn[-1] == {"what": "rule", "x_px": line, "text": "distance < 250 nm"}


def test_a_rule_on_a_level_interface_is_a_level_line():
    values = {"position": 40e-9, "interface_y_px": 20.0, "drift_dx": 3.0, "drift_dy": 1.0}
    drawn = marks(seen("profile", values), [parse_image_rule("profile.position < 50 nm")], PIXEL_M)
    assert drawn == [
        {"what": "seen", "thing": "interface", "y_px": 19.0},
        {
            "what": "rule",
            "y_px": pytest.approx(24.0),
            "text": "profile.position < 50 nm",
        },
    ]


def test_what_is_not_seen_is_not_drawn_but_told():
    rule = parse_image_rule("front.position > 90 nm")
    lost = seen("front", FRONT, valid=False, reason="not registered")
    assert marks(lost, [rule], PIXEL_M) == []
    assert track_lines(lost, [rule]) == ["front: not registered"]
    assert track_lines(lost, []) == ["front: not registered"]
    assert marks(None, [rule], PIXEL_M) == []
    unknown = seen("front", FRONT | {"x_front_px": math.nan}, "x_interface_px")
    assert [m["what"] for m in marks(unknown, [], PIXEL_M)] == ["edge"]


def test_areas_are_told_without_a_prefix():
    values = {"area": 2e-14, "area_sigma": 1e-16}
    rule = parse_image_rule("whisker.area > 30000 nm^2")
    assert track_lines(seen("whisker", values), [rule]) == ["whisker.area (2.000 ± 0.010)e-14 m²"]
