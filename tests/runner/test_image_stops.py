"""Steps that end by images: what is foreseen, what an image that fails means, and what is told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from runner.image_judge import Watch
from runner.image_rules import parse_image_rule
from runner.image_stops import ImageStops, patience_for
from runner.ionic_flow import IonicFlow
from runner.messages import HolderTerms
from runner.tracking import Found, Seen

S = 10**9
FRAME_NS = S // 20
POSITION = parse_image_rule("front.position > 400 nm")
DISTANCE = parse_image_rule("distance(whisker.tip, cathode.edge) < 200 nm, 3 of 5 frames")


HOLDER = HolderTerms(capacitance_F=100e-12, conductance_S=0.0, offset_A=0.0)


class Watching:
    """Image stops, and the time that they are asked at."""

    def __init__(self, *rules, holder=None, frame_rate_Hz=20.0):
        self.now_ns = 0
        self.stops = ImageStops(
            now_ns=lambda: self.now_ns,
            flow=IonicFlow(holder),
            patience=patience_for(frame_rate_Hz),
        )
        self.rules = rules

    def read(self, volts, amperes, *, rests, count=1):
        for _ in range(count):
            self.now_ns += FRAME_NS
            self.stops.readings(
                np.array([self.now_ns]), np.array([volts]), np.array([amperes]), rests=rests
            )

    def begin(self):
        self.stops.begin(self.rules)

    def see(self, index, value, sigma=1e-9, *, track="front", name="position", valid=True):
        self.now_ns += FRAME_NS
        values = {name: value, f"{name}_sigma": sigma}
        found = Found(valid, values, "" if valid else "the front has left the field")
        return self.stops.seen(Seen(index, self.now_ns, {track: found}, 1000))


def test_a_step_ends_once_when_enough_frames_say_so():
    watching = Watching(POSITION)
    watching.begin()
    assert all(watching.see(i, 3e-7) is None for i in range(4))
    assert watching.see(4, 4.5e-7) is None
    stop = watching.see(5, 4.6e-7)
    assert (stop.watch, stop.action, stop.frame) == (Watch.MET, "next", 5)
    assert stop.rule is POSITION
    assert stop.reason.startswith("front.position > 400 nm: 460.0 ± 1.0 nm, foreseen ")
    assert watching.see(6, 4.7e-7) is None  # asked for once in a step
    watching.begin()
    assert watching.see(7, 4.7e-7) is None  # the next step knows nothing of the last one
    assert watching.see(8, 4.8e-7).frame == 8


def test_the_event_of_a_stop_holds_the_frames_before_and_what_was_foreseen():
    watching = Watching(POSITION)
    watching.begin()
    for i in range(30):
        stop = watching.see(i, 3.5e-7 + 2e-9 * i)
        if stop is not None:
            break
    data = json.loads(json.dumps(stop.data(), allow_nan=False))
    assert data["frame"] == data["frames_before"][-1]["frame"] == stop.frame
    assert len(data["frames_before"]) == 10
    assert data["prediction"]["value"] > data["value"] - 1e-12
    assert data["rule"] == POSITION.text


def test_the_after_flow_of_the_holder_is_foreseen():
    # 100 pF behind 0.117 V at 5 pA go on for 2.3 s: 200 nm at 86 nm/s.
    watching = Watching(DISTANCE, holder=HOLDER)
    watching.read(3.9, 0.0, rests=True, count=40)
    watching.begin()
    watching.read(4.017, 5e-12, rests=False, count=40)
    assert watching.stops.flow_s == pytest.approx(2.34, rel=1e-6)
    start_m, speed = 900e-9, 86e-9
    for i in range(200):
        distance = start_m - speed * i / 20
        stop = watching.see(i, distance, track="whisker", name="tip_distance")
        if stop is not None:
            break
    ahead_s = stop.flow_s + watching.stops.stop_s
    assert distance - speed * ahead_s == pytest.approx(200e-9, abs=12e-9)
    assert distance - speed * ahead_s > 200e-9 - 3 * speed / 20


def test_a_holder_that_was_not_measured_is_taken_for_the_worst():
    watching = Watching(DISTANCE)
    watching.read(3.9, 0.0, rests=True)
    watching.begin()
    watching.read(4.0, 5e-12, rests=False)
    assert watching.stops.flow_s == pytest.approx(300e-12 * 0.1 / 5e-12)


def test_a_stop_waits_for_the_next_reading():
    watching = Watching(POSITION)
    watching.read(3.9, 0.0, rests=True, count=3)
    watching.now_ns += S
    watching.read(3.9, 0.0, rests=True)
    assert watching.stops.stop_s == pytest.approx(1.05)


@pytest.mark.parametrize(("then", "action"), [("", "hold"), (", then safe state", "safe")])
def test_frames_that_do_not_come_hold_the_plan(then, action):
    watching = Watching(parse_image_rule("front.position > 400 nm" + then))
    watching.begin()
    assert watching.see(0, 3e-7) is None
    assert watching.stops.look() is None
    watching.now_ns += S // 2 + 2
    stop = watching.stops.look()
    assert (stop.watch, stop.action) == (Watch.STALE, action)
    assert "the image is stale: the newest frame is 0.5 s old" in stop.reason
    assert stop.data()["prediction"] == {}


def test_a_track_that_lost_its_object_holds_the_plan():
    watching = Watching(POSITION)
    watching.begin()
    assert watching.see(0, 3e-7) is None
    assert all(watching.see(i, math.nan, math.nan, valid=False) is None for i in range(1, 5))
    stop = watching.see(5, math.nan, math.nan, valid=False)
    assert (stop.watch, stop.action) == (Watch.LOST, "hold")
    assert stop.reason.endswith("the image is lost: the front has left the field")
    json.dumps(stop.data(), allow_nan=False)


def test_a_quantity_that_the_frames_do_not_tell_is_a_lost_one():
    watching = Watching(parse_image_rule("front.width > 40 nm"))
    watching.begin()
    stops = [watching.see(i, 3e-7) for i in range(6)]
    assert stops[-2].watch is Watch.LOST


def test_a_dose_needs_no_track():
    watching = Watching(parse_image_rule("dose > 500 e/angstrom^2, then safe state"))
    watching.begin()
    assert watching.stops.dose(3, 1, 4.9e22) is None
    stop = watching.stops.dose(4, 2, 5.1e22)
    assert (stop.action, stop.reason) == ("safe", "dose > 500 e/angstrom^2, then safe state")


def test_no_step_begins_before_its_tracks_are_followed():
    watching = Watching(POSITION)
    assert watching.stops.not_seen(()) == ""
    assert "no frame of the track 'front'" in watching.stops.not_seen(["front"])
    watching.see(0, 3e-7, valid=False)
    assert "'front' is not followed: the front has left" in watching.stops.not_seen(["front"])
    watching.see(1, 3e-7)
    assert watching.stops.not_seen(["front"]) == ""
    watching.now_ns += S
    assert "is 1 s old" in watching.stops.not_seen(["front"])


def test_between_steps_images_end_nothing():
    watching = Watching(POSITION)
    watching.begin()
    watching.stops.end()
    assert all(watching.see(i, 5e-7) is None for i in range(5))
    watching.now_ns += 10 * S
    assert watching.stops.look() is None


def test_a_slow_camera_is_waited_for_longer():
    assert patience_for(math.nan) == patience_for(400.0)
    slow = patience_for(0.1)
    assert (slow.stale_s, slow.velocity_s) == (30.0, 80.0)
    watching = Watching(POSITION, frame_rate_Hz=0.1)
    watching.begin()
    watching.now_ns += 29 * S
    assert watching.stops.look() is None


def test_areas_are_told_without_prefixes_that_would_be_squared():
    rule = replace(parse_image_rule("front.area_swept > 1 um^2"), confirm=1, of=1)
    watching = Watching(rule)
    watching.begin()
    stop = watching.see(0, 2e-12, 1e-14, name="area_swept")
    assert "(2.000 ± 0.010)e-12 m²" in stop.reason
